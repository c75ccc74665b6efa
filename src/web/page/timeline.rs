//! Tokens' lives as a picture: a bar for each, from its issue to its end, what has been and what is to come.
//! The table beside it says the same in words.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::words;
use crate::engine::TokenLine;
use crate::snapshot::{Label, TokenPhase, span};

/// The newest so many are drawn: more would not be told apart.
const ROWS_MAX: usize = 8;

// The picture's measures, in its own units: about a pixel each on a wide screen.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 132.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const ROW: f64 = 46.0;
const BAR: f64 = 18.0;
const BOTTOM: f64 = 34.0;

/// Distances between the marks of the axis, in seconds: the first that leaves few enough is taken.
const STEPS: [i64; 18] =
    [1, 5, 15, 30, 60, 300, 900, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000, 7_776_000];
const MARKS_MAX: i64 = 7;
const DAY: i64 = 86_400;

/// Where a token is in its life, in words.
pub fn standing(token: &TokenLine) -> String {
    match (token.ended, token.phase) {
        (Some(ended), _) => words(ended.as_str()),
        (None, Some(TokenPhase::Retiring)) => "retiring: still alive".to_owned(),
        (None, Some(phase)) => words(phase.as_str()),
        (None, None) => "asked for".to_owned(),
    }
}

/// From moments to places on the picture.
struct Axis {
    from: Timestamp,
    to: Timestamp,
}

impl Axis {
    fn new(tokens: &[TokenLine], due_at: Option<Timestamp>, now: Timestamp) -> Option<Self> {
        let from = tokens.iter().filter_map(begin).min()?;
        let ahead = tokens.iter().filter_map(|token| token.revocation_due_at).chain(due_at);
        let mut to = ahead.fold(now, Timestamp::max);
        // What expires much later than all else would leave no room for it.
        let far = to.checked_add(to.duration_since(from)).unwrap_or(to);
        to = tokens.iter().filter_map(|token| token.expires_at).filter(|at| *at <= far).fold(to, Timestamp::max);
        let room = to.duration_since(from).max(SignedDuration::from_secs(10));
        Some(Self { from: from.checked_sub(room / 40).ok()?, to: to.checked_add(room / 25).ok()? })
    }

    fn x(&self, at: Timestamp) -> f64 {
        let part = at.duration_since(self.from).as_secs_f64() / self.to.duration_since(self.from).as_secs_f64();
        LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    /// The axis's marks, at round times.
    fn marks(&self) -> (i64, Vec<Timestamp>) {
        let (from, to) = (self.from.as_second(), self.to.as_second());
        let step = STEPS.into_iter().find(|step| (to - from) / step <= MARKS_MAX).unwrap_or((to - from).max(1) / MARKS_MAX);
        let marks = (from.div_euclid(step) + 1..=to.div_euclid(step)).map(|n| n * step);
        (step, marks.filter_map(|second| Timestamp::from_second(second).ok()).collect())
    }
}

fn begin(token: &TokenLine) -> Option<Timestamp> {
    token.created_at.or(token.current_at).or_else(|| token.delivered.first().map(|delivered| delivered.at))
}

/// A part of a bar.
struct Part {
    class: &'static str,
    from: Timestamp,
    to: Timestamp,
    told: String,
}

/// The picture, with its legend; nothing where there is no token yet.
pub fn figure(tokens: &[TokenLine], due_at: Option<Timestamp>, now: Timestamp) -> Markup {
    let shown = &tokens[tokens.len().saturating_sub(ROWS_MAX)..];
    let Some(axis) = Axis::new(shown, due_at, now) else { return html! { p { "No token has been issued yet." } } };
    let height = TOP + ROW * rows(shown.len()) + BOTTOM;
    html! {
        figure.timeline {
            div.wide role="region" aria-label="Tokens, a picture" tabindex="0" {
                svg role="img" aria-labelledby="timeline-title" aria-describedby="timeline-description" viewBox=(format!("0 0 {WIDTH} {height}")) {
                    title #timeline-title { "The tokens' lives" }
                    desc #timeline-description { (described(shown, due_at, now)) }
                    defs {
                        pattern #grace width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                            rect.grace-ground width="6" height="6" {}
                            rect.grace-line width="2.5" height="6" {}
                        }
                    }
                    (scale(&axis, height))
                    @for (index, token) in shown.iter().enumerate() { (row(token, TOP + ROW * rows(index), &axis, now)) }
                    (upright(&axis, now, "now", "now", height, 14.0))
                    @if let Some(due_at) = due_at.filter(|at| *at > now) {
                        (upright(&axis, due_at, "next", "next token", height, 28.0))
                    }
                }
            }
            figcaption {
                ul.legend {
                    @for (class, told) in [
                        ("delivering", "issued, not yet delivered everywhere"),
                        ("current", "current"),
                        ("grace", "superseded, in its grace period"),
                        ("ahead", "to come"),
                    ] {
                        li { svg aria-hidden="true" viewBox="0 0 24 12" width="24" height="12" { rect class=(class) x="0" y="0" width="24" height="12" rx="3" {} } (told) }
                    }
                    li { svg aria-hidden="true" viewBox="0 0 12 12" width="12" height="12" { path.delivered d="M2 1H10L6 8Z" {} } "delivered to a place" }
                    li { svg aria-hidden="true" viewBox="0 0 12 12" width="12" height="12" { path.revoked d="M2 2L10 10M10 2L2 10" {} } "revoked" }
                    li { svg aria-hidden="true" viewBox="0 0 12 12" width="12" height="12" { path.expired d="M6 1L11 6L6 11L1 6Z" {} } "expires" }
                }
            }
        }
    }
}

