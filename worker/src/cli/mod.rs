//! The command line: flags, the environment variables behind them, and what a wrong one is answered.
//!
//! A flag beats its variable, a variable beats the configuration file, that beats the default. A variable that is set
//! but empty counts as not set. A variable that holds a secret may instead be named with `_FILE` at its end and hold the
//! path of a file.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{ArgAction, BoolishValueParser, Styles, styling::AnsiColor};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
pub use clap_complete::Shell;
use secrecy::SecretString;

use self::environment::{CONFIGURED, Layered, layered, name_variable, worker_name};
use self::values::{port, seconds, secret};
use config::ConfigFile;

use mock_lightning::{DataclipForm, MAX_MESSAGE_BYTES};

pub use self::adaptors::{AdaptorArgs, AdaptorsCommand, AdaptorsOptions, RepoArgs, RepoCommandArgs};
pub use self::claiming::ClaimingArgs;
pub use self::ctl::{CtlOptions, TopOptions};
pub use self::delivery::DeliveryArgs;
pub use self::effective::Effective;
pub use self::hosts::{EngineKind, HostArgs, NodeStart};
pub use self::lightning::LightningArgs;
pub use self::limits::LimitArgs;
pub use self::oada::{HandlerEngine, OadaCommand, OadaOptions, ServeArgs, StoreArgs};
pub use self::observation::ObservationArgs;
pub use self::operation::{LogFormat, LogLevel, OperationArgs};
pub use self::supervision::SupervisionArgs;
pub use self::values::{Backoff, MOCK_ENDPOINT, Megabytes};

mod adaptors;
mod claiming;
mod config;
mod ctl;
mod delivery;
mod effective;
mod environment;
mod hosts;
mod lightning;
mod limits;
pub mod manual;
mod oada;
mod observation;
mod operation;
mod reference;
pub mod schema;
mod strays;
mod supervision;
mod values;

/// Runs OpenFn Lightning's workflows in detached engine hosts.
///
/// Without a command, `start` is meant.
#[derive(Debug, Parser)]
#[command(name = "worker", version, styles = STYLES, args_conflicts_with_subcommands = true, args_override_self = true, max_term_width = 110, override_usage = USAGE, after_help = AFTER_HELP, mut_args = switch, mut_subcommands = with_switches)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `start`.
    #[command(flatten)]
    pub start: StartOptions,
    /// The options of `start` or `check-config` as they are in the end.
    #[arg(skip)]
    pub effective: Vec<Effective>,
    /// What looks wrong in the environment and changes nothing, a line each.
    #[arg(skip)]
    pub warnings: Vec<String>,
}

/// Lets the variable of a switch say `1`, `yes` or `on`, too.
fn switch(argument: Arg) -> Arg {
    let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
    if is_switch { argument.value_parser(BoolishValueParser::new()) } else { argument }
}

fn with_switches(command: clap::Command) -> clap::Command {
    command.mut_args(switch).mut_subcommands(with_switches)
}

const USAGE: &str = "worker [OPTIONS]\n       worker <COMMAND> [OPTIONS]";

const AFTER_HELP: &str = "\
Each option may also stand in a file: see --config. A flag beats its variable, a variable the file, the file the \
default. Variables that hold a secret, such as WORKER_SECRET, may instead end with _FILE and hold the path of a file.
WORKER_NAME, or DEPLOYED_POD_NAME, is the worker's name in its claims.

Exit codes:
  0  done; of `start`: stopped as asked, every run ended
  1  failed, and told why; of `demo`: the run did not succeed
  2  an option is missing or wrong; nothing was started";

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Claim runs from Lightning and execute them (the default).
    #[command(visible_alias = reference::SERVER, override_usage = "worker start [OPTIONS]", after_help = AFTER_HELP)]
    Start(Box<StartOptions>),
    /// Run a workflow here and now, with a small Lightning in the same process, and watch it.
    Demo(DemoOptions),
    /// Serve a small Lightning for people who develop workflows or workers; `worker -l mock` connects to it.
    MockLightning(MockLightningOptions),
    /// Look at a worker that runs here, and tell it what to do.
    Ctl(CtlOptions),
    /// Watch a worker that runs here in the terminal: its workloops, runs and hosts; cancel, drain, recycle by a key.
    Top(TopOptions),
    /// Tell what the worker finds here: programs, limits, folders, Lightning.
    #[command(override_usage = "worker doctor [OPTIONS]")]
    Doctor(Box<DoctorOptions>),
    /// Install adaptors ahead, list them, or remove old ones.
    Adaptors(AdaptorsOptions),
    /// Work off the job queues of an OADA store with handlers from a folder, or look at their jobs.
    #[command(override_usage = "worker oada [OPTIONS] --handlers <DIR>\n       worker oada [OPTIONS] <COMMAND>")]
    Oada(Box<OadaOptions>),
    /// Check the options of `start` without starting anything.
    #[command(override_usage = "worker check-config [OPTIONS]")]
    CheckConfig(Box<CheckConfigOptions>),
    /// Print the JSON Schema of the configuration file, for editors.
    ConfigSchema,
    /// Print a configuration file to begin with, in which every option is explained and commented out.
    ConfigTemplate,
    /// Make the three values that Lightning and its workers need, as lines for an environment file.
    GenKeys,
    /// Print a shell's completions of this command line.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, of the program or of one command.
    Man {
        /// The command.
        command: Option<String>,
    },
}

