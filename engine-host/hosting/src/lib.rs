//! What any host of a worker's broker has to do beside its work: connect, answer, stop when asked, and never outlive the
//! broker. [`serve`] does all of it for hosts that others write; the engine host builds on the same parts.
//!
//! ```no_run
//! use hosting::{Broker, Handler, serve};
//! use protocol::Json;
//! use protocol::message::Refusal;
//!
//! struct Adder;
//!
//! impl Handler for Adder {
//!     async fn request(&self, request: Json) -> Result<Json, Refusal> {
//!         let numbers: Vec<f64> = request.decode().map_err(|error| Refusal::failed(&error))?;
//!         Json::encode(&numbers.iter().sum::<f64>()).map_err(|error| Refusal::failed(&error))
//!     }
//! }
//!
//! fn main() {
//!     serve(|_broker: Broker| async { Ok(Adder) })
//! }
//! ```
//!
//! Owns the process's ties to the broker. Knows nothing of what a host does.

pub mod guard;
pub mod process;
mod serve;

pub use self::serve::{AskError, Broker, Handler, serve};
