//! A deadline that moves with each append, or with each part that is read.

use std::future::pending;
use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer, as long as this lives. To put it off costs nothing; a new one each time would have to be put in front of whatever
/// the runtime waits for, and often wake another thread for that.
#[derive(Debug, Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Returns at `deadline`, or at once after it.
    ///
    /// # Cancel safety
    /// Safe: the next call has its own deadline.
    pub async fn at(&mut self, deadline: Instant) {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().await;
    }

    /// The same; never without a deadline.
    ///
    /// # Cancel safety
    /// Safe: the next call has its own deadline.
    pub async fn at_any(&mut self, deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => self.at(deadline).await,
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_the_deadline_of_the_last_call_whichever_came_before() {
        let (mut alarm, begun) = (Alarm::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert!(alarm.at(after(2)).now_or_never().is_none());
        advance(Duration::from_secs(3)).await;
        assert!(alarm.at(after(5)).now_or_never().is_none(), "it has moved on");
        assert!(alarm.at(after(4)).now_or_never().is_none(), "and back");
        alarm.at(after(4)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(4));
        alarm.at(after(4)).await;
        alarm.at(after(9)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(9));
        alarm.at(after(1)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(9), "what is past is past");
    }
}
