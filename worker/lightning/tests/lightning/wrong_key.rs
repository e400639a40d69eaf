//! A worker whose public key is not Lightning's does not empty the queue.

use std::time::Duration;

use lightning::{ClaimError, RunTokenKey, Workloop};
use mock_lightning::{MockLightning, MockOptions, RunState};
use rsa::pkcs8::{EncodePublicKey, LineEnding};
use tokio::time::sleep;

use crate::fake::*;
use crate::network::simulate;

const SECOND: Duration = Duration::from_secs(1);

/// Ids of the runs that were claimed so far.
fn claimed(mock: &MockLightning) -> Vec<String> {
    mock.activity().claims.into_iter().flat_map(|claim| claim.runs).collect()
}

#[test]
fn its_claims_stop_but_for_one_run_a_minute() {
    let another = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 1024).unwrap();
    let another = another.to_public_key().to_public_key_pem(LineEnding::LF).unwrap();
    let another = RunTokenKey::from_base64_pem(&another).unwrap();
    simulate(|log| async move {
        let private_key = Some(include_str!("../../../mock-lightning/tests/mock_lightning/key.pem").into());
        let mock = MockOptions { private_key, ..MockOptions::default() };
        let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
        let it = in_memory(mock, Duration::from_millis(5), hosts, |options| {
            options.public_key = Some(another);
            options.workloops = vec![Workloop::standard(20), Workloop::standard(20)];
            options.backoff = (SECOND, 10 * SECOND);
        });
        for _ in 0..50 {
            it.mock.queue_run(one_job()).unwrap();
        }
        it.joined().await;
        sleep(59 * SECOND).await;
        let runs = claimed(&it.mock);
        assert!((3..=5).contains(&runs.len()), "{runs:?}");
        let fault = it.lightning.status().token_fault.unwrap();
        assert!(fault.starts_with("the public key does not fit: "), "{fault}");
        assert_eq!(it.lightning.claim_once().await, Err(ClaimError::TokensRefused));
        assert_eq!(log.lines_with(&["ERROR", "token circuit open", "public key"]).len(), 1, "{}", log.text());

        // Lightning knows what became of those that were claimed.
        for id in &runs {
            let run = it.end_of(id).await;
            assert_eq!((run.state, run.error_type.as_deref()), (RunState::Exception, Some("InvalidTokenError")));
            assert!(run.error_message.unwrap().contains("public key"));
        }
        let before = runs.len();
        sleep(185 * SECOND).await;
        let probes = claimed(&it.mock).len() - before;
        assert!((3..=4).contains(&probes), "{probes}");
        assert_eq!(it.lightning.status().active_runs, 0);
    });
}
