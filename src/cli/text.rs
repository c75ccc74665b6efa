//! Text for people: no line wider than a narrow terminal, and colour only where somebody sees it.

use std::io::IsTerminal;

/// What fits everywhere.
const WIDTH: usize = 80;

/// `text` in lines that fit, the first behind `first`, the others behind `indent` spaces. A word that is longer than a
/// line (a path) stays whole, so that it can be copied.
pub fn wrapped(first: &str, indent: usize, text: &str) -> String {
    let (mut lines, mut line) = (String::new(), first.to_owned());
    let mut is_begun = false;
    // Two spaces between columns stay two, but where a line begins.
    for word in text.split([' ', '\n']) {
        if is_begun && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line = " ".repeat(indent);
            is_begun = false;
        }
        if is_begun {
            line.push(' ');
        }
        line.push_str(word);
        is_begun |= !word.is_empty();
    }
    lines + line.trim_end() + "\n"
}

/// Whether text may be coloured.
#[derive(Debug, Clone, Copy)]
pub struct Colours(bool);

impl Colours {
    #[cfg(test)]
    pub const ALL: Self = Self(true);
    #[cfg(test)]
    pub const NONE: Self = Self(false);

    /// Where a person looks at a terminal that can, and has not said otherwise (`NO_COLOR`, of any value but none).
    pub fn of_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let able = std::env::var_os("TERM").is_some_and(|terminal| terminal != "dumb");
        Self(wanted && able && std::io::stdout().is_terminal())
    }

    /// What needs a person now.
    pub fn alarming(self, text: &str) -> String {
        self.within("\x1b[1;31m", text)
    }

    /// What a person should know.
    pub fn notable(self, text: &str) -> String {
        self.within("\x1b[33m", text)
    }

    fn within(self, colour: &str, text: &str) -> String {
        if self.0 { format!("{colour}{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_words_stay_whole() {
        let path = format!("file:/{}", "x".repeat(90));
        let text = wrapped("  rotad:  ", 10, &format!("{}{path} {}", "a word ".repeat(20), "and so on ".repeat(10)));
        let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > WIDTH).collect();
        assert_eq!(long, [format!("{}{path}", " ".repeat(10))]);
        assert!(text.lines().skip(1).all(|line| line.starts_with(&" ".repeat(10)) && !line.ends_with(' ')), "{text}");
        assert_eq!(wrapped("  ", 4, "file:/é  serves\nit"), "  file:/é  serves it\n");
    }
}
