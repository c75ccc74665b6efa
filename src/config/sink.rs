//! `[sink.<name>.<kind>]`: the plain settings that each sink is built from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::hint;
use super::parts::{self, SECRET_SOURCE_KEYS};
use super::problem::{Sheet, quoted};
use super::reader::{At, Entry, Field, Section, described, entries};
use super::surroundings::Surroundings;
use crate::secret::SecretSource;
use crate::sinks::vault::{Auth, KvVersion};
use crate::sinks::{Kind, aws, file, vault};

pub(super) const KINDS: &[&str] = &["aws", "file", "vault"];
pub(super) const AWS_KEYS: &[&str] =
    &["region", "endpoint_url", "profile", "role_arn", "external_id", "kms_key_id", "tags", "create"];
pub(super) const FILE_KEYS: &[&str] = &["host"];
pub(super) const VAULT_KEYS: &[&str] = &["address", "namespace", "ca_cert", "mount", "kv_version", "auth"];
pub(super) const AUTH_KEYS: &[&str] = &["token", "approle", "kubernetes", "jwt", "cert"];
pub(super) const APPROLE_KEYS: &[&str] = &["role_id", "secret_id", "mount"];
pub(super) const KUBERNETES_KEYS: &[&str] = &["role", "jwt_file", "mount"];
pub(super) const JWT_KEYS: &[&str] = &["role", "token", "mount"];
pub(super) const CERT_KEYS: &[&str] = &["cert_file", "key_file", "role", "mount"];

const KUBERNETES_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// A configured sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    Aws(Arc<aws::Config>),
    File(Arc<file::Config>),
    Vault(Arc<vault::Config>),
}

impl Sink {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Aws(_) => Kind::Aws,
            Self::File(_) => Kind::File,
            Self::Vault(_) => Kind::Vault,
        }
    }
}

/// A sink as far as it was understood: a delivery to a broken one is not an error of its own.
#[derive(Debug, Clone)]
pub(super) struct Drafted {
    pub kind: Option<Kind>,
    pub sink: Option<Sink>,
}

pub(super) fn sinks(sheet: &Sheet<'_>, found: &[Entry<'_>], world: &dyn Surroundings) -> BTreeMap<Arc<str>, Drafted> {
    found.iter().map(|entry| (Arc::from(entry.name.value), drafted(sheet, entry, world))).collect()
}

fn drafted(sheet: &Sheet<'_>, Entry { name, value }: &Entry<'_>, world: &dyn Surroundings) -> Drafted {
    let broken = Drafted { kind: None, sink: None };
    let fine = parts::name(sheet, "a sink", name).is_some();
    let example = format!("write `[sink.{}.<kind>]`, the kind being one of {}", name.value, hint::listed(KINDS.iter().copied()));
    let Some(table) = value.value.as_table() else {
        sheet.error(&value.span, format!("sink {} is {}", quoted(name.value), described(value.value)), example);
        return broken;
    };
    let inside = entries(table);
    let (known, unknown): (Vec<_>, Vec<_>) = inside.iter().partition(|entry| KINDS.contains(&entry.name.value));
    for Entry { name: kind, value } in unknown.iter().copied() {
        let help = match (hint::nearest(kind.value, KINDS.iter().copied()), value.value.is_table()) {
            (Some(meant), _) => format!("did you mean `[sink.{}.{meant}]`?", name.value),
            (None, _) => example.clone(),
        };
        sheet.error(&kind.span, format!("{} is no kind of sink", quoted(kind.value)), help);
    }
    let [entry] = known.as_slice() else {
        if known.len() > 1 {
            let message = format!("sink {} has {} kinds", quoted(name.value), known.len());
            sheet.error(&name.span, message, "give each a name of its own: `[sink.<name>.<kind>]`");
        } else if unknown.is_empty() {
            sheet.error(&name.span, format!("sink {} has no kind", quoted(name.value)), example);
        }
        return broken;
    };
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == entry.name.value);
    let Some(table) = entry.value.value.as_table() else {
        let message = format!("`[sink.{}.{}]` is {}", name.value, entry.name.value, described(entry.value.value));
        sheet.error(&entry.value.span, message, "it must be a table");
        return Drafted { kind, sink: None };
    };
    let section =
        |known| Section::new(sheet, table, format!("[sink.{}.{}]", name.value, entry.name.value), entry.name.span.clone(), known);
    let sink = match kind {
        Some(Kind::Aws) => aws(&section(AWS_KEYS)),
        Some(Kind::File) => Some(Sink::File(Arc::new(file::Config { host: owned(section(FILE_KEYS).text("host")) }))),
        Some(Kind::Vault) => vault(&section(VAULT_KEYS), world),
        None => None,
    };
    Drafted { kind, sink: sink.filter(|_| fine) }
}

