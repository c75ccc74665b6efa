//! Several of the program itself on one journal: one does the work, the others stand by and take over.

use std::path::PathBuf;
use std::process::Command;

use rotad::journal::Database;
use rustix::process::Signal;
use serde_json::Value;

use crate::Server;
use crate::daemon::head;
use crate::openbao::Bao;
use crate::plain::{ACCOUNT, Answer, FAST, Plain, address_in, metric_in, try_exchange};
use crate::process::{Process, fingerprint};

/// The journal, the store that consumers read, and the API.
struct Scene {
    plain: Plain,
    bao: Bao,
    runtime: tokio::runtime::Handle,
}

/// One rotad of several, with a configuration, a socket and a log of its own.
struct Replica<'a> {
    scene: &'a Scene,
    name: &'static str,
    process: Option<Process>,
}

impl Scene {
    async fn new(server: &Server, database: &Database) -> Self {
        let (plain, bao) = (tokio::task::block_in_place(Plain::start), Bao::dev().await);
        std::fs::write(plain.path("vault-token"), &bao.root_token).unwrap();
        let vault = format!(
            "[sink.main.vault]\naddress = \"{}\"\nauth = {{ token = {{ file = \"{}\" }} }}",
            bao.address,
            plain.path("vault-token").display()
        );
        let credential = format!(
            "\n[credential.etl]\naccount = \"{ACCOUNT}\"\n{FAST}\ndeliver = [{{ sink = \"main\", path = \"etl\", key = \"token\" }}]\n"
        );
        let text = head(&plain, server, database).replace("[sink.disk.file]", &vault) + &credential;
        let text = text.replace("[journal]\n", "[journal]\nstandby = true\n");
        for name in ["a", "b", "c"] {
            let socket = format!("[server]\ncontrol = \"{}\"\n", plain.path(&format!("{name}.sock")).display());
            std::fs::write(plain.path(&format!("{name}.toml")), text.replace("[server]\n", &socket)).unwrap();
        }
        Self { plain, bao, runtime: tokio::runtime::Handle::current() }
    }

    fn replica(&self, name: &'static str) -> Replica<'_> {
        Replica { scene: self, name, process: None }
    }

    /// What a consumer reads.
    fn served(&self) -> Option<String> {
        let (_, body) = self.runtime.block_on(self.bao.call("GET", "secret/data/etl", None));
        body["data"]["data"]["token"].as_str().map(str::to_owned)
    }

    /// Waits until `met`; what a consumer reads meanwhile is never dead.
    fn until(&self, what: &str, mut met: impl FnMut() -> bool) {
        self.plain.until(what, || {
            if let Some(value) = self.served() {
                let revoked = self.plain.effects("revoke_token").contains(&fingerprint(&value));
                assert!(!revoked || self.served().as_ref() != Some(&value), "{what}: the place serves a revoked token");
            }
            met()
        });
    }

    /// Two rotations of whoever is at work, the first of which may have begun before.
    fn until_it_rotates(&self, what: &str) {
        let (issued, revoked) = (self.plain.issued() + 2, self.plain.revoked() + 2);
        self.until(what, || self.plain.issued() >= issued && self.plain.revoked() >= revoked);
    }
}

impl Replica<'_> {
    fn path(&self, extension: &str) -> PathBuf {
        self.scene.plain.path(&format!("{}.{extension}", self.name))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.scene.plain.command(arguments);
        command.env("ROTAD_CONFIG", self.path("toml"));
        command
    }

    fn ask(&self, arguments: &[&str]) -> Answer {
        Answer::of(&mut self.command(arguments))
    }

    fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let served = self.log().matches("address=").count();
        let mut command = self.command(&["run"]);
        self.process = Some(Process(command.stderr(log).stdout(std::process::Stdio::null()).spawn().unwrap()));
        self.scene.until("a start", || self.log().matches("address=").count() > served);
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Its answer; `None` while it listens nowhere, as between its two roles.
    fn http(&self, path: &str) -> Option<(u16, String)> {
        try_exchange(address_in(&self.log()), "GET", path, None, None).ok()
    }

    fn metric(&self, series: &str) -> Option<f64> {
        metric_in(&self.http("/metrics")?.1, series)
    }

    fn stands_by(&self) -> bool {
        self.metric("rotad_standby") == Some(1.0)
    }

