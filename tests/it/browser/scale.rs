//! 400 services and 10,000 tasks. Times are printed, not asserted: they are the machine's.

use super::driver::Browser;
use super::fixed::{FixedSource, link, outbound, service, task, task_id};
use ecs_mesh_operator::read_api::SnapshotLists;

pub(super) const GROUPS: usize = 20;
pub(super) const SERVICES: usize = 400;
const TASKS: usize = 10_000;

pub(super) fn name(number: usize) -> String {
    format!("team{:02}-service{number:03}", number % GROUPS)
}

/// Services in groups, each of which calls three others.
pub(super) fn large_mesh() -> SnapshotLists {
    let state = |number: usize| match number % 97 {
        0 => "missing",
        1 => "degraded",
        _ => "ok",
    };
    let per_service = TASKS / SERVICES;
    let mut lists = SnapshotLists {
        services: (0..SERVICES)
            .map(|n| service(&name(n), state(n), if n % 97 == 0 { 0 } else { per_service }))
            .collect(),
        tasks: (0..TASKS).map(|n| task(n, &name(n % SERVICES), "registered")).collect(),
        ..SnapshotLists::default()
    };
    for from in 0..SERVICES {
        for to in [from * 7 + 1, from * 3 + 2, from + 20]
            .map(|to| to % SERVICES)
            .into_iter()
            .filter(|to| *to > from)
        {
            link(&mut lists.services, &name(from), &name(to));
            lists.outbounds.push(outbound(&name(from), &name(to), "ok"));
        }
    }
    lists
}

#[tokio::test(flavor = "multi_thread")]
async fn page_stays_readable_with_10_000_tasks() {
    let Some(mut browser) = Browser::start("the page at 400 services and 10,000 tasks") else { return };
    let source = FixedSource::new(large_mesh());
    let (_server, url) = source.serve_anywhere().await;

    println!("browser: overview, first group after {} ms", browser.first_paint(&url, ".group-tile"));
    browser.expect_count(".group-tile", GROUPS);
    browser.expect_count(".cell", SERVICES);
    browser.expect_text(".figures", "400");
    // One group, and a neighbourhood: drawings of bounded size.
    browser.go("#/?open=team03");
    browser.expect_text(".crumbs h2", "team03");
    browser.expect(".node.group");
    assert!(browser.texts(".node").len() <= SERVICES / GROUPS + 2 * GROUPS);
    browser.press(&["/"]);
    browser.type_text(&name(123));
    browser.expect_text("#search-results [aria-selected=true]", &name(123));
    browser.press(&["Enter"]);
    browser.expect_text(".crumbs h2", &name(123));
    browser.expect(".node.centre");
    browser.click(".segments a:last-child");
    browser.expect_text(".segments [aria-current]", "2 hops");
    assert!(browser.texts(".node").len() <= 100);

    println!(
        "browser: tasks, first row after {} ms",
        browser.first_paint(&format!("{url}#/tasks"), ".tbody .tr")
    );
    browser.expect_text(".shown", "10,000 tasks");
    let frames = browser.frames_while(|browser| browser.scroll(".table-scroll", 400, 120));
    println!("browser: scrolling 10,000 tasks by 120 steps: {frames}");
    // Rows out of view are no elements.
    assert!(browser.texts(".tbody .tr").len() < 80);
    browser.press(&["f"]);
    let frames = browser.frames_while(|browser| {
        browser.type_text(&task_id(9_876));
        browser.expect_text(".shown", "1 of 10,000 tasks");
    });
    println!("browser: filtering 10,000 tasks by 32 letters: {frames}");
    let frames = browser.frames_while(|browser| {
        source.edit(|lists| lists.tasks[9_876] = task(9_876, &name(9_876 % SERVICES), "drained"));
        browser.expect_text(".tbody .tr", "Drained");
        // More than are read one by one.
        let all = |state: &'static str| move |number: usize| task(number, &name(number % SERVICES), state);
        source.edit(|lists| lists.tasks = (0..TASKS).map(all("pending")).collect());
        browser.expect_text(".tbody .tr", "Pending");
    });
    println!("browser: updating 10,000 tasks: {frames}");
    browser.go("#/");
    browser.expect_count(".group-tile", GROUPS);
    let frames = browser.frames_while(|browser| {
        source.edit(|lists| lists.services[1] = service(&name(1), "down", TASKS / SERVICES));
        browser.expect(".cell.bad:first-child[aria-label*=\"Down\"]");
    });
    println!("browser: updating 400 services in groups: {frames}");
    browser.press(&["/"]);
    let frames = browser.frames_while(|browser| {
        browser.type_text(&name(123));
        browser.expect_text("#search-results [aria-selected=true]", &name(123));
    });
    println!("browser: searching 400 services: {frames}");
    browser.finish();
}
