//! `rotad import`: what it prints passes `check`, names what was made by hand and no value, and takes nothing of rotad's own.

use serde_json::{Value, json};

use crate::plain::{ACCOUNT, Plain, SLOW};

/// A token made by hand, as a person with the admin token would; gives its id and its value.
fn by_hand(plain: &Plain, account: &str, body: &Value) -> (String, String) {
    let made = plain.as_admin("POST", &format!("/v1/users/{account}/tokens"), Some(body));
    (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
}

fn account(plain: &Plain, name: &str) {
    plain.as_admin("POST", "/v1/users", Some(&json!({ "username": name })));
}

#[test]
fn what_is_imported_passes_the_check_and_lists_what_was_made_by_hand() {
    let plain = Plain::start();
    account(&plain, "Tenant_7");
    let (plain_id, value) = by_hand(&plain, ACCOUNT, &json!({ "name": "for the dashboard\n[credential.planted]" }));
    let (scaling, _) = by_hand(&plain, "Tenant_7", &json!({ "name": "replicas", "token_type": "read_scaling", "ttl": 86_400 }));
    plain.configure(&plain.head().replace("10m", "30d"));
    let deliver = format!("{{ sink = \"disk\", path = \"{}/{{credential}}\", take_over = true }}", plain.path("sinks").display());
    let answer = plain.ask(&["import", "--account", ACCOUNT, "--account", "tenant_7", "--deliver", &deliver]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(answer.out.contains(&format!("\"{plain_id}\", # `for the dashboard[credential.planted]`, read_write")), "{answer:?}");
    assert!(answer.out.contains(&format!("\"{scaling}\", # `replicas`, read_scaling")), "{answer:?}");
    assert!(
        answer.out.contains("[credential.tenant_7-rs]") && answer.out.contains("token_type = \"read_scaling\""),
        "{answer:?}"
    );
    assert!(answer.out.contains("never expires") && answer.out.contains("expires 20"), "{answer:?}");
    assert!(!answer.out.contains(&value) && !answer.err.contains(&value) && !answer.out.contains("eyJ"), "{answer:?}");
    let found = plain.ask(&["import", "--account", ACCOUNT, "--account", "tenant_7", "--deliver", &deliver, "--json"]);
    let report: Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!((&report["adopted"], report["configuration"].as_str()), (&json!(2), Some(answer.out.as_str())), "{found:?}");
    let token = &report["accounts"][0]["tokens"][0];
    assert_eq!((&token["id"], &token["token_type"], &token["made_for"]), (&json!(plain_id), &json!("read_write"), &Value::Null));
    plain.configure(&answer.out);
    let checked = plain.ask(&["check"]);
    assert!(checked.code == 0 && checked.out.contains("2 credentials"), "{checked:?}");
    assert_eq!(plain.issued(), 2, "it only lists");
}

#[test]
fn a_credential_that_is_there_is_amended_and_rotads_own_tokens_are_left_out() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    drop(plain.rotad_delivering(&["etl"]));
    let (id, _) = by_hand(&plain, ACCOUNT, &json!({ "name": "for etl" }));
    let answer = plain.ask(&["import"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(answer.out.contains(&format!("[credential.etl]\nadopt = [\n  \"{id}\",")), "{answer:?}");
    assert!(answer.out.contains("rotad made it for `test/etl`: it is not adopted"), "{answer:?}");
    assert_eq!(answer.out.matches("adopt = [").count(), 1, "{answer:?}");
    // What was printed is imported once more: by hand, since a list stands there already.
    plain.configure(&answer.out);
    let again = plain.ask(&["import", "--account", ACCOUNT]);
    assert!(again.code == 0 && again.out.contains("# Into [credential.etl], by hand:"), "{again:?}");
    let output = plain.path("imported.toml").display().to_string();
    let written = plain.ask(&["import", "--output", &output]);
    assert!(written.code == 0 && written.out.is_empty(), "{written:?}");
    assert!(std::fs::read_to_string(&output).unwrap().contains(&id));
    plain.ask(&["import", "--output", &output]).complains(1, &["can't be created"]);
}

#[test]
fn what_can_t_be_imported_prints_nothing_and_says_why() {
    let mut plain = Plain::start();
    plain.configure(&plain.head());
    by_hand(&plain, ACCOUNT, &json!({ "name": "for etl" }));
    let missing = plain.ask(&["import", "--account", "nobody_here"]);
    missing.complains(1, &["404", "nobody_here"]);
    assert!(missing.out.is_empty(), "{missing:?}");
    plain.ask(&["import", "--organization", "other"]).complains(2, &["`main`"]);
    plain.ask(&["import", "--deliver", "{ sink = \"none\" }"]).complains(2, &["does not pass", "no sink is named"]);
    plain.stop_api();
    plain.ask(&["import"]).complains(1, &["list the users"]);
}
