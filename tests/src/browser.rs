//! A headless Chromium in a namespace, told what to do over `WebDriver` (W3C), with the few verbs that the page's scenarios need.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::bpffs::Workdir;
use crate::eventually::eventually;
use crate::http::Client;
use crate::netns::Namespace;
use crate::process::Actor;

/// How long the driver and the browser may take to start, on a machine that is busy.
const START: Duration = Duration::from_mins(1);

/// What a browser shows a page on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Width in CSS pixels.
    pub width: u32,
    /// Height in CSS pixels.
    pub height: u32,
    /// `light` or `dark`: what the person at it prefers.
    pub scheme: &'static str,
}

/// A browser with one tab. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    driver: Client,
    session: String,
    _driver: Actor,
}

impl Browser {
    /// Starts it in `namespace`, with its files in `workdir`.
    pub fn start(namespace: &Namespace, workdir: &Workdir) -> Result<Self> {
        let home = workdir.path().join("browser");
        fs::create_dir_all(&home)?;
        let mut command = namespace.command("chromedriver");
        command.args(["--port=0", "--log-level=SEVERE"]).env("HOME", &home).env("TMPDIR", &home);
        let mut actor = Actor::start("chromedriver", command, workdir)
            .context("chromedriver is needed: install chromium and chromium-driver, or run `cargo xtask setup`")?;
        let line = actor.wait_for_line("successfully on port", START)?;
        let port: String = line.chars().filter(char::is_ascii_digit).collect();
        let driver = Client::new(namespace, &format!("http://127.0.0.1:{port}"), "").patient(START);
        // No sandbox: scenarios run as root, and the one page that is opened is ours.
        let args = [
            "--headless=new".to_owned(),
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            "--disable-dev-shm-usage".into(),
            "--disable-background-networking".into(),
            "--disable-component-update".into(),
            "--no-first-run".into(),
            "--hide-scrollbars".into(),
            format!("--user-data-dir={}", home.join("profile").display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let made = driver.post("/session", &wanted)?;
        let session = made["value"]["sessionId"].as_str().with_context(|| format!("a session in {made}"))?;
        Ok(Self { session: format!("/session/{session}"), driver, _driver: actor })
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&self, url: &str) -> Result<()> {
        self.post("url", &json!({ "url": url })).map(drop)
    }

    /// Runs a function's body in the page and answers what it returns.
    pub fn run(&self, body: &str) -> Result<Value> {
        self.post("execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// The text that a person sees of the first element that fits a CSS selector; empty when there is none or it is not shown.
    pub fn text(&self, selector: &str) -> Result<String> {
        let body = "const found = document.querySelector(arguments[0]); return found?.checkVisibility() ? found.innerText : ''";
        let text = self.post("execute/sync", &json!({ "script": body, "args": [selector] }))?;
        text.as_str().map(str::to_owned).with_context(|| format!("the text of {selector}"))
    }

    /// Waits until that text has `words` in it, and answers it.
    pub fn shows(&self, selector: &str, words: &str, limit: Duration) -> Result<String> {
        eventually(&format!("{selector} to show {words:?}"), limit, || {
            let text = self.text(selector)?;
            ensure!(text.contains(words), "it shows {text:?}");
            Ok(text)
        })
    }

    /// A style of an element as the browser has worked it out.
    pub fn style(&self, selector: &str, property: &str) -> Result<String> {
        let body = format!("return getComputedStyle(document.querySelector({})).{property}", json!(selector));
        self.run(&body)?.as_str().map(str::to_owned).with_context(|| format!("{property} of {selector}"))
    }

    /// Presses keys in the element that has the focus, as `WebDriver` spells them.
    pub fn press(&self, keys: &[char]) -> Result<()> {
        let strokes: Vec<Value> = keys
            .iter()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })])
            .collect();
        let source = json!({ "type": "key", "id": "keyboard", "actions": strokes });
        self.post("actions", &json!({ "actions": [source] })).map(drop)
    }

    /// Has the page shown on another screen.
    pub fn show_on(&self, screen: Screen) -> Result<()> {
        let Screen { width, height, scheme } = screen;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics)?;
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &media).map(drop)
    }

    /// A picture of the whole page, as PNG, into a file.
    pub fn picture(&self, file: &Path) -> Result<()> {
        let taken =
            self.devtools("Page.captureScreenshot", &json!({ "captureBeyondViewport": true, "format": "png" }))?;
        let png = STANDARD.decode(taken["data"].as_str().context("a picture")?)?;
        fs::write(file, png).with_context(|| format!("writing {}", file.display()))
    }

    /// What the page and the browser have said on the console since this was last asked: errors, and what a policy has stopped.
    pub fn console(&self) -> Result<Vec<String>> {
        let said = self.post("se/log", &json!({ "type": "browser" }))?;
        let Some(lines) = said.as_array() else { bail!("a log: {said}") };
        Ok(lines.iter().map(|line| format!("{} {}", line["level"], line["message"])).collect())
    }

    fn devtools(&self, command: &str, params: &Value) -> Result<Value> {
        self.post("goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let mut answer = self.driver.post(&format!("{}/{path}", self.session), body)?;
        Ok(answer["value"].take())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have gone already; what is left of it goes with the namespace.
        let _ = self.driver.delete(&self.session);
    }
}
