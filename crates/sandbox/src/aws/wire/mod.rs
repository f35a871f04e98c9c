//! The wire protocols of AWS for a [`Cloud`], with one port for all services, for use with `AWS_ENDPOINT_URL`.
//!
//! The lock is never held across an await. Long polls sleep until a message arrives or their time is over, and a
//! timer advances the account at [`Cloud::next_deadline`].

mod accounts;
mod dynamodb;
mod ec2;
mod ecs;
mod events;
mod faults;
mod iam;
mod request;
mod response;
mod s3;
mod secretsmanager;
mod signed;
mod sqs;
mod ssm;
mod sts;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::request::AwsRequest;
use super::cloud::ForwardedEvent;
use super::{AwsApiError, AwsApiResult, Cloud};
use crate::cuttable::{ConnectionCut, CuttableListener};
use ecs_mesh_model::Timestamp;

pub use self::faults::{AwsCall, AwsFault, AwsFaults, NoAwsFaults};
pub use self::signed::{QueryAnswer, query};

/// A [`Cloud`] with a clock, shared between the endpoint and the world.
#[derive(Clone)]
pub struct AwsFront {
    cloud: Arc<Mutex<Cloud>>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    faults: Arc<dyn AwsFaults>,
    /// Notified when a message becomes visible.
    arrivals: Arc<Notify>,
    /// Notified when the next deadline may have changed.
    rescheduled: Arc<Notify>,
    /// The other accounts and Regions on the same port.
    members: Arc<Mutex<Vec<AwsFront>>>,
    /// Events that they forward to this one.
    forwarded: Arc<Mutex<Vec<ForwardedEvent>>>,
    is_member: bool,
}

impl AwsFront {
    /// Combines an account, faults and a clock.
    pub fn new(
        cloud: Arc<Mutex<Cloud>>,
        faults: Arc<dyn AwsFaults>,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        Self {
            cloud,
            clock: Arc::new(clock),
            faults,
            arrivals: Arc::new(Notify::new()),
            rescheduled: Arc::new(Notify::new()),
            members: Arc::default(),
            forwarded: Arc::default(),
            is_member: false,
        }
    }

    /// Advances the account to now, calls `act`, and wakes long polls and the timer. Changes to the account by
    /// another way do not wake them.
    pub fn with<R>(&self, act: impl FnOnce(&mut Cloud, Timestamp) -> R) -> R {
        let mut cloud = self.cloud.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (self.clock)();
        let before = cloud.next_deadline();
        cloud.step(now);
        if !self.is_member {
            let forwarded =
                std::mem::take(&mut *self.forwarded.lock().unwrap_or_else(PoisonError::into_inner));
            forwarded.into_iter().for_each(|event| cloud.take_forwarded(&event, now));
        }
        let result = act(&mut cloud, now);
        let leaving = cloud.take_leaving_events();
        if self.is_member && !leaving.is_empty() {
            self.forwarded.lock().unwrap_or_else(PoisonError::into_inner).extend(leaving);
            self.rescheduled.notify_one();
        }
        if cloud.take_message_arrived() {
            self.arrivals.notify_waiters();
        }
        if cloud.next_deadline() != before {
            self.rescheduled.notify_one();
        }
        result
    }

