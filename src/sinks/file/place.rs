//! One file as a place: reading, writing and checking it on blocking threads, each within its time limit.

use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::directory::{Directory, Found};
use super::transaction::{Access, Draft, Names, remove_leftovers};
use super::{Config, Target, check};
use crate::identities::{Kind, resolve};
use crate::rotation::{
    Account, DeliveryId, Failed, Fingerprint, Owner, Reason, RotationId, Shows, TokenId, TokenName, TokenType, WriteOutcome,
};
use crate::secret::Secret;
use crate::sinks::format::Format;
use crate::sinks::marker::Marker;
use crate::sinks::{Finding, Payload, Place, Question, Reading, Version};

/// How long an operation may take. A local disk needs milliseconds; one that swaps or scrubs, seconds.
const LIMIT: Duration = Duration::from_secs(10);

const ID_PREFIX: &str = "file:";
/// The longest file name that Linux takes, and what the longest of our suffixes needs of it.
const NAME_MAX: usize = 255 - ".".len() - ".rotad-mark".len();

/// One configured file sink, shared by its places.
#[derive(Debug)]
pub struct Sink {
    /// Why this process may not use the sink: it belongs to another host.
    elsewhere: Option<Failed>,
    limit: Duration,
    /// Formats in use, each once: 100,000 places share a handful, and one for JSON takes half a kilobyte.
    formats: std::sync::Mutex<Vec<Arc<Format>>>,
    /// Who is at work on a path. A place is made anew for each turn, and an operation that hangs
    /// outlives its place: the next one must find it.
    turns: std::sync::Mutex<Turns>,
}

type Turn = Arc<Mutex<()>>;

/// The turns of the paths that have a place or an operation, by path.
#[derive(Debug, Default)]
struct Turns {
    by_path: std::collections::BTreeMap<Box<str>, std::sync::Weak<Mutex<()>>>,
    /// How many were left after those of places that are gone were last removed.
    swept_to: usize,
}

impl Turns {
    /// The fewest entries that are worth sweeping.
    const SWEPT_FROM: usize = 256;

    fn of(&mut self, path: &str) -> Turn {
        if let Some(turn) = self.by_path.get(path).and_then(std::sync::Weak::upgrade) {
            return turn;
        }
        if self.by_path.len() >= Self::SWEPT_FROM.max(2 * self.swept_to) {
            self.by_path.retain(|_, turn| turn.strong_count() > 0);
            self.swept_to = self.by_path.len();
        }
        let turn = Turn::default();
        self.by_path.insert(path.into(), Arc::downgrade(&turn));
        turn
    }
}

/// The most formats that are looked through for an equal one.
const SHARED_FORMATS_MAX: usize = 16;

impl Sink {
    pub fn new(config: &Config) -> Arc<Self> {
        Self::with_limit(config, LIMIT)
    }

    /// The same with another time limit for each operation: for drills and tests.
    pub fn with_limit(config: &Config, limit: Duration) -> Arc<Self> {
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let elsewhere = config.host.as_ref().filter(|host| **host != own).map(|host| {
            Failed::new(
                Reason::Rejected,
                format!("this sink belongs to the host `{host}`, and this is `{own}`: its `host` says which one writes"),
            )
        });
        Arc::new(Self { elsewhere, limit, formats: std::sync::Mutex::default(), turns: std::sync::Mutex::default() })
    }

    fn share(&self, format: Format) -> Arc<Format> {
        let mut formats = self.formats.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(shared) = formats.iter().find(|shared| ***shared == format) {
            return Arc::clone(shared);
        }
        let format = Arc::new(format);
        if formats.len() < SHARED_FORMATS_MAX {
            formats.push(Arc::clone(&format));
        }
        format
    }

