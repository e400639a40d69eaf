//! The `worker` program. Exit codes: 0 done, 1 failed (a demo's run, too), 2 wrong options.

use std::io::Write;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use mock_lightning::{self, FaultOptions, Faults, MockOptions};
use secrecy::SecretString;
use tracing::{Level, info, warn};
use worker::adaptors::manage;
use worker::cli::{
    AdaptorsCommand, CheckConfigOptions, Cli, Command, CtlOptions, DemoOptions, DoctorOptions, Effective, LogFormat,
    MockLightningOptions, OadaOptions, StartOptions, TopOptions, manual, schema,
};
use worker::ctl::{self, Answer, CtlError};
use worker::keys::Keys;
use worker::logging::{self, LogTarget};
use worker::{demo, doctor, oada_command, panics, privacy, reload, start, top};

/// Exit code for options that are missing or wrong.
const WRONG_OPTIONS: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    panics::report();
    privacy::erase(&Cli::secret_variables());
    privacy::keep_descriptors();
    worker::give_memory_back();
    // The worker that it talks to looks whose process it is, which a system may allow only for one that is open.
    if !matches!(cli.command, Some(Command::Ctl(_) | Command::Top(_))) {
        privacy::close();
    }
    let Cli { command, start, effective, warnings } = cli;
    let command = command.unwrap_or_else(|| Command::Start(Box::new(start)));
    match runtime().and_then(|runtime| runtime.block_on(run(command, effective, &warnings))) {
        Ok(code) => code,
        Err(error) => {
            logging::print_error(&told(&error));
            let wrong_options = error.downcast_ref().is_some_and(start::StartError::is_about_options)
                || error.downcast_ref().is_some_and(demo::DemoError::is_about_options)
                || error.downcast_ref().is_some_and(manage::ManageError::is_about_options);
            ExitCode::from(if wrong_options { WRONG_OPTIONS } else { 1 })
        }
    }
}

/// An error with its causes, less those that it tells itself.
fn told(error: &anyhow::Error) -> String {
    error
        .chain()
        .skip(1)
        .map(ToString::to_string)
        .fold(error.to_string(), |told, cause| if told.contains(&cause) { told } else { format!("{told}: {cause}") })
}

/// The worker waits more than it works: two threads are enough for hundreds of runs a second.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().context("cannot start the runtime")
}

async fn run(command: Command, effective: Vec<Effective>, warnings: &[String]) -> anyhow::Result<ExitCode> {
    match command {
        Command::Start(options) => start_worker(*options, effective, warnings).await,
        Command::Demo(options) => run_demo(options).await,
        Command::MockLightning(options) => serve_mock(options).await,
        Command::Ctl(options) => control(options).await,
        Command::Top(options) => watch(options).await,
        Command::Doctor(options) => examine(&options, warnings).await,
        Command::Adaptors(options) => manage_adaptors(options.command).await,
        Command::Oada(options) => work_off(*options).await,
        Command::CheckConfig(options) => check_config(&options, &effective, warnings),
        Command::ConfigSchema => print(format!("{:#}\n", schema::schema()).as_bytes()),
        Command::ConfigTemplate => print(schema::template().as_bytes()),
        Command::GenKeys => print(Keys::generate()?.to_string().as_bytes()),
        Command::Completions { shell } => print(&manual::completions(shell)),
        Command::Man { command } => print(&manual::page(command.as_deref())?),
    }
}

async fn start_worker(
    options: StartOptions,
    effective: Vec<Effective>,
    warnings: &[String],
) -> anyhow::Result<ExitCode> {
    let collected = match &options.observation {
        seen if seen.dashboard => Some(Level::DEBUG),
        seen if seen.sentry_dsn.is_some() => Some(Level::ERROR),
        _ => None,
    };
    logging::start(options.operation.log, options.operation.log_format, LogTarget::Stdout, collected);
    for warning in warnings {
        warn!("{warning}");
    }
    if options.observation.hide_names {
        lightning::timeline::hide_names();
    }
    start::run(options, effective, reread).await?;
    Ok(ExitCode::SUCCESS)
}

async fn watch(options: TopOptions) -> anyhow::Result<ExitCode> {
    let socket = options.admin_socket.map_or_else(ctl::find, Ok)?;
    top::watch(&socket).await?;
    Ok(ExitCode::SUCCESS)
}