/// Options of `worker start`.
#[derive(Debug, Clone, Args)]
pub struct StartOptions {
    /// Where Lightning is, and how the worker proves itself.
    #[command(flatten)]
    pub lightning: LightningArgs,
    /// Which runs are claimed, and how many.
    #[command(flatten)]
    pub claiming: ClaimingArgs,
    /// What a run may use.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// How a run's events get to Lightning.
    #[command(flatten)]
    pub delivery: DeliveryArgs,
    /// What executes runs.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// How hosts are bounded and replaced.
    #[command(flatten)]
    pub supervision: SupervisionArgs,
    /// Which adaptors runs get.
    #[command(flatten)]
    pub adaptors: AdaptorArgs,
    /// How the worker is run and watched.
    #[command(flatten)]
    pub operation: OperationArgs,
    /// Who gets to see what happens.
    #[command(flatten)]
    pub observation: ObservationArgs,
}

/// Options of `worker check-config`.
#[derive(Debug, Args)]
pub struct CheckConfigOptions {
    /// Print every option with its value and who said so. Of secrets only that they are set.
    #[arg(long)]
    pub print: bool,
    /// What is checked.
    #[command(flatten)]
    pub start: StartOptions,
}

/// Options of `worker doctor`.
#[derive(Debug, Args)]
pub struct DoctorOptions {
    /// Print a JSON document.
    #[arg(long)]
    pub json: bool,
    /// What is looked at.
    #[command(flatten)]
    pub start: StartOptions,
}

/// Options of `worker demo`.
#[derive(Debug, Args)]
pub struct DemoOptions {
    /// A workflow to run instead of the bundled one: a Lightning plan, with `dataclips` and `credentials` if it
    /// needs any.
    pub file: Option<PathBuf>,
    /// The JavaScript engine.
    #[arg(long, env = "WORKER_ENGINE", default_value = "embedded")]
    pub engine: EngineKind,
    /// Adaptors, for the engine `node`.
    #[command(flatten)]
    pub repo: RepoArgs,
    /// The engine-host program, instead of the one beside this program.
    #[arg(long, env = "WORKER_ENGINE_HOST", value_name = "FILE")]
    pub engine_host: Option<PathBuf>,
    /// Least level of what the worker itself logs.
    #[arg(long, env = "WORKER_LOG_LEVEL", default_value = "warn", value_name = "LEVEL")]
    pub log: LogLevel,
}

/// Options of `worker mock-lightning`.
#[derive(Debug, Args)]
pub struct MockLightningOptions {
    /// Port to listen on.
    #[arg(short = 'p', long, default_value = "8888", value_parser = port)]
    pub port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    pub host: IpAddr,
    /// Secret that workers must prove to know; any worker may connect unless set.
    #[arg(short = 's', long, env = "WORKER_SECRET", hide_env_values = true, value_parser = secret)]
    pub secret: Option<SecretString>,
    /// Private key (a PEM file) that the tokens of runs are signed with.
    #[arg(long, value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// Do wrong by chance, as this number decides: about one message in forty is delayed, lost, refused or met by a
    /// crash, a cut or a silence.
    #[arg(long, value_name = "SEED")]
    pub faults: Option<u64>,
    /// Mark a run lost that has not ended so long after its own time limit, in seconds; never unless set.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub lost_after: Option<Duration>,
    /// The forms in which the dataclips of steps are taken.
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    pub dataclips: DataclipForm,
    /// Crash a run's channel on `run:batch_logs`, as a Lightning does that does not know it.
    #[arg(long)]
    pub no_batch_logs: bool,
    /// The longest message, in bytes; a longer one closes the connection with 1009.
    #[arg(long, value_name = "BYTES", default_value_t = MAX_MESSAGE_BYTES)]
    pub max_message_bytes: usize,
    /// Bound compressed messages by their length on the wire, as Cowboy does before 2.13, and not by what they inflate to.
    #[arg(long)]
    pub bounds_on_the_wire: bool,
    /// Least level of what is logged.
    #[arg(long, env = "WORKER_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    pub log: LogLevel,
}

