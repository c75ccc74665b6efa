//! Parts that several sections have: names, URLs, sources of secrets.

use std::path::Path;

use reqwest::Url;

use super::problem::quoted;
use super::reader::{At, Field, Section, absolute, described};
use super::surroundings::{FileFact, Surroundings};
use super::{Sheet, hint};
use crate::http::is_loopback;
use crate::secret::SecretSource;

pub(super) const SECRET_SOURCE_KEYS: &[&str] = &["file", "env"];

/// Whether a text is a name: 1 to 63 of `a-z 0-9 _ -`, as deployments and credentials have them.
pub(super) fn is_name(text: &str) -> bool {
    text.parse::<crate::rotation::CredentialName>().is_ok()
}

/// Reports what is not a name.
pub(super) fn name<'d>(sheet: &Sheet<'_>, what: &str, at: &At<&'d str>) -> Option<&'d str> {
    if is_name(at.value) {
        return Some(at.value);
    }
    let message = format!("{} is no name for {what}", quoted(at.value));
    sheet.error(&at.span, message, "a name is 1 to 63 characters of `a-z 0-9 _ -`");
    None
}

/// `https://…`, or `http://` on loopback; without user, query and fragment, and as a rule without a path.
/// The answer has no slash at its end.
pub(super) fn url(section: &Section<'_>, key: &'static str, with_path: bool) -> Field<String> {
    section.text(key).and_then(|at| {
        let wrong = |message: String, help: &str| {
            section.sheet.error(&at.span, message, help);
            None
        };
        let Ok(url) = Url::parse(at.value) else {
            return wrong(format!("`{key}` is {}, which is not a URL", quoted(at.value)), "such as `https://host.internal:8200`");
        };
        // Checked first, since no other message may show what stands there.
        if !url.username().is_empty() || url.password().is_some() {
            return wrong(format!("`{key}` has a user or a password in it"), "leave them out: secrets are never inline");
        }
        let shown = quoted(at.value);
        match url.scheme() {
            "https" => {}
            "http" if url.host_str().is_some_and(is_loopback) => {}
            "http" => {
                let help = "use `https://`: only loopback is safe without it, and a secret would travel in the clear";
                return wrong(format!("`{key}` is {shown}, which is `http` and not on loopback"), help);
            }
            _ => return wrong(format!("`{key}` is {shown}"), "it must begin with `https://`, or `http://` on loopback"),
        }
        if url.query().is_some() || url.fragment().is_some() {
            return wrong(format!("`{key}` is {shown}, with a query or fragment"), "leave out what follows `?` or `#`");
        }
        if !with_path && url.path() != "/" {
            return wrong(
                format!("`{key}` is {shown}, with a path"),
                "scheme, host and port alone, as in `https://host.internal:8200`",
            );
        }
        Some(url.as_str().trim_end_matches('/').to_owned())
    })
}

/// `{ file = "/path" }` or `{ env = "NAME" }`, never the secret itself.
pub(super) fn secret_source(section: &Section<'_>, key: &'static str) -> Field<SecretSource> {
    let example = format!("write `{key} = {{ file = \"/path\" }}` or `{key} = {{ env = \"NAME\" }}`");
    let Some(at) = section.get(key) else { return Field::Absent };
    if at.value.as_table().is_none() {
        let message = match at.value.as_str() {
            Some(_) => format!("`{key}` of {} is written inline", section.label),
            None => format!("`{key}` of {} is {}", section.label, described(at.value)),
        };
        section.sheet.error(&at.span, message, format!("secrets come from a file or the environment, never inline: {example}"));
        return Field::Broken;
    }
    let Field::Set(inner) = section.table(key, SECRET_SOURCE_KEYS) else { return Field::Broken };
    match (inner.value.text("file"), inner.value.text("env")) {
        (Field::Set(file), Field::Absent) => Field::Set(file.clone())
            .and_then(|file| absolute(section.sheet, "file", file))
            .and_then(|path| Some(SecretSource::File(path.value.clone()))),
        (Field::Absent, Field::Set(env)) => Field::Set(At::new(SecretSource::Environment(env.value.to_owned()), env.span)),
        (Field::Broken, _) | (_, Field::Broken) => Field::Broken,
        (Field::Absent, Field::Absent) => {
            section.sheet.missing(&inner.span, format!("`{key}` of {} says neither file nor variable", section.label), example);
            Field::Broken
        }
        (Field::Set(_), Field::Set(_)) => {
            section.sheet.error(
                &inner.span,
                format!("`{key}` of {} has both `file` and `env`", section.label),
                "keep one of them",
            );
            Field::Broken
        }
    }
}