fn owned(field: Field<&str>) -> Option<String> {
    field.value().map(str::to_owned)
}

fn aws(section: &Section<'_>) -> Option<Sink> {
    let role_arn = section.text("role_arn").and_then(|at| {
        let fine = at.value.starts_with("arn:") && at.value.contains(":role/");
        if !fine {
            let message = format!("`role_arn` is {}, which is no ARN of a role", quoted(at.value));
            section.sheet.error(&at.span, message, "such as `arn:aws:iam::123456789012:role/rotad`");
        }
        fine.then_some(at.value)
    });
    let external_id = section.text("external_id");
    if let (Field::Set(at), Field::Absent) = (&external_id, &role_arn) {
        section.sheet.error(
            &at.span,
            "`external_id` without `role_arn`",
            "it is sent when a role is assumed: add `role_arn`, or leave it out",
        );
    }
    let endpoint_url = parts::url(section, "endpoint_url", true);
    if endpoint_url.is_broken() {
        return None;
    }
    Some(Sink::Aws(Arc::new(aws::Config {
        region: owned(section.text("region")),
        endpoint_url: endpoint_url.value(),
        profile: owned(section.text("profile")),
        role_arn: owned(role_arn),
        external_id: owned(external_id),
        kms_key_id: owned(section.text("kms_key_id")),
        tags: strings(section, "tags"),
        create: section.boolean("create").value().unwrap_or(true),
    })))
}

/// A table of texts whose keys the user chooses.
pub(super) fn strings(section: &Section<'_>, key: &'static str) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    for Entry { name, value } in section.entries(key).value().unwrap_or_default() {
        match value.value.as_str() {
            Some(text) => {
                pairs.insert(name.value.to_owned(), text.to_owned());
            }
            None => {
                let message = format!("{} in `{key}` of {} is {}", quoted(name.value), section.label, described(value.value));
                section.sheet.error(&value.span, message, "it must be text in quotes");
            }
        }
    }
    pairs
}

fn vault(section: &Section<'_>, world: &dyn Surroundings) -> Option<Sink> {
    let address = parts::url(section, "address", false);
    if address.is_absent() {
        section.missing("address", "such as `address = \"https://vault.internal:8200\"`");
    }
    let ca_cert = section.path("ca_cert");
    if let Field::Set(at) = &ca_cert {
        parts::check_file(section.sheet, "the CA certificate", &At::new(at.value.as_path(), at.span.clone()), world);
    }
    let kv_version = match section.get("kv_version") {
        None => KvVersion::V2,
        Some(at) => match at.value.as_integer().filter(|integer| integer.radix() == 10).map(|integer| integer.as_str()) {
            Some("1") => KvVersion::V1,
            Some("2") => KvVersion::V2,
            _ => {
                section.sheet.error(&at.span, "`kv_version` is neither 1 nor 2", "a number without quotes: `kv_version = 2`");
                KvVersion::V2
            }
        },
    };
    let mount = mount(section, "secret");
    let namespace = slashless(section, "namespace");
    let auth = match section.table("auth", AUTH_KEYS) {
        Field::Absent => {
            section.missing("auth", "such as `auth = { approle = { role_id = \"…\", secret_id = { file = \"/path\" } } }`");
            None
        }
        Field::Broken => None,
        Field::Set(at) => auth(&at.value, world),
    };
    let config =
        vault::Config { address: address.value()?, namespace, ca_cert: ca_cert.value(), mount: mount?, kv_version, auth: auth? };
    Some(Sink::Vault(Arc::new(config)))
}

