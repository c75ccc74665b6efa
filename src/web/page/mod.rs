//! The status page: HTML made here, one style sheet, no script. It only shows; what changes something is a command.

mod credential;
mod fleet;
mod timeline;

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use super::{Shared, headers};
use crate::engine::Concern;
use crate::snapshot::{At, Attention, Build, CredentialState, Label, span};

const STYLE: &str = include_str!("style.css");
const ICON: &str = include_str!("icon.svg");

pub fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/", get(fleet::page))
        .route("/credential/{name}", get(credential::page))
        .route("/credential/{name}/history", get(credential::history))
        .route("/style.css", get(async || asset("text/css; charset=utf-8", STYLE)))
        .route("/icon.svg", get(async || asset("image/svg+xml", ICON)))
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    let mut response = (headers(content_type), text).into_response();
    // They change with the program alone, and hold nothing of anybody.
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("max-age=300"));
    response
}

/// A page of the site around its own part.
fn shown(status: StatusCode, shared: &Shared, title: &str, main: &Markup) -> Response {
    let deployment = &shared.watched.deployment;
    let now = shared.now().wall;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · rotad " (deployment) }
                link rel="stylesheet" href="/style.css";
                link rel="icon" href="/icon.svg" type="image/svg+xml";
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    nav aria-label="Site" {
                        a.brand href="/" { "rotad" }
                        span.deployment { (deployment) }
                    }
                    p.taken { "as of " (moment(now)) }
                }
                main #main { (main) }
                footer {
                    p {
                        "rotad " (Build::THIS) ". This page only shows; commands change. "
                        "The same as JSON: " a href="/api/v1/openapi.json" { "/api/v1" } ". For Prometheus: " a href="/metrics" { "/metrics" } "."
                    }
                }
            }
        }
    };
    (status, headers("text/html; charset=utf-8"), page.into_string()).into_response()
}

/// What stands where a page should be.
fn refused(status: StatusCode, shared: &Shared, told: &str) -> Response {
    let main = html! {
        h1 { "Nothing to show" }
        p { (told) }
        p { a href="/" { "Back to the fleet" } }
    };
    shown(status, shared, "Nothing to show", &main)
}

/// A moment, whole.
fn moment(at: Timestamp) -> Markup {
    let told = at.strftime("%Y-%m-%d %H:%M:%S UTC");
    html! { time datetime=(at) { (told) } }
}

/// How far a moment is from now, the moment itself where the pointer rests.
fn relative(at: Option<Timestamp>, now: Timestamp) -> Markup {
    let Some(at) = at else { return html! { span.none { "–" } } };
    let told = if at > now { format!("in {}", span(at, now)) } else { format!("{} ago", span(now, at)) };
    html! { time datetime=(at) title=(at.strftime("%Y-%m-%d %H:%M:%S UTC")) { (told) } }
}

/// A moment with its distance; for facts that are read one by one.
fn both(at: At, now: Timestamp) -> Markup {
    match at.timestamp() {
        Some(at) => html! { (relative(Some(at), now)) span.exact { " " (moment(at)) } },
        None => html! { span.none { "not known yet" } },
    }
}

fn words(label: &str) -> String {
    label.replace('_', " ")
}

fn state(state: CredentialState) -> Markup {
    html! { span.badge data-state=(state.as_str()) { (words(state.as_str())) } }
}

fn attention(attention: Attention) -> Markup {
    html! { span.badge data-attention=(attention.as_str()) { (words(attention.as_str())) } }
}

/// When rotad does what is next: the moment itself where it is known.
fn when(told: &Concern, now: Timestamp) -> Markup {
    html! {
        @if told.next_at.is_some() { " (next " (relative(told.next_at, now)) ")" }
        @else if let Some(when) = told.when(now) { " (" (when) ")" }
    }
}

/// What needs a person, in its parts.
fn concern(told: &Concern, now: Timestamp) -> Markup {
    html! {
        li.concern {
            p.happened {
                @if let Some(what) = told.attention { (attention(what)) " " }
                (told.happened)
            }
            dl {
                @if let Some(place) = &told.place { dt { "Where" } dd { code { (place) } } }
                @if let Some(since) = told.since { dt { "Since" } dd { (relative(Some(since), now)) } }
                dt { "rotad" }
                dd { (told.next) (when(told, now)) }
                dt { "To do" }
                dd { (told.remedy) }
            }
        }
    }
}
