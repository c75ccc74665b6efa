//! Clocks that are wrong: the machine's, by libfaketime, while the daemon runs and between two runs; and
//! the API's. The time since boot, which no one sets, stays right, as `CLOCK_BOOTTIME` is read from the
//! kernel past the C library. A suspend can't be had here: `src/clock.rs` tests that time passes in it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::plain::{FAST, Plain};
use crate::process::{Process, effects_of};

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;
/// Longer than until the next comparison with the API, which comes every 10 s while the clocks disagree.
const HOLD: Duration = Duration::from_secs(12);
/// The credential that rotates at the pace of `FAST`.
const BRISK: &str = "etl";
/// Its grace period.
const GRACE_NS: i64 = 2_000_000_000;
/// Credentials that rotate every 20 days, at one moment or another: none is due while the test runs.
const FLEET: usize = 50;

pub const CASES: &[(&str, fn())] = &[
    ("a wall clock that moves by a minute", || moved_by(MINUTE)),
    ("a wall clock that moves by an hour", || moved_by(HOUR)),
    ("a wall clock that moves by a year", || moved_by(YEAR)),
    ("a date of the API that is wrong by an hour", a_wrong_date_of_the_api_hurries_nothing),
    ("a date of the API that is a year ahead", a_date_a_year_ahead_does_not_rotate_the_fleet_at_once),
];

/// A fleet under a wall clock that a test may set.
struct Faked {
    plain: Plain,
    names: Vec<String>,
}

impl Faked {
    fn start() -> Self {
        let plain = Plain::start();
        let names: Vec<String> = (0..FLEET).map(|number| format!("fleet{number}")).collect();
        let fleet = names.iter().map(|name| plain.credential(name, "ttl = \"30d\"\nevery = \"20d\"\ngrace = \"2d\""));
        let credentials: String = fleet.chain([plain.credential(BRISK, FAST)]).collect();
        plain.configure(&(plain.head() + &credentials));
        let faked = Self { plain, names };
        faked.set(0);
        faked
    }

    /// Sets the daemon's wall clock, in seconds from the true time; another file takes the name, so that
    /// it is never read half-written.
    fn set(&self, offset: i64) {
        let (path, new) = (self.plain.path("offset"), self.plain.path("offset.new"));
        std::fs::write(&new, format!("{offset:+}\n")).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn rotad(&self) -> Process {
        let mut command = self.plain.command(&["run"]);
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", self.plain.path("offset"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
        let served = || self.plain.log().matches("address=").count();
        let before = served();
        let rotad = self.plain.launch(&mut command);
        self.plain.until("the daemon", || served() > before);
        rotad
    }

    /// Starts the daemon and waits until every credential has its token.
    fn rotad_delivering(&self) -> Process {
        let rotad = self.rotad();
        self.plain.until("every delivery", || self.all().all(|name| self.plain.served(name).is_some()));
        self.until_thawed();
        rotad
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).chain([BRISK])
    }

    fn is_frozen(&self, reason: &str) -> bool {
        self.plain.metric(&format!("rotad_revocations_frozen{{reason=\"{reason}\"}}")) == Some(1.0)
    }

    /// Waits until the clocks are found to disagree, and sees that nothing is done meanwhile, but for
    /// `urgent` rotations whose deadline seems to have passed.
    fn until_frozen(&self, urgent: usize) {
        self.plain.until("the freeze", || self.is_frozen("clock_jump") || self.is_frozen("clock_skew"));
        // What was being carried out when the clock was set comes to its end.
        let (issued, revoked) = (self.plain.issued() + 1 + urgent, self.plain.revoked() + 1);
        std::thread::sleep(HOLD);
        self.plain.until("the comparison", || self.is_frozen("clock_skew"));
        let (issued_since, revoked_since) = (self.plain.issued(), self.plain.revoked());
        assert!(issued_since <= issued && revoked_since <= revoked, "work in a freeze:\n{}", self.plain.log());
        assert!(self.plain.log().contains("are frozen until the clocks agree"));
    }

    /// Lives a while under the wrong clock, for more than one rotation and its grace period.
    fn holds(&self) {
        std::thread::sleep(HOLD);
        self.harmed_nobody();
    }

    fn until_thawed(&self) {
        let reasons = ["not_compared", "clock_jump", "clock_skew"];
        self.plain.until("the end of the freeze", || !reasons.iter().any(|reason| self.is_frozen(reason)));
    }

    /// The brisk credential is rotated and its old token revoked.
    fn goes_on(&self) {
        let (issued, revoked) = (self.plain.issued(), self.plain.revoked());
        self.plain.until("the next rotation and revocation", || {
            self.plain.serves_nothing_dead(BRISK);
            self.plain.issued() > issued && self.plain.revoked() > revoked
        });
    }

