//! What a configuration becomes: defaults, sharing, documents that must agree, and text that was damaged.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::rotation::{DeliveryId, Owner, Schedule, TokenType, Verify};

const REFERENCE: &str = include_str!("../../docs/configuration.md");

/// Every file is there, every variable set.
struct Anywhere;

impl Surroundings for Anywhere {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn file(&self, _: &Path) -> FileFact {
        FileFact::Readable { mode: 0o600 }
    }

    fn has_variable(&self, _: &str) -> bool {
        true
    }
}

fn parsed(text: &str) -> Config {
    parse(text, "rotad.toml", &Anywhere).unwrap_or_else(|problems| panic!("{problems}"))
}

fn small(credentials: &str) -> String {
    format!(
        "deployment = \"prod\"\n[organization.main]\nadmin_token = {{ env = \"TOKEN\" }}\n[sink.disk.file]\n[sink.prod.aws]\n{credentials}"
    )
}

/// One mistake, one error: nothing is worked out with a default that stands in for a key that was mistyped.
#[test]
fn a_mistyped_key_is_reported_once() {
    let text = r#"
        deployment = "prod"
        [organization.main]
        admin_token = { file = "/secret/admin" }
        [sink.disk.file]
        [credential.etl]
        acount = "etl_prod"
        evry = "2h"
        ttl = "5h"
        grace = "1h"
        deliver = [{ sink = "disk", path = "/run/etl/token" }]
    "#;
    let problems = parse(text, "rotad.toml", &Anywhere).unwrap_err();
    let told: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(told, ["unknown key `acount` in [credential.etl]", "unknown key `evry` in [credential.etl]"]);
}

#[test]
fn the_documented_example_is_a_configuration() {
    let config = parsed(EXAMPLE);
    assert_eq!((config.organizations.len(), config.sinks.len(), config.credentials.len()), (1, 3, 1));
    assert_eq!(config.warnings, []);
}

#[test]
fn the_example_configurations_are_configurations() {
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let config = parsed(&text);
        assert_eq!(config.warnings, [], "{}", path.display());
    }
}

#[test]
fn every_key_stands_in_the_reference_and_in_the_example() {
    for (section, keys) in KEYS {
        for key in *keys {
            assert!(
                REFERENCE.contains(&format!("`{key}`")) || REFERENCE.contains(&format!("{key} = ")),
                "reference: {section} {key}"
            );
            let stands = [format!("{key} ="), format!("[{key}]"), format!("[{key}."), format!(".{key}]")];
            assert!(stands.iter().any(|text| EXAMPLE.contains(text)), "example: {section} {key}");
        }
    }
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let config =
        parsed(&small("[credential.etl]\naccount = \"etl_prod\"\ndeliver = [{ sink = \"disk\", path = \"/run/token\" }]\n"));
    let organization = &config.organizations["main"];
    assert_eq!(organization.api_url, "https://api.motherduck.com");
    assert_eq!((organization.requests_per_second.get(), organization.max_in_flight.get()), (10, 8));
    assert_eq!(config.journal, Location::Sqlite("/var/lib/rotad/journal.db".into()));
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:9643");
    assert!(config.server.per_credential_metrics && !config.server.page);
    assert_eq!((config.limits.rotations_per_minute.get(), config.limits.tokens_per_credential), (10, 16));
    let credential = &config.credentials[&"etl".parse().unwrap()];
    let terms = &credential.terms;
    assert_eq!(terms.ttl, SignedDuration::from_hours(168));
    assert_eq!(terms.pace, Pace::Every(SignedDuration::from_hours(24)));
    assert_eq!(terms.grace, SignedDuration::from_hours(12));
    assert_eq!((terms.token_type, terms.verify, terms.window), (TokenType::ReadWrite, Verify::List, None));
    let Target::File(target) = &credential.deliveries[0].target else { panic!("a file") };
    assert_eq!((target.mode, &target.format), (0o600, &crate::sinks::format::Format::Raw));
}

/// Many credentials with only an account of their own.
fn fleet(count: usize) -> String {
    let mut text = small("[defaults]\ndeliver = [{ sink = \"disk\", path = \"/run/{credential}/{account}\" }]\n");
    for number in 0..count {
        text.push_str(&format!("[credential.c{number}]\naccount = \"account_{number}\"\n"));
    }
    text
}

