//! One credential's page: its tokens as a picture and as a table, its places, what needs a person, its last steps.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};

use super::{Shared, both, concern, moment, refused, relative, shown, state, timeline, words};
use crate::engine::{Detail, StepLine, TokenLine};
use crate::rotation::CredentialName;
use crate::snapshot::{At, Label};
use crate::web::api::{Given, Portion, given};
use crate::web::records::{self, RecordError};

/// How many of the last steps the page has, and how many a page of the history.
const STEPS: usize = 40;
const STEPS_OF_HISTORY: usize = 100;

pub async fn page(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    let Ok(name) = name.parse::<CredentialName>() else { return failed(&shared, &RecordError::NotConfigured) };
    match records::detail(&shared, &name).await {
        Ok(detail) => shown(StatusCode::OK, &shared, name.as_str(), &content(&detail)),
        Err(error) => failed(&shared, &error),
    }
}

pub async fn history(State(shared): State<Arc<Shared>>, Path(name): Path<String>, asked: Given<Portion>) -> Response {
    let Ok(name) = name.parse::<CredentialName>() else { return failed(&shared, &RecordError::NotConfigured) };
    let before = match given(asked).and_then(|asked| asked.before()) {
        Ok(before) => before,
        Err(wrong) => return refused(StatusCode::BAD_REQUEST, &shared, &wrong),
    };
    let found = match records::steps(&shared, &name, before, STEPS_OF_HISTORY).await {
        Ok(found) => found,
        Err(error) => return failed(&shared, &error),
    };
    let main = html! {
        (trail(&name))
        h1 { "Steps of " (name) }
        (steps(found.lines.iter().map(|(_, step)| step)))
        nav.pager aria-label="Pages" {
            a href=(format!("/credential/{name}/history")) { "Newest" }
            @if let Some(before) = found.before { a href=(format!("/credential/{name}/history?before={before}")) rel="next" { "Older" } }
        }
    };
    shown(StatusCode::OK, &shared, &format!("Steps of {name}"), &main)
}

