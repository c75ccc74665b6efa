//! What needs a person, in words: what happened, where, what rotad does next and when, and what the person should do.
//! Status, page and JSON all take it from here.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use super::apart::of_accounts;
use super::summary::{provider_failures, troubles};
use crate::rotation::{Adoption, Blocked, Credential, CredentialName, DeliveryId, Policy, Reason, TokenId, Trouble, Unconnected};
use crate::snapshot::{
    At, Attention, FleetSummary, FreezeReason, JournalState, Label, Organization, Snapshot, Summary, label, span, until,
};

/// How long before its expiry an admin token is told of: as the shipped alert has it.
pub const ADMIN_TOKEN_EXPIRY_TOLD: jiff::SignedDuration = jiff::SignedDuration::from_hours(14 * 24);

/// How long the accounts of a fleet may stay unlisted before it is told: as the shipped alert has it.
const FLEET_UNLISTED_TOLD: jiff::SignedDuration = jiff::SignedDuration::from_mins(15);

/// One thing that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Concern {
    /// What it is about, in a word; absent where it is about rotad as a whole.
    pub attention: Option<Attention>,
    /// Of which credential; absent where it is about rotad, an organization, a fleet or accounts, which `happened` names.
    #[schemars(with = "Option<String>")]
    pub credential: Option<CredentialName>,
    /// Where, if it is about one place.
    #[schemars(with = "Option<String>")]
    pub place: Option<DeliveryId>,
    pub since: Option<Timestamp>,
    /// What was found.
    pub happened: String,
    /// What rotad does about it.
    pub next: String,
    /// When it does that, or looks again; absent where the moment is not known.
    pub next_at: Option<Timestamp>,
    /// Within how many seconds it does that, where the moment is not known. Where both are absent rotad does nothing by itself,
    /// and `next` says so.
    pub next_within_seconds: Option<u32>,
    /// What a person should do.
    pub remedy: String,
}

impl Concern {
    /// When rotad does what is next, as far as it does.
    pub fn when(&self, now: Timestamp) -> Option<String> {
        let within = |seconds: u32| now.checked_add(SignedDuration::from_secs(seconds.into())).ok();
        match (self.next_at, self.next_within_seconds) {
            (Some(at), _) => Some(format!("next in {}", span(at, now))),
            (None, Some(seconds)) => Some(format!("within {}", span(within(seconds)?, now))),
            (None, None) => None,
        }
    }
}

/// What of one credential needs a person, the most pressing first. `wake_at` is when its next turn is.
pub fn concerns(
    credential: &Credential,
    policy: &Policy,
    summary: &Summary,
    wake_at: Option<Timestamp>,
    now: Timestamp,
) -> Vec<Concern> {
    let (mut concerns, name) = (Vec::new(), &policy.owner.credential);
    for attention in summary.attention(now) {
        let about = |happened: String, next: &str, next_at: Option<Timestamp>, remedy: &str| {
            let next_at = next_at.filter(|at| *at > now);
            let told = general(None, happened, next, unless_known(next_at), remedy);
            Concern { attention: Some(attention), credential: Some(name.clone()), next_at, ..told }
        };
        match attention {
            Attention::Blocked => concerns.extend(credential.blocked.as_ref().map(|block| Concern {
                since: Some(block.since),
                ..about(block.detail.clone(), after_block(block.reason), wake_at, remedy_of_block(block.reason))
            })),
            Attention::Undelivered => {
                let troubles = troubles(credential, policy);
                concerns.extend(troubles.map(|(place, trouble)| undelivered(name, place, trouble, now)));
            }
            Attention::ProviderFailing => {
                let waits = [credential.listing.wait(now), credential.issuing.wait(now)];
                let next_at = waits.into_iter().flatten().max();
                concerns.push(match &credential.unconnected {
                    Some(Unconnected { since, failed }) if credential.listing.failures == 0 => {
                        let (happened, remedy) = (failed.detail.clone(), remedy_of_connection(failed.reason));
                        Concern { since: Some(*since), ..about(happened, NEXT_OF_CONNECTION, next_at, remedy) }
                    }
                    _ => {
                        let happened = format!("MotherDuck's API failed {} times in a row", provider_failures(credential));
                        about(happened, "asks again", next_at, REMEDY_OF_PROVIDER)
                    }
                });
            }
            Attention::Paused => concerns.extend(credential.orders.pause(now).map(|pause| Concern {
                since: Some(pause.since),
                ..about(format!("paused by {}: {}", pause.by, pause.reason), NEXT_OF_PAUSE, Some(pause.until), REMEDY_OF_PAUSE)
            })),
            Attention::Expired | Attention::PastDeadline | Attention::RevocationOverdue | Attention::UnknownTokens => {
                let (happened, next, remedy) = by_numbers(attention, summary, now);
                concerns.push(about(happened, next, wake_at, remedy));
            }
        }
    }
    concerns.extend(credential.adoptions.iter().filter_map(|(token, adoption)| unadopted(name, token, *adoption)));
    concerns
}

