//! Accounts of the configuration, by the program itself beside a stand-in for the API: created where they are missing, set to
//! what is configured, told where they are only observed or can't be had, and never deleted.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

mod support {
    pub mod plain;
    pub mod process;
}

use serde_json::{Value, json};
use support::plain::{ACCOUNT, Plain, SLOW};

const JUMBO: &str = "read_write = { size = \"jumbo\", cooldown = \"5m\" }";
const FLOCK: &str = "read_scaling = { size = \"pulse\", flock_size = 2 }";

struct Scene {
    plain: Plain,
}

impl Scene {
    /// A credential of the account that is there, and `accounts` as they are written.
    fn new(accounts: &str) -> Self {
        let scene = Self { plain: Plain::start() };
        scene.configure(accounts, "");
        scene
    }

    fn configure(&self, accounts: &str, credentials: &str) {
        let plain = &self.plain;
        let control = format!("listen = \"127.0.0.1:0\"\ncontrol = \"{}\"", plain.path("control.sock").display());
        let head = plain.head().replace("listen = \"127.0.0.1:0\"", &control);
        plain.configure(&(head + &plain.credential("etl", SLOW) + credentials + "\n" + accounts));
    }

    /// A credential of an account of the configuration.
    fn credential_of(&self, account: &str) -> String {
        self.plain.credential(account, SLOW).replace(ACCOUNT, account)
    }

    fn ducklings(&self, account: &str) -> Value {
        self.plain.as_admin("GET", &format!("/v1/users/{account}/instances"), None)
    }

    fn set(&self, account: &str, size: &str) {
        let half = json!({ "instance_size": size, "cooldown_seconds": 60 });
        let scaling = json!({ "instance_size": size, "flock_size": 4, "cooldown_seconds": 60 });
        let body = json!({ "config": { "read_write": half, "read_scaling": scaling } });
        self.plain.as_admin("PUT", &format!("/v1/users/{account}/instances"), Some(&body));
    }

    fn is_there(&self, account: &str) -> bool {
        let admin = std::fs::read_to_string(self.plain.path("admin-token")).unwrap();
        self.plain.status_as(admin.trim(), &format!("/v1/users/{account}/instances")) == 200
    }

    /// How often the API carried an operation out.
    fn effects(&self, operation: &str) -> usize {
        self.plain.stand_in.records().iter().filter(|record| record["operation"] == operation).count()
    }

    fn in_state(&self, state: &str) -> Option<f64> {
        self.plain.metric(&format!("rotad_accounts{{state=\"{state}\"}}"))
    }

    fn until_in_state(&self, state: &str, count: f64) {
        self.until_started();
        self.plain.until(state, || self.in_state(state) == Some(count));
    }

    fn until_started(&self) {
        self.plain.until("the daemon", || self.plain.log().contains("address="));
    }

