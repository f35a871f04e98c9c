//! The status page at `/`: what `/readyz` returns, for people.
//!
//! One HTML page without scripts, images or links to other hosts. All text goes through [`Escaped`]: names come from
//! manifests, and versions from control planes.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::Duration;

use crate::telemetry::state::{AccountState, ControlPlaneState, ManifestState, OperatorState};
use ecs_mesh_api::HumanDuration;
use ecs_mesh_aws::consumer::QueueState;
use ecs_mesh_controller::CircuitState;
use ecs_mesh_controller::health::StuckLoop;

/// The page's colours follow the browser's light or dark mode.
const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:0 auto;padding:1rem}\
h1{font-size:1.4rem;margin:0}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}\
.scroll{overflow-x:auto}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8884}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
.ok{color:light-dark(#16692f,#7ddc9a)}.bad{color:light-dark(#b3261e,#ff9d94);font-weight:600}\
ul{margin:.3rem 0;padding-left:1.3rem}a{color:light-dark(#0a58ca,#8ab8ff)}";

/// The state of the operator, as a page.
#[derive(Debug)]
pub(super) struct StatusPage {
    /// The operator's state; `None` before it has started.
    pub(super) state: Option<OperatorState>,
    /// Unmet readiness conditions.
    pub(super) pending: Vec<String>,
    /// Loops without progress.
    pub(super) stuck: Vec<StuckLoop>,
    /// The event queue at the last receive.
    pub(super) queue: QueueState,
    /// Time since the start.
    pub(super) uptime: Duration,
    /// Time since 1970.
    pub(super) now: Duration,
}

/// Text without the characters that HTML gives a meaning.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.to_string().chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Others would be invisible, or reverse the text.
                _ if char.is_control() => f.write_str("\u{fffd}")?,
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => f.write_str("\u{fffd}")?,
                _ => write!(f, "{char}")?,
            }
        }
        Ok(())
    }
}

impl Display for StatusPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.state.as_ref().map_or("starting", |state| &state.operator);
        write!(
            f,
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <title>ecs-mesh-operator {}</title><style>{STYLE}</style></head><body>\
             <h1>ecs-mesh-operator <code>{}</code></h1>\n\
             <p><a href=\"metrics\">/metrics</a> · <a href=\"readyz\">/readyz</a> · <a href=\"healthz\">/healthz</a></p>\n",
            Escaped(id),
            Escaped(id)
        )?;
        self.process(f)?;
        if let Some(state) = &self.state {
            self.control_planes(f, state)?;
            tasks(f, state)?;
            guards(f, state)?;
            self.clusters(f, state)?;
            accounts(f, &state.accounts)?;
            manifests(f, &state.manifests)?;
        }
        f.write_str("</body></html>\n")
    }
}

/// Opens a section with a table of these columns; those of numbers begin with `#`.
fn open_table(f: &mut fmt::Formatter<'_>, title: &str, columns: &[&str]) -> fmt::Result {
    write!(f, "<h2>{title}</h2><div class=\"scroll\"><table><thead><tr>")?;
    for column in columns {
        let (class, name) = column.strip_prefix('#').map_or(("", *column), |name| (" class=\"n\"", name));
        write!(f, "<th scope=\"col\"{class}>{name}</th>")?;
    }
    f.write_str("</tr></thead><tbody>\n")
}

fn close_table(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("</tbody></table></div>\n")
}

/// One fact of the first table; `value` is HTML.
fn fact(f: &mut fmt::Formatter<'_>, name: &str, value: impl Display) -> fmt::Result {
    writeln!(f, "<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>")
}

fn mark(is_good: bool, text: impl Display) -> String {
    format!("<span class=\"{}\">{}</span>", if is_good { "ok" } else { "bad" }, Escaped(text))
}

/// A list of what is wrong, or `fine`.
fn problems(fine: &str, found: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = found.map(|problem| format!("<li>{}</li>", Escaped(problem))).collect();
    if items.is_empty() { mark(true, fine) } else { format!("<ul class=\"bad\">{}</ul>", items.concat()) }
}

/// A duration in whole seconds.
fn seconds(duration: Duration) -> HumanDuration {
    HumanDuration(Duration::from_secs(duration.as_secs()))
}

/// `reason: count` for each, or a dash.
fn counts<'a>(all: impl IntoIterator<Item = (&'a str, usize)>) -> String {
    let nonzero = all.into_iter().filter(|(_, count)| *count > 0);
    let texts: Vec<String> = nonzero.map(|(name, count)| format!("{} {count}", Escaped(name))).collect();
    if texts.is_empty() { "–".to_owned() } else { texts.join(", ") }
}

