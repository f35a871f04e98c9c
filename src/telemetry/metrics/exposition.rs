//! The two text formats that Prometheus reads. The library writes OpenMetrics; the older format, which every scraper reads,
//! is derived from that.
//!
//! Sources: <https://prometheus.io/docs/instrumenting/exposition_formats/> and the OpenMetrics specification 1.0.

use std::fmt::Write as _;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpositionFormat {
    /// Prometheus' text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl ExpositionFormat {
    /// The header `Content-Type` of an answer in this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The format for a header `Accept`: OpenMetrics only if the header names it in a supported version, with a quality
    /// not below that of plain text.
    pub fn accepted(accept: &str) -> Self {
        let quality_of = |kind: &str, version: &[&str]| {
            let ranges = accept.split(',').filter_map(|range| quality(range, kind, version));
            ranges.fold(0.0, f64::max)
        };
        let open = quality_of("application/openmetrics-text", &["1.0.0"]);
        let plain = quality_of("text/plain", &["0.0.4"]);
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }
}

/// The quality that a media range such as `text/plain;version=0.0.4;q=0.5` gives to this type in one of these versions.
fn quality(range: &str, kind: &str, versions: &[&str]) -> Option<f64> {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(kind) {
        return None;
    }
    let mut quality = 1.0;
    for part in parts {
        let (name, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => quality = value.parse().ok().filter(|q| (0.0..=1.0).contains(q))?,
            "version" if !versions.contains(&value) => return None,
            _ => {}
        }
    }
    Some(quality)
}

/// OpenMetrics text as Prometheus text: counters and infos are described under the names of their samples; units, the end
/// mark and exemplars are dropped.
pub(super) fn prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + open_metrics.len() / 16);
    let mut family = MetricFamily::default();
    for line in open_metrics.lines() {
        // Writing to a String cannot fail, here and below.
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // The type, which decides the name, is in the next line.
            let (name, words) = rest.split_once(' ').unwrap_or((rest, ""));
            family = MetricFamily { name, words };
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "stateset" => ("", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            let words = if family.name == name { family.words } else { "" };
            family = MetricFamily { name, words };
            let _ = writeln!(text, "# HELP {name}{suffix} {words}\n# TYPE {name}{suffix} {kind}");
        } else if line.starts_with('#') || line.is_empty() {
            // `# UNIT` and `# EOF`.
        } else if !family.is_creation_time(line) {
            text.push_str(without_exemplar(line));
            text.push('\n');
        }
    }
    text
}

#[derive(Clone, Copy, Default)]
struct MetricFamily<'a> {
    name: &'a str,
    words: &'a str,
}

impl MetricFamily<'_> {
    /// Whether this is `NAME_created`, which the older format does not have.
    fn is_creation_time(self, line: &str) -> bool {
        let rest = line.strip_prefix(self.name).and_then(|rest| rest.strip_prefix("_created"));
        !self.name.is_empty() && rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    }
}

/// The sample without its exemplar, which follows ` # ` outside of quoted label values.
fn without_exemplar(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '#' if !quoted => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_described_by_sample_names() {
        let open = "# HELP a Things.\n# TYPE a counter\n# UNIT a things\na_total{x=\"1\"} 2\na_created{x=\"1\"} 1.5\n\
                    # HELP b Info.\n# TYPE b info\nb_info{v=\"1\"} 1\n# HELP c Now.\n# TYPE c gauge\nc 3\n# EOF\n";
        let plain = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\"} 2\n# HELP b_info Info.\n\
                     # TYPE b_info gauge\nb_info{v=\"1\"} 1\n# HELP c Now.\n# TYPE c gauge\nc 3\n";
        assert_eq!(prometheus(open), plain);
    }

    #[test]
    fn prometheus_format_drops_exemplars_only() {
        let open = "# HELP h Time.\n# TYPE h histogram\nh_bucket{le=\"1.0\"} 2 # {trace=\"x\"} 0.5\n\
                    h_bucket{le=\"+Inf\",why=\"a \\\" # {\"} 3\nh_sum 1.0\nh_count 3\n# EOF\n";
        let plain = "# HELP h Time.\n# TYPE h histogram\nh_bucket{le=\"1.0\"} 2\n\
                     h_bucket{le=\"+Inf\",why=\"a \\\" # {\"} 3\nh_sum 1.0\nh_count 3\n";
        assert_eq!(prometheus(open), plain);
    }

    #[test]
    fn open_metrics_is_served_on_request_only() {
        use ExpositionFormat::{OpenMetrics, Prometheus};
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            ("", Prometheus),
            ("*/*", Prometheus),
            ("text/plain", Prometheus),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Prometheus),
            (prometheus_2, OpenMetrics),
            ("application/openmetrics-text", OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8", OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Prometheus),
            ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", Prometheus),
            ("application/openmetrics-text;q=0.2,text/plain;q=0.9", Prometheus),
            ("application/openmetrics-text;q=0", Prometheus),
            ("application/openmetrics-text;q=nonsense", Prometheus),
        ] {
            assert_eq!(ExpositionFormat::accepted(accept), format, "{accept:?}");
        }
    }
}
