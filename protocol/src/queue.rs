//! A queue that is bounded by what its items weigh, in bytes, so that many small ones may wait, or a few large ones.
//!
//! An item that weighs more than the whole queue may is let through when nothing else waits.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// What an item costs beside its bytes. It bounds the number of items that weigh nothing.
const ITEM: usize = 128;

/// A queue in which items of that many bytes may wait.
pub fn channel<T>(bytes: usize) -> (Sender<T>, Receiver<T>) {
    let (items, taken) = mpsc::unbounded_channel();
    (Sender { items, budget: Arc::new(Budget::new(bytes)) }, Receiver { items: taken })
}

struct Item<T> {
    content: T,
    bytes: usize,
    /// Given back when the item is taken or dropped.
    _room: OwnedSemaphorePermit,
}

/// The end at which items go in. Clones share the queue.
#[derive(derive_more::Debug)]
#[debug("Sender {{ is_closed: {}, .. }}", self.is_closed())]
pub struct Sender<T> {
    items: mpsc::UnboundedSender<Item<T>>,
    budget: Arc<Budget>,
}

impl<T> Sender<T> {
    /// Waits for room for an item of that many bytes, in the order of asking. An error gives the item back: nobody takes
    /// it any more. Dropping the future loses the item.
    pub async fn send(&self, content: T, bytes: usize) -> Result<(), Closed<T>> {
        match tokio::select! {
            biased;
            () = self.items.closed() => None,
            room = self.budget.take(bytes) => room,
        } {
            Some(room) => self.put(content, bytes, room),
            None => Err(Closed(content)),
        }
    }

    /// Puts an item in if there is room for it now, and nobody waits for room.
    pub fn try_send(&self, content: T, bytes: usize) -> Result<(), TrySendError<T>> {
        if self.is_closed() {
            return Err(TrySendError::Closed(content));
        }
        match self.budget.try_take(bytes) {
            Some(room) => self.put(content, bytes, room).map_err(|Closed(content)| TrySendError::Closed(content)),
            None => Err(TrySendError::Full(content)),
        }
    }

    /// Waits until nobody takes items any more.
    pub async fn closed(&self) {
        self.items.closed().await;
    }

    /// Whether nobody takes items any more.
    pub fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    fn put(&self, content: T, bytes: usize, room: OwnedSemaphorePermit) -> Result<(), Closed<T>> {
        self.items.send(Item { content, bytes, _room: room }).map_err(|unsent| Closed(unsent.0.content))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), budget: Arc::clone(&self.budget) }
    }
}

/// The end at which items come out, in the order in which they went in.
#[derive(derive_more::Debug)]
#[debug("Receiver {{ waiting: {}, .. }}", self.len())]
pub struct Receiver<T> {
    items: mpsc::UnboundedReceiver<Item<T>>,
}

impl<T> Receiver<T> {
    /// The next item; none when all senders are gone and all items are taken. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<T> {
        self.recv_weighed().await.map(|(content, _)| content)
    }

    /// As [`recv`](Self::recv), with what the item weighs.
    pub async fn recv_weighed(&mut self) -> Option<(T, usize)> {
        self.items.recv().await.map(|item| (item.content, item.bytes))
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// Nobody takes items any more. The item comes back.
#[derive(derive_more::Debug, PartialEq, Eq, thiserror::Error)]
#[debug("Closed")]
#[error("nobody takes items from the queue any more")]
pub struct Closed<T>(pub T);

/// Why an item was not put in at once. It comes back.
#[derive(derive_more::Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<T> {
    /// There is no room for it now.
    #[error("the queue is full")]
    #[debug("Full")]
    Full(T),
    /// Nobody takes items any more.
    #[error("nobody takes items from the queue any more")]
    #[debug("Closed")]
    Closed(T),
}

impl<T> TrySendError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(content) | Self::Closed(content) => content,
        }
    }
}

/// How many bytes may wait in a queue.
pub(crate) struct Budget {
    room: Arc<Semaphore>,
    all: u32,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let all = u32::try_from(bytes.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self { room: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Waits for room for an item, in the order of asking; an item that is larger than all the room gets all of
    /// it. The room is given back when the permit is dropped. None when the budget is closed.
    pub(crate) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).acquire_many_owned(self.cost(bytes)).await.ok()
    }

