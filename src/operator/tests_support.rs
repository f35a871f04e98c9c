//! A control plane that is not supported for some time.

use std::time::Duration;

use tokio::time::sleep;

use super::test_fixture::{OperatorFixture, workloads};

impl OperatorFixture {
    fn is_supported(&self) -> bool {
        let workers = self.operator.as_ref().unwrap().workers();
        workers.values().all(|worker| worker.unsupported().is_none())
    }
}

/// With nothing to write, nothing else would look before the next sweep, which is a day later here.
#[tokio::test(start_paused = true)]
async fn control_plane_that_is_supported_again_is_found_without_a_write() {
    let mut fixture = OperatorFixture::new(&[("a", 1)]);
    fixture.kuma.lock().unwrap().set_version("4.0.1");
    fixture.edit(&workloads(&[]));
    fixture.start();
    sleep(Duration::from_secs(20)).await;
    assert!(!fixture.is_supported());
    fixture.kuma.lock().unwrap().set_version("2.14.3");
    sleep(Duration::from_mins(1)).await;
    assert!(fixture.is_supported());
}
