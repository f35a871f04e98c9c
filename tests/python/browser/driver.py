"""Drives a browser for tests/it/browser: one command as JSON per line of standard input, one answer per line of output.

The browser is Debian's Chromium, by Playwright. It resolves no name but loopback's, so that the browser's own requests fail.
At the end, the hosts that pages asked are known, and from the network log (NetLog) each address that was connected to.
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Error, expect, sync_playwright

HERE = Path(__file__).parent
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # The name of another site that leads to this machine.
    "--host-resolver-rules=MAP rebound.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]


class Driver:
    def __init__(self, playwright, chromium, timeout):
        self.directory = tempfile.TemporaryDirectory(prefix="browser-")
        self.net_log = Path(self.directory.name) / "net.json"
        flags = [*FLAGS, f"--log-net-log={self.net_log}"]
        self.browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        self.timeout = timeout
        self.page = None
        self.context = None
        self.errors = []
        self.hosts = set()

    def open(self, url, scheme="light", width=1440, height=900, scale=1, reduced=True):
        """A new window with an empty profile."""
        if self.context:
            self.context.close()
        self.context = self.browser.new_context(
            color_scheme=scheme,
            viewport={"width": width, "height": height},
            device_scale_factor=scale,
            reduced_motion="reduce" if reduced else "no-preference",
        )
        self.context.set_default_timeout(self.timeout)
        self.context.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname or request.url))
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(f"{error}\n{error.stack}"))
        self.page.on("console", self.note)
        self.page.goto(url)

    def note(self, message):
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def go(self, fragment):
        self.page.evaluate("fragment => { location.hash = fragment; }", fragment)

    def press(self, keys):
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text):
        self.page.keyboard.type(text)

    def fill(self, selector, text):
        self.page.locator(selector).fill(text)

    def click(self, selector):
        self.page.locator(selector).first.click()

    def hover(self, selector):
        self.page.locator(selector).first.hover()

    def choose(self, selector, value):
        """Chooses an option of a `<select>` by its value."""
        self.page.locator(selector).first.select_option(value)

    def expect(self, selector, text=None, count=None, gone=False):
        """Waits for elements: for a text in the first one, for their number, or until none is visible."""
        found = self.page.locator(selector)
        if gone:
            expect(found).to_have_count(0, timeout=self.timeout)
        elif count is not None:
            expect(found).to_have_count(count, timeout=self.timeout)
        else:
            expect(found.first).to_be_visible(timeout=self.timeout)
        if text is not None:
            expect(found.first).to_contain_text(text, timeout=self.timeout)

    def hold(self, pattern):
        """Holds requests whose addresses match a pattern, until `release`."""
        self.held, self.pattern = [], pattern
        # A function of Python's own: Playwright sets attributes on it.
        self.page.route(pattern, lambda route: self.held.append(route))

    def release(self):
        for route in self.held:
            try:
                route.continue_()
            except Error:
                # The page has given this request up.
                pass
        self.page.unroute(self.pattern)

    def texts(self, selector):
        return self.page.locator(selector).all_inner_texts()

    def run(self, script, argument=None):
        """The value of a JavaScript expression or function."""
        return self.page.evaluate(script, argument)

    def contrast(self):
        """The texts, icons and edges in view whose contrast with their background is too low."""
        return self.page.evaluate((HERE / "contrast.js").read_text())

    def scroll(self, selector, step, frames):
        """Scrolls an element by a step in each frame."""
        self.page.evaluate((HERE / "scroll.js").read_text(), [selector, step, frames])

    def watch_frames(self):
        """Begins to note the milliseconds between frames, and of CPU time that the page's main thread takes."""
        self.cdp = self.context.new_cdp_session(self.page)
        self.cdp.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.busy = self.main_thread()
        self.page.evaluate(
            "() => { window.frameTimes = []; let last = performance.now(); const frame = (now) => { "
            "if (!window.frameTimes) return; window.frameTimes.push(now - last); last = now; requestAnimationFrame(frame); }; "
            "requestAnimationFrame(frame); }"
        )

    def noted_frames(self):
        times = self.page.evaluate("() => { const times = window.frameTimes.slice(1); window.frameTimes = null; return times; }")
        busy = self.main_thread() - self.busy
        self.cdp.detach()
        return {"times": times, "busy": busy}

    def main_thread(self):
        metrics = {metric["name"]: metric["value"] for metric in self.cdp.send("Performance.getMetrics")["metrics"]}
        return metrics["TaskDuration"] * 1000

    def first_paint(self, url, selector):
        """Milliseconds from the start of a navigation until an element is there, in a new window."""
        self.open("about:blank")
        self.page.add_init_script(
            "(() => { const selector = %s; const look = () => document.querySelector(selector) ? "
            "requestAnimationFrame(() => (window.usefulAt = performance.now())) : requestAnimationFrame(look); look(); })()"
            % json.dumps(selector)
        )
        self.page.goto(url)
        # The page's policy forbids the evaluation that Playwright's own wait uses.
        return self.page.evaluate(
            "new Promise(resolve => { const look = () => window.usefulAt ? resolve(Math.round(window.usefulAt)) "
            ": setTimeout(look, 20); look(); })"
        )

    def screenshot(self, path):
        self.page.screenshot(path=path)

    def forget_errors(self, pattern):
        """Forgets the errors that match, of what a test breaks on purpose; returns their number and the others."""
        left = [error for error in self.errors if not re.search(pattern, error)]
        forgotten = len(self.errors) - len(left)
        self.errors[:] = left
        return {"forgotten": forgotten, "left": left}

    def close(self):
        """Ends the browser; returns its errors, the hosts that pages asked, and the addresses that the browser connected to."""
        self.context.close()
        self.browser.close()
        found = connections(self.net_log.read_text())
        return {"errors": self.errors, "hosts": sorted(self.hosts), "connections": sorted(found)}


def connections(net_log):
    """The addresses of all TCP connections in a NetLog, which ends without its brackets if the browser was stopped."""
    attempt = re.search(r'"TCP_CONNECT_ATTEMPT":(\d+)', net_log)[1]
    events = re.findall(r'\{"params":\{"address":"([^"]+)"[^{}]*\}[^{}]*(?:\{[^{}]*\}[^{}]*)?"type":%s\}' % attempt, net_log)
    return {address.rpartition(":")[0] for address in events}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--chromium", required=True)
    parser.add_argument("--timeout", type=float, default=60_000, help="milliseconds")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        driver = Driver(playwright, arguments.chromium, arguments.timeout)
        for line in sys.stdin:
            command = json.loads(line)
            name = command.pop("do")
            try:
                answer = {"ok": getattr(driver, name)(**command)}
            except (Error, AssertionError) as error:
                answer = {"error": f"{name} {command}: {error}", "page": driver.page.inner_text("body") if driver.page else ""}
            print(json.dumps(answer), flush=True)
            if name == "close":
                return


main()
