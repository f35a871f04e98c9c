//! Manifests as objects of S3: two operations of its REST protocol, by the SDK's own orchestrator, signer and connection pool.
//! The generated client of S3 is large, and its checksums, streams and access points have no use here.
//!
//! A bucket in another Region is read there: S3 names its Region in the header `x-amz-bucket-region`.
//!
//! Sources: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_config::{Region, SdkConfig};
use aws_runtime::auth::SigningOptions;
use aws_sdk_ecs::config::http::{HttpRequest, HttpResponse};
use aws_sdk_ecs::error::{BoxError, ErrorMetadata, SdkError};
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_xml::decode::XmlDecodeError;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tracing::info;

use super::call::CallRunner;
use super::ecs::unreadable;
use super::operation::{self, OperationEndpoint, SignedService, configured_endpoint, s3_host};
use super::xml::Element;
use crate::aws::{AwsError, ListPage};

const S3: SignedService = SignedService { id: "S3", name: "s3" };
const LIST: &str = "s3:ListObjectsV2";
const GET: &str = "s3:GetObject";

/// The header of the Region that has the bucket.
const BUCKET_REGION: &str = "x-amz-bucket-region";

/// Characters that a query escapes: all but the unreserved ones.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Characters that a path escapes, once: the signature is over the path as sent.
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// The key.
    pub key: String,
    /// The entity tag, quotes included. It changes with the content.
    pub etag: String,
    /// The size in bytes.
    pub size: u64,
}

/// The content of an object.
#[derive(Clone, PartialEq, Eq)]
pub struct ObjectContent {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The id of the version, in a bucket with versions.
    pub version: Option<String>,
}

impl fmt::Debug for ObjectContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, version } = self;
        f.debug_struct("ObjectContent").field("bytes", &bytes.len()).field("version", version).finish()
    }
}

/// A GET below the bucket.
#[derive(Debug)]
struct S3Request {
    /// The path, escaped, without the bucket.
    path: String,
    query: String,
    /// Read only while the object has this entity tag.
    if_match: Option<String>,
}

type S3Operation<T> = Operation<S3Request, T, ErrorMetadata>;

/// The operations at one bucket's endpoint.
#[derive(Clone)]
struct BucketEndpoint {
    region: Region,
    list: S3Operation<ListPage<ListedObject>>,
    get: S3Operation<ObjectContent>,
}

/// S3, in the Regions of the buckets.
#[derive(Clone)]
pub struct SdkObjectStore {
    config: SdkConfig,
    calls: CallRunner,
    endpoints: Arc<Mutex<BTreeMap<String, BucketEndpoint>>>,
}

impl SdkObjectStore {
    pub(super) fn new(config: SdkConfig, calls: CallRunner) -> Self {
        Self { config, calls, endpoints: Arc::default() }
    }

    /// One page of the bucket's objects whose keys start with the prefix, in the order of keys.
    pub async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        page: Option<&str>,
    ) -> Result<ListPage<ListedObject>, AwsError> {
        let escape = |text: &str| utf8_percent_encode(text, QUERY).to_string();
        let after = page.map(|page| format!("&continuation-token={}", escape(page))).unwrap_or_default();
        let query = format!("list-type=2&encoding-type=url&prefix={}{after}", escape(prefix));
        let request = || S3Request { path: String::new(), query: query.clone(), if_match: None };
        let resource = format!("s3://{bucket}/{prefix}");
        self.call(bucket, (LIST, &resource), |endpoint| &endpoint.list, request).await
    }

    /// The object while it has this entity tag; `None` where it has changed or is gone.
    pub async fn get(&self, bucket: &str, key: &str, etag: &str) -> Result<Option<ObjectContent>, AwsError> {
        let path = utf8_percent_encode(key, PATH).to_string();
        let request =
            || S3Request { path: path.clone(), query: String::new(), if_match: Some(etag.to_owned()) };
        let resource = format!("s3://{bucket}/{key}");
        match self.call(bucket, (GET, &resource), |endpoint| &endpoint.get, request).await {
            Err(error) if ["PreconditionFailed", "NoSuchKey"].contains(&error.code.as_str()) => Ok(None),
            read => read.map(Some),
        }
    }

    /// Calls S3, and once more where the bucket is in another Region.
    async fn call<T>(
        &self,
        bucket: &str,
        (name, resource): (&'static str, &str),
        operation: impl Fn(&BucketEndpoint) -> &S3Operation<T>,
        request: impl Fn() -> S3Request,
    ) -> Result<T, AwsError>
    where
        T: fmt::Debug + Send + Sync + 'static,
    {
        let no_credentials = || unreadable(name, resource, "no credentials provider");
        let endpoint = self.endpoint(bucket, None).ok_or_else(no_credentials)?;
        let mut region = None;
        let sent = async {
            let answer = operation(&endpoint).invoke(request()).await;
            region = answer.as_ref().err().and_then(bucket_region);
            answer
        };
        let answer = Box::pin(self.calls.run(name, resource, sent)).await;
        let Some(region) = region.filter(|region| *region != endpoint.region) else { return answer };
        info!(bucket, %region, "reading the bucket in its own Region");
        let endpoint = self.endpoint(bucket, Some(region)).ok_or_else(no_credentials)?;
        let sent = operation(&endpoint).invoke(request());
        Box::pin(self.calls.run(name, resource, sent)).await
    }

    /// The bucket's endpoint: the known one, or that of this Region. `None` without credentials provider or HTTP client,
    /// which the default chain always has.
    fn endpoint(&self, bucket: &str, region: Option<Region>) -> Option<BucketEndpoint> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = endpoints.get(bucket).filter(|_| region.is_none()) {
            return Some(known.clone());
        }
        let region = region.or_else(|| self.config.region().cloned())?;
        let made = bucket_endpoint(&self.config, bucket, &region)?;
        endpoints.insert(bucket.to_owned(), made.clone());
        Some(made)
    }
}

