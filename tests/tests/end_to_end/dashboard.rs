//! The dashboard: what it serves to whom, and what a browser makes of it.

use std::path::Path;
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tests::browser::Browser;
use tests::lightning::{self, DEADLINE, LightningOptions, SECRET, chain, end, logged, one_job, queue, until};
use tests::worker::Worker;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;

const PRIVATE: &str = "Amina Diallo, born 1990";

/// What `/dashboard/events` tells.
struct Events(Lines<BufReader<TcpStream>>);

impl Events {
    async fn of(worker: &Worker) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", worker.port().await)).await.expect("the worker listens");
        let request = "GET /dashboard/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("the worker reads");
        Self(BufReader::new(stream).lines())
    }

    /// Waits for an update like this.
    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < end, "no such update came");
            let line = tokio::time::timeout(DEADLINE, self.0.next_line()).await.expect("updates come");
            let line = line.expect("it is text").expect("it goes on");
            if let Some(data) = line.strip_prefix("data: ") {
                assert!(!data.contains(PRIVATE) && !data.contains(SECRET) && !data.contains("eyJ"), "{data}");
                let update: Value = serde_json::from_str(data).expect("it is JSON");
                if wanted(&update) {
                    return update;
                }
            }
        }
    }
}

fn run_of<'a>(update: &'a Value, id: &str) -> Option<&'a Value> {
    update["runs"].as_array()?.iter().find(|run| run["run"] == id)
}

