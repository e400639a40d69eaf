//! The command that starts Node: flags, permissions and environment. Nothing is started here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use protocol::engine::{Adaptor, JOB_ENVIRONMENT_VARIABLE, Needs};

use super::scratch::Scratch;
use super::source;
use super::template::native;
use super::version::NodeVersion;
use crate::links;

/// What Node gets of the host's environment. Nothing in it may be a secret: users' code can read it.
const ENVIRONMENT: &[&str] = &[
    "NODE_EXTRA_CA_CERTS",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Where Node writes why it gave up, in the part of its folder that its code cannot reach.
pub(super) const REPORT: &str = "fatal.json";

const MEGABYTE: u64 = 1024 * 1024;

/// Flags of a Node that is forked: V8 without threads whose work a child would wait for, none that waits for a debugger,
/// no collecting of garbage while a child waits, which would copy what it shares, and no forgetting of what was compiled,
/// which each child would compile anew.
const FORKABLE: &[&str] =
    &["--single-threaded", "--v8-pool-size=1", "--no-memory-reducer", "--no-flush-bytecode", "--disable-sigusr1"];

/// How Node gets the engine.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode<'a> {
    /// From the host, over the channel.
    Sent,
    /// It is in this snapshot.
    Snapshot(&'a Path),
    /// From the host, to be a template for others, whose private folders are in the folder `runs`.
    Template { runs: &'a Path },
    /// It makes a snapshot of what the script `entry` leaves.
    Build { entry: &'a Path, blob: &'a Path },
}

/// A Node process to start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Launch<'a> {
    pub(super) program: &'a Path,
    pub(super) version: NodeVersion,
    pub(super) mode: Mode<'a>,
    pub(super) adaptors: &'a [Adaptor],
    /// What V8 may have for old objects, in bytes.
    pub(super) heap_bytes: u64,
    pub(super) scratch: &'a Scratch,
    /// Whether the host has no other process.
    pub(super) is_alone: bool,
}

impl Launch<'_> {
    /// The command. Its descriptors are still to be set.
    pub(super) fn command(&self) -> Command {
        let files = self.scratch.files();
        let mut command = Command::new(self.program);
        command
            .args(self.flags())
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("TZ", "UTC")
            .envs(for_jobs())
            .env("HOME", &files)
            .env("TMPDIR", &files)
            .current_dir(&files)
            .stdin(Stdio::null());
        if let Mode::Template { .. } = self.mode {
            command.env("LD_PRELOAD", format!("/proc/self/fd/{}", native::DESCRIPTOR));
        }
        if matches!(self.mode, Mode::Build { .. }) {
            // Node says of `vm` that it may not work in a snapshot. Whether it does is tried.
            command.env("NODE_NO_WARNINGS", "1");
        }
        command
    }

    fn flags(&self) -> Vec<OsString> {
        let version = self.version;
        let mut flags: Vec<OsString> = vec!["--experimental-vm-modules".into()];
        flags.extend(version.quiet_flags().iter().map(Into::into));
        flags.push(format!("--max-old-space-size={}", (self.heap_bytes / MEGABYTE).max(1)).into());
        flags.extend(["--report-on-fatalerror", "--report-compact"].map(Into::into));
        flags.extend(version.report_flags().iter().map(Into::into));
        flags.push(flag("--report-directory=", self.scratch.root()));
        flags.push(format!("--report-filename={REPORT}").into());
        // A snapshot that was made with permissions does not start: it runs no users' code, so it does without.
        if !matches!(self.mode, Mode::Build { .. }) {
            flags.extend(self.permissions());
        }
        match self.mode {
            Mode::Sent => flags.extend(["-e", source::BOOT].map(Into::into)),
            Mode::Template { .. } => {
                flags.extend(FORKABLE.iter().map(Into::into));
                flags.extend(["-e", source::TEMPLATE_BOOT].map(Into::into));
            }
            // Otherwise V8 hashes all that is in it anew, against collisions that are made to slow a server down: this
            // process serves one run, which can only slow down itself.
            Mode::Snapshot(blob) => {
                flags.extend(["--no-rehash-snapshot".into(), "--snapshot-blob".into(), blob.into()]);
            }
            Mode::Build { entry, blob } => {
                flags.extend(["--snapshot-blob".into(), blob.into(), "--build-snapshot".into(), entry.into()]);
            }
        }
        flags
    }

    fn permissions(&self) -> Vec<OsString> {
        let mut flags: Vec<OsString> = vec![self.version.permission_flag().into()];
        let files = self.scratch.files();
        let mut readable: Vec<PathBuf> = self.adaptors.iter().flat_map(readable).chain([files.clone()]).collect();
        readable.sort();
        readable.dedup();
        flags.extend(readable.iter().map(|path| flag("--allow-fs-read=", path)));
        flags.push(flag("--allow-fs-write=", &files));
        if let Mode::Template { runs } = self.mode {
            // A child has its parent's permissions. The kernel keeps each to a folder of its own.
            let all = runs.join("*");
            flags.extend([flag("--allow-fs-read=", &all), flag("--allow-fs-write=", &all)]);
        }
        let needs = self.needs();
        let addons = needs.addons && self.version.has_addon_permission();
        for (wanted, name) in [
            (needs.child_processes, "--allow-child-process"),
            (needs.workers, "--allow-worker"),
            (addons, "--allow-addons"),
            (self.version.has_net_permission(), "--allow-net"),
        ] {
            if wanted {
                flags.push(name.into());
            }
        }
        flags
    }

    /// What any of the adaptors needs.
    pub(super) fn needs(&self) -> Needs {
        self.adaptors.iter().fold(Needs::default(), |sum, Adaptor { needs, .. }| Needs {
            child_processes: sum.child_processes || needs.child_processes,
            workers: sum.workers || needs.workers,
            addons: sum.addons || needs.addons,
        })
    }
}