/// The longest that rotad waits with anything: of seconds.
const HOUR: u32 = 3_600;
/// A rotad that stands by looks so often (seconds) whether the journal is free.
pub const STANDBY_LOOKS_EVERY: u32 = 2;

/// How `next` begins where there is no time for it.
pub const NOTHING_BY_ITSELF: &str = "does nothing by itself";

/// What is not of one credential's attention: at no known moment, but `within` seconds, unless rotad does nothing by itself.
pub(super) fn general(since: Option<Timestamp>, happened: String, next: &str, within: Option<u32>, remedy: &str) -> Concern {
    Concern {
        attention: None,
        credential: None,
        place: None,
        since,
        happened,
        next: next.to_owned(),
        next_at: None,
        next_within_seconds: within,
        remedy: remedy.to_owned(),
    }
}

/// An id in `adopt` that is not what its writer took it for. Nothing waits for it, so it is told last.
fn unadopted(name: &CredentialName, token: &TokenId, adoption: Adoption) -> Option<Concern> {
    let (happened, remedy) = match adoption {
        Adoption::NotListed => (
            format!(
                "`adopt` lists the token `{token}`, and the account's list does not have it: it is gone, or another account's"
            ),
            "remove the id from `adopt`, or correct it",
        ),
        Adoption::Refused => (
            format!("`adopt` lists the token `{token}`, and rotad made that itself: it is not taken over"),
            "remove the id from `adopt`; `rotad revoke` revokes a token that the journal does not know",
        ),
        Adoption::Taken | Adoption::Ended => return None,
    };
    let next = format!("{NOTHING_BY_ITSELF}: it never revokes it");
    Some(Concern { credential: Some(name.clone()), ..general(None, happened, &next, None, remedy) })
}

const REMEDY_OF_PROVIDER: &str = "the last steps say why: with 401 or 403 replace the admin token, otherwise look at the network and MotherDuck's status; \
     `rotad check --online` tries it";
const NEXT_OF_CONNECTION: &str =
    "makes the account's first connection with another set-up token; until then no read-scaling token is issued";
const NEXT_OF_PAUSE: &str = "issues nothing; deliveries, revocations and alerts go on";
const REMEDY_OF_PAUSE: &str = "nothing, or `rotad resume` to end it now";

