use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::server::{FakeOperator, Reply};
use super::*;
use crate::watch::{watch, watch_status};

struct Watched {
    lines: mpsc::UnboundedReceiver<String>,
    notices: mpsc::UnboundedReceiver<String>,
    task: JoinHandle<Result<(), GetError>>,
}

impl Watched {
    fn start(operator: &FakeOperator, request: GetRequest, format: ObjectFormat) -> Self {
        let (out, lines) = Lines::new();
        let (notice, notices) = mpsc::unbounded_channel();
        let client = client(operator);
        let task = tokio::spawn(async move {
            let mut printer = printer(request.kind, format, out);
            watch(&client, &request, &mut printer, &mut |text| notice.send(text.to_owned()).unwrap()).await
        });
        Self { lines, notices, task }
    }

    async fn line(&mut self) -> String {
        timeout(PATIENCE, self.lines.recv()).await.expect("no line").expect("the watch ended")
    }

    async fn notice(&mut self) -> String {
        timeout(PATIENCE, self.notices.recv()).await.expect("no notice").expect("the watch ended")
    }

    async fn end(self) -> Result<(), GetError> {
        timeout(PATIENCE, self.task).await.expect("the watch goes on").unwrap()
    }
}

fn named(number: usize) -> String {
    format!("task/{}", task_id(number))
}

fn tasks_event(id: u64, numbers: &[usize], more: bool) -> String {
    let ids: Vec<String> = numbers.iter().map(|number| task_id(*number)).collect();
    format!("id: {id}\nevent: tasks\ndata: {}\n\n", json!({"tasks": ids, "services": [], "more": more}))
}

#[tokio::test]
async fn watch_prints_each_changed_row_once() {
    let operator = FakeOperator::start(vec![task(1, "pending"), task(2, "registered")]).await;
    let mut watched = Watched::start(&operator, request(ResourceKind::Tasks, &[], &[]), ObjectFormat::Table);
    assert!(watched.line().await.starts_with("NAME"));
    assert!(watched.line().await.contains("pending") && watched.line().await.contains("registered"));
    operator.set_tasks(vec![task(1, "registered"), task(2, "registered"), task(3, "rejected")]);
    operator.send(&tasks_event(1, &[1, 2, 3], false));
    let (one, three) = (watched.line().await, watched.line().await);
    assert!(one.contains(&task_id(1)) && one.contains("registered"), "{one}");
    assert!(three.contains(&task_id(3)) && three.contains("rejected"), "{three}");
}

#[tokio::test]
async fn watch_prints_the_last_row_of_what_leaves_its_filter() {
    let operator = FakeOperator::start(vec![task(1, "pending"), task(2, "pending")]).await;
    let pending = request(ResourceKind::Tasks, &[], &[("state", "pending")]);
    let mut watched = Watched::start(&operator, pending, ObjectFormat::Table);
    for _ in 0..3 {
        watched.line().await;
    }
    operator.set_tasks(vec![task(1, "registered")]);
    operator.send(&tasks_event(1, &[1], false));
    let moved = watched.line().await;
    assert!(moved.contains(&task_id(1)) && moved.contains("registered"), "{moved}");
    operator.send(&tasks_event(2, &[], true));
    let gone = watched.line().await;
    assert!(gone.contains(&task_id(2)) && gone.contains("gone"), "{gone}");
}

#[tokio::test]
async fn watch_reads_the_list_again_after_a_reset() {
    let operator = FakeOperator::start(vec![task(1, "registered")]).await;
    let mut watched = Watched::start(&operator, request(ResourceKind::Tasks, &[], &[]), ObjectFormat::Name);
    assert_eq!(watched.line().await, named(1));
    operator.set_tasks(vec![task(1, "registered"), task(2, "registered")]);
    operator.send("event: reset\ndata: {}\n\n");
    assert_eq!(watched.line().await, named(2), "the other row did not change");
}

