//! The operations of the contract: what each checks, does and answers.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::Operation;
use super::api::{Asked, Reply};
use super::character::{CursorEnd, RevokeAnswer};
use super::record::Record;
use super::state::{Caller, Refusal, Token, World, new_value, random_id};
use super::{ADMIN, Core};
use crate::rotation::{Fingerprint, TokenType};

/// Names that MotherDuck keeps for itself (observed).
const RESERVED_NAMES: [&str; 2] = ["MotherDuck Extension", "MotherDuck Flights"];

/// What an operation did: its answer, and for the log what it was about.
struct Done {
    reply: Reply,
    effect: bool,
    token: Option<About>,
}

struct About {
    id: String,
    name: Option<String>,
    fingerprint: Option<Fingerprint>,
    expires_at: Option<Timestamp>,
}

impl Done {
    fn read(reply: Reply) -> Self {
        Self { reply, effect: false, token: None }
    }

    fn changed(reply: Reply) -> Self {
        Self { reply, effect: true, token: None }
    }
}

impl Core {
    /// Carries a request out and records it, in one go.
    pub(super) fn carry_out(&self, asked: &Asked, fault: Option<&str>) -> Reply {
        let mut world = self.world();
        let now = self.time.now();
        let caller = asked.bearer.and_then(|bearer| world.caller(&bearer, now));
        let done = perform(&mut world, asked, caller.as_ref(), now).unwrap_or_else(|refusal| {
            let mut reply = Reply::error(refusal.status, refusal.code, &refusal.message);
            if refusal.status == 403 {
                let issues = json!([{ "message": "minimum role org_admin is required" }]);
                reply = Reply::json(403, json!({ "message": refusal.message, "code": refusal.code, "issues": issues }));
            }
            Done::read(reply)
        });
        let Done { reply, effect, token } = done;
        self.record(&mut world, asked, caller, token, Some(reply.status), effect, fault);
        reply
    }

    /// Records a request that a fault kept from being carried out.
    pub(super) fn pass_over(&self, asked: &Asked, fault: &str) -> Option<Reply> {
        let mut world = self.world();
        let caller = asked.bearer.and_then(|bearer| world.caller(&bearer, self.time.now()));
        self.record(&mut world, asked, caller, None, None, false, Some(fault));
        None
    }

    #[expect(clippy::too_many_arguments, reason = "one line of the log has that many parts")]
    fn record(
        &self,
        world: &mut World,
        asked: &Asked,
        caller: Option<Caller>,
        token: Option<About>,
        status: Option<u16>,
        effect: bool,
        fault: Option<&str>,
    ) {
        let call = &asked.call;
        let sent_name = || {
            let body: Value = serde_json::from_slice(&asked.body).ok()?;
            body.get("name")?.as_str().map(str::to_owned)
        };
        let name = token.as_ref().and_then(|token| token.name.clone());
        world.log.add(Record {
            sequence: 0,
            at_ns: i64::try_from(self.time.wall().as_nanosecond()).unwrap_or(i64::MAX),
            time: self.time.now(),
            operation: call.operation,
            account: call.username.clone(),
            caller: caller.map(|caller| caller.username),
            token_id: token.as_ref().map(|token| token.id.clone()).or_else(|| call.token_id.clone()),
            token_name: name.or_else(|| if call.operation == Operation::CreateToken { sent_name() } else { None }),
            fingerprint: token.as_ref().and_then(|token| token.fingerprint),
            expires_at: token.as_ref().and_then(|token| token.expires_at),
            status,
            effect,
            fault: fault.map(str::to_owned),
        });
    }
}

