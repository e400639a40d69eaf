//! Hooks: what tests make the double do wrong.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mock_lightning::{HookVerdict, Hooks, Incoming, MockLightning, MockOptions, RunState, start};
use serde_json::{Value, json};

use crate::client::{Client, claim, plan};

const COMPLETE: &str = "run:complete";

/// When a verdict is given.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Message,
    Reply,
}

/// Gives its verdicts for one event, one after the other, then lets all pass.
struct Script {
    event: &'static str,
    at: At,
    verdicts: Mutex<VecDeque<HookVerdict>>,
}

impl Script {
    fn next(&self, at: At, message: &Incoming<'_>) -> HookVerdict {
        if at != self.at || message.event != self.event {
            return HookVerdict::GoOn;
        }
        self.verdicts.lock().unwrap().pop_front().unwrap_or(HookVerdict::GoOn)
    }
}

impl Hooks for Script {
    fn before_message(&self, message: &Incoming<'_>) -> HookVerdict {
        self.next(At::Message, message)
    }

    fn before_reply(&self, message: &Incoming<'_>, _accepted: bool) -> HookVerdict {
        self.next(At::Reply, message)
    }
}

/// A double with a script, a client that has joined its queue, and the id of the run in it.
async fn scripted(event: &'static str, at: At, verdicts: &[HookVerdict]) -> (MockLightning, Client, String) {
    let script = Script { event, at, verdicts: Mutex::new(verdicts.iter().cloned().collect()) };
    let mock = start(MockOptions { hooks: Arc::new(script), ..MockOptions::default() }).await.unwrap();
    let id = mock.queue_run(plan()).unwrap();
    let mut client = Client::connect(&mock).await;
    client.join_queue().await;
    (mock, client, id)
}

fn complete() -> Value {
    json!({"reason": "success", "timestamp": "1700000000000"})
}

fn state(mock: &MockLightning, id: &str) -> RunState {
    mock.run(id).unwrap().state
}

#[tokio::test]
async fn a_delayed_message_holds_back_its_own_channel_only() {
    let delay = HookVerdict::Delay(Duration::from_secs(3600));
    let (mock, mut client, id) = scripted("fetch:plan", At::Message, &[delay]).await;
    let run = client.take_joined_run().await;
    client.push(&run, "fetch:plan", json!({})).await;
    client.push(&run, COMPLETE, complete()).await;
    assert_eq!(client.claim(1).await, []);
    assert_eq!(state(&mock, &id), RunState::Claimed);
}

#[tokio::test]
async fn after_a_delay_all_goes_on_in_order() {
    for at in [At::Message, At::Reply] {
        let delay = HookVerdict::Delay(Duration::from_millis(1));
        let (mock, mut client, id) = scripted("fetch:plan", at, &[delay]).await;
        let run = client.take_joined_run().await;
        let plan = client.push(&run, "fetch:plan", json!({})).await;
        let end = client.push(&run, COMPLETE, complete()).await;
        for reference in [plan, end] {
            assert_eq!(client.next().await.unwrap().reference, json!(reference));
        }
        assert_eq!(state(&mock, &id), RunState::Success);
    }
}

#[tokio::test]
async fn a_dropped_message_is_not_handled() {
    let (mock, mut client, id) = scripted(COMPLETE, At::Message, &[HookVerdict::Drop]).await;
    let run = client.take_joined_run().await;
    client.push(&run, COMPLETE, complete()).await;
    client.call(&run, "fetch:plan", json!({})).await.unwrap();
    assert_eq!(state(&mock, &id), RunState::Claimed);
}

#[tokio::test]
async fn a_message_whose_reply_is_dropped_is_handled() {
    let (mock, mut client, id) = scripted(COMPLETE, At::Reply, &[HookVerdict::Drop]).await;
    let run = client.take_joined_run().await;
    client.push(&run, COMPLETE, complete()).await;
    let completed = Err(json!({"state": ["already in completed state"]}));
    assert_eq!(client.call(&run, COMPLETE, complete()).await, completed, "the channel knows what it did");
    assert_eq!(state(&mock, &id), RunState::Success);
}

