//! What is wrong with a configuration: every problem at once, each with its place and what would be right.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

use crate::secret::{is_of_tokens, is_token_like, masked_runs, shortened};

/// A range of bytes in the text.
pub(super) type Span = Range<usize>;

/// The most problems or warnings that are printed: a mistake in a generated file can come 100,000 times.
const SHOWN_MAX: usize = 50;

/// Runs of this many characters that tokens are made of are masked wherever text of the file is shown.
const TOKEN_LIKE: usize = 32;

/// Whether it is a refusal or a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Where in the file: line and column from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// One thing that is wrong, or that would hurt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub severity: Severity,
    pub file: Arc<str>,
    /// `None` for what concerns the file as a whole.
    pub position: Option<Position>,
    /// What was found.
    pub message: String,
    /// What would be right.
    pub help: String,
    /// For how many more credentials the same was found.
    pub others: usize,
    #[serde(skip)]
    excerpt: Option<Excerpt>,
}

/// The line of a problem as it is shown, with the part to underline (columns in characters, from 0).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    line: String,
    underlined: Option<Range<usize>>,
}

impl Problem {
    /// What concerns a file that could not even be read.
    pub(super) fn of_file(file: &str, message: String, help: &str) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            position: None,
            message,
            help: help.to_owned(),
            others: 0,
            excerpt: None,
        }
    }
}

impl Problem {
    /// What was found, where, and what would be right, in one line of a log that says by itself how grave it is.
    pub fn in_a_line(&self) -> String {
        let place = match self.position {
            Some(Position { line, column }) => format!("{}:{line}:{column}", self.file),
            None => self.file.to_string(),
        };
        let others = if self.others > 0 { format!("; the same for {} more", self.others) } else { String::new() };
        format!("{place}: {}; {}{others}", self.message, self.help)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity.as_str(), self.message)?;
        match self.position {
            Some(Position { line, column }) => write!(f, "\n  --> {}:{line}:{column}", self.file)?,
            None => write!(f, "\n  --> {}", self.file)?,
        }
        if let (Some(excerpt), Some(position)) = (&self.excerpt, self.position) {
            let number = position.line.to_string();
            let gutter = " ".repeat(number.len());
            write!(f, "\n{gutter} |\n{number} | {}", excerpt.line)?;
            if let Some(underlined) = &excerpt.underlined {
                let (before, marks) = (" ".repeat(underlined.start), "^".repeat(underlined.len().max(1)));
                write!(f, "\n{gutter} | {before}{marks}")?;
            }
        }
        if self.others > 0 {
            let credentials = if self.others == 1 { "credential" } else { "credentials" };
            write!(f, "\n  = the same for {} more {credentials}", self.others)?;
        }
        write!(f, "\n  = help: {}", self.help)
    }
}

/// All that is wrong with one file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self(problems)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn errors(&self) -> usize {
        self.0.iter().filter(|problem| problem.severity == Severity::Error).count()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_all(&self.0, f)?;
        let errors = self.errors();
        let file = self.0.first().map_or("", |problem| &problem.file);
        write!(f, "{errors} {} in `{file}`", if errors == 1 { "error" } else { "errors" })
    }
}

impl std::error::Error for Problems {}

fn show_all(problems: &[Problem], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for problem in problems.iter().take(SHOWN_MAX) {
        write!(f, "{problem}\n\n")?;
    }
    match problems.len().saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        more => write!(f, "… and {more} more\n\n"),
    }
}

/// Collects the problems of one text.
pub(super) struct Sheet<'t> {
    text: &'t str,
    file: Arc<str>,
    /// Where each line begins.
    lines: Vec<usize>,
    found: RefCell<Vec<Found>>,
    /// Whether parts of the text could not be parsed.
    damaged: Cell<bool>,
}

struct Found {
    severity: Severity,
    span: Span,
    message: String,
    help: String,
    others: usize,
}

impl<'t> Sheet<'t> {
    pub fn new(text: &'t str, file: &str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(index, _)| index + 1)).collect();
        Self { text, file: file.into(), lines, found: RefCell::default(), damaged: Cell::new(false) }
    }

    pub fn error(&self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        self.add(Severity::Error, span, message.into(), help.into());
    }

    /// Something required is not there. Where the text is damaged that is most likely a consequence,
    /// and not told.
    pub fn missing(&self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        if !self.damaged.get() {
            self.error(span, message, help);
        }
    }

