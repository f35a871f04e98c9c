//! Whether a text can be meant for the ARN of an ECS cluster.

use super::Report;
use crate::manifests::finding::quoted;
use crate::model::{ClusterArn, Glob};

/// What every cluster's ARN looks like, in any partition.
const SHAPE: &str = "arn:aws*:ecs:?*:????????????:cluster/?*";

/// Reports each entry that can match no cluster.
pub(super) fn check(path: &str, clusters: &[Glob], report: &mut Report<'_>) {
    for (index, glob) in clusters.iter().enumerate() {
        let (path, text) = (format!("{path}[{index}]"), glob.as_str());
        let can_match = if glob.is_literal() { ClusterArn::parse(text).is_ok() } else { overlap(text, SHAPE) };
        if can_match {
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

/// Whether some text matches both patterns.
fn overlap(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // reachable[j]: the first i bytes of `a` and the first j of `b` can stand for the same text.
    let mut reachable = vec![false; b.len() + 1];
    for i in 0..=a.len() {
        let mut diagonal = false;
        for j in 0..=b.len() {
            let above = reachable[j];
            let left = j > 0 && reachable[j - 1];
            let star_a = i > 0 && a[i - 1] == b'*';
            let star_b = j > 0 && b[j - 1] == b'*';
            let both = i > 0 && j > 0 && diagonal && same(a[i - 1], b[j - 1]);
            // A star stands for nothing (what was reachable before it), or for one more byte of the other side.
            reachable[j] = (i == 0 && j == 0)
                || both
                || (i > 0 && above && (star_a || star_b))
                || (j > 0 && left && (star_a || star_b));
            diagonal = above;
        }
    }
    reachable[b.len()]
}

fn same(a: u8, b: u8) -> bool {
    a == b || a == b'?' || b == b'?' || a == b'*' || b == b'*'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_overlap_when_one_text_fits_both() {
        for (pattern, expected) in [
            ("*", true),
            ("arn:*", true),
            ("*:cluster/prod-*", true),
            ("*cluster/prod", true),
            ("arn:aws:ecs:eu-west-1:111122223333:cluster/prod-*", true),
            ("arn:aws-us-gov:ecs:*:*:cluster/?", true),
            ("arn:aws:ecs:*:11112222333?:cluster/a", true),
            ("prod-*", false),
            ("arn:aws:iam::*:role/x", false),
            ("arn:aws:ecs:*:*:service/*", false),
            ("arn:aws:ecs:eu-west-1:1111:cluster/prod-?", false),
        ] {
            assert_eq!(overlap(pattern, SHAPE), expected, "{pattern}");
        }
    }
}
