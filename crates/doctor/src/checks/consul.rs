//! Consul's servers: whether tasks can log in there, and whether the operator's token sees all that it has to see.

use super::consul_rights;
use super::control_planes::{failed, is_unencrypted_remote, not_reached};
use crate::catalogue::{
    CONSUL_ACLS, CONSUL_EDITION, CONSUL_METHOD, CONSUL_NAMESPACES, CONSUL_NODE, CONSUL_POLICIES,
    CONSUL_REACHED, CONSUL_ROLES, CONSUL_RULES, CONSUL_SERVICES, CONSUL_TOKEN, CONSUL_TOKENS, CONSUL_VERSION,
};
use crate::report::{CheckKind, CheckResult};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ConsulAuthSpec, ConsulConnection, Presence};
use ecs_mesh_consul::{
    AclPermission, AuthMethod, ConsulDiagnostics, ConsulProbes, ConsulVersion, ObjectLink, OwnToken,
};
use ecs_mesh_control_plane::http::{quote, quote_name};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_model::{ClusterArn, docs_url};

const AWS_IAM: &str = "aws-iam";
pub(super) const PRINT: &str = "`ecs-mesh-operator doctor --print-acl-policy` prints the required policy";

/// A control plane, with its settings in the manifests.
struct ConsulCheck<'a> {
    subject: &'a str,
    connection: Option<&'a ConsulConnection>,
    /// The `ConsulAuth` of the control plane.
    declared: Option<&'a ConsulAuthSpec>,
    binds_by_pattern: bool,
}

pub(super) fn check(
    set: &ManifestSet,
    name: &str,
    subject: &str,
    diagnostics: &ConsulDiagnostics,
) -> Vec<CheckResult> {
    let Some(answers) = &diagnostics.probes else {
        return vec![not_reached(CONSUL_REACHED, subject, diagnostics.version.as_ref().err())];
    };
    let bindings = set.bindings.values().filter(|binding| binding.spec.control_plane == name);
    let check = ConsulCheck {
        subject,
        connection: set.control_planes.get(name).and_then(|spec| spec.consul.as_ref()),
        declared: set.consul_auths.values().find(|auth| auth.control_plane == name).map(AsRef::as_ref),
        binds_by_pattern: bindings.flat_map(|one| &one.spec.selector.clusters).any(|glob| !glob.is_literal()),
    };
    let mut checks = vec![CONSUL_REACHED.ok(subject, "reachable")];
    checks.push(check.version(diagnostics.version.as_ref(), answers));
    checks.push(check.edition(diagnostics.version.as_ref()));
    checks.extend(check.namespaces(answers));
    checks.extend(consul_rights::operator(subject, answers));
    checks.push(check.acls(answers));
    checks.push(check.token(answers));
    // With an unknown token every further check would fail with the same message.
    if answers.own_token.is_ok() {
        checks.extend(check.acl_objects(answers));
    }
    if answers.own_token.is_ok() || answers.acls_are_off {
        checks.extend(check.clusters(answers));
    }
    checks
}

