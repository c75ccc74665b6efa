//! The configuration as a JSON Schema, so that editors complete keys and tell what they do: the reader's own keys, each
//! with its shape from here and its words from the reference, `docs/configuration.md`.
//!
//! A schema knows one value at a time. What several say together (that a `ttl` is long enough, that a sink exists) only
//! `rotad check` tells.

use serde_json::{Map, Value, json};

use super::account::{ACCOUNT_MODES, SIZES};
use super::credential::{MODES, TOKEN_TYPES, VERIFICATIONS};
use super::delivery::FILE_FORMATS;
use super::{KEYS, ROOT_KEYS};
use crate::motherduck::FLOCK_MAX;
use crate::sinks::format::Field;

const REFERENCE: &str = include_str!("../../docs/configuration.md");

/// Draft 7, which every editor understands.
const DRAFT: &str = "http://json-schema.org/draft-07/schema#";
const NAME: &str = "^[a-z0-9_-]{1,63}$";

/// The whole schema.
pub fn schema() -> Value {
    let sections = KEYS.iter().filter(|(section, _)| !section.is_empty());
    let definitions: Map<_, _> = sections.map(|(section, keys)| ((*section).to_owned(), object(section, keys))).collect();
    let mut root = object("", ROOT_KEYS);
    root["$schema"] = json!(DRAFT);
    root["title"] = json!("The configuration of rotad");
    root["definitions"] = Value::Object(definitions);
    root
}

/// A table with these keys and no others.
fn object(section: &str, keys: &[&str]) -> Value {
    let properties: Map<_, _> = keys.iter().map(|key| ((*key).to_owned(), described(section, key))).collect();
    let mut object = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let (required, together): (&[&str], Value) = match section {
        "" => (&["deployment", "organization"], json!({})),
        "organization" => (&["admin_token"], json!({ "postgres_ca_cert": ["postgres"] })),
        "server" => (&[], json!({ "control_group": ["control"] })),
        "webhook" => (&["url"], json!({})),
        "sink.aws" => (&[], json!({ "external_id": ["role_arn"] })),
        "sink.vault" => (&["address", "auth"], json!({})),
        "sink.vault.auth.approle" => (&["role_id", "secret_id"], json!({})),
        "sink.vault.auth.kubernetes" => (&["role"], json!({})),
        "sink.vault.auth.jwt" => (&["token"], json!({})),
        "sink.vault.auth.cert" => (&["cert_file", "key_file"], json!({})),
        "credential" => (&[], json!({ "timezone": ["cron"] })),
        "admin_rotation" => (&["account"], json!({ "timezone": ["cron"] })),
        "fleet" => (&["accounts"], json!({ "timezone": ["cron"] })),
        "account.read_write" => (&["size"], json!({})),
        "account.read_scaling" => (&["size", "flock_size"], json!({})),
        "deliver" => (&["sink"], json!({})),
        _ => (&[], json!({})),
    };
    object["required"] = json!(required);
    object["dependencies"] = together;
    match section {
        // Exactly one source, exactly one login.
        "admin_token" | "sink.vault.auth" => {
            object["minProperties"] = json!(1);
            object["maxProperties"] = json!(1);
        }
        "" => object["anyOf"] = json!([{ "required": ["credential"] }, { "required": ["fleet"] }]),
        "credential" | "fleet" | "admin_rotation" => object["not"] = json!({ "required": ["every", "cron"] }),
        _ => {}
    }
    object
}

/// A key's shape with its words.
fn described(section: &str, key: &str) -> Value {
    let shape = shape(section, key);
    let Some(words) = words(section, key) else { return shape };
    // Draft 7 overlooks what stands beside a reference.
    if shape.get("$ref").is_some() { json!({ "allOf": [shape], "description": words }) } else { merged(shape, words) }
}

fn merged(mut shape: Value, words: String) -> Value {
    shape["description"] = json!(words);
    shape
}

