//! Tokens: the worker's own, which opens the socket, and those of runs, which Lightning signs.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use protocol::clock::unix_seconds;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How far clocks may be apart, in seconds.
pub const LEEWAY: u64 = 5;

/// Makes worker tokens.
pub(super) struct WorkerTokens {
    key: EncodingKey,
    worker_id: String,
}

#[derive(Serialize)]
struct WorkerClaims<'a> {
    worker_id: &'a str,
    iat: u64,
    iss: &'static str,
}

impl WorkerTokens {
    /// Tokens signed with the secret that Lightning shares with its workers.
    pub(super) fn new(secret: &SecretString) -> Self {
        let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
        let random = Uuid::new_v4().simple().to_string();
        Self { key, worker_id: format!("worker-{}", &random[..8]) }
    }

    /// The id that the tokens carry, the same for the life of the process.
    pub(super) fn worker_id(&self) -> &str {
        &self.worker_id
    }

    /// A token that is issued now.
    pub(super) fn issue(&self) -> SecretString {
        let iat = unix_seconds();
        // Exactly these claims: a server whose clock is behind would refuse an `nbf`.
        let claims = WorkerClaims { worker_id: &self.worker_id, iat, iss: "urn:openfn:worker" };
        encode(&Header::new(Algorithm::HS256), &claims, &self.key).expect("HMAC signs anything").into()
    }
}

/// The public key that run tokens are checked with.
#[derive(derive_more::Debug, Clone)]
#[debug("RunTokenKey")]
pub struct RunTokenKey(DecodingKey);

/// A text that is not the public key of run tokens.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPublicKey {
    /// It is not base64.
    #[error("it is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// What it encodes is something else.
    #[error("it is not a PEM `PUBLIC KEY` or `RSA PUBLIC KEY`, or the base64 of one")]
    NotPublic,
    /// What it encodes is not an RSA key.
    #[error("it is not the PEM of an RSA key: {0}")]
    Pem(#[from] jsonwebtoken::errors::Error),
}

/// Why a run token is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidRunToken {
    /// Form, signature, issuer or times are wrong.
    #[error("{0}")]
    Jwt(#[from] jsonwebtoken::errors::Error),
    /// It is for another run.
    #[error("it is for the run `{0}`")]
    OtherRun(String),
    /// It is about something else.
    #[error("its subject is `{0}`")]
    OtherSubject(String),
}

/// What a refused token says of this worker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenFault {
    /// It was signed with another key.
    #[error(
        "the public key does not fit: {0}. Set --lightning-public-key (WORKER_LIGHTNING_PUBLIC_KEY) to the public part \
         of Lightning's WORKER_RUNS_PRIVATE_KEY"
    )]
    Key(String),
    /// This machine's clock and Lightning's are so many seconds apart.
    #[error("this clock is {0} s behind Lightning's. Synchronize the clocks (NTP)")]
    Behind(u64),
    /// The same, the other way round.
    #[error("this clock is {0} s ahead of Lightning's. Synchronize the clocks (NTP)")]
    Ahead(u64),
    /// Something else.
    #[error("the tokens are not as Lightning makes them: {0}")]
    Other(String),
}

impl TokenFault {
    /// What it means that `token` was refused, which was issued a moment ago.
    pub(super) fn of(error: &InvalidRunToken, token: &SecretString) -> Self {
        use jsonwebtoken::errors::ErrorKind;
        let InvalidRunToken::Jwt(jwt) = error else { return Self::Other(error.to_string()) };
        let issued = Times::of(token).and_then(|times| times.nbf.or(times.iat));
        match (jwt.kind(), issued) {
            (ErrorKind::InvalidSignature, _) => Self::Key(error.to_string()),
            (ErrorKind::ImmatureSignature, Some(issued)) => Self::Behind(issued.saturating_sub(unix_seconds())),
            (ErrorKind::ExpiredSignature, Some(issued)) => Self::Ahead(unix_seconds().saturating_sub(issued)),
            _ => Self::Other(error.to_string()),
        }
    }
}

#[derive(Deserialize)]
struct RunClaims {
    id: String,
    sub: Option<String>,
}

impl RunTokenKey {
    /// Reads the base64 of a PEM, or the PEM itself, which is what files hold.
    pub fn from_base64_pem(text: &str) -> Result<Self, InvalidPublicKey> {
        let pem = match text.trim_start().starts_with("-----BEGIN") {
            true => text.as_bytes().to_vec(),
            false => BASE64.decode(text.split_ascii_whitespace().collect::<String>())?,
        };
        let is_public = ["-----BEGIN PUBLIC KEY-----", "-----BEGIN RSA PUBLIC KEY-----"]
            .iter()
            .any(|label| pem.trim_ascii_start().starts_with(label.as_bytes()));
        if !is_public {
            return Err(InvalidPublicKey::NotPublic);
        }
        Ok(Self(DecodingKey::from_rsa_pem(&pem)?))
    }

