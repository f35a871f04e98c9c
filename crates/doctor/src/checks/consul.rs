//! Consul's servers: whether tasks can log in there, and whether the operator's token sees all that it has to see.

use super::consul_rights;
use super::control_planes::{failed, is_clear_and_far, not_reached};
use crate::catalogue::{
    CONSUL_ACLS, CONSUL_EDITION, CONSUL_METHOD, CONSUL_NAMESPACES, CONSUL_NODE, CONSUL_POLICIES,
    CONSUL_REACHED, CONSUL_ROLES, CONSUL_RULES, CONSUL_SERVICES, CONSUL_TOKEN, CONSUL_TOKENS, CONSUL_VERSION,
};
use crate::report::{Check, Id};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ConsulAuthSpec, ConsulConnection, Presence};
use ecs_mesh_consul::{Answers, AuthMethod, ConsulVersion, Link, OwnToken, Right, Survey};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_model::ClusterArn;

const AWS_IAM: &str = "aws-iam";
pub(super) const PRINT: &str =
    "`ecs-mesh-operator doctor --print-token-policy` prints the policy that it needs";

/// One of the control planes, and what the manifests say of it.
struct Asked<'a> {
    about: &'a str,
    connection: Option<&'a ConsulConnection>,
    /// What the operator keeps there itself.
    declared: Option<&'a ConsulAuthSpec>,
    binds_by_pattern: bool,
}

