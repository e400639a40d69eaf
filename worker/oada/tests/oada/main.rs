//! OADA: the double of a store, the client, the service and its faults, one behaviour a file.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod support;

mod batches;
mod claims;
mod client_conflicts;
mod client_heartbeat;
mod client_links;
mod client_lost_answers;
mod client_rate_limits;
mod client_watches;
mod commands;
mod finish_reporters;
mod finished_before;
mod handlers;
mod http;
mod invalid_jobs;
mod job_fails;
mod job_succeeds;
mod killed;
mod layout_v2;
mod link_changes;
mod links_back;
mod log_levels;
mod lost_connections;
mod migrated_service;
mod node_handlers;
mod open_files;
mod options;
mod queues;
mod real_client;
mod real_jobs;
mod refused_writes;
mod reports;
mod requests;
mod retries;
mod several_services;
mod stopping;
mod timeouts;
mod tls;
mod unknown_types;
