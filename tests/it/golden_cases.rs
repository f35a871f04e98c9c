//! Golden files that have a case, and below the line `---` its outcome. `UPDATE_GOLDEN=1` renews the outcomes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// The files of a directory in `tests/golden`.
fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(directory);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The case, and the outcome that the file has.
fn halves(text: &str) -> (&str, Option<&str>) {
    text.split_once("\n---\n").map_or((text, None), |(case, expected)| (case, Some(expected)))
}

/// Compares the outcome of each case with that of its file, or renews the files.
pub(crate) fn assert_outcomes<C: DeserializeOwned>(directory: &str, outcome: impl Fn(&C) -> String) {
    let mut wrong = String::new();
    for path in files(directory) {
        if let Err(reason) = check(&path, &outcome) {
            writeln!(wrong, "{}: {reason}", path.file_name().unwrap().display()).unwrap();
        }
    }
    assert!(
        wrong.is_empty(),
        "{wrong}\nUPDATE_GOLDEN=1 renews the files; read the difference before committing it"
    );
}

fn check<C: DeserializeOwned>(path: &Path, outcome: impl Fn(&C) -> String) -> Result<(), String> {
    let text = fs::read_to_string(path).unwrap();
    let (above, expected) = halves(&text);
    let case: C = serde_saphyr::from_str(above).map_err(|error| format!("cannot be read: {error}"))?;
    let found = outcome(&case);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, format!("{}\n---\n{found}", above.trim_end())).unwrap();
        return Ok(());
    }
    match expected {
        None => Err("has no line `---` with an expectation below it".to_owned()),
        Some(expected) if expected == found => Ok(()),
        Some(expected) => Err(format!("expected\n{expected}\nfound\n{found}")),
    }
}

/// Each file is a case with a comment, and none was deleted.
pub(crate) fn assert_comments(directory: &str, fewest: usize) {
    let paths = files(directory);
    assert!(paths.len() >= fewest, "{} cases are left", paths.len());
    for path in paths {
        assert_eq!(path.extension().unwrap(), "yaml", "{}", path.display());
        assert!(fs::read_to_string(&path).unwrap().starts_with("# "), "{} has no comment", path.display());
    }
}
