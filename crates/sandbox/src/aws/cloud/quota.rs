//! Request quotas and call counts. A throttled call takes no token, but is counted.

use std::collections::BTreeMap;

use crate::aws::{AwsApiError, AwsApiResult, Cloud, Throttling};
use ecs_mesh_model::Timestamp;

/// Levels of the buckets, and call counts.
#[derive(Debug)]
pub(super) struct Quota {
    throttling: Option<Throttling>,
    levels: Vec<(f64, Timestamp)>,
    calls: BTreeMap<String, u64>,
}

impl Quota {
    pub(super) fn new(throttling: Option<Throttling>, now: Timestamp) -> Self {
        let levels = throttling.iter().flat_map(|t| &t.buckets).map(|bucket| (bucket.burst, now)).collect();
        Self { throttling, levels, calls: BTreeMap::new() }
    }

    fn take(&mut self, call: &str, now: Timestamp) -> bool {
        let Some(throttling) = &self.throttling else { return true };
        let mut named = Vec::new();
        for (index, bucket) in throttling.buckets.iter().enumerate() {
            if !bucket.operations.iter().any(|operation| operation == call) {
                continue;
            }
            let (level, at) = &mut self.levels[index];
            let gained = at.age_at(now).as_secs_f64() * bucket.per_second;
            *level = (*level + gained).min(bucket.burst);
            *at = now;
            if *level < 1.0 {
                return false;
            }
            named.push(index);
        }
        for index in named {
            self.levels[index].0 -= 1.0;
        }
        true
    }
}

impl Cloud {
    /// Counts a call and takes its token. The endpoint does this for each request; direct callers of operations do it
    /// if they want quotas.
    pub fn admit(&mut self, service: &str, operation: &str, now: Timestamp) -> AwsApiResult<()> {
        let call = format!("{service}.{operation}");
        let admitted = self.quota.take(&call, now);
        *self.quota.calls.entry(call).or_default() += 1;
        if admitted { Ok(()) } else { Err(AwsApiError::throttled(service)) }
    }

    /// Number of calls of each `service.Operation`, including throttled calls.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.quota.calls.clone()
    }
}

#[cfg(test)]
mod tests {
    use crate::aws::{Cloud, CloudConfig, Throttling};
    use ecs_mesh_model::Timestamp;

    #[test]
    fn list_and_describe_share_a_bucket_of_20_per_second() {
        let config = CloudConfig { throttling: Some(Throttling::published()), ..CloudConfig::default() };
        let mut cloud = Cloud::new(config, Timestamp(0));
        for _ in 0..50 {
            cloud.admit("ecs", "ListTasks", Timestamp(0)).unwrap();
            cloud.admit("ecs", "DescribeTasks", Timestamp(0)).unwrap();
        }
        let refused = cloud.admit("ecs", "DescribeTasks", Timestamp(0)).unwrap_err();
        assert_eq!((refused.code, refused.status), ("ThrottlingException", 400));
        assert!(cloud.admit("ecs", "DescribeContainerInstances", Timestamp(0)).is_err(), "shares the bucket");
        assert!(cloud.admit("ecs", "DescribeTaskDefinition", Timestamp(0)).is_ok(), "has its own bucket");
        let admitted = (0..30).filter(|_| cloud.admit("ecs", "ListTasks", Timestamp(1000)).is_ok()).count();
        assert_eq!(admitted, 20);
        assert_eq!(cloud.calls()["ecs.DescribeTasks"], 51);
    }
}
