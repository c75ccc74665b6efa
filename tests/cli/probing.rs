//! `rotad probe` against the stand-in, each open question answered one way and the other.

use serde_json::{Value, json};

use crate::plain::{ACCOUNT, Plain, SLOW};

const THROWAWAY: &str = "probe_me";

fn scene(character: &Value) -> Plain {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    plain.as_admin("POST", "/v1/users", Some(&json!({ "username": THROWAWAY })));
    plain.is_like(character);
    plain
}

/// The findings of one question, as one text.
fn found(report: &Value, question: &str) -> String {
    let findings = report["report"]["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["question"].as_str().unwrap().contains(question));
    let lines = finding.unwrap_or_else(|| panic!("nobody asked `{question}`: {report}"))["found"].as_array().unwrap();
    lines.iter().map(|line| line.as_str().unwrap().to_owned() + "\n").collect()
}

/// Asked to its end, everything taken away again, and no value told.
fn probed(plain: &Plain, more: &[&str]) -> Value {
    let answer = plain.ask(&[&["probe", "--account", THROWAWAY, "--yes", "--json"], more].concat());
    assert_eq!(answer.code, 0, "{answer:?}");
    let listed = plain.as_admin("GET", &format!("/v1/users/{THROWAWAY}/tokens"), None);
    assert_eq!(listed["tokens"], json!([]), "it cleans up");
    let admin = std::fs::read_to_string(plain.path("admin-token")).unwrap();
    // Every JWT begins so.
    assert!(!answer.out.contains("eyJ") && !answer.out.contains(admin.trim()) && answer.err.is_empty(), "{answer:?}");
    serde_json::from_str(&answer.out).unwrap()
}

fn says(report: &Value, question: &str, parts: &[&str]) {
    let found = found(report, question);
    for part in parts {
        assert!(found.contains(part), "`{part}` is not in:\n{found}");
    }
}

#[test]
fn each_answer_of_the_api_is_told_as_it_is() {
    let plain = scene(&json!({
        "duplicate_name": "conflict", "dead_names_are_free": false, "textual_ttl": false, "fractional_ttl": false,
        "member_lists": true, "member_revokes": true, "slash_in_names": true, "revocation_delay_ms": 1000,
    }));
    let report = probed(&plain, &[]);
    says(
        &report,
        "creation hold",
        &[
            "answered 200",
            "`expire_at` has the form `0000-00-00T00:00:00.000Z`",
            "`description` is kept",
            "claims `exp` (a number)",
        ],
    );
    says(&report, "names unique", &["a live token again: 409", "with `/`: 200", "a revoked token again: 409"]);
    says(
        &report,
        "times to live",
        &["a text (`\"300\"`): 400", "a fraction (`300.5`): 400", "too short (`1`): 400", "read-scaling token: 200"],
    );
    says(&report, "own tokens", &["list: 200", "create: 200", "revoke: 200"]);
    says(
        &report,
        "take hold",
        &["a revocation: 200", "the API refuses the token after ", "401", "a second revocation: 404 `NOT_FOUND`"],
    );
    says(&report, "Postgres", &["was not asked"]);
}

#[test]
fn the_opposite_of_each_is_told_too() {
    let plain = scene(&json!({
        "duplicate_name": "bad_request", "dead_names_are_free": true, "textual_ttl": true, "fractional_ttl": true,
        "member_creates": false, "member_lists": false, "member_revokes": false, "slash_in_names": false,
        "time_format": "seconds", "drop_description": true, "list_lag_ms": 700, "list_linger_ms": 700,         "revoke_answer": "no_content",
    }));
    let report = probed(&plain, &[]);
    says(&report, "creation hold", &["`expire_at` has the form `0000-00-00T00:00:00Z`", "`description` is dropped"]);
    says(&report, "names unique", &["a live token again: 400", "with `/`: 400"]);
    says(&report, "times to live", &["a text (`\"300\"`): 200, and it expires", "a fraction (`300.5`): 200"]);
    says(&report, "own tokens", &["list: 403 `FORBIDDEN`", "create: 403", "revoke: 403"]);
    says(&report, "take hold", &["a revocation: 204"]);
    says(&report, "show a new token", &["a new token is listed after ", "the list's fields: tokens"]);
}

#[test]
fn what_becomes_of_an_expired_token_is_waited_for() {
    for (revokes, answer) in [(true, "expired id: 200"), (false, "expired id: 404")] {
        let plain = scene(&json!({ "expired_id_revokes": revokes, "dead_names_are_free": revokes }));
        let report = std::thread::scope(|scope| {
            let report = scope.spawn(|| probed(&plain, &["--until-expiry"]));
            // Before it waits it revokes the token that it made first, and makes the last one.
            let waits = || {
                let records: Vec<Value> =
                    plain.stand_in.records().into_iter().filter(|record| record["token_id"].is_string()).collect();
                let [first, .., before, last] = records.as_slice() else { return false };
                before["operation"] == "revoke_token"
                    && before["token_id"] == first["token_id"]
                    && last["operation"] == "create_token"
            };
            plain.until("the wait", waits);
            plain.pass_in_the_api(400);
            report.join().unwrap()
        });
        says(&report, "expired token", &["leaves the list after ", "the API says to it: 401", answer]);
    }
}

#[test]
fn an_account_in_use_is_refused_and_a_script_must_say_yes() {
    let plain = scene(&json!({}));
    plain.ask(&["probe", "--account", &ACCOUNT.to_uppercase(), "--yes"]).complains(2, &["credential etl", "nobody uses"]);
    plain.ask(&["probe", "--account", THROWAWAY]).complains(2, &["Nobody must use", "--yes"]);
    plain.ask(&["probe", "--account", "no_such_account", "--yes"]).complains(1, &["no token could be made", "NOT_FOUND"]);
    assert!(plain.effects("create_token").is_empty());
}
