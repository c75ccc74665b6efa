//! `rotad account`: what it creates, sets and deletes at the API, and what it refuses before the API is asked.

use serde_json::{Value, json};

use crate::plain::{ACCOUNT, Plain, SLOW};

fn json_of(plain: &Plain, arguments: &[&str]) -> Value {
    let answer = plain.ask(arguments);
    assert_eq!(answer.code, 0, "{answer:?}");
    serde_json::from_str(&answer.out).unwrap()
}

/// How often the API carried an operation out.
fn effects(plain: &Plain, operation: &str) -> usize {
    plain.stand_in.records().iter().filter(|record| record["operation"] == operation).count()
}

#[test]
fn an_account_is_created_sized_shown_and_deleted() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    let created = json_of(&plain, &["account", "create", "tenant_7", "--json"]);
    assert_eq!(created["ducklings"]["read_scaling"]["flock_size"], 4, "{created}");
    plain.ask(&["account", "create", "TENANT_7"]).complains(1, &["exists already", "case"]);
    let set = ["account", "ducklings", "tenant_7", "--read-write", "jumbo,cooldown=5m", "--json"];
    let jumbo = json!({ "instance_size": "jumbo", "cooldown_seconds": 300 });
    let standard = json!({ "instance_size": "standard", "flock_size": 4, "cooldown_seconds": 60 });
    assert_eq!(json_of(&plain, &set)["ducklings"], json!({ "read_write": jumbo, "read_scaling": standard }));
    let scaling = plain.ask(&["account", "ducklings", "tenant_7", "--read-scaling", "pulse,flock=2"]);
    assert_eq!(scaling.out, "tenant_7: read/write jumbo, cooldown 300 s; read scaling pulse, flock of 2\n", "{scaling:?}");
    plain.as_admin("POST", "/v1/users/tenant_7/tokens", Some(&json!({ "name": "for the dashboard" })));
    let shown = plain.ask(&["account", "show", "tenant_7"]);
    assert!(shown.out.contains("live tokens  1") && shown.out.contains("`for the dashboard`  never expires"), "{shown:?}");
    let shown = json_of(&plain, &["account", "show", "tenant_7", "--json"]);
    assert!(shown["tokens"][0]["name"] == "for the dashboard" && shown["ducklings"]["read_write"] == jumbo, "{shown}");
    let listed = json_of(&plain, &["account", "list", "--json"]);
    let row = |username: &str, used_by: Value| json!({ "username": username, "running": [], "used_by": used_by });
    assert_eq!(listed, json!([row(ACCOUNT, json!(["credential etl"])), row("tenant_7", json!([]))]));
    let listed = plain.ask(&["account", "list"]);
    assert!(listed.out.contains("etl_test  running: -  used by: credential etl\n"), "{listed:?}");

    plain
        .ask(&["account", "delete", "tenant_7"])
        .complains(2, &["1 live tokens are revoked", "can't be undone", "`--yes tenant_7`"]);
    plain.ask(&["account", "delete", "tenant_7", "--yes", "tenant_8"]).complains(2, &["nothing was deleted"]);
    assert_eq!(effects(&plain, "delete_user"), 0);
    let deleted = json_of(&plain, &["account", "delete", "tenant_7", "--yes", "tenant_7", "--json"]);
    assert_eq!(deleted, json!({ "username": "tenant_7", "deleted": true, "tokens_revoked": 1 }));
    plain.ask(&["account", "show", "tenant_7"]).complains(1, &["404"]);
}

#[test]
fn an_account_in_use_and_a_person_are_not_deleted() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    let deletion = ["account", "delete", ACCOUNT, "--yes", ACCOUNT];
    plain.ask(&deletion).complains(2, &["etl", "--even-if-used"]);
    let listed = plain.as_admin("GET", "/v1/users", None);
    let person = listed["users"].as_array().unwrap().iter().find(|user| user["is_service_account"] == false).unwrap();
    let person = person["username"].as_str().unwrap();
    plain.ask(&["account", "delete", person, "--yes", person]).complains(2, &["deletes no people"]);
    plain.ask(&["account", "delete", "nobody_here", "--yes", "nobody_here"]).complains(1, &["no account `nobody_here`"]);
    assert_eq!(effects(&plain, "delete_user"), 0);
    let deleted = plain.ask(&[&deletion[..], &["--even-if-used"]].concat());
    assert!(deleted.code == 0 && effects(&plain, "delete_user") == 1, "{deleted:?}");
    let path = plain.path("sinks/{account}").display().to_string();
    let fleet =
        format!("\n[fleet.tenants]\naccounts = \"tenant_*\"\n{SLOW}\ndeliver = [{{ sink = \"disk\", path = \"{path}\" }}]\n");
    plain.configure(&(plain.head() + &fleet));
    plain.ask(&["account", "delete", "tenant_7", "--yes", "tenant_7"]).complains(2, &["fleet tenants", "--even-if-used"]);
}

#[test]
fn what_can_t_be_is_refused_before_the_api_is_asked() {
    let mut plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    plain.stop_api();
    for name in ["ab", "etl-orders", "7_tenants", "étl"] {
        plain.ask(&["account", "create", name]).complains(2, &["begins with a letter"]);
    }
    let set = |half: &str, value: &str| plain.ask(&["account", "ducklings", "tenant_7", half, value]);
    set("--read-write", "large").complains(2, &["pulse, standard"]);
    set("--read-scaling", "jumbo").complains(2, &["flock=4"]);
    plain.ask(&["account", "ducklings", "tenant_7"]).complains(2, &["--read-write"]);
    plain.ask(&["account", "create", "tenant_7"]).complains(1, &["no connection"]);
}

#[test]
fn an_answer_that_was_lost_is_looked_for_and_nothing_is_sent_twice() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    let lose = |operation: &str, carry_out: bool| {
        plain.misbehave(
            &json!({ "operations": [operation], "requests": 1, "misbehaviour": { "reset": { "carry_out": carry_out } } }),
        );
    };
    lose("create_user", true);
    let created = plain.ask(&["account", "create", "tenant_7"]);
    assert_eq!(created.code, 0, "{created:?}");
    created.complains(0, &["broke", "is there now"]);
    lose("create_user", false);
    plain.ask(&["account", "create", "tenant_8"]).complains(1, &["not there now", "before you repeat"]);
    lose("delete_user", true);
    plain.ask(&["account", "delete", "tenant_7", "--yes", "tenant_7"]).complains(0, &["the account is gone"]);
    assert_eq!((effects(&plain, "create_user"), effects(&plain, "delete_user")), (1, 1));
}
