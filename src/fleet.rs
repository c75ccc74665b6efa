//! The configured fleet: from the configuration to what the engine works with.

pub mod rolls;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;

use crate::clock::Clock;
use crate::config::{AdminToken, Config, Credential, Organization, Sink, Target};
use crate::engine::{Member, Providers, Roster};
use crate::metrics::Metrics;
use crate::motherduck::{self, AdminSource, Client, Provider, TimeLimits, TokenPlace};
use crate::rotation::{Account, CredentialName, Failed, Owner, Reason, WordError};
use crate::secret::Secret;
use crate::sinks::{Place, Places, Question, aws, file, vault};
use crate::snapshot::{Board, OrganizationIndex};

/// How many accounts a new admin token lists beside its own before it is trusted: the role holds for all of an organization.
const PROVEN_BY_MAX: usize = 20;

/// A sink that is ready to be used by all of its places.
#[derive(Clone)]
enum Store {
    Aws(Arc<aws::Store>),
    File(Arc<file::Sink>),
    Vault(Arc<vault::Store>),
}

impl Store {
    async fn open(sink: &Sink) -> Result<Self, Failed> {
        Ok(match sink {
            Sink::Aws(config) => Self::Aws(aws::Store::new(config.as_ref().clone())?),
            Sink::File(config) => Self::File(file::Sink::new(config)),
            Sink::Vault(config) => Self::Vault(vault::Store::open(config.as_ref().clone()).await?),
        })
    }

    fn place(&self, target: &Target) -> Result<Arc<dyn Place>, Failed> {
        Ok(match (self, target) {
            (Self::Aws(store), Target::Aws(target)) => aws::place(store, target),
            (Self::File(sink), Target::File(target)) => Arc::new(sink.place(target.clone())?),
            (Self::Vault(store), Target::Vault(target)) => store.place(target.clone())?,
            (Self::Aws(_) | Self::File(_) | Self::Vault(_), _) => {
                return Err(Failed::new(Reason::Unsuitable, "the delivery is not of its sink's kind"));
            }
        })
    }
}

/// What a fleet needs of the process.
#[derive(Clone)]
pub struct Surroundings {
    pub clock: Arc<Clock>,
    pub metrics: Arc<Metrics>,
    pub board: Arc<Board>,
}

/// One configuration, with its sinks and clients ready.
pub struct Fleet {
    config: Arc<Config>,
    stores: BTreeMap<Arc<str>, Store>,
    providers: Providers,
    clients: BTreeMap<Arc<str>, Arc<Client>>,
    organizations: BTreeMap<Arc<str>, OrganizationIndex>,
    sweep_every: BTreeMap<Arc<str>, SignedDuration>,
}

impl Fleet {
    /// Makes ready what `config` names; what did not change is taken over from `before`. Nothing is sent.
    ///
    /// # Errors
    /// The first thing that can't be used: a certificate file, an address.
    pub async fn open(config: Arc<Config>, surroundings: &Surroundings, before: Option<&Self>) -> Result<Self, Failed> {
        let mut stores = BTreeMap::new();
        for (name, sink) in &config.sinks {
            let kept =
                before.filter(|before| before.config.sinks.get(name) == Some(sink)).and_then(|before| before.stores.get(name));
            let store = match kept {
                Some(store) => store.clone(),
                None => Store::open(sink).await.map_err(|failed| in_section("sink", name, &failed))?,
            };
            stores.insert(name.clone(), store);
        }
        let mut clients = BTreeMap::new();
        for (name, organization) in &config.organizations {
            let unchanged = |before: &&Self| {
                let sinks = !organization.is_read_from_a_sink() || before.config.sinks == config.sinks;
                before.config.organizations.get(name) == Some(organization) && sinks
            };
            let client = match before.filter(unchanged).and_then(|before| before.clients.get(name)) {
                Some(client) => client.clone(),
                None => {
                    let client = admin_source(&config, name, organization, &stores)
                        .and_then(|admin| client(name, organization, admin, surroundings));
                    Arc::new(client.map_err(|failed| in_section("organization", name, &failed))?)
                }
            };
            clients.insert(name.clone(), client);
        }
        let providers = clients.iter().map(|(name, client)| (name.clone(), client.clone() as Arc<dyn Provider>)).collect();
        let organizations =
            config.organizations.keys().map(|name| (name.clone(), surroundings.board.organization(name))).collect();
        let mut fleet =
            Self { sweep_every: BTreeMap::new(), config, stores, providers: Arc::new(providers), clients, organizations };
        let sizes = fleet.sizes();
        fleet.sweep_every = fleet
            .config
            .organizations
            .iter()
            .map(|(name, organization)| (name.clone(), organization.sweep_every(sizes.get(name).copied().unwrap_or(0))))
            .collect();
        fleet.prove_places()?;
        Ok(fleet)
    }

    /// Every delivery can be built, so that none is ever left out of a turn.
    fn prove_places(&self) -> Result<(), Failed> {
        self.config
            .credentials
            .keys()
            .try_for_each(|name| self.places(name).map(drop).map_err(|failed| in_section("credential", name.as_str(), &failed)))
    }

    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    pub fn clients(&self) -> &BTreeMap<Arc<str>, Arc<Client>> {
        &self.clients
    }