impl ConsulCheck<'_> {
    fn version(
        &self,
        version: Result<&Option<ConsulVersion>, &MeshError>,
        probes: &ConsulProbes,
    ) -> CheckResult {
        match version {
            Ok(Some(version)) if version.refusal().is_some() => CONSUL_VERSION.error(
                self.subject,
                version.refusal().unwrap_or_default(),
                "use Consul 1.12 or a later 1.x, or 2.0",
            ),
            Ok(Some(version)) if version.has_iam_logins() => {
                CONSUL_VERSION.ok(self.subject, version.to_string())
            }
            Ok(Some(version)) => CONSUL_VERSION.error(
                self.subject,
                format!("{version}, which has no auth method of type {AWS_IAM}: no task can log in"),
                "update the servers to 1.12 or later",
            ),
            Ok(None) if probes.own_token.is_err() => CONSUL_VERSION.unknown(
                self.subject,
                "older servers show it to a valid token only; assuming 1.12 or later",
                "fix consul.token first",
            ),
            Ok(None) => CONSUL_VERSION.unknown(
                self.subject,
                "the token may not read it; assuming 1.12 or later",
                "add `agent_prefix \"\" { policy = \"read\" }` to one of the token's policies",
            ),
            Err(error) => failed(CONSUL_VERSION, self.subject, error),
        }
    }

    fn edition(&self, version: Result<&Option<ConsulVersion>, &MeshError>) -> CheckResult {
        let wanted = self.connection.is_some_and(|one| one.partition.is_some() || !one.namespaces.is_empty());
        match version {
            Ok(Some(version)) if version.is_enterprise() => CONSUL_EDITION.ok(self.subject, "Enterprise"),
            Ok(Some(_)) if wanted => CONSUL_EDITION.error(
                self.subject,
                "the open-source edition, which refuses every call with a partition or namespace",
                "leave out ControlPlane.spec.consul.partition and namespaces",
            ),
            Ok(Some(_)) => CONSUL_EDITION.ok(self.subject, "the open-source edition"),
            Err(error) if wanted && error.kind == MeshErrorKind::Invalid => {
                failed(CONSUL_EDITION, self.subject, error)
            }
            _ if wanted => CONSUL_EDITION.unknown(
                self.subject,
                "partition or namespaces are given, and the edition is not known",
                "fix consul.version first",
            ),
            _ => CONSUL_EDITION.ok(self.subject, "neither partition nor namespaces are given"),
        }
    }

    fn namespaces(&self, probes: &ConsulProbes) -> Vec<CheckResult> {
        if probes.namespaces.is_empty() {
            return vec![CONSUL_NAMESPACES.ok(self.subject, "none is configured by name")];
        }
        let each = probes.namespaces.iter().map(|(name, found)| {
            let subject = format!("{name} on {}", self.subject);
            match found {
                Ok(true) => CONSUL_NAMESPACES.ok(&subject, "it exists"),
                Ok(false) => CONSUL_NAMESPACES.error(
                    &subject,
                    "it does not exist; the other namespaces are managed",
                    format!(
                        "`consul namespace create -name {name}`, or remove it from \
                         ControlPlane.spec.consul.namespaces"
                    ),
                ),
                // The operator itself does not need this permission.
                Err(error) if error.kind == MeshErrorKind::Forbidden => CONSUL_NAMESPACES.unknown(
                    &subject,
                    "the token may not read namespaces",
                    "add `operator = \"read\"` to one of the token's policies, or check with `consul namespace list`",
                ),
                Err(error) => failed(CONSUL_NAMESPACES, &subject, error),
            }
        });
        each.collect()
    }

    fn acls(&self, probes: &ConsulProbes) -> CheckResult {
        if probes.acls_are_off {
            return CONSUL_ACLS.error(
                self.subject,
                "ACLs are off: every client that reaches the servers may do everything, and there are no logins",
                "set acl.enabled = true and acl.default_policy = \"deny\" on the servers, then `consul acl bootstrap`",
            );
        }
        CONSUL_ACLS.ok(self.subject, "ACLs are on")
    }

    fn token(&self, probes: &ConsulProbes) -> CheckResult {
        let is_given = self.connection.is_some_and(|one| {
            one.token_file.is_some() || one.token_env.is_some() || one.token_secret.is_some()
        });
        let own = match &probes.own_token {
            Ok(own) => own,
            Err(_) if probes.acls_are_off => {
                return CONSUL_TOKEN.info(self.subject, "not checked: ACLs are off");
            }
            Err(_) if !is_given => {
                return CONSUL_TOKEN.error(
                    self.subject,
                    "no token is configured, so the operator uses the anonymous token",
                    format!("create one, and configure tokenFile, tokenEnv or tokenSecret; {PRINT}"),
                );
            }
            Err(error) => return failed(CONSUL_TOKEN, self.subject, error),
        };
        let known = format!("known as {} ({:?})", quote_name(&own.accessor), quote(&own.description));
        if own.is_management() {
            let clear = if self.is_unencrypted() {
                ", and crosses the network unencrypted: use https://"
            } else {
                ""
            };
            let found = format!("{known}, which may do everything{clear}");
            return CONSUL_TOKEN.warning(
                self.subject,
                found,
                format!("create one with fewer permissions; {PRINT}"),
            );
        }
        let mut known = format!("{known}, with {}", links(own));
        let unknown = probes.permissions.as_ref().err().map(|error| error.split_help().0);
        if let Some(reason) = unknown {
            known = format!("{known}; its write permissions are unknown: {reason}");
        }
        if self.is_unencrypted() {
            let found = format!("{known}; it crosses the network unencrypted");
            return CONSUL_TOKEN.warning(self.subject, found, "use https:// and port 8501, with a CA");
        }
        if unknown.is_some() {
            return CONSUL_TOKEN.unknown(
                self.subject,
                known,
                format!("compare its policies manually: {PRINT}"),
            );
        }
        CONSUL_TOKEN.ok(self.subject, known)
    }

    fn is_unencrypted(&self) -> bool {
        self.connection.is_some_and(|connection| is_unencrypted_remote(&connection.address))
    }

    fn acl_objects(&self, probes: &ConsulProbes) -> Vec<CheckResult> {
        let subject = self.subject;
        let tokens = probes.tokens.as_ref().map(|found| found.of_tasks).map_err(Clone::clone);
        let tokens = counted(CONSUL_TOKENS, subject, &tokens, "belong to tasks of the clusters");
        let mut checks = vec![consul_rights::with(&AclPermission::Acls, CONSUL_TOKENS, tokens, probes)];
        checks.extend(unattributed_tokens(subject, probes));
        for (name, found) in &probes.methods {
            let subject = format!("{name} on {subject}");
            checks.push(match found {
                Ok(method) => self.method(&subject, name, method.as_ref()),
                Err(error) => failed(CONSUL_METHOD, &subject, error),
            });
            checks.extend(probes.rules.get(name).map(|rules| match rules {
                Ok(0) if self.manages_method(name) => CONSUL_RULES.info(&subject, "none yet: `run` creates them"),
                Ok(0) => CONSUL_RULES.error(
                    &subject,
                    "none: logins are refused",
                    "declare a ConsulAuth, or `consul acl binding-rule create -method NAME -bind-type service \
                     -bind-name '${entity_tags.consul.hashicorp.com.service-name}'`",
                ),
                _ => counted(CONSUL_RULES, &subject, rules, "exist"),
            }));
        }
        checks.push(counted(CONSUL_POLICIES, subject, &probes.policies, "are readable"));
        checks.push(counted(CONSUL_ROLES, subject, &probes.roles, "are readable"));
        checks
    }

    fn method(&self, subject: &str, name: &str, method: Option<&AuthMethod>) -> CheckResult {
        match method {
            Some(method) if method.kind == AWS_IAM => CONSUL_METHOD.ok(subject, format!("of type {AWS_IAM}")),
            Some(method) => CONSUL_METHOD.error(
                subject,
                format!("of type {}, which ECS tasks cannot use", method.kind),
                "use another name for the tasks' auth method (serviceTokens.authMethod of a ConsulAuth); its type \
                 cannot be changed",
            ),
            None if self.manages_method(name) => CONSUL_METHOD.info(subject, "not yet created: `run` creates it"),
            None => CONSUL_METHOD.error(
                subject,
                "it does not exist",
                "declare a ConsulAuth, or set serviceTokens.authMethod to the existing one",
            ),
        }
    }

    /// Whether the operator manages the auth method.
    fn manages_method(&self, method: &str) -> bool {
        let tokens = self.declared.filter(|auth| auth.state == Presence::Present);
        let tokens = tokens.and_then(|auth| auth.service_tokens.as_ref());
        tokens.is_some_and(|one| one.state == Presence::Present && one.auth_method == method)
    }

    fn clusters(&self, probes: &ConsulProbes) -> Vec<CheckResult> {
        let mut checks = Vec::new();
        for (cluster, found) in &probes.clusters {
            let subject = format!("{cluster} on {}", self.subject);
            checks.push(match &found.has_node {
                Ok(has_node) => {
                    let check = self.node(&subject, cluster, *has_node);
                    if self.declared.is_some() { consul_rights::node(check, cluster, probes) } else { check }
                }
                Err(error) => failed(CONSUL_NODE, &subject, error),
            });
            checks.push(counted(CONSUL_SERVICES, &subject, &found.services, "belong to the cluster's tasks"));
        }
        checks.extend(consul_rights::services(self.subject, probes));
        checks.extend(consul_rights::nodes_by_pattern(self.subject, probes));
        if self.binds_by_pattern {
            let found = "clusters that a pattern selects are not checked; with a ConsulAuth `run` registers their nodes once ECS has \
                         listed them";
            checks.push(CONSUL_NODE.info(self.subject, found));
        }
        checks
    }

    fn node(&self, subject: &str, cluster: &ClusterArn, has_node: bool) -> CheckResult {
        if has_node {
            return CONSUL_NODE.ok(subject, "it exists");
        }
        if self.declared.is_some_and(|auth| auth.state == Presence::Present) {
            return CONSUL_NODE.info(subject, "not yet created: `run` creates it");
        }
        CONSUL_NODE.error(
            subject,
            "it does not exist: no task of the cluster can register",
            format!(
                "declare a ConsulAuth, or `consul` API: PUT /v1/catalog/register {{\"Node\": \"{cluster}\", \
                 \"Address\": \"127.0.0.1\", \"NodeMeta\": {{\"synthetic-node\": \"true\"}}}}"
            ),
        )
    }
}

