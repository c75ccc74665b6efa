//! What AWS's errors mean here: by their code, never by the HTTP status.

use std::error::Error;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};

use crate::cause::chain;
use crate::rotation::{Failed, Reason};
use crate::secret::presentable;

/// The calls that rotad makes; each needs the IAM action of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Describe,
    Get,
    Create,
    Tag,
    Put,
    Move,
}

impl Call {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Describe => "DescribeSecret",
            Self::Get => "GetSecretValue",
            Self::Create => "CreateSecret",
            Self::Tag => "TagResource",
            Self::Put => "PutSecretValue",
            Self::Move => "UpdateSecretVersionStage",
        }
    }

    /// What the call needs of the key that encrypts the secret.
    fn kms_actions(self) -> &'static str {
        match self {
            Self::Get => "`kms:Decrypt`",
            Self::Describe | Self::Create | Self::Tag | Self::Put | Self::Move => "`kms:GenerateDataKey` and `kms:Decrypt`",
        }
    }
}

/// The codes that a caller treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// No such secret, version, or version with such a label.
    NotFound,
    /// The name or the version's id is taken.
    Exists,
    /// Among others: a label is not where the call says.
    InvalidParameter,
    /// Among others: the secret is scheduled for deletion.
    InvalidRequest,
    Other,
}

/// A call that did not succeed.
#[derive(Debug)]
pub(super) struct Failure {
    pub code: Code,
    pub failed: Failed,
    /// Whether it may have been carried out all the same, or may still be.
    pub may_have_landed: bool,
}

impl Failure {
    /// What `error` says of the call, made for `secret`.
    pub(super) fn new<E, R>(call: Call, secret: &str, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        if let Some(service) = error.as_service_error() {
            return Self::answered(call, secret, service.code().unwrap_or(""), service.message().unwrap_or(""));
        }
        let name = call.as_str();
        if let Some(credentials) = in_chain::<CredentialsError>(error) {
            return Self::definite(Code::Other, credentials_failure(credentials));
        }
        let (reason, what, may_have_landed) = match error {
            SdkError::ConstructionFailure(_) => {
                (Reason::Rejected, "could not be built: the sink's settings make no request", false)
            }
            SdkError::TimeoutError(_) => (Reason::TimedOut, "had no answer within its time limit", true),
            SdkError::DispatchFailure(dispatch) if dispatch.is_timeout() => (Reason::TimedOut, "had no answer in time", true),
            SdkError::DispatchFailure(_) if never_connected(error) => (Reason::Unreachable, "found no connection", false),
            SdkError::DispatchFailure(_) => (Reason::BadAnswer, "lost its connection before the answer", true),
            _ => (Reason::BadAnswer, "had an answer that makes no sense", true),
        };
        // The SDK's own text is left out: it may quote an answer that holds a value.
        let failed = Failed::new(reason, format!("`{name}` for `{secret}` {what}"));
        Self { code: Code::Other, failed, may_have_landed }
    }

    /// A failure that certainly changed nothing.
    pub(super) fn definite(code: Code, failed: Failed) -> Self {
        Self { code, failed, may_have_landed: false }
    }

