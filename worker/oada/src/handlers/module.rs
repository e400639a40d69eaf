//! What a handler's module says about itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hosts::Hosts;
use protocol::handler::{Inspect, Inspected, Module};
use serde::Deserialize;
use serde_json::Value;

use super::HandlerOptions;
use super::schema::Schema;
use crate::service::{Retry, TypeOptions};

/// How long a module may take to say what it is.
const INSPECTION: Duration = Duration::from_secs(10);

/// The exports beside the default one. Others are the handler's own business.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Exports {
    /// Milliseconds.
    timeout: Option<Value>,
    /// JSON Schema of `config`.
    schema: Option<Value>,
    /// JSON pointers to resources that are to link to the job.
    links: Vec<String>,
    retry: Option<RetryExport>,
}

#[derive(Debug, Deserialize)]
struct RetryExport {
    attempts: u32,
    /// Milliseconds.
    pause: Option<f64>,
}

/// Why it is not known how a module's jobs are run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InspectError {
    /// The module is not a handler.
    #[error("{0}")]
    Unusable(String),
    /// No host could tell, which says nothing about the module.
    #[error("no host could look at it: {0}")]
    Host(String),
}

/// Has a host read the module: how its jobs are run, and what files it has loaded beside its own.
pub(super) async fn inspect(
    hosts: &Hosts,
    module: &Module,
    options: &HandlerOptions,
) -> Result<(TypeOptions, Vec<PathBuf>), InspectError> {
    let host = hosts.lend().await.map_err(|error| InspectError::Host(error.to_string()))?;
    let inspect = Inspect { module: module.clone(), memory_bytes: options.memory_bytes };
    match host.call(inspect, INSPECTION).await {
        Ok(Inspected::Handler { exports, files }) => {
            let exports = exports.decode().map_err(|error| InspectError::Unusable(format!("its exports: {error}")))?;
            let options = type_options(exports, options.timeout).map_err(InspectError::Unusable)?;
            Ok((options, files))
        }
        Ok(Inspected::Unusable(why)) => Err(InspectError::Unusable(why)),
        // Most likely it took too long, or took its host down.
        Err(error) => Err(InspectError::Unusable(error.to_string())),
    }
}

fn type_options(exports: Exports, timeout: Duration) -> Result<TypeOptions, String> {
    let mut options = TypeOptions::new(match exports.timeout {
        Some(millis) => {
            let duration = millis.as_f64().and_then(milliseconds);
            duration.ok_or_else(|| format!("`timeout` is {millis}, not milliseconds above 0"))?
        }
        None => timeout,
    });
    if let Some(retry) = exports.retry {
        let pause = retry.pause.map(|millis| milliseconds(millis).ok_or_else(|| format!("`retry.pause` is {millis}")));
        let pause = pause.transpose()?.unwrap_or(Retry::default().pause);
        options.retry = Retry { attempts: retry.attempts.max(1), pause };
    }
    options.links = exports.links;
    if let Some(schema) = exports.schema {
        let schema = Schema::parse(&schema).map_err(|error| format!("`schema`: {error}"))?;
        options.check = Some(Arc::new(move |config| {
            schema.check(&Value::Object(config.clone())).map_err(|error| error.to_string())
        }));
    }
    Ok(options)
}

fn milliseconds(millis: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(millis / 1e3).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn options(exports: Value) -> Result<TypeOptions, String> {
        type_options(serde_json::from_value(exports).unwrap(), Duration::from_secs(9))
    }

    #[test]
    fn exports_become_options() {
        let plain = options(json!({ "other": 1 })).unwrap();
        assert_eq!((plain.timeout, plain.retry.attempts, plain.check.is_some()), (Duration::from_secs(9), 1, false));
        let full = json!({ "timeout": 1500, "retry": { "attempts": 3, "pause": 20 }, "links": ["/config/doc"],
            "schema": { "required": ["to"] } });
        let full = options(full).unwrap();
        assert_eq!(full.timeout, Duration::from_millis(1500));
        assert_eq!((full.retry.attempts, full.retry.pause), (3, Duration::from_millis(20)));
        assert!(full.check.unwrap()(&serde_json::Map::new()).is_err());
        for bad in [
            json!({ "timeout": "soon" }),
            json!({ "timeout": 0 }),
            json!({ "timeout": -1 }),
            json!({ "schema": { "type": "odd" } }),
        ] {
            assert!(options(bad.clone()).is_err(), "{bad}");
        }
    }
}
