//! Simulation of the manifests' sources: a bucket, parameters and a directory are edited together, while lists end early,
//! calls are throttled or denied, and uploads are half done. The real loader reads them, with a paused clock.
//!
//! The manifests in force must be those that a source had at one moment, a later one each time, and never what only an unfinished
//! upload or an accident had. `SIM_FIRST=17 SIM_SEEDS=1 …` replays seed 17.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ecs_mesh_manifests::{
    ManifestSources, ManifestStatus, RemoteEntry, RemoteError, RemotePage, RemoteSource, RemoteStore,
    WatchOptions, watch,
};
use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::aws::{Cloud, CloudConfig, PutParameter, StoredParameter};
use tokio::time::{Instant, sleep};

use crate::e2e::harness::{binding, control_plane};

const BUCKET: &str = "manifests";
const SOURCES: [&str; 2] = ["s3://manifests/prod/", "ssm:/mesh/"];
const STEP: Duration = Duration::from_millis(500);
/// Entries on a page, so that most lists have several.
const PAGE: usize = 3;
/// Entries that a store may have.
const ENTRIES: usize = 6;
/// How long a change must last before it counts: the loader's default.
const DEBOUNCE: Duration = Duration::from_secs(2);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum StoreFault {
    Throttled,
    Unavailable,
    Denied,
    Hangs,
    /// A list fails after its first page.
    TruncatedList,
    /// A list has no entry and no further page.
    EmptyList,
    /// An object may not be read.
    DeniedObject,
    /// An upload of several entries within the debounce of each other.
    HalfUploaded,
    /// The same, slower.
    SlowUpload,
    /// All entries are deleted.
    Emptied,
    /// A manifest has an error.
    Invalid,
}

const ALL: [StoreFault; 11] = [
    StoreFault::Throttled,
    StoreFault::Unavailable,
    StoreFault::Denied,
    StoreFault::Hangs,
    StoreFault::TruncatedList,
    StoreFault::EmptyList,
    StoreFault::DeniedObject,
    StoreFault::HalfUploaded,
    StoreFault::SlowUpload,
    StoreFault::Emptied,
    StoreFault::Invalid,
];

type Struck = BTreeMap<StoreFault, u64>;

/// Faults of the stores' calls.
struct CallFaults {
    rng: fastrand::Rng,
    enabled: bool,
    denied: BTreeSet<String>,
    struck: Struck,
}

impl CallFaults {
    fn count(&mut self, fault: StoreFault) {
        *self.struck.entry(fault).or_default() += 1;
    }

    /// The fault of a call, if it has one.
    fn decide(&mut self, is_list: bool, is_first: bool) -> Option<StoreFault> {
        if !self.enabled {
            return None;
        }
        let fault = match self.rng.u8(..100) {
            0..8 => StoreFault::Throttled,
            8..12 => StoreFault::Unavailable,
            12..15 => StoreFault::Denied,
            15..17 => StoreFault::Hangs,
            17..25 if is_list && !is_first => StoreFault::TruncatedList,
            25..28 if is_list && is_first => StoreFault::EmptyList,
            _ => return None,
        };
        self.count(fault);
        Some(fault)
    }
}

/// A store of the sandbox's AWS, with faults.
struct SimStore {
    cloud: Arc<Mutex<Cloud>>,
    faults: Arc<Mutex<CallFaults>>,
    is_bucket: bool,
}

fn failed(kind: &'static str, is_transient: bool) -> RemoteError {
    RemoteError { message: kind.to_owned(), kind, is_transient }
}

