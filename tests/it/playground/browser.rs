//! A small client of the DevTools protocol: as much of a browser as the playground's tests need.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(25);

/// A page in its own browser; the browser ends with it.
pub struct Page {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    last_id: u64,
    events: Vec<Value>,
    _browser: Browser,
}

struct Browser {
    process: Child,
    profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // The browser's own children write into the profile until they notice that it is gone.
        for _ in 0..40 {
            let _ = std::fs::remove_dir_all(self.profile.path());
            std::thread::sleep(Duration::from_millis(100));
            if !self.profile.path().exists() {
                break;
            }
        }
    }
}

/// The browser to test with; `None`, with the reason printed, where there is none.
fn find_chromium() -> Result<Option<PathBuf>> {
    if let Some(path) = std::env::var_os("SAFELMM_TEST_CHROMIUM").map(PathBuf::from) {
        ensure!(path.is_file(), "SAFELMM_TEST_CHROMIUM names {}, which is no file", path.display());
        return Ok(Some(path));
    }
    let folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found =
        names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()));
    if found.is_none() {
        eprintln!("skipped: no Chromium; install one or name it in SAFELMM_TEST_CHROMIUM");
    }
    Ok(found)
}

impl Page {
    /// Starts a browser and opens `url` in it; `None` where there is no browser.
    pub async fn open(url: impl AsRef<str>) -> Result<Option<Page>> {
        let Some(chromium) = find_chromium()? else { return Ok(None) };
        let profile = tempfile::tempdir()?;
        let process = Command::new(&chromium)
            // The sandbox needs rights that containers lack; the only page opened here is our own.
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--window-size=1280,900", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} does not start", chromium.display()))?;
        let browser = Browser { process, profile };
        let (socket, _) = connect_async(devtools_address(browser.profile.path()).await?).await?;
        let mut page = Page { socket, session: None, last_id: 0, events: Vec::new(), _browser: browser };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"})).await?;
        let session =
            page.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true})).await?;
        page.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({})).await?;
        }
        page.load(url).await?;
        Ok(Some(page))
    }

    /// Opens `url` and waits until the page has learned which model is served.
    pub async fn load(&mut self, url: impl AsRef<str>) -> Result<()> {
        self.call("Page.navigate", json!({"url": url.as_ref()})).await?;
        self.wait_for("document.readyState === 'complete' && !/Connecting|No model/.test(model.textContent)").await
    }

    /// Calls a DevTools method; events that come in meanwhile are kept.
    pub async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last_id += 1;
        let mut request = json!({"id": self.last_id, "method": method, "params": params});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(request.to_string())).await?;
        loop {
            let message =
                timeout(PATIENCE, self.socket.next()).await.with_context(|| format!("no answer to {method}"))?;
            let Message::Text(text) = message.context("the browser closed the connection")?? else { continue };
            let mut message: Value = serde_json::from_str(&text)?;
            if message["id"] != self.last_id {
                self.events.push(message);
            } else if message.get("error").is_some() {
                bail!("{method}: {}", message["error"]);
            } else {
                return Ok(message["result"].take());
            }
        }
    }

    /// The value of a JavaScript expression in the page; a promise is awaited.
    pub async fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut result = self.call("Runtime.evaluate", params).await?;
        ensure!(result.get("exceptionDetails").is_none(), "{expression}: {}", result["exceptionDetails"]);
        Ok(result["result"]["value"].take())
    }

    /// The value of an expression that is a string.
    pub async fn text(&mut self, expression: &str) -> Result<String> {
        let value = self.evaluate(expression).await?;
        value.as_str().map(str::to_owned).ok_or_else(|| anyhow!("{expression} is {value}, not a text"))
    }

    /// Whether an expression is truthy now.
    pub async fn holds(&mut self, condition: &str) -> Result<bool> {
        Ok(self.evaluate(&format!("Boolean({condition})")).await? == true)
    }

    /// Waits until an expression is truthy; fails, with what the page shows, after a minute.
    pub async fn wait_for(&mut self, condition: &str) -> Result<()> {
        let started = Instant::now();
        while !self.holds(condition).await? {
            if started.elapsed() > PATIENCE {
                bail!(
                    "{condition} did not come true; the page shows:\n{}",
                    self.text("document.body.innerText").await?
                );
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Clicks with the mouse in the middle of an element, so that what lies above it would catch the click.
    pub async fn click(&mut self, selector: &str) -> Result<()> {
        let place = self
            .evaluate(&format!(
                "(() => {{ const e = document.querySelector({selector:?}); e.scrollIntoView({{block: 'center'}}); \
                 const r = e.getBoundingClientRect(); return {{x: r.x + r.width / 2, y: r.y + r.height / 2}}; }})()"
            ))
            .await?;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event).await?;
        }
        Ok(())
    }

    /// Types `text` into an input in place of what it holds.
    pub async fn fill(&mut self, selector: &str, text: &str) -> Result<()> {
        self.evaluate(&format!("document.querySelector({selector:?}).select()")).await?;
        self.call("Input.insertText", json!({"text": text})).await?;
        Ok(())
    }

    /// Presses a key with DevTools' modifier mask (2 is Ctrl).
    pub async fn press(&mut self, key: &str, modifiers: u32) -> Result<()> {
        for kind in ["rawKeyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({"type": kind, "key": key, "code": key, "modifiers": modifiers}))
                .await?;
        }
        Ok(())
    }

    /// Makes answers trickle in, so that even a small model's answer can be stopped midway.
    pub async fn slow_network(&mut self) -> Result<()> {
        let params = json!({"offline": false, "latency": 0, "downloadThroughput": 1500, "uploadThroughput": -1});
        self.call("Network.emulateNetworkConditions", params).await?;
        Ok(())
    }

    /// The bodies of the requests sent to `path` so far.
    pub fn sent(&self, path: &str) -> Vec<Value> {
        let requests = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        requests
            .map(|event| &event["params"]["request"])
            .filter(|request| request["url"].as_str().is_some_and(|url| url.ends_with(path)))
            .filter_map(|request| serde_json::from_str(request["postData"].as_str()?).ok())
            .collect()
    }

    /// Fails on exceptions, console errors and policy violations. A refused request (400) is what some tests ask for.
    pub async fn no_problems(&mut self) -> Result<()> {
        self.evaluate("new Promise((done) => setTimeout(done, 100))").await?;
        let problem = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some("Log.entryAdded") => {
                let entry = &event["params"]["entry"];
                let refused = entry["source"] == "network"
                    && entry["text"].as_str().is_some_and(|text| text.contains("status of 400"));
                entry["level"] == "error" && !refused
            }
            _ => false,
        };
        let problems: Vec<&Value> = self.events.iter().filter(problem).collect();
        ensure!(problems.is_empty(), "the console shows: {problems:?}");
        Ok(())
    }
}

/// Where the browser listens: it writes port and path into its profile once it does.
async fn devtools_address(profile: &Path) -> Result<String> {
    let started = Instant::now();
    loop {
        let content = std::fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
        if let Some((port, path)) = content.split_once('\n').filter(|(_, path)| !path.is_empty()) {
            return Ok(format!("ws://127.0.0.1:{}{}", port.trim(), path.trim()));
        }
        ensure!(started.elapsed() < PATIENCE, "the browser did not start");
        sleep(POLL).await;
    }
}
