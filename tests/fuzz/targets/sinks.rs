//! What a place may hold, whatever it is: formats, markers, and the file sink on a directory of its own. What is
//! written is read back as the same token of the same rotation, the keys of others stay to the letter, and nothing
//! of the content is told in a failure.
//!
//! The input is, line by line: a format (`raw`, `env NAME`, `json key=field,…`), with `file ` before it to go
//! through the file sink; the new token's value; the marker that is there; then the content that is there. `@@` in the
//! content stands for a secret.
#![no_main]

use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::fuzz_target;
use rotad::rotation::{
    Account, Fingerprint, InstallationId, Owner, RotationId, Shows, TokenId, TokenName, TokenType, WriteOutcome,
};
use rotad::secret::Secret;
use rotad::sinks::file::{Config, Sink, Target};
use rotad::sinks::format::{Field, Format};
use rotad::sinks::marker::Marker;
use rotad::sinks::{Payload, Place, Question, aws};
use serde_json::value::RawValue;
use tokio::runtime::Runtime;

const PLANTED: &str = "PLANTED-hunter2";
/// Memory, where there is such a directory: the file sink syncs what it writes.
const MEMORY: &str = "/dev/shm";

/// A delivery that is about to be made.
struct Case {
    through_file: bool,
    format: Format,
    value: Secret,
    marker: String,
    content: Vec<u8>,
    owner: Owner,
    rotation: RotationId,
    token_id: TokenId,
    token_name: TokenName,
    account: Account,
}

impl Case {
    fn parse(data: &[u8]) -> Option<Self> {
        let mut lines = data.splitn(4, |byte| *byte == b'\n');
        let mut line = || std::str::from_utf8(lines.next()?).ok();
        let (first, value, marker) = (line()?, line()?, line()?.to_owned());
        let through_file = first.starts_with("file ");
        let format = format(first.trim_start_matches("file "))?;
        // What the client lets through.
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let content = lines.next().unwrap_or_default();
        let content = match std::str::from_utf8(content) {
            Ok(text) => text.replace("@@", PLANTED).into_bytes(),
            Err(_) => content.to_vec(),
        };
        let owner: Owner = "prod/etl".parse().ok()?;
        let rotation = RotationId::mint(at(), None, InstallationId(0xdead_beef), 7);
        Some(Self {
            through_file,
            format,
            value: Secret::new(value.to_owned()),
            marker,
            content,
            token_id: TokenId("5b0c".to_owned()),
            token_name: TokenName { owner: owner.clone(), rotation },
            account: Account::new("etl_prod"),
            owner,
            rotation,
        })
    }

    fn payload(&self) -> Payload<'_> {
        Payload {
            owner: &self.owner,
            rotation: self.rotation,
            value: &self.value,
            token_id: &self.token_id,
            token_name: &self.token_name,
            account: &self.account,
            token_type: TokenType::ReadWrite,
            issued_at: at(),
            expires_at: at() + SignedDuration::from_hours(168),
        }
    }
}

fn at() -> Timestamp {
    Timestamp::from_second(1_790_000_000).expect("a time")
}

/// A format as the configuration would accept it.
fn format(text: &str) -> Option<Format> {
    match text.split_once(' ').unwrap_or((text, "")) {
        ("raw", "") => Some(Format::Raw),
        ("env", name) => {
            let is_name = !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            is_name.then(|| Format::Env { variable: name.to_owned() })
        }
        ("json", "") => Some(Format::json()),
        ("json", pairs) => {
            let field = |name: &str| Field::ALL.into_iter().find(|field| field.as_str() == name);
            let pair = |text: &str| text.split_once('=').and_then(|(key, name)| Some((key.to_owned(), field(name)?)));
            let fields: Vec<(String, Field)> = pairs.split(',').map(pair).collect::<Option<_>>()?;
            let mut keys: Vec<&String> = fields.iter().map(|(key, _)| key).collect();
            keys.sort();
            let distinct = keys.windows(2).all(|pair| pair[0] != pair[1]);
            let tokens = fields.iter().filter(|(_, field)| *field == Field::Token).count();
            (distinct && tokens == 1).then_some(Format::Json { fields })
        }
        _ => None,
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(case) = Case::parse(data) else { return };
    marked(&case);
    match std::str::from_utf8(&case.content) {
        Ok(existing) => formatted(&case, existing),
        Err(_) if !case.through_file => return,
        Err(_) => {}
    }
    if case.through_file {
        FILES.with(|files| files.delivered(&case));
    }
});

/// Whatever stands there as a marker, the next one explains the new value and goes on explaining the one in place.
fn marked(case: &Case) {
    let before = Marker::parse(&case.marker);
    if let Some(before) = &before {
        assert_eq!(before.to_string(), case.marker, "a marker has one spelling");
    }
    let in_place = Secret::new(case.marker.split([' ', ':']).nth(1).unwrap_or_default().to_owned());
    let in_place: Option<Fingerprint> = in_place.expose().parse().ok();
    let new = (case.value.fingerprint(), case.rotation);
    let next = Marker::next(before.as_ref(), &case.owner, new, in_place);
    assert_eq!((&next.owner, next.rotation(new.0)), (&case.owner, Some(case.rotation)));
    assert_eq!(Marker::parse(&next.to_string()), Some(next.clone()), "a marker reads as it was written");
    assert!(next.to_string().len() <= 512, "Vault takes no marker of {} bytes", next.to_string().len());
    if let (Some(before), Some(in_place)) = (before.filter(|before| before.owner == case.owner), in_place)
        && in_place != new.0
    {
        assert_eq!(next.rotation(in_place), before.rotation(in_place), "the value in place is no longer explained");
    }
}

