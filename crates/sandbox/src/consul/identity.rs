//! The identity of a login, from the responses of STS and IAM.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;
use serde_json::{Value, json};

use super::aws_iam::AwsIam;
use super::bearer::AwsAnswer;

/// The verified role of a login.
#[derive(Debug)]
pub(super) struct CallerRole {
    name: String,
    id: String,
    account: String,
    path: String,
    tags: BTreeMap<String, String>,
}

impl CallerRole {
    /// Combines the responses, and rejects principals that the method does not trust.
    pub(super) fn of(method: &AwsIam, answers: &[Result<AwsAnswer, String>]) -> Result<Self, String> {
        let mut answers = answers.iter();
        let caller = Leaves::of(answers.next(), "STS")?;
        let arn = caller.one("Arn")?;
        let mut identity = Self {
            name: friendly_name(arn)?,
            id: caller.one("UserId")?.split(':').next().unwrap_or_default().to_owned(),
            account: caller.one("Account")?.to_owned(),
            path: String::new(),
            tags: BTreeMap::new(),
        };
        let mut principal = canonical(arn)?;
        if method.with_entity {
            let entity = Leaves::of(answers.next(), "IAM")?;
            let id = entity.one("RoleId").or_else(|_| entity.one("UserId"))?;
            if id != identity.id {
                return Err("STS and IAM speak of two different principals".to_owned());
            }
            entity.one("Arn")?.clone_into(&mut principal);
            entity.one("Path")?.clone_into(&mut identity.path);
            let (keys, values) = (entity.all("Key"), entity.all("Value"));
            let tags: BTreeMap<&str, &str> = keys.zip(values).collect();
            let value = |tag: &String| tags.get(tag.as_str()).copied().unwrap_or_default().to_owned();
            identity.tags = method.tags.iter().map(|tag| (tag.clone(), value(tag))).collect();
        }
        if method.trusts(&principal) {
            Ok(identity)
        } else {
            Err(format!("{principal} is none of the principals that the auth method is bound to"))
        }
    }

    /// The object for selectors of binding rules.
    pub(super) fn selectable(&self) -> Value {
        json!({
            "entity_name": self.name,
            "entity_id": self.id,
            "account_id": self.account,
            "entity_path": self.path,
            "entity_tags": self.tags,
        })
    }

    /// Variables for names of binding rules.
    pub(super) fn variables(&self, method: &AwsIam) -> BTreeMap<String, String> {
        let value = |name: &str| match name {
            "entity_name" => self.name.clone(),
            "entity_id" => self.id.clone(),
            "account_id" => self.account.clone(),
            "entity_path" => self.path.clone(),
            tag => self.tags.get(tag.trim_start_matches("entity_tags.")).cloned().unwrap_or_default(),
        };
        method.variables().into_iter().map(|name| (name.clone(), value(&name))).collect()
    }
}

/// The role ARN of a session ARN, without its path, which STS omits. Other ARNs are unchanged.
fn canonical(arn: &str) -> Result<String, String> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let [_, partition, _, _, account, resource] = parts[..] else {
        return Err(format!("{arn:?} is not an ARN"));
    };
    match resource.split('/').collect::<Vec<_>>()[..] {
        ["assumed-role", role, _] => Ok(format!("arn:{partition}:iam::{account}:role/{role}")),
        [kind @ ("role" | "user"), .., name] => Ok(format!("arn:{partition}:iam::{account}:{kind}/{name}")),
        _ => Err(format!("{arn:?} is neither a role nor a user")),
    }
}

fn friendly_name(arn: &str) -> Result<String, String> {
    Ok(canonical(arn)?.rsplit('/').next().unwrap_or_default().to_owned())
}

/// The texts of an XML document by element.
struct Leaves(Vec<(String, String)>);

impl Leaves {
    fn of(answer: Option<&Result<AwsAnswer, String>>, service: &str) -> Result<Self, String> {
        let answer = match answer {
            Some(Ok(answer)) => answer,
            Some(Err(what)) => return Err(format!("sending the request to {service}: {what}")),
            None => return Err(format!("sending the request to {service}: AWS is not configured")),
        };
        if answer.content_type != "text/xml" {
            return Err(format!("{service} returned {:?}, not text/xml", answer.content_type));
        }
        if answer.status != 200 {
            return Err(format!("{service} rejected the signed request with status {}", answer.status));
        }
        Self::read(&answer.body).ok_or_else(|| format!("the response of {service} is not XML"))
    }

    fn read(xml: &str) -> Option<Self> {
        let mut reader = Reader::from_str(xml);
        let mut leaves = Vec::new();
        let mut text = String::new();
        loop {
            match reader.read_event().ok()? {
                Event::Start(_) => text.clear(),
                Event::Text(part) => text.push_str(&part.xml10_content()),
                Event::GeneralRef(reference) => match reference.resolve_char_ref().ok()? {
                    Some(character) => text.push(character),
                    None => text.push_str(resolve_predefined_entity(&reference.xml10_content())?),
                },
                Event::End(end) => {
                    let name = end.local_name().into_inner().to_owned();
                    leaves.push((name, std::mem::take(&mut text)));
                }
                Event::Eof => return Some(Self(leaves)),
                _ => {}
            }
        }
    }

    fn all<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, text)| text.as_str())
    }

    fn one(&self, name: &'static str) -> Result<&str, String> {
        self.all(name).next().ok_or_else(|| format!("the answer of AWS has no {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xml(body: &str) -> AwsAnswer {
        AwsAnswer { status: 200, content_type: "text/xml".into(), body: body.into() }
    }

    fn identity(role: &str) -> Result<CallerRole, String> {
        let config = json!({
            "BoundIAMPrincipalARNs": ["arn:aws:iam::1:role/a/*"], "EnableIAMEntityDetails": true,
            "IAMEntityTags": ["team", "absent"],
        });
        let method = AwsIam::read(config.as_object().unwrap()).unwrap();
        let caller =
            "<R><Arn>arn:aws:sts::1:assumed-role/x/s</Arn><UserId>AROA1:s</UserId><Account>1</Account></R>";
        CallerRole::of(&method, &[Ok(xml(caller)), Ok(xml(role))])
    }

    #[test]
    fn role_of_a_session_logs_in_with_its_tags() {
        let role = "<?xml version=\"1.0\"?><R><Role><Path>/a/</Path><RoleId>AROA1</RoleId>\
                    <Arn>arn:aws:iam::1:role/a/x</Arn><Tags><member><Key>team</Key><Value>A &amp; B</Value>\
                    </member><member><Key>other</Key><Value>y</Value></member></Tags></Role></R>";
        let found = identity(role).unwrap();
        assert_eq!(found.selectable()["entity_tags"], json!({"team": "A & B", "absent": ""}));
        assert_eq!((found.name.as_str(), found.path.as_str()), ("x", "/a/"));
    }

    #[test]
    fn other_or_untrusted_role_is_rejected() {
        for (id, arn) in [("AROA2", "arn:aws:iam::1:role/a/x"), ("AROA1", "arn:aws:iam::1:role/b/x")] {
            let role = format!("<R><Path>/</Path><RoleId>{id}</RoleId><Arn>{arn}</Arn></R>");
            assert!(identity(&role).is_err(), "{id} {arn}");
        }
        assert!(identity("<html>").is_err());
    }
}
