//! Checks that a pattern can match the ARN of an ECS cluster.

use super::FindingCollector;
use crate::manifests::finding::quoted;
use ecs_mesh_model::{ClusterArn, Glob};

/// The shape of cluster ARNs in all partitions: `#` is a character within a part, `~` any number of them.
const SHAPE: &str = "arn:aws~:ecs:#~:############:cluster/#~";

/// Reports each entry that can match no cluster.
pub(super) fn check(path: &str, clusters: &[Glob], report: &mut FindingCollector<'_>) {
    for (index, glob) in clusters.iter().enumerate() {
        let (path, text) = (format!("{path}[{index}]"), glob.as_str());
        let can_match_any =
            if glob.is_literal() { ClusterArn::parse(text).is_ok() } else { can_match(text, SHAPE) };
        if can_match_any {
            continue;
        }
        let found = quoted(text);
        if text.contains([':', '/']) {
            let allowed = "arn:PARTITION:ecs:REGION:ACCOUNT:cluster/NAME, with * and ? where it may vary";
            report.add(path, format!("{found} matches no cluster's ARN: write {allowed}"));
        } else {
            let message = format!(
                "{found} is a cluster's name, and names recur in other Regions and accounts: write the ARN, such as \
                 arn:aws:ecs:eu-west-1:111122223333:cluster/{text}, or *:cluster/{text} for all of that name"
            );
            report.add(path, message);
        }
    }
}

/// Whether some text matches the pattern and has the shape.
fn can_match(pattern: &str, shape: &str) -> bool {
    let (a, b) = (pattern.as_bytes(), shape.as_bytes());
    // reachable[j]: the first i bytes of the pattern and the first j of the shape can match the same text.
    let mut reachable = vec![false; b.len() + 1];
    for i in 0..=a.len() {
        let mut diagonal = false;
        for j in 0..=b.len() {
            let above = i > 0 && reachable[j];
            let left = j > 0 && reachable[j - 1];
            let star = i > 0 && a[i - 1] == b'*';
            let run = j > 0 && b[j - 1] == b'~';
            let one_each = i > 0 && j > 0 && diagonal && fits(a[i - 1], b[j - 1]);
            diagonal = reachable[j];
            // A star matches nothing, or one more byte of the shape; a run likewise one of the pattern.
            reachable[j] = (i == 0 && j == 0)
                || one_each
                || (above && (star || (run && fits(a[i - 1], b'#'))))
                || (left && (star || run));
        }
    }
    reachable[b.len()]
}

fn fits(pattern: u8, shape: u8) -> bool {
    match shape {
        b'#' | b'~' => !matches!(pattern, b':' | b'/'),
        _ => pattern == shape || matches!(pattern, b'*' | b'?'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_must_match_some_cluster_arn() {
        for (pattern, expected) in [
            ("*", true),
            ("arn:*", true),
            ("*:cluster/prod-*", true),
            ("*cluster/prod", true),
            ("arn:aws:ecs:eu-west-1:111122223333:cluster/prod-*", true),
            ("arn:aws-us-gov:ecs:*:*:cluster/?", true),
            ("arn:aws:ecs:*:11112222333?:cluster/a", true),
            ("arn:aws:ecs:eu-west-1:*/prod", true),
            ("prod-*", false),
            ("*:cluster/", false),
            ("arn:aws:ecs:*:111122223333:cluster", false),
            ("arn:aws:iam::*:role/x", false),
            ("arn:aws:ecs:*:*:service/*", false),
            ("arn:aws:ecs:eu-west-1:1111:cluster/prod-?", false),
        ] {
            assert_eq!(can_match(pattern, SHAPE), expected, "{pattern}");
        }
    }
}
