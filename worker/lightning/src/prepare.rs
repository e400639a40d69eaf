//! Everything that happens to a run before it is on a host.

use std::collections::HashSet;
use std::sync::Arc;

use base::aside::aside;
use base::execution::{Executor, Reservation};
use base::redact::Redactor;
use base::run_log::RunLog;
use jiff::Timestamp;
use protocol::Json;
use protocol::message::Prepare;
use protocol::run::{Exit, ExitReason, RunSpec};
use secrecy::ExposeSecret;

use super::Settings;
use super::fetch::{Fetcher, Unprepared};
use super::outbox::describe;
use super::phoenix::{Channel, ChannelEvent};
use super::plan::{Plan, Surroundings};
use super::run::{CANCEL, ClaimedRun, cancelled_exit};
use super::server::Server;

/// Everything that a run starts from.
pub(super) struct Prepared {
    pub(super) spec: RunSpec,
    pub(super) input_dataclip_id: Option<String>,
    pub(super) warnings: Vec<String>,
    pub(super) reservation: Reservation,
    pub(super) log: Arc<RunLog>,
}

/// Fetches everything and reserves a host, while `joined` follows the run's channel. The outer error says why nothing
/// more can be told to Lightning; the inner one is the exit to report.
pub(super) async fn prepare<E: Executor>(
    run: &ClaimedRun,
    channel: &mut Channel,
    joined: &mut bool,
    executor: &E,
    settings: &Settings,
) -> Result<Result<Prepared, Exit>, String> {
    let fetcher = Fetcher { run_id: run.id.clone(), requester: channel.requester(), options: &settings.options };
    tokio::select! {
        prepared = fetch_and_reserve(run, &fetcher, executor, settings) => match prepared {
            Ok(prepared) => Ok(Ok(prepared)),
            Err(Unprepared::Exit(exit)) => Ok(Err(exit)),
            Err(Unprepared::Gone(why)) => Err(why),
        },
        followed = follow(channel, joined, &settings.server) => followed,
    }
}

/// Follows a channel until it is of no use any more, and says why, or until the run is cancelled.
async fn follow(channel: &mut Channel, joined: &mut bool, server: &Server) -> Result<Result<Prepared, Exit>, String> {
    while let Some(event) = channel.next().await {
        match event {
            ChannelEvent::Joined(link) => {
                server.reached_over(link);
                *joined = true;
            }
            ChannelEvent::Down(_) => *joined = false,
            ChannelEvent::Refused(reply) => {
                let why = describe(&reply.response.into_json());
                return Err(format!("Lightning does not let its channel be joined: {why}"));
            }
            ChannelEvent::Pushed(event) if event == CANCEL => return Ok(Err(cancelled_exit())),
            ChannelEvent::Replied(..) | ChannelEvent::Pushed(_) => {}
        }
    }
    Err("the connection to Lightning has ended".into())
}

async fn fetch_and_reserve<E: Executor>(
    run: &ClaimedRun,
    fetcher: &Fetcher<'_>,
    executor: &E,
    settings: &Settings,
) -> Result<Prepared, Unprepared> {
    let plan = fetcher.plan().await?;
    let plan_bytes = plan.len();
    let (run_id, token, options) = (run.id.clone(), run.token.clone(), Arc::clone(&settings.options));
    let read = move || {
        let (now, state_bytes) = (Timestamp::now(), options.state_bytes);
        let (defaults, collections) = (&options.run_defaults, options.collections.as_ref());
        Plan::read(&plan, Surroundings { run_id: &run_id, token: &token, now, defaults, state_bytes, collections })
    };
    let mut plan = aside(plan_bytes, read)
        .await
        .map_err(|error| Exit::error(ExitReason::Exception, "InvalidPlan", error.to_string()))?;
    let mut spec = plan.spec.clone();
    let reserve = async {
        executor.equip(&mut spec).await?;
        let reserved = executor.reserve(Prepare::of(&spec)).await;
        reserved.map_err(|error| Exit::error(ExitReason::Exception, "EngineError", error.to_string()).into())
    };
    let input = fetcher.dataclip(plan.dataclip_id.as_deref(), !plan.spec.options.output_dataclips);
    let credentials = fetcher.credentials(plan.credential_ids());
    let (reservation, input, credentials) = tokio::try_join!(reserve, input, credentials)?;
    plan.spec = spec;
    let (input_dataclip_id, mut warnings) = (plan.dataclip_id.clone(), plan.warnings.clone());
    let spec = plan.complete(input, &credentials);
    let redactor = Redactor::of_run(credentials_of(&spec), run.token.expose_secret().to_owned()).await;
    warnings.extend(redactor.gaps().map(|gaps| gaps.to_string()));
    let log = Arc::new(RunLog::new(run.id.clone(), redactor));
    Ok(Prepared { spec, input_dataclip_id, warnings, reservation, log })
}

/// The credentials of all steps, each once however many steps share it.
fn credentials_of(spec: &RunSpec) -> Vec<Json> {
    let mut seen = HashSet::new();
    let all = spec.steps.iter().filter_map(|step| step.configuration.clone());
    all.filter(|credential| seen.insert((credential.as_str().as_ptr() as usize, credential.len()))).collect()
}
