//! `[defaults]` and `[credential.<name>]`: keys taken, defaults laid under them, deliveries filled in.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, tz};
use toml::de::DeValue;

use super::delivery::{self, Delivery, Names, Templates};
use super::duration::{at_least, show, writable};
use super::pace::{self, Pace};
use super::problem::{Sheet, Span, quoted};
use super::reader::{At, Field, Section, described};
use super::sink::{self, Drafted};
use super::{hint, parts};
use crate::rotation::schedule::CronError;
use crate::rotation::{
    Account, CredentialName, DeliveryId, DeliveryPolicy, Deployment, FirstConnection, Mode, Owner, Policy, TokenId, TokenType,
    Verify,
};

pub(super) const CREDENTIAL_KEYS: &[&str] = &[
    "account",
    "organization",
    "token_type",
    "connected",
    "every",
    "cron",
    "timezone",
    "window",
    "ttl",
    "grace",
    "verify",
    "labels",
    "mode",
    "renamed_from",
    "adopt",
    "deliver",
];

const TTL: SignedDuration = SignedDuration::from_hours(7 * 24);
const EVERY: SignedDuration = SignedDuration::from_hours(24);
const GRACE: SignedDuration = SignedDuration::from_hours(12);
/// What the API takes (documented).
const TTL_MIN: SignedDuration = SignedDuration::from_secs(300);
const TTL_MAX: SignedDuration = SignedDuration::from_hours(365 * 24);

pub(super) const TOKEN_TYPES: &[(&str, TokenType)] =
    &[("read_write", TokenType::ReadWrite), ("read_scaling", TokenType::ReadScaling)];
pub(super) const VERIFICATIONS: &[(&str, Verify)] =
    &[("none", Verify::None), ("list", Verify::List), ("self", Verify::Itself), ("connect", Verify::Connect)];
pub(super) const MODES: &[(&str, Mode)] = &[("rotate", Mode::Rotate), ("observe", Mode::Observe)];

/// One thing that rotates. Small, since there may be 100,000: what several have in common is shared.
#[derive(Debug, Clone, PartialEq)]
pub struct Credential {
    pub account: Account,
    pub terms: Arc<Terms>,
    /// The name whose history this credential carries on.
    pub renamed_from: Option<CredentialName>,
    /// Ids of tokens made by hand that are to be superseded and revoked.
    pub adopt: Arc<[TokenId]>,
    /// The fleet that it is a member of.
    pub fleet: Option<Arc<str>>,
    /// Its token is the organization's admin token, and its one delivery where that is read from.
    pub is_admin: bool,
    /// In the order of the configuration.
    pub deliveries: Box<[Delivery]>,
}

/// What a credential says beside its names and places; one for all that say the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Terms {
    pub organization: Arc<str>,
    pub token_type: TokenType,
    /// A person says that the account was connected to with a read/write token.
    pub connected: bool,
    pub pace: Pace,
    pub window: Option<SignedDuration>,
    pub ttl: SignedDuration,
    pub grace: SignedDuration,
    pub verify: Verify,
    pub mode: Mode,
    pub labels: BTreeMap<String, String>,
}

impl Terms {
    /// `min(ttl/10, 1 h)`: what is kept between the deadline and the end of grace and token.
    pub fn margin(&self) -> SignedDuration {
        margin(self.ttl)
    }
}

fn margin(ttl: SignedDuration) -> SignedDuration {
    (ttl / 10).min(SignedDuration::from_hours(1))
}

impl Credential {
    /// Who makes the account's first connection; `can_connect` says whether its organization has an endpoint for that.
    fn first_connection(&self, can_connect: bool) -> FirstConnection {
        match (self.terms.token_type, self.terms.connected) {
            (TokenType::ReadWrite, _) | (_, true) => FirstConnection::NotNeeded,
            (TokenType::ReadScaling, false) if can_connect => FirstConnection::ByRotad,
            (TokenType::ReadScaling, false) => FirstConnection::ByPerson,
        }
    }

