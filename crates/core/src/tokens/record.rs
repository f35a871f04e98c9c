//! The tags beside a stored token: its owner, and which tokens were issued. The token itself is not read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::revocations::RevocationList;
use ecs_mesh_model::{MeshName, OperatorId, Timestamp};

/// The tag with the operator that issued the token.
pub const OPERATOR_TAG: &str = "ecs-mesh.dev/operator";
const CONTROL_PLANE_TAG: &str = "ecs-mesh.dev/control-plane";
const MESH_TAG: &str = "ecs-mesh.dev/mesh";
const WORKLOAD_TAG: &str = "ecs-mesh.dev/workload";
/// `workload=NAME` or `service=NAME`.
const IDENTITY_TAG: &str = "ecs-mesh.dev/identity";
/// `ID@END`, in seconds since 1970; `ID@END+OFFSET` or `ID@END-OFFSET` if the clocks differ.
const TOKEN_TAG: &str = "ecs-mesh.dev/token";
/// `storing` until the token is stored, then `stored`.
const STATE_TAG: &str = "ecs-mesh.dev/token-state";
/// `ID@END@REPLACED`, separated by spaces; `-` for `REPLACED` until the token that replaces it is stored. The oldest are in the
/// first tag, and each tag has room for four.
const PRIOR_TAGS: [&str; 4] = [
    "ecs-mesh.dev/prior-tokens",
    "ecs-mesh.dev/prior-tokens-2",
    "ecs-mesh.dev/prior-tokens-3",
    "ecs-mesh.dev/prior-tokens-4",
];

const NOT_REPLACED: &str = "-";
const STORED: &str = "stored";
const STORING: &str = "storing";

/// The longest value of a tag.
///
/// Source: <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_Tag.html>.
const MAX_TAG_VALUE: usize = 256;
const MAX_ID: usize = 64;

/// The difference of two clocks that is none: Kuma's tokens are valid from five minutes before their issue.
///
/// Source: `pkg/core/tokens/issuer.go` in <https://github.com/kumahq/kuma>.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_mins(5);

/// How far the clock of a server may be behind. An expired token stays in the list of revoked ones for this long.
pub(super) const CLOCK_SLACK: Duration = Duration::from_hours(1);

/// The id (`jti`) of a token. It grants nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(Arc<str>);

impl TokenId {
    /// Reads an id: at most 64 letters, digits, `.`, `_` and `-`. A comma would be two items of the revocation list.
    pub fn parse(text: &str) -> Option<Self> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        ((1..=MAX_ID).contains(&text.len()) && text.bytes().all(is_plain)).then(|| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far the control plane's clock was ahead of the operator's, in seconds: zero up to five minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClockOffset(i64);

impl ClockOffset {
    /// The offset of a clock that shows `theirs` when the operator's shows `ours`.
    pub fn between(theirs: Timestamp, ours: Timestamp) -> Self {
        let seconds = theirs.0.saturating_sub(ours.0) / 1_000;
        if seconds.unsigned_abs() > MAX_CLOCK_DIFFERENCE.as_secs() { Self(seconds) } else { Self(0) }
    }

    /// Whether the clocks agree.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The operator's time when the other clock shows this time.
    fn to_ours(self, theirs: Timestamp) -> Timestamp {
        Timestamp(theirs.0.saturating_sub(self.0.saturating_mul(1_000)))
    }
}

impl fmt::Display for ClockOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.0 < 0 { "behind" } else { "ahead of" };
        write!(f, "{} s {side} the operator's", self.0.unsigned_abs())
    }
}

/// An issued token, by its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssuedToken {
    /// The id.
    pub id: TokenId,
    /// When the token expires, by the control plane's clock.
    pub expires: Timestamp,
    /// The control plane's clock when it issued the token.
    pub clock: ClockOffset,
}

impl IssuedToken {
    /// When the token expires, by the operator's clock.
    pub fn ends(&self) -> Timestamp {
        self.clock.to_ours(self.expires)
    }

    /// Whether the token is no longer accepted by a server whose clock is at most `slack` behind, also if its clock has been
    /// corrected since.
    pub fn is_expired(&self, slack: Duration, now: Timestamp) -> bool {
        self.expires.max(self.ends()).plus(slack) <= now
    }