fn bucket_endpoint(config: &SdkConfig, bucket: &str, region: &Region) -> Option<BucketEndpoint> {
    let (url, path) = match configured_endpoint(config, S3) {
        // Another endpoint may lack a host for each bucket.
        Some(url) => (url, format!("/{bucket}")),
        // A name with a dot does not match the certificate of S3's hosts.
        None if bucket.contains('.') => {
            (format!("https://{}", s3_host(config, region.as_ref())), format!("/{bucket}"))
        }
        None => (format!("https://{bucket}.{}", s3_host(config, region.as_ref())), String::new()),
    };
    let builder = |name: &'static str| {
        let mut options = SigningOptions::default();
        options.double_uri_encode = false;
        options.normalize_uri_path = false;
        options.content_sha256_header = true;
        let endpoint = OperationEndpoint { region: region.clone(), url: url.clone() };
        let builder = operation::builder_at(config, S3, endpoint, options, name)?;
        let path = path.clone();
        Some(builder.serializer(move |request| http_request(&path, request)))
    };
    Some(BucketEndpoint {
        region: region.clone(),
        list: builder("ListObjectsV2")?.deserializer(list_response).build(),
        get: builder("GetObject")?.deserializer(get_response).build(),
    })
}

/// The Region that S3 names in a failure.
fn bucket_region(failure: &SdkError<ErrorMetadata, HttpResponse>) -> Option<Region> {
    let region = failure.raw_response()?.headers().get(BUCKET_REGION)?;
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_region = (1..=32).contains(&region.len()) && region.bytes().all(is_name);
    is_region.then(|| Region::new(region.to_owned()))
}

fn http_request(bucket_path: &str, request: S3Request) -> Result<HttpRequest, BoxError> {
    let S3Request { path, query, if_match } = request;
    let mut http = HttpRequest::new(SdkBody::empty());
    http.set_method("GET")?;
    let query = if query.is_empty() { query } else { format!("?{query}") };
    http.set_uri(format!("{bucket_path}/{path}{query}"))?;
    if let Some(etag) = if_match {
        http.headers_mut().try_insert("if-match", etag)?;
    }
    Ok(http)
}

fn list_response(
    response: &HttpResponse,
) -> Result<ListPage<ListedObject>, OrchestratorError<ErrorMetadata>> {
    let text = body_text(response);
    if !response.status().is_success() {
        return Err(service_error(text));
    }
    list_page(text).map_err(|error| OrchestratorError::other(error.to_string()))
}

fn get_response(response: &HttpResponse) -> Result<ObjectContent, OrchestratorError<ErrorMetadata>> {
    if !response.status().is_success() {
        return Err(service_error(body_text(response)));
    }
    let bytes = response.body().bytes().unwrap_or_default().to_vec();
    let version = response.headers().get("x-amz-version-id").map(str::to_owned);
    Ok(ObjectContent { bytes, version })
}