    /// What the core needs. `places` are the ids and the longest writes of this credential's deliveries,
    /// in their order.
    pub fn policy(
        &self,
        owner: Owner,
        tokens_max: usize,
        places: &[(DeliveryId, SignedDuration)],
        sweep_every: SignedDuration,
        can_connect: bool,
    ) -> Policy {
        let deliveries = self.deliveries.iter().zip(places);
        let deliveries = deliveries.map(|(delivery, (id, write_limit))| {
            (id.clone(), DeliveryPolicy { take_over: delivery.take_over, write_limit: *write_limit })
        });
        let terms = &self.terms;
        Policy {
            organization: Arc::clone(&terms.organization),
            account: self.account.clone(),
            token_type: terms.token_type,
            first_connection: self.first_connection(can_connect),
            ttl: terms.ttl,
            schedule: terms.pace.schedule(&owner),
            window: terms.window,
            grace: terms.grace,
            verify: terms.verify,
            mode: terms.mode,
            deliveries: deliveries.collect(),
            sweep_every,
            tokens_max,
            owner,
            renamed_from: self.renamed_from.clone(),
            adopt: Arc::clone(&self.adopt),
            used_by_rotad: self.is_admin,
            account_is_kept: false,
        }
    }
}

/// The keys of a credential, or of the defaults, as they were read.
pub(super) struct Draft<'d> {
    account: Field<&'d str>,
    organization: Field<Arc<str>>,
    token_type: Field<TokenType>,
    connected: Field<bool>,
    every: Field<SignedDuration>,
    cron: Field<&'d str>,
    timezone: Field<&'d str>,
    window: Field<SignedDuration>,
    ttl: Field<SignedDuration>,
    grace: Field<SignedDuration>,
    verify: Field<Verify>,
    labels: Field<BTreeMap<String, String>>,
    mode: Field<Mode>,
    renamed_from: Field<CredentialName>,
    adopt: Field<Arc<[TokenId]>>,
    deliver: Field<Rc<At<Templates>>>,
    is_admin: bool,
}

/// What credentials are read against.
pub(super) struct Context<'d> {
    pub sheet: &'d Sheet<'d>,
    pub deployment: Option<Deployment>,
    pub organizations: Vec<Arc<str>>,
    pub sinks: &'d BTreeMap<Arc<str>, Drafted>,
    pub now: Timestamp,
    /// Equal terms exist once.
    pub terms: RefCell<HashSet<Arc<Terms>>>,
    /// Looking 5 years ahead costs too much to do it twice for the same line.
    pub cron: RefCell<BTreeMap<(String, String), Result<Pace, CronError>>>,
}

/// A credential that is complete, and where its parts stand.
pub(super) struct Resolved {
    pub credential: Credential,
    pub spans: Spans,
}

/// Where problems of a whole credential are reported.
#[derive(Debug, Clone)]
pub(super) struct Spans {
    pub name: Span,
    pub schedule: Span,
    pub grace: Span,
    pub adopt: Span,
    pub deliveries: Vec<Span>,
}

impl<'d> Draft<'d> {
    pub fn read(section: &Section<'d>, context: &Context<'d>) -> Self {
        let sheet = section.sheet;
        let deliver = section.array("deliver", "[{ sink = \"disk\", path = \"/run/etl/token\" }]").and_then(|at| {
            let templates = At::new(delivery::templates(sheet, &at.value, context.sinks, &section.label), at.span.clone());
            delivery::check_not_empty(section, &templates);
            Some(Rc::new(templates))
        });
        let labels = match section.get("labels") {
            None => Field::Absent,
            Some(at) => Field::Set(At::new(sink::strings(section, "labels"), at.span)),
        };
        let draft = Self {
            account: section.string("account").and_then(|at| check_account(sheet, at).then_some(at.value)),
            organization: section.text("organization").and_then(|at| context.organization(at)),
            token_type: section.choice("token_type", TOKEN_TYPES),
            connected: section.boolean("connected"),
            every: section.duration("every").and_then(|at| positive(sheet, "every", at)),
            cron: section.text("cron"),
            timezone: section.text("timezone").and_then(|at| check_zone(sheet, at)),
            window: section.duration("window").and_then(|at| positive(sheet, "window", at)),
            ttl: section.duration("ttl").and_then(|at| check_ttl(sheet, at)),
            grace: section.duration("grace").and_then(|at| positive(sheet, "grace", at)),
            verify: section.choice("verify", VERIFICATIONS),
            labels,
            mode: section.choice("mode", MODES),
            renamed_from: section.text("renamed_from").and_then(|at| {
                let name = parts::name(sheet, "a credential", at)?;
                name.parse().ok()
            }),
            adopt: section
                .array("adopt", "[\"00000000-0000-0000-0000-000000000000\"]")
                .and_then(|at| token_ids(sheet, &at.value)),
            deliver,
            is_admin: false,
        };
        draft.check_schedule_keys(section);
        draft
    }