    /// What `rotad status` says, wherever its lines end.
    fn told(&self) -> String {
        self.plain.ask(&["status"]).out.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What `rotad status` and the page say, once both say `words`.
    fn until_told(&self, words: &str) {
        self.until_started();
        self.plain.until(words, || self.told().contains(words));
        let (_, page) = self.plain.http("/");
        let shown = words.replace('"', "&quot;");
        assert!(page.contains(&shown), "`{shown}` is not on the page:\n{page}");
    }

    fn fault(&self, operation: &str, requests: Option<u32>, misbehaviour: Value) {
        let mut fault = json!({ "operations": [operation], "misbehaviour": misbehaviour });
        if let Some(requests) = requests {
            fault["requests"] = requests.into();
        }
        self.plain.misbehave(&fault);
    }
}

#[test]
fn what_is_missing_is_created_and_set_and_its_credential_gets_a_token_without_a_person() {
    let scene = Scene::new("");
    let plain = &scene.plain;
    let accounts = format!("[account.tenant_1]\n{JUMBO}\n{FLOCK}\n[account.Tenant_2]\n");
    scene.configure(&accounts, &scene.credential_of("tenant_1"));
    let check = plain.ask(&["check", "--online"]);
    assert_eq!(check.code, 0, "{check:?}");
    assert!(check.out.contains("account `tenant_1`: differs: it is missing; a running rotad will change that"), "{check:?}");
    let mut rotad = plain.rotad();
    scene.until_in_state("as_configured", 2.0);
    plain.until("the first token", || plain.served("tenant_1").is_some());
    let jumbo = json!({ "instance_size": "jumbo", "cooldown_seconds": 300 });
    let pulse = json!({ "instance_size": "pulse", "flock_size": 2 });
    assert_eq!(scene.ducklings("tenant_1"), json!({ "read_write": jumbo, "read_scaling": pulse }));
    assert!(scene.is_there("tenant_2"), "{}", plain.log());
    assert_eq!((scene.effects("create_user"), scene.effects("set_instances")), (2, 1), "{}", plain.log());
    let history = plain.ask(&["history", "tenant_1", "--json"]);
    assert!(history.code == 0 && history.out.contains("issued") && !history.out.contains("blocked"), "{history:?}");
    assert_eq!(plain.metric("rotad_accounts_failing"), Some(0.0));
    assert!(plain.ask(&["check", "--online"]).out.contains("accounts of organization `main`: works: 2 are as configured"));
    // What the daemon would create again is not deleted by accident.
    plain.ask(&["account", "delete", "tenant_2", "--yes", "tenant_2"]).complains(2, &["section account.Tenant_2"]);
    // A reload changes the set, and a section that is gone leaves its account as it is.
    scene.configure(
        "[account.tenant_2]\nread_scaling = { size = \"standard\", flock_size = 9, cooldown = \"10m\" }\n[account.tenant_3]\n",
        "",
    );
    assert_eq!(plain.ask(&["reload"]).code, 0);
    plain.until("the third account", || scene.is_there("tenant_3"));
    plain.until("the flock", || scene.ducklings("tenant_2")["read_scaling"]["flock_size"] == 9);
    scene.until_in_state("as_configured", 2.0);
    // The half that the section leaves out stays as it was.
    assert_eq!(scene.ducklings("tenant_2")["read_write"], json!({ "instance_size": "standard", "cooldown_seconds": 60 }));
    assert!(scene.is_there("tenant_1") && scene.effects("delete_user") == 0);
    rotad.stop();
}

#[test]
fn a_change_by_somebody_else_is_undone_and_an_observed_account_is_told_and_left() {
    let scene = Scene::new(&format!("[account.tenant_1]\n{JUMBO}\n"));
    let plain = &scene.plain;
    let mut rotad = plain.rotad();
    scene.until_in_state("as_configured", 1.0);
    rotad.stop();
    scene.set("tenant_1", "mega");
    let check = plain.ask(&["check", "--online"]);
    assert!(check.code == 0 && check.out.contains("read/write mega, cooldown 60 s"), "{check:?}");
    scene.configure(&format!("[account.tenant_1]\n{JUMBO}\nmode = \"observe\"\n[account.tenant_2]\nmode = \"observe\"\n"), "");
    let mut rotad = plain.rotad();
    plain.until("the daemon", || plain.log().matches("address=").count() == 2);
    scene.until_told("account `tenant_1` of organization `main`: read/write mega, cooldown 60 s; read scaling mega, flock of 4, cooldown 60 s, and configured is read/write jumbo, cooldown 300 s");
    scene.until_told("account `tenant_2` of organization `main`: configured, and not there");
    assert_eq!((scene.in_state("differs"), scene.in_state("missing")), (Some(1.0), Some(1.0)));
    assert_eq!(scene.plain.status()["accounts_apart"][0]["state"], "differs");
    let (_, api) = plain.http("/api/v1/status");
    let api: Value = serde_json::from_str(&api).unwrap();
    assert_eq!(api["snapshot"]["accounts"]["apart"][1]["username"], "tenant_2", "{api}");
    assert_eq!(scene.ducklings("tenant_1")["read_write"]["instance_size"], "mega");
    assert!(!scene.is_there("tenant_2"));
    rotad.stop();
    // What was seen is told without a daemon, and by its own next start it is undone.
    assert!(plain.ask(&["status"]).out.contains("account `tenant_2`"));
    scene.configure(&format!("[account.tenant_1]\n{JUMBO}\n"), "");
    assert!(!plain.ask(&["status"]).out.contains("account `tenant_2`"));
    let mut rotad = plain.rotad();
    plain.until("the size", || scene.ducklings("tenant_1")["read_write"]["instance_size"] == "jumbo");
    // Read scaling is nobody's wish, so it stays as somebody set it.
    assert_eq!(scene.ducklings("tenant_1")["read_scaling"]["instance_size"], "mega");
    plain.until("the all-clear", || !plain.ask(&["status"]).out.contains("account `tenant_1`"));
    rotad.stop();
}

#[test]
fn a_creation_whose_answer_was_lost_is_looked_for_and_not_repeated() {
    let faults = [
        json!({ "reset": { "carry_out": true } }),
        json!({ "late": { "seconds": 4.0 } }),
        json!({ "status": { "status": 500, "carry_out": true } }),
        json!({ "truncate": {} }),
    ];
    for misbehaviour in faults {
        let scene = Scene::new("[account.tenant_1]\n");
        scene.fault("create_user", Some(1), misbehaviour.clone());
        let mut rotad = scene.plain.rotad();
        scene.until_in_state("as_configured", 1.0);
        let log = scene.plain.log();
        assert!(log.contains("whether the account was created is not known, it is looked for"), "{misbehaviour}: {log}");
        assert_eq!((scene.effects("create_user"), log.matches("the account is asked for").count()), (1, 1), "{log}");
        rotad.stop();
    }
}

#[test]
fn what_fails_for_a_while_is_done_when_it_works_again() {
    let busy = json!({ "status": { "status": 429, "retry_after": { "seconds": 2 } } });
    let broken = json!({ "status": { "status": 500 } });
    // An answer that has other Ducklings than were asked for: fields were dropped.
    let dropped = json!({
        "read_write": { "instance_size": "standard", "cooldown_seconds": 60 },
        "read_scaling": { "instance_size": "standard", "flock_size": 4, "cooldown_seconds": 60 },
    });
    let dropped = json!({ "body": { "status": 200, "content_type": "application/json", "text": dropped.to_string() } });
    let faults = [
        ("create_user", busy.clone()),
        ("set_instances", busy),
        ("get_instances", broken.clone()),
        ("list_users", broken.clone()),
        ("set_instances", broken),
        ("set_instances", dropped),
    ];
    for (operation, misbehaviour) in faults {
        let scene = Scene::new(&format!("[account.tenant_1]\n{JUMBO}\n"));
        scene.fault(operation, Some(2), misbehaviour.clone());
        let mut rotad = scene.plain.rotad();
        scene.until_in_state("as_configured", 1.0);
        let log = scene.plain.log();
        assert_eq!(scene.ducklings("tenant_1")["read_write"]["instance_size"], "jumbo", "{operation} {misbehaviour}: {log}");
        assert_eq!((scene.effects("create_user"), scene.effects("set_instances")), (1, 1), "{operation} {misbehaviour}: {log}");
        assert!(log.contains("can't be"), "{operation} {misbehaviour}: {log}");
        rotad.stop();
    }
}

#[test]
fn what_the_api_refuses_is_told_with_what_to_do_and_not_asked_for_again_and_again() {
    let body = |status: u16, code: &str, message: &str| {
        let text = json!({ "code": code, "message": message }).to_string();
        json!({ "body": { "status": status, "content_type": "application/json", "text": text } })
    };
    let plan = body(400, "BAD_REQUEST", "Invalid config for tier lite");
    let refused = [
        (
            "create_user",
            body(409, "CONFLICT", "username is taken"),
            "missing",
            "name_taken",
            "choose another one, or ask MotherDuck",
        ),
        (
            "create_user",
            body(403, "FORBIDDEN", "Unauthorized"),
            "missing",
            "forbidden",
            "give the admin token's user the role Admin",
        ),
        ("set_instances", plan, "differs", "rejected", "a plan may allow fewer sizes or Ducklings"),
    ];
    for (operation, misbehaviour, state, reason, remedy) in refused {
        let scene = Scene::new(&format!("[account.tenant_1]\n{JUMBO}\n"));
        scene.fault(operation, None, misbehaviour);
        let mut rotad = scene.plain.rotad();
        scene.until_started();
        scene.until_told(&format!("(`{reason}`)"));
        let status = scene.told();
        assert!(status.contains(remedy), "{status}");
        assert_eq!((scene.in_state(state), scene.plain.metric("rotad_accounts_failing")), (Some(1.0), Some(1.0)), "{status}");
        let log = scene.plain.log();
        assert_eq!(log.matches(" ERROR ").count(), 1, "it is told once: {log}");
        // 1 + 2 + 4 + 8 s: five tries in the first quarter of a minute.
        std::thread::sleep(std::time::Duration::from_secs(5));
        let tried = scene.plain.metric("rotad_provider_requests_total{operation=\"ducklings\",code=\"404\"}").unwrap_or(0.0)
            + scene.plain.metric("rotad_provider_requests_total{operation=\"ducklings\",code=\"200\"}").unwrap_or(0.0);
        assert!(tried <= 6.0, "{tried} looks");
        scene.plain.behave();
        scene.until_in_state("as_configured", 1.0);
        assert_eq!(scene.plain.metric("rotad_accounts_failing"), Some(0.0));
        rotad.stop();
    }
}

#[test]
fn a_wrong_admin_token_is_told_and_the_right_one_put_back_is_used_at_once() {
    let scene = Scene::new("[account.tenant_1]\n");
    let plain = &scene.plain;
    let admin = std::fs::read_to_string(plain.path("admin-token")).unwrap();
    std::fs::write(plain.path("admin-token"), "planted-wrong-admin-token").unwrap();
    let mut rotad = plain.rotad();
    scene.until_started();
    scene.until_told("create a new admin token at MotherDuck and put it in its place");
    assert!(!plain.log().contains("planted"), "{}", plain.log());
    std::fs::write(plain.path("admin-token"), admin).unwrap();
    scene.until_in_state("as_configured", 1.0);
    rotad.stop();
}

#[test]
fn nothing_is_created_in_another_organization_and_no_person_s_user_is_changed() {
    let mut scene = Scene::new(&format!("[account.tenant_1]\n{JUMBO}\n"));
    let mut rotad = scene.plain.rotad_delivering(&["etl"]);
    scene.until_in_state("as_configured", 1.0);
    rotad.stop();
    let created = scene.effects("create_user");
    scene.plain.become_another_organization();
    scene.configure(&format!("[account.tenant_1]\n{JUMBO}\n"), "");
    let mut rotad = scene.plain.rotad();
    scene.plain.until("the daemon", || scene.plain.log().matches("address=").count() == 2);
    scene
        .plain
        .until("the suspicion", || scene.plain.metric("rotad_revocations_frozen{reason=\"another_organization\"}") == Some(1.0));
    std::thread::sleep(std::time::Duration::from_secs(12));
    assert_eq!((scene.effects("create_user"), scene.in_state("unseen")), (created, Some(1.0)), "{}", scene.plain.log());
    rotad.stop();

    let scene = Scene::new("");
    let listed = scene.plain.as_admin("GET", "/v1/users", None);
    let person = listed["users"].as_array().unwrap().iter().find(|user| user["is_service_account"] == false).unwrap();
    let person = person["username"].as_str().unwrap();
    scene.configure(&format!("[account.{person}]\n{JUMBO}\n"), "");
    let check = scene.plain.ask(&["check", "--online"]);
    assert!(check.code == 1 && check.out.contains("FAILS: its name belongs to a person"), "{check:?}");
    let mut rotad = scene.plain.rotad();
    scene.until_told("the name belongs to a person");
    assert_eq!((scene.in_state("unfit"), scene.effects("set_instances")), (Some(1.0), 0));
    rotad.stop();
}
