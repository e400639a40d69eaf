//! The reference worker's ways to say what this command line says otherwise: pure rewriting of arguments.

use std::ffi::OsString;

/// Puts arguments as the reference takes them into this command line's own words: without the `--` that package managers
/// put in front, flags in camelCase with dashes, and `--debug` as `--log=debug`.
pub(super) fn translated(mut arguments: Vec<OsString>, command: &clap::Command) -> Vec<OsString> {
    if arguments.get(1).is_some_and(|first| first == "--") {
        arguments.remove(1);
    }
    let is_of_start = |name: &str| name.starts_with('-') || super::CONFIGURED.contains(&name) || name == SERVER;
    let starts = arguments.get(1).and_then(|first| first.to_str()).is_none_or(is_of_start);
    let mut is_over = false;
    let rewritten = arguments.into_iter().map(|argument| {
        is_over |= argument == "--";
        let text = argument.to_str().filter(|_| !is_over);
        text.and_then(|text| rewritten(text, starts, command)).map_or(argument, OsString::from)
    });
    rewritten.collect()
}

/// What the reference calls `start`.
pub(super) const SERVER: &str = "server";

fn rewritten(argument: &str, starts: bool, command: &clap::Command) -> Option<String> {
    if starts && argument == "--debug" {
        return Some("--log=debug".to_owned());
    }
    let flag = argument.strip_prefix("--")?;
    let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let name = with_dashes(name);
    let is_known = |argument: &clap::Arg| {
        argument.get_long() == Some(&name)
            || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&name.as_str()))
    };
    let all = command.get_subcommands().flat_map(clap::Command::get_arguments).chain(command.get_arguments());
    // What nobody knows is answered as it was written.
    all.into_iter().any(is_known).then(|| match value {
        Some(value) => format!("--{name}={value}"),
        None => format!("--{name}"),
    })
}

/// `repoDir` as `repo-dir`.
fn with_dashes(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    #[test]
    fn arguments_of_the_reference() {
        for (given, expected) in [
            ("--port 1", "--port 1"),
            ("-- --port 1", "--port 1"),
            ("server --repoDir x", "server --repo-dir x"),
            ("--lightningServiceUrl=ws://Host/aB", "--lightning-service-url=ws://Host/aB"),
            ("--noRepoLock --engineValidationTimeoutMs 7", "--no-repo-lock --engine-validation-timeout-ms 7"),
            ("--debug", "--log=debug"),
            ("server --debug", "server --log=debug"),
            ("check-config --debug --repoDir X", "check-config --log=debug --repo-dir X"),
            // Not the reference's.
            ("ctl --debug", "ctl --debug"),
            ("--noSuchFlag", "--noSuchFlag"),
            ("--secret repoDir", "--secret repoDir"),
            ("--port 1 -- --repoDir", "--port 1 -- --repoDir"),
        ] {
            let arguments = |text: &str| ["worker"].into_iter().chain(text.split(' ')).map(OsString::from).collect();
            let expected: Vec<OsString> = arguments(expected);
            assert_eq!(translated(arguments(given), &Cli::command()), expected, "{given}");
        }
    }
}
