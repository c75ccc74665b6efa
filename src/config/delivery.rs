//! `deliver = [ … ]`: templates of places with placeholders, and the places that come of them.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use toml::de::DeValue;

use super::hint;
use super::problem::{Sheet, Span, quoted};
use super::reader::{At, Entry, Field, Section, described};
use super::sink::{Drafted, Sink, is_segment};
use crate::sinks::format::{Field as TokenField, Format};
use crate::sinks::{Kind, aws, file, vault};

pub(super) const DELIVERY_KEYS: &[&str] =
    &["sink", "take_over", "secret", "path", "key", "format", "variable", "fields", "mode", "owner", "group"];
const AWS_DELIVERY_KEYS: &[&str] = &["sink", "take_over", "secret", "format", "fields"];
const FILE_DELIVERY_KEYS: &[&str] = &["sink", "take_over", "path", "format", "variable", "fields", "mode", "owner", "group"];
const VAULT_DELIVERY_KEYS: &[&str] = &["sink", "take_over", "path", "key"];

const AWS_FORMATS: &[(&str, &str)] = &[("raw", "raw"), ("json", "json")];
/// All that there are.
pub(super) const FILE_FORMATS: &[(&str, &str)] = &[("raw", "raw"), ("env", "env"), ("json", "json")];

const PLACEHOLDERS: &[&str] = &["credential", "account", "deployment"];
pub(super) const FILE_MODE: u32 = 0o600;

/// One place that a credential's token goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The sink's name in `Config::sinks`.
    pub sink: Arc<str>,
    pub target: Target,
    /// Whether a value without a marker of ours may be overwritten at the first delivery.
    pub take_over: bool,
}

/// What the sink's place is built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Aws(aws::Target),
    File(file::Target),
    Vault(vault::Target),
}

/// A delivery with its placeholders still in it.
#[derive(Debug)]
pub(super) struct Template {
    pub delivery: Delivery,
    pub span: Span,
}

/// What the placeholders stand for.
pub(super) struct Names<'n> {
    pub credential: &'n str,
    pub account: &'n str,
    pub deployment: &'n str,
}

/// The templates of one `deliver`; broken ones are reported and left out, which `complete` tells.
#[derive(Debug)]
pub(super) struct Templates {
    pub items: Vec<Template>,
    pub complete: bool,
}

pub(super) fn templates<'d>(
    sheet: &'d Sheet<'d>,
    items: &[At<&'d DeValue<'d>>],
    sinks: &BTreeMap<Arc<str>, Drafted>,
    label: &str,
) -> Templates {
    let mut templates = Templates { items: Vec::new(), complete: true };
    for item in items {
        let template = match item.value.as_table() {
            Some(table) => {
                let section = Section::new(sheet, table, format!("a delivery of {label}"), item.span.clone(), DELIVERY_KEYS);
                template(&section, sinks)
            }
            None => {
                let message = format!("a delivery of {label} is {}", described(item.value));
                sheet.error(&item.span, message, "it must be a table, such as `{ sink = \"disk\", path = \"/run/etl/token\" }`");
                None
            }
        };
        templates.complete &= template.is_some();
        templates.items.extend(template);
    }
    templates
}

