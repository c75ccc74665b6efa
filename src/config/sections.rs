//! The sections beside credentials and sinks: organizations, server, limits.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use toml::de::DeTable;

use super::admin;
use super::delivery::Delivery;
use super::parts;
use super::problem::{Sheet, Span, quoted};
use super::reader::{At, Entry, Field, Section, described};
use super::sink::Drafted;
use super::surroundings::Surroundings;
use crate::motherduck::Endpoint;
use crate::secret::SecretSource;

pub(super) const ORGANIZATION_KEYS: &[&str] =
    &["admin_token", "admin_rotation", "api_url", "postgres", "postgres_ca_cert", "requests_per_second", "max_in_flight"];
pub(super) const SERVER_KEYS: &[&str] =
    &["listen", "metrics_listen", "page", "per_credential_metrics", "control", "control_group"];
pub(super) const LIMITS_KEYS: &[&str] = &["rotations_per_minute", "revocations_per_minute", "tokens_per_credential"];

const API_URL: &str = "https://api.motherduck.com";
/// Of the Postgres endpoint (observed).
const POSTGRES_PORT: u16 = 5432;
/// Where the daemon listens when the configuration does not say.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9643);

/// One MotherDuck organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// Read again when it changes.
    pub admin_token: AdminToken,
    /// `https://…`, or `http://` on loopback, without a slash at its end.
    pub api_url: String,
    pub requests_per_second: NonZeroU32,
    pub max_in_flight: NonZeroU32,
    /// The Postgres endpoint, for `verify = "connect"`.
    pub postgres: Option<Endpoint>,
}

/// Where an organization's admin token is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminToken {
    Secret(SecretSource),
    /// A place in a sink.
    Place(Delivery),
}

impl Organization {
    /// Whether its admin token is in a sink.
    pub fn is_read_from_a_sink(&self) -> bool {
        matches!(self.admin_token, AdminToken::Place(_))
    }
}

/// What is served where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub listen: SocketAddr,
    /// Metrics and health alone.
    pub metrics_listen: Option<SocketAddr>,
    /// Whether page and JSON are served on a `listen` that is not loopback.
    pub page: bool,
    /// Whether metrics have series per credential.
    pub per_credential_metrics: bool,
    pub control: Option<PathBuf>,
    pub control_group: Option<String>,
}

/// The blast radius.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub rotations_per_minute: NonZeroU32,
    pub revocations_per_minute: NonZeroU32,
    /// The most tokens of one credential seen live before it is blocked.
    pub tokens_per_credential: usize,
    /// Rotations and revocations as the file says it, if it does.
    pub(super) written: (Option<NonZeroU32>, Option<NonZeroU32>),
}

impl Limits {
    /// What is not written grows with the number of credentials.
    pub(super) fn of(
        written: (Option<NonZeroU32>, Option<NonZeroU32>),
        tokens_per_credential: usize,
        credentials: usize,
    ) -> Self {
        let two_percent = u32::try_from(credentials.div_ceil(50)).unwrap_or(u32::MAX);
        let default = count(two_percent.max(10));
        Self {
            rotations_per_minute: written.0.unwrap_or(default),
            revocations_per_minute: written.1.unwrap_or(default),
            tokens_per_credential,
            written,
        }
    }
}