#[test]
fn credentials_that_say_the_same_share_it() {
    let config = parsed(&fleet(600));
    let mut terms = config.credentials.values().map(|credential| &credential.terms);
    let first = terms.next().unwrap();
    assert!(terms.all(|terms| Arc::ptr_eq(first, terms)));
    assert_eq!(config.limits.rotations_per_minute.get(), 12);
    let Target::File(target) = &config.credentials[&"c7".parse().unwrap()].deliveries[0].target else { panic!("a file") };
    assert_eq!(target.path, Path::new("/run/c7/account_7"));
}

#[test]
fn a_schedule_of_its_own_replaces_the_default_schedule() {
    let config = parsed(&format!("{}every = \"48h\"\n", fleet(1)));
    let credential = &config.credentials[&"c0".parse().unwrap()];
    assert_eq!(credential.terms.pace, Pace::Every(SignedDuration::from_hours(48)));
}

#[test]
fn the_policy_has_what_the_core_needs() {
    let config = parsed(&fleet(1));
    let name: CredentialName = "c0".parse().unwrap();
    let owner = Owner { deployment: config.deployment.clone(), credential: name.clone() };
    let places = [(DeliveryId::new("file:/run/c0/account_0"), SignedDuration::from_secs(10))];
    let policy = config.credentials[&name].policy(owner.clone(), 16, &places, SignedDuration::from_mins(5), false);
    assert_eq!(policy.schedule, Schedule::every(SignedDuration::from_hours(24), &owner));
    assert_eq!(policy.deliveries[&places[0].0].write_limit, SignedDuration::from_secs(10));
    assert_eq!((policy.account.as_str(), policy.tokens_max), ("account_0", 16));
    assert_eq!(policy.margin(), config.credentials[&name].terms.margin());
}

fn names(names: &[CredentialName]) -> Vec<&str> {
    names.iter().map(CredentialName::as_str).collect()
}

#[test]
fn a_difference_tells_added_removed_renamed_and_moved() {
    let before = parsed(&fleet(5));
    let text = fleet(4).replace("[credential.c0]", "[credential.new]");
    let text = text.replace(
        "account = \"account_1\"\n",
        "account = \"account_1\"\ndeliver = [{ sink = \"disk\", path = \"/run/moved\" }]\n",
    );
    let text = text.replace("account = \"account_2\"\n", "account = \"account_2\"\nttl = \"8d\"\n");
    let mut after = parsed(&format!("{text}[credential.c9]\naccount = \"account_9\"\n"));
    // The text refuses it as long as nothing carries a history over.
    let renamed = after.credentials.get_mut(&"new".parse::<CredentialName>().unwrap()).unwrap();
    renamed.renamed_from = Some("c0".parse().unwrap());
    let diff = before.diff(&after);
    assert_eq!((names(&diff.added), names(&diff.removed)), (vec!["c9"], vec!["c4"]));
    assert_eq!(diff.renamed, [("c0".parse().unwrap(), "new".parse().unwrap())]);
    let changed: Vec<_> =
        diff.changed.iter().map(|change| (change.name.as_str(), change.terms, change.places_removed.len())).collect();
    assert_eq!(changed, [("c1", false, 1), ("c2", true, 0), ("new", false, 1)]);
    assert!(before.diff(&before).is_empty() && diff.sections.is_empty());
}

#[test]
fn an_automatic_reload_may_let_go_of_three_or_a_tenth() {
    for (before, after, fine) in [(5, 2, true), (5, 1, false), (30, 27, true), (30, 26, false), (50, 45, true), (50, 44, false)] {
        let (old, new) = (parsed(&fleet(before)), parsed(&fleet(after)));
        assert_eq!(old.diff(&new).check_automatic().is_ok(), fine, "{before} {after}");
    }
}

#[test]
fn a_file_that_is_none_is_a_problem_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let latin = folder.path().join("latin.toml");
    std::fs::write(&latin, b"# fine\ndeployment = \"\xe4\"").unwrap();
    for (path, says) in
        [(folder.path().to_owned(), "is a directory"), (folder.path().join("none"), "No such file"), (latin, "line 2")]
    {
        let problems = load(&path, &System { now: Timestamp::UNIX_EPOCH }).unwrap_err();
        assert!(problems.to_string().contains(says), "{problems}");
    }
}