    /// Checks that Lightning made `token` for the run `run_id` and that it is valid now.
    pub(super) fn verify(&self, token: &SecretString, run_id: &str) -> Result<(), InvalidRunToken> {
        let mut rules = Validation::new(Algorithm::RS256);
        rules.leeway = LEEWAY;
        rules.validate_nbf = true;
        rules.set_issuer(&["Lightning"]);
        rules.set_required_spec_claims(&["exp", "iss", "nbf"]);
        // Whom the token is for is said by its id and subject.
        rules.validate_aud = false;
        let claims = decode::<RunClaims>(token.expose_secret(), &self.0, &rules)?.claims;
        if claims.id != run_id {
            return Err(InvalidRunToken::OtherRun(claims.id));
        }
        match claims.sub {
            Some(sub) if sub != format!("run:{run_id}") => Err(InvalidRunToken::OtherSubject(sub)),
            _ => Ok(()),
        }
    }
}

/// How long after its claim the server takes a run's token, as far as the token itself says. It need not be verified:
/// the server decides, this only tells when there is no use in asking. Measured from the token's own beginning where
/// it names one, so that the clocks of server and worker need not agree.
pub(super) fn lifetime(token: &SecretString) -> Option<Duration> {
    let Times { exp, nbf, iat } = Times::of(token)?;
    Some(Duration::from_secs(exp.saturating_sub(nbf.or(iat).unwrap_or_else(unix_seconds))))
}

/// The times that a token names, in seconds since the epoch; nobody has verified them.
#[derive(Deserialize)]
struct Times {
    exp: u64,
    nbf: Option<u64>,
    iat: Option<u64>,
}

impl Times {
    fn of(token: &SecretString) -> Option<Self> {
        insecure_decode_claims(token.expose_secret()).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use rsa::pkcs1::{EncodeRsaPrivateKey, EncodeRsaPublicKey, LineEnding};
    use rsa::pkcs8::EncodePublicKey;
    use rsa::rand_core::OsRng;
    use rsa::{RsaPrivateKey, RsaPublicKey};
    use serde_json::{Map, Value, json};

    use super::*;

    const RUN: &str = "0b6f8f2c-6f3c-4e52-93ac-6a2f3c5d9f10";

    /// Lightning's key, and somebody else's.
    fn keys() -> &'static [RsaPrivateKey; 2] {
        static KEYS: OnceLock<[RsaPrivateKey; 2]> = OnceLock::new();
        KEYS.get_or_init(|| [(); 2].map(|()| RsaPrivateKey::new(&mut OsRng, 1024).unwrap()))
    }

    fn public_pem() -> String {
        RsaPublicKey::from(&keys()[0]).to_public_key_pem(LineEnding::LF).unwrap()
    }

    fn sign(key: usize, claims: &Value) -> SecretString {
        let pem = keys()[key].to_pkcs1_pem(LineEnding::LF).unwrap();
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        encode(&Header::new(Algorithm::RS256), claims, &key).unwrap().into()
    }

    fn now() -> i64 {
        unix_seconds() as i64
    }

    /// Good claims with `changes` over them; null takes a claim away.
    fn claims(changes: Value) -> Value {
        let mut claims =
            json!({"iss": "Lightning", "id": RUN, "sub": format!("run:{RUN}"), "nbf": now(), "exp": now() + 60});
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }

