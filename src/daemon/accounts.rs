//! The accounts of the configuration: one task beside the scheduler does what the core says, one call at a time for each
//! organization. Nothing waits for it but what needs an account that it is to create.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::{LOOK_MAX, is_familiar};
use crate::config::KeptAccount;
use crate::engine::Engine;
use crate::fleet::Fleet;
use crate::motherduck::{AccountOutcome, Client, Ducklings, User};
use crate::rotation::{
    Account, AccountState, Chore, Created, Failed, Fingerprint, Found, NameListed, Reason, Standing, Steady, Upkeep,
};
use crate::snapshot::{APART_MAX, AccountsSummary, ApartAccount};

/// The fact under which it is kept which accounts are not as configured, for `rotad status`.
pub const APART: &str = "accounts_apart";
/// A new admin token is noticed within it.
const SLEEP_MAX: Duration = Duration::from_secs(10);
/// A thousand accounts that are created one after the other are not a thousand commits of a thousand lines.
const SAVE_EVERY: SignedDuration = SignedDuration::from_secs(5);

/// Works until `stop` says so. What is under way then is looked at by the next process.
pub async fn run(engine: Arc<Engine>, mut fleet: watch::Receiver<Arc<Fleet>>, mut stop: watch::Receiver<bool>) {
    let mut keeper = Keeper { engine, organizations: BTreeMap::new(), saved: None, saved_at: None, unsaved: None };
    let keeping = async {
        loop {
            let now = fleet.borrow_and_update().clone();
            keeper.configure(&now);
            let wait = keeper.work().await;
            keeper.show().await;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = fleet.changed() => if changed.is_err() { return },
            }
        }
    };
    tokio::select! {
        () = keeping => {}
        _ = stop.wait_for(|stopped| *stopped) => {}
    }
    // What was only on the board is told by the journal from now on.
    if let Some(apart) = keeper.unsaved.take() {
        keeper.save(apart).await;
    }
}

struct Keeper {
    engine: Arc<Engine>,
    organizations: BTreeMap<Arc<str>, Organization>,
    /// What the journal has of it, once this process has written it.
    saved: Option<Vec<ApartAccount>>,
    saved_at: Option<Steady>,
    /// What it has not yet, since the last record was written only now.
    unsaved: Option<Vec<ApartAccount>>,
}

/// One organization's accounts.
struct Organization {
    client: Arc<Client>,
    wanted: BTreeMap<Account, KeptAccount>,
    upkeep: Upkeep,
    /// The last that was seen of each.
    seen: BTreeMap<Account, Ducklings>,
    /// The one that calls are made with, and since when.
    admin_token: Option<(Fingerprint, Timestamp)>,
}

impl Keeper {
    /// Takes the configuration that is in force. What did not change stays known.
    fn configure(&mut self, fleet: &Fleet) {
        let config = fleet.config();
        let clients = fleet.clients();
        self.organizations.retain(|name, known| clients.get(name).is_some_and(|client| Arc::ptr_eq(client, &known.client)));
        for (name, client) in clients {
            let of_it = config.accounts.iter().filter(|(_, kept)| kept.organization == *name);
            let wanted: BTreeMap<Account, KeptAccount> = of_it.map(|(account, kept)| (account.clone(), kept.clone())).collect();
            if wanted.is_empty() {
                self.organizations.remove(name);
            } else if self.organizations.get(name).is_none_or(|known| known.wanted != wanted) {
                let Some(section) = config.organizations.get(name) else { continue };
                let (every, pace) = (section.look_every(wanted.len()), section.account_pace());
                let known = self.organizations.entry(name.clone()).or_insert_with(|| Organization::new(client.clone()));
                known.configure(wanted, every, pace);
            }
        }
    }

    /// One call for each organization that has one to make, and how long until there may be another.
    async fn work(&mut self) -> Duration {
        let engine = &self.engine;
        let calls = self.organizations.iter_mut().map(|(name, organization)| async move {
            organization.notice_admin_token(name, engine).await;
            match organization.upkeep.next(engine.clock.now(), true) {
                Chore::Wait(wait) => wait,
                _ => {
                    let is_trusted = organization.is_trusted(name, engine).await;
                    let chore = organization.upkeep.next(engine.clock.now(), is_trusted);
                    organization.carry_out(chore, name, engine).await
                }
            }
        });
        let soonest = join_all(calls).await.into_iter().min();
        soonest.and_then(|wait| Duration::try_from(wait).ok()).map_or(SLEEP_MAX, |wait| wait.min(SLEEP_MAX))
    }

