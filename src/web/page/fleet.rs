//! The first page: how long everything keeps working, what needs a person, and every credential.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use tokio::time::Instant;

use super::{Shared, attention, concern, moment, refused, relative, shown, state, words};
use crate::engine::{Concern, general_concerns};
use crate::rotation::CredentialName;
use crate::snapshot::{CredentialState, Label, LetGo, Snapshot, span};
use crate::web::api::{Given, given};
use crate::web::records;
use crate::web::select::{Asked, Listed, Listing, Order, Query, Show};

/// Of how many credentials the concerns are told in full: each is read from the journal.
const TOLD_MAX: usize = 20;
/// Where the journal's disk is slow, the page is not: what is not told is in the list.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

pub async fn page(State(shared): State<Arc<Shared>>, asked: Given<Asked>) -> Response {
    let query = match given(asked).and_then(|asked| asked.check()) {
        Ok(query) => query,
        Err(wrong) => return refused(StatusCode::BAD_REQUEST, &shared, &wrong),
    };
    let now = shared.now();
    let snapshot = shared.watched.board.snapshot(now);
    let listing = shared.select(&query, now.wall);
    let told = told(&shared, now.wall).await;
    let main = html! {
        h1 { "Fleet" }
        (survival(&snapshot))
        (counts(&snapshot, query.show))
        (needs(&snapshot, &told, now.wall))
        (credentials(&listing, &query, now.wall))
        (let_go(&snapshot))
        (organizations(&snapshot))
    };
    shown(StatusCode::OK, &shared, "Fleet", &main)
}

/// The most pressing concerns with their credentials.
async fn told(shared: &Shared, now: Timestamp) -> Vec<(CredentialName, Vec<Concern>)> {
    let pressing = Query { search: String::new(), show: Show::Attention, order: Order::Need, page: 1, per_page: TOLD_MAX };
    let mut told = Vec::new();
    let began = Instant::now();
    for listed in shared.select(&pressing, now).credentials {
        if began.elapsed() >= TOLD_WITHIN {
            break;
        }
        // What can't be read is in the log, and in the list below with its state.
        if let Ok(concerns) = records::needs(shared, &listed.name).await {
            told.push((listed.name, concerns));
        }
    }
    told
}

fn survival(snapshot: &Snapshot) -> Markup {
    let now = snapshot.taken_at;
    let new = snapshot.credentials.of(CredentialState::New);
    html! {
        p.survival {
            @match snapshot.survival_deadline_at.timestamp() {
                Some(until) if until > now => {
                    "If rotad stopped now, every consumer would keep working for " strong { (span(until, now)) } ", until " (moment(until)) "."
                }
                Some(until) => { "A consumer's token expired " strong { (span(now, until)) " ago" } "." }
                None => { "Nothing has been delivered yet." }
            }
            @if new > 0 { " " (new) @if new == 1 { " credential waits" } @else { " credentials wait" } " for a first token." }
        }
    }
}

fn counts(snapshot: &Snapshot, show: Show) -> Markup {
    let all = CredentialState::ALL.iter().map(|state| snapshot.credentials.of(*state)).sum();
    let count = |of: Show| match of {
        Show::All => all,
        Show::Attention => snapshot.credentials_needing_attention,
        Show::State(state) => snapshot.credentials.of(state),
    };
    html! {
        nav aria-label="Credentials by state" {
            ul.counts {
                @for of in Show::every() {
                    li {
                        a href=(format!("/?show={}#credentials", of.as_str())) data-show=(of.as_str()) aria-current=[(of == show).then_some("true")] {
                            strong { (count(of)) } " " span { (show_told(of)) }
                        }
                    }
                }
            }
        }
    }
}

fn show_told(show: Show) -> String {
    match show {
        Show::All => "credentials".to_owned(),
        Show::Attention => "need a person".to_owned(),
        Show::State(state) => words(state.as_str()),
    }
}

fn needs(snapshot: &Snapshot, told: &[(CredentialName, Vec<Concern>)], now: Timestamp) -> Markup {
    let general = general_concerns(snapshot);
    let more = usize::try_from(snapshot.credentials_needing_attention).unwrap_or(usize::MAX).saturating_sub(told.len());
    html! {
        section aria-labelledby="needs" {
            h2 #needs { "What needs a person" }
            @if general.is_empty() && told.is_empty() && more == 0 { p.calm { "Nothing does." } }
            @if !general.is_empty() {
                h3 { "rotad itself" }
                ul.concerns { @for about in &general { (concern(about, now)) } }
            }
            @for (name, concerns) in told {
                h3 { a href=(address(name)) { (name) } }
                ul.concerns { @for about in concerns { (concern(about, now)) } }
            }
            @if more > 0 {
                p { a href="/?show=attention#credentials" { (more) " more" } " are in the list below." }
            }
        }
    }
}

