//! What a token claims of itself. That MotherDuck's tokens are JWTs was observed (its errors speak of their three
//! sections); what they claim is documented nowhere, so a claim is shown to people and nothing is done by it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::json::Object;
use crate::secret::{Secret, presentable};

#[derive(serde::Deserialize)]
struct Claims {
    exp: Option<f64>,
}

/// When the token ends by its own claim (`exp`, RFC 7519); `None` for whatever is no JWT or has no such claim.
pub(super) fn expiry(token: &Secret) -> Option<Timestamp> {
    let Object(Claims { exp }) = serde_json::from_slice(&section(token)?).ok()?;
    // From a float that is out of range comes the nearest integer, which no timestamp has.
    Timestamp::from_second(exp? as i64).ok()
}

/// The claims' names, each with what kind of value it has, and no value; `None` for whatever is no JWT.
pub(super) fn described(token: &Secret) -> Option<String> {
    let Object(claims): Object<BTreeMap<String, Value>> = serde_json::from_slice(&section(token)?).ok()?;
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    let names = claims.iter().map(|(name, value)| format!("`{}` ({})", presentable(name, 32, &[]), kind(value)));
    Some(names.collect::<Vec<_>>().join(", "))
}

/// The second of a JWT's three sections.
fn section(token: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    let mut sections = token.expose().split('.');
    let (_, claims, _, None) = (sections.next()?, sections.next()?, sections.next()?, sections.next()) else { return None };
    from_base64_url(claims)
}

/// The bytes of base64 with the alphabet for URLs, without padding (RFC 4648, section 5).
fn from_base64_url(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0_u32;
        for letter in chunk {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            group = group << 6 | u32::from(value);
        }
        let whole = (group << (6 * (4 - chunk.len()))).to_be_bytes();
        bytes.extend_from_slice(whole.get(1..chunk.len())?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(token: &str) -> Option<i64> {
        expiry(&Secret::new(token.to_owned())).map(Timestamp::as_second)
    }

    #[test]
    fn claims_are_described_without_their_values() {
        // {"sub":"a","exp":1900000000}
        let token = Secret::new("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIiwiZXhwIjoxOTAwMDAwMDAwfQ.c2ln".to_owned());
        assert_eq!(described(&token).as_deref(), Some("`exp` (a number), `sub` (a text)"));
        assert_eq!(described(&Secret::new("opaque".to_owned())), None);
    }

    #[test]
    fn the_end_is_read_from_the_claims() {
        // {"sub":"a","exp":1900000000} and {"exp":1900000000.5}
        assert_eq!(claimed("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIiwiZXhwIjoxOTAwMDAwMDAwfQ.c2ln"), Some(1_900_000_000));
        assert_eq!(claimed("h.eyJleHAiOjE5MDAwMDAwMDAuNX0.s"), Some(1_900_000_000));
    }

    #[test]
    fn what_claims_no_end_has_none() {
        // {}, {"exp":null}, {"exp":"soon"}, {"exp":1e300}, [1900000000]; no base64; an odd letter; other numbers of sections.
        let claims = ["e30", "eyJleHAiOm51bGx9", "eyJleHAiOiJzb29uIn0", "eyJleHAiOjFlMzAwfQ", "WzE5MDAwMDAwMDBd", "e3+9", "e"];
        for token in
            claims.map(|claims| format!("h.{claims}.s")).iter().map(String::as_str).chain(["", "s.token", "h.e30", "h.e30.s.t"])
        {
            assert_eq!(claimed(token), None, "{token}");
        }
    }
}
