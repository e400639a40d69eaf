//! A package registry on loopback, for npm: packages that a test makes up, and faults that it asks for.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What the registry does instead of answering properly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// So many requests are answered with 503.
    Unavailable(u32),
    /// Tarballs are cut off.
    BrokenTarball,
    /// Tarballs are sent when [`Registry::go_on`] is called.
    HeldTarball,
    /// Who does not show this token is answered with 401.
    Locked(&'static str),
}

/// A registry that serves until it is dropped.
#[derive(Debug)]
pub struct Registry {
    url: String,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    contents: Mutex<Contents>,
    may_go_on: Notify,
    held: Notify,
}

#[derive(Debug, Default)]
struct Contents {
    packages: HashMap<String, Package>,
    fault: Option<Fault>,
    /// Paths that were asked for.
    requests: Vec<String>,
}

#[derive(Debug, Default, Clone)]
struct Package {
    tags: HashMap<String, String>,
    versions: HashMap<String, (Value, Vec<u8>)>,
}

impl Registry {
    /// An empty one.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("a listener has an address");
        let state = Arc::new(State::default());
        let serving = tokio::spawn(serve(listener, Arc::clone(&state)));
        Self { url: format!("http://{address}"), state, serving }
    }

    /// Publishes a version of an adaptor, as CommonJS with this source. It becomes the latest.
    pub fn publish(&self, name: &str, version: &str, source: &str) {
        self.publish_files(name, version, json!({"main": "index.js"}), &[("index.js", source.as_bytes())]);
    }

    /// Publishes a version of a package with this in its `package.json`, and these files. It becomes the latest.
    pub fn publish_files(&self, name: &str, version: &str, mut manifest: Value, files: &[(&str, &[u8])]) {
        manifest["name"] = name.into();
        manifest["version"] = version.into();
        let tarball = tarball(&manifest, files);
        let mut contents = self.contents();
        let package = contents.packages.entry(name.to_owned()).or_default();
        package.versions.insert(version.to_owned(), (manifest, tarball));
        package.tags.insert("latest".to_owned(), version.to_owned());
    }

    /// From now on the registry has this fault, or none.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.contents().fault = fault;
    }

    /// Lets tarballs go that were held, and all that follow.
    pub fn go_on(&self) {
        self.set_fault(None);
        self.state.may_go_on.notify_waiters();
    }

    /// Waits until a tarball is held.
    pub async fn is_holding(&self) {
        self.state.held.notified().await;
    }

    /// Paths that were asked for so far.
    pub fn requests(&self) -> Vec<String> {
        self.contents().requests.clone()
    }

    /// How often a tarball was asked for.
    pub fn downloads(&self) -> usize {
        self.requests().iter().filter(|path| path.ends_with(".tgz")).count()
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.state.contents()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl State {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let address = listener.local_addr().expect("a listener has an address");
    let url = format!("http://{address}");
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&state), url.clone()));
        }
    }
}

/// Answers one request and closes the connection. Whoever goes away meanwhile is nobody's concern.
async fn answer(mut stream: TcpStream, state: Arc<State>, url: String) {
    let mut lines = BufReader::new(&mut stream).lines();
    let Ok(Some(first)) = lines.next_line().await else { return };
    let mut token = None;
    while let Ok(Some(line)) = lines.next_line().await {
        if line.is_empty() {
            break;
        }
        let value = line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        token = token.or(value.and_then(|(_, value)| value.strip_prefix("Bearer ").map(str::to_owned)));
    }
    let path = first.split(' ').nth(1).unwrap_or_default().replace("%2f", "/").replace("%2F", "/");
    let is_held = path.ends_with(".tgz") && state.contents().fault == Some(Fault::HeldTarball);
    if is_held {
        let go_on = state.may_go_on.notified();
        state.held.notify_one();
        go_on.await;
    }
    let (status, body) = respond(&mut state.contents(), path, token.as_deref(), &url);
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&body).await;
}

fn respond(contents: &mut Contents, path: String, token: Option<&str>, url: &str) -> (&'static str, Vec<u8>) {
    contents.requests.push(path.clone());
    if let Some(Fault::Unavailable(left)) = contents.fault {
        contents.fault = (left > 1).then_some(Fault::Unavailable(left - 1));
        return ("503 Service Unavailable", b"{}".to_vec());
    }
    if let Some(Fault::Locked(wanted)) = contents.fault
        && token != Some(wanted)
    {
        return ("401 Unauthorized", b"{}".to_vec());
    }
    let name = path.trim_start_matches('/');
    match name.split_once("/-/") {
        None => match contents.packages.get(name) {
            Some(package) => ("200 OK", package.describe(name, url).to_string().into_bytes()),
            None => ("404 Not Found", b"{\"error\": \"Not found\"}".to_vec()),
        },
        Some((name, file)) => {
            let version = file.trim_end_matches(".tgz");
            let found = contents.packages.get(name).and_then(|package| package.versions.get(version));
            match found {
                Some((_, tarball)) if contents.fault == Some(Fault::BrokenTarball) => {
                    ("200 OK", tarball[..tarball.len() / 2].to_vec())
                }
                Some((_, tarball)) => ("200 OK", tarball.clone()),
                None => ("404 Not Found", Vec::new()),
            }
        }
    }
}

impl Package {
    fn describe(&self, name: &str, url: &str) -> Value {
        let versions: HashMap<&str, Value> = self
            .versions
            .iter()
            .map(|(version, (manifest, _))| {
                let mut manifest = manifest.clone();
                manifest["dist"] = json!({"tarball": format!("{url}/{name}/-/{version}.tgz")});
                (version.as_str(), manifest)
            })
            .collect();
        json!({"name": name, "dist-tags": self.tags, "versions": versions})
    }
}

/// A package as npm packs it.
fn tarball(manifest: &Value, files: &[(&str, &[u8])]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("there is room for a package");
    let package = folder.path().join("package");
    write(&package.join("package.json"), manifest.to_string().as_bytes());
    for (file, content) in files {
        write(&package.join(file), content);
    }
    let mut tar = Command::new("tar");
    tar.args(["czf", "-", "package"]).current_dir(folder.path()).stderr(Stdio::inherit());
    let output = tar.output().expect("tar can be started");
    assert!(output.status.success(), "tar failed");
    output.stdout
}

fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("there is room for a package");
    std::fs::write(path, content).expect("there is room for a package");
}
