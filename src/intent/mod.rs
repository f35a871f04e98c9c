//! What *should be*: pure functions from observed facts and manifests to a verdict.

mod desired;

pub use desired::{Desired, Marks, Outbounds, RegistrationId};
