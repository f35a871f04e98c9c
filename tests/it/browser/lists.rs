//! Search, filters and order of lists, and warnings with their fix.

use super::driver::Browser;
use super::fixed::{FixedSource, HOSTILE, service, small_mesh, task, task_id, warning};
use ecs_mesh_read_api::RegistrationCountsView;

#[tokio::test(flavor = "multi_thread")]
async fn search_shows_names_that_begin_with_it_first() {
    let Some(mut browser) = Browser::start("the order of the page's search") else { return };
    let source = FixedSource::new(small_mesh());
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&format!("{url}#/status"));
    browser.expect_text(".nav-count", "6");
    browser.press(&["/"]);
    // Also within the hostile name, which is the first in alphabetical order.
    browser.type_text("or");
    browser.expect_count("#search-results [role=option]", 7);
    let found = browser.texts("#search-results .name");
    assert_eq!((&*found[0], &*found[1]), ("orders", HOSTILE));
    browser.expect_text("#search-results [aria-selected=true]", "orders");
    browser.expect_text("#search-results [aria-selected=true] .hint", "Service · Degraded · kuma / default");
    browser.press(&["ArrowDown"]);
    browser.expect_text("#search-results [aria-selected=true]", HOSTILE);
    // From the first to the last, which is a task.
    browser.press(&["ArrowUp", "ArrowUp"]);
    browser.expect_text("#search-results [aria-selected=true] .hint", "Task");
    // The choice stays while the mesh changes.
    let chosen = browser.texts("#search-results [aria-selected=true] .name");
    source.edit(|lists| lists.services.push(service("order-archive", "ok", 1)));
    browser.expect_count("#search-results [role=option]", 8);
    assert_eq!(browser.texts("#search-results [aria-selected=true] .name"), chosen);
    browser.press(&["Enter"]);
    browser.expect_text("main h1", &chosen[0]);

    // By the mouse; and where nothing has the name, the tasks are filtered.
    browser.press(&["/"]);
    browser.type_text("shop");
    browser.click("#search-results [role=option]:has-text(\"Service\")");
    browser.expect_text("main h1", "shop");
    browser.press(&["/"]);
    browser.type_text("no such name");
    browser.expect_text("#search-results .none", "Nothing of this name");
    browser.press(&["Enter"]);
    browser.expect_text(".shown", "0 of 10 tasks");
    assert_eq!(browser.fragment(), "#/tasks?q=no+such+name");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn services_follow_filter_and_order_in_the_address() {
    let Some(mut browser) = Browser::start("the page's list of services") else { return };
    let source = FixedSource::new(small_mesh());
    source.edit(|lists| {
        for (index, ready) in [(0, 9), (1, 1)] {
            let registrations = RegistrationCountsView { total: 10, ready, drained: 0, unknown: 0 };
            lists.services[index].registrations = registrations;
            lists.services[index].tasks.total = [20, 4][index];
        }
    });
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&format!("{url}#/services"));
    browser.expect_text(".shown", "6 services");
    let names = |browser: &mut Browser| -> Vec<String> {
        let rows = browser.rows();
        rows.iter().map(|row| row.split('\n').map(str::trim).nth(1).unwrap().to_owned()).collect()
    };
    assert_eq!(names(&mut browser), [HOSTILE, "kv", "legacy", "orders", "shop", "web"]);
    browser.expect_text(".tbody .tr:has-text(\"web\")", "9/10");
    // By numbers, as numbers; a second click turns the order.
    browser.click(".th button:has-text(\"Tasks\")");
    browser.expect("[data-key=tasks][aria-sort=ascending]");
    assert_eq!(names(&mut browser)[4..], ["shop", "web"]);
    browser.click(".th button:has-text(\"Tasks\")");
    browser.expect("[data-key=tasks][aria-sort=descending]");
    assert_eq!(names(&mut browser)[..2], ["web", "shop"]);
    assert_eq!(browser.fragment(), "#/services?sort=-tasks");
    // By urgency, not by the state's word.
    browser.go("#/services?sort=-state");
    browser.expect("[data-key=state][aria-sort=descending]");
    browser.expect("[data-key=tasks][aria-sort=none]");
    assert_eq!(names(&mut browser)[..2], ["kv", "orders"]);

    browser.press(&["f"]);
    browser.type_text("or");
    browser.expect_text(".shown", "2 of 6 services");
    browser.expect_text(".toggle:has-text(\"Degraded\") .toggle-count", "1");
    browser.click(".toggle:has-text(\"Degraded\")");
    browser.expect_text(".shown", "1 of 6 services");
    assert_eq!(browser.fragment(), "#/services?sort=-state&q=or&state=degraded");
    // The list follows, and the filter holds.
    source.edit(|lists| lists.services[2] = service("orders", "ok", 2));
    browser.expect_text(".shown", "0 of 6 services");
    browser.expect_text(".empty", "Nothing matches");
    browser.press(&["f", "Escape"]);
    browser.click(".toggle[aria-pressed=true]");
    browser.expect_text(".shown", "6 services");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_filtered_by_cluster_and_service() {
    let Some(mut browser) = Browser::start("more filters of tasks") else { return };
    let source = FixedSource::new(small_mesh());
    let other = "arn:aws:ecs:eu-west-1:111122223333:cluster/other";
    source.edit(|lists| {
        lists.tasks[3].cluster = other.into();
        // Registered under a second name.
        let mut second = lists.tasks[0].registrations[0].clone();
        second.service = Some("web-admin".into());
        lists.tasks[0].registrations.push(second);
        lists.tasks.push(task(20, "batch", "ignored"));
    });
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&format!("{url}#/tasks"));
    browser.expect_text(".shown", "10 tasks");
    browser.choose(".choice:has-text(\"Cluster\") select", other);
    browser.expect_text(".shown", "1 of 10 tasks");
    browser.expect_text(".tbody .tr", &task_id(3));
    browser.go("#/tasks?service=web");
    browser.expect_text(".shown", "3 of 10 tasks");
    browser.go("#/tasks?service=web-admin");
    browser.expect_text(".shown", "1 of 10 tasks");
    browser.expect_text(".tbody .tr", "2/2 ready");
    browser.click(".chip:has-text(\"web-admin\")");
    browser.expect_text(".shown", "10 tasks");

    // Ignored tasks belong to no mesh: they are read where they are asked for, and followed.
    browser.click(".toggle:has-text(\"Ignored\")");
    browser.expect_text(".shown", "1 of 11 tasks");
    browser.expect_text(".tbody .tr", &task_id(20));
    source.edit(|lists| lists.tasks.push(task(21, "batch", "ignored")));
    browser.expect_text(".shown", "2 of 12 tasks");
    // A task that is not ignored any more is counted once, whichever list is read first.
    browser.hold("**/api/v1/tasks?*state=ignored*");
    source.edit(|lists| lists.tasks[10] = task(20, "batch", "pending"));
    browser.expect_text(".shown", "1 of 12 tasks");
    browser.release();
    browser.expect_text(".tbody .tr", &task_id(21));
    browser.click(".toggle:has-text(\"Ignored\")");
    browser.expect_text(".shown", "11 tasks");

    // By hundreds: the row that the keyboard reaches is an element, and in view.
    source.edit(|lists| lists.tasks.extend((100..600).map(|number| task(number, "web", "registered"))));
    browser.expect_text(".shown", "511 tasks");
    browser.go("#/tasks?sort=name");
    browser.expect("[data-key=name][aria-sort=ascending]");
    browser.tab_to(".tbody .tr", 24);
    browser.press(&["End"]);
    assert!(browser.focused().contains(&task_id(599)), "{}", browser.focused());
    let is_in_view = "(({bottom}, frame) => bottom <= frame.bottom)(\
        document.activeElement.getBoundingClientRect(), document.querySelector('.table-scroll').getBoundingClientRect())";
    assert_eq!(browser.run(is_in_view), true);
    browser.press(&["Home"]);
    assert!(browser.focused().contains(&task_id(0)), "{}", browser.focused());
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn warning_has_its_fix_and_leads_to_its_tasks() {
    let Some(mut browser) = Browser::start("the page's warnings") else { return };
    let source = FixedSource::new(small_mesh());
    source.edit(|lists| {
        lists.warnings.push(warning(9, "web"));
        lists.warnings[1].tasks = 3;
    });
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&format!("{url}#/warnings"));
    browser.expect_text(".shown", "2 causes");
    browser.expect_text("nav .nav-count.warn", "2");
    // The cause with the most tasks is first.
    browser.expect_text(".warning-card", "the role of web lacks a tag");
    let orders = ".warning-card:has-text(\"the role of orders lacks a tag\")";
    browser.expect_text(&format!("{orders} .fix code"), "aws iam tag-role --role-name task");
    browser.expect_text(&format!("{orders} .label"), "rejected");
    browser.press(&["f"]);
    browser.type_text("role of orders");
    browser.expect_text(".shown", "1 of 2 causes");
    browser.expect_count(".warning-card", 1);
    browser.click(&format!("{orders} a:has-text(\"1 task\")"));
    browser.expect_text(".shown", "1 of 10 tasks");
    browser.expect_text(".tbody .tr", &task_id(8));
    assert_eq!(browser.fragment(), "#/tasks?service=orders&warning=rejected");
    browser.click(".chip:has-text(\"orders\")");
    browser.expect_text(".shown", "1 of 10 tasks");
    browser.click(".chip:has-text(\"rejected\")");
    browser.expect_text(".shown", "10 tasks");

    browser.go("#/warnings");
    browser.click(&format!("{orders} a:has-text(\"{}\")", task_id(8)));
    browser.expect_text(".verdict .warning .fix", "aws iam tag-role --role-name task");
    // The list follows the stream: where a task's warning changes, and where the number of warnings does.
    browser.go("#/warnings");
    browser.expect_count(".warning-card", 2);
    source.edit(|lists| {
        lists.warnings[0].message = "the role of orders lacks two tags".into();
        lists.tasks[8].warnings[0].message = "the role lacks two tags".into();
    });
    browser.expect_text(".warning-card:last-child", "the role of orders lacks two tags");
    source.edit(|lists| lists.warnings.clear());
    browser.expect_text(".warnings .notice", "No warning is active");
    browser.expect_gone(".warning-card");
    browser.finish();
}