    /// Number of calls of each `service.Operation`.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.with(|cloud, _| cloud.calls())
    }

    /// Advances the accounts at each deadline.
    async fn run(&self) {
        loop {
            // This account last: the others may have forwarded events to it.
            let pauses = self.all().into_iter().rev().filter_map(|front| {
                let (deadline, now) = front.with(|cloud, now| (cloud.next_deadline(), now));
                Some(now.age_at(deadline?))
            });
            match pauses.min() {
                Some(pause) => {
                    tokio::select! {
                        biased;
                        () = self.rescheduled.notified() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
                None => self.rescheduled.notified().await,
            }
        }
    }
}

/// Serves all services on one port until `shutdown`. Completes calls in flight and answers long polls at once.
pub async fn serve(
    listener: TcpListener,
    front: AwsFront,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let stopping = CancellationToken::new();
    let state = Endpoint { front: front.clone(), stopping: stopping.clone() };
    let service = Router::new()
        .fallback(answer)
        .with_state(state)
        .into_make_service_with_connect_info::<ConnectionCut>();
    let served = axum::serve(CuttableListener(listener), service).with_graceful_shutdown(async move {
        shutdown.await;
        stopping.cancel();
    });
    tokio::select! {
        biased;
        result = served => result,
        () = front.run() => Ok(()),
    }
}

#[derive(Clone)]
struct Endpoint {
    front: AwsFront,
    stopping: CancellationToken,
}

async fn answer(
    State(mut endpoint): State<Endpoint>,
    ConnectInfo(connection): ConnectInfo<ConnectionCut>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = match AwsRequest::read(&method, &uri, &headers, &body) {
        Ok(request) => request,
        Err(refusal) => return *refusal,
    };
    let front = match endpoint.front.route(&request) {
        Ok(front) => front,
        Err(error) => return response::of(&request, Err(error)),
    };
    let first = std::mem::replace(&mut endpoint.front, front);
    let (service, operation) = (request.service, request.operation.as_str());
    endpoint.front.faults.on_call(&request.as_call());
    let admitted = endpoint.front.with(|cloud, now| cloud.admit(service, operation, now));
    let fault = endpoint.front.faults.decide(service, operation);
    let outcome = match fault {
        AwsFault::Drop => return connection.now(),
        AwsFault::Throttle => Err(AwsApiError::throttled(service)),
        AwsFault::InternalError => Err(AwsApiError::internal(service)),
        AwsFault::AccessDenied => Err(AwsApiError::denied(service, operation)),
        _ => match admitted {
            Ok(()) => {
                if let AwsFault::Delay(by) = fault {
                    tokio::time::sleep(by).await;
                }
                endpoint.perform(&request, &first).await
            }
            Err(error) => Err(error),
        },
    };
    let outcome = match fault {
        AwsFault::DropAfterEffect => return connection.now(),
        AwsFault::ErrorAfterEffect => outcome.and(Err(AwsApiError::internal(service))),
        AwsFault::EmptyList => outcome.map(without_items),
        _ => outcome,
    };
    if let Ok(answer) = &outcome {
        endpoint.front.faults.on_response(service, operation, answer);
    }
    if service == "s3" {
        let region =
            endpoint.front.with(|cloud, _| cloud.bucket_region(&request.s3.bucket).map(str::to_owned));
        return s3::response(&request, outcome, region.ok().as_deref());
    }
    response::of(&request, outcome)
}

impl Endpoint {
    async fn perform(&self, request: &AwsRequest, first: &AwsFront) -> AwsApiResult<Value> {
        if let Some(assumed) = sts::assume_foreign_role(first, &self.front, request) {
            return assumed;
        }
        if request.service == "sqs" && request.operation == "ReceiveMessage" {
            return self.receive(request).await;
        }
        self.front.with(|cloud, now| match request.service {
            "ecs" => ecs::perform(cloud, request, now),
            "sqs" => sqs::perform(cloud, request, now),
            "events" => events::perform(cloud, request, now),
            "iam" => iam::perform(cloud, request, now),
            "dynamodb" => dynamodb::perform(cloud, request, now),
            "ec2" => ec2::perform(cloud, request, now),
            "secretsmanager" => secretsmanager::perform(cloud, request, now),
            "ssm" => ssm::perform(cloud, request, now),
            "s3" => s3::perform(cloud, request, now),
            _ => sts::perform(cloud, request, now),
        })
    }

    /// Waits for a message for the wait time of the call or its queue.
    async fn receive(&self, request: &AwsRequest) -> AwsApiResult<Value> {
        let call = sqs::Receive::read(request)?;
        let wait = match call.wait()? {
            Some(wait) => wait,
            None => self.front.with(|cloud, _| cloud.receive_wait(call.queue()))?,
        };
        let until = tokio::time::Instant::now() + wait;
        loop {
            // Subscribe before reading, so that no arrival is missed.
            let arrival = self.front.arrivals.notified();
            tokio::pin!(arrival);
            arrival.as_mut().enable();
            let messages = self.front.with(|cloud, now| call.perform(cloud, now))?;
            if messages.is_some() || wait == Duration::ZERO || tokio::time::Instant::now() >= until {
                return Ok(messages.unwrap_or_else(|| Value::Object(serde_json::Map::new())));
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return Ok(Value::Object(serde_json::Map::new())),
                () = arrival => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }
}

fn without_items(mut answer: Value) -> Value {
    if let Some(fields) = answer.as_object_mut() {
        fields
            .retain(|name, _| !matches!(name.as_str(), "nextToken" | "NextToken" | "NextContinuationToken"));
        fields.values_mut().filter_map(Value::as_array_mut).for_each(Vec::clear);
    }
    answer
}
