//! The program itself with `verify = "connect"`.

use crate::certificates::Authority;
use crate::free_port;
use crate::plain::{FAST, Plain, SLOW};
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

/// A configuration with the endpoint, or without one, and a read-scaling credential.
fn configure_scaling(plain: &Plain, endpoint: Option<(&Authority, u16)>, more: &str) {
    let api = format!("api_url = \"{}\"", plain.api());
    let postgres = |(authority, port): (&Authority, u16)| {
        format!("{api}\npostgres = \"127.0.0.1:{port}\"\npostgres_ca_cert = \"{}\"", authority.file.display())
    };
    let head = plain.head().replace(&api, &endpoint.map_or(api.clone(), postgres));
    std::fs::create_dir_all(plain.path("run")).unwrap();
    let (listen, socket) = ("listen = \"127.0.0.1:0\"", plain.path("run/control.sock"));
    let head = head.replace(listen, &format!("{listen}\ncontrol = \"{}\"", socket.display()));
    plain.configure(&(head + &plain.credential("replicas", &format!("token_type = \"read_scaling\"\n{more}\n{SLOW}"))));
}

/// Whether whoever has this value comes in as a consumer.
fn comes_in(plain: &Plain, value: &str) -> bool {
    plain.status_as(value, "/_stand-in/validate") == 200
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_connected_to_once_before_its_first_read_scaling_token() {
    let (plain, authority) = (Plain::start(), Authority::new());
    let postgres = ScriptedPostgres::start(&authority.signs(), Script::AsTheApi(plain.api().to_owned())).await;
    // The endpoint would not let the read-scaling token in without it.
    configure_scaling(&plain, Some((&authority, postgres.port)), "verify = \"connect\"");
    let mut rotad = plain.rotad_delivering(&["replicas"]);
    let served = plain.served("replicas").unwrap();
    assert!(comes_in(&plain, &served));
    plain.until("the set-up token's end", || (plain.issued(), plain.revoked()) == (2, 1));
    let shown = postgres.passwords();
    assert_eq!((shown.len(), &shown[1]), (2, &served), "the set-up token's value first, then the one that is served");
    assert!(!comes_in(&plain, &shown[0]) && !plain.log().contains(&shown[0]));
    let history = plain.ask(&["history", "replicas", "--json"]);
    for step in ["set_up_intended", "connected", "promoted"] {
        assert!(history.out.contains(&format!("\"{step}\"")), "`{step}` is not in {history:?}");
    }
    // Neither a restart nor a rotation does it again.
    rotad.stop();
    let mut rotad = plain.rotad();
    plain.until("the order", || plain.ask(&["rotate", "replicas"]).code == 0);
    plain.until("a rotation", || plain.issued() == 3 && plain.served("replicas") != Some(served.clone()));
    rotad.stop();
    assert_eq!(postgres.passwords().len(), 3, "one connection more: that of the third token's verification");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_lets_nobody_in_is_told_with_what_to_do_and_no_token_is_left() {
    let (plain, authority) = (Plain::start(), Authority::new());
    let postgres = ScriptedPostgres::start(&authority.signs(), Script::HangUp).await;
    configure_scaling(&plain, Some((&authority, postgres.port)), "");
    let mut rotad = plain.rotad();
    plain.until("a third try", || plain.revoked() >= 3);
    assert!(plain.metric("rotad_step_failures_total{reason=\"bad_answer\",step=\"connect\"}") >= Some(2.0));
    let answer = plain.ask(&["status", "replicas"]);
    assert!(answer.out.contains("first connection") && answer.out.contains("`postgres`"), "{answer:?}");
    rotad.stop();
    assert!(!plain.path("sinks/replicas").exists());
    assert!(plain.live().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_connects_it_leaves_no_token_behind() {
    let (plain, authority) = (Plain::start(), Authority::new());
    let postgres = ScriptedPostgres::start(&authority.signs(), Script::AsTheApi(plain.api().to_owned())).await;
    configure_scaling(&plain, Some((&authority, postgres.port)), "");
    // The answer to the creation unrecorded, the connection not made, and made without being remembered.
    for point in ["AfterIssue", "BeforeVerify", "AfterVerify"] {
        let mut rotad = plain.rotad_failing_at(&format!("{point}:1:kill"));
        plain.until(point, || rotad.ended().is_some());
    }
    let mut rotad = plain.rotad_delivering(&["replicas"]);
    plain.until("what is left", || plain.live().len() == 1);
    rotad.stop();
    assert_eq!(plain.revoked(), plain.issued() - 1);
    assert!(plain.serves_live("replicas"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_endpoint_a_person_is_told_what_to_do_and_nothing_else_is_held_up() {
    let plain = Plain::start();
    configure_scaling(&plain, None, "");
    let text = std::fs::read_to_string(plain.path("rotad.toml")).unwrap() + &plain.credential("etl", SLOW);
    plain.configure(&text);
    let checked = plain.ask(&["check"]);
    assert!(checked.code == 0 && checked.err.contains("`connected = true`"), "{checked:?}");
    let mut rotad = plain.rotad_delivering(&["etl"]);
    plain.until("the block", || plain.line("replicas")["blocked"] == "first_connection_needed");
    let planned = plain.ask(&["plan", "replicas"]);
    assert!(planned.out.contains("connected to once with a read/write token"), "{planned:?}");
    assert_eq!(plain.issued(), 1);
    // A person does it, and says so.
    let etl = plain.served("etl").unwrap();
    assert!(comes_in(&plain, &etl));
    plain.configure(&text.replace("token_type = \"read_scaling\"", "token_type = \"read_scaling\"\nconnected = true"));
    rotad.signal(rustix::process::Signal::HUP);
    plain.until("the first token", || plain.served("replicas").is_some());
    rotad.stop();
    assert!(comes_in(&plain, &plain.served("replicas").unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_finds_out_whether_a_first_connection_is_needed_and_whether_the_endpoint_is_enough() {
    let (plain, authority) = (Plain::start(), Authority::new());
    let postgres = ScriptedPostgres::start(&authority.signs(), Script::AsTheApi(plain.api().to_owned())).await;
    configure(&plain, &authority, postgres.port);
    for (needed, before) in [(true, "Invalid MotherDuck token"), (false, "let in")] {
        plain.is_like(&serde_json::json!({ "first_connection_needed": needed }));
        let account = format!("probe_me_{needed}");
        plain.as_admin("POST", "/v1/users", Some(&serde_json::json!({ "username": account })));
        let answer = tokio::task::block_in_place(|| plain.ask(&["probe", "--account", &account, "--yes"]));
        assert_eq!(answer.code, 0, "{answer:?}");
        let told = |when: &str| {
            answer.out.lines().find(|line| line.contains(&format!("a read-scaling token {when}"))).unwrap().to_owned()
        };
        assert!(told("before").contains(before), "{}", answer.out);
        assert!(told("after it").ends_with(": let in"), "{}", answer.out);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_online_tries_the_endpoint_without_a_token() {
    let (plain, authority) = (Plain::start(), Authority::new());
    let signed = authority.signs();
    let check = |port, authority: &Authority| {
        configure(&plain, authority, port);
        tokio::task::block_in_place(|| plain.ask(&["check", "--online"]))
    };
    let postgres = ScriptedPostgres::start(&signed, Script::LetIn { user: None, duckling: None }).await;
    let fine = check(postgres.port, &authority);
    assert!(
        fine.code == 0 && fine.out.contains("the Postgres endpoint answers over TLS, and its certificate is trusted"),
        "{fine:?}"
    );
    assert!(fine.out.contains("shows only with a token") && postgres.passwords().is_empty(), "{fine:?}");
    let stranger = check(postgres.port, &Authority::new());
    assert!(stranger.code == 1 && stranger.out.contains("`postgres_ca_cert`"), "{stranger:?}");
    let plaintext = ScriptedPostgres::start(&signed, Script::NoTls).await;
    assert_eq!(check(plaintext.port, &authority).code, 1);
    assert!(plaintext.passwords().iter().all(String::is_empty), "nothing is sent in the clear");
    let nobody = check(free_port(), &authority);
    assert!(nobody.code == 1 && nobody.out.contains("FAILS: the Postgres endpoint"), "{nobody:?}");
}
