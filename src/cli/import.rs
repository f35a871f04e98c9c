//! `ecs-mesh-operator import`.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::import_consul::ConsulArgs;
use super::import_text::render_text;
use super::output::{print, to_json};
use super::terminal;
use ecs_mesh_controller::{ReadFileError, read_file};
use ecs_mesh_import::{
    ImportFailure, ImportOptions, Imported, ImportedManifest, SourceFile, import_app_mesh, import_consul,
    import_dataplanes,
};
use ecs_mesh_model::{Glob, MeshName};

/// Limit of an input file, and of standard input.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Exit code of a report that asks for action.
const EXIT_ACTION: u8 = 2;

/// The path that means standard input; a file of this name is `./-`.
const STDIN: &str = "-";

/// Arguments of `import`.
#[derive(clap::Args)]
pub(super) struct ImportArgs {
    /// Kind of input
    #[arg(value_enum, value_name = "KIND")]
    kind: ImportKind,

    /// Files, or directories with them; `-` reads standard input
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Write a file for each manifest into this directory instead of printing them
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,

    /// Overwrite files that differ
    #[arg(long, requires = "output_dir")]
    force: bool,

    /// Format of the report: `text` or `json`
    #[arg(long, value_enum, default_value = "text")]
    report: ReportFormat,

    /// Name of the `ControlPlane` [default: kuma, or consul for `consul`]
    #[arg(long, value_name = "NAME")]
    control_plane: Option<String>,

    /// Address of the control plane's API
    #[arg(long, value_name = "URL")]
    address: Option<String>,

    /// Mesh at Kuma [default: that of the input]
    #[arg(long, value_name = "NAME", value_parser = mesh)]
    mesh: Option<MeshName>,

    /// Clusters of the tasks: ARNs, or patterns over them
    #[arg(long, value_name = "ARN", value_delimiter = ',')]
    cluster: Vec<String>,

    /// ECS tags that tasks must have to be selected
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = tag)]
    task_tag: Vec<(String, String)>,

    #[command(flatten)]
    consul: ConsulArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ImportKind {
    /// Resources of AWS App Mesh, as the AWS CLI or CloudFormation has them
    AppMesh,
    /// Kuma's Dataplanes and zone proxies, their templates, and task definitions and CloudFormation with such templates
    Dataplanes,
    /// ACL objects of a live Consul for logins of ECS tasks
    Consul,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ReportFormat {
    Text,
    Json,
}

fn mesh(text: &str) -> Result<MeshName, String> {
    MeshName::parse(text).map_err(|error| error.to_string())
}

fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// An import of files.
type FileImport = fn(&[SourceFile], &ImportOptions) -> Result<Imported, ImportFailure>;

impl ImportArgs {
    pub(super) async fn run(&self) -> Result<ExitCode, String> {
        let default = if self.kind == ImportKind::Consul { "consul" } else { "kuma" };
        let options = ImportOptions {
            control_plane: self.control_plane.clone().unwrap_or_else(|| default.to_owned()),
            address: self.address.clone(),
            mesh: self.mesh.clone(),
            clusters: self.cluster.iter().map(Glob::new).collect(),
            task_tags: self.task_tag.iter().cloned().collect(),
        };
        let imported = match self.kind {
            ImportKind::AppMesh => self.import_files(import_app_mesh, &options)?,
            ImportKind::Dataplanes => self.import_files(import_dataplanes, &options)?,
            ImportKind::Consul => {
                if !self.paths.is_empty() {
                    return Err("import consul reads a live Consul, and no PATH: give --address".to_owned());
                }
                let address = self.address.as_deref();
                let found =
                    Box::pin(self.consul.read(address, &options.control_plane, &self.cluster)).await?;
                import_consul(&found, &options).map_err(|error| error.to_string())?
            }
        };
        self.deliver(&imported)
    }

    fn import_files(&self, import: FileImport, options: &ImportOptions) -> Result<Imported, String> {
        if self.paths.is_empty() {
            return Err("PATH is missing: name files or directories, or - for standard input".to_owned());
        }
        let (files, not_read) = read_all(&self.paths)?;
        let mut imported = import(&files, options).map_err(|error| error.to_string())?;
        imported.report.warnings.extend(not_read);
        Ok(imported)
    }

    /// Manifests go to the directory and the report to standard output, or else the manifests to standard output and the
    /// report to standard error.
    fn deliver(&self, imported: &Imported) -> Result<ExitCode, String> {
        let report = match self.report {
            ReportFormat::Text => render_text(imported, terminal::width()),
            ReportFormat::Json => to_json(&imported.report.to_json())?,
        };
        if let Some(directory) = &self.output_dir {
            write_all(directory, &imported.manifests, self.force)?;
            print(&report)?;
        } else {
            let texts: Vec<&str> = imported.manifests.iter().map(|manifest| manifest.text.as_str()).collect();
            print(&texts.join("---\n"))?;
            anstream::stderr()
                .write_all(report.as_bytes())
                .map_err(|error| format!("writing standard error: {error}"))?;
        }
        Ok(if imported.report.needs_action() { ExitCode::from(EXIT_ACTION) } else { ExitCode::SUCCESS })
    }
}

/// The files of all paths, and a line for each directory with others.
fn read_all(paths: &[PathBuf]) -> Result<(Vec<SourceFile>, Vec<String>), String> {
    let (mut files, mut not_read, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    let mut add = |path: &Path| match read_text(path) {
        Ok(text) => files.push(SourceFile::new(&path.display().to_string(), text)),
        Err(error) => errors.push(format!("reading {}: {error}", path.display())),
    };
    for path in paths {
        if path == Path::new(STDIN) || !path.is_dir() {
            add(path);
            continue;
        }
        let (found, others) = list(path).map_err(|error| format!("reading {}: {error}", path.display()))?;
        if found.is_empty() {
            return Err(format!(
                "reading {}: no file ends in .json, .yaml, .yml or .template",
                path.display()
            ));
        }
        found.iter().for_each(|path| add(path));
        if !others.is_empty() {
            not_read.push(format!("{}: not read, by their names: {}", path.display(), others.join(", ")));
        }
    }
    if errors.is_empty() { Ok((files, not_read)) } else { Err(errors.join("\n  ")) }
}

fn list(directory: &Path) -> io::Result<(Vec<PathBuf>, Vec<String>)> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
        if ["json", "yaml", "yml", "template"].contains(&end.as_str()) && !path.is_dir() {
            found.push(path);
        } else {
            others.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    found.sort();
    others.sort();
    Ok((found, others))
}

fn read_text(path: &Path) -> Result<String, String> {
    let bytes = if path == Path::new(STDIN) {
        let mut bytes = Vec::new();
        let limited = io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
        limited.map_err(|error| error.to_string())?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(ReadFileError::TooLarge(MAX_FILE_BYTES).to_string());
        }
        bytes
    } else {
        read_file(path, MAX_FILE_BYTES).map_err(|error| error.to_string())?
    };
    decode(bytes)
}

/// The text of a file, or where it is none.
fn decode(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("is UTF-16, as older versions of PowerShell write; help: save it as UTF-8, by \
                    `aws … | Out-File -Encoding utf8 FILE`"
            .to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..valid];
        let line = before.split(|byte| *byte == b'\n').count();
        format!("is not UTF-8: line {line}, byte {valid} of the file; help: save it as UTF-8")
    })
}

