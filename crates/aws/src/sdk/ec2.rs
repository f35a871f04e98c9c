//! The addresses of EC2 instances: `DescribeInstances` in EC2's query protocol, by the SDK's own orchestrator, signer and
//! connection pool. The generated client of EC2 is by far the largest of the SDK, and one of its hundreds of operations is
//! needed.
//!
//! Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html>.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_ecs::config::http::{HttpRequest, HttpResponse};
use aws_sdk_ecs::error::{BoxError, ErrorMetadata};
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_xml::decode::XmlDecodeError;

use super::address::AddressReading;
use super::call::CallRunner;
use super::error;
use super::operation::{self, SignedService};
use super::xml::Element;
use crate::aws::{AwsError, AwsErrorKind, Ec2};
use ecs_mesh_model::InterfaceAddresses;

const EC2: SignedService = SignedService { id: "EC2", name: "ec2" };
const OPERATION: &str = "ec2:DescribeInstances";
/// The version of EC2's API.
const VERSION: &str = "2016-11-15";
/// Pages of one call. A page may be empty although more follow.
const MAX_PAGES: usize = 10;

type DescribeInstances = Operation<String, InstancePage, ErrorMetadata>;

/// EC2 of one account and Region.
#[derive(Clone)]
pub struct SdkEc2 {
    /// `None` without credentials provider or HTTP client, which the default chain always has.
    operation: Option<DescribeInstances>,
    calls: CallRunner,
}

/// One page of DescribeInstances. An unreadable address is an empty one.
#[derive(Debug, Default, PartialEq, Eq)]
struct InstancePage {
    instances: BTreeMap<String, InterfaceAddresses>,
    next: Option<String>,
}

impl SdkEc2 {
    pub(super) fn new(config: &SdkConfig, calls: CallRunner) -> Self {
        Self { operation: describe_instances(config), calls }
    }
}

#[async_trait]
impl Ec2 for SdkEc2 {
    async fn instance_addresses(
        &self,
        ids: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, InterfaceAddresses>, AwsError> {
        let resource = format!("{} instances", ids.len());
        let Some(operation) = &self.operation else {
            return Err(no_credentials(resource));
        };
        let (mut found, mut next) = (BTreeMap::new(), None);
        for _ in 0..MAX_PAGES {
            let call = operation.invoke(form(ids, next.as_deref()));
            let page = Box::pin(self.calls.run(OPERATION, &resource, call)).await?;
            found.extend(page.instances);
            next = page.next;
            if next.is_none() {
                return Ok(found);
            }
        }
        Err(endless(resource))
    }
}

fn no_credentials(resource: String) -> AwsError {
    AwsError {
        kind: AwsErrorKind::Credentials,
        operation: OPERATION,
        resource,
        code: "credentials".to_owned(),
        message: "no credentials provider".to_owned(),
        hint: error::HINT_NO_CREDENTIALS,
    }
}

/// The rest of the pages may have any of the instances, so none of them counts as missing.
fn endless(resource: String) -> AwsError {
    AwsError {
        kind: AwsErrorKind::Invalid,
        operation: OPERATION,
        resource,
        code: "response".to_owned(),
        message: format!("more than {MAX_PAGES} pages"),
        hint: "; the response does not follow EC2's documentation: check AWS_ENDPOINT_URL_EC2 if set",
    }
}

/// The request's parameters. A filter, unlike a list of ids, does not fail because one of the instances no longer exists.
/// Instances of ECS Managed Instances are left out without `IncludeManagedResources` where the account hides managed
/// resources.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ManagedResourceVisibilitySettings.html>.
fn form(ids: &BTreeSet<String>, page: Option<&str>) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", "DescribeInstances").append_pair("Version", VERSION);
    form.append_pair("MaxResults", "1000").append_pair("IncludeManagedResources", "true");
    form.append_pair("Filter.1.Name", "instance-id");
    for (index, id) in ids.iter().enumerate() {
        form.append_pair(&format!("Filter.1.Value.{}", index + 1), id);
    }
    if let Some(page) = page {
        form.append_pair("NextToken", page);
    }
    form.finish()
}

fn describe_instances(config: &SdkConfig) -> Option<DescribeInstances> {
    let builder = operation::builder(config, EC2, "DescribeInstances")?;
    Some(builder.serializer(request).deserializer(response).build())
}

fn request(form: String) -> Result<HttpRequest, BoxError> {
    let mut request = HttpRequest::new(SdkBody::from(form));
    request.set_method("POST")?;
    request.set_uri("/")?;
    request.headers_mut().insert("content-type", "application/x-www-form-urlencoded");
    Ok(request)
}

fn response(response: &HttpResponse) -> Result<InstancePage, OrchestratorError<ErrorMetadata>> {
    let text = response.body().bytes().and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    if response.status().is_success() {
        return page(text).map_err(|error| OrchestratorError::other(error.to_string()));
    }
    Err(OrchestratorError::operation(
        error_metadata(text).unwrap_or_else(|_| ErrorMetadata::builder().build()),
    ))
}

/// The elements whose text is read.
const LEAVES: [&str; 8] =
    ["instanceId", "privateIpAddress", "ipv6Address", "deviceIndex", "nextToken", "Code", "Message", "code"];