pub(super) fn template(section: &Section<'_>, sinks: &BTreeMap<Arc<str>, Drafted>) -> Option<Template> {
    let sink = section.text("sink");
    if sink.is_absent() {
        let names = hint::listed(sinks.keys().map(AsRef::as_ref));
        section.missing("sink", &format!("configured sinks: {names}"));
    }
    let sink = sink.set()?;
    let Some((name, drafted)) = sinks.get_key_value(sink.value) else {
        let help = if sinks.is_empty() {
            "no sink is configured: add a section such as `[sink.disk.file]`".to_owned()
        } else {
            hint::did_you_mean(sink.value, sinks.keys().map(AsRef::as_ref), "configured sinks")
        };
        section.sheet.error(&sink.span, format!("no sink is named {}", quoted(sink.value)), help);
        return None;
    };
    let kind = drafted.kind?;
    let (known, target): (_, fn(&Section<'_>) -> Option<Target>) = match kind {
        Kind::Aws => (AWS_DELIVERY_KEYS, aws_target),
        Kind::File => (FILE_DELIVERY_KEYS, file_target),
        Kind::Vault => (VAULT_DELIVERY_KEYS, vault_target),
    };
    let mut fine = true;
    for key in DELIVERY_KEYS.iter().filter(|key| !known.contains(key) && section.get(key).is_some()) {
        let message = format!("`{key}` means nothing to the sink `{name}`, which is of the kind `{}`", kind.as_str());
        section.sheet.error(&section.key_span(key), message, format!("it knows {}", hint::listed(known.iter().copied())));
        fine = false;
    }
    let take_over = section.boolean("take_over").value().unwrap_or(false);
    let target = target(section)?;
    fine.then(|| Template::of(Delivery { sink: Arc::clone(name), target, take_over }, section.span.clone()))
}

/// A part of a place: required, with known placeholders only.
fn place<'d>(section: &Section<'d>, key: &'static str, example: &str) -> Option<&'d str> {
    let field = section.text(key);
    if field.is_absent() {
        section.missing(key, &format!("such as `{key} = \"{example}\"`"));
    }
    with_placeholders(section, field)
}

fn with_placeholders<'d>(section: &Section<'d>, field: Field<&'d str>) -> Option<&'d str> {
    let at = field.set()?;
    let mut rest = at.value;
    while let Some(open) = rest.find(['{', '}']) {
        let end = rest[open..].find('}').map(|end| open + end);
        let (Some(end), true) = (end, rest[open..].starts_with('{')) else {
            let message = format!("{} has a brace without its partner", quoted(at.value));
            section.sheet.error(
                &at.span,
                message,
                "braces stand around placeholders only: `{credential}`, `{account}`, `{deployment}`",
            );
            return None;
        };
        let name = &rest[open + 1..end];
        if !PLACEHOLDERS.contains(&name) {
            let help = hint::did_you_mean(name, PLACEHOLDERS.iter().copied(), "known placeholders");
            section.sheet.error(&at.span, format!("unknown placeholder `{{{name}}}` in {}", quoted(at.value)), help);
            return None;
        }
        rest = &rest[end + 1..];
    }
    Some(at.value)
}

fn aws_target(section: &Section<'_>) -> Option<Target> {
    let format = format(section, AWS_FORMATS);
    let secret = place(section, "secret", "prod/{credential}/motherduck")?.to_owned();
    Some(Target::Aws(aws::Target { secret, format: format? }))
}

fn file_target(section: &Section<'_>) -> Option<Target> {
    let format = format(section, FILE_FORMATS);
    let mode = mode(section);
    let owner = section.text("owner");
    let group = section.text("group");
    let broken = owner.is_broken() || group.is_broken();
    let path = PathBuf::from(place(section, "path", "/run/{credential}/motherduck_token")?);
    let target = file::Target {
        path,
        format: format?,
        mode: mode?,
        owner: owner.value().map(str::to_owned),
        group: group.value().map(str::to_owned),
    };
    (!broken).then_some(Target::File(target))
}

fn vault_target(section: &Section<'_>) -> Option<Target> {
    let path = place(section, "path", "{credential}/motherduck");
    let key = section.text("key");
    let key = if key.is_absent() { Some("token") } else { with_placeholders(section, key) };
    Some(Target::Vault(vault::Target { path: path?.to_owned(), key: key?.to_owned() }))
}

fn mode(section: &Section<'_>) -> Option<u32> {
    let field = section.text("mode");
    if field.is_absent() {
        return Some(FILE_MODE);
    }
    field
        .and_then(|at| {
            let octal = at.value.bytes().all(|b| matches!(b, b'0'..=b'7')) && (3..=4).contains(&at.value.len());
            let mode = octal.then(|| u32::from_str_radix(at.value, 8).ok()).flatten();
            let help = "four octal digits: readable by its owner, not writable by everybody, such as `0600` or `0640`";
            match mode {
                Some(mode) if mode & !0o777 == 0 && mode & 0o400 != 0 && mode & 0o002 == 0 => Some(mode),
                _ => {
                    section.sheet.error(
                        &at.span,
                        format!("`mode` is {}, which a token's file can't have", quoted(at.value)),
                        help,
                    );
                    None
                }
            }
        })
        .value()
}

fn format(section: &Section<'_>, choices: &'static [(&'static str, &'static str)]) -> Option<Format> {
    let word = section.choice("format", choices);
    if word.is_broken() {
        return None;
    }
    let word = word.value().unwrap_or("raw");
    for (key, wanted) in [("variable", "env"), ("fields", "json")] {
        if section.get(key).is_some() && word != wanted && choices.iter().any(|(choice, _)| *choice == wanted) {
            let message = format!("`{key}` with `format = \"{word}\"`");
            section.sheet.error(&section.key_span(key), message, format!("it belongs to `format = \"{wanted}\"`"));
            return None;
        }
    }
    match word {
        "env" => {
            let variable = variable(section)?;
            Some(Format::Env { variable })
        }
        "json" if section.get("fields").is_some() => fields(section),
        "json" => Some(Format::json()),
        _ => Some(Format::Raw),
    }
}

fn variable(section: &Section<'_>) -> Option<String> {
    let field = section.text("variable");
    if field.is_absent() {
        return Some("MOTHERDUCK_TOKEN".to_owned());
    }
    field
        .and_then(|at| {
            let begins = at.value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            let fine = begins && at.value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !fine {
                let message = format!("`variable` is {}, which is no name for a variable", quoted(at.value));
                section.sheet.error(&at.span, message, "letters, digits and `_`, no digit at the beginning");
            }
            fine.then(|| at.value.to_owned())
        })
        .value()
}

fn fields(section: &Section<'_>) -> Option<Format> {
    let at = section.entries("fields").set()?;
    let mut fields = Vec::new();
    let mut complete = true;
    for Entry { name, value } in at.value {
        let word = value.value.as_str();
        match TokenField::ALL.into_iter().find(|field| Some(field.as_str()) == word) {
            Some(field) => fields.push((name.value.to_owned(), field)),
            None => {
                let known = TokenField::ALL.iter().map(|field| field.as_str());
                let (message, help) = match word {
                    Some(word) => {
                        (format!("no field is named {}", quoted(word)), hint::did_you_mean(word, known, "known fields"))
                    }
                    None => (
                        format!("{} in `fields` is {}", quoted(name.value), described(value.value)),
                        format!("the name of a field in quotes: {}", hint::listed(known)),
                    ),
                };
                section.sheet.error(&value.span, message, help);
                complete = false;
            }
        }
    }
    if complete && !fields.iter().any(|(_, field)| *field == TokenField::Token) {
        section.sheet.error(
            &at.span,
            "`fields` selects no `token`",
            "one of them must be the token: `{ motherduck_token = \"token\" }`",
        );
        return None;
    }
    complete.then_some(Format::Json { fields })
}

impl Template {
    pub fn of(delivery: Delivery, span: Span) -> Self {
        Self { delivery, span }
    }

    /// The delivery of a place in which nothing is to be filled in; reported where something would be.
    pub fn as_it_stands(&self, sheet: &Sheet<'_>) -> Option<Delivery> {
        let has = |text: &str| text.contains('{');
        let placeholder = match &self.delivery.target {
            Target::Aws(target) => has(&target.secret),
            Target::File(target) => has(&target.path.to_string_lossy()),
            Target::Vault(target) => has(&target.path) || has(&target.key),
        };
        if placeholder {
            sheet.error(&self.span, "a placeholder in the place of an admin token", "there is one of it: write the place out");
            return None;
        }
        if let Err(message) = self.delivery.target.check() {
            sheet.error(&self.span, message, "for the admin token");
            return None;
        }
        Some(self.delivery.clone())
    }
}

impl Target {
    /// The error says what the place can't be.
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Aws(target) => check_aws_secret(&target.secret),
            Self::File(target) => check_file_path(&target.path.to_string_lossy()),
            Self::Vault(target) => check_vault_path(&target.path),
        }
    }
}