async fn control(options: CtlOptions) -> anyhow::Result<ExitCode> {
    let socket = options.admin_socket.map_or_else(ctl::find, Ok)?;
    let mut is_refused = false;
    let take = |answer: Answer| {
        is_refused |= matches!(answer, Answer::Error(_));
        let text = if options.json { serde_json::to_string(&answer)? + "\n" } else { ctl::render(&answer) };
        if is_refused && !options.json {
            std::io::stderr().write_all(text.as_bytes())
        } else {
            std::io::stdout().write_all(text.as_bytes())
        }
    };
    match ctl::ask(&socket, &options.command.for_worker(), take).await {
        Ok(()) => Ok(if is_refused { ExitCode::FAILURE } else { ExitCode::SUCCESS }),
        // Who reads only the beginning, as `head` does, has what it wants.
        Err(CtlError::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.into()),
    }
}

/// The options of `start` as they are by now. The command line is the same; what it names may have changed.
fn reread() -> Result<reload::Options, reload::ReloadError> {
    let Cli { command, start, effective, .. } = Cli::read(std::env::args_os())?;
    Ok(match command {
        Some(Command::Start(options)) => (*options, effective),
        _ => (start, effective),
    })
}

async fn examine(options: &DoctorOptions, warnings: &[String]) -> anyhow::Result<ExitCode> {
    let findings = doctor::examine(&options.start, warnings).await;
    let is_well = findings.iter().all(|finding| finding.verdict != doctor::Verdict::Bad);
    let text = match options.json {
        true => serde_json::to_string_pretty(&findings)? + "\n",
        false => findings.iter().map(|finding| format!("{finding}\n")).collect(),
    };
    print(text.as_bytes())?;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn manage_adaptors(command: AdaptorsCommand) -> anyhow::Result<ExitCode> {
    logging::start(command.log_level(), LogFormat::Human, LogTarget::Stderr, None);
    print(manage::run(command).await?.as_bytes())
}

fn check_config(
    options: &CheckConfigOptions,
    effective: &[Effective],
    warnings: &[String],
) -> anyhow::Result<ExitCode> {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    start::check(&options.start)?;
    let lines = effective.iter().filter(|_| options.print).map(|option| format!("{option}\n"));
    let text: String = lines.chain(["# the options are valid\n".to_owned()]).collect();
    print(text.as_bytes())
}

fn print(text: &[u8]) -> anyhow::Result<ExitCode> {
    match std::io::stdout().write_all(text) {
        // Who reads only the beginning, as `head` does, has what it wants.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(ExitCode::SUCCESS),
    }
}

async fn run_demo(options: DemoOptions) -> anyhow::Result<ExitCode> {
    logging::start(options.log, LogFormat::Human, LogTarget::Stderr, None);
    Ok(if demo::run(&options).await? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn work_off(options: OadaOptions) -> anyhow::Result<ExitCode> {
    // What a command prints is its own.
    let target = if options.command.is_some() { LogTarget::Stderr } else { LogTarget::Stdout };
    logging::start(options.log, LogFormat::Human, target, None);
    oada_command::run(options).await
}

async fn serve_mock(options: MockLightningOptions) -> anyhow::Result<ExitCode> {
    logging::start(options.log, LogFormat::Human, LogTarget::Stdout, None);
    let private_key = match &options.private_key {
        None => None,
        Some(path) => {
            let pem = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {} (--private-key)", path.display()))?;
            Some(SecretString::from(pem))
        }
    };
    let address = SocketAddr::new(options.host, options.port);
    let (secret, lost_after) = (options.secret, options.lost_after);
    let mut mock = MockOptions {
        address,
        secret,
        private_key,
        lost_after,
        dataclip_form: options.dataclips,
        batch_logs: !options.no_batch_logs,
        max_message_bytes: Some(options.max_message_bytes),
        bounds_inflated: !options.bounds_on_the_wire,
        ..MockOptions::default()
    };
    if let Some(seed) = options.faults {
        mock.hooks = Arc::new(Faults::new(FaultOptions::new(seed)));
    }
    // A signal counts from before anybody can know that there is something to stop.
    let mut stop = pin!(start::stop_requested());
    let mock = tokio::select! {
        biased;
        stopped = &mut stop => return stopped.map(|()| ExitCode::SUCCESS).map_err(Into::into),
        mock = mock_lightning::start(mock) => mock?,
    };
    info!("a small Lightning at {}; GET http://{}/ tells what it can do", mock.url(), mock.address());
    stop.await?;
    mock.stop().await;
    Ok(ExitCode::SUCCESS)
}
