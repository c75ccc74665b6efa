//! What the API's answers mean. Pure: an answer goes in, an outcome comes out.
//!
//! No text of an answer reaches an outcome but the `message`, `code` and first issue of an error, as
//! `secret::presentable` leaves them; of a successful answer nothing does, the
//! JSON parser's own messages included, since those quote what they stumbled over.

use std::collections::BTreeSet;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::observer::Operation;
use crate::json::Object;
use crate::rotation::{
    Account, Failed, IssueOutcome, IssuedToken, ListedToken, Reason, RevokeOutcome, TokenId, TokenType, VerifyOutcome,
};
use crate::secret::{Secret, presentable, shortened};

/// The longest that an answer may make rotad wait: the cap of its own backoff. A `Retry-After` of
/// days would run over deadlines.
const RETRY_AFTER_MAX: SignedDuration = SignedDuration::from_hours(1);

/// What was asked, as far as sentences about it need to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub operation: Operation,
    pub organization: &'a str,
    pub account: &'a Account,
}

impl Asked<'_> {
    /// The request in words: `issue a token for `etl``.
    fn words(&self) -> String {
        let account = shortened(self.account.as_str(), 64);
        match self.operation {
            Operation::Issue => format!("issue a token for `{account}`"),
            Operation::List => format!("list the tokens of `{account}`"),
            Operation::Revoke => format!("revoke a token of `{account}`"),
            Operation::Verify => format!("let the new token list the tokens of `{account}`"),
            Operation::ListUsers => "list the users".to_owned(),
            Operation::CreateAccount => format!("create the account `{account}`"),
            Operation::DeleteAccount => format!("delete the account `{account}`"),
            Operation::Ducklings => format!("read the Ducklings of `{account}`"),
            Operation::SetDucklings => format!("set the Ducklings of `{account}`"),
            Operation::ActiveAccounts => "list the active accounts".to_owned(),
        }
    }

    /// A failure whose sentence begins with what was asked.
    pub(super) fn failed(&self, reason: Reason, what: &str) -> Failed {
        Failed::new(reason, format!("can't {}: {what}", self.words()))
    }
}

/// An answer, read to its end or as far as it went.
pub(super) struct Answer {
    pub status: u16,
    pub retry_after: Option<SignedDuration>,
    pub body: Result<Zeroizing<Vec<u8>>, BodyFault>,
}

/// Why there is no whole body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFault {
    /// The connection broke before its end.
    Broken,
    TimedOut,
    /// More bytes than this.
    TooLarge(usize),
}

impl BodyFault {
    fn failed(self, asked: Asked<'_>, status: u16) -> Failed {
        match self {
            Self::Broken => asked.failed(Reason::BadAnswer, &format!("the answer {status} was cut off")),
            Self::TimedOut => asked.failed(Reason::TimedOut, &format!("the answer {status} did not end within the time limit")),
            Self::TooLarge(limit) => {
                asked.failed(Reason::BadAnswer, &format!("the answer {status} is larger than the limit of {} MiB", limit >> 20))
            }
        }
    }
}

/// The answer to `POST …/tokens`, and the value if there is one.
///
/// A definite refusal is one that the API gives before it acts. Everything else may have issued a
/// token: any 5xx (documented to say nothing of the effect), a success without a readable body, a
/// 409 (an earlier try of ours may hold the name), and a 301, 302 or 303, which can follow on work
/// that was done. A 307 or 308 says that the request is to be made elsewhere: nothing was done here.
pub(super) fn issued(asked: Asked<'_>, answer: &Answer, bearer: &Secret) -> (IssueOutcome, Option<Secret>) {
    if (200..300).contains(&answer.status) {
        return match created(asked, answer) {
            Ok((token, value)) => {
                let fingerprint = value.fingerprint();
                (IssueOutcome::Issued(IssuedToken { token, fingerprint }), Some(value))
            }
            Err(failed) => (IssueOutcome::Unknown(failed), None),
        };
    }
    let (failed, taken) = (refusal(asked, answer, bearer), names_a_conflict(answer));
    let outcome = match answer.status {
        // Observed for a name that is taken: 409, or 400 with `unique constraint` (third parties).
        409 => IssueOutcome::Unknown(Failed { reason: Reason::NameTaken, ..failed }),
        400 if taken => IssueOutcome::Unknown(Failed { reason: Reason::NameTaken, ..failed }),
        307 | 308 => IssueOutcome::Refused(failed),
        // A gateway's time-out: whether the API saw the request isn't said.
        408 => IssueOutcome::Unknown(failed),
        400..=499 => IssueOutcome::Refused(failed),
        _ => IssueOutcome::Unknown(failed),
    };
    (outcome, None)
}

