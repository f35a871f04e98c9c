use super::*;
use ecs_mesh_control_plane::{ControlPlane, MeshErrorKind, RegistrationSummary};

const SECOND: Duration = Duration::from_secs(1);

fn ids(found: &[RegistrationSummary]) -> Vec<RegistrationId> {
    found.iter().map(|read_cache| read_cache.id.clone()).collect()
}

fn filter_of(numbers: &[u32]) -> String {
    let parts: Vec<String> =
        numbers.iter().map(|number| format!("Meta[\"task-id\"] == \"{number:032x}\"")).collect();
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("filter", &parts.join(" or "));
    format!("{SERVICES}?{}", query.finish().replace('+', "%20"))
}

#[tokio::test(start_paused = true)]
async fn list_for_task_returns_tokens_and_services() {
    let script = ScriptedConsulTransport::of(vec![tokens(&[token(1), token(2)]), services(&[service(1, 7)])]);
    let found = complete(consul(&script).list_for_task(&task(1)).await);
    assert_eq!(ids(&found), [service_id("web-1"), token_id(1)]);
    assert_eq!(script.calls(), [TOKENS.to_owned(), filter_of(&[1])]);
}

#[tokio::test(start_paused = true)]
async fn concurrent_lookups_share_one_token_scan() {
    let all: Vec<Value> = (1..=100).map(token).collect();
    let every: Vec<Value> = (1..=100).map(|number| service(number, 7)).collect();
    let script = ScriptedConsulTransport::of(vec![
        tokens(&all),
        services(&[service(1, 7)]),
        tokens(&all),
        services(&every),
    ]);
    let consul = Arc::new(consul(&script));
    let ask = |number| {
        let consul = consul.clone();
        tokio::spawn(async move { consul.list_for_task(&task(number)).await })
    };
    let first = ask(1);
    tokio::time::sleep(SECOND / 2).await;
    let others: Vec<_> = (2..=100).map(ask).collect();
    assert_eq!(ids(&complete(first.await.unwrap())), [service_id("web-1"), token_id(1)]);
    for (number, other) in (2..=100).zip(others) {
        let found = complete(other.await.unwrap());
        assert_eq!(ids(&found), [service_id(&format!("web-{number}")), token_id(number)]);
    }
    // For this many queries the complete list is cheaper.
    assert_eq!(script.calls(), [TOKENS, filter_of(&[1]).as_str(), TOKENS, SERVICES]);
}

#[tokio::test(start_paused = true)]
async fn list_for_task_is_empty_when_task_registered_nothing() {
    let script = ScriptedConsulTransport::of(vec![tokens(&[token(2)]), no_node(), known_token()]);
    assert_eq!(complete(consul(&script).list_for_task(&task(1)).await), []);
    // An unknown own token makes the empty list inconclusive.
    let script = ScriptedConsulTransport::of(vec![tokens(&[token(2)]), no_node(), unknown_token()]);
    let found = consul(&script).list_for_task(&task(1)).await.unwrap();
    assert_eq!(failed_segments(&found), [format!("the services of {CLUSTER}")]);
}

#[tokio::test(start_paused = true)]
async fn list_for_task_is_partial_when_one_list_fails() {
    let script = ScriptedConsulTransport::of(vec![tokens(&[token(1)]), text(403, "Permission denied")]);
    let found = consul(&script).list_for_task(&task(1)).await.unwrap();
    assert_eq!(ids(&found.seen), [token_id(1)]);
    assert_eq!(failed_segments(&found), [format!("the services of {CLUSTER}")]);
    assert_eq!(found.failed[0].error.kind, MeshErrorKind::Forbidden);
    let script = ScriptedConsulTransport::of(vec![unreachable_server(), services(&[service(1, 7)])]);
    let (consul, reported) = observed(&script);
    let found = consul.list_for_task(&task(1)).await.unwrap();
    assert_eq!(ids(&found.seen), [service_id("web-1")]);
    assert_eq!(found.failed[0].error.kind, MeshErrorKind::Unreachable);
    assert_eq!(reported.all(), ["list_for_task unreachable"]);
}

#[tokio::test(start_paused = true)]
async fn list_for_task_fails_when_all_lists_fail() {
    let script = ScriptedConsulTransport::of(vec![text(403, "Permission denied"), unreachable_server()]);
    let (consul, reported) = observed(&script);
    assert_eq!(consul.list_for_task(&task(1)).await.unwrap_err().kind, MeshErrorKind::Unreachable);
    assert_eq!(reported.all(), ["list_for_task unreachable"]);
}

#[tokio::test(start_paused = true)]
async fn service_is_not_missing_when_namespace_list_failed() {
    let lost = || text(500, "something else");
    let script = ScriptedConsulTransport::of(vec![
        foreign_services(),
        lost(),
        foreign_services(),
        lost(),
        known_token(),
    ]);
    let consul = consul_of(&script, &json!({"namespaces": ["a", "b"]}), Arc::new(NoObserver));
    let read = |namespace: &str| id(format!("service/web-1@{CLUSTER}@{namespace}"));
    assert_eq!(consul.get(&read("b")).await.unwrap_err().kind, MeshErrorKind::Unreachable);
    assert_eq!(consul.get(&read("a")).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn token_scans_keep_to_a_rate() {
    let script =
        ScriptedConsulTransport::of((0..20).flat_map(|_| [tokens(&[]), foreign_services()]).collect());
    let consul = consul(&script);
    let began = tokio::time::Instant::now();
    for _ in 0..20 {
        consul.list_for_task(&task(1)).await.unwrap();
    }
    assert!(began.elapsed() >= 7 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn concurrent_service_reads_share_a_list() {
    let script = ScriptedConsulTransport::of(vec![
        services(&[service(1, 7)]),
        services(&[service(2, 8), service(3, 9)]),
        known_token(),
    ]);
    let consul = Arc::new(consul(&script));
    let read = |name: &'static str| {
        let consul = consul.clone();
        tokio::spawn(async move { consul.get(&service_id(name)).await.unwrap() })
    };
    let first = read("web-1");
    tokio::time::sleep(SECOND / 2).await;
    let others = [read("web-2"), read("web-3"), read("web-4")];
    assert!(first.await.unwrap().is_some());
    let mut found = Vec::new();
    for other in others {
        found.push(other.await.unwrap().is_some());
    }
    assert_eq!(found, [true, true, false]);
    let calls = script.calls();
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert!(calls[1].contains("%22web-2%22%20or%20ID%20%3D%3D%20%22web-3%22"), "{calls:?}");
    assert_eq!(calls[2], SELF, "a token that may see nothing sees nothing");
}
