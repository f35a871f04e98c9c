//! What is to be done about Consul's identity set-up.

mod objects;

pub use objects::{
    ActualObjects, Holders, ObjectAction, ObjectStep, does_the_same, needs_no_look, plan_objects,
};
