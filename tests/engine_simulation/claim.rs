//! What one turn sees: made by the roster for each turn, shared by the provider and the places that
//! the turn is given, so that what was looked at under one claim is known to whoever judges.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rotad::clock::Clock;
use rotad::engine::{Member, Providers, Roster};
use rotad::motherduck::Provider;
use rotad::rotation::{CredentialName, DeliveryId, Policy, RotationId};
use rotad::sinks::Place as PlaceTrait;
use rotad::snapshot::{Board, OrganizationIndex};
use tokio::time::sleep;

use super::api::SimProvider;
use super::journal::index_of;
use super::matrix::{Fault, Step};
use super::places::SimPlace;
use super::setup::ORGANIZATIONS;
use super::world::{Life, Met, Sim};
use crate::simulator::oracle::Look;
use crate::simulator::world::Ms;

/// What was seen under a claim.
#[derive(Debug, Default)]
pub struct Seen {
    pub looks: BTreeMap<DeliveryId, Look>,
    pub numbers: BTreeMap<DeliveryId, u64>,
    pub wrote: BTreeSet<DeliveryId>,
    pub listed: bool,
    /// The list was another organization's.
    pub wrongly_listed: bool,
    /// It was another organization's, and nobody can have noticed yet: the admin token was replaced while the call was on its way.
    pub unnoticed: bool,
    /// Values that the turn read.
    pub held: BTreeMap<RotationId, usize>,
    /// A token was issued, and is to be verified.
    pub unverified: bool,
}

pub struct Claim {
    pub sim: Arc<Sim>,
    pub life: Arc<Life>,
    pub clock: Arc<Clock>,
    pub credential: usize,
    pub policy: Arc<Policy>,
    pub seen: Mutex<Seen>,
}

impl Claim {
    /// A call begins. Ends here where the process does.
    pub async fn enter(&self, step: Step) -> Met {
        self.life.gate().await;
        let met = {
            let mut world = self.sim.world();
            let met = world.meet(step, self.credential);
            if met.fault == Some(Fault::CrashBefore) {
                world.crash();
            }
            met
        };
        self.life.gate().await;
        met
    }

    /// A call's answer arrived, unless the process ended before.
    pub async fn leave(&self, met: &Met) {
        self.life.gate().await;
        if met.fault == Some(Fault::CrashAfter) {
            self.sim.world().crash();
            self.life.gate().await;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // One that only compared the clocks read no place.
        let was_a_turn = !self.seen.get_mut().unwrap().looks.is_empty();
        // A panic while the world was locked has poisoned it, and ends the history anyway.
        if was_a_turn && !std::thread::panicking() {
            self.sim.world().actors[self.credential].step = Step::Idle;
        }
    }
}

pub async fn wait(ms: Ms) {
    sleep(Duration::from_millis(ms.max(0) as u64)).await;
}

/// One configuration in force, for one process.
pub struct SimRoster {
    pub sim: Arc<Sim>,
    pub life: Arc<Life>,
    pub clock: Arc<Clock>,
    pub policies: BTreeMap<CredentialName, Arc<Policy>>,
    organizations: BTreeMap<Arc<str>, OrganizationIndex>,
}

impl SimRoster {
    /// The configuration as it is now.
    pub fn now(sim: &Arc<Sim>, life: &Arc<Life>, clock: &Arc<Clock>, board: &Board) -> Arc<Self> {
        let world = sim.world();
        let configured = world.actors.iter().filter(|actor| actor.configured);
        let policies = configured.map(|actor| (actor.policy.owner.credential.clone(), actor.policy.clone())).collect();
        drop(world);
        let organizations = ORGANIZATIONS.iter().map(|name| (Arc::from(*name), board.organization(name))).collect();
        Arc::new(Self { sim: sim.clone(), life: life.clone(), clock: clock.clone(), policies, organizations })
    }
}

impl Roster for SimRoster {
    fn is_told_of(&self, _: &CredentialName, _: &str) -> bool {
        false // nobody searches here
    }

    fn names(&self) -> Vec<CredentialName> {
        self.policies.keys().cloned().collect()
    }

    fn member(&self, name: &CredentialName) -> Option<Member> {
        let policy = self.policies.get(name)?.clone();
        self.sim.world().actors[index_of(name)].next_policy = policy.clone();
        let claim = Arc::new(Claim {
            sim: self.sim.clone(),
            life: self.life.clone(),
            clock: self.clock.clone(),
            credential: index_of(name),
            policy: policy.clone(),
            seen: Mutex::default(),
        });
        let provider = |(index, organization): (usize, &&str)| -> (Arc<str>, Arc<dyn Provider>) {
            (Arc::from(*organization), Arc::new(SimProvider { claim: claim.clone(), organization: index }))
        };
        let providers: Providers = Arc::new(ORGANIZATIONS.iter().enumerate().map(provider).collect());
        let place = |id: &DeliveryId| Arc::new(SimPlace::new(claim.clone(), id)) as Arc<dyn PlaceTrait>;
        let places = policy.deliveries.keys().map(place).collect();
        let organization = *self.organizations.get(&policy.organization)?;
        Some(Member { policy: (*policy).clone(), places, providers, organization, proves_by: Vec::new(), due_at: None })
    }

    fn sizes(&self) -> BTreeMap<Arc<str>, usize> {
        let mut sizes = BTreeMap::new();
        for policy in self.policies.values() {
            *sizes.entry(policy.organization.clone()).or_insert(0) += 1;
        }
        sizes
    }
}