/// The token's policies and roles by name.
fn links(own: &OwnToken) -> String {
    let names =
        |links: &[ObjectLink]| links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ");
    match (own.policies.as_slice(), own.roles.as_slice()) {
        ([], []) => "neither policy nor role".to_owned(),
        (policies, []) => format!("policies {}", names(policies)),
        ([], roles) => format!("roles {}", names(roles)),
        (policies, roles) => format!("policies {} and roles {}", names(policies), names(roles)),
    }
}

/// Login tokens without a known task.
fn unattributed_tokens(subject: &str, probes: &ConsulProbes) -> Option<CheckResult> {
    let count = probes.tokens.as_ref().ok()?.unattributed;
    let found = format!(
        "{count} more tokens of the tasks' or clients' auth methods name no task and are never removed: {}",
        docs_url("how-to/alerts.md#unattributed-tokens")
    );
    (count > 0).then(|| CONSUL_TOKENS.info(subject, found))
}

fn counted(id: CheckKind, subject: &str, message: &Result<usize, MeshError>, what: &str) -> CheckResult {
    match message {
        Ok(count) => id.ok(subject, format!("{count} {what}")),
        Err(error) if error.kind == MeshErrorKind::Forbidden => {
            let check = failed(id, subject, error);
            CheckResult { fix: check.fix.map(|fix| format!("{fix}; {PRINT}")), ..check }
        }
        Err(error) => failed(id, subject, error),
    }
}
