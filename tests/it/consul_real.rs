//! The Consul client against a real Consul: what tasks leave there is found and removed, and nothing else; ACL objects
//! are kept as they are meant.
//!
//! `CONSUL_TEST_BIN` names the program; `test.sh` gets one (1.8, which has no logins by AWS IAM: tasks log in by a JWT
//! here, to an auth method of the usual name). Without it these are skipped.

mod identity;
mod objects;
mod permissions;
pub(crate) mod server;
mod tasks;
