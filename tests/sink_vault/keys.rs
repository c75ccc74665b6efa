//! One secret with several keys, versions and settings, as people keep them.

use super::*;

#[tokio::test]
async fn other_keys_and_other_metadata_are_kept_as_they_stand() {
    let bao = Bao::dev().await;
    let number =
        r#"{"data":{"password":"p\u00e4ss","big":12345678901234567890123,"exact":0.1000000000000000055,"list":[1,{"a":null}]}}"#;
    let url = format!("{}/v1/secret/data/app", bao.address);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let text = async || http.get(url.as_str()).header("X-Vault-Token", "root").send().await.unwrap().text().await.unwrap();
    let sent = http.post(url.as_str()).header("X-Vault-Token", "root").body(number).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    bao.ok("POST", "secret/metadata/app", json!({ "custom_metadata": { "team": "data" }, "max_versions": 4 })).await;

    let before = text().await;
    let theirs = &before[before.find("\"big\"").unwrap()..before.find("},\"metadata\"").unwrap()];
    let place = root_place(&bao, "app", "token").await;
    assert_eq!(read(&place, "etl").await.shows, Shows::Nothing { owner: None }, "a key that is missing is nothing");
    deliver(&place, "etl", &Delivery::new("etl", 0)).await;

    let after = text().await;
    assert!(theirs.contains("päss") && after.contains(theirs), "{theirs} in {after}");
    let metadata = bao.ok("GET", "secret/metadata/app", Value::Null).await;
    assert_eq!(metadata["data"]["custom_metadata"]["team"], "data");
    assert_eq!(metadata["data"]["max_versions"], 4);
}

#[tokio::test]
async fn two_credentials_share_a_secret_by_its_keys() {
    let bao = Bao::dev().await;
    let world = VaultWorld::with(bao, KvVersion::V2).await;
    let long = "k".repeat(300);
    let keys = ["first", "second.key", "third key/ä", long.as_str()];
    let place = |key: &str| -> Arc<dyn Place> { world.store.place(target("shared", key)).unwrap() };
    for (number, key) in keys.iter().enumerate() {
        deliver(&place(key), "etl", &Delivery::new(&format!("owner{number}"), 0)).await;
    }
    for (number, key) in keys.iter().enumerate() {
        assert_serves(&world, &place(key), "etl", &Delivery::new(&format!("owner{number}"), 0)).await;
    }
    assert_ne!(place("first").id(), place("second.key").id());
    assert_eq!(place("first").id().as_str(), format!("vault:{}/secret/shared#first", world.bao.address));
}

#[tokio::test]
async fn deleted_destroyed_and_removed_secrets_are_empty_and_can_be_written_again() {
    let bao = Bao::dev().await;
    let world = VaultWorld::with(bao, KvVersion::V2).await;
    let place = world.place("states").await;
    let owner = Some(Delivery::new("etl", 0).owner);
    let steps = [
        ("DELETE", "secret/data/contract/states", Value::Null, owner.clone(), "2 "),
        ("POST", "secret/destroy/contract/states", json!({ "versions": [2] }), owner, "2 "),
        ("DELETE", "secret/metadata/contract/states", Value::Null, None, "0 "),
    ];
    deliver(&place, "etl", &Delivery::new("etl", 0)).await;
    for (number, (method, path, body, owner, version)) in (1..).zip(steps) {
        deliver(&place, "etl", &Delivery::new("etl", number)).await;
        world.bao.ok(method, path, body).await;
        let reading = read(&place, "etl").await;
        assert_eq!(reading.shows, Shows::Nothing { owner }, "{method} {path}");
        assert!(reading.version.0.starts_with(version), "{method} {path}: {:?}", reading.version);
        // Undeleted by a person meanwhile, or written: then the condition no longer holds.
        let before = reading.version;
        world.change_by_hand("states", "by-hand").await;
        assert_eq!(place.write(&before, &Delivery::new("etl", 7).payload()).await, WriteOutcome::Conflict);
        world.bao.ok("DELETE", "secret/metadata/contract/states", Value::Null).await;
        let fresh = read(&place, "etl").await;
        assert_eq!(fresh.shows, Shows::Nothing { owner: None });
        let again = Delivery::new("etl", number);
        for _ in 0..number {
            deliver(&place, "etl", &again).await;
        }
        assert_serves(&world, &place, "etl", &again).await;
    }
}

