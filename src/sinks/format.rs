//! How a token stands in a place: alone, as a line of an environment file, or in a JSON object.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

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

    fn of(self, payload: &Payload<'_>) -> Secret {
        match self {
            Self::Token => payload.value.duplicate(),
            Self::TokenId => Secret::new(payload.token_id.to_string()),
            Self::TokenName => Secret::new(payload.token_name.to_string()),
            Self::Account => Secret::new(payload.account.to_string()),
            Self::TokenType => Secret::new(payload.token_type.to_string()),
            Self::IssuedAt => Secret::new(payload.issued_at.to_string()),
            Self::ExpiresAt => Secret::new(payload.expires_at.to_string()),
            Self::RotationId => Secret::new(payload.rotation.to_string()),
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

    /// Whether `render` keeps anything of what the place holds.
    pub fn keeps_existing(&self) -> bool {
        matches!(self, Self::Json { .. })
    }

    /// The content for `payload`. `existing` is what the place holds now, for the keys to keep: those
    /// keep their order and their text to the letter, numbers too large for any type included.
    ///
    /// # Errors
    /// `Unsuitable` where existing content should be a JSON object and is not.
    pub fn render(&self, payload: &Payload<'_>, existing: Option<&str>) -> Result<Secret, Failed> {
        match self {
            Self::Raw => Ok(payload.value.duplicate()),
            Self::Env { variable } => Ok(Secret::new([variable, "=", payload.value.expose(), "\n"].concat())),
            Self::Json { fields } => {
                // Read as `extract` reads it: other white space than JSON's before an object makes it none.
                let mut object = match existing.filter(|text| !text.trim().is_empty()) {
                    None => Object::default(),
                    Some(text) => Object::parse(text)?,
                };
                for (key, field) in fields {
                    object.set(key, quoted(field.of(payload).expose()));
                }
                Ok(object.render())
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
            Self::Json { .. } => Ok(self.field(content, Field::Token)?.filter(|token| !token.expose().is_empty())),
        }
    }

    /// What `field` says in `content`, where this is JSON that has it as a string.
    ///
    /// # Errors
    /// `Unsuitable` where the content should be a JSON object and is not.
    pub fn field(&self, content: &str, field: Field) -> Result<Option<Secret>, Failed> {
        let Self::Json { fields } = self else { return Ok(None) };
        if content.trim().is_empty() {
            return Ok(None);
        }
        let object = Object::parse(content)?;
        let key = fields.iter().find(|(_, candidate)| *candidate == field).map(|(key, _)| key.as_str());
        Ok(key.and_then(|key| object.string(key)))
    }

    /// A key of `content` that a write would overwrite, although the content holds no token of ours:
    /// somebody else's, as it seems.
    pub fn clash(&self, content: &str) -> Option<&str> {
        let Self::Json { fields } = self else { return None };
        let object = Object::parse(content).ok()?;
        fields.iter().map(|(key, _)| key.as_str()).find(|key| object.has(key))
    }
}

fn non_empty(text: &str) -> Option<Secret> {
    (!text.is_empty()).then(|| Secret::new(text.to_owned()))
}

/// `text` as a JSON string. One buffer that never grows, since a growing one leaves copies behind.
fn quoted(text: &str) -> Secret {
    let mut json = String::with_capacity(text.len() * 6 + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            control if control < ' ' => {
                const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
                let code = control as usize;
                json.push_str("\\u00");
                json.push(HEX[code >> 4]);
                json.push(HEX[code & 15]);
            }
            plain => json.push(plain),
        }
    }
    json.push('"');
    Secret::new(json)
}

/// A JSON object as text: keys in their order, each with its value's own JSON, wiped when dropped.
#[derive(Default)]
struct Object(Vec<(String, Secret)>);

impl Object {
    fn parse(text: &str) -> Result<Self, Failed> {
        // The parser's own message could quote the content, so it is dropped.
        serde_json::from_str(text).map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            let detail = format!(
                "the content is not a JSON object ({place}), and `format = \"json\"` needs one: make it one, or use `format = \"raw\"`"
            );
            Failed::new(Reason::Unsuitable, detail)
        })
    }

    fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }

    /// The value of `key`, where it is a string.
    fn string(&self, key: &str) -> Option<Secret> {
        let (_, json) = self.0.iter().find(|(name, _)| name == key)?;
        serde_json::from_str(json.expose()).ok().map(Secret::new)
    }

    /// Sets `key` where it stands, or at the end.
    fn set(&mut self, key: &str, json: Secret) {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, value)) => *value = json,
            None => self.0.push((key.to_owned(), json)),
        }
    }

    fn render(&self) -> Secret {
        let entries: Vec<(Secret, &Secret)> = self.0.iter().map(|(key, json)| (quoted(key), json)).collect();
        let length: usize = entries.iter().map(|(key, json)| key.expose().len() + json.expose().len() + 2).sum();
        let mut text = String::with_capacity(length + 2);
        text.push('{');
        for (index, (key, json)) in entries.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(key.expose());
            text.push(':');
            text.push_str(json.expose());
        }
        text.push('}');
        Secret::new(text)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut object = Object::default();
                // Of a key that stands there twice the last value counts, as for most readers.
                while let Some((key, raw)) = map.next_entry::<String, Box<RawValue>>()? {
                    object.set(&key, Secret::new(String::from(Box::<str>::from(raw))));
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::rotation::{Account, Owner, RotationId, TokenId, TokenName, TokenType};

    const ROTATION: &str = "0197f6c0-0000-7000-8000-0000deadbeef";

    /// Calls `test` with a payload that carries `value`.
    fn with_payload<T>(value: &str, test: impl FnOnce(&Payload<'_>) -> T) -> T {
        let owner: Owner = "prod/etl".parse().unwrap();
        let rotation: RotationId = ROTATION.parse().unwrap();
        let value = Secret::new(value.to_owned());
        let (token_id, account) = (TokenId("id-1".to_owned()), Account::new("etl_prod"));
        let token_name = TokenName { owner: owner.clone(), rotation };
        let at = Timestamp::from_second(1_790_000_000).unwrap();
        test(&Payload {
            owner: &owner,
            rotation,
            value: &value,
            token_id: &token_id,
            token_name: &token_name,
            account: &account,
            token_type: TokenType::ReadWrite,
            issued_at: at,
            expires_at: at + jiff::SignedDuration::from_hours(1),
        })
    }

    fn rendered(format: &Format, value: &str, existing: Option<&str>) -> String {
        with_payload(value, |payload| format.render(payload, existing).unwrap().expose().to_owned())
    }

    fn selected() -> Format {
        Format::Json { fields: vec![("motherduck_token".to_owned(), Field::Token), ("rot".to_owned(), Field::RotationId)] }
    }

    #[test]
    fn raw_is_the_token_alone() {
        assert_eq!(rendered(&Format::Raw, "tok", Some("old")), "tok");
        assert_eq!(Format::Raw.extract("tok").unwrap().unwrap().expose(), "tok");
        assert!(Format::Raw.extract("").unwrap().is_none());
        assert_eq!(
            Format::Raw.extract("tok\n").unwrap().unwrap().expose(),
            "tok\n",
            "a line's end is part of what consumers read"
        );
    }

    #[test]
    fn env_is_one_line_and_is_found_among_others() {
        let format = Format::Env { variable: "MOTHERDUCK_TOKEN".to_owned() };
        assert_eq!(rendered(&format, "tok", None), "MOTHERDUCK_TOKEN=tok\n");
        assert_eq!(format.extract("A=1\nMOTHERDUCK_TOKEN=tok\r\nB=2").unwrap().unwrap().expose(), "tok");
        for none in ["", "MOTHERDUCK_TOKEN=\n", "MOTHERDUCK_TOKEN_OLD=tok", "# MOTHERDUCK_TOKEN=tok"] {
            assert!(format.extract(none).unwrap().is_none(), "{none}");
        }
    }

    #[test]
    fn json_tells_all_of_the_token() {
        assert_eq!(
            rendered(&Format::json(), "tok", None),
            format!(
                "{{\"token\":\"tok\",\"token_id\":\"id-1\",\"token_name\":\"rotad/prod/etl/{ROTATION}\",\"account\":\"etl_prod\",\
                 \"token_type\":\"read_write\",\"issued_at\":\"2026-09-21T14:13:20Z\",\"expires_at\":\"2026-09-21T15:13:20Z\",\
                 \"rotation_id\":\"{ROTATION}\"}}"
            )
        );
    }

    #[test]
    fn json_renames_and_selects() {
        let text = rendered(&selected(), "tok", None);
        assert_eq!(text, format!("{{\"motherduck_token\":\"tok\",\"rot\":\"{ROTATION}\"}}"));
        assert_eq!(selected().extract(&text).unwrap().unwrap().expose(), "tok");
        assert_eq!(selected().field(&text, Field::RotationId).unwrap().unwrap().expose(), ROTATION);
        assert!(selected().field(&text, Field::Account).unwrap().is_none());
    }

    #[test]
    fn other_keys_are_kept_to_the_letter_and_in_their_order() {
        let existing =
            r#" {"z": 123456789012345678901234567890, "motherduck_token":"old", "ä\"b": [1.50, {"y":1,"x":2}], "n": null} "#;
        assert_eq!(
            rendered(&selected(), "new", Some(existing)),
            format!(
                r#"{{"z":123456789012345678901234567890,"motherduck_token":"new","ä\"b":[1.50, {{"y":1,"x":2}}],"n":null,"rot":"{ROTATION}"}}"#
            )
        );
    }

    #[test]
    fn a_key_that_stands_there_twice_is_written_once() {
        assert_eq!(
            rendered(&selected(), "new", Some(r#"{"a":1,"motherduck_token":"x","a":2,"motherduck_token":"y"}"#)),
            format!(r#"{{"a":2,"motherduck_token":"new","rot":"{ROTATION}"}}"#)
        );
    }

    #[test]
    fn weird_values_come_back_as_they_were() {
        for value in ["a\"b\\c", "line\nend\r\t", "\u{0}\u{1f}\u{7f}", "ünï\u{1f986}", "</script>", "{\"token\":1}"] {
            let text = rendered(&selected(), value, None);
            let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(parsed["motherduck_token"], value);
            assert_eq!(selected().extract(&text).unwrap().unwrap().expose(), value);
        }
    }

    #[test]
    fn json_without_a_token_holds_none() {
        for none in ["", " \n", "{}", r#"{"motherduck_token":""}"#, r#"{"motherduck_token":7}"#, r#"{"motherduck_token":null}"#] {
            assert!(selected().extract(none).unwrap().is_none(), "{none}");
        }
    }

    #[test]
    fn content_that_is_no_object_is_unsuitable_and_never_quoted() {
        for wrong in [
            "planted-value",
            "\u{a0}{\"planted-value\":1}",
            "\"planted-value\"",
            "[\"planted-value\"]",
            "{\"planted-value\":",
            "{\"a\":1}planted-value",
        ] {
            let failed = selected().extract(wrong).map(|_| ()).unwrap_err();
            assert_eq!(failed.reason, Reason::Unsuitable);
            assert!(!failed.detail.contains("planted"), "{failed}");
            let failed = with_payload("new", |payload| selected().render(payload, Some(wrong)).map(|_| ()).unwrap_err());
            assert_eq!(failed.reason, Reason::Unsuitable);
        }
    }

    #[test]
    fn another_ones_key_in_our_way_is_named() {
        assert_eq!(Format::json().clash(r#"{"user":"x","account":"theirs"}"#), Some("account"));
        assert_eq!(Format::json().clash(r#"{"user":"x"}"#), None);
        assert_eq!(Format::Raw.clash("anything"), None);
    }

    #[test]
    fn the_buffers_for_values_never_grow() {
        let worst = "\u{1}".repeat(1000);
        assert_eq!(quoted(&worst).expose().len(), 6002);
        assert_eq!(rendered(&selected(), &worst, None).matches("\\u0001").count(), 1000);
    }
}
