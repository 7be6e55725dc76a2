//! Reads the text of settings: durations with units, booleans, numbers.

use std::time::Duration;

/// Why a text is refused, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) what: String,
    pub(crate) write: String,
}

fn refused(what: String, write: impl Into<String>) -> Refused {
    Refused {
        what,
        write: write.into(),
    }
}

/// Reads a duration, such as `90s`, `60min` or `1h 30min`.
pub(crate) fn duration(text: &str) -> Result<Duration, Refused> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused(
            format!("`{text}` has no unit"),
            format!("`{text}s`, `{text}min` or `{text}h`"),
        ));
    }
    humantime::parse_duration(text).map_err(|_| {
        refused(
            format!("`{}` is not a duration", shown(text)),
            "a number and a unit, such as `90s`, `60min`, `12h` or `30days`",
        )
    })
}

/// Writes a duration so that [`duration`] can read it.
pub(crate) fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Reads a boolean.
pub(crate) fn boolean(text: &str) -> Result<bool, Refused> {
    match text.trim() {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        text => Err(refused(
            format!("`{}` is neither yes nor no", shown(text)),
            "`true` or `false`",
        )),
    }
}

/// Reads a whole number in a range.
pub(crate) fn integer(text: &str, least: u64, most: u64) -> Result<u64, Refused> {
    let write = || format!("a whole number from {least} to {most}");
    let number: u64 = text
        .trim()
        .replace('_', "")
        .parse()
        .map_err(|_| refused(format!("`{}` is not a whole number", shown(text)), write()))?;
    if number < least || number > most {
        return Err(refused(format!("{number} is out of range"), write()));
    }
    Ok(number)
}

/// Reads a fraction: from 0.01 up to less than 1, or 0.
pub(crate) fn part(text: &str) -> Result<f64, Refused> {
    let write = "a fraction from 0.01 up to less than 1, or 0 to switch it off";
    let part: f64 = text
        .trim()
        .parse()
        .map_err(|_| refused(format!("`{}` is not a number", shown(text)), write))?;
    if part != 0.0 && !(0.01..1.0).contains(&part) {
        return Err(refused(format!("{part} is out of range"), write));
    }
    Ok(part)
}

/// Shortens a text for a message.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().filter(|char| !char.is_control()).take(60).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let seconds = Duration::from_secs;
        for (text, read) in [
            ("90s", seconds(90)),
            ("60min", seconds(3600)),
            (" 1h 30min ", seconds(5400)),
            ("30days", seconds(30 * 86_400)),
            ("250ms", Duration::from_millis(250)),
            ("0", Duration::ZERO),
        ] {
            assert_eq!(duration(text), Ok(read), "{text}");
            assert_eq!(duration(&duration_text(read)), Ok(read), "{text}");
        }
        for (text, says) in [
            ("60", "`60` has no unit"),
            ("", "is not a duration"),
            ("an hour", "is not a duration"),
            ("60 parsecs", "is not a duration"),
            ("-5s", "is not a duration"),
        ] {
            let refused = duration(text).unwrap_err();
            assert!(refused.what.contains(says), "{refused:?}");
        }
        assert_eq!(duration("60").unwrap_err().write, "`60s`, `60min` or `60h`");
    }

    #[test]
    fn numbers_have_ranges() {
        assert_eq!(integer("10_000", 1, u64::MAX), Ok(10_000));
        assert!(integer("0", 1, 5).unwrap_err().write.contains("from 1 to 5"));
        assert!(integer("many", 1, 5).is_err());
        assert_eq!(part("0.25"), Ok(0.25));
        assert_eq!(part("0"), Ok(0.0));
        for out in ["1", "0.001", "-1", "NaN", "x"] {
            assert!(part(out).is_err(), "{out}");
        }
        assert_eq!(boolean("1"), Ok(true));
        assert!(boolean("maybe").is_err());
    }
}
