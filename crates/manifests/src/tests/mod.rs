//! What users notice of the manifests: the texts of errors, what stays in force, and when.

mod helpers;
mod last_good_set;
mod reading;
mod rules;
mod watching;
