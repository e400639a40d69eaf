//! The pool of engine hosts over real processes. The host is a stand-in: this very program, see [`fake`].

#![allow(clippy::unwrap_used, reason = "what is unexpected in a test is to fail it")]

mod attribution;
mod cancel;
mod death_in_run;
mod death_of_idle_host;
mod fake;
mod harness;
mod keyed;
mod lend;
mod link_faults;
mod manage;
mod messages;
mod output;
mod pools;
mod reserve;
mod run;
mod shutdown;
mod silence;
mod start_up;
mod stop;
