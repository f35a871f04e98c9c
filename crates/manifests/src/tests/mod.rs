//! The behaviour of manifests that users notice: error texts, the set in force, and reactions to changes.

mod helpers;
mod last_good_set;
mod reading;
mod remote;
mod rules;
mod validation;
mod watching;
