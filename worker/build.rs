//! Builds the `engine-host` program that the worker ships with, puts it beside the worker and into it.
//!
//! The worker starts hosts as processes and must not depend on their crate, but one command has to build both. So
//! this runs a cargo of its own, with the profile `host`: a host is always optimised, whatever the worker is. The
//! result lies beside the worker for everyday use, and is embedded in it for a worker that was installed alone.
//!
//! `OPENFN_WORKER_SKIP_HOST_BUILD=1` turns this off for those who package the two programs on their own.

use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::{env, fs, io};

const HOST: &str = "engine-host";
const PROFILE: &str = "host";
const SKIP: &str = "OPENFN_WORKER_SKIP_HOST_BUILD";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={SKIP}");

    let embedded = directory("OUT_DIR").join(HOST);
    let written =
        if is_wanted() { build(&embedded) } else { fs::write(&embedded, []).map_err(text("empty", &embedded)) };
    let hash = written.and_then(|()| content_hash(&embedded));
    match hash {
        Ok(hash) => println!("cargo:rustc-env=OPENFN_ENGINE_HOST_HASH={hash:016x}"),
        Err(error) => {
            eprintln!("{error}");
            eprintln!("Set {SKIP}=1 to build a worker that does not bring its {HOST} along.");
            exit(1);
        }
    }
}

fn is_wanted() -> bool {
    if env::var_os(SKIP).is_some_and(|value| value != "0" && !value.is_empty()) {
        return false;
    }
    let there = host_crate().join("Cargo.toml").exists();
    if !there {
        println!(
            "cargo:warning=the source of {HOST} is not at {}: this worker looks for the program beside itself, or where --engine-host says",
            host_crate().display()
        );
    }
    there
}

fn build(embedded: &Path) -> Result<(), String> {
    let root = workspace();
    for input in [host_crate(), root.join("protocol"), root.join("Cargo.toml"), root.join("Cargo.lock")] {
        println!("cargo:rerun-if-changed={}", input.display());
    }

    let layout = Layout::of(&directory("OUT_DIR"), &variable("TARGET"))?;
    let mut cargo = nested_cargo();
    cargo.args(["rustc", "--profile", PROFILE, "--package", HOST, "--bin", HOST]);
    cargo.arg("--manifest-path").arg(host_crate().join("Cargo.toml"));
    cargo.arg("--target-dir").arg(&layout.nested_target);
    if root.join("Cargo.lock").exists() {
        cargo.arg("--locked");
    }
    let mut result = layout.nested_target.clone();
    if layout.has_triple || variable("TARGET") != variable("HOST") {
        cargo.args(["--target", &variable("TARGET")]);
        result.push(variable("TARGET"));
    }
    if has_static_libc() {
        // Each run starts a host: one without libraries to find and link starts in half the time.
        cargo.args(["--", "-C", "target-feature=+crt-static"]);
    }
    let status = cargo.status().map_err(|error| format!("failed to start {cargo:?}: {error}"))?;
    if !status.success() {
        return Err(format!("failed to build {HOST} ({status}): {cargo:?}"));
    }

    let result = result.join(PROFILE).join(HOST);
    replace(&result, embedded)?;
    replace(&result, &layout.beside_worker.join(HOST))
}

/// Whether the C library can be linked into the host: glibc's static form is a package of its own on some systems.
fn has_static_libc() -> bool {
    if variable("TARGET") != variable("HOST") || !variable("TARGET").ends_with("-linux-gnu") {
        return false;
    }
    // Where the linker finds none, it gives the name back.
    let found = Command::new("cc").arg("-print-file-name=libc.a").output();
    found.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_absolute())
}

/// A cargo that knows nothing of the one that runs this script but its flags for rustc, its network settings and its
/// jobserver.
fn nested_cargo() -> Command {
    /// What the outer cargo tells this script about the worker, and wrappers meant for the outer build: clippy's, and
    /// an editor's that does not really compile.
    const NAMES: &[&str] = &[
        "CARGO_BUILD_TARGET",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_DIR",
        "CLIPPY_ARGS",
        "CLIPPY_CONF_DIR",
        "DEBUG",
        "HOST",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RA_RUSTC_WRAPPER",
        "RUSTC_LINKER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "TARGET",
        "__CARGO_DEFAULT_LIB_METADATA",
    ];
    const PREFIXES: &[&str] = &["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_MANIFEST_", "CARGO_PKG_"];

    let mut cargo = Command::new(directory("CARGO"));
    for (name, _) in env::vars_os() {
        let is_outer = |name: &str| NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if name.to_str().is_some_and(is_outer) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Where the outer cargo puts things.
struct Layout {
    /// The folder that the worker program will be in.
    beside_worker: PathBuf,
    /// The folder for the nested build.
    nested_target: PathBuf,
    /// Whether the outer cargo was told a `--target`.
    has_triple: bool,
}

impl Layout {
    /// Reads it from this script's output folder: `<target>/[<triple>/]<profile>/build/<package>/out`.
    fn of(out: &Path, triple: &str) -> Result<Self, String> {
        let profile = out
            .ancestors()
            .filter(|path| path.file_name() == Some(OsStr::new("build")))
            .find_map(Path::parent)
            .ok_or_else(|| format!("{} is not inside of a target folder", out.display()))?;
        let above = profile.parent().unwrap_or(profile);
        let has_triple = above.file_name() == Some(OsStr::new(triple));
        let target = if has_triple { above.parent().unwrap_or(above) } else { above };
        // Cargo locks a target folder's profile while it builds: sharing the outer one's would wait for ever.
        let is_same_profile = profile.file_name() == Some(OsStr::new(PROFILE));
        let nested_target = if is_same_profile { profile.join("nested") } else { target.to_owned() };
        Ok(Self { beside_worker: profile.to_owned(), nested_target, has_triple })
    }
}

/// Puts a copy of `from` at `to` at once. Never writes into what is at `to`: cargo has hard links there.
fn replace(from: &Path, to: &Path) -> Result<(), String> {
    let unfinished = to.with_extension(format!("{}.part", std::process::id()));
    fs::copy(from, &unfinished)
        .and_then(|_| fs::rename(&unfinished, to))
        .map_err(text(&format!("copy {} to", from.display()), to))
}

/// Tells one build of the host from another; no protection against forgery.
fn content_hash(file: &Path) -> Result<u64, String> {
    let bytes = fs::read(file).map_err(text("read", file))?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Ok(hasher.finish())
}

fn host_crate() -> PathBuf {
    workspace().join(HOST)
}

fn workspace() -> PathBuf {
    let worker = directory("CARGO_MANIFEST_DIR");
    worker.parent().unwrap_or(&worker).to_owned()
}

fn directory(name: &str) -> PathBuf {
    env::var_os(name).map(PathBuf::from).unwrap_or_else(|| panic!("cargo sets {name} for build scripts"))
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo sets {name} for build scripts: {error}"))
}

fn text(verb: &str, path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("failed to {verb} {}: {error}", path.display())
}
