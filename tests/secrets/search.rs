//! Looking for secrets in bytes: any part of one that is long enough to matter, in the encodings that a program
//! may have put it into.

use std::collections::HashMap;

/// How many characters of a secret may stand somewhere: fewer tell nothing, and could be chance.
const PART: usize = 16;

/// What is looked for.
#[derive(Default)]
pub struct Search {
    /// The name of the secret and its encoding, by each of its parts.
    parts: HashMap<Vec<u8>, String>,
}

impl Search {
    /// Adds a secret; `name` is what is told when it is found.
    pub fn add(&mut self, name: &str, secret: &str) {
        // The first section of a JWT is the same for all of them.
        let secret = secret.trim();
        let own = if secret.starts_with("eyJ") { secret.split_once('.').map_or(secret, |(_, rest)| rest) } else { secret };
        assert!(own.len() >= PART, "the {name} is too short to be looked for");
        for (encoding, text) in encodings(own) {
            for part in text.as_bytes().windows(PART) {
                self.parts.entry(part.to_vec()).or_insert_with(|| format!("{name}, {encoding}"));
            }
        }
    }

    /// What stands in `bytes`, and where: never the secret itself.
    pub fn find(&self, bytes: &[u8]) -> Option<String> {
        let (at, part) = bytes.windows(PART).enumerate().find(|(_, part)| self.parts.contains_key(*part))?;
        let before = String::from_utf8_lossy(&bytes[at.saturating_sub(80)..at]).into_owned();
        Some(format!("{} at byte {at}, after `{before}`", self.parts[part]))
    }
}

fn encodings(text: &str) -> Vec<(&'static str, String)> {
    let bytes = text.as_bytes();
    let hex = |upper: bool| -> String {
        bytes.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect()
    };
    let percent = |every: bool| -> String {
        let plain = |byte: &u8| !every && (byte.is_ascii_alphanumeric() || b"-._~".contains(byte));
        bytes.iter().map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }).collect()
    };
    let mut all = vec![
        ("as it is", text.to_owned()),
        ("in hexadecimal", hex(false)),
        ("in hexadecimal", hex(true)),
        ("percent-encoded", percent(false)),
        ("percent-encoded throughout", percent(true)),
        ("escaped", text.escape_default().to_string()),
        ("escaped for JSON", text.replace('/', "\\/")),
        ("in bytes", bytes.iter().map(|byte| format!("{byte}, ")).collect()),
    ];
    for url in [false, true] {
        // At whichever of the three places it begins in what was encoded.
        for skip in 0..3 {
            let encoded = base64(&bytes[skip..], url);
            // What follows the secret changes the last characters.
            all.push(("in base64", encoded[..encoded.len() - 4].to_owned()));
        }
    }
    all
}

fn base64(bytes: &[u8], url: bool) -> String {
    let last = if url { b"-_" } else { b"+/" };
    let alphabet: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*last).collect();
    let mut text = String::new();
    for chunk in bytes.chunks_exact(3) {
        let group = chunk.iter().fold(0_usize, |group, byte| group << 8 | usize::from(*byte));
        text.extend([18, 12, 6, 0].map(|shift| char::from(alphabet[group >> shift & 63])));
    }
    text
}

#[test]
fn the_search_finds_a_part_of_a_secret_in_any_encoding_and_nothing_else() {
    let secret = "hvs.CAESIJ3f9q2k/8d7g+h5j4k3lZ_x-y0123456789";
    let mut search = Search::default();
    search.add("planted one", secret);
    let hidden = |text: String| format!("{{\"error\":\"it said {text} and no more\"}}");
    for (encoding, text) in encodings(secret) {
        assert!(search.find(hidden(text).as_bytes()).is_some(), "{encoding}");
    }
    for before in ["", "x", "xy"] {
        let standard = base64(format!("{before}{secret}, and so on").as_bytes(), false);
        assert!(search.find(hidden(standard).as_bytes()).is_some(), "after {} bytes", before.len());
    }
    assert!(search.find(hidden(secret[20..36].to_owned()).as_bytes()).is_some(), "a part of it");
    assert_eq!(search.find(hidden(secret[20..35].to_owned()).as_bytes()), None, "less than a part of it");
    assert_eq!(search.find(hidden("hvs.…".to_owned()).as_bytes()), None);
    assert!(!search.find(secret.as_bytes()).unwrap().contains("CAES"), "what was found is not shown");
}