fn fill(template: &str, names: &Names<'_>) -> String {
    if !template.contains('{') {
        return template.to_owned();
    }
    // One pass, so that nothing that was filled in is looked at again.
    let mut filled = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        filled.push_str(match name {
            "credential" => names.credential,
            "account" => names.account,
            _ => names.deployment,
        });
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// AWS: 1 to 512 of letters, digits and `/_+=.@-` (documented), or an ARN.
fn check_aws_secret(secret: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c);
    let arn = secret.starts_with("arn:");
    if (arn && secret.contains(":secretsmanager:") && secret.contains(":secret:"))
        || (!arn && (1..=512).contains(&secret.len()) && secret.chars().all(fine))
    {
        return Ok(());
    }
    Err(format!("{} is no name of an AWS secret: 1 to 512 of letters, digits and `/_+=.@-`, or an ARN", quoted(secret)))
}

/// The file sink's own rules: one spelling for one file, so that two deliveries to it are seen to be the same.
fn check_file_path(text: &str) -> Result<(), String> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(format!("`path` is {}, a relative path: a file's path must be absolute", quoted(text)));
    }
    let spelled: PathBuf = path.components().collect();
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Err(format!("{} names no file, such as `/run/etl/motherduck_token`", quoted(text)));
    };
    if !plain || spelled.as_os_str() != path.as_os_str() {
        return Err(format!("{} must be without `.`, `..`, `//` and a `/` at its end", quoted(text)));
    }
    // A name has 255 bytes, and the marker and the temporary file beside it are longer than the name.
    const NAME_MAX: usize = 200;
    if name.len() > NAME_MAX || (name.starts_with('.') && name.ends_with(".rotad")) {
        return Err(format!(
            "{} can't be a token's file: at most {NAME_MAX} bytes, and no `.NAME.rotad`, which is a marker's name",
            quoted(name)
        ));
    }
    Ok(())
}

