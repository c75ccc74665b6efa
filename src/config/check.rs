//! What only shows when all credentials are seen together: places taken twice, renames, and what would hurt.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use jiff::SignedDuration;

use super::account::KeptAccount;
use super::capacity;
use super::credential::{Credential, Resolved, Spans, Terms};
use super::delivery::{Names, Target};
use super::duration::show;
use super::fleet::Drafted;
use super::pattern::overlap;
use super::problem::{Sheet, Span};
use super::sections::{Limits, Organization};
use super::sink::Sink;
use crate::rotation::{Account, CredentialName, Deployment, TokenId, TokenType, Verify};

/// DuckDB keeps an instance, and with it the token that it was opened with, about this long.
const DUCKDB_CACHE: SignedDuration = SignedDuration::from_mins(15);
/// How long AWS's caching clients keep a secret by default.
const AWS_CACHE: SignedDuration = SignedDuration::from_hours(1);
/// AWS asks not to write one secret more often, over a long time.
const AWS_WRITE_GAP: SignedDuration = SignedDuration::from_mins(10);

pub(super) type Found = BTreeMap<CredentialName, Resolved>;
pub(super) type Fleets = BTreeMap<Arc<str>, Drafted>;

/// Refuses two deliveries to one place, whatever their sinks are called.
pub(super) fn targets(sheet: &Sheet<'_>, found: &Found, sinks: &BTreeMap<Arc<str>, Sink>) {
    // Hashes first: the names of 300,000 places would take more room than the configuration itself.
    let mut places: Vec<(u64, u32, u32)> = Vec::new();
    let credentials: Vec<(&CredentialName, &Resolved)> = found.iter().collect();
    for (index, (_, resolved)) in credentials.iter().enumerate() {
        for (number, delivery) in resolved.credential.deliveries.iter().enumerate() {
            let mut hasher = DefaultHasher::new();
            delivery.identity(sinks).hash(&mut hasher);
            places.push((hasher.finish(), u32::try_from(index).unwrap_or(u32::MAX), u32::try_from(number).unwrap_or(u32::MAX)));
        }
    }
    places.sort_unstable();
    let place = |entry: &(u64, u32, u32)| {
        let (name, resolved) = credentials[entry.1 as usize];
        let number = entry.2 as usize;
        let delivery = &resolved.credential.deliveries[number];
        (name, delivery.identity(sinks), resolved.spans.deliveries[number].clone(), resolved.spans.name.clone())
    };
    for pair in places.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        let (first, second) = (place(&pair[0]), place(&pair[1]));
        if first.1 != second.1 {
            continue;
        }
        let (message, span) = if first.0 == second.0 {
            (format!("credential `{}` delivers to `{}` twice", first.0, first.1), second.2)
        } else {
            let message = format!("credentials `{}` and `{}` both deliver to `{}`", first.0, second.0, first.1);
            // Deliveries of the defaults are one span for all: then the credential itself is shown.
            (message, if first.2 == second.2 { second.3 } else { second.2 })
        };
        let help = "one place holds one token: each would overwrite the other's; `{credential}` in a place keeps them apart";
        sheet.error(&span, message, help);
    }
}

/// Refuses renames that can't be: from a name that is still configured, or the same one twice.
pub(super) fn renames(sheet: &Sheet<'_>, found: &Found) {
    let mut taken: BTreeMap<&CredentialName, &CredentialName> = BTreeMap::new();
    for (name, resolved) in found {
        let Some(from) = &resolved.credential.renamed_from else { continue };
        if found.contains_key(from) {
            let message = format!("`{name}` is renamed from `{from}`, which is still configured");
            sheet.error(
                &resolved.spans.name,
                message,
                "a history goes on in one credential: remove one of the two, or `renamed_from`",
            );
        } else if let Some(other) = taken.insert(from, name) {
            let message = format!("`{other}` and `{name}` are both renamed from `{from}`");
            sheet.error(
                &resolved.spans.name,
                message,
                "a history goes on in one credential: remove `renamed_from` from one of them",
            );
        }
    }
}

/// Refuses a token that two credentials would take over: each would revoke it when its own places are served.
pub(super) fn adoptions(sheet: &Sheet<'_>, found: &Found) {
    let mut taken: BTreeMap<&TokenId, &CredentialName> = BTreeMap::new();
    for (name, resolved) in found {
        for token in resolved.credential.adopt.iter() {
            if let Some(other) = taken.insert(token, name) {
                let message = format!("credentials `{other}` and `{name}` both adopt the token `{token}`");
                let help = "where one token is used in several places, one credential must deliver to all of them";
                sheet.error(&resolved.spans.adopt, message, help);
            }
        }
    }
}

