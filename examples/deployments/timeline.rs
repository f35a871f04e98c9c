//! A timeline: states of tasks and Dataplanes, and failed requests, in seconds since the measurement began.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

/// Writes a line for each change to a file.
pub(crate) struct Timeline {
    file: File,
    start: Instant,
    /// The last known state by subject.
    states: BTreeMap<String, String>,
}

impl Timeline {
    /// Creates the file.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn create(path: &Path) -> Result<Self, String> {
        let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { file, start: Instant::now(), states: BTreeMap::new() })
    }

    /// Makes `start` the zero of all later lines.
    pub(crate) fn begin(&mut self, start: Instant) {
        self.start = start;
        self.record("measurement begins");
    }

    /// Writes a line.
    pub(crate) fn record(&mut self, what: &str) {
        self.record_at(Instant::now(), what);
    }

    /// Writes a line about another time.
    pub(crate) fn record_at(&mut self, at: Instant, what: &str) {
        let seconds = match at.checked_duration_since(self.start) {
            Some(since) => since.as_secs_f64(),
            None => -self.start.duration_since(at).as_secs_f64(),
        };
        // The measurement goes on without its log.
        let _ = writeln!(self.file, "{seconds:9.3} {what}");
    }

    /// Writes a line if the subject's state has changed.
    pub(crate) fn observe(&mut self, subject: &str, state: String) {
        if self.states.get(subject) != Some(&state) {
            self.record(&format!("{subject} {state}"));
            self.states.insert(subject.to_owned(), state);
        }
    }
}
