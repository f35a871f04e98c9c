//! Consul's side of the world: what a platform team sets up there, what others have left there, and what tasks do there
//! by themselves.

mod home;
mod members;
mod planted;

pub use home::{CLIENT_METHOD, ConsulHome, LOGIN_METHOD, MANAGEMENT_TOKEN, SERVICE_TAG, a_persons_token};
pub use members::Membership;
pub use planted::Planted;

pub(super) use members::Members;
pub(super) use planted::plant;
