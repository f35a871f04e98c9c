//! Entries that a remote source does not show are unknown, not absent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::helpers::{BINDING, CONTROL_PLANE, TestDirectory, WORKLOAD, kept, replaced};
use crate::{
    LoadOutcome, Loaded, ManifestSource, ManifestSources, ManifestText, RemoteEntry, RemoteError, RemotePage,
    RemoteSource, RemoteStore, SourceObserver, WatchObservers, WatchOptions, watch, watch_observed,
};

const COMMENT: &str = "# nothing here\n";

/// A bucket that a test can edit and break.
#[derive(Default)]
struct FakeBucket {
    objects: Mutex<BTreeMap<String, (u32, String)>>,
    denied: Mutex<BTreeSet<String>>,
    /// The pages that a list has before its failure; `None`: it does not fail.
    list_fails_after: Mutex<Option<usize>>,
    /// Calls that fail first, and may succeed when they are repeated.
    transient: AtomicUsize,
    /// Edits that happen at the next reads, one at each.
    edits_on_read: Mutex<Vec<(&'static str, &'static str)>>,
    read: Mutex<Vec<String>>,
    lists: AtomicUsize,
}

fn error(message: &str, is_transient: bool) -> RemoteError {
    RemoteError { message: message.to_owned(), kind: "unavailable", is_transient }
}

impl FakeBucket {
    fn with(objects: &[(&str, &str)]) -> Arc<Self> {
        let bucket = Self::default();
        objects.iter().for_each(|(key, text)| bucket.put(key, text));
        Arc::new(bucket)
    }

    fn demo() -> Arc<Self> {
        Self::with(&[
            ("prod/a-cp.yaml", CONTROL_PLANE),
            ("prod/b-binding.yaml", BINDING),
            ("prod/team/c-kv.yaml", WORKLOAD),
        ])
    }

    fn put(&self, key: &str, text: &str) {
        let mut objects = self.objects.lock().unwrap();
        let version = objects.get(key).map_or(0, |(version, _)| *version) + 1;
        objects.insert(key.to_owned(), (version, text.to_owned()));
    }

    fn delete(&self, key: &str) {
        self.objects.lock().unwrap().remove(key).unwrap();
    }

    fn deny(&self, key: &str) {
        self.denied.lock().unwrap().insert(key.to_owned());
    }

    fn allow_all(&self) {
        self.denied.lock().unwrap().clear();
    }

    fn fail_list_after(&self, pages: Option<usize>) {
        *self.list_fails_after.lock().unwrap() = pages;
    }

    fn take_read(&self) -> Vec<String> {
        let mut read = std::mem::take(&mut *self.read.lock().unwrap());
        read.sort();
        read
    }

    fn sources(self: &Arc<Self>) -> ManifestSources {
        ManifestSources::default().with_remote(self.source())
    }

    fn source(self: &Arc<Self>) -> RemoteSource {
        let source: ManifestSource = "s3://manifests/prod/".parse().unwrap();
        RemoteSource::new(source, Arc::clone(self) as Arc<dyn RemoteStore>, 1)
    }

