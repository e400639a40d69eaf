//! What hosts are answered that ask something of their own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use protocol::Json;
use protocol::link::{Responder, WorkerSide};
use protocol::message::{Refusal, WorkerReply};

type Answering = Pin<Box<dyn Future<Output = Result<Json, Refusal>> + Send>>;

/// A function that answers what the hosts of a pool ask, whether they are lent or not. Clones are the same.
#[derive(derive_more::Debug, Clone)]
#[debug("Answers")]
pub struct Answers(Arc<dyn Fn(String, Json) -> Answering + Send + Sync>);

impl Answers {
    /// Answers by `answer`, which gets the host's id and what it asks.
    pub fn new<F>(answer: impl Fn(String, Json) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Json, Refusal>> + Send + 'static,
    {
        Self(Arc::new(move |host, question| Box::pin(answer(host, question))))
    }

    /// Answers one question.
    pub(super) async fn answer(self, host: String, question: Json, responder: Responder<WorkerSide>) {
        match (self.0)(host, question).await {
            Ok(answer) => responder.reply(WorkerReply::Custom(answer)),
            Err(refusal) => responder.refuse(refusal),
        }
    }
}

impl PartialEq for Answers {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