impl Cli {
    /// Names of the variables that hold secrets.
    pub fn secret_variables() -> Vec<String> {
        let command = Self::command();
        let all = command.get_subcommands().flat_map(clap::Command::get_arguments).chain(command.get_arguments());
        let secret = all.filter(|argument| argument.is_hide_env_values_set()).filter_map(|argument| argument.get_env());
        secret.filter_map(|name| name.to_str().map(str::to_owned)).collect()
    }

    /// Reads the program's arguments and environment. An error is ready to be shown: it names the flag and the
    /// variable.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let described = Self::command();
        let arguments = reference::translated(arguments.into_iter().collect(), &described);
        // Errors are told when all layers are there.
        let wanted = described.clone().ignore_errors(true).try_get_matches_from(&arguments).ok();
        let config = wanted.as_ref().map(|wanted| configuration(wanted, &described)).transpose()?.unwrap_or_default();
        let named = wanted.as_ref().and_then(ArgMatches::subcommand_name);
        let named = named.and_then(|name| described.find_subcommand(name)).unwrap_or(&described);
        let Layered { mut command, origins, warnings } =
            layered(Self::command(), |name| std::env::var_os(name), &config)?;
        let parsed = command
            .try_get_matches_from_mut(arguments)
            .and_then(|matches| exclusive(&matches).map(|()| matches))
            .and_then(|matches| Ok((Self::from_arg_matches(&matches)?, matches)));
        let (mut cli, matches) = parsed.map_err(|error| name_variable(error, named).format(&mut command))?;
        let start = match &cli.command {
            Some(Command::Start(options)) => options,
            Some(Command::CheckConfig(options)) => &options.start,
            _ => &cli.start,
        };
        cli.effective = effective::effective(&command, of_start(&matches), &origins, start);
        // An empty variable counts as not set.
        let variables = std::env::vars_os().filter(|(_, value)| !value.is_empty());
        cli.warnings = strays::strays(&described, variables.filter_map(|(name, _)| name.into_string().ok()));
        cli.warnings.extend(warnings);
        let name = worker_name(|name| std::env::var(name).ok());
        match &mut cli.command {
            None => cli.start.claiming.name = name,
            Some(Command::Start(options)) => options.claiming.name = name,
            Some(Command::CheckConfig(options)) => options.start.claiming.name = name,
            Some(_) => {}
        }
        Ok(cli)
    }
}

/// The matches that hold the options of `start`.
fn of_start(matches: &ArgMatches) -> &ArgMatches {
    CONFIGURED.iter().find_map(|name| matches.subcommand_matches(name)).unwrap_or(matches)
}

/// The configuration file that the command line or the environment names.
fn configuration(matches: &ArgMatches, command: &clap::Command) -> Result<ConfigFile, clap::Error> {
    if matches.subcommand_name().is_some_and(|name| !CONFIGURED.contains(&name)) {
        return Ok(ConfigFile::default());
    }
    let matches = of_start(matches);
    let path = matches.try_get_one::<PathBuf>("config").ok().flatten();
    let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else { return Ok(ConfigFile::default()) };
    let mut config = config::read(path, command)?;
    // They say the same in two ways, and what stands in the file weighs less.
    const SAME: &[&str] = &["capacity", "workloops"];
    if SAME.iter().any(|id| is_given(matches, id)) {
        config.forget(SAME);
    }
    Ok(config)
}

/// Whether a flag or a variable sets it.
fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches.try_contains_id(id).unwrap_or(false)
        && matches.value_source(id).is_some_and(|source| source != ValueSource::DefaultValue)
}

/// `--capacity` and `--workloops` say the same in two ways.
fn exclusive(matches: &ArgMatches) -> Result<(), clap::Error> {
    let matches = of_start(matches);
    if is_given(matches, "capacity") && is_given(matches, "workloops") {
        return Err(clap::Error::raw(
            ErrorKind::ArgumentConflict,
            "--capacity (WORKER_CAPACITY) and --workloops (WORKER_WORKLOOPS) exclude each other: \
             set only one of them\n",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bad_value_names_flag_variable_and_value() {
        let text = Cli::read(["worker", "--capacity", "none"].map(OsString::from)).unwrap_err().to_string();
        for part in ["--capacity", "WORKER_CAPACITY", "none", "whole number"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }

    #[test]
    fn capacity_and_workloops_exclude_each_other() {
        let arguments = ["worker", "start", "--capacity", "2", "--workloops", "*:1"];
        let text = Cli::read(arguments.map(OsString::from)).unwrap_err().to_string();
        assert!(text.contains("exclude each other"), "{text}");
    }

    #[test]
    fn a_leading_double_dash_is_accepted() {
        let cli = Cli::read(["worker", "--", "--port", "1234"].map(OsString::from)).unwrap();
        assert_eq!(cli.start.operation.port, 1234);
    }
}
