//! Durations as Go reads and prints them: `1h30m`, `250ms`.

const UNITS: &[(&str, f64)] =
    &[("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Nanoseconds, or `None` if the text is not a duration.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn parse(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..end])?;
        nanos += number * unit;
        rest = &rest[end..];
    }
    (!text.is_empty() && nanos < 9e18).then_some((sign * nanos) as i64)
}

/// `1h0m0s`, `90s` as `1m30s`, `500ms`.
pub(super) fn print(nanos: i64) -> String {
    let (seconds, below) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if seconds == 0 {
        return match below {
            0 => "0s".to_owned(),
            _ if below % 1_000_000 == 0 => format!("{}ms", below / 1_000_000),
            _ if below % 1_000 == 0 => format!("{}µs", below / 1_000),
            _ => format!("{below}ns"),
        };
    }
    let fraction = if below == 0 {
        String::new()
    } else {
        format!(".{:09}", below.abs()).trim_end_matches('0').to_owned()
    };
    let rest = format!("{}{fraction}s", seconds % 60);
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => rest,
        (0, minutes) => format!("{minutes}m{rest}"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_and_print_as_in_go() {
        let printed = |text: &str| parse(text).map(print);
        assert_eq!(printed("1h").as_deref(), Some("1h0m0s"));
        assert_eq!(printed("90s").as_deref(), Some("1m30s"));
        assert_eq!(printed("1.5s").as_deref(), Some("1.5s"));
        assert_eq!(printed("250ms").as_deref(), Some("250ms"));
        assert_eq!(printed("0").as_deref(), Some("0s"));
    }

    #[test]
    fn number_without_unit_is_rejected() {
        assert_eq!([parse("10"), parse(""), parse("s"), parse("1x"), parse("1..2s")], [None; 5]);
    }
}
