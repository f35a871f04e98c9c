//! Tables as kubectl prints them: names in upper case, three spaces between columns, one row as it comes.
//!
//! The first rows decide how wide the columns are; later rows widen them. Rows fit the line's limit, which only a terminal
//! has: text that a program reads is never truncated.

use std::io::{self, Write};

use textwrap::core::display_width;

use crate::text::{printable, truncate};

/// The space between two columns.
const GAP: usize = 3;
/// The width below which no free text is shortened while names can be: a name is found by its beginning, a reason is not.
const MIN_TEXT_WIDTH: usize = 20;
/// The width below which no name is shortened.
const MIN_NAME_WIDTH: usize = 8;

/// How much of a column a narrow terminal may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shrink {
    /// Printed in full.
    Never,
    /// A name, which is shortened after all free text.
    Name,
    /// Free text, which is shortened first.
    Text,
}

/// The head of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnHead {
    /// In upper case.
    pub name: &'static str,
    /// Whether it may be shortened.
    pub shrink: Shrink,
}

/// Prints rows below their heads.
pub struct Table {
    heads: Vec<ColumnHead>,
    with_heads: bool,
    limit: Option<usize>,
    widths: Option<Vec<usize>>,
}

impl Table {
    /// A table that prints its heads with the first rows. `limit` is the width of the terminal.
    pub fn new(heads: Vec<ColumnHead>, with_heads: bool, limit: Option<usize>) -> Self {
        Self { heads, with_heads, limit, widths: None }
    }

    /// Prints the rows. Cells are made printable here.
    pub fn print(&mut self, rows: &[Vec<String>], out: &mut dyn Write) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| cell_text(cell)).collect()).collect();
        let is_first = self.widths.is_none();
        let widths = self.fit(&rows);
        if is_first && self.with_heads {
            let heads: Vec<String> = self.heads.iter().map(|head| head.name.to_owned()).collect();
            self.print_row(&heads, &widths, out)?;
        }
        for row in &rows {
            self.print_row(row, &widths, out)?;
        }
        self.widths = Some(widths);
        Ok(())
    }

    /// The widths of the columns: as wide as all rows so far need, within the limit.
    fn fit(&self, rows: &[Vec<String>]) -> Vec<usize> {
        let mut widths: Vec<usize> = match &self.widths {
            Some(widths) => widths.clone(),
            None if self.with_heads => self.heads.iter().map(|head| head.name.len()).collect(),
            None => vec![0; self.heads.len()],
        };
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(display_width(cell));
            }
        }
        if let Some(limit) = self.limit {
            self.shrink(&mut widths, limit, Shrink::Text, MIN_TEXT_WIDTH);
            self.shrink(&mut widths, limit, Shrink::Name, MIN_NAME_WIDTH);
            self.shrink(&mut widths, limit, Shrink::Text, MIN_NAME_WIDTH);
        }
        widths
    }

    /// Takes the excess from the widest columns of a kind, down to a least width or that of the head.
    fn shrink(&self, widths: &mut [usize], limit: usize, kind: Shrink, least: usize) {
        loop {
            let excess = line_width(widths).saturating_sub(limit);
            let candidates = self.heads.iter().zip(widths.iter_mut()).filter(|(head, width)| {
                head.shrink == kind && **width > least.max(if self.with_heads { head.name.len() } else { 0 })
            });
            match candidates.map(|(_, width)| width).max_by_key(|width| **width) {
                Some(width) if excess > 0 => *width -= 1,
                _ => return,
            }
        }
    }

    fn print_row(&self, cells: &[String], widths: &[usize], out: &mut dyn Write) -> io::Result<()> {
        let mut line = String::new();
        for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let is_last = index + 1 == cells.len();
            let cell = if self.limit.is_some() { truncate(cell, *width) } else { cell.as_str().into() };
            line.push_str(&cell);
            if !is_last {
                line.push_str(&" ".repeat(width.saturating_sub(display_width(&cell)) + GAP));
            }
        }
        let line = line.trim_end();
        let line = self.limit.map_or_else(|| line.into(), |limit| truncate(line, limit));
        writeln!(out, "{line}")
    }
}

fn line_width(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

/// An absent value is visible, so that programs which split by spaces keep their columns.
fn cell_text(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { printable(text).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: [ColumnHead; 4] = [
        ColumnHead { name: "NAME", shrink: Shrink::Never },
        ColumnHead { name: "SERVICE", shrink: Shrink::Name },
        ColumnHead { name: "AGE", shrink: Shrink::Never },
        ColumnHead { name: "REASON", shrink: Shrink::Text },
    ];

    fn row(cells: [&str; 4]) -> Vec<String> {
        cells.map(str::to_owned).to_vec()
    }

    fn printed(limit: Option<usize>, with_heads: bool, pages: &[&[Vec<String>]]) -> String {
        let mut table = Table::new(HEADS.to_vec(), with_heads, limit);
        let mut out = Vec::new();
        for page in pages {
            table.print(page, &mut out).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn table_is_aligned_below_its_heads() {
        let text =
            printed(None, true, &[&[row(["a", "kv", "5s", ""]), row(["abcdef", "web", "12m", "a b"])]]);
        assert_eq!(
            text,
            "NAME     SERVICE   AGE   REASON\na        kv        5s    -\nabcdef   web       12m   a b\n"
        );
        assert_eq!(printed(None, false, &[&[row(["a", "b", "c", "d"])]]), "a   b   c   d\n");
        assert_eq!(printed(None, true, &[&[]]), "", "no rows have no heads");
    }

    #[test]
    fn rows_fit_the_terminal_and_names_outlast_text() {
        let reason = "the task role is not allowed in the mesh: tag kuma.io/mesh is absent".repeat(3);
        let service = "a-service-with-a-name-of-many-words_default_svc_80";
        let pages = [row(["0123456789abcdef0123456789abcdef", service, "5s", &reason])];
        for limit in [40, 60, 80, 100, 200] {
            let text = printed(Some(limit), true, &[&pages]);
            let widths: Vec<usize> = text.lines().map(display_width).collect();
            assert!(widths.iter().all(|width| *width <= limit), "{limit}: {widths:?}\n{text}");
        }
        let text = printed(Some(120), true, &[&pages]);
        assert!(text.contains(service) && text.contains('…'), "{text}");
        assert!(printed(None, true, &[&pages]).contains(&reason), "a pipe gets all");
    }

    #[test]
    fn later_rows_widen_columns_without_new_heads() {
        let first = [row(["a", "b", "c", "d"])];
        let later = [row(["longer-name", "b", "c", "d"])];
        let text = printed(None, true, &[&first, &later, &first]);
        assert_eq!(text.matches("NAME").count(), 1);
        let at: Vec<_> = text.lines().skip(2).map(|line| line.find(" b ").unwrap()).collect();
        assert_eq!(at[0], at[1], "{text}");
    }

    #[test]
    fn cells_of_others_cannot_break_the_table() {
        let text = printed(Some(80), true, &[&[row(["a\u{1b}[31m", "b\nc", "5s", "\u{9b}2J"])]]);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text:?}");
    }
}