impl StatusPage {
    fn process(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<div class=\"scroll\"><table><tbody>\n")?;
        fact(f, "Version", Escaped(crate::VERSION))?;
        fact(f, "Uptime", seconds(self.uptime))?;
        fact(f, "Ready", problems("yes", self.pending.iter().cloned()))?;
        fact(f, "Loops", problems("all make progress", self.stuck.iter().map(ToString::to_string)))?;
        if let Some(state) = &self.state {
            let role = if state.leader { "leader: this process writes" } else { "standby: writes nothing" };
            let other =
                state.lease.as_ref().filter(|_| !state.leader).and_then(|lease| lease.leader.as_deref());
            let other = other.map_or_else(String::new, |leader| format!("; {} leads", Escaped(leader)));
            fact(f, "Role", format_args!("{role}{other}"))?;
            fact(f, "Known tasks", state.known_tasks)?;
        }
        let queue = match self.queue {
            QueueState::Unknown => "no queue, or not read yet".to_owned(),
            QueueState::Ok => mark(true, "read"),
            QueueState::Failing(error) => mark(false, format_args!("not readable: {error}")),
        };
        fact(f, "Event queue", queue)?;
        close_table(f)
    }

    /// How long ago a moment in seconds since 1970 was, or is due.
    fn relative(&self, at: f64) -> String {
        let seconds_between = (at - self.now.as_secs_f64()).abs();
        // A clock or a server may name any number.
        let between = Duration::try_from_secs_f64(seconds_between).map_or(Duration::MAX, |between| between);
        if at > self.now.as_secs_f64() {
            format!("in {}", seconds(between))
        } else {
            format!("{} ago", seconds(between))
        }
    }

    fn control_planes(&self, f: &mut fmt::Formatter<'_>, state: &OperatorState) -> fmt::Result {
        let columns = ["Name", "Version", "State", "Token expires", "#Queued", "#In flight", "#Oldest"];
        open_table(f, "Control planes", &columns)?;
        for (name, plane) in &state.control_planes {
            let queue = &plane.controller.queue;
            writeln!(
                f,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                Escaped(name),
                Escaped(plane.version.as_deref().unwrap_or("unknown")),
                plane_state(plane),
                plane.token_expiry.map_or_else(|| "–".to_owned(), |at| self.relative(at)),
                queue.ready,
                queue.processing,
                seconds(queue.oldest_waiting),
            )?;
        }
        close_table(f)
    }

    fn clusters(&self, f: &mut fmt::Formatter<'_>, state: &OperatorState) -> fmt::Result {
        open_table(f, "Clusters", &["Name", "Last complete sweep"])?;
        for (name, last) in &state.clusters {
            let last = last.map_or_else(|| mark(false, "none yet"), |at| self.relative(at));
            writeln!(f, "<tr><th scope=\"row\">{}</th><td>{last}</td></tr>", Escaped(name))?;
        }
        close_table(f)
    }
}

/// The accounts, where there are several.
fn accounts(f: &mut fmt::Formatter<'_>, all: &[AccountState]) -> fmt::Result {
    if all.len() < 2 {
        return Ok(());
    }
    open_table(f, "AWS accounts", &["Account", "Region", "State"])?;
    for AccountState { account, region, error } in all {
        let state = match error {
            None => mark(true, "read"),
            Some(error) => mark(false, format_args!("not readable: {error}")),
        };
        let (account, region) = (Escaped(account), Escaped(region));
        writeln!(f, "<tr><th scope=\"row\">{account}</th><td>{region}</td><td>{state}</td></tr>")?;
    }
    close_table(f)
}

/// The reason why the control plane is not reconciled.
fn plane_state(plane: &ControlPlaneState) -> String {
    let circuit = (plane.circuit != CircuitState::Closed)
        .then(|| format!("not reachable (circuit {})", plane.circuit.as_str()));
    let unsupported = plane.unsupported.as_ref().map(|reason| format!("not supported: {reason}"));
    let unlisted = plane.unlisted_segments.iter().map(|segment| format!("not listed: {segment}"));
    let unsynced = (!plane.synced).then(|| "registrations are not listed yet".to_owned());
    let foreign = plane.foreign_writer.as_ref();
    let foreign = foreign.map(|writer| format!("another process ({writer}) writes with this operator id"));
    problems("in sync", unsupported.into_iter().chain(foreign).chain(circuit).chain(unsynced).chain(unlisted))
}

fn tasks(f: &mut fmt::Formatter<'_>, state: &OperatorState) -> fmt::Result {
    let columns =
        ["Control plane", "#Ready", "#Drained", "#Unconfirmed", "#Held drains", "Tasks with warnings"];
    open_table(f, "Registrations and tasks", &columns)?;
    for (name, plane) in &state.control_planes {
        let owned = plane.owned;
        writeln!(
            f,
            "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            Escaped(name),
            owned.ready,
            owned.drained,
            owned.unconfirmed,
            plane.held_drains,
            counts(plane.tasks_with_warnings.iter().map(|(reason, count)| (*reason, *count))),
        )?;
    }
    close_table(f)
}

