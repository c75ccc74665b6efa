//! Brings a message to its address, once. Whatever goes wrong is told without the address.

use std::time::Duration;

use jiff::SignedDuration;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use crate::config::{Address, Webhook, webhook_url};
use crate::rotation::{Failed, Reason};

/// To a usable connection, and for the whole: nothing waits for it but the next message.
const CONNECT_MAX: Duration = Duration::from_secs(5);
const WHOLE_MAX: Duration = Duration::from_secs(15);

/// The client for every message. Proxies named in the environment are not used, as nowhere in rotad.
///
/// # Errors
/// If there are no certificates to verify by.
pub fn client() -> Result<reqwest::Client, Failed> {
    let client = reqwest::Client::builder()
        .user_agent(concat!("rotad/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .connect_timeout(CONNECT_MAX)
        .timeout(WHOLE_MAX)
        // Messages are minutes apart.
        .pool_max_idle_per_host(0)
        .build();
    client.map_err(|error| {
        Failed::new(Reason::Unsuitable, format!("no HTTP client could be made ({error}); are CA certificates installed?"))
    })
}

/// Sends `body`; done when it was answered with a success.
///
/// # Errors
/// Why it may not have arrived.
pub async fn post(http: &reqwest::Client, webhook: &Webhook, body: String) -> Result<(), Failed> {
    let unsuitable = |what: String| Failed::new(Reason::Unsuitable, what);
    let url = match &webhook.address {
        Address::Plain(url) => webhook_url(url).map_err(|wrong| unsuitable(format!("the address {wrong}")))?,
        Address::Secret(source) => {
            let url = source.read_word().await?;
            webhook_url(url.expose()).map_err(|wrong| unsuitable(format!("the address in {source} {wrong}")))?
        }
    };
    let mut call = http.post(url).header(CONTENT_TYPE, "application/json").body(body);
    if let Some(source) = &webhook.authorization {
        let value = source.read_line().await?;
        let header = HeaderValue::from_str(value.expose());
        let mut header = header.map_err(|_| unsuitable(format!("{source} holds what no header may have")))?;
        header.set_sensitive(true);
        call = call.header(AUTHORIZATION, header);
    }
    // The error's own text has the address, and may have more.
    let answer = call.send().await.map_err(|error| match (error.is_timeout(), error.is_connect()) {
        (true, _) => Failed::new(Reason::TimedOut, format!("it did not answer within {} s", WHOLE_MAX.as_secs())),
        (false, true) => Failed::new(Reason::Unreachable, "no connection to it could be made: name, network, TLS"),
        (false, false) => Failed::new(Reason::Unreachable, "the connection to it broke"),
    })?;
    judge(answer.status(), answer.headers().get(RETRY_AFTER))
}

/// The body of an answer is not read: nothing in it is for us.
fn judge(status: StatusCode, retry_after: Option<&HeaderValue>) -> Result<(), Failed> {
    let reason = match status.as_u16() {
        200..=299 => return Ok(()),
        300..=399 => {
            let what =
                format!("it answered {}: redirects are not followed, so give the address that it leads to", status.as_u16());
            return Err(Failed::new(Reason::BadAnswer, what));
        }
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        429 => Reason::Throttled,
        500..=599 => Reason::Unavailable,
        _ => Reason::Rejected,
    };
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok()).map(SignedDuration::from_secs);
    Err(Failed::new(reason, format!("it answered {}", status.as_u16())).retry_after(seconds))
}
