//! Runs npm: finds it, and understands why it failed.
//!
//! npm gets the environment of this process, which the worker chose for it: npm's own settings are in there, and
//! proxies.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use protocol::backoff::jitter;
use protocol::install::UNSET_VARIABLE;
use rustix::fs::{Access, access};
use serde::Deserialize;

use super::process::{self, Output};
use super::retry::Schedule;
use super::{Failure, Workshop};
use crate::sys::free_space;

/// npm gives up on a registry that says nothing for this long, in milliseconds.
const FETCH_TIMEOUT: (&str, &str) = ("npm_config_fetch_timeout", "60000");
/// Repeats are ours: npm's own take minutes.
const FETCH_RETRIES: (&str, &str) = ("npm_config_fetch_retries", "0");
/// The npm program.
#[derive(Debug, Clone)]
pub(super) struct Npm {
    program: PathBuf,
    /// The script that `program` is to run, where that is Node.
    script: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
}

/// npm did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct NpmFailure {
    /// npm's own code, such as `E404`.
    code: Option<String>,
    /// npm's own reason, in one line.
    reason: String,
}

impl NpmFailure {
    fn new(reason: impl Into<String>) -> Self {
        Self { code: None, reason: reason.into() }
    }

    /// The same with the folders that npm writes to, where it says no more than that a disk is full.
    fn placed(self, folders: [&Path; 2]) -> Self {
        let why = match self.code.as_deref() {
            Some("ENOSPC") => "no space left on the device",
            Some("EDQUOT") => "the user's disk quota is used up",
            _ => return self,
        };
        let [repo, cache] = folders.map(|folder| format!("{} ({})", folder.display(), free_space(folder)));
        let reason = format!("{why}: npm writes to the repo, {repo}, and to its cache, {cache}");
        Self { reason, ..self }
    }

    /// Says what is missing where the registry asks who it is, or hides what not everybody may see. `unset` are the variables
    /// that npm's settings name and that have no value.
    fn explained(self, unset: Option<&str>) -> Self {
        const UNKNOWN_HERE: [&str; 3] = ["E401", "E403", "E404"];
        let is_meant = self.code.as_deref().is_some_and(|code| UNKNOWN_HERE.contains(&code));
        match unset.filter(|unset| is_meant && !unset.is_empty()) {
            Some(unset) => {
                let reason =
                    format!("{}; npm's settings name variables that the worker does not have: {unset}", self.reason);
                Self { reason, ..self }
            }
            None => self,
        }
    }

    /// Whether the registry, or the way there, is to blame: later it may work.
    pub(super) fn is_registry_trouble(&self) -> bool {
        const CODES: &[&str] = &[
            "E429",
            "EAI_AGAIN",
            "ECONNABORTED",
            "ECONNREFUSED",
            "ECONNRESET",
            "EHOSTUNREACH",
            "EINTEGRITY",
            "ENETUNREACH",
            "ENOTFOUND",
            "EPIPE",
            "EPROTO",
            "ERR_SOCKET_TIMEOUT",
            "ERR_STREAM_PREMATURE_CLOSE",
            "ETIMEDOUT",
            "TAR_BAD_ARCHIVE",
            "TAR_ENTRY_INVALID",
            "Z_BUF_ERROR",
            "Z_DATA_ERROR",
        ];
        let Some(code) = self.code.as_deref() else { return false };
        let is_server_error = code.len() == 4 && code.starts_with("E5");
        is_server_error || CODES.contains(&code)
    }
}

/// The way in which npm answers `--json`.
#[derive(Deserialize)]
struct Answer {
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    code: Option<String>,
    summary: Option<String>,
    detail: Option<String>,
}

