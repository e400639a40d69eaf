//! Whether a queue's store takes the queue's token.

use std::collections::HashSet;

use base::metrics::metrics;
use parking_lot::Mutex;

use crate::client::ClientError;

/// What the store was asked for: what its answer tells about the token depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask<'a> {
    /// Reading, which tells nothing about writing.
    Read,
    /// Writing to this resource.
    Write(&'a str),
    /// This resource, which is written only if it is not there.
    Ensure(&'a str),
}

/// What the store has said of the token. It is told when that changes, not with each request.
#[derive(Debug)]
pub(super) struct Access {
    service: String,
    queue: String,
    standing: Mutex<Standing>,
}

/// What is known of the token. A store that refuses to have one resource written may refuse the token, or that resource
/// alone: it is the resource if others are written and it is refused again.
#[derive(Debug, Default)]
struct Standing {
    refusal: Option<Refusal>,
    /// Refused before others were written.
    suspects: HashSet<String>,
    /// Refused though others are written.
    lacking: HashSet<String>,
}

/// Why the token is taken to be refused.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// It was refused by itself.
    Token,
    /// These were not to be written with it, and nothing was since.
    Writes(HashSet<String>),
}

/// An answer of the store, as far as it is about the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Done,
    Unauthorized,
    Forbidden,
}

/// A change that is worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Refused,
    TakenAgain,
    Lacking,
}

impl Standing {
    fn hear(&mut self, ask: Ask<'_>, answer: Answer) -> Option<News> {
        match (answer, ask) {
            (Answer::Done, Ask::Write(place)) => {
                self.suspects.remove(place);
                self.lacking.remove(place);
                let refusal = self.refusal.take()?;
                if let Refusal::Writes(mut places) = refusal {
                    places.remove(place);
                    self.suspects.extend(places);
                }
                Some(News::TakenAgain)
            }
            (Answer::Done, Ask::Read | Ask::Ensure(_)) => {
                let is_over = match (&mut self.refusal, ask) {
                    (Some(Refusal::Token), _) => true,
                    (Some(Refusal::Writes(places)), Ask::Ensure(place)) => places.remove(place) && places.is_empty(),
                    _ => false,
                };
                self.taken_again_if(is_over)
            }
            (Answer::Forbidden, Ask::Write(place) | Ask::Ensure(place)) => match &mut self.refusal {
                _ if self.lacking.contains(place) => None,
                Some(Refusal::Writes(places)) => {
                    places.insert(place.to_owned());
                    None
                }
                None if self.suspects.remove(place) => {
                    self.lacking.insert(place.to_owned());
                    Some(News::Lacking)
                }
                refusal => {
                    let is_news = refusal.is_none();
                    *refusal = Some(Refusal::Writes(HashSet::from([place.to_owned()])));
                    is_news.then_some(News::Refused)
                }
            },
            (Answer::Unauthorized | Answer::Forbidden, _) => match self.refusal {
                Some(_) => None,
                None => {
                    self.refusal = Some(Refusal::Token);
                    Some(News::Refused)
                }
            },
        }
    }

    /// Forgets jobs that nobody is to write to any more.
    fn keep_jobs(&mut self, is_there: impl Fn(&str) -> bool) -> Option<News> {
        let is_kept = |place: &String| !place.starts_with("resources/") || is_there(place);
        self.suspects.retain(is_kept);
        self.lacking.retain(is_kept);
        let is_over = match &mut self.refusal {
            Some(Refusal::Writes(places)) => {
                places.retain(is_kept);
                places.is_empty()
            }
            _ => false,
        };
        self.taken_again_if(is_over)
    }

    fn taken_again_if(&mut self, is_over: bool) -> Option<News> {
        is_over.then(|| {
            self.refusal = None;
            News::TakenAgain
        })
    }
}

impl Access {
    pub(super) fn new(service: &str, queue: &str) -> Self {
        Self { service: service.to_owned(), queue: queue.to_owned(), standing: Mutex::default() }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.standing.lock().refusal.is_some()
    }

    /// Something of the service's own was asked, with this outcome.
    pub(super) fn heard<T>(&self, ask: Ask<'_>, outcome: &Result<T, ClientError>) {
        let (answer, error) = match outcome {
            Ok(_) => (Answer::Done, None),
            Err(error) if error.status() == Some(401) => (Answer::Unauthorized, Some(error)),
            Err(error) if error.is_unauthorized() => (Answer::Forbidden, Some(error)),
            // Says nothing about the token.
            Err(_) => return,
        };
        let news = self.standing.lock().hear(ask, answer);
        self.tell(news, error);
    }

