//! Tells people without Prometheus: one task beside the scheduler looks at the board, and brings what changed to the
//! configured address. It holds nothing up, and nothing waits for it.

mod ledger;
mod message;
mod post;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tracing::{debug, info, warn};

pub use ledger::{About, Change, Ledger, Now, Pace, State, is_unknown, states, states_of_accounts};
pub use message::{EVENTS_MAX, Event, Message, recovery};

use crate::config::Webhook;
use crate::engine::{Concern, Engine, Roster, by_summary, concerns, in_fleet, in_general, near_deadline, of_accounts, summarize};
use crate::fleet::Fleet;
use crate::http;
use crate::metrics::WebhookOutcome;
use crate::rotation::{Account, Backoff, Failed, Reason};
use crate::snapshot::{Attention, Snapshot};

/// The fact under which it is kept what was told.
const TOLD: &str = "webhook_told";
/// The longest wait after a failure: who repairs the other end sees it work within minutes.
const BACKOFF_MAX: SignedDuration = SignedDuration::from_mins(5);
/// A journal that hangs must not keep it from being told that something is wrong.
const JOURNAL_MAX: Duration = Duration::from_secs(2);
/// How often it is looked, of the time that a state must last; one look goes over all credentials.
const LOOKS_PER_SETTLE: u32 = 4;
const LOOK_LEAST: Duration = Duration::from_millis(250);

/// Looks and tells until `stop` says so. Each look follows the configuration that is in force then.
pub async fn run(engine: Arc<Engine>, mut fleet: watch::Receiver<Arc<Fleet>>, mut stop: watch::Receiver<bool>) {
    let mut teller =
        Teller { engine, ledger: None, pace: Pace::default(), backoff: Backoff::default(), client: None, unsaved: false };
    let telling = async {
        loop {
            let now = fleet.borrow_and_update().clone();
            let Some(webhook) = &now.config().webhook else {
                match fleet.changed().await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            };
            teller.look(webhook, &now).await;
            let every = Duration::try_from(webhook.settle).unwrap_or_default() / LOOKS_PER_SETTLE;
            tokio::time::sleep(every.max(LOOK_LEAST)).await;
        }
    };
    tokio::select! {
        () = telling => {}
        // What is under way may have arrived: it is told again by the next process.
        _ = stop.wait_for(|stopped| *stopped) => {}
    }
}

struct Teller {
    engine: Arc<Engine>,
    /// `None` until the journal has said what was told before.
    ledger: Option<Ledger>,
    pace: Pace,
    backoff: Backoff,
    client: Option<reqwest::Client>,
    /// What was told is not in the journal yet.
    unsaved: bool,
}

impl Teller {
    fn now(&self) -> Now {
        Now { wall: self.engine.clock.now().wall, boot: self.engine.clock.boot() }
    }

    async fn look(&mut self, webhook: &Webhook, fleet: &Fleet) {
        let now = self.now();
        let mut ledger = match self.ledger.take() {
            Some(ledger) => ledger,
            None => match tokio::time::timeout(JOURNAL_MAX, self.engine.journal.fact(TOLD)).await {
                Ok(Ok(record)) => Ledger::restored(&record.unwrap_or_default(), now),
                Ok(Err(_)) | Err(_) => return debug!("the journal does not say what was told: it is asked again"),
            },
        };
        let snapshot = self.engine.board.snapshot(self.engine.clock.now());
        ledger.keep(|about| is_unknown(about, &snapshot), now);
        ledger.look(self.found(&snapshot), now, webhook.settle);
        let changes = ledger.changes(now, webhook.settle);
        let may_send = self.pace.may_send(now, webhook.settle) && self.backoff.wait(now.wall).is_none();
        if !changes.is_empty() && may_send && self.tell(webhook, fleet, &snapshot, &changes, now.wall).await {
            ledger.told(&changes);
            self.pace.sent(self.now(), webhook.settle);
            self.unsaved = true;
        }
        if self.unsaved {
            let saving = self.engine.journal.set_fact(TOLD, ledger.record());
            self.unsaved = !matches!(tokio::time::timeout(JOURNAL_MAX, saving).await, Ok(Ok(())));
        }
        self.ledger = Some(ledger);
    }

    /// Everything that is to be told, if it lasts.
    fn found(&self, snapshot: &Snapshot) -> Vec<(About, State)> {
        let now = snapshot.taken_at;
        let general = in_general(snapshot)
            .into_iter()
            .map(|(general, organization, _)| (organization.map_or(About::Rotad, About::Organization), State::General(general)));
        let credentials = self.engine.board.gather(|name, summary, found| {
            found.extend(states(summary, now).map(|state| (About::Credential(name.clone()), state)));
        });
        general.chain(states_of_accounts(snapshot)).chain(credentials).collect()
    }