    /// Of an organization's admin token, delivered to the place that it is read from.
    pub fn of_admin(section: &Section<'d>, context: &Context<'d>, organization: Arc<str>, place: At<Templates>) -> Self {
        let at = |span: &Span| span.clone();
        Self {
            organization: Field::Set(At::new(organization, at(&section.span))),
            verify: Field::Set(At::new(Verify::Calls, at(&section.span))),
            deliver: Field::Set(At::new(Rc::new(place), at(&section.span))),
            is_admin: true,
            ..Self::read(section, context)
        }
    }

    fn check_schedule_keys(&self, section: &Section<'_>) {
        if let (Field::Set(_), Field::Set(cron)) = (&self.every, &self.cron) {
            let message = format!("{} has both `every` and `cron`", section.label);
            section.sheet.error(&cron.span, message, "keep one of them");
        }
        if let (Field::Absent, Field::Set(timezone)) = (&self.cron, &self.timezone) {
            let message = format!("{} has `timezone` without `cron`", section.label);
            section.sheet.error(&timezone.span, message, "`every` knows no time of day: add `cron`, or leave `timezone` out");
        }
    }

    /// Whether the draft says itself when it is due: then the defaults' schedule is out of the question.
    fn has_schedule(&self) -> bool {
        !(self.every.is_absent() && self.cron.is_absent() && self.timezone.is_absent())
    }
}

impl<'d> Context<'d> {
    pub fn organization(&self, at: &At<&str>) -> Option<Arc<str>> {
        let found = self.organizations.iter().find(|name| name.as_ref() == at.value);
        if found.is_none() {
            let help = hint::did_you_mean(at.value, self.organizations.iter().map(AsRef::as_ref), "configured organizations");
            self.sheet.error(&at.span, format!("no organization is named {}", quoted(at.value)), help);
        }
        found.cloned()
    }

    /// The credential, defaults laid under it; what is missing or does not fit is reported.
    pub fn resolve(&self, name: &At<&str>, draft: &Draft<'d>, defaults: &Draft<'d>) -> Option<Resolved> {
        let section = At::new(format!("[credential.{}]", shortened(name.value)), name.span.clone());
        let key = parts::name(self.sheet, "a credential", name).and_then(|name| name.parse::<CredentialName>().ok());
        let account = first(&draft.account, &defaults.account);
        if account.is_absent() {
            let help = "name the MotherDuck username: `account = \"etl_prod\"`";
            self.sheet.missing(&name.span, format!("{} has no `account`", section.value), help);
        }
        let templates = self.templates(&section, draft, defaults);
        let terms = self.terms(&section, draft, defaults);
        let adopt = first(&draft.adopt, &defaults.adopt);
        let (key, account, templates) = (key?, Account::new(account.value()?), templates?);
        let (deliveries, delivery_spans) = self.deliveries(name, &key, &account, templates)?;
        let (terms, schedule, grace) = terms?;
        Some(Resolved {
            credential: Credential {
                account,
                terms,
                renamed_from: draft.renamed_from.as_ref().value().cloned(),
                adopt: adopt.clone().value().cloned().unwrap_or_default(),
                fleet: None,
                is_admin: draft.is_admin,
                deliveries,
            },
            spans: Spans {
                name: name.span.clone(),
                schedule,
                grace,
                adopt: adopt.set().map_or(name.span.clone(), |at| at.span),
                deliveries: delivery_spans,
            },
        })
    }

