//! Durations with units: `500ms`, `5s`, `10m`, `1h30m`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A duration written with units (`ms`, `s`, `m`, `h`, `d`), the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HumanDuration(pub Duration);

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl HumanDuration {
    /// Parses a duration such as `1h30m`. A number without a unit is an error.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || {
            format!("{text:?} is not a duration: write a number with a unit, such as 500ms, 5s, 10m or 1h30m")
        };
        let mut rest = text;
        let mut total: u64 = 0;
        let mut last_unit = u64::MAX;
        if rest.is_empty() {
            return Err(invalid());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
            let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
            let name = &rest[digits..digits + letters];
            let (_, unit) = *UNITS.iter().find(|(unit, _)| *unit == name).ok_or_else(invalid)?;
            if unit >= last_unit {
                return Err(invalid());
            }
            last_unit = unit;
            total = number.checked_mul(unit).and_then(|ms| total.checked_add(ms)).ok_or_else(invalid)?;
            rest = &rest[digits + letters..];
        }
        Ok(Self(Duration::from_millis(total)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, unit) in UNITS {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for HumanDuration {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<HumanDuration> for String {
    fn from(duration: HumanDuration) -> Self {
        duration.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_prints_as_parsed() {
        for text in ["500ms", "5s", "10m", "1h30m", "2d", "0s"] {
            assert_eq!(HumanDuration::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(HumanDuration::parse("90s").unwrap().0, Duration::from_secs(90));
    }

    #[test]
    fn duration_without_a_unit_is_rejected() {
        for text in ["", "5", "5 s", "s", "5s5m", "5s5s", "-1s", "999999999999999999999d", "5é"] {
            assert!(HumanDuration::parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
