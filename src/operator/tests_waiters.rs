//! Tasks whose task definition is not read yet keep no others waiting.

use std::time::Duration;

use tokio::time::sleep;

use super::test_fixture::{OperatorFixture, workloads};
use ecs_mesh_aws::fakes::definition_arn;
use ecs_mesh_model::TaskGroup;

/// 300 definitions take 26 s at the default rate, and hold more tasks than there are workers.
#[tokio::test(start_paused = true)]
async fn tasks_of_known_definitions_do_not_wait_for_others() {
    let mut fixture = OperatorFixture::new(&[("fast", 1), ("slow", 300), ("fast", 100)]);
    let slow = TaskGroup::parse("service:slow");
    for (n, task) in
        fixture.ecs.tasks.lock().unwrap().values_mut().filter(|task| task.group == slow).enumerate()
    {
        task.definition = definition_arn(n + 2);
    }
    // The definition has the role.
    fixture.role_tags = "warn";
    fixture.edit(&workloads(&["slow", "fast"]));
    fixture.start();
    sleep(Duration::from_secs(6)).await;
    let serving = fixture.serving();
    assert_eq!(serving["fast"], 101, "{serving:?}");
    assert!(serving["slow"] < 300, "{serving:?}");
    sleep(Duration::from_secs(30)).await;
    assert_eq!(fixture.serving()["slow"], 300);
}
