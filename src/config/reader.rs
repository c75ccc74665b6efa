//! Reads tables key by key: takes what is known with its type checked, and reports the rest as unknown.

use std::num::NonZeroU32;
use std::path::PathBuf;

use jiff::SignedDuration;
use toml::de::{DeTable, DeValue};

use super::problem::{Sheet, Span, quoted};
use super::{duration, hint};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub value: T,
    pub span: Span,
}

impl<T> At<T> {
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// What a key held. A broken one was reported already, and nothing is concluded from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field<T> {
    Absent,
    Broken,
    Set(At<T>),
}

impl<T> Field<T> {
    pub fn set(self) -> Option<At<T>> {
        match self {
            Self::Set(at) => Some(at),
            Self::Absent | Self::Broken => None,
        }
    }

    pub fn value(self) -> Option<T> {
        self.set().map(|at| at.value)
    }

    pub fn as_ref(&self) -> Field<&T> {
        match self {
            Self::Absent => Field::Absent,
            Self::Broken => Field::Broken,
            Self::Set(at) => Field::Set(At::new(&at.value, at.span.clone())),
        }
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Broken)
    }

    /// Converts the value; `None` means that the conversion reported why not.
    pub fn and_then<U>(self, convert: impl FnOnce(&At<T>) -> Option<U>) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Broken => Field::Broken,
            Self::Set(at) => match convert(&at) {
                Some(value) => Field::Set(At::new(value, at.span)),
                None => Field::Broken,
            },
        }
    }
}

/// One table of the document.
pub(super) struct Section<'d> {
    pub sheet: &'d Sheet<'d>,
    table: &'d DeTable<'d>,
    /// How messages call it: `[credential.etl]`, `auth of [sink.main.vault]`.
    pub label: String,
    /// Where a missing key is reported.
    pub span: Span,
    known: &'static [&'static str],
    /// What keys that are not known probably were to be: reported already, so nothing is concluded from their absence.
    meant: Vec<&'static str>,
}

