//! The client of MotherDuck's REST API.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response};
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use super::Provider;
use super::admin_token::{AdminSource, AdminToken};
use super::answer::{self, Answer, Asked, BodyFault, Page, User};
use super::claims;
use super::limiter::{Limiter, Limits, Line};
use super::observer::{Code, Observer, Operation};
use super::wire::{Endpoint, Refused, Unproven, Wire};
use crate::cause::innermost;
use crate::clock::Clock;
use crate::rotation::{
    Account, Failed, Fingerprint, IssueOutcome, IssueRequest, ListOutcome, Reason, RevokeOutcome, TokenId, TokenType,
    VerifyOutcome,
};
use crate::secret::Secret;

/// The most bytes of a successful answer that are read (as the official client has it).
const SUCCESS_MAX: usize = 16 << 20;

/// The most bytes of any other answer that are read (as the official client has it).
const ERROR_MAX: usize = 1 << 20;

/// The most pages of one list: at the 1,000 a page that the official client asks for that is more
/// tokens than an account can sensibly have, so more pages mean that the cursors lead nowhere.
const PAGES_MAX: usize = 100;

/// How often a page is asked for again after a passing failure, so that one of them does not void a long list.
const PAGE_RETRIES: u32 = 2;

/// The longest username that the API takes in a path (documented).
const USERNAME_MAX: usize = 255;

/// How long parts of a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// To a usable connection, TLS included; shorter than `whole`, so that a failure to connect is
    /// known to be one and a token that can't have been issued is not looked for.
    pub connect: Duration,
    /// Between two pieces of an answer.
    pub read: Duration,
    /// One request, from its start to the answer's end.
    pub whole: Duration,
    /// A list, all its pages together.
    pub list: Duration,
}

impl Default for TimeLimits {
    /// 30 s for a request, as the official client has it.
    fn default() -> Self {
        let whole = Duration::from_secs(30);
        Self { connect: Duration::from_secs(10), read: whole, whole, list: Duration::from_secs(60) }
    }
}

/// What a client is made of.
pub struct Options {
    /// The organization's name in the configuration, for messages.
    pub organization: Arc<str>,
    /// `https://…`, or `http://…` on loopback, without a query; `https://api.motherduck.com` for the real API.
    pub api_url: String,
    /// Read again when it changes.
    pub admin_token: AdminSource,
    /// The Postgres endpoint, where new tokens are proven by connecting.
    pub postgres: Option<Endpoint>,
    pub limits: Limits,
    pub time_limits: TimeLimits,
    /// Is told of the `Date` of every answer.
    pub clock: Arc<Clock>,
    /// Is told of every request.
    pub observer: Arc<dyn Observer>,
}

/// Speaks to one organization's API.
///
/// Nothing is sent again on its own but a page of a list (twice at the most after a failed
/// connection, 502, 503 or 504) and a request that a replaced admin token's 401 refused. A POST's
/// unknown outcome is for the caller to resolve; a revocation is repeated by the caller, who first
/// reads the deliveries anew. Proxies named in the environment are not used: the admin token goes
/// where the configuration says and nowhere else.
pub struct Client {
    http: reqwest::Client,
    /// Without a slash at its end.
    base: String,
    organization: Arc<str>,
    admin: AdminToken,
    wire: Option<Wire>,
    limiter: Limiter,
    time_limits: TimeLimits,
    clock: Arc<Clock>,
    observer: Arc<dyn Observer>,
}

/// What [`Client::probe`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The account's live tokens.
    pub tokens: usize,
    /// What that proves.
    pub proven: String,
    /// What can only be known by issuing and revoking.
    pub unknowable: String,
}

/// A request without an answer.
pub(super) struct Unanswered {
    /// Whether anything can have reached the API.
    pub sent: bool,
    pub failed: Failed,
}

/// One request.
pub(super) struct Request<'a> {
    pub asked: Asked<'a>,
    pub method: Method,
    pub url: String,
    pub body: Option<Vec<u8>>,
}

impl Client {
    /// SHA-256 of the admin token as its source has it: whether it is another one than before.
    ///
    /// # Errors
    /// Why the source can't be read.
    pub async fn admin_token_fingerprint(&self) -> Result<Fingerprint, Failed> {
        self.admin.current().await.map(|value| value.fingerprint())
    }