    /// Room for an item, if there is some now.
    fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_many_owned(self.cost(bytes)).ok()
    }

    fn cost(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.saturating_add(ITEM)).unwrap_or(u32::MAX).min(self.all)
    }

    /// Nobody gets room any more.
    pub(crate) fn close(&self) {
        self.room.close();
    }

    #[cfg(test)]
    pub(crate) fn available(&self) -> usize {
        self.room.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What a future gives that need not wait.
    fn now<F: Future>(future: F) -> Option<F::Output> {
        tokio::task::unconstrained(future).now_or_never()
    }

    #[test]
    fn what_fits_in_goes_in() {
        // Bytes of the queue, of what waits in it, of what comes; whether it goes in.
        let cases: [(usize, &[usize], usize, bool); 9] = [
            (1000, &[], 0, true),
            (1000, &[], 1000 - ITEM, true),
            (1000, &[], 1000 - ITEM + 1, true),
            (1000, &[], usize::MAX, true),
            (1000, &[0], usize::MAX, false),
            (1000, &[300], 1000 - 300 - 2 * ITEM, true),
            (1000, &[300], 1000 - 300 - 2 * ITEM + 1, false),
            (1000, &[0; 6], 0, true),
            (1000, &[0; 7], 0, false),
        ];
        for (room, waiting, bytes, fits) in cases {
            let (sender, _receiver) = channel(room);
            waiting.iter().for_each(|bytes| sender.try_send((), *bytes).unwrap());
            let sent = sender.try_send((), bytes);
            assert_eq!(sent, if fits { Ok(()) } else { Err(TrySendError::Full(())) }, "{room} {waiting:?} {bytes}");
        }
    }

    #[tokio::test]
    async fn who_waits_for_room_gets_it_in_turn() {
        let (sender, mut receiver) = channel(1000);
        sender.try_send(0, 5000).unwrap();
        let (large, small) = (sender.clone(), sender.clone());
        let large = tokio::spawn(async move { large.send(1, 5000).await });
        tokio::task::yield_now().await;
        let small = tokio::spawn(async move { small.send(2, 0).await });
        tokio::task::yield_now().await;
        assert_eq!(now(receiver.recv()), Some(Some(0)));
        assert_eq!(sender.try_send(3, 0), Err(TrySendError::Full(3)), "others wait");
        large.await.unwrap().unwrap();
        assert!(!small.is_finished());
        assert_eq!(receiver.recv_weighed().await, Some((1, 5000)));
        small.await.unwrap().unwrap();
        drop(sender);
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(2), None));
    }

    #[tokio::test]
    async fn whoever_sends_learns_that_nobody_takes_it() {
        let (sender, receiver) = channel(1000);
        sender.try_send("first", 1000).unwrap();
        let waiting: Vec<_> = ["second", "third"]
            .map(|item| {
                let sender = sender.clone();
                tokio::spawn(async move { sender.send(item, 1000).await })
            })
            .into();
        tokio::task::yield_now().await;
        assert!(now(sender.closed()).is_none());
        drop(receiver);
        sender.closed().await;
        assert!(sender.is_closed());
        for (task, item) in waiting.into_iter().zip(["second", "third"]) {
            assert_eq!(task.await.unwrap(), Err(Closed(item)));
        }
        assert_eq!(sender.send("fourth", 0).await, Err(Closed("fourth")));
        assert_eq!(sender.try_send("fifth", 0), Err(TrySendError::Closed("fifth")));
    }

    proptest! {
        #[test]
        fn no_more_waits_than_may_and_nothing_is_lost_or_turned_round(
            room in 1..5000_usize,
            steps in vec(prop_oneof![3 => (0..6000_usize).prop_map(Some), 2 => Just(None)], 0..200),
        ) {
            let (sender, mut receiver) = channel(room);
            let (mut waiting, mut number) = (std::collections::VecDeque::new(), 0);
            for step in steps {
                match step {
                    Some(bytes) => {
                        if sender.try_send(number, bytes).is_ok() {
                            waiting.push_back((number, bytes));
                        } else {
                            prop_assert!(!waiting.is_empty(), "an empty queue takes anything");
                        }
                        number += 1;
                    }
                    None => prop_assert_eq!(now(receiver.recv_weighed()).flatten(), waiting.pop_front()),
                }
                let bytes: usize = waiting.iter().map(|(_, bytes)| bytes + ITEM).sum();
                prop_assert!(bytes <= room || waiting.len() == 1, "{waiting:?}");
                prop_assert_eq!(receiver.len(), waiting.len());
            }
            drop(sender);
            while let Some(item) = waiting.pop_front() {
                prop_assert_eq!(now(receiver.recv_weighed()).flatten(), Some(item));
            }
            prop_assert_eq!(now(receiver.recv()), Some(None));
        }
    }
}