    /// The place of a delivery. Touches no file: that comes with the first read.
    ///
    /// # Errors
    /// `Rejected` where the path or the mode can't be right, whatever the file system holds.
    pub fn place(self: &Arc<Self>, target: Target) -> Result<FilePlace, Failed> {
        let rejected = |detail: String| Err(Failed::new(Reason::Rejected, detail));
        let Some(path) = target.path.to_str() else {
            return rejected(format!("the path `{}` is not UTF-8", target.path.display()));
        };
        let (Some(name), Some(_)) = (target.path.file_name().and_then(|name| name.to_str()), target.path.parent()) else {
            return rejected(format!("`{path}` names no file: give an absolute path such as `/run/etl/motherduck_token`"));
        };
        // One spelling for one file, so that two deliveries to it are seen to be the same.
        let plain = target.path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let spelled: std::path::PathBuf = target.path.components().collect();
        if !target.path.is_absolute() || !plain || spelled.as_os_str() != target.path.as_os_str() || path.contains('\0') {
            return rejected(format!("`{path}` must be absolute, without `.`, `..`, `//` or a `/` at its end"));
        }
        if name.len() > NAME_MAX || Names::is_reserved(name) {
            return rejected(format!(
                "`{name}` can't be the name of a place: at most {NAME_MAX} bytes, and not one of our own `.NAME.rotad` files"
            ));
        }
        if target.mode & !0o777 != 0 || target.mode & 0o400 == 0 || target.mode & 0o002 != 0 {
            return rejected(format!(
                "mode `{:04o}` can't be: owner-readable and not world-writable, as in `0600` or `0640`",
                target.mode
            ));
        }
        Ok(FilePlace(Arc::new(Inner {
            id: DeliveryId::new(&format!("{ID_PREFIX}{path}")),
            format: self.share(target.format),
            mode: target.mode,
            owner: target.owner.map(String::into_boxed_str),
            group: target.group.map(String::into_boxed_str),
            sink: Arc::clone(self),
            turn: self.turns.lock().unwrap_or_else(std::sync::PoisonError::into_inner).of(path),
        })))
    }
}

/// One file that a credential's token goes to.
pub struct FilePlace(Arc<Inner>);

/// What a blocking thread needs of a place. Kept small: there may be 100,000.
pub(super) struct Inner {
    id: DeliveryId,
    format: Arc<Format>,
    mode: u32,
    owner: Option<Box<str>>,
    group: Option<Box<str>>,
    sink: Arc<Sink>,
    /// Held while an operation runs, by its thread: past the caller's time limit too.
    turn: Turn,
}

impl Inner {
    pub fn path(&self) -> &Path {
        Path::new(self.id.as_str().strip_prefix(ID_PREFIX).unwrap_or_default())
    }

    pub fn directory(&self) -> &Path {
        self.path().parent().unwrap_or(Path::new("/"))
    }

    pub fn names(&self) -> Names {
        Names::of(self.path().file_name().and_then(|name| name.to_str()).unwrap_or_default())
    }

    /// Mode and owner, names looked up: a user or group may be made anew while rotad runs.
    pub fn access(&self) -> Result<Access, Failed> {
        let uid = self.owner.as_deref().map(|name| resolve(name, Kind::User)).transpose()?;
        let gid = self.group.as_deref().map(|name| resolve(name, Kind::Group)).transpose()?;
        Ok(Access { mode: self.mode, uid, gid })
    }

    fn read(&self) -> Result<Reading, Failed> {
        let directory = Directory::open(self.directory())?;
        let names = self.names();
        if let Ok(access) = self.access() {
            // A value that a crash left should not lie about until the next write; that one tells if it can't be removed.
            let _ = remove_leftovers(&directory, &names, access, FlockOperation::NonBlockingLockExclusive);
        }
        let held = Held::read(&directory, &names)?;
        let version = held.version();
        let owner = held.marker.as_ref().map(|marker| marker.owner.clone());
        Ok(match held.understand(&self.format) {
            Understood::Nothing => Reading { shows: Shows::Nothing { owner }, value: None, version },
            Understood::Token(value) => {
                let fingerprint = value.fingerprint();
                let rotation = held.marker.as_ref().and_then(|marker| marker.rotation(fingerprint));
                Reading { shows: Shows::Value { fingerprint, owner, rotation }, value: Some(value), version }
            }
            Understood::Other(fingerprint) => {
                Reading { shows: Shows::Value { fingerprint, owner, rotation: None }, value: None, version }
            }
        })
    }

