//! The engine host that the build put into this program.

use hosts::Embedded;

/// Empty when the build put none in.
pub(crate) const EMBEDDED: Embedded = Embedded {
    bytes: include_bytes!(concat!(env!("OUT_DIR"), "/engine-host")),
    build: env!("OPENFN_ENGINE_HOST_HASH"),
};