    /// What AWS answered.
    fn answered(call: Call, secret: &str, code: &str, message: &str) -> Self {
        let name = call.as_str();
        let (code, message) = (presentable(code, 80, &[]), presentable(message, 160, &[]));
        let (code, message) = (code.as_str(), message.as_str());
        let (kind, reason, detail) = match code {
            "AccessDeniedException" | "AccessDenied" => (Code::Other, Reason::Forbidden, denied(call, secret, message)),
            "DecryptionFailure" | "EncryptionFailure" => {
                let detail = format!(
                    "the KMS key of `{secret}` can't be used: allow {} on it, and see that it is enabled ({code})",
                    call.kms_actions()
                );
                (Code::Other, Reason::Forbidden, detail)
            }
            "ResourceNotFoundException" => (Code::NotFound, Reason::Missing, format!("`{secret}` does not exist")),
            "ResourceExistsException" => {
                (Code::Exists, Reason::NameTaken, format!("`{name}` for `{secret}`: it exists already ({message})"))
            }
            "InvalidParameterException" | "ValidationException" => {
                (Code::InvalidParameter, Reason::Rejected, format!("`{name}` for `{secret}` was refused: {message}"))
            }
            "InvalidRequestException" => {
                (Code::InvalidRequest, Reason::Rejected, format!("`{name}` for `{secret}` was refused: {message}"))
            }
            "LimitExceededException" => {
                let detail = format!(
                    "`{secret}` is at a quota ({message}): AWS prunes versions after 24 h, so rotate it less than every 10 minutes"
                );
                (Code::Other, Reason::Full, detail)
            }
            _ if is_throttling(code) => {
                (Code::Other, Reason::Throttled, format!("AWS asks to slow down: `{name}` for `{secret}` ({code})"))
            }
            _ if is_unauthorized(code) => {
                let detail =
                    format!("AWS does not accept rotad's credentials ({code}): renew them, and see that the clock is right");
                (Code::Other, Reason::Unauthorized, detail)
            }
            _ if is_outage(code) => {
                let failed = Failed::new(Reason::Unavailable, format!("`{name}` for `{secret}` failed inside of AWS ({code})"));
                return Self { code: Code::Other, failed, may_have_landed: true };
            }
            _ => (Code::Other, Reason::Rejected, format!("`{name}` for `{secret}` was refused: {code} {message}")),
        };
        Self::definite(kind, Failed::new(reason, detail))
    }

    /// Whether sending the call again soon may help.
    pub(super) fn is_transient(&self) -> bool {
        match self.failed.reason {
            Reason::Throttled | Reason::Unavailable | Reason::Unreachable | Reason::TimedOut | Reason::BadAnswer => true,
            Reason::Unauthorized
            | Reason::Forbidden
            | Reason::Rejected
            | Reason::NoSuchAccount
            | Reason::Missing
            | Reason::NameTaken
            | Reason::NoRoute
            | Reason::Unsuitable
            | Reason::Full
            | Reason::Busy
            | Reason::Expired
            | Reason::Revoked
            | Reason::WrongAccount
            | Reason::WrongRegion => false,
        }
    }
}

/// The sentence for a missing permission: the one that AWS names, else the one that the call needs.
fn denied(call: Call, secret: &str, message: &str) -> String {
    // "… is not authorized to perform: secretsmanager:TagResource on resource: …"
    let named = message.split("perform: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    match named {
        Some(action) if action.starts_with("secretsmanager:") || action.starts_with("kms:") => {
            format!("rotad's AWS identity lacks `{action}` on `{secret}`: allow it in its IAM policy ({message})")
        }
        _ if message.contains("KMS") || message.contains("kms") => {
            format!(
                "rotad's AWS identity lacks {} on the KMS key of `{secret}`: allow it in IAM and in the key's policy",
                call.kms_actions()
            )
        }
        _ => format!("rotad's AWS identity lacks `secretsmanager:{}` on `{secret}`: allow it in its IAM policy", call.as_str()),
    }
}

fn is_throttling(code: &str) -> bool {
    matches!(
        code,
        "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "BandwidthLimitExceeded"
            | "SlowDown"
    )
}

fn is_unauthorized(code: &str) -> bool {
    matches!(
        code,
        "ExpiredTokenException"
            | "ExpiredToken"
            | "RequestExpired"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "InvalidAccessKeyId"
            | "OptInRequired"
            | "NotAuthorized"
    )
}

/// An answer without a code that we know of is one from something in between, such as a load balancer.
fn is_outage(code: &str) -> bool {
    matches!(
        code,
        "" | "InternalServiceError"
            | "InternalServiceErrorException"
            | "InternalFailure"
            | "InternalError"
            | "InternalServerError"
            | "ServiceUnavailable"
            | "ServiceUnavailableException"
            | "RequestTimeout"
            | "RequestTimeoutException"
    )
}

