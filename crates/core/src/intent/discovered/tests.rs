use super::*;

/// A container: name, mapped ports, and docker labels without their prefix.
type Container<'a> = (&'a str, &'a [u16], &'a [(&'a str, &'a str)]);

fn models(containers: &[Container<'_>]) -> Vec<TaskContainer> {
    let container = |(name, ports, labels): &Container<'_>| TaskContainer {
        name: (*name).to_owned(),
        ports: ports.to_vec(),
        docker_labels: keyed(labels),
        ..TaskContainer::default()
    };
    containers.iter().map(container).collect()
}

fn keyed(values: &[(&str, &str)]) -> Tags {
    values.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect()
}

fn describe(containers: &[Container<'_>], tags: &[(&str, &str)]) -> Result<WorkloadSpec, String> {
    let found = discovered_workload(&models(containers), &keyed(tags));
    found.map(|workload| workload.expect("a description")).map_err(|reason| reason.message.clone())
}

const APP: Container<'_> = ("app", &[8080], &[]);

#[test]
fn each_field_has_a_key() {
    let tags = [
        ("service", "web"),
        ("workload", "web-shop"),
        ("probe", "none"),
        ("inbound.1.port", "15000"),
        ("inbound.1.protocol", "http"),
        ("inbound.1.name", "http"),
        ("inbound.1.tag.version", "v1"),
        ("inbound.7.port", "15001"),
        ("inbound.7.container-port", "15001"),
        ("inbound.7.service-address", "127.0.0.1"),
        ("outbound.1.service", "kv"),
        ("outbound.1.target-port", "15050"),
        ("outbound.1.listen-port", "9001"),
        ("outbound.2.backend-kind", "MeshExternalService"),
        ("outbound.2.backend-name", "payments"),
        ("outbound.2.backend-port", "443"),
        ("outbound.2.listen-port", "9002"),
        ("outbound.2.listen-address", "127.0.0.2"),
    ];
    let found = describe(&[APP], &tags).unwrap();
    let expected = serde_json::json!({
        "selector": {},
        "service": "web",
        "workload": "web-shop",
        "proxy": "sidecar",
        "probe": "none",
        "reach": "outbounds",
        "inbounds": [
            {"name": "http", "containerPort": 8080, "port": 15000, "protocol": "http", "tags": {"version": "v1"}},
            {"containerPort": 15001, "port": 15001, "protocol": "tcp", "serviceAddress": "127.0.0.1"},
        ],
        "outbounds": [
            {"service": "kv", "targetPort": 15050, "listen": {"address": "127.0.0.1", "port": 9001}},
            {
                "backend": {"kind": "MeshExternalService", "name": "payments", "port": 443},
                "listen": {"address": "127.0.0.2", "port": 9002},
            },
        ],
    });
    assert_eq!(serde_json::to_value(&found).unwrap(), expected);
}

#[test]
fn labels_take_precedence_key_by_key() {
    let containers: &[Container<'_>] = &[
        ("app", &[8080], &[("service", "from-label"), ("inbound.1.port", "15000")]),
        ("metrics", &[9100], &[]),
    ];
    let found = describe(containers, &[("service", "from-tag"), ("inbound.1.protocol", "http")]).unwrap();
    assert_eq!(found.service.as_str(), "from-label");
    let inbound = &found.inbounds[0];
    assert_eq!((inbound.container_port.get(), inbound.protocol.as_str()), (8080, "http"));
    assert_eq!(inbound.container.as_deref(), Some("app"), "its only port is the default");
}

#[test]
fn no_outbounds_are_not_undeclared_ones() {
    let bound = [("service", "web"), ("reach", "bindOutbounds")];
    assert_eq!(describe(&[APP], &bound).unwrap().outbounds, None);
    let none = describe(&[APP], &[bound[0], bound[1], ("outbounds", "none")]).unwrap();
    assert_eq!((none.outbounds, none.reach), (Some(Vec::new()), Reach::BindOutbounds));
}

#[test]
fn task_without_keys_describes_nothing() {
    let other = [("kuma.io/service".to_owned(), "web".to_owned())].into();
    assert_eq!(discovered_workload(&models(&[APP]), &other), Ok(None));
}

#[test]
fn message_is_short_and_printable_whatever_labels_have() {
    let long = "x".repeat(60_000);
    let keys = ["service\u{1b}[2J\u{202e}", "inbound.1.tag.\u{9b}31m\nkey", &long];
    for key in keys {
        for value in ["web\u{1b}]0;title\u{7}", &long] {
            let labels = [("service", value), (key, value), ("inbound.1.port", value)];
            let message = describe(&[("app", &[8080], &labels)], &[]).unwrap_err();
            assert!(!message.chars().any(ecs_mesh_model::is_unsafe), "{message:?}");
            assert!(message.len() < 1_000, "{}: {message}", message.len());
        }
    }
}

#[test]
fn wrong_key_or_value_is_named_with_its_place() {
    type Row<'a> = (&'a [Container<'a>], &'a [(&'a str, &'a str)], &'a str);
    let labelled: &[Container<'_>] = &[("app", &[8080], &[("inbound.1.port", "x")])];
    let differ: &[Container<'_>] = &[("a", &[], &[("service", "web")]), ("b", &[], &[("service", "kv")])];
    let two_ports: &[Container<'_>] = &[("app", &[8080, 8081], &[])];
    let rows: [Row<'_>; 19] = [
        (
            labelled,
            &[("service", "web")],
            "docker label ecs-mesh.dev/inbound.1.port of container app is \"x\"",
        ),
        (
            differ,
            &[],
            "of container a is \"web\", and docker label ecs-mesh.dev/service of container b is \"kv\"",
        ),
        (
            &[APP],
            &[("probe", "none")],
            "ECS tag ecs-mesh.dev/probe is given, and ecs-mesh.dev/service is not",
        ),
        (&[APP], &[("service", "web shop")], "ECS tag ecs-mesh.dev/service: "),
        (&[APP], &[("service", "web"), ("inbound.1.prot", "1")], "did you mean ecs-mesh.dev/inbound.N.port?"),
        (&[APP], &[("service", "web"), ("inbound.0.port", "1")], "the number is not allowed; write 1 to 99"),
        (
            &[APP],
            &[("service", "web"), ("inbound.100.port", "1")],
            "the number is not allowed; write 1 to 99",
        ),
        (
            &[APP],
            &[("service", "web"), ("zzz", "1")],
            "ECS tag ecs-mesh.dev/zzz: no field has this key; remove it",
        ),
        (
            &[APP],
            &[("service", "web"), ("inbound.1.protocol", "http")],
            "ecs-mesh.dev/inbound.1.port is missing",
        ),
        (
            &[APP],
            &[("service", "web"), ("inbound.1.port", "15000"), ("inbound.1.protocol", "HTTP")],
            "ECS tag ecs-mesh.dev/inbound.1.protocol is \"HTTP\", allowed is tcp, http, http2, grpc, kafka",
        ),
        (
            two_ports,
            &[("service", "web"), ("inbound.2.port", "15000")],
            "ecs-mesh.dev/inbound.2.container-port is missing, and the task has 2 port mappings to choose from",
        ),
        (
            &[APP],
            &[("service", "web"), ("inbound.2.port", "9901")],
            "ECS tag ecs-mesh.dev/inbound.2.port: 9901 is the sidecar's admin port",
        ),
        (
            &[APP],
            &[("service", "web"), ("inbound.2.port", "8080")],
            "ECS tag ecs-mesh.dev/inbound.2.port: 8080 is also the container-port",
        ),
        (
            &[APP],
            &[("service", "web"), ("inbound.2.port", "15000"), ("inbound.5.port", "15000")],
            "ECS tag ecs-mesh.dev/inbound.5.port: 15000 is also the port of ecs-mesh.dev/inbound.2",
        ),
        (
            &[APP],
            &[("service", "web"), ("inbound.3.port", "15000"), ("inbound.3.tag.kuma.io/zone", "a")],
            "ECS tag ecs-mesh.dev/inbound.3.tag.kuma.io/zone: this tag cannot be set here",
        ),
        (
            &[APP],
            &[("service", "web"), ("workload", "A")],
            "ECS tag ecs-mesh.dev/workload: \"A\" is not allowed",
        ),
        (
            &[APP],
            &[("service", "web"), ("outbound.4.service", "kv"), ("outbound.4.listen-port", "9001")],
            "ecs-mesh.dev/outbound.4.target-port: is missing",
        ),
        (
            &[APP],
            &[("service", "web"), ("outbounds", "none"), ("outbound.1.service", "kv")],
            "ECS tag ecs-mesh.dev/outbounds is none, and ECS tag ecs-mesh.dev/outbound.1.service is given",
        ),
        (
            &[APP],
            &[("service", "web"), ("outbound.1.backend-name", "kv")],
            "ecs-mesh.dev/outbound.1.backend-kind is missing",
        ),
    ];
    for (containers, tags, expected) in rows {
        let message = describe(containers, tags).unwrap_err();
        assert!(message.contains(expected), "{tags:?}: {message}");
    }
}
