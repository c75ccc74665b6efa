//! What the stand-in knows: users and their tokens. No token's value, only its SHA-256.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::ADMIN;
use super::character::Character;
use super::record::Log;
use crate::rotation::{Fingerprint, TokenType};
use crate::secret::Secret;

/// How long after its last use an instance counts as running, and how long as cooling down after that.
const ACTIVE: SignedDuration = SignedDuration::from_mins(1);
const COOLDOWN: SignedDuration = SignedDuration::from_mins(5);

/// Why the stand-in refuses something: an answer of the API.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub status: u16,
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self { status: 400, code: "BAD_REQUEST", message: message.into() }
    }

    pub(super) fn not_found() -> Self {
        Self { status: 404, code: "NOT_FOUND", message: "entity not found".to_owned() }
    }

    pub(super) fn conflict(message: &str) -> Self {
        Self { status: 409, code: "CONFLICT", message: message.to_owned() }
    }
}

pub(super) struct User {
    pub sequence: u64,
    pub id: Uuid,
    pub username: String,
    pub service_account: bool,
    pub roles: Vec<String>,
    pub instances: Value,
    /// In the order of their creation.
    pub tokens: Vec<Token>,
    /// Names that are taken though their tokens are dead.
    pub dead_names: BTreeSet<String>,
    pub expired_ids: BTreeSet<Uuid>,
    pub used_at: Option<(Timestamp, TokenType)>,
    /// Whether a consumer ever came in with a read/write token.
    pub connected: bool,
}

pub(super) struct Token {
    pub sequence: u64,
    pub id: Uuid,
    pub name: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub token_type: TokenType,
    pub description: Option<String>,
    pub fingerprint: Fingerprint,
    pub revoked_at: Option<Timestamp>,
}

impl Token {
    fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether it lets its bearer in.
    fn works(&self, now: Timestamp, character: &Character) -> bool {
        let revoked = self.revoked_at.is_some_and(|at| at + millis(character.revocation_delay_ms) <= now);
        !revoked && !self.is_expired(now)
    }

    /// Whether lists show it.
    pub(super) fn shows(&self, now: Timestamp, character: &Character) -> bool {
        let lags = now < self.created_at + millis(character.list_lag_ms);
        let lingers = self.revoked_at.is_none_or(|at| now < at + millis(character.list_linger_ms));
        !lags && lingers && !self.is_expired(now)
    }

    pub(super) fn json(&self, character: &Character) -> Value {
        let time = |moment| Value::from(character.time_format.write(moment));
        let mut token = json!({
            "id": self.id,
            "name": self.name,
            "created_ts": time(self.created_at),
            "read_only": self.token_type == TokenType::ReadScaling,
            "token_type": self.token_type,
        });
        if let Some(expires_at) = self.expires_at {
            token["expire_at"] = time(expires_at);
        }
        if let Some(description) = &self.description {
            token["description"] = description.as_str().into();
        }
        token
    }
}

fn millis(count: u64) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(count.min(1 << 40)).unwrap_or(0))
}

/// Who asks, as its token tells.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Folded, as users are kept.
    pub key: String,
    pub username: String,
    pub roles: Vec<String>,
    pub token_type: TokenType,
}

pub(super) struct World {
    pub character: Character,
    pub log: Log,
    /// By username without case.
    users: BTreeMap<String, User>,
    by_value: HashMap<Fingerprint, (String, Uuid)>,
    sequence: u64,
    /// The second being counted for the rate limit, and its requests.
    pub window: Option<(Instant, u32)>,
}

impl World {
    pub(super) fn new(character: Character, log: Log) -> Self {
        Self { character, log, users: BTreeMap::new(), by_value: HashMap::new(), sequence: 0, window: None }
    }

    pub(super) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Gives the admin this token and no other.
    pub(super) fn add_admin(&mut self, value: &Secret, ttl: Option<SignedDuration>, now: Timestamp) {
        let sequence = self.next_sequence();
        if !self.users.contains_key(ADMIN) {
            self.insert_user(ADMIN, false, vec!["admin".to_owned()]);
        }
        let token = Token {
            sequence,
            id: random_id(),
            name: format!("admin-{sequence}"),
            created_at: now,
            expires_at: ttl.map(|ttl| now + ttl),
            token_type: TokenType::ReadWrite,
            description: None,
            fingerprint: value.fingerprint(),
            revoked_at: None,
        };
        if let Some(admin) = self.users.get_mut(ADMIN) {
            admin.tokens.clear();
        }
        self.by_value.retain(|_, (key, _)| key != ADMIN);
        self.insert_token(ADMIN, token);
    }

