//! The live page in a real browser: Debian's Chromium, headless.
//!
//! `BROWSER_TEST_PYTHON` names a Python with Playwright, and `BROWSER_TEST_CHROMIUM` the browser; `test.sh` provides both.
//! Without them the tests are skipped. Each test ends with the browser's own account: no error on the console, no host but
//! loopback asked, no connection to another address.

mod driver;
mod feed;
mod fixed;
mod groups;
mod hostile;
mod keyboard;
mod life;
mod lists;
mod scale;
mod states;
mod views;
