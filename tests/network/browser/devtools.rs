//! Headless Chromium, controlled through its DevTools protocol.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// How long the browser may take for anything that does not need the network.
const LIMIT: Duration = Duration::from_secs(30);
/// Interval between two reads of a file that the browser writes.
const POLL: Duration = Duration::from_millis(50);

/// A running Chromium with one page, killed when dropped. Its profile is then removed.
pub struct Browser {
    child: Child,
    socket: WebSocketStream<TcpStream>,
    /// The number of the last call.
    last_call: u64,
    /// The session attached to the page.
    session: Option<String>,
    events: VecDeque<Value>,
    profile: TempDir,
}

/// Returns the path of Chromium, if it is installed.
pub fn find_chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("chromium"))
        .find(|file| file.is_file())
}

impl Browser {
    /// Starts Chromium with this proxy argument: `--proxy-server=…` or `--proxy-pac-url=…`.
    pub async fn start(program: &Path, folder: &Path, proxy: &str) -> Result<Browser> {
        let profile = tempfile::tempdir_in(folder)?;
        let log = File::create(profile.path().join("log"))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-port=0",
                proxy,
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start Chromium")?;
        let port_file = profile.path().join("DevToolsActivePort");
        let deadline = Instant::now() + LIMIT;
        let (port, path) = loop {
            let text = fs::read_to_string(&port_file).unwrap_or_default();
            if let Some((port, path)) = text.split_once('\n')
                && !path.is_empty()
            {
                break (port.to_owned(), path.trim().to_owned());
            }
            ensure!(Instant::now() < deadline, "Chromium does not start");
            tokio::time::sleep(POLL).await;
        };
        let address: SocketAddr = format!("127.0.0.1:{port}").parse()?;
        let stream = TcpStream::connect(address).await?;
        let (socket, _) = client_async(format!("ws://{address}{path}"), stream).await?;
        let mut browser = Browser {
            child,
            socket,
            last_call: 0,
            session: None,
            events: VecDeque::new(),
            profile,
        };
        let page = browser
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await?;
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach).await?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Network", "Runtime"] {
            browser.call(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(browser)
    }

    /// Calls a method and returns its result.
    pub async fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.last_call += 1;
        let number = self.last_call;
        let mut message = json!({"id": number, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).await?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let message = self
                .next_message(deadline)
                .await
                .context(method.to_owned())?;
            if message["id"] == json!(number) {
                ensure!(message["error"].is_null(), "{method}: {}", message["error"]);
                return Ok(message["result"].clone());
            }
            self.events.push_back(message);
        }
    }

    async fn next_message(&mut self, deadline: Instant) -> Result<Value> {
        loop {
            let message = timeout_at(deadline.into(), self.socket.next()).await?;
            let message = message.context("Chromium has ended")??;
            if let Message::Text(text) = message {
                return Ok(serde_json::from_str(&text)?);
            }
        }
    }

    /// Waits for an event that `matches`, drops those before it, and returns its parameters.
    pub async fn wait_for_event(
        &mut self,
        limit: Duration,
        what: &str,
        matches: impl Fn(&str, &Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let message = match self.events.pop_front() {
                Some(message) => message,
                None => self
                    .next_message(deadline)
                    .await
                    .with_context(|| format!("waiting for {what}"))?,
            };
            if matches(
                message["method"].as_str().unwrap_or_default(),
                &message["params"],
            ) {
                return Ok(message["params"].clone());
            }
        }
    }

    /// Opens an address and waits until its page is loaded; returns the HTTP status.
    pub async fn open(&mut self, url: &str, limit: Duration) -> Result<u16> {
        self.events.clear();
        // The answer to this call comes only with the response of the site, so do not wait for it here.
        self.last_call += 1;
        let session = self.session.clone();
        let message = json!({
            "id": self.last_call, "method": "Page.navigate", "params": {"url": url}, "sessionId": session
        });
        self.socket.send(Message::text(message.to_string())).await?;
        self.wait_for_page(limit)
            .await
            .with_context(|| url.to_owned())
    }

    /// Runs a script that leads to another page, and waits until it is loaded; returns the HTTP status.
    pub async fn follow(&mut self, script: &str, limit: Duration) -> Result<u16> {
        self.events.clear();
        self.run_script(script).await?;
        self.wait_for_page(limit)
            .await
            .with_context(|| script.to_owned())
    }

    /// Waits until the next page is loaded; returns the HTTP status.
    pub async fn wait_for_page(&mut self, limit: Duration) -> Result<u16> {
        let status = std::cell::Cell::new(0);
        self.wait_for_event(limit, "a page", |event, parameters| {
            if event == "Network.responseReceived" && parameters["type"] == "Document" {
                let code = parameters["response"]["status"]
                    .as_u64()
                    .unwrap_or_default();
                status.set(u16::try_from(code).unwrap_or_default());
            }
            event == "Page.loadEventFired"
        })
        .await?;
        Ok(status.get())
    }

    /// Runs a script in the page and returns its value.
    pub async fn run_script(&mut self, script: &str) -> Result<Value> {
        let parameters = json!({
            "expression": script, "returnByValue": true, "awaitPromise": true, "userGesture": true
        });
        let evaluated = self.call("Runtime.evaluate", parameters).await?;
        if !evaluated["exceptionDetails"].is_null() {
            bail!("{script}: {}", evaluated["exceptionDetails"]);
        }
        Ok(evaluated["result"]["value"].clone())
    }

    /// Returns the text of the page.
    pub async fn page_text(&mut self) -> Result<String> {
        let text = self
            .run_script("document.documentElement.innerText")
            .await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Saves screenshots of the page, on wide and narrow screens, light and dark, as `NAME-WIDTH-SCHEME.png`. Fails if
    /// the page is wider than the screen.
    pub async fn take_screenshots(&mut self, folder: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(folder)?;
        for (width, height) in [(1280, 800), (390, 844)] {
            for scheme in ["light", "dark"] {
                let screen = json!({
                    "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500
                });
                self.call("Emulation.setDeviceMetricsOverride", screen)
                    .await?;
                let feature = json!([{"name": "prefers-color-scheme", "value": scheme}]);
                self.call("Emulation.setEmulatedMedia", json!({"features": feature}))
                    .await?;
                let page_width = self
                    .run_script("document.documentElement.scrollWidth")
                    .await?;
                ensure!(
                    page_width.as_u64() <= Some(width),
                    "{name} is {page_width} wide on {width}"
                );
                let screenshot = self
                    .call("Page.captureScreenshot", json!({"format": "png"}))
                    .await?;
                let data = screenshot["data"].as_str().context("no screenshot")?;
                let data = data_encoding::BASE64.decode(data.as_bytes())?;
                fs::write(folder.join(format!("{name}-{width}-{scheme}.png")), data)?;
            }
        }
        self.call("Emulation.clearDeviceMetricsOverride", json!({}))
            .await?;
        Ok(())
    }

    /// The folder of the profile.
    pub fn profile_folder(&self) -> &Path {
        self.profile.path()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