    /// Only these jobs are there.
    pub(super) fn keep_jobs(&self, is_there: impl Fn(&str) -> bool) {
        let news = self.standing.lock().keep_jobs(is_there);
        self.tell(news, None);
    }

    fn tell(&self, news: Option<News>, error: Option<&ClientError>) {
        let (queue, gauge) = (&self.queue, metrics().oada_queues_refused(&self.service));
        let why = error.map(ToString::to_string).unwrap_or_default();
        match news {
            Some(News::Refused) => {
                gauge.inc();
                tracing::error!(
                    queue,
                    "the store refuses the queue's token: {why}; its jobs wait until it is taken again"
                );
            }
            Some(News::TakenAgain) => {
                gauge.dec();
                tracing::info!(queue, "the store accepts the queue's token again");
            }
            Some(News::Lacking) => {
                tracing::warn!(queue, "the store takes the queue's token, but not here: {why}; it is tried again");
            }
            None => {}
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if self.is_refused() {
            metrics().oada_queues_refused(&self.service).dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(method: &'static str, status: u16) -> Result<(), ClientError> {
        let (path, message, answer) = ("/resources/J".to_owned(), String::new(), Box::default());
        Err(ClientError::Status { method, path, status, message, answer })
    }

    #[test]
    fn a_token_is_refused_until_something_is_done_with_it() {
        let access = Access::new("service of a test", "q");
        let gauge = || metrics().oada_queues_refused("service of a test").get();
        let write = Ask::Write("resources/J");
        // What is not there is answered like what must not be read.
        for (ask, outcome, refused) in [
            (Ask::Read, Ok(()), false),
            (Ask::Read, answered("get", 403), false),
            (write, answered("put", 403), true),
            (Ask::Read, answered("get", 404), true),
            (Ask::Read, Ok(()), true),
            (write, answered("put", 500), true),
            (write, Err(ClientError::Closed), true),
            (write, Ok(()), false),
            (Ask::Read, answered("get", 401), true),
            (Ask::Read, Ok(()), false),
            (Ask::Read, answered("get", 401), true),
        ] {
            access.heard(ask, &outcome);
            assert_eq!((access.is_refused(), gauge()), (refused, i64::from(refused)), "{outcome:?}");
        }
        drop(access);
        assert_eq!(gauge(), 0);
    }

    #[test]
    fn a_resource_that_alone_is_refused_is_told_once() {
        use Answer::{Done, Forbidden, Unauthorized};
        let (one, two, list) = (Ask::Write("resources/1"), Ask::Write("resources/2"), Ask::Ensure("/list"));
        let refused = Some(News::Refused);
        let again = Some(News::TakenAgain);
        type Steps<'a> = &'a [(Ask<'a>, Answer, Option<News>)];
        let table: &[Steps<'_>] = &[
            // Another is written: it is the resource.
            &[
                (one, Forbidden, refused),
                (two, Done, again),
                (one, Forbidden, Some(News::Lacking)),
                (two, Done, None),
                (one, Forbidden, None),
                (one, Done, None),
                (one, Forbidden, refused),
            ],
            // Nothing is written: it is the token.
            &[
                (one, Forbidden, refused),
                (Ask::Read, Done, None),
                (list, Done, None),
                (two, Forbidden, None),
                (one, Done, again),
                (two, Done, None),
            ],
            &[(list, Forbidden, refused), (Ask::Read, Done, None), (list, Done, again)],
            &[(one, Unauthorized, refused), (two, Forbidden, None), (Ask::Read, Done, None), (one, Done, again)],
        ];
        for (number, steps) in table.iter().enumerate() {
            let mut standing = Standing::default();
            for (at, (ask, answer, news)) in steps.iter().enumerate() {
                assert_eq!(standing.hear(*ask, *answer), *news, "case {number}, step {at}");
            }
        }
    }

    #[test]
    fn what_was_refused_is_forgotten_with_its_job() {
        let mut standing = Standing::default();
        standing.hear(Ask::Write("resources/1"), Answer::Forbidden);
        assert_eq!(standing.keep_jobs(|id| id == "resources/1"), None);
        assert_eq!(standing.keep_jobs(|_| false), Some(News::TakenAgain));
        standing.hear(Ask::Write("/shelf"), Answer::Forbidden);
        assert_eq!(standing.keep_jobs(|_| false), None, "only jobs are");
    }
}