    /// When the admin token expires, if it says so: it is a JWT (observed), whose claims are not documented.
    pub async fn admin_token_expires_at(&self) -> Option<Timestamp> {
        self.admin.current().await.ok().and_then(|value| claims::expiry(&value))
    }

    /// Builds the client; nothing is sent and the admin token is not read yet.
    pub fn new(options: Options) -> Result<Self, Failed> {
        let Options { organization, api_url, admin_token, postgres, limits, time_limits, clock, observer } = options;
        let wrong = |what: String| Failed::new(Reason::NoRoute, format!("`api_url` of organization `{organization}` {what}"));
        reqwest::Url::parse(&api_url).map_err(|error| wrong(format!("is not a URL: {error}")))?;
        let http = reqwest::Client::builder()
            .user_agent(concat!("rotad/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .connect_timeout(time_limits.connect)
            .read_timeout(time_limits.read)
            .timeout(time_limits.whole)
            // Shorter than servers commonly keep idle connections: a POST into one that was just
            // closed would have an unknown outcome for nothing.
            .pool_idle_timeout(Duration::from_secs(15))
            .build()
            .map_err(|error| {
                wrong(format!("can't be used: no HTTP client could be made ({error}); are CA certificates installed?"))
            })?;
        Ok(Self {
            http,
            base: api_url.trim_end_matches('/').to_owned(),
            organization,
            admin: AdminToken::new(admin_token),
            wire: postgres.map(|endpoint| Wire::new(endpoint, time_limits)).transpose()?,
            limiter: Limiter::new(limits),
            time_limits,
            clock,
            observer,
        })
    }

    /// For `check --online`: lists one account's tokens, which is what can be known without changing anything.
    pub async fn probe(&self, account: &Account) -> Result<Probe, Failed> {
        let tokens = self.list(account).await.complete()?.len();
        Ok(Probe {
            tokens,
            proven: format!("the API is reached, the admin token is valid and may list the {tokens} tokens of `{account}`"),
            unknowable: format!(
                "whether the admin token may issue and revoke tokens of `{account}` shows only when that is done"
            ),
        })
    }

    /// Whether the Postgres endpoint answers over TLS; `None` where none is configured.
    pub async fn greet_endpoint(&self) -> Option<Result<(), Failed>> {
        Some(self.wire()?.greet().await)
    }

    /// One request as it is and its answer as it came, with the admin token that it was made with: for an inquiry.
    /// Without `bearer` it is the admin's; `id` is a token's, or empty.
    pub(super) async fn plainly(
        &self,
        operation: Operation,
        account: &Account,
        method: Method,
        id: &str,
        body: Option<serde_json::Value>,
        bearer: Option<&Secret>,
    ) -> Result<(Answer, Secret), Failed> {
        let asked = self.asked(operation, account);
        let mut url = self.tokens_url(asked)?;
        if !id.is_empty() {
            url = format!("{url}/{}", percent_encode(id));
        }
        let admin = self.admin.current().await?;
        let request = Request { asked, method, url, body: body.map(|body| body.to_string().into_bytes()) };
        let answer = self.send(&request, bearer.unwrap_or(&admin)).await.map_err(|unanswered| unanswered.failed)?;
        Ok((answer, admin))
    }

    pub(super) fn wire(&self) -> Option<&Wire> {
        self.wire.as_ref()
    }

    pub(super) fn asked<'a>(&'a self, operation: Operation, account: &'a Account) -> Asked<'a> {
        Asked { operation, organization: &self.organization, account }
    }

    /// An address below the API's own.
    pub(super) fn root_url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(super) fn users_url(&self) -> String {
        self.root_url("/v1/users")
    }

    /// `{base}/v1/users/{account}/tokens`
    fn tokens_url(&self, asked: Asked<'_>) -> Result<String, Failed> {
        Ok(format!("{}/tokens", self.user_url(asked)?))
    }

    /// `{base}/v1/users/{account}`
    pub(super) fn user_url(&self, asked: Asked<'_>) -> Result<String, Failed> {
        let segment = path_segment(asked.account.as_str(), USERNAME_MAX).ok_or_else(|| {
            asked.failed(Reason::Rejected, "that is no account's name (1 to 255 characters, not `.` or `..`); correct it")
        })?;
        Ok(format!("{}/{segment}", self.users_url()))
    }

    /// Sends a request as the admin, once more if the token was replaced meanwhile: a 401 is given
    /// before anything is done, so this holds for a POST too.
    pub(super) async fn ask(&self, request: &Request<'_>) -> Result<(Answer, Secret), Unanswered> {
        let not_sent = |failed| Unanswered { sent: false, failed };
        let bearer = self.admin.current().await.map_err(not_sent)?;
        let answer = self.send(request, &bearer).await?;
        if answer.status == 401
            && let Some(replacement) = self.admin.replacement_for(&bearer).await
        {
            return Ok((self.send(request, &replacement).await?, replacement));
        }
        Ok((answer, bearer))
    }

    /// Sends a request once and reads the answer.
    async fn send(&self, request: &Request<'_>, bearer: &Secret) -> Result<Answer, Unanswered> {
        let Request { asked, .. } = request;
        let line = if asked.operation == Operation::Revoke { Line::Urgent } else { Line::Usual };
        let Some(_slot) = self.limiter.admit(line).await else {
            let failed =
                asked.failed(Reason::Throttled, "no slot within rotad's own limits; raise `requests_per_second` if that goes on");
            return Err(Unanswered { sent: false, failed: failed.retry_after(Some(jiff::SignedDuration::from_secs(1))) });
        };
        let start = Instant::now();
        let result = self.exchange(request, bearer).await;
        let code = match &result {
            Ok(Answer { body: Err(BodyFault::Broken | BodyFault::TooLarge(_)), .. }) => Code::Broken,
            Ok(Answer { body: Err(BodyFault::TimedOut), .. }) => Code::Timeout,
            Ok(answer) => Code::of_status(answer.status),
            Err(Unanswered { sent: false, .. }) => Code::Connect,
            Err(Unanswered { failed, .. }) if failed.reason == Reason::TimedOut => Code::Timeout,
            Err(_) => Code::Broken,
        };
        let seconds = start.elapsed().as_secs_f64();
        self.observer.request(asked.operation, code, seconds);
        tracing::debug!(
            operation = asked.operation.as_str(),
            organization = asked.organization,
            account = asked.account.as_str(),
            code = code.as_str(),
            seconds,
            "asked MotherDuck"
        );
        result
    }

    async fn exchange(&self, request: &Request<'_>, bearer: &Secret) -> Result<Answer, Unanswered> {
        let asked = request.asked;
        let mut call = self.http.request(request.method.clone(), &request.url);
        call = call.header(AUTHORIZATION, authorization(bearer).map_err(|failed| Unanswered { sent: false, failed })?);
        if let Some(body) = &request.body {
            call = call.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let mut response = call.send().await.map_err(|error| unanswered(asked, &error))?;
        let received = self.clock.now();
        let server = response.headers().get(DATE).and_then(|value| answer::http_date(value.to_str().ok()?));
        if let Some(server) = server {
            self.clock.saw_api_date(server);
        }
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers(), server.unwrap_or(received.wall));
        let limit = if response.status().is_success() { SUCCESS_MAX } else { ERROR_MAX };
        Ok(Answer { status, retry_after, body: read_body(&mut response, limit).await })
    }

    /// Walks the pages. Anything but a last page at the end is a failure, never a shorter list.
    async fn walk<T>(
        &self,
        asked: Asked<'_>,
        url: &str,
        read: fn(Asked<'_>, &Answer, &Secret) -> Result<Page<T>, Failed>,
        id: fn(&T) -> &str,
    ) -> Result<Vec<T>, Failed> {
        let (mut items, mut ids, mut cursors) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let (mut cursor, mut total): (Option<String>, u64) = (None, 0);
        for _ in 0..PAGES_MAX {
            let query = cursor.as_deref().map(|cursor| format!("?page_token={}", percent_encode(cursor))).unwrap_or_default();
            let request = Request { asked, method: Method::GET, url: format!("{url}{query}"), body: None };
            let (answer, bearer) = self.ask_for_page(&request).await?;
            let page = read(asked, &answer, &bearer)?;
            // Pages that disagree, or the last that says nothing: the most that any of them said.
            total = total.max(page.total.unwrap_or(0));
            answer::join(&mut items, &mut ids, page.items, id);
            let Some(next) = page.next else {
                // Fewer than it says: a page is missing, and what is on it would seem to be gone.
                let found = items.len() as u64;
                if found < total {
                    let what = format!("the list has {found} entries and says that there are {total}, so it is not whole");
                    return Err(asked.failed(Reason::BadAnswer, &what));
                }
                return Ok(items);
            };
            if !cursors.insert(next.clone()) {
                return Err(asked.failed(Reason::BadAnswer, "the list's pages lead in a circle, so it can't be read whole"));
            }
            cursor = Some(next);
        }
        Err(asked.failed(Reason::BadAnswer, &format!("the list has more than {PAGES_MAX} pages, so it can't be read whole")))
    }

    async fn in_time<T>(&self, asked: Asked<'_>, walk: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        match timeout(self.time_limits.list, walk).await {
            Ok(listed) => listed,
            Err(_) => {
                let limit = self.time_limits.list.as_secs();
                Err(asked.failed(Reason::TimedOut, &format!("the list was not whole within {limit} s")))
            }
        }
    }

    /// Every user of the organization (observed): all pages, and no fewer than the list says that there are.
    ///
    /// # Errors
    /// Why the list can't be had whole.
    pub async fn users(&self) -> Result<Vec<User>, Failed> {
        let everybody = Account::new("");
        let asked = self.asked(Operation::ListUsers, &everybody);
        self.in_time(asked, self.walk(asked, &self.users_url(), answer::users_page, |user| &user.id)).await
    }

    /// Asks for one page, again after a passing failure.
    async fn ask_for_page(&self, request: &Request<'_>) -> Result<(Answer, Secret), Failed> {
        let mut tries = 0;
        loop {
            let result = self.ask(request).await;
            let passing = match &result {
                Ok((answer, _)) => matches!(answer.status, 502..=504) && answer.retry_after.is_none(),
                Err(unanswered) => unanswered.failed.reason == Reason::Unreachable,
            };
            if !passing || tries == PAGE_RETRIES {
                return result.map_err(|unanswered| unanswered.failed);
            }
            sleep(jittered(Duration::from_millis(100 << tries))).await;
            tries += 1;
        }
    }
}

impl Client {
    /// Whether a refusal at the Postgres endpoint disproves a token. An endpoint of another region refuses good ones, by
    /// a text that is not known: so the API is asked as well, where it takes the token's type, and a token that works
    /// there is not given up.
    async fn explain(
        &self,
        wire: &Wire,
        refused: &Refused,
        account: &Account,
        token_type: TokenType,
        value: &Secret,
    ) -> VerifyOutcome {
        let what = &refused.what;
        let of_region = || {
            let what = format!("{what}: correct `postgres`, which must be the endpoint of the organization's region");
            VerifyOutcome::Failed(wire.failed(Reason::WrongRegion, &what))
        };
        let asked_there = match (refused.reason, token_type) {
            (Some(Reason::WrongRegion), _) => return of_region(),
            (Some(Reason::Expired), _) => return VerifyOutcome::Disproved(wire.failed(Reason::Expired, what)),
            (_, TokenType::ReadWrite) => self.verify_itself(account, value).await,
            // A read-scaling token is not meant for the API: its answer would say nothing.
            (Some(reason), TokenType::ReadScaling) => return VerifyOutcome::Disproved(wire.failed(reason, what)),
            (None, TokenType::ReadScaling) => return VerifyOutcome::Failed(wire.failed(Reason::Unauthorized, what)),
        };
        match asked_there {
            VerifyOutcome::Verified => of_region(),
            VerifyOutcome::Disproved(_) => {
                let what = format!("{what}, and the API refuses the token too");
                VerifyOutcome::Disproved(wire.failed(Reason::Revoked, &what))
            }
            VerifyOutcome::Failed(failed) => {
                let what = format!("{what}, and whether the API takes the token is not known: {failed}");
                VerifyOutcome::Failed(wire.failed(failed.reason, &what).retry_after(failed.retry_after))
            }
        }
    }
}

#[async_trait]
impl Provider for Client {
    async fn issue(&self, request: &IssueRequest) -> (IssueOutcome, Option<Secret>) {
        let asked = self.asked(Operation::Issue, &request.account);
        let url = match self.tokens_url(asked) {
            Ok(url) => url,
            Err(failed) => return (IssueOutcome::Refused(failed), None),
        };
        // A whole number: the documentation's older example with a text is not the contract.
        let body = serde_json::json!({
            "name": request.name.to_string(),
            "ttl": request.ttl.as_secs(),
            "token_type": request.token_type.as_str(),
        });
        let request = Request { asked, method: Method::POST, url, body: Some(body.to_string().into_bytes()) };
        match self.ask(&request).await {
            Ok((answer, bearer)) => answer::issued(asked, &answer, &bearer),
            Err(Unanswered { sent: false, failed }) => (IssueOutcome::Refused(failed), None),
            Err(Unanswered { sent: true, failed }) => (IssueOutcome::Unknown(failed), None),
        }
    }

    async fn list(&self, account: &Account) -> ListOutcome {
        let asked = self.asked(Operation::List, account);
        let url = match self.tokens_url(asked) {
            Ok(url) => url,
            Err(failed) => return ListOutcome::Failed(failed),
        };
        match self.in_time(asked, self.walk(asked, &url, answer::page, |token| &token.id.0)).await {
            Ok(tokens) => ListOutcome::Complete(tokens),
            Err(failed) => ListOutcome::Failed(failed),
        }
    }

    async fn revoke(&self, account: &Account, token: &TokenId) -> RevokeOutcome {
        let asked = self.asked(Operation::Revoke, account);
        let url = self.tokens_url(asked).and_then(|url| {
            let segment = path_segment(&token.0, USERNAME_MAX);
            let segment = segment.ok_or_else(|| asked.failed(Reason::Rejected, "that is no token's id; it was not sent"))?;
            Ok(format!("{url}/{segment}"))
        });
        let url = match url {
            Ok(url) => url,
            Err(failed) => return RevokeOutcome::Failed(failed),
        };
        match self.ask(&Request { asked, method: Method::DELETE, url, body: None }).await {
            Ok((answer, bearer)) => answer::revoked(asked, &answer, &bearer),
            Err(unanswered) => RevokeOutcome::Failed(unanswered.failed),
        }
    }

    async fn verify_itself(&self, account: &Account, value: &Secret) -> VerifyOutcome {
        let asked = self.asked(Operation::Verify, account);
        let url = match self.tokens_url(asked) {
            Ok(url) => url,
            Err(failed) => return VerifyOutcome::Failed(failed),
        };
        match self.send(&Request { asked, method: Method::GET, url, body: None }, value).await {
            Ok(answer) => answer::verified(asked, &answer, value),
            Err(unanswered) => VerifyOutcome::Failed(unanswered.failed),
        }
    }

    async fn verify_calls(&self, accounts: &[Account], none: &TokenId, value: &Secret) -> VerifyOutcome {
        for account in accounts {
            let asked = self.asked(Operation::Verify, account);
            let outcome = match self.tokens_url(asked) {
                Err(failed) => VerifyOutcome::Failed(failed),
                Ok(url) => match self.send(&Request { asked, method: Method::GET, url, body: None }, value).await {
                    Ok(answer) => answer::may_list(asked, &answer, value),
                    Err(unanswered) => VerifyOutcome::Failed(unanswered.failed),
                },
            };
            if outcome != VerifyOutcome::Verified {
                return outcome;
            }
        }
        let Some(account) = accounts.first() else { return VerifyOutcome::Verified };
        let asked = self.asked(Operation::Verify, account);
        let url = self.tokens_url(asked).map(|url| format!("{url}/{}", percent_encode(&none.0)));
        match url {
            Err(failed) => VerifyOutcome::Failed(failed),
            Ok(url) => match self.send(&Request { asked, method: Method::DELETE, url, body: None }, value).await {
                Ok(answer) => answer::may_revoke(asked, &answer, value),
                Err(unanswered) => VerifyOutcome::Failed(unanswered.failed),
            },
        }
    }

    async fn admin_token(&self, anew: bool) -> Option<Fingerprint> {
        if anew {
            self.admin.look_again().await;
        }
        self.admin_token_fingerprint().await.ok()
    }

    async fn verify_by_connecting(&self, account: &Account, token_type: TokenType, value: &Secret) -> VerifyOutcome {
        let Some(wire) = &self.wire else {
            let what = format!("organization `{}` has no `postgres` to connect to", self.organization);
            return VerifyOutcome::Failed(Failed::new(Reason::Missing, what));
        };
        match wire.session(account, value).await {
            Ok(session) => wire.judge(&session, account, token_type),
            Err(Unproven::Unanswered(failed)) => VerifyOutcome::Failed(failed),
            Err(Unproven::Refused(refused)) => self.explain(wire, &refused, account, token_type, value).await,
        }
    }
}

/// `Bearer …`, marked so that no library's log shows it.
fn authorization(bearer: &Secret) -> Result<HeaderValue, Failed> {
    let mut text = Zeroizing::new(String::with_capacity(7 + bearer.expose().len()));
    text.push_str("Bearer ");
    text.push_str(bearer.expose());
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        Failed::new(Reason::Unauthorized, "the token holds characters that no token has; put the token alone into its source")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Why there is no answer. Only a failure to connect is sure to have sent nothing: a reset can come
/// after the request was read, and a connection that broke may have carried it.
fn unanswered(asked: Asked<'_>, error: &reqwest::Error) -> Unanswered {
    let cause: String = innermost(error).to_string().chars().take(120).collect();
    if error.is_builder() {
        return Unanswered { sent: false, failed: asked.failed(Reason::NoRoute, "the address can't be used; correct `api_url`") };
    }
    if error.is_connect() {
        let what = if error.is_timeout() {
            "no connection within the time limit".to_owned()
        } else {
            format!("no connection ({cause})")
        };
        return Unanswered { sent: false, failed: asked.failed(Reason::Unreachable, &what) };
    }
    if error.is_timeout() {
        return Unanswered { sent: true, failed: asked.failed(Reason::TimedOut, "no answer within the time limit") };
    }
    Unanswered {
        sent: true,
        failed: asked.failed(Reason::BadAnswer, &format!("the connection broke before an answer came ({cause})")),
    }
}

fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<jiff::SignedDuration> {
    answer::retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

/// Reads a body into memory that is wiped, growing included.
async fn read_body(response: &mut Response, limit: usize) -> Result<Zeroizing<Vec<u8>>, BodyFault> {
    let expected = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    if expected > limit {
        return Err(BodyFault::TooLarge(limit));
    }
    let mut body = Zeroizing::new(Vec::with_capacity(expected.min(64 * 1024)));
    loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(body),
            Err(error) => return Err(if error.is_timeout() { BodyFault::TimedOut } else { BodyFault::Broken }),
        };
        let length = body.len() + chunk.len();
        if length > limit {
            return Err(BodyFault::TooLarge(limit));
        }
        if length > body.capacity() {
            // A vector that grew by itself would leave its old memory unwiped.
            let mut larger = Zeroizing::new(Vec::with_capacity(length.max(2 * body.capacity())));
            larger.extend_from_slice(&body);
            body = larger;
        }
        body.extend_from_slice(&chunk);
    }
}

/// A text as one segment of a path; `None` for what a server could take for another path (observed
/// in the official client) or what is longer than the API takes.
fn path_segment(text: &str, characters_max: usize) -> Option<String> {
    let fits = !matches!(text, "" | "." | "..") && text.chars().count() <= characters_max;
    fits.then(|| percent_encode(text))
}

/// Percent-encodes everything but the characters that never need it (RFC 3986, unreserved).
fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            // Writing to a string can't fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
        encoded
    })
}

/// Between half of `delay` and all of it, so that clients that failed together don't come back together.
fn jittered(delay: Duration) -> Duration {
    let mut random = [0_u8; 1];
    // Without randomness the delay is the longest one.
    let share =
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK).map_or(255, |_| u32::from(random[0]));
    delay / 2 + delay / 2 * share / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_can_t_become_another_path() {
        for wrong in ["", ".", "..", &"a".repeat(256)] {
            assert_eq!(path_segment(wrong, USERNAME_MAX), None, "{wrong}");
        }
        assert_eq!(path_segment("etl_prod", 255).unwrap(), "etl_prod");
        assert_eq!(path_segment("a/../b?c#d%2e\n ä", 255).unwrap(), "a%2F..%2Fb%3Fc%23d%252e%0A%20%C3%A4");
        assert_eq!(path_segment(&"ä".repeat(255), 255).unwrap().len(), 255 * 6);
    }

    #[test]
    fn jitter_stays_between_half_and_whole() {
        let delay = Duration::from_millis(200);
        for _ in 0..200 {
            let jittered = jittered(delay);
            assert!(jittered >= delay / 2 && jittered <= delay, "{jittered:?}");
        }
    }
}
