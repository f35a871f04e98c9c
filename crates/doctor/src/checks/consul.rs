//! Consul's servers: whether tasks can log in there, and whether the operator's token sees all that it has to see.

use super::consul_rights;
use super::control_planes::{failed, is_unencrypted_remote, not_reached};
use crate::catalogue::{
    CONSUL_ACLS, CONSUL_EDITION, CONSUL_METHOD, CONSUL_NAMESPACES, CONSUL_NODE, CONSUL_POLICIES,
    CONSUL_REACHED, CONSUL_ROLES, CONSUL_RULES, CONSUL_SERVICES, CONSUL_TOKEN, CONSUL_TOKENS, CONSUL_VERSION,
};
use crate::report::{CheckResult, CheckKind};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ConsulAuthSpec, ConsulConnection, Presence};
use ecs_mesh_consul::{ConsulProbes, AuthMethod, ConsulVersion, ObjectLink, OwnToken, AclPermission, ConsulDiagnostics};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_model::ClusterArn;

const AWS_IAM: &str = "aws-iam";
pub(super) const PRINT: &str =
    "`ecs-mesh-operator doctor --print-acl-policy` prints the policy that it needs";

/// One of the control planes, and what the manifests say of it.
struct ConsulCheck<'a> {
    subject: &'a str,
    connection: Option<&'a ConsulConnection>,
    /// What the operator keeps there itself.
    declared: Option<&'a ConsulAuthSpec>,
    binds_by_pattern: bool,
}

pub(super) fn check(set: &ManifestSet, name: &str, subject: &str, survey: &ConsulDiagnostics) -> Vec<CheckResult> {
    let Some(answers) = &survey.probes else {
        return vec![not_reached(CONSUL_REACHED, subject, survey.version.as_ref().err())];
    };
    let bindings = set.bindings.values().filter(|binding| binding.spec.control_plane == name);
    let asked = ConsulCheck {
        subject,
        connection: set.control_planes.get(name).and_then(|spec| spec.consul.as_ref()),
        declared: set.consul_auths.values().find(|auth| auth.control_plane == name).map(AsRef::as_ref),
        binds_by_pattern: bindings.flat_map(|one| &one.spec.selector.clusters).any(|glob| !glob.is_literal()),
    };
    let mut checks = vec![CONSUL_REACHED.ok(subject, "they answer")];
    checks.push(asked.version(survey.version.as_ref(), answers));
    checks.push(asked.edition(survey.version.as_ref()));
    checks.extend(asked.namespaces(answers));
    checks.extend(consul_rights::operator(subject, answers));
    checks.push(asked.acls(answers));
    checks.push(asked.token(answers));
    // Who is not known is told nothing, each time by the same words.
    if answers.own_token.is_ok() {
        checks.extend(asked.acl_objects(answers));
    }
    if answers.own_token.is_ok() || answers.acls_are_off {
        checks.extend(asked.clusters(answers));
    }
    checks
}