fn page(document: &str) -> Result<InstancePage, XmlDecodeError> {
    // The decoder closes what a truncated document leaves open, and an interface without its last addresses looks complete.
    if !document.trim_end().ends_with("</DescribeInstancesResponse>") {
        return Err(XmlDecodeError::custom("the response is truncated, or not one of DescribeInstances"));
    }
    let root = Element::root(document, &LEAVES)?;
    if root.name != "DescribeInstancesResponse" {
        return Err(XmlDecodeError::custom("the response is not one of DescribeInstances"));
    }
    let instances = root.items("reservationSet").flat_map(|reservation| reservation.items("instancesSet"));
    let instances = instances
        .filter(|instance| !instance.text("instanceId").is_empty())
        .map(|instance| (instance.text("instanceId").to_owned(), addresses(instance)))
        .collect();
    let next = Some(root.text("nextToken")).filter(|token| !token.is_empty()).map(str::to_owned);
    Ok(InstancePage { instances, next })
}

/// The addresses of the instance's primary interface.
fn addresses(instance: &Element) -> InterfaceAddresses {
    let mut interfaces = instance.items("networkInterfaceSet");
    let primary = interfaces
        .find(|one| one.children("attachment").any(|attachment| attachment.text("deviceIndex") == "0"));
    let first_v6 = primary.and_then(|primary| primary.items("ipv6AddressesSet").next());
    let mut reading = AddressReading::default();
    reading.add_v4("privateIpAddress", instance.text("privateIpAddress"));
    reading.add_v6("ipv6Address", instance.text("ipv6Address"));
    reading.add_v6("ipv6AddressesSet", first_v6.map_or("", |item| item.text("ipv6Address")));
    reading.finish().unwrap_or_default()
}

fn error_metadata(document: &str) -> Result<ErrorMetadata, XmlDecodeError> {
    let root = Element::root(document, &LEAVES)?;
    let error = root.children("Errors").flat_map(|errors| errors.children("Error")).next();
    let mut metadata = ErrorMetadata::builder();
    if let Some(error) = error {
        metadata = metadata.code(error.text("Code")).message(error.text("Message"));
    }
    Ok(metadata.build())
}

#[cfg(test)]
mod tests {

    use super::*;

    fn instance(id: &str, inner: &str) -> String {
        format!(
            "<item><instancesSet><item><instanceId>{id}</instanceId>{inner}<instanceState><code>16</code>\
             <name>running</name></instanceState></item></instancesSet></item>"
        )
    }

    fn document(instances: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DescribeInstancesResponse \
             xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId><reservationSet>{instances}\
             </reservationSet><nextToken>more</nextToken></DescribeInstancesResponse>"
        )
    }

    /// The addresses of one instance, IPv4 first.
    fn addresses_of(inner: &str) -> Vec<String> {
        let page = page(&document(&instance("i-1", inner))).unwrap();
        page.instances["i-1"].all().map(|address| address.to_string()).collect()
    }

    #[test]
    fn page_has_instances_and_the_next_token() {
        let both = instance("i-1", "<privateIpAddress>10.0.2.9</privateIpAddress>") + &instance("i-2", "");
        let page = page(&document(&both)).unwrap();
        assert_eq!(page.instances.keys().collect::<Vec<_>>(), ["i-1", "i-2"]);
        assert!(page.instances["i-2"].is_empty());
        assert_eq!(page.next.as_deref(), Some("more"));
    }

    #[test]
    fn addresses_are_those_of_the_primary_interface() {
        let v4 = "<privateIpAddress>10.0.2.9</privateIpAddress>";
        let interface = |index: u8, v6: &str| {
            format!(
                "<item><attachment><deviceIndex>{index}</deviceIndex></attachment><privateIpAddress>10.0.9.9\
                 </privateIpAddress><ipv6AddressesSet><item><ipv6Address>{v6}</ipv6Address></item></ipv6AddressesSet></item>"
            )
        };
        let set = |items: &str| format!("<networkInterfaceSet>{items}</networkInterfaceSet>");
        for (inner, expected) in [
            (v4.to_owned(), vec!["10.0.2.9"]),
            (format!("{v4}<ipv6Address>2001:db8::9</ipv6Address>"), vec!["10.0.2.9", "2001:db8::9"]),
            (
                format!("{v4}{}", set(&(interface(1, "2001:db8::1") + &interface(0, "2001:db8::2")))),
                vec!["10.0.2.9", "2001:db8::2"],
            ),
            (set(&interface(1, "2001:db8::1")), vec![]),
            ("<privateIpAddress>169.254.1.1</privateIpAddress>".to_owned(), vec![]),
        ] {
            assert_eq!(addresses_of(&inner), expected, "{inner}");
        }
    }

    #[test]
    fn response_of_something_else_is_unreadable() {
        for document in ["", "<html><body>503</body></html>", "{}"] {
            assert!(page(document).is_err(), "{document}");
        }
    }

    #[test]
    fn truncated_response_is_unreadable() {
        let whole = document(&instance("i-1", "<privateIpAddress>10.0.2.9</privateIpAddress>"));
        for end in 0..whole.len() {
            assert!(page(&whole[..end]).is_err(), "{}", &whole[..end]);
        }
        assert!(page(&format!("{whole}\n")).is_ok());
    }
}
