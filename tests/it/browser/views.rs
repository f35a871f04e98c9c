//! The views in a browser, also while the operator does not answer.

use super::driver::Browser;
use super::fixed::{ANYWHERE, FixedSource, HOSTILE, guard, outbound, small_mesh, task, task_id};
use ecs_mesh_read_api::LeaseRoleView;

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
    browser.expect_text(".figures", "1 degraded");

    // Registered: the graph follows without a reload.
    source.edit(|lists| {
        let kv = lists.services.iter_mut().find(|service| &*service.name == "kv").unwrap();
        *kv = super::fixed::service("kv", "ok", 3);
        lists.outbounds[2] = super::fixed::outbound("orders", "kv", "ok");
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
    browser.open(&format!("{url}#/tasks/{}", task_id(8)));
    browser.expect_text(".head", "Rejected");
    browser.expect_text(".verdict", &format!("verdict on {}", task_id(8)));
    browser.expect_text(".verdict .fix", "aws iam tag-role");
    browser.expect_text(".tags tbody", "Violated");
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
    source.edit_status(|status| status.role = LeaseRoleView::Standby);
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&url);
    browser.expect_text(".banner", "This copy is a standby.");
    browser.expect_text(".banner", "copy-b");
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
    browser.finish();
}