    fn fails_transiently(&self) -> bool {
        self.transient.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

#[async_trait]
impl RemoteStore for FakeBucket {
    async fn list(&self, page: Option<&str>) -> Result<RemotePage, RemoteError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        if self.fails_transiently() {
            return Err(error("slow down", true));
        }
        let index: usize = page.map_or(0, |page| page.parse().unwrap());
        if self.list_fails_after.lock().unwrap().is_some_and(|pages| index >= pages) {
            return Err(error("the list is incomplete", false));
        }
        let objects = self.objects.lock().unwrap();
        let entries = objects.iter().skip(index * 2).take(2).map(|(key, (version, text))| RemoteEntry {
            key: key.clone(),
            version: version.to_string(),
            size: text.len() as u64,
            content: None,
        });
        let next = (objects.len() > (index + 1) * 2).then(|| (index + 1).to_string());
        Ok(RemotePage { entries: entries.collect(), next })
    }

    async fn read(&self, key: &str, version: &str) -> Result<Option<Vec<u8>>, RemoteError> {
        if let Some((key, text)) = self.edits_on_read.lock().unwrap().pop() {
            self.put(key, text);
        }
        if self.denied.lock().unwrap().contains(key) {
            return Err(RemoteError {
                message: "access denied: s3:GetObject".to_owned(),
                kind: "access_denied",
                is_transient: false,
            });
        }
        self.read.lock().unwrap().push(key.to_owned());
        let objects = self.objects.lock().unwrap();
        let found = objects.get(key).filter(|(current, _)| current.to_string() == version);
        Ok(found.map(|(_, text)| text.as_bytes().to_vec()))
    }
}

async fn load(sources: &ManifestSources, before: Option<&Loaded>) -> LoadOutcome {
    sources.read_remote().await;
    sources.load(before)
}

async fn first(sources: &ManifestSources) -> Loaded {
    load(sources, None).await.into_loaded().unwrap()
}

fn text(loaded: &Loaded) -> String {
    loaded.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[tokio::test(start_paused = true)]
async fn unchanged_objects_are_not_read_again() {
    let bucket = FakeBucket::demo();
    bucket.put("prod/README.md", "no manifest");
    let sources = bucket.sources();
    let good = first(&sources).await;
    assert!(good.set.complete && good.set.workloads.contains_key("kv"), "{:?}", good.errors);
    assert_eq!((bucket.take_read().len(), good.files), (3, 3));

    assert!(matches!(load(&sources, Some(&good)).await, LoadOutcome::Unchanged));
    assert!(bucket.take_read().is_empty());
    bucket.put("prod/team/c-kv.yaml", &WORKLOAD.replace("15050", "15051"));
    let edited = replaced(load(&sources, Some(&good)).await);
    assert_eq!(edited.set.workloads["kv"].inbounds[0].port.get(), 15051);
    assert_eq!(bucket.take_read(), ["prod/team/c-kv.yaml"]);
}

#[tokio::test(start_paused = true)]
async fn incomplete_list_and_denied_object_change_nothing() {
    let bucket = FakeBucket::demo();
    let sources = bucket.sources();
    let good = first(&sources).await;

    // The second page, with the workload, does not come.
    bucket.fail_list_after(Some(1));
    let incomplete = kept(load(&sources, Some(&good)).await);
    assert_eq!(incomplete.set, good.set);
    insta::assert_snapshot!(text(&incomplete), @"s3://manifests/prod/: the list is incomplete; the last manifests of the source stay in force");
    bucket.fail_list_after(None);
    assert!(kept(load(&sources, Some(&incomplete)).await).errors.is_empty());

    bucket.put("prod/a-cp.yaml", &CONTROL_PLANE.replace("cp.internal", "other.internal"));
    bucket.put("prod/team/c-kv.yaml", COMMENT);
    bucket.deny("prod/a-cp.yaml");
    let denied = kept(load(&sources, Some(&good)).await);
    assert_eq!(denied.set, good.set);
    assert_eq!(denied.unread.len(), 1);
    insta::assert_snapshot!(text(&denied), @"s3://manifests/prod/a-cp.yaml: access denied: s3:GetObject; the last manifests of the source stay in force");
    bucket.allow_all();
    let after = replaced(load(&sources, Some(&denied)).await);
    assert!(after.set.complete && after.set.workloads.is_empty());
}

#[tokio::test(start_paused = true)]
async fn emptied_prefix_keeps_last_manifests() {
    let bucket = FakeBucket::demo();
    let sources = bucket.sources();
    let good = first(&sources).await;
    for key in ["prod/a-cp.yaml", "prod/b-binding.yaml", "prod/team/c-kv.yaml"] {
        bucket.delete(key);
    }
    let empty = kept(load(&sources, Some(&good)).await);
    assert_eq!(empty.set, good.set);
    assert!(
        text(&empty).starts_with("s3://manifests/prod/: has no manifest: an empty source"),
        "{}",
        text(&empty)
    );
    bucket.put("prod/README.md", "moved");
    let other = kept(load(&sources, Some(&empty)).await);
    assert!(text(&other).contains("has 1 entries, and none is a manifest"), "{}", text(&other));

    bucket.put("prod/none.yaml", COMMENT);
    let withdrawn = replaced(load(&sources, Some(&other)).await);
    assert!(withdrawn.set.complete && withdrawn.set.bindings.is_empty());
    assert!(withdrawn.warnings[0].message.contains("holds no manifest"), "{:?}", withdrawn.warnings);
}

#[tokio::test(start_paused = true)]
async fn other_sources_go_on_while_one_is_unread() {
    let directory =
        TestDirectory::with(&[("a.yaml", CONTROL_PLANE), ("b.yaml", BINDING), ("d.yaml", COMMENT)]);
    let bucket = FakeBucket::with(&[("prod/c-kv.yaml", WORKLOAD)]);
    let sources = directory.sources().with_remote(bucket.source());
    let good = first(&sources).await;
    assert!(good.set.complete);

    bucket.fail_list_after(Some(0));
    directory.write("d.yaml", WORKLOAD.replace("kv", "web"));
    let added = replaced(load(&sources, Some(&good)).await);
    let names: Vec<&str> = added.set.workloads.keys().map(|name| &**name).collect();
    // Without what is unread, nothing may be removed.
    assert_eq!((names, added.set.complete), (vec!["kv", "web"], false));

    // A manifest with an error still holds back the other edits, and a deleted one removes nothing.
    directory.write("b.yaml", "kind: [");
    let invalid = kept(load(&sources, Some(&added)).await);
    assert_eq!(invalid.unread.len(), 1);
    assert!(text(&invalid).contains("b.yaml"), "{}", text(&invalid));
    directory.write("b.yaml", BINDING);
    directory.remove("d.yaml");
    let deleted = replaced(load(&sources, Some(&invalid)).await);
    assert!(!deleted.set.complete);

    bucket.fail_list_after(None);
    let readable = replaced(load(&sources, Some(&deleted)).await);
    assert!(readable.set.complete && readable.errors.is_empty());
    assert_eq!(readable.set.workloads.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn unread_source_at_start_blocks_removals_until_it_is_read() {
    let bucket = FakeBucket::demo();
    bucket.deny("prod/b-binding.yaml");
    let sources = bucket.sources();
    let start = first(&sources).await;
    assert!(!start.set.complete && start.set.workloads.is_empty() && start.set.control_planes.len() == 1);
    insta::assert_snapshot!(text(&start), @r#"
    s3://manifests/prod/b-binding.yaml: access denied: s3:GetObject; nothing is removed meanwhile
    s3://manifests/prod/team/c-kv.yaml:5 (document 1, Workload/kv): spec.bindings[0]: no MeshBinding is named "demo"; no valid MeshBinding exists
    "#);

    // An entry that was readable once stays, even if nothing is readable now.
    bucket.fail_list_after(Some(0));
    let worse = load(&sources, Some(&start)).await.into_loaded().unwrap();
    assert_eq!(worse.set.control_planes.len(), 1);
    bucket.fail_list_after(None);
    bucket.allow_all();
    let readable = replaced(load(&sources, Some(&worse)).await);
    assert!(readable.set.complete && readable.set.workloads.contains_key("kv"));
}

#[tokio::test(start_paused = true)]
async fn object_that_changes_while_it_is_read_is_listed_again() {
    let bucket = FakeBucket::demo();
    let sources = bucket.sources();
    let edited = "# edited\n";
    *bucket.edits_on_read.lock().unwrap() = vec![("prod/d.yaml", edited), ("prod/a-cp.yaml", CONTROL_PLANE)];
    let loaded = first(&sources).await;
    assert_eq!((loaded.set.complete, loaded.files), (true, 4), "{:?}", loaded.errors);
}

#[tokio::test(start_paused = true)]
async fn transient_failure_is_retried_within_the_read() {
    let bucket = FakeBucket::demo();
    bucket.transient.store(2, Ordering::Relaxed);
    assert!(first(&bucket.sources()).await.set.complete);
    bucket.transient.store(3, Ordering::Relaxed);
    let failed = first(&bucket.sources()).await;
    assert!(!failed.set.complete && text(&failed).contains("slow down"), "{}", text(&failed));
}

#[tokio::test(start_paused = true)]
async fn source_is_bounded_per_object_and_in_total() {
    let bucket = FakeBucket::demo();
    let sources = bucket.sources();
    let good = first(&sources).await;
    let one = "#".repeat(1024 * 1024 + 1);
    bucket.put("prod/large.yaml", &one);
    let large = kept(load(&sources, Some(&good)).await);
    assert!(text(&large).contains("prod/large.yaml: is larger than 1 MiB"), "{}", text(&large));
    bucket.delete("prod/large.yaml");
    for index in 0..16 {
        bucket.put(&format!("prod/{index}.yaml"), &one[1..]);
    }
    bucket.take_read();
    let total = kept(load(&sources, Some(&large)).await);
    assert!(text(&total).contains("more than 16 MiB"), "{}", text(&total));
    assert!(bucket.take_read().is_empty());
}

#[tokio::test(start_paused = true)]
async fn text_without_content_is_an_error() {
    let content = |text: &str| ManifestSources::default().with_text(ManifestText::inline("CONTENT", text));
    let all = [CONTROL_PLANE, BINDING, WORKLOAD].join("---\n");
    let good = first(&content(&all)).await;
    assert!(good.set.complete && good.set.workloads.contains_key("kv"));
    let blank = first(&content(" \n")).await;
    assert!(!blank.set.complete);
    insta::assert_snapshot!(text(&blank), @"CONTENT: is empty: if no manifests are intended, leave a comment in it (a line with #)");
    assert!(first(&content(COMMENT)).await.set.complete);
}

fn options() -> WatchOptions {
    WatchOptions { notifications: false, ..WatchOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn half_uploaded_set_waits_for_its_rest() {
    let bucket = FakeBucket::demo();
    let mut status = watch(bucket.sources(), options()).await;
    assert!(status.borrow_and_update().set.complete);
    bucket.put("prod/team/c-kv.yaml", &WORKLOAD.replace("15050", "15051"));
    // Another object follows each second, for longer than one read of the source.
    let upload = async {
        for index in 0..40 {
            bucket.put(&format!("prod/x{index}.yaml"), COMMENT);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    upload.await;
    assert!(!status.borrow_and_update().set.workloads.is_empty());
    assert_eq!(status.borrow_and_update().set.generation, 1);
    while status.borrow_and_update().set.generation == 1 {
        status.changed().await.unwrap();
    }
    assert_eq!(status.borrow().set.workloads["kv"].inbounds[0].port.get(), 15051);
    assert_eq!(status.borrow().files, 43);
}

/// Counts the results of reads.
#[derive(Default)]
struct Results(Mutex<BTreeMap<&'static str, usize>>);

impl SourceObserver for Results {
    fn source_read(&self, source: &str, result: &'static str) {
        assert_eq!(source, "s3://manifests/prod/");
        *self.0.lock().unwrap().entry(result).or_default() += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn reads_follow_the_interval_and_failures_come_sooner() {
    let bucket = FakeBucket::demo();
    let results = Arc::new(Results::default());
    let observers = WatchObservers { sources: Arc::clone(&results) as _, ..WatchObservers::default() };
    let mut status = watch_observed(bucket.sources(), options(), observers).await;
    status.borrow_and_update();
    tokio::time::sleep(Duration::from_mins(10)).await;
    let reads = std::mem::take(&mut *results.0.lock().unwrap());
    assert!((18..=20).contains(&reads["success"]), "{reads:?}");
    assert!(!status.has_changed().unwrap());

    bucket.fail_list_after(Some(0));
    status.changed().await.unwrap();
    assert_eq!(status.borrow_and_update().unread.len(), 1);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(results.0.lock().unwrap()["unavailable"] >= 2);
    bucket.fail_list_after(None);
    status.changed().await.unwrap();
    let status = status.borrow_and_update().clone();
    assert!(status.errors.is_empty() && status.set.generation == 1);
}