/// Checks in the order of the real thing as far as it is known: rate, token, request, permission, existence.
fn perform(world: &mut World, asked: &Asked, caller: Option<&Caller>, now: Timestamp) -> Result<Done, Refusal> {
    within_rate(world)?;
    let caller = caller.ok_or(Refusal { status: 401, code: "UNAUTHORIZED", message: "Invalid Credentials".to_owned() })?;
    let call = &asked.call;
    let username = call.username.as_deref().unwrap_or_default();
    if username.chars().count() > 255 {
        return Err(Refusal::bad_request("username must have at most 255 characters"));
    }
    match call.operation {
        Operation::CreateUser => {
            let body = object(asked)?;
            let username = text(&body, "username", 255)?.ok_or_else(|| Refusal::bad_request("username is required"))?;
            allowed(world, call.operation, caller, None)?;
            world.add_user(&username, true, &[])?;
            Ok(Done::changed(Reply::json(200, json!({ "username": username }))))
        }
        Operation::ListUsers => list_users(world, asked, caller),
        Operation::DeleteUser => {
            allowed(world, call.operation, caller, Some(username))?;
            if username.to_lowercase() == ADMIN {
                return Err(Refusal { status: 403, code: "FORBIDDEN", message: "the admin can't be deleted".to_owned() });
            }
            let user = world.remove_user(username).ok_or_else(Refusal::not_found)?;
            Ok(Done::changed(Reply::json(200, json!({ "username": user.username }))))
        }
        Operation::CreateToken => create_token(world, asked, caller, username, now),
        Operation::ListTokens => {
            allowed(world, call.operation, caller, Some(username))?;
            list_tokens(world, username, call.query.get("page_token"), now)
        }
        Operation::RevokeToken => revoke_token(world, asked, caller, username, now),
        Operation::GetInstances => {
            allowed(world, call.operation, caller, Some(username))?;
            let user = world.user(username, now).ok_or_else(Refusal::not_found)?;
            Ok(Done::read(Reply::json(200, user.instances.clone())))
        }
        Operation::SetInstances => {
            let instances = instances(&object(asked)?)?;
            allowed(world, call.operation, caller, Some(username))?;
            let user = world.user(username, now).ok_or_else(Refusal::not_found)?;
            user.instances = instances.clone();
            Ok(Done::changed(Reply::json(200, instances)))
        }
        Operation::ActiveAccounts => {
            allowed(world, call.operation, caller, None)?;
            Ok(Done::read(Reply::json(200, world.active_accounts(now))))
        }
    }
}

fn within_rate(world: &mut World) -> Result<(), Refusal> {
    let Some(limit) = world.character.requests_per_second else { return Ok(()) };
    let now = Instant::now();
    let (start, count) = world.window.filter(|(start, _)| start.elapsed().as_secs() == 0).unwrap_or((now, 0));
    world.window = Some((start, count + 1));
    if count < limit {
        return Ok(());
    }
    Err(Refusal { status: 429, code: "TOO_MANY_REQUESTS", message: "too many requests".to_owned() })
}

/// Whether the caller may do this to `username`: an Admin anything, but tokens only for itself and
/// for service accounts; an account what its character allows with its own tokens.
fn allowed(world: &World, operation: Operation, caller: &Caller, username: Option<&str>) -> Result<(), Refusal> {
    let own = username.is_some_and(|username| username.to_lowercase() == caller.key);
    let character = &world.character;
    let has = |role: &str| caller.roles.iter().any(|one| one == role);
    let human = username.and_then(|username| world.known(username)).is_some_and(|user| !user.service_account);
    let may = match operation {
        _ if caller.token_type == TokenType::ReadScaling => false,
        Operation::CreateToken if human => own,
        Operation::ListUsers => has("admin") || has("builder") || has("explorer"),
        _ if has("admin") => true,
        Operation::CreateToken => own && character.member_creates,
        Operation::ListTokens => own && character.member_lists,
        Operation::RevokeToken => own && character.member_revokes,
        Operation::CreateUser
        | Operation::DeleteUser
        | Operation::GetInstances
        | Operation::SetInstances
        | Operation::ActiveAccounts => false,
    };
    if may { Ok(()) } else { Err(Refusal { status: 403, code: "FORBIDDEN", message: "Unauthorized".to_owned() }) }
}

fn list_users(world: &World, asked: &Asked, caller: &Caller) -> Result<Done, Refusal> {
    let query = &asked.call.query;
    let wrong = |name: &str| Refusal::bad_request(format!("{name} is not understood"));
    let limit = match query.get("limit").map(String::as_str) {
        None => 1000,
        // One beyond counting is a limit as good as none.
        Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().unwrap_or(usize::MAX),
        Some(_) => 0,
    };
    if limit == 0 {
        return Err(wrong("limit"));
    }
    let flag = |name: &str| match query.get(name).map(String::as_str) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(wrong(name)),
    };
    let (service, deprovisioned) = (flag("is_service_account")?, flag("is_deprovisioned")?);
    allowed(world, Operation::ListUsers, caller, None)?;
    let after = after(query.get("page_token"));
    // Nobody is ever deprovisioned here: a deleted user is gone.
    let users: Vec<_> = world
        .users()
        .into_iter()
        .filter(|user| service.is_none_or(|service| user.service_account == service) && deprovisioned != Some(true))
        .collect();
    let rest: Vec<_> = users.iter().filter(|user| user.sequence > after).collect();
    let next = rest.get(limit - 1).filter(|_| rest.len() > limit).map(|last| cursor(last.sequence));
    let page = rest.iter().take(limit).map(|user| {
        json!({
            "id": user.id,
            "username": user.username,
            "email": if user.service_account { Value::Null } else { format!("{}@example.invalid", user.username).into() },
            "first_name": null,
            "last_name": null,
            "is_service_account": user.service_account,
            "is_deprovisioned": false,
            "roles": user.roles,
        })
    });
    let page: Vec<Value> = page.collect();
    Ok(Done::read(Reply::json(200, json!({ "users": page, "total_count": users.len(), "next_page_token": next }))))
}