/// Refuses a fleet whose accounts would share a place, and names and places that a fleet may take and another fleet or a
/// credential has, or may take too.
pub(super) fn fleets(
    sheet: &Sheet<'_>,
    fleets: &Fleets,
    found: &Found,
    sinks: &BTreeMap<Arc<str>, Sink>,
    deployment: Option<&Deployment>,
) {
    let deployment = deployment.map_or("", Deployment::as_str);
    let mut taken: Vec<Taken<'_>> = Vec::new();
    for (fleet, drafted) in fleets {
        let places = |account: &str| -> Vec<String> {
            let credential = format!("{fleet}-{account}");
            let names = Names { credential: &credential, account, deployment };
            drafted.fleet.spelled(&names).iter().map(|delivery| delivery.identity(sinks)).collect()
        };
        let spans = &drafted.sample.spans;
        let (one, other) = (places("a"), places("b"));
        let shared = one.iter().zip(&other).zip(&spans.deliveries).filter(|((one, other), _)| one == other);
        for ((place, _), span) in shared {
            let message = format!("every account of the fleet `{fleet}` would be delivered to `{place}`");
            sheet.error(span, message, "one place holds one token: `{account}` in the place keeps them apart");
        }
        let pattern = drafted.fleet.accounts.as_str();
        let own = places(pattern);
        let twice = own.iter().enumerate().filter(|(index, place)| own[..*index].iter().any(|before| overlap(before, place)));
        for (index, place) in twice {
            let message = format!("the fleet `{fleet}` may deliver to `{place}` twice");
            let help = "one place holds one token: remove one of the two, or keep them apart by their folders";
            sheet.error(&spans.deliveries[index], message, help);
        }
        let next = Taken { fleet, name: format!("{fleet}-{pattern}"), places: own, drafted };
        next.clashes_with_credentials(sheet, found, sinks);
        taken.iter().for_each(|before| next.clashes_with(sheet, before));
        taken.push(next);
    }
}

/// What the members of a fleet may take, as patterns.
struct Taken<'f> {
    fleet: &'f Arc<str>,
    name: String,
    places: Vec<String>,
    drafted: &'f Drafted,
}

impl Taken<'_> {
    fn clashes_with_credentials(&self, sheet: &Sheet<'_>, found: &Found, sinks: &BTreeMap<Arc<str>, Sink>) {
        for (name, resolved) in found {
            if overlap(&self.name, name.as_str()) {
                let message =
                    format!("the credential `{name}` has a name that an account of the fleet `{}` may take", self.fleet);
                sheet.error(&resolved.spans.name, message, "choose another name for one of them");
            }
            for (delivery, span) in resolved.credential.deliveries.iter().zip(&resolved.spans.deliveries) {
                let place = delivery.identity(sinks);
                if self.places.iter().any(|taken| overlap(taken, &place)) {
                    let message = format!(
                        "credential `{name}` delivers to `{place}`, and so may the fleet `{}` for an account that `{}` matches",
                        self.fleet, self.drafted.fleet.accounts
                    );
                    sheet.error(span, message, "one place holds one token: let one of them deliver elsewhere");
                }
            }
        }
    }

    fn clashes_with(&self, sheet: &Sheet<'_>, other: &Self) {
        let spans = &self.drafted.sample.spans;
        if overlap(&self.name, &other.name) {
            let message = format!("accounts of the fleets `{}` and `{}` may take the same name", other.fleet, self.fleet);
            sheet.error(&spans.name, message, "choose another name for one of them");
        }
        for (place, span) in self.places.iter().zip(&spans.deliveries) {
            if other.places.iter().any(|taken| overlap(taken, place)) {
                let message = format!("the fleets `{}` and `{}` may both deliver to `{place}`", other.fleet, self.fleet);
                let help = "one place holds one token: patterns that no account fits both, or `{credential}` in a place, keep them apart";
                sheet.error(span, message, help);
            }
        }
    }
}

/// Refuses `verify = "connect"` where there is nothing to connect to; told once for each organization.
pub(super) fn endpoints(
    sheet: &Sheet<'_>,
    found: &Found,
    fleets: &Fleets,
    organizations: &BTreeMap<Arc<str>, Organization>,
    place: impl Fn(&str) -> Span,
) {
    for (organization, _) in organizations.iter().filter(|(_, organization)| organization.postgres.is_none()) {
        let connects = |terms: &Terms| terms.verify == Verify::Connect && terms.organization == *organization;
        let credential = found.iter().find(|(_, resolved)| connects(&resolved.credential.terms));
        let fleet = fleets.iter().find(|(_, drafted)| connects(&drafted.fleet.terms));
        let who = credential.map(|(name, _)| format!("credential `{name}`"));
        let Some(who) = who.or_else(|| fleet.map(|(name, _)| format!("fleet `{name}`"))) else { continue };
        let message = format!("{who} has `verify = \"connect\"`, and organization `{organization}` no `postgres`");
        let help = "add its endpoint, such as `postgres = \"pg.eu-central-1-aws.motherduck.com:5432\"`";
        sheet.error(&place(organization), message, help);
    }
}