    async fn show(&mut self) {
        let mut summary = AccountsSummary::default();
        for (name, organization) in &self.organizations {
            for (account, standing) in organization.upkeep.standings() {
                summary.states.add(standing.state, 1);
                summary.failing += u64::from(standing.failed.is_some());
                let at_rest = matches!(standing.state, AccountState::AsConfigured | AccountState::Unseen);
                if !at_rest || standing.failed.is_some() {
                    summary.apart.push(organization.apart(name, account, standing));
                }
            }
        }
        summary.apart.truncate(APART_MAX);
        let apart = summary.apart.clone();
        // As long as nothing was seen, what the last process saw is worth more.
        let says_something = !apart.is_empty() || summary.states.of(AccountState::Unseen) == 0;
        self.engine.board.accounts(summary);
        let now = self.engine.clock.now().steady;
        let is_time = self.saved_at.is_none_or(|at| now.since(at) >= SAVE_EVERY);
        self.unsaved = Some(apart).filter(|apart| says_something && self.saved.as_ref() != Some(apart));
        if is_time && let Some(apart) = self.unsaved.take() {
            self.saved_at = Some(now);
            self.save(apart).await;
        }
    }

    async fn save(&mut self, apart: Vec<ApartAccount>) {
        let Ok(text) = serde_json::to_string(&apart) else { return };
        match timeout(LOOK_MAX, self.engine.journal.set_fact(APART, text)).await {
            Ok(Ok(())) => self.saved = Some(apart),
            Ok(Err(error)) => debug!(%error, "how it stands with the accounts can't be kept in the journal"),
            Err(_) => debug!("how it stands with the accounts can't be kept: the journal does not answer"),
        }
    }
}

impl Organization {
    fn new(client: Arc<Client>) -> Self {
        let upkeep = Upkeep::new(SignedDuration::ZERO, SignedDuration::ZERO);
        Self { client, wanted: BTreeMap::new(), upkeep, seen: BTreeMap::new(), admin_token: None }
    }

    fn configure(&mut self, wanted: BTreeMap<Account, KeptAccount>, every: SignedDuration, pace: SignedDuration) {
        self.upkeep.set_rhythm(every, pace);
        for account in self.wanted.keys().filter(|account| !wanted.contains_key(account)) {
            info!(%account, "the account is no longer kept; it stays as it is");
            self.upkeep.let_go(account);
            self.seen.remove(account);
        }
        for (account, kept) in wanted.iter().filter(|(account, kept)| self.wanted.get(account) != Some(kept)) {
            self.upkeep.configure(account, kept.is_observed);
        }
        self.wanted = wanted;
    }

    /// With another admin token everything may be otherwise: nothing waits for what the one before was answered.
    async fn notice_admin_token(&mut self, name: &Arc<str>, engine: &Engine) {
        let Ok(token) = self.client.admin_token_fingerprint().await else { return };
        if self.admin_token.is_some_and(|(known, _)| known == token) {
            return;
        }
        let now = engine.clock.now();
        if self.admin_token.replace((token, now.wall)).is_some() {
            debug!(organization = %name, "another admin token: what failed with the one before is tried at once");
            self.upkeep.try_anew(now);
        }
    }

    /// Whether it is the organization that the journal knows: in another one, every account would be missing.
    async fn is_trusted(&self, name: &Arc<str>, engine: &Engine) -> bool {
        // A call will tell why there is no admin token.
        let Some((token, since)) = self.admin_token else { return true };
        let Ok(Ok(is_proven)) = timeout(LOOK_MAX, engine.watch_admin_token(name, token)).await else { return false };
        if engine.standings().is_suspect(name) {
            return false;
        }
        is_proven || is_familiar(name, since, engine)
    }

    /// Gives how long until there may be something else to do.
    async fn carry_out(&mut self, chore: Chore, name: &Arc<str>, engine: &Engine) -> SignedDuration {
        match chore {
            Chore::Wait(wait) => return wait,
            Chore::Look(account) => self.look(&account, name, engine).await,
            Chore::List => self.list(name, engine).await,
            Chore::Create(account) => self.create(&account, name, engine).await,
            Chore::Set(account) => self.set(&account, name, engine).await,
        }
        SignedDuration::ZERO
    }

