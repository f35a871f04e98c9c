//! The manifests in force follow the files.

use std::time::Duration;

use super::helpers::{TestDirectory, WORKLOAD};
use crate::{WatchOptions, watch};

fn polling() -> WatchOptions {
    WatchOptions { notifications: false, ..WatchOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn polling_finds_changes_without_notifications() {
    let directory = TestDirectory::demo();
    let mut status = watch(directory.sources(), polling()).await;
    assert_eq!(status.borrow_and_update().set.generation, 1);

    directory.write("c-kv.yaml", WORKLOAD.replace("15050", "15051"));
    status.changed().await.unwrap();
    assert_eq!(status.borrow_and_update().set.generation, 2);
}

#[tokio::test(start_paused = true)]
async fn status_changes_with_error_and_its_end() {
    let directory = TestDirectory::demo();
    let mut status = watch(directory.sources(), polling()).await;
    directory.write("c-kv.yaml", "kind: [");
    status.changed().await.unwrap();
    let bad = status.borrow_and_update().clone();
    assert_eq!((bad.set.generation, bad.errors.len()), (1, 1));

    directory.write("c-kv.yaml", WORKLOAD);
    status.changed().await.unwrap();
    let corrected = status.borrow_and_update().clone();
    assert_eq!((corrected.set.generation, corrected.errors.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn status_is_stable_without_changes() {
    let directory = TestDirectory::demo();
    let mut status = watch(directory.sources(), polling()).await;
    status.borrow_and_update();
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(!status.has_changed().unwrap());
}

#[tokio::test]
async fn notification_triggers_load_before_poll() {
    let directory = TestDirectory::demo();
    let options = WatchOptions {
        debounce: Duration::from_millis(1),
        poll_interval: Duration::from_hours(1),
        ..WatchOptions::default()
    };
    let mut status = watch(directory.sources(), options).await;
    status.borrow_and_update();
    directory.write("c-kv.yaml", WORKLOAD.replace("15050", "15051"));
    status.changed().await.unwrap();
    assert_eq!(status.borrow().set.generation, 2);
}

#[tokio::test(start_paused = true)]
async fn unwatchable_directory_is_polled() {
    let directory = TestDirectory::demo();
    std::fs::create_dir(directory.path().join("later")).unwrap();
    let later = directory.path().join("later");
    std::fs::remove_dir(&later).unwrap();
    let sources = crate::ManifestSources::new([directory.path(), later.clone()]);
    let mut status = watch(sources, WatchOptions::default()).await;
    assert!(!status.borrow_and_update().set.complete);

    std::fs::create_dir(&later).unwrap();
    directory.write("later/none.yaml", "# nothing here yet\n");
    status.changed().await.unwrap();
    assert!(status.borrow_and_update().set.complete);
}
