//! What users, operators and services see, one behaviour a file.
//!
//! One program, because each test program of its own would be linked after every change and run while no other does.

mod a_flooded_port;
mod a_host_is_killed;
mod a_run_floods_the_log;
mod adaptors_are_installed;
mod adaptors_in_runs;
mod attack_list;
mod conformance;
mod ctl;
mod dashboard;
mod death_attribution;
mod demo;
mod disk_is_full;
mod doctor;
mod files_out_of_reach;
mod hosts_by_others;
mod http;
mod kill_matrix;
mod large_states;
mod lightning_goes_away;
mod local_adaptors;
mod logs;
mod many_runs_at_once;
mod mock_engine;
mod no_local_sockets;
mod odd_results;
mod plain_users;
mod random_kills;
mod real_adaptors;
mod relaunch;
mod release;
mod run_metadata;
mod runs_end_as_they_should;
mod runs_of_all_kinds;
mod seccomp_profile;
mod secrets;
mod systemd;
mod telemetry;
mod the_worker_is_asked_to_stop;
mod the_worker_is_killed;
mod the_workers_folder_is_removed;
mod tls;
mod what_a_run_starts;
mod what_jobs_see_of_the_machine;
mod without_landlock;
