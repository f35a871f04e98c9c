//! What every subcommand takes that looks at a set-up: who the operator is, its manifests, its queue and its Region.

use std::path::PathBuf;

use crate::model::OperatorId;

/// The set-up that a subcommand works on. Flattened into the arguments of each.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Setup {
    /// Stable identity of this operator, written on everything that it registers; another id never touches it.
    #[arg(long, env = "ECS_MESH_OPERATOR_ID", value_parser = operator_id)]
    pub(super) operator_id: OperatorId,

    /// Manifest files or directories (*.yaml, *.yml, *.json).
    #[arg(long, env = "ECS_MESH_MANIFESTS", required = true, value_delimiter = ',', num_args = 1..)]
    pub(super) manifests: Vec<PathBuf>,

    /// SQS queue with the EventBridge events. Without it changes are found by sweeps only.
    #[arg(long, env = "ECS_MESH_QUEUE_URL")]
    pub(super) queue_url: Option<String>,

    /// AWS Region [default: that of the environment].
    #[arg(long)]
    pub(super) region: Option<String>,
}

fn operator_id(text: &str) -> Result<OperatorId, String> {
    OperatorId::parse(text).map_err(|error| error.to_string())
}