/// The variables that the operator passes on to jobs.
fn for_jobs() -> Vec<(String, OsString)> {
    let names = std::env::var(JOB_ENVIRONMENT_VARIABLE).unwrap_or_default();
    names.split(',').filter_map(|name| Some((name.to_owned(), std::env::var_os(name)?))).collect()
}

/// What must be readable to load an adaptor: its folder, its bundle, and where Node looks for its dependencies, which
/// may be in any folder above (it takes a refusal there for an error, not for a package that is not there), and what its
/// links lead to. Each under the name that was given and under its real one.
fn readable(adaptor: &Adaptor) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for path in [Some(&adaptor.folder), adaptor.bundle.as_ref()].into_iter().flatten().filter(|path| path.is_absolute())
    {
        paths.extend(path.canonicalize());
        paths.push(path.clone());
    }
    // All that a bundle needs is in it, but for packages with native code, which lie beside it.
    if adaptor.bundle.is_none() {
        paths.extend(links::targets(&adaptor.folder));
    }
    let above: Vec<PathBuf> = paths.iter().flat_map(|path| path.ancestors().skip(1)).map(Path::to_owned).collect();
    paths.extend(adaptor.bundle.as_deref().map(super::code_cache));
    for folder in above {
        paths.extend(["node_modules/*", "package.json"].map(|name| folder.join(name)));
    }
    paths
}

fn flag(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(name);
    flag.push(path);
    flag
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn flags(version: &str, needs: Needs, mode: Mode<'_>) -> Vec<String> {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(parent.path()).unwrap();
        let adaptors = [Adaptor {
            name: "@openfn/language-a".into(),
            version: "1.0.0".into(),
            folder: "/repo/a".into(),
            bundle: Some("/repo/a.cjs".into()),
            exports: None,
            needs,
        }];
        let launch = Launch {
            program: Path::new("/usr/bin/node"),
            version: version.parse().unwrap(),
            mode,
            adaptors: &adaptors,
            heap_bytes: 200 * MEGABYTE,
            scratch: &scratch,
            is_alone: true,
        };
        let root = scratch.root().to_string_lossy().into_owned();
        launch.flags().iter().map(|flag| flag.to_string_lossy().replace(&root, "SCRATCH")).collect()
    }

    #[test]
    fn a_process_may_read_its_adaptors_and_write_its_folder() {
        let flags = flags("24.4.0", Needs::default(), Mode::Snapshot(Path::new("/repo/s.blob")));
        let readable: Vec<&str> = flags.iter().filter_map(|flag| flag.strip_prefix("--allow-fs-read=")).collect();
        let expected = [
            "/node_modules/*",
            "/package.json",
            "/repo/a",
            "/repo/a.cjs",
            "/repo/a.cjs.v8",
            "/repo/node_modules/*",
            "/repo/package.json",
            "SCRATCH/files",
        ];
        assert_eq!(readable.iter().copied().collect::<BTreeSet<_>>(), expected.into());
        let rest: Vec<_> =
            flags.iter().filter(|flag| flag.starts_with("--permission") || flag.starts_with("--allow")).collect();
        assert_eq!(rest.len(), readable.len() + 2);
        assert!(rest.contains(&&"--allow-fs-write=SCRATCH/files".to_owned()));
        assert!(rest.contains(&&"--permission".to_owned()));
        assert!(flags.contains(&"--max-old-space-size=200".to_owned()));
        assert_eq!(flags[flags.len() - 2..], ["--snapshot-blob", "/repo/s.blob"]);
    }

    #[test]
    fn more_is_for_adaptors_that_need_it() {
        let all = Needs { child_processes: true, workers: true, addons: true };
        let granted = |version, needs| -> Vec<String> {
            let flags = flags(version, needs, Mode::Sent);
            flags.into_iter().filter(|it| it.starts_with("--allow") && !it.starts_with("--allow-fs")).collect()
        };
        assert_eq!(granted("24.4.0", Needs::default()), Vec::<String>::new());
        assert_eq!(granted("24.4.0", all), ["--allow-child-process", "--allow-worker", "--allow-addons"]);
        assert_eq!(granted("20.0.0", all), ["--allow-child-process", "--allow-worker"]);
        assert_eq!(granted("25.0.0", Needs { addons: true, ..Needs::default() }), ["--allow-addons", "--allow-net"]);
    }
}
