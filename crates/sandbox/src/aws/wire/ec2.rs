//! The operations of EC2.

use serde_json::Value;

use super::request::AwsRequest;
use crate::aws::{AwsApiError, AwsApiResult, Cloud};
use ecs_mesh_model::Timestamp;

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    cloud.caller_identity(&request.access_key_id, now)?;
    if request.operation != "DescribeInstances" {
        return Err(request.unknown_operation());
    }
    if request.form.get("Filter.1.Name").is_none_or(|name| name != "instance-id") {
        let message = "this emulator filters by instance-id only";
        return Err(AwsApiError::new("InvalidParameterValue", message));
    }
    let include_managed = request.form.get("IncludeManagedResources").is_some_and(|value| value == "true");
    let ids = (1..).map_while(|index| request.form.get(&format!("Filter.1.Value.{index}")).cloned());
    Ok(cloud.describe_instances(&ids.collect::<Vec<_>>(), include_managed))
}
