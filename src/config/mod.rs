//! From TOML text to a checked configuration: every problem at once, each with its place and a hint. No network.
//!
//! The text is parsed into the `toml` crate's spanned document, which recovers from errors, and
//! walked by a small typed reader that collects problems; serde's derive would stop at the first.

mod account;
mod admin;
mod capacity;
mod check;
mod credential;
mod delivery;
mod diff;
mod duration;
mod fleet;
mod hint;
mod journal;
mod pace;
mod parts;
mod pattern;
mod problem;
mod reader;
mod schema;
mod sections;
mod sink;
mod surroundings;
#[cfg(test)]
mod tests;
mod webhook;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use jiff::SignedDuration;
use sha2::{Digest, Sha256};
use toml::de::{DeTable, DeValue};

use crate::journal::Location;
use crate::rotation::{Account, CredentialName, Deployment};

use credential::{Context, Draft, Resolved};
use problem::Sheet;
use reader::{At, Entry, Section, described, entries};

pub use account::KeptAccount;
pub use credential::{Credential, Terms};
pub use delivery::{Delivery, Target};
pub use diff::{Change, Diff, LetsGoOfTooMany};
pub use duration::{parse as parse_duration, show as show_duration};
pub use fleet::{AccountFleet, LeftOut, Members};
pub use pace::Pace;
pub use pattern::Pattern;
pub use problem::{Position, Problem, Problems, Severity};
pub use schema::schema;
pub use sections::{AdminToken, LISTEN_DEFAULT, Limits, Organization, Server};
pub use sink::Sink;
pub use surroundings::{FileFact, MountFact, Surroundings, System, Unlooked};
pub use webhook::{Address, Webhook};

/// The documented example, which `rotad config example` prints.
pub const EXAMPLE: &str = include_str!("../../config/rotad.toml");

/// The most bytes of a configuration: 100,000 credentials take some 30 MB; the wrong file may have any size.
const FILE_MAX: u64 = 256 * 1024 * 1024;

const ROOT_KEYS: &[&str] = &[
    "deployment",
    "organization",
    "journal",
    "server",
    "limits",
    "webhook",
    "sink",
    "defaults",
    "credential",
    "fleet",
    "account",
];

/// Every key that is known, by section: what the reference must describe.
pub const KEYS: &[(&str, &[&str])] = &[
    ("", ROOT_KEYS),
    ("organization", sections::ORGANIZATION_KEYS),
    ("admin_token", parts::SECRET_SOURCE_KEYS),
    ("admin_rotation", admin::ADMIN_ROTATION_KEYS),
    ("journal", journal::JOURNAL_KEYS),
    ("server", sections::SERVER_KEYS),
    ("limits", sections::LIMITS_KEYS),
    ("webhook", webhook::WEBHOOK_KEYS),
    ("sink.aws", sink::AWS_KEYS),
    ("sink.file", sink::FILE_KEYS),
    ("sink.vault", sink::VAULT_KEYS),
    ("sink.vault.auth", sink::AUTH_KEYS),
    ("sink.vault.auth.approle", sink::APPROLE_KEYS),
    ("sink.vault.auth.kubernetes", sink::KUBERNETES_KEYS),
    ("sink.vault.auth.jwt", sink::JWT_KEYS),
    ("sink.vault.auth.cert", sink::CERT_KEYS),
    ("credential", credential::CREDENTIAL_KEYS),
    ("fleet", fleet::FLEET_KEYS),
    ("account", account::ACCOUNT_KEYS),
    ("account.read_write", account::READ_WRITE_KEYS),
    ("account.read_scaling", account::READ_SCALING_KEYS),
    ("deliver", delivery::DELIVERY_KEYS),
];

/// A configuration that can keep the promises.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub deployment: Deployment,
    pub organizations: BTreeMap<Arc<str>, Organization>,
    pub journal: Location,
    /// Where another rotad has the journal, this one waits to take over from it.
    pub standby: bool,
    /// How long lines of the history are kept.
    pub keep_history: SignedDuration,
    pub server: Server,
    pub limits: Limits,
    /// Where it is told that something needs a person.
    pub webhook: Option<Webhook>,
    pub sinks: BTreeMap<Arc<str>, Sink>,
    pub credentials: BTreeMap<CredentialName, Credential>,
    /// Patterns of accounts; their members are among the credentials once `with_members` put them there.
    pub fleets: BTreeMap<Arc<str>, AccountFleet>,
    /// Service accounts that are to be there, and how.
    pub accounts: BTreeMap<Account, KeptAccount>,
    /// What would hurt, in the order of the file.
    pub warnings: Vec<Problem>,
    /// SHA-256 of the text: whether the file changed.
    pub content_hash: [u8; 32],
}

/// SHA-256 of a configuration's text, as `Config::content_hash` has it.
pub fn content_hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// All problems of the file, or why it can't be read.
pub fn load(path: &Path, world: &dyn Surroundings) -> Result<Config, Problems> {
    let file = path.display().to_string();
    let text = read(path).map_err(|(message, help)| Problems::new(vec![Problem::of_file(&file, message, help)]))?;
    parse(&text, &file, world)
}