#[tokio::test]
async fn lost_stream_is_resumed_behind_the_last_event() {
    let operator = FakeOperator::start(vec![task(1, "registered")]).await;
    let mut watched = Watched::start(&operator, request(ResourceKind::Tasks, &[], &[]), ObjectFormat::Name);
    assert_eq!(watched.line().await, named(1));
    operator.stream_opened().await;
    operator.set_tasks(vec![task(2, "registered")]);
    operator.send(&tasks_event(41, &[2], false));
    assert_eq!(watched.line().await, named(2));
    operator.reply("/api/v1/stream", Reply::Whole(503, "", "{}".to_owned()));
    operator.end_streams();
    assert!(watched.notice().await.contains("lost"));
    assert!(watched.notice().await.contains("again"));
    let heads: Vec<String> = operator.seen().into_iter().map(|seen| seen.head.to_lowercase()).collect();
    let resumed = heads.iter().filter(|head| head.contains("last-event-id: 41\r\n")).count();
    assert_eq!(resumed, 2, "one attempt failed");
    operator.set_tasks(vec![task(2, "registered"), task(3, "registered")]);
    operator.send(&tasks_event(42, &[3], false));
    assert_eq!(watched.line().await, named(3));
}

#[tokio::test]
async fn watched_changes_are_printed_in_order_and_once() {
    let operator = FakeOperator::start(Vec::new()).await;
    operator.set_changes(vec![change(1, "create"), change(2, "update")]);
    let mut changes = request(ResourceKind::Changes, &[], &[]);
    changes.selector.kinds = vec!["create".to_owned(), "update".to_owned()];
    let mut watched = Watched::start(&operator, changes, ObjectFormat::Name);
    assert_eq!((watched.line().await.as_str(), watched.line().await.as_str()), ("change/1", "change/2"));
    for (id, kind) in [(2, "update"), (3, "drain"), (4, "create")] {
        operator.send(&format!("id: {id}\nevent: change\ndata: {}\n\n", change(id, kind)));
    }
    assert_eq!(watched.line().await, "change/4", "2 was printed and 3 is another kind");
    operator.set_changes((1..=5).map(|id| change(id, "create")).collect());
    operator.send("event: reset\ndata: {}\n\n");
    assert_eq!(watched.line().await, "change/5");
}

#[tokio::test]
async fn watch_ends_when_the_token_is_refused() {
    let operator = FakeOperator::start(vec![task(1, "registered")]).await;
    let mut watched = Watched::start(&operator, request(ResourceKind::Tasks, &[], &[]), ObjectFormat::Name);
    watched.line().await;
    operator.stream_opened().await;
    operator.reply("/api/v1/stream", Reply::Whole(401, "", "{}".to_owned()));
    operator.end_streams();
    assert!(matches!(watched.end().await, Err(GetError::Api(crate::ApiError::TokenMissing { .. }))));
}

#[tokio::test]
async fn watch_of_a_name_fails_when_it_does_not_exist() {
    let operator = FakeOperator::start(vec![task(1, "registered")]).await;
    let watched = Watched::start(&operator, request(ResourceKind::Tasks, &["none"], &[]), ObjectFormat::Name);
    assert!(matches!(watched.end().await, Err(GetError::Missing { names, .. }) if names == ["none"]));
}

#[tokio::test]
async fn watched_status_is_shown_again_after_a_lost_stream() {
    let operator = FakeOperator::start(Vec::new()).await;
    let (shown, mut roles) = mpsc::unbounded_channel();
    let (notice, mut notices) = mpsc::unbounded_channel();
    let watching = client(&operator);
    let task = tokio::spawn(async move {
        let mut show = |status: &Value| {
            let sent = shown.send(status["role"].as_str().unwrap_or_default().to_owned());
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
        };
        watch_status(&watching, &mut show, &mut |text| notice.send(text.to_owned()).unwrap()).await
    });
    let status = |id: u64, role: &str| format!("id: {id}\nevent: status\ndata: {{\"role\": \"{role}\"}}\n\n");
    operator.stream_opened().await;
    operator.send(&status(1, "standby"));
    assert_eq!(timeout(PATIENCE, roles.recv()).await.unwrap().as_deref(), Some("standby"));
    operator.end_streams();
    assert!(timeout(PATIENCE, notices.recv()).await.unwrap().unwrap().contains("lost"));
    operator.stream_opened().await;
    operator.send(&status(2, "leader"));
    assert_eq!(timeout(PATIENCE, roles.recv()).await.unwrap().as_deref(), Some("leader"));
    // The reader of the output has gone.
    drop(roles);
    operator.send(&status(3, "standby"));
    let ended = timeout(PATIENCE, task).await.unwrap().unwrap();
    assert!(matches!(ended, Err(error) if error.is_closed_output()));
}
