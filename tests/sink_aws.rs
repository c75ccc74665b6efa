//! The AWS sink against moto, and against a proxy that does what moto doesn't.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers outside of `#[test]` functions

#[path = "support/aws_proxy.rs"]
mod aws_proxy;
#[path = "sink_aws/credentials.rs"]
mod credentials;
#[path = "support/log.rs"]
mod log;
#[path = "support/moto.rs"]
mod moto;
#[path = "support/sink_contract.rs"]
#[allow(dead_code)]
mod sink_contract;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_proxy::{Fault, Proxy};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{BehaviorVersion, Builder, Credentials, Region, SharedCredentialsProvider};
use log::Log;
use moto::Moto;
use rotad::rotation::{Failed, Reason, RotationId, Shows, WriteOutcome};
use rotad::secret::Secret;
use rotad::sinks::aws::{self, Config, Limits, Store, Target};
use rotad::sinks::format::{Field, Format};
use rotad::sinks::{Finding, Place, Question, Reading, Version};
use serde_json::{Value, json};
use sink_contract::{Delivery, World};

fn credentials() -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Credentials::new("AKIDTEST", "planted-secret-key", None, None, "test"))
}

fn config(url: &str) -> Config {
    Config {
        region: Some("eu-central-1".to_owned()),
        endpoint_url: Some(url.to_owned()),
        profile: None,
        role_arn: None,
        external_id: None,
        kms_key_id: None,
        tags: BTreeMap::new(),
        create: true,
    }
}

/// Short ones, so that a call that hangs doesn't hold up the tests; a busy machine keeps them all the same.
/// Longer than any answer takes on a machine with much else to do; whoever waits for a limit sets a short one.
fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(20),
        attempt: Duration::from_secs(20),
        operation: Duration::from_secs(60),
        step: Duration::from_secs(120),
    }
}

fn store(config: Config) -> Arc<Store> {
    Store::with(config, limits(), Some(credentials())).unwrap()
}

fn place_in(store: &Arc<Store>, name: &str, format: Format) -> Arc<dyn Place> {
    aws::place(store, &Target { secret: name.to_owned(), format })
}

fn token_only() -> Format {
    Format::Json { fields: vec![("token".to_owned(), Field::Token)] }
}

/// A person with a console: the same store, reached around the sink.
struct Person {
    client: Client,
    _moto: Arc<Moto>,
}

impl Person {
    fn at(moto: &Arc<Moto>) -> Self {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(credentials())
            .endpoint_url(&moto.url)
            .build();
        Self { client: Client::from_conf(config), _moto: moto.clone() }
    }

    async fn create(&self, name: &str, value: &str) {
        self.client.create_secret().name(name).secret_string(value).send().await.unwrap();
    }

    /// Labels by version id; versions without a label are left out.
    async fn labels(&self, name: &str) -> BTreeMap<String, Vec<String>> {
        let description = self.client.describe_secret().secret_id(name).send().await.unwrap();
        let mut labels: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, stages) in description.version_ids_to_stages().into_iter().flatten() {
            let mut stages = stages.clone();
            stages.sort();
            if !stages.is_empty() {
                labels.insert(id.clone(), stages);
            }
        }
        labels
    }

    async fn current_id(&self, name: &str) -> String {
        let labels = self.labels(name).await;
        labels.into_iter().find(|(_, labels)| labels.iter().any(|label| label == "AWSCURRENT")).unwrap().0
    }

    async fn value(&self, name: &str) -> String {
        let answer = self.client.get_secret_value().secret_id(name).version_stage("AWSCURRENT").send().await.unwrap();
        answer.secret_string.unwrap()
    }

    async fn move_current(&self, name: &str, to: &str) {
        let from = self.current_id(name).await;
        let request = self.client.update_secret_version_stage().secret_id(name).version_stage("AWSCURRENT");
        request.move_to_version_id(to).remove_from_version_id(from).send().await.unwrap();
    }

    /// Puts a value where consumers look. By a label move, since moto leaves AWSCURRENT at two versions
    /// when a plain put follows one.
    async fn change(&self, name: &str, value: &str) -> String {
        let request = self.client.put_secret_value().secret_id(name).secret_string(value).version_stages("BY_HAND");
        let id = request.send().await.unwrap().version_id.unwrap();
        self.move_current(name, &id).await;
        id
    }

    async fn tags(&self, name: &str) -> BTreeMap<String, String> {
        let description = self.client.describe_secret().secret_id(name).send().await.unwrap();
        description.tags().iter().map(|tag| (tag.key().unwrap().to_owned(), tag.value().unwrap().to_owned())).collect()
    }
}

/// The contract suite's world: secrets below one prefix.
struct Aws {
    prefix: &'static str,
    format: Format,
    store: Arc<Store>,
    person: Person,
}

impl Aws {
    fn new(prefix: &'static str, format: Format) -> Self {
        let moto = Moto::shared();
        Self { prefix, format, store: store(config(&moto.url)), person: Person::at(&moto) }
    }

