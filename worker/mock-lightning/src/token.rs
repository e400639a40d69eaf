//! Worker tokens checked and run tokens made, as Lightning does.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use protocol::clock::unix_seconds;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How long a run's token outlives the run's timeout, in seconds.
const GRACE_SECONDS: u64 = 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkerClaims {
    worker_id: String,
    #[serde(rename = "iat")]
    _issued_at: u64,
    iss: String,
}

/// Checks the token that a worker connects with, and gives the worker's id. The error says what is wrong with it.
pub(super) fn verify_worker_token(token: &str, secret: &SecretString) -> Result<String, String> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_required_spec_claims::<&str>(&[]);
    validation.validate_exp = false;
    let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
    let claims = jsonwebtoken::decode::<WorkerClaims>(token, &key, &validation)
        .map_err(|error| format!("the worker token was refused: {error}"))?
        .claims;
    if claims.iss != "urn:openfn:worker" {
        return Err(format!("the worker token's iss must be urn:openfn:worker, it is {}", claims.iss));
    }
    Ok(claims.worker_id)
}

/// Makes run tokens: signed ones when it has a private key, else opaque ones.
pub(super) struct RunTokens(Option<EncodingKey>);

#[derive(Serialize)]
struct RunClaims<'a> {
    iss: &'a str,
    id: &'a str,
    sub: String,
    nbf: u64,
    exp: u64,
}

impl RunTokens {
    /// `private_key` is an RSA key in PEM.
    pub(super) fn new(private_key: Option<&SecretString>) -> Result<Self, jsonwebtoken::errors::Error> {
        private_key.map(|pem| EncodingKey::from_rsa_pem(pem.expose_secret().as_bytes())).transpose().map(Self)
    }

    /// A token for a run that may take `timeout_seconds`.
    pub(super) fn issue(
        &self,
        run_id: &str,
        timeout_seconds: u64,
    ) -> Result<SecretString, jsonwebtoken::errors::Error> {
        let Some(key) = &self.0 else {
            return Ok(format!("run-token-{}", Uuid::new_v4()).into());
        };
        let now = unix_seconds();
        let claims = RunClaims {
            iss: "Lightning",
            id: run_id,
            sub: format!("run:{run_id}"),
            nbf: now,
            exp: now.saturating_add(timeout_seconds).saturating_add(GRACE_SECONDS),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, key).map(SecretString::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn signed(claims: &Value, algorithm: Algorithm, secret: &str) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    #[test]
    fn worker_tokens() {
        let secret = SecretString::from("secret");
        let good = json!({"worker_id": "w1", "iat": 1, "iss": "urn:openfn:worker"});
        let check = |claims: Value, algorithm, key: &str, expected: Result<&str, &str>| match (
            verify_worker_token(&signed(&claims, algorithm, key), &secret),
            expected,
        ) {
            (Ok(id), Ok(expected)) => assert_eq!(id, expected),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (got, expected) => panic!("{got:?} is not {expected:?}"),
        };
        check(good.clone(), Algorithm::HS256, "secret", Ok("w1"));
        check(good.clone(), Algorithm::HS256, "other", Err("InvalidSignature"));
        check(good.clone(), Algorithm::HS512, "secret", Err("InvalidAlgorithm"));
        check(json!({"worker_id": "w1", "iat": 1, "iss": "me"}), Algorithm::HS256, "secret", Err("urn:openfn:worker"));
        check(json!({"iat": 1, "iss": "urn:openfn:worker"}), Algorithm::HS256, "secret", Err("worker_id"));
        let mut with_nbf = good;
        with_nbf["nbf"] = json!(1);
        check(with_nbf, Algorithm::HS256, "secret", Err("nbf"));
    }

    #[test]
    fn opaque_tokens_differ() {
        let tokens = RunTokens::new(None).unwrap();
        let token = || tokens.issue("a", 1).unwrap();
        assert_ne!(token().expose_secret(), token().expose_secret());
    }
}
