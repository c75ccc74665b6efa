//! `/_stand-in/`: steering and looking, over HTTP.

use axum::http::Method;
use jiff::SignedDuration;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::api::Reply;
use super::fault::duration;
use super::{Core, Fault, Misbehaviour};
use crate::rotation::Fingerprint;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct Shift {
    offset_seconds: i64,
    date_offset_seconds: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    username: String,
    #[serde(default)]
    roles: Vec<String>,
    /// A human, not a service account.
    #[serde(default)]
    human: bool,
}

/// Adds a fault; closing the port takes effect at once.
pub(super) fn misbehave(core: &Core, fault: Fault) {
    match fault.misbehaviour {
        Misbehaviour::Refuse {} => core.doors.close_for(duration(fault.seconds.unwrap_or_default())),
        _ => core.faults.add(fault),
    }
}

/// Clears all faults and opens the port.
pub(super) fn behave(core: &Core) {
    core.faults.clear();
    core.doors.reopen();
}

pub(super) fn answer(
    core: &Core,
    method: &Method,
    path: &str,
    query: Option<&str>,
    bearer: Option<Fingerprint>,
    body: &[u8],
) -> Reply {
    let result = match (method.as_str(), path) {
        ("GET", "state") => serialize(&core.world().view(core.time.now())),
        ("GET", "validate") => return validate(core, bearer),
        ("GET", "log") => {
            let after = query.and_then(|query| query.strip_prefix("after=")).and_then(|number| number.parse().ok()).unwrap_or(0);
            serialize(&core.world().log.after(after))
        }
        ("GET", "faults") => serialize(&core.faults.list()),
        ("POST", "faults") => parse(body).map(|fault| {
            misbehave(core, fault);
            json!({})
        }),
        ("DELETE", "faults") => {
            behave(core);
            Ok(json!({}))
        }
        ("GET", "character") => serialize(&core.world().character),
        ("PATCH", "character") => change_character(core, body),
        ("PATCH", "time") => parse(body).map(|shift: Shift| {
            core.time
                .shift(SignedDuration::from_secs(shift.offset_seconds), SignedDuration::from_secs(shift.date_offset_seconds));
            json!({ "time": core.time.now() })
        }),
        ("POST", "users") => parse(body).and_then(|user: NewUser| {
            let added = core.world().add_user(&user.username, !user.human, &user.roles);
            added.map(|()| json!({ "username": user.username })).map_err(|error| error.message)
        }),
        _ => return Reply::text(404, "text/plain", "no such part of the stand-in"),
    };
    match result {
        Ok(value) => Reply::json(200, value),
        Err(message) => Reply::error(400, "BAD_REQUEST", &message),
    }
}

/// Whether the bearer would be let in, as a consumer of the token would find out.
fn validate(core: &Core, bearer: Option<Fingerprint>) -> Reply {
    let now = core.time.now();
    let mut world = core.world();
    match bearer.and_then(|bearer| world.use_token(&bearer, now)) {
        Some(caller) => Reply::json(200, json!({ "username": caller.username, "token_type": caller.token_type })),
        None => Reply::error(401, "UNAUTHORIZED", "Invalid Credentials"),
    }
}

/// Changes the keys that are given.
fn change_character(core: &Core, body: &[u8]) -> Result<Value, String> {
    let mut world = core.world();
    let changes: serde_json::Map<String, Value> = parse(body)?;
    let mut character = serialize(&world.character)?;
    if let Some(character) = character.as_object_mut() {
        character.extend(changes);
    }
    world.character = serde_json::from_value(character.clone()).map_err(|error| error.to_string())?;
    Ok(character)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn serialize(value: &impl serde::Serialize) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|error| error.to_string())
}
