//! The report of `import` as text: a row for each field of a kind of resource, with the places where it stands.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::terminal::{count, paragraph};
use ecs_mesh_import::{FieldFate, ImportEntry, Imported};

/// Places of a row that are printed; the JSON report has all.
const MAX_PLACES: usize = 4;

const INDENT: &str = "    ";

/// Renders the report with ANSI colours, for a terminal of this width.
pub(super) fn render_text(imported: &Imported, width: usize) -> String {
    let mut text = String::new();
    for fate in FieldFate::ALL {
        let entries: Vec<&ImportEntry> = imported.report.of_fate(fate).collect();
        if entries.is_empty() {
            continue;
        }
        let bold = Style::new().bold();
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "{bold}{}{bold:#}: {}", fate.title(), count(entries.len(), "place"));
        for row in rows(&entries) {
            text.push_str(&render_row(&row, width));
        }
        text.push('\n');
    }
    for warning in &imported.report.warnings {
        text.push_str(&paragraph("warning: ", warning, width));
    }
    text + &paragraph("", &summary(imported), width)
}

fn summary(imported: &Imported) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for manifest in &imported.manifests {
        *kinds.entry(manifest.kind).or_default() += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, number)| count(*number, kind)).collect();
    let of = |fate| imported.report.of_fate(fate).count();
    let action = imported.report.entries.iter().filter(|entry| entry.action).count();
    format!(
        "{}: {}. Fields: {} carried over, {} changed, {} without a counterpart; {} marked ! to act on",
        count(imported.manifests.len(), "manifest"),
        kinds.join(", "),
        of(FieldFate::CarriedOver),
        of(FieldFate::Changed),
        of(FieldFate::NoCounterpart),
        count(action, "place"),
    )
}

/// Entries that say the same of the same field, those to act on first.
fn rows<'a>(entries: &[&'a ImportEntry]) -> Vec<Vec<&'a ImportEntry>> {
    let mut rows: BTreeMap<_, Vec<&ImportEntry>> = BTreeMap::new();
    for entry in entries {
        let kind = entry.subject.split(' ').next().unwrap_or_default();
        let key = (!entry.action, kind, &entry.field, &entry.target, &entry.reason);
        rows.entry(key).or_default().push(entry);
    }
    rows.into_values().collect()
}

fn render_row(row: &[&ImportEntry], width: usize) -> String {
    let first = row[0];
    let kind = first.subject.split(' ').next().unwrap_or_default();
    let mark = if first.action { "! " } else { "  " };
    let target = if first.target.is_empty() { String::new() } else { format!(" → {}", first.target) };
    let field = if first.field.is_empty() { String::new() } else { format!(" {}", first.field) };
    let times = if row.len() > 1 { format!(" ({})", row.len()) } else { String::new() };
    let mut text = paragraph(mark, &format!("{kind}{field}{target}{times}"), width);
    if first.action {
        let yellow = AnsiColor::Yellow.on_default().bold();
        text = format!("{yellow}!{yellow:#}{}", &text[1..]);
    }
    if !first.reason.is_empty() {
        text.push_str(&paragraph(INDENT, &first.reason, width));
    }
    if first.fate != FieldFate::CarriedOver {
        text.push_str(&paragraph(&format!("{INDENT}at "), &places(row), width));
    }
    text
}

/// `NAME FILE:LINE`, of the first places of a row.
fn places(row: &[&ImportEntry]) -> String {
    let shown = row.iter().take(MAX_PLACES).map(|entry| {
        let name = entry.subject.split_once(' ').map_or(&*entry.subject, |(_, name)| name);
        format!("{name} {}:{}", entry.file, entry.line)
    });
    let shown: Vec<String> = shown.collect();
    let more = row.len().saturating_sub(MAX_PLACES);
    let more = if more == 0 { String::new() } else { format!(", and {more} more (--report json has all)") };
    shown.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_import::{ImportOptions, SourceFile, import_app_mesh};

    /// A mesh of 400 virtual nodes, each of which has a timeout and calls the one before.
    fn large() -> Imported {
        let mut text = String::new();
        for index in 0..400 {
            let called = format!("svc-{}.demo.local", (index + 399) % 400);
            let _ = write!(
                text,
                r#"{{"virtualNode": {{"meshName": "demo", "virtualNodeName": "svc-{index}", "spec": {{
                    "listeners": [{{"portMapping": {{"port": 8080, "protocol": "http"}}, "timeout": {{"http": {{}}}}}}],
                    "backends": [{{"virtualService": {{"virtualServiceName": "{called}"}}}}]}}}}}}
                {{"virtualService": {{"meshName": "demo", "virtualServiceName": "svc-{index}.demo.local",
                    "spec": {{"provider": {{"virtualNode": {{"virtualNodeName": "svc-{index}"}}}}}}}}}}"#
            );
        }
        import_app_mesh(&[SourceFile::new("demo.json", text)], &ImportOptions::default()).unwrap()
    }

    #[test]
    fn report_of_400_services_fits_a_page_and_the_width() {
        let imported = large();
        assert_eq!(imported.manifests.len(), 402);
        for width in [60, 80, 132] {
            let text = anstream::adapter::strip_str(&render_text(&imported, width)).to_string();
            let is_word = |line: &str| !line.trim().contains(' ');
            let wide: Vec<&str> =
                text.lines().filter(|line| line.chars().count() > width && !is_word(line)).collect();
            assert!(wide.is_empty(), "{width}: {wide:#?}");
            assert!(text.lines().count() < 90, "{text}");
        }
        let text = render_text(&imported, 110);
        assert!(text.contains("MeshTimeout (400)"), "{text}");
        assert!(text.contains("and 396 more"), "{text}");
    }
}