#[tokio::test]
async fn a_refusal_is_the_hooks_and_no_violation() {
    for (at, expected) in [(At::Message, RunState::Claimed), (At::Reply, RunState::Success)] {
        let (mock, mut client, id) = scripted(COMPLETE, at, &[HookVerdict::Refuse(json!("busy"))]).await;
        let run = client.take_joined_run().await;
        assert_eq!(client.call(&run, COMPLETE, complete()).await, Err(json!("busy")));
        assert_eq!(state(&mock, &id), expected);
        assert!(mock.violations().is_empty());
    }
}

#[tokio::test]
async fn a_closed_channel_can_be_joined_again() {
    let (mock, mut client, id) = scripted(COMPLETE, At::Message, &[HookVerdict::CloseChannel]).await;
    let (_, token) = client.claim(1).await.pop().unwrap();
    let run = format!("run:{id}");
    client.call(&run, "phx_join", json!({ "token": token })).await.unwrap();
    client.push(&run, COMPLETE, complete()).await;
    assert_eq!(client.next().await.unwrap().event, "phx_error");
    client.call(&run, "phx_join", json!({ "token": token })).await.unwrap();
    client.call(&run, COMPLETE, complete()).await.unwrap();
    assert_eq!(state(&mock, &id), RunState::Success);
}

#[tokio::test]
async fn a_closed_socket_leaves_what_was_handled() {
    for (at, expected) in [(At::Message, RunState::Claimed), (At::Reply, RunState::Success)] {
        let (mock, mut client, id) = scripted(COMPLETE, at, &[HookVerdict::CloseSocket]).await;
        let run = client.take_joined_run().await;
        client.push(&run, COMPLETE, complete()).await;
        assert_eq!(client.next().await, None);
        assert_eq!(state(&mock, &id), expected);
    }
}

#[tokio::test]
async fn a_claim_whose_socket_ends_is_rolled_back() {
    let (mock, mut client, id) = scripted("claim", At::Reply, &[HookVerdict::CloseSocket]).await;
    client.push("worker:queue", "claim", claim(1)).await;
    assert_eq!(client.next().await, None);
    let mut client = Client::connect(&mock).await;
    client.join_queue().await;
    assert_eq!(client.claim(1).await.len(), 1);
    assert_eq!(state(&mock, &id), RunState::Claimed);
}

#[tokio::test]
async fn a_claim_whose_reply_is_on_its_way_when_the_socket_ends_is_not() {
    let (mock, mut client, id) = scripted("claim", At::Reply, &[HookVerdict::LoseReply]).await;
    client.push("worker:queue", "claim", claim(1)).await;
    assert_eq!(client.next().await, None);
    let mut client = Client::connect(&mock).await;
    client.join_queue().await;
    assert_eq!(client.claim(1).await, []);
    assert_eq!(state(&mock, &id), RunState::Claimed);
}

#[tokio::test]
async fn a_claim_in_a_server_that_is_killed_is_not_rolled_back() {
    let (mock, mut client, id) = scripted("claim", At::Reply, &[HookVerdict::Delay(Duration::from_secs(3600))]).await;
    client.push("worker:queue", "claim", claim(1)).await;
    while state(&mock, &id) == RunState::Available {
        tokio::task::yield_now().await;
    }
    mock.cut_sockets();
    assert_eq!(client.next().await, None);
    assert_eq!(state(&mock, &id), RunState::Claimed);
}

#[tokio::test]
async fn a_claim_whose_reply_is_lost_is_not() {
    let (mock, mut client, id) = scripted("claim", At::Reply, &[HookVerdict::Drop]).await;
    client.push("worker:queue", "claim", claim(1)).await;
    assert_eq!(client.claim(1).await, []);
    assert_eq!(state(&mock, &id), RunState::Claimed);
}

#[tokio::test]
async fn a_join_that_a_hook_refuses_is_none() {
    for at in [At::Message, At::Reply] {
        let script = Script {
            event: "phx_join",
            at,
            verdicts: Mutex::new([HookVerdict::Refuse(json!({"reason": "busy"}))].into()),
        };
        let mock = start(MockOptions { hooks: Arc::new(script), ..MockOptions::default() }).await.unwrap();
        let mut client = Client::connect(&mock).await;
        let payload = json!({"capacity": 1, "queues": {"*": 1}});
        let refused = client.call("worker:queue", "phx_join", payload).await;
        assert_eq!(refused, Err(json!({"reason": "busy"})));
        let unmatched = Err(json!({"reason": "unmatched topic"}));
        assert_eq!(client.call("worker:queue", "claim", claim(1)).await, unmatched);
        client.join_queue().await;
    }
}
