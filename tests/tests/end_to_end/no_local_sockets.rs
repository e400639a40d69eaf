//! Where the system forbids local sockets, as some units and containers do, the worker says so and what to do about it.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use tests::binaries;

/// The answers that units and containers give.
const ANSWERS: [i32; 3] = [libc::EAFNOSUPPORT, libc::EPERM, libc::EACCES];

/// Has the kernel refuse this thread, and what it starts, local sockets.
fn forbid(answer: i32) {
    let local = u64::from(libc::AF_UNIX.unsigned_abs());
    let is_it = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, local);
    let rule = SeccompRule::new(vec![is_it.expect("a socket has a first argument")]).expect("it has a condition");
    let filter = SeccompFilter::new(
        [(libc::SYS_socket, vec![rule])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(answer.unsigned_abs()),
        std::env::consts::ARCH.try_into().expect("tests run on an architecture that has filters"),
    );
    let program: BpfProgram = filter.and_then(TryInto::try_into).expect("the filter is short");
    seccompiler::apply_filter(&program).expect("the kernel filters system calls");
}

#[test]
fn the_worker_says_what_is_forbidden_and_what_to_do() {
    let worker = binaries::worker();
    for answer in ANSWERS {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let token = folder.path().join("token");
        std::fs::write(&token, "t").expect("it can be written");
        let mut command = Command::new(worker);
        command
            .args(["oada", "--service", "demo", "--domain", "http://127.0.0.1:1", "--port", "0", "--token-file"])
            .arg(&token)
            .arg("--handlers")
            .arg(folder.path())
            .env("XDG_RUNTIME_DIR", folder.path())
            .stdin(Stdio::null())
            .process_group(0);
        // The filter is for good, so it gets a thread of its own. What it starts inherits it.
        let output = std::thread::scope(|scope| {
            let started = scope.spawn(|| {
                forbid(answer);
                command.output()
            });
            started.join().expect("it ends").expect("the worker can be started")
        });
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{told}");
        assert!(told.contains("local sockets (AF_UNIX)") && told.contains("RestrictAddressFamilies=AF_UNIX"), "{told}");
    }
}