#[test]
fn the_real_machine_tells_files_from_what_is_none() {
    let system = System { now: Timestamp::UNIX_EPOCH };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "x").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(system.file(&file), FileFact::Readable { mode: 0o640 });
    for nothing in ["", "\n"] {
        std::fs::write(&file, nothing).unwrap();
        assert_eq!(system.file(&file), FileFact::Empty, "{nothing:?}");
    }
    assert_eq!(system.file(folder.path()), FileFact::Directory);
    assert_eq!(system.file(Path::new("/dev/null")), FileFact::Special);
    assert_eq!(system.file(&folder.path().join("none")), FileFact::Unreadable("No such file or directory".to_owned()));
}

#[test]
fn a_token_name_always_fits() {
    // `rotad/`, two names of 63, two more separators, and a UUID of 36.
    const { assert!("rotad/".len() + 63 + 1 + 63 + 1 + 36 <= 255) };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Damaged text gives a configuration or problems that lie within it, never a panic.
    #[test]
    fn damaged_text_never_panics(edits in proptest::collection::vec((any::<prop::sample::Index>(), 0_u8..4, any::<u8>()), 1..6)) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        for (index, how, byte) in edits {
            let at = index.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, b"\"'[]{}=.#\n,\\"[usize::from(byte) % 12]),
                2 => { bytes.remove(at); }
                _ => { let end = (at + usize::from(byte)).min(bytes.len()); bytes.drain(at..end); }
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(problems) = parse(&text, "rotad.toml", &Anywhere) {
            prop_assert!(!problems.is_empty() && problems.to_string().contains("rotad.toml"));
            for problem in problems.iter() {
                let position = problem.position.unwrap();
                let line = text.split('\n').nth(position.line - 1);
                prop_assert!(line.is_some_and(|line| position.column <= line.chars().count() + 1), "{problem}");
            }
        }
    }
}

#[test]
fn an_admin_rotation_is_a_credential_that_is_delivered_to_where_the_admin_token_is_read_from() {
    let text = |admin: &str| {
        format!(
            "deployment = \"prod\"\n[organization.main]\n{admin}\n[organization.main.admin_rotation]\naccount = \"rotad_admin\"\n\
             adopt = [\"5b0c1e0a-9c1d-4a51-8f0e-2f6d3a7b9c10\"]\n[sink.main.vault]\naddress = \"https://vault:8200\"\n\
             auth = {{ token = {{ env = \"VAULT\" }} }}\n[credential.etl]\naccount = \"etl_prod\"\n\
             deliver = [{{ sink = \"main\", path = \"etl\" }}]\n"
        )
    };
    let in_vault = parsed(&text("admin_token = { sink = \"main\", path = \"rotad/admin\", key = \"admin\" }"));
    let admin = &in_vault.credentials[&"admin-main".parse().unwrap()];
    assert!(admin.is_admin && !in_vault.credentials[&"etl".parse().unwrap()].is_admin);
    assert_eq!((admin.account.as_str(), admin.terms.verify, admin.adopt.len()), ("rotad_admin", Verify::Calls, 1));
    assert_eq!(AdminToken::Place(admin.deliveries[0].clone()), AdminToken::Place(Delivery { take_over: true, ..of(&in_vault) }));
    let in_a_file = parsed(&text("admin_token = { file = \"/var/lib/rotad/admin-token\" }"));
    let admin = &in_a_file.credentials[&"admin-main".parse().unwrap()];
    let Target::File(target) = &admin.deliveries[0].target else { panic!("{admin:?}") };
    assert_eq!((target.path.to_str().unwrap(), target.mode), ("/var/lib/rotad/admin-token", 0o600));
    assert!(in_a_file.sinks.contains_key(&admin.deliveries[0].sink), "the sink that it goes to is there");
}

/// The place that the organization's admin token is read from.
fn of(config: &Config) -> Delivery {
    match &config.organizations["main"].admin_token {
        AdminToken::Place(delivery) => delivery.clone(),
        other => panic!("{other:?}"),
    }
}
