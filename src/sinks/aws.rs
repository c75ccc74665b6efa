//! The AWS Secrets Manager sink.

use std::collections::BTreeMap;

use super::format::Format;

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
