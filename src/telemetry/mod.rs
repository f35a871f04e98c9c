//! What the operator tells of itself.
//!
//! | file | decides |
//! |---|---|
//! | [`state`] | what there is to tell at one moment, and whether the operator is ready |
//! | [`metrics`] | what is counted, and how it is named |
//! | [`server`] | how all of that is asked for over HTTP |
//! | [`log`] | what is logged, and how |

pub mod log;
pub mod metrics;
pub mod server;
pub mod state;