    /// The terms of a fleet's members, and their places with placeholders.
    pub fn resolve_fleet<'f>(
        &self,
        section: &At<String>,
        draft: &'f Draft<'d>,
        defaults: &'f Draft<'d>,
    ) -> Option<(Arc<Terms>, Spans, &'f At<Templates>)> {
        let (templates, terms) = (self.templates(section, draft, defaults), self.terms(section, draft, defaults));
        let (templates, (terms, schedule, grace)) = (templates.filter(|templates| templates.value.complete)?, terms?);
        let deliveries = templates.value.items.iter().map(|template| template.span.clone()).collect();
        let (name, adopt) = (section.span.clone(), section.span.clone());
        Some((terms, Spans { name, schedule, grace, adopt, deliveries }, templates))
    }

    fn templates<'f>(&self, section: &At<String>, draft: &'f Draft<'d>, defaults: &'f Draft<'d>) -> Option<&'f At<Templates>> {
        let templates = first(&draft.deliver, &defaults.deliver);
        if templates.is_absent() {
            let help = "name at least one place: `deliver = [{ sink = \"disk\", path = \"/run/etl/motherduck_token\" }]`";
            self.sheet.missing(&section.span, format!("{} has no `deliver`", section.value), help);
        }
        templates.value().map(Rc::as_ref)
    }

    fn deliveries(
        &self,
        name: &At<&str>,
        key: &CredentialName,
        account: &Account,
        templates: &At<Templates>,
    ) -> Option<(Box<[Delivery]>, Vec<Span>)> {
        let deployment = self.deployment.as_ref()?.as_str();
        let names = Names { credential: key.as_str(), account: account.as_str(), deployment };
        let mut deliveries = Vec::with_capacity(templates.value.items.len());
        let mut complete = templates.value.complete;
        for template in &templates.value.items {
            match template.delivery.filled(&names) {
                Ok(delivery) => deliveries.push(delivery),
                Err(message) => {
                    let help = format!("for the credential `{}`", shortened(name.value));
                    self.sheet.error(&template.span, message, help);
                    complete = false;
                }
            }
        }
        let spans = templates.value.items.iter().map(|template| template.span.clone()).collect();
        complete.then(|| (deliveries.into_boxed_slice(), spans))
    }

    /// The terms, and where schedule and grace stand.
    fn terms(&self, name: &At<String>, draft: &Draft<'d>, defaults: &Draft<'d>) -> Option<(Arc<Terms>, Span, Span)> {
        let organization = self.organization_of(name, first(&draft.organization, &defaults.organization));
        let pace = self.pace(name, if draft.has_schedule() { draft } else { defaults });
        let ttl = or_default(first(&draft.ttl, &defaults.ttl), TTL, &name.span);
        let grace = or_default(first(&draft.grace, &defaults.grace), GRACE, &name.span);
        let window = first(&draft.window, &defaults.window);
        let (pace, ttl, grace) = (pace?, ttl?, grace?);
        if window.is_broken() || !self.check_periods(name, &pace, &ttl, &grace, window.clone().set().map(|at| *at.value)) {
            return None;
        }
        let terms = Terms {
            organization: organization?,
            token_type: first(&draft.token_type, &defaults.token_type).value().copied().unwrap_or(TokenType::ReadWrite),
            connected: first(&draft.connected, &defaults.connected).value().copied().unwrap_or(false),
            pace: pace.value,
            window: window.value().copied(),
            ttl: ttl.value,
            grace: grace.value,
            verify: first(&draft.verify, &defaults.verify).value().copied().unwrap_or(Verify::List),
            mode: first(&draft.mode, &defaults.mode).value().copied().unwrap_or(Mode::Rotate),
            labels: first(&draft.labels, &defaults.labels).value().cloned().unwrap_or_default(),
        };
        Some((self.shared(terms), pace.span, grace.span))
    }

    fn shared(&self, terms: Terms) -> Arc<Terms> {
        let mut known = self.terms.borrow_mut();
        if let Some(terms) = known.get(&terms) {
            return Arc::clone(terms);
        }
        let terms = Arc::new(terms);
        known.insert(Arc::clone(&terms));
        terms
    }

    pub fn organization_of(&self, section: &At<String>, field: Field<&Arc<str>>) -> Option<Arc<str>> {
        match (field, self.organizations.as_slice()) {
            (Field::Set(at), _) => Some(Arc::clone(at.value)),
            (Field::Broken, _) | (Field::Absent, []) => None,
            (Field::Absent, [only]) => Some(Arc::clone(only)),
            (Field::Absent, several) => {
                let message = format!("{} has no `organization`, and there are {}", section.value, several.len());
                let names = hint::listed(several.iter().map(AsRef::as_ref));
                self.sheet.missing(&section.span, message, format!("say which one: {names}"));
                None
            }
        }
    }

    fn pace(&self, name: &At<String>, draft: &Draft<'d>) -> Option<At<Pace>> {
        if draft.every.is_broken() || draft.cron.is_broken() || draft.timezone.is_broken() {
            return None;
        }
        if let Field::Set(every) = &draft.every {
            return draft.cron.is_absent().then(|| At::new(Pace::Every(every.value), every.span.clone()));
        }
        let Field::Set(cron) = &draft.cron else { return Some(At::new(Pace::Every(EVERY), name.span.clone())) };
        let zone = draft.timezone.clone().value().unwrap_or("UTC");
        let mut known = self.cron.borrow_mut();
        let pace =
            known.entry((cron.value.to_owned(), zone.to_owned())).or_insert_with(|| pace::cron(cron.value, zone, self.now));
        match pace {
            Ok(pace) => Some(At::new(pace.clone(), cron.span.clone())),
            Err(error) => {
                self.sheet.error(&cron.span, error.to_string(), error.help());
                None
            }
        }
    }

    /// Whether a token outlives what is asked of it, and an old one is gone before the next is due.
    fn check_periods(
        &self,
        name: &At<String>,
        pace: &At<Pace>,
        ttl: &At<SignedDuration>,
        grace: &At<SignedDuration>,
        window: Option<SignedDuration>,
    ) -> bool {
        let (longest, shortest) = (pace.value.longest(), pace.value.shortest());
        let mut fine = true;
        // Reported at a key that is written somewhere: the built-in defaults fit together.
        let written =
            |candidates: [&Span; 3]| candidates.into_iter().find(|span| **span != name.span).unwrap_or(&name.span).clone();
        if grace.value >= shortest {
            let gap = if longest == shortest { "time" } else { "shortest time" };
            let message = format!(
                "`grace` of {} is not below the {gap} between due times, {}: the next token would come before the last one is settled",
                show(grace.value),
                show(shortest)
            );
            let help = format!("lower `grace` below `{}`, or rotate less often", writable(shortest));
            self.sheet.error(&written([&grace.span, &pace.span, &ttl.span]), message, help);
            fine = false;
        }
        let before_margin = longest + window.unwrap_or_default() + grace.value;
        let needed = before_margin + margin(ttl.value);
        if needed > ttl.value {
            let window = window.map(|window| format!(" + window {}", show(window))).unwrap_or_default();
            let message = format!(
                "`ttl` of {} is too short: longest time between due times {}{window} + grace {} + margin {} = {}",
                show(ttl.value),
                show(longest),
                show(grace.value),
                show(margin(ttl.value)),
                show(needed)
            );
            let help = match sufficient(before_margin) {
                Some(ttl) => format!("raise `ttl` to at least `{}`, or rotate more often, or lower `grace`", at_least(ttl)),
                None => "no `ttl` is long enough (at most 365d): rotate more often, or lower `grace`".to_owned(),
            };
            self.sheet.error(&written([&ttl.span, &pace.span, &grace.span]), message, help);
            fine = false;
        }
        fine
    }
}

