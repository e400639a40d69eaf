//! OADA: a client of its stores, and services that work off the job queues in them.

pub mod browse;
pub mod client;
pub mod cron;
pub mod handlers;
pub mod job;
mod ksuid;

mod list;
pub mod paths;
pub mod report;
pub mod request;
pub mod service;
pub mod tree;
pub mod wire;

#[cfg(fuzzing)]
pub use client::feed_frames;
pub use client::{Client, ClientError, ClientOptions, Domain};
pub use job::{Failure, Job, JobError, NewJob};
pub use ksuid::{InvalidKsuid, Ksuid};
pub use paths::{Layout, Paths};
pub use request::{JobEvent, JobRequest, JobRequestError, do_job, post_job, post_update};
pub use service::{Context, Service, ServiceBuilder, ServiceStatus};
