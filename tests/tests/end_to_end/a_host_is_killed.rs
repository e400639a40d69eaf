//! A host that is killed in the middle of a run harms that run alone.

use mock_lightning::RunState;
use rustix::process::Signal;
use tests::lightning::{self, LightningOptions, chain, end, logged, one_job, queue, until};
use tests::worker::{Worker, send};

#[tokio::test(flavor = "multi_thread")]
async fn its_run_crashes_and_others_go_on() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--capacity", "2"]).await;

    let patient =
        "fn(async s => { console.log('here'); await new Promise(r => setTimeout(r, 1500)); return { data: 1 }; })";
    let bystander = queue(&lightning, one_job(patient));
    until(&lightning, &worker, &bystander, |record| logged(record, "here")).await;
    let victim = chain(&[("a", "fn(s => s)"), ("b", "fn(s => { console.log('busy'); for (;;); })")]);
    let victim = queue(&lightning, victim);
    until(&lightning, &worker, &victim, |record| logged(record, "busy")).await;
    send(worker.host_of(&victim).pid, Signal::KILL);

    let record = end(&lightning, &worker, &victim).await;
    assert_eq!(record.state, RunState::Crashed);
    assert_eq!(record.error_type.as_deref(), Some("ExitError"));
    let message = record.error_message.as_deref().unwrap_or_default();
    assert!(message.contains("SIGKILL"), "{message}");
    let reasons: Vec<_> = record.steps.iter().map(|step| step.reason.as_deref()).collect();
    assert_eq!(reasons, [Some("success"), Some("crash")]);

    assert_eq!(end(&lightning, &worker, &bystander).await.state, RunState::Success);
    let next = queue(&lightning, one_job("fn(s => s)"));
    assert_eq!(end(&lightning, &worker, &next).await.state, RunState::Success);
    worker.stop().await;
    assert_eq!(lightning.violations(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_one_is_replaced_before_a_run_comes() {
    let lightning = lightning::start(LightningOptions::default()).await;
    let worker = Worker::start(&lightning, &["--capacity", "2"]).await;
    let first = queue(&lightning, one_job("fn(s => s)"));
    end(&lightning, &worker, &first).await;
    let pids: Vec<u32> = worker.hosts().iter().map(|host| host.pid).collect();
    for pid in pids {
        // One of them may just have ended by itself.
        if tests::processes::process(pid).is_some() {
            send(pid, Signal::KILL);
        }
    }
    for _ in 0..4 {
        let id = queue(&lightning, one_job("fn(s => s)"));
        assert_eq!(end(&lightning, &worker, &id).await.state, RunState::Success);
    }
    worker.stop().await;
}
