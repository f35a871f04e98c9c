//! The views in a browser, also while the operator does not answer.

use super::driver::Browser;
use super::fixed::{
    ANYWHERE, FixedSource, HOSTILE, guard, outbound, service, small_mesh, task, task_id, warning,
};
use ecs_mesh_operator::read_api::SnapshotLists;
use ecs_mesh_read_api::{LeaseRoleView, OtherRegistrationsView, ReasonView, RegistrationCountsView};

#[tokio::test(flavor = "multi_thread")]
async fn overview_marks_what_is_missing_and_undeclared() {
    let Some(mut browser) = Browser::start("the page's overview") else { return };
    let source = FixedSource::new(small_mesh());
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&url);
    browser.expect_text(".node[data-id$=\"/kv\"]", "not registered");
    browser.expect_text(".node[data-id$=\"/legacy\"]", "not declared");
    browser.expect_text(".edge-label", "unknown target");
    browser.expect_text(".attention", "Missing");
    browser.expect_text(".figures", "1 degraded · 1 missing · 1 undeclared");
    browser.expect(".node.bad.hollow[data-id$=\"/kv\"]");
    browser.expect(".node.quiet.hollow[data-id$=\"/legacy\"]");
    browser.expect_count(".node.hollow", 2);
    browser.expect_text(".graph-caption", "Neither callers nor outbounds");
    // A missing service comes first; one that others registered needs no attention.
    browser.expect_count(".attention li", 2);
    browser.expect_text(".attention li", "kv");
    // An outbound whose place another one takes, and a service that others register.
    source.edit(|lists| {
        lists.outbounds[3] = outbound("shop", HOSTILE, "discarded");
        let legacy = lists.services.iter_mut().find(|service| &*service.name == "legacy").unwrap();
        legacy.registrations = RegistrationCountsView::default();
        legacy.others = Some(OtherRegistrationsView { total: 3, ready: 2 });
    });
    browser.expect_text(".edge-label.quiet", "discarded");
    browser.expect_count(".edge.quiet.broken[data-from$=\"/shop\"]", 1);
    browser.expect_text(".node[data-id$=\"/legacy\"]", "not declared · 3 by others");
    source.edit(|lists| lists.outbounds[3] = outbound("shop", HOSTILE, "ok"));
    browser.expect_gone(".edge-label.quiet");

    // Registered: the graph follows without a reload.
    source.edit(|lists| {
        let kv = lists.services.iter_mut().find(|service| &*service.name == "kv").unwrap();
        *kv = service("kv", "ok", 3);
        lists.outbounds[2] = outbound("orders", "kv", "ok");
    });
    browser.expect_text(".node[data-id$=\"/kv\"]", "3/3 ready");
    browser.expect_gone(".edge-label");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_shown_as_text() {
    let Some(mut browser) = Browser::start("hostile names in the page") else { return };
    let source = FixedSource::new(small_mesh());
    let (_server, url) = source.serve_anywhere().await;
    source.record(1, "create", &task(6, HOSTILE, "registered"));
    browser.open(&url);
    browser.expect_count(".node", 6);
    for (fragment, selector) in [
        ("#/", ".change-service"),
        ("#/services?q=img", ".tbody .tr"),
        ("#/tasks?q=img", ".tbody .tr"),
        ("#/changes", ".change-service"),
        (&format!("#/tasks/{}", task_id(6)), ".facts"),
    ] {
        browser.go(fragment);
        browser.expect_text(selector, HOSTILE);
    }
    let name: String = form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    browser.go(&format!("#/services/kuma/default/{}", name.replace('+', "%20")));
    browser.expect_text("main h1", HOSTILE);
    assert_eq!(browser.run("document.querySelectorAll('img').length"), 0);
    assert!(!browser.run("document.title").as_str().unwrap().starts_with("hit"));
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn task_page_shows_verdict_tags_and_fix() {
    let Some(mut browser) = Browser::start("a task's page") else { return };
    let source = FixedSource::new(small_mesh());
    let (_server, url) = source.serve_anywhere().await;
    source.record(1, "update", &task(0, "web", "registered"));
    let key = "tag".into();
    let reason = ReasonView { key, message: "a tag is missing".to_owned() };
    source.edit(|lists| lists.tasks[8].reason = Some(reason));
    browser.open(&format!("{url}#/tasks/{}", task_id(8)));
    browser.expect_text(".head", "Rejected");
    browser.expect_text(".verdict .verdicts", &format!("verdict on {}", task_id(8)));
    browser.expect_text(".verdict .reason", "a tag is missing");
    browser.expect_text(".verdict .fix", "aws iam tag-role");
    let tag = |column: usize| format!(".tags tbody td:nth-child({column})");
    browser.expect_text(&format!("{} .badge.bad", tag(1)), "Violated");
    for (column, text) in [(2, "kuma.io/service"), (3, "not set"), (4, "orders")] {
        browser.expect_text(&tag(column), text);
    }
    let fact = |name: &str| format!(".facts > div:has(dt:text-is(\"{name}\")) dd");
    browser.expect_text(&fact("ECS status"), "RUNNING, desired RUNNING");
    browser.expect_text(&fact("Evidence"), "version 3");
    browser.expect_text(&fact("Role"), "orders-task");
    browser.expect_text(".registrations", "No registration stands for this task");
    // Its role gets the tag: the page follows.
    source.edit(|lists| lists.tasks[8] = task(8, "orders", "registered"));
    browser.expect_text(".head", "Registered");
    browser.expect_text(&format!("{} .badge.ok", tag(1)), "Allowed");
    browser.expect_text(&tag(3), "orders");
    browser.expect_gone(".verdict .fix, .verdict .reason");
    let registration = |column: usize| format!(".registrations tbody td:nth-child({column})");
    for (column, text) in [(1, "Dataplane"), (2, "orders"), (3, "kuma / default"), (4, "Ready")] {
        browser.expect_text(&registration(column), text);
    }
    browser.go(&format!("#/tasks/{}", task_id(9)));
    browser.expect_text(&format!("{} .badge.warn", registration(4)), "Not ready");
    browser.go(&format!("#/tasks/{}", task_id(0)));
    browser.expect_text(".history", "test change 1");
    browser.click(".card-tools button");
    browser.expect_text(".bodies pre", "\"type\": \"Dataplane\"");
    browser.go("#/warnings");
    browser.expect_text(".warning-card", "the role of orders lacks a tag");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_follow_filters_in_the_address() {
    let Some(mut browser) = Browser::start("filters of tasks") else { return };
    let source = FixedSource::new(small_mesh());
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&format!("{url}#/tasks?state=rejected,drained&sort=-state"));
    browser.expect_text(".shown", "2 of 10 tasks");
    assert!(browser.texts(".tbody .tr")[0].starts_with("Rejected"));
    // Another task is rejected: the table follows.
    source.edit(|lists| lists.tasks[0] = task(0, "web", "rejected"));
    browser.expect_text(".shown", "3 of 10 tasks");
    browser.click(".toggle:has-text(\"Drained\")");
    browser.expect_text(".shown", "2 of 10 tasks");
    assert_eq!(browser.fragment(), "#/tasks?state=rejected&sort=-state");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_arrive_without_a_reload() {
    let Some(mut browser) = Browser::start("the page's feed of changes") else { return };
    let source = FixedSource::new(small_mesh());
    let (_server, url) = source.serve_anywhere().await;
    source.record(1, "create", &task(0, "web", "registered"));
    browser.open(&format!("{url}#/changes"));
    browser.expect_count(".change", 1);
    browser.expect_text(".connection", "Live");
    source.record(2, "drain", &task(1, "web", "drained"));
    browser.expect_text(".change", "test change 2");
    browser.expect_count(".change", 2);
    browser.go("#/changes?kind=create");
    browser.expect_count(".change", 1);
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn page_says_since_when_it_is_disconnected() {
    let Some(mut browser) = Browser::start("a lost connection of the page") else { return };
    let source = FixedSource::new(small_mesh());
    let (server, url) = source.serve_apart().await;
    browser.open(&format!("{url}#/tasks"));
    browser.expect_text(".connection", "Live");
    browser.expect_text(".shown", "10 tasks");
    drop(server);
    browser.expect_text(".banner.bad", "Disconnected since");
    browser.expect_text(".banner.bad", "The page shows the state of");
    browser.expect_text(".connection", "Disconnected since");
    // The rows stay.
    browser.expect_text(".shown", "10 tasks");

    source.edit(|lists| lists.tasks.truncate(4));
    let address = url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    let (_server, _) = source.serve(address, None).await;
    browser.expect_text(".connection", "Live");
    browser.expect_gone(".banner.bad");
    browser.expect_text(".shown", "4 tasks");
    // An icon that the page has not shown before is loaded when it is needed.
    browser.forget_errors(r"net::ERR_\w+ \(http://[^/]+/(api/v1/|assets/icons)");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_current_after_a_reconnection() {
    let Some(mut browser) = Browser::start("the page after a reconnection") else { return };
    let source = FixedSource::new(small_mesh());
    let (server, url) = source.serve_apart().await;
    let address = url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    browser.open(&url);
    browser.expect_text(".connection", "Live");
    browser.expect_text(".node[data-id$=\"/kv\"]", "not registered");
    drop(server);
    browser.expect_text(".banner.bad", "Disconnected since");
    // While the page cannot be told.
    let register = |lists: &mut SnapshotLists| {
        let kv = lists.services.iter_mut().find(|service| &*service.name == "kv").unwrap();
        *kv = service("kv", "ok", 3);
    };
    source.edit(register);
    source.edit(|lists| lists.warnings.push(warning(9, "web")));
    let (_server, _) = source.serve(address, None).await;
    browser.expect_text(".node[data-id$=\"/kv\"]", "3/3 ready");
    browser.expect_text(".more", "2 causes of warnings");
    browser.expect_gone(".banner.bad");
    browser.forget_errors(r"net::ERR_\w+ \(http://[^/]+/(api/v1/|assets/icons)");
    browser.finish();
}

/// A slow stream: what changes between the first read and its beginning is shown.
#[tokio::test(flavor = "multi_thread")]
async fn changes_before_the_stream_begins_are_shown() {
    let Some(mut browser) = Browser::start("changes before the page's stream begins") else { return };
    let source = FixedSource::new(small_mesh());
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&format!("{url}#/tasks"));
    browser.expect_text(".connection", "Live");
    browser.hold("**/api/v1/stream");
    browser.run("location.reload()");
    browser.expect_text(".connection", "Connecting");
    browser.expect_text(".shown", "10 tasks");
    source.edit(|lists| lists.tasks.truncate(4));
    // The API has it before the stream begins.
    let total = "fetch('api/v1/tasks?limit=1').then(answer => answer.json()).then(({total}) => total)";
    assert!((0..1_000).any(|_| browser.run(total) == 4), "the API still has the old tasks");
    browser.release();
    browser.expect_text(".connection", "Live");
    browser.expect_text(".shown", "4 tasks");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn page_asks_for_the_token_until_it_is_right() {
    let Some(mut browser) = Browser::start("the token of the page") else { return };
    let source = FixedSource::new(small_mesh());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "the-right-token-of-the-test\n").unwrap();
    let (_server, url) = source.serve(ANYWHERE.parse().unwrap(), Some(file.path().to_owned())).await;
    browser.open(&url);
    browser.expect_text("dialog[open]", "needs a bearer token");
    browser.type_text("a-wrong-token-of-the-test");
    browser.press(&["Enter"]);
    browser.expect_text("dialog[open]", "refused this token");
    browser.type_text("the-right-token-of-the-test");
    browser.press(&["Enter"]);
    browser.expect_count(".node", 6);
    browser.expect_text(".connection", "Live");
    assert!(!browser.fragment().contains("token"));
    // Refused requests are errors on the console.
    browser.forget_errors(r"status of 401 .*/api/v1/");
    // Kept for the tab.
    browser.run("location.reload()");
    browser.expect_count(".node", 6);
    browser.expect_gone("dialog[open]:has-text(\"Bearer token\")");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn standby_shows_that_it_is_one() {
    let Some(mut browser) = Browser::start("the page of a standby") else { return };
    let source = FixedSource::new(small_mesh());
    source.edit_status(|status| (status.role, status.epoch) = (LeaseRoleView::Standby, Some(4)));
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&url);
    browser.expect_text(".banner", "This copy is a standby.");
    browser.expect_text(".banner", "copy-b");
    let lease = ".facts > div:has(dt:text-is(\"Lease\")) dd";
    browser.go("#/status");
    browser.expect_text(lease, "standby, leader copy-b, term 4");
    // It takes over.
    source.edit_status(|status| (status.role, status.epoch) = (LeaseRoleView::Leader, Some(5)));
    browser.expect_gone(".banner");
    browser.expect_text(lease, "leader, term 5");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_and_marks_stand_out_in_light_and_dark() {
    let Some(mut browser) = Browser::start("contrast of the page") else { return };
    let source = FixedSource::new(small_mesh());
    let (_server, url) = source.serve_anywhere().await;
    source.record(1, "create", &task(0, "web", "registered"));
    // Banners, and an edge of each colour.
    source.edit_status(|status| (status.ready, status.guards) = (false, vec![guard("prod", 7)]));
    source.edit(|lists| {
        lists.outbounds[0] = outbound("web", "shop", "notRead");
        lists.outbounds[1] = outbound("shop", "orders", "noReadyTarget");
    });
    for scheme in ["light", "dark"] {
        browser.open_in(&url, scheme);
        for tone in ["ok", "quiet", "warn", "bad"] {
            browser.expect_count(&format!(".edge.{tone}"), 1);
        }
        for (fragment, selector) in [
            ("#/", ".node"),
            ("#/?group=prefix", ".group-tile"),
            ("#/services", ".tbody .tr"),
            ("#/services/kuma/default/orders", ".node"),
            ("#/tasks", ".tbody .tr"),
            (&format!("#/tasks/{}", task_id(8)), ".fix"),
            ("#/warnings", ".warning-card"),
            ("#/changes", ".change"),
            ("#/status", ".facts"),
        ] {
            browser.go(fragment);
            browser.expect(selector);
            assert_eq!(browser.low_contrast(), Vec::<String>::new(), "{scheme} {fragment}");
        }
    }
    // The choice overrides the system's.
    browser.go("#/");
    let background = "getComputedStyle(document.body).backgroundColor";
    let dark = browser.run(background);
    browser.press(&["d"]);
    browser.expect("[data-theme=light] body");
    assert_ne!(browser.run(background), dark);
    browser.press(&["d"]);
    browser.expect("[data-theme=dark] body");
    assert_eq!(browser.run(background), dark);
    browser.press(&["d"]);
    browser.expect("html:not([data-theme]) body");
    // The choice stays, in a light system, too.
    browser.open_in(&url, "light");
    browser.expect(".node");
    let light = browser.run(background);
    assert_ne!(light, dark);
    browser.press(&["d", "d"]);
    browser.expect("#theme[aria-label*=\"Dark colours\"]");
    browser.run("location.reload()");
    browser.expect("[data-theme=dark] .node");
    assert_eq!(browser.run(background), dark);
    browser.click("#theme");
    browser.expect("html:not([data-theme]) body");
    assert_eq!(browser.run(background), light);
    browser.finish();
}
