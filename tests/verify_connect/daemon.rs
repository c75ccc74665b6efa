//! The program itself with `verify = "connect"`.

use crate::certificates::Authority;
use crate::plain::{FAST, Plain};
use crate::scripted::{Script, ScriptedPostgres};

/// A configuration whose one credential is verified at `port`.
fn configure(plain: &Plain, authority: &Authority, port: u16) {
    let api = format!("api_url = \"{}\"", plain.api());
    let endpoint = format!("{api}\npostgres = \"127.0.0.1:{port}\"\npostgres_ca_cert = \"{}\"", authority.file.display());
    let text = plain.head().replace(&api, &endpoint) + &plain.credential("etl", &format!("verify = \"connect\"\n{FAST}"));
    plain.configure(&text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_delivered_once_the_endpoint_let_it_in() {
    let (plain, authority) = (Plain::start(), Authority::new());
    let let_in = Script::LetIn { user: None, duckling: Some("0f3a.rw") };
    let postgres = ScriptedPostgres::start(&authority.signs(), let_in).await;
    configure(&plain, &authority, postgres.port);
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("a rotation", || plain.revoked() >= 1);
    rotad.stop();
    let shown = postgres.passwords();
    assert!(plain.served("etl").is_some_and(|value| shown.contains(&value)), "what is served was not proven");
    assert!(!shown.iter().any(|value| plain.log().contains(value)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_account_is_revoked_and_never_delivered() {
    let (plain, authority) = (Plain::start(), Authority::new());
    let as_another = Script::LetIn { user: Some("somebody"), duckling: Some("0f3a.rw") };
    let postgres = ScriptedPostgres::start(&authority.signs(), as_another).await;
    configure(&plain, &authority, postgres.port);
    let mut rotad = plain.rotad();
    plain.until("a second token", || plain.issued() == 2);
    plain.until("the block", || plain.line("etl")["blocked"] == "unfit_token");
    plain.until("the revocations", || plain.revoked() == 2);
    assert!(plain.metric("rotad_step_failures_total{reason=\"wrong_account\",step=\"issue\"}") >= Some(2.0));
    rotad.stop();
    assert_eq!(plain.issued(), 2);
    assert!(!plain.path("sinks/etl").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_holds_a_session_open_to_see_whether_it_survives_its_token() {
    let (plain, authority) = (Plain::start(), Authority::new());
    let postgres = ScriptedPostgres::start(&authority.signs(), Script::LetInFor(3)).await;
    configure(&plain, &authority, postgres.port);
    plain.as_admin("POST", "/v1/users", Some(&serde_json::json!({ "username": "probe_me" })));
    let answer = tokio::task::block_in_place(|| plain.ask(&["probe", "--account", "probe_me", "--yes"]));
    assert_eq!(answer.code, 0, "{answer:?}");
    for line in
        ["- a live token: let in", "a session that was open when its token was revoked ends after ", "the revoked token: "]
    {
        assert!(answer.out.contains(line), "`{line}` is not in:\n{}", answer.out);
    }
    let shown = postgres.passwords();
    assert!(shown.len() >= 4 && !shown.iter().any(|value| value.len() > 20 && answer.out.contains(value)), "{}", answer.out);
}