/// Warns of read-scaling tokens whose accounts rotad can't connect to for the first time; told once for each organization.
pub(super) fn first_connections(
    sheet: &Sheet<'_>,
    found: &Found,
    fleets: &Fleets,
    organizations: &BTreeMap<Arc<str>, Organization>,
    place: impl Fn(&str) -> Span,
) {
    for (organization, _) in organizations.iter().filter(|(_, organization)| organization.postgres.is_none()) {
        let needs =
            |terms: &Terms| terms.token_type == TokenType::ReadScaling && !terms.connected && terms.organization == *organization;
        let credentials: Vec<_> = found.iter().filter(|(_, resolved)| needs(&resolved.credential.terms)).collect();
        let fleet = fleets.iter().find(|(_, drafted)| needs(&drafted.fleet.terms));
        let who = match (credentials.as_slice(), fleet) {
            ([], None) => continue,
            ([], Some((name, _))) => format!("fleet `{name}`"),
            ([(name, _)], _) => format!("credential `{name}`"),
            ([(name, _), others @ ..], _) => format!("credential `{name}` and {} more", others.len()),
        };
        let message = format!(
            "{who}: read-scaling tokens need one connection to the account, and organization `{organization}` has no `postgres`"
        );
        let help = "add its endpoint, and rotad connects before an account's first token; or connect once yourself, and set `connected = true`";
        sheet.warn(&place(organization), message, help);
    }
}

/// Warns where a configuration that can keep its promises would hurt all the same.
pub(super) struct Hurts<'c> {
    pub sheet: &'c Sheet<'c>,
    pub found: &'c Found,
    pub fleets: &'c Fleets,
    pub organizations: &'c BTreeMap<Arc<str>, Organization>,
    pub sinks: &'c BTreeMap<Arc<str>, Sink>,
    pub accounts: &'c BTreeMap<Account, KeptAccount>,
}

impl Hurts<'_> {
    /// The places are those of `[limits]`, of an organization and of a sink.
    pub fn report(
        &self,
        limits: &Limits,
        limits_span: &Span,
        organization_span: impl Fn(&str) -> Span,
        sink_span: impl Fn(&str) -> Span,
    ) {
        let mut grouped = Grouped::default();
        // How many accounts a fleet has is not known here, so of rates nothing is said.
        for resolved in self.found.values().chain(self.fleets.values().map(|drafted| &drafted.sample)) {
            caches(&mut grouped, &resolved.credential, &resolved.spans);
        }
        grouped.report(self.sheet);
        capacity::api(self.sheet, self.found, self.accounts, self.organizations, organization_span);
        capacity::aws(self.sheet, self.found, self.sinks, sink_span);
        capacity::limits(self.sheet, self.found, limits, limits_span);
    }
}

/// Warnings that many credentials may share, each told once.
#[derive(Default)]
struct Grouped(HashMap<(String, String), (Span, usize)>);

impl Grouped {
    fn add(&mut self, span: &Span, message: String, help: &str) {
        let (first, times) = self.0.entry((message, help.to_owned())).or_insert_with(|| (span.clone(), 0));
        if span.start < first.start {
            *first = span.clone();
        }
        *times += 1;
    }

    fn report(self, sheet: &Sheet<'_>) {
        for ((message, help), (span, times)) in self.0 {
            sheet.warn_many(&span, times - 1, message, help);
        }
    }
}

fn caches(grouped: &mut Grouped, credential: &Credential, spans: &Spans) {
    let (grace, shortest) = (credential.terms.grace, credential.terms.pace.shortest());
    let aws = credential.deliveries.iter().any(|delivery| matches!(delivery.target, Target::Aws(_)));
    if grace < DUCKDB_CACHE {
        let message = format!(
            "`grace` of {} is {} shorter than the 15m for which DuckDB keeps an instance",
            show(grace),
            show(DUCKDB_CACHE - grace)
        );
        grouped.add(&spans.grace, message, "a consumer may go on with a token that is revoked: raise `grace` to at least `15m`");
    }
    if aws && grace < AWS_CACHE {
        let message = format!(
            "`grace` of {} is {} shorter than the 1h for which AWS's caching client keeps a secret",
            show(grace),
            show(AWS_CACHE - grace)
        );
        grouped.add(&spans.grace, message, "a consumer may read a token that is revoked: raise `grace` to at least `1h`");
    }
    if aws && shortest < AWS_WRITE_GAP {
        let message = format!("an AWS secret is written every {}, more than once in 10m", show(shortest));
        grouped.add(
            &spans.schedule,
            message,
            "AWS keeps versions for a day and refuses writes when there are too many: rotate at most every `10m`",
        );
    }
}
