//! Patterns of account names: `*` stands for any number of letters, digits and `_`, `?` for one. Compared without case,
//! as MotherDuck compares accounts (observed).

use std::fmt;
use std::sync::Arc;

use crate::rotation::Account;

/// Which accounts a fleet covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Arc<str>);

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn matches(&self, account: &Account) -> bool {
        overlap(&self.0, account.as_str())
    }

    /// An account's name that it matches, for what is looked at before any account is known.
    pub(super) fn sample(&self) -> String {
        self.0.replace(['*', '?'], "x")
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a `*` or `?` may stand for.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether some text fits both of two patterns; a pattern without `*` and `?` is a text.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    let literal = |text: &str| -> Vec<char> { text.chars().take_while(|c| !matches!(c, '*' | '?')).collect() };
    // Most pairs part at their beginnings: there are as many pairs as there are credentials.
    let beginnings = literal(one).into_iter().zip(literal(other));
    if beginnings.clone().any(|(a, b)| a != b && !a.to_lowercase().eq(b.to_lowercase())) {
        return false;
    }
    let folded = |text: &str| -> Vec<char> { text.to_lowercase().chars().collect() };
    let (one, other) = (folded(one), folded(other));
    // Whether the rests of both, from these places on, have a text in common: from the ends to the beginnings.
    let mut after = vec![false; other.len() + 1];
    for i in (0..=one.len()).rev() {
        let mut row = vec![false; other.len() + 1];
        for j in (0..=other.len()).rev() {
            let (a, b) = (one.get(i), other.get(j));
            let within = |c: &char| matches!(c, '*' | '?') || is_word(*c);
            row[j] = match (a, b) {
                (None, None) => true,
                (Some('*'), _) if after[j] => true,
                (_, Some('*')) if row[j + 1] => true,
                (Some('*'), Some(b)) if within(b) && row[j + 1] => true,
                (Some(a), Some('*')) if within(a) && after[j] => true,
                (Some('*'), _) | (_, Some('*')) | (None, _) | (_, None) => false,
                (Some('?'), Some(c)) | (Some(c), Some('?')) => within(c) && after[j + 1],
                (Some(a), Some(b)) => a == b && after[j + 1],
            };
        }
        after = row;
    }
    after[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_matches_accounts_without_case() {
        let matches = |pattern: &str, account: &str| Pattern::new(pattern).matches(&Account::new(account));
        for (pattern, account) in [
            ("tenant_*", "Tenant_7"),
            ("tenant_*", "tenant_"),
            ("*", "abc"),
            ("t?n*_?", "tEn_x"),
            ("Ä*", "änne"),
            ("a*b*c", "axbbc"),
        ] {
            assert!(matches(pattern, account), "{pattern} {account}");
        }
        for (pattern, account) in [("tenant_*", "tenants"), ("tenant_?", "tenant_"), ("a*b", "abc"), ("*", "a-b"), ("a", "ab")] {
            assert!(!matches(pattern, account), "{pattern} {account}");
        }
    }

    #[test]
    fn a_wildcard_in_a_place_never_reaches_beyond_its_segment() {
        assert!(!overlap("file:/run/*/token", "file:/run/a/b/token"));
        assert!(overlap("file:/run/*/token", "file:/run/tenant_*/token"));
        assert!(!overlap("tenants-*", "tenants-eu-*"));
        assert!(!overlap("file:/run/a*", "file:/run/b*"));
    }

    proptest! {
        #[test]
        fn two_patterns_overlap_exactly_where_some_text_fits_both(one in "[ab*?]{0,4}", other in "[ab*?]{0,4}") {
            let mut texts = vec![String::new()];
            let mut all = texts.clone();
            for _ in 0..8 {
                texts = texts.iter().flat_map(|text| ["a", "b"].map(|c| format!("{text}{c}"))).collect();
                all.extend(texts.iter().cloned());
            }
            let both = |text: &String| wildmatch::WildMatch::new(&one).matches(text) && wildmatch::WildMatch::new(&other).matches(text);
            prop_assert_eq!(overlap(&one, &other), all.iter().any(both), "{} {}", one, other);
        }
    }
}
