//! Every option of `worker oada` can be given as a flag and as a variable, and does what it says.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use axum::Router;
use axum::routing::post;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::lightning::DEADLINE;
use tests::oada::{Direction, Oada, TOKEN};
use tests::worker::Worker;
use tests::{binaries, oada::BOOKMARKS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::support::{JOB, body, finished, place, read, statuses, within};

#[derive(Debug, Clone, Copy)]
enum Way {
    Flags,
    Variables,
}

/// Name of an option, and its value.
type Options = Vec<(&'static str, String)>;

/// The options with their variables, as the program's help tells them.
fn variables() -> &'static [(String, Option<String>)] {
    static TOLD: LazyLock<Vec<(String, Option<String>)>> = LazyLock::new(|| {
        let help = std::process::Command::new(binaries::worker()).args(["oada", "--help"]).output().unwrap().stdout;
        let mut told: Vec<(String, Option<String>)> = Vec::new();
        for line in String::from_utf8(help).unwrap().lines() {
            // Texts begin further to the right.
            if let Some((_, option)) = line.split_once("--").filter(|(before, _)| before.len() <= 6) {
                told.push((option.split(' ').next().unwrap().to_owned(), None));
            } else if let Some((variable, _)) =
                line.trim().strip_prefix("[env: ").and_then(|it| it.split_once(['=', ']']))
            {
                told.last_mut().unwrap().1 = Some(variable.to_owned());
            }
        }
        told.retain(|(option, _)| option != "help");
        told
    });
    &TOLD
}

/// `worker oada` with nothing but these options.
fn command(way: Way, options: &Options) -> Command {
    let mut command = Command::new(binaries::worker());
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.arg("oada").env_clear().env("PATH", path).env("XDG_RUNTIME_DIR", std::env::temp_dir());
    for (long, value) in options {
        match (way, value.as_str()) {
            (Way::Flags, "true") => command.arg(format!("--{long}")),
            (Way::Flags, _) => command.arg(format!("--{long}={value}")),
            (Way::Variables, _) => {
                let variable =
                    variables().iter().find(|(it, _)| it == long).and_then(|(_, variable)| variable.as_ref());
                command.env(variable.unwrap_or_else(|| panic!("--{long} has no variable")), value)
            }
        };
    }
    command
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn store(oada: &Oada, folder: &TempDir) -> Options {
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    vec![("domain", oada.url()), ("token-file", path(&token)), ("service", "demo".to_owned())]
}

/// Handlers for what the options are to do.
const HANDLERS: &[(&str, &str)] = &[
    ("ok", "export const timeout = 60000; export default () => 'done';"),
    (
        "slow",
        "export const timeout = 60000;
         export default async (job, { log }) => {
           await log.info('begin');
           await new Promise((resolve) => setTimeout(resolve, 300));
           await log.info('end');
         };",
    ),
    ("stuck", "export default () => new Promise(() => {});"),
    (
        "long",
        "export const timeout = 600000;
         export default (job, { log }) => log.info('begun').then(() => new Promise(() => {}));",
    ),
    ("large", "export const timeout = 60000; export default () => { for (const all = []; ; ) all.push(new Array(1e5).fill({})); };"),
    ("tells", "export const timeout = 60000; export default () => [process.env.GREETING, process.env.HIDDEN === undefined];"),
    (
        "asks",
        "export const timeout = 60000;
         export default (job, { oada }) => Promise.all([1, 2, 3].map(() => oada.get('/resources/ASKED'))).then(() => 1);",
    ),
];

const REPORTS: &str = r#"[{ "name": "weekly", "type": "ok", "jobMappings": { "Who": "/config/who" },
    "frequency": "0 0 0 29 2 *", "email": { "from": "a@example.org", "to": "b@example.org" } }]"#;

/// A folder with handlers, a file of reports, and an engine host that notes that it was started.
struct Place {
    folder: TempDir,
    /// What the engine host notes it in.
    note: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let handlers = folder.path().join("handlers");
        std::fs::create_dir(&handlers).unwrap();
        for (kind, source) in HANDLERS {
            std::fs::write(handlers.join(format!("{kind}.js")), source).unwrap();
        }
        std::fs::write(folder.path().join("reports.json"), REPORTS).unwrap();
        let (host, note) = (folder.path().join("host"), folder.path().join("note"));
        let real = binaries::worker().with_file_name("engine-host");
        let script = format!("#!/bin/sh\necho started >> {}\nexec {} \"$@\"\n", note.display(), real.display());
        let node = format!("#!/bin/sh\necho node >> {}\nexec node \"$@\"\n", note.display());
        for (file, script) in [(&host, script), (&folder.path().join("node"), node)] {
            std::fs::write(file, script).unwrap();
            std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        Self { folder, note }
    }

