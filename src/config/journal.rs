//! `[journal]`: where the journal is, and how long its history is kept.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::SignedDuration;
use reqwest::Url;

use super::admin::FILE_SINK;
use super::parts;
use super::problem::{Span, quoted};
use super::reader::{At, Field, Section};
use super::sink::Sink;
use super::surroundings::{FileFact, Surroundings};
use crate::http::is_loopback;
use crate::journal::{Database, Host, Location};
use crate::sinks::vault::KvVersion;

pub(super) const JOURNAL_KEYS: &[&str] = &["url", "password", "ca_cert", "standby", "keep_history"];

const SQLITE_URL: &str = "sqlite:/var/lib/rotad/journal.db";
const POSTGRES_URL: &str = "postgres://rotad@db.internal:5432/rotad";
const POSTGRES_PORT: u16 = 5432;
/// A year, as auditors ask, and a month to spare.
const HISTORY: SignedDuration = SignedDuration::from_hours(24 * 396);
const HISTORY_MIN: SignedDuration = SignedDuration::from_hours(24);

/// What is wrong with a URL, and what would be right.
type Wrong = (String, String);

pub(super) fn location(section: &Section<'_>, world: &dyn Surroundings) -> Option<Location> {
    let url = section.text("url");
    let password = parts::secret_source(section, "password");
    let ca_cert = section.path("ca_cert");
    if url.is_absent() || matches!(&url, Field::Set(at) if at.value.starts_with("sqlite:")) {
        let spans =
            [("password", password.as_ref().set().map(|at| at.span)), ("ca_cert", ca_cert.as_ref().set().map(|at| at.span))];
        for (key, span) in spans {
            if let Some(span) = span {
                let message = format!("`{key}` of `[journal]`, whose `url` leads to a file");
                section.sheet.error(&span, message, format!("it is for a server, such as `{POSTGRES_URL}`"));
            }
        }
    }
    if url.is_absent() {
        return Some(Location::Sqlite(PathBuf::from(SQLITE_URL.trim_start_matches("sqlite:"))));
    }
    let at = url.set()?;
    if let Some(path) = at.value.strip_prefix("sqlite:") {
        return sqlite(section, path, &at, world);
    }
    if !at.value.starts_with("postgres://") && !at.value.starts_with("postgresql://") {
        section.sheet.error(
            &at.span,
            format!("`url` is {}, which names no journal", quoted(at.value)),
            format!("such as `{SQLITE_URL}`, or `{POSTGRES_URL}`"),
        );
        return None;
    }
    if let Field::Set(source) = &password {
        parts::check_secret(section.sheet, "the journal's password", source, world);
    }
    if let Field::Set(at) = &ca_cert {
        parts::need_file(section.sheet, "the CA certificate", &At::new(at.value.as_path(), at.span.clone()), world);
    }
    match database(at.value) {
        Ok(found) => {
            let ca_span = ca_cert.as_ref().set().map(|at| at.span);
            let broken = password.is_broken() || ca_cert.is_broken() || !trusts(section, &found, ca_span);
            let database = Database { password: password.value(), ca_cert: ca_cert.value(), ..found };
            (!broken).then_some(Location::Postgres(database))
        }
        Err((message, help)) => {
            section.sheet.error(&at.span, message, help);
            None
        }
    }
}

fn sqlite(section: &Section<'_>, path: &str, at: &At<&str>, world: &dyn Surroundings) -> Option<Location> {
    // `sqlite:///path` is common elsewhere and means the same.
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') || path.ends_with('/') || path.contains('?') {
        let message = format!("`url` is {}, without the absolute path of a file", quoted(at.value));
        section.sheet.error(&at.span, message, format!("such as `{SQLITE_URL}`"));
        return None;
    }
    let path = PathBuf::from(path);
    if world.file(&path) == FileFact::Directory {
        let message = format!("the journal `{}` is a directory", path.display());
        section.sheet.error(&at.span, message, "give the path of a file in it, such as `…/journal.db`");
    }
    Some(Location::Sqlite(path))
}

/// Whether an authority is named only where there is something to verify.
fn trusts(section: &Section<'_>, database: &Database, ca_cert: Option<Span>) -> bool {
    match ca_cert {
        Some(span) if !database.tls => {
            let help = "add `?sslmode=verify-full` to `url`, or leave it out";
            section.sheet.error(&span, "`ca_cert` for a journal that is reached without TLS", help);
            false
        }
        _ => true,
    }
}