/// One page of a list: what is on it, and the cursor of the next page.
pub(super) struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
    /// How many the whole list has, where that is told.
    pub total: Option<u64>,
}

/// A user of an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: String,
    pub username: Account,
    pub is_service_account: bool,
    /// It can't be used any more.
    pub is_deprovisioned: bool,
}

impl User {
    /// A service account that can be used.
    pub fn is_usable_service(&self) -> bool {
        self.is_service_account && !self.is_deprovisioned
    }
}

/// The answer to `GET /v1/users` (observed).
pub(super) fn users_page(asked: Asked<'_>, answer: &Answer, bearer: &Secret) -> Result<Page<User>, Failed> {
    if !(200..300).contains(&answer.status) {
        return Err(refusal(asked, answer, bearer));
    }
    let list: UserList = parse(asked, answer)?;
    let wrong = || asked.failed(Reason::BadAnswer, "the answer holds a user without an id or a name");
    let user = |Object(user): Object<ListedUser>| {
        let ListedUser { id, username, is_service_account, is_deprovisioned } = user;
        let complete = !id.is_empty() && !username.is_empty();
        complete.then(|| User { id, username: Account::new(&username), is_service_account, is_deprovisioned }).ok_or_else(wrong)
    };
    let items = list.users.into_iter().map(user).collect::<Result<Vec<_>, _>>()?;
    Ok(Page { items, next: list.next_page_token.filter(|cursor| !cursor.is_empty()), total: list.total_count })
}

/// The answer to `GET …/tokens`.
pub(super) fn page(asked: Asked<'_>, answer: &Answer, bearer: &Secret) -> Result<Page<ListedToken>, Failed> {
    if !(200..300).contains(&answer.status) {
        return Err(refusal(asked, answer, bearer));
    }
    let list: TokenList = parse(asked, answer)?;
    let tokens = list.tokens.into_iter().map(|Object(token)| token.checked(asked)).collect::<Result<Vec<_>, _>>()?;
    Ok(Page { items: tokens, next: list.next_page_token.filter(|cursor| !cursor.is_empty()), total: None })
}

/// Joins a further page: what a change during the walk shows twice counts once.
pub(super) fn join<T>(items: &mut Vec<T>, seen: &mut BTreeSet<String>, page: Vec<T>, id: impl Fn(&T) -> &str) {
    items.extend(page.into_iter().filter(|item| seen.insert(id(item).to_owned())));
}

/// The answer to `DELETE …/tokens/{id}`. The body of a success says nothing, so an empty or broken
/// one is as good (200 with `{}` documented, 204 and no body observed).
pub(super) fn revoked(asked: Asked<'_>, answer: &Answer, bearer: &Secret) -> RevokeOutcome {
    let gone = match answer.status {
        200..=299 => true,
        404 => api_error(answer).code.as_deref() == Some("NOT_FOUND"),
        _ => false,
    };
    if gone { RevokeOutcome::Gone } else { RevokeOutcome::Failed(refusal(asked, answer, bearer)) }
}

/// The answer to a new token's list of its own account (inferred): 200 proves it, 403 with
/// `FORBIDDEN` proves it too (known, but not allowed), 401 with `UNAUTHORIZED` disproves it. The
/// codes must be there: a gateway's 401 must not cost a good token its life.
pub(super) fn verified(asked: Asked<'_>, answer: &Answer, bearer: &Secret) -> VerifyOutcome {
    let code = api_error(answer).code;
    match (answer.status, code.as_deref()) {
        (200..=299, _) => match page(asked, answer, bearer) {
            Ok(_) => VerifyOutcome::Verified,
            Err(failed) => VerifyOutcome::Failed(failed),
        },
        (403, Some("FORBIDDEN")) => VerifyOutcome::Verified,
        (401, Some("UNAUTHORIZED")) => {
            VerifyOutcome::Disproved(asked.failed(Reason::Unauthorized, "MotherDuck answered 401 to it, so it does not work"))
        }
        _ => VerifyOutcome::Failed(refusal(asked, answer, bearer)),
    }
}

