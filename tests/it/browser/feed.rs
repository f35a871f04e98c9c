//! Changes and warnings, of one object and of all.

use super::driver::Browser;
use super::fixed::{FixedSource, small_mesh, task, task_id};

/// Of the history, the address chooses what is shown.
fn expect_history(browser: &mut Browser, all: &[&str]) {
    let count = |wanted: &[&str]| all.iter().filter(|kind| wanted.contains(*kind)).count();
    let warnings = count(&["warning", "resolved"]);
    browser.expect_count(".history .change", all.len());
    browser.expect_count(".history .change.warned .badge.warn:has-text(\"warning\")", count(&["warning"]));
    browser.expect_count(".history .change.resolved .badge.ok:has-text(\"resolved\")", count(&["resolved"]));
    browser.expect_count(".history .label:has-text(\"rejected\")", warnings);
    browser.click("[aria-label=Entries] a:has-text(\"Warnings\")");
    browser.expect_count(".history .change", warnings);
    assert!(browser.fragment().ends_with("?history=warnings"), "{}", browser.fragment());
    browser.click("[aria-label=Entries] a:has-text(\"Changes\")");
    browser.expect_count(".history .change", all.len() - warnings);
    browser.expect_gone(".history .label");
    browser.click("[aria-label=Entries] a:has-text(\"All\")");
    browser.expect_count(".history .change", all.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_show_warnings_also_when_they_are_over() {
    let Some(mut browser) = Browser::start("warnings in histories of the page") else { return };
    let source = FixedSource::new(small_mesh());
    let (_server, url) = source.serve_anywhere().await;
    let (one, other) = (task(4, "orders", "registered"), task(5, "orders", "registered"));
    source.record_warning(1, &one, false);
    source.record_warning(2, &one, true);
    source.record(3, "create", &one);
    source.record(4, "create", &other);
    source.record(5, "create", &task(0, "web", "registered"));
    browser.open(&format!("{url}#/tasks/{}", task_id(4)));
    expect_history(&mut browser, &["create", "resolved", "warning"]);
    // Nothing but the warning: no view changes with it.
    source.record_warning(6, &one, false);
    browser.expect_count(".history .change.warned", 2);
    source.record_warning(7, &one, true);
    browser.expect_count(".history .change.resolved", 2);
    assert!(browser.texts(".history .change")[0].contains("test resolved 7"), "the newest entry is first");

    browser.go("#/services/kuma/default/orders");
    expect_history(&mut browser, &["resolved", "warning", "create", "create", "resolved", "warning"]);
    source.record_warning(8, &other, false);
    browser.expect_count(".history .change.warned", 3);
    source.record_warning(9, &other, true);
    browser.expect_count(".history .change.resolved", 3);
    // The choice stays while other parts of the address change.
    browser.click("[aria-label=Entries] a:has-text(\"Warnings\")");
    browser.click("[aria-label=Distance] a:has-text(\"2 hops\")");
    browser.expect_count(".history .change", 6);
    browser.expect("[aria-label=Entries] [aria-current]:has-text(\"Warnings\")");
    browser.go("#/services/kuma/default/web?history=warnings");
    browser.expect_text(".history .notice", "No warning is recorded");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn feed_shows_warnings_where_they_are_asked_for() {
    let Some(mut browser) = Browser::start("warnings in the page's feed") else { return };
    let source = FixedSource::new(small_mesh());
    let (_server, url) = source.serve_anywhere().await;
    let rejected = task(8, "orders", "rejected");
    source.record(1, "create", &rejected);
    source.record_warning(2, &rejected, false);
    browser.open(&format!("{url}#/changes"));
    browser.expect_text(".shown", "1 change");
    browser.expect_text(".connection", "Live");
    browser.choose(".choice:has-text(\"Show\") select", "true");
    browser.expect_text(".shown", "2 entries");
    assert_eq!(browser.fragment(), "#/changes?warnings=true");
    browser.expect_text(".change.warned", "test warning 2");
    source.record_warning(3, &rejected, true);
    source.record(4, "update", &rejected);
    browser.expect_text(".shown", "4 entries");
    browser.expect_count(".change", 4);
    let order: Vec<String> = browser.texts(".change .badge");
    assert_eq!(order, ["update", "resolved", "warning", "create"]);
    browser.go("#/changes");
    browser.expect_text(".shown", "2 changes");
    browser.expect_gone(".change.warned, .change.resolved");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn feed_waits_while_the_page_is_scrolled() {
    let Some(mut browser) = Browser::start("the page's feed while it is scrolled") else { return };
    let source = FixedSource::new(small_mesh());
    let (_server, url) = source.serve_anywhere().await;
    let one = task(0, "web", "registered");
    (1..=150).for_each(|id| source.record(id, "update", &one));
    browser.open(&format!("{url}#/changes"));
    browser.expect_count(".change", 100);
    browser.expect_text(".connection", "Live");
    browser.click(".foot button:has-text(\"50\")");
    browser.expect_count(".change", 150);
    browser.expect_gone(".foot button");
    browser.run("scrollTo({top: 4000})");
    let top = "Math.round(document.querySelector('.change:nth-child(120)').getBoundingClientRect().top)";
    let before = browser.run(top);
    source.record(151, "create", &one);
    browser.expect_text(".fresh button", "1 new");
    // More tasks change than the stream names: the rows that were asked for stay.
    source.edit(|lists| lists.tasks.extend((100..1_200).map(|number| task(number, "web", "pending"))));
    source.record(152, "create", &one);
    browser.expect_text(".fresh button", "2 new");
    browser.expect_text("nav a[href=\"#/tasks\"] .nav-count", "1,110");
    browser.expect_count(".change", 150);
    assert_eq!(browser.run("document.querySelector('.fresh').checkVisibility()"), true);
    assert_eq!(browser.run(top), before, "rows keep their place");
    browser.click(".fresh button");
    browser.expect_count(".change", 152);
    browser.expect_text(".change", "test change 152");
    assert_eq!(browser.run("scrollY"), 0);

    // Filters hold for what arrives, too.
    browser.go("#/changes?kind=create&q=web");
    browser.expect_count(".change", 2);
    source.record(153, "drain", &one);
    source.record(154, "create", &task(4, "orders", "registered"));
    source.record(155, "create", &one);
    browser.expect_text(".change", "test change 155");
    browser.expect_count(".change", 3);
    browser.finish();
}
