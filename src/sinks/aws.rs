//! The AWS Secrets Manager sink.
//!
//! **What it writes.** A new version of the secret under our own label `ROTAD_PENDING`; then it moves
//! `AWSCURRENT` there, away from the version that was read: that move is the conditional write, and a
//! late one is refused. Consumers, who read `AWSCURRENT`, see the old or the new value, nothing else.
//! The label `ROTAD_PENDING` stays where it is until the next write takes it along: so a replaced
//! version keeps `AWSPREVIOUS` for one rotation, then no label, and AWS prunes it; nothing piles up
//! but what was written within a day. A secret without any value gets its first version, which AWS
//! makes current by itself; a missing secret is created, where the configuration lets it.
//!
//! **The marker** is the version's id, see `marker`; versions never change, so it stays with the
//! value through every roll-back. **The owner** is the tag `rotad:owner`, set at creation or before
//! the first write.
//!
//! **Permissions**: `docs/aws.md` has the policies, which the tests take from there.

mod check;
mod client;
mod failure;
pub mod marker;
mod read;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;

use super::format::Format;
use super::{Finding, Payload, Question, Reading, Version};
use crate::rotation::{DeliveryId, Failed, WriteOutcome};
pub use client::{Limits, Store};

/// `[sink.<name>.aws]`: everything unset comes from the default credential chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub region: Option<String>,
    /// `https://…`, or `http://` on loopback.
    pub endpoint_url: Option<String>,
    pub profile: Option<String>,
    pub role_arn: Option<String>,
    pub external_id: Option<String>,
    /// For secrets that rotad creates.
    pub kms_key_id: Option<String>,
    /// For secrets that rotad creates.
    pub tags: BTreeMap<String, String>,
    /// Whether a missing secret is created; `true` by default.
    pub create: bool,
}

/// What a delivery to AWS says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The secret's name or ARN, placeholders filled in.
    pub secret: String,
    pub format: Format,
}

impl Target {
    /// Where this is: `aws:<region or endpoint>/<secret>`, with `<account>@` or `<profile>@` before the
    /// region where the configuration tells it, since two accounts may have secrets of one name.
    pub fn delivery_id(&self, config: &Config) -> DeliveryId {
        let arn = Arn::parse(&self.secret);
        let account = match (&arn, &config.role_arn, &config.profile) {
            (Some(arn), _, _) => Some(arn.account),
            (None, Some(role), _) => role.split(':').nth(4).filter(|account| !account.is_empty()),
            (None, None, profile) => profile.as_deref(),
        };
        let region = arn.as_ref().map(|arn| arn.region).or(config.region.as_deref()).unwrap_or("default-region");
        let scope = config.endpoint_url.as_deref().map_or(region, |endpoint| endpoint.trim_end_matches('/'));
        let name = arn.as_ref().map_or(self.secret.as_str(), Arn::name);
        match account {
            Some(account) => DeliveryId::new(&format!("aws:{account}@{scope}/{name}")),
            None => DeliveryId::new(&format!("aws:{scope}/{name}")),
        }
    }
}

/// `arn:aws:secretsmanager:<region>:<account>:secret:<name>-<six characters>`
struct Arn<'a> {
    region: &'a str,
    account: &'a str,
    resource: &'a str,
}

impl<'a> Arn<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(7, ':');
        if parts.next()? != "arn" {
            return None;
        }
        let (_partition, service, region, account) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (kind, resource) = (parts.next()?, parts.next()?);
        (service == "secretsmanager" && kind == "secret").then_some(Self { region, account, resource })
    }

    /// The secret's name: the resource without the hyphen and six characters that AWS appends.
    fn name(&self) -> &'a str {
        match self.resource.rsplit_once('-') {
            Some((name, suffix)) if suffix.len() == 6 && !name.is_empty() => name,
            _ => self.resource,
        }
    }
}

/// One secret in one `Store`, as one credential's delivery. Small, since there may be 100,000.
struct Secret {
    store: Arc<Store>,
    id: DeliveryId,
    /// Name or ARN, as the configuration has it.
    name: Box<str>,
    format: Arc<Format>,
}

/// The place that `target` says, in `store`.
pub fn place(store: &Arc<Store>, target: &Target) -> Arc<dyn super::Place> {
    Arc::new(Secret {
        id: target.delivery_id(store.config()),
        name: target.secret.as_str().into(),
        format: store.shared_format(&target.format),
        store: store.clone(),
    })
}

#[async_trait]
impl super::Place for Secret {
    fn id(&self) -> &DeliveryId {
        &self.id
    }

    fn write_limit(&self) -> SignedDuration {
        self.store.limits().write()
    }

    async fn read(&self, question: &Question) -> Result<Reading, Failed> {
        read::read(self, question).await
    }

    async fn write(&self, expected: &Version, payload: &Payload<'_>) -> WriteOutcome {
        write::write(self, expected, payload).await
    }

    async fn check(&self) -> Vec<Finding> {
        check::check(self).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            region: Some("eu-central-1".to_owned()),
            endpoint_url: None,
            profile: None,
            role_arn: None,
            external_id: None,
            kms_key_id: None,
            tags: BTreeMap::new(),
            create: true,
        }
    }

    fn id(secret: &str, config: &Config) -> String {
        Target { secret: secret.to_owned(), format: Format::Raw }.delivery_id(config).to_string()
    }

    #[test]
    fn an_id_says_where_the_secret_is() {
        assert_eq!(id("prod/etl", &config()), "aws:eu-central-1/prod/etl");
        let endpoint = Config { endpoint_url: Some("http://127.0.0.1:5000/".to_owned()), ..config() };
        assert_eq!(id("prod/etl", &endpoint), "aws:http://127.0.0.1:5000/prod/etl");
        let nowhere = Config { region: None, ..config() };
        assert_eq!(id("prod/etl", &nowhere), "aws:default-region/prod/etl");
    }

    #[test]
    fn secrets_of_one_name_in_two_accounts_are_two_places() {
        let role = |account| Config { role_arn: Some(format!("arn:aws:iam::{account}:role/rotad")), ..config() };
        assert_eq!(id("etl", &role("111111111111")), "aws:111111111111@eu-central-1/etl");
        assert_ne!(id("etl", &role("111111111111")), id("etl", &role("222222222222")));
        let profile = Config { profile: Some("staging".to_owned()), ..config() };
        assert_eq!(id("etl", &profile), "aws:staging@eu-central-1/etl");
    }

    #[test]
    fn an_arn_gives_account_region_and_name() {
        let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:prod/etl-AbCdEf";
        assert_eq!(id(arn, &config()), "aws:123456789012@us-east-1/prod/etl");
        let without_suffix = "arn:aws:secretsmanager:us-east-1:123456789012:secret:prod/etl-motherduck";
        assert_eq!(id(without_suffix, &config()), "aws:123456789012@us-east-1/prod/etl-motherduck");
    }

    #[test]
    fn a_place_is_small_and_shares_its_format() {
        let store = Store::new(config()).unwrap();
        let format = store.shared_format(&Format::json());
        assert!(Arc::ptr_eq(&format, &store.shared_format(&Format::json())));
        assert!(!Arc::ptr_eq(&format, &store.shared_format(&Format::Raw)));
        assert!(size_of::<Secret>() <= 48);
    }
}
