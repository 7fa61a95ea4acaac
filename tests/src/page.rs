//! The agent's page in a browser: where it is, and what stands in its books.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::browser::Browser;

/// The line under `[api]` that there is a page by. Its gateway is a namespace of its own: nobody else has this port.
pub const LISTEN: &str = "listen = \"127.0.0.1:9433\"";

/// The page, seen from the gateway.
pub const PAGE: &str = "http://127.0.0.1:9433/";

/// A browser on a busy machine takes its time.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// The octets in the row of the page's books that begins so.
pub fn in_the_books(browser: &Browser, row: &str) -> Result<u64> {
    let body = format!(
        "return [...document.querySelectorAll('#books tr')].find((row) => row.innerText.startsWith({}))?.cells[1].innerText ?? ''",
        json!(row)
    );
    let text = browser.run(&body)?;
    let digits: String = text.as_str().context("a figure")?.chars().filter(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("octets in {text}"))
}