    fn secret(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// `token` in this world's format, in the place of the one in `existing`.
    fn body(&self, token: &str, existing: &str) -> String {
        match &self.format {
            Format::Json { .. } => {
                let mut object: Value = serde_json::from_str(existing).unwrap();
                object["token"] = json!(token);
                object.to_string()
            }
            Format::Raw | Format::Env { .. } => token.to_owned(),
        }
    }
}

#[async_trait]
impl World for Aws {
    async fn place(&self, name: &str) -> Arc<dyn Place> {
        place_in(&self.store, &self.secret(name), self.format.clone())
    }

    async fn change_by_hand(&self, name: &str, token: &str) {
        let name = self.secret(name);
        let body = self.body(token, &self.person.value(&name).await);
        self.person.change(&name, &body).await;
    }

    async fn roll_back(&self, name: &str, token: &str, _rotation: RotationId) {
        let name = self.secret(name);
        let description = self.person.client.describe_secret().secret_id(&name).send().await.unwrap();
        for id in description.version_ids_to_stages().unwrap().keys() {
            let version = self.person.client.get_secret_value().secret_id(&name).version_id(id).send().await.unwrap();
            let found = self.format.extract(version.secret_string().unwrap()).unwrap();
            if found.is_some_and(|found| found.expose() == token) {
                return self.person.move_current(&name, id).await;
            }
        }
        panic!("no version of {name} holds the token");
    }

    async fn wipe(&self, name: &str) {
        let request = self.person.client.delete_secret().secret_id(self.secret(name));
        request.force_delete_without_recovery(true).send().await.unwrap();
    }

    /// Labels that are not AWS's, not ours and not the suite's own; tags but the owner's.
    async fn left_over(&self, name: &str) -> Vec<String> {
        let name = self.secret(name);
        if self.person.client.describe_secret().secret_id(&name).send().await.is_err() {
            return Vec::new();
        }
        let known = ["AWSCURRENT", "AWSPREVIOUS", "ROTAD_PENDING", "BY_HAND"];
        let labels: Vec<String> = self.person.labels(&name).await.into_values().flatten().collect();
        let pending = labels.iter().filter(|label| *label == "ROTAD_PENDING").count();
        let mut left: Vec<String> = labels.into_iter().filter(|label| !known.contains(&label.as_str())).collect();
        left.extend((pending > 1).then(|| "two versions are pending".to_owned()));
        left.extend(self.person.tags(&name).await.into_keys().filter(|tag| tag != "rotad:owner"));
        left
    }
}

/// A place behind the faulty proxy, with a person beside it.
struct Bench {
    name: String,
    proxy: Proxy,
    place: Arc<dyn Place>,
    person: Person,
}

impl Bench {
    async fn new(name: &str, format: Format) -> Self {
        Self::with(name, format, limits(), |config| config).await
    }

    async fn with(name: &str, format: Format, limits: Limits, configure: impl FnOnce(Config) -> Config) -> Self {
        let moto = Moto::shared();
        let proxy = Proxy::before(&moto.url).await;
        let store = Store::with(configure(config(&proxy.url)), limits, Some(credentials())).unwrap();
        let name = format!("bench/{name}");
        Self { place: place_in(&store, &name, format), name, proxy, person: Person::at(&moto) }
    }

    /// With the first delivery made.
    async fn delivered(name: &str, format: Format) -> Self {
        let bench = Self::new(name, format).await;
        bench.deliver(0).await;
        bench.proxy.take_calls();
        bench
    }

    fn question(&self) -> Question {
        sink_contract::question("etl")
    }

    async fn try_read(&self) -> Result<Reading, Failed> {
        self.place.read(&self.question()).await
    }

    async fn read(&self) -> Reading {
        self.try_read().await.unwrap_or_else(|failed| panic!("{failed}"))
    }

    async fn version(&self) -> Version {
        self.read().await.version
    }

    async fn write(&self, expected: &Version, number: u32) -> WriteOutcome {
        self.place.write(expected, &Delivery::new("etl", number).payload()).await
    }

    async fn deliver(&self, number: u32) {
        let version = self.version().await;
        assert_eq!(self.write(&version, number).await, WriteOutcome::Written);
    }