    /// By the API's own account: no token was revoked before its grace period was over, and none of the
    /// fleet was replaced.
    fn harmed_nobody(&self) {
        let records = self.plain.stand_in.records();
        let done = |operation: &str, owner: &str| -> Vec<&Value> {
            let name = |record: &Value| record["token_name"].as_str().unwrap_or_default().starts_with(owner);
            records.iter().filter(|record| record["operation"] == operation && record["effect"] == true && name(record)).collect()
        };
        for name in &self.names {
            let count = done("create_token", &format!("rotad/test/{name}/")).len();
            assert_eq!(count, 1, "`{name}` was rotated, and is not due for days");
            assert!(self.plain.serves_live(name), "`{name}` serves a dead token");
        }
        let brisk = done("create_token", "rotad/test/etl/");
        for revoked in done("revoke_token", "rotad/test/etl/") {
            let place = brisk.iter().position(|record| record["token_id"] == revoked["token_id"]).unwrap();
            let successor = brisk.get(place + 1).expect("a token is revoked once there is a later one");
            let waited = revoked["at_ns"].as_i64().unwrap() - successor["at_ns"].as_i64().unwrap();
            assert!(waited >= GRACE_NS, "revoked {} ms after its successor was issued", waited / 1_000_000);
        }
    }
}

fn library() -> PathBuf {
    let unpacked = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/libfaketimeMT.so.1");
    let installed = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    let found = installed.chain([unpacked]).find(|path| path.exists());
    found.expect("libfaketime is needed: `tests/run` gets it, or `apt-get install libfaketime`")
}

/// Forward and back: while it runs, between two runs, and set right while it runs.
fn moved_by(distance: i64) {
    let faked = Faked::start();
    let mut rotad = faked.rotad_delivering();
    faked.goes_on();
    // A minute is tolerated: revocations wait for the slower clock, and nothing else needs to know.
    let is_told = distance > MINUTE;
    for offset in [distance, -distance] {
        faked.set(offset);
        if is_told {
            faked.until_frozen(0);
            let jumps = faked.plain.metric("rotad_clock_jumps_total").unwrap();
            assert!(jumps >= 1.0, "{jumps}");
        } else {
            faked.holds();
        }
        rotad.stop();
        rotad = faked.rotad();
        if is_told {
            faked.until_frozen(0);
            let skew = faked.plain.metric("rotad_clock_skew_seconds").unwrap();
            assert!((skew - offset as f64).abs() < 60.0, "{skew} s, not {offset} s");
        } else {
            faked.holds();
        }
        faked.set(0);
        faked.until_thawed();
        faked.goes_on();
        faked.harmed_nobody();
    }
    rotad.stop();
}

/// The machine's clock is right and the API's `Date` is not. It is believed over ours, so that the brisk
/// credential's token seems to be past its deadline: it is replaced once, and not again and again.
fn a_wrong_date_of_the_api_hurries_nothing() {
    let faked = Faked::start();
    let mut rotad = faked.rotad_delivering();
    faked.goes_on();
    for offset in [HOUR, -HOUR] {
        faked.plain.shift_date(offset);
        faked.until_frozen(1);
        let skew = faked.plain.metric("rotad_clock_skew_seconds").unwrap();
        assert!((skew + offset as f64).abs() < 60.0, "{skew} s, not {} s", -offset);
        rotad.stop();
        rotad = faked.rotad();
        faked.until_frozen(0);
        faked.plain.shift_date(0);
        faked.until_thawed();
        faked.goes_on();
        faked.harmed_nobody();
    }
    rotad.stop();
}

/// Every token of the fleet seems to have expired.
fn a_date_a_year_ahead_does_not_rotate_the_fleet_at_once() {
    let faked = Faked::start();
    faked.rotad_delivering().stop();
    let text = std::fs::read_to_string(faked.plain.path("rotad.toml")).unwrap();
    faked.plain.configure(&text.replace("rotations_per_minute = 600", "rotations_per_minute = 10"));
    // On a slow machine the brisk credential is past its first grace period by now.
    let (issued, revoked) = (faked.plain.issued(), faked.plain.revoked());
    faked.plain.shift_date(YEAR);
    let mut rotad = faked.rotad();
    faked.plain.until("the freeze", || faked.is_frozen("clock_skew"));
    // More than a minute, so that the limit is seen to go on holding.
    std::thread::sleep(Duration::from_secs(70));
    faked.plain.holds_the_limit(issued, 10);
    assert!(faked.plain.issued() > issued, "what may have expired is replaced");
    assert_eq!(faked.plain.revoked(), revoked, "revoked in a freeze");
    faked.plain.shift_date(0);
    faked.until_thawed();
    faked.goes_on();
    for name in faked.all() {
        faked.plain.serves_nothing_dead(name);
    }
    faked.plain.holds_the_limit(issued, 10);
    let most = faked.names.iter().map(|name| effects_of(&faked.plain.stand_in.records(), "create_token", name).len()).max();
    assert!(most <= Some(2), "{most:?} tokens of one credential");
    rotad.stop();
}
