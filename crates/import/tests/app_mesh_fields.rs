//! Every field of App Mesh's API has a fate by a rule of its own, and a field that the API does not have is reported.
//!
//! The tables are the members of the describe calls' answers in the API reference of App Mesh, version 2019-01-25, and those of
//! the create calls' input.

#![allow(clippy::unwrap_used)] // helpers of tests

use ecs_mesh_import::{FieldFate, ImportEntry, ImportOptions, SourceFile, import_app_mesh};
use serde_json::{Map, Value, json};

/// A kind of resource: the key of its answer, and its fields. `{a,b}` stands for several fields, `[]` for a list's items.
struct ApiResource {
    answer: &'static str,
    fields: &'static [&'static str],
}

const RECORD: &str = "{metadata.{arn,createdAt,lastUpdatedAt,meshOwner,resourceOwner,uid,version},status.status,meshName,\
                      clientToken,meshOwner,tags[].{key,value}}";
const CLIENT_TLS: &str = "clientPolicy.tls.{certificate.{file.{certificateChain,privateKey},sds.secretName},enforce,ports[],\
                          validation.{subjectAlternativeNames.match.exact[],trust.{acm.certificateAuthorityArns[],\
                          file.certificateChain,sds.secretName}}}";
const LISTENER_TLS: &str = "spec.listeners[].tls.{certificate.{acm.certificateArn,file.{certificateChain,privateKey},\
                            sds.secretName},mode,validation.{subjectAlternativeNames.match.exact[],\
                            trust.{file.certificateChain,sds.secretName}}}";
const HEALTH_CHECK: &str = "spec.listeners[].healthCheck.{healthyThreshold,intervalMillis,path,port,protocol,timeoutMillis,\
                            unhealthyThreshold}";
const ACCESS_LOG: &str = "spec.logging.accessLog.file.{format.{json[].{key,value},text},path}";
const TEXT_MATCH: &str = "{exact,prefix,range.{end,start},regex,suffix}";
const HTTP_MATCH: &str = "match.{headers[].{invert,match.TEXT_MATCH,name},method,path.{exact,regex},port,prefix,\
                          queryParameters[].{match.exact,name}}";
const DURATION: &str = "{unit,value}";

const RESOURCES: [ApiResource; 8] = [
    ApiResource {
        answer: "mesh",
        fields: &["RECORD", "spec.egressFilter.type", "spec.serviceDiscovery.ipPreference"],
    },
    ApiResource {
        answer: "virtualNode",
        fields: &[
            "RECORD",
            "virtualNodeName",
            "spec.backendDefaults.CLIENT_TLS",
            "spec.backends[].virtualService.{CLIENT_TLS,virtualServiceName}",
            "spec.listeners[].connectionPool.{grpc.maxRequests,http.{maxConnections,maxPendingRequests},http2.maxRequests,\
             tcp.maxConnections}",
            "HEALTH_CHECK",
            "spec.listeners[].outlierDetection.{baseEjectionDuration.DURATION,interval.DURATION,maxEjectionPercent,\
             maxServerErrors}",
            "spec.listeners[].portMapping.{port,protocol}",
            "spec.listeners[].timeout.{grpc,http,http2}.{idle,perRequest}.DURATION",
            "spec.listeners[].timeout.tcp.idle.DURATION",
            "LISTENER_TLS",
            "ACCESS_LOG",
            "spec.serviceDiscovery.awsCloudMap.{attributes[].{key,value},ipPreference,namespaceName,serviceName}",
            "spec.serviceDiscovery.dns.{hostname,ipPreference,responseType}",
        ],
    },
    ApiResource {
        answer: "virtualService",
        fields: &["RECORD", "virtualServiceName", "spec.provider.virtualNode.virtualNodeName"],
    },
    ApiResource {
        answer: "virtualService",
        fields: &["RECORD", "virtualServiceName", "spec.provider.virtualRouter.virtualRouterName"],
    },
    ApiResource {
        answer: "virtualRouter",
        fields: &["RECORD", "virtualRouterName", "spec.listeners[].portMapping.{port,protocol}"],
    },
    ApiResource {
        answer: "route",
        fields: &[
            "RECORD",
            "routeName",
            "virtualRouterName",
            "spec.priority",
            "spec.{httpRoute,http2Route,grpcRoute,tcpRoute}.action.weightedTargets[].{port,virtualNode,weight}",
            "spec.grpcRoute.match.{metadata[].{invert,match.TEXT_MATCH,name},methodName,port,serviceName}",
            "spec.{httpRoute,http2Route}.{HTTP_MATCH,match.scheme}",
            "spec.tcpRoute.match.port",
            "spec.grpcRoute.retryPolicy.grpcRetryEvents[]",
            "spec.{httpRoute,http2Route,grpcRoute}.retryPolicy.{httpRetryEvents[],maxRetries,perRetryTimeout.DURATION,\
             tcpRetryEvents[]}",
            "spec.{httpRoute,http2Route,grpcRoute}.timeout.{idle,perRequest}.DURATION",
            "spec.tcpRoute.timeout.idle.DURATION",
        ],
    },
    ApiResource {
        answer: "virtualGateway",
        fields: &[
            "RECORD",
            "virtualGatewayName",
            "spec.backendDefaults.CLIENT_TLS",
            "spec.listeners[].connectionPool.{grpc.maxRequests,http.{maxConnections,maxPendingRequests},http2.maxRequests}",
            "HEALTH_CHECK",
            "spec.listeners[].portMapping.{port,protocol}",
            "LISTENER_TLS",
            "ACCESS_LOG",
        ],
    },
    ApiResource {
        answer: "gatewayRoute",
        fields: &[
            "RECORD",
            "gatewayRouteName",
            "virtualGatewayName",
            "spec.priority",
            "spec.{httpRoute,http2Route,grpcRoute}.action.{rewrite.hostname.defaultTargetHostname,\
             target.{port,virtualService.virtualServiceName}}",
            "spec.{httpRoute,http2Route}.action.rewrite.{path.exact,prefix.{defaultPrefix,value}}",
            "spec.{httpRoute,http2Route}.HTTP_MATCH",
            "spec.{httpRoute,http2Route,grpcRoute}.match.hostname.{exact,suffix}",
            "spec.grpcRoute.match.{metadata[].{invert,match.TEXT_MATCH,name},port,serviceName}",
        ],
    },
];

