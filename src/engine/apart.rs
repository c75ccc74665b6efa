//! What of the configured accounts needs a person, in words: those that are alike are told together.

use std::collections::BTreeMap;

use super::concern::{Concern, general};
use crate::rotation::{AccountState, Reason};
use crate::snapshot::ApartAccount;

/// The most names in one concern.
const NAMES_MAX: usize = 3;

/// One concern for all accounts that have the same. What rotad is about to mend by itself is nobody's.
pub fn of_accounts(apart: &[ApartAccount]) -> Vec<Concern> {
    let mut alike: BTreeMap<(&str, Apart<'_>), Vec<&ApartAccount>> = BTreeMap::new();
    for account in apart {
        let ApartAccount { state, observed, failing, found, wanted, .. } = account;
        let needs_a_person = failing.is_some() || (*observed && *state != AccountState::AsConfigured);
        if needs_a_person {
            let what = Apart { state: *state, failing: *failing, found: found.as_deref(), wanted: wanted.as_deref() };
            alike.entry((&account.organization, what)).or_default().push(account);
        }
    }
    alike.into_iter().map(|((organization, apart), accounts)| concern(organization, &apart, &accounts)).collect()
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Apart<'a> {
    state: AccountState,
    failing: Option<Reason>,
    found: Option<&'a str>,
    wanted: Option<&'a str>,
}

fn concern(organization: &str, apart: &Apart<'_>, accounts: &[&ApartAccount]) -> Concern {
    let since = accounts.iter().filter_map(|account| account.since).min();
    let (next, remedy) = match apart.failing {
        Some(reason) => (next_after_failure(apart.state), remedy_of_account(reason)),
        None => {
            let next = "does nothing by itself: it only reports this, since the section says `mode = \"observe\"`";
            (next, remedy_of_observed(apart.state))
        }
    };
    // Looked at again by a backoff of an hour at most.
    let within = apart.failing.map(|_| 3_600);
    let happened = format!("{} of organization `{organization}`: {}", named(accounts), happened(apart));
    general(since, happened, next, within, remedy)
}

fn named(accounts: &[&ApartAccount]) -> String {
    let names: Vec<String> = accounts.iter().take(NAMES_MAX).map(|account| format!("`{}`", account.username)).collect();
    let (names, others) = (names.join(", "), accounts.len().saturating_sub(NAMES_MAX));
    match (accounts.len(), others) {
        (1, _) => format!("account {names}"),
        (_, 0) => format!("accounts {names}"),
        _ => format!("accounts {names} and {others} more"),
    }
}

fn happened(apart: &Apart<'_>) -> String {
    let why = apart.failing.map_or_else(String::new, |reason| format!(" (`{}`)", reason.as_str()));
    let (found, wanted) = (apart.found.unwrap_or("other Ducklings"), apart.wanted.unwrap_or("something else"));
    match (apart.state, apart.failing) {
        (AccountState::Missing, None) => "configured, and not there".to_owned(),
        (AccountState::Missing, Some(_)) => format!("not there, and can't be created{why}"),
        (AccountState::Differs, None) => format!("{found}, and configured is {wanted}"),
        (AccountState::Differs, Some(_)) => format!("{found}, and can't be set to {wanted}{why}"),
        (AccountState::Unfit, _) => "the name belongs to a person, or to a user that can't be used any more".to_owned(),
        (AccountState::Unseen | AccountState::AsConfigured, _) => format!("can't be looked at{why}"),
    }
}

fn next_after_failure(state: AccountState) -> &'static str {
    match state {
        AccountState::Missing => "looks again, and asks for it if it is still missing",
        AccountState::Differs => "looks again, and sets it if it still differs",
        AccountState::Unfit => "changes nothing there, and looks again",
        AccountState::Unseen | AccountState::AsConfigured => "looks again",
    }
}

fn remedy_of_observed(state: AccountState) -> &'static str {
    match state {
        AccountState::Missing => "create it with `rotad account create`, or take `mode = \"observe\"` away",
        AccountState::Differs => "set it with `rotad account ducklings`, correct the section, or take `mode = \"observe\"` away",
        AccountState::Unfit | AccountState::Unseen | AccountState::AsConfigured => "choose another name, or remove the section",
    }
}

/// What a person should do when an account can't be looked at, created or set.
pub fn remedy_of_account(reason: Reason) -> &'static str {
    match reason {
        Reason::Unauthorized => "create a new admin token at MotherDuck and put it in its place; no restart is needed",
        Reason::Forbidden => "give the admin token's user the role Admin at MotherDuck, or put another one's token in its place",
        Reason::Rejected => "correct the section: a plan may allow fewer sizes or Ducklings; the log has the API's words",
        Reason::NameTaken => {
            "the list of users shows nobody of that name, and it is taken: choose another one, or ask MotherDuck"
        }
        Reason::Unsuitable => "choose another name, or remove the section from the configuration",
        Reason::NoSuchAccount => "nothing at first; if it lasts, ask MotherDuck, since it was asked for and does not show",
        Reason::NoRoute => "correct `api_url` of the organization",
        Reason::Throttled | Reason::Unavailable => "nothing at first; if it lasts, look at MotherDuck's status",
        Reason::Unreachable | Reason::TimedOut => "look at the network between rotad and MotherDuck: names, firewalls, load",
        Reason::BadAnswer
        | Reason::Missing
        | Reason::Full
        | Reason::Busy
        | Reason::Expired
        | Reason::Revoked
        | Reason::WrongAccount
        | Reason::WrongRegion => "the log has the API's words; compare them with docs/accounts.md, and report it",
    }
}