/// Whether a secret that must be there now can be had; warns of a file that others can read.
pub(super) fn check_secret(sheet: &Sheet<'_>, what: &str, source: &At<SecretSource>, world: &dyn Surroundings) {
    match &source.value {
        SecretSource::Environment(name) => {
            if !world.has_variable(name) {
                let message = format!("{what} comes from the environment variable {}, which is not set", quoted(name));
                sheet.error(&source.span, message, "set it for the process that runs rotad, or name a file");
            }
        }
        SecretSource::File(path) => match world.file(path) {
            FileFact::Unreadable(why) => {
                let message = format!("{what} is in `{}`, which can't be read: {why}", path.display());
                sheet.error(
                    &source.span,
                    message,
                    "it must be there, and be readable for the user that runs rotad: create it, or `chown` it to that user",
                );
            }
            FileFact::Readable { mode } if mode & 0o077 != 0 => {
                let message = format!("others can read {what}: `{}` has mode {mode:04o}", path.display());
                sheet.warn(&source.span, message, format!("`chmod 600 {}`", path.display()));
            }
            fact => no_file(sheet, &source.span, what, path, &fact),
        },
    }
}

/// The same for a file that may come later, with its sink: missing is a warning.
pub(super) fn check_file(sheet: &Sheet<'_>, what: &str, at: &At<&Path>, world: &dyn Surroundings) {
    check_later_file(sheet, what, at, OF_A_SINK, world);
}

/// What fails while something of a sink is missing.
pub(super) const OF_A_SINK: &str = "its deliveries there fail";

/// A secret that may come later; `meanwhile` is what happens until then.
pub(super) fn check_later(sheet: &Sheet<'_>, what: &str, source: &At<SecretSource>, meanwhile: &str, world: &dyn Surroundings) {
    match &source.value {
        SecretSource::File(path) => {
            check_later_file(sheet, what, &At::new(path.as_path(), source.span.clone()), meanwhile, world);
        }
        SecretSource::Environment(name) => {
            if !world.has_variable(name) {
                let message = format!("{what} comes from the environment variable {}, which is not set", quoted(name));
                let help = format!("rotad starts, and {meanwhile} until it is started with the variable");
                sheet.warn(&source.span, message, help);
            }
        }
    }
}

fn check_later_file(sheet: &Sheet<'_>, what: &str, at: &At<&Path>, meanwhile: &str, world: &dyn Surroundings) {
    match world.file(at.value) {
        FileFact::Empty => {
            let message = format!("{what} is in `{}`, which is empty", at.value.display());
            sheet.warn(&at.span, message, format!("rotad starts, and {meanwhile} until the file holds it"));
        }
        FileFact::Unreadable(why) => {
            let message = format!("{what} is in `{}`, which can't be read: {why}", at.value.display());
            sheet.warn(&at.span, message, format!("rotad starts, and {meanwhile} until the file can be read"));
        }
        fact => no_file(sheet, &at.span, what, at.value, &fact),
    }
}

/// The same for a file that is needed at the start.
pub(super) fn need_file(sheet: &Sheet<'_>, what: &str, at: &At<&Path>, world: &dyn Surroundings) {
    match world.file(at.value) {
        FileFact::Unreadable(why) => {
            let message = format!("{what} is in `{}`, which can't be read: {why}", at.value.display());
            sheet.error(&at.span, message, "name a file that rotad's user can read");
        }
        fact => no_file(sheet, &at.span, what, at.value, &fact),
    }
}

fn no_file(sheet: &Sheet<'_>, span: &super::problem::Span, what: &str, path: &Path, fact: &FileFact) {
    let found = match fact {
        FileFact::Empty => "empty",
        FileFact::Directory => "a directory",
        FileFact::Special => "not a regular file",
        FileFact::Readable { .. } | FileFact::Unreadable(_) => return,
    };
    sheet.error(span, format!("{what} should be in `{}`, which is {found}", path.display()), "name the file that holds it");
}

/// Reports a table with no entry or several where exactly one says which kind it is.
pub(super) fn one_of(section: &Section<'_>, present: &[&str], choices: &'static [&'static str], what: &str) -> bool {
    match present {
        [_] => true,
        [] => {
            section.sheet.missing(
                &section.span,
                format!("{} says no {what}", section.label),
                format!("one of {}", hint::listed(choices.iter().copied())),
            );
            false
        }
        several => {
            let message =
                format!("{} has {} kinds of {what}: {}", section.label, several.len(), hint::listed(several.iter().copied()));
            section.sheet.error(&section.span, message, "keep one of them");
            false
        }
    }
}