    async fn look(&mut self, account: &Account, name: &Arc<str>, engine: &Engine) {
        let before = self.upkeep.standing(account);
        let outcome = match self.client.ducklings(account).await {
            Ok(ducklings) => {
                let differs = self.wanted.get(account).is_some_and(|kept| kept.wanted.instead_of(&ducklings).is_some());
                self.seen.insert(account.clone(), ducklings);
                Ok(if differs { Found::Differs } else { Found::AsConfigured })
            }
            Err(failed) if failed.reason == Reason::NoSuchAccount => {
                self.seen.remove(account);
                Ok(Found::Missing)
            }
            Err(failed) => {
                tell_failure(name, account, "looked at", &failed, before);
                Err(failed)
            }
        };
        self.upkeep.looked(account, outcome, engine.clock.now());
        let Some(after) = self.upkeep.standing(account).filter(|after| before.is_none_or(|before| before.state != after.state))
        else {
            return;
        };
        let (found, wanted) = self.difference(account);
        let (found, wanted) = (found.unwrap_or_default(), wanted.unwrap_or_default());
        match after.state {
            AccountState::Missing => info!(organization = %name, %account, observed = after.observed, "the account is missing"),
            AccountState::Differs => {
                info!(organization = %name, %account, observed = after.observed, found, wanted, "the account's Ducklings differ");
            }
            AccountState::Unfit | AccountState::Unseen | AccountState::AsConfigured => {
                debug!(organization = %name, %account, "the account is {}", after.state.as_str());
            }
        }
    }

    async fn list(&mut self, name: &Arc<str>, engine: &Engine) {
        let began = engine.clock.now();
        let users = self.client.users().await.and_then(|users| match users.is_empty() {
            true => Err(Failed::new(Reason::BadAnswer, "the list of users says nothing: nobody is on it")),
            false => Ok(users),
        });
        if let Err(failed) = &users {
            warn!(organization = %name, "the users can't be listed, so no account is created or changed: {failed}");
        }
        let holders = users.map(|users| {
            let listed = |user: &User| if user.is_usable_service() { NameListed::Service } else { NameListed::Unfit };
            let holders: BTreeMap<Account, NameListed> = users.iter().map(|user| (user.username.clone(), listed(user))).collect();
            move |account: &Account| holders.get(account).copied().unwrap_or(NameListed::Nobody)
        });
        self.upkeep.listed(holders, began, engine.clock.now());
    }

    async fn create(&mut self, account: &Account, name: &Arc<str>, engine: &Engine) {
        let (before, began) = (self.upkeep.standing(account), engine.clock.now());
        info!(organization = %name, %account, "the account is asked for");
        let outcome = match self.client.create_account(account).await {
            AccountOutcome::Done => {
                info!(organization = %name, %account, "the account was created");
                Created::Done
            }
            AccountOutcome::Refused(failed) => {
                tell_failure(name, account, "created", &failed, before);
                Created::Refused(failed)
            }
            AccountOutcome::Unknown(failed) => {
                warn!(organization = %name, %account, "whether the account was created is not known, it is looked for: {failed}");
                Created::Unknown(failed)
            }
        };
        self.upkeep.created(account, outcome, began, engine.clock.now());
    }

    async fn set(&mut self, account: &Account, name: &Arc<str>, engine: &Engine) {
        let before = self.upkeep.standing(account);
        let kept = self.wanted.get(account);
        let asked = self.seen.get(account).and_then(|found| kept.and_then(|kept| kept.wanted.instead_of(found)));
        let outcome = match asked {
            None => Ok(()),
            Some(asked) => self.client.set_ducklings(account, &asked).await.map(|found| {
                let was = self.seen.insert(account.clone(), found).map(|was| was.to_string()).unwrap_or_default();
                info!(organization = %name, %account, was, set = %asked, "the account's Ducklings were set");
            }),
        };
        if let Err(failed) = &outcome {
            tell_failure(name, account, "set to what is configured", failed, before);
        }
        self.upkeep.set(account, outcome, engine.clock.now());
    }

    /// What was seen, and what should be.
    fn difference(&self, account: &Account) -> (Option<String>, Option<String>) {
        let wanted = self.wanted.get(account).map(|kept| kept.wanted.to_string()).filter(|wanted| !wanted.is_empty());
        (self.seen.get(account).map(ToString::to_string), wanted)
    }

    fn apart(&self, name: &Arc<str>, account: &Account, standing: Standing) -> ApartAccount {
        let Standing { state, observed, failed, since } = standing;
        let differs = state == AccountState::Differs;
        let (found, wanted) = self.difference(account);
        ApartAccount {
            organization: name.clone(),
            username: account.as_str().into(),
            state,
            observed,
            failing: failed,
            since,
            found: found.filter(|_| differs),
            wanted: wanted.filter(|_| differs),
        }
    }
}

/// A failure that lasts is told once.
fn tell_failure(name: &Arc<str>, account: &Account, what: &str, failed: &Failed, before: Option<Standing>) {
    if before.is_some_and(|before| before.failed == Some(failed.reason)) {
        debug!(organization = %name, %account, "the account still can't be {what}: {failed}");
    } else if matches!(failed.reason, Reason::Unauthorized | Reason::Forbidden | Reason::Rejected | Reason::NameTaken) {
        error!(organization = %name, %account, "the account can't be {what}: {failed}");
    } else {
        warn!(organization = %name, %account, "the account can't be {what}, it is tried again: {failed}");
    }
}
