//! How closed enums show in the JSON's schema: the words that they can be, from where they are declared.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::Label;

/// One of the words.
pub fn closed<L: Label>() -> Schema {
    let words: Vec<&str> = L::ALL.iter().map(|label| label.as_str()).collect();
    json_schema!({ "type": "string", "enum": words })
}

/// One of the words, for a field of a type that knows nothing of schemas.
pub fn word<L: Label>(_: &mut SchemaGenerator) -> Schema {
    closed::<L>()
}

/// One of the words, or null.
pub fn maybe<L: Label>(_: &mut SchemaGenerator) -> Schema {
    let words: Vec<Option<&str>> = L::ALL.iter().map(|label| Some(label.as_str())).chain([None]).collect();
    json_schema!({ "type": ["string", "null"], "enum": words })
}