/// `postgres://USER@HOST[:PORT]/NAME[?sslmode=…]`; a socket's directory is a host with its `/` written as `%2F`.
fn database(text: &str) -> Result<Database, Wrong> {
    let such = || format!("such as `{POSTGRES_URL}`");
    let url = Url::parse(text).map_err(|_| ("`url` is no URL of a PostgreSQL database".to_owned(), such()))?;
    // Checked first, since no other message may show what stands there.
    if url.password().is_some() {
        let help = "secrets are never inline: `password = { file = \"/path\" }` or `{ env = \"NAME\" }` beside it";
        return Err(("`url` has a password in it".to_owned(), help.to_owned()));
    }
    let shown = quoted(text);
    let part = |part: &str| decoded(part).ok_or_else(|| (format!("`url` is {shown}, with a `%` that encodes no text"), such()));
    let user = part(url.username())?;
    let name = part(url.path().trim_start_matches('/'))?;
    let host = part(url.host_str().unwrap_or_default())?;
    for (what, found) in [("user", &user), ("host", &host), ("name of a database", &name)] {
        if found.is_empty() {
            return Err((format!("`url` is {shown}, without a {what}"), such()));
        }
    }
    if name.contains('/') || host.contains(',') || url.fragment().is_some() {
        return Err((format!("`url` is {shown}, with more in it than user, one host, port and database"), such()));
    }
    let is_local = host.starts_with('/') || is_loopback(&host);
    let tls = tls(&url, is_local)?;
    let host = match host.starts_with('/') {
        true => Host::Socket(PathBuf::from(host)),
        false => Host::Name(host.trim_start_matches('[').trim_end_matches(']').to_owned()),
    };
    if tls && matches!(host, Host::Socket(_)) {
        return Err((format!("`url` is {shown}: over a socket there is no TLS"), "leave `sslmode` out".to_owned()));
    }
    Ok(Database { host, port: url.port().unwrap_or(POSTGRES_PORT), user, name, tls, ca_cert: None, password: None })
}

/// Off this machine TLS is used and verified, always.
fn tls(url: &Url, is_local: bool) -> Result<bool, Wrong> {
    let mut tls = !is_local;
    for (key, value) in url.query_pairs() {
        match (key.as_ref(), value.as_ref()) {
            ("sslmode", "verify-full") => tls = true,
            ("sslmode", "disable") if is_local => tls = false,
            ("sslmode", "disable") => {
                let help = "only this machine is reached without TLS; leave it out: `verify-full` is what is done";
                return Err(("`url` has `sslmode=disable`, and is not on loopback".to_owned(), help.to_owned()));
            }
            ("sslmode", found @ ("allow" | "prefer" | "require" | "verify-ca")) => {
                let help =
                    "leave it out: off loopback the certificate is verified, by the authority in `ca_cert` or the system's";
                return Err((format!("`url` has `sslmode={found}`, by which anybody could answer"), help.to_owned()));
            }
            ("sslmode", found) => {
                return Err((format!("`url` has `sslmode={found}`"), "`verify-full`, or `disable` on loopback".to_owned()));
            }
            (key, _) => {
                let message = format!("`url` has a parameter {}", quoted(key));
                return Err((message, "`sslmode` is the only one; the password is `password` of `[journal]`".to_owned()));
            }
        }
    }
    Ok(tls)
}

/// Without its `%` codes; `None` where they are no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                rest = after;
            }
            (b'%', _) => return None,
            (byte, after) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

/// Whether this rotad waits where another one has the journal, to take over from it.
pub(super) fn standby(section: &Section<'_>, location: Option<&Location>) -> Option<At<bool>> {
    let standby = section.boolean("standby").set().filter(|at| at.value)?;
    if matches!(location, Some(Location::Sqlite(_))) {
        let help =
            format!("several replicas share a journal on a server, such as `{POSTGRES_URL}`; with a file there is one rotad");
        section.sheet.error(&standby.span, "`standby = true` beside a journal in a file", help);
    }
    Some(standby)
}

