//! Output: tables, documents, and text that no terminal obeys.

pub mod columns;
pub mod description;
pub mod document;
pub mod explanation;
pub mod printer;
pub mod status;
pub mod table;
