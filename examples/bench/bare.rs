//! The bare loop: the same client as the operator's, the same number of receivers; receive 10, delete them, nothing
//! else. What the queue, the SDK and the machine allow at most.

use std::sync::Arc;

use ecs_mesh_aws::aws::EventQueue;
use ecs_mesh_aws::sdk::{AwsClients, AwsOptions};
use tokio::task::JoinSet;

/// Receives and deletes until it is ended.
///
/// # Errors
/// In words.
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
    // None of them ends but by an error.
    match receiving.join_next().await {
        Some(Ok(ended)) => ended,
        _ => Err("a receiver broke down".to_owned()),
    }
}