/// Writes all files, or none where one differs.
fn write_all(directory: &Path, manifests: &[ImportedManifest], force: bool) -> Result<(), String> {
    let (mut new, mut different) = (Vec::new(), Vec::new());
    for manifest in manifests {
        let path = directory.join(manifest.file_name());
        match read_file(&path, MAX_FILE_BYTES) {
            Ok(found) if found == manifest.text.as_bytes() => {}
            Ok(_) | Err(ReadFileError::TooLarge(_)) => {
                different.push(path.display().to_string());
                new.push((path, manifest));
            }
            Err(ReadFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                new.push((path, manifest));
            }
            Err(error) => return Err(format!("reading {}: {error}", path.display())),
        }
    }
    if !force && !different.is_empty() {
        return Err(format!(
            "writing manifests: other content is in {}, and nothing is written: {}; help: compare them, then give \
             --force or another --output-dir",
            terminal::count(different.len(), "file"),
            different.join(", ")
        ));
    }
    fs::create_dir_all(directory).map_err(|error| format!("creating {}: {error}", directory.display()))?;
    for (path, manifest) in new {
        fs::write(&path, &manifest.text).map_err(|error| format!("writing {}: {error}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imported() -> Imported {
        let text = r#"{"meshName": "m", "virtualNodeName": "kv", "spec": {}}"#;
        import_app_mesh(&[SourceFile::new("a.json", text)], &ImportOptions::default()).unwrap()
    }

    #[test]
    fn files_that_differ_are_kept_without_force() {
        let directory = tempfile::tempdir().unwrap();
        let manifests = imported().manifests;
        write_all(directory.path(), &manifests, false).unwrap();
        write_all(directory.path(), &manifests, false).unwrap();
        let edited = directory.path().join("workload-kv.yaml");
        fs::write(&edited, "mine").unwrap();
        fs::remove_file(directory.path().join("mesh-binding-m.yaml")).unwrap();
        assert!(write_all(directory.path(), &manifests, false).unwrap_err().contains("workload-kv.yaml"));
        assert_eq!(fs::read_to_string(&edited).unwrap(), "mine");
        assert!(!directory.path().join("mesh-binding-m.yaml").exists(), "nothing is written");
        write_all(directory.path(), &manifests, true).unwrap();
        assert_ne!(fs::read_to_string(&edited).unwrap(), "mine");
    }

    #[test]
    fn file_in_another_encoding_is_an_error_with_its_place() {
        assert!(decode(b"\xff\xfe{\0".to_vec()).unwrap_err().contains("UTF-16"));
        assert!(decode(b"{\n\"a\": \"\xe4\"}".to_vec()).unwrap_err().contains("line 2, byte 8"));
        assert_eq!(decode(b"{}".to_vec()), Ok("{}".to_owned()));
    }

    #[test]
    fn directory_names_the_files_that_are_not_read() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.json", "a.yaml", "README.md"] {
            fs::write(directory.path().join(name), "{}").unwrap();
        }
        let (files, not_read) = read_all(&[directory.path().to_owned()]).unwrap();
        assert_eq!(files.len(), 2);
        assert!(files[0].name.ends_with("a.yaml") && not_read[0].ends_with("README.md"), "{not_read:?}");
    }
}