    /// Adds a user under the contract's rules for usernames.
    pub(super) fn add_user(&mut self, username: &str, service_account: bool, roles: &[String]) -> Result<(), Refusal> {
        let mut characters = username.chars();
        let first_fits = characters.next().is_some_and(char::is_alphabetic);
        if !first_fits || !characters.all(|c| c.is_alphabetic() || c.is_ascii_digit() || c == '_') {
            return Err(Refusal::bad_request("username must start with a letter and hold letters, digits and underscores only"));
        }
        if !(3..=255).contains(&username.chars().count()) {
            return Err(Refusal::bad_request("username must have 3 to 255 characters"));
        }
        if self.users.contains_key(&username.to_lowercase()) {
            return Err(self.character.duplicate_name.refusal("a user with this username already exists"));
        }
        let roles = if roles.is_empty() { vec!["member".to_owned()] } else { roles.to_vec() };
        self.insert_user(username, service_account, roles);
        Ok(())
    }

    fn insert_user(&mut self, username: &str, service_account: bool, roles: Vec<String>) {
        let user = User {
            sequence: self.next_sequence(),
            id: random_id(),
            username: username.to_owned(),
            service_account,
            roles,
            instances: json!({
                "read_write": { "instance_size": "standard", "cooldown_seconds": 60 },
                "read_scaling": { "instance_size": "standard", "flock_size": 4, "cooldown_seconds": 60 },
            }),
            tokens: Vec::new(),
            dead_names: BTreeSet::new(),
            expired_ids: BTreeSet::new(),
            used_at: None,
            connected: false,
        };
        self.users.insert(username.to_lowercase(), user);
    }

    pub(super) fn remove_user(&mut self, username: &str) -> Option<User> {
        let key = username.to_lowercase();
        self.by_value.retain(|_, (owner, _)| *owner != key);
        self.users.remove(&key)
    }

    pub(super) fn insert_token(&mut self, username: &str, token: Token) {
        let key = username.to_lowercase();
        if let Some(user) = self.users.get_mut(&key) {
            self.by_value.insert(token.fingerprint, (key, token.id));
            user.tokens.push(token);
        }
    }

    /// In the order of their creation.
    pub(super) fn users(&self) -> Vec<&User> {
        let mut users: Vec<&User> = self.users.values().collect();
        users.sort_by_key(|user| user.sequence);
        users
    }

    pub(super) fn known(&self, username: &str) -> Option<&User> {
        self.users.get(&username.to_lowercase())
    }

    /// The user with its dead tokens laid to rest.
    pub(super) fn user(&mut self, username: &str, now: Timestamp) -> Option<&mut User> {
        let user = self.users.get_mut(&username.to_lowercase())?;
        let character = &self.character;
        for dead in user.tokens.extract_if(.., |token| !token.works(now, character) && !token.shows(now, character)) {
            if dead.revoked_at.is_none() {
                user.expired_ids.insert(dead.id);
            }
            self.by_value.remove(&dead.fingerprint);
            user.dead_names.insert(dead.name);
        }
        Some(user)
    }

    pub(super) fn caller(&self, value: &Fingerprint, now: Timestamp) -> Option<Caller> {
        let (key, id) = self.by_value.get(value)?;
        let user = self.users.get(key)?;
        let token = user.tokens.iter().find(|token| token.id == *id && token.works(now, &self.character))?;
        let (username, roles) = (user.username.clone(), user.roles.clone());
        Some(Caller { key: key.clone(), username, roles, token_type: token.token_type })
    }

    /// Lets a consumer in: its account's instance runs from then on. With a read-scaling token only where one with a
    /// read/write token came before.
    pub(super) fn use_token(&mut self, value: &Fingerprint, now: Timestamp) -> Option<Caller> {
        let caller = self.caller(value, now)?;
        let user = self.users.get_mut(&caller.key)?;
        user.connected |= caller.token_type == TokenType::ReadWrite;
        if self.character.first_connection_needed && !user.connected {
            return None;
        }
        user.used_at = Some((now, caller.token_type));
        Some(caller)
    }

