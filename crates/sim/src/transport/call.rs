//! What becomes of a call with one request and one reply.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::Route;

/// What was drawn for one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) refuse: bool,
    pub(super) delay: Option<Duration>,
    pub(super) lose_reply: bool,
    pub(super) duplicate: Option<Duration>,
    pub(super) late: Option<Duration>,
    /// Whichever of two things may be: see where it is used.
    pub(super) coin: bool,
}

/// Whether a request may be carried out more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing: repeating it shows nothing, and neither does being late.
    Reads,
    /// It may be late, and must not be repeated.
    Once,
    /// It may be repeated, and only the answer to the first one tells what it did.
    AnsweredFirst,
    /// It may be repeated, and either answer will do.
    Idempotent,
}

/// On which connection a request goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// The caller's.
    Present,
    /// One that is made for it, when it goes out.
    Fresh,
}

/// How a call fails in the words of its service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failures<E> {
    /// It certainly did nothing.
    pub(super) refused: E,
    /// Nobody knows.
    pub(super) lost: E,
}

impl Route {
    /// Makes a call and does to it what is drawn for it. `execute` sends the request once.
    pub(super) async fn call<T, E>(
        &self,
        name: &'static str,
        repeat: Repeat,
        failures: Failures<E>,
        execute: impl Fn(Line) -> BoxFuture<'static, Result<T, E>> + Clone + Send + Sync + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let fate = self.draw();
        if let Some(executed) = self.strikes(name) {
            self.note(name, format_args!("the caller dies, and the call is carried out: {executed}"));
            if executed {
                drop(execute(Line::Present).await);
            }
            return std::future::pending().await;
        }
        if fate.refuse {
            self.note(name, format_args!("refused"));
            return Err(failures.refused);
        }
        if let Some(delay) = fate.delay {
            self.note(name, format_args!("sent {delay:?} later"));
            sleep(delay).await;
        }
        let repeats = matches!(repeat, Repeat::AnsweredFirst | Repeat::Idempotent);
        if let (Some(after), true) = (fate.late, repeat != Repeat::Reads) {
            let only_then = fate.coin || !repeats;
            let times = if only_then { "carried out only" } else { "carried out again" };
            self.note(name, format_args!("{times} {after:?} later"));
            self.once_more(name, after, execute.clone());
            if only_then {
                return Err(failures.lost);
            }
        }
        let mut outcome = execute(Line::Present).await;
        if let (Some(after), true) = (fate.duplicate, repeats) {
            self.note(name, format_args!("carried out twice, {after:?} apart"));
            if !after.is_zero() {
                self.once_more(name, after, execute);
            } else {
                let second = execute(Line::Present).await;
                if repeat == Repeat::Idempotent && fate.coin {
                    outcome = second;
                }
            }
        }
        if fate.lose_reply {
            self.note(name, format_args!("the reply is lost"));
            return Err(failures.lost);
        }
        outcome
    }

    fn once_more<T: Send + 'static>(
        &self,
        name: &'static str,
        after: Duration,
        execute: impl Fn(Line) -> BoxFuture<'static, T> + Send + 'static,
    ) {
        let route = self.clone();
        self.detach(async move {
            sleep(after).await;
            route.note(name, format_args!("one that was sent {after:?} ago arrives"));
            drop(execute(Line::Fresh).await);
        });
    }
}
