//! The fleets' accounts: when an organization's users are listed, and what becomes of a list.
//!
//! The list says who there is, the core who comes and goes by it; then there is another configuration, which is put in
//! force as after a reload.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::{Daemon, LOOK_MAX, is_familiar};
use crate::config::{LeftOut, Members};
use crate::control::{Answer, Done, FleetChange, FleetRequest, Refused};
use crate::fleet::rolls::{self, Rolls};
use crate::motherduck::{Client, User};
use crate::rotation::{self, Account, Failed, Fingerprint, Moment, Reason, Refusal, Roll, Steady};
use crate::snapshot::{At, FleetSummary};

/// A call for a thousand users; a customer who was just taken on waits no longer for a token.
const LIST_EVERY: SignedDuration = SignedDuration::from_secs(60);
/// Lists that wait to be taken: there is one at a time for each organization.
const LISTS_MAX: usize = 64;

/// What is known of the fleets' accounts.
pub(super) struct Fleets {
    rolls: Rolls,
    /// What the configuration in force was made of.
    in_force: Members,
    left_out: Vec<LeftOut>,
    /// By organization.
    listings: BTreeMap<Arc<str>, Listing>,
    lists: mpsc::Sender<Listed>,
    listed: mpsc::Receiver<Listed>,
}

/// How it stands with an organization's list.
#[derive(Default)]
struct Listing {
    begun_at: Option<Steady>,
    under_way: bool,
    succeeded_at: At,
    failed: Option<Reason>,
    /// The admin token of the last list, and since when lists are asked for with it.
    admin_token: Option<(Fingerprint, Timestamp)>,
    /// Persons who wait for the next list.
    asked: Vec<Asking>,
}

/// A person who wants a fleet's accounts listed.
struct Asking {
    request: FleetRequest,
    by: String,
    answer: Answer,
}

/// A list of an organization's users.
pub struct Listed {
    organization: Arc<str>,
    client: Arc<Client>,
    began: Moment,
    /// The admin token that it was asked for with; `None` if that changed meanwhile.
    admin_token: Option<Fingerprint>,
    users: Result<Vec<User>, Failed>,
    asked: Vec<Asking>,
}

impl Fleets {
    pub fn new(rolls: Rolls) -> Self {
        let (lists, listed) = mpsc::channel(LISTS_MAX);
        let in_force = rolls::members(&rolls);
        Self { rolls, in_force, left_out: Vec::new(), listings: BTreeMap::new(), lists, listed }
    }

    /// Other fleets are configured, and in force with these accounts. They are listed with the next look.
    pub fn configured(&mut self, rolls: Rolls) {
        self.in_force = rolls::members(&rolls);
        self.rolls = rolls;
        self.listings.values_mut().for_each(|listing| listing.begun_at = None);
    }

    pub async fn listed(&mut self) -> Listed {
        match self.listed.recv().await {
            Some(listed) => listed,
            // Not while there is `lists`.
            None => std::future::pending().await,
        }
    }
}

impl Daemon {
    /// Lists the users of each organization whose time has come. `next` brings the lists.
    pub(super) fn list_fleets(&mut self) {
        let now = self.surroundings.clock.now();
        for fleet in self.written.fleets.values() {
            let organization = &fleet.terms.organization;
            let listing = self.fleets.listings.entry(organization.clone()).or_default();
            let is_due = listing.begun_at.is_none_or(|at| now.steady.since(at) >= LIST_EVERY) || !listing.asked.is_empty();
            let Some(client) = self.fleet.clients().get(organization).filter(|_| is_due && !listing.under_way) else { continue };
            (listing.begun_at, listing.under_way) = (Some(now.steady), true);
            let (asked, lists) = (std::mem::take(&mut listing.asked), self.fleets.lists.clone());
            let (client, organization) = (client.clone(), organization.clone());
            tokio::spawn(async move {
                let before = client.admin_token_fingerprint().await.ok();
                let users = client.users().await;
                let admin_token = client.admin_token_fingerprint().await.ok().filter(|after| before == Some(*after));
                // A daemon that has ended needs no list.
                let _ = lists.send(Listed { organization, client, began: now, admin_token, users, asked }).await;
            });
        }
        self.show_fleets();
    }

