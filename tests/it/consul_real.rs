//! The Consul client against real Consul servers: finds and removes exactly the objects of stopped tasks, and keeps ACL
//! objects as declared.
//!
//! `CONSUL_TEST_BIN` names a Consul 1.8, older than the operator supports but freely packaged. `test.sh` installs it. Without logins by AWS
//! IAM, tasks log in with a JWT to an auth method of the usual name. `CONSUL_BIN` names a Consul 1.12 or later for the
//! same tests. Tests of a server that is not named are skipped.

/// Runs each test against the oldest Consul and a newer one.
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
mod locks;
mod objects;
mod permissions;
pub(crate) mod server;
mod tasks;