impl<'d> Section<'d> {
    /// Reports every key of `table` that is not `known`.
    pub fn new(
        sheet: &'d Sheet<'d>,
        table: &'d DeTable<'d>,
        label: impl Into<String>,
        span: Span,
        known: &'static [&'static str],
    ) -> Self {
        let mut section = Self { sheet, table, label: label.into(), span, known, meant: Vec::new() };
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref().as_ref();
            let help = hint::did_you_mean(name, known.iter().copied(), "known keys");
            sheet.error(&key.span(), format!("unknown key {} in {}", quoted(name), section.label), help);
            section.meant.extend(hint::nearest(name, known.iter().copied()));
        }
        section
    }

    pub fn get(&self, key: &'static str) -> Option<At<&'d DeValue<'d>>> {
        debug_assert!(self.known.contains(&key), "`{key}` is missing in the known keys of {}", self.label);
        self.table.get(key).map(|value| At::new(value.get_ref(), value.span()))
    }

    /// Where the key itself stands; the section's place without it.
    pub fn key_span(&self, key: &str) -> Span {
        self.table.get_key_value(key).map_or_else(|| self.span.clone(), |(key, _)| key.span())
    }

    pub fn string(&self, key: &'static str) -> Field<&'d str> {
        self.typed(key, "text in quotes", |value| value.as_str())
    }

    pub fn boolean(&self, key: &'static str) -> Field<bool> {
        self.typed(key, "`true` or `false`", DeValue::as_bool)
    }

    /// A whole number of at least 1.
    pub fn count(&self, key: &'static str) -> Field<NonZeroU32> {
        let field = self.typed(key, "a whole number", |value| {
            value.as_integer().map(|integer| i64::from_str_radix(integer.as_str(), integer.radix()).ok())
        });
        field.and_then(|at| {
            let count = at.value.and_then(|number| u32::try_from(number).ok()).and_then(NonZeroU32::new);
            if count.is_none() {
                self.sheet.error(&at.span, format!("`{key}` is out of range"), "a whole number from 1 to 4294967295");
            }
            count
        })
    }

    /// A whole number from 0 to `most`.
    pub fn number(&self, key: &'static str, most: u32) -> Field<u32> {
        let field = self.typed(key, "a whole number", |value| {
            value.as_integer().map(|integer| i64::from_str_radix(integer.as_str(), integer.radix()).ok())
        });
        field.and_then(|at| {
            let number = at.value.and_then(|number| u32::try_from(number).ok()).filter(|number| *number <= most);
            if number.is_none() {
                self.sheet.error(&at.span, format!("`{key}` is out of range"), format!("a whole number from 0 to {most}"));
            }
            number
        })
    }

    pub fn duration(&self, key: &'static str) -> Field<SignedDuration> {
        let field =
            self.typed(key, "a duration in quotes, such as `\"90s\"`, `\"15m\"`, `\"12h\"`, `\"30d\"`", |value| value.as_str());
        field.and_then(|at| match duration::parse(at.value) {
            Ok(duration) => Some(duration),
            Err(help) => {
                self.sheet.error(&at.span, format!("`{key}` is {}, which is not a duration", quoted(at.value)), help);
                None
            }
        })
    }

    /// One of a closed list of words.
    pub fn choice<T: Copy>(&self, key: &'static str, choices: &'static [(&'static str, T)]) -> Field<T> {
        self.string(key).and_then(|at| {
            let chosen = choices.iter().find(|(word, _)| *word == at.value).map(|(_, value)| *value);
            if chosen.is_none() {
                let words = choices.iter().map(|(word, _)| *word);
                let help = match hint::nearest(at.value, words.clone()) {
                    Some(word) => format!("did you mean `{word}`? It is one of {}", hint::listed(words)),
                    None => format!("one of {}", hint::listed(words)),
                };
                self.sheet.error(&at.span, format!("`{key}` is {}, which it can't be", quoted(at.value)), help);
            }
            chosen
        })
    }

    /// Text that is not empty.
    pub fn text(&self, key: &'static str) -> Field<&'d str> {
        self.string(key).and_then(|at| {
            if at.value.trim().is_empty() || at.value.contains('\0') {
                self.sheet.error(&at.span, format!("`{key}` is empty"), "give it a value or leave the key out");
                return None;
            }
            Some(at.value)
        })
    }

    /// An absolute path: the directory that the daemon is started in is nobody's intention.
    pub fn path(&self, key: &'static str) -> Field<PathBuf> {
        self.text(key).and_then(|at| absolute(self.sheet, key, at))
    }

    pub fn table(&self, key: &'static str, known: &'static [&'static str]) -> Field<Section<'d>> {
        let label = format!("`{key}` of {}", self.label);
        let span = self.key_span(key);
        self.typed(key, "a table", DeValue::as_table)
            .and_then(|at| Some(Section::new(self.sheet, at.value, label.clone(), span.clone(), known)))
    }

    /// The entries of a table whose keys the user chooses.
    pub fn entries(&self, key: &'static str) -> Field<Vec<Entry<'d>>> {
        self.typed(key, "a table", DeValue::as_table).and_then(|at| Some(entries(at.value)))
    }

    /// `example` is such an array, as it is written.
    pub fn array(&self, key: &'static str, example: &str) -> Field<Vec<At<&'d DeValue<'d>>>> {
        self.typed(key, &format!("an array, such as `{example}`"), DeValue::as_array)
            .and_then(|at| Some(at.value.iter().map(|item| At::new(item.get_ref(), item.span())).collect()))
    }

    /// Reports the key as missing.
    pub fn missing(&self, key: &str, help: &str) {
        self.sheet.missing(&self.span, format!("{} has no `{key}`", self.label), help);
    }

    fn typed<T>(&self, key: &'static str, wanted: &str, convert: impl FnOnce(&'d DeValue<'d>) -> Option<T>) -> Field<T> {
        let Some(at) = self.get(key) else {
            return if self.meant.contains(&key) { Field::Broken } else { Field::Absent };
        };
        match convert(at.value) {
            Some(value) => Field::Set(At::new(value, at.span)),
            None => {
                let message = format!("`{key}` of {} is {}", self.label, described(at.value));
                self.sheet.error(&at.span, message, format!("it must be {wanted}"));
                Field::Broken
            }
        }
    }
}

/// A key that the user chose, and its value.
pub(super) struct Entry<'d> {
    pub name: At<&'d str>,
    pub value: At<&'d DeValue<'d>>,
}

pub(super) fn entries<'d>(table: &'d DeTable<'d>) -> Vec<Entry<'d>> {
    let entry = |(key, value): (&'d toml::Spanned<toml::de::DeString<'d>>, &'d toml::Spanned<DeValue<'d>>)| Entry {
        name: At::new(key.get_ref().as_ref(), key.span()),
        value: At::new(value.get_ref(), value.span()),
    };
    table.iter().map(entry).collect()
}

pub(super) fn absolute(sheet: &Sheet<'_>, key: &str, at: &At<&str>) -> Option<PathBuf> {
    if at.value.starts_with('/') {
        return Some(PathBuf::from(at.value));
    }
    let message = format!("`{key}` is {}, a relative path", quoted(at.value));
    sheet.error(&at.span, message, "give an absolute path: it would depend on where rotad is started");
    None
}

/// A value's type, for messages; never the value.
pub(super) fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
