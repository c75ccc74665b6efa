//! The HTTP client by which rotad tells others: the webhook, and traces. MotherDuck and the stores have clients of their own.

use std::time::Duration;

use reqwest::Url;

use crate::rotation::{Failed, Reason};

/// To a usable connection, and for the whole: nothing waits for it but the next message.
const CONNECT_MAX: Duration = Duration::from_secs(5);
pub const WHOLE_MAX: Duration = Duration::from_secs(15);

/// It follows no redirection, and uses no proxy that the environment names, as nothing in rotad does.
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
        // Messages are far apart.
        .pool_max_idle_per_host(0)
        .build();
    client.map_err(|error| {
        Failed::new(Reason::Unsuitable, format!("no HTTP client could be made ({error}); are CA certificates installed?"))
    })
}

/// A text as an address that may be told something: `https://`, or `http://` on loopback.
///
/// # Errors
/// What is wrong with it, to follow "the address"; never the address.
pub fn address(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is not a URL")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user or a password in it: what proves who sends goes into a header");
    }
    match (url.scheme(), url.host_str()) {
        ("https", Some(_)) => Ok(url),
        ("http", Some(host)) if is_loopback(host) => Ok(url),
        _ => Err("is neither `https://` nor `http://` on loopback"),
    }
}

/// Whether a URL's host is this machine for certain.
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Why there was no answer. The error's own text has the address, and may have more.
pub fn unanswered(error: &reqwest::Error) -> Failed {
    match (error.is_timeout(), error.is_connect()) {
        (true, _) => Failed::new(Reason::TimedOut, format!("it did not answer within {} s", WHOLE_MAX.as_secs())),
        (false, true) => Failed::new(Reason::Unreachable, "no connection to it could be made: name, network, TLS"),
        (false, false) => Failed::new(Reason::Unreachable, "the connection to it broke"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_encrypted_or_stays_on_this_machine() {
        let fine =
            ["https://hooks.example/services/T1/x?sig=abc", "http://127.0.0.1:9/x", "http://[::1]:9/", "http://localhost/"];
        for fine in fine {
            assert!(address(fine).is_ok(), "{fine}");
        }
        let wrong = [
            "http://hooks.example/x",
            "ftp://hooks.example/",
            "hooks.example",
            "https://user:pw@hooks.example/",
            "",
            "file:///x",
        ];
        for wrong in wrong {
            let why = address(wrong).unwrap_err();
            assert!(!why.contains("hooks.example"), "{why}");
        }
    }
}