/// What a key's value can be.
fn shape(section: &str, key: &str) -> Value {
    let words = |choices: Vec<&str>| json!({ "type": "string", "enum": choices });
    match (section, key) {
        ("", "deployment") => json!({ "type": "string", "pattern": NAME }),
        ("", "organization" | "credential" | "fleet") => named(&section_of(key), 1),
        ("", "account") => {
            let mut accounts = named(&section_of(key), 0);
            let of_it = accounts["patternProperties"][NAME].take();
            accounts["patternProperties"] = json!({ "^[A-Za-z][A-Za-z0-9_]{2,254}$": of_it });
            accounts
        }
        ("account", "read_write" | "read_scaling") => section_of(&format!("account.{key}")),
        ("account", "organization") => shape("credential", key),
        ("account", "mode") => words(ACCOUNT_MODES.iter().map(|(word, _)| *word).collect()),
        ("account.read_write" | "account.read_scaling", "size") => words(SIZES.iter().map(|(word, _)| *word).collect()),
        ("account.read_write" | "account.read_scaling", "cooldown") => shape("credential", "every"),
        ("account.read_scaling", "flock_size") => json!({ "type": "integer", "minimum": 0, "maximum": FLOCK_MAX }),
        ("", "sink") => named(&sinks(), 0),
        ("", "defaults") => section_of("credential"),
        ("", "journal" | "server" | "limits" | "webhook") => section_of(key),
        // A secret, or a place in a sink.
        ("organization", "admin_token") => json!({ "anyOf": [section_of("admin_token"), section_of("deliver")] }),
        ("organization", "admin_rotation") => section_of("admin_rotation"),
        ("fleet", "except") => json!({ "type": "array", "items": shape("fleet", "accounts") }),
        ("fleet", "accounts") => json!({ "type": "string", "maxLength": 255, "pattern": "^[^0-9_\\s-][^\\s-]*$" }),
        ("admin_rotation" | "fleet", key) => shape("credential", key),
        ("credential", "adopt") => {
            let id = json!({ "type": "string", "pattern": "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$" });
            json!({ "type": "array", "items": id, "uniqueItems": true })
        }
        (_, "secret_id") | ("sink.vault.auth" | "sink.vault.auth.jwt", "token") => section_of("admin_token"),
        ("sink.vault", "auth") => section_of("sink.vault.auth"),
        ("sink.vault.auth", login) => section_of(&format!("sink.vault.auth.{login}")),
        (_, "api_url" | "endpoint_url") | ("sink.vault", "address") => {
            json!({ "type": "string", "pattern": "^https?://[^/?#@]+(/[^?#]*)?$" })
        }
        ("webhook", "url") => {
            let address = json!({ "type": "string", "pattern": "^https?://[^/?#@]+([/?#].*)?$" });
            json!({ "anyOf": [address, section_of("admin_token")] })
        }
        ("webhook", "authorization") => section_of("admin_token"),
        ("journal", "url") => {
            json!({ "type": "string", "pattern": "^(sqlite:/|postgres(ql)?://[^/?#@:]+@[^/?#@]+/[^/?#]+([?]sslmode=(verify-full|disable))?$)" })
        }
        ("journal", "password") => section_of("admin_token"),
        (_, "listen" | "metrics_listen") => json!({ "type": "string", "pattern": ":[0-9]{1,5}$" }),
        (_, "requests_per_second" | "max_in_flight") | ("limits", _) => {
            json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX })
        }
        (_, "page" | "per_credential_metrics" | "create" | "take_over" | "connected" | "standby") => json!({ "type": "boolean" }),
        (_, "postgres_ca_cert" | "control" | "ca_cert" | "jwt_file" | "cert_file" | "key_file") | ("admin_token", "file") => {
            json!({ "type": "string", "pattern": "^/" })
        }
        ("sink.aws", "role_arn") => json!({ "type": "string", "pattern": "^arn:.*:role/" }),
        ("sink.aws", "tags") | ("credential", "labels") => {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        }
        ("sink.vault", "kv_version") => json!({ "enum": [1, 2] }),
        ("credential", "organization" | "renamed_from") => json!({ "type": "string", "pattern": NAME }),
        ("credential", "account") => {
            json!({ "type": "string", "minLength": 3, "maxLength": 255, "pattern": "^[^0-9_\\s-][^\\s-]*$" })
        }
        ("credential", "token_type") => words(TOKEN_TYPES.iter().map(|(word, _)| *word).collect()),
        ("credential", "verify") => words(VERIFICATIONS.iter().map(|(word, _)| *word).collect()),
        ("credential", "mode") => words(MODES.iter().map(|(word, _)| *word).collect()),
        ("credential", "every" | "window" | "ttl" | "grace") | ("journal", "keep_history") | ("webhook", "settle") => {
            json!({ "type": "string", "pattern": "^0*[1-9][0-9]*[smhd]$" })
        }
        ("credential", "deliver") => json!({ "type": "array", "minItems": 1, "items": section_of("deliver") }),
        ("deliver", "format") => words(FILE_FORMATS.iter().map(|(word, _)| *word).collect()),
        ("deliver", "mode") => json!({ "type": "string", "pattern": "^[0-7]{3,4}$" }),
        ("deliver", "variable") => json!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" }),
        ("deliver", "fields") => {
            json!({ "type": "object", "additionalProperties": words(Field::ALL.iter().map(|field| field.as_str()).collect()) })
        }
        _ => text(),
    }
}

