//! Fleets, by the program itself beside a stand-in for the API: accounts come and get tokens, go and are let go, and too
//! many at once are not. A restart needs no API to know its members, and a lost journal is found again.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

mod support {
    pub mod plain;
    pub mod process;
}

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::plain::{Answer, Plain, SLOW};

/// Two lists that lack an account must be a minute apart.
const GONE_AFTER: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(180);

struct Scene {
    plain: Plain,
}

impl Scene {
    /// Tenants 1 to `tenants`, and the fleet that is to cover them, with `more` in its section.
    fn new(tenants: usize) -> Self {
        let scene = Self { plain: Plain::start() };
        (1..=tenants).for_each(|number| scene.create(number));
        let plain = &scene.plain;
        let control = format!("listen = \"127.0.0.1:0\"\ncontrol = \"{}\"", plain.path("control.sock").display());
        let head = plain.head().replace("listen = \"127.0.0.1:0\"", &control);
        let place = plain.path("sinks").join("{account}");
        plain.configure(&format!(
            "{head}\n[fleet.tenants]\naccounts = \"tenant_*\"\nlabels = {{ team = \"customers\" }}\n{SLOW}\ndeliver = [{{ sink = \"disk\", path = \"{}\" }}]\n",
            place.display()
        ));
        scene
    }

    /// Leaves these alone from now on.
    fn except(&self, pattern: &str) {
        let text = std::fs::read_to_string(self.plain.path("rotad.toml")).unwrap();
        let accounts = "accounts = \"tenant_*\"";
        self.plain.configure(&text.replace(accounts, &format!("{accounts}\nexcept = [\"{pattern}\"]")));
    }

    fn create(&self, number: usize) {
        self.plain.as_admin("POST", "/v1/users", Some(&json!({ "username": format!("tenant_{number}") })));
    }

    fn delete(&self, number: usize) {
        self.plain.as_admin("DELETE", &format!("/v1/users/tenant_{number}"), None);
    }

    fn served(&self, number: usize) -> Option<String> {
        self.plain.served(&format!("tenant_{number}"))
    }

