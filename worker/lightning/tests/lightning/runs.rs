//! Runs that go well.

use std::sync::Arc;

use lightning::{Collections, RunTokenKey};
use mock_lightning::{DataclipReply, Dialect, MockOptions, RunState};
use protocol::run::{Exit, ExitReason, StepInput, StepOutput};
use serde_json::json;
use tokio::sync::Barrier;

use crate::fake::*;

#[tokio::test]
async fn a_run_from_its_plan_to_its_end() {
    let seen = Seen::default();
    let given = seen.clone();
    let it = setting(
        1,
        FakeHosts::new(move |spec, host| {
            given.add(&spec);
            host.trivial(spec)
        }),
    )
    .await;
    it.mock.add_dataclip("in", json!({"data": {"x": "é\"\n"}}));
    it.mock.add_credential("c", json!({"user": "ann", "password": "hunter22"}));
    let mut plan = one_job();
    plan["dataclip_id"] = "in".into();
    plan["jobs"][0]["credential_id"] = "c".into();
    let run = it.run(&plan).await;
    it.assert_nothing_was_refused();

    let spec = seen.only();
    assert_eq!(spec.input.decode::<serde_json::Value>().unwrap(), json!({"data": {"x": "é\"\n"}}));
    assert_eq!(spec.steps[0].configuration.as_ref().unwrap().as_str(), r#"{"user":"ann","password":"hunter22"}"#);
    assert_eq!(order(&run), ["run:start", "step:start", "step:complete", "run:complete"]);
    assert_eq!(
        (run.state, run.reason.as_deref(), run.error_type.as_deref()),
        (RunState::Success, Some("success"), None)
    );
    let told = |event: &str| run.events.iter().find(|it| it.event == event).unwrap().payload["timestamp"].clone();
    assert_eq!((told("step:start"), told("step:complete")), (json!("1700000000500000"), json!("1700000002000000")));
    assert_eq!(run.final_state, Some(json!({"data": {"x": "é\"\n"}})));
    assert_eq!(run.steps[0].input_dataclip_id.as_deref(), Some("in"));
    assert_eq!(run.final_dataclip_id, run.steps[0].output_dataclip_id);
    assert_eq!(it.mock.dataclip(run.final_dataclip_id.as_deref().unwrap()), Some(json!({"data": {"x": "é\"\n"}})));
    let versions = run.versions.unwrap();
    assert_eq!(versions["engine"], "fake 1.0.0");
    assert_eq!(versions["@openfn/language-common"], json!(["3.3.4"]));
    let sources: Vec<_> = run.logs.iter().map(|log| log.line["source"].as_str().unwrap()).collect();
    assert_eq!(sources, ["VER", "RTE", "RTE", "RTE", "JOB", "R/T"]);
    let line = &run.logs[4].line;
    assert_eq!((&line["message"], &line["timestamp"]), (&json!(["hello", {"n": 1}]), &json!("4000000000000000")));
    assert_eq!(line["step_id"], run.steps[0].step_id.as_str());
    assert_eq!(run.logs[5].line["message"], json!(["Run complete with status: success"]));
}

#[tokio::test]
async fn the_development_mock_is_understood() {
    let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
    let mock = MockOptions {
        dialect: Dialect::ReferenceMock,
        dataclip_reply: DataclipReply::ByteArray,
        ..MockOptions::default()
    };
    let it = with_options(mock, hosts, |_| {}).await;
    it.joined().await;
    it.mock.add_dataclip("in", json!({"data": [1, 2]}));
    let mut plan = one_job();
    plan["dataclip_id"] = "in".into();
    for _ in 0..2 {
        assert_eq!(it.run(&plan).await.final_state, Some(json!({"data": [1, 2]})));
    }
}

#[tokio::test]
async fn several_runs_at_once() {
    let together = Arc::new(Barrier::new(4));
    let hosts = FakeHosts::new(move |spec, host| {
        let together = together.clone();
        async move {
            together.wait().await;
            host.trivial(spec).await;
        }
    });
    let it = setting(4, hosts).await;
    let ids: Vec<_> = (0..8).map(|_| it.mock.queue_run(one_job()).unwrap()).collect();
    it.mock.wake();
    for id in &ids {
        let run = it.end_of(id).await;
        assert_eq!((run.state, job_lines(&run).len()), (RunState::Success, 1));
    }
    it.assert_nothing_was_refused();
}

#[tokio::test]
async fn results_pass_from_step_to_step() {
    let hosts = FakeHosts::new(|_, host| async move {
        let fail = Exit::error(ExitReason::Fail, "JobError", "password is hunter22");
        host.run_started().await;
        host.step_started(0, "a", StepInput::Run).await;
        host.step_completed(0, "a", StepOutput::State(json(json!({"n": 1})))).await;
        host.step_started(1, "b", StepInput::Step(0)).await;
        host.step_completed(1, "b", StepOutput::TooLarge(99)).await;
        host.step_started(2, "c", StepInput::Step(1)).await;
        host.step_ended(2, "c", StepOutput::State(json(json!({}))), fail.clone()).await;
        host.finish(fail, Some(json!({"b": 1, "c": 2})), None).await;
    });
    let it = setting(1, hosts).await;
    it.mock.add_credential("k", json!({"password": "hunter22"}));
    let job = |id: &str| json!({"id": id, "body": "fn(s => s)", "credential_id": "k"});
    let run = it.run(&json!({"jobs": [job("a"), job("b"), job("c")]})).await;
    it.assert_nothing_was_refused();
    let inputs: Vec<_> = run.steps.iter().map(|step| step.input_dataclip_id.clone()).collect();
    assert_eq!(inputs, [None, run.steps[0].output_dataclip_id.clone(), None]);
    assert_eq!(run.steps[1].output_dataclip_error.as_deref(), Some("DATACLIP_TOO_LARGE"));
    assert_eq!((run.state, run.error_type.as_deref()), (RunState::Failed, Some("JobError")));
    assert_eq!(run.error_message.as_deref(), Some("password is ***"));
    assert_eq!(run.logs.last().unwrap().line["message"], json!(["JobError: password is ***"]));
    assert_eq!((run.final_state, run.final_dataclip_id), (Some(json!({"b": 1, "c": 2})), None));
}

#[tokio::test]
async fn secrets_do_not_reach_the_log() {
    let hosts = FakeHosts::new(|spec, host| async move {
        host.run_started().await;
        host.log(json!([{"user": "ann", "password": "hunter22"}, "x hunter22 \"y\""])).await;
        host.trivial(spec).await;
    });
    let it = setting(1, hosts).await;
    let mut plan = one_job();
    plan["jobs"][0]["credential"] = json!({"user": "ann", "password": "hunter22"});
    let run = it.run(&plan).await;
    assert_eq!(job_lines(&run)[0], json!([{"user": "ann", "password": "***"}, "x *** \"y\""]));
}

#[tokio::test]
async fn raw_states_and_collections() {
    let seen = Seen::default();
    let given = seen.clone();
    let hosts = FakeHosts::new(move |spec, host| {
        given.add(&spec);
        host.trivial(spec)
    });
    let it = with_options(MockOptions::default(), hosts, |options| {
        options.stringify_state = false;
        options.collections = Some(Collections { url: "http://c".into(), version: "1.0.0".into() });
    })
    .await;
    let mut plan = one_job();
    plan["jobs"][0]["body"] = "collections.get('x')".into();
    let run = it.run(&plan).await;
    it.assert_nothing_was_refused();
    let complete = run.events.iter().find(|event| event.event == "step:complete").unwrap();
    assert_eq!(complete.payload["output_dataclip"], json!({}));
    let spec = seen.only();
    assert_eq!(spec.steps[0].adaptors[1], "@openfn/language-collections@1.0.0");
    let configuration: serde_json::Value = spec.configuration.unwrap().decode().unwrap();
    assert_eq!(configuration["collections_endpoint"], "http://c");
}

#[tokio::test]
async fn signed_runs_are_taken_and_others_are_refused_alone() {
    use base64::Engine as _;
    use rsa::pkcs1::EncodeRsaPrivateKey;
    use rsa::pkcs8::{EncodePublicKey, LineEnding};
    let keys = [(); 2].map(|()| rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 1024).unwrap());
    let public = keys[0].to_public_key().to_public_key_pem(LineEnding::LF).unwrap();
    let public = RunTokenKey::from_base64_pem(&base64::engine::general_purpose::STANDARD.encode(public)).unwrap();
    for (key, taken) in [(&keys[0], true), (&keys[1], false)] {
        let pem = key.to_pkcs1_pem(LineEnding::LF).unwrap().to_string();
        let mock = MockOptions { private_key: Some(pem.into()), ..MockOptions::default() };
        let hosts = FakeHosts::new(|spec, host| host.trivial(spec));
        let it = with_options(mock, hosts, |options| options.public_key = Some(public.clone())).await;
        it.joined().await;
        let id = it.queue(&one_job());
        if taken {
            assert_eq!(it.end_of(&id).await.state, RunState::Success);
        } else {
            let mut status = it.lightning.watch();
            let refused = status.wait_for(|status| status.refused_tokens == 1);
            tokio::time::timeout(DEADLINE, refused).await.unwrap().unwrap();
            assert!(it.lightning.status().joined, "the worker goes on");
            let run = it.end_of(&id).await;
            assert_eq!((run.state, run.error_type.as_deref()), (RunState::Exception, Some("InvalidTokenError")));
        }
    }
}