pub(super) fn check(set: &ManifestSet, name: &str, about: &str, survey: &Survey) -> Vec<Check> {
    let Some(answers) = &survey.answers else {
        return vec![not_reached(CONSUL_REACHED, about, survey.version.as_ref().err())];
    };
    let bindings = set.bindings.values().filter(|binding| binding.spec.control_plane == name);
    let asked = Asked {
        about,
        connection: set.control_planes.get(name).and_then(|spec| spec.consul.as_ref()),
        declared: set.consul_auths.values().find(|auth| auth.control_plane == name).map(AsRef::as_ref),
        binds_by_pattern: bindings.flat_map(|one| &one.spec.selector.clusters).any(|glob| !glob.is_literal()),
    };
    let mut checks = vec![CONSUL_REACHED.ok(about, "they answer")];
    checks.push(asked.version(survey.version.as_ref(), answers));
    checks.push(asked.edition(survey.version.as_ref()));
    checks.extend(asked.namespaces(answers));
    checks.extend(consul_rights::operator(about, answers));
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

impl Asked<'_> {
    fn version(&self, version: Result<&Option<ConsulVersion>, &MeshError>, answers: &Answers) -> Check {
        match version {
            Ok(Some(version)) if version.has_iam_logins() => CONSUL_VERSION.ok(self.about, &version.text),
            Ok(Some(version)) => CONSUL_VERSION.error(
                self.about,
                format!("{version}, which has no auth method of type {AWS_IAM}: no task can log in"),
                "update the servers to 1.12 or later",
            ),
            Ok(None) if answers.own_token.is_err() => CONSUL_VERSION.unknown(
                self.about,
                "older servers tell it only to a token that they know; it is taken to be 1.12 or later",
                "mend consul.token first",
            ),
            Ok(None) => CONSUL_VERSION.unknown(
                self.about,
                "the token may not see it; it is taken to be 1.12 or later",
                "add `agent_prefix \"\" { policy = \"read\" }` to one of the token's policies",
            ),
            Err(error) => failed(CONSUL_VERSION, self.about, error),
        }
    }

    fn edition(&self, version: Result<&Option<ConsulVersion>, &MeshError>) -> Check {
        let wanted = self.connection.is_some_and(|one| one.partition.is_some() || !one.namespaces.is_empty());
        match version {
            Ok(Some(version)) if version.is_enterprise() => CONSUL_EDITION.ok(self.about, "Enterprise"),
            Ok(Some(_)) if wanted => CONSUL_EDITION.error(
                self.about,
                "the open-source edition, which refuses every call that names a partition or a namespace",
                "leave out ControlPlane.spec.consul.partition and namespaces",
            ),
            Ok(Some(_)) => CONSUL_EDITION.ok(self.about, "the open-source edition"),
            Err(error) if wanted && error.kind == MeshErrorKind::Invalid => {
                failed(CONSUL_EDITION, self.about, error)
            }
            _ if wanted => CONSUL_EDITION.unknown(
                self.about,
                "partition or namespaces are given, and the edition is not known",
                "mend consul.version first",
            ),
            _ => CONSUL_EDITION.ok(self.about, "neither partition nor namespaces are given"),
        }
    }

    fn namespaces(&self, answers: &Answers) -> Vec<Check> {
        if answers.namespaces.is_empty() {
            return vec![CONSUL_NAMESPACES.ok(self.about, "none is given by name")];
        }
        let each = answers.namespaces.iter().map(|(name, found)| {
            let about = format!("{name} on {}", self.about);
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

    fn acls(&self, answers: &Answers) -> Check {
        if answers.acls_are_off {
            return CONSUL_ACLS.error(
                self.about,
                "they are off: whoever reaches the servers may do everything, and there are no logins to look after",
                "set acl.enabled = true and acl.default_policy = \"deny\" on the servers, then `consul acl bootstrap`",
            );
        }
        CONSUL_ACLS.ok(self.about, "they are on")
    }

    fn token(&self, answers: &Answers) -> Check {
        let is_given = self.connection.is_some_and(|one| {
            one.token_file.is_some() || one.token_env.is_some() || one.token_secret.is_some()
        });
        let own = match &answers.own_token {
            Ok(own) => own,
            Err(_) if answers.acls_are_off => {
                return CONSUL_TOKEN.info(self.about, "not tried: ACLs are off");
            }
            Err(_) if !is_given => {
                return CONSUL_TOKEN.error(
                    self.about,
                    "no token is given, so the operator is anonymous there",
                    format!("make one, and name it by tokenFile, tokenEnv or tokenSecret; {PRINT}"),
                );
            }
            Err(error) => return failed(CONSUL_TOKEN, self.about, error),
        };
        let known = format!("known as {} ({:?})", own.accessor, own.description);
        if own.is_management() {
            let clear = if self.is_in_the_clear() {
                ", and goes over the network in the clear: use https://"
            } else {
                ""
            };
            let found = format!("{known}, which may do everything{clear}");
            return CONSUL_TOKEN.warning(self.about, found, format!("make one that may do less; {PRINT}"));
        }
        let mut known = format!("{known}, with {}", links(own));
        let unknown = answers.rights.as_ref().err().and_then(|error| error.message.split("; ").next());
        if let Some(why) = unknown {
            known = format!("{known}; what it may write is not known: {why}");
        }
        if self.is_in_the_clear() {
            let found = format!("{known}; it goes over the network in the clear");
            return CONSUL_TOKEN.warning(self.about, found, "use https:// and port 8501, with a CA");
        }
        if unknown.is_some() {
            return CONSUL_TOKEN.unknown(
                self.about,
                known,
                format!("compare its policies yourself: {PRINT}"),
            );
        }
        CONSUL_TOKEN.ok(self.about, known)
    }

    fn is_in_the_clear(&self) -> bool {
        self.connection.is_some_and(|connection| is_clear_and_far(&connection.address))
    }

    fn acl_objects(&self, answers: &Answers) -> Vec<Check> {
        let about = self.about;
        let tokens = answers.tokens.as_ref().map(|found| found.of_tasks).map_err(Clone::clone);
        let tokens = counted(CONSUL_TOKENS, about, &tokens, "name a task of the clusters");
        let mut checks = vec![consul_rights::with(&Right::Acls, CONSUL_TOKENS, tokens, answers)];
        checks.extend(unplaced(about, answers));
        for (name, found) in &answers.methods {
            let about = format!("{name} on {about}");
            checks.push(match found {
                Ok(method) => self.method(&about, name, method.as_ref()),
                Err(error) => failed(CONSUL_METHOD, &about, error),
            });
            checks.extend(answers.rules.get(name).map(|rules| match rules {
                Ok(0) if self.keeps(name) => CONSUL_RULES.info(&about, "none yet: a run makes them"),
                Ok(0) => CONSUL_RULES.error(
                    &about,
                    "none: a login earns nothing, and is refused",
                    "declare a ConsulAuth, or `consul acl binding-rule create -method NAME -bind-type service \
                     -bind-name '${entity_tags.consul.hashicorp.com.service-name}'`",
                ),
                _ => counted(CONSUL_RULES, &about, rules, "are there"),
            }));
        }
        checks.push(counted(CONSUL_POLICIES, about, &answers.policies, "can be read"));
        checks.push(counted(CONSUL_ROLES, about, &answers.roles, "can be read"));
        checks
    }

    fn method(&self, about: &str, name: &str, method: Option<&AuthMethod>) -> Check {
        match method {
            Some(method) if method.kind == AWS_IAM => CONSUL_METHOD.ok(about, format!("of type {AWS_IAM}")),
            Some(method) => CONSUL_METHOD.error(
                about,
                format!("of type {}, which no ECS task can log in by", method.kind),
                "take another name for the tasks' auth method (serviceTokens.authMethod of a ConsulAuth); its type \
                 cannot be changed",
            ),
            None if self.keeps(name) => CONSUL_METHOD.info(about, "not there yet: a run makes it"),
            None => CONSUL_METHOD.error(
                about,
                "there is none of this name",
                "declare a ConsulAuth, or name the one that is there in serviceTokens.authMethod",
            ),
        }
    }

    /// Whether the operator itself is to make that auth method.
    fn keeps(&self, method: &str) -> bool {
        let tokens = self.declared.filter(|auth| auth.state == Presence::Present);
        let tokens = tokens.and_then(|auth| auth.service_tokens.as_ref());
        tokens.is_some_and(|one| one.state == Presence::Present && one.auth_method == method)
    }

    fn clusters(&self, answers: &Answers) -> Vec<Check> {
        let mut checks = Vec::new();
        for (cluster, found) in &answers.clusters {
            let about = format!("{cluster} on {}", self.about);
            checks.push(match &found.has_node {
                Ok(has_node) => {
                    let check = self.node(&about, cluster, *has_node);
                    if self.declared.is_some() { consul_rights::node(check, cluster, answers) } else { check }
                }
                Err(error) => failed(CONSUL_NODE, &about, error),
            });
            checks.push(counted(CONSUL_SERVICES, &about, &found.services, "are of the cluster's tasks"));
        }
        checks.extend(consul_rights::services(self.about, answers));
        checks.extend(consul_rights::nodes_by_pattern(self.about, answers));
        if self.binds_by_pattern {
            let found = "clusters that a binding selects by a pattern are not looked at here; `run` keeps their nodes once ECS has \
                         listed them, where a ConsulAuth is declared";
            checks.push(CONSUL_NODE.info(self.about, found));
        }
        checks
    }

    fn node(&self, about: &str, cluster: &ClusterArn, has_node: bool) -> Check {
        if has_node {
            return CONSUL_NODE.ok(about, "it is there");
        }
        if self.declared.is_some_and(|auth| auth.state == Presence::Present) {
            return CONSUL_NODE.info(about, "not there yet: a run makes it");
        }
        CONSUL_NODE.error(
            about,
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
    let names = |links: &[Link]| links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ");
    match (own.policies.as_slice(), own.roles.as_slice()) {
        ([], []) => "neither policy nor role".to_owned(),
        (policies, []) => format!("policies {}", names(policies)),
        ([], roles) => format!("roles {}", names(roles)),
        (policies, roles) => format!("policies {} and roles {}", names(policies), names(roles)),
    }
}

/// Tokens of logins that nobody can tell the task of.
fn unplaced(about: &str, answers: &Answers) -> Option<Check> {
    let count = answers.tokens.as_ref().ok()?.unplaced;
    let found = format!(
        "{count} more of the tasks' or clients' auth methods name no task, so nobody removes them: \
         docs/how-to/observe.md#login-tokens-that-name-no-task"
    );
    (count > 0).then(|| CONSUL_TOKENS.info(about, found))
}

fn counted(id: Id, about: &str, found: &Result<usize, MeshError>, what: &str) -> Check {
    match found {
        Ok(count) => id.ok(about, format!("{count} {what}")),
        Err(error) if error.kind == MeshErrorKind::Forbidden => {
            let check = failed(id, about, error);
            Check { mend: check.mend.map(|mend| format!("{mend}; {PRINT}")), ..check }
        }
        Err(error) => failed(id, about, error),
    }
}
