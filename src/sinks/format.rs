//! How a token stands in a place: alone, as a line of an environment file, or in a JSON object.

use serde_json::{Map, Value};

use super::Payload;
use crate::rotation::{Failed, Reason};
use crate::secret::Secret;

/// One thing that a JSON secret may tell of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    Token,
    TokenId,
    TokenName,
    Account,
    TokenType,
    IssuedAt,
    ExpiresAt,
    RotationId,
}

impl Field {
    pub const ALL: [Self; 8] = [
        Self::Token,
        Self::TokenId,
        Self::TokenName,
        Self::Account,
        Self::TokenType,
        Self::IssuedAt,
        Self::ExpiresAt,
        Self::RotationId,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::TokenId => "token_id",
            Self::TokenName => "token_name",
            Self::Account => "account",
            Self::TokenType => "token_type",
            Self::IssuedAt => "issued_at",
            Self::ExpiresAt => "expires_at",
            Self::RotationId => "rotation_id",
        }
    }

    fn of(self, payload: &Payload<'_>) -> String {
        match self {
            Self::Token => payload.value.expose().to_owned(),
            Self::TokenId => payload.token_id.to_string(),
            Self::TokenName => payload.token_name.to_string(),
            Self::Account => payload.account.to_string(),
            Self::TokenType => payload.token_type.to_string(),
            Self::IssuedAt => payload.issued_at.to_string(),
            Self::ExpiresAt => payload.expires_at.to_string(),
            Self::RotationId => payload.rotation.to_string(),
        }
    }
}

/// The form of a delivery's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// The token alone, without a line's end.
    Raw,
    /// One line `VARIABLE=token`.
    Env { variable: String },
    /// A JSON object; keys that are not ours are kept. Pairs of key and field; one of them is `Field::Token`.
    Json { fields: Vec<(String, Field)> },
}

impl Format {
    /// JSON with every field under its own name.
    pub fn json() -> Self {
        Self::Json { fields: Field::ALL.iter().map(|field| (field.as_str().to_owned(), *field)).collect() }
    }

    /// The content for `payload`. `existing` is what the place holds now, for the keys to keep.
    ///
    /// # Errors
    /// `Unsuitable` where existing content should be a JSON object and is not.
    pub fn render(&self, payload: &Payload<'_>, existing: Option<&str>) -> Result<Secret, Failed> {
        match self {
            Self::Raw => Ok(payload.value.duplicate()),
            Self::Env { variable } => Ok(Secret::new(format!("{variable}={}\n", payload.value.expose()))),
            Self::Json { fields } => {
                let mut object = match existing.map(str::trim) {
                    None | Some("") => Map::new(),
                    Some(text) => parse_object(text)?,
                };
                for (key, field) in fields {
                    object.insert(key.clone(), Value::String(field.of(payload)));
                }
                let text =
                    serde_json::to_string(&object).map_err(|_| Failed::new(Reason::Unsuitable, "the JSON can't be written"))?;
                wipe(object);
                Ok(Secret::new(text))
            }
        }
    }

    /// The token in `content`; `None` where it holds none.
    ///
    /// # Errors
    /// `Unsuitable` where the content is not of this format at all.
    pub fn extract(&self, content: &str) -> Result<Option<Secret>, Failed> {
        match self {
            Self::Raw => Ok(non_empty(content)),
            Self::Env { variable } => {
                let value = content.lines().find_map(|line| line.strip_prefix(variable.as_str())?.strip_prefix('='));
                Ok(value.and_then(non_empty))
            }
            Self::Json { fields } => {
                if content.trim().is_empty() {
                    return Ok(None);
                }
                let object = parse_object(content)?;
                let key = fields.iter().find(|(_, field)| *field == Field::Token).map(|(key, _)| key);
                let token = key.and_then(|key| object.get(key)).and_then(Value::as_str).and_then(non_empty);
                wipe(object);
                Ok(token)
            }
        }
    }
}

fn non_empty(text: &str) -> Option<Secret> {
    (!text.is_empty()).then(|| Secret::new(text.to_owned()))
}

fn parse_object(text: &str) -> Result<Map<String, Value>, Failed> {
    // The parser's own message could quote the content, so it is dropped.
    serde_json::from_str(text).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        Failed::new(Reason::Unsuitable, format!("the content is not a JSON object ({place}); `format = \"json\"` needs one"))
    })
}

/// Drops a parsed object with its strings wiped: it held values.
fn wipe(object: Map<String, Value>) {
    for (_, value) in object {
        if let Value::String(text) = value {
            drop(Secret::new(text));
        }
    }
}