    /// The text can't be parsed here.
    pub fn not_toml(&self, span: &Span, message: &str) {
        self.damaged.set(true);
        self.error(span, format!("this is not TOML: {message}"), right_toml(message));
    }

    pub fn warn(&self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        self.add(Severity::Warning, span, message.into(), help.into());
    }

    /// A warning that many credentials may share: `others` more places have it.
    pub fn warn_many(&self, span: &Span, others: usize, message: String, help: String) {
        self.found.borrow_mut().push(Found { severity: Severity::Warning, span: span.clone(), message, help, others });
    }

    fn add(&self, severity: Severity, span: &Span, message: String, help: String) {
        self.found.borrow_mut().push(Found { severity, span: span.clone(), message, help, others: 0 });
    }

    pub fn has_errors(&self) -> bool {
        self.found.borrow().iter().any(|found| found.severity == Severity::Error)
    }

    /// Everything found, by position, the same thing at the same place once.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut found = self.found.take();
        found.sort_by(|a, b| {
            (a.span.start, a.span.end, a.severity, &a.message).cmp(&(b.span.start, b.span.end, b.severity, &b.message))
        });
        found.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        found.into_iter().map(|found| self.problem(found)).collect()
    }

    fn problem(&self, found: Found) -> Problem {
        let (position, excerpt) = self.locate(&found.span);
        Problem {
            severity: found.severity,
            file: Arc::clone(&self.file),
            position: Some(position),
            message: told(&found.message),
            help: told(&found.help),
            others: found.others,
            excerpt,
        }
    }

    fn locate(&self, span: &Span) -> (Position, Option<Excerpt>) {
        let start = floor(self.text, span.start);
        let line = self.lines.partition_point(|begin| *begin <= start).max(1);
        let begin = self.lines[line - 1];
        let content = self.text[begin..].split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let column = self.text[begin..start].chars().count();
        let end = floor(self.text, span.end).clamp(start, (begin + content.len()).max(start));
        let width = self.text[start..end].chars().count().max(1);
        (Position { line, column: column + 1 }, excerpt(content, column..column + width))
    }
}

/// What would be right where the parser's `message` says what is not.
fn right_toml(message: &str) -> &'static str {
    const HELPS: [(&str, &str); 5] = [
        ("duplicate key", "each key and each section stands once: keep one of them, or give a section another name"),
        ("string values must be quoted", "put text in quotes, such as `\"24h\"`"),
        ("key with no value", "write `key = value`"),
        ("unclosed table", "close it: a section is `[name]` on a line of its own, a table within a line `{ key = value }`"),
        ("unclosed", "close it: an array is `[one, two]`, text is `\"…\"`"),
    ];
    let known = HELPS.iter().find(|(part, _)| message.contains(part));
    known.map_or("sections are `[name]`, and beneath them `key = value`, with text in quotes", |(_, help)| help)
}

/// A message: names of the file stand in it, and one that is no name may be a secret in the wrong place.
fn told(message: &str) -> String {
    let has_upper_case = |run: &str| run.bytes().any(|byte| byte.is_ascii_uppercase());
    plain(&masked_runs(message, is_of_tokens, |run| is_token_like(run, TOKEN_LIKE) && has_upper_case(run)))
}

/// `text` without control characters, which terminals and logs would follow.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The nearest boundary of a character at or before `index`, within the text.
fn floor(text: &str, index: usize) -> usize {
    (0..=index.min(text.len())).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0)
}

/// A line as it may be shown: a very long one not at all, and never with a secret that somebody wrote inline.
fn excerpt(line: &str, underlined: Range<usize>) -> Option<Excerpt> {
    const LINE_MAX: usize = 200;
    if line.trim().is_empty() || line.chars().count() > LINE_MAX {
        return None;
    }
    // Tabs and control characters would shift the marks or worse.
    let line = plain(line);
    let shown = masked(&line);
    if shown == line {
        return Some(Excerpt { line, underlined: Some(underlined) });
    }
    let same = line.chars().zip(shown.chars()).take_while(|(a, b)| a == b).count();
    let underlined = (underlined.start <= same).then(|| underlined.start..underlined.end.min(same + 1).max(underlined.start + 1));
    Some(Excerpt { line: shown, underlined })
}

/// `text` with everything masked that may be a secret: what is assigned to a key that takes one, what
/// looks like a token, and a password in a URL.
pub(super) fn masked(text: &str) -> String {
    masked_runs(&mask_passwords(&mask_webhook(&mask_assigned(text))), is_of_tokens, |run| is_token_like(run, TOKEN_LIKE))
}

