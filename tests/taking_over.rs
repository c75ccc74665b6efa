//! Taking over a token that was made by hand and is in use in Vault (OpenBao) and in a file: listed by `rotad import`,
//! superseded and revoked, while consumers outside of rotad read both places.

#![allow(clippy::unwrap_used, clippy::expect_used)] // test code outside of `#[test]` functions

mod support {
    pub mod openbao;
    pub mod plain;
    pub mod process;
}

use std::time::Duration;

use serde_json::{Value, json};
use support::openbao::Bao;
use support::plain::{ACCOUNT, Plain};
use support::process::fingerprint;

const PACE: &str = "every = \"6s\"\ngrace = \"3s\"";
const PATIENCE: Duration = Duration::from_secs(90);

struct Scene {
    plain: Plain,
    bao: Bao,
    http: reqwest::Client,
    id: String,
    value: String,
}

impl Scene {
    /// The hand-made token is in use at both places, and imported.
    async fn set() -> Self {
        let (plain, bao) = (Plain::start(), Bao::full(None).await);
        let made = plain.as_admin("POST", &format!("/v1/users/{ACCOUNT}/tokens"), Some(&json!({ "name": "for etl" })));
        let (id, value) = (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned());
        bao.ok("POST", "secret/data/etl/motherduck", json!({ "data": { "token": value, "region": "eu" } })).await;
        plain.put("etl", &value);
        std::fs::write(plain.path("vault-token"), &bao.root_token).unwrap();
        let vault = format!(
            "\n[sink.main.vault]\naddress = \"{}\"\nauth = {{ token = {{ file = \"{}\" }} }}\n",
            bao.address,
            plain.path("vault-token").display()
        );
        plain.configure(&(plain.head() + &vault).replace("ttl = \"10m\"", &format!("ttl = \"10m\"\n{PACE}")));
        let file = format!("{{ sink = \"disk\", path = \"{}\", take_over = true }}", plain.path("sinks/etl").display());
        let vault = "{ sink = \"main\", path = \"etl/motherduck\", take_over = true }";
        let imported = plain.ask(&["import", "--account", ACCOUNT, "--deliver", &file, "--deliver", vault]);
        assert!(imported.code == 0 && imported.out.contains(&id) && !imported.out.contains(&value), "{imported:?}");
        plain.configure(&imported.out);
        Self { plain, bao, http: reqwest::Client::new(), id, value }
    }

    async fn in_vault(&self) -> Value {
        self.bao.ok("GET", "secret/data/etl/motherduck", Value::Null).await["data"]["data"].clone()
    }

    /// What each place serves now, in the order vault, file.
    async fn served(&self) -> [String; 2] {
        [self.in_vault().await["token"].as_str().unwrap().to_owned(), self.plain.served("etl").unwrap()]
    }

    /// Whether the API lets the bearer in.
    async fn works(&self, value: &str) -> bool {
        let url = format!("{}/v1/users/{ACCOUNT}/tokens", self.plain.api());
        self.http.get(url).bearer_auth(value).send().await.unwrap().status() != 401
    }

    /// Looks at both places until `met`; no value that a place serves is ever dead.
    async fn watch(&self, what: &str, met: impl Fn(&[String; 2]) -> bool) {
        let began = tokio::time::Instant::now();
        loop {
            let served = self.served().await;
            for value in &served {
                let replaced = !self.served().await.contains(value);
                assert!(replaced || self.works(value).await, "a place serves a dead token\n{}", self.plain.log());
            }
            if met(&served) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{what} did not come\n{}", self.plain.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn revoked(&self) -> bool {
        self.plain.effects("revoke_token").contains(&fingerprint(&self.value))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_made_token_in_use_in_vault_and_a_file_is_superseded_and_revoked_after_the_grace_period() {
    let scene = Scene::set().await;
    let mut rotad = scene.plain.rotad();
    scene.watch("the first token at both places", |served| served.iter().all(|value| *value != scene.value)).await;
    scene.watch("the hand-made token's revocation", |_| scene.revoked()).await;
    assert!(!scene.works(&scene.value).await);
    assert_eq!(scene.in_vault().await["region"], "eu", "other keys of the secret stay");
    let history = scene.plain.ask(&["history"]);
    assert!(history.out.contains("adoption_taken") && history.out.contains(&scene.id), "{history:?}");
    // It goes on: its own tokens rotate and are revoked.
    scene.watch("a further revocation", |_| scene.plain.revoked() >= 2).await;
    rotad.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_vault_still_serves_the_hand_made_token_or_is_out_of_reach_it_is_not_revoked() {
    let scene = Scene::set().await;
    scene.bao.seal().await;
    let mut rotad = scene.plain.rotad();
    // The file has its own by then, and the grace period is over several times; Vault can't be read.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!scene.revoked(), "Vault may serve it\n{}", scene.plain.log());
    scene.bao.unseal().await;
    scene.watch("the revocation, once Vault is back", |_| scene.revoked()).await;
    rotad.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_killed_around_the_revocation_revokes_it_in_the_end() {
    let scene = Scene::set().await;
    for armed in ["AfterIssue:1:kill", "AfterWrite:1:kill", "BeforeRevoke:1:kill", "AfterRevoke:1:kill"] {
        let mut rotad = scene.plain.rotad_failing_at(armed);
        let began = tokio::time::Instant::now();
        while rotad.ended().is_none() && began.elapsed() < PATIENCE {
            scene.watch("", |_| true).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(rotad.ended().is_some(), "{armed} was not reached\n{}", scene.plain.log());
    }
    let _rotad = scene.plain.rotad();
    scene.watch("the hand-made token's revocation", |_| scene.revoked()).await;
}