    /// Writes the value if the place still holds `expected`. `stage` is asked right before anything
    /// becomes visible: a caller that gave up has said that nothing will.
    fn write(&self, expected: &Version, draft: &OwnedPayload, stage: &Stage) -> Result<WriteOutcome, Failed> {
        let directory = Directory::open(self.directory())?;
        let names = self.names();
        let access = self.access()?;
        if directory.is_mount_point(&names.value)? {
            return Err(directory.mount_point(&names.value));
        }
        let mut files = Draft::begin(&directory, &names, access)?;
        let held = Held::read(&directory, &names)?;
        if held.version() != *expected {
            return Ok(WriteOutcome::Conflict);
        }
        let payload = draft.payload();
        let existing = held.value.as_ref().and_then(|found| std::str::from_utf8(&found.content).ok());
        // JSON that a person broke holds no keys that could be kept: it is replaced, which mends it.
        let existing = existing.filter(|text| self.format.extract(text).is_ok());
        let content = self.format.render(&payload, existing)?;
        let new = (payload.value.fingerprint(), payload.rotation);
        let held_fingerprint = match held.understand(&self.format) {
            Understood::Token(value) => Some(value.fingerprint()),
            Understood::Nothing | Understood::Other(_) => None,
        };
        let marker = format!("{}\n", Marker::next(held.marker.as_ref(), payload.owner, new, held_fingerprint));
        files.prepare(content.expose().as_bytes(), marker.as_bytes(), access)?;
        // Somebody without our lock (an editor, a script) may have written meanwhile.
        let identity = |found: &Option<Found>| found.as_ref().map(|found| found.identity);
        if !directory.still(&names.value, identity(&held.value))?
            || !directory.still(&names.marker, identity(&held.marker_file))?
        {
            return Ok(WriteOutcome::Conflict);
        }
        if !stage.land() {
            return Ok(WriteOutcome::Refused(timed_out(self)));
        }
        Ok(files.land())
    }
}

fn timed_out(place: &Inner) -> Failed {
    let (limit, path) = (place.sink.limit, place.path().display());
    Failed::new(Reason::TimedOut, format!("`{path}` took longer than {limit:?}: does its file system hang?"))
}

/// What a place held when it was read, value first: a writer replaces the marker before the value,
/// so a marker that is read later explains either value.
struct Held {
    value: Option<Found>,
    marker_file: Option<Found>,
    marker: Option<Marker>,
}

enum Understood {
    Nothing,
    Token(Secret),
    /// Content that is not as we write it; the fingerprint is of all of it.
    Other(Fingerprint),
}

impl Held {
    fn read(directory: &Directory, names: &Names) -> Result<Self, Failed> {
        let value = directory.read(&names.value)?;
        let marker_file = directory.read(&names.marker)?;
        // A damaged marker explains nothing, so it counts as none, and the next write replaces it.
        let line = marker_file.as_ref().and_then(|found| std::str::from_utf8(&found.content).ok());
        let marker = line.and_then(|line| Marker::parse(line.trim_end()));
        Ok(Self { value, marker_file, marker })
    }

    fn version(&self) -> Version {
        let hash = |found: &Option<Found>| match found {
            None => "absent".to_owned(),
            Some(found) => Fingerprint::new(Sha256::digest(&*found.content).into()).to_string(),
        };
        Version(format!("{}/{}", hash(&self.value), hash(&self.marker_file)))
    }

    fn understand(&self, format: &Format) -> Understood {
        let Some(found) = &self.value else {
            return Understood::Nothing;
        };
        let other = || Understood::Other(Fingerprint::new(Sha256::digest(&*found.content).into()));
        let Ok(text) = std::str::from_utf8(&found.content) else {
            return other();
        };
        match format.extract(text) {
            Ok(Some(token)) if is_plain(format, text) => Understood::Token(token),
            // Lines of somebody else's: without this they would be overwritten as if nothing were there.
            Ok(None) if matches!(format, Format::Env { .. }) && !text.trim().is_empty() => other(),
            Ok(None) => Understood::Nothing,
            Ok(Some(_)) | Err(_) => other(),
        }
    }
}

