//! Everything by keyboard alone.

use super::driver::Browser;
use super::fixed::{FixedSource, HOSTILE, small_mesh, task_id};

#[tokio::test(flavor = "multi_thread")]
async fn views_open_by_their_keys() {
    let Some(mut browser) = Browser::start("views of the page by keyboard") else { return };
    let (_server, url) = FixedSource::new(small_mesh()).serve_anywhere().await;
    browser.open(&url);
    browser.expect_count(".node", 6);
    for (key, fragment, heading) in [
        ("s", "#/services", "Services"),
        ("t", "#/tasks", "Tasks"),
        ("w", "#/warnings", "Warnings"),
        ("c", "#/changes", "Changes"),
        ("p", "#/status", "Status"),
        ("o", "#/", "Overview"),
    ] {
        browser.press(&["g", key]);
        browser.expect_text("main h1", heading);
        assert_eq!(browser.fragment(), fragment);
    }
    browser.press(&["?"]);
    browser.expect_text("dialog[open] h2", "Keyboard shortcuts");
    browser.press(&["Escape"]);
    browser.expect_gone("dialog[open]");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_is_walked_by_arrow_keys() {
    let Some(mut browser) = Browser::start("the graph of the page by keyboard") else { return };
    let (_server, url) = FixedSource::new(small_mesh()).serve_anywhere().await;
    browser.open(&url);
    browser.expect_count(".node", 6);
    // Past the header, the figures and the choice of groups. The first service of the list is in the order of Tab.
    browser.tab_to(".skip", 1);
    browser.press(&["Enter"]);
    browser.tab_to(".node-link", 8);
    assert!(browser.focused().starts_with(HOSTILE), "{}", browser.focused());
    browser.press(&["ArrowLeft", "ArrowLeft"]);
    assert!(browser.focused().starts_with("web:"), "{}", browser.focused());
    browser.press(&["ArrowRight"]);
    assert!(
        browser.focused().starts_with("shop: Ready, 2 of 2 ready, calls 2, called by 1"),
        "{}",
        browser.focused()
    );
    browser.press(&["ArrowLeft"]);
    assert!(browser.focused().starts_with("web:"), "{}", browser.focused());

    browser.press(&["n"]);
    browser.expect_text(".crumbs h2", "web");
    browser.expect_count(".node", 2);
    assert!(browser.focused().starts_with("web:"), "{}", browser.focused());
    browser.press(&["Escape"]);
    browser.expect_count(".node", 6);
    assert!(browser.focused().starts_with("web:"), "{}", browser.focused());
    browser.press(&["Enter"]);
    browser.expect_text("main h1", "web");
    assert_eq!(browser.fragment(), "#/services/kuma/default/web");
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn table_is_walked_by_arrow_keys() {
    let Some(mut browser) = Browser::start("the page's tables by keyboard") else { return };
    let (_server, url) = FixedSource::new(small_mesh()).serve_anywhere().await;
    browser.open(&format!("{url}#/tasks"));
    browser.expect_text(".shown", "10 tasks");
    browser.press(&["f"]);
    browser.type_text("orders");
    browser.expect_text(".shown", "3 of 10 tasks");
    assert_eq!(browser.fragment(), "#/tasks?q=orders");
    // Past the choices and the headings. One row is in the order of Tab.
    browser.tab_to(".tbody .tr", 20);
    assert_eq!(browser.run("document.querySelectorAll('.tbody .tr[tabindex=\"0\"]').length"), 1);
    browser.press(&["End"]);
    assert!(browser.focused().contains(&task_id(8)), "{}", browser.focused());
    browser.press(&["ArrowUp", "ArrowUp", "ArrowDown"]);
    assert!(browser.focused().contains(&task_id(5)), "{}", browser.focused());
    browser.press(&["Enter"]);
    browser.expect_text("main h1", &task_id(5));
    browser.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn search_opens_what_it_finds() {
    let Some(mut browser) = Browser::start("the page's search") else { return };
    let (_server, url) = FixedSource::new(small_mesh()).serve_anywhere().await;
    browser.open(&format!("{url}#/status"));
    browser.expect_text(".nav-count", "6");
    browser.press(&["/"]);
    browser.type_text("ord");
    browser.expect_text("#search-results [aria-selected=true]", "orders");
    browser.press(&["Enter"]);
    browser.expect_text("main h1", "orders");

    // In the overview, the service comes into focus there.
    browser.press(&["g", "o"]);
    browser.expect_count(".node", 6);
    browser.press(&["/"]);
    browser.type_text("shop");
    browser.expect_text("#search-results [aria-selected=true]", "shop");
    browser.press(&["Enter"]);
    browser.expect_text(".crumbs h2", "shop");
    browser.expect(".node.centre");

    browser.press(&["/"]);
    browser.type_text(&task_id(9));
    browser.expect_text("#search-results [aria-selected=true]", &task_id(9));
    browser.press(&["Enter"]);
    browser.expect_text("main h1", &task_id(9));
    browser.finish();
}

/// A slow operator: the text is typed before the mesh is there, and the tasks are found before the services.
#[tokio::test(flavor = "multi_thread")]
async fn search_finds_services_that_arrive_after_its_text() {
    let Some(mut browser) = Browser::start("the page's search") else { return };
    let (_server, url) = FixedSource::new(small_mesh()).serve_anywhere().await;
    browser.open(&format!("{url}#/status"));
    browser.expect_text(".nav-count", "6");
    browser.hold("**/api/v1/topology*");
    browser.press(&["/"]);
    browser.type_text("orders");
    browser.expect_text("#search-results [aria-selected=true]", "Task");
    browser.release();
    browser.expect_text("#search-results [aria-selected=true]", "Service");
    browser.press(&["Enter"]);
    browser.expect_text("main h1", "orders");

    browser.press(&["/"]);
    browser.type_text("no such name");
    browser.expect_text("#search-results .none", "Nothing of this name");
    browser.press(&["Escape"]);

    // An empty search leads nowhere, also after one that has found something.
    browser.press(&["/"]);
    browser.type_text(&task_id(9));
    browser.expect_text("#search-results [aria-selected=true]", &task_id(9));
    browser.press(&["Escape"]);
    let before = browser.run("location.hash");
    browser.press(&["/", "Enter"]);
    assert_eq!(browser.run("location.hash"), before);
    browser.finish();
}
