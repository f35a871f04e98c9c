//! Durations of Go, which Kuma and Consul read and print.

use std::fmt;
use std::time::Duration;

/// A duration in nanoseconds, read and printed as by Go's `time` package: `1h30m0s`, `-1.5s`, `250ms`.
///
/// ```
/// use ecs_mesh_model::GoDuration;
///
/// let duration = GoDuration::parse("90m").unwrap();
/// assert_eq!(duration.to_string(), "1h30m0s");
/// assert_eq!(GoDuration::parse("90"), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(pub i64);

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of each unit.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl GoDuration {
    /// Parses a duration; `None` if Go's `time.ParseDuration` rejects the text.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Some(Self(0));
        }
        if rest.is_empty() {
            return None;
        }
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let (number, after) = rest.split_at(rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
            let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
            let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
            total = total.checked_add(scaled(number, *scale)?)?;
            rest = after;
        }
        i64::try_from(if negative { -total } else { total }).ok().map(Self)
    }
}

fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits: String = fraction.chars().take(18).collect();
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let power = 10_i128.pow(u32::try_from(digits.len()).ok()?);
    whole.checked_mul(scale)?.checked_add(part * scale / power)
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", Decimal(nanos, 1_000)),
            1_000_000..SECOND => write!(f, "{}ms", Decimal(nanos, 1_000_000)),
            _ => {
                let (minutes, rest) = (nanos / (60 * SECOND), nanos % (60 * SECOND));
                match (minutes / 60, minutes % 60) {
                    (0, 0) => {}
                    (0, minutes) => write!(f, "{minutes}m")?,
                    (hours, minutes) => write!(f, "{hours}h{minutes}m")?,
                }
                write!(f, "{}s", Decimal(rest, SECOND))
            }
        }
    }
}

/// The first number in units of the second, a power of ten, without trailing zeros.
struct Decimal(u64, u64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, unit) = *self;
        write!(f, "{}", number / unit)?;
        match number % unit {
            0 => Ok(()),
            rest => {
                // With a leading one, zeros of the fraction are kept.
                let digits = (unit + rest).to_string();
                write!(f, ".{}", digits[1..].trim_end_matches('0'))
            }
        }
    }
}

impl From<Duration> for GoDuration {
    /// The longest duration of Go, 292 years, if `duration` is longer.
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_printed_as_by_go() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("1h", 3_600_000_000_000, "1h0m0s"),
            ("90s", 90_000_000_000, "1m30s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("+1m0.5s", 60_500_000_000, "1m0.5s"),
            ("-90m", -5_400_000_000_000, "-1h30m0s"),
            ("-.5s", -500_000_000, "-500ms"),
            ("1.05ms", 1_050_000, "1.05ms"),
            ("1.µs500ns", 1_500, "1.5µs"),
            ("1μs", 1_000, "1µs"),
            ("7ns", 7, "7ns"),
            ("1.000001s", 1_000_001_000, "1.000001s"),
            ("-9223372036854775808ns", i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            let duration = GoDuration::parse(text).unwrap_or_else(|| panic!("{text} is rejected"));
            assert_eq!((duration.0, duration.to_string().as_str()), (nanos, printed), "{text}");
            assert_eq!(GoDuration::parse(printed), Some(duration), "{printed}");
        }
    }

    #[test]
    fn text_that_go_rejects_is_rejected() {
        for wrong in ["", "-", "1", "s", "1 s", "1d", "soon", ".", ".s", "1..2s", "1.2.3s", "2562048h", "5é"]
        {
            assert_eq!(GoDuration::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn duration_converts_to_nanoseconds() {
        assert_eq!(GoDuration::from(Duration::from_millis(1500)), GoDuration(1_500_000_000));
        assert_eq!(GoDuration::from(Duration::MAX), GoDuration(i64::MAX));
    }
}