fn check_vault_path(path: &str) -> Result<(), String> {
    if path.split('/').all(is_segment) && !path.contains(['\0', '\n']) {
        return Ok(());
    }
    Err(format!("{} is no path in Vault: no `/` at its ends, no segment empty, `.` or `..`", quoted(path)))
}

impl Delivery {
    /// This delivery's place, a template, with its placeholders filled in; the error says what the place can't be.
    pub(super) fn filled(&self, names: &Names<'_>) -> Result<Self, String> {
        let filled = self.spelled(names);
        filled.target.check().map(|()| filled)
    }

    /// The same, whether the place can be or not.
    pub(super) fn spelled(&self, names: &Names<'_>) -> Self {
        let target = match &self.target {
            Target::Aws(target) => {
                Target::Aws(aws::Target { secret: fill(&target.secret, names), format: target.format.clone() })
            }
            Target::File(target) => {
                let path = PathBuf::from(fill(&target.path.to_string_lossy(), names));
                Target::File(file::Target { path, ..target.clone() })
            }
            Target::Vault(target) => {
                Target::Vault(vault::Target { path: fill(&target.path, names), key: fill(&target.key, names) })
            }
        };
        Self { sink: Arc::clone(&self.sink), target, take_over: self.take_over }
    }

    /// Where this physically is, however the sinks are named: equal for two deliveries that would
    /// overwrite each other.
    pub fn identity(&self, sinks: &BTreeMap<Arc<str>, Sink>) -> String {
        match (&self.target, sinks.get(&self.sink)) {
            (Target::File(target), _) => format!("file:{}", target.path.display()),
            (Target::Aws(target), Some(Sink::Aws(config))) => target.delivery_id(config).to_string(),
            (Target::Vault(target), Some(Sink::Vault(config))) => target.delivery_id(config).to_string(),
            // Not reached with a checked configuration: a target is of its sink's kind.
            (Target::Aws(target), _) => format!("aws:{}/{}", self.sink, target.secret),
            (Target::Vault(target), _) => format!("vault:{}/{}#{}", self.sink, target.path, target.key),
        }
    }
}

/// Reports a template list that is empty.
pub(super) fn check_not_empty(section: &Section<'_>, templates: &At<Templates>) {
    if templates.value.items.is_empty() && templates.value.complete {
        let help = "name at least one place: a token that is delivered nowhere serves nobody";
        section.sheet.error(&templates.span, format!("`deliver` of {} is empty", section.label), help);
    }
}