fn guards(f: &mut fmt::Formatter<'_>, state: &OperatorState) -> fmt::Result {
    let columns = ["Binding", "Control plane", "State", "#Held", "#Admitted this hour", "#Limit"];
    open_table(f, "Removal guards", &columns)?;
    for (plane, state) in &state.control_planes {
        for (binding, guard) in &state.guards {
            let state = match guard.held {
                0 => mark(true, "open"),
                held if held > guard.stabilising => mark(false, "tripped: a person must decide"),
                _ => "holds for 10 minutes".to_owned(),
            };
            writeln!(
                f,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{state}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                Escaped(binding),
                Escaped(plane),
                guard.held,
                guard.admitted,
                guard.limit,
            )?;
        }
    }
    close_table(f)
}

fn manifests(f: &mut fmt::Formatter<'_>, manifests: &ManifestState) -> fmt::Result {
    open_table(f, "Manifests in force", &["Fact", "Value"])?;
    fact(f, "Generation", manifests.generation)?;
    let complete =
        mark(manifests.complete, if manifests.complete { "yes" } else { "no: nothing is withdrawn" });
    fact(f, "Loaded without an error and an unread source", complete)?;
    fact(f, "Documents", by_kind(&manifests.loaded))?;
    let is_clean = manifests.errors.values().all(|count| *count == 0);
    let errors = if is_clean {
        mark(true, "none")
    } else {
        format!("<span class=\"bad\">{}</span>", by_kind(&manifests.errors))
    };
    fact(f, "Errors in the current sources", errors)?;
    fact(f, "Warnings", manifests.warnings)?;
    close_table(f)
}

fn by_kind(all: &BTreeMap<&'static str, usize>) -> String {
    counts(all.iter().map(|(kind, count)| (*kind, *count)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::telemetry::state::tests::state;

    fn page(state: Option<OperatorState>) -> StatusPage {
        StatusPage {
            state,
            pending: Vec::new(),
            stuck: Vec::new(),
            queue: QueueState::Ok,
            uptime: Duration::from_secs(3_725),
            now: Duration::from_secs(1_600),
        }
    }

    #[test]
    fn page_shows_what_a_person_looks_for() {
        let html = page(Some(state())).to_string();
        for text in [
            crate::VERSION,
            "1h2m5s",
            "leader: this process writes",
            "Kuma 2.14.1",
            "not listed: tokens",
            "in 6m40s",
            "rejected 6",
            "tripped: a person must decide",
            "10m ago",
            "none yet",
            "href=\"metrics\"",
            "href=\"readyz\"",
        ] {
            assert!(html.contains(text), "{text}: {html}");
        }
    }

    #[test]
    fn page_before_the_start_has_no_tables_of_state() {
        let html =
            StatusPage { pending: vec!["the operator is starting".to_owned()], ..page(None) }.to_string();
        assert!(
            html.contains("<li>the operator is starting</li>") && !html.contains("Control planes"),
            "{html}"
        );
    }

    #[test]
    fn page_escapes_every_text() {
        const HOSTILE: &str = "<script>alert('x')</script>&\"\u{202e}";
        let mut state = state();
        let hostile: Arc<str> = HOSTILE.into();
        let mut plane = state.control_planes.remove("kuma").unwrap();
        plane.version = Some(Arc::clone(&hostile));
        plane.unsupported = Some(HOSTILE.to_owned());
        plane.unlisted_segments = vec![HOSTILE.to_owned()];
        plane.guards = [(Arc::clone(&hostile), plane.guards["demo"])].into();
        state.control_planes = [(Arc::clone(&hostile), plane)].into();
        state.clusters = [(HOSTILE.to_owned(), None)].into();
        state.operator = hostile;
        let pending = vec![HOSTILE.to_owned()];
        let stuck = vec![StuckLoop { name: HOSTILE.to_owned(), last_progress: Duration::ZERO, within: None }];
        let html = StatusPage { pending, stuck, ..page(Some(state)) }.to_string();
        assert!(
            !html.contains("<script") && !html.contains('\u{202e}') && !html.contains("alert('"),
            "{html}"
        );
        assert_eq!(html.matches("&lt;script&gt;").count(), 12, "{html}");
    }

    #[test]
    fn page_accepts_any_number_as_a_time() {
        let mut state = state();
        for at in [f64::MAX, f64::NAN, -1.0] {
            state.clusters = [("one".to_owned(), Some(at))].into();
            assert!(page(Some(state.clone())).to_string().contains("</html>"), "{at}");
        }
    }
}
