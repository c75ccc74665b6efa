//! The admin token rotates like any credential: proven by the calls that rotad needs, delivered to where it is read
//! from, used for a whole sweep, and only then is the one before revoked, with the new one. Whatever fails on the way,
//! the place holds a token that works.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

mod support {
    pub mod openbao;
    pub mod plain;
    pub mod process;
}

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::openbao::Bao;
use support::plain::{ACCOUNT, Plain, SLOW};
use support::process::{Process, fingerprint};

const PATIENCE: Duration = Duration::from_secs(180);
const PACE: &str = "ttl = \"10m\"\nevery = \"20s\"\ngrace = \"2s\"";

/// rotad beside a stand-in, its control socket open, in a directory on a disk.
struct Scene {
    plain: Plain,
}

impl Scene {
    /// `admin` is the organization's `admin_token`, `rotation` what `admin_rotation` says, `more` further sections.
    fn configure(&self, admin: Option<&str>, rotation: &str, more: &str) {
        let plain = &self.plain;
        let control = format!("listen = \"127.0.0.1:0\"\ncontrol = \"{}\"", plain.path("control.sock").display());
        let mut head = plain.head().replace("listen = \"127.0.0.1:0\"", &control);
        if let Some(admin) = admin {
            let line = head.lines().find(|line| line.starts_with("admin_token")).unwrap().to_owned();
            head = head.replace(&line, admin);
        }
        let rotation = format!("[organization.main.admin_rotation]\n{rotation}\n\n[journal]");
        plain.configure(&(head.replace("[journal]", &rotation) + &plain.credential("etl", SLOW) + more));
    }

    /// The id of the one token that the admin has at first.
    fn first_id(plain: &Plain) -> String {
        let listed = plain.as_admin("GET", "/v1/users/admin/tokens", None);
        assert_eq!(listed["tokens"].as_array().unwrap().len(), 1, "{listed}");
        listed["tokens"][0]["id"].as_str().unwrap().to_owned()
    }

    fn in_file(&self) -> String {
        std::fs::read_to_string(self.plain.path("admin-token")).unwrap().trim().to_owned()
    }

    /// Whether the API lets the bearer list another account: what an admin may.
    fn works(&self, value: &str) -> bool {
        self.plain.status_as(value, &format!("/v1/users/{ACCOUNT}/tokens")) == 200
    }

    /// What is in the place works, or was replaced while it was looked at.
    fn place_works(&self, place: impl Fn() -> String) {
        let value = place();
        assert!(self.works(&value) || place() != value, "the place holds a token that does not work\n{}", self.plain.log());
    }