/// The paths of a resource's fields.
fn fields(resource: &ApiResource) -> Vec<String> {
    let parts = [
        ("RECORD", RECORD),
        ("CLIENT_TLS", CLIENT_TLS),
        ("LISTENER_TLS", LISTENER_TLS),
        ("HEALTH_CHECK", HEALTH_CHECK),
        ("ACCESS_LOG", ACCESS_LOG),
        ("HTTP_MATCH", HTTP_MATCH),
        ("TEXT_MATCH", TEXT_MATCH),
        ("DURATION", DURATION),
    ];
    let written =
        |field: &&str| parts.iter().fold((*field).to_owned(), |text, (name, part)| text.replace(name, part));
    let mut paths: Vec<String> =
        resource.fields.iter().map(written).flat_map(|field| expand(&field)).collect();
    // A mesh is of no other account's.
    paths.retain(|path| resource.answer != "mesh" || path != "meshOwner");
    paths
}

/// The fields that a pattern with braces stands for.
fn expand(pattern: &str) -> Vec<String> {
    let Some(open) = pattern.find('{') else { return vec![pattern.to_owned()] };
    let (mut depth, mut start, mut choices) = (0, open + 1, Vec::new());
    for (at, c) in pattern.char_indices().skip(open) {
        match c {
            '{' => depth += 1,
            ',' if depth == 1 => {
                choices.push(&pattern[start..at]);
                start = at + 1;
            }
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            choices.push(&pattern[start..at]);
            let whole = |choice| format!("{}{choice}{}", &pattern[..open], &pattern[at + 1..]);
            return choices.into_iter().map(whole).flat_map(|pattern| expand(&pattern)).collect();
        }
    }
    panic!("{pattern} has an open brace");
}

/// A value that the API takes.
fn value(path: &str) -> Value {
    let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
    match key {
        "port" | "ports[]" => json!(8080),
        "protocol" => json!("http"),
        "ipPreference" => json!("IPv6_ONLY"),
        "type" => json!("DROP_ALL"),
        "meshName" => json!("demo"),
        "meshOwner" => json!("111122223333"),
        "resourceOwner" => json!("444455556666"),
        "virtualNode" | "virtualNodeName" => json!("kv"),
        "virtualServiceName" => json!("kv.demo.local"),
        "key" if parent.ends_with("attributes[]") => json!("colour"),
        _ => json!("x"),
    }
}