/// The organizations whose names are known; `None` for those that are broken.
pub(super) fn organizations(
    sheet: &Sheet<'_>,
    entries: &[Entry<'_>],
    sinks: &BTreeMap<Arc<str>, Drafted>,
    world: &dyn Surroundings,
) -> BTreeMap<Arc<str>, Option<Organization>> {
    let mut organizations = BTreeMap::new();
    for Entry { name, value } in entries {
        let fine = parts::name(sheet, "an organization", name).is_some();
        let label = format!("[organization.{}]", name.value);
        let organization = match value.value.as_table() {
            Some(table) => organization(&Section::new(sheet, table, label, name.span.clone(), ORGANIZATION_KEYS), sinks, world),
            None => {
                sheet.error(&value.span, format!("`{label}` is {}", described(value.value)), format!("write a table `{label}`"));
                None
            }
        };
        organizations.insert(Arc::from(name.value), organization.filter(|_| fine));
    }
    organizations
}

fn organization(section: &Section<'_>, sinks: &BTreeMap<Arc<str>, Drafted>, world: &dyn Surroundings) -> Option<Organization> {
    let admin_token = admin::token(section, sinks, world);
    let api_url = parts::url(section, "api_url", true);
    let postgres = endpoint(section, world);
    let broken = api_url.is_broken() || postgres.is_broken();
    let organization = Organization {
        admin_token: admin_token.value()?,
        api_url: api_url.value().unwrap_or_else(|| API_URL.to_owned()),
        requests_per_second: section.count("requests_per_second").value().unwrap_or(count(10)),
        max_in_flight: section.count("max_in_flight").value().unwrap_or(count(8)),
        postgres: postgres.value(),
    };
    (!broken).then_some(organization)
}

fn endpoint(section: &Section<'_>, world: &dyn Surroundings) -> Field<Endpoint> {
    let ca_cert = section.path("postgres_ca_cert");
    let postgres = section.text("postgres").and_then(|at| {
        let parsed = host_and_port(at.value);
        if parsed.is_none() {
            let help = "host and port alone, such as `pg.eu-central-1-aws.motherduck.com:5432`";
            section.sheet.error(&at.span, format!("`postgres` is {}", quoted(at.value)), help);
        }
        parsed
    });
    if let Field::Set(at) = &ca_cert {
        parts::need_file(section.sheet, "the CA certificate", &At::new(at.value.as_path(), at.span.clone()), world);
        if postgres.is_absent() {
            section.sheet.error(&at.span, "`postgres_ca_cert` without `postgres`", "it is the authority of that endpoint");
        }
    }
    if ca_cert.is_broken() {
        return Field::Broken;
    }
    let ca_cert = ca_cert.value();
    postgres.and_then(|at| {
        let (host, port) = &at.value;
        Some(Endpoint { host: host.clone(), port: *port, ca_cert: ca_cert.clone() })
    })
}

/// `host` or `host:port`; an IPv6 address in brackets.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let url = reqwest::Url::parse(&format!("postgres://{text}")).ok()?;
    let bare = url.username().is_empty() && url.password().is_none() && url.path().is_empty();
    let host = url.host_str().filter(|host| !host.is_empty())?;
    let alone = bare && url.query().is_none() && url.fragment().is_none();
    alone.then(|| (host.trim_start_matches('[').trim_end_matches(']').to_owned(), url.port().unwrap_or(POSTGRES_PORT)))
}

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

/// A section that may be left out: then it is an empty table at the beginning of the file.
pub(super) fn optional<'d>(
    root: &Section<'d>,
    key: &'static str,
    known: &'static [&'static str],
    empty: &'d DeTable<'d>,
) -> Section<'d> {
    let label = format!("[{key}]");
    let (table, span): (&DeTable<'_>, Span) = match root.get(key) {
        None => (empty, 0..0),
        Some(at) => match at.value.as_table() {
            Some(table) => (table, root.key_span(key)),
            None => {
                root.sheet.error(&at.span, format!("`{key}` is {}", described(at.value)), format!("write a table `{label}`"));
                (empty, at.span)
            }
        },
    };
    Section::new(root.sheet, table, label, span, known)
}

pub(super) fn server(section: &Section<'_>) -> Option<Server> {
    let listen = address(section, "listen");
    let metrics_listen = address(section, "metrics_listen");
    if let (Field::Set(a), Field::Set(b)) = (&listen, &metrics_listen)
        && a.value == b.value
    {
        section.sheet.error(
            &b.span,
            format!("`metrics_listen` is {}, as `listen` is", b.value),
            "use another port, or leave it out",
        );
    }
    let control = section.path("control");
    let control_group = section.text("control_group");
    if let (Field::Absent, Field::Set(at)) = (&control, &control_group) {
        section.sheet.error(&at.span, "`control_group` without `control`", "it is the group of the socket that `control` names");
    }
    let broken = listen.is_broken() || metrics_listen.is_broken() || control.is_broken() || control_group.is_broken();
    let server = Server {
        listen: listen.value().unwrap_or(LISTEN_DEFAULT),
        metrics_listen: metrics_listen.value(),
        page: section.boolean("page").value().unwrap_or(false),
        per_credential_metrics: section.boolean("per_credential_metrics").value().unwrap_or(true),
        control: control.value(),
        control_group: control_group.value().map(str::to_owned),
    };
    (!broken).then_some(server)
}

fn address(section: &Section<'_>, key: &'static str) -> Field<SocketAddr> {
    section.text(key).and_then(|at| {
        let address = at.value.parse().ok();
        if address.is_none() {
            let help = match at.value.strip_prefix("localhost:") {
                Some(port) => format!("a host's name is not looked up: write `127.0.0.1:{port}`"),
                None => "an IP address and a port, such as `127.0.0.1:9643`, `0.0.0.0:9644` or `[::1]:9643`".to_owned(),
            };
            section.sheet.error(&at.span, format!("`{key}` is {}, which is no address to listen on", quoted(at.value)), help);
        }
        address
    })
}

/// `credentials` is their number: the default limit grows with it.
pub(super) fn limits(section: &Section<'_>, credentials: usize) -> Limits {
    let tokens = section.count("tokens_per_credential").value().map_or(16, NonZeroU32::get);
    let written = (section.count("rotations_per_minute").value(), section.count("revocations_per_minute").value());
    Limits::of(written, usize::try_from(tokens).unwrap_or(usize::MAX), credentials)
}
