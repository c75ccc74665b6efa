//! The admin token: where it is read from, and `[organization.<name>.admin_rotation]`, which makes a credential of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::credential::{CREDENTIAL_KEYS, Context, Draft, Resolved};
use super::delivery::{self, DELIVERY_KEYS, Delivery, Target, Template, Templates};
use super::hint;
use super::parts::{self, SECRET_SOURCE_KEYS};
use super::problem::Span;
use super::reader::{At, Entry, Field, Section, described};
use super::sections::{AdminToken, Organization};
use super::sink::{Drafted, Sink};
use super::surroundings::{MountFact, Surroundings};
use crate::rotation::CredentialName;
use crate::secret::SecretSource;
use crate::sinks::file;
use crate::sinks::format::Format;

/// The keys of a credential that an admin rotation knows: the others follow from the organization.
pub(super) const ADMIN_ROTATION_KEYS: &[&str] = &["account", "every", "cron", "timezone", "window", "ttl", "grace", "adopt"];

/// The sink of an admin token's file. No sink of the configuration can have this name.
pub(super) const FILE_SINK: &str = "@admin";

/// `admin_token`: a file, a variable, or a place in a sink.
pub(super) fn token(section: &Section<'_>, sinks: &BTreeMap<Arc<str>, Drafted>, world: &dyn Surroundings) -> Field<AdminToken> {
    let table = section.get("admin_token").and_then(|at| Some((at.value.as_table()?, at.span)));
    if let Some((table, span)) = table
        && table.contains_key("sink")
    {
        return match in_a_sink(section, table, span.clone(), sinks) {
            Some(delivery) => Field::Set(At::new(AdminToken::Place(delivery), span)),
            None => Field::Broken,
        };
    }
    let source = parts::secret_source(section, "admin_token");
    match &source {
        Field::Absent => section.missing("admin_token", "add `admin_token = { file = \"/var/lib/rotad/admin-token\" }`"),
        Field::Broken => {}
        Field::Set(source) => parts::check_secret(section.sheet, "the admin token", source, world),
    }
    source.and_then(|at| Some(AdminToken::Secret(at.value.clone())))
}

fn in_a_sink<'d>(
    section: &Section<'d>,
    table: &'d DeTable<'d>,
    span: Span,
    sinks: &BTreeMap<Arc<str>, Drafted>,
) -> Option<Delivery> {
    let label = format!("`admin_token` of {}", section.label);
    if let Some(key) = SECRET_SOURCE_KEYS.iter().find(|key| table.contains_key(**key)) {
        section.sheet.error(&span, format!("{label} has both `sink` and `{key}`"), "keep one of them");
        return None;
    }
    let inner = Section::new(section.sheet, table, label, span, DELIVERY_KEYS);
    delivery::template(&inner, sinks)?.as_it_stands(section.sheet)
}

/// The credential that `admin_rotation` makes of an organization's admin token, by its name.
pub(super) fn rotation<'d>(
    entry: &Entry<'d>,
    organization: &Organization,
    context: &Context<'d>,
    world: &dyn Surroundings,
) -> Option<(CredentialName, Resolved)> {
    let (sheet, name) = (context.sheet, &entry.name);
    let (key, value) = entry.value.value.as_table()?.get_key_value("admin_rotation")?;
    let label = format!("[organization.{}.admin_rotation]", name.value);
    let Some(table) = value.get_ref().as_table() else {
        sheet.error(&value.span(), format!("`{label}` is {}", described(value.get_ref())), format!("write a table `{label}`"));
        return None;
    };
    let section = Section::new(sheet, table, label, key.span(), CREDENTIAL_KEYS);
    let mut fine = true;
    for key in CREDENTIAL_KEYS.iter().filter(|key| !ADMIN_ROTATION_KEYS.contains(key) && section.get(key).is_some()) {
        let help = format!("it knows {}", hint::listed(ADMIN_ROTATION_KEYS.iter().copied()));
        sheet.error(&section.key_span(key), format!("`{key}` means nothing to {}", section.label), help);
        fine = false;
    }
    if section.get("account").is_none() {
        section.missing("account", "name the user that the admin token belongs to: `account = \"rotad_admin\"`");
        return None;
    }
    let template = place(&organization.admin_token, &section, world)?;
    let key: CredentialName = match format!("admin-{}", name.value).parse() {
        Ok(key) => key,
        Err(_) => {
            let message = format!("the name of {} is too long for a credential `admin-{}`", section.label, name.value);
            sheet.error(&name.span, message, "57 characters are the most");
            return None;
        }
    };
    let draft = Draft::of_admin(&section, context, Arc::from(name.value), At::new(one(template), section.span.clone()));
    let empty = DeTable::new();
    let none = Draft::read(&Section::new(sheet, &empty, "nothing", 0..0, CREDENTIAL_KEYS), context);
    let resolved = context.resolve(&At::new(key.as_str(), name.span.clone()), &draft, &none)?;
    fine.then_some((key, resolved))
}

fn one(template: Template) -> Templates {
    Templates { items: vec![template], complete: true }
}

/// The place that the admin token is read from, as one that it is delivered to; reported where it can't be.
fn place(source: &AdminToken, section: &Section<'_>, world: &dyn Surroundings) -> Option<Template> {
    let delivery = match source {
        AdminToken::Place(delivery) => delivery.clone(),
        AdminToken::Secret(SecretSource::File(path)) => {
            let (mode, owner, group) = (delivery::FILE_MODE, None, None);
            let target = Target::File(file::Target { path: path.clone(), format: Format::Raw, mode, owner, group });
            Delivery { sink: Arc::from(FILE_SINK), target, take_over: true }
        }
        AdminToken::Secret(SecretSource::Environment(_)) => {
            let message = format!("{}: the admin token comes from a variable, which can't be written", section.label);
            section.sheet.error(&section.span, message, "let it come from a file on a disk, or from a sink");
            return None;
        }
    };
    if let Target::File(target) = &delivery.target
        && !lasts(&target.path, section, world)
    {
        return None;
    }
    Some(Template::of(Delivery { take_over: true, ..delivery }, section.span.clone()))
}

/// The old admin token is revoked, so the new one must be where it is after a reboot as well.
fn lasts(path: &Path, section: &Section<'_>, world: &dyn Surroundings) -> bool {
    let directory = path.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let found = match world.mount(&directory) {
        MountFact::Lasting => return true,
        MountFact::Memory(kind) => format!("on a `{kind}`, which a reboot empties"),
        MountFact::ReadOnly => "on a read-only mount".to_owned(),
    };
    let message = format!("{}: the admin token is in `{}`, {found}", section.label, path.display());
    section.sheet.error(&section.span, message, "keep it in a directory on a disk that rotad may write to, or in a sink");
    false
}

/// Adds the sink of admin tokens' files, where one is delivered to.
pub(super) fn with_file_sink(sinks: &mut BTreeMap<Arc<str>, Sink>, deliveries: &[Delivery]) {
    if deliveries.iter().any(|delivery| delivery.sink.as_ref() == FILE_SINK) {
        sinks.insert(Arc::from(FILE_SINK), Sink::File(Arc::new(file::Config::default())));
    }
}
