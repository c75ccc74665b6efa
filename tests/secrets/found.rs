//! Through rotations and through answers that repeat what was sent: logs in both forms at every level, metrics, status,
//! the output of commands, the journal with its log, temporary files, the process table, and what is left of a crash.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::aws_proxy;
use crate::crash;
use crate::process::Process;
use crate::surroundings::Surroundings;
use crate::vault_gate::Fault;

/// How long anything may take on a busy machine before the test gives up.
const PATIENCE: Duration = Duration::from_secs(90);

/// What goes wrong at once: a call to Vault, one to AWS, and after these one to MotherDuck.
struct Round {
    vault: (&'static str, &'static str, Fault),
    aws: (&'static str, aws_proxy::Fault),
    api: (&'static str, Fault),
}

fn rounds() -> Vec<Round> {
    use aws_proxy::Fault::{Echo as AwsEcho, Mangle as AwsMangle};
    vec![
        Round {
            vault: ("POST", "secret/data", Fault::Echo(500)),
            aws: ("PutSecretValue", AwsEcho("ValidationException")),
            api: ("POST", Fault::Echo(500)),
        },
        Round { vault: ("GET", "secret/data", Fault::Mangle), aws: ("GetSecretValue", AwsMangle), api: ("POST", Fault::Mangle) },
        Round {
            vault: ("GET", "secret/data", Fault::Echo(403)),
            aws: ("DescribeSecret", AwsEcho("InvalidRequestException")),
            api: ("GET", Fault::Echo(400)),
        },
        Round {
            vault: ("PATCH", "secret/metadata", Fault::Echo(400)),
            aws: ("UpdateSecretVersionStage", AwsEcho("AccessDeniedException")),
            api: ("DELETE", Fault::Echo(500)),
        },
        Round {
            vault: ("POST", "secret/data", Fault::Echo(404)),
            aws: ("GetSecretValue", AwsEcho("NeverHeardOfException")),
            api: ("POST", Fault::Echo(400)),
        },
        Round {
            vault: ("GET", "secret/data", Fault::Echo(500)),
            aws: ("PutSecretValue", AwsEcho("LimitExceededException")),
            api: ("GET", Fault::Mangle),
        },
    ]
}

/// What the journal, the configuration and the running daemon tell.
const OFFLINE: [&str; 12] = [
    "status",
    "status --json",
    "status one",
    "status one --json",
    "history --all",
    "history --all --json",
    "plan",
    "plan --for 1h --json",
    "support",
    "check",
    "config example",
    "--help",
];
/// What asks MotherDuck and the places.
const ONLINE: [&str; 6] =
    ["check --online", "check --online --json", "import", "import --json", "account list", "account show etl_test"];

/// All that was seen of the daemon, for the search at the end: by then every secret is known.
#[derive(Default)]
struct Left(Vec<(String, Vec<u8>)>);

impl Left {
    fn add(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((name.into(), bytes.into()));
    }

    /// Every file below a directory.
    fn add_files(&mut self, directory: &Path) {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.add_files(&path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                self.add(path.display().to_string(), bytes);
            }
        }
    }

    fn add_commands(&mut self, here: &Surroundings, lines: &[&str]) {
        for line in lines {
            let arguments: Vec<&str> = line.split(' ').collect();
            let output = here.command(&here.rotad(), &arguments).output().unwrap();
            self.add(format!("the output of `rotad {line}`"), [output.stdout, output.stderr].concat());
        }
    }

    async fn add_pages(&mut self, address: &str) {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        for path in ["/metrics", "/api/v1/status", "/healthz", "/readyz", "/"] {
            let answer = http.get(format!("http://{address}{path}")).send().await.unwrap();
            self.add(format!("`{path}`"), answer.bytes().await.unwrap());
        }
    }

    /// What the system shows of the process to everybody, and that it started nothing and left no file lying about.
    fn add_process(&mut self, here: &Surroundings, daemon: &Process) {
        let pid = daemon.0.id();
        self.add("the command line", std::fs::read(format!("/proc/{pid}/cmdline")).unwrap());
        assert_eq!(crash::children(pid), Vec::<u32>::new(), "rotad starts no other program");
        for directory in ["tmp", "cwd"] {
            let files: Vec<PathBuf> =
                std::fs::read_dir(here.plain.path(directory)).unwrap().map(|file| file.unwrap().path()).collect();
            assert!(files.is_empty(), "temporary files: {files:?}");
        }
        self.add_files(&here.plain.path("journal"));
    }
}

/// Waits until `met`, or fails with the end of the log.
async fn until(what: &str, here: &Surroundings, log: &str, mut met: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 50 {
        if met() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let text = std::fs::read_to_string(here.plain.path(log)).unwrap_or_default();
    let end: Vec<&str> = text.lines().rev().take(20).collect();
    panic!("{what} did not come; the end of the log, last line first:\n{}", end.join("\n"));
}

/// Both credentials have got another token.
async fn rotates(here: &Surroundings, log: &str) {
    let served = || ["one", "two"].map(|name| here.plain.served(name));
    let before = served();
    until("another token at both", here, log, || {
        served().iter().zip(&before).all(|(now, before)| now.is_some() && now != before)
    })
    .await;
}

/// Where the daemon says that it serves its metrics, in either form of the log.
fn address(log: &str) -> String {
    let line = log.lines().find(|line| line.contains("metrics and health are served")).expect("it says where it listens");
    let rest = &line[line.find("127.0.0.1:").unwrap()..];
    rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect()
}

/// One call to each store meets its fault, then one to the API.
async fn misbehave(here: &Surroundings, round: Round, log: &str, left: &mut Left) {
    let count = |gate: &crate::vault_gate::Gate, path: &str, method: &str| {
        gate.seen(path).iter().filter(|seen| seen.method.as_str() == method).count()
    };
    let (method, path, fault) = round.vault;
    here.aws.take_calls();
    here.aws.on(round.aws.0, 2, round.aws.1);
    let before = count(&here.vault, path, method);
    here.vault.misbehave(method, path, fault);
    let mut aws = 0;
    until(&format!("{method} {path} and {}", round.aws.0), here, log, || {
        aws += here.aws.take_actions().iter().filter(|action| *action == round.aws.0).count();
        aws >= 1 && count(&here.vault, path, method) > before
    })
    .await;
    left.add_commands(here, &OFFLINE);
    here.vault.behave();
    here.aws.heal();
    let (method, fault) = round.api;
    let before = count(&here.api, "users", method);
    here.api.misbehave(method, "users", fault);
    until(&format!("{method} of a token"), here, log, || count(&here.api, "users", method) > before + 1).await;
    left.add_commands(here, &ONLINE);
    here.api.behave();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_found_in_anything_that_a_daemon_left() {
    let here = Surroundings::start().await;
    let mut left = Left::default();
    let mut rounds = rounds();
    let later = rounds.split_off(rounds.len() / 2);
    for (format, rounds) in [("json", rounds), ("text", later)] {
        let log = format!("{format}.log");
        // Both ways to log in to Vault are refused at first.
        here.vault.misbehave("POST", "auth/approle/login", Fault::Echo(400));
        here.vault.misbehave("GET", "auth/token/lookup-self", Fault::Echo(500));
        let logins = here.vault.count("auth/approle/login");
        let mut daemon = here.daemon(&log, format);
        until("a login", &here, &log, || here.vault.count("auth/approle/login") > logins).await;
        left.add_process(&here, &daemon);
        here.vault.behave();
        rotates(&here, &log).await;
        for round in rounds {
            misbehave(&here, round, &log, &mut left).await;
            left.add_process(&here, &daemon);
            rotates(&here, &log).await;
        }
        let text = std::fs::read_to_string(here.plain.path(&log)).unwrap();
        left.add_pages(&address(&text)).await;
        assert!(text.contains("asked MotherDuck"), "the log is not at its finest level");
        for what in ["write_refused", "read_failed", "promoted", "revoked"] {
            assert!(text.contains(what), "`{what}` did not come: the faults were not met");
        }
        let ended = crash::abort(&mut daemon);
        assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), false));
    }
    left.add_files(&here.plain.path(""));
    searched(&here, &left);
}

/// What holds secrets by its purpose: where ours are read from, and where tokens go.
fn is_their_place(here: &Surroundings, name: &str) -> bool {
    let path = Path::new(name);
    let sources = ["admin-token", "vault-token", "secret-id", "sinks/one", "sinks/two"].map(|name| here.plain.path(name));
    sources.iter().any(|source| source == path)
}

fn searched(here: &Surroundings, left: &Left) {
    let secrets = here.secrets();
    let mut places = 0;
    for (name, bytes) in &left.0 {
        let found = secrets.find(bytes);
        if is_their_place(here, name) {
            places += 1;
            assert!(found.is_some(), "what is searched for is not what `{name}` holds");
        } else {
            assert_eq!(found, None, "a secret stands in {name}");
        }
    }
    assert_eq!(places, 5, "not everything was searched");
    for name in ["json.log", "text.log", "journal/journal.db", "journal/journal.db-wal"] {
        let path = here.plain.path(name).display().to_string();
        assert!(left.0.iter().any(|(found, bytes)| *found == path && !bytes.is_empty()), "`{name}` was not searched");
    }
}
