//! Passes the commit that the program is built from to the compiler, for `--version`.

use std::env;
use std::process::Command;

/// The variable that builds without a repository, such as those of an image, set to the commit.
const COMMIT_VARIABLE: &str = "ECS_MESH_COMMIT";

fn main() {
    println!("cargo::rerun-if-env-changed={COMMIT_VARIABLE}");
    println!("cargo::rerun-if-changed=build.rs");
    let commit = git_commit().or_else(|| env::var(COMMIT_VARIABLE).ok()).filter(|commit| !commit.is_empty());
    println!("cargo::rustc-env=ECS_MESH_BUILD_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

/// The commit of the repository whose root is this package: `None` for sources without one.
fn git_commit() -> Option<String> {
    // Sources that were unpacked somewhere inside another repository are not of its commit.
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    // A file that does not exist would cause a run at each build. In a work tree, `.git` is no directory.
    println!("cargo::rerun-if-changed={}", git(&["rev-parse", "--git-path", "HEAD"])?);
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        // HEAD names a branch, and changes when another is checked out. Only releases need to follow each commit; a
        // debug build would compile the program again after each.
        println!("cargo::rerun-if-changed={}", git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
