//! A secret that somebody wrote into the configuration by mistake is refused, and shown nowhere.

use crate::plain::{Plain, SLOW};
use crate::search::Search;

const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJwbGFudGVkIjoib25lIn0.cGxhbnRlZHNpZ25hdHVyZTAxMjM0NTY3ODk";
const SECRET_ID: &str = "f3b0c442-98fc-1c14-9afb-f4c8996fb924";
const VAULT_TOKEN: &str = "hvs.CAESIJ3f9q2k8d7g6h5j4k3lZ0x9c8v7b6n5m";
const PASSWORD: &str = "correct-horse-battery-staple-42";

/// Mistakes, each as one line that takes the place of another or is added.
fn mistakes(plain: &Plain) -> Vec<String> {
    let head = plain.head();
    let credential = plain.credential("etl", SLOW);
    let admin = head.lines().find(|line| line.starts_with("admin_token")).unwrap();
    let whole = |line: &str| head.replace(admin, line) + &credential;
    let added = |text: String| format!("{head}{credential}\n{text}\n");
    let vault = |auth: &str| added(format!("[sink.main.vault]\naddress = \"http://127.0.0.1:1\"\nauth = {{ {auth} }}"));
    vec![
        whole(&format!("admin_token = \"{JWT}\"")),
        whole(&format!("admin_token = {{ value = \"{JWT}\" }}")),
        whole(&format!("admin_token = {{ file = \"{JWT}\" }}")),
        whole(&format!("admin_token = {{ env = \"{JWT}\" }}")),
        whole(&format!("admin_token = {JWT}")),
        whole(&format!("admin_tokne = \"{JWT}\"\n{admin}")),
        whole(&format!("admin_token = '''\n{JWT}\n'''")),
        whole(&format!("\"{JWT}\" = 1\n{admin}")),
        vault(&format!("token = \"{VAULT_TOKEN}\"")),
        vault(&format!("tokn = \"{VAULT_TOKEN}\"")),
        vault(&format!("approle = {{ role_id = \"r\", secret_id = \"{SECRET_ID}\" }}")),
        vault(&format!("approle = {{ role_id = \"r\", secretid = \"{SECRET_ID}\" }}")),
        vault(&format!("jwt = {{ role = \"r\", token = \"{JWT}\" }}")),
        added(format!("[sink.cloud.aws]\nsecret_access_key = \"{PASSWORD}\"")),
        head.replace("sqlite:", &format!("postgres://rotad:{PASSWORD}@db")) + &credential,
        head.replace("http://", &format!("http://rotad:{PASSWORD}@")) + &credential,
        added(format!("[credential.{}]\naccount = \"etl_test\"", JWT.replace('.', "_"))),
        credential.replace("etl_test", JWT) + &head,
        format!("{head}{}", credential.replace("file", JWT).replace("disk", JWT)),
    ]
}

#[test]
fn a_secret_in_the_configuration_is_refused_and_not_shown() {
    let mut secrets = Search::default();
    for (name, secret) in [("admin token", JWT), ("secret id", SECRET_ID), ("Vault token", VAULT_TOKEN), ("password", PASSWORD)] {
        secrets.add(name, secret);
    }
    let plain = Plain::start();
    for (number, text) in mistakes(&plain).into_iter().enumerate() {
        assert!(secrets.find(text.as_bytes()).is_some());
        plain.configure(&text);
        for arguments in [&["check"][..], &["check", "--json"], &["run", "--log", "trace"], &["status"]] {
            let answer = plain.ask(arguments);
            // What only looks asks for no file, so one that is a secret's text is no mistake to it: there is no journal yet.
            let looks = arguments[0] == "status" && answer.code == 1;
            assert!(answer.code == 2 || looks, "mistake {number} was accepted by {arguments:?}: {}", answer.err);
            let told = answer.out + &answer.err;
            assert_eq!(secrets.find(told.as_bytes()), None, "mistake {number} shows a secret: {arguments:?}");
        }
    }
}

/// The daemon that runs on the old configuration tells of the new one in its log.
#[test]
fn a_reload_with_a_secret_in_it_is_refused_and_not_shown() {
    let plain = Plain::start();
    plain.configure_with(&["etl"], SLOW);
    let daemon = plain.rotad_delivering(&["etl"]);
    let mut secrets = Search::default();
    secrets.add("admin token", JWT);
    plain.configure(&mistakes(&plain)[0]);
    daemon.signal(rustix::process::Signal::HUP);
    plain.until("a refusal", || plain.log().contains("the new configuration has problems"));
    assert_eq!(secrets.find(plain.log().as_bytes()), None);
}
