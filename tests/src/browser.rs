//! A headless Chromium, driven over its DevTools protocol.

use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::lightning::DEADLINE;

/// What Chromium is called where there is one.
const PROGRAMS: &[&str] = &["chromium", "chromium-browser", "google-chrome"];
/// Windows narrower than this are a phone's, whose scroll bars take no room.
const PHONE: u32 = 600;

/// A browser window. The browser is killed when this is dropped.
#[derive(Debug)]
pub struct Browser {
    program: Child,
    _profile: TempDir,
    link: Mutex<Link>,
}

/// The way to the browser, where one waits for the answer to each call.
#[derive(Debug)]
struct Link {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The page's session, once it is there.
    session: Option<String>,
    calls: u64,
}

impl Browser {
    /// Opens a window of this size; none where there is no Chromium.
    pub async fn open(width: u32, height: u32, dark: bool) -> Option<Self> {
        let profile = tempfile::tempdir().expect("there is a temporary folder");
        let mut program = PROGRAMS.iter().find_map(|name| start(name, &profile).ok())?;
        let mut lines = BufReader::new(program.stderr.take().expect("stderr is piped")).lines();
        let url = loop {
            let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("it says where it listens");
            let line = line.expect("it prints text").expect("it says where it listens");
            if let Some(url) = line.strip_prefix("DevTools listening on ") {
                break url.to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (socket, _) = connect_async(url).await.expect("it listens where it says");
        let mut link = Link { socket, session: None, calls: 0 };
        let page = link.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attached =
            link.call("Target.attachToTarget", json!({ "targetId": page["targetId"], "flatten": true })).await;
        link.session = attached["sessionId"].as_str().map(str::to_owned);
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < PHONE });
        link.call("Emulation.setDeviceMetricsOverride", screen).await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        link.call("Emulation.setEmulatedMedia", features).await;
        Some(Self { program, _profile: profile, link: Mutex::new(link) })
    }

    /// Goes to an address.
    pub async fn go(&self, url: &str) {
        let gone = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
        self.until(&format!("location.href === '{url}' && document.readyState !== 'loading'")).await;
    }

    /// The value of an expression in the page.
    pub async fn evaluate(&self, expression: &str) -> Value {
        let mut done = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true })).await;
        assert!(done["exceptionDetails"].is_null(), "{expression}: {done}");
        done["result"]["value"].take()
    }

    /// Waits until an expression in the page is true.
    pub async fn until(&self, expression: &str) {
        let end = Instant::now() + DEADLINE;
        while self.evaluate(expression).await != true {
            if Instant::now() > end {
                panic!("it never was: {expression}\n{}", self.evaluate("document.body.innerText").await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Presses a key, as a keyboard would: `Enter`, `Escape` or `Tab`.
    pub async fn press(&self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            other => panic!("{other} is no key that is known here"),
        };
        let mut event = json!({ "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code });
        if key == "Enter" {
            event["text"] = "\r".into();
        }
        self.call("Input.dispatchKeyEvent", event).await;
        let event = json!({ "type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", event).await;
    }

    /// Presses the mouse's button on what an expression in the page stands for, or lets it go there.
    pub async fn mouse(&self, element: &str, is_down: bool) {
        let place = format!(
            "(() => {{ const it = {element}; it.scrollIntoView(); const box = it.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let place = self.evaluate(&place).await;
        let kind = if is_down { "mousePressed" } else { "mouseReleased" };
        let event = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
        self.call("Input.dispatchMouseEvent", event).await;
    }

    /// A picture of the window, PNG in base64.
    pub async fn picture(&self) -> String {
        let taken = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        taken["data"].as_str().expect("a picture is text").to_owned()
    }

    /// Ends the browser.
    pub async fn close(mut self) {
        self.call("Browser.close", json!({})).await;
        let ended = tokio::time::timeout(DEADLINE, self.program.wait()).await.expect("it ends when asked");
        ended.expect("a child can be waited for");
    }

    async fn call(&self, method: &str, parameters: Value) -> Value {
        self.link.lock().await.call(method, parameters).await
    }
}

impl Link {
    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(session) = self.session.as_ref().filter(|_| !method.starts_with("Browser.")) {
            message["sessionId"] = session.as_str().into();
        }
        self.socket.send(Message::text(message.to_string())).await.expect("the browser listens");
        loop {
            let heard = tokio::time::timeout(DEADLINE, self.socket.next()).await.expect("the browser answers in time");
            let heard = heard.expect("the browser lives").expect("the browser answers");
            let Message::Text(text) = heard else { continue };
            let mut answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
            // All else are events.
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }
}

fn start(name: &str, profile: &TempDir) -> std::io::Result<Child> {
    let mut command = Command::new(name);
    command
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--remote-debugging-port=0", "about:blank"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command.spawn()
}