/// A value of the file for a message: masked, and of readable length.
pub(super) fn quoted(value: &str) -> String {
    const VALUE_MAX: usize = 80;
    format!("`{}`", shortened(&plain(&masked(value)), VALUE_MAX))
}

/// Masks what follows `admin_token =` and its like, but for a plain `{ file = … }` or `{ env = … }`.
fn mask_assigned(line: &str) -> String {
    const KEYS: [&str; 6] = ["admin_token", "secret_id", "token", "password", "secret_access_key", "authorization"];
    let is_key_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    for key in KEYS {
        for (at, _) in line.match_indices(key) {
            if line[..at].ends_with(is_key_character) {
                continue;
            }
            let rest = line[at + key.len()..].trim_start_matches(['"', '\'']).trim_start();
            let Some(value) = rest.strip_prefix('=').map(str::trim_start) else { continue };
            if value.is_empty() || refers_elsewhere(value) {
                continue;
            }
            return format!("{}…", &line[..line.len() - value.len()]);
        }
    }
    line.to_owned()
}

/// Whether a value is `{ file = …` or `{ env = …` and nothing else is in its braces.
fn refers_elsewhere(value: &str) -> bool {
    let Some(inner) = value.strip_prefix('{') else { return false };
    let inner = inner.split('}').next().unwrap_or_default().trim();
    ["file", "env"].iter().any(|key| inner.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('=')))
        && inner.matches('=').count() == 1
}

/// Masks what follows the host in `key = "https://…"`, but for keys whose paths are no secrets: a webhook's path is one,
/// whatever its key was mistyped as.
fn mask_webhook(line: &str) -> String {
    let path = line.split_once("://").and_then(|(before, after)| {
        let (key, scheme) = before.rsplit_once('=')?;
        let known = ["api_url", "endpoint_url", "address"].iter().any(|known| key.trim_end().ends_with(known));
        let is_http = scheme.trim_start_matches([' ', '"', '\'']).to_ascii_lowercase().starts_with("http");
        let path = &after[after.find(['/', '?', '#'])?..];
        (is_http && !known && path.len() > 1).then_some(path.len() - 1)
    });
    path.map_or_else(|| line.to_owned(), |masked| format!("{}…", &line[..line.len() - masked]))
}

fn mask_passwords(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.split(['/', '"', '\'', ' ']).next().unwrap_or_default();
    match authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':').map(|(name, _)| (name, user.len()))) {
        Some((name, length)) => format!("{scheme}://{name}:…{}", &rest[length..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_written_inline_is_never_shown() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl0123456789";
        for line in [
            "admin_token = \"hunter2\"",
            "admin_token=hunter2",
            "\"admin_token\" = 'hunter2'",
            "admin_token = { value = \"hunter2\" }",
            "admin_token = { file = \"/a\", value = \"hunter2\" }",
            "auth = { token = \"hunter2\" }",
            "auth = { approle = { role_id = \"r\", secret_id = \"hunter2\" } }",
            "url = \"postgres://me:hunter2@db/rotad\"",
        ] {
            assert!(!masked(line).contains("hunter2"), "{}", masked(line));
        }
        assert!(!masked(&format!("x = \"{jwt}\"")).contains("eyJ"));
        for key in ["url", "uri", "webhook"] {
            let shown = masked(&format!("{key} = \"https://hooks.example/services/T0/hunter2?x=1\""));
            assert_eq!(shown, format!("{key} = \"https://hooks.example/…"));
        }
        assert!(!quoted(jwt).contains("eyJ"));
    }

    #[test]
    fn a_name_with_control_characters_is_shown_without_them() {
        let text = "[organization.\"a\\u001b[31m\\u0000\"]\nadmin_tokn = 1\n";
        let world = crate::config::System { now: jiff::Timestamp::UNIX_EPOCH };
        let shown = crate::config::parse(text, "f", &world).unwrap_err().to_string();
        assert!(shown.contains("a [31m ") && !shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    }

    #[test]
    fn what_is_no_secret_stays_readable() {
        for line in [
            "admin_token = { file = \"/var/lib/rotad/admin-token\" }",
            "admin_token = { env = \"MOTHERDUCK_ADMIN_TOKEN\" }",
            "fields = { motherduck_token = \"token\" }",
            "{ sink = \"main\", path = \"etl/motherduck\", key = \"token\" },",
            "address = \"https://vault.internal:8200\"",
        ] {
            assert_eq!(masked(line), line);
        }
    }
}