/// The least `ttl` that leaves its margin beside `before_margin`.
fn sufficient(before_margin: SignedDuration) -> Option<SignedDuration> {
    let tenth = SignedDuration::from_secs((before_margin.as_secs() * 10).div_euclid(9) + 1);
    let exact = if before_margin.as_secs() * 10 % 9 == 0 { tenth - SignedDuration::from_secs(1) } else { tenth };
    let ttl = exact.min(before_margin + SignedDuration::from_hours(1)).max(TTL_MIN);
    (ttl <= TTL_MAX).then_some(ttl)
}

fn first<'f, T>(own: &'f Field<T>, default: &'f Field<T>) -> Field<&'f T> {
    if own.is_absent() { default.as_ref() } else { own.as_ref() }
}

/// The value, or the built-in default at the credential's own place; `None` for a broken one.
fn or_default(field: Field<&SignedDuration>, default: SignedDuration, span: &Span) -> Option<At<SignedDuration>> {
    match field {
        Field::Absent => Some(At::new(default, span.clone())),
        Field::Broken => None,
        Field::Set(at) => Some(At::new(*at.value, at.span)),
    }
}

/// A name as a message may carry it: one that is too long is a mistake that another message tells.
fn shortened(name: &str) -> String {
    name.chars().take(63).collect()
}

