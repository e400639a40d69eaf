//! A headless Chromium, driven by chromedriver over the WebDriver protocol.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::lightning::DEADLINE;

/// A browser window. The driver is killed when this is dropped; close it before, so that its browser ends, too.
#[derive(Debug)]
pub struct Browser {
    _driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    /// Opens a window of this size; none where there is no chromedriver (Debian's `chromium-driver`).
    pub async fn open(width: u32, height: u32, dark: bool) -> Option<Self> {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut driver = command.spawn().ok()?;
        let mut lines = BufReader::new(driver.stdout.take().expect("stdout is piped")).lines();
        let port = loop {
            let line = lines.next_line().await.expect("it prints text").expect("it says where it listens");
            let port = line.split("on port ").nth(1).map(|rest| rest.trim_end_matches('.').trim().parse());
            // It first says which one it was told.
            if let Some(Ok(port)) = port.filter(|port| *port != Ok(0)) {
                break port;
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            "--disable-dev-shm-usage".into(),
            format!("--window-size={width},{height}"),
        ];
        if dark {
            arguments.push("--blink-settings=preferredColorScheme=0".into());
        }
        // A window has a least width; what is emulated has none.
        let screen =
            json!({ "deviceMetrics": { "width": width, "height": height, "pixelRatio": 1.0, "touch": false } });
        let options = json!({ "args": arguments, "mobileEmulation": screen });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let mut browser = Self { _driver: driver, port, session: String::new() };
        let opened = browser.ask("POST", "/session", &wanted).await;
        browser.session = opened["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {opened}")).to_owned();
        Some(browser)
    }

    /// Goes to an address.
    pub async fn go(&self, url: &str) {
        self.command("url", &json!({ "url": url })).await;
    }

    /// The value of an expression in the page.
    pub async fn evaluate(&self, expression: &str) -> Value {
        self.command("execute/sync", &json!({ "script": format!("return {expression}"), "args": [] })).await
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

    /// Presses a key, as a keyboard would.
    pub async fn press(&self, key: &str) {
        let actions = json!([{ "type": "key", "id": "keyboard", "actions": [
            { "type": "keyDown", "value": key }, { "type": "keyUp", "value": key },
        ] }]);
        self.command("actions", &json!({ "actions": actions })).await;
    }

    /// A picture of the window, PNG in base64.
    pub async fn picture(&self) -> String {
        let path = format!("/session/{}/screenshot", self.session);
        self.ask("GET", &path, &Value::Null).await.as_str().unwrap_or_default().to_owned()
    }

    /// Ends the browser.
    pub async fn close(self) {
        let path = format!("/session/{}", self.session);
        self.ask("DELETE", &path, &Value::Null).await;
    }

    async fn command(&self, command: &str, payload: &Value) -> Value {
        self.ask("POST", &format!("/session/{}/{command}", self.session), payload).await
    }

    async fn ask(&self, method: &str, path: &str, payload: &Value) -> Value {
        let body = if payload.is_null() { String::new() } else { payload.to_string() };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("the driver listens");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let answered = async {
            stream.write_all((head + &body).as_bytes()).await?;
            read_body(BufReader::new(stream)).await
        };
        let answer = tokio::time::timeout(DEADLINE, answered).await.expect("the driver answers in time");
        let body = answer.expect("the driver answers");
        let mut answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {body}"));
        assert!(answer["value"]["error"].is_null(), "{method} {path}: {answer}");
        answer["value"].take()
    }
}

/// The body of an answer. The driver keeps the connection open after it.
async fn read_body(mut answer: BufReader<TcpStream>) -> std::io::Result<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        answer.read_line(&mut line).await?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    answer.read_exact(&mut body).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}