    /// Whether the token expires within this time.
    pub fn expires_within(&self, time: Duration, now: Timestamp) -> bool {
        self.ends() <= now.plus(time)
    }

    /// When no server accepts the token any more.
    pub(super) fn ends_everywhere(&self) -> Timestamp {
        self.expires.max(self.ends()).plus(CLOCK_SLACK)
    }

    fn parse(text: &str) -> Option<Self> {
        let (id, times) = text.split_once('@')?;
        let (expires, clock) = match times.find(['+', '-']) {
            Some(at) => (times.get(..at)?, ClockOffset(times.get(at..)?.parse().ok()?)),
            None => (times, ClockOffset::default()),
        };
        Some(Self { id: TokenId::parse(id)?, expires: seconds(expires)?, clock })
    }
}

impl fmt::Display for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.expires.0 / 1_000)?;
        if self.clock.is_zero() { Ok(()) } else { write!(f, "{:+}", self.clock.0) }
    }
}

/// A token that was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorToken {
    /// The token.
    pub token: IssuedToken,
    /// When a newer token was stored; `None` if none is: tasks that start still read this one.
    pub replaced: Option<Timestamp>,
}

impl PriorToken {
    fn parse(text: &str) -> Option<Self> {
        let (token, replaced) = text.rsplit_once('@')?;
        let replaced = if replaced == NOT_REPLACED { None } else { Some(seconds(replaced)?) };
        Some(Self { token: IssuedToken::parse(token)?, replaced })
    }
}

impl fmt::Display for PriorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.replaced {
            Some(replaced) => write!(f, "{}@{}", self.token, replaced.0 / 1_000),
            None => write!(f, "{}@{NOT_REPLACED}", self.token),
        }
    }
}

fn seconds(text: &str) -> Option<Timestamp> {
    let seconds: i64 = text.parse().ok().filter(|seconds| *seconds >= 0)?;
    seconds.checked_mul(1_000).map(Timestamp)
}

/// The binding of a token, beside its mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenIdentity {
    /// The label `kuma.io/workload`.
    Workload(Arc<str>),
    /// The tag `kuma.io/service` of all inbounds.
    Service(Arc<str>),
}

impl TokenIdentity {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('=')? {
            ("workload", name) => Some(Self::Workload(name.into())),
            ("service", name) => Some(Self::Service(name.into())),
            _ => None,
        }
    }
}

impl fmt::Display for TokenIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(name) => write!(f, "workload={name}"),
            Self::Service(name) => write!(f, "service={name}"),
        }
    }
}

/// Why a control plane has no data plane token for a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTokenIdentity {
    /// The Dataplane has neither the label nor the tag.
    NoLabel,
    /// A `ZoneIngress` or `ZoneEgress` authenticates with a zone token.
    ///
    /// Source: <https://developer.konghq.com/mesh/zone-proxy-auth/>.
    ZoneProxy,
}

impl NoTokenIdentity {
    /// The reason, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoLabel => {
                "the control plane's version has neither tags nor a label for a token: the service's name is no DNS label, \
                 and the Workload names none"
            }
            Self::ZoneProxy => {
                "a zone ingress or egress needs a zone token, which the operator does not issue"
            }
        }
    }
}

/// The owner of a stored token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOwner {
    /// The operator.
    pub operator: OperatorId,
    /// The name of the `ControlPlane`, whose key signed the token.
    pub control_plane: Arc<str>,
    /// The mesh, whose list revokes the token.
    pub mesh: MeshName,
    /// The name of the `Workload`.
    pub workload: Arc<str>,
}

/// The tags of a stored token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// The token's owner.
    pub owner: TokenOwner,
    /// The token's binding.
    pub identity: TokenIdentity,
    /// The newest token.
    pub current: IssuedToken,
    /// Whether the newest token is stored. If it is not, either it or the one before may be.
    pub stored: bool,
    /// Replaced tokens, the oldest first.
    pub prior: Vec<PriorToken>,
}

/// Why a record cannot be read, or has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRecordError {
    /// The operator's tag is missing.
    NoOwner,
    /// A tag is missing or has another form.
    Unreadable {
        /// The tag.
        tag: &'static str,
    },
    /// Too many replaced tokens are still valid.
    Full,
}