impl SimStore {
    /// Fails as the fault says. `true` where the answer is an empty list.
    async fn strike(&self, is_list: bool, is_first: bool) -> Result<bool, RemoteError> {
        let fault = self.faults.lock().unwrap().decide(is_list, is_first);
        match fault {
            None => Ok(false),
            Some(StoreFault::EmptyList) => Ok(true),
            Some(StoreFault::Throttled) => Err(failed("throttled", true)),
            Some(StoreFault::Hangs) => {
                sleep(Duration::from_secs(5)).await;
                Err(failed("unavailable", true))
            }
            Some(StoreFault::Unavailable) => Err(failed("unavailable", true)),
            Some(_) => Err(failed("access_denied", false)),
        }
    }

    /// Entries after `page`, in the order of keys.
    fn entries(&self, page: Option<&str>) -> RemotePage {
        let cloud = self.cloud.lock().unwrap();
        if self.is_bucket {
            let found = cloud.list_objects(BUCKET, "prod/", page, PAGE).unwrap();
            let entry = |(key, object): (String, ecs_mesh_sandbox::aws::S3Object)| RemoteEntry {
                key,
                version: object.etag,
                size: object.body.len() as u64,
                content: None,
            };
            return RemotePage { entries: found.objects.into_iter().map(entry).collect(), next: found.next };
        }
        let is_after = |one: &&StoredParameter| page.is_none_or(|page| one.name.as_str() > page);
        let mut found = cloud.parameters().filter(is_after);
        let entry = |one: &StoredParameter| RemoteEntry {
            key: one.name.clone(),
            version: one.version.to_string(),
            size: one.value.len() as u64,
            content: Some(one.value.clone().into_bytes()),
        };
        let entries: Vec<RemoteEntry> = found.by_ref().take(PAGE).map(entry).collect();
        let next = found.next().and(entries.last()).map(|last| last.key.clone());
        RemotePage { entries, next }
    }
}

#[async_trait]
impl RemoteStore for SimStore {
    async fn list(&self, page: Option<&str>) -> Result<RemotePage, RemoteError> {
        sleep(Duration::from_millis(30)).await;
        if self.strike(true, page.is_none()).await? {
            return Ok(RemotePage::default());
        }
        Ok(self.entries(page))
    }

    async fn read(&self, key: &str, version: &str) -> Result<Option<Vec<u8>>, RemoteError> {
        sleep(Duration::from_millis(50)).await;
        if self.faults.lock().unwrap().denied.contains(key) {
            self.faults.lock().unwrap().count(StoreFault::DeniedObject);
            return Err(failed("access_denied", false));
        }
        self.strike(false, false).await?;
        let cloud = self.cloud.lock().unwrap();
        let read = cloud.object(BUCKET, key, Some(version));
        Ok(read.ok().map(|object| object.body.clone()))
    }
}

/// The contents of a store at one moment: the workloads of each entry; `None` for an entry with an error.
type Content = BTreeMap<usize, Option<BTreeSet<String>>>;

/// A state of a store.
#[derive(Clone)]
struct StoreState {
    content: Content,
    /// It is part of an upload that goes on within the debounce.
    is_fleeting: bool,
}

impl StoreState {
    /// The workloads, if the state may come into force.
    fn workloads(&self) -> Option<BTreeSet<String>> {
        if self.is_fleeting || self.content.is_empty() {
            return None;
        }
        let all: Option<Vec<_>> = self.content.values().cloned().collect();
        Some(all?.into_iter().flatten().collect())
    }
}

/// An edit of an entry.
enum EntryEdit {
    Delete,
    /// A manifest with an error.
    Invalid,
    Workloads(BTreeSet<String>),
}

/// A store as the world edits it.
struct WorldStore {
    index: usize,
    cloud: Arc<Mutex<Cloud>>,
    history: Vec<StoreState>,
    /// The edits of an upload that go on, and the pause between them.
    upload: Vec<(usize, EntryEdit)>,
    next: Instant,
    gap: Duration,
    /// The first state that may still be in force.
    in_force_from: usize,
    was_complete: bool,
}

fn document(name: &str) -> String {
    format!(
        "---\napiVersion: ecs-mesh.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec:\n  selector: \
         {{services: [{name}]}}\n  service: {name}\n  inbounds: [{{containerPort: 80, port: 15000}}]\n"
    )
}