    /// Has a fleet's accounts listed now; the answer comes with the list.
    pub fn sweep_fleet(&mut self, request: FleetRequest, by: String, answer: Answer) {
        let Some(fleet) = self.written.fleets.get(request.fleet.as_str()) else {
            let refusal = format!(
                "no fleet of the running configuration is named `{}`: give the name of one of its `[fleet.<name>]`",
                request.fleet
            );
            let _ = answer.send(Err(Refused::misused(refusal)));
            return;
        };
        info!(by, fleet = request.fleet, allow_gone = request.allow_gone, "a list of the accounts was asked for");
        let listing = self.fleets.listings.entry(fleet.terms.organization.clone()).or_default();
        listing.asked.push(Asking { request, by, answer });
        self.list_fleets();
    }

    /// Takes a list that `next` brought.
    pub async fn take_list(&mut self, mut listed: Listed) {
        let asked = std::mem::take(&mut listed.asked);
        let outcome = self.changes(&listed, &asked).await;
        self.note_outcome(&listed.organization, outcome.as_ref().err());
        let in_force = self.take_members().await;
        // Whoever reads the metrics after the answer finds them as it says.
        self.show_fleets();
        for Asking { request, answer, .. } in asked {
            let change = outcome.as_ref().map(|changes| changes.get(request.fleet.as_str()).cloned());
            let _ = answer.send(match (change, &in_force) {
                (Err(failed), _) => Err(Refused::failed(format!("nothing was changed: {failed}"))),
                (Ok(_), Err(problem)) => {
                    Err(Refused::failed(format!("the accounts are known, and can't be put in force: {problem:#}")))
                }
                (Ok(fleet), Ok(())) => Ok(Done { credentials: Vec::new(), fleet }),
            });
        }
        // Whoever asked meanwhile waits for the next one.
        self.list_fleets();
    }

    fn note_outcome(&mut self, organization: &Arc<str>, failed: Option<&Failed>) {
        let now = self.surroundings.clock.now().wall;
        let listing = self.fleets.listings.entry(organization.clone()).or_default();
        listing.under_way = false;
        match (listing.failed, failed) {
            (None, Some(failed)) => {
                warn!(%organization, "the users can't be listed, so the fleets' accounts stay as they are: {failed}");
            }
            (Some(_), Some(failed)) => debug!(%organization, "the users still can't be listed: {failed}"),
            (Some(_), None) => info!(%organization, "the users are listed again"),
            (None, None) => {}
        }
        listing.failed = failed.map(|failed| failed.reason);
        if failed.is_none() {
            listing.succeeded_at = now.into();
        }
    }

    /// What the list changes at each fleet of its organization; the journal has it then.
    async fn changes(&mut self, listed: &Listed, asked: &[Asking]) -> Result<BTreeMap<Arc<str>, FleetChange>, Failed> {
        let users = listed.users.as_ref().map_err(Clone::clone)?;
        self.heed(listed, users).await?;
        let ended = self.surroundings.clock.now();
        let written = self.written.clone();
        let mut changes = BTreeMap::new();
        for (fleet, _) in written.fleets.iter().filter(|(_, block)| block.terms.organization == listed.organization) {
            let before = self.fleets.rolls.get(fleet).cloned().unwrap_or_default();
            let allowed = asked.iter().find(|asking| *asking.request.fleet == **fleet && asking.request.allow_gone);
            let accounts = rolls::matching(&written, fleet, users);
            let mut roll = before.clone();
            let all_may_go = allowed.is_some();
            let change = roll.see(rotation::Listed { accounts: &accounts, began: listed.began, ended, all_may_go });
            if roll != before {
                self.save(fleet, &roll).await?;
            }
            tell(fleet, &change, allowed.map_or("the list", |asking| &asking.by));
            if let Some(refusal) = roll.refusal().filter(|_| before.refusal().is_none()) {
                let Refusal { missing, accounts, allowed, .. } = refusal;
                error!(
                    %fleet, missing, accounts, allowed,
                    "too many accounts are gone at once, so none is let go; `rotad sweep --fleet {fleet} --allow-gone` if they were deleted"
                );
            }
            let missing: Vec<Account> = roll.missing().cloned().collect();
            let (accounts, refusal) = (roll.accounts().count(), roll.refusal());
            changes.insert(fleet.clone(), FleetChange { accounts, come: change.come, gone: change.gone, missing, refusal });
            self.fleets.rolls.insert(fleet.clone(), roll);
        }
        Ok(changes)
    }

