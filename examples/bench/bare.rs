//! The bare loop: receives 10 messages and deletes them, with the operator's client and number of receivers. Measures
//! the limit of queue, SDK and machine.

use std::sync::Arc;

use ecs_mesh_aws::aws::EventQueue;
use ecs_mesh_aws::sdk::{AwsClients, AwsOptions};
use tokio::task::JoinSet;

/// Receives and deletes until the process is killed.
///
/// # Errors
/// Describes the failure.
pub(crate) async fn run(queue_url: &str, receivers: usize) -> Result<(), String> {
    let aws = AwsClients::connect(AwsOptions::default()).await.map_err(|error| error.to_string())?;
    let queue = Arc::new(aws.queue(queue_url).map_err(|error| error.to_string())?);
    let mut receiving = JoinSet::new();
    for _ in 0..receivers {
        let queue = Arc::clone(&queue);
        receiving.spawn(async move {
            loop {
                let messages = queue.receive().await.map_err(|error| error.to_string())?;
                let receipts: Vec<String> = messages.into_iter().map(|message| message.receipt).collect();
                if !receipts.is_empty() {
                    queue.delete(&receipts).await.map_err(|error| error.to_string())?;
                }
            }
        });
    }
    // A receiver ends only by an error.
    match receiving.join_next().await {
        Some(Ok(ended)) => ended,
        _ => Err("a receiver panicked".to_owned()),
    }
}
