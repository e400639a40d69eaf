//! What a host costs its worker, with little memory and with a lot of it.
//!
//! `cargo bench --workspace --bench spawn -- [--hosts N]`. A program that starts others by `fork` pays for every page that
//! it has; ours must not.

use std::time::{Duration, Instant};

use hosts::{HostProgram, Hosts, HostsOptions, PoolSize};
use tests::binaries;

const GIB: usize = 1024 * 1024 * 1024;

#[tokio::main]
async fn main() {
    let hosts = hosts_wanted();
    let program = HostProgram::at(&binaries::worker().with_file_name("engine-host")).expect("it was just built");
    println!("{hosts} hosts each\n");
    println!("{:<24} {:>16} {:>24} {:>20}", "resident memory", "spawn call", "worker's CPU a host", "wall time a host");
    for ballast in [0, GIB] {
        let memory = fill(ballast);
        measure(&program, hosts).await;
        drop(memory);
    }
}

fn hosts_wanted() -> u32 {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--hosts").skip(1);
    arguments.next().map_or(100, |text| text.parse().unwrap_or_else(|_| panic!("--hosts needs a number, not {text}")))
}

/// Memory that is really there.
fn fill(bytes: usize) -> Vec<u8> {
    let mut memory = vec![0_u8; bytes];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    memory
}

async fn measure(program: &HostProgram, hosts: u32) {
    let resident = tests::processes::process(std::process::id()).map_or(0, |process| process.rss);
    let spawned = spawn_calls(program, hosts);
    let options = HostsOptions { size: PoolSize::OneRunEach { warm: 1 }, ..HostsOptions::new(program.clone()) };
    let pool = Hosts::start(options).await.expect("hosts get ready");
    let (cpu, began) = (own_cpu(), Instant::now());
    for _ in 0..hosts {
        pool.recycle().await.expect("hosts get ready");
    }
    let (cpu, wall) = ((own_cpu() - cpu) / hosts, began.elapsed() / hosts);
    pool.shutdown(Duration::from_secs(5)).await;
    println!("{:<24} {:>16} {:>24} {:>20}", mb(resident), ms(spawned), ms(cpu), ms(wall));
}

/// Time of the call that starts a process, as the worker makes it.
fn spawn_calls(program: &HostProgram, hosts: u32) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..hosts {
        let mut command = std::process::Command::new(program.path());
        // Without a worker it says so and exits.
        command.env_clear().stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn().expect("it was just built");
        total += began.elapsed();
        child.wait().expect("a child can be waited for");
    }
    total / hosts
}

/// Processor time of this process alone.
fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn mb(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1024.0 / 1024.0)
}

fn ms(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}