fn text(names: &BTreeSet<String>) -> String {
    names.iter().fold("# manifests\n".to_owned(), |text, name| text + &document(name))
}

impl WorldStore {
    fn prefix(&self) -> &'static str {
        ["s", "p"][self.index]
    }

    fn key(&self, entry: usize) -> String {
        if self.index == 0 { format!("prod/e{entry}.yaml") } else { format!("/mesh/e{entry}") }
    }

    fn content(&self) -> Content {
        self.history.last().map(|state| state.content.clone()).unwrap_or_default()
    }

    /// Some of the workloads that an entry may have.
    fn draw(&self, entry: usize, rng: &mut fastrand::Rng) -> BTreeSet<String> {
        let names = (0..3).map(|n| format!("{}{entry}-{n}", self.prefix()));
        names.filter(|_| rng.bool()).collect()
    }

    /// Writes an entry, or deletes it.
    fn write(&mut self, entry: usize, edit: EntryEdit, is_fleeting: bool) {
        let (mut content, key) = (self.content(), self.key(entry));
        let body = match &edit {
            EntryEdit::Delete => None,
            EntryEdit::Invalid => Some("kind: [".to_owned()),
            EntryEdit::Workloads(names) => Some(text(names)),
        };
        let mut cloud = self.cloud.lock().unwrap();
        match (body, self.index) {
            (Some(body), 0) => drop(cloud.put_object(BUCKET, &key, body.as_bytes(), Timestamp(0)).unwrap()),
            (Some(body), _) => {
                let kind = "String".to_owned();
                let parameter =
                    StoredParameter { name: key, kind, value: body, ..StoredParameter::default() };
                cloud.put_parameter(PutParameter { parameter, overwrite: true }).unwrap();
            }
            (None, 0) => cloud.delete_object(BUCKET, &key).unwrap(),
            (None, _) => drop(cloud.delete_parameter(&key)),
        }
        drop(cloud);
        match edit {
            EntryEdit::Delete => drop(content.remove(&entry)),
            EntryEdit::Invalid => drop(content.insert(entry, None)),
            EntryEdit::Workloads(names) => drop(content.insert(entry, Some(names))),
        }
        self.history.push(StoreState { content, is_fleeting });
    }

    /// Begins an edit of some entries.
    fn begin(&mut self, rng: &mut fastrand::Rng, faults: &mut CallFaults) {
        let is_quick = rng.bool();
        let count = rng.usize(1..4);
        for _ in 0..count {
            let entry = rng.usize(..ENTRIES);
            let new = match rng.u8(..10) {
                0..2 => EntryEdit::Delete,
                2 => {
                    faults.count(StoreFault::Invalid);
                    EntryEdit::Invalid
                }
                _ => EntryEdit::Workloads(self.draw(entry, rng)),
            };
            self.upload.push((entry, new));
        }
        if rng.u8(..12) == 0 {
            faults.count(StoreFault::Emptied);
            self.upload = (0..ENTRIES).map(|entry| (entry, EntryEdit::Delete)).collect();
        }
        if self.upload.len() > 1 {
            faults.count(if is_quick { StoreFault::HalfUploaded } else { StoreFault::SlowUpload });
        }
        self.gap = if is_quick { STEP } else { Duration::from_secs(rng.u64(3..15)) };
    }

    fn step(&mut self, rng: &mut fastrand::Rng, faults: &mut CallFaults) {
        if Instant::now() < self.next {
            return;
        }
        if self.upload.is_empty() {
            self.begin(rng, faults);
        }
        let (entry, edit) = self.upload.remove(0);
        let goes_on = !self.upload.is_empty();
        self.write(entry, edit, goes_on && self.gap < DEBOUNCE);
        self.next = Instant::now() + if goes_on { self.gap } else { Duration::from_secs(rng.u64(5..90)) };
    }

    /// Ends the upload with manifests that are valid.
    fn restore(&mut self, rng: &mut fastrand::Rng) {
        self.upload.clear();
        self.next = Instant::now() + Duration::from_hours(1);
        for entry in 0..ENTRIES {
            let names = self.draw(entry, rng);
            self.write(entry, EntryEdit::Workloads(names), entry + 1 < ENTRIES);
        }
    }

    /// Checks what is in force of this store.
    fn check(&mut self, status: &ManifestStatus) -> Option<String> {
        let names = in_force(status, self.prefix());
        self.was_complete |= status.set.complete;
        if !self.was_complete {
            // Before the first complete set, each set that includes the one before may come into force.
            let ever = |name: &String| self.history.iter().any(|state| has(&state.content, name));
            let unknown: Vec<_> = names.iter().filter(|name| !ever(name)).collect();
            return (!unknown.is_empty()).then(|| format!("{unknown:?} were never there"));
        }
        let found = self
            .history
            .iter()
            .skip(self.in_force_from)
            .position(|state| state.workloads().is_some_and(|workloads| workloads == names));
        match found {
            Some(offset) => {
                self.in_force_from += offset;
                None
            }
            None => Some(format!("{} has never had exactly {names:?} since", self.root())),
        }
    }

    fn root(&self) -> &'static str {
        SOURCES[self.index]
    }
}

