//! Sorts the samples of each family by their labels, so that two scrapes can be compared. The library's own order differs
//! from one process to the next.

/// The same OpenMetrics text with its samples in order. Samples of one set of labels keep their order: the buckets of a
/// histogram, its sum and its count.
pub(super) fn sorted(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut samples: Vec<(String, &str)> = Vec::new();
    for line in open_metrics.lines() {
        if line.starts_with('#') {
            flush(&mut samples, &mut text);
            push(&mut text, line);
        } else {
            samples.push((labels(line), line));
        }
    }
    flush(&mut samples, &mut text);
    text
}

fn flush(samples: &mut Vec<(String, &str)>, text: &mut String) {
    samples.sort_by(|(a, _), (b, _)| a.cmp(b));
    samples.drain(..).for_each(|(_, line)| push(text, line));
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// The labels that identify a sample, without the bound of a bucket.
fn labels(line: &str) -> String {
    let Some((_, rest)) = line.split_once('{') else { return String::new() };
    let (mut found, mut quoted, mut escaped) = (vec![String::new()], false, false);
    for c in rest.chars() {
        match c {
            '}' if !quoted => break,
            ',' if !quoted => {
                found.push(String::new());
                continue;
            }
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = quoted && c == '\\' && !escaped;
        if let Some(last) = found.last_mut() {
            last.push(c);
        }
    }
    found.retain(|label| !label.starts_with("le=\""));
    found.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_sorted_and_histograms_kept_together() {
        let before = "# HELP c Things.\n# TYPE c counter\nc_total{x=\"b\"} 1\nc_total{x=\"a\"} 2\n# TYPE h histogram\n\
                      h_sum{x=\"b\"} 1\nh_count{x=\"b\"} 1\nh_bucket{x=\"b\",le=\"10.0\"} 1\nh_bucket{x=\"b\",le=\"2.0\"} 1\n\
                      h_sum{x=\"a,}\\\"\"} 0\nh_bucket{le=\"10.0\",x=\"a,}\\\"\"} 0\n# TYPE g gauge\ng 1\n# EOF\n";
        let after = "# HELP c Things.\n# TYPE c counter\nc_total{x=\"a\"} 2\nc_total{x=\"b\"} 1\n# TYPE h histogram\n\
                     h_sum{x=\"a,}\\\"\"} 0\nh_bucket{le=\"10.0\",x=\"a,}\\\"\"} 0\n\
                     h_sum{x=\"b\"} 1\nh_count{x=\"b\"} 1\nh_bucket{x=\"b\",le=\"10.0\"} 1\nh_bucket{x=\"b\",le=\"2.0\"} 1\n\
                     # TYPE g gauge\ng 1\n# EOF\n";
        assert_eq!(sorted(before), after);
    }
}
