//! `rotad support`: one JSON document to attach to a report, without a secret in it. Whatever can't be had is said in its
//! place, since a bundle is wanted most where something is broken.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Ended, Sight, block_on, detail, healthcheck, load_without_secrets, look, offline_fleet, say, status, with_members};
use crate::clock::Clock;
use crate::config::Config;
use crate::engine::Roster;
use crate::fleet::Fleet;
use crate::journal::Location;
use crate::rotation::CredentialName;
use crate::snapshot::Build;

/// How many of the newest steps of all credentials are in it.
const HISTORY: usize = 500;
/// Of how many credentials that need a person everything is told.
const TOLD_MAX: usize = 20;
/// Names by which rotad is known elsewhere: no secrets, and nobody's business either.
const LEFT_OUT: [&str; 2] = ["external_id", "role_id"];

pub fn run(path: &Path) -> Result<(), Ended> {
    let clock = Arc::new(Clock::new());
    let now = clock.now().wall;
    let mut bundle = json!({ "taken_at": now, "build": Build::THIS, "platform": platform() });
    match load_without_secrets(path) {
        Ok(config) => {
            bundle["configuration"] = configuration(path);
            bundle["warnings"] = config.warnings.iter().map(|warning| warning.message.clone()).collect();
            block_on(collect(&mut bundle, config, clock))?;
        }
        // The problems show no value that should not be shown.
        Err(Ended::Misused(problems)) => bundle["configuration"] = failed(problems),
        Err(Ended::Failed(error)) => bundle["configuration"] = failed(format!("{error:#}")),
    }
    say(&(serde_json::to_string_pretty(&bundle)? + "\n"));
    Ok(())
}

fn failed(why: impl Into<String>) -> Value {
    json!({ "failed": why.into() })
}

/// The value, or in its place why there is none.
fn or_failed<T: serde::Serialize>(outcome: anyhow::Result<T>) -> Value {
    let value = outcome.and_then(|found| Ok(serde_json::to_value(found)?));
    value.unwrap_or_else(|error| failed(format!("{error:#}")))
}

fn platform() -> Value {
    let system = rustix::system::uname();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"'));
    json!({
        "kernel": system.release().to_string_lossy(),
        "machine": system.machine().to_string_lossy(),
        "distribution": name,
        "processors": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
    })
}

/// The file's values, without its comments: those may hold anything. It was accepted, so no secret is inline.
fn configuration(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).map_err(anyhow::Error::from);
    let mut document = or_failed(text.and_then(|text| Ok(text.parse::<toml::Table>()?)));
    leave_out(&mut document);
    // Whoever knows such an address may send to it.
    if let Some(url @ Value::String(_)) = document.pointer_mut("/webhook/url") {
        *url = json!("(left out)");
    }
    document
}

fn leave_out(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                if LEFT_OUT.contains(&key.as_str()) {
                    *value = json!("(left out)");
                }
                leave_out(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

async fn collect(bundle: &mut Value, config: Config, clock: Arc<Clock>) {
    let listen = config.server.listen;
    for path in ["healthz", "readyz", "metrics"] {
        bundle[path] = or_failed(asked(listen, path).await);
    }
    let now = clock.now().wall;
    let fleet = async { offline_fleet(with_members(config).await?, clock).await };
    match fleet.await {
        Ok(fleet) => {
            bundle["journal"] = files(&fleet);
            match look(fleet.config()).await {
                Ok(sight) => recorded(bundle, &fleet, &sight, now).await,
                Err(error) => bundle["status"] = failed(format!("{error:#}")),
            }
        }
        Err(error) => bundle["status"] = failed(format!("{error:#}")),
    }
}

/// What the running daemon answers.
async fn asked(listen: SocketAddr, path: &str) -> anyhow::Result<Value> {
    let (status, text) = healthcheck::ask(listen, path).await?;
    Ok(json!({ "status": status, "text": text }))
}

/// How large the journal's files are, where it is in files.
fn files(fleet: &Fleet) -> Value {
    let Location::Sqlite(path) = &fleet.config().journal else { return json!({ "kind": "postgres" }) };
    let size = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::fs::metadata(name).map(|metadata| metadata.len()).ok()
    };
    json!({ "kind": "sqlite", "bytes": size(""), "wal_bytes": size("-wal") })
}

/// What the journal knows.
async fn recorded(bundle: &mut Value, fleet: &Fleet, sight: &Sight, now: Timestamp) {
    let journal = match sight.journal(fleet.config()) {
        Ok(journal) => journal,
        Err(error) => return bundle["status"] = failed(error.to_string()),
    };
    let gathered = status::gather(fleet, sight, now).await;
    let names: Vec<CredentialName> = gathered.as_ref().map(|status| status.needing_attention()).unwrap_or_default();
    bundle["status"] = or_failed(gathered);
    let mut details = Vec::new();
    for name in names.iter().take(TOLD_MAX) {
        let detail = match fleet.member(name) {
            Some(member) => detail::gather(&member, journal.as_ref(), name, now).await,
            None => Ok(None),
        };
        details.push(or_failed(detail));
    }
    bundle["needing_attention"] = Value::Array(details);
    let history = journal.history(None, HISTORY).await.map_err(anyhow::Error::from);
    let lines = history.map(|lines| lines.into_iter().map(|line| json!({ "credential": line.credential, "step": line.entry })));
    bundle["history"] = or_failed(lines.map(Iterator::collect::<Vec<Value>>));
}