fn credentials_failure(error: &CredentialsError) -> Failed {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => {
            let detail = "no AWS credentials were found in environment, profile, web identity, container or instance role: provide one of them";
            Failed::new(Reason::Unauthorized, detail)
        }
        CredentialsError::ProviderTimedOut(_) => {
            Failed::new(Reason::TimedOut, "AWS credentials could not be had within the time limit")
        }
        CredentialsError::InvalidConfiguration(_) => {
            let detail =
                "the AWS configuration files have no usable credentials: see the profile's section and what it refers to";
            Failed::new(Reason::Unauthorized, detail)
        }
        _ => {
            // What STS says of a refused role names principal and role; other texts could quote a file.
            let said = chain(error).map(ToString::to_string).find(|text| text.contains("sts:AssumeRole"));
            match said {
                Some(said) => {
                    let said = presentable(&said, 200, &[]);
                    Failed::new(Reason::Forbidden, format!("the role can't be assumed: allow `sts:AssumeRole` ({said})"))
                }
                None => Failed::new(
                    Reason::Unauthorized,
                    "AWS credentials could not be had: the role or the source of credentials refused",
                ),
            }
        }
    }
}

/// Whether the error shows that nothing was sent.
fn never_connected(error: &(dyn Error + 'static)) -> bool {
    let refused = in_chain::<io::Error>(error).is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::AddrNotAvailable
        )
    });
    refused || chain(error).any(|error| error.to_string().starts_with("dns error"))
}

fn in_chain<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|error| error.downcast_ref::<T>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: &str, message: &str) -> Failure {
        Failure::answered(Call::Put, "prod/etl", code, message)
    }

    #[test]
    fn a_missing_permission_is_named_with_its_secret() {
        let failure = answered("AccessDeniedException", "");
        assert_eq!(failure.failed.reason, Reason::Forbidden);
        assert!(failure.failed.detail.contains("lacks `secretsmanager:PutSecretValue` on `prod/etl`"), "{}", failure.failed);

        let message =
            "User: arn:aws:sts::1:assumed-role/r is not authorized to perform: secretsmanager:TagResource on resource: x";
        let failure = Failure::answered(Call::Create, "prod/etl", "AccessDeniedException", message);
        assert!(failure.failed.detail.contains("lacks `secretsmanager:TagResource` on `prod/etl`"), "{}", failure.failed);
    }

    #[test]
    fn a_missing_permission_for_the_key_is_told_from_one_for_the_secret() {
        let failure = Failure::answered(Call::Get, "prod/etl", "AccessDeniedException", "Access to KMS is not allowed");
        assert!(failure.failed.detail.contains("lacks `kms:Decrypt` on the KMS key of `prod/etl`"), "{}", failure.failed);
        for code in ["DecryptionFailure", "EncryptionFailure"] {
            let failure = answered(code, "");
            assert_eq!(failure.failed.reason, Reason::Forbidden);
            assert!(failure.failed.detail.contains("`kms:GenerateDataKey`"), "{}", failure.failed);
        }
    }

    #[test]
    fn errors_go_by_their_code() {
        for (code, reason) in [
            ("ResourceNotFoundException", Reason::Missing),
            ("ResourceExistsException", Reason::NameTaken),
            ("InvalidParameterException", Reason::Rejected),
            ("InvalidRequestException", Reason::Rejected),
            ("PreconditionNotMetException", Reason::Rejected),
            ("LimitExceededException", Reason::Full),
            ("ThrottlingException", Reason::Throttled),
            ("ExpiredTokenException", Reason::Unauthorized),
            ("UnrecognizedClientException", Reason::Unauthorized),
            ("NeverHeardOfException", Reason::Rejected),
        ] {
            let failure = answered(code, "why");
            assert_eq!(failure.failed.reason, reason, "{code}");
            assert!(!failure.may_have_landed, "{code} is a definite answer");
        }
    }

    #[test]
    fn a_failure_inside_of_aws_may_have_landed() {
        for code in ["InternalServiceError", "ServiceUnavailable", ""] {
            let failure = answered(code, "");
            assert!(failure.may_have_landed && failure.is_transient(), "{code}");
            assert_eq!(failure.failed.reason, Reason::Unavailable);
        }
    }
}