impl fmt::Display for TokenRecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOwner => write!(f, "it has no tag {OPERATOR_TAG}"),
            Self::Unreadable { tag } => write!(f, "its tag {tag} is missing or unreadable"),
            Self::Full => write!(f, "its tags {}… have no room for another replaced token", PRIOR_TAGS[0]),
        }
    }
}

impl TokenRecord {
    /// The record of the first token.
    pub fn first(owner: TokenOwner, identity: TokenIdentity, token: IssuedToken) -> Self {
        Self { owner, identity, current: token, stored: true, prior: Vec::new() }
    }

    /// Reads the tags of a secret or parameter.
    ///
    /// # Errors
    /// If they are not those of an operator.
    pub fn read(tags: &BTreeMap<String, String>) -> Result<Self, TokenRecordError> {
        let operator = tags.get(OPERATOR_TAG).ok_or(TokenRecordError::NoOwner)?;
        let text = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
        let priors =
            |text: &str| text.split_ascii_whitespace().map(PriorToken::parse).collect::<Option<Vec<_>>>();
        let prior = PRIOR_TAGS.into_iter().filter(|tag| tags.contains_key(*tag));
        let prior = prior.map(|tag| read_tag(tags, tag, priors)).collect::<Result<Vec<_>, _>>()?.concat();
        Ok(Self {
            owner: TokenOwner {
                operator: OperatorId::parse(operator)
                    .map_err(|_| TokenRecordError::Unreadable { tag: OPERATOR_TAG })?,
                control_plane: read_tag(tags, CONTROL_PLANE_TAG, text)?,
                mesh: read_tag(tags, MESH_TAG, |text| MeshName::parse(text).ok())?,
                workload: read_tag(tags, WORKLOAD_TAG, text)?,
            },
            identity: read_tag(tags, IDENTITY_TAG, TokenIdentity::parse)?,
            current: read_tag(tags, TOKEN_TAG, IssuedToken::parse)?,
            stored: read_tag(tags, STATE_TAG, |state| match state {
                STORED => Some(true),
                STORING => Some(false),
                _ => None,
            })?,
            prior,
        })
    }

    /// The tags to write.
    pub fn tags(&self) -> BTreeMap<String, String> {
        let Self { owner: TokenOwner { operator, control_plane, mesh, workload }, .. } = self;
        // A tag keeps its earlier value unless it is written.
        let mut texts = prior_texts(&self.prior).into_iter();
        let prior = PRIOR_TAGS.map(|tag| (tag, texts.next().unwrap_or_default()));
        [
            (OPERATOR_TAG, operator.as_str().to_owned()),
            (CONTROL_PLANE_TAG, control_plane.to_string()),
            (MESH_TAG, mesh.as_str().to_owned()),
            (WORKLOAD_TAG, workload.to_string()),
            (IDENTITY_TAG, self.identity.to_string()),
            (TOKEN_TAG, self.current.to_string()),
            (STATE_TAG, if self.stored { STORED } else { STORING }.to_owned()),
        ]
        .into_iter()
        .chain(prior)
        .map(|(tag, value)| (tag.to_owned(), value))
        .collect()
    }

    /// Fails if the tags have no room for another replaced token.
    fn check_room(&self, now: Timestamp) -> Result<(), TokenRecordError> {
        let longest = prior_texts(&replaced_at(self.with_current_replaced(), now));
        if longest.len() > PRIOR_TAGS.len() { Err(TokenRecordError::Full) } else { Ok(()) }
    }

    fn with_current_replaced(&self) -> Vec<PriorToken> {
        let replaced = PriorToken { token: self.current.clone(), replaced: None };
        self.prior.iter().cloned().chain([replaced]).collect()
    }

    /// The record in which `token` replaces the newest one and is not stored yet. Check for room first.
    #[must_use]
    pub fn replaced_by(&self, token: IssuedToken, identity: TokenIdentity) -> Self {
        let prior = self.with_current_replaced();
        Self { owner: self.owner.clone(), identity, current: token, stored: false, prior }
    }

    /// The record after its newest token was stored: the overlap of those before it starts now.
    #[must_use]
    pub fn stored(&self, now: Timestamp) -> Self {
        Self { stored: true, prior: replaced_at(self.prior.clone(), now), ..self.clone() }
    }