/// Happened, next and remedy of what the summary's numbers say.
fn by_numbers(attention: Attention, summary: &Summary, now: Timestamp) -> (String, &'static str, &'static str) {
    let ago = |at: At| at.timestamp().map_or_else(String::new, |at| format!(" {} ago", span(now, at)));
    match attention {
        Attention::Expired => (
            format!("a token that a place serves expired{}: whoever reads it can't connect", ago(summary.served_until)),
            "replaces it as soon as nothing else that is told here stands in the way",
            "take away what else is told here; if that takes long, issue a token at MotherDuck by hand and put it into the place",
        ),
        Attention::PastDeadline => (
            format!("the last safe moment to replace the token was{}", ago(summary.deadline_at)),
            "tries at every opportunity, whatever schedule, window and limits say",
            "take away what else is told here; `rotad history` has what was tried",
        ),
        Attention::RevocationOverdue => (
            format!("an old token should have been revoked{}", ago(summary.revocation_oldest_due_at)),
            "revokes it when every place has been read and shows the newest token; at worst it expires",
            "look for a place that can't be read or shows something else; no consumer is in danger",
        ),
        Attention::UnknownTokens => (
            format!("{} live tokens carry this credential's name and are not in the journal", summary.tokens_unknown),
            "leaves them to expire",
            "nothing, if the journal was lost or restored; otherwise look for a second rotad, and `rotad revoke TOKEN_ID`",
        ),
        // Told from the state, which knows more.
        Attention::Blocked | Attention::Undelivered | Attention::ProviderFailing | Attention::Paused => {
            (attention.as_str().to_owned(), "goes on", "see `rotad history`")
        }
    }
}

fn undelivered(name: &CredentialName, place: &DeliveryId, trouble: &Trouble, now: Timestamp) -> Concern {
    let (happened, remedy) = (trouble.failed.detail.clone(), remedy_of_failure(trouble.failed.reason));
    let next = if trouble.writing { "writes the same token again" } else { "reads it again" };
    let next_at = trouble.backoff.wait(now);
    let told = general(Some(trouble.since), happened, next, unless_known(next_at), remedy);
    Concern {
        attention: Some(Attention::Undelivered),
        credential: Some(name.clone()),
        place: Some(place.clone()),
        next_at,
        ..told
    }
}

fn after_block(reason: Blocked) -> &'static str {
    match reason {
        Blocked::RolledBack => "revokes nothing, looks again, and overwrites it with its next rotation",
        Blocked::UnfitToken => "asks for another token, once an hour",
        Blocked::TooManyTokens => "issues nothing before the deadline, and revokes what it may",
        Blocked::SecondInstallation
        | Blocked::AnotherOrganization
        | Blocked::NoSuchAccount
        | Blocked::OwnedByOther
        | Blocked::ScheduledForDeletion
        | Blocked::TakeOverNeeded => "changes nothing there, and looks again",
        Blocked::FirstConnectionNeeded => "issues nothing for it, and looks again",
    }
}

/// What a person should do about a block.
pub fn remedy_of_block(reason: Blocked) -> &'static str {
    match reason {
        Blocked::SecondInstallation => "find the other rotad and stop it, or give it another `deployment`",
        Blocked::AnotherOrganization => {
            "put the right organization's admin token back; if all tokens were really revoked, wait an hour"
        }
        Blocked::NoSuchAccount => "create the account at MotherDuck again, or take the credential out of the configuration",
        Blocked::OwnedByOther => "deliver elsewhere, or remove the marker if its owner is gone",
        Blocked::ScheduledForDeletion => "restore the AWS secret, or deliver elsewhere",
        Blocked::TakeOverNeeded => "set `take_over = true` at that delivery to have its value overwritten, or deliver elsewhere",
        Blocked::UnfitToken => "compare the last steps with what MotherDuck's API says of tokens, and report it",
        Blocked::TooManyTokens => "see why old tokens are not revoked; `rotad revoke TOKEN_ID` for what nothing serves",
        Blocked::FirstConnectionNeeded => {
            "configure the organization's `postgres`, or connect once with a read/write token and set `connected = true`"
        }
        Blocked::RolledBack => "find out who put it back and why; `rotad resume` overwrites it now",
    }
}

