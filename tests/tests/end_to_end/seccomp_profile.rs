//! The profile of system calls for containers lets the worker, npm, Node and both engines do their work, and nobody get
//! namespaces, keys or io_uring.
#![cfg(target_os = "linux")]

use std::io::Error;
use std::process::Command;

use mock_lightning::RunState;
use serde_json::{Value, json};
use tests::lightning::{self, LightningOptions, end, one_job, queue};
use tests::node::COMMON;
use tests::registry::Registry;
use tests::worker::Worker;
use tests::{binaries, seccomp};

fn profile() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/seccomp/openfn-worker.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the profile is there")).expect("it is JSON")
}

/// What an adaptor does that asks the kernel for something: threads, addresses, connections.
const ADAPTOR: &str = "
const { createHash, randomBytes } = require('node:crypto');
const { promisify } = require('node:util');
const dns = require('node:dns').promises;
const zlib = require('node:zlib');
exports.fn = f => async state => f(state);
exports.works = () => async () => {
    const zipped = await promisify(zlib.gzip)(randomBytes(10));
    const { address } = await dns.lookup('127.0.0.1');
    const refused = await new Promise(done => require('node:net').connect(1, address).on('error', it => done(it.code)));
    const addresses = Object.keys(require('node:os').networkInterfaces()).length > 0;
    return { data: [createHash('sha256').update('text').digest()[0], zipped.length > 10, address, refused, addresses] };
};";

async fn runs(engine: &str, job: &str, expected: Value) {
    let (home, registry) = (tempfile::tempdir().expect("a folder"), Registry::start().await);
    registry.publish(COMMON.0, COMMON.1, ADAPTOR);
    let lightning = lightning::start(LightningOptions::default()).await;
    let mut command = Command::new(binaries::worker());
    command
        .args(["--lightning", &lightning.url(), "--port", "0", "--backoff", "0.05/0.2", "--capacity", "1"])
        .args(["--engine", engine, "--repo-dir"])
        .arg(home.path().join("repo"))
        .envs(["XDG_RUNTIME_DIR", "HOME"].map(|name| (name, home.path())))
        .env("npm_config_registry", registry.url())
        .env("WORKER_SECRET", lightning::SECRET);
    let worker = seccomp::filtered(&seccomp::profile(&profile()), || Worker::spawn(&mut command.into()));
    let record = end(&lightning, &worker, &queue(&lightning, one_job(job))).await;
    assert_eq!(record.state, RunState::Success, "{record:?}\n{}", worker.output());
    assert_eq!(record.final_state.as_ref().map(|state| &state["data"]), Some(&expected), "{record:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_runs_under_the_profile() {
    runs("embedded", "fn(s => ({ data: new Date(0).toISOString() }))", json!("1970-01-01T00:00:00.000Z")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn npm_installs_and_node_runs_under_the_profile() {
    // The first byte of the SHA-256 of `text`.
    runs("node", "works()", json!([0x98, true, "127.0.0.1", "ECONNREFUSED", true])).await;
}

/// What the kernel says to a call with these arguments, as a number of an error; 0 if it does it.
#[expect(unsafe_code, reason = "no library makes calls that are to be refused")]
fn errno(call: i64, arguments: [i64; 3]) -> i32 {
    // SAFETY: none of the calls that are made gets an address to write to: null is refused.
    let result = unsafe { libc::syscall(call, arguments[0], arguments[1], arguments[2], 0, 0) };
    if result >= 0 { 0 } else { Error::last_os_error().raw_os_error().unwrap_or(-1) }
}

#[test]
fn what_opens_the_kernel_is_refused() {
    let namespaces = i64::from(libc::CLONE_NEWUSER | libc::CLONE_NEWNET);
    let table = [
        ("unshare", libc::SYS_unshare, [namespaces, 0, 0], libc::EPERM),
        ("clone", libc::SYS_clone, [namespaces | i64::from(libc::SIGCHLD), 0, 0], libc::EPERM),
        ("clone3", libc::SYS_clone3, [0, 0, 0], libc::ENOSYS),
        ("setns", libc::SYS_setns, [-1, 0, 0], libc::EPERM),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0], libc::EPERM),
        ("keyctl", libc::SYS_keyctl, [0, -3, 0], libc::EPERM),
        ("bpf", libc::SYS_bpf, [0, 0, 0], libc::EPERM),
        ("mount", libc::SYS_mount, [0, 0, 0], libc::EPERM),
        ("ptrace", libc::SYS_ptrace, [16, 1, 0], libc::EPERM),
        ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0], libc::EPERM),
        ("socket of AF_VSOCK", libc::SYS_socket, [i64::from(libc::AF_VSOCK), 1, 0], libc::EPERM),
        ("socket of AF_PACKET", libc::SYS_socket, [i64::from(libc::AF_PACKET), 3, 0], libc::EPERM),
        ("socket of AF_INET", libc::SYS_socket, [i64::from(libc::AF_INET), 1, 0], 0),
    ];
    let seen = seccomp::filtered(&seccomp::profile(&profile()), || {
        table.map(|(name, call, arguments, _)| (name, errno(call, arguments)))
    });
    assert_eq!(seen, table.map(|(name, _, _, expected)| (name, expected)));
}