/// Nobody replaces or revokes the tokens of these.
fn let_go(snapshot: &Snapshot) -> Markup {
    if snapshot.let_go.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="let-go" {
            h2 #let-go { "Let go" }
            p { "Not configured any more. Nothing is issued, delivered or revoked for these; their tokens are left to expire." }
            ul {
                @for LetGo { credential, tokens_until } in &snapshot.let_go {
                    li { (credential) ", its last token until " (moment(*tokens_until)) }
                }
            }
        }
    }
}

fn address(name: &CredentialName) -> String {
    format!("/credential/{name}")
}

fn credentials(listing: &Listing, query: &Query, now: Timestamp) -> Markup {
    html! {
        section aria-labelledby="credentials" {
            h2 #credentials { "Credentials" }
            (search(query))
            p role="status" {
                @if listing.matching == 0 { "None fits." } @else {
                    (listing.matching) @if listing.matching == 1 { " fits" } @else { " fit" }
                    @if listing.pages > 1 { "; page " (listing.page) " of " (listing.pages) }
                    "."
                }
            }
            @if listing.matching > 0 { (table(listing, now)) (pager(listing, query)) }
        }
    }
}

fn search(query: &Query) -> Markup {
    html! {
        form.search method="get" action="/#credentials" role="search" {
            label { "Name, account or label contains" input type="search" name="q" value=(query.search) maxlength="64" autocomplete="off"; }
            label {
                "Show"
                select name="show" {
                    @for show in Show::every() {
                        option value=(show.as_str()) selected[show == query.show] {
                            @match show { Show::All => "all", Show::Attention => "what needs a person", Show::State(_) => (words(show.as_str())) }
                        }
                    }
                }
            }
            label {
                "Order"
                select name="sort" {
                    @for order in Order::ALL { option value=(order.as_str()) selected[*order == query.order] { (order_told(*order)) } }
                }
            }
            button { "Show" }
        }
    }
}

fn order_told(order: Order) -> &'static str {
    match order {
        Order::Need => "what needs a person first",
        Order::Name => "by name",
        Order::Expiry => "what expires first",
        Order::Next => "what is due first",
    }
}

fn table(listing: &Listing, now: Timestamp) -> Markup {
    html! {
        div.wide role="region" aria-label="Credentials, a table" tabindex="0" {
            table {
                thead {
                    tr {
                        th scope="col" { "Credential" }
                        th scope="col" { "State" }
                        th scope="col" { "Token expires" }
                        th scope="col" { "Next token" }
                        th scope="col" { "Works until" }
                        th scope="col" { "Undelivered" }
                    }
                }
                tbody { @for listed in &listing.credentials { (row(listed, now)) } }
            }
        }
    }
}

fn row(listed: &Listed, now: Timestamp) -> Markup {
    let summary = &listed.summary;
    let undelivered = summary.deliveries_unconfirmed;
    let undelivered = undelivered.aws + undelivered.file + undelivered.vault;
    html! {
        tr {
            th scope="row" { a href=(address(&listed.name)) { (listed.name) } }
            td {
                (state(summary.state))
                @for needed in listed.attention.iter().filter(|needed| needed.as_str() != summary.state.as_str()) { " " (attention(*needed)) }
            }
            td { (relative(summary.expires_at.timestamp(), now)) }
            td { (relative(summary.due_at.timestamp(), now)) }
            td { (relative(summary.served_until.timestamp(), now)) }
            td { @if undelivered == 0 { span.none { "none" } } @else { (undelivered) } }
        }
    }
}

fn pager(listing: &Listing, query: &Query) -> Markup {
    let link = |page: usize, label: &str, relation: &str| {
        html! { a href=(page_address(query, page)) rel=(relation) { (label) } }
    };
    html! {
        @if listing.pages > 1 {
            nav.pager aria-label="Pages" {
                @if listing.page > 1 { (link(1, "First", "first")) (link(listing.page - 1, "Previous", "prev")) }
                span aria-current="page" { "Page " (listing.page) " of " (listing.pages) }
                @if listing.page < listing.pages { (link(listing.page + 1, "Next", "next")) (link(listing.pages, "Last", "last")) }
            }
        }
    }
}

/// The address of another page of the same query.
fn page_address(query: &Query, page: usize) -> String {
    let mut encoded = String::new();
    for byte in query.search.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    let Query { show, order, per_page, .. } = query;
    format!("/?q={encoded}&show={}&sort={}&per_page={per_page}&page={page}#credentials", show.as_str(), order.as_str())
}

fn organizations(snapshot: &Snapshot) -> Markup {
    let now = snapshot.taken_at;
    html! {
        section aria-labelledby="organizations" {
            h2 #organizations { "Organizations" }
            div.wide role="region" aria-label="Organizations, a table" tabindex="0" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Organization" }
                            th scope="col" { "First token expires" }
                            th scope="col" { "All looked at since" }
                            th scope="col" { "Admin token expires" }
                        }
                    }
                    tbody {
                        @for organization in &snapshot.organizations {
                            tr {
                                th scope="row" { (organization.name) }
                                td { (relative(organization.earliest_expiry_at.timestamp(), now)) }
                                td { (relative(organization.last_sweep_at.timestamp(), now)) }
                                td { (relative(organization.admin_token_expires_at.timestamp(), now)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
