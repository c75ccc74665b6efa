//! Times as people read them.

use jiff::{SignedDuration, Timestamp};

use super::At;

/// How long until a moment that is known: `5 h`, or `now` when it has come, or `-`.
pub fn until(at: At, now: Timestamp) -> String {
    at.timestamp().map_or_else(|| "-".to_owned(), |at| if at <= now { "now".to_owned() } else { span(at, now) })
}

/// The time between two moments in its largest unit, rounded down.
pub fn span(later: Timestamp, earlier: Timestamp) -> String {
    let seconds = later.duration_since(earlier).max(SignedDuration::ZERO).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_its_largest_unit() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let told: Vec<String> = [-5, 90, 600, 8000, 604_800].map(|seconds| span(at(seconds), at(0))).to_vec();
        assert_eq!(told, ["0 s", "90 s", "10 min", "2 h", "7 d"]);
        assert_eq!([until(at(5).into(), at(5)), until(At::UNKNOWN, at(0))], ["now", "-"]);
    }
}
