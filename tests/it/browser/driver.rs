//! A browser, driven by `tests/python/browser/driver.py`.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// Browsers take turns: each uses all cores.
static TURN: Mutex<()> = Mutex::new(());

/// A running browser, closed when dropped.
pub(super) struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts a browser; without one, prints that the test is skipped.
    pub(super) fn start(what: &str) -> Option<Self> {
        let variable = |name: &str| {
            let value = std::env::var_os(name);
            if value.is_none() {
                println!("skipped: {what}: {name} is not set");
            }
            value
        };
        let (python, chromium) = (variable("BROWSER_TEST_PYTHON")?, variable("BROWSER_TEST_CHROMIUM")?);
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/browser/driver.py"))
            .arg("--chromium")
            .arg(chromium)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(Self { child, input, output, _turn: turn })
    }

    /// Carries out a command of the driver.
    fn command(&mut self, name: &str, mut arguments: Value) -> Value {
        arguments["do"] = name.into();
        writeln!(self.input, "{arguments}").unwrap();
        let mut line = String::new();
        // The server of the page may run on other threads of this runtime.
        tokio::task::block_in_place(|| self.output.read_line(&mut line)).unwrap();
        let mut answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        if let Some(error) = answer["error"].as_str() {
            panic!("{error}\nthe page:\n{}", answer["page"].as_str().unwrap_or_default());
        }
        answer["ok"].take()
    }

    /// Opens a new window with an empty profile.
    pub(super) fn open(&mut self, url: &str) {
        self.command("open", json!({"url": url}));
    }

    /// The same with a colour scheme, `light` or `dark`.
    pub(super) fn open_in(&mut self, url: &str, scheme: &str) {
        self.command("open", json!({"url": url, "scheme": scheme}));
    }

    /// Follows an address within the page.
    pub(super) fn go(&mut self, fragment: &str) {
        self.command("go", json!({"fragment": fragment}));
    }

    /// Holds the page's requests whose addresses match a pattern, until [`Self::release`].
    pub(super) fn hold(&mut self, pattern: &str) {
        self.command("hold", json!({"pattern": pattern}));
    }

    pub(super) fn release(&mut self) {
        self.command("release", json!({}));
    }

    pub(super) fn press(&mut self, keys: &[&str]) {
        self.command("press", json!({"keys": keys}));
    }

    /// Presses Tab until an element that matches has the focus, at most this many times.
    pub(super) fn tab_to(&mut self, selector: &str, most: usize) {
        let is_there = format!("document.activeElement.matches({})", json!(selector));
        let mut passed = Vec::new();
        while passed.len() < most {
            self.press(&["Tab"]);
            if self.run(&is_there) == true {
                return;
            }
            passed.push(self.focused());
        }
        panic!("Tab does not reach {selector}, but {passed:#?}");
    }

    /// Types a text into what has the focus.
    pub(super) fn type_text(&mut self, text: &str) {
        self.command("type", json!({"text": text}));
    }

    pub(super) fn click(&mut self, selector: &str) {
        self.command("click", json!({"selector": selector}));
    }

    pub(super) fn hover(&mut self, selector: &str) {
        self.command("hover", json!({"selector": selector}));
    }

    /// Chooses an option of a `<select>` by its value.
    pub(super) fn choose(&mut self, selector: &str, value: &str) {
        self.command("choose", json!({"selector": selector, "value": value}));
    }

    /// Waits until an element is visible.
    pub(super) fn expect(&mut self, selector: &str) {
        self.command("expect", json!({"selector": selector}));
    }

    /// Waits until the first of these elements contains a text.
    pub(super) fn expect_text(&mut self, selector: &str, text: &str) {
        self.command("expect", json!({"selector": selector, "text": text}));
    }

    /// Waits until there are this many elements.
    pub(super) fn expect_count(&mut self, selector: &str, count: usize) {
        self.command("expect", json!({"selector": selector, "count": count}));
    }

    /// Waits until there is no such element.
    pub(super) fn expect_gone(&mut self, selector: &str) {
        self.command("expect", json!({"selector": selector, "gone": true}));
    }

    pub(super) fn texts(&mut self, selector: &str) -> Vec<String> {
        serde_json::from_value(self.command("texts", json!({"selector": selector}))).unwrap()
    }

    /// The texts of a table's rows, from top to bottom: rows are elements in another order.
    pub(super) fn rows(&mut self) -> Vec<String> {
        let script = "[...document.querySelectorAll('.tbody .tr')]\
            .sort((a, b) => a.ariaRowIndex - b.ariaRowIndex).map(row => row.innerText)";
        serde_json::from_value(self.run(script)).unwrap()
    }

    /// The value of a JavaScript expression.
    pub(super) fn run(&mut self, script: &str) -> Value {
        self.command("run", json!({"script": script}))
    }

    /// The label or text of the element with the focus.
    pub(super) fn focused(&mut self) -> String {
        let script =
            "(element => element.getAttribute('aria-label') ?? element.textContent)(document.activeElement)";
        self.run(script).as_str().unwrap().trim().to_owned()
    }

    /// The address within the page.
    pub(super) fn fragment(&mut self) -> String {
        self.run("decodeURIComponent(location.hash)").as_str().unwrap().to_owned()
    }

    /// The visible texts, icons and edges of graphs whose contrast is too low.
    pub(super) fn low_contrast(&mut self) -> Vec<String> {
        serde_json::from_value(self.command("contrast", json!({}))).unwrap()
    }

    /// Milliseconds from the start of a navigation in a new window until an element is there.
    pub(super) fn first_paint(&mut self, url: &str, selector: &str) -> u64 {
        self.command("first_paint", json!({"url": url, "selector": selector})).as_u64().unwrap()
    }

    /// Scrolls an element by this many pixels in each of these frames.
    pub(super) fn scroll(&mut self, selector: &str, step: u32, frames: u32) {
        self.command("scroll", json!({"selector": selector, "step": step, "frames": frames}));
    }

    /// The frames while something is done.
    pub(super) fn frames_while(&mut self, act: impl FnOnce(&mut Self)) -> FrameTimes {
        self.command("watch_frames", json!({}));
        act(self);
        serde_json::from_value(self.command("noted_frames", json!({}))).unwrap()
    }

    /// Forgets the errors on the console that match a regular expression, of which there must be some: those of what the
    /// test broke on purpose.
    pub(super) fn forget_errors(&mut self, pattern: &str) {
        let found = self.command("forget_errors", json!({"pattern": pattern}));
        assert_ne!(found["forgotten"], 0, "no error matches {pattern}; there are {}", found["left"]);
    }

    /// Closes the browser, which must have seen no error and asked no other machine.
    pub(super) fn finish(self) {
        self.finish_after_hosts(&["127.0.0.1"]);
    }

    /// The same after pages have asked these hosts, all of them this machine.
    pub(super) fn finish_after_hosts(mut self, hosts: &[&str]) {
        let account = self.command("close", json!({}));
        assert_eq!(account["errors"], json!([]), "errors on the console");
        assert_eq!(account["hosts"], json!(hosts), "hosts that pages asked");
        assert_eq!(account["connections"], json!(["127.0.0.1"]), "connections of the browser");
    }
}

/// The frames of a page over a time.
#[derive(serde::Deserialize)]
pub(super) struct FrameTimes {
    /// Milliseconds from frame to frame.
    times: Vec<f64>,
    /// Milliseconds of CPU time of the page's main thread, which do not depend on the load of the machine.
    busy: f64,
}

impl fmt::Display for FrameTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut times = self.times.clone();
        if times.is_empty() {
            return f.write_str("no frames");
        }
        times.sort_by(f64::total_cmp);
        let [median, p95, most] =
            [times.len() / 2, times.len() * 95 / 100, times.len() - 1].map(|at| times[at]);
        write!(
            f,
            "{} frames, milliseconds a frame: median {median:.0}, p95 {p95:.0}, most {most:.0}; CPU {:.0} ms in all",
            times.len(),
            self.busy
        )
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