/// What is in a file is on one host: a replica elsewhere could neither read nor write it. And a store that can't compare
/// before it writes would let a late write of the one before replace what the one that took over has written.
pub(super) fn check_sinks(section: &Section<'_>, standby: &At<bool>, sinks: &BTreeMap<Arc<str>, Sink>) {
    for (name, sink) in sinks {
        let (what, help) = match sink {
            Sink::File(_) if name.as_ref() == FILE_SINK => (
                "an admin token that is rotated in a file: a file is on one host, and the replica that takes over may be on another"
                    .to_owned(),
                "keep it in Vault or AWS, or run one rotad on that host without `standby`",
            ),
            Sink::File(_) => (
                format!("the file sink `{name}`: a file is on one host, and the replica that takes over may be on another"),
                "deliver to Vault or AWS, or run one rotad on that host without `standby`",
            ),
            Sink::Vault(config) if config.kv_version == KvVersion::V1 => (
                format!("the sink `{name}` with `kv_version = 1`, which can't compare before it writes"),
                "deliver to a mount of version 2, or run one rotad without `standby`",
            ),
            Sink::Vault(_) | Sink::Aws(_) => continue,
        };
        section.sheet.error(&standby.span, format!("`standby = true` beside {what}"), help);
    }
}

/// How long the history is kept.
pub(super) fn keep_history(section: &Section<'_>) -> Option<SignedDuration> {
    let field = section.duration("keep_history").and_then(|at| {
        if at.value < HISTORY_MIN {
            let help = "at least `1d`: what happened overnight is wanted in the morning";
            section.sheet.error(&at.span, "`keep_history` is too short", help);
            return None;
        }
        Some(at.value)
    });
    if field.is_absent() { Some(HISTORY) } else { field.value() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Database {
        database(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"))
    }

    #[test]
    fn a_database_is_read_from_its_url_and_told_by_it() {
        let found = read("postgres://rotad@db.internal/rotad");
        assert_eq!((found.host, found.port, found.tls), (Host::Name("db.internal".to_owned()), 5432, true));
        for text in [
            "postgres://rotad@db.internal:6543/rotad",
            "postgres://rotad@[fd00::1]:5432/rotad",
            "postgres://rotad@%2Frun%2Fpostgresql:5432/rotad",
        ] {
            assert_eq!(read(text).to_string(), text);
        }
        assert_eq!(read("postgresql://r%40d@h/n%20m").user, "r@d");
        assert_eq!(read("postgresql://r@h/n%20m").name, "n m");
    }

    #[test]
    fn off_this_machine_there_is_no_way_around_verified_tls() {
        for host in ["db", "10.0.0.1", "[fd00::1]", "localhost.example.com"] {
            assert!(read(&format!("postgres://r@{host}/r")).tls, "{host}");
            assert!(read(&format!("postgres://r@{host}/r?sslmode=verify-full")).tls, "{host}");
            for mode in ["disable", "allow", "prefer", "require", "verify-ca", "", "VERIFY-FULL"] {
                assert!(database(&format!("postgres://r@{host}/r?sslmode={mode}")).is_err(), "{host} {mode}");
            }
        }
        for host in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"] {
            assert!(!read(&format!("postgres://r@{host}/r")).tls, "{host}");
        }
        assert!(read("postgres://r@127.0.0.1/r?sslmode=verify-full").tls);
    }

    #[test]
    fn a_url_that_names_no_database_is_refused_without_its_password() {
        for text in [
            "postgres://",
            "postgres:///rotad",
            "postgres://rotad@/rotad",
            "postgres://db/rotad",
            "postgres://rotad@db",
            "postgres://rotad@db/",
            "postgres://rotad@db/a/b",
            "postgres://rotad@a,b/rotad",
            "postgres://rotad@db/rotad#x",
            "postgres://rotad@db/rotad?host=/run",
            "postgres://rotad@db/rotad?password=hunter2",
            "postgres://rotad@%2Frun/rotad?sslmode=verify-full",
            "postgres://ro%zzad@db/rotad",
            "postgres://ro%00ad@db/rotad",
            "postgres://rotad:hunter2@db/rotad",
        ] {
            let (message, help) = database(text).expect_err(text);
            assert!(!message.contains("hunter2") && !help.contains("hunter2"), "{message}");
        }
    }
}