/// A mount's or namespace's path, without slashes at its ends.
fn slashless(section: &Section<'_>, key: &'static str) -> Option<String> {
    section
        .text(key)
        .and_then(|at| {
            let path = at.value.trim_matches('/');
            let fine = !path.is_empty() && !path.contains(['?', '#', '%']) && path.split('/').all(is_segment);
            if !fine {
                let message = format!("`{key}` is {}, which is no path in Vault", quoted(at.value));
                section.sheet.error(&at.span, message, "segments with `/` between them, none of them empty, `.` or `..`");
            }
            fine.then(|| path.to_owned())
        })
        .value()
}

pub(super) fn is_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
}

fn mount(section: &Section<'_>, default: &str) -> Option<String> {
    if section.get("mount").is_none() { Some(default.to_owned()) } else { slashless(section, "mount") }
}

fn auth(section: &Section<'_>, world: &dyn Surroundings) -> Option<Auth> {
    let present: Vec<&str> = AUTH_KEYS.iter().copied().filter(|key| section.get(key).is_some()).collect();
    if !parts::one_of(section, &present, AUTH_KEYS, "login") {
        return None;
    }
    if present == ["token"] {
        return secret(section, "token", "Vault's token", world).map(Auth::Token);
    }
    approle(section, world).or_else(|| kubernetes(section)).or_else(|| jwt(section, world)).or_else(|| cert(section, world))
}

fn approle(section: &Section<'_>, world: &dyn Surroundings) -> Option<Auth> {
    let inner = section.table("approle", APPROLE_KEYS).value()?;
    let role_id = required(&inner, "role_id");
    let secret_id = secret(&inner, "secret_id", "the AppRole's secret id", world);
    Some(Auth::AppRole { mount: mount(&inner, "approle")?, role_id: role_id?, secret_id: secret_id? })
}

fn kubernetes(section: &Section<'_>) -> Option<Auth> {
    let inner = section.table("kubernetes", KUBERNETES_KEYS).value()?;
    let role = required(&inner, "role");
    // Not looked at: it exists in the pod alone, and a check may run elsewhere.
    let jwt = inner.path("jwt_file");
    let jwt = if jwt.is_absent() { Some(PathBuf::from(KUBERNETES_TOKEN)) } else { jwt.value() };
    Some(Auth::Kubernetes { mount: mount(&inner, "kubernetes")?, role: role?, jwt: jwt? })
}

fn jwt(section: &Section<'_>, world: &dyn Surroundings) -> Option<Auth> {
    let inner = section.table("jwt", JWT_KEYS).value()?;
    let token = secret(&inner, "token", "the JWT", world);
    Some(Auth::Jwt { mount: mount(&inner, "jwt")?, role: owned(inner.text("role")), token: token? })
}

fn cert(section: &Section<'_>, world: &dyn Surroundings) -> Option<Auth> {
    let inner = section.table("cert", CERT_KEYS).value()?;
    let [cert_file, key_file] = ["cert_file", "key_file"].map(|key| {
        let path = inner.path(key);
        match &path {
            Field::Absent => inner.missing(key, "the path of a PEM file"),
            Field::Broken => {}
            Field::Set(at) => {
                parts::check_file(section.sheet, &format!("`{key}`"), &At::new(at.value.as_path(), at.span.clone()), world);
            }
        }
        path.value()
    });
    Some(Auth::Cert {
        mount: mount(&inner, "cert")?,
        role: owned(inner.text("role")),
        cert_file: cert_file?,
        key_file: key_file?,
    })
}

fn required(section: &Section<'_>, key: &'static str) -> Option<String> {
    let field = section.text(key);
    if field.is_absent() {
        section.missing(key, "it is needed to log in");
    }
    owned(field)
}

fn secret(section: &Section<'_>, key: &'static str, what: &str, world: &dyn Surroundings) -> Option<SecretSource> {
    debug_assert_eq!(SECRET_SOURCE_KEYS, ["file", "env"]);
    let source = parts::secret_source(section, key);
    match &source {
        Field::Absent => section.missing(key, &format!("add `{key} = {{ file = \"/path\" }}`")),
        Field::Broken => {}
        Field::Set(at) => parts::check_later(section.sheet, what, at, parts::OF_A_SINK, world),
    }
    source.value()
}