#[tokio::test]
async fn a_marker_without_a_value_still_names_its_owner() {
    let bao = Bao::dev().await;
    let gate = Gate::before(&bao.address).await;
    let store = store_at(&bao, &gate.address, root_auth(&bao)).await;
    let place: Arc<dyn Place> = store.place(target("half", "token")).unwrap();
    gate.misbehave("POST", "secret/data/half", Fault::Answer(503, r#"{"errors":["Vault is sealed"]}"#));
    let empty = read(&place, "etl").await.version;
    assert!(matches!(place.write(&empty, &Delivery::new("etl", 0).payload()).await, WriteOutcome::Refused(_)));
    gate.behave();

    let reading = read(&place, "etl").await;
    assert_eq!(reading.shows, Shows::Nothing { owner: Some(Delivery::new("etl", 0).owner) });
    assert_ne!(reading.version, empty);
    let outcome = place.write(&reading.version, &Delivery::new("etl", 1).payload()).await;
    assert_eq!(outcome, WriteOutcome::Written);
}

#[tokio::test]
async fn a_value_that_is_no_text_is_unsuitable() {
    let bao = Bao::dev().await;
    let place = root_place(&bao, "app", "token").await;
    for value in [json!(7), json!(null), json!({ "a": "b" })] {
        bao.ok("POST", "secret/data/app", json!({ "data": { "token": value } })).await;
        let failed = place.read(&question("etl")).await.unwrap_err();
        assert_eq!(failed.reason, Reason::Unsuitable, "{failed}");
    }
    bao.ok("POST", "secret/data/app", json!({ "data": { "token": "" } })).await;
    assert_eq!(read(&place, "etl").await.shows, Shows::Nothing { owner: None }, "an empty text is nothing");
}

#[tokio::test]
async fn mounts_that_require_check_and_set_and_prune_versions_work() {
    let bao = Bao::dev().await;
    bao.ok("POST", "secret/config", json!({ "cas_required": true, "max_versions": 2, "metadata_cas_required": true })).await;
    let world = VaultWorld::with(bao, KvVersion::V2).await;
    let place = world.place("strict").await;
    for number in 0..5 {
        deliver(&place, "etl", &Delivery::new("etl", number)).await;
    }
    assert_serves(&world, &place, "etl", &Delivery::new("etl", 4)).await;
    let metadata = world.bao.ok("GET", "secret/metadata/contract/strict", Value::Null).await;
    assert_eq!(metadata["data"]["oldest_version"], 4, "{metadata}");
}

#[tokio::test]
async fn check_tells_of_versions_that_the_store_deletes_by_itself() {
    let bao = Bao::dev().await;
    let place = root_place(&bao, "short", "token").await;
    deliver(&place, "etl", &Delivery::new("etl", 0)).await;
    assert!(place.check().await.iter().all(|finding| matches!(finding, Finding::Fine(_))));
    bao.ok("POST", "secret/metadata/short", json!({ "delete_version_after": "3h" })).await;
    let findings = place.check().await;
    assert!(
        findings.iter().any(|finding| matches!(finding, Finding::Unknowable(text) if text.contains("delete_version_after"))),
        "{findings:?}"
    );
}

#[tokio::test]
async fn of_many_writers_at_once_exactly_one_wins() {
    let bao = Bao::dev().await;
    let world = VaultWorld::with(bao, KvVersion::V2).await;
    let place = world.place("race").await;
    deliver(&place, "etl", &Delivery::new("etl", 0)).await;
    let before = read(&place, "etl").await.version;
    let deliveries: Vec<Delivery> = (1..7).map(|number| Delivery::new("etl", number)).collect();
    let writes = deliveries.iter().map(|delivery| async {
        let payload = delivery.payload();
        place.write(&before, &payload).await
    });
    let outcomes = futures_util::future::join_all(writes).await;
    let winners: Vec<usize> =
        outcomes.iter().enumerate().filter(|(_, outcome)| **outcome == WriteOutcome::Written).map(|(number, _)| number).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, WriteOutcome::Written | WriteOutcome::Conflict)), "{outcomes:?}");
    let served = read(&place, "etl").await.value.unwrap();
    assert_eq!(served.expose(), deliveries[winners[0]].value.expose());
}

#[tokio::test]
async fn a_foreign_write_between_marker_and_value_is_not_overwritten() {
    let bao = Bao::dev().await;
    let gate = Gate::before(&bao.address).await;
    let store = store_at(&bao, &gate.address, root_auth(&bao)).await;
    let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
    deliver(&place, "etl", &Delivery::new("etl", 0)).await;
    let version = read(&place, "etl").await.version;
    gate.misbehave("PATCH", "secret/metadata/app", Fault::ThenForeignWrite("secret/data/app", r#"{"data":{"token":"by-hand"}}"#));
    assert_eq!(place.write(&version, &Delivery::new("etl", 1).payload()).await, WriteOutcome::Conflict);
    assert_eq!(read(&place, "etl").await.value.unwrap().expose(), "by-hand");
}

#[tokio::test]
async fn someone_elses_change_of_the_metadata_is_not_lost() {
    // With `patch` and without: the server compares the metadata's version either way.
    for capabilities in [json!(["create", "read", "patch"]), json!(["create", "read", "update"])] {
        let bao = Bao::dev().await;
        let policy = json!({ "path": {
            "secret/data/app": { "capabilities": ["read", "update"] },
            "secret/metadata/app": { "capabilities": capabilities },
        } });
        let store = limited_store(&bao, &policy.to_string()).await;
        let place: Arc<dyn Place> = store.place(target("app", "token")).unwrap();
        deliver(&place, "etl", &Delivery::new("etl", 0)).await;
        bao.ok("PATCH", "secret/metadata/app", json!({ "custom_metadata": { "team": "data" } })).await;
        deliver(&place, "etl", &Delivery::new("etl", 1)).await;
        let metadata = bao.ok("GET", "secret/metadata/app", Value::Null).await;
        assert_eq!(metadata["data"]["custom_metadata"]["team"], "data", "with {capabilities}");
    }
}

#[tokio::test]
async fn a_path_that_no_request_can_name_is_refused() {
    let bao = Bao::dev().await;
    let store = root_store(&bao).await;
    for path in ["", "a//b", "a/../b", "./a", "a/"] {
        assert_eq!(store.place(target(path, "token")).err().unwrap().reason, Reason::Unsuitable, "{path}");
    }
    // Everything else arrives as it is written.
    let place: Arc<dyn Place> = store.place(target("a b/ü?x=1#y/%2e", "token")).unwrap();
    deliver(&place, "etl", &Delivery::new("etl", 0)).await;
    let listed = bao.ok("LIST", "secret/metadata/a%20b/%C3%BC%3Fx=1%23y", Value::Null).await;
    assert_eq!(listed["data"]["keys"], json!(["%2e"]));
}
