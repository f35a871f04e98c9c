//! Rules of `MeshBinding.spec.tokens`.

use super::FindingCollector;
use crate::limits::{KMS_KEY_RULE, TOKEN_PATH_RULE};
use crate::manifests::finding::quoted;
use crate::{HumanDuration, TokenPolicy, limits};

const MAX_PARTS: usize = 8;
const MAX_PATH: usize = 200;

pub(super) fn check(tokens: &TokenPolicy, report: &mut FindingCollector<'_>) {
    let TokenPolicy { issue, store: _, path, kms_key, valid_for, rotate_before, overlap } = tokens;
    match path {
        None if *issue => report.add(
            "spec.tokens.path",
            "is missing: name the path of the stored tokens, such as /ecs-mesh/prod",
        ),
        Some(path) if !is_path(path) => {
            report.add("spec.tokens.path", format!("{} is no path: write {TOKEN_PATH_RULE}", quoted(path)));
        }
        _ => {}
    }
    if let Some(key) = kms_key.as_deref().filter(|key| !is_kms_key(key)) {
        report.add("spec.tokens.kmsKey", format!("{} is no KMS key: write {KMS_KEY_RULE}", quoted(key)));
    }
    for (path, value, allowed) in [
        ("spec.tokens.validFor", valid_for, limits::TOKEN_VALID_FOR),
        ("spec.tokens.rotateBefore", rotate_before, limits::TOKEN_ROTATE_BEFORE),
        ("spec.tokens.overlap", overlap, limits::TOKEN_OVERLAP),
    ] {
        report.duration(path, *value, allowed);
    }
    if rotate_before.0 > valid_for.0 / 2 {
        let half = HumanDuration(valid_for.0 / 2);
        report.add(
            "spec.tokens.rotateBefore",
            format!("{rotate_before} is more than half of validFor: write at most {half}"),
        );
    }
    if overlap.0 > rotate_before.0 {
        report.add(
            "spec.tokens.overlap",
            format!("{overlap} is longer than a replaced token is valid: write at most {rotate_before}, the rotateBefore"),
        );
    }
}

fn is_path(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let is_part = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    };
    let is_reserved = parts
        .get(1)
        .is_some_and(|first| ["aws", "ssm"].iter().any(|name| first.to_ascii_lowercase().starts_with(name)));
    path.len() <= MAX_PATH
        && (2..=MAX_PARTS + 1).contains(&parts.len())
        && parts[0].is_empty()
        && parts[1..].iter().all(is_part)
        && !is_reserved
}

fn is_kms_key(key: &str) -> bool {
    !key.is_empty()
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'/' | b'_' | b'-'))
}

/// Whether entries of one path may lie below the other.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    let is_below = |path: &str, of: &str| {
        path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    is_below(one, other) || is_below(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_has_parts_after_slashes() {
        for (path, expected) in [
            ("/ecs-mesh/prod", true),
            ("/a/b/c/d/e/f/g/h", true),
            ("/a/b/c/d/e/f/g/h/i", false),
            ("ecs-mesh", false),
            ("/", false),
            ("/a/", false),
            ("/a//b", false),
            ("/a b", false),
            ("/aws/x", false),
            ("/SSMx", false),
        ] {
            assert_eq!(is_path(path), expected, "{path}");
        }
    }

    #[test]
    fn paths_overlap_where_one_is_below_the_other() {
        for (one, other, expected) in [
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a/b", "/a", true),
            ("/a", "/ab", false),
            ("/a/b", "/a/c", false),
        ] {
            assert_eq!(overlap(one, other), expected, "{one} {other}");
        }
    }
}