/// What a person should do about a first connection that can't be made.
fn remedy_of_connection(reason: Reason) -> &'static str {
    match reason {
        Reason::Unreachable | Reason::TimedOut => {
            "look at the network between rotad and the Postgres endpoint: `postgres` of the organization, names, firewalls"
        }
        Reason::Unsuitable | Reason::BadAnswer => {
            "compare the organization's `postgres` and `postgres_ca_cert` with MotherDuck: something else answers there"
        }
        Reason::WrongRegion | Reason::WrongAccount => remedy_of_failure(reason),
        _ => {
            "the last steps say more; or connect once by hand with a read/write token, and set `connected = true` at the credential"
        }
    }
}

/// What a person should do about a place that can't be read or written.
pub fn remedy_of_failure(reason: Reason) -> &'static str {
    match reason {
        Reason::Unauthorized => "renew the login by which rotad uses that store",
        Reason::Forbidden => "grant the permission that is missing; `rotad check --online` names it where it can be known",
        Reason::Throttled => "nothing at first; if it lasts, spread the schedules or ask for a higher quota",
        Reason::Unavailable => "bring the store back, or unseal it; nothing is lost meanwhile",
        Reason::Unreachable | Reason::TimedOut => "look at the network between rotad and the store: names, firewalls, load",
        Reason::BadAnswer => "see whether a proxy answers in the store's place; the log has more",
        Reason::Rejected => "correct the delivery in the configuration, or what the store expects of it",
        Reason::NoSuchAccount => "create the account again, or take the credential out of the configuration",
        Reason::Missing => "create what is missing there, or correct the delivery in the configuration",
        Reason::NameTaken => "nothing: the next attempt has another name",
        Reason::NoRoute => "correct the address in the configuration",
        Reason::Unsuitable => "put what stands there out of the way, or deliver elsewhere",
        Reason::Full => "make room there",
        Reason::Busy => "nothing at first; if it lasts, see what hangs at that place",
        Reason::Expired | Reason::Revoked => "nothing: another token is issued",
        Reason::WrongAccount => "compare `account` in the configuration with MotherDuck, and report it",
        Reason::WrongRegion => "correct `postgres` of the organization",
    }
}

label!(
    /// What of rotad as a whole can need a person, the most pressing first.
    General {
        JournalUnwritable = "journal_unwritable",
        /// Of one organization; the others are of the process.
        AdminTokenExpired = "admin_token_expired",
        AnotherOrganization = "another_organization",
        ClockJump = "clock_jump",
        ClockSkew = "clock_skew",
        NotCompared = "not_compared",
        ConfigurationRefused = "configuration_refused",
        AdminTokenEnds = "admin_token_ends",
    }
);

/// What of rotad as a whole needs a person.
pub fn general_concerns(snapshot: &Snapshot) -> Vec<Concern> {
    let general = in_general(snapshot).into_iter().map(|(_, _, concern)| concern);
    let of_fleets = snapshot.fleets.iter().flat_map(|fleet| of_fleet(fleet, snapshot.taken_at));
    let standing_by = snapshot.journal_holder.as_deref().map(standing_by);
    standing_by.into_iter().chain(general).chain(of_fleets).chain(of_accounts(&snapshot.accounts.apart)).collect()
}

/// Not what goes wrong, but what whoever looks here has to know first.
fn standing_by(holder: &str) -> Concern {
    let happened = format!("this rotad stands by: `{holder}` has the journal, and does the work");
    let remedy = "look there for what is going on, and give orders there";
    general(None, happened, "takes over within seconds once that one is gone", Some(STANDBY_LOOKS_EVERY), remedy)
}

