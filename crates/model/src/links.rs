//! Addresses of this project's pages, for output and logs.

/// The address of the source repository.
pub const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

/// The tag or branch whose pages describe this build: the version's tag in a release, which is built with
/// `ECS_MESH_RELEASE` set, and `main` in any other build, whose version may have no tag yet.
const PAGES_OF: &str = match option_env!("ECS_MESH_RELEASE") {
    Some(text) if !text.is_empty() => concat!("v", env!("CARGO_PKG_VERSION")),
    _ => "main",
};

/// The URL of a page, such as `reference/audit.md#output`, as it was for this build.
pub fn docs_url(page: &str) -> String {
    format!("{REPOSITORY}/blob/{PAGES_OF}/docs/{page}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_a_development_build_are_those_of_main() {
        let version = option_env!("ECS_MESH_RELEASE").filter(|text| !text.is_empty());
        let at = version.map_or("main", |_| concat!("v", env!("CARGO_PKG_VERSION")));
        assert_eq!(
            docs_url("how-to/observe.md#a"),
            format!("{REPOSITORY}/blob/{at}/docs/how-to/observe.md#a")
        );
        assert!(REPOSITORY.starts_with("https://"));
    }
}
