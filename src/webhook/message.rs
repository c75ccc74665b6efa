//! The message: JSON with every part of each event, and a text of the whole for chat systems.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::Timestamp;
use serde::Serialize;

use super::ledger::{About, Change, State, Whose};
use crate::engine::{Concern, General, OfFleet};
use crate::rotation::Deployment;

/// How many events are told one by one; of the rest, how many there are. What a person reads before they look for themselves.
pub const EVENTS_MAX: usize = 20;

/// The word for what is over.
const RECOVERED: &str = "recovered";

#[derive(Debug, Serialize)]
pub struct Message {
    pub deployment: Deployment,
    pub at: Timestamp,
    /// How many there are of each event, those included that are not among `events`.
    pub counts: BTreeMap<&'static str, usize>,
    /// The most pressing first.
    pub events: Vec<Event>,
    /// How many more there are.
    pub more: usize,
    pub text: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Event {
    pub event: &'static str,
    /// What is over, of a recovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<&'static str>,
    /// Of a block, in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    #[serde(flatten)]
    pub whose: Whose,
    pub since: Timestamp,
    pub happened: String,
    pub next: String,
    pub next_at: Option<Timestamp>,
    /// Where the moment is not known.
    pub next_within_seconds: Option<u32>,
    pub remedy: String,
}

impl Event {
    /// A change in the concern's words.
    pub fn new(change: &Change, concern: Concern) -> Self {
        let (Change::Is(state, about, since) | Change::Over(state, about, since)) = change;
        Self {
            event: word(change),
            of: matches!(change, Change::Over(..)).then(|| state.word()),
            reason: state.reason(),
            whose: about.into(),
            since: concern.since.unwrap_or(*since),
            happened: concern.happened,
            next: concern.next,
            next_at: concern.next_at,
            next_within_seconds: concern.next_within_seconds,
            remedy: concern.remedy,
        }
    }
}

fn word(change: &Change) -> &'static str {
    match change {
        Change::Is(state, ..) => state.word(),
        Change::Over(..) => RECOVERED,
    }
}

/// The words for what is over; `gone` where that which it is about is not configured any more.
pub fn recovery(state: State, gone: bool) -> Concern {
    let happened = match state {
        _ if gone => "it is not configured any more",
        State::Blocked(_) => "it is not blocked any more",
        State::Expired | State::PastDeadline | State::NearDeadline => "it has time again until its deadline",
        State::Fleet(OfFleet::LettingGoRefused) => "none of its accounts is missing any more, or they were let go",
        State::Fleet(OfFleet::Unlisted) => "its accounts can be listed again",
        State::Fleet(OfFleet::LeftOut) => "every account that it matches is covered",
        State::AccountApart => "it is as it is configured",
        State::General(General::JournalUnwritable) => "the journal can be written again",
        State::General(General::AdminTokenEnds | General::AdminTokenExpired) => "the admin token was replaced",
        State::General(General::ConfigurationRefused) => "the configuration is accepted again",
        State::General(General::AnotherOrganization) => "the known tokens show again",
        State::General(General::ClockJump | General::ClockSkew | General::NotCompared) => "the clocks agree again",
    };
    let next = match (gone, state) {
        (true, State::AccountApart) => "leaves it as it is",
        (true, _) => "leaves its tokens to expire",
        (false, _) => "goes on by its schedule",
    };
    Concern {
        attention: None,
        credential: None,
        place: None,
        since: None,
        happened: happened.to_owned(),
        next: next.to_owned(),
        next_at: None,
        next_within_seconds: None,
        remedy: "nothing".to_owned(),
    }
}

impl Message {
    /// `events` are the first of `changes`, at most `EVENTS_MAX`.
    pub fn new(deployment: Deployment, at: Timestamp, changes: &[Change], events: Vec<Event>) -> Self {
        let mut counts = BTreeMap::new();
        for change in changes {
            *counts.entry(word(change)).or_insert(0) += 1;
        }
        let more = changes.len() - events.len();
        let text = text(&deployment, &counts, &events, more);
        Self { deployment, at, counts, events, more, text }
    }
}