fn formatted(case: &Case, existing: &str) {
    let (format, payload) = (&case.format, case.payload());
    let told = |detail: &str| assert!(!detail.contains("PLANTED"), "content is told: {detail}");
    // Reading what anybody may have written there.
    match format.extract(existing) {
        Ok(found) => assert!(found.is_none_or(|token| !token.expose().is_empty())),
        Err(failed) => told(&failed.detail),
    }
    let clash = format.clash(existing);
    let rendered = match format.render(&payload, Some(existing)) {
        Ok(rendered) => rendered,
        Err(failed) => {
            assert!(entries(existing).is_none() && matches!(format, Format::Json { .. }), "a place is refused: {failed}");
            return told(&failed.detail);
        }
    };
    let read = format.extract(rendered.expose()).ok().flatten();
    assert_eq!(read.map(|token| token.fingerprint()), Some(case.value.fingerprint()), "not read back as written");
    let again = format.render(&payload, Some(rendered.expose())).ok();
    assert_eq!(again.as_ref().map(Secret::expose), Some(rendered.expose()), "a second write differs");
    if let Format::Json { fields } = format {
        let ours = |key: &str| fields.iter().any(|(name, _)| name == key);
        let theirs = |text: &str| -> Option<Vec<(String, String)>> {
            Some(entries(text)?.into_iter().filter(|(key, _)| !ours(key)).collect())
        };
        let before = if existing.trim().is_empty() { Some(Vec::new()) } else { theirs(existing) };
        assert_eq!(theirs(rendered.expose()), before, "keys of others changed");
        let keys = entries(existing).unwrap_or_default();
        assert_eq!(clash.is_some(), keys.iter().any(|(key, _)| ours(key)), "another one's key is overwritten unseen");
        let written = entries(rendered.expose()).expect("an object");
        let is_text = |key: &str| written.iter().any(|(known, text)| known == key && text.starts_with('"'));
        fields.iter().for_each(|(key, _)| assert!(is_text(key), "`{key}` is missing"));
    }
    // AWS: the version's id tells the rotation, of this very content alone.
    let id = aws::marker::version_id(format, case.rotation, rendered.expose());
    let question = Question { owner: case.owner.clone(), candidates: vec![case.rotation] };
    assert!((32..=64).contains(&id.len()), "AWS takes no `{id}`");
    assert_eq!(aws::marker::rotation(format, &id, rendered.expose(), &question), Some(case.rotation));
    if matches!(format, Format::Json { .. }) && existing != rendered.expose() {
        assert_eq!(aws::marker::rotation(format, &id, existing, &question), None, "other content is taken for ours");
    }
}

/// The entries of a JSON object by another reader than the sinks': each key once, where it stood first, with its
/// last value's own text.
fn entries(text: &str) -> Option<Vec<(String, String)>> {
    let mut places: Vec<(String, String)> = Vec::new();
    let map: Entries = serde_json::from_str(text).ok()?;
    for (key, raw) in map.0 {
        let text = raw.get().to_owned();
        match places.iter_mut().find(|(known, _)| *known == key) {
            Some((_, value)) => *value = text,
            None => places.push((key, text)),
        }
    }
    Some(places)
}

struct Entries(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Entries;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

thread_local! {
    static FILES: Files = Files::new();
}

/// A directory for the file sink.
struct Files {
    runtime: Runtime,
    directory: tempfile::TempDir,
    sink: Arc<Sink>,
}

impl Files {
    fn new() -> Self {
        let memory = PathBuf::from(MEMORY);
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
            directory: directory.expect("a directory"),
            sink: Sink::new(&Config::default()),
        }
    }

    fn delivered(&self, case: &Case) {
        let path = self.directory.path().join("token");
        std::fs::write(&path, &case.content).expect("a file");
        std::fs::write(self.directory.path().join(".token.rotad"), &case.marker).expect("a file");
        let target = Target { path: path.clone(), format: case.format.clone(), mode: 0o600, owner: None, group: None };
        let place = self.sink.place(target).expect("a place");
        let question = Question { owner: case.owner.clone(), candidates: vec![case.rotation] };
        self.runtime.block_on(async {
            let before = place.read(&question).await.expect("it is readable");
            let outcome = place.write(&before.version, &case.payload()).await;
            assert_eq!(outcome, WriteOutcome::Written);
            let again = place.write(&before.version, &case.payload()).await;
            let unchanged = place.read(&question).await.expect("it is readable").version == before.version;
            assert!(again == WriteOutcome::Conflict || unchanged, "a condition that no longer holds was not seen: {again:?}");
            let after = place.read(&question).await.expect("it is readable");
            let served = Shows::Value {
                fingerprint: case.value.fingerprint(),
                owner: Some(case.owner.clone()),
                rotation: Some(case.rotation),
            };
            assert_eq!(after.shows, served, "not read back as written");
        });
        let content = std::fs::read_to_string(&path).expect("text");
        let kept = std::str::from_utf8(&case.content).ok().filter(|text| case.format.extract(text).is_ok());
        let expected = case.format.render(&case.payload(), kept).expect("a content");
        assert_eq!(content, expected.expose(), "keys of others changed");
    }
}