/// A cursor stays right while the list changes: it names the last one seen.
fn cursor(sequence: u64) -> String {
    format!("after-{sequence}")
}

/// What a cursor names; one that we did not make is the beginning.
fn after(cursor: Option<&String>) -> u64 {
    cursor.and_then(|cursor| cursor.strip_prefix("after-")?.parse().ok()).unwrap_or(0)
}

fn create_token(world: &mut World, asked: &Asked, caller: &Caller, username: &str, now: Timestamp) -> Result<Done, Refusal> {
    let body = object(asked)?;
    let character = world.character.clone();
    let name = text(&body, "name", 255)?.ok_or_else(|| Refusal::bad_request("name is required"))?;
    if RESERVED_NAMES.contains(&name.as_str()) || (!character.slash_in_names && name.contains('/')) {
        return Err(Refusal::bad_request("name is not allowed"));
    }
    let ttl = ttl(&body, character.textual_ttl, character.fractional_ttl)?.filter(|_| !character.drop_ttl);
    let token_type = match body.get("token_type").map(Value::as_str) {
        None | Some(Some("read_write")) => TokenType::ReadWrite,
        Some(Some("read_scaling")) if character.drop_token_type => TokenType::ReadWrite,
        Some(Some("read_scaling")) => TokenType::ReadScaling,
        Some(_) => return Err(Refusal::bad_request("token_type is not understood")),
    };
    let description = text(&body, "description", 1000)?.filter(|_| !character.drop_description);
    allowed(world, Operation::CreateToken, caller, Some(username))?;

    let user = world.user(username, now).ok_or_else(Refusal::not_found)?;
    let lives = |token: &&Token| token.revoked_at.is_none() || !character.dead_names_are_free;
    let taken = user.tokens.iter().filter(lives).any(|token| token.name == name)
        || (!character.dead_names_are_free && user.dead_names.contains(&name));
    if taken {
        return Err(character.duplicate_name.refusal("a token with this name already exists"));
    }
    if character.tokens_max.is_some_and(|limit| user.tokens.iter().filter(|token| token.revoked_at.is_none()).count() >= limit) {
        return Err(Refusal::bad_request("the account has too many tokens"));
    }
    let value = new_value(&user.username);
    let token = Token {
        sequence: world.next_sequence(),
        id: random_id(),
        name: name.clone(),
        created_at: now,
        expires_at: ttl.map(|ttl| now + ttl),
        token_type,
        description,
        fingerprint: value.fingerprint(),
        revoked_at: None,
    };
    let mut answer = token.json(&character);
    answer["token"] = value.expose().into();
    let about = about(&token);
    world.insert_token(username, token);
    Ok(Done { reply: Reply::json(200, answer), effect: true, token: Some(about) })
}

fn about(token: &Token) -> About {
    About {
        id: token.id.to_string(),
        name: Some(token.name.clone()),
        fingerprint: Some(token.fingerprint),
        expires_at: token.expires_at,
    }
}

fn list_tokens(world: &mut World, username: &str, page_token: Option<&String>, now: Timestamp) -> Result<Done, Refusal> {
    let character = world.character.clone();
    let user = world.user(username, now).ok_or_else(Refusal::not_found)?;
    let all: Vec<&Token> = user.tokens.iter().filter(|token| token.shows(now, &character)).collect();
    let Some(size) = character.page_size.map(|size| size.max(1)) else {
        let tokens: Vec<Value> = all.iter().map(|token| token.json(&character)).collect();
        return Ok(Done::read(Reply::json(200, json!({ "tokens": tokens }))));
    };
    let start = all.partition_point(|token| token.sequence <= after(page_token));
    if character.missing_page == Some(start / size) {
        return Err(Refusal { status: 500, code: "INTERNAL_SERVER_ERROR", message: "internal error".to_owned() });
    }
    let page = &all[start..all.len().min(start + size)];
    let mut answer = Map::new();
    answer.insert("tokens".to_owned(), page.iter().map(|token| token.json(&character)).collect());
    let is_last = start + size >= all.len();
    let last_of_first = all.get(size - 1);
    let next = match (is_last, page.last()) {
        (false, Some(last)) => Some(cursor(last.sequence).into()),
        _ if character.cursor_loop => last_of_first.map(|last| cursor(last.sequence).into()),
        _ => match character.cursor_end {
            CursorEnd::Absent => None,
            CursorEnd::Null => Some(Value::Null),
            CursorEnd::Empty => Some("".into()),
        },
    };
    if let Some(next) = next {
        answer.insert("next_page_token".to_owned(), next);
    }
    Ok(Done::read(Reply::json(200, answer.into())))
}