    fn is_active(&self) -> bool {
        self.metric("rotad_standby") == Some(0.0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_several_works_and_another_takes_over_when_it_ends_or_is_killed() {
    let server = Server::shared().await;
    let database = server.database().await;
    let scene = Scene::new(&server, &database).await;
    tokio::task::block_in_place(|| {
        let (mut a, mut b, mut c) = (scene.replica("a"), scene.replica("b"), scene.replica("c"));
        a.start();
        scene.until("the first delivery", || scene.served().is_some());
        b.start();
        c.start();
        scene.until("that the others stand by", || b.stands_by() && c.stands_by());
        assert!(a.is_active());
        shows_who_does_the_work(&mut a, &b);

        // Asked to end: the journal is free at once.
        a.process().stop();
        scene.until("a take-over", || b.is_active() || c.is_active());
        scene.until_it_rotates("rotations after it");
        assert!(b.is_active() != c.is_active(), "one, and no other");
        assert!(scene.plain.issued() >= scene.plain.revoked());
        let (mut active, mut other) = if b.is_active() { (b, c) } else { (c, b) };
        assert!(other.stands_by());

        // Killed: the server sees its connection end.
        active.process().kill();
        scene.until("another take-over", || other.is_active());
        a.start();
        scene.until("that the first stands by now", || a.stands_by());
        scene.until_it_rotates("rotations after it");

        // All of them.
        other.process().kill();
        a.process().kill();
        a.start();
        scene.until("a start of one alone", || a.is_active());
        scene.until_it_rotates("rotations after it");
        // S5: what a kill left unknown is found, and revoked with the rest.
        scene.until("an end of what was left", || scene.plain.live().len() <= 2);
        a.process().stop();
    });
}

/// Health, metrics, page, JSON and commands of one that stands by, and those of the one that works.
fn shows_who_does_the_work(active: &mut Replica<'_>, standby: &Replica<'_>) {
    let holder = format!("rotad {} on ", active.process().0.id());
    assert_eq!(standby.http("/healthz").unwrap().0, 200);
    assert_eq!(standby.http("/readyz").unwrap(), (200, "ready to take over: another rotad does the work\n".to_owned()));
    assert!(standby.metric("rotad_scheduler_heartbeat_timestamp_seconds").is_some());
    assert!(standby.http("/").unwrap().1.contains(&holder), "{}", standby.http("/").unwrap().1);
    let summary: Value = serde_json::from_str(&standby.http("/api/v1/status").unwrap().1).unwrap();
    assert!(summary.to_string().contains(&holder), "{summary}");
    let status = standby.ask(&["status"]);
    assert!(status.code == 0 && status.err.is_empty(), "{status:?}");
    let words = status.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&format!("this rotad stands by: `{holder}")) && words.contains("etl"), "{status:?}");
    assert!(standby.ask(&["history", "etl"]).out.contains("issued"));
    assert_eq!(standby.ask(&["plan"]).code, 0);
    standby.ask(&["rotate", "etl"]).complains(1, &[&holder, "give the order there"]);
    assert_eq!(standby.ask(&["reload"]).code, 0);
    assert!(!active.ask(&["status"]).out.contains("stands by"));
    assert_eq!(active.ask(&["rotate", "etl"]).code, 0);
}

/// One that is stopped answers the server's kernel and says nothing: its session ends, and another takes over. Continued, it
/// finds that out before it does anything, and stands by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_stopped_is_taken_over_from_and_stands_by_once_it_goes_on() {
    let server = Server::shared().await;
    let database = server.database().await;
    let scene = Scene::new(&server, &database).await;
    tokio::task::block_in_place(|| {
        let (mut a, mut b) = (scene.replica("a"), scene.replica("b"));
        a.start();
        scene.until("the first delivery", || scene.served().is_some());
        b.start();
        scene.until("that the other stands by", || b.stands_by());
        scene.until_it_rotates("rotations before");
        a.process().signal(Signal::STOP);
        scene.until("the stop", || a.process().is_stopped());
        scene.until("a take-over", || b.is_active());
        scene.until_it_rotates("rotations after it");
        a.process().signal(Signal::CONT);
        scene.until("that the first stands by", || a.stands_by());
        assert!(a.log().contains("another rotad has taken the journal"), "{}", a.log());
        assert!(b.is_active());
        scene.until_it_rotates("rotations of the one that took over");
        scene.until("an end of what was left", || scene.plain.live().len() <= 2);
        let blocked = b.ask(&["status", "--json"]);
        assert!(!blocked.out.contains("second_installation"), "{blocked:?}");
        b.process().stop();
        scene.until("that the first has it again", || a.is_active());
        scene.until_it_rotates("rotations of the first");
        a.process().stop();
    });
}