/// The answer to a new admin token's list of an account: 401 and 403 with their codes disprove it. An account that does
/// not exist proves as much as one that does.
pub(super) fn may_list(asked: Asked<'_>, answer: &Answer, bearer: &Secret) -> VerifyOutcome {
    match (answer.status, api_error(answer).code.as_deref()) {
        (200..=299, _) => match page(asked, answer, bearer) {
            Ok(_) => VerifyOutcome::Verified,
            Err(failed) => VerifyOutcome::Failed(failed),
        },
        _ => admitted(asked, answer, bearer),
    }
}

/// The answer to its revocation of a token that there is not: 404 with `NOT_FOUND` (documented) comes after the
/// permission was looked at (inferred).
pub(super) fn may_revoke(asked: Asked<'_>, answer: &Answer, bearer: &Secret) -> VerifyOutcome {
    if (200..300).contains(&answer.status) { VerifyOutcome::Verified } else { admitted(asked, answer, bearer) }
}

fn admitted(asked: Asked<'_>, answer: &Answer, bearer: &Secret) -> VerifyOutcome {
    match (answer.status, api_error(answer).code.as_deref()) {
        (404, Some("NOT_FOUND")) => VerifyOutcome::Verified,
        (401, Some("UNAUTHORIZED")) | (403, Some("FORBIDDEN")) => VerifyOutcome::Disproved(refusal(asked, answer, bearer)),
        _ => VerifyOutcome::Failed(refusal(asked, answer, bearer)),
    }
}

/// The failure that an answer other than a success tells of, with what to do about it.
pub(super) fn refusal(asked: Asked<'_>, answer: &Answer, bearer: &Secret) -> Failed {
    let error = api_error(answer);
    let said = error.words(&[bearer]);
    let organization = asked.organization;
    let (reason, hint) = match answer.status {
        300..=399 => (Reason::NoRoute, "; a redirect is not followed with a token: correct `api_url`".to_owned()),
        401 if asked.operation == Operation::Verify => (Reason::Unauthorized, String::new()),
        401 => (
            Reason::Unauthorized,
            format!("; the admin token of organization `{organization}` is expired, revoked or wrong: replace it"),
        ),
        403 => (
            Reason::Forbidden,
            format!(
                "; the admin token of organization `{organization}` must be a read/write token of a user with the role Admin"
            ),
        ),
        404 if error.code.as_deref() == Some("NOT_FOUND") => {
            (Reason::NoSuchAccount, "; create the account or correct its name".to_owned())
        }
        404 => match answer.body {
            Err(fault) => return fault.failed(asked, answer.status),
            Ok(_) => (Reason::NoRoute, "; that address is not MotherDuck's API: correct `api_url`".to_owned()),
        },
        408 => (Reason::TimedOut, String::new()),
        409 if asked.operation == Operation::Issue => (Reason::NameTaken, "; a token of that name exists".to_owned()),
        409 => (Reason::NameTaken, String::new()),
        429 => (Reason::Throttled, "; lower `requests_per_second` if that goes on".to_owned()),
        400..=499 => (Reason::Rejected, String::new()),
        500..=599 => (Reason::Unavailable, String::new()),
        _ => (Reason::BadAnswer, "; that is no answer of MotherDuck's API".to_owned()),
    };
    asked.failed(reason, &format!("MotherDuck answered {}{said}{hint}", answer.status)).retry_after(answer.retry_after)
}

/// The error body (documented), as far as it can be read.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ApiError {
    #[serde(default, deserialize_with = "text_or_none")]
    message: Option<String>,
    #[serde(default, deserialize_with = "text_or_none")]
    code: Option<String>,
    #[serde(default, deserialize_with = "issues_or_none")]
    issues: Vec<Issue>,
}

#[derive(Debug, Deserialize)]
struct Issue {
    message: String,
}

/// Text, or nothing where something else stands: an odd `message` must not hide the `code`.
fn text_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(serde_json::Value::deserialize(deserializer)?.as_str().map(str::to_owned))
}

fn issues_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Issue>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(deserializer)?).unwrap_or_default())
}

impl ApiError {
    /// ` `CODE` (message: issue)`, as much of it as there is, without the secrets that were `sent`.
    pub(super) fn words(&self, sent: &[&Secret]) -> String {
        let code = self.code.as_deref().map(|code| format!(" `{}`", presentable(code, 32, sent))).unwrap_or_default();
        let issue = self.issues.first().map(|issue| issue.message.as_str());
        let message = match (self.message.as_deref(), issue) {
            (Some(message), Some(issue)) => format!("{message}: {issue}"),
            (one, other) => one.or(other).unwrap_or_default().to_owned(),
        };
        if message.is_empty() { code } else { format!("{code} ({})", presentable(&message, 90, sent)) }
    }
}

