//! Ends of a span of time, as people write them.

use ecs_mesh_api::HumanDuration;
use ecs_mesh_model::Timestamp;

/// Parses a time: `10m` before `now`, an RFC 3339 time, or a date with or without a time of day, in UTC.
///
/// # Errors
/// Names the allowed forms.
pub fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(HumanDuration(before)) = HumanDuration::parse(text) {
        let millis = i64::try_from(before.as_millis()).unwrap_or(i64::MAX);
        return Ok(Timestamp(now.0.saturating_sub(millis)));
    }
    let completed = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        19 => format!("{text}Z"),
        _ => text.to_owned(),
    };
    Timestamp::parse(&completed.replacen(' ', "T", 1)).ok_or_else(|| {
        format!(
            "{text:?} is not a time: write a duration such as 10m, or a time in UTC such as 2026-11-29, \
             2026-11-29T22:00 or 2026-11-29T22:00:00Z"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_a_duration_ago_or_a_date_in_utc() {
        let now = Timestamp::parse("2026-11-30T03:00:00Z").unwrap();
        for (text, expected) in [
            ("10m", "2026-11-30T02:50:00Z"),
            ("1d", "2026-11-29T03:00:00Z"),
            ("2026-11-29", "2026-11-29T00:00:00Z"),
            ("2026-11-29T22:00", "2026-11-29T22:00:00Z"),
            ("2026-11-29 22:00:30", "2026-11-29T22:00:30Z"),
            ("2026-11-29T23:00:00+01:00", "2026-11-29T22:00:00Z"),
        ] {
            assert_eq!(parse_time(text, now).unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "10", "yesterday", "2026-13-01", "2026-11-29T25:00"] {
            assert!(parse_time(text, now).unwrap_err().contains("2026-11-29T22:00"), "{text}");
        }
    }
}
