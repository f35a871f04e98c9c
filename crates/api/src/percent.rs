//! Percentages: `50%`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A whole number of percent from 0 to 100, written with the sign: `50%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Percent(u8);

impl Percent {
    /// The regular expression of valid texts.
    pub(crate) const PATTERN: &str = "^(100|[1-9]?[0-9])%$";

    /// The number of percent.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Parses a percentage such as `50%`.
    ///
    /// # Errors
    /// Names the text and the format.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        let number = number.and_then(|digits| digits.parse().ok()).filter(|number| *number <= 100);
        number.map(Self).ok_or_else(|| format!("{text:?} is not a percentage: write 0% to 100%, such as 50%"))
    }
}

impl Default for Percent {
    /// Half.
    fn default() -> Self {
        Self(50)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl TryFrom<String> for Percent {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Percent> for String {
    fn from(percent: Percent) -> Self {
        percent.to_string()
    }
}

impl schemars::JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": Self::PATTERN,
            "x-allowed": "0% to 100%",
            "x-format": "percentage"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentage_needs_its_sign_and_a_whole_number_up_to_100() {
        for (text, number) in [("0%", Some(0)), ("50%", Some(50)), ("100%", Some(100))] {
            assert_eq!(Percent::parse(text).ok().map(Percent::get), number, "{text}");
        }
        for text in ["", "%", "50", "101%", "-1%", "+5%", "0.5%", "50 %", "half", "256%", "999999999999%"] {
            assert!(Percent::parse(text).is_err(), "{text}");
        }
        assert_eq!(Percent::default().to_string(), "50%");
    }
}