/// Text that is not empty.
fn text() -> Value {
    json!({ "type": "string", "pattern": "\\S" })
}

fn section_of(section: &str) -> Value {
    // A JSON pointer may hold dots as they are.
    json!({ "$ref": format!("#/definitions/{section}") })
}

/// Tables whose names the user chooses.
fn named(of: &Value, least: u32) -> Value {
    json!({ "type": "object", "patternProperties": { NAME: of }, "additionalProperties": false, "minProperties": least })
}

/// A sink: a table of one kind.
fn sinks() -> Value {
    let kinds: Map<_, _> =
        super::sink::KINDS.iter().map(|kind| ((*kind).to_owned(), section_of(&format!("sink.{kind}")))).collect();
    json!({ "type": "object", "properties": kinds, "additionalProperties": false, "minProperties": 1, "maxProperties": 1 })
}

/// What the reference says of a key: what it does, and its default.
fn words(section: &str, key: &str) -> Option<String> {
    let heading = match section {
        "" => "## At the top".to_owned(),
        "journal" | "server" | "limits" | "webhook" => format!("## `[{section}]`"),
        "organization" => "## `[organization.<name>]`".to_owned(),
        // The admin token's credential and a fleet have some of a credential's keys.
        "account" | "account.read_write" | "account.read_scaling" => "## `[account.<username>]`".to_owned(),
        "fleet" if matches!(key, "accounts" | "except") => "## `[fleet.<name>]`".to_owned(),
        "credential" | "fleet" | "admin_rotation" => "## `[credential.<name>]` and `[defaults]`".to_owned(),
        "deliver" => "## `deliver`".to_owned(),
        section => format!("## `[{}]`", section.replacen("sink.", "sink.<name>.", 1)),
    };
    let (_, rest) = REFERENCE.split_once(&format!("\n{heading}\n"))?;
    let part = rest.split("\n## ").next()?;
    let row = part.lines().find(|line| {
        let keys = line.strip_prefix("| ").and_then(|line| line.split(" | ").next());
        keys.is_some_and(|keys| keys.contains(&format!("`{key}`")))
    })?;
    let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
    let [_, _, default, what] = cells.as_slice() else { return None };
    let default = if *default == "required" { default.to_string() } else { format!("default: {default}") };
    Some(if what.is_empty() { default } else { format!("{what} ({default})") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a section's table is in the schema.
    fn table<'s>(schema: &'s Value, section: &str) -> &'s Value {
        if section.is_empty() { schema } else { &schema["definitions"][section] }
    }

    #[test]
    fn every_key_that_the_reader_knows_is_in_the_schema_and_no_other() {
        let schema = schema();
        for (section, keys) in KEYS {
            let found = table(&schema, section)["properties"].as_object().unwrap_or_else(|| panic!("`{section}` is not there"));
            let mut keys = keys.to_vec();
            keys.sort_unstable();
            assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), keys, "`{section}`");
        }
        assert_eq!(schema["definitions"].as_object().unwrap().len() + 1, KEYS.len());
    }

    #[test]
    fn every_reference_within_the_schema_leads_somewhere() {
        let schema = schema();
        let text = schema.to_string();
        let references = text.split("\"#/definitions/").skip(1).map(|rest| rest.split('"').next().unwrap());
        let references: std::collections::BTreeSet<&str> = references.collect();
        assert!(references.len() > 10, "{references:?}");
        for reference in references {
            assert!(schema["definitions"].get(reference).is_some(), "`{reference}` leads nowhere");
        }
    }

    #[test]
    fn a_key_is_told_with_the_reference_s_words() {
        let schema = schema();
        let told = |section: &str, key: &str| {
            table(&schema, section)["properties"][key]["description"].as_str().unwrap_or_default().to_owned()
        };
        assert_eq!(told("server", "metrics_listen"), "metrics and health alone (default: none)");
        assert_eq!(told("sink.vault", "kv_version"), "default: `2`");
        assert!(told("credential", "ttl").starts_with("how long a token lives"), "{}", told("credential", "ttl"));
        assert!(told("organization", "admin_token").ends_with("(required)"), "{}", told("organization", "admin_token"));
        for (section, keys) in
            KEYS.iter().filter(|(section, _)| !section.starts_with("sink.vault.auth") && *section != "admin_token")
        {
            let tables =
                ["organization", "journal", "server", "limits", "webhook", "sink", "defaults", "credential", "fleet", "account"];
            for key in keys.iter().filter(|key| !(section.is_empty() && tables.contains(key))) {
                assert!(!told(section, key).is_empty(), "`{section}` `{key}` is not described");
            }
        }
    }
}
