//! The rules between fields and between documents.

use ecs_mesh_api::WorkloadSpec;
use ecs_mesh_api::manifests::DeclaredReach;

use super::helpers::{BINDING, CONTROL_PLANE, TestDirectory, WORKLOAD, errors_of};

/// The errors of the demo's documents with further ones.
fn errors_with(documents: &str) -> String {
    errors_of(&format!("{CONTROL_PLANE}---\n{BINDING}---\n{WORKLOAD}---\n{documents}"))
}

fn warnings_with(documents: &str) -> String {
    let text = format!("{CONTROL_PLANE}---\n{BINDING}---\n{WORKLOAD}---\n{documents}");
    let directory = TestDirectory::with(&[("a.yaml", &text)]);
    let loaded = directory.load();
    assert_eq!(directory.text(&loaded.errors), "");
    directory.text(&loaded.warnings)
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: ecs-mesh.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}\n---\n"
    )
}

#[test]
fn control_plane_is_checked_field_by_field() {
    let documents = [
        document("ControlPlane", "a", "  type: kuma"),
        document(
            "ControlPlane",
            "b",
            "  type: kuma
  writesPerSecond: 0
  kuma:
    address: ftp://cp.internal
    caFile: /etc/ca.pem
    caEnv: CA
    tokenFile: ''
    tokenEnv: not a name
    timeout: 10ms",
        ),
        document("ControlPlane", "c", "  type: consul"),
    ];
    insta::assert_snapshot!(errors_with(&documents.concat()), @r#"
    a.yaml:28 (document 4, ControlPlane/a): spec.kuma: required where type is kuma, and missing: the connection to the control plane
    a.yaml:36 (document 5, ControlPlane/b): spec.writesPerSecond: 0 is out of range: write 1 to 10000
    a.yaml:38 (document 5, ControlPlane/b): spec.kuma.address: is neither http:// nor https://: write https://HOST:5682 or http://HOST:5681
    a.yaml:40 (document 5, ControlPlane/b): spec.kuma.caEnv: caFile is given too: keep one of the two
    a.yaml:41 (document 5, ControlPlane/b): spec.kuma.tokenFile: is empty: write a file's path, or leave the field out
    a.yaml:42 (document 5, ControlPlane/b): spec.kuma.tokenEnv: is not an environment variable's name: write letters, digits and '_', such as KUMA_TOKEN
    a.yaml:42 (document 5, ControlPlane/b): spec.kuma.tokenEnv: tokenFile is given too: keep one of the two
    a.yaml:43 (document 5, ControlPlane/b): spec.kuma.timeout: 10ms is out of range: write 100ms to 2m
    a.yaml:48 (document 6, ControlPlane/c): spec.consul: required where type is consul, and missing: the connection to the control plane
    "#);
}

#[test]
fn address_with_credentials_is_rejected_and_redacted() {
    for address in
        ["https://admin:hunter2@cp.internal:5682", "https://cp.internal/?token=hunter2", "hunter2@cp"]
    {
        let text = errors_of(&CONTROL_PLANE.replace("https://cp.internal:5682", address));
        assert!(!text.is_empty() && !text.contains("hunter2"), "{text}");
    }
    let text = CONTROL_PLANE.replace("https://cp.internal:5682", "https://admin:hunter2@cp.internal:5682");
    insta::assert_snapshot!(errors_of(&text), @r#"a.yaml:6 (document 1, ControlPlane/kuma): spec.kuma.address: has credentials in it, which do not belong in a manifest: use tokenSecret, tokenFile or tokenEnv"#);
    let consul = "  type: consul\n  consul: {address: 'https://admin:hunter2@consul.internal:8501'}";
    let errors = errors_of(&document("ControlPlane", "consul", consul));
    assert!(
        errors.contains("use tokenSecret, tokenFile or tokenEnv") && !errors.contains("hunter2"),
        "{errors}"
    );
    let unquoted = CONTROL_PLANE.replace("'}", "', tokenEnv: hunter2-hunter2}");
    insta::assert_snapshot!(errors_of(&unquoted), @r#"a.yaml:6 (document 1, ControlPlane/kuma): spec.kuma.tokenEnv: is not an environment variable's name: write letters, digits and '_', such as KUMA_TOKEN"#);
}

#[test]
fn secret_reference_is_rejected_and_redacted() {
    let arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:mesh-a1B2c3";
    let errors = |kind: &str, field: &str, secret: &str| {
        let spec =
            format!("  type: {kind}\n  {kind}: {{address: 'https://cp.internal:1', {field}: '{secret}'}}");
        errors_of(&document("ControlPlane", "a", &spec))
    };
    for (kind, field) in
        [("kuma", "caSecret"), ("kuma", "tokenSecret"), ("consul", "caSecret"), ("consul", "tokenSecret")]
    {
        assert_eq!(errors(kind, field, &format!("{arn}:key::")), "");
        for (secret, rule) in [
            ("hunter2", "is not the ARN of a Secrets Manager secret"),
            (&format!("{arn}:hunter2"), "all three parts of :json-key:version-stage:version-id"),
            (&format!("{arn}::hunter2:9d4cb84b-ad69-40c0-a0ab-cead36b967e8"), "keep one of them"),
        ] {
            let errors = errors(kind, field, secret);
            assert!(errors.contains(&format!("spec.{kind}.{field}: ")) && errors.contains(rule), "{errors}");
            assert!(!errors.contains("hunter2"), "{errors}");
        }
    }
}

#[test]
fn tls_server_name_needs_tls() {
    for (kind, port) in [("kuma", 5682), ("consul", 8501)] {
        let errors = |fields: &str| {
            let spec = format!("  type: {kind}\n  {kind}: {{{fields}}}");
            errors_of(&document("ControlPlane", "a", &spec))
        };
        for name in ["server.dc1.consul", "10.0.0.7", "'fd00::7'"] {
            assert_eq!(errors(&format!("address: 'https://cp.internal:1', tlsServerName: {name}")), "");
        }
        let plain = errors("address: 'http://cp.internal:1', tlsServerName: server.dc1.consul");
        assert!(plain.contains(&format!("spec.{kind}.tlsServerName: ")), "{plain}");
        assert!(plain.contains(&format!("use https:// (port {port})")), "{plain}");
        for name in ["'https://cp.internal'", "'cp.internal:5682'", "'*.internal'", "''"] {
            let errors = errors(&format!("address: 'https://cp.internal:1', tlsServerName: {name}"));
            assert!(errors.contains(&format!("spec.{kind}.tlsServerName: ")), "{errors}");
            assert!(errors.contains("a DNS name or an IP address"), "{errors}");
        }
    }
}

#[test]
fn common_suffix_does_not_affect_suggestions() {
    for (gateway, meant) in [("ingress-gateway", None), ("mesh-gatway", Some("mesh-gateway"))] {
        let consul = "  type: consul\n  consul: {address: 'https://consul.internal:8501'}";
        let auth = format!(
            "  controlPlane: consul\n  serviceTokens: {{boundPrincipals: ['arn:aws:iam::111122223333:role/mesh/*'], \
             gateways: [{gateway}]}}"
        );
        let text = document("ControlPlane", "consul", consul) + &document("ConsulAuth", "ecs", &auth);
        let errors = errors_of(&text);
        let suggested = errors.split("did you mean ").nth(1).and_then(|rest| rest.split('?').next());
        assert_eq!(suggested, meant, "{errors}");
        assert!(errors.contains("Allowed: mesh-gateway, terminating-gateway, api-gateway"), "{errors}");
    }
}

#[test]
fn token_over_plain_http_is_a_warning() {
    let spec = "  type: kuma\n  kuma: {address: 'http://cp.internal:5681', tokenEnv: TOKEN}";
    insta::assert_snapshot!(warnings_with(&document("ControlPlane", "plain", spec)), @r#"a.yaml:30 (document 4, ControlPlane/plain): spec.kuma.address: the token would cross the network unencrypted: use https:// (port 5682)"#);
    let local = spec.replace("cp.internal", "127.0.0.1");
    assert_eq!(warnings_with(&document("ControlPlane", "local", &local)), "");
}

#[test]
fn binding_is_checked_field_by_field() {
    let spec = "  controlPlane: kumo
  mesh: default
  selector:
    clusters: [prod, 'arn:aws:ecs:eu-west-1:111122223333:service/x', 'prod-*', '*:cluster/prod-*', '*']
    services: ['']
  roleTags: {authorizedAccounts: ['1234'], recheck: 5s}
  cleanup: {graceAge: 25h, sweepInterval: 1s, drain: 11m, settle: 2h, guard: {maxFraction: 1.5, releaseUntil: tomorrow}}
  dataplaneName: '{service}_{taskid}'";
    insta::assert_snapshot!(errors_with(&document("MeshBinding", "prod", spec)), @r#"
    a.yaml:29 (document 4, MeshBinding/prod): spec.controlPlane: no ControlPlane is named "kumo"; did you mean kuma? There are: kuma
    a.yaml:32 (document 4, MeshBinding/prod): spec.selector.clusters[0]: "prod" is a cluster's name, and names recur in other Regions and accounts: write the ARN, such as arn:aws:ecs:eu-west-1:111122223333:cluster/prod, or *:cluster/prod for all of that name
    a.yaml:32 (document 4, MeshBinding/prod): spec.selector.clusters[1]: "arn:aws:ecs:eu-west-1:111122223333:service/x" matches no cluster's ARN: write arn:PARTITION:ecs:REGION:ACCOUNT:cluster/NAME, with * and ? where it may vary
    a.yaml:32 (document 4, MeshBinding/prod): spec.selector.clusters[2]: "prod-*" is a cluster's name, and names recur in other Regions and accounts: write the ARN, such as arn:aws:ecs:eu-west-1:111122223333:cluster/prod-*, or *:cluster/prod-* for all of that name
    a.yaml:33 (document 4, MeshBinding/prod): spec.selector.services[0]: is empty: write a name or a pattern with * and ?
    a.yaml:34 (document 4, MeshBinding/prod): spec.roleTags.authorizedAccounts[0]: "1234" is not an AWS account id: write its 12 digits
    a.yaml:34 (document 4, MeshBinding/prod): spec.roleTags.recheck: 5s is out of range: write 30s to 24h
    a.yaml:35 (document 4, MeshBinding/prod): spec.cleanup.drain: 11m is out of range: write 0s to 10m
    a.yaml:35 (document 4, MeshBinding/prod): spec.cleanup.graceAge: 1d1h is out of range: write 0s to 24h
    a.yaml:35 (document 4, MeshBinding/prod): spec.cleanup.guard.maxFraction: 1.5 is out of range: write 0 to 1
    a.yaml:35 (document 4, MeshBinding/prod): spec.cleanup.guard.releaseUntil: "tomorrow" is not an RFC 3339 time: write one such as 2026-01-31T12:00:00Z
    a.yaml:35 (document 4, MeshBinding/prod): spec.cleanup.settle: 2h is out of range: write 0s to 1h
    a.yaml:35 (document 4, MeshBinding/prod): spec.cleanup.sweepInterval: 1s is out of range: write 10s to 24h
    a.yaml:36 (document 4, MeshBinding/prod): spec.dataplaneName: "{service}_{taskid}" has characters that a Dataplane's name cannot have: around placeholders write lower-case letters, digits, '-' and '.'
    a.yaml:36 (document 4, MeshBinding/prod): spec.dataplaneName: unknown placeholder "{taskid}"; did you mean {taskId}? Allowed: {taskId}, {hostname}, {service}
    "#);
}

#[test]
fn tokens_of_a_binding_are_checked_field_by_field() {
    let tokens = |fields: &str| {
        let spec = format!(
            "  controlPlane: kuma\n  selector: {{clusters: ['*:cluster/c']}}\n  tokens: {{{fields}}}"
        );
        errors_with(&document("MeshBinding", "issuing", &spec))
    };
    assert_eq!(tokens("issue: true, path: /mesh/prod, kmsKey: alias/mesh, store: parameterStore"), "");
    for (fields, expected) in [
        ("issue: true", "spec.tokens.path: is missing"),
        ("path: mesh/prod", "spec.tokens.path: \"mesh/prod\" is no path"),
        ("path: /m, kmsKey: 'a b'", "spec.tokens.kmsKey: \"a b\" is no KMS key"),
        ("path: /m, validFor: 1h", "spec.tokens.validFor: 1h is out of range: write 1d to 3650d"),
        (
            "path: /m, rotateBefore: 20d",
            "spec.tokens.rotateBefore: 20d is more than half of validFor: write at most 15d",
        ),
        (
            "path: /m, rotateBefore: 2d",
            "spec.tokens.overlap: 7d is longer than a replaced token is valid: write at most 2d",
        ),
    ] {
        let found = tokens(fields);
        assert!(found.contains(expected), "{fields}: {found}");
    }
}

#[test]
fn bindings_with_overlapping_token_paths_are_refused() {
    let binding = |name: &str, tokens: &str| {
        let spec = format!(
            "  controlPlane: kuma\n  selector: {{clusters: ['*:cluster/{name}']}}\n  tokens: {{{tokens}}}"
        );
        document("MeshBinding", name, &spec)
    };
    let both =
        |first: &str, second: &str| errors_with(&(binding("first", first) + &binding("second", second)));
    let found = both("issue: true, path: /mesh", "issue: true, path: /mesh/b");
    assert!(
        found.contains(
            "MeshBinding/first): spec.tokens.path: overlaps the path /mesh/b of MeshBinding second"
        ),
        "{found}"
    );
    assert!(
        found.contains("MeshBinding/second): spec.tokens.path: overlaps the path /mesh of MeshBinding first"),
        "{found}"
    );
    // All else that they declare stays in force.
    let documents =
        binding("first", "issue: true, path: /mesh") + &binding("second", "issue: true, path: /mesh/b");
    let directory =
        TestDirectory::with(&[("a.yaml", &format!("{CONTROL_PLANE}---\n{WORKLOAD}---\n{documents}"))]);
    let set = directory.load().set;
    for name in ["first", "second"] {
        let tokens = &set.bindings[name].spec.tokens;
        assert_eq!((tokens.issue, &tokens.path), (false, &None), "{name}");
    }
    assert!(!set.complete, "no token is withdrawn");
    assert_eq!(both("issue: true, path: /mesh/a", "issue: true, path: /mesh/b"), "");
    assert_eq!(both("issue: true, path: /mesh", "issue: true, path: /mesh, store: parameterStore"), "");
}

#[test]
fn dataplane_name_must_be_unique_to_a_task() {
    for (template, accepted) in [
        ("{taskId}", true),
        ("{service}-{taskId}", true),
        ("ecs-{hostname}.a", true),
        ("{service}", false),
        ("fixed", false),
        ("{taskId", false),
        ("-{taskId}", false),
        ("A{taskId}", false),
    ] {
        let text = format!("{CONTROL_PLANE}---\n{BINDING}  dataplaneName: '{template}'\n");
        assert_eq!(errors_of(&text).is_empty(), accepted, "{template}: {}", errors_of(&text));
    }
}

#[test]
fn workload_is_checked_field_by_field() {
    let spec = "  bindings: [dmeo]
  selector: {}
  service: app
  workload: App
  inbounds:
    - {name: http, containerPort: 8080, port: 8080}
    - {name: http, containerPort: 8081, port: 9901}
    - {name: Grpc, containerPort: 9090, port: 8080, serviceAddress: 0.0.0.0}
    - containerPort: 9091
      port: 8081
      tags: {kuma.io/service: x, 'a b': c, team: 'a b', kuma.io/zone: z}";
    insta::assert_snapshot!(errors_with(&document("Workload", "app", spec)), @r#"
    a.yaml:29 (document 4, Workload/app): spec.bindings[0]: no MeshBinding is named "dmeo"; did you mean demo? There are: demo
    a.yaml:30 (document 4, Workload/app): spec.selector: is empty and would select every task: give services, families, tags or clusters
    a.yaml:32 (document 4, Workload/app): spec.workload: "App" is not allowed: lower-case letters, digits and '-', starting with a letter, not ending with '-', at most 63 characters
    a.yaml:34 (document 4, Workload/app): spec.inbounds[0].port: 8080 is also the containerPort: choose another, or let the app listen on loopback alone and set serviceAddress: 127.0.0.1
    a.yaml:35 (document 4, Workload/app): spec.inbounds[1].name: is also the name of spec.inbounds[0]: choose another
    a.yaml:35 (document 4, Workload/app): spec.inbounds[1].port: 9901 is the sidecar's admin port: choose another
    a.yaml:36 (document 4, Workload/app): spec.inbounds[2].name: "Grpc" is not allowed: lower-case letters, digits and '-', starting with a letter, not ending with '-', at most 63 characters
    a.yaml:36 (document 4, Workload/app): spec.inbounds[2].port: 8080 is also spec.inbounds[0].containerPort: choose another
    a.yaml:36 (document 4, Workload/app): spec.inbounds[2].port: 8080 is also the port of spec.inbounds[0]: choose another
    a.yaml:36 (document 4, Workload/app): spec.inbounds[2].serviceAddress: is not an address to connect to: write the app's listen address, or leave the field out
    a.yaml:38 (document 4, Workload/app): spec.inbounds[3].port: 8081 is also spec.inbounds[1].containerPort: choose another
    a.yaml:39 (document 4, Workload/app): spec.inbounds[3].tags.team: the tag's value "a b" is not allowed: letters, digits, '.', '-', '_' and ':', not empty
    a.yaml:39 (document 4, Workload/app): spec.inbounds[3].tags["a b"]: the tag's name is not allowed: letters, digits, '.', '-', '_', ':' and '/'
    a.yaml:39 (document 4, Workload/app): spec.inbounds[3].tags["kuma.io/service"]: this tag cannot be set here: it is the Workload's `service`
    a.yaml:39 (document 4, Workload/app): spec.inbounds[3].tags["kuma.io/zone"]: this tag cannot be set here: the control plane sets it
    "#);
}

#[test]
fn loopback_app_may_share_port_with_sidecar() {
    let text = "port: 5050, serviceAddress: 127.0.0.1,";
    let text = format!("{CONTROL_PLANE}---\n{BINDING}---\n{}", WORKLOAD.replace("port: 15050,", text));
    assert_eq!(errors_of(&text), "");
}

#[test]
fn colliding_listeners_are_errors() {
    let outbounds = "    - {service: redis, targetPort: 6379, listen: {port: 6379}}
    - {service: cache, targetPort: 6379, listen: {address: 0.0.0.0, port: 6379}}
    - {service: x, targetPort: 1, listen: {port: 15053}}
    - {service: y, targetPort: 1, listen: {port: 8080}}
    - {service: z, targetPort: 1, listen: {port: 15000}}
    - {service: z, targetPort: 1, listen: {address: '::', port: 15000}}";
    let workload = format!(
        "  selector: {{services: [app]}}\n  service: app
  inbounds: [{{containerPort: 8080, port: 15000}}]\n  outbounds:\n{outbounds}"
    );
    let list = format!("  workloads: []\n  outbounds:\n{outbounds}");
    let documents = document("Workload", "app", &workload) + &document("OutboundList", "app", &list);
    insta::assert_snapshot!(errors_with(&documents), @r#"
    a.yaml:34 (document 4, Workload/app): spec.outbounds[1].listen: 0.0.0.0:6379 is taken by spec.outbounds[0], on 127.0.0.1:6379 for redis:6379: choose another port, or delete one
    a.yaml:35 (document 4, Workload/app): spec.outbounds[2].listen.port: 15053 is the sidecar's DNS proxy: choose another
    a.yaml:36 (document 4, Workload/app): spec.outbounds[3].listen: 127.0.0.1:8080 is not possible, since the app listens on port 8080 (spec.inbounds[0].containerPort): choose another
    a.yaml:38 (document 4, Workload/app): spec.outbounds[5].listen: [::]:15000 is not possible, since the sidecar listens on port 15000 for this inbound (spec.inbounds[0].port): choose another
    a.yaml:38 (document 4, Workload/app): spec.outbounds[5].listen: [::]:15000 is taken by spec.outbounds[4], on 127.0.0.1:15000 for z:1: choose another port, or delete one
    a.yaml:44 (document 5, OutboundList/app): spec.workloads: is empty: name at least one Workload, or a pattern over their names
    a.yaml:47 (document 5, OutboundList/app): spec.outbounds[1].listen: 0.0.0.0:6379 is taken by spec.outbounds[0], on 127.0.0.1:6379 for redis:6379: choose another port, or delete one
    a.yaml:48 (document 5, OutboundList/app): spec.outbounds[2].listen.port: 15053 is the sidecar's DNS proxy: choose another
    a.yaml:51 (document 5, OutboundList/app): spec.outbounds[5].listen: [::]:15000 is taken by spec.outbounds[4], on 127.0.0.1:15000 for z:1: choose another port, or delete one
    "#);
}

#[test]
fn outbounds_must_fit_the_reach_of_their_workload() {
    let workload = |name: &str, reach: &str, outbounds: &str| {
        let spec = format!(
            "  selector: {{services: [x]}}\n  service: app\n  reach: {reach}\n  outbounds:\n{outbounds}"
        );
        document("Workload", name, &spec)
    };
    let bound = workload(
        "bound",
        "bindOutbounds",
        "    - {service: kv}
    - {service: kv, listen: {port: 6379}}
    - {service: kv, backend: {kind: MeshService, name: kv}}
    - {backend: {kind: MeshService, name: kv_store}}
    - {backend: {kind: MeshService, name: kv, labels: {team: a}}}
    - {backend: {kind: MeshService, labels: {team: a}, port: 80}}
    - {backend: {kind: MeshService}}
    - {targetPort: 80}
    - {backend: {kind: MeshService, name: kv}, targetPort: 80}",
    );
    let listening = workload(
        "listening",
        "outbounds",
        "    - {service: kv, targetPort: 1}
    - {service: kv, listen: {port: 6379}}
    - {backend: {kind: MeshService, labels: {team: a}}, listen: {port: 6380}}
    - {backend: {kind: MeshService, name: kv}, listen: {port: 6381}}",
    );
    let none = workload("none", "bindOutbounds", "    []");
    let list = document(
        "OutboundList",
        "l",
        "  workloads: [kv]\n  outbounds: [{service: kv}, {service: kv, listen: {port: 1}}]",
    );
    insta::assert_snapshot!(errors_with(&(bound + &listening + &none + &list)), @r#"
    a.yaml:34 (document 4, Workload/bound): spec.outbounds[1].listen: has no meaning with reach: bindOutbounds, since the sidecar listens on the address of the service: leave it out
    a.yaml:35 (document 4, Workload/bound): spec.outbounds[2].backend: is an alternative to service: write one of the two
    a.yaml:36 (document 4, Workload/bound): spec.outbounds[3].backend.name: "kv_store" is not allowed: lower-case letters, digits and '-', starting with a letter, not ending with '-', at most 63 characters
    a.yaml:37 (document 4, Workload/bound): spec.outbounds[4].backend.labels: is an alternative to name: write one of the two
    a.yaml:38 (document 4, Workload/bound): spec.outbounds[5].backend.port: cannot be given with labels, since Kuma would take one of the resources alone: leave it out
    a.yaml:39 (document 4, Workload/bound): spec.outbounds[6].backend.name: is missing: write name, or labels
    a.yaml:40 (document 4, Workload/bound): spec.outbounds[7]: names nothing to call: write service and targetPort, or backend
    a.yaml:41 (document 4, Workload/bound): spec.outbounds[8].targetPort: belongs to service: write backend.port
    a.yaml:51 (document 5, Workload/listening): spec.outbounds[0].listen: is missing: with reach: outbounds the sidecar listens there
    a.yaml:52 (document 5, Workload/listening): spec.outbounds[1].targetPort: is missing: with reach: outbounds a listener needs one port
    a.yaml:53 (document 5, Workload/listening): spec.outbounds[2].backend.port: is missing: with reach: outbounds a listener needs one port
    a.yaml:54 (document 5, Workload/listening): spec.outbounds[3].backend.port: is missing: with reach: outbounds a listener needs one port
    a.yaml:71 (document 7, OutboundList/l): spec.outbounds[1].targetPort: is missing: with reach: outbounds a listener needs one port
    "#);
}

#[test]
fn workload_that_binds_every_service_warns() {
    let workload =
        document("Workload", "all", "  selector: {services: [x]}\n  service: app\n  reach: bindOutbounds");
    insta::assert_snapshot!(warnings_with(&workload), @r#"
    a.yaml:31 (document 4, Workload/all): spec.reach: no outbounds are declared, so with reach: bindOutbounds each sidecar binds every service of the mesh: list those that the workload calls
    "#);
    let empty = document("OutboundList", "a", "  workloads: [all]\n  outbounds: []");
    assert_eq!(warnings_with(&(workload.clone() + &empty)), "");
    let list = document("OutboundList", "a", "  workloads: [all]\n  outbounds: [{service: kv}]");
    assert_eq!(warnings_with(&(workload + &list)), "");
}

#[test]
fn list_entry_without_listener_warns_where_one_is_needed() {
    let list = document("OutboundList", "a", "  workloads: [kv]\n  outbounds: [{service: kv}]");
    insta::assert_snapshot!(warnings_with(&list), @r#"
    a.yaml:19 (document 3, Workload/kv): spec.outbounds: outbound 0 of OutboundList a cannot be a listener: targetPort is missing: with reach: outbounds a listener needs one port. Until then its tasks keep the outbounds that they have
    "#);
}

#[test]
fn manifest_referencing_an_invalid_one_is_skipped() {
    let directory = TestDirectory::demo();
    directory.write("a-cp.yaml", CONTROL_PLANE.replace("https:", "ftp:"));
    let loaded = directory.load();
    insta::assert_snapshot!(directory.text(&loaded.errors), @r#"
    a-cp.yaml:6 (document 1, ControlPlane/kuma): spec.kuma.address: is neither http:// nor https://: write https://HOST:5682 or http://HOST:5681
    b-binding.yaml:5 (document 1, MeshBinding/demo): spec.controlPlane: refers to ControlPlane kuma, which is invalid
    c-kv.yaml:5 (document 1, Workload/kv): spec.bindings[0]: refers to MeshBinding demo, which is invalid
    "#);
    assert!(loaded.set.bindings.is_empty() && loaded.set.workloads.is_empty());
}

#[test]
fn pattern_matching_no_workload_warns_without_tag_discovery() {
    let list = document("OutboundList", "redis-users", "  workloads: [kw, 'batch-*', 'k*']\n  outbounds: []");
    insta::assert_snapshot!(warnings_with(&list), @r#"
    a.yaml:29 (document 4, OutboundList/redis-users): spec.workloads[0]: no Workload is named "kw"; did you mean kv? There are: kv
    a.yaml:29 (document 4, OutboundList/redis-users): spec.workloads[1]: the pattern "batch-*" matches no Workload
    "#);
    let spec = "  controlPlane: kuma\n  mesh: other\n  selector: {clusters: ['*']}\n  discovery: tags";
    assert_eq!(warnings_with(&(list + &document("MeshBinding", "tags", spec))), "");
}

#[test]
fn conflicting_outbound_lists_warn() {
    let outbounds = |service: &str| {
        format!(
            "  workloads: ['*']\n  outbounds: [{{service: {service}, targetPort: 1, listen: {{port: 5050}}}}]"
        )
    };
    let lists =
        document("OutboundList", "a", &outbounds("x")) + &document("OutboundList", "b", &outbounds("y"));
    insta::assert_snapshot!(warnings_with(&lists), @r#"
    a.yaml:23 (document 3, Workload/kv): spec.inbounds[0].containerPort: x:1 on 127.0.0.1:5050 (OutboundList a) is not possible, since the app listens on port 5050 (spec.inbounds[0].containerPort): give the outbound another port. Until then its tasks keep the outbounds that they have
    a.yaml:23 (document 3, Workload/kv): spec.inbounds[0].containerPort: y:1 on 127.0.0.1:5050 (OutboundList b) is not possible, since the app listens on port 5050 (spec.inbounds[0].containerPort): give the outbound another port. Until then its tasks keep the outbounds that they have
    a.yaml:19 (document 3, Workload/kv): spec.outbounds: x:1 on 127.0.0.1:5050 (OutboundList a) and y:1 on 127.0.0.1:5050 (OutboundList b) conflict: give one of them another port. Until then its tasks keep the outbounds that they have
    "#);
}

#[test]
fn lists_merge_in_name_order_before_inline_outbounds() {
    let list = |service: &str, port: u16| {
        format!(
            "  workloads: ['k*']\n  outbounds: [{{service: {service}, targetPort: 1, listen: {{port: {port}}}}}]"
        )
    };
    let text = format!("{CONTROL_PLANE}---\n{BINDING}---\n{WORKLOAD}---\n")
        + &document("OutboundList", "b", &list("redis", 6379))
        + &document("OutboundList", "a", &list("queue", 5672));
    let set = TestDirectory::with(&[("a.yaml", &text)]).load().set;
    let services = |name: &str, workload: &WorkloadSpec| {
        let DeclaredReach::Listeners(merged) = set.declared_reach(name, workload) else {
            panic!("listeners")
        };
        assert_eq!(merged.conflicts, []);
        merged.resolved.iter().map(|o| o.backend.to_string()).collect::<Vec<_>>()
    };
    let mut workload = WorkloadSpec::clone(&set.workloads["kv"]);
    assert_eq!(services("kv", &workload), ["queue", "redis"]);
    assert!(services("other", &workload).is_empty());
    workload.outbounds = Some(set.outbound_lists["b"].outbounds.clone());
    assert_eq!(services("kv", &workload), ["queue", "redis"]);
    assert_eq!(services("other", &workload), ["redis"]);
}

const CONSUL: &str = "  type: consul\n  consul: {address: 'https://consul.internal:8501'}";
const PRINCIPALS: &str =
    "  serviceTokens: {boundPrincipals: ['arn:aws:iam::111122223333:role/consul-ecs/*']}";

#[test]
fn missing_principals_are_an_error() {
    let documents = [
        document("ControlPlane", "consul", CONSUL),
        document(
            "ConsulAuth",
            "a",
            "  controlPlane: consul\n  serviceTokens: {}\n  clientTokens: {boundPrincipals: []}",
        ),
    ];
    insta::assert_snapshot!(errors_with(&documents.concat()), @r#"
    a.yaml:37 (document 5, ConsulAuth/a): spec.serviceTokens.boundPrincipals: is empty or missing: write the ARNs of the roles that may log in, such as arn:aws:iam::111122223333:role/consul-ecs/*
    a.yaml:38 (document 5, ConsulAuth/a): spec.clientTokens.boundPrincipals: is empty or missing: write the ARNs of the roles that may log in, such as arn:aws:iam::111122223333:role/consul-ecs/*
    "#);
}

#[test]
fn consul_auth_is_unique_per_consul_control_plane() {
    let documents = [
        document("ControlPlane", "consul", CONSUL),
        document("ControlPlane", "again", &CONSUL.replace("internal:", "INTERNAL:")),
        document("ConsulAuth", "a", &format!("  controlPlane: consul\n{PRINCIPALS}")),
        document("ConsulAuth", "b", &format!("  controlPlane: again\n{PRINCIPALS}")),
        document("ConsulAuth", "c", &format!("  controlPlane: kuma\n{PRINCIPALS}")),
        document("ConsulAuth", "d", &format!("  controlPlane: cnosul\n{PRINCIPALS}")),
        document("ConsulAuth", "e", &format!("  controlPlane: consul\n{PRINCIPALS}\n  enterprise: {{}}")),
    ];
    insta::assert_snapshot!(errors_with(&documents.concat()), @r#"
    a.yaml:43 (document 6, ConsulAuth/a): spec.controlPlane: the same servers and partition are also those of ConsulAuth b at a.yaml:46: keep one of the two, since each would undo the other
    a.yaml:43 (document 6, ConsulAuth/a): spec.controlPlane: the same servers and partition are also those of ConsulAuth e at a.yaml:67: keep one of the two, since each would undo the other
    a.yaml:50 (document 7, ConsulAuth/b): spec.controlPlane: the same servers and partition are also those of ConsulAuth a at a.yaml:39: keep one of the two, since each would undo the other
    a.yaml:57 (document 8, ConsulAuth/c): spec.controlPlane: ControlPlane kuma is of type kuma: name one of type consul
    a.yaml:64 (document 9, ConsulAuth/d): spec.controlPlane: no ControlPlane is named "cnosul"; did you mean consul? There are: again, consul, kuma
    a.yaml:71 (document 10, ConsulAuth/e): spec.controlPlane: the same servers and partition are also those of ConsulAuth a at a.yaml:39: keep one of the two, since each would undo the other
    a.yaml:73 (document 10, ConsulAuth/e): spec.enterprise: needs Consul Enterprise, and ControlPlane consul has neither partition nor namespaces: give it one of them, or leave this out
    "#);
}

#[test]
fn missing_partition_means_default() {
    let at = |more: &str| CONSUL.replace("8501'}", &format!("8501'{more}}}"));
    let auth =
        |name: &str, of: &str| document("ConsulAuth", name, &format!("  controlPlane: {of}\n{PRINCIPALS}"));
    let documents = [
        document("ControlPlane", "named", &at(", partition: default")),
        document("ControlPlane", "unnamed", &at(", namespaces: [team]")),
        document("ControlPlane", "another", &at(", partition: ecs")),
        auth("a", "named"),
        auth("b", "unnamed"),
        auth("c", "another"),
    ];
    let errors = errors_with(&documents.concat());
    let conflicts = errors.lines().filter(|line| line.contains("the same servers and partition")).count();
    assert_eq!((conflicts, errors.lines().count()), (2, 2), "{errors}");
}

#[test]
fn consul_binding_without_mesh_gets_its_partition() {
    let partition = CONSUL.replace("8501'}", "8501', partition: ecs}");
    let binding = |name: &str, of: &str| {
        document("MeshBinding", name, &format!("  controlPlane: {of}\n  selector: {{clusters: ['*']}}"))
    };
    let documents = [
        document("ControlPlane", "consul", &CONSUL.replace("internal", "other")),
        document("ControlPlane", "enterprise", &partition),
        binding("a", "consul"),
        binding("b", "enterprise"),
    ];
    let set = TestDirectory::with(&[("a.yaml", &documents.concat())]).load().set;
    let mesh = |binding: &str| set.bindings[binding].spec.mesh.to_string();
    assert_eq!((mesh("a"), mesh("b")), ("default".to_owned(), "ecs".to_owned()));
}

#[test]
fn overly_broad_login_is_a_warning() {
    let spec = "  controlPlane: consul
  serviceTokens:
    boundPrincipals: ['arn:aws:iam::111122223333:role/*']
    stsEndpoint: http://sts.internal";
    let documents = [document("ControlPlane", "consul", CONSUL), document("ConsulAuth", "a", spec)];
    insta::assert_snapshot!(warnings_with(&documents.concat()), @r#"
    a.yaml:38 (document 5, ConsulAuth/a): spec.serviceTokens.boundPrincipals[0]: lets every role of the account log in: name a path, such as role/consul-ecs/*
    a.yaml:39 (document 5, ConsulAuth/a): spec.serviceTokens.stsEndpoint: an attacker on the network could forge identities: use https://
    "#);
}

#[test]
fn consul_binding_rejects_mesh_and_dataplane_name() {
    let partition = CONSUL.replace("8501'}", "8501', partition: ecs}").replace("internal", "other");
    let binding = |name: &str, of: &str, more: &str| {
        let spec = format!("  controlPlane: {of}\n  selector: {{clusters: ['*']}}\n{more}");
        document("MeshBinding", name, &spec)
    };
    let documents = [
        document("ControlPlane", "consul", CONSUL),
        document("ControlPlane", "enterprise", &partition),
        binding("a", "consul", "  mesh: prod"),
        binding("b", "enterprise", "  mesh: prod"),
        binding("c", "consul", "  dataplaneName: '{hostname}'\n  addressFamily: ipv6"),
        binding("fine", "enterprise", "  mesh: ecs"),
        binding("fine-too", "consul", "  roleTags: {onRevoked: withdraw}"),
    ];
    insta::assert_snapshot!(errors_with(&documents.concat()), @r#"
    a.yaml:45 (document 6, MeshBinding/a): spec.mesh: "prod" would be a partition of Consul Enterprise, and ControlPlane consul has none: leave mesh out
    a.yaml:53 (document 7, MeshBinding/b): spec.mesh: "prod" is not the partition of ControlPlane enterprise, which is "ecs": leave mesh out
    a.yaml:61 (document 8, MeshBinding/c): spec.dataplaneName: has no effect at ControlPlane consul, which is of type consul: leave it out
    a.yaml:62 (document 8, MeshBinding/c): spec.addressFamily: has no effect at ControlPlane consul, which is of type consul: leave it out
    "#);
}

#[test]
fn service_name_invalid_in_consul_fails_consul_only_workload() {
    let binding = "  controlPlane: consul\n  selector: {clusters: ['*']}";
    let workload = |name: &str, bindings: &str, service: &str| {
        let spec =
            format!("  bindings: {bindings}\n  selector: {{services: [{name}]}}\n  service: {service}");
        document("Workload", name, &spec)
    };
    let documents = [
        document("ControlPlane", "consul", CONSUL),
        document("MeshBinding", "of-consul", binding),
        workload("dots", "[of-consul]", "web.app"),
        workload("of-kuma", "[demo]", "web.app"),
        workload("plain", "[of-consul]", "web-app"),
        workload("capitals", "[of-consul]", "Web"),
    ];
    insta::assert_snapshot!(errors_with(&documents.concat()), @r#"a.yaml:45 (document 6, Workload/dots): spec.service: "web.app" is not a Consul service name, and MeshBinding of-consul has a Consul control plane: its tasks could not log in; write the name that they register: at most 256 lower-case letters, digits, '-' and '_', starting and ending with a letter or digit"#);
    let mixed = [workload("both", "[]", "web:app"), workload("two", "[demo, of-consul]", "_web")];
    insta::assert_snapshot!(warnings_with(&[&documents[..2], &mixed].concat().concat()), @r#"
    a.yaml:45 (document 6, Workload/both): spec.service: "web:app" is not a Consul service name, and MeshBinding of-consul has a Consul control plane: its tasks could not log in; write the name that they register: at most 256 lower-case letters, digits, '-' and '_', starting and ending with a letter or digit; or list in spec.bindings the bindings that it is for
    a.yaml:53 (document 7, Workload/two): spec.service: "_web" is not a Consul service name, and MeshBinding of-consul has a Consul control plane: its tasks could not log in; write the name that they register: at most 256 lower-case letters, digits, '-' and '_', starting and ending with a letter or digit; or list in spec.bindings the bindings that it is for
    "#);
}

#[test]
fn workload_that_the_named_dialect_lacks_is_a_warning() {
    let control_plane = |dialect: &str| {
        document(
            "ControlPlane",
            "preview",
            &format!("  type: kuma\n  kuma: {{address: 'https://cp:5682', dialect: {dialect}}}"),
        )
    };
    let rest = [
        document(
            "MeshBinding",
            "next",
            "  controlPlane: preview\n  selector: {clusters: ['*:cluster/next']}",
        ),
        document(
            "Workload",
            "events",
            "  bindings: [next]\n  selector: {services: [events]}\n  service: event_log\n  inbounds: \
             [{containerPort: 9092, port: 15000, protocol: kafka}]",
        ),
        document(
            "Workload",
            "labelled",
            "  bindings: [next]\n  selector: {services: [web]}\n  service: web_shop\n  workload: web-shop",
        ),
        document(
            "Workload",
            "tagged",
            "  bindings: [next]\n  selector: {services: [api]}\n  service: api\n  outbounds: \
             [{service: web_shop, targetPort: 1, listen: {port: 7000}}, \
             {service: Foo_bar, targetPort: 1, listen: {port: 7001}}]\n  inbounds: \
             [{containerPort: 80, port: 15000, tags: {'a:b': 'x', kuma.io/foo: x, version: '1'}}, \
             {containerPort: 81, port: 15001, tags: {'a:b': 'x', kuma.io/foo: x}}]",
        ),
    ]
    .concat();
    insta::assert_snapshot!(warnings_with(&(control_plane("3.x") + &rest)), @r#"
    a.yaml:45 (document 6, Workload/events): spec.service: "event_log" is no valid label kuma.io/workload, which names the service in Kuma 3.0: set spec.workload (lower-case letters, digits and '-', starting with a letter, not ending with '-', at most 63 characters)
    a.yaml:46 (document 6, Workload/events): spec.inbounds[0].protocol: Kuma 3.0 has no protocol kafka: write tcp
    a.yaml:65 (document 8, Workload/tagged): spec.inbounds: the inbound tag a:b is no label of a Dataplane, which tags become in 3.x: remove the tag from Workload.spec.inbounds[].tags, or give all inbounds one value that is a label
    a.yaml:65 (document 8, Workload/tagged): spec.inbounds: the inbound tag kuma.io/foo would become a reserved label: remove the tag from Workload.spec.inbounds[].tags, or give all inbounds one value that is a label
    a.yaml:65 (document 8, Workload/tagged): spec.inbounds: the inbound tag version differs between inbounds, which have no tags of their own in 3.x: remove the tag from Workload.spec.inbounds[].tags, or give all inbounds one value that is a label
    a.yaml:64 (document 8, Workload/tagged): spec.outbounds: "Foo_bar" can be no MeshService, which all services are in Kuma 3.0: set `workload` in the Workload of that service, or rename the service (lower-case letters, digits and '-', starting with a letter, not ending with '-', at most 63 characters)
    "#);
    assert_eq!(warnings_with(&(control_plane("2.x") + &rest)), "");
    let unknown = errors_with(&(control_plane("'4.x'") + &rest));
    assert!(unknown.contains("spec.kuma.dialect") && unknown.contains("2.x, 3.x"), "{unknown}");
}
