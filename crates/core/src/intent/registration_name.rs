//! The name of a registration, by the template of the binding.

use std::sync::Arc;

use super::task_address::TaskAddress;
use super::{HoldReason, Verdict};
use ecs_mesh_api::WorkloadSpec;
use ecs_mesh_model::{Reason, Task};

/// The registration's name by the template. Kuma requires a DNS-1123 subdomain of at most 253 characters, without `_`.
pub(super) fn registration_name(
    template: &str,
    workload: &WorkloadSpec,
    task: &Task,
    place: TaskAddress,
) -> Result<Arc<str>, Verdict> {
    let mut name = template
        .replace("{taskId}", task.arn.id().as_str())
        .replace("{service}", &workload.service.as_str().to_ascii_lowercase().replace([':', '_'], "-"));
    if place.is_shared && !template.contains("{taskId}") {
        return Err(unusable(
            "dataplaneName names all tasks of a container instance alike (network mode host); put {taskId} in it",
        ));
    }
    if name.contains("{hostname}") {
        let Some(v4) = place.v4 else {
            let message = "dataplaneName has {hostname}, and the task has only an IPv6 address; use {taskId}";
            return Err(unusable(message));
        };
        let [a, b, c, d] = v4.octets();
        name = name.replace("{hostname}", &format!("ip-{a}-{b}-{c}-{d}"));
    }
    let fits = name.len() <= 253
        && name.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        });
    if fits {
        Ok(name.into())
    } else {
        let message = format!(
            "dataplaneName {template:?} gives {name:?}; allowed are lower-case letters, digits, '-' and '.', each part \
             between dots starting and ending with a letter or digit, at most 253 characters; use {{taskId}}"
        );
        let reason = Reason::new(format!("dataplaneName {template:?}"), message);
        Err(Verdict::Hold(HoldReason::Unusable(reason)))
    }
}

fn unusable(message: &'static str) -> Verdict {
    Verdict::Hold(HoldReason::Unusable(Reason::constant(message)))
}
