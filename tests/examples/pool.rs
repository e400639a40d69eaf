//! Two pools of hosts in one program: `counter`s in Rust, and `adder`s in JavaScript. It does what it is told on its input
//! and prints what happens:
//!
//! ```text
//! pool ENGINE-HOST COUNTER [NODE ADDER]
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hosts::{
    Answers, Broker, HostEvent, HostProgram, Hosts, HostsOptions, PoolEvent, PoolSize, Recycling, watch_files,
};
use protocol::Json;
use protocol::message::Refusal;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// How long hosts may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long hosts may go on when the program ends.
const GRACE: Duration = Duration::from_secs(5);

/// So many hosts at all times; each is replaced when it is a day old, less up to a fifth by chance.
fn always(program: HostProgram, count: usize) -> HostsOptions {
    let size = PoolSize::Shared { least: count, most: count, idle: Duration::ZERO };
    let recycling = Recycling { max_age: Some(Duration::from_secs(24 * 60 * 60)), ..Recycling::default() };
    let answers = Answers::new(|host, question: Json| async move {
        let question: Value = question.decode().map_err(|error| Refusal::failed(&error))?;
        Json::encode(&json!({ "host": host, "asked": question })).map_err(|error| Refusal::failed(&error))
    });
    HostsOptions { size, recycling, answers: Some(answers), ..HostsOptions::shared(program, count) }
}

fn show(PoolEvent { pool, event }: &PoolEvent) {
    match event {
        HostEvent::Started { host, pid } => println!("{pool} {host} started {pid}"),
        HostEvent::Ready { host, .. } => println!("{pool} {host} ready"),
        HostEvent::Ended { host, death } => println!("{pool} {host} ended: it {death}"),
        HostEvent::Died { host, death } => println!("{pool} {host} died: it {death}"),
        HostEvent::Message { host, message } => println!("{pool} {host} says {}", message.as_str()),
        HostEvent::Ops { host, report } => println!("{pool} {host} counted {:?}", report.counts),
        HostEvent::CircuitOpened { death } => println!("{pool} fails: the last host {death}"),
        HostEvent::CircuitClosed => println!("{pool} works again"),
    }
}

/// Does what one line says: a command, a pool, and JSON if the command wants some.
async fn obey(broker: &Broker, line: &str) -> anyhow::Result<String> {
    let mut words = line.splitn(3, ' ');
    let (command, name, rest) = (words.next().unwrap_or_default(), words.next(), words.next().unwrap_or("null"));
    let pool = || -> anyhow::Result<Hosts> {
        let name = name.context("which pool?")?;
        broker.pool(name).with_context(|| format!("there is no pool {name}"))
    };
    let words: Value = serde_json::from_str(rest)?;
    match command {
        "recycle" => pool()?.recycle().await?,
        "drain" => pool()?.drain().await?,
        "resume" => pool()?.resume().await?,
        "resize" => pool()?.resize(serde_json::from_value(words)?).await?,
        "tell" => pool()?.notify_all(&words)?,
        "set" => {
            let (pool, options) = (pool()?, name.and_then(|name| options().ok()?.into_iter().find(|it| it.0 == name)));
            let environment = serde_json::from_value(words)?;
            pool.reconfigure(HostsOptions { environment, ..options.context("there is no such pool")?.1 }).await?;
        }
        "ask" => return Ok(pool()?.request::<Value>(&words, PATIENCE).await?.to_string()),
        "status" => {
            let status = pool()?.status().await.context("it was shut down")?;
            let hosts: Vec<_> = status.hosts.iter().map(|host| json!([host.id, host.pid])).collect();
            return Ok(json!({ "hosts": hosts, "counts": status.ops.counts }).to_string());
        }
        "abort" => std::process::abort(),
        "exit" => std::process::exit(0),
        other => anyhow::bail!("what is `{other}`?"),
    }
    Ok("done".to_owned())
}

/// The pools, by the command line.
fn options() -> anyhow::Result<Vec<(&'static str, HostsOptions)>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [launcher, counter, others @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: pool ENGINE-HOST COUNTER [NODE ADDER]");
    };
    let mut pools = vec![("counter", always(HostProgram::at(counter)?, 2))];
    if let [node, adder] = others {
        let adder = HostProgram::at(launcher)?.becoming(node, [adder.canonicalize()?])?;
        pools.push(("adder", always(adder, 1)));
    }
    Ok(pools)
}

/// What is typed, line by line.
fn input() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let broker = Broker::start(None)?;
    // From here on nothing is missed.
    let mut events = broker.events();
    let showing = tokio::spawn(async move {
        while let Ok(event) = events.recv().await {
            show(&event);
        }
    });
    for (name, options) in options()? {
        broker.open(name, options).await?;
    }
    // A program that is another one by now is used from now on.
    let mut changes = watch_files(std::env::args_os().skip(1).map(PathBuf::from).collect());
    let mut lines = input();
    let broker = Arc::new(broker);
    loop {
        tokio::select! {
            Some(change) = changes.recv() => {
                println!("{} is another one", change.display());
                for pool in broker.all() {
                    pool.recycle().await?;
                }
                println!("reloaded");
            }
            line = lines.recv() => {
                let Some(line) = line else { break };
                let broker = Arc::clone(&broker);
                // Others may come while it waits.
                tokio::spawn(async move {
                    match obey(&broker, &line).await {
                        Ok(answer) => println!("{line}: {answer}"),
                        Err(error) => println!("{line}: {error:#}"),
                    }
                });
            }
        }
    }
    broker.shutdown(GRACE).await;
    drop(broker);
    // The last events are shown, unless a command holds the broker.
    let _ = tokio::time::timeout(GRACE, showing).await;
    println!("stopped");
    Ok(())
}