/// The same with what each is about: in a word, and the organization if it is about one.
pub fn in_general(snapshot: &Snapshot) -> Vec<(General, Option<std::sync::Arc<str>>, Concern)> {
    let mut found = Vec::new();
    if snapshot.journal == JournalState::Unwritable {
        found.push(General::JournalUnwritable);
    }
    let frozen = FreezeReason::ALL.iter().filter(|reason| snapshot.revocations_frozen.of(**reason) > 0);
    found.extend(frozen.filter_map(|reason| match reason {
        FreezeReason::NotCompared => Some(General::NotCompared),
        FreezeReason::ClockJump => Some(General::ClockJump),
        FreezeReason::ClockSkew => Some(General::ClockSkew),
        FreezeReason::AnotherOrganization => Some(General::AnotherOrganization),
        // Told above, in its own words.
        FreezeReason::JournalUnwritable => None,
    }));
    if !snapshot.last_reload_successful && snapshot.last_reload_success_at != At::UNKNOWN {
        found.push(General::ConfigurationRefused);
    }
    let ends = snapshot.organizations.iter().filter_map(|organization| {
        let (general, happened) = admin_token(organization, snapshot.taken_at)?;
        Some((general, Some(organization.name.clone()), general_concern(general, happened)))
    });
    let ends: Vec<_> = ends.collect();
    let process =
        found.into_iter().map(|general| (general, None, general_concern(general, happened_in_general(general).to_owned())));
    process.chain(ends).collect()
}

fn general_concern(about: General, happened: String) -> Concern {
    let by_itself = "rotates at deadlines all the same, and goes on by itself once the clocks agree";
    let (next, within, remedy) = match about {
        General::JournalUnwritable => ("tries again", Some(10), "make room on its disk, or make it writable"),
        General::NotCompared => (
            "asks again and again, and goes on by itself once there is an answer",
            Some(HOUR),
            "look at the network and the admin token; `rotad check --online` tries them",
        ),
        General::ClockJump | General::ClockSkew => (by_itself, Some(HOUR), "set the machine's clock"),
        General::AnotherOrganization => (
            "looks again, and goes on by itself once the known tokens show",
            Some(600),
            remedy_of_block(Blocked::AnotherOrganization),
        ),
        General::ConfigurationRefused => (
            "does nothing by itself until the file changes again: it goes on with the configuration from before",
            None,
            "`rotad check` says what is wrong with it; a restart would fail",
        ),
        General::AdminTokenEnds | General::AdminTokenExpired => (
            "reads its place again and again",
            Some(60),
            "create a new one at MotherDuck and put it in its place; no restart is needed",
        ),
    };
    general(None, happened, next, within, remedy)
}

label!(
    /// What of a fleet can need a person, the most pressing first.
    OfFleet {
        LettingGoRefused = "letting_go_refused",
        Unlisted = "fleet_unlisted",
        LeftOut = "accounts_left_out",
    }
);

/// What of a fleet needs a person.
pub fn of_fleet(fleet: &FleetSummary, now: Timestamp) -> Vec<Concern> {
    in_fleet(fleet, now).into_iter().map(|(_, concern)| concern).collect()
}

/// The same with what each is, in a word.
pub fn in_fleet(fleet: &FleetSummary, now: Timestamp) -> Vec<(OfFleet, Concern)> {
    let FleetSummary { name, accounts, missing, left_out, refused_since, may_go, listed_at, failing } = fleet;
    let about = |since: At, happened: String, next: &str, within: Option<u32>, remedy: &str| {
        general(since.timestamp(), happened, next, within, remedy)
    };
    let mut concerns = Vec::new();
    if let Some(may_go) = may_go {
        let happened = format!(
            "{missing} of the {accounts} accounts of the fleet `{name}` are gone from MotherDuck's list of users; by itself rotad lets go of {may_go} at once, and not of all"
        );
        let remedy = format!(
            "`rotad sweep --fleet {name} --allow-gone` if they were deleted; otherwise see whom the admin token's user may see"
        );
        let concern = about(*refused_since, happened, "lets go of none of them, and lists again", Some(60), &remedy);
        concerns.push((OfFleet::LettingGoRefused, concern));
    }
    let is_overdue = listed_at.timestamp().is_none_or(|at| now.duration_since(at) > FLEET_UNLISTED_TOLD);
    if let Some(reason) = failing.filter(|_| is_overdue) {
        let happened = format!("the accounts of the fleet `{name}` can't be listed (`{}`)", reason.as_str());
        let remedy = "the log says more; the admin token's user needs the privilege `member_management.view_all_members`";
        let concern = about(*listed_at, happened, "leaves the accounts as they are, and lists again", Some(60), remedy);
        concerns.push((OfFleet::Unlisted, concern));
    }
    if *left_out > 0 {
        let happened = format!("{left_out} accounts that the pattern of the fleet `{name}` matches can't be covered");
        let remedy = "the log says why, for each; a credential of its own may have other places";
        let concern = about(At::UNKNOWN, happened, "does nothing by itself: it rotates nothing of theirs", None, remedy);
        concerns.push((OfFleet::LeftOut, concern));
    }
    concerns
}