    /// Sends one message of all of it; gives whether it arrived.
    async fn tell(&mut self, webhook: &Webhook, fleet: &Fleet, snapshot: &Snapshot, changes: &[Change], now: Timestamp) -> bool {
        let mut events = Vec::new();
        for change in changes.iter().take(EVENTS_MAX) {
            let concern = match change {
                Change::Is(state, about, _) => self.concern(*state, about, fleet, snapshot).await,
                Change::Over(state, about, _) => Some(recovery(*state, is_gone(about, fleet))),
            };
            // What is over since the look is as good as told: its end is.
            events.extend(concern.map(|concern| Event::new(change, concern)));
        }
        let message = Message::new(fleet.config().deployment.clone(), now, changes, events);
        let sent = match serde_json::to_string(&message) {
            Ok(body) => self.send(webhook, body).await,
            Err(error) => Err(Failed::new(Reason::Unsuitable, format!("the message can't be encoded: {error}"))),
        };
        match sent {
            Ok(()) => {
                self.engine.metrics.webhook_message(WebhookOutcome::Sent);
                if self.backoff.failures > 0 {
                    info!("the webhook takes messages again");
                }
                self.backoff.reset();
                info!(changes = changes.len(), "told by webhook");
                true
            }
            Err(failed) => {
                self.engine.metrics.webhook_message(WebhookOutcome::Failed);
                let first = self.backoff.failures == 0;
                self.backoff.push(now, BACKOFF_MAX, failed.retry_after);
                let reason = failed.reason.as_str();
                match first {
                    true => warn!(reason, "the webhook can't be told: {failed}; it is tried again and again"),
                    false => debug!(reason, "the webhook still can't be told: {failed}"),
                }
                false
            }
        }
    }

    async fn send(&mut self, webhook: &Webhook, body: String) -> Result<(), Failed> {
        let client = match self.client.take() {
            Some(client) => client,
            None => http::client()?,
        };
        post::post(self.client.insert(client), webhook, body).await
    }

    /// The words for a state that is the matter now.
    async fn concern(&self, state: State, about: &About, fleet: &Fleet, snapshot: &Snapshot) -> Option<Concern> {
        let name = match (state, about) {
            (State::General(general), about) => {
                let organization = if let About::Organization(name) = about { Some(name) } else { None };
                let mut found = in_general(snapshot).into_iter();
                let found = found.find(|(found, of, _)| *found == general && of.as_ref() == organization);
                return found.map(|(_, _, concern)| concern);
            }
            (State::Fleet(of), About::Fleet(name)) => {
                let fleet = snapshot.fleets.iter().find(|fleet| fleet.name == *name)?;
                let found = in_fleet(fleet, snapshot.taken_at).into_iter().find(|(found, _)| *found == of);
                return found.map(|(_, concern)| concern);
            }
            (State::AccountApart, About::Account(name)) => {
                let account = snapshot.accounts.apart.iter().find(|account| account.username == *name)?;
                return of_accounts(std::slice::from_ref(account)).pop();
            }
            (_, About::Credential(name)) => name,
            (_, About::Rotad | About::Organization(_) | About::Fleet(_) | About::Account(_)) => return None,
        };
        let now = snapshot.taken_at;
        let shown = self.engine.board.get(name)?;
        let row = tokio::time::timeout(JOURNAL_MAX, self.engine.journal.load(name)).await;
        let row = row.ok().and_then(Result::ok).flatten();
        let wake_at = row.as_ref().map(|row| row.wake_at);
        let attention = match state {
            State::General(_) | State::Fleet(_) | State::AccountApart => return None,
            State::NearDeadline => return Some(near_deadline(name, &shown, wake_at, now)),
            State::Expired => Attention::Expired,
            State::PastDeadline => Attention::PastDeadline,
            State::Blocked(_) => Attention::Blocked,
        };
        // As the journal's record has it, or else as the board does.
        let recorded = row.and_then(|row| {
            let (credential, member) = (row.read_state().ok()?, fleet.member(name)?);
            let summary = summarize(&credential, &member.policy, member.organization, now);
            let concerns = concerns(&credential, &member.policy, &summary, wake_at, now);
            concerns.into_iter().find(|concern| concern.attention == Some(attention))
        });
        Some(recorded.unwrap_or_else(|| by_summary(name, attention, &shown, now)))
    }
}

fn is_gone(about: &About, fleet: &Fleet) -> bool {
    match about {
        About::Credential(name) => !fleet.config().credentials.contains_key(name),
        About::Fleet(name) => !fleet.config().fleets.contains_key(name),
        About::Account(name) => !fleet.config().accounts.contains_key(&Account::new(name)),
        About::Rotad | About::Organization(_) => false,
    }
}