impl Npm {
    /// The npm that came with `node`, else the one on the path.
    pub(super) fn find(node: &Path) -> Result<Self, NpmFailure> {
        let beside = node.parent().map(Path::to_owned);
        let with_node = beside
            .iter()
            .flat_map(|folder| [folder.join("npm"), folder.join("../lib/node_modules/npm/bin/npm-cli.js")]);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).map(|folder| folder.join("npm"));
        let found = with_node.chain(on_path).find_map(|place| place.canonicalize().ok().filter(|path| path.is_file()));
        let found = found.ok_or_else(|| NpmFailure::new("npm was found neither beside Node nor on the PATH"))?;
        let is_script = found.extension().is_some_and(|extension| extension == "js");
        let environment = environment(std::env::vars_os(), node);
        Ok(if is_script {
            Self { program: node.to_owned(), script: Some(found), environment }
        } else {
            Self { program: found, script: None, environment }
        })
    }

    /// Installs a package into `folder`, which becomes its root. Scripts of packages are not run. Repeats what fails
    /// because of the registry as often as `schedule` says.
    pub(super) async fn install(
        &self,
        workshop: &Workshop,
        folder: &Path,
        specifier: &str,
        schedule: Schedule,
    ) -> Result<(), NpmFailure> {
        let manifest = folder.join("package.json");
        // So that npm does not look for a root in the folders above.
        std::fs::write(
            &manifest,
            "{\"private\": true}
",
        )
        .map_err(|error| NpmFailure::new(format!("cannot write {}: {error}", manifest.display())))?;
        workshop.tell(format!("{specifier}: npm install")).await;
        const FLAGS: [&str; 6] = ["--json", "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact", "--"];
        let arguments: Vec<&str> = ["install"].into_iter().chain(FLAGS).chain([specifier]).collect();
        let _settings = Settings::link(&workshop.repo.folder, folder);
        let installed = self.repeat(workshop, &arguments, folder, schedule).await;
        installed.map(drop).map_err(|failure| failure.placed([&workshop.repo.folder, &self.cache()]))
    }

    /// Where npm keeps what it fetched.
    fn cache(&self) -> PathBuf {
        let variable = |wanted: &str| {
            let set = self.environment.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            set.map(|(_, value)| PathBuf::from(value))
        };
        variable("npm_config_cache").unwrap_or_else(|| variable("HOME").unwrap_or_default().join(".npm"))
    }

    /// What the tags of a package stand for.
    pub(super) async fn tags(&self, workshop: &Workshop, name: &str) -> Result<Vec<(String, String)>, NpmFailure> {
        let arguments = ["view", "--json", "--", name, "dist-tags"];
        let answer = self.repeat(workshop, &arguments, &workshop.repo.folder, Schedule::lookup()).await?;
        let tags: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&answer)
            .map_err(|error| NpmFailure::new(format!("npm's answer about the tags of {name} is no object: {error}")))?;
        Ok(tags.into_iter().filter_map(|(tag, version)| Some((tag, version.as_str()?.to_owned()))).collect())
    }

    async fn repeat(
        &self,
        workshop: &Workshop,
        arguments: &[&str],
        folder: &Path,
        schedule: Schedule,
    ) -> Result<String, NpmFailure> {
        let mut pauses = schedule.pauses(jitter);
        loop {
            let failure = match self.run(arguments, folder).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let pause = pauses.next().filter(|_| failure.is_registry_trouble());
            let Some(pause) = pause else { return Err(failure) };
            workshop.tell(format!("npm failed, trying again in {:.1} s: {failure}", pause.as_secs_f64())).await;
            tokio::time::sleep(pause).await;
        }
    }

    async fn run(&self, arguments: &[&str], folder: &Path) -> Result<String, NpmFailure> {
        let mut command = process::command(&self.program, folder, self.environment.iter().cloned());
        command.args(&self.script).args(arguments);
        let output = process::output(command).await;
        let output = output.map_err(|error| {
            // It starts in that folder, so that either may be what is forbidden.
            NpmFailure::new(match access(folder, Access::EXEC_OK) {
                Err(denied) => Failure::io(folder, &denied.into()).to_string(),
                Ok(()) => format!("cannot run {}: {error}", self.program.display()),
            })
        })?;
        let unset = std::env::var(UNSET_VARIABLE).ok();
        if output.status.success() { Ok(output.stdout) } else { Err(reason(&output).explained(unset.as_deref())) }
    }
}

/// A link to a repo's own settings of npm, in another folder, where npm looks for them while it works there. They may
/// hold a secret, so the link is gone afterwards.
struct Settings(PathBuf);

impl Settings {
    fn link(repo: &Path, folder: &Path) -> Option<Self> {
        let (settings, link) = (repo.join(".npmrc"), folder.join(".npmrc"));
        let there = settings.is_file() && std::os::unix::fs::symlink(settings, &link).is_ok();
        there.then_some(Self(link))
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // Whoever made the folder removes what is left in it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// These variables, with our settings below the operator's own.
fn environment(variables: impl Iterator<Item = (OsString, OsString)>, node: &Path) -> Vec<(OsString, OsString)> {
    let mut all: Vec<_> = variables.collect();
    for (name, value) in [FETCH_TIMEOUT, FETCH_RETRIES, ("npm_config_update_notifier", "false")] {
        if !all.iter().any(|(set, _)| set.eq_ignore_ascii_case(name)) {
            all.push((name.into(), value.into()));
        }
    }
    // Where npm starts `node`, it is to be this one.
    if let (Some(folder), Some((_, path))) = (node.parent(), all.iter_mut().find(|(name, _)| name == "PATH")) {
        let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(path));
        *path = std::env::join_paths(folders).unwrap_or_else(|_| path.clone());
    }
    all
}

/// npm's reason in one line: as JSON on stdout, or else in what it printed.
fn reason(output: &Output) -> NpmFailure {
    let json = output.stdout.find('{').and_then(|start| serde_json::from_str::<Answer>(&output.stdout[start..]).ok());
    if let Some(error) = json.and_then(|answer| answer.error) {
        let told = error.summary.or(error.detail).filter(|text| !text.trim().is_empty());
        let reason = match (told, &error.code) {
            (Some(told), _) => one_line(&told),
            (None, Some(code)) => code.clone(),
            (None, None) => format!("npm failed: {}", output.status),
        };
        return NpmFailure { code: error.code, reason };
    }
    let lines = output.stderr.lines().filter_map(|line| line.strip_prefix("npm error "));
    let (codes, words): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("code "));
    let code = codes.first().map(|line| line["code ".len()..].trim().to_owned());
    let last = output.stderr.lines().rfind(|line| !line.trim().is_empty());
    let reason = match (words.first(), last) {
        (Some(line), _) => one_line(line),
        (None, Some(line)) => format!("npm failed ({}): {}", output.status, one_line(line)),
        (None, None) => format!("npm failed: {}", output.status),
    };
    NpmFailure { code, reason }
}

