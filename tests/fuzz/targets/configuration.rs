//! A configuration, whatever its text: no panic; each problem has its place and shows no secret; what is
//! accepted can keep the promises.
//!
//! The input is the text. `@@` in it stands for a secret that somebody wrote into it.
#![no_main]

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use libfuzzer_sys::fuzz_target;
use rotad::config::{self, Config, Credential, FileFact, Problem, Problems, Severity, Surroundings};
use rotad::rotation::{Account, CredentialName, Owner};

const SECRET: &str = "eyJhbGciOiJub25lIn0.Planted0Value1Planted2Value3Zq9x8w7.c2ln";
const PLANTED: &str = "Planted0Value1";

/// A machine where the path and the variable say what there is.
struct Machine;

impl Surroundings for Machine {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_790_000_000).expect("a time")
    }

    fn file(&self, path: &Path) -> FileFact {
        match path.to_str() {
            Some(path) if path.ends_with("/none") => FileFact::Unreadable("No such file or directory".to_owned()),
            Some(path) if path.ends_with("/empty") => FileFact::Empty,
            Some(path) if path.ends_with("/directory") => FileFact::Directory,
            Some(path) if path.ends_with("/pipe") => FileFact::Special,
            Some(path) if path.ends_with("/public") => FileFact::Readable { mode: 0o644 },
            _ => FileFact::Readable { mode: 0o600 },
        }
    }

    fn has_variable(&self, name: &str) -> bool {
        !name.starts_with("UNSET")
    }
}

fuzz_target!(|text: &str| {
    let text = text.replace("@@", SECRET);
    match config::parse(&text, "rotad.toml", &Machine) {
        Ok(config) => accepted(&config, &text),
        Err(problems) => refused(&problems, &text),
    }
});

fn refused(problems: &Problems, text: &str) {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    assert!(errors > 0, "refused without a reason: {problems}");
    problems.iter().for_each(|problem| told(problem, text));
}

/// A problem is somewhere in the text, and can be shown.
fn told(problem: &Problem, text: &str) {
    let shown = problem.to_string();
    assert!(!shown.contains(PLANTED), "a secret is shown:\n{shown}");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "control characters are shown:\n{shown:?}");
    let place = problem.position.expect("a place");
    let line = text.split('\n').nth(place.line.checked_sub(1).expect("lines count from 1"));
    let line = line.unwrap_or_else(|| panic!("there is no line {}: {shown}", place.line));
    assert!((1..=line.chars().count() + 1).contains(&place.column), "there is no such column:\n{shown}");
}

fn accepted(config: &Config, text: &str) {
    assert!(!config.organizations.is_empty() && !(config.credentials.is_empty() && config.fleets.is_empty()));
    for warning in &config.warnings {
        assert_eq!(warning.severity, Severity::Warning, "accepted with an error: {warning}");
        told(warning, text);
    }
    for (account, kept) in &config.accounts {
        assert!(config.organizations.contains_key(&kept.organization), "no such organization");
        assert!(rotad::motherduck::new_account(account.as_str()).is_ok(), "the API would refuse {account}");
        let (read_write, read_scaling) = (&kept.wanted.read_write, &kept.wanted.read_scaling);
        assert!(read_write.as_ref().is_none_or(|half| half.check().is_ok()), "{read_write:?}");
        assert!(read_scaling.as_ref().is_none_or(|half| half.check().is_ok()), "{read_scaling:?}");
    }
    // Whatever accounts there are, with them it keeps what it promises without them.
    let accounts = |pattern: &str| ["x", "_1y"].map(|word| Account::new(&pattern.replace('*', word).replace('?', "z")));
    let members = config.fleets.iter().map(|(name, fleet)| (name.clone(), accounts(fleet.accounts.as_str()).to_vec())).collect();
    let (config, _) = config.with_members(&members);
    let mut places = Vec::new();
    for (name, credential) in &config.credentials {
        keeps_its_promises(credential);
        comes_in_time(&config, name, credential);
        assert!(config.organizations.contains_key(&credential.terms.organization), "no such organization");
        assert!(!credential.deliveries.is_empty(), "a token for nobody");
        for delivery in &credential.deliveries {
            assert!(config.sinks.contains_key(&delivery.sink), "no such sink");
            places.push((&delivery.sink, &delivery.target));
        }
    }
    for (index, place) in places.iter().enumerate().take(100) {
        assert!(!places[..index].contains(place), "one place for two tokens: {place:?}");
    }
}

/// The arithmetic of the design, written out once more.
fn keeps_its_promises(credential: &Credential) {
    let terms = &credential.terms;
    let seconds = |duration: SignedDuration| i128::from(duration.as_secs());
    let (ttl, grace) = (seconds(terms.ttl), seconds(terms.grace));
    let (shortest, longest) = (seconds(terms.pace.shortest()), seconds(terms.pace.longest()));
    let margin = (ttl / 10).min(3_600);
    assert!((300..=31_536_000).contains(&ttl), "MotherDuck takes no ttl of {ttl} s");
    assert!(0 < grace && grace < shortest && shortest <= longest, "grace {grace}, gaps {shortest} to {longest}");
    let window = terms.window.map_or(0, seconds);
    assert!(longest + window + grace + margin <= ttl, "{longest} + {window} + {grace} + {margin} > {ttl}");
    let letters = credential.account.as_str().chars().count();
    assert!((3..=255).contains(&letters), "an account of {letters} letters");
}

/// Due times are as far apart as was promised.
fn comes_in_time(config: &Config, name: &CredentialName, credential: &Credential) {
    let owner = Owner { deployment: config.deployment.clone(), credential: name.clone() };
    let pace = &credential.terms.pace;
    let schedule = pace.schedule(&owner);
    let mut before = schedule.next_after(Machine.now()).expect("a due time");
    for _ in 0..20 {
        let Some(next) = schedule.next_after(before) else { return };
        let gap = next.duration_since(before);
        assert!(pace.shortest() <= gap && gap <= pace.longest(), "{gap} between {before} and {next}: {pace:?}");
        before = next;
    }
}
