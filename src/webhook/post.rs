//! Brings a message to its address, once. Whatever goes wrong is told without the address.

use jiff::SignedDuration;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use crate::config::{Address, Webhook};
use crate::http;
use crate::rotation::{Failed, Reason};

/// Sends `body`; done when it was answered with a success.
///
/// # Errors
/// Why it may not have arrived.
pub async fn post(client: &reqwest::Client, webhook: &Webhook, body: String) -> Result<(), Failed> {
    let unsuitable = |what: String| Failed::new(Reason::Unsuitable, what);
    let url = match &webhook.address {
        Address::Plain(url) => http::address(url).map_err(|wrong| unsuitable(format!("the address {wrong}")))?,
        Address::Secret(source) => {
            let url = source.read_word().await?;
            http::address(url.expose()).map_err(|wrong| unsuitable(format!("the address in {source} {wrong}")))?
        }
    };
    let mut call = client.post(url).header(CONTENT_TYPE, "application/json").body(body);
    if let Some(source) = &webhook.authorization {
        let value = source.read_line().await?;
        let header = HeaderValue::from_str(value.expose());
        let mut header = header.map_err(|_| unsuitable(format!("{source} holds what no header may have")))?;
        header.set_sensitive(true);
        call = call.header(AUTHORIZATION, header);
    }
    let answer = call.send().await.map_err(|error| http::unanswered(&error))?;
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