    /// Looks again and again, and has everything swept, until `met`; all the while the place's token works.
    fn watch(&self, what: &str, place: impl Fn() -> String, mut met: impl FnMut() -> bool) {
        let began = Instant::now();
        let mut swept = Instant::now();
        loop {
            self.place_works(&place);
            if met() {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{what} did not come\n{}", self.plain.log());
            if swept.elapsed() > Duration::from_secs(1) {
                self.plain.ask(&["sweep", "etl"]);
                self.plain.ask(&["sweep", "other"]);
                swept = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn revoked(&self, value: &str) -> bool {
        self.plain.effects("revoke_token").contains(&fingerprint(value))
    }

    fn is_blocked(&self, name: &str, reason: &str) -> bool {
        self.plain.path("journal/journal.db").exists() && self.plain.line(name)["blocked"] == reason
    }

    fn events(&self, what: &str) -> usize {
        let history = self.plain.ask(&["history", "admin-main", "--all", "--json"]);
        history.out.lines().filter(|line| line.contains(&format!("\"what\":\"{what}\""))).count()
    }
}

#[test]
fn it_is_replaced_in_its_file_used_for_a_sweep_and_the_one_before_revoked() {
    let plain = Plain::start_on_disk();
    let (first, id) = (std::fs::read_to_string(plain.path("admin-token")).unwrap(), Scene::first_id(&plain));
    let scene = Scene { plain };
    scene.configure(None, &format!("account = \"admin\"\n{PACE}\nadopt = [\"{id}\"]"), "");
    let mut rotad: Process = scene.plain.rotad();
    scene.watch("the first token's end", || scene.in_file(), || scene.revoked(&first));
    assert!(!scene.works(first.trim()));
    let second = scene.in_file();
    scene.watch("the end of the second one", || scene.in_file(), || scene.revoked(&second));
    // In this order, for each: issued, proven, confirmed in its place, used, and the one before revoked.
    let history = scene.plain.ask(&["history", "admin-main", "--all", "--json"]).out;
    let steps: Vec<String> =
        history.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["what"].to_string()).collect();
    let at =
        |what: &str| steps.iter().position(|step| step.trim_matches('"') == what).unwrap_or_else(|| panic!("{what}: {steps:?}"));
    let order = ["adoption_taken", "issued", "verified", "confirmed", "in_use", "revocation_intended"].map(at);
    assert!(order.is_sorted(), "{steps:?}");
    // What is rotated with it goes on.
    assert!(scene.plain.serves_live("etl"));
    let status = scene.plain.line("admin-main");
    assert!(status["blocked"].is_null(), "{status}");
    rotad.stop();
    holds_no_value(&scene, &[&first, &second]);
}

fn holds_no_value(scene: &Scene, values: &[&str]) {
    let log = scene.plain.log();
    let journal = std::fs::read(scene.plain.path("journal/journal.db")).unwrap();
    for value in values {
        assert!(
            !log.contains(value.trim()) && !journal.windows(value.trim().len()).any(|window| window == value.trim().as_bytes())
        );
    }
}

#[test]
fn a_token_that_may_not_do_what_rotad_needs_is_never_delivered() {
    // A Member's: it may see its own tokens, and nobody else's.
    let plain = Plain::start_on_disk();
    plain.as_admin("POST", "/v1/users", Some(&json!({ "username": "other_account" })));
    let other = plain.credential("other", SLOW).replace(ACCOUNT, "other_account");
    let scene = Scene { plain };
    scene.configure(None, &format!("account = \"{ACCOUNT}\"\n{PACE}"), &other);
    let first = scene.in_file();
    let _rotad = scene.plain.rotad();
    scene.watch("the block", || scene.in_file(), || scene.is_blocked("admin-main", "unfit_token"));
    assert_eq!(scene.in_file(), first, "what works stays");
    assert!(scene.events("unfit") >= 2 && scene.events("attempted") == 0, "{}", scene.plain.log());
    assert!(scene.plain.serves_live("etl"));
}

#[test]
fn killed_at_each_step_it_leaves_a_token_that_works_and_goes_on() {
    let plain = Plain::start_on_disk();
    let (first, id) = (std::fs::read_to_string(plain.path("admin-token")).unwrap(), Scene::first_id(&plain));
    let scene = Scene { plain };
    scene.configure(None, &format!("account = \"admin\"\n{PACE}\nadopt = [\"{id}\"]"), "");
    for point in [
        "BeforeIssue",
        "AfterIssue",
        "BeforeVerify",
        "AfterVerify",
        "BeforeWrite",
        "FileClaimed",
        "FilePrepared",
        "FileMarked",
        "FileLanded",
        "AfterWrite",
        "BeforeRevoke",
        "AfterRevoke",
    ] {
        let mut rotad = scene.plain.rotad_failing_at(&format!("{point}:1:kill"));
        scene.watch(point, || scene.in_file(), || rotad.ended().is_some());
    }
    let mut rotad = scene.plain.rotad();
    scene.watch("the first token's end", || scene.in_file(), || scene.revoked(&first));
    let now = scene.in_file();
    scene.watch("a further rotation", || scene.in_file(), || scene.in_file() != now);
    rotad.stop();
}

#[test]
fn while_another_credential_is_blocked_it_is_neither_replaced_nor_revoked() {
    let plain = Plain::start_on_disk();
    let (first, id) = (std::fs::read_to_string(plain.path("admin-token")).unwrap(), Scene::first_id(&plain));
    let scene = Scene { plain };
    // A value of somebody else stands in the way of `etl`.
    scene.plain.put("etl", "somebody else's");
    scene.configure(None, &format!("account = \"admin\"\n{PACE}\nadopt = [\"{id}\"]"), "");
    let mut rotad = scene.plain.rotad();
    scene.watch("the block", || scene.in_file(), || scene.is_blocked("etl", "take_over_needed"));
    let swept = Instant::now();
    scene.watch("time", || scene.in_file(), || swept.elapsed() > Duration::from_secs(8));
    assert_eq!((scene.in_file(), scene.revoked(&first)), (first.trim().to_owned(), false), "{}", scene.plain.log());
    std::fs::remove_file(scene.plain.path("sinks/etl")).unwrap();
    scene.watch("the first token's end", || scene.in_file(), || scene.revoked(&first));
    rotad.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_vault_it_is_read_from_there_rotated_there_and_a_person_s_change_is_noticed_without_a_restart() {
    let bao = Bao::full(None).await;
    let plain = Plain::start_on_disk();
    let (first, id) = (std::fs::read_to_string(plain.path("admin-token")).unwrap(), Scene::first_id(&plain));
    std::fs::write(plain.path("vault-token"), &bao.root_token).unwrap();
    bao.ok("POST", "secret/data/rotad/admin", json!({ "data": { "admin": first.trim(), "note": "kept" } })).await;
    let vault = format!(
        "\n[sink.main.vault]\naddress = \"{}\"\nauth = {{ token = {{ file = \"{}\" }} }}\n",
        bao.address,
        plain.path("vault-token").display()
    );
    let scene = Scene { plain };
    let admin = "admin_token = { sink = \"main\", path = \"rotad/admin\", key = \"admin\" }";
    scene.configure(Some(admin), &format!("account = \"admin\"\n{PACE}\nadopt = [\"{id}\"]"), &vault);
    let runtime = tokio::runtime::Handle::current();
    let held = || {
        let read = bao.ok("GET", "secret/data/rotad/admin", Value::Null);
        runtime.block_on(read)["data"]["data"].clone()
    };
    let place = || held()["admin"].as_str().unwrap().to_owned();
    tokio::task::block_in_place(|| {
        let mut rotad = scene.plain.rotad();
        scene.watch("the first token's end", place, || scene.revoked(&first));
        assert_eq!(held()["note"], "kept");
        rotad.stop();
        // A person revokes what is there and puts another one: the next call is made with that.
        let person = scene.plain.as_bearer(&place(), "POST", "/v1/users/admin/tokens", Some(&json!({ "name": "by hand" })));
        let by_hand = person["token"].as_str().unwrap().to_owned();
        // The token of today is far from its deadline, so that rotad does not replace it just then.
        scene.configure(Some(admin), "account = \"admin\"\nttl = \"10m\"\nevery = \"8m\"\ngrace = \"2s\"", &vault);
        let mut rotad = scene.plain.rotad_delivering(&["etl"]);
        let put = json!({ "data": { "admin": by_hand, "note": "kept" } });
        runtime.block_on(bao.ok("POST", "secret/data/rotad/admin", put));
        for token in scene.plain.as_bearer(&by_hand, "GET", "/v1/users/admin/tokens", None)["tokens"].as_array().unwrap() {
            if token["id"] != person["id"] {
                let path = format!("/v1/users/admin/tokens/{}", token["id"].as_str().unwrap());
                scene.plain.as_bearer(&by_hand, "DELETE", &path, None);
            }
        }
        let issued = scene.plain.issued();
        assert_eq!(scene.plain.ask(&["rotate", "etl"]).code, 0);
        scene.watch("a rotation with the person's token", place, || scene.plain.issued() > issued);
        rotad.stop();
    });
}