fn has(content: &Content, name: &str) -> bool {
    content.values().flatten().any(|names| names.contains(name))
}

/// The workloads in force whose names start with this letter.
fn in_force(status: &ManifestStatus, prefix: &str) -> BTreeSet<String> {
    status.set.workloads.keys().filter(|name| name.starts_with(prefix)).map(ToString::to_string).collect()
}

/// The directory beside the stores.
struct WorldDirectory {
    directory: tempfile::TempDir,
    names: BTreeSet<String>,
    edited: Instant,
}

impl WorldDirectory {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cluster = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod";
        let base = control_plane("kuma", "http://127.0.0.1:5681", "") + &binding("prod", "kuma", cluster, "");
        std::fs::write(directory.path().join("base.yaml"), base).unwrap();
        Self { directory, names: BTreeSet::new(), edited: Instant::now() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn edit(&mut self, rng: &mut fastrand::Rng) {
        self.names = (0..3).map(|n| format!("l{n}")).filter(|_| rng.bool()).collect();
        std::fs::write(self.path().join("local.yaml"), text(&self.names)).unwrap();
        self.edited = Instant::now();
    }

    /// An edit is in force in spite of unread sources, once no manifest has an error.
    fn check(&self, status: &ManifestStatus) -> Option<String> {
        let has_rejected = status.errors.len() > status.unread.len();
        if has_rejected || self.edited.elapsed() < Duration::from_secs(30) {
            return None;
        }
        let names = in_force(status, "l");
        (names != self.names).then(|| format!("the directory has {:?}, in force is {names:?}", self.names))
    }
}

/// Runs one seed and returns its violations.
async fn run(seed: u64, struck: &mut Struck) -> Vec<String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut cloud = Cloud::new(CloudConfig::default(), Timestamp(0));
    cloud.create_bucket(BUCKET, "eu-west-1").unwrap();
    let cloud = Arc::new(Mutex::new(cloud));
    let faults = Arc::new(Mutex::new(CallFaults {
        rng: fastrand::Rng::with_seed(seed ^ 0xFA17),
        enabled: true,
        denied: BTreeSet::new(),
        struck: Struck::new(),
    }));
    let mut directory = WorldDirectory::new();
    let mut stores: Vec<WorldStore> = (0..2)
        .map(|index| WorldStore {
            index,
            cloud: Arc::clone(&cloud),
            history: Vec::new(),
            upload: Vec::new(),
            next: Instant::now(),
            gap: STEP,
            in_force_from: 0,
            was_complete: false,
        })
        .collect();
    stores.iter_mut().for_each(|store| store.restore(&mut rng));
    stores.iter_mut().for_each(|store| store.next = Instant::now() + Duration::from_secs(20));
    let mut sources = ManifestSources::new([directory.path().to_owned()]);
    for (index, name) in SOURCES.into_iter().enumerate() {
        let store =
            SimStore { cloud: Arc::clone(&cloud), faults: Arc::clone(&faults), is_bucket: index == 0 };
        sources = sources.with_remote(RemoteSource::new(name.parse().unwrap(), Arc::new(store), seed));
    }
    let options = WatchOptions { notifications: false, seed, ..WatchOptions::default() };
    let status = watch(sources, options).await;
    let mut violations = Vec::new();
    let end = Instant::now() + Duration::from_mins(10);
    let mut next_local = Instant::now();
    while Instant::now() < end && violations.is_empty() {
        sleep(STEP).await;
        let mut faults = faults.lock().unwrap();
        stores.iter_mut().for_each(|store| store.step(&mut rng, &mut faults));
        if rng.u8(..40) == 0 {
            let key = stores[0].key(rng.usize(..ENTRIES));
            if !faults.denied.remove(&key) {
                faults.denied.insert(key);
            }
        }
        drop(faults);
        if Instant::now() >= next_local {
            directory.edit(&mut rng);
            next_local = Instant::now() + Duration::from_secs(rng.u64(20..120));
        }
        let now = Arc::clone(&status.borrow());
        violations.extend(stores.iter_mut().filter_map(|store| store.check(&now)));
        violations.extend(directory.check(&now));
    }
    {
        let mut faults = faults.lock().unwrap();
        (faults.enabled, faults.denied) = (false, BTreeSet::new());
    }
    stores.iter_mut().for_each(|store| store.restore(&mut rng));
    sleep(Duration::from_mins(3)).await;
    let last = Arc::clone(&status.borrow());
    if !last.set.complete || !last.errors.is_empty() {
        violations.push(format!("not complete at the end: {:?}", last.errors));
    }
    for store in &stores {
        let (expected, found) = (store.history.last().unwrap().workloads(), in_force(&last, store.prefix()));
        if expected.as_ref() != Some(&found) {
            violations.push(format!("{} has {expected:?}, in force is {found:?}", store.root()));
        }
    }
    for (fault, count) in &faults.lock().unwrap().struck {
        *struck.entry(*fault).or_default() += count;
    }
    violations
}