    fn until_served(&self, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            self.plain.until(&format!("the token of tenant_{number}"), || self.served(number).is_some());
        }
    }

    fn line(&self, number: usize) -> Value {
        self.plain.line(&format!("tenants-tenant_{number}"))
    }

    fn sweep(&self, more: &[&str]) -> Answer {
        self.plain.ask(&[&["sweep", "--fleet", "tenants"], more].concat())
    }

    /// Has the accounts listed until the answer holds `words`; gives it.
    fn sweep_until(&self, words: &str) -> Answer {
        let began = Instant::now();
        loop {
            let answer = self.sweep(&[]);
            if answer.out.contains(words) || answer.err.contains(words) {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "`{words}` did not come: {answer:?}\n{}", self.plain.log());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn metric(&self, name: &str) -> Option<f64> {
        self.plain.metric(&format!("rotad_fleet_{name}{{fleet=\"tenants\"}}"))
    }
}

/// The first admin token that a journal knows was never let in: nothing that it saw can prove the next one.
#[test]
fn a_first_admin_token_that_was_mistyped_leaves_no_trace() {
    let scene = Scene::new(1);
    let plain = &scene.plain;
    let admin = std::fs::read_to_string(plain.path("admin-token")).unwrap();
    std::fs::write(plain.path("admin-token"), "planted-wrong-admin-token").unwrap();
    let mut rotad = plain.rotad();
    plain.until("the refusal", || plain.log().contains("the users can't be listed"));
    std::fs::write(plain.path("admin-token"), admin).unwrap();
    scene.until_served([1]);
    scene.create(2);
    plain.until("a list that is heeded", || scene.sweep(&[]).code == 0);
    scene.until_served([2]);
    rotad.stop();
}

#[test]
fn accounts_come_and_get_tokens_and_one_that_is_gone_is_let_go() {
    let scene = Scene::new(4);
    let plain = &scene.plain;
    // Before anything ran: what the pattern matches is asked for.
    let plan = plain.ask(&["plan"]);
    assert!(plan.out.starts_with("fleet tenants: `tenant_*` in `main`: 0 accounts, 4 new\n  + tenant_1"), "{plan:?}");
    assert!(plan.out.contains("\ntenants-tenant_4\n") && plan.out.contains("a first token is issued"), "{plan:?}");
    assert!(!plan.out.contains("etl_test"), "{plan:?}");
    let mut rotad = plain.rotad();
    scene.until_served(1..=4);
    assert_eq!(scene.line(3)["let_go"], false);
    // One comes.
    scene.create(5);
    assert!(scene.sweep(&[]).out.contains("+ tenant_5"), "{}", plain.log());
    scene.until_served([5]);
    // Members are commanded as others are: by pattern, label and account.
    for which in [["tenants-*", "--json"], ["--label=team=customers", "--json"], ["--account=tenant_2", "--json"]] {
        let taken = plain.ask(&[&["sweep"], &which[..]].concat());
        assert_eq!(taken.code, 0, "{taken:?}");
        assert_eq!(taken.out.matches("tenants-tenant_").count(), if which[0].contains("account") { 1 } else { 5 }, "{taken:?}");
    }
    let rotated = plain.ask(&["rotate", "tenants-tenant_1", "--revoke-now", "--yes", "--wait"]);
    assert_eq!(rotated.code, 0, "{rotated:?}");
    // One goes: not with the first list, and its place keeps what it holds.
    let value = scene.served(2).unwrap();
    scene.delete(2);
    let missed = Instant::now();
    let answer = scene.sweep(&[]);
    assert!(answer.out.contains("`tenants` covers 5 accounts") && answer.out.contains("? tenant_2"), "{answer:?}");
    assert!(plain.ask(&["plan"]).out.contains("- tenant_2: not on MotherDuck's list"));
    scene.sweep_until("- tenant_2: let go");
    assert!(missed.elapsed() >= GONE_AFTER, "after {:?}", missed.elapsed());
    assert_eq!(scene.metric("accounts"), Some(4.0));
    assert_eq!(scene.line(2)["let_go"], true);
    assert_eq!(scene.served(2), Some(value));
    let refused = plain.ask(&["rotate", "tenants-tenant_2"]);
    assert!(refused.code != 0 && refused.err.contains("tenants-tenant_2"), "{refused:?}");
    // With the journal lost, the list and the markers tell who there is and what is served: nothing is issued.
    rotad.stop();
    let issued = plain.effects("create_token").len();
    std::fs::remove_dir_all(plain.path("journal")).unwrap();
    std::fs::create_dir(plain.path("journal")).unwrap();
    let mut rotad = plain.rotad();
    let is_served = |number: usize| scene.line(number)["deliveries"][0]["is_current"] == true;
    plain.until("the daemon", || plain.log().matches("address=").count() == 2);
    plain.until("the members of before", || [1, 3, 4, 5].into_iter().all(is_served));
    assert_eq!(plain.effects("create_token").len(), issued, "{}", plain.log());
    rotad.stop();
}

#[test]
fn too_many_at_once_are_not_let_go_until_a_person_says_so_and_a_restart_needs_no_api() {
    let mut scene = Scene::new(8);
    let mut rotad = scene.plain.rotad();
    scene.until_served(1..=8);
    (1..=5).for_each(|number| scene.delete(number));
    let answer = scene.sweep_until("none is let go");
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.err.contains("5 of 8 accounts") && answer.err.contains("3 may go at once"), "{answer:?}");
    // It is told wherever a person looks.
    let log = scene.plain.log();
    assert!(log.contains("too many accounts are gone at once") && log.contains("--allow-gone"), "{log}");
    assert_eq!((scene.metric("letting_go_refused"), scene.metric("accounts")), (Some(1.0), Some(8.0)));
    assert_eq!(scene.metric("accounts_missing"), Some(5.0));
    let status = scene.plain.ask(&["status"]).out;
    assert!(status.contains("`rotad sweep --fleet tenants --allow-gone` if they were deleted"), "{status}");
    assert_eq!(scene.plain.status()["fleets"][0]["missing"], 5);
    let (_, page) = scene.plain.http("/");
    assert!(page.contains("5 of the 8 accounts of the fleet"), "{page}");
    // The members and the refusal outlive a restart, with the API or without.
    rotad.stop();
    let mut rotad = scene.plain.rotad();
    scene.plain.until("the daemon", || scene.plain.log().matches("address=").count() == 2);
    assert_eq!((scene.metric("letting_go_refused"), scene.metric("accounts")), (Some(1.0), Some(8.0)));
    let allowed = scene.sweep(&["--allow-gone"]);
    assert_eq!(allowed.code, 0, "{allowed:?}");
    assert_eq!(allowed.out.matches("let go").count(), 5, "{allowed:?}");
    assert_eq!((scene.metric("letting_go_refused"), scene.metric("accounts")), (Some(0.0), Some(3.0)));
    rotad.stop();
    scene.plain.stop_api();
    let mut rotad = scene.plain.rotad();
    scene.plain.until("the daemon", || scene.plain.log().matches("address=").count() == 3);
    assert_eq!(scene.metric("accounts"), Some(3.0));
    let expiry = |number: usize| format!("rotad_token_expiry_timestamp_seconds{{credential=\"tenants-tenant_{number}\"}}");
    assert!((6..=8).all(|number| scene.plain.metric(&expiry(number)).is_some()));
    assert!((1..=5).all(|number| scene.plain.metric(&expiry(number)).is_none()));
    let answer = scene.sweep(&["--allow-gone"]);
    assert!(answer.code == 1 && answer.err.contains("nothing was changed"), "{answer:?}");
    assert_eq!(scene.metric("accounts"), Some(3.0));
    let plan = scene.plain.ask(&["plan"]);
    assert!(plan.out.contains("only those that the journal knows are shown"), "{plan:?}");
    rotad.stop();
}