fn body_text(response: &HttpResponse) -> &str {
    response.body().bytes().and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

/// The elements whose text is read.
const LEAVES: [&str; 8] =
    ["Key", "ETag", "Size", "IsTruncated", "KeyCount", "NextContinuationToken", "Code", "Message"];

fn service_error(document: &str) -> OrchestratorError<ErrorMetadata> {
    let mut metadata = ErrorMetadata::builder();
    if let Ok(error) = Element::root(document, &LEAVES)
        && !error.text("Code").is_empty()
    {
        metadata = metadata.code(error.text("Code")).message(error.text("Message"));
    }
    OrchestratorError::operation(metadata.build())
}

/// Reads a page. A page that lacks a part of what it announces is unreadable: an object that a list lacks looks deleted.
fn list_page(document: &str) -> Result<ListPage<ListedObject>, XmlDecodeError> {
    // The decoder closes what a truncated document leaves open.
    if !document.trim_end().ends_with("</ListBucketResult>") {
        return Err(XmlDecodeError::custom("the response is truncated, or not one of ListObjectsV2"));
    }
    let root = Element::root(document, &LEAVES)?;
    let items = root.children("Contents").map(listed_object).collect::<Result<Vec<_>, _>>()?;
    if root.text("KeyCount").parse() != Ok(items.len()) {
        return Err(XmlDecodeError::custom("the list does not have as many objects as it says"));
    }
    let next = match (root.text("IsTruncated"), root.text("NextContinuationToken")) {
        ("false", _) => None,
        ("true", next) if !next.is_empty() => Some(next.to_owned()),
        _ => return Err(XmlDecodeError::custom("the list does not say how it goes on")),
    };
    Ok(ListPage { items, skipped: Vec::new(), next })
}

fn listed_object(found: &Element) -> Result<ListedObject, XmlDecodeError> {
    // Keys are escaped as in forms, since XML cannot hold all their characters.
    let key = found.text("Key").replace('+', " ");
    let key = percent_decode_str(&key)
        .decode_utf8()
        .map_err(|_| XmlDecodeError::custom("the key of an object is not UTF-8"))?;
    let etag = found.text("ETag");
    match found.text("Size").parse() {
        Ok(size) if !key.is_empty() && !etag.is_empty() => {
            Ok(ListedObject { key: key.into_owned(), etag: etag.to_owned(), size })
        }
        _ => Err(XmlDecodeError::custom("an object lacks its key, entity tag or size")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(inner: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult \
             xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix>prod/</Prefix>{inner}\
             <EncodingType>url</EncodingType></ListBucketResult>"
        )
    }

    fn object(key: &str) -> String {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;e1&quot;</ETag>\
             <Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
    }

    #[test]
    fn page_has_objects_and_the_next_token() {
        let objects = object("prod/a+b%2B%C3%BC.yaml") + &object("prod/c.yaml");
        let next = "<NextContinuationToken>t=/</NextContinuationToken>";
        let tail = format!("<KeyCount>2</KeyCount><IsTruncated>true</IsTruncated>{next}");
        let page = list_page(&document(&(objects + &tail))).unwrap();
        let first = ListedObject { key: "prod/a b+ü.yaml".to_owned(), etag: "\"e1\"".to_owned(), size: 7 };
        assert_eq!((&page.items[0], page.items.len(), page.next.as_deref()), (&first, 2, Some("t=/")));
    }

    #[test]
    fn page_that_lacks_a_part_is_unreadable() {
        let one = object("prod/a.yaml");
        for inner in [
            format!("{one}<KeyCount>2</KeyCount><IsTruncated>false</IsTruncated>"),
            format!("{one}<IsTruncated>false</IsTruncated>"),
            format!("{one}<KeyCount>1</KeyCount>"),
            format!("{one}<KeyCount>1</KeyCount><IsTruncated>true</IsTruncated>"),
            "<Contents><Key>k</Key></Contents><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>"
                .to_owned(),
        ] {
            assert!(list_page(&document(&inner)).is_err(), "{inner}");
        }
        let whole = document(&format!("{one}<KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>"));
        for end in 0..whole.len() {
            assert!(list_page(&whole[..end]).is_err(), "{}", &whole[..end]);
        }
        assert!(list_page(&whole).is_ok());
        assert!(list_page("<html><body>503</body></html>").is_err());
    }
}