    /// The record with room for another replaced token: without those that no server accepts and that the list does not have.
    /// Where the list cannot be read, a rotation matters more than ids of expired tokens, which then stay in it.
    ///
    /// # Errors
    /// [`TokenRecordError::Full`].
    pub fn with_room(
        &self,
        revoked: Option<&RevocationList>,
        now: Timestamp,
    ) -> Result<Self, TokenRecordError> {
        let known = self.compacted(revoked, now);
        let record = match (known.check_room(now), revoked) {
            (Err(_), None) => self.compacted(Some(&RevocationList::default()), now),
            _ => known,
        };
        record.check_room(now).map(|()| record)
    }

    fn compacted(&self, revoked: Option<&RevocationList>, now: Timestamp) -> Self {
        let mut record = self.clone();
        record.prior.retain(|PriorToken { token, .. }| {
            !token.is_expired(CLOCK_SLACK, now) || revoked.is_none_or(|list| list.contains(&token.id))
        });
        record
    }

    /// The record without these replaced tokens.
    #[must_use]
    pub fn without(&self, ids: &[TokenId]) -> Self {
        let mut record = self.clone();
        record.prior.retain(|prior| !ids.contains(&prior.token.id));
        record
    }

    /// All tokens that were issued.
    pub fn tokens(&self) -> impl Iterator<Item = &IssuedToken> {
        self.prior.iter().map(|prior| &prior.token).chain([&self.current])
    }
}

/// The tokens, of which those that no stored token had replaced are replaced now.
fn replaced_at(mut prior: Vec<PriorToken>, now: Timestamp) -> Vec<PriorToken> {
    for prior in &mut prior {
        prior.replaced.get_or_insert(now);
    }
    prior
}