fn happened_in_general(general: General) -> &'static str {
    match general {
        General::JournalUnwritable => "the journal can't be written, so nothing is issued or revoked",
        General::NotCompared => {
            "nothing is revoked: MotherDuck's API has not answered since the start, so the time is not confirmed"
        }
        General::ClockJump => "nothing is revoked: the machine's clock jumped",
        General::ClockSkew => "nothing is revoked: the machine's clock differs from MotherDuck's",
        General::AnotherOrganization => "nothing is issued or revoked: most of the known tokens are gone at once",
        General::ConfigurationRefused => "the configuration's file changed and was refused",
        General::AdminTokenEnds => "an admin token expires soon",
        General::AdminTokenExpired => "an admin token has expired: nothing can be issued or revoked",
    }
}

fn admin_token(organization: &Organization, now: Timestamp) -> Option<(General, String)> {
    let expires_at = organization.admin_token_expires_at.timestamp()?;
    let left = expires_at.duration_since(now);
    let name = &organization.name;
    if left >= ADMIN_TOKEN_EXPIRY_TOLD {
        return None;
    }
    Some(match left.is_positive() {
        true => {
            let happened = format!("the admin token of `{name}` expires in {}", until(expires_at.into(), now));
            (General::AdminTokenEnds, happened)
        }
        false => {
            let happened = format!("the admin token of `{name}` has expired: nothing can be issued or revoked");
            (General::AdminTokenExpired, happened)
        }
    })
}

/// A credential that uses up its own margin (`Summary::is_near_its_deadline`).
pub fn near_deadline(name: &CredentialName, summary: &Summary, wake_at: Option<Timestamp>, now: Timestamp) -> Concern {
    let (what, end) = match summary.margin() {
        Some((_, end)) if end == summary.deadline_at => ("the last safe moment to have rotated", end),
        _ => ("the end of the token that its places serve", summary.expires_at),
    };
    let happened = format!("more than half of its margin is used up: {what} comes in {}", until(end, now));
    let next = "tries at its next opportunity; from the deadline on, whatever schedule, window and limits say";
    let remedy = "see what keeps it: `rotad status NAME` and `rotad history` say what was tried";
    let next_at = wake_at.filter(|at| *at > now);
    Concern { credential: Some(name.clone()), next_at, ..general(None, happened, next, unless_known(next_at), remedy) }
}

/// What can be said without the journal's record.
pub fn by_summary(name: &CredentialName, attention: Attention, summary: &Summary, now: Timestamp) -> Concern {
    let (happened, next, remedy) = match summary.blocked.filter(|_| attention == Attention::Blocked) {
        Some(reason) => (format!("blocked: {}", reason.as_str().replace('_', " ")), after_block(reason), remedy_of_block(reason)),
        None => by_numbers(attention, summary, now),
    };
    let told = general(None, happened, next, unless_known(None), remedy);
    Concern { attention: Some(attention), credential: Some(name.clone()), ..told }
}

/// A credential has a turn at least this often, whatever it waits for.
fn unless_known(next_at: Option<Timestamp>) -> Option<u32> {
    next_at.is_none().then_some(HOUR)
}
