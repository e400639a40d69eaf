//! `worker gen-keys`: the values that Lightning and its workers share.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rsa::pkcs1::EncodeRsaPrivateKey;
use rsa::pkcs8::{EncodePublicKey, LineEnding};
use rsa::rand_core::OsRng;
use rsa::{RsaPrivateKey, RsaPublicKey};
use secrecy::{ExposeSecret, SecretString};

/// Length of the key that signs run tokens, in bits.
const KEY_BITS: usize = 2048;
/// Length of the secret, in bytes.
const SECRET_BYTES: usize = 32;

/// A key pair for run tokens, and a secret for workers. Shown as lines for an environment file, secrets and all;
/// without quotes, which not everything that reads such files takes away.
pub struct Keys {
    /// The private key, PEM in base64: for Lightning alone.
    private: SecretString,
    /// The public key, PEM in base64.
    public: String,
    secret: SecretString,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[error("cannot make keys: {0}")]
pub struct KeyError(String);

impl Keys {
    /// Fresh ones. Takes a second or so.
    pub fn generate() -> Result<Self, KeyError> {
        let failed = |error: &dyn fmt::Display| KeyError(error.to_string());
        let private = RsaPrivateKey::new(&mut OsRng, KEY_BITS).map_err(|error| failed(&error))?;
        let public = RsaPublicKey::from(&private);
        let private = private.to_pkcs1_pem(LineEnding::LF).map_err(|error| failed(&error))?;
        let public = public.to_public_key_pem(LineEnding::LF).map_err(|error| failed(&error))?;
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(|error| failed(&error))?;
        Ok(Self {
            private: BASE64_STANDARD.encode(private.as_bytes()).into(),
            public: BASE64_STANDARD.encode(public),
            secret: BASE64_STANDARD.encode(secret).into(),
        })
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "# For Lightning alone: signs the tokens of runs.")?;
        writeln!(out, "WORKER_RUNS_PRIVATE_KEY={}", self.private.expose_secret())?;
        writeln!(out, "# For Lightning and its workers: workers prove themselves with it.")?;
        writeln!(out, "WORKER_SECRET={}", self.secret.expose_secret())?;
        writeln!(out, "# For workers: with it they check the tokens of runs.")?;
        writeln!(out, "WORKER_LIGHTNING_PUBLIC_KEY={}", self.public)
    }
}