fn put(object: &mut Value, path: &str, value: Value) {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    let (key, is_list) = step.strip_suffix("[]").map_or((step, false), |key| (key, true));
    let Value::Object(fields) = object else { panic!("{path} is below a scalar") };
    let empty = || Value::Object(Map::new());
    let place = fields.entry(key).or_insert_with(|| if is_list { json!([]) } else { empty() });
    let place = match place {
        Value::Array(items) => {
            if items.is_empty() {
                items.push(empty());
            }
            &mut items[0]
        }
        place => place,
    };
    match rest {
        Some(rest) => put(place, rest, value),
        None => *place = value,
    }
}

/// A resource with all of its fields.
fn full(resource: &ApiResource) -> Value {
    let mut found = Value::Object(Map::new());
    for path in fields(resource) {
        put(&mut found, &path, value(&path));
    }
    found
}

fn entries(document: &Value) -> Vec<ImportEntry> {
    let file = SourceFile::new("a.json", document.to_string());
    import_app_mesh(&[file], &ImportOptions::default()).unwrap().report.entries
}

/// Whether the entry is about the field, about a block that has it, or about a value in it.
fn is_about(entry: &ImportEntry, path: &str) -> bool {
    let is_in = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| {
            rest.is_empty() || outer.is_empty() || rest.starts_with('.') || rest.starts_with("[]")
        })
    };
    is_in(path, &entry.field) || is_in(&entry.field, path)
}

const UNKNOWN: [&str; 2] = ["this importer does not know the field", "the importer did not use the value"];

#[test]
fn every_field_of_the_api_has_a_fate_of_its_own() {
    let mut count = 0;
    for resource in &RESOURCES {
        let found = entries(&json!({ resource.answer: full(resource) }));
        for path in fields(resource) {
            count += 1;
            let of_path: Vec<&ImportEntry> = found.iter().filter(|entry| is_about(entry, &path)).collect();
            assert!(!of_path.is_empty(), "{}.{path} is lost", resource.answer);
            let unknown: Vec<&&ImportEntry> =
                of_path.iter().filter(|entry| UNKNOWN.contains(&entry.reason.as_str())).collect();
            assert!(unknown.is_empty(), "{}.{path}: {unknown:#?}", resource.answer);
        }
    }
    assert!(count > 300, "{count} fields");
}

/// The objects in a value, by their pointers.
fn objects(value: &Value, pointer: &str) -> Vec<String> {
    let (mut found, children) = match value {
        Value::Object(fields) => {
            let children: Vec<(String, &Value)> =
                fields.iter().map(|(key, value)| (key.clone(), value)).collect();
            (vec![pointer.to_owned()], children)
        }
        Value::Array(items) => {
            (Vec::new(), items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect())
        }
        _ => return Vec::new(),
    };
    found.extend(children.iter().flat_map(|(step, value)| objects(value, &format!("{pointer}/{step}"))));
    found
}

#[test]
fn field_that_the_api_does_not_have_is_reported() {
    for resource in &RESOURCES {
        let full = full(resource);
        for pointer in objects(&full, "") {
            let mut document = full.clone();
            document.pointer_mut(&pointer).unwrap()["oddity"] = json!({"deep": ["odd"]});
            let path =
                pointer.split('/').skip(1).fold(String::new(), |path, step| match step.parse::<usize>() {
                    Ok(_) => path + "[]",
                    Err(_) if path.is_empty() => step.to_owned(),
                    Err(_) => format!("{path}.{step}"),
                });
            let path = if path.is_empty() { "oddity".to_owned() } else { format!("{path}.oddity") };
            let found = entries(&json!({ resource.answer: document }));
            let of_path: Vec<&ImportEntry> = found.iter().filter(|entry| is_about(entry, &path)).collect();
            assert!(!of_path.is_empty(), "{}.{path} is lost", resource.answer);
            assert!(of_path.iter().all(|entry| entry.fate != FieldFate::CarriedOver), "{path}: {of_path:#?}");
        }
    }
}

#[test]
fn pattern_with_braces_stands_for_its_fields() {
    assert_eq!(expand("a.{b,c.{d,e[]}}.f"), ["a.b.f", "a.c.d.f", "a.c.e[].f"]);
}
