//! A server with the read API's rules for queries and pages, whose answers a test can replace.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use ecs_mesh_read_api::{
    ChangeFilter, ChangeView, ErrorCodeView, ErrorView, ListView, ObjectView, PageItem, Query, TaskFilter,
    TaskView, page,
};

/// An answer.
pub(super) enum Reply {
    /// This status, with headers, and this body.
    Whole(u16, &'static str, String),
    /// The head of an answer, and no end.
    Stall,
    /// The stream's events.
    Stream(mpsc::UnboundedReceiver<String>),
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The path with its query.
    pub(super) target: String,
    /// The head, in lower case but for values.
    pub(super) head: String,
}

/// A change of the tasks.
type Edit = Box<dyn FnMut(&mut Vec<Value>) + Send>;

#[derive(Default)]
struct State {
    tasks: Vec<Value>,
    changes: Vec<Value>,
    seen: Vec<Seen>,
    replies: VecDeque<(String, Reply)>,
    streams: Vec<mpsc::UnboundedSender<String>>,
    after_page: Option<Edit>,
}

/// A running server.
#[derive(Clone)]
pub(super) struct FakeOperator {
    address: String,
    state: Arc<Mutex<State>>,
    opened: Arc<tokio::sync::Semaphore>,
}

impl FakeOperator {
    pub(super) async fn start(tasks: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = State { tasks, ..State::default() };
        let opened = Arc::new(tokio::sync::Semaphore::new(0));
        let operator = Self { address, state: Arc::new(Mutex::new(state)), opened };
        let serving = operator.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let operator = serving.clone();
                tokio::spawn(async move { operator.serve(connection).await });
            }
        });
        operator
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    pub(super) fn set_tasks(&self, tasks: Vec<Value>) {
        self.state.lock().unwrap().tasks = tasks;
    }

    pub(super) fn set_changes(&self, changes: Vec<Value>) {
        self.state.lock().unwrap().changes = changes;
    }

    /// Changes the tasks after each page.
    pub(super) fn after_page(&self, edit: impl FnMut(&mut Vec<Value>) + Send + 'static) {
        self.state.lock().unwrap().after_page = Some(Box::new(edit));
    }

    /// Gives this answer to the next request whose path begins so.
    pub(super) fn reply(&self, path: &str, reply: Reply) {
        self.state.lock().unwrap().replies.push_back((path.to_owned(), reply));
    }

    /// Forgets the answers that were given and not sent.
    pub(super) fn forget_replies(&self) {
        self.state.lock().unwrap().replies.clear();
    }

    /// Waits until one more stream is open.
    pub(super) async fn stream_opened(&self) {
        self.opened.acquire().await.unwrap().forget();
    }

    /// Sends text on all streams.
    pub(super) fn send(&self, text: &str) {
        self.state.lock().unwrap().streams.retain(|stream| stream.send(text.to_owned()).is_ok());
    }

    /// Ends all streams.
    pub(super) fn end_streams(&self) {
        self.state.lock().unwrap().streams.clear();
    }

    async fn serve(&self, mut connection: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match connection.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let target = head.split(' ').nth(1).unwrap().to_owned();
        self.state.lock().unwrap().seen.push(Seen { target: target.clone(), head });
        match self.answer(&target) {
            Reply::Whole(status, headers, body) => {
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}", body.len());
                let _ =
                    connection.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).await;
            }
            Reply::Stall => {
                let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{").await;
                std::future::pending::<()>().await;
            }
            Reply::Stream(mut events) => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                let _ = connection.write_all(head.as_bytes()).await;
                self.opened.add_permits(1);
                while let Some(text) = events.recv().await {
                    let _ = connection.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await;
                }
                let _ = connection.write_all(b"0\r\n\r\n").await;
            }
        }
    }

    fn answer(&self, target: &str) -> Reply {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut state = self.state.lock().unwrap();
        if let Some(at) = state.replies.iter().position(|(prefix, _)| path.starts_with(prefix.as_str())) {
            return state.replies.remove(at).unwrap().1;
        }
        if let Some(id) = path.strip_prefix("/api/v1/tasks/") {
            let found = state.tasks.iter().find(|task| task["name"] == id).cloned();
            return match found {
                Some(task) => json(200, &ObjectView::from(serde_json::from_value::<TaskView>(task).unwrap())),
                None => error(&ErrorView::new(ErrorCodeView::NotFound, "no such task")),
            };
        }
        match path {
            "/api/v1/tasks" => {
                let answer = Query::<TaskFilter>::parse(query).map(|query| {
                    list::<TaskView>(&state.tasks, |all| {
                        page(all, &query.paging, |one| query.filter.matches(one))
                    })
                });
                let mut after_page = state.after_page.take();
                if let Some(edit) = &mut after_page {
                    edit(&mut state.tasks);
                }
                state.after_page = after_page;
                answer.unwrap_or_else(|problem| error(&problem))
            }
            "/api/v1/changes" => match Query::<ChangeFilter>::parse(query) {
                Ok(query) => list::<ChangeView>(&state.changes, |all| page(all, &query.paging, |_| true)),
                Err(problem) => error(&problem),
            },
            "/api/v1/stream" => {
                let (events, receiver) = mpsc::unbounded_channel();
                state.streams.push(events);
                Reply::Stream(receiver)
            }
            _ => error(&ErrorView::new(ErrorCodeView::NotFound, "no such path")),
        }
    }
}

fn list<T: PageItem + serde::Serialize + serde::de::DeserializeOwned>(
    objects: &[Value],
    page: impl FnOnce(&[T]) -> ListView<T>,
) -> Reply {
    let mut items: Vec<T> =
        objects.iter().map(|object| serde_json::from_value(object.clone()).unwrap()).collect();
    items.sort_by_key(PageItem::key);
    json(200, &page(&items))
}

fn json(status: u16, body: &impl serde::Serialize) -> Reply {
    Reply::Whole(status, "", serde_json::to_string(body).unwrap())
}

fn error(problem: &ErrorView) -> Reply {
    json(problem.code.status(), problem)
}