impl ConsulCheck<'_> {
    fn version(&self, version: Result<&Option<ConsulVersion>, &MeshError>, probes: &ConsulProbes) -> CheckResult {
        match version {
            Ok(Some(version)) if version.has_iam_logins() => CONSUL_VERSION.ok(self.subject, &version.text),
            Ok(Some(version)) => CONSUL_VERSION.error(
                self.subject,
                format!("{version}, which has no auth method of type {AWS_IAM}: no task can log in"),
                "update the servers to 1.12 or later",
            ),
            Ok(None) if probes.own_token.is_err() => CONSUL_VERSION.unknown(
                self.subject,
                "older servers tell it only to a token that they know; it is taken to be 1.12 or later",
                "mend consul.token first",
            ),
            Ok(None) => CONSUL_VERSION.unknown(
                self.subject,
                "the token may not see it; it is taken to be 1.12 or later",
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
                "the open-source edition, which refuses every call that names a partition or a namespace",
                "leave out ControlPlane.spec.consul.partition and namespaces",
            ),
            Ok(Some(_)) => CONSUL_EDITION.ok(self.subject, "the open-source edition"),
            Err(error) if wanted && error.kind == MeshErrorKind::Invalid => {
                failed(CONSUL_EDITION, self.subject, error)
            }
            _ if wanted => CONSUL_EDITION.unknown(
                self.subject,
                "partition or namespaces are given, and the edition is not known",
                "mend consul.version first",
            ),
            _ => CONSUL_EDITION.ok(self.subject, "neither partition nor namespaces are given"),
        }
    }

    fn namespaces(&self, probes: &ConsulProbes) -> Vec<CheckResult> {
        if probes.namespaces.is_empty() {
            return vec![CONSUL_NAMESPACES.ok(self.subject, "none is given by name")];
        }
        let each = probes.namespaces.iter().map(|(name, found)| {
            let about = format!("{name} on {}", self.subject);
            match found {
                Ok(true) => CONSUL_NAMESPACES.ok(&about, "it is there"),
                Ok(false) => CONSUL_NAMESPACES.error(
                    &about,
                    "there is none of this name: what is in the others is looked after",
                    format!(
                        "`consul namespace create -name {name}`, or take it out of \
                         ControlPlane.spec.consul.namespaces"
                    ),
                ),
                // The operator's own work needs no such leave.
                Err(error) if error.kind == MeshErrorKind::Forbidden => CONSUL_NAMESPACES.unknown(
                    &about,
                    "the token may not see whether it is there",
                    "add `operator = \"read\"` to one of the token's policies, or look yourself: `consul namespace list`",
                ),
                Err(error) => failed(CONSUL_NAMESPACES, &about, error),
            }
        });
        each.collect()
    }

    fn acls(&self, probes: &ConsulProbes) -> CheckResult {
        if probes.acls_are_off {
            return CONSUL_ACLS.error(
                self.subject,
                "they are off: whoever reaches the servers may do everything, and there are no logins to look after",
                "set acl.enabled = true and acl.default_policy = \"deny\" on the servers, then `consul acl bootstrap`",
            );
        }
        CONSUL_ACLS.ok(self.subject, "they are on")
    }

    fn token(&self, probes: &ConsulProbes) -> CheckResult {
        let is_given = self.connection.is_some_and(|one| {
            one.token_file.is_some() || one.token_env.is_some() || one.token_secret.is_some()
        });
        let own = match &probes.own_token {
            Ok(own) => own,
            Err(_) if probes.acls_are_off => {
                return CONSUL_TOKEN.info(self.subject, "not tried: ACLs are off");
            }
            Err(_) if !is_given => {
                return CONSUL_TOKEN.error(
                    self.subject,
                    "no token is given, so the operator is anonymous there",
                    format!("make one, and name it by tokenFile, tokenEnv or tokenSecret; {PRINT}"),
                );
            }
            Err(error) => return failed(CONSUL_TOKEN, self.subject, error),
        };
        let known = format!("known as {} ({:?})", own.accessor, own.description);
        if own.is_management() {
            let clear = if self.is_unencrypted() {
                ", and goes over the network in the clear: use https://"
            } else {
                ""
            };
            let found = format!("{known}, which may do everything{clear}");
            return CONSUL_TOKEN.warning(self.subject, found, format!("make one that may do less; {PRINT}"));
        }
        let mut known = format!("{known}, with {}", links(own));
        let unknown = probes.permissions.as_ref().err().and_then(|error| error.message.split("; ").next());
        if let Some(why) = unknown {
            known = format!("{known}; what it may write is not known: {why}");
        }
        if self.is_unencrypted() {
            let found = format!("{known}; it goes over the network in the clear");
            return CONSUL_TOKEN.warning(self.subject, found, "use https:// and port 8501, with a CA");
        }
        if unknown.is_some() {
            return CONSUL_TOKEN.unknown(
                self.subject,
                known,
                format!("compare its policies yourself: {PRINT}"),
            );
        }
        CONSUL_TOKEN.ok(self.subject, known)
    }

    fn is_unencrypted(&self) -> bool {
        self.connection.is_some_and(|connection| is_unencrypted_remote(&connection.address))
    }

    fn acl_objects(&self, probes: &ConsulProbes) -> Vec<CheckResult> {
        let about = self.subject;
        let tokens = probes.tokens.as_ref().map(|found| found.of_tasks).map_err(Clone::clone);
        let tokens = counted(CONSUL_TOKENS, about, &tokens, "name a task of the clusters");
        let mut checks = vec![consul_rights::with(&AclPermission::Acls, CONSUL_TOKENS, tokens, probes)];
        checks.extend(unattributed_tokens(about, probes));
        for (name, found) in &probes.methods {
            let about = format!("{name} on {about}");
            checks.push(match found {
                Ok(method) => self.method(&about, name, method.as_ref()),
                Err(error) => failed(CONSUL_METHOD, &about, error),
            });
            checks.extend(probes.rules.get(name).map(|rules| match rules {
                Ok(0) if self.manages_method(name) => CONSUL_RULES.info(&about, "none yet: a run makes them"),
                Ok(0) => CONSUL_RULES.error(
                    &about,
                    "none: a login earns nothing, and is refused",
                    "declare a ConsulAuth, or `consul acl binding-rule create -method NAME -bind-type service \
                     -bind-name '${entity_tags.consul.hashicorp.com.service-name}'`",
                ),
                _ => counted(CONSUL_RULES, &about, rules, "are there"),
            }));
        }
        checks.push(counted(CONSUL_POLICIES, about, &probes.policies, "can be read"));
        checks.push(counted(CONSUL_ROLES, about, &probes.roles, "can be read"));
        checks
    }

    fn method(&self, subject: &str, name: &str, method: Option<&AuthMethod>) -> CheckResult {
        match method {
            Some(method) if method.kind == AWS_IAM => CONSUL_METHOD.ok(subject, format!("of type {AWS_IAM}")),
            Some(method) => CONSUL_METHOD.error(
                subject,
                format!("of type {}, which no ECS task can log in by", method.kind),
                "take another name for the tasks' auth method (serviceTokens.authMethod of a ConsulAuth); its type \
                 cannot be changed",
            ),
            None if self.manages_method(name) => CONSUL_METHOD.info(subject, "not there yet: a run makes it"),
            None => CONSUL_METHOD.error(
                subject,
                "there is none of this name",
                "declare a ConsulAuth, or name the one that is there in serviceTokens.authMethod",
            ),
        }
    }

    /// Whether the operator itself is to make that auth method.
    fn manages_method(&self, method: &str) -> bool {
        let tokens = self.declared.filter(|auth| auth.state == Presence::Present);
        let tokens = tokens.and_then(|auth| auth.service_tokens.as_ref());
        tokens.is_some_and(|one| one.state == Presence::Present && one.auth_method == method)
    }

    fn clusters(&self, probes: &ConsulProbes) -> Vec<CheckResult> {
        let mut checks = Vec::new();
        for (cluster, found) in &probes.clusters {
            let about = format!("{cluster} on {}", self.subject);
            checks.push(match &found.has_node {
                Ok(has_node) => {
                    let check = self.node(&about, cluster, *has_node);
                    if self.declared.is_some() { consul_rights::node(check, cluster, probes) } else { check }
                }
                Err(error) => failed(CONSUL_NODE, &about, error),
            });
            checks.push(counted(CONSUL_SERVICES, &about, &found.services, "are of the cluster's tasks"));
        }
        checks.extend(consul_rights::services(self.subject, probes));
        checks.extend(consul_rights::nodes_by_pattern(self.subject, probes));
        if self.binds_by_pattern {
            let found = "clusters that a binding selects by a pattern are not looked at here; `run` keeps their nodes once ECS has \
                         listed them, where a ConsulAuth is declared";
            checks.push(CONSUL_NODE.info(self.subject, found));
        }
        checks
    }

    fn node(&self, subject: &str, cluster: &ClusterArn, has_node: bool) -> CheckResult {
        if has_node {
            return CONSUL_NODE.ok(subject, "it is there");
        }
        if self.declared.is_some_and(|auth| auth.state == Presence::Present) {
            return CONSUL_NODE.info(subject, "not there yet: a run makes it");
        }
        CONSUL_NODE.error(
            subject,
            "there is none: no task of the cluster can register",
            format!(
                "declare a ConsulAuth, or `consul` API: PUT /v1/catalog/register {{\"Node\": \"{cluster}\", \
                 \"Address\": \"127.0.0.1\", \"NodeMeta\": {{\"synthetic-node\": \"true\"}}}}"
            ),
        )
    }
}

/// What a token has, by name.
fn links(own: &OwnToken) -> String {
    let names = |links: &[ObjectLink]| links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ");
    match (own.policies.as_slice(), own.roles.as_slice()) {
        ([], []) => "neither policy nor role".to_owned(),
        (policies, []) => format!("policies {}", names(policies)),
        ([], roles) => format!("roles {}", names(roles)),
        (policies, roles) => format!("policies {} and roles {}", names(policies), names(roles)),
    }
}

/// Tokens of logins that nobody can tell the task of.
fn unattributed_tokens(subject: &str, probes: &ConsulProbes) -> Option<CheckResult> {
    let count = probes.tokens.as_ref().ok()?.unattributed;
    let found = format!(
        "{count} more of the tasks' or clients' auth methods name no task, so nobody removes them: \
         docs/how-to/observe.md#unattributed-tokens"
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