/// The value of a tag in its form.
fn read_tag<T>(
    tags: &BTreeMap<String, String>,
    tag: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, TokenRecordError> {
    let value = tags.get(tag).map(String::as_str);
    value.and_then(parse).ok_or(TokenRecordError::Unreadable { tag })
}

/// The values of the tags, as many as are needed.
fn prior_texts(prior: &[PriorToken]) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for prior in prior {
        let prior = prior.to_string();
        match texts.last_mut().filter(|last| last.len() + 1 + prior.len() <= MAX_TAG_VALUE) {
            Some(last) => {
                last.push(' ');
                last.push_str(&prior);
            }
            None => texts.push(prior),
        }
    }
    texts
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::tokens) fn token(id: &str, expires: i64) -> IssuedToken {
        let (id, expires) = (TokenId::parse(id).unwrap(), Timestamp(expires * 1_000));
        IssuedToken { id, expires, clock: ClockOffset::default() }
    }

    pub(in crate::tokens) fn record(current: IssuedToken) -> TokenRecord {
        let owner = TokenOwner {
            operator: OperatorId::parse("op").unwrap(),
            control_plane: "kuma".into(),
            mesh: MeshName::default(),
            workload: "web".into(),
        };
        TokenRecord::first(owner, TokenIdentity::Workload("web".into()), current)
    }

    const UUID: &str = "0e120ec9-6b42-495d-9758-07b59fe86fb9";

    #[test]
    fn record_round_trips_through_tags() {
        let first = record(token(UUID, 2_000));
        assert_eq!(TokenRecord::read(&first.tags()), Ok(first.clone()));
        let next = first.replaced_by(token("b", 5_000), TokenIdentity::Service("w".into()));
        assert_eq!(next.tags()[PRIOR_TAGS[0]], format!("{UUID}@2000@-"));
        assert_eq!(next.tags()[STATE_TAG], "storing");
        let read = TokenRecord::read(&next.tags()).unwrap();
        assert_eq!((read.stored, &read.current, read.prior[0].replaced), (false, &token("b", 5_000), None));
        let stored = next.stored(Timestamp(1_500_999));
        assert_eq!(stored.tags()[PRIOR_TAGS[0]], format!("{UUID}@2000@1500"));
        // The overlap of a token that was replaced before goes on.
        let third = stored.replaced_by(token("c", 9_000), read.identity.clone()).stored(Timestamp(1_600_000));
        assert_eq!(third.tags()[PRIOR_TAGS[0]], format!("{UUID}@2000@1500 b@5000@1600"));
        assert_eq!(read.identity.to_string(), "service=w");
    }

    #[test]
    fn tags_of_others_are_no_record() {
        let mut tags = record(token("a", 1)).tags();
        tags.insert("team".to_owned(), "payments".to_owned());
        assert!(TokenRecord::read(&tags).is_ok());
        for (tag, value) in [
            (TOKEN_TAG, "a,b@1"),
            (TOKEN_TAG, "a"),
            (STATE_TAG, ""),
            (IDENTITY_TAG, "web"),
            (PRIOR_TAGS[0], "a@1"),
            (PRIOR_TAGS[3], "a@1"),
        ] {
            let mut broken = tags.clone();
            broken.insert(tag.to_owned(), value.to_owned());
            assert_eq!(
                TokenRecord::read(&broken),
                Err(TokenRecordError::Unreadable { tag }),
                "{tag}={value}"
            );
        }
        tags.remove(OPERATOR_TAG);
        assert_eq!(TokenRecord::read(&tags), Err(TokenRecordError::NoOwner));
    }

    #[test]
    fn tags_have_room_for_some_replaced_tokens() {
        let mut record = record(token(UUID, 1_800_000_000));
        let now = Timestamp(1_700_000_000_000);
        let mut replaced = 0;
        while record.check_room(now).is_ok() {
            record = record.replaced_by(token(UUID, 1_800_000_000), record.identity.clone()).stored(now);
            assert!(record.tags().values().all(|value| value.len() <= MAX_TAG_VALUE));
            replaced += 1;
        }
        assert_eq!(replaced, 16);
        assert_eq!(TokenRecord::read(&record.tags()), Ok(record.clone()));
        // Expired ones make room, once the list does not have them.
        let later = Timestamp(1_800_000_000_000).plus(CLOCK_SLACK);
        let with_room = |list: Option<&str>, now| {
            let list = list.map(RevocationList::parse);
            record.with_room(list.as_ref(), now).map(|record| record.prior.len())
        };
        assert_eq!(with_room(Some(UUID), later), Err(TokenRecordError::Full));
        assert_eq!(with_room(Some("x"), later), Ok(0));
        assert_eq!(with_room(None, now), Err(TokenRecordError::Full));
        assert_eq!(with_room(None, later), Ok(0), "a rotation goes on without the list");
        let with_one = record.without(&[]).prior.drain(..1).collect();
        let with_one = TokenRecord { prior: with_one, ..record.clone() };
        assert_eq!(with_one.with_room(None, later).unwrap().prior.len(), 1, "there is room");
    }

    #[test]
    fn token_ends_by_the_clock_of_its_issuer() {
        let now = Timestamp(1_700_000_000_000);
        for (theirs, text) in [
            (1_700_000_000, "a@1700003600"),
            (1_700_000_300, "a@1700003900"),
            (1_700_007_200, "a@1700010800+7200"),
            (1_699_992_800, "a@1699996400-7200"),
        ] {
            let clock = ClockOffset::between(Timestamp(theirs * 1_000), now);
            let token = IssuedToken { clock, ..token("a", theirs + 3_600) };
            assert_eq!((token.to_string().as_str(), IssuedToken::parse(text)), (text, Some(token.clone())));
            let hour = Duration::from_hours(1);
            assert!(!token.expires_within(hour / 2, now) && token.expires_within(2 * hour, now), "{text}");
            assert!(!token.is_expired(Duration::ZERO, now), "{text}");
            let prior = PriorToken { token: token.clone(), replaced: None };
            assert_eq!(PriorToken::parse(&prior.to_string()), Some(prior));
        }
        let ahead = IssuedToken::parse("a@1700010800+7200").unwrap();
        // Corrected, the clock of the server accepts the token for longer.
        assert!(!ahead.is_expired(Duration::ZERO, Timestamp(1_700_010_799_000)));
        assert!(ahead.is_expired(Duration::ZERO, Timestamp(1_700_010_800_000)));
        assert_eq!(ahead.clock.to_string(), "7200 s ahead of the operator's");
        assert_eq!(IssuedToken::parse("a@17+x"), None);
    }
}
