//! A local stand-in for MotherDuck's REST API, for `rotad demo` and the tests; not in a production build.
//!
//! It follows the API's contract as known (`tests/motherduck/openapi.yaml`, held to it by
//! `tests/contract.rs`), keeps users, tokens, expiry and revocation, takes either side of each
//! question that the contract leaves open ([`Character`]), misbehaves on demand ([`Fault`]) and
//! records what it did ([`Record`]). It keeps no token's value, only its SHA-256.
//!
//! Beside the API, on the same port and without authorisation, `/_stand-in/` steers it:
//!
//! | method and path | does |
//! |---|---|
//! | `GET /_stand-in/state` | users and live tokens with fingerprints |
//! | `GET /_stand-in/validate` | 200 if the bearer is a live token, else 401 |
//! | `GET /_stand-in/log?after=N` | the records after sequence number N |
//! | `GET`, `POST`, `DELETE /_stand-in/faults` | shows, adds and clears faults |
//! | `GET`, `PATCH /_stand-in/character` | shows and changes the character |
//! | `PATCH /_stand-in/time` | sets `offset_seconds` and `date_offset_seconds` |
//! | `POST /_stand-in/users` | creates a user with any roles |

mod api;
mod carry_out;
mod character;
mod cli;
mod control;
mod fault;
mod listen;
mod record;
mod route;
mod state;
mod time;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::SignedDuration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::secret::Secret;

pub use character::{Character, CursorEnd, DuplicateName, RevokeAnswer, TimeFormat};
pub use cli::{Arguments, run_cli};
pub use fault::{Fault, Misbehaviour, RetryAfter};
pub use record::Record;
pub use route::Operation;
pub use state::{State, TokenView, UserView};

use fault::Faults;
use listen::Doors;
use record::Log;
use state::World;
use time::Time;

/// The user whose token administers the organization.
pub const ADMIN: &str = "admin";

/// How a stand-in starts.
pub struct Options {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The value that is accepted as an Admin's token.
    pub admin_token: Secret,
    /// When the admin token expires; `None` for never.
    pub admin_token_ttl: Option<SignedDuration>,
    /// Service accounts that exist from the start.
    pub accounts: Vec<String>,
    pub character: Character,
    /// Where records are appended as JSON lines.
    pub log: Option<PathBuf>,
    /// One of its own: a clock that listens to the stand-in's `Date` would follow itself.
    pub clock: Arc<Clock>,
    /// The stand-in's time runs this many times as fast as the clock.
    pub speed: u32,
}

impl Options {
    /// On a free port of loopback, without accounts, at the clock's own speed.
    pub fn new(admin_token: Secret) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin_token,
            admin_token_ttl: None,
            accounts: Vec::new(),
            character: Character::default(),
            log: None,
            clock: Arc::new(Clock::new()),
            speed: 1,
        }
    }
}

/// A running stand-in; it ends with [`Server::stop`], or with the process.
pub struct Server {
    pub address: SocketAddr,
    core: Arc<Core>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

/// What all requests share.
struct Core {
    world: Mutex<World>,
    faults: Faults,
    doors: Doors,
    time: Time,
}

impl Core {
    /// The one lock around users, tokens and the log: what is recorded is in the order in which it took effect.
    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    pub async fn start(options: Options) -> std::io::Result<Self> {
        let Options { listen, admin_token, admin_token_ttl, accounts, character, log, clock, speed } = options;
        let time = Time::new(clock, speed);
        let mut world = World::new(character, Log::open(log.as_deref())?);
        world.add_admin(&admin_token, admin_token_ttl, time.now());
        for account in &accounts {
            world.add_user(account, true, &[]).map_err(|error| std::io::Error::other(error.message))?;
        }
        let (doors, listener) = Doors::open(listen)?;
        let address = doors.address();
        let core = Arc::new(Core { world: Mutex::new(world), faults: Faults::default(), doors, time });
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(listen::serve(listener, Arc::clone(&core), stopped));
        Ok(Self { address, core, stop: Some(stop), running })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it: requests under way get their answers, hanging ones are dropped.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // The receiver is only gone if the server has ended already.
            let _ = stop.send(());
        }
        drop((&mut self.running).await);
    }

    /// Adds a service account; an error says why its name is refused.
    pub fn add_account(&self, username: &str) -> Result<(), String> {
        self.core.world().add_user(username, true, &[]).map_err(|error| error.message)
    }

    /// From now on this and only this is the admin's token.
    pub fn replace_admin_token(&self, value: &Secret, ttl: Option<SignedDuration>) {
        self.core.world().add_admin(value, ttl, self.core.time.now());
    }

    pub fn character(&self) -> Character {
        self.core.world().character.clone()
    }

    pub fn set_character(&self, character: Character) {
        self.core.world().character = character;
    }

    pub fn misbehave(&self, fault: Fault) {
        control::misbehave(&self.core, fault);
    }

    pub fn behave(&self) {
        control::behave(&self.core);
    }

    /// How many faults still wait for their requests.
    pub fn faults_left(&self) -> usize {
        self.core.faults.list().len()
    }

    /// Moves the stand-in's time, and beside it the `Date` that it claims.
    pub fn shift_time(&self, offset: SignedDuration, date_offset: SignedDuration) {
        self.core.time.shift(offset, date_offset);
    }

    pub fn state(&self) -> State {
        self.core.world().view(self.core.time.now())
    }

    /// The records after sequence number `after`, oldest first.
    pub fn log(&self, after: u64) -> Vec<Record> {
        self.core.world().log.after(after)
    }

    /// Whether a value is a live token.
    pub fn is_live(&self, value: &Secret) -> bool {
        self.core.world().caller(&value.fingerprint(), self.core.time.now()).is_some()
    }
}
