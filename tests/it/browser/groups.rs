//! Groups of services, where there are too many for one drawing.

use super::driver::Browser;
use super::fixed::{FixedSource, outbound, service, task};
use super::scale::{GROUPS, SERVICES, large_mesh, name};
use ecs_mesh_operator::read_api::SnapshotLists;

#[tokio::test(flavor = "multi_thread")]
async fn groups_show_what_is_urgent_and_who_calls_whom() {
    let Some(mut browser) = Browser::start("groups of 400 services") else { return };
    let source = FixedSource::new(large_mesh());
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&url);
    browser.expect_count(".group-tile", GROUPS);
    browser.expect_text(".crumbs", "400 services in 20 groups");
    // Services 0, 97, 194, 291 and 388 are missing, those behind them degraded.
    let urgent = browser.texts(".group-tile:has(.cell.bad) .group-name");
    assert_eq!(urgent, ["team00", "team08", "team11", "team14", "team17"]);
    assert_eq!(browser.texts(".group-name")[..5], urgent, "groups with the most urgent services are first");
    browser.expect_text(".group-tile[data-name=team00] .group-count", "475/475 ready");
    // Of a group, the urgent service is first, and in the order of Tab; it has an icon, and not only a colour.
    let cell = ".group-tile[data-name=team00] .cell:first-child";
    browser.expect(&format!("{cell}.bad:not([tabindex]) svg"));
    assert_eq!(
        browser.run(&format!("document.querySelector('{cell}').ariaLabel")),
        format!("{}: Missing, not registered", name(0))
    );
    browser.expect_count(&format!("{cell} + .cell[tabindex=\"-1\"]"), 1);

    // Groups that a group calls, and those that call it. Service n calls 7n + 1, 3n + 2 and n + 20, if that is behind it.
    browser.hover(".group-tile[data-name=team03] .group-head");
    for (group, relation) in
        [("team11", "is called"), ("team02", "is called"), ("team06", "calls it"), ("team07", "calls it")]
    {
        browser.expect_text(&format!(".group-tile[data-name={group}] .relation"), relation);
    }
    browser.expect(".group-tile.called[data-name=team02]");
    browser.expect(".group-tile.caller[data-name=team06]");
    browser.hover(".crumbs");
    browser.expect_gone(".group-tile.called, .group-tile.caller");

    // A cell leads to the neighbourhood, and Escape back.
    browser.click(cell);
    browser.expect_text(".crumbs h2", &name(0));
    browser.press(&["Escape"]);
    browser.expect_count(".group-tile", GROUPS);

    // By binding all are one group: a list, as the drawing would be a hairball.
    let group_by = ".choice:has-text(\"Group by\") select";
    browser.choose(group_by, "binding");
    browser.expect_text(".group-tile .group-name", "prod");
    assert_eq!(browser.fragment(), "#/?group=binding");
    browser.click(".group-head");
    browser.expect_count(".service-list li", SERVICES);
    browser.expect_text(".service-list li:first-child", &name(0));
    browser.choose(group_by, "mesh");
    browser.expect_text(".group-tile .group-name", "kuma / default");
    browser.choose(group_by, "component");
    browser.expect_text(".group-tile .group-name", "around team");
    browser.choose(group_by, "");
    browser.expect_count(".group-tile", GROUPS);
    assert_eq!(browser.fragment(), "#/");

    // Groups follow the stream.
    source.edit(|lists| lists.services[1] = service(&name(1), "down", 25));
    browser.expect(".group-tile[data-name=team01] .cell.bad:first-child");
    browser.finish();
}

/// Two groups of two services each.
fn two_groups() -> SnapshotLists {
    let names = ["a-one", "a-two", "b-one", "b-two"];
    SnapshotLists {
        services: names.iter().map(|name| service(name, "ok", 1)).collect(),
        tasks: (0..4).map(|number| task(number, names[number], "registered")).collect(),
        outbounds: vec![outbound("a-one", "b-one", "noReadyTarget"), outbound("a-one", "b-two", "notRead")],
        ..SnapshotLists::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_to_a_group_shows_the_worst_state() {
    let Some(mut browser) = Browser::start("edges to groups of the page's graph") else { return };
    let source = FixedSource::new(two_groups());
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&format!("{url}#/?group=prefix&open=a"));
    browser.expect_text(".node.group", "2 services");
    browser.expect_count(".edge", 1);
    browser.expect_count(".edge.warn.broken[data-from$=\"/a-one\"]", 1);
    source.edit(|lists| lists.outbounds[1] = outbound("a-one", "b-two", "unknownTarget"));
    browser.expect_count(".edge.bad.broken[data-from$=\"/a-one\"]", 1);
    source.edit(|lists| lists.outbounds[1] = outbound("a-one", "b-two", "ok"));
    browser.expect_count(".edge.warn.broken[data-from$=\"/a-one\"]", 1);
    // A group's node leads into the group.
    browser.click(".node.group .node-link");
    browser.expect_text(".crumbs h2", "b");
    assert_eq!(browser.fragment(), "#/?group=prefix&open=b");
    browser.finish();
}

/// More services than the API has in a graph.
#[tokio::test(flavor = "multi_thread")]
async fn overview_says_that_the_graph_is_cut() {
    let Some(mut browser) = Browser::start("a graph that is cut") else { return };
    let source = FixedSource::new(two_groups());
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&url);
    browser.expect_count(".node", 4);
    browser.expect_gone(".cut:visible");
    source.edit(|lists| {
        lists.services.extend((0..2_001).map(|number| service(&format!("c-{number:04}"), "ok", 1)));
    });
    browser.expect_text(".cut:visible", "more services or outbounds than the overview shows");
    browser.expect_text("nav .nav-count", "2,005");
    browser.finish();
}
