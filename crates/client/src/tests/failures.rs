use super::server::{FakeOperator, Reply};
use super::*;
use crate::ApiError;

async fn failure(settings: ApiClientSettings) -> ApiError {
    let client = match ApiClient::new(settings) {
        Ok(client) => client,
        Err(error) => return error,
    };
    client.get(&["tasks"], &[]).await.unwrap_err()
}

#[tokio::test]
async fn refused_connection_is_told_from_other_failures() {
    let operator = FakeOperator::start(Vec::new()).await;
    let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let address: ApiAddress = unused.to_string().parse().unwrap();
    let refused = failure(ApiClientSettings { address, ..settings(&operator) }).await;
    assert!(refused.is_refused() && refused.is_transient(), "{refused}");
    let disabled = ApiClientSettings { address: ApiAddress::Disabled, ..settings(&operator) };
    assert!(failure(disabled).await.is_refused());
    operator.reply("/api", Reply::Stall);
    let stalled =
        failure(ApiClientSettings { timeout: Duration::from_millis(200), ..settings(&operator) }).await;
    assert!(matches!(stalled, ApiError::TimedOut { .. }) && !stalled.is_refused(), "{stalled}");
}

#[tokio::test]
async fn answer_of_another_server_is_an_error() {
    let operator = FakeOperator::start(Vec::new()).await;
    for (status, body) in
        [(200, "<html>"), (404, "Not Found"), (200, "{}"), (200, "[]"), (200, r#"{"items":[7]}"#)]
    {
        operator.reply("/api", Reply::Whole(status, "", body.to_owned()));
        let (_, result) =
            printed(&operator, &request(ResourceKind::Tasks, &[], &[]), ObjectFormat::Name).await;
        assert!(matches!(result, Err(GetError::Api(ApiError::Malformed { .. }))), "{status} {body}");
    }
    operator.reply("/api", Reply::Whole(302, "location: http://example.com/\r\n", String::new()));
    let redirected = failure(settings(&operator)).await;
    assert!(matches!(redirected, ApiError::Status { status: 302, .. }), "{redirected}");
}

#[tokio::test]
async fn list_without_an_end_is_an_error() {
    let operator = FakeOperator::start(Vec::new()).await;
    let item = r#"{"name":"a"}"#;
    // The same page again, pages without items, and page after page.
    for (items, tokens) in
        [(item, vec![7; 3]), ("", (0..9).collect()), (item, (0..2_500).collect::<Vec<u32>>())]
    {
        let replies = tokens.len();
        for token in tokens {
            let page = format!(r#"{{"items":[{items}],"continue":"{token}"}}"#);
            operator.reply("/api/v1/services", Reply::Whole(200, "", page));
        }
        let before = operator.seen().len();
        let all = request(ResourceKind::Services, &[], &[]);
        let (_, result) = printed(&operator, &all, ObjectFormat::Name).await;
        assert!(matches!(result, Err(GetError::Api(ApiError::Malformed { .. }))), "{items} {replies}");
        let read = operator.seen().len() - before;
        assert!(read < replies, "{items}: {read} of {replies}");
        operator.forget_replies();
    }
}

#[tokio::test]
async fn token_is_sent_and_never_in_an_error() {
    const TOKEN: &str = "s3cret-token";
    let operator = FakeOperator::start(Vec::new()).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let with_file = || ApiClientSettings { token_file: Some(file.clone()), ..settings(&operator) };
    let missing = failure(with_file()).await;
    assert!(matches!(missing, ApiError::Token(_)) && operator.seen().is_empty(), "{missing}");
    std::fs::write(&file, format!("{TOKEN}\nsecond line\u{1}")).unwrap();
    let unusable = failure(with_file()).await;
    assert!(matches!(unusable, ApiError::Token(_)) && !unusable.to_string().contains(TOKEN), "{unusable}");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let client = ApiClient::new(with_file()).unwrap();
    client.get(&["tasks"], &[]).await.unwrap();
    let head = &operator.seen()[0].head;
    assert!(head.contains(&format!("Bearer {TOKEN}\r\n")), "{head}");
    operator.reply("/api", Reply::Whole(401, "", "{}".to_owned()));
    let rejected = client.get(&["tasks"], &[]).await.unwrap_err();
    let text = format!("{rejected} {rejected:?} {client:?}");
    assert!(matches!(rejected, ApiError::TokenRejected { .. }) && !text.contains(TOKEN), "{text}");
    operator.reply("/api", Reply::Whole(401, "", "{}".to_owned()));
    assert!(matches!(failure(settings(&operator)).await, ApiError::TokenMissing { .. }));
}

#[tokio::test]
async fn message_of_the_operator_is_printed_as_text() {
    let operator = FakeOperator::start(Vec::new()).await;
    let unknown = request(ResourceKind::Tasks, &[], &[("colour", "red")]);
    let (_, result) = printed(&operator, &unknown, ObjectFormat::Name).await;
    assert!(
        matches!(&result, Err(GetError::Api(ApiError::Status { status: 400, message, .. })) if message.contains("colour"))
    );
    operator.reply("/api", Reply::Whole(500, "", "\u{1b}[2Jboom".to_owned()));
    let text = failure(settings(&operator)).await.to_string();
    assert!(text.contains("boom") && !text.contains('\u{1b}'), "{text:?}");
}

#[tokio::test]
async fn ca_must_be_a_certificate_and_the_address_secure() {
    let operator = FakeOperator::start(Vec::new()).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, "no certificate").unwrap();
    let secure: ApiAddress = operator.address().replace("http", "https").parse().unwrap();
    for (address, ca) in [
        (secure.clone(), file.clone()),
        (secure, directory.path().join("none")),
        (operator.address().parse().unwrap(), file),
    ] {
        let settings = ApiClientSettings { address, ca_file: Some(ca), ..settings(&operator) };
        assert!(matches!(ApiClient::new(settings), Err(ApiError::Settings(_))));
    }
}

#[test]
fn token_for_another_machine_without_encryption_is_noticed() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exposes = |address: &str, has_token: bool| {
        let settings = ApiClientSettings {
            address: address.parse().unwrap(),
            token_file: has_token.then(|| "token".into()),
            ca_file: None,
            timeout: PATIENCE,
            seed: 7,
        };
        ApiClient::new(settings).unwrap().exposes_token()
    };
    for address in ["http://10.0.0.7:9103", "operator.internal:9103", "http://[fd00::1]:9103"] {
        assert!(exposes(address, true), "{address}");
        assert!(!exposes(address, false), "{address}");
    }
    for address in ["127.0.0.1:9103", "http://localhost:9103", "http://[::1]:9103", "https://10.0.0.7:9103"] {
        assert!(!exposes(address, true), "{address}");
    }
}