    async fn assert_serves(&self, number: u32) {
        let delivery = Delivery::new("etl", number);
        let Shows::Value { fingerprint, rotation, owner } = self.read().await.shows else { panic!("no value") };
        assert_eq!(fingerprint, delivery.value.fingerprint());
        assert_eq!(rotation, Some(delivery.rotation));
        assert_eq!(owner, Some(delivery.owner));
    }
}

fn rotation(number: u32) -> RotationId {
    Delivery::new("etl", number).rotation
}

fn refused(outcome: &WriteOutcome, reason: Reason, containing: &str) {
    let WriteOutcome::Refused(failed) = outcome else { panic!("{outcome:?} is no refusal") };
    assert_eq!(failed.reason, reason, "{failed}");
    assert!(failed.detail.contains(containing), "`{failed}` does not say `{containing}`");
}

fn unknown(outcome: &WriteOutcome, reason: Reason) {
    let WriteOutcome::Unknown(failed) = outcome else { panic!("{outcome:?} is not unknown") };
    assert_eq!(failed.reason, reason, "{failed}");
}

fn unreadable(reading: Result<Reading, Failed>, reason: Reason, containing: &str) {
    let failed = reading.map(|reading| reading.shows).unwrap_err();
    assert_eq!(failed.reason, reason, "{failed}");
    assert!(failed.detail.contains(containing), "`{failed}` does not say `{containing}`");
}

#[tokio::test]
async fn the_contract_holds_for_raw() {
    sink_contract::holds(&Aws::new("contract-raw", Format::Raw)).await;
}

#[tokio::test]
async fn the_contract_holds_for_json() {
    sink_contract::holds(&Aws::new("contract-json", Format::json())).await;
}

#[tokio::test]
async fn the_contract_holds_for_json_with_nothing_but_the_token() {
    sink_contract::holds(&Aws::new("contract-token", token_only())).await;
}

// What is written.

#[tokio::test]
async fn a_created_secret_has_key_tags_owner_and_the_rotation_as_its_version() {
    let bench = Bench::with("created", Format::Raw, limits(), |config| Config {
        kms_key_id: Some("alias/rotad".to_owned()),
        tags: BTreeMap::from([("team".to_owned(), "data".to_owned())]),
        ..config
    })
    .await;
    bench.deliver(0).await;
    let description = bench.person.client.describe_secret().secret_id(&bench.name).send().await.unwrap();
    assert_eq!(description.kms_key_id(), Some("alias/rotad"));
    let tags = bench.person.tags(&bench.name).await;
    assert_eq!(
        tags,
        BTreeMap::from([("rotad:owner".to_owned(), "contract/etl".to_owned()), ("team".to_owned(), "data".to_owned())])
    );
    assert_eq!(bench.person.current_id(&bench.name).await, rotation(0).to_string());
}

#[tokio::test]
async fn replaced_versions_lose_their_labels_so_that_aws_prunes_them() {
    let bench = Bench::new("labels", Format::Raw).await;
    for number in 0..4 {
        bench.deliver(number).await;
    }
    let expected = BTreeMap::from([
        (rotation(3).to_string(), vec!["AWSCURRENT".to_owned(), "ROTAD_PENDING".to_owned()]),
        (rotation(2).to_string(), vec!["AWSPREVIOUS".to_owned()]),
    ]);
    assert_eq!(bench.person.labels(&bench.name).await, expected);
}

#[tokio::test]
async fn a_secret_without_a_value_is_filled_and_tagged() {
    let bench = Bench::with("valueless", Format::Raw, limits(), |config| Config { create: false, ..config }).await;
    bench.person.client.create_secret().name(&bench.name).send().await.unwrap();
    let reading = bench.read().await;
    assert_eq!(reading.shows, Shows::Nothing { owner: None });
    assert_eq!(bench.write(&reading.version, 0).await, WriteOutcome::Written);
    bench.assert_serves(0).await;
}

#[tokio::test]
async fn a_first_version_that_is_not_current_by_itself_is_moved_there() {
    let bench = Bench::new("unmoved", Format::Raw).await;
    bench.person.client.create_secret().name(&bench.name).send().await.unwrap();
    bench.proxy.on("PutSecretValue", 1, Fault::edit(|answer| answer["VersionStages"] = json!(["ROTAD_PENDING"])));
    bench.proxy.on("UpdateSecretVersionStage", 1, Fault::Answer(json!({})));
    let version = bench.version().await;
    bench.proxy.take_calls();
    assert_eq!(bench.write(&version, 0).await, WriteOutcome::Written);
    let calls = bench.proxy.take_calls();
    let last = calls.last().unwrap();
    assert_eq!(last.action, "UpdateSecretVersionStage");
    assert_eq!(last.body["MoveToVersionId"], rotation(0).to_string());
    assert_eq!(last.body.get("RemoveFromVersionId"), None, "there is no version to take the label from");
}

#[tokio::test]
async fn a_missing_secret_is_not_created_where_the_sink_must_not() {
    let bench = Bench::with("uncreated", Format::Raw, limits(), |config| Config { create: false, ..config }).await;
    let reading = bench.read().await;
    assert_eq!(reading.shows, Shows::Nothing { owner: None });
    refused(&bench.write(&reading.version, 0).await, Reason::Missing, "create = false");
    assert!(!bench.proxy.take_actions().contains(&"CreateSecret".to_owned()));
}

#[tokio::test]
async fn a_secret_that_was_created_meanwhile_is_a_conflict() {
    let bench = Bench::new("raced", Format::Raw).await;
    let version = bench.version().await;
    bench.person.create(&bench.name, "theirs").await;
    assert_eq!(bench.write(&version, 0).await, WriteOutcome::Conflict);
    assert_eq!(bench.person.value(&bench.name).await, "theirs");
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_tagged_before_the_first_write() {
    let bench = Bench::new("taken-over", Format::Raw).await;
    bench.person.create(&bench.name, "theirs").await;
    let reading = bench.read().await;
    let fingerprint = Secret::new("theirs".to_owned()).fingerprint();
    assert_eq!(reading.shows, Shows::Value { fingerprint, owner: None, rotation: None });
    bench.proxy.take_calls();
    assert_eq!(bench.write(&reading.version, 0).await, WriteOutcome::Written);
    assert_eq!(bench.proxy.take_actions(), ["TagResource", "PutSecretValue", "UpdateSecretVersionStage"]);
    bench.assert_serves(0).await;

    // Once it is ours, a write is two calls.
    let version = bench.version().await;
    bench.proxy.take_calls();
    assert_eq!(bench.write(&version, 1).await, WriteOutcome::Written);
    assert_eq!(bench.proxy.take_actions(), ["PutSecretValue", "UpdateSecretVersionStage"]);
}

#[tokio::test]
async fn other_keys_of_a_json_secret_are_kept() {
    let bench = Bench::new("keys", Format::json()).await;
    bench.person.create(&bench.name, r#"{"host": "db.internal", "big": 12345678901234567890123}"#).await;
    assert_eq!(bench.read().await.shows, Shows::Nothing { owner: None }, "no token of ours in it");
    bench.deliver(0).await;
    bench.assert_serves(0).await;
    let value = bench.person.value(&bench.name).await;
    assert!(value.starts_with(r#"{"host":"db.internal","big":12345678901234567890123,"token":"token-etl-0-"#), "{value}");
}

#[tokio::test]
async fn a_json_key_of_somebody_else_is_not_overwritten() {
    let bench = Bench::new("clash", Format::json()).await;
    bench.person.create(&bench.name, r#"{"account": "theirs"}"#).await;
    unreadable(bench.try_read().await, Reason::Unsuitable, "`account`");
}

#[tokio::test]
async fn a_retry_after_other_keys_changed_is_not_refused() {
    let bench = Bench::delivered("retried", Format::json()).await;
    let version = bench.version().await;
    // The version is put, and the label stays: as if rotad had ended in between.
    bench.proxy.on("UpdateSecretVersionStage", usize::MAX, Fault::refuse("AccessDeniedException"));
    refused(&bench.write(&version, 1).await, Reason::Forbidden, "`secretsmanager:UpdateSecretVersionStage` on `bench/retried`");
    bench.proxy.heal();
    let mut body: Value = serde_json::from_str(&bench.person.value(&bench.name).await).unwrap();
    body["host"] = json!("db.internal");
    bench.person.change(&bench.name, &body.to_string()).await;

    bench.deliver(1).await;
    bench.assert_serves(1).await;
    assert!(bench.person.value(&bench.name).await.contains("db.internal"));
}

#[tokio::test]
async fn a_json_value_is_known_by_its_body_or_by_a_candidate_and_not_after_a_change_by_hand() {
    for (name, format) in [("known-by-body", Format::json()), ("known-by-candidate", token_only())] {
        let by_body = matches!(&format, Format::Json { fields } if fields.len() > 1);
        let bench = Bench::delivered(name, format).await;
        let asked_blindly = Question { candidates: Vec::new(), ..bench.question() };
        let Shows::Value { rotation: found, .. } = bench.place.read(&asked_blindly).await.unwrap().shows else {
            panic!("no value")
        };
        assert_eq!(found, by_body.then(|| rotation(0)));
        bench.assert_serves(0).await;

        let changed = bench.person.value(&bench.name).await.replace('{', r#"{"new":1,"#);
        bench.person.change(&bench.name, &changed).await;
        let Shows::Value { rotation: found, fingerprint, .. } = bench.read().await.shows else { panic!("no value") };
        assert_eq!(found, None);
        assert_eq!(fingerprint, Delivery::new("etl", 0).value.fingerprint(), "the token itself is the same");
    }
}

#[tokio::test]
async fn a_delivery_that_becomes_json_shows_its_raw_token_until_it_is_replaced() {
    let bench = Bench::delivered("reformed", Format::Raw).await;
    let store = store(config(&bench.proxy.url));
    let reformed = Bench { place: place_in(&store, &bench.name, Format::json()), ..bench };
    reformed.assert_serves(0).await;
    reformed.deliver(1).await;
    reformed.assert_serves(1).await;
    assert!(reformed.person.value(&reformed.name).await.starts_with(r#"{"token":"#));
}

#[tokio::test]
async fn a_roll_back_by_a_person_is_readable_and_the_next_write_goes_on_from_it() {
    let bench = Bench::delivered("rolled-back", Format::Raw).await;
    bench.deliver(1).await;
    bench.person.move_current(&bench.name, &rotation(0).to_string()).await;
    bench.assert_serves(0).await;
    // The very rotation that was rolled back, put again: its version is there already.
    bench.deliver(1).await;
    bench.assert_serves(1).await;
}

// What is refused.

#[tokio::test]
async fn a_write_is_a_conflict_when_the_label_moved_meanwhile() {
    let bench = Bench::delivered("moved", Format::Raw).await;
    let version = bench.version().await;
    bench.person.change(&bench.name, "theirs").await;
    assert_eq!(bench.write(&version, 1).await, WriteOutcome::Conflict);
    assert_eq!(bench.person.value(&bench.name).await, "theirs");
}

#[tokio::test]
async fn a_version_id_that_is_used_with_another_value_is_refused_for_this_rotation_only() {
    let bench = Bench::delivered("used", Format::Raw).await;
    let request = bench.person.client.put_secret_value().secret_id(&bench.name).client_request_token(rotation(1).to_string());
    request.secret_string("theirs").version_stages("BY_HAND").send().await.unwrap();
    let version = bench.version().await;
    refused(&bench.write(&version, 1).await, Reason::NameTaken, "the next rotation gets past it");
    assert_eq!(bench.write(&version, 2).await, WriteOutcome::Written);
}

#[tokio::test]
async fn a_secret_that_aws_rotates_is_unsuitable() {
    let bench = Bench::delivered("rotated", Format::Raw).await;
    bench.proxy.on("DescribeSecret", usize::MAX, Fault::edit(|answer| answer["RotationEnabled"] = json!(true)));
    unreadable(bench.try_read().await, Reason::Unsuitable, "cancel-rotate-secret");
    let findings = bench.place.check().await;
    assert!(
        findings.iter().any(|finding| matches!(finding, Finding::Wrong(failed) if failed.detail.contains("RotationEnabled")))
    );
}

#[tokio::test]
async fn secrets_that_others_manage_or_that_are_replicas_are_unsuitable() {
    let bench = Bench::delivered("managed", Format::Raw).await;
    bench.proxy.on("DescribeSecret", 1, Fault::edit(|answer| answer["OwningService"] = json!("rds")));
    unreadable(bench.try_read().await, Reason::Unsuitable, "`rds`");
    bench.proxy.on("DescribeSecret", 1, Fault::edit(|answer| answer["PrimaryRegion"] = json!("us-east-1")));
    unreadable(bench.try_read().await, Reason::Unsuitable, "region = \"us-east-1\"");
    bench.assert_serves(0).await;
}

#[tokio::test]
async fn a_binary_secret_is_unsuitable() {
    let bench = Bench::new("binary", Format::Raw).await;
    let blob = aws_sdk_secretsmanager::primitives::Blob::new([0xff, 0x00]);
    bench.person.client.create_secret().name(&bench.name).secret_binary(blob).send().await.unwrap();
    unreadable(bench.try_read().await, Reason::Unsuitable, "binary");
}

#[tokio::test]
async fn an_owner_tag_that_says_nothing_is_unsuitable() {
    let bench = Bench::delivered("mistagged", Format::Raw).await;
    let tag = aws_sdk_secretsmanager::types::Tag::builder().key("rotad:owner").value("Prod ETL").build();
    bench.person.client.tag_resource().secret_id(&bench.name).tags(tag).send().await.unwrap();
    unreadable(bench.try_read().await, Reason::Unsuitable, "`Prod ETL`");
}

#[tokio::test]
async fn a_secret_scheduled_for_deletion_is_told_and_not_written() {
    let bench = Bench::delivered("deleted", Format::Raw).await;
    let version = bench.version().await;
    bench.person.client.delete_secret().secret_id(&bench.name).recovery_window_in_days(7).send().await.unwrap();
    assert_eq!(bench.read().await.shows, Shows::ScheduledForDeletion);
    let message = "You can't perform this operation on the secret because it was marked for deletion.";
    bench.proxy.on("PutSecretValue", 1, Fault::Refuse(400, "InvalidRequestException", message.to_owned()));
    refused(&bench.write(&version, 1).await, Reason::Rejected, "marked for deletion");
    let findings = bench.place.check().await;
    assert!(matches!(&findings[..], [Finding::Wrong(failed)] if failed.detail.contains("restore-secret")), "{findings:?}");
}

#[tokio::test]
async fn a_value_too_large_is_refused_before_it_is_sent() {
    let bench = Bench::new("large", Format::json()).await;
    bench.person.create(&bench.name, &json!({ "ballast": "x".repeat(65_500) }).to_string()).await;
    let version = bench.version().await;
    bench.proxy.take_calls();
    refused(&bench.write(&version, 0).await, Reason::Full, "65536");
    assert_eq!(bench.proxy.take_actions(), ["GetSecretValue"]);
}

// Replicas.

fn with_replica(status: &'static str) -> Fault {
    Fault::edit(move |answer| {
        answer["ReplicationStatus"] = json!([{ "Region": "us-east-1", "Status": status, "StatusMessage": "why" }])
    })
}

#[tokio::test]
async fn a_rotation_is_confirmed_when_every_replica_is_in_sync() {
    let bench = Bench::delivered("replicated", Format::Raw).await;
    for status in ["InProgress", "Failed"] {
        bench.proxy.on("DescribeSecret", 1, with_replica(status));
        unreadable(bench.try_read().await, Reason::Unavailable, &format!("in us-east-1 is {status} (why)"));
    }
    bench.proxy.on("DescribeSecret", 1, with_replica("InSync"));
    bench.assert_serves(0).await;
    // moto's own replicas are in sync at once.
    let replica = aws_sdk_secretsmanager::types::ReplicaRegionType::builder().region("us-west-2").build();
    let request = bench.person.client.replicate_secret_to_regions().secret_id(&bench.name).add_replica_regions(replica);
    request.send().await.unwrap();
    bench.assert_serves(0).await;
}

// What fails on the way.

#[tokio::test]
async fn throttled_calls_are_repeated_and_then_refused() {
    let bench = Bench::delivered("throttled", Format::Raw).await;
    for action in ["DescribeSecret", "GetSecretValue", "PutSecretValue", "UpdateSecretVersionStage"] {
        bench.proxy.on(action, 2, Fault::refuse("ThrottlingException"));
    }
    bench.deliver(1).await;
    bench.assert_serves(1).await;
    for action in ["PutSecretValue", "UpdateSecretVersionStage"] {
        let version = bench.version().await;
        bench.proxy.on(action, usize::MAX, Fault::refuse("ThrottlingException"));
        bench.proxy.take_calls();
        refused(&bench.write(&version, 2).await, Reason::Throttled, "slow down");
        let sent = bench.proxy.take_actions().iter().filter(|sent| *sent == action).count();
        assert_eq!(sent, 3, "{action} is sent three times at most");
        bench.proxy.heal();
    }
    bench.proxy.on("DescribeSecret", usize::MAX, Fault::refuse("ThrottlingException"));
    unreadable(bench.try_read().await, Reason::Throttled, "slow down");
}

#[tokio::test]
async fn a_move_whose_answer_was_lost_is_found_to_be_carried_out() {
    let bench = Bench::delivered("lost-move", Format::Raw).await;
    let version = bench.version().await;
    bench.proxy.on("UpdateSecretVersionStage", 1, Fault::LoseAnswer);
    assert_eq!(bench.write(&version, 1).await, WriteOutcome::Written);
    bench.assert_serves(1).await;
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_found_to_be_carried_out() {
    let bench = Bench::new("lost-creation", Format::Raw).await;
    let version = bench.version().await;
    bench.proxy.on("CreateSecret", 1, Fault::LoseAnswer);
    assert_eq!(bench.write(&version, 0).await, WriteOutcome::Written);
    bench.assert_serves(0).await;
}

#[tokio::test]
async fn a_move_that_never_arrives_is_unknown() {
    let bench = Bench::delivered("reset", Format::Raw).await;
    for (fault, reason) in [
        (Fault::Reset, Reason::BadAnswer),
        (Fault::Text(502, "<html>bad gateway</html>"), Reason::Unavailable),
        (Fault::refuse("InternalServiceError"), Reason::Unavailable),
    ] {
        let version = bench.version().await;
        bench.proxy.on("UpdateSecretVersionStage", usize::MAX, fault);
        unknown(&bench.write(&version, 1).await, reason);
        bench.proxy.heal();
        bench.assert_serves(0).await;
    }
}

#[tokio::test]
async fn a_move_that_may_have_landed_before_a_refusal_stays_unknown() {
    let bench = Bench::delivered("doubt", Format::Raw).await;
    let version = bench.version().await;
    // The first attempt is carried out and its answer lost; the second is refused, since the label has
    // moved; and the description lags.
    let stale = bench.person.client.describe_secret().secret_id(&bench.name).send().await.unwrap();
    let stages: BTreeMap<&String, &Vec<String>> = stale.version_ids_to_stages().unwrap().iter().collect();
    bench.proxy.on("UpdateSecretVersionStage", 1, Fault::LoseAnswer);
    bench.proxy.on("DescribeSecret", 1, Fault::Answer(json!({ "Name": bench.name, "VersionIdsToStages": stages })));
    unknown(&bench.write(&version, 1).await, Reason::Rejected);
    bench.assert_serves(1).await;
}

#[tokio::test]
async fn calls_that_hang_end_within_the_limits() {
    let short = Limits {
        attempt: Duration::from_millis(1500),
        operation: Duration::from_secs(6),
        step: Duration::from_secs(12),
        ..limits()
    };
    let bench = Bench::with("hanging", Format::Raw, short, |config| config).await;
    bench.proxy.on("DescribeSecret", usize::MAX, Fault::Hang);
    unreadable(bench.try_read().await, Reason::TimedOut, "`DescribeSecret` for `bench/hanging`");
    bench.proxy.heal();
    let absent = bench.version().await;
    bench.proxy.on("CreateSecret", usize::MAX, Fault::Hang);
    unknown(&bench.write(&absent, 0).await, Reason::TimedOut);
    bench.proxy.heal();
    bench.deliver(0).await;

    let version = bench.version().await;
    bench.proxy.on("PutSecretValue", usize::MAX, Fault::Hang);
    let outcome = bench.write(&version, 1).await;
    refused(&outcome, Reason::TimedOut, "`PutSecretValue`");
    bench.proxy.heal();
    bench.proxy.on("UpdateSecretVersionStage", usize::MAX, Fault::Hang);
    unknown(&bench.write(&version, 1).await, Reason::TimedOut);
    bench.proxy.heal();
    bench.assert_serves(0).await;
    bench.proxy.on("UpdateSecretVersionStage", 1, Fault::CarryOutAndHang);
    assert_eq!(bench.write(&version, 1).await, WriteOutcome::Written);
    bench.assert_serves(1).await;
}

#[tokio::test]
async fn nothing_listening_is_unreachable_and_a_write_to_it_refused() {
    let mut bench = Bench::delivered("unreachable", Format::Raw).await;
    let version = bench.version().await;
    let store = store(config("http://127.0.0.1:9"));
    bench.place = place_in(&store, &bench.name, Format::Raw);
    unreadable(bench.try_read().await, Reason::Unreachable, "no connection");
    refused(&bench.write(&version, 1).await, Reason::Unreachable, "no connection");
}

#[tokio::test]
async fn a_read_waits_until_description_and_value_agree() {
    let bench = Bench::delivered("lagging", Format::Raw).await;
    let old = json!({ "Name": bench.name, "VersionId": rotation(0).to_string(), "SecretString": Delivery::new("etl", 0).value.expose() });
    bench.deliver(1).await;
    bench.proxy.on("GetSecretValue", 2, Fault::Answer(old.clone()));
    bench.assert_serves(1).await;
    bench.proxy.on("GetSecretValue", usize::MAX, Fault::Answer(old));
    unreadable(bench.try_read().await, Reason::Unavailable, "reads lag");
    bench.proxy.heal();
    // A refusal that stays is no lag, and is told as it came.
    bench.proxy.on("GetSecretValue", usize::MAX, Fault::refuse("InvalidRequestException"));
    unreadable(bench.try_read().await, Reason::Rejected, "InvalidRequestException, says the proxy");
}

#[tokio::test]
async fn the_label_is_named_in_every_read_of_the_current_value() {
    let bench = Bench::delivered("named", Format::Raw).await;
    bench.read().await;
    bench.place.check().await;
    let calls = bench.proxy.take_calls();
    let reads: Vec<_> = calls.iter().filter(|call| call.action == "GetSecretValue").collect();
    assert_eq!(reads.len(), 2);
    assert!(reads.iter().all(|call| call.body["VersionStage"] == "AWSCURRENT"), "{reads:?}");
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let bench = Bench::delivered("errors", Format::Raw).await;
    for (code, reason, containing) in [
        ("AccessDeniedException", Reason::Forbidden, "lacks `secretsmanager:GetSecretValue` on `bench/errors`"),
        ("DecryptionFailure", Reason::Forbidden, "`kms:Decrypt`"),
        ("ExpiredTokenException", Reason::Unauthorized, "renew"),
        ("UnrecognizedClientException", Reason::Unauthorized, "credentials"),
    ] {
        bench.proxy.on("GetSecretValue", 1, Fault::refuse(code));
        unreadable(bench.try_read().await, reason, containing);
    }
    let version = bench.version().await;
    for (code, reason, containing) in [
        ("AccessDeniedException", Reason::Forbidden, "lacks `secretsmanager:PutSecretValue` on `bench/errors`"),
        ("EncryptionFailure", Reason::Forbidden, "`kms:GenerateDataKey`"),
        ("LimitExceededException", Reason::Full, "quota"),
        ("PreconditionNotMetException", Reason::Rejected, "PreconditionNotMetException"),
    ] {
        bench.proxy.on("PutSecretValue", usize::MAX, Fault::refuse(code));
        refused(&bench.write(&version, 1).await, reason, containing);
        bench.proxy.heal();
    }
}

#[tokio::test]
async fn a_secret_can_not_be_taken_over_without_marking_it() {
    let bench = Bench::new("untagged", Format::Raw).await;
    bench.person.create(&bench.name, "theirs").await;
    let version = bench.version().await;
    bench.proxy.on("TagResource", usize::MAX, Fault::refuse("AccessDeniedException"));
    bench.proxy.take_calls();
    refused(&bench.write(&version, 0).await, Reason::Forbidden, "set the tag `rotad:owner` = `contract/etl` yourself");
    assert_eq!(bench.proxy.take_actions(), ["TagResource"]);
    // A person who sets the tag beforehand spares rotad the permission.
    let tag = aws_sdk_secretsmanager::types::Tag::builder().key("rotad:owner").value("contract/etl").build();
    bench.person.client.tag_resource().secret_id(&bench.name).tags(tag).send().await.unwrap();
    bench.deliver(0).await;
    bench.assert_serves(0).await;
}

// Permissions, as `docs/aws.md` has them.

/// The actions that the policy below `heading` allows.
fn documented_actions(heading: &str) -> Vec<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/aws.md")).unwrap();
    let section = text.split_once(&format!("### {heading}\n")).expect("the heading is there").1;
    let policy = section.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let policy: Value = serde_json::from_str(policy).unwrap();
    policy["Statement"][0]["Action"].as_array().unwrap().iter().map(|action| action.as_str().unwrap().to_owned()).collect()
}

/// The first failure on the way through some deliveries.
async fn deliver_and_read_back(bench: &Bench) -> Result<(), Failed> {
    for number in 0..2 {
        let version = bench.try_read().await?.version;
        match bench.write(&version, number).await {
            WriteOutcome::Written => {}
            WriteOutcome::Refused(failed) => return Err(failed),
            other => panic!("{other:?}"),
        }
        bench.try_read().await?;
    }
    Ok(())
}

#[tokio::test]
async fn each_documented_permission_is_needed_and_together_they_are_enough() {
    for (policy, create) in [("For secrets that you create", false), ("For secrets that rotad creates or takes over", true)] {
        let actions = documented_actions(policy);
        // All of them, then all but one.
        for missing in std::iter::once(None).chain(actions.iter().map(Some)) {
            let name = format!("policy-{create}-{}", missing.map_or("none", |action| action.split_once(':').unwrap().1));
            let bench = Bench::with(&name, Format::json(), limits(), |config| Config { create, ..config }).await;
            let tag = aws_sdk_secretsmanager::types::Tag::builder().key("rotad:owner").value("contract/etl").build();
            match create {
                false => {
                    let request = bench.person.client.create_secret().name(&bench.name).secret_string("{}").tags(tag);
                    request.send().await.unwrap();
                }
                // Its creation meets `CreateSecret`, its take-over `TagResource`.
                true if missing.is_some_and(|action| action.ends_with("TagResource")) => {
                    bench.person.create(&bench.name, "{}").await;
                }
                true => {}
            }
            let permitted: Vec<String> = actions.iter().filter(|action| Some(*action) != missing).cloned().collect();
            bench.proxy.permit_only(&permitted);
            match (missing, deliver_and_read_back(&bench).await) {
                (None, result) => assert_eq!(result, Ok(()), "{policy}"),
                (Some(action), Ok(())) => panic!("`{action}` is in the policy and not needed: {policy}"),
                (Some(action), Err(failed)) => {
                    assert_eq!(failed.reason, Reason::Forbidden);
                    assert!(failed.detail.contains(&format!("lacks `{action}` on `{}`", bench.name)), "{failed}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_check_says_what_can_not_be_known_without_writing() {
    let bench = Bench::new("checked", Format::Raw).await;
    let findings = bench.place.check().await;
    assert!(
        matches!(&findings[..], [Finding::Fine(_), Finding::Unknowable(what)] if what.contains("`secretsmanager:CreateSecret`"))
    );
    bench.deliver(0).await;
    bench.proxy.take_calls();
    let findings = bench.place.check().await;
    assert!(findings.iter().all(|finding| !matches!(finding, Finding::Wrong(_))), "{findings:?}");
    assert!(findings.contains(&Finding::Fine("`bench/checked` belongs to `contract/etl`".to_owned())));
    let unknowable = |what: &str| findings.iter().any(|found| matches!(found, Finding::Unknowable(text) if text.contains(what)));
    assert!(unknowable("`secretsmanager:PutSecretValue`") && !unknowable("TagResource"), "{findings:?}");
    assert_eq!(bench.proxy.take_actions(), ["DescribeSecret", "GetSecretValue"], "a check writes nothing");

    bench.proxy.on("GetSecretValue", 1, Fault::refuse("AccessDeniedException"));
    let findings = bench.place.check().await;
    assert!(findings.iter().any(|finding| matches!(finding, Finding::Wrong(failed) if failed.reason == Reason::Forbidden)));

    let uncreated = Bench::with("check-uncreated", Format::Raw, limits(), |config| Config { create: false, ..config }).await;
    let findings = uncreated.place.check().await;
    assert!(matches!(&findings[..], [Finding::Wrong(failed)] if failed.reason == Reason::Missing));
}

// What must never show.

#[tokio::test]
async fn no_value_is_logged_at_any_level() {
    let log = Log::of_this_thread();
    let mut details = Vec::new();
    for (name, format) in [("logged-raw", Format::Raw), ("logged-json", Format::json())] {
        let bench = Bench::new(name, format).await;
        bench.deliver(0).await;
        bench.deliver(1).await;
        let version = bench.version().await;
        let value = Delivery::new("etl", 1).value;
        let echo = |text: &str| json!({ "SecretString": value.expose(), "VersionId": text, "VersionStages": [1] }).to_string();
        // Answers that make no sense and hold the value: cut off, of wrong types, in an error's place.
        let cut: &'static str = Box::leak(format!("{{\"SecretString\":\"{}", value.expose()).into_boxed_str());
        let mistyped: &'static str = Box::leak(echo("x").into_boxed_str());
        for (status, text) in [(200, cut), (200, mistyped), (500, cut), (400, mistyped)] {
            bench.proxy.on("GetSecretValue", usize::MAX, Fault::Text(status, text));
            details.push(bench.try_read().await.map(|reading| reading.shows).unwrap_err().detail);
            bench.proxy.heal();
        }
        for fault in
            [Fault::Reset, Fault::LoseAnswer, Fault::refuse("AccessDeniedException"), Fault::refuse("ThrottlingException")]
        {
            bench.proxy.on("PutSecretValue", usize::MAX, fault);
            details.push(format!("{:?}", bench.write(&version, 2).await));
            bench.proxy.heal();
        }
        bench.deliver(2).await;
    }
    let text = log.text();
    for logged in ["aws_", "PutSecretValue", "TRACE"] {
        assert!(text.contains(logged), "the log is not the whole log: it lacks {logged}");
    }
    for number in 0..3 {
        let value = Delivery::new("etl", number).value;
        for planted in [value.expose(), "planted-secret-key"] {
            let line = text.lines().find(|line| line.contains(planted));
            assert_eq!(line, None);
            assert!(details.iter().all(|detail| !detail.contains(planted)), "{details:?}");
        }
    }
}
