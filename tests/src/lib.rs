//! What the end-to-end tests share: the programs under test, processes, and how results are compared.

pub mod binaries;
pub mod browser;
pub mod collector;
pub mod contract;
pub mod leftovers;
#[cfg(target_os = "linux")]
pub mod lesser_kernel;
pub mod lightning;
pub mod matching;
pub mod measure;
pub mod node;
pub mod oada;
#[cfg(target_os = "linux")]
pub mod plain_user;
pub mod processes;
pub mod random;
pub mod registry;
pub mod relay;
#[cfg(target_os = "linux")]
pub mod seccomp;
pub mod served;
pub mod soak;
pub mod states;
pub mod worker;