pub(super) fn api_error(answer: &Answer) -> ApiError {
    if answer.status < 400 {
        return ApiError::default();
    }
    let error = answer.body.as_ref().ok().and_then(|body| serde_json::from_slice(body).ok());
    error.map(|Object(error)| error).unwrap_or_default()
}

/// Whether a 400 says that the name is taken (third parties have seen `unique constraint`).
pub(super) fn names_a_conflict(answer: &Answer) -> bool {
    let message = api_error(answer).message.unwrap_or_default().to_lowercase();
    message.contains("unique constraint") || message.contains("already exists")
}

#[derive(Deserialize)]
struct TokenList {
    tokens: Vec<Object<Token>>,
    #[serde(default)]
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct UserList {
    users: Vec<Object<ListedUser>>,
    #[serde(default)]
    total_count: Option<u64>,
    #[serde(default)]
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct ListedUser {
    id: String,
    username: String,
    #[serde(default)]
    is_service_account: bool,
    #[serde(default)]
    is_deprovisioned: bool,
}

/// A token; fields that nothing here needs are left unread.
#[derive(Deserialize)]
struct Token {
    /// Only in the answer to its creation.
    #[serde(default, deserialize_with = "value")]
    token: Option<Zeroizing<String>>,
    id: String,
    #[serde(default)]
    name: Option<String>,
    created_ts: String,
    #[serde(default)]
    expire_at: Option<String>,
    token_type: String,
}

fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    String::deserialize(deserializer).map(|value| Some(Zeroizing::new(value)))
}

impl Token {
    fn checked(self, asked: Asked<'_>) -> Result<ListedToken, Failed> {
        let wrong = |what: &str| asked.failed(Reason::BadAnswer, &format!("the answer holds a token {what}"));
        let token_type = match self.token_type.as_str() {
            "read_write" => TokenType::ReadWrite,
            "read_scaling" => TokenType::ReadScaling,
            _ => return Err(wrong("of a type that is neither `read_write` nor `read_scaling`")),
        };
        if self.id.is_empty() {
            return Err(wrong("without an id"));
        }
        let time = |text: &str| moment(text).ok_or_else(|| wrong("with a time that is not RFC 3339"));
        Ok(ListedToken {
            created_at: time(&self.created_ts)?,
            expires_at: self.expire_at.as_deref().map(time).transpose()?,
            id: TokenId(self.id),
            name: self.name,
            token_type,
        })
    }
}

/// A time as the API writes it: RFC 3339 (observed), fractions or not; without an offset it is UTC.
fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp()))
}

/// The created token and its value.
fn created(asked: Asked<'_>, answer: &Answer) -> Result<(ListedToken, Secret), Failed> {
    let mut token: Token = parse(asked, answer)?;
    // A value that no header could carry is none; it would only be found out by the consumers.
    let value = token.token.take().filter(|value| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic()));
    let Some(mut value) = value else {
        return Err(asked.failed(Reason::BadAnswer, "the answer holds no `token` that could be one"));
    };
    Ok((token.checked(asked)?, Secret::new(std::mem::take(&mut *value))))
}

/// The JSON of a success. What the parser has to say is not passed on: it quotes the text.
pub(super) fn parse<T: serde::de::DeserializeOwned>(asked: Asked<'_>, answer: &Answer) -> Result<T, Failed> {
    let body = answer.body.as_ref().map_err(|fault| fault.failed(asked, answer.status))?;
    if body.is_empty() {
        return Err(asked.failed(Reason::BadAnswer, &format!("MotherDuck answered {} without a body", answer.status)));
    }
    serde_json::from_slice(body).map(|Object(parsed)| parsed).map_err(|error| {
        let what = if error.is_data() { "lacks what it must hold" } else { "is not JSON" };
        asked.failed(
            Reason::BadAnswer,
            &format!("the answer {} {what} (line {}, column {})", answer.status, error.line(), error.column()),
        )
    })
}

/// `Retry-After`, in seconds or as an HTTP date, against the answer's own `Date` or our clock.
pub(super) fn retry_after(header: &str, now: Timestamp) -> Option<SignedDuration> {
    let header = header.trim();
    let wait = match header.parse::<u64>() {
        Ok(seconds) => SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)),
        Err(_) => http_date(header)?.duration_since(now),
    };
    Some(wait.clamp(SignedDuration::ZERO, RETRY_AFTER_MAX))
}

/// An HTTP date in the form that is still sent: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()
}
