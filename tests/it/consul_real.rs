//! The Consul client against real Consuls: what tasks leave there is found and removed, and nothing else; ACL objects
//! are kept as they are meant.
//!
//! `CONSUL_TEST_BIN` names the oldest that is looked after; `test.sh` gets one (1.8, which has no logins by AWS
//! IAM: tasks log in by a JWT here, to an auth method of the usual name). `CONSUL_BIN` may name a newer one, of 1.12 or
//! later, at which the same is tested. Where one is not named, its tests are skipped.

/// Each of these at the oldest Consul and at a newer one.
macro_rules! at_real_consuls {
    ($($test:ident($acls:expr))+) => {
        mod at_the_oldest {
            at_real_consuls! { @at Oldest: $($test($acls))+ }
        }
        mod at_a_newer {
            at_real_consuls! { @at Newer: $($test($acls))+ }
        }
    };
    (@at $release:ident: $($test:ident($acls:expr))+) => {
        use crate::consul_real::server::{Acls, ConsulRelease, RealConsul};
        $(
            #[tokio::test]
            async fn $test() {
                let what = stringify!($test).replace('_', " ");
                let Some(server) = RealConsul::start(ConsulRelease::$release, &what, $acls).await else { return };
                super::$test(&server).await;
            }
        )+
    };
}

mod blocking_queries;
mod identity;
mod objects;
mod permissions;
pub(crate) mod server;
mod tasks;
