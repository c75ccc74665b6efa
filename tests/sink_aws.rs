//! The AWS sink against moto, and against a proxy that does what moto doesn't.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers outside of `#[test]` functions

#[path = "support/aws_proxy.rs"]
mod aws_proxy;
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
fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(5),
        attempt: Duration::from_secs(5),
        operation: Duration::from_secs(20),
        step: Duration::from_secs(40),
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