/// Whether every reader of an environment file sees the token that we see: of two assignments most
/// take the last, and a carriage return belongs to the value for a shell.
fn is_plain(format: &Format, text: &str) -> bool {
    let Format::Env { variable } = format else {
        return true;
    };
    let assigns = |line: &&str| {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        line.strip_prefix(variable.as_str()).is_some_and(|rest| rest.starts_with('='))
    };
    !text.contains('\r') && text.lines().filter(assigns).count() == 1
}

/// How far a write got, agreed between the task that waits and the thread that works, so that a
/// write whose caller gave up either had begun to land before or never does.
#[derive(Debug, Default)]
struct Stage(AtomicU8);

impl Stage {
    const PREPARING: u8 = 0;
    const LANDING: u8 = 1;
    const ABANDONED: u8 = 2;

    fn land(&self) -> bool {
        self.0.compare_exchange(Self::PREPARING, Self::LANDING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// `false` where the write has begun to land.
    fn abandon(&self) -> bool {
        match self.0.compare_exchange(Self::PREPARING, Self::ABANDONED, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => true,
            Err(stage) => stage == Self::ABANDONED,
        }
    }

    fn is_abandoned(&self) -> bool {
        self.0.load(Ordering::SeqCst) == Self::ABANDONED
    }
}

/// Gives the operation up when its caller goes away before the answer.
struct Abandon(Arc<Stage>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// Why an operation has no answer.
enum Stopped {
    /// An earlier one at the same place still runs; this one was not begun.
    Busy,
    TimedOut,
}

impl FilePlace {
    /// Runs `work` on a blocking thread within the time limit, after earlier work at this place has ended.
    async fn run<T, W>(&self, stage: &Arc<Stage>, work: W) -> Result<T, Stopped>
    where
        T: Send + 'static,
        W: FnOnce(&Inner, &Stage) -> T + Send + 'static,
    {
        let deadline = Instant::now() + self.0.sink.limit;
        let turn = timeout_at(deadline, Arc::clone(&self.0.turn).lock_owned()).await.map_err(|_| Stopped::Busy)?;
        let abandon = Abandon(Arc::clone(stage));
        let (place, stage) = (Arc::clone(&self.0), Arc::clone(stage));
        let task = tokio::task::spawn_blocking(move || {
            let answer = (!stage.is_abandoned()).then(|| work(&place, &stage));
            drop(turn);
            answer
        });
        let answer = timeout_at(deadline, task).await;
        drop(abandon);
        match answer {
            Ok(Ok(Some(answer))) => Ok(answer),
            // Past the limit, or never begun since the runtime shuts down.
            Ok(Ok(None) | Err(_)) | Err(_) => Err(Stopped::TimedOut),
        }
    }

    fn failed(&self, stopped: &Stopped) -> Failed {
        match stopped {
            Stopped::TimedOut => timed_out(&self.0),
            Stopped::Busy => {
                let path = self.0.path().display();
                Failed::new(Reason::Busy, format!("an earlier operation on `{path}` has not ended: does its file system hang?"))
            }
        }
    }
}

#[async_trait]
impl Place for FilePlace {
    fn id(&self) -> &DeliveryId {
        &self.0.id
    }

    fn write_limit(&self) -> SignedDuration {
        SignedDuration::try_from(self.0.sink.limit).unwrap_or(SignedDuration::MAX)
    }

    async fn read(&self, _question: &Question) -> Result<Reading, Failed> {
        if let Some(failed) = &self.0.sink.elsewhere {
            return Err(failed.clone());
        }
        self.run(&Arc::default(), |place, _| place.read()).await.unwrap_or_else(|stopped| Err(self.failed(&stopped)))
    }

    async fn write(&self, expected: &Version, payload: &Payload<'_>) -> WriteOutcome {
        if let Some(failed) = &self.0.sink.elsewhere {
            return WriteOutcome::Refused(failed.clone());
        }
        let (expected, draft) = (expected.clone(), OwnedPayload::of(payload));
        let stage = Arc::<Stage>::default();
        match self.run(&stage, move |place, stage| place.write(&expected, &draft, stage)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(failed)) => WriteOutcome::Refused(failed),
            Err(stopped @ Stopped::Busy) => WriteOutcome::Refused(self.failed(&stopped)),
            Err(stopped @ Stopped::TimedOut) if stage.abandon() => WriteOutcome::Refused(self.failed(&stopped)),
            Err(stopped @ Stopped::TimedOut) => WriteOutcome::Unknown(self.failed(&stopped)),
        }
    }

    async fn check(&self) -> Vec<Finding> {
        if let Some(failed) = &self.0.sink.elsewhere {
            return vec![Finding::Wrong(failed.clone())];
        }
        let probe = self.run(&Arc::default(), |place, _| check::probe(place)).await;
        probe.unwrap_or_else(|stopped| vec![Finding::Wrong(self.failed(&stopped))])
    }
}

/// A payload that a thread can own.
struct OwnedPayload {
    owner: Owner,
    rotation: RotationId,
    value: Secret,
    token_id: TokenId,
    token_name: TokenName,
    account: Account,
    token_type: TokenType,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

impl OwnedPayload {
    fn of(payload: &Payload<'_>) -> Self {
        Self {
            owner: payload.owner.clone(),
            rotation: payload.rotation,
            value: payload.value.duplicate(),
            token_id: payload.token_id.clone(),
            token_name: payload.token_name.clone(),
            account: payload.account.clone(),
            token_type: payload.token_type,
            issued_at: payload.issued_at,
            expires_at: payload.expires_at,
        }
    }

    fn payload(&self) -> Payload<'_> {
        Payload {
            owner: &self.owner,
            rotation: self.rotation,
            value: &self.value,
            token_id: &self.token_id,
            token_name: &self.token_name,
            account: &self.account,
            token_type: self.token_type,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_made_anew_waits_for_what_still_runs_on_its_path() {
        let sink = Sink::new(&Config::default());
        let place = |name: &str| {
            let target =
                Target { path: format!("/run/{name}").into(), format: Format::Raw, mode: 0o600, owner: None, group: None };
            sink.place(target).unwrap()
        };
        let running = Arc::clone(&place("one").0.turn).try_lock_owned().unwrap();
        assert!(place("one").0.turn.try_lock().is_err(), "the operation was forgotten with its place");
        assert!(place("two").0.turn.try_lock().is_ok());
        (0..2000).for_each(|number| drop(place(&number.to_string())));
        assert!(sink.turns.lock().unwrap().by_path.len() < 2 * Turns::SWEPT_FROM, "turns of places that are gone pile up");
        assert!(place("one").0.turn.try_lock().is_err());
        drop(running);
        assert!(place("one").0.turn.try_lock().is_ok());
    }

    #[test]
    fn places_share_their_sink_and_equal_formats() {
        let sink = Sink::new(&Config::default());
        let place = |number: usize, format| {
            let target = Target { path: format!("/run/{number}").into(), format, mode: 0o600, owner: None, group: None };
            sink.place(target).unwrap()
        };
        let places: Vec<FilePlace> = (0..3).map(|number| place(number, Format::json())).collect();
        assert!(places.iter().all(|place| Arc::ptr_eq(&place.0.format, &places[0].0.format)));
        for number in 0..2 * SHARED_FORMATS_MAX {
            let own = place(number, Format::Env { variable: format!("TOKEN_{number}") });
            assert_eq!(*own.0.format, Format::Env { variable: format!("TOKEN_{number}") });
        }
        assert_eq!(sink.formats.lock().unwrap().len(), SHARED_FORMATS_MAX);
        assert!(size_of::<Inner>() <= 112, "{}", size_of::<Inner>());
    }
}
