//! What should be of Consul's identity set-up.

pub mod identity;