fn positive(sheet: &Sheet<'_>, key: &str, at: &At<SignedDuration>) -> Option<SignedDuration> {
    if at.value.is_zero() {
        sheet.error(&at.span, format!("`{key}` is 0"), "at least `1s`");
        return None;
    }
    Some(at.value)
}

fn check_ttl(sheet: &Sheet<'_>, at: &At<SignedDuration>) -> Option<SignedDuration> {
    if (TTL_MIN..=TTL_MAX).contains(&at.value) {
        return Some(at.value);
    }
    let side = if at.value < TTL_MIN { "below the 300s" } else { "above the 365d" };
    sheet.error(&at.span, format!("`ttl` of {} is {side} that MotherDuck takes", show(at.value)), "from `300s` to `365d`");
    None
}

/// Tokens' ids, as the API gives them: UUIDs (documented). Somebody may put the token itself there, which is not shown.
fn token_ids<'d>(sheet: &Sheet<'_>, items: &[At<&'d DeValue<'d>>]) -> Option<Arc<[TokenId]>> {
    let mut ids = BTreeSet::new();
    for item in items {
        let id = item.value.as_str().filter(|text| text.len() == 36 && uuid::Uuid::try_parse(text).is_ok());
        let Some(id) = id else {
            let found = item.value.as_str().map_or_else(|| described(item.value).to_owned(), quoted);
            let help =
                "an id as `rotad import` prints it, such as `5b0c1e0a-9c1d-4a51-8f0e-2f6d3a7b9c10`; never the token itself";
            sheet.error(&item.span, format!("an entry of `adopt` is {found}, which is no token's id"), help);
            return None;
        };
        if !ids.insert(TokenId(id.to_owned())) {
            sheet.error(&item.span, format!("`adopt` lists `{id}` twice"), "remove one of the two");
            return None;
        }
    }
    Some(ids.into_iter().collect())
}

fn check_zone<'d>(sheet: &Sheet<'_>, at: &At<&'d str>) -> Option<&'d str> {
    if tz::TimeZone::get(at.value).is_ok() {
        return Some(at.value);
    }
    let known: Vec<String> = tz::db().available().map(|name| name.to_string()).collect();
    let help = match hint::nearest(at.value, known.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "a name of the IANA time zone database, such as `Europe/Berlin` or `UTC`".to_owned(),
    };
    sheet.error(&at.span, format!("no time zone is named {}", quoted(at.value)), help);
    None
}

fn check_account(sheet: &Sheet<'_>, at: &At<&str>) -> bool {
    let Some(why) = flaw_of_account(at.value) else { return true };
    let help = "an account's name is 3 to 255 letters, digits and `_`, a letter first";
    sheet.error(&at.span, format!("MotherDuck would refuse the account {}: it {why}", quoted(at.value)), help);
    false
}

/// Why the API would refuse an account's name: it takes 3 to 255 characters, a letter first, then letters, digits and
/// underscores (patterns documented, the 3 observed). Letters of any script, digits 0 to 9.
pub(super) fn flaw_of_account(name: &str) -> Option<String> {
    let letter = |c: char| c.is_alphabetic() && !c.is_numeric();
    let length = name.chars().count();
    if !(3..=255).contains(&length) {
        Some(format!("has {length} {}", if length == 1 { "character" } else { "characters" }))
    } else if !name.starts_with(letter) {
        Some("does not begin with a letter".to_owned())
    } else {
        let odd = name.chars().find(|c| !(letter(*c) || c.is_ascii_digit() || *c == '_'));
        odd.map(|odd| format!("has a `{}` in it", odd.escape_debug()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ttl_that_a_refusal_advises_is_the_least_that_fits() {
        let second = SignedDuration::from_secs(1);
        for seconds in [270, 271, 1_000, 32_399, 32_400, 32_401, 90_000, 864_000] {
            let wanted = SignedDuration::from_secs(seconds);
            let ttl = sufficient(wanted).unwrap();
            assert!(wanted + margin(ttl) <= ttl, "{seconds}");
            let less = ttl - second;
            assert!(less < TTL_MIN || wanted + margin(less) > less, "{seconds}");
        }
        assert_eq!(sufficient(TTL_MAX), None);
    }
}