    async fn save(&self, fleet: &Arc<str>, roll: &Roll) -> Result<(), Failed> {
        let problem = match timeout(LOOK_MAX, rolls::save(self.engine.journal.as_ref(), &self.written, fleet, roll)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not answer".to_owned(),
        };
        Err(Failed::new(Reason::Unavailable, format!("the accounts can't be kept in the journal: {problem}")))
    }

    /// Whether a complete list says anything: not of another organization, and not nothing at all.
    async fn heed(&mut self, listed: &Listed, users: &[User]) -> Result<(), Failed> {
        let organization = &listed.organization;
        let unheeded = |why: &str| Err(Failed::new(Reason::BadAnswer, format!("the list of users says nothing: {why}")));
        if !self.fleet.clients().get(organization).is_some_and(|client| Arc::ptr_eq(client, &listed.client)) {
            return unheeded("the organization's section changed meanwhile");
        }
        if users.is_empty() {
            return unheeded("nobody is on it, and whoever asks should be");
        }
        let Some(token) = listed.admin_token else { return unheeded("the admin token changed meanwhile") };
        let is_proven = match timeout(LOOK_MAX, self.engine.watch_admin_token(organization, token)).await {
            Ok(Ok(is_proven)) => is_proven,
            Ok(Err(_)) | Err(_) => {
                return unheeded("whether the admin token is the one of before can't be read from the journal");
            }
        };
        let listing = self.fleets.listings.entry(organization.clone()).or_default();
        let (_, since) = *match &mut listing.admin_token {
            Some(known) if known.0 == token => known,
            other => other.insert((token, listed.began.wall)),
        };
        let is_proven = is_proven || is_familiar(organization, since, &self.engine);
        let has_credentials = self.config().credentials.values().any(|credential| credential.terms.organization == *organization);
        if has_credentials && (!is_proven || self.engine.standings().is_suspect(organization)) {
            return unheeded("it may be another organization's, as long as the admin token has seen none of the known tokens");
        }
        Ok(())
    }

    /// Puts the accounts in force that are known, where they are others than before.
    async fn take_members(&mut self) -> anyhow::Result<()> {
        let members = rolls::members(&self.fleets.rolls);
        if members == self.fleets.in_force {
            return Ok(());
        }
        let (complete, left_out) = rolls::complete(&self.written, &members);
        if let Err(problem) = self.put_in_force(complete).await {
            error!("the fleets' accounts can't be put in force, it is tried again with the next list: {problem:#}");
            return Err(problem);
        }
        self.tell_left_out(left_out);
        self.fleets.in_force = members;
        Ok(())
    }

    /// Tells of accounts that can't be covered, each once.
    pub(super) fn tell_left_out(&mut self, left_out: Vec<LeftOut>) {
        for told in left_out.iter().filter(|told| !self.fleets.left_out.contains(told)) {
            warn!(fleet = %told.fleet, account = %told.account, "the account can't be covered: {}", told.why);
        }
        self.fleets.left_out = left_out;
    }

    /// Shows how it stands with the fleets.
    fn show_fleets(&self) {
        let summaries = self.written.fleets.iter().filter_map(|(name, block)| {
            let (roll, listing) = (self.fleets.rolls.get(name)?, self.fleets.listings.get(&block.terms.organization));
            let left_out = self.fleets.left_out.iter().filter(|left_out| left_out.fleet == *name).count();
            Some(FleetSummary {
                left_out: u64::try_from(left_out).unwrap_or(u64::MAX),
                listed_at: listing.map_or(At::UNKNOWN, |listing| listing.succeeded_at),
                failing: listing.and_then(|listing| listing.failed),
                ..FleetSummary::new(name, roll)
            })
        });
        self.surroundings.board.fleets(summaries.collect());
    }
}

fn tell(fleet: &Arc<str>, change: &rotation::Change, by: &str) {
    for account in &change.come {
        info!(%fleet, %account, "the account is covered from now on");
    }
    for account in &change.gone {
        info!(%fleet, %account, by, "the account is gone");
    }
}