fn revoke_token(world: &mut World, asked: &Asked, caller: &Caller, username: &str, now: Timestamp) -> Result<Done, Refusal> {
    let id = asked.call.token_id.as_deref().unwrap_or_default();
    let id = Uuid::try_parse(id).map_err(|_| Refusal::bad_request("token_id is not a UUID"))?;
    allowed(world, Operation::RevokeToken, caller, Some(username))?;
    let character = world.character.clone();
    let reply = match character.revoke_answer {
        RevokeAnswer::EmptyObject => Reply::json(200, json!({})),
        RevokeAnswer::EmptyBody => Reply::empty(200),
        RevokeAnswer::NoContent => Reply::empty(204),
    };
    let user = world.user(username, now).ok_or_else(Refusal::not_found)?;
    if character.expired_id_revokes && user.expired_ids.contains(&id) {
        return Ok(Done::read(reply));
    }
    let token =
        user.tokens.iter_mut().find(|token| token.id == id && token.revoked_at.is_none()).ok_or_else(Refusal::not_found)?;
    token.revoked_at = Some(now);
    Ok(Done { reply, effect: true, token: Some(about(token)) })
}

/// The body as an object; fields that nobody knows stay in it and are ignored (observed).
fn object(asked: &Asked) -> Result<Map<String, Value>, Refusal> {
    if !asked.claims_json {
        return Err(Refusal::bad_request("the content type must be application/json"));
    }
    match serde_json::from_slice(&asked.body) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) | Err(_) => Err(Refusal::bad_request("the body must be a JSON object")),
    }
}

/// A text of 1 to `longest` characters, if it is there.
fn text(body: &Map<String, Value>, name: &str, longest: usize) -> Result<Option<String>, Refusal> {
    match body.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=longest).contains(&text.chars().count()) => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::bad_request(format!("{name} must be a text of 1 to {longest} characters"))),
    }
}

/// The lifetime: 300 s to 365 days, whole unless fractions are taken.
fn ttl(body: &Map<String, Value>, textual: bool, fractional: bool) -> Result<Option<SignedDuration>, Refusal> {
    let seconds = match body.get("ttl") {
        None => return Ok(None),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) if textual => text.parse::<f64>().ok(),
        Some(_) => None,
    };
    let wrong = || Refusal::bad_request("ttl must be a whole number of seconds from 300 to 31536000");
    let seconds = seconds.filter(|seconds| (300.0..=31_536_000.0).contains(seconds) && (fractional || seconds.fract() == 0.0));
    let whole = SignedDuration::try_from_secs_f64(seconds.ok_or_else(wrong)?.trunc()).map_err(|_| wrong())?;
    Ok(Some(whole))
}

/// The configuration in `config`, both halves of it, reduced to the fields of the contract.
fn instances(body: &Map<String, Value>) -> Result<Value, Refusal> {
    let half = |name: &str| {
        let half = body.get("config").and_then(|config| config.get(name)).and_then(Value::as_object);
        half.ok_or_else(|| Refusal::bad_request(format!("config.{name} is required")))
    };
    let read_scaling = half("read_scaling")?;
    let flock_size = whole(read_scaling, "flock_size", 0, 64)?.ok_or_else(|| Refusal::bad_request("flock_size is required"))?;
    let mut scaling = instance(read_scaling)?;
    scaling["flock_size"] = flock_size.into();
    Ok(json!({ "read_write": instance(half("read_write")?)?, "read_scaling": scaling }))
}

fn instance(half: &Map<String, Value>) -> Result<Value, Refusal> {
    let size = half.get("instance_size").and_then(Value::as_str);
    let size = size.filter(|size| ["pulse", "standard", "jumbo", "mega", "giga"].contains(size));
    let size = size.ok_or_else(|| Refusal::bad_request("instance_size is not understood"))?;
    let mut instance = json!({ "instance_size": size });
    if let Some(cooldown) = whole(half, "cooldown_seconds", 60, 86_400)? {
        if size == "pulse" {
            return Err(Refusal::bad_request("cooldown_seconds cannot be set for Pulse instances"));
        }
        instance["cooldown_seconds"] = cooldown.into();
    }
    Ok(instance)
}

/// A whole number within limits, if it is there; `60.0` is one.
fn whole(half: &Map<String, Value>, name: &str, least: u32, most: u32) -> Result<Option<u32>, Refusal> {
    let Some(value) = half.get(name) else { return Ok(None) };
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && (f64::from(least)..=f64::from(most)).contains(number));
    // The limits make this exact.
    let number = number.map(|number| number as u32);
    number.map(Some).ok_or_else(|| Refusal::bad_request(format!("{name} must be a whole number from {least} to {most}")))
}