    #[test]
    fn worker_tokens_carry_exactly_what_every_server_takes() {
        let tokens = WorkerTokens::new(&"a secret".into());
        let token = tokens.issue();
        let mut rules = Validation::new(Algorithm::HS256);
        rules.required_spec_claims.clear();
        rules.validate_exp = false;
        let key = DecodingKey::from_secret(b"a secret");
        let read = decode::<Map<String, Value>>(token.expose_secret(), &key, &rules).unwrap().claims;
        let mut names: Vec<_> = read.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["iat", "iss", "worker_id"]);
        assert_eq!(read["iss"], "urn:openfn:worker");
        assert_eq!(read["worker_id"], tokens.worker_id());
    }

    #[test]
    fn run_tokens() {
        let key = RunTokenKey::from_base64_pem(&BASE64.encode(public_pem())).unwrap();
        let cases = [
            ("good", json!({}), true),
            ("an older server's", json!({"sub": null}), true),
            ("clock a little ahead", json!({"nbf": now() + 3}), true),
            ("clock a little behind", json!({"exp": now() - 3}), true),
            ("with an audience", json!({"aud": "worker"}), true),
            ("not yet valid", json!({"nbf": now() + 60}), false),
            ("expired", json!({"exp": now() - 60}), false),
            ("without expiry", json!({"exp": null}), false),
            ("without start", json!({"nbf": null}), false),
            ("other issuer", json!({"iss": "urn:openfn:worker"}), false),
            ("no issuer", json!({"iss": null}), false),
            ("other run", json!({"id": "another"}), false),
            ("no run", json!({"id": null}), false),
            ("other subject", json!({"sub": "run:another"}), false),
        ];
        for (name, changes, valid) in cases {
            let result = key.verify(&sign(0, &claims(changes)), RUN);
            assert_eq!(result.is_ok(), valid, "{name}: {result:?}");
        }
    }

    #[test]
    fn only_lightnings_own_rs256_signature_is_taken() {
        let pem = public_pem();
        let key = RunTokenKey::from_base64_pem(&BASE64.encode(&pem)).unwrap();
        assert!(key.verify(&sign(1, &claims(json!({}))), RUN).is_err(), "another key");
        let by_public_key = EncodingKey::from_secret(pem.as_bytes());
        let forged = encode(&Header::new(Algorithm::HS256), &claims(json!({})), &by_public_key).unwrap();
        assert!(key.verify(&forged.into(), RUN).is_err(), "HS256 with the public key");
        let url = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let unsigned = format!("{}.{}.", url.encode(r#"{"alg":"none"}"#), url.encode(claims(json!({})).to_string()));
        assert!(key.verify(&unsigned.into(), RUN).is_err(), "none");
        for junk in ["", "a.b.c", "not a token"] {
            assert!(key.verify(&junk.into(), RUN).is_err(), "{junk}");
        }
    }

    #[test]
    fn a_refused_token_tells_what_is_wrong_here() {
        let key = RunTokenKey::from_base64_pem(&public_pem()).unwrap();
        let fault = |signer: usize, changes: Value| {
            let token = sign(signer, &claims(changes));
            TokenFault::of(&key.verify(&token, RUN).unwrap_err(), &token).to_string()
        };
        for (name, said, expected) in [
            ("another key", fault(1, json!({})), "the public key does not fit: InvalidSignature"),
            ("another key and time", fault(1, json!({"nbf": now() + 500})), "the public key does not fit"),
            ("from the future", fault(0, json!({"nbf": now() + 120, "exp": now() + 500})), "s behind Lightning's"),
            ("from the past", fault(0, json!({"nbf": now() - 900, "exp": now() - 300})), "s ahead of Lightning's"),
            ("of another run", fault(0, json!({"id": "x"})), "not as Lightning makes them: it is for the run `x`"),
            ("of another issuer", fault(0, json!({"iss": "x"})), "not as Lightning makes them"),
        ] {
            assert!(said.contains(expected), "{name}: {said}");
        }
        let seconds = |said: String| said.split(' ').find_map(|word| word.parse::<i64>().ok()).unwrap();
        let behind = seconds(fault(0, json!({"nbf": now() + 120, "exp": now() + 500})));
        assert!((100..=120).contains(&behind), "{behind}");
        let ahead = seconds(fault(0, json!({"nbf": now() - 900, "exp": now() - 300})));
        assert!((900..=920).contains(&ahead), "{ahead}");
    }

    #[test]
    fn public_keys() {
        let rsa_pem = RsaPublicKey::from(&keys()[0]).to_pkcs1_pem(LineEnding::LF).unwrap();
        assert!(rsa_pem.contains("RSA PUBLIC KEY"));
        let key = RunTokenKey::from_base64_pem(&BASE64.encode(rsa_pem)).unwrap();
        assert!(key.verify(&sign(0, &claims(json!({}))), RUN).is_ok());
        assert!(matches!(RunTokenKey::from_base64_pem("%%%"), Err(InvalidPublicKey::Base64(_))));
        assert!(matches!(RunTokenKey::from_base64_pem(&BASE64.encode("no pem")), Err(InvalidPublicKey::NotPublic)));
        let broken = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        assert!(matches!(RunTokenKey::from_base64_pem(broken), Err(InvalidPublicKey::Pem(_))));
        let private = public_pem().replace("PUBLIC", "PRIVATE");
        assert!(matches!(RunTokenKey::from_base64_pem(&BASE64.encode(private)), Err(InvalidPublicKey::NotPublic)));
        assert!(RunTokenKey::from_base64_pem(&public_pem()).is_ok(), "as it stands in a file");
    }

    #[test]
    fn a_lifetime_does_not_depend_on_the_clock() {
        let long_ago = json!({"nbf": 1000, "exp": 1300});
        assert_eq!(lifetime(&sign(1, &claims(long_ago))), Some(Duration::from_secs(300)));
        assert_eq!(lifetime(&sign(0, &claims(json!({"exp": 5})))), Some(Duration::ZERO));
        let left = lifetime(&sign(1, &claims(json!({"nbf": null})))).unwrap();
        assert!(left <= Duration::from_secs(60) && left > Duration::from_secs(30), "{left:?}");
        assert_eq!(lifetime(&"a mock's token".into()), None);
    }
}
