//! The live page: files of the browser that the program carries.
//!
//! `assets/` has plain modules without a build step, and one vendored library for layouts ([0045]). The page reads the API
//! beside it and nothing else: its policy forbids scripts, styles and connections of other origins, inline scripts, and text
//! that becomes HTML.
//!
//! [0045]: https://github.com/ecs-mesh/ecs-mesh-operator/blob/main/docs/decisions/0045-live-page.md

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

/// The content security policy of the page's files.
pub(super) const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types 'none'";

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asset {
    /// Its media type.
    pub(super) content_type: &'static str,
    /// Its content.
    pub(super) content: &'static [u8],
    /// A digest of its content, in quotes.
    pub(super) etag: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

macro_rules! assets {
    ($($name:literal: $content_type:ident,)*) => {
        &[$(($name, $content_type, include_bytes!(concat!("assets/", $name)))),*]
    };
}

/// Name below `assets/`, media type, content.
const ASSETS: &[(&str, &str, &[u8])] = assets! {
    "app.css": CSS,
    "app.js": SCRIPT,
    "icon.svg": SVG,
    "icons.svg": SVG,
    "index.html": HTML,
    "lib/api.js": SCRIPT,
    "lib/data.js": SCRIPT,
    "lib/dom.js": SCRIPT,
    "lib/format.js": SCRIPT,
    "lib/graph.js": SCRIPT,
    "lib/history.js": SCRIPT,
    "lib/keys.js": SCRIPT,
    "lib/live.js": SCRIPT,
    "lib/mesh.js": SCRIPT,
    "lib/parts.js": SCRIPT,
    "lib/routes.js": SCRIPT,
    "lib/search.js": SCRIPT,
    "lib/states.js": SCRIPT,
    "lib/table.js": SCRIPT,
    "theme.js": SCRIPT,
    "vendor/README.md": TEXT,
    "vendor/dagre.LICENSE.txt": TEXT,
    "vendor/dagre.esm.js": SCRIPT,
    "views/changes.js": SCRIPT,
    "views/overview.js": SCRIPT,
    "views/service.js": SCRIPT,
    "views/services.js": SCRIPT,
    "views/status.js": SCRIPT,
    "views/task.js": SCRIPT,
    "views/tasks.js": SCRIPT,
    "views/warnings.js": SCRIPT,
};

/// The files by name, with digests that are made once.
static BY_NAME: LazyLock<BTreeMap<&str, Asset>> = LazyLock::new(|| {
    let asset = |&(name, content_type, content): &(&'static str, &'static str, &'static [u8])| {
        // Lives as long as the static that it is made for.
        let etag = format!("\"{}\"", &sha256(content)[..32]).leak();
        (name, Asset { content_type, content, etag })
    };
    ASSETS.iter().map(asset).collect()
});

/// The SHA-256 of the content, in hexadecimal.
fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The file at this path of a request: `/` is the page itself, and its parts are below `/assets/`.
pub(super) fn find(path: &str) -> Option<Asset> {
    let name = if path == "/" { Some("index.html") } else { path.strip_prefix("/assets/") };
    name.and_then(|name| BY_NAME.get(name)).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn files(below: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    fn text(name: &str) -> &'static str {
        std::str::from_utf8(BY_NAME[name].content).unwrap()
    }

    #[test]
    fn program_carries_each_file_of_the_page() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/read_api/page/assets");
        let found: BTreeSet<String> =
            files(&root).iter().map(|file| file.strip_prefix(&root).unwrap().display().to_string()).collect();
        let carried: BTreeSet<String> = BY_NAME.keys().map(ToString::to_string).collect();
        assert_eq!(found, carried);
    }

    #[test]
    fn vendored_files_have_the_sums_of_their_readme() {
        let rows: Vec<&str> =
            text("vendor/README.md").lines().filter(|line| line.starts_with("| `")).collect();
        let vendored =
            BY_NAME.keys().filter(|name| name.starts_with("vendor/") && **name != "vendor/README.md");
        assert_eq!(vendored.clone().count(), rows.len());
        for name in vendored {
            let file = name.trim_start_matches("vendor/");
            let row = rows.iter().find(|row| row.starts_with(&format!("| `{file}`"))).unwrap();
            assert!(row.contains(&sha256(BY_NAME[name].content)), "{file}");
        }
    }

    fn is_module(name: &str) -> bool {
        std::path::Path::new(name).extension().is_some_and(|extension| extension == "js")
    }

    #[test]
    fn page_preloads_each_module_that_it_imports() {
        let preloaded = text("index.html").matches("rel=\"modulepreload\"").count();
        for name in BY_NAME.keys().filter(|name| name.contains('/') && is_module(name)) {
            assert!(text("index.html").contains(&format!("href=\"assets/{name}\"")), "{name}");
        }
        let modules = BY_NAME.keys().filter(|name| name.contains('/') && is_module(name)).count();
        assert_eq!(preloaded, modules);
    }

    #[test]
    fn own_modules_never_turn_text_into_html() {
        let own = BY_NAME.keys().filter(|name| is_module(name) && !name.starts_with("vendor/"));
        for name in own {
            for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "setHTML"]
            {
                assert!(!text(name).contains(sink), "{name}: {sink}");
            }
        }
    }

    #[test]
    fn page_names_no_other_host() {
        for name in BY_NAME.keys().filter(|name| !name.starts_with("vendor/")) {
            let hosts = text(name).replace("http://www.w3.org/", "");
            assert!(!hosts.contains("http://") && !hosts.contains("https://"), "{name}");
        }
    }

    #[test]
    fn only_known_paths_have_a_file() {
        for (path, is_found) in [
            ("/", true),
            ("/assets/app.js", true),
            ("/assets/vendor/dagre.esm.js", true),
            ("/index.html", false),
            ("/assets/", false),
            ("/assets/../page/mod.rs", false),
            ("/assets//app.js", false),
            ("", false),
        ] {
            assert_eq!(find(path).is_some(), is_found, "{path}");
        }
    }
}
