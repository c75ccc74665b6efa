//! Durations as the configuration writes them: a whole number and one unit, `90s`, `15m`, `12h`, `30d`.

use jiff::SignedDuration;

/// Longer than any duration that makes sense here (100 years of 365 days), so that sums can't overflow.
const SECONDS_MAX: i64 = 100 * 365 * 86_400;

/// The duration.
///
/// # Errors
/// What would be right.
pub fn parse(text: &str) -> Result<SignedDuration, String> {
    let form = "a duration is a whole number and one of `s`, `m`, `h`, `d`, such as `90s`, `15m`, `12h` or `30d`";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "ms" => return Err(format!("whole seconds are the finest there is; {form}")),
        _ => return Err(form.to_owned()),
    };
    let Ok(number) = number.parse::<i64>() else { return Err(form.to_owned()) };
    match number.checked_mul(factor) {
        Some(seconds) if seconds <= SECONDS_MAX => Ok(SignedDuration::from_secs(seconds)),
        _ => Err("at most 100 years (`36500d`)".to_owned()),
    }
}

/// The duration in the largest units that show it whole: `90m`, `7d`, `1h 30m 5s`.
pub fn show(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    if seconds < 0 {
        return format!("-{}", show(-duration));
    }
    let parts = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let shown: Vec<String> =
        parts.iter().filter(|(number, _)| *number != 0).map(|(number, unit)| format!("{number}{unit}")).collect();
    if shown.is_empty() { "0s".to_owned() } else { shown.join(" ") }
}

/// The duration as a person may write it into the file, in the largest unit that has it whole: `90m`, `7d`, `5405s`.
pub(super) fn writable(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (factor, unit) = [(86_400, "d"), (3_600, "h"), (60, "m")]
        .into_iter()
        .find(|(factor, _)| seconds != 0 && seconds % factor == 0)
        .unwrap_or((1, "s"));
    format!("{}{unit}", seconds / factor)
}

/// The same for the least that will do: rounded up to whole hours from a day on, and to whole minutes from an hour on.
pub(super) fn at_least(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let step = match seconds {
        86_400.. => 3_600,
        3_600.. => 60,
        _ => 1,
    };
    writable(SignedDuration::from_secs((seconds + step - 1) / step * step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)] {
            assert_eq!(parse(text), Ok(SignedDuration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "90", "1h30m", "500ms", "-1h", "1.5h", "1 h", "1w", "99999999999999999999s", "36501d", "１s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_advised_can_be_written() {
        for (seconds, least, exact) in [
            (93_600, "26h", "26h"),
            (91_201, "26h", "91201s"),
            (9_334, "156m", "9334s"),
            (604_800, "7d", "7d"),
            (59, "59s", "59s"),
        ] {
            let duration = SignedDuration::from_secs(seconds);
            assert_eq!((at_least(duration).as_str(), writable(duration).as_str()), (least, exact));
            assert!(parse(&at_least(duration)).unwrap() >= duration);
            assert_eq!(parse(&writable(duration)).unwrap(), duration);
        }
    }

    #[test]
    fn it_is_shown_exactly() {
        for (seconds, text) in [(0, "0s"), (5_405, "1h 30m 5s"), (604_800, "7d"), (-60, "-1m")] {
            assert_eq!(show(SignedDuration::from_secs(seconds)), text);
        }
    }
}