fn text(deployment: &Deployment, counts: &BTreeMap<&'static str, usize>, events: &[Event], more: usize) -> String {
    let counted: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {}", spoken(word))).collect();
    let mut text = format!("rotad `{deployment}`: {}", counted.join(", "));
    for event in events {
        let about = match About::from(event.whose.clone()) {
            About::Credential(credential) => format!("`{credential}` "),
            About::Organization(organization) => format!("organization `{organization}` "),
            // The event's own word says what it is.
            About::Fleet(name) | About::Account(name) => format!("`{name}` "),
            About::Rotad => String::new(),
        };
        // Writing to a string can't fail.
        let _ = write!(text, "\n- {about}{}: {}", spoken(event.event), event.happened);
        if event.of.is_none() {
            let _ = write!(text, ". rotad {}. To do: {}", event.next, event.remedy);
        }
    }
    if more > 0 {
        let _ = write!(text, "\nand {more} more: `rotad status` has them all");
    }
    text
}

fn spoken(word: &str) -> String {
    word.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::Blocked;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn credential(number: usize) -> About {
        About::Credential(format!("c{number:06}").parse().unwrap())
    }

    fn concern() -> Concern {
        let [happened, next, remedy] = ["it was found so", "looks again", "look at it"].map(str::to_owned);
        let (attention, credential, place, next_within_seconds) = (None, None, None, None);
        let (since, next_at) = (Some(at(1)), Some(at(60)));
        Concern { attention, credential, place, since, happened, next, next_at, next_within_seconds, remedy }
    }

    #[test]
    fn a_message_has_every_part_of_an_event_and_a_text() {
        let blocked = State::Blocked(Blocked::RolledBack);
        let changes = [Change::Is(blocked, credential(1), at(5)), Change::Over(State::PastDeadline, credential(2), at(7))];
        let events = vec![Event::new(&changes[0], concern()), Event::new(&changes[1], recovery(State::PastDeadline, false))];
        let message = Message::new("prod".parse().unwrap(), at(100), &changes, events);
        let json = serde_json::to_value(&message).unwrap();
        let expected = serde_json::json!({
            "deployment": "prod", "at": at(100), "counts": { "blocked": 1, "recovered": 1 }, "more": 0,
            "events": [
                { "event": "blocked", "reason": "rolled_back", "credential": "c000001", "since": at(1), "happened": "it was found so",
                  "next": "looks again", "next_at": at(60), "next_within_seconds": null, "remedy": "look at it" },
                { "event": "recovered", "of": "past_deadline", "credential": "c000002", "since": at(7),
                  "happened": "it has time again until its deadline", "next": "goes on by its schedule", "next_at": null, "next_within_seconds": null,
                  "remedy": "nothing" },
            ],
            "text": "rotad `prod`: 1 blocked, 1 recovered\n\
                - `c000001` blocked: it was found so. rotad looks again. To do: look at it\n\
                - `c000002` recovered: it has time again until its deadline",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_hundred_thousand_blocked_at_once_are_one_short_message() {
        let mut ledger = super::super::Ledger::default();
        let settle = jiff::SignedDuration::from_secs(60);
        let now = |second| super::super::Now { wall: at(second), boot: jiff::SignedDuration::from_secs(second) };
        for second in [0, 60] {
            let found = (0..100_000).map(|number| (credential(number), State::Blocked(Blocked::AnotherOrganization)));
            ledger.look(found, now(second), settle);
        }
        let changes = ledger.changes(now(60), settle);
        let events = changes.iter().take(EVENTS_MAX).map(|change| Event::new(change, concern())).collect();
        let message = Message::new("prod".parse().unwrap(), at(60), &changes, events);
        assert_eq!((message.counts["blocked"], message.events.len(), message.more), (100_000, 20, 99_980));
        assert!(message.text.ends_with("and 99980 more: `rotad status` has them all"), "{}", message.text);
        assert!(serde_json::to_string(&message).unwrap().len() < 16_384);
        ledger.told(&changes);
        assert_eq!(ledger.changes(now(60), settle), []);
    }
}