/// Reads the file at `path` for `rotad import`: it may lack credentials yet. The answer has its text, too.
///
/// # Errors
/// All problems of the file, or why it can't be read.
pub fn load_unfinished(path: &Path, world: &dyn Surroundings) -> Result<(String, Config), Problems> {
    let file = path.display().to_string();
    let text = read(path).map_err(|(message, help)| Problems::new(vec![Problem::of_file(&file, message, help)]))?;
    let config = parse_as(&text, &file, world, false)?;
    Ok((text, config))
}

/// The text of a configuration's file; otherwise what is wrong with it and what would be right.
fn read(path: &Path) -> Result<String, (String, &'static str)> {
    use std::io::Read;
    let unreadable = |error: std::io::Error| {
        let reason = surroundings::reason(&error);
        (format!("the configuration can't be read: {reason}"), "give the path of a readable file with `--config FILE`")
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(("the configuration is a directory".to_owned(), "give the path of a file with `--config FILE`"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err((format!("the configuration is larger than {} MiB", FILE_MAX >> 20), "is it the right file?"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        (format!("the configuration is not UTF-8 (line {line})"), "TOML is UTF-8: save the file so")
    })
}

/// Checks `text`; `file` is what messages call it.
///
/// # Errors
/// All problems, warnings included, in the order of the text.
pub fn parse(text: &str, file: &str, world: &dyn Surroundings) -> Result<Config, Problems> {
    parse_as(text, file, world, true)
}

fn parse_as(text: &str, file: &str, world: &dyn Surroundings, finished: bool) -> Result<Config, Problems> {
    let sheet = Sheet::new(text, file);
    let (document, mut errors) = document(text);
    errors.dedup();
    for error in &errors {
        let end = text.trim_end().len();
        sheet.not_toml(&error.span().unwrap_or(end..end), error.message());
    }
    let draft = {
        let root = Section::new(&sheet, document.get_ref(), "the file", 0..0, ROOT_KEYS);
        config(&root, world, finished)
    };
    let content_hash = content_hash(text);
    drop(document);
    let problems = sheet.into_problems();
    match draft {
        Some(config) if !problems.iter().any(|problem| problem.severity == Severity::Error) => {
            Ok(Config { warnings: problems, content_hash, ..config })
        }
        _ => Err(Problems::new(problems)),
    }
}

/// Parsed on a thread of its own: a document of 100,000 credentials takes some hundred MB for a
/// moment, and where it is made in the heap of another thread it is given back whole, rather than
/// left as holes below the configuration that is made from it (measured with 100,000 credentials:
/// 72 MB stay instead of 203).
fn document(text: &str) -> (toml::Spanned<DeTable<'_>>, Vec<toml::de::Error>) {
    std::thread::scope(|scope| match std::thread::Builder::new().spawn_scoped(scope, || DeTable::parse_recoverable(text)) {
        Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(_) => DeTable::parse_recoverable(text),
    })
}

fn config(root: &Section<'_>, world: &dyn Surroundings, finished: bool) -> Option<Config> {
    let sheet = root.sheet;
    let empty = DeTable::new();
    let deployment = deployment(root);
    let found_organizations = named(root, "organization", "[organization.main]", true);
    let found_sinks = named(root, "sink", "[sink.disk.file]", false);
    let drafted_sinks = sink::sinks(sheet, &found_sinks, world);
    let organizations = sections::organizations(sheet, &found_organizations, &drafted_sinks, world);
    let journal_section = sections::optional(root, "journal", journal::JOURNAL_KEYS, &empty);
    let (journal, keep_history) = (journal::location(&journal_section, world), journal::keep_history(&journal_section));
    let standby = journal::standby(&journal_section, journal.as_ref());
    let server = sections::server(&sections::optional(root, "server", sections::SERVER_KEYS, &empty));

    let webhook_section = root.get("webhook").map(|_| sections::optional(root, "webhook", webhook::WEBHOOK_KEYS, &empty));
    let webhook = webhook_section.map(|section| webhook::webhook(&section, world));

    let found_fleets = named(root, "fleet", "[fleet.tenants]", false);
    let found_credentials = named(root, "credential", "[credential.etl]", finished && found_fleets.is_empty());
    let limits_section = sections::optional(root, "limits", sections::LIMITS_KEYS, &empty);
    let limits = sections::limits(&limits_section, found_credentials.len());
    let context = Context {
        sheet,
        // Places are filled in all the same where the deployment is wrong, for what else is wrong with them.
        deployment: deployment.clone().or_else(|| "unknown".parse().ok()),
        organizations: organizations.keys().cloned().collect(),
        sinks: &drafted_sinks,
        now: world.now(),
        terms: RefCell::new(HashSet::new()),
        cron: RefCell::new(BTreeMap::new()),
    };
    let defaults = Draft::read(&sections::optional(root, "defaults", credential::CREDENTIAL_KEYS, &empty), &context);
    let mut credentials = credentials(&found_credentials, &context, &defaults);
    let fleets = fleet::fleets(&found_fleets, &context, &defaults);
    let accounts = account::accounts(&named(root, "account", "[account.tenant_7]", false), &context);
    for entry in &found_organizations {
        let Some(Some(organization)) = organizations.get(entry.name.value) else { continue };
        let Some((name, rotation)) = admin::rotation(entry, organization, &context, world) else { continue };
        if let Some(other) = credentials.get(&name) {
            let message = format!("the credential `{name}` has the name that the rotation of the admin token takes");
            sheet.error(&other.spans.name, message, "choose another name for it");
            continue;
        }
        credentials.insert(name, rotation);
    }

    let all_sinks = drafted_sinks.len();
    let mut sinks: BTreeMap<_, _> =
        drafted_sinks.iter().filter_map(|(name, drafted)| Some((Arc::clone(name), drafted.sink.clone()?))).collect();
    let all_organizations = organizations.len();
    let organizations: BTreeMap<_, _> = organizations.into_iter().filter_map(|(name, found)| Some((name, found?))).collect();
    let admin = credentials.values().filter(|resolved| resolved.credential.is_admin);
    let admin: Vec<Delivery> = admin.flat_map(|resolved| resolved.credential.deliveries.to_vec()).collect();
    check::targets(sheet, &credentials, &sinks);
    check::renames(sheet, &credentials);
    check::adoptions(sheet, &credentials);
    check::fleets(sheet, &fleets, &credentials, &sinks, context.deployment.as_ref());
    let place = |found: &[Entry<'_>], name: &str| {
        found.iter().find(|entry| entry.name.value == name).map_or(0..0, |entry| entry.name.span.clone())
    };
    check::endpoints(sheet, &credentials, &fleets, &organizations, |name| place(&found_organizations, name));
    if !sheet.has_errors() {
        check::first_connections(sheet, &credentials, &fleets, &organizations, |name| place(&found_organizations, name));
        let hurts = check::Hurts {
            sheet,
            found: &credentials,
            fleets: &fleets,
            organizations: &organizations,
            sinks: &sinks,
            accounts: &accounts,
        };
        hurts.report(&limits, &limits_section.span, |name| place(&found_organizations, name), |name| place(&found_sinks, name));
    }
    let complete = sinks.len() == all_sinks;
    admin::with_file_sink(&mut sinks, &admin);
    if let Some(standby) = &standby {
        journal::check_sinks(&journal_section, standby, &sinks);
    }
    if !complete || organizations.len() < all_organizations {
        return None;
    }
    Some(Config {
        deployment: deployment?,
        organizations,
        journal: journal?,
        standby: standby.is_some(),
        keep_history: keep_history?,
        server: server?,
        limits,
        webhook: match webhook {
            Some(webhook) => Some(webhook?),
            None => None,
        },
        sinks,
        credentials: credentials.into_iter().map(|(name, resolved)| (name, resolved.credential)).collect(),
        fleets: fleets.into_iter().map(|(name, drafted)| (name, drafted.fleet)).collect(),
        accounts,
        warnings: Vec::new(),
        content_hash: [0; 32],
    })
}

fn deployment(root: &Section<'_>) -> Option<Deployment> {
    let field = root.string("deployment");
    if field.is_absent() {
        root.missing("deployment", "such as `deployment = \"prod\"`, at the beginning: it is part of every token's name");
    }
    let name = parts::name(root.sheet, "a deployment", &field.set()?)?;
    name.parse().ok()
}

/// The tables of `[key.<name>]`.
fn named<'d>(root: &Section<'d>, key: &'static str, example: &str, required: bool) -> Vec<Entry<'d>> {
    let Some(At { value, span }) = root.get(key) else {
        if required {
            root.missing(key, &format!("add a section such as `{example}`"));
        }
        return Vec::new();
    };
    match value {
        DeValue::Table(table) => entries(table),
        other => {
            let message = format!("`{key}` is {}", described(other));
            root.sheet.error(&span, message, format!("write tables such as `{example}`"));
            Vec::new()
        }
    }
}

fn credentials<'d>(found: &[Entry<'d>], context: &Context<'d>, defaults: &Draft<'d>) -> BTreeMap<CredentialName, Resolved> {
    let mut credentials = BTreeMap::new();
    for Entry { name, value } in found {
        let Some(table) = value.value.as_table() else {
            let message = format!("`credential.{}` is {}", name.value, described(value.value));
            context.sheet.error(&value.span, message, "write a table such as `[credential.etl]`");
            continue;
        };
        let label = format!("[credential.{}]", name.value);
        let section = Section::new(context.sheet, table, label, name.span.clone(), credential::CREDENTIAL_KEYS);
        let draft = Draft::read(&section, context);
        let resolved = context.resolve(name, &draft, defaults);
        if let (Some(resolved), Ok(name)) = (resolved, name.value.parse()) {
            credentials.insert(name, resolved);
        }
    }
    credentials
}
