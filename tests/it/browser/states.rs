//! States that a mesh at rest does not have, and the pages of single objects.

use super::driver::Browser;
use super::fixed::{FixedSource, control_plane, guard, outbound, service, small_mesh, task, task_id};
use ecs_mesh_read_api::{CircuitView, ControlPlaneView, RegistrationCountsView, TaskView};

#[tokio::test(flavor = "multi_thread")]
async fn trouble_of_the_operator_is_shown_until_it_ends() {
    let Some(mut browser) = Browser::start("the page of an operator in trouble") else { return };
    let source = FixedSource::new(small_mesh());
    let (_server, url) = source.serve_anywhere().await;
    source.edit_status(|status| {
        (status.ready, status.pending) = (false, vec!["the first sweep of kuma".to_owned()]);
        status.guards = vec![guard("prod", 7), guard("staging", 0)];
        let circuit = CircuitView::Open;
        let reason = Some("2.6 is older than 2.7".to_owned());
        status.control_planes = vec![
            ControlPlaneView { circuit, synced: false, ..control_plane("kuma") },
            ControlPlaneView { supported: false, unsupported_reason: reason, ..control_plane("old") },
        ];
    });
    browser.open(&url);
    browser.expect_text(".banner.warn", "the first sweep of kuma");
    browser.expect_text(".banner.bad", "prod has tripped");
    browser.expect_text(".banner.bad", "7 removals held");
    browser.expect_text(".figure:has-text(\"Guard\") .figure-value.bad", "Tripped");
    browser.expect_text(".figure:has-text(\"Guard\") .figure-note", "7 removals held");

    browser.click(".banner.bad a");
    browser.expect_text(".toolbar .badge.bad", "Not ready");
    browser.expect_text("[aria-label=Operator] .facts", "the first sweep of kuma");
    let guard_of = |binding: &str| format!("[aria-label=Guards] tbody tr:has-text(\"{binding}\")");
    browser.expect_text(&format!("{} .badge.bad", guard_of("prod")), "Tripped");
    browser.expect_text(&format!("{} .badge.ok", guard_of("staging")), "Within limits");
    let plane = |row: usize, column: usize| {
        format!("[aria-label=\"Control planes\"] tbody tr:nth-child({row}) td:nth-child({column})")
    };
    for (row, column, tone, text) in [
        (1, 4, "ok", "Yes"),
        (1, 5, "warn", "Not yet"),
        (1, 6, "bad", "Open"),
        (2, 4, "bad", "No"),
        (2, 5, "ok", "Yes"),
        (2, 6, "ok", "Closed"),
    ] {
        browser.expect_text(&format!("{} .badge.{tone}", plane(row, column)), text);
    }
    browser.expect_text(&plane(2, 4), "2.6 is older than 2.7");

    // The stream has the status: all of it ends without a reload, and without another request.
    browser.hold("**/api/v1/status");
    source.edit_status(|status| {
        (status.ready, status.pending) = (true, Vec::new());
        status.guards = vec![guard("prod", 0)];
        status.control_planes = vec![control_plane("kuma")];
    });
    browser.expect_text(".toolbar .badge.ok", "Ready");
    browser.expect_gone(".banner");
    browser.expect_gone("main .badge.bad, main .badge.warn");
    browser.release();
    browser.go("#/");
    browser.expect_text(".figure:has-text(\"Guard\") .figure-value:not(.bad)", "Within limits");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_have_the_colour_of_their_state() {
    let Some(mut browser) = Browser::start("edges of the page's graph") else { return };
    let source = FixedSource::new(small_mesh());
    source.edit(|lists| {
        lists.outbounds[0] = outbound("web", "shop", "notRead");
        lists.outbounds[1] = outbound("shop", "orders", "noReadyTarget");
    });
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&url);
    browser.expect_count(".edge", 4);
    for edge in [
        ".warn.broken[data-from$=\"/shop\"][data-to$=\"/orders\"]",
        ".bad.broken[data-from$=\"/orders\"][data-to$=\"/kv\"]",
        ".quiet[data-from$=\"/web\"][data-to$=\"/shop\"]",
        ".ok:not(.broken)[data-from$=\"/shop\"]",
    ] {
        browser.expect_count(&format!(".edge{edge}"), 1);
    }
    browser.expect_text(".edge-label.warn", "no ready target");
    let colours =
        "new Set([...document.querySelectorAll('.edge')].map(edge => getComputedStyle(edge).stroke)).size";
    assert_eq!(browser.run(colours), 4);

    // Nothing but the outbound changes.
    source.edit(|lists| lists.outbounds[1] = outbound("shop", "orders", "ok"));
    browser.expect_gone(".edge.warn");
    browser.expect_count(".edge.ok", 2);
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn service_page_shows_readiness_tasks_and_history() {
    let Some(mut browser) = Browser::start("a service's page") else { return };
    let source = FixedSource::new(small_mesh());
    source.edit(|lists| {
        lists.services[2].registrations =
            RegistrationCountsView { total: 4, ready: 2, drained: 1, unknown: 1 };
        // Of a service of the same name at another control plane.
        lists.tasks.push(TaskView { control_plane: Some("other".into()), ..task(20, "orders", "pending") });
    });
    let (_server, url) = source.serve_anywhere().await;
    source.record(1, "create", &task(4, "orders", "registered"));
    source.record(2, "update", &task(0, "web", "registered"));
    source.record(3, "drain", &task(5, "orders", "drained"));
    browser.open(&format!("{url}#/services/kuma/default/orders"));
    browser.expect_text(".head", "Degraded");
    let figure = |name: &str, part: &str| format!(".figure:has-text(\"{name}\") .figure-{part}");
    browser.expect_text(&figure("Ready registrations", "value"), "2 of 4");
    browser.expect_text(&figure("Ready registrations", "note"), "1 drained · 1 not read yet");
    browser.expect_text(&figure("Tasks", "value"), "3");
    browser.expect_text(&figure("Rejected", "value.bad"), "1");
    browser.expect_count(".tbody .tr", 3);
    for (number, state) in [(4, "Registered"), (5, "Registered"), (8, "Rejected")] {
        browser.expect(&format!(".tbody .tr:has-text(\"{}\"):has-text(\"{state}\")", task_id(number)));
    }
    browser.expect_count(".history .change", 2);
    assert!(browser.texts(".history .change")[0].contains("test change 3"), "the newest change is first");

    // A task of the service changes, and later the service is gone.
    source.record(4, "remove", &task(5, "orders", "registered"));
    source.edit(|lists| {
        lists.services[2] = service("orders", "degraded", 1);
        lists.tasks[5] = task(5, "orders", "rejected");
    });
    browser.expect_count(".history .change", 3);
    browser.expect_text(&figure("Ready registrations", "value"), "1 of 1");
    browser.expect_count(".tbody .tr:has-text(\"Rejected\")", 2);
    // Stopped tasks stand behind the others.
    source.edit(|lists| lists.tasks[4] = task(4, "orders", "stopped"));
    browser.expect(".tbody .tr:has-text(\"Stopped\")");
    assert!(browser.rows()[2].contains(&task_id(4)), "{:?}", browser.rows());
    source.edit(|lists| drop(lists.services.remove(2)));
    browser.expect_text(".head .notice", "No service of this name");
    browser.expect_gone(".columns:visible");
    browser.expect_gone(".figure");
    browser.forget_errors("status of 404 .*/api/v1/services/kuma/default/orders");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn task_page_says_when_the_task_is_gone() {
    let Some(mut browser) = Browser::start("the page of a task that is gone") else { return };
    let source = FixedSource::new(small_mesh());
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&format!("{url}#/tasks/{}", task_id(9)));
    browser.expect_text(".head .badge", "Drained");
    browser.expect(".columns:visible");
    source.edit(|lists| lists.tasks.truncate(9));
    browser.expect_text(".head .badge", "Gone");
    // Nothing of its last state stays in view.
    browser.expect_gone(".columns:visible");

    // ECS may show it again.
    source.edit(|lists| lists.tasks.push(task(9, "web", "stopped")));
    browser.expect_text(".head .badge", "Stopped");
    browser.expect(".columns:visible");
    source.edit(|lists| lists.tasks.truncate(9));
    browser.expect_text(".head .badge", "Gone");
    browser.click(".head a");
    browser.expect_text("main h1", "Changes");
    assert_eq!(browser.fragment(), format!("#/changes?q={}&warnings=true", task_id(9)));
    browser.forget_errors(&format!("status of 404 .*/api/v1/tasks/{}", task_id(9)));
    browser.finish();
}