    fn file(&self, name: &str) -> String {
        path(&self.folder.path().join(name))
    }
}

/// Someone who wants to know of finished jobs: the URL, and what is told.
async fn listener() -> (String, mpsc::UnboundedReceiver<String>) {
    let (tell, told) = mpsc::unbounded_channel();
    let app = Router::new().route("/hook", post(move |body: String| async move { drop(tell.send(body)) }));
    (format!("http://{}/hook", tests::served::serve(app).await), told)
}

async fn get(address: (Ipv4Addr, u16)) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The times of a job's updates with this status.
fn time<'a>(job: &'a oada::Job, status: &str) -> &'a str {
    &job.updates.iter().find(|update| update.status == status).unwrap().time
}

#[tokio::test(flavor = "multi_thread")]
async fn each_option_of_a_service_does_what_it_says_as_a_flag_and_as_a_variable() {
    let mut tried = BTreeSet::new();
    for way in [Way::Flags, Way::Variables] {
        let (oada, here) = (Oada::start().await, Place::new());
        let (url, mut told) = listener().await;
        // Taken, and given back at once.
        let port = TcpListener::bind("127.0.0.2:0").await.unwrap().local_addr().unwrap().port();
        let mut options = store(&oada, &here.folder);
        let more = [
            ("handlers", here.file("handlers")),
            ("reports", here.file("reports.json")),
            ("concurrency", "1".to_owned()),
            ("requests", "1".to_owned()),
            ("timeout", "1".to_owned()),
            ("memory", "32".to_owned()),
            ("unknown-type", "leave".to_owned()),
            ("half-run", "fail".to_owned()),
            ("claim", "7".to_owned()),
            ("skip-queue-on-startup", "true".to_owned()),
            ("strict", "true".to_owned()),
            ("handler-engine", "node".to_owned()),
            ("node", here.file("node")),
            ("job-env", "GREETING,LANG".to_owned()),
            ("finish-reporter", format!("slack:success={url}")),
            ("warm-hosts", "2".to_owned()),
            ("engine-host", here.file("host")),
            ("host", "127.0.0.2".to_owned()),
            ("port", port.to_string()),
            ("shutdown-grace", "1".to_owned()),
            ("log", "debug".to_owned()),
        ];
        options.extend(more);
        tried.extend(options.iter().map(|(long, _)| (*long).to_owned()));
        place(&oada, "SKIPPED", body("ok", json!({})));
        let mut command = command(way, &options);
        let worker = Worker::spawn(command.env("GREETING", "hello").env("HIDDEN", "secret"));
        worker.printed("processing jobs").await;
        check(&oada, &here, &worker, port).await;
        let message = within("the message", &oada, told.recv()).await.unwrap();
        assert!(message.contains("succeeded"), "{way:?}: {message}");
        stops_in_time(&oada, worker).await;
        assert_eq!(oada.get("/resources/SKIPPED/status"), None, "{way:?}");
    }
    tried.insert("layout".to_owned());
    let all: BTreeSet<String> = variables().iter().map(|(long, _)| long.clone()).collect();
    assert_eq!(tried, all, "options that are not tried here");
}