fn waits(milliseconds: u32) -> String {
    format!("fn(s => new Promise(done => setTimeout(() => {{ console.log('{PRIVATE}'); done(s); }}, {milliseconds})))")
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_hosts_and_the_log_are_told_as_they_change() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker =
        Worker::start(&lightning, &["--dashboard", "--tail-jobs", "--workloops", "manual>*:2 fast_lane:1"]).await;
    let mut events = Events::of(&worker).await;
    let first = events.until(|update| update["is_whole"] == true).await;
    assert_eq!(first["worker"]["version"], env!("CARGO_PKG_VERSION"));
    events.until(|update| update["worker"]["readiness"]["ready"] == true).await;

    let id = queue(
        &lightning,
        chain(&[("slow", &waits(1500)), ("fails", &format!("fn(() => {{ throw new Error('{PRIVATE}'); }})"))]),
    );
    let executing =
        events.until(|update| run_of(update, &id).is_some_and(|run| run["steps"][0]["step"] == "slow")).await;
    let run = run_of(&executing, &id).expect("it was just seen");
    assert_eq!((&run["phase"], &run["workloop"]), (&"execute".into(), &"manual>*".into()));
    let host = run["host"].clone();
    let at_work = events
        .until(|update| {
            let hosts = update["worker"]["hosts"].as_array();
            hosts.is_some_and(|hosts| hosts.iter().any(|it| it["id"] == host && it["state"] == "running"))
        })
        .await;
    assert_eq!(at_work["worker"]["workloops"][0]["active"], 1);

    let ended = events.until(|update| run_of(update, &id).is_some_and(|run| run["phase"] == "ended")).await;
    let run = run_of(&ended, &id).expect("it was just seen");
    assert_eq!(
        (&run["reason"], &run["error_type"], &run["delivered"]),
        (&"fail".into(), &"JobError".into(), &true.into())
    );
    let phases: Vec<_> = run["phases"].as_array().expect("a list").iter().map(|phase| phase[0].clone()).collect();
    assert_eq!(phases, ["prepare", "start", "execute", "deliver", "ended"]);
    events.until(|update| update["worker"]["points"][0]["reasons"] == json!({ "fail": 1 })).await;
    events
        .until(|update| update["worker"]["exits"].as_array().is_some_and(|it| it.iter().any(|it| it["host"] == host)))
        .await;

    // Who comes later is told all of it.
    let mut later = Events::of(&worker).await;
    let whole = later.until(|update| update["is_whole"] == true).await;
    assert_eq!(run_of(&whole, &id).expect("it is remembered")["phase"], "ended");
    let lines = whole["lines"].as_array().expect("a list");
    let about = |text: &str| {
        lines.iter().any(|line| line["run"] == id && line["text"].as_str().is_some_and(|it| it.contains(text)))
    };
    assert!(about("run starts") && about("run ended: fail"), "{lines:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_steps_are_shown_unless_they_are_to_be_hidden() {
    for (options, expected) in
        [(&["--dashboard"][..], json!("A name")), (&["--dashboard", "--hide-names"], Value::Null)]
    {
        let lightning = lightning::start(LightningOptions::default()).await;
        let worker = Worker::start(&lightning, options).await;
        let mut events = Events::of(&worker).await;
        let mut plan = one_job("fn(s => s)");
        plan["jobs"][0]["name"] = "A name".into();
        let id = queue(&lightning, plan);
        let ended = events.until(|update| run_of(update, &id).is_some_and(|run| run["phase"] == "ended")).await;
        let run = run_of(&ended, &id).expect("it was just seen");
        assert_eq!(run["steps"][0]["name"], expected, "{run}");
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_off_unless_asked_for_and_for_this_machine_alone() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let without = Worker::start(&lightning, &[]).await;
    assert_eq!(without.http("GET", "/dashboard").await.0, 404);
    assert_eq!(without.http("GET", "/dashboard/events").await.0, 404);
    without.stop().await;

    let worker = Worker::start(&lightning, &["--dashboard"]).await;
    let (status, page) = worker.http("GET", "/dashboard").await;
    assert_eq!(status, 200);
    assert!(!page.contains("http://") || page.matches("http://").all(|_| page.contains("http://www.w3.org/2000/svg")));
    assert!(!page.contains("https://"), "nothing comes from third parties");
    // A page of somebody else, whose name leads here.
    let mut stream = TcpStream::connect(("127.0.0.1", worker.port().await)).await.expect("the worker listens");
    let request = "GET /dashboard HTTP/1.1\r\nhost: evil.example.org\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("the worker reads");
    let mut answer = BufReader::new(stream).lines();
    let head = answer.next_line().await.expect("it answers").expect("it answers");
    assert!(head.contains("403"), "{head}");
    worker.stop().await;
}

/// Keeps a picture for people to look at, among what the build leaves behind.
async fn keep_picture(browser: &Browser, name: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let picture = BASE64_STANDARD.decode(browser.picture().await).expect("a picture is base64");
    std::fs::write(folder.join(name), picture).expect("the folder is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_a_run_appear_go_on_and_end() {
    let Some(browser) = Browser::open(1280, 1400, false).await else {
        eprintln!("there is no Chromium here: the page is not looked at");
        return;
    };
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--dashboard", "--tail-jobs"]).await;
    let url = format!("http://localhost:{}/dashboard", worker.port().await);
    browser.go(&url).await;
    browser.until("document.getElementById('link').textContent === 'live'").await;
    browser.until("document.querySelectorAll('#pills li.yes').length === 6").await;
    browser.until("document.querySelectorAll('#host-rows tr').length > 0").await;
    browser.until("document.getElementById('wanted-exits').innerText === 'none yet'").await;

    let id = queue(&lightning, chain(&[("fetch", "fn(s => s)"), ("slow", &waits(3000)), ("last", "fn(s => s)")]));
    let row = format!("document.querySelector('tr[data-run=\"{id}\"]')");
    browser.until(&format!("{row}?.dataset.phase === 'execute'")).await;
    browser.until(&format!("{row}.querySelectorAll('.bar i').length === 3")).await;
    // With the keyboard alone.
    browser.evaluate(&format!("{row}.querySelector('button').focus()")).await;
    browser.press("Enter").await;
    browser.until("document.querySelector('tr[data-step=\"slow\"]')?.innerText.includes('runs')").await;
    keep_picture(&browser, "dashboard-live.png").await;
    // From the run to its log, and back by what hid the other lines.
    browser.press("Tab").await;
    browser.until("document.activeElement.innerText === 'log'").await;
    browser.press("Enter").await;
    browser.until("document.activeElement.id === 'log'").await;
    until(&lightning, &worker, &id, |record| logged(record, PRIVATE)).await;
    browser.until(&format!("{row}?.dataset.phase === 'ended' && {row}.innerText.includes('success')")).await;
    browser.until("document.getElementById('log').innerText.includes('run ended: success')").await;
    browser.until("document.getElementById('throughput').innerText.includes('success 1')").await;
    let text = browser.evaluate("document.documentElement.outerHTML").await.to_string();
    assert!(!text.contains(PRIVATE) && !text.contains(SECRET), "users' data is on the page");

    let failing = queue(&lightning, one_job("fn(() => { throw new Error('x'); })"));
    end(&lightning, &worker, &failing).await;
    let row = format!("document.querySelector('tr[data-run=\"{failing}\"]')");
    browser.until(&format!("{row}?.innerText.includes('fail · JobError')")).await;
    browser.until("document.querySelectorAll('#throughput [data-reason=fail]').length === 1").await;
    // On one scale, the run that took three seconds is the longest, and the other is less than half of it.
    let width = |id: &str| {
        format!(
            "[...document.querySelectorAll('tr[data-run=\"{id}\"] .bar i')].reduce((all, it) => all + it.offsetWidth, 0)"
        )
    };
    let of_long = format!("{} / document.querySelector('tr[data-run=\"{id}\"] .bar').offsetWidth", width(&id));
    assert!(browser.evaluate(&of_long).await.as_f64().is_some_and(|part| part > 0.95), "{of_long}");
    browser.until(&format!("{} < {} / 2", width(&failing), width(&id))).await;
    browser.press("Escape").await;
    browser.until("document.getElementById('detail') === null").await;
    // What is normal is folded away: exits that the worker wanted, and lines of level debug.
    browser.until("document.querySelectorAll('#wanted-rows tr').length > 0").await;
    browser
        .until("!document.querySelector('details').open && document.querySelectorAll('#exit-rows tr').length === 0")
        .await;
    assert_eq!(browser.evaluate("document.getElementById('log').innerText.includes('DEBUG')").await, false);
    let choose =
        "{ const it = document.getElementById('level'); it.value = '3'; it.dispatchEvent(new Event('change')); }";
    browser.evaluate(choose).await;
    browser.until("document.getElementById('log').innerText.includes('DEBUG')").await;
    keep_picture(&browser, "dashboard-ended.png").await;
    worker.stop().await;
    browser.until("document.getElementById('link').textContent.includes('no connection')").await;
    assert_eq!(browser.evaluate("document.getElementById('link').className").await, "bad");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fits_a_phone_and_the_dark() {
    /// As many as the page shows, and so no more would make it longer.
    const RUNS: usize = 30;
    let Some(browser) = Browser::open(390, 844, true).await else {
        eprintln!("there is no Chromium here: the page is not looked at");
        return;
    };
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--dashboard"]).await;
    let codes = ["fn(s => s)", "fn(() => { throw new Error('x'); })", "fn(s => require('nothing'))"];
    for code in codes.iter().cycle().take(RUNS) {
        let id = queue(&lightning, one_job(code));
        end(&lightning, &worker, &id).await;
    }
    let url = format!("http://localhost:{}/dashboard", worker.port().await);
    browser.go(&url).await;
    browser.until(&format!("document.querySelectorAll('#run-rows tr[data-phase=ended]').length === {RUNS}")).await;
    for reason in ["success", "fail", "crash"] {
        browser.until(&format!("document.querySelectorAll('#throughput [data-reason={reason}]').length > 0")).await;
    }
    browser.until("document.querySelectorAll('#loop-rows tr').length === 1").await;
    assert_eq!(browser.evaluate("window.innerWidth").await, 390);
    assert_eq!(
        browser.evaluate("document.documentElement.scrollWidth").await,
        390,
        "the page is wider than the window"
    );
    keep_picture(&browser, "dashboard-phone.png").await;
    let screens = browser.evaluate("document.documentElement.scrollHeight / window.innerHeight").await;
    assert!(screens.as_f64().is_some_and(|screens| screens <= 2.0), "the page is {screens} screens long");
    let tables = "[...document.querySelectorAll('.scroll')].filter(it => it.scrollWidth > it.clientWidth)\
                  .map(it => it.innerText)";
    assert_eq!(browser.evaluate(tables).await, json!([]), "tables are wider than the window");
    assert_eq!(browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches").await, true);
    worker.stop().await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_click_counts_however_often_the_page_changes_meanwhile() {
    let Some(browser) = Browser::open(1280, 1400, false).await else {
        eprintln!("there is no Chromium here: the page is not looked at");
        return;
    };
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--dashboard"]).await;
    browser.go(&format!("http://localhost:{}/dashboard", worker.port().await)).await;
    let id = queue(&lightning, one_job(&waits(1500)));
    let row = format!("document.querySelector('tr[data-run=\"{id}\"]')");
    browser.until(&format!("{row}?.dataset.phase === 'execute'")).await;
    let button = format!("{row}.querySelector('button')");
    browser.mouse(&button, true).await;
    // The page hears of it, and shows it only when the mouse's button is up again.
    end(&lightning, &worker, &id).await;
    browser.until(&format!("runs.get('{id}').phase === 'ended'")).await;
    assert_eq!(browser.evaluate(&format!("{row}.dataset.phase")).await, "execute");
    browser.mouse(&button, false).await;
    browser.until("document.getElementById('detail') !== null").await;
    browser.until(&format!("{row}.dataset.phase === 'ended' && {row}.ariaSelected === 'true'")).await;
    worker.stop().await;
    browser.close().await;
}
