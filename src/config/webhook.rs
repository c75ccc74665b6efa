//! `[webhook]`: where it is told that something needs a person.

use std::fmt;

use jiff::SignedDuration;

use super::parts;
use super::reader::{At, Field, Section};
use super::surroundings::Surroundings;
use crate::http;
use crate::secret::SecretSource;

pub(super) const WEBHOOK_KEYS: &[&str] = &["url", "authorization", "settle"];

/// As the shipped alerts wait.
const SETTLE: SignedDuration = SignedDuration::from_mins(1);
/// Longer, and a token may have expired before anybody is told that it will.
const SETTLE_MAX: SignedDuration = SignedDuration::from_hours(1);

/// Where changes are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub address: Address,
    /// What the header `authorization` says, as a whole.
    pub authorization: Option<SecretSource>,
    /// How long a state must last before it is told, and be over before that is told.
    pub settle: SignedDuration,
}

/// A webhook's address. Many are secrets by themselves, so it is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    Plain(String),
    Secret(SecretSource),
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("Plain(…)"),
            Self::Secret(source) => source.fmt(f),
        }
    }
}

/// `None` where it is broken, which was reported.
pub(super) fn webhook(section: &Section<'_>, world: &dyn Surroundings) -> Option<Webhook> {
    let address = address(section);
    if address.is_absent() {
        section.missing("url", "add `url = { file = \"/etc/rotad/webhook-url\" }`, or `url = \"https://…\"` if it is no secret");
    }
    let authorization = parts::secret_source(section, "authorization");
    let later = |what: &str, at: &At<SecretSource>| parts::check_later(section.sheet, what, at, "tells nothing", world);
    if let Field::Set(At { value: Address::Secret(source), span }) = &address {
        later("the webhook's address", &At::new(source.clone(), span.clone()));
    }
    if let Field::Set(at) = &authorization {
        later("the webhook's `authorization`", at);
    }
    let settle = section.duration("settle").and_then(|at| {
        if at.value > SETTLE_MAX {
            section.sheet.error(&at.span, "`settle` is too long", "at most `1h`: what is told late is told in vain");
            return None;
        }
        Some(at.value)
    });
    let broken = authorization.is_broken() || settle.is_broken();
    let webhook =
        Webhook { address: address.value()?, authorization: authorization.value(), settle: settle.value().unwrap_or(SETTLE) };
    (!broken).then_some(webhook)
}

fn address(section: &Section<'_>) -> Field<Address> {
    let is_text = section.get("url").is_some_and(|at| at.value.as_str().is_some());
    if !is_text {
        return parts::secret_source(section, "url").and_then(|at| Some(Address::Secret(at.value.clone())));
    }
    section.text("url").and_then(|at| match http::address(at.value) {
        Ok(_) => Some(Address::Plain(at.value.to_owned())),
        Err(wrong) => {
            let help = "such as `https://host.internal/hook`, or `{ file = \"/path\" }` of a file that holds it";
            section.sheet.error(&at.span, format!("`url` of {} {wrong}", section.label), help);
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_not_in_its_debug_text() {
        assert_eq!(format!("{:?}", Address::Plain("https://hooks.example/secret".to_owned())), "Plain(…)");
    }
}