/// The violations of these seeds, and the faults that struck.
fn run_some<'s>(seeds: impl Iterator<Item = &'s u64>) -> (String, Struck) {
    let (mut failures, mut struck) = (String::new(), Struck::new());
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        for message in runtime.unwrap().block_on(run(*seed, &mut struck)) {
            writeln!(failures, "seed {seed}: {message}").unwrap();
        }
    }
    (failures, struck)
}

#[test]
fn what_is_in_force_was_in_each_source_at_one_moment() {
    let seeds = super::seeds(60, &[]);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let (mut failures, mut struck) = (String::new(), Struck::new());
    std::thread::scope(|scope| {
        let seeds = &seeds;
        let runs: Vec<_> = (0..threads)
            .map(|first| scope.spawn(move || run_some(seeds.iter().skip(first).step_by(threads))))
            .collect();
        for some in runs {
            let (failed, faults) = some.join().unwrap();
            failures += &failed;
            faults.into_iter().for_each(|(fault, count)| *struck.entry(fault).or_default() += count);
        }
    });
    println!("{} runs of manifest sources: {struck:?}", seeds.len());
    assert!(failures.is_empty(), "{failures}");
    let never: Vec<_> = ALL.iter().filter(|fault| !struck.contains_key(fault)).collect();
    assert!(seeds.len() < super::MANY || never.is_empty(), "never struck: {never:?}");
}