    /// Accounts that a new admin token must be let to list: its own, and some of the organization's.
    fn accounts(&self, admin: &Credential) -> Vec<Account> {
        let mut accounts = vec![admin.account.clone()];
        for credential in self.config.credentials.values().filter(|other| other.terms.organization == admin.terms.organization) {
            if accounts.len() > PROVEN_BY_MAX {
                break;
            }
            if !accounts.contains(&credential.account) {
                accounts.push(credential.account.clone());
            }
        }
        accounts
    }

    fn places(&self, name: &CredentialName) -> Result<Places, Failed> {
        let Some(credential) = self.config.credentials.get(name) else { return Ok(Vec::new()) };
        let place = |delivery: &crate::config::Delivery| match self.stores.get(&delivery.sink) {
            Some(store) => store.place(&delivery.target),
            None => Err(Failed::new(Reason::Missing, format!("sink `{}` is not configured", delivery.sink))),
        };
        credential.deliveries.iter().map(place).collect()
    }
}

impl Roster for Fleet {
    fn names(&self) -> Vec<CredentialName> {
        self.config.credentials.keys().cloned().collect()
    }

    fn member(&self, name: &CredentialName) -> Option<Member> {
        let credential = self.config.credentials.get(name)?;
        // Proven when the fleet was opened.
        let places = self.places(name).ok()?;
        let ids: Vec<_> = places.iter().map(|place| (place.id().clone(), place.write_limit())).collect();
        let owner = Owner { deployment: self.config.deployment.clone(), credential: name.clone() };
        let organization = &credential.terms.organization;
        let sweep_every = *self.sweep_every.get(organization)?;
        let can_connect = self.config.organizations.get(organization).is_some_and(|organization| organization.postgres.is_some());
        let mut policy = credential.policy(owner, self.config.limits.tokens_per_credential, &ids, sweep_every, can_connect);
        policy.account_is_kept = self.config.keeps(organization, &credential.account);
        let organization = *self.organizations.get(organization)?;
        let proves_by = if credential.is_admin { self.accounts(credential) } else { Vec::new() };
        Some(Member { policy, places, providers: self.providers.clone(), organization, proves_by, due_at: None })
    }

    fn is_told_of(&self, name: &CredentialName, part: &str) -> bool {
        let Some(credential) = self.config.credentials.get(name) else { return false };
        let is_label = |(key, value): (&String, &String)| format!("{key}={value}").to_lowercase().contains(part);
        credential.account.as_str().to_lowercase().contains(part) || credential.terms.labels.iter().any(is_label)
    }

    fn sizes(&self) -> BTreeMap<Arc<str>, usize> {
        let mut sizes = BTreeMap::new();
        for credential in self.config.credentials.values() {
            *sizes.entry(credential.terms.organization.clone()).or_insert(0) += 1;
        }
        sizes
    }
}

/// An admin token in a sink, read through the sink's own client.
struct AdminPlace {
    place: Arc<dyn Place>,
    question: Question,
}

#[async_trait]
impl TokenPlace for AdminPlace {
    async fn read(&self) -> Result<Secret, Failed> {
        let reading = self.place.read(&self.question).await?;
        reading.value.ok_or_else(|| {
            let detail = format!("the admin token's place `{}` holds no token; put it there", self.place.id());
            Failed::new(Reason::Unauthorized, detail)
        })
    }
}

fn admin_source(
    config: &Config,
    name: &Arc<str>,
    organization: &Organization,
    stores: &BTreeMap<Arc<str>, Store>,
) -> Result<AdminSource, Failed> {
    let delivery = match &organization.admin_token {
        AdminToken::Secret(source) => return Ok(AdminSource::Secret(source.clone())),
        AdminToken::Place(delivery) => delivery,
    };
    let no_sink = || Failed::new(Reason::Missing, format!("sink `{}` is not configured", delivery.sink));
    let place = stores.get(&delivery.sink).ok_or_else(no_sink)?.place(&delivery.target)?;
    // Only whose a marker is depends on the owner, and here nobody asks.
    let credential = format!("admin-{name}").parse().or_else(|_| "admin".parse());
    let credential = credential.map_err(|error: WordError| Failed::new(Reason::Unsuitable, error.to_string()))?;
    let owner = Owner { deployment: config.deployment.clone(), credential };
    Ok(AdminSource::Place(Arc::new(AdminPlace { place, question: Question { owner, candidates: Vec::new() } })))
}

fn client(
    name: &Arc<str>,
    organization: &Organization,
    admin_token: AdminSource,
    surroundings: &Surroundings,
) -> Result<Client, Failed> {
    Client::new(motherduck::Options {
        organization: name.clone(),
        api_url: organization.api_url.clone(),
        admin_token,
        postgres: organization.postgres.clone(),
        limits: motherduck::Limits {
            requests_per_second: Some(organization.requests_per_second),
            max_in_flight: NonZeroUsize::new(organization.max_in_flight.get() as usize),
        },
        time_limits: TimeLimits::default(),
        clock: surroundings.clock.clone(),
        observer: surroundings.metrics.clone(),
    })
}

fn in_section(section: &str, name: &str, failed: &Failed) -> Failed {
    Failed::new(failed.reason, format!("[{section}.{name}]: {failed}"))
}