fn failed(shared: &Shared, error: &RecordError) -> Response {
    let status = match error {
        RecordError::NotConfigured => StatusCode::NOT_FOUND,
        RecordError::Unreadable => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refused(status, shared, &format!("There is nothing to show: {error}."))
}

fn trail(name: &CredentialName) -> Markup {
    html! {
        nav aria-label="Trail" {
            p.trail { a href="/" { "Fleet" } " / " a href=(format!("/credential/{name}")) { (name) } }
        }
    }
}

fn content(detail: &Detail) -> Markup {
    let Detail { name, summary, taken_at: now, .. } = detail;
    let now = *now;
    html! {
        (trail(name))
        h1 { (name) " " (state(summary.state)) }
        (facts(detail, now))
        @if !detail.concerns.is_empty() {
            section aria-labelledby="needs" {
                h2 #needs { "What needs a person" }
                ul.concerns { @for about in &detail.concerns { (concern(about, now)) } }
            }
        }
        section aria-labelledby="tokens" {
            h2 #tokens { "Tokens" }
            (timeline::figure(&detail.tokens_by_age, summary.due_at.timestamp(), now))
            @if !detail.tokens_by_age.is_empty() { (tokens(&detail.tokens_by_age, now)) }
        }
        section aria-labelledby="places" {
            h2 #places { "Places" }
            (places(detail, now))
        }
        section aria-labelledby="steps" {
            h2 #steps { "Last steps" }
            (steps(detail.history.iter().take(STEPS)))
            p { a href=(format!("/credential/{name}/history")) { "Every step that is kept" } }
        }
    }
}

fn facts(detail: &Detail, now: Timestamp) -> Markup {
    let summary = &detail.summary;
    let fact = |what: &str, at: At| html! { div { dt { (what) } dd { (both(at, now)) } } };
    html! {
        dl.facts {
            (fact("Works until, if rotad stopped now", summary.served_until))
            (fact("Next token", summary.due_at))
            (fact("Deadline", summary.deadline_at))
            (fact("Last rotated", summary.last_success_at))
            (fact("Last looked at", summary.last_sweep_at))
            div { dt { "Account" } dd { (detail.account) " (" (words(detail.token_type)) ", organization " (detail.organization) ")" } }
            div {
                dt { "Other live tokens of the account" }
                dd { (summary.tokens_foreign) " of others, " (summary.tokens_unknown) " with this name that rotad did not record" }
            }
        }
    }
}

/// The same as the picture, in words.
fn tokens(tokens: &[TokenLine], now: Timestamp) -> Markup {
    html! {
        div.wide role="region" aria-label="Tokens, a table" tabindex="0" {
            table {
                caption { "Tokens, newest first" }
                thead {
                    tr {
                        th scope="col" { "Token" }
                        th scope="col" { "Is" }
                        th scope="col" { "Issued" }
                        th scope="col" { "Delivered" }
                        th scope="col" { "Superseded" }
                        th scope="col" { "Ends" }
                    }
                }
                tbody { @for token in tokens.iter().rev() { (token_row(token, now)) } }
            }
        }
    }
}

fn token_row(token: &TokenLine, now: Timestamp) -> Markup {
    html! {
        tr {
            th scope="row" {
                @match &token.token { Some(id) => { code { (id) } } None => { span.none { "id not known" } } }
            }
            td { (timeline::standing(token)) }
            td { (relative(token.created_at, now)) }
            td {
                @if token.delivered.is_empty() { span.none { "–" } } @else {
                    ul.plain { @for delivered in &token.delivered { li { code { (delivered.place) } " " (relative(Some(delivered.at), now)) } } }
                }
            }
            td { (relative(token.superseded_at, now)) }
            td { (end(token, now)) }
        }
    }
}

fn end(token: &TokenLine, now: Timestamp) -> Markup {
    let expires = html! { @if token.expires_at.is_some() { "expires " (relative(token.expires_at, now)) } };
    match (token.ended, token.kept, token.revocation_due_at) {
        (Some(ended), _, _) => html! { (words(ended.as_str())) " " (relative(token.ended_at, now)) },
        (None, Some(kept), _) => html! { (kept) "; " (expires) },
        (None, None, Some(due_at)) if due_at <= now => html! { "to be revoked now; " (expires) },
        (None, None, Some(due_at)) => html! { "revoked " (relative(Some(due_at), now)) "; " (expires) },
        (None, None, None) => expires,
    }
}

fn places(detail: &Detail, now: Timestamp) -> Markup {
    html! {
        ul.places {
            @for place in &detail.places {
                li {
                    code { (place.place) } " " (place.told())
                    @if let Some(trouble) = &place.trouble {
                        p.trouble { (trouble) @if place.tried_again_at.is_some() { "; tried again " (relative(place.tried_again_at, now)) } }
                    }
                }
            }
        }
    }
}

fn steps<'s>(steps: impl Iterator<Item = &'s StepLine>) -> Markup {
    html! {
        div.wide role="region" aria-label="Steps, a table" tabindex="0" {
            table.steps {
                caption { "Newest first" }
                thead { tr { th scope="col" { "When" } th scope="col" { "What" } th scope="col" { "Where, and why" } } }
                tbody {
                    @for step in steps {
                        tr data-warning=[step.what.is_warning().then_some("")] {
                            td { (moment(step.at)) }
                            td { (words(step.what.as_str())) }
                            td {
                                @if let Some(place) = &step.place { code { (place) } " " }
                                @if let Some(token) = &step.token { "token " code { (token) } " " }
                                @if let Some(reason) = step.reason { (words(reason.as_str())) " " }
                                @if let Some(detail) = &step.detail { (detail) " " }
                                @if let Some(by) = &step.by { "by " (by) }
                            }
                        }
                    }
                }
            }
        }
    }
}