/// Whether a service that was started with the options does what they say.
async fn check(oada: &Oada, here: &Place, worker: &Worker, port: u16) {
    worker.printed("DEBUG").await;
    assert!(get((Ipv4Addr::new(127, 0, 0, 2), port)).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(get((Ipv4Addr::LOCALHOST, port)).await.is_err(), "it listens where it was told to only");
    let started = |note: &String| note.lines().filter(|line| *line == "started").count() >= 2;
    let hosts = |_: &Oada| std::fs::read_to_string(&here.note).ok().filter(started);
    oada.until("two hosts of the other program", hosts).await;
    let position = "/bookmarks/services/demo/jobs/success/_meta/oada-list-lib/weekly-successwatch";
    oada.until("the report", |oada| oada.get(position)).await;

    place(oada, "UNKNOWN", body("nobody knows it", json!({})));
    place(oada, "OK", body("ok", json!({})));
    let done = finished(oada, "OK").await;
    assert_eq!(done.result, Some(json!("done")));

    let begun = json!({ "U": { "status": "started", "time": "2026-11-21T10:00:00.000Z" } });
    place(oada, "HALF", json!({ "service": "demo", "type": "ok", "updates": begun }));
    assert_eq!(finished(oada, "HALF").await.failure_type(), Some("interrupted"));

    place(oada, "STUCK", body("stuck", json!({})));
    let stuck = finished(oada, "STUCK").await.result.unwrap();
    assert_eq!(stuck["message"], "Job exceeded the allowed 1000 ms running limit");

    place(oada, "TELLS", body("tells", json!({})));
    assert_eq!(finished(oada, "TELLS").await.result, Some(json!(["hello", true])));
    let note = std::fs::read_to_string(&here.note).unwrap();
    assert!(note.lines().any(|line| line == "node"), "{note}");

    place(oada, "LARGE", body("large", json!({})));
    let large = finished(oada, "LARGE").await;
    assert!(large.result.as_ref().unwrap().to_string().contains("memory"), "{:?}", large.result);

    for key in ["FIRST", "SECOND"] {
        place(oada, key, body("slow", json!({})));
    }
    let claimed = |oada: &Oada| (oada.get("/resources/FIRST/claim_ms")? == 7000).then_some(());
    oada.until("the claim", claimed).await;
    let (first, second) = (finished(oada, "FIRST").await, finished(oada, "SECOND").await);
    assert!(time(&first, "end") <= time(&second, "begin"), "{first:?} {second:?}");

    oada.put("/resources/ASKED", JOB, json!({}));
    place(oada, "ASKS", body("asks", json!({})));
    finished(oada, "ASKS").await;
    let trace = oada.trace();
    let asked = |entry: &&tests::oada::Entry| entry.message["path"] == "/resources/ASKED";
    let ids: Vec<&Value> = trace.iter().filter(asked).map(|entry| &entry.message["requestId"]).collect();
    let said = trace.iter().filter(|entry| ids.contains(&&entry.message["requestId"]));
    let turns: Vec<Direction> = said.map(|entry| entry.direction).collect();
    assert_eq!(turns, [Direction::FromClient, Direction::FromStore].repeat(3), "{}", oada.told());
    assert_eq!(oada.get("/resources/UNKNOWN/status"), None);
}

/// A job that would go on for ten minutes is left to the next service.
async fn stops_in_time(oada: &Oada, worker: Worker) {
    place(oada, "LONG", body("long", json!({})));
    oada.until("its start", |oada| {
        oada.get("/resources/LONG/updates")?.as_object()?.values().any(|it| it["status"] == "begun").then_some(())
    })
    .await;
    worker.signal(rustix::process::Signal::TERM);
    assert_eq!(worker.exit(DEADLINE).await, Some(0));
    assert_eq!(statuses(&read(oada, "LONG")), ["started", "begun"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layout_and_the_place_count_for_a_service_and_for_commands() {
    for way in [Way::Flags, Way::Variables] {
        let (oada, here) = (Oada::start().await, Place::new());
        let mut options = store(&oada, &here.folder);
        options.push(("layout", "v2".to_owned()));
        let posted = command(way, &options).args(["post", "--type", "ok"]).output().await.unwrap();
        let id = String::from_utf8(posted.stdout).unwrap();
        let key = id.trim().trim_start_matches("resources/").to_owned();
        let jobs = "/bookmarks/services/demo/jobs";
        assert!(oada.get(jobs).unwrap().get(&key).is_some(), "{way:?} {id}");
        let listed = command(way, &options).arg("list").output().await.unwrap();
        assert!(String::from_utf8(listed.stdout).unwrap().starts_with("pending: 1\n"), "{way:?}");

        options.extend([("handlers", here.file("handlers")), ("port", "0".to_owned())]);
        let worker = Worker::spawn(&mut command(way, &options));
        oada.until("the end", |oada| oada.get(jobs)?.get(&key).is_none().then_some(())).await;
        let day = oada.get(&format!("{jobs}-success/day-index")).unwrap();
        assert_eq!(day.as_object().unwrap().len(), 1, "{way:?}");
        assert!(oada.get(&format!("/{BOOKMARKS}/services/demo/jobs-success")).is_some());
        worker.stop().await;
    }
}

#[test]
fn what_is_no_value_is_told_with_the_flag_and_the_variable() {
    let cases = [
        ("domain", "ftp://x"),
        ("layout", "v9"),
        ("concurrency", "0"),
        ("requests", "0"),
        ("timeout", "soon"),
        ("memory", "much"),
        ("unknown-type", "odd"),
        ("half-run", "odd"),
        ("claim", "-1"),
        ("finish-reporter", "mail:x=y"),
        ("warm-hosts", "0"),
        ("host", "nowhere"),
        ("port", "70000"),
        ("shutdown-grace", "x"),
        ("log", "loud"),
    ];
    for (long, value) in cases {
        for way in [Way::Flags, Way::Variables] {
            let output = command(way, &vec![(long, value.to_owned())]).into_std().output().unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            let variable =
                variables().iter().find(|(it, _)| it == long).and_then(|(_, variable)| variable.as_ref()).unwrap();
            assert_eq!(output.status.code(), Some(2), "{way:?} {long}: {told}");
            assert!(told.contains(&format!("--{long}")) && told.contains(variable), "{way:?} {long}: {told}");
        }
    }
}
