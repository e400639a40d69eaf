//! A host that others could have written: it counts, tells and asks. `examples/pool.rs` starts it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use hosting::{Broker, Handler, serve};
use protocol::Json;
use protocol::message::{HostLogLevel, OpsReport, Refusal, SetEnv};
use serde::Deserialize;
use serde_json::{Value, json};

/// What it can be asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Question {
    /// Count on.
    Count,
    /// The value of a setting.
    Setting(String),
    /// What the broker's program answers to this.
    Ask(Value),
    /// End with this code.
    Crash(i32),
    /// Compute for ever, and let nobody else have the thread.
    Spin,
}

struct Counter {
    broker: Broker,
    count: AtomicU64,
    settings: RwLock<Vec<(String, String)>>,
}

impl Counter {
    fn setting(&self, name: &str) -> Option<String> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    async fn answer(&self, question: Question) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        match question {
            Question::Count => {
                let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
                let counts = [("counted".to_owned(), 1)].into();
                self.broker.report(OpsReport { counts, gauges: [("count".to_owned(), count as f64)].into() }).await?;
                Ok(json!(count))
            }
            Question::Setting(name) => Ok(json!(self.setting(&name))),
            Question::Ask(question) => Ok(self.broker.request(&question, Duration::from_secs(10)).await?),
            Question::Crash(code) => std::process::exit(code),
            Question::Spin => {
                self.broker.notify("spinning").await?;
                loop {
                    std::hint::spin_loop();
                }
            }
        }
    }
}

impl Handler for Counter {
    const STOP_WITHIN: Duration = Duration::from_secs(2);

    async fn request(&self, request: Json) -> Result<Json, Refusal> {
        let question = request.decode().map_err(|error| Refusal::failed(&error))?;
        let answer = self.answer(question).await.map_err(|error| Refusal::failed(&*error))?;
        Json::encode(&answer).map_err(|error| Refusal::failed(&error))
    }

    async fn notice(&self, notice: Json) {
        // Fails when the broker is gone, and this process is about to be.
        let _ = self.broker.log(HostLogLevel::Info, format!("was told {}", notice.as_str())).await;
    }

    async fn set_env(&self, set: SetEnv) -> Result<(), Refusal> {
        let mut settings = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in set.variables {
            settings.retain(|(known, _)| *known != name);
            settings.extend(value.map(|value| (name, value)));
        }
        Ok(())
    }

    async fn stop(&self) {
        let _ = self.broker.notify("stopping").await;
        if let Some(file) = self.setting("NOTE") {
            // Whoever wanted it may have taken its folder away.
            let _ = std::fs::write(file, "stopped");
        }
        if self.setting("HANG").is_some() {
            loop {
                std::hint::spin_loop();
            }
        }
    }
}

fn main() {
    serve(|broker| async {
        let settings = RwLock::new(std::env::vars().collect());
        Ok(Counter { broker, count: AtomicU64::new(0), settings })
    })
}