fn rows(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The picture in a few sentences, for whoever does not see it.
fn described(tokens: &[TokenLine], due_at: Option<Timestamp>, now: Timestamp) -> String {
    let count = |what: fn(&TokenLine) -> bool| tokens.iter().filter(|token| what(token)).count();
    let ended = count(|token| token.ended.is_some());
    let retiring = count(|token| token.phase == Some(TokenPhase::Retiring));
    let current = count(|token| token.phase == Some(TokenPhase::Current));
    let next = match due_at {
        Some(at) if at > now => format!(" The next token is due in {}.", span(at, now)),
        Some(_) => " The next token is due now.".to_owned(),
        None => String::new(),
    };
    format!(
        "A bar for each token, the last {}, oldest on top: {current} current, {retiring} in the grace period, {ended} ended.{next} \
         The table that follows has every time.",
        tokens.len()
    )
}

fn scale(axis: &Axis, height: f64) -> Markup {
    let (step, marks) = axis.marks();
    let format = match step {
        ..60 => "%H:%M:%S",
        60..DAY => "%H:%M",
        _ => "%m-%d",
    };
    // Hours alone don't tell which day's they are.
    let days = step < DAY && axis.to.duration_since(axis.from).as_secs() > DAY;
    let format = if days { "%m-%d %H:%M" } else { format };
    let baseline = height - BOTTOM;
    html! {
        g.scale {
            @for at in marks {
                @let x = axis.x(at);
                line x1=(x) y1=(TOP) x2=(x) y2=(baseline) {}
                text x=(x) y=(baseline + 20.0) text-anchor="middle" { (at.strftime(format)) }
            }
            text.unit x="0" y=(baseline + 20.0) { "UTC" }
        }
    }
}

fn upright(axis: &Axis, at: Timestamp, class: &str, told: &str, height: f64, label: f64) -> Markup {
    let x = axis.x(at);
    // A label at the edge stays inside of the picture.
    let anchor = if x > WIDTH - 90.0 { "end" } else { "middle" };
    html! {
        g class=(class) {
            line x1=(x) y1=(label + 4.0) x2=(x) y2=(height - BOTTOM) {}
            text x=(x) y=(label) text-anchor=(anchor) { (told) }
        }
    }
}

fn row(token: &TokenLine, top: f64, axis: &Axis, now: Timestamp) -> Markup {
    let id = token.token.as_ref().map_or("id not known", |token| token.0.get(..8).unwrap_or(&token.0));
    let bar = top + 10.0;
    html! {
        g {
            text.token x="0" y=(top + 18.0) { (id) }
            text.standing x="0" y=(top + 34.0) { (standing(token)) }
            @for part in parts(token, now) {
                @let (from, to) = (axis.x(part.from), axis.x(part.to));
                rect class=(part.class) x=(from) y=(bar) width=((to - from).max(2.0)) height=(BAR) rx="3" { title { (part.told) } }
            }
            @for delivered in &token.delivered {
                @let x = axis.x(delivered.at);
                path.delivered d=(format!("M{} {}H{}L{x} {}Z", x - 5.0, bar - 6.0, x + 5.0, bar + 4.0)) {
                    title { "delivered to " (delivered.place) " at " (delivered.at.strftime("%H:%M:%S")) }
                }
            }
            (marker(token, axis, bar + BAR / 2.0))
        }
    }
}

/// What has been of a token's life, and what is to come.
fn parts(token: &TokenLine, now: Timestamp) -> Vec<Part> {
    let Some(begin) = begin(token) else { return Vec::new() };
    let last = token.ended_at.unwrap_or(now);
    let current = token.current_at.unwrap_or(token.superseded_at.unwrap_or(last)).clamp(begin, last.max(begin));
    let superseded = token.superseded_at.unwrap_or(last).clamp(current, last.max(current));
    let mut parts = vec![
        Part { class: "delivering", from: begin, to: current, told: "on its way".to_owned() },
        Part { class: "current", from: current, to: superseded, told: "current".to_owned() },
        Part { class: "grace", from: superseded, to: last, told: "superseded, still alive".to_owned() },
    ];
    if token.current_at.is_none() {
        parts.remove(1);
    }
    let ends = [token.revocation_due_at, token.expires_at].into_iter().flatten().min();
    if let Some(ends) = ends.filter(|at| token.ended.is_none() && *at > now) {
        let told = if Some(ends) == token.expires_at { "lives until it expires" } else { "lives until it is revoked" };
        parts.push(Part { class: "ahead", from: now, to: ends, told: told.to_owned() });
    }
    parts.retain(|part| part.to > part.from);
    parts
}

/// How a life ended or will end, at the place of that in the picture; one beyond its edge is not drawn.
fn marker(token: &TokenLine, axis: &Axis, y: f64) -> Markup {
    let cross = |at: Timestamp, class: &str, told: &str| {
        let x = axis.x(at);
        let d = format!("M{} {}L{} {}M{} {}L{} {}", x - 5.0, y - 5.0, x + 5.0, y + 5.0, x + 5.0, y - 5.0, x - 5.0, y + 5.0);
        html! { path class=(class) d=(d) { title { (told) " at " (at.strftime("%Y-%m-%d %H:%M:%S")) } } }
    };
    let diamond = |at: Timestamp, told: &str| {
        let x = axis.x(at);
        let d = format!("M{x} {}L{} {y}L{x} {}L{} {y}Z", y - 6.0, x + 6.0, y + 6.0, x - 6.0);
        html! { path.expired d=(d) { title { (told) " at " (at.strftime("%Y-%m-%d %H:%M:%S")) } } }
    };
    let is_expiry = token.ended.is_some_and(|ended| ended.as_str() == "expired");
    match (token.ended_at, token.revocation_due_at) {
        (Some(at), _) if is_expiry => diamond(at, "expired"),
        (Some(at), _) => cross(at, "revoked", &standing(token)),
        (None, Some(due_at)) if token.kept.is_none() => cross(due_at, "revoked to-come", "revoked at the earliest"),
        (None, _) => match token.expires_at.filter(|at| *at <= axis.to) {
            Some(at) => diamond(at, "expires"),
            None => html! {},
        },
    }
}
