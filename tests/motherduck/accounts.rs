//! Accounts themselves: created, given Ducklings, looked at, deleted.

use rotad::motherduck::stand_in::{Character, DuplicateName, Fault, Misbehaviour, Operation as Op};
use rotad::motherduck::{AccountOutcome, Ducklings, ReadScaling, ReadWrite, Size};
use rotad::rotation::{Account, Failed, Reason};

use super::support::{Scripted, answer, caller, checked, met, pair, pair_of};
use super::{body, status};

fn ducklings(size: Size, cooldown: Option<u32>, flock_size: u32) -> Ducklings {
    Ducklings { read_write: ReadWrite { size, cooldown }, read_scaling: ReadScaling { size, flock_size, cooldown } }
}

fn refused(outcome: AccountOutcome) -> Failed {
    let AccountOutcome::Refused(failed) = outcome else { panic!("{outcome:?}") };
    checked(failed)
}

fn unknown(outcome: AccountOutcome) -> Failed {
    let AccountOutcome::Unknown(failed) = outcome else { panic!("{outcome:?}") };
    checked(failed)
}

#[tokio::test]
async fn an_account_is_created_sized_and_deleted() {
    let (server, caller) = pair().await;
    let (client, tenant) = (&caller.client, Account::new("tenant_7"));
    assert_eq!(checked(client.ducklings(&tenant).await.unwrap_err()).reason, Reason::NoSuchAccount);
    assert_eq!(client.create_account(&tenant).await, AccountOutcome::Done);
    assert_eq!(client.ducklings(&tenant).await.unwrap(), ducklings(Size::Standard, Some(60), 4));
    let asked = ducklings(Size::Jumbo, Some(300), 8);
    assert_eq!(client.set_ducklings(&tenant, &asked).await.unwrap(), asked);
    assert_eq!(client.ducklings(&tenant).await.unwrap(), asked);
    assert_eq!(client.active_accounts().await.unwrap(), []);
    assert_eq!(client.delete_account(&tenant).await, AccountOutcome::Done);
    let again = refused(client.delete_account(&tenant).await);
    assert_eq!(again.reason, Reason::NoSuchAccount);
    server.misbehave(Fault::once(Misbehaviour::NoRoute {}));
    assert_eq!(refused(client.delete_account(&tenant).await).reason, Reason::NoRoute, "a wrong address proves nothing");
}

#[tokio::test]
async fn a_taken_name_is_told_in_both_forms_that_were_seen_whatever_its_case() {
    for duplicate_name in [DuplicateName::Conflict, DuplicateName::BadRequest] {
        let (_server, caller) = pair_of(Character { duplicate_name, ..Character::default() }).await;
        let failed = refused(caller.client.create_account(&Account::new("ETL_prod")).await);
        assert_eq!(failed.reason, Reason::NameTaken, "{failed}");
    }
}

#[tokio::test]
async fn a_creation_or_deletion_without_a_clear_answer_is_unknown_and_is_not_sent_again() {
    let (server, caller) = pair().await;
    let tenant = Account::new("tenant_7");
    for (count, fault) in [
        status(500, None, true),
        Misbehaviour::Reset { carry_out: false },
        Misbehaviour::Empty {},
        body(200, r#"{"username":"x"}"#),
    ]
    .into_iter()
    .enumerate()
    {
        server.misbehave(Fault::once(fault.clone()));
        unknown(caller.client.create_account(&tenant).await);
        assert_eq!(met(&server, Op::CreateUser), count + 1, "{fault:?}");
        let _ = caller.client.delete_account(&tenant).await;
    }
    let before = met(&server, Op::DeleteUser);
    server.misbehave(Fault::once(status(503, None, true)));
    unknown(caller.client.delete_account(&tenant).await);
    assert_eq!(met(&server, Op::DeleteUser), before + 1);
}

#[tokio::test]
async fn ducklings_that_can_t_be_are_not_sent_and_a_plan_s_refusal_is_told() {
    let (server, caller) = pair().await;
    let account = Account::new("etl_prod");
    let failed = caller.client.set_ducklings(&account, &ducklings(Size::Pulse, Some(60), 4)).await.unwrap_err();
    assert!(checked(failed.clone()).detail.contains("`pulse` takes no cooldown"), "{failed}");
    assert_eq!(met(&server, Op::SetInstances), 0);
    let refusal = r#"{"code":"BAD_REQUEST","message":"Invalid config for tier lite"}"#;
    server.misbehave(Fault::once(body(400, refusal)));
    let failed = caller.client.set_ducklings(&account, &ducklings(Size::Giga, None, 4)).await.unwrap_err();
    assert_eq!(failed.reason, Reason::Rejected);
    assert!(checked(failed.clone()).detail.contains("Invalid config for tier lite"), "{failed}");
}

#[tokio::test]
async fn the_whole_body_is_sent_and_what_the_api_dropped_is_found_out() {
    let dropped = r#"{"read_write":{"instance_size":"jumbo","cooldown_seconds":60},
        "read_scaling":{"instance_size":"jumbo","flock_size":4,"cooldown_seconds":60}}"#;
    let server = Scripted::start(vec![answer("200 OK", dropped)]).await;
    let failed = caller(&server.url).client.set_ducklings(&Account::new("etl"), &ducklings(Size::Jumbo, Some(300), 4)).await;
    let failed = checked(failed.unwrap_err());
    assert!(failed.reason == Reason::BadAnswer && failed.detail.contains("cooldown 60 s"), "{failed}");
    let requests = server.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("PUT /v1/users/etl/instances HTTP/1.1\r\n"), "{head}");
    let half = serde_json::json!({ "instance_size": "jumbo", "cooldown_seconds": 300 });
    let scaling = serde_json::json!({ "instance_size": "jumbo", "flock_size": 4, "cooldown_seconds": 300 });
    let sent: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(sent, serde_json::json!({ "config": { "read_write": half, "read_scaling": scaling } }));
}