#[test]
fn an_excepted_account_gets_no_token_and_one_that_becomes_so_is_let_go() {
    let scene = Scene::new(12);
    scene.except("tenant_1?");
    let mut rotad = scene.plain.rotad();
    scene.until_served(1..=9);
    assert_eq!(scene.metric("accounts"), Some(9.0));
    assert!((10..=12).all(|number| scene.served(number).is_none()));
    assert!(scene.plain.ask(&["plan"]).out.contains("9 accounts, 0 new"));
    let text = std::fs::read_to_string(scene.plain.path("rotad.toml")).unwrap();
    scene.plain.configure(&text.replace("tenant_1?", "tenant_9"));
    assert_eq!(scene.plain.ask(&["reload"]).code, 0);
    scene.until_served(10..=12);
    assert_eq!((scene.metric("accounts"), scene.line(9)["let_go"].clone()), (Some(11.0), Value::Bool(true)));
    assert!(scene.served(9).is_some(), "its place keeps what it holds");
    rotad.stop();
}

#[test]
fn a_list_that_fails_changes_nothing() {
    let scene = Scene::new(2);
    let mut rotad = scene.plain.rotad();
    scene.until_served(1..=2);
    scene.create(3);
    let user = json!({ "id": "u1", "username": "tenant_3", "is_service_account": true, "is_deprovisioned": false });
    let list = |users: &[&Value], total: usize| {
        let text = json!({ "users": users, "total_count": total, "next_page_token": null }).to_string();
        json!({ "body": { "status": 200, "content_type": "application/json", "text": text } })
    };
    let refused = json!({ "status": { "status": 403 } });
    for (misbehaviour, why) in [(refused, "403"), (list(&[&user], 4), "4"), (list(&[], 0), "nobody is on it")] {
        scene.plain.misbehave(&json!({ "operations": ["list_users"], "misbehaviour": misbehaviour }));
        let answer = scene.sweep(&[]);
        assert!(answer.code == 1 && answer.err.contains("nothing was changed") && answer.err.contains(why), "{answer:?}");
        assert_eq!((scene.metric("accounts"), scene.metric("accounts_missing")), (Some(2.0), Some(0.0)), "{why}");
        scene.plain.behave();
    }
    assert!(scene.served(3).is_none());
    assert!(scene.sweep(&[]).out.contains("+ tenant_3"));
    scene.until_served([3]);
    let unknown = scene.plain.ask(&["sweep", "--fleet", "tenant"]);
    assert!(unknown.code == 2 && unknown.err.contains("no fleet of the running configuration is named `tenant`"), "{unknown:?}");
    rotad.stop();
}

#[test]
fn the_users_of_another_organization_neither_come_nor_let_anybody_go() {
    let mut scene = Scene::new(2);
    let mut rotad = scene.plain.rotad();
    scene.until_served(1..=2);
    rotad.stop();
    scene.plain.become_another_organization();
    scene.create(7);
    // The address is another one, too.
    let text = std::fs::read_to_string(scene.plain.path("rotad.toml")).unwrap();
    let line = text.lines().find(|line| line.starts_with("api_url")).unwrap();
    scene.plain.configure(&text.replace(line, &format!("api_url = \"{}\"", scene.plain.api())));
    let mut rotad = scene.plain.rotad();
    scene.plain.until("the daemon", || scene.plain.log().matches("address=").count() == 2);
    for _ in 0..3 {
        let answer = scene.sweep(&["--allow-gone"]);
        assert!(answer.code == 1 && answer.err.contains("it may be another organization's"), "{answer:?}");
    }
    assert_eq!((scene.metric("accounts"), scene.metric("accounts_missing")), (Some(2.0), Some(0.0)));
    assert!(scene.served(7).is_none());
    rotad.stop();
}
