//! A secret value: it can't be printed, serialised or cloned, and its memory is wiped when it is dropped.

mod source;

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use source::{SecretSource, read_file};

use crate::rotation::Fingerprint;

/// A token's value, or another secret of ours such as the admin token.
///
/// `Debug` shows nothing of it, there is no `Display`, `Serialize` or `Clone`, and the buffer is
/// overwritten on drop. Libraries make copies of their own which are freed but not wiped.
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The one way to the value: whoever calls this takes care of where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the value: what the journal and the markers keep of it.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::new(Sha256::digest(self.0.as_bytes()).into())
    }

    /// A second copy, for the few places that must hold the value twice; named so that it is seen.
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A run of this many characters that tokens are made of looks like a secret if it has letters and digits: as long as
/// the shortest of OpenBao's tokens without its prefix, and shorter than a UUID, which a secret id is.
const TOKEN_LIKE: usize = 20;

/// Somebody else's text for a sentence of ours: one line of at most `characters`, without its last full stop, and
/// with `…` for each of `known` and for whatever else looks like a secret, be it an id or not. An error's text is not
/// ours, and may repeat what was sent.
pub fn presentable(text: &str, characters: usize, known: &[&Secret]) -> String {
    let known = known.iter().map(|secret| secret.expose()).filter(|secret| !secret.is_empty());
    let hidden = known.fold(text.to_owned(), |text, secret| text.replace(secret, "…"));
    let words = hidden.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = words.map(without_runs).collect::<Vec<_>>().join(" ");
    shortened(&line, characters).trim_end_matches('.').to_owned()
}

/// The first `characters` of a text, and a mark if that was not all.
pub fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The word with `…` for its runs that look like secrets.
fn without_runs(word: &str) -> String {
    // Base64 has `+`, `/` and `=` in it; a path has `/` too, but seldom all kinds of characters.
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "_.-+/=%\\".contains(c);
    let has = |run: &str, what: fn(&u8) -> bool| run.bytes().any(|byte| what(&byte));
    let of_all_kinds =
        |run: &str| has(run, u8::is_ascii_digit) && has(run, u8::is_ascii_uppercase) && has(run, u8::is_ascii_lowercase);
    let masked = masked_runs(word, is_base64, |run| run.len() >= 2 * TOKEN_LIKE && of_all_kinds(run) || run.contains("eyJ"));
    masked_runs(&masked, is_of_tokens, |run| is_token_like(run, TOKEN_LIKE))
}

/// Whether tokens are made of such characters.
pub fn is_of_tokens(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-".contains(c)
}

/// How tokens of Vault and OpenBao begin (documented). What follows is random, and one in seventy has no digit in it.
const PREFIXES: [&str; 6] = ["s.", "b.", "r.", "hvs.", "hvb.", "hvr."];

/// Names in capitals or small letters alone are long now and then; tokens mix them with digits, or tell by their beginning.
pub fn is_token_like(run: &str, length: usize) -> bool {
    let mixed = run.bytes().any(|byte| byte.is_ascii_digit()) && run.bytes().any(|byte| byte.is_ascii_alphabetic());
    run.len() >= length && (mixed || PREFIXES.iter().any(|prefix| run.starts_with(prefix)))
}

/// `text` with `…` for each longest run of characters `of` that is `hidden`; an empty run never is.
pub fn masked_runs(text: &str, of: impl Fn(char) -> bool, hidden: impl Fn(&str) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (run, after) = rest.split_at(rest.find(|c| !of(c)).unwrap_or(rest.len()));
        shown.push_str(if hidden(run) { "…" } else { run });
        let (between, next) = after.split_at(after.find(&of).unwrap_or(after.len()));
        shown.push_str(between);
        rest = next;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_elses_text_is_shown_without_what_looks_like_a_secret() {
        let uuid = "f3b0c442-98fc-1c14-9afb-f4c8996fb924";
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";
        let key = "FwoGZXIvYXdzEBYaDH/kN2+Qx9mExample4sessiontoken/abc=";
        for secret in
            [uuid, jwt, key, "hvs.CAESIJ3f9q2k8d7g6h5j4k3l", "s.oVYQkB1n2m3l4k5j6h7g8f9d", "s.oVYQkBnmlkjhgfdsaqwertyui"]
        {
            for text in [secret.to_owned(), format!("'{secret}'"), format!("a=\"{secret}\", b"), format!("value:{secret}.")] {
                let shown = presentable(&text, 200, &[]);
                assert!(!shown.contains(&secret[4..12]) && shown.contains('…'), "{text}: {shown}");
            }
        }
        let known = Secret::new("short".to_owned());
        assert_eq!(presentable("it is short\n\tenough.", 200, &[&known]), "it is … enough");
    }

    #[test]
    fn a_secret_at_the_end_of_what_is_shown_is_hidden_before_the_text_is_cut() {
        let known = Secret::new("correct-horse-battery".to_owned());
        for length in 0..30 {
            let text = format!("{} correct-horse-battery", "x".repeat(length));
            assert!(!presentable(&text, 30, &[&known]).contains("corr"), "{length}");
        }
    }

    #[test]
    fn what_is_no_secret_stays_readable() {
        for text in [
            "User: arn:aws:sts::123456789012:assumed-role/rotad is not authorized to perform: secretsmanager:TagResource",
            "no handler for route \"secret/data/etl/motherduck2\". route entry not found",
            "minimum role org_admin is required",
            "check-and-set parameter did not match the current version",
        ] {
            assert_eq!(presentable(text, 200, &[]), text);
        }
        assert_eq!(presentable("one two three", 7, &[]), "one two…");
    }

    #[test]
    fn debug_shows_nothing_of_the_value() {
        let secret = Secret::new("hunter2-hunter2".to_owned());
        assert_eq!(format!("{secret:?} {secret:#?}"), "Secret(…) Secret(…)");
    }

    #[test]
    fn the_fingerprint_is_sha_256_of_the_value() {
        assert_eq!(
            Secret::new("abc".to_owned()).fingerprint().to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
