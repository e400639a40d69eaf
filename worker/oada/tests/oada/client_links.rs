//! A resource that is created and linked: in two steps, or in one that the store does.

use oada::client::EnsureLink;
use serde_json::json;
use tests::oada::{Action, Fault, Oada};

use crate::support::{JOBS, client, within};

const LIST: &str = "/resources/LIST";

#[tokio::test]
async fn in_two_steps_the_key_is_the_id() {
    let oada = Oada::start().await;
    oada.put(LIST, JOBS, json!({}));
    let client = client(&oada);
    oada.inject(Fault::new("cut", Action::DisconnectAfter).method("put").times(2));
    let posted = within("the post", &oada, client.post_linked(LIST, JOBS, json!({ "a": 1 }))).await.unwrap();
    assert_eq!(posted.id, format!("resources/{}", posted.key));
    let list = oada.get(LIST).unwrap();
    assert_eq!(list[&posted.key], json!({ "_id": posted.id }));
    let links = list.as_object().unwrap().keys().filter(|key| !key.starts_with('_')).count();
    assert_eq!(links, 1, "lost answers make no second one");
}

#[tokio::test]
async fn in_one_step_nobody_sees_a_link_to_an_unfinished_resource() {
    let oada = Oada::start().await;
    oada.put(LIST, JOBS, json!({}));
    let client = client(&oada);
    for (link, versioned) in [(EnsureLink::Unversioned, false), (EnsureLink::Versioned, true)] {
        let posted = client.post_ensuring_link(LIST, JOBS, json!({ "a": 1 }), link).await.unwrap();
        assert_eq!(oada.get(&format!("/{}/a", posted.id)), Some(json!(1)));
        let stored = oada.get(LIST).unwrap()[&posted.key].clone();
        assert_eq!((stored["_id"].as_str(), stored.get("_rev").is_some()), (Some(posted.id.as_str()), versioned));
    }
    assert_eq!(oada.requests("put", LIST).len(), 0);
}
