//! Pages of other sites in a reader's browser, and texts that try to be markup.

use axum::Router;
use axum::response::Html;
use serde_json::json;
use tokio::net::TcpListener;

use super::driver::Browser;
use super::fixed::{ANYWHERE, FixedSource, HOSTILE, small_mesh, task, task_id};
use ecs_mesh_read_api::ReasonView;

/// The URL of another site's page.
async fn other_site() -> String {
    let listener = TcpListener::bind(ANYWHERE).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let page =
        || async { Html("<!doctype html><title>other</title><link rel=icon href=data:,><body></body>") };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(page)).await });
    url
}

/// Tries each way to read or use the API from the page, and resolves with what each of them got.
const ATTEMPTS: &str = r"(async url => {
  const refused = () => 'refused';
  const element = (name, set) => new Promise(done => {
    const made = document.createElement(name);
    made.onload = () => done(name === 'iframe' && !made.contentDocument ? 'refused' : 'loaded');
    made.onerror = () => done('refused');
    set(made);
    document.body.append(made);
  });
  return Promise.all([
    fetch(`${url}api/v1/status`).then(answer => answer.text(), refused),
    fetch(`${url}api/v1/status`, {mode: 'no-cors'}).then(answer => answer.type, refused),
    new Promise(done => {
      const stream = new EventSource(`${url}api/v1/stream`);
      stream.onopen = () => done('open');
      stream.onerror = () => { stream.close(); done('refused'); };
    }),
    element('script', made => { made.src = `${url}api/v1/tasks`; }),
    element('img', made => { made.src = `${url}assets/icon.svg`; }),
    element('iframe', made => { made.src = url; }),
  ]);
})";

#[tokio::test(flavor = "multi_thread")]
async fn page_of_another_site_reads_nothing() {
    let Some(mut browser) = Browser::start("pages of other sites") else { return };
    let source = FixedSource::new(small_mesh());
    let (_server, url) = source.serve_anywhere().await;
    browser.open(&other_site().await);
    let got = browser.run(&format!("{ATTEMPTS}({})", json!(url)));
    assert_eq!(got, json!(["refused", "refused", "refused", "refused", "refused", "refused"]));
    assert!(source.metrics.request_count("forbidden") >= 4, "{:?}", source.metrics);
    // A name of another site that leads to this machine (DNS rebinding).
    browser.open(&url.replace("127.0.0.1", "rebound.test"));
    browser.expect_text("body", "forbidden");
    browser.forget_errors(
        "blocked by CORS policy|status of 403|net::ERR_FAILED|net::ERR_BLOCKED_BY_RESPONSE|frame-ancestors",
    );
    browser.finish_after_hosts(&["127.0.0.1", "rebound.test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_are_shown_as_text() {
    let Some(mut browser) = Browser::start("hostile texts in the page") else { return };
    let source = FixedSource::new(small_mesh());
    let text = || std::sync::Arc::<str>::from(HOSTILE);
    source.edit(|lists| {
        let rejected = &mut lists.tasks[8];
        rejected.reason = Some(ReasonView { key: text(), message: HOSTILE.to_owned() });
        rejected.role = Some(text());
        rejected.ecs_service = Some(text());
        rejected.workloads = vec![text()];
        rejected.address = Some(HOSTILE.to_owned());
        let warning = &mut rejected.warnings[0];
        (warning.message, warning.fix) = (text(), Some(text()));
        let warning = &mut lists.warnings[0];
        (warning.message, warning.fix, warning.services) = (text(), Some(text()), vec![text()]);
    });
    let (_server, url) = source.serve_anywhere().await;
    source.record(1, HOSTILE, &task(8, HOSTILE, "rejected"));
    browser.open(&url);
    for (fragment, selector) in [
        (format!("#/tasks/{}", task_id(8)), "main"),
        ("#/warnings".to_owned(), "main"),
        ("#/tasks?state=rejected".to_owned(), ".tbody .tr"),
        ("#/changes".to_owned(), "main"),
    ] {
        browser.go(&fragment);
        browser.expect_text(selector, HOSTILE);
        assert_eq!(browser.run("document.querySelectorAll('img').length"), 0, "{fragment}");
    }
    assert!(!browser.run("document.title").as_str().unwrap().starts_with("hit"));
    browser.finish();
}