/// A text without line breaks, and not longer than anyone reads.
pub(super) fn one_line(text: &str) -> String {
    const LONGEST: usize = 500;
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn failed(stdout: &str, stderr: &str) -> NpmFailure {
        let status = ExitStatus::from_raw(0x100);
        reason(&Output { status, stdout: stdout.into(), stderr: stderr.into() })
    }

    #[test]
    fn npms_reason_is_one_line() {
        let json =
            r#"{"error": {"code": "E404", "summary": "Not Found - GET https://r/x\n", "detail": "Note that\n\n…"}}"#;
        assert_eq!(
            failed(json, ""),
            NpmFailure { code: Some("E404".into()), reason: "Not Found - GET https://r/x".into() }
        );
        let old = "npm error code ETARGET\nnpm error notarget No matching version found for x@9.\nnpm error more\n";
        let failure = failed("", old);
        assert_eq!(failure.code.as_deref(), Some("ETARGET"));
        assert_eq!(failure.to_string(), "notarget No matching version found for x@9.");
        assert_eq!(failed("", "cannot find module\n\n").to_string(), "npm failed (exit status: 1): cannot find module");
        assert_eq!(failed("{", "").to_string(), "npm failed: exit status: 1");
        assert_eq!(failed(r#"{"error": {"code": "EACCES"}}"#, "").to_string(), "EACCES");
    }

    #[test]
    fn a_full_disk_is_told_with_the_folders_that_npm_writes_to() {
        let failure = |code: &str| NpmFailure { code: Some(code.into()), reason: "ENOSPC, write".into() };
        let folders = [Path::new("/repo/of/ours"), Path::new("/cache/of/npm")];
        for (code, why) in [("ENOSPC", "no space left"), ("EDQUOT", "quota")] {
            let told = failure(code).placed(folders);
            for part in [why, "/repo/of/ours (", "/cache/of/npm (", "MB free"] {
                assert!(told.reason.contains(part), "{part} is missing in: {told}");
            }
            assert_eq!(told.code.as_deref(), Some(code));
        }
        assert_eq!(failure("E404").placed(folders), failure("E404"));
    }

    #[test]
    fn only_trouble_with_the_registry_is_worth_another_try() {
        let trouble = |code: &str| NpmFailure { code: Some(code.into()), reason: String::new() }.is_registry_trouble();
        for code in ["E500", "E503", "E429", "ECONNREFUSED", "ETIMEDOUT", "ENOTFOUND", "EINTEGRITY"] {
            assert!(trouble(code), "{code}");
        }
        for code in ["E404", "E401", "E403", "ETARGET", "EACCES", "ENOSPC", "E5000", "EUSAGE"] {
            assert!(!trouble(code), "{code}");
        }
        assert!(!NpmFailure::new("npm was not found").is_registry_trouble());
    }

    #[test]
    fn a_registry_that_asks_who_it_is_hears_what_is_missing() {
        let failure = |code: &str| NpmFailure { code: Some(code.into()), reason: "no".into() };
        let told = |code, unset| failure(code).explained(unset).reason;
        let unset = Some("A_TOKEN in /r/.npmrc");
        for code in ["E401", "E403", "E404"] {
            let expected = "no; npm's settings name variables that the worker does not have: A_TOKEN in /r/.npmrc";
            assert_eq!(told(code, unset), expected);
            assert_eq!((told(code, None).as_str(), told(code, Some("")).as_str()), ("no", "no"));
        }
        assert_eq!(told("E500", unset), "no");
    }

    #[test]
    fn the_operators_settings_beat_ours() {
        let variables = [("PATH", "/bin"), ("NPM_CONFIG_FETCH_RETRIES", "5")];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let all = environment(variables.into_iter(), Path::new("/n/node"));
        let all: Vec<(&str, &str)> =
            all.iter().map(|(name, value)| (name.to_str().unwrap(), value.to_str().unwrap())).collect();
        let expected = [
            ("PATH", "/n:/bin"),
            ("NPM_CONFIG_FETCH_RETRIES", "5"),
            FETCH_TIMEOUT,
            ("npm_config_update_notifier", "false"),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn long_reasons_are_cut_between_characters() {
        assert_eq!(one_line(" a\n\n b\tc "), "a b c");
        assert!(one_line(&"ö".repeat(1000)).ends_with("ö …"));
    }
}