    /// The accounts with running instances, as the API shows them.
    pub(super) fn active_accounts(&self, now: Timestamp) -> Value {
        let running = self.users().into_iter().filter_map(|user| {
            let (used_at, token_type) = user.used_at?;
            let status = match now.duration_since(used_at) {
                passed if passed < ACTIVE => "active",
                passed if passed < COOLDOWN => "cooldown",
                _ => return None,
            };
            let id = if token_type == TokenType::ReadWrite { "rw" } else { "rs.0" };
            Some(json!({ "username": user.username, "ducklings": [{ "id": id, "type": token_type, "status": status }] }))
        });
        json!({ "accounts": running.collect::<Vec<_>>() })
    }

    pub(super) fn view(&self, now: Timestamp) -> State {
        let view = |token: &Token| TokenView {
            id: token.id.to_string(),
            name: token.name.clone(),
            created_at: token.created_at,
            expires_at: token.expires_at,
            token_type: token.token_type,
            fingerprint: token.fingerprint,
        };
        let live = |user: &User| user.tokens.iter().filter(|token| token.works(now, &self.character)).map(view).collect();
        let users = self.users().into_iter();
        State {
            time: now,
            users: users
                .map(|user| UserView {
                    username: user.username.clone(),
                    service_account: user.service_account,
                    roles: user.roles.clone(),
                    live_tokens: live(user),
                })
                .collect(),
        }
    }
}

/// What is so at one moment of the stand-in's time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub time: Timestamp,
    pub users: Vec<UserView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserView {
    pub username: String,
    pub service_account: bool,
    pub roles: Vec<String>,
    /// Those that let their bearer in, oldest first, whatever lists show.
    pub live_tokens: Vec<TokenView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenView {
    pub id: String,
    pub name: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub token_type: TokenType,
    /// SHA-256 of the value.
    pub fingerprint: Fingerprint,
}

impl State {
    /// The live tokens of one account; none if there is no such account.
    pub fn live_tokens(&self, username: &str) -> &[TokenView] {
        let user = self.users.iter().find(|user| user.username.to_lowercase() == username.to_lowercase());
        user.map_or(&[], |user| &user.live_tokens)
    }
}

/// The year 2100.
const CLAIMED_EXPIRY: i64 = 4_102_444_800;

/// A random UUID (version 4).
pub(super) fn random_id() -> Uuid {
    let mut bytes = [0_u8; 16];
    fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// A new value in the form of a JWT: three sections of base64url, the last of them random. What it
/// claims means nothing to the stand-in; `exp`, as far ahead as no test goes, is there for who shows it.
pub(super) fn new_value(username: &str) -> Secret {
    let mut signature = [0_u8; 64];
    fill(&mut signature);
    let claims = json!({ "iss": "stand-in", "sub": username, "jti": random_id(), "exp": CLAIMED_EXPIRY }).to_string();
    let sections = [br#"{"alg":"HS512","typ":"JWT"}"#.as_slice(), claims.as_bytes(), &signature];
    Secret::new(sections.map(base64_url).join("."))
}

/// Randomness of the kernel. Without it there can be no token that nobody can guess.
fn fill(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the kernel gives no random bytes: {error}"),
        }
    }
}

/// Base64 with the alphabet for URLs, without padding (RFC 4648, section 5).
fn base64_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().chain(&[0; 2]).take(3).fold(0_usize, |group, byte| group << 8 | usize::from(*byte));
        let letters = [18, 12, 6, 0].map(|shift| char::from(ALPHABET[group >> shift & 63]));
        text.extend(&letters[..=chunk.len()]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_look_like_jwts_and_differ() {
        assert_eq!(base64_url(b"{\"alg\":\"HS512\",\"typ\":\"JWT\"}"), "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9");
        assert_eq!(
            (base64_url(b"f"), base64_url(b"fo"), base64_url(b"foo")),
            ("Zg".to_owned(), "Zm8".to_owned(), "Zm9v".to_owned())
        );
        let (one, other) = (new_value("etl"), new_value("etl"));
        assert_ne!(one.fingerprint(), other.fingerprint());
        assert_eq!(one.expose().split('.').count(), 3);
    }
}
