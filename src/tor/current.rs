//! The parts of a Tor client that serve requests, and their replacement while requests wait.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::failure::Failure;

/// Something that serves requests until it is replaced.
pub(super) trait Retire {
    /// Stops the work that goes on without a request. Open streams are not affected.
    fn retire(&self);
}

/// What serves requests at present: nothing before a client has bootstrapped, and while it is replaced.
pub(super) struct Current<T>(watch::Sender<Option<Arc<T>>>);

impl<T: Retire> Current<T> {
    pub(super) fn new() -> Current<T> {
        Current(watch::Sender::new(None))
    }

    /// Serves requests with `parts` until `clients` reports that their client is replaced; calls
    /// `serving` once requests are served.
    pub(super) async fn serve_until_replaced<C>(
        &self,
        parts: T,
        clients: &mut watch::Receiver<C>,
        serving: impl FnOnce(),
    ) {
        self.0.send_replace(Some(Arc::new(parts)));
        serving();
        let _ = clients.changed().await;
        // The replacement may have begun, and called `retire`, before these parts were put in place.
        self.retire();
    }

    /// Stops serving requests with the present parts, if there are any. Waiting requests wait for the
    /// next ones.
    pub(super) fn retire(&self) {
        if let Some(parts) = self.0.send_replace(None) {
            parts.retire();
        }
    }

    /// Runs `ask` with the present parts, as soon as there are some. If they are replaced before it has
    /// answered, runs it again with the next ones, in the time that is left.
    ///
    /// # Errors
    /// Those of `ask`; [`Failure::NotBootstrapped`] if there is nothing to serve the request by `deadline`.
    pub(super) async fn ask<R, F: Future<Output = Result<R, Failure>>>(
        &self,
        deadline: Instant,
        mut ask: impl FnMut(Arc<T>) -> F,
    ) -> Result<R, Failure> {
        let mut current = self.0.subscribe();
        loop {
            let ready = timeout_at(deadline, current.wait_for(Option::is_some)).await;
            let parts = ready.ok().and_then(Result::ok);
            let parts = parts.and_then(|parts| parts.clone());
            let Some(parts) = parts else {
                return Err(Failure::NotBootstrapped);
            };
            tokio::select! {
                biased;
                // Every change means other parts, or none for the moment. It comes first, so that no
                // request begins on a client that is being replaced.
                _ = current.changed() => debug!("the Tor client is being replaced; using the next one"),
                answer = ask(parts) => return answer,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// Counts how often it was retired.
    #[derive(Clone, Default)]
    struct Parts(Arc<AtomicUsize>);

    impl Retire for Parts {
        fn retire(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Parts {
        fn retired(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// A client may become usable between the moment it is given up and the one in which the loop that
    /// follows the clients hears of it.
    #[tokio::test(start_paused = true)]
    async fn parts_of_a_client_that_is_replaced_already_do_not_go_on_serving() {
        let current = Current::new();
        let clients = watch::Sender::new(1);
        let mut seen = clients.subscribe();
        current.retire();
        clients.send_replace(2);
        let parts = Parts::default();
        let serving = current.serve_until_replaced(parts.clone(), &mut seen, || {});
        serving.await;
        assert_eq!(parts.retired(), 1);
        let deadline = Instant::now() + Duration::from_secs(1);
        let asked = current.ask(deadline, async |_| Ok(())).await;
        assert_eq!(asked, Err(Failure::NotBootstrapped));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waits_is_served_by_the_next_client() {
        let current = Current::new();
        let clients = watch::Sender::new(1);
        let (first, second) = (Parts::default(), Parts::default());
        let deadline = Instant::now() + Duration::from_secs(60);
        let asked = current.ask(deadline, async |parts: Arc<Parts>| {
            if Arc::ptr_eq(&parts.0, &first.0) {
                std::future::pending().await
            }
            Ok(parts)
        });
        let replacing = async {
            let mut seen = clients.subscribe();
            let serving = current.serve_until_replaced(first.clone(), &mut seen, || {});
            let replace = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                clients.send_replace(2);
            };
            tokio::join!(serving, replace);
            let serving = current.serve_until_replaced(second.clone(), &mut seen, || {});
            serving.await;
        };
        let asked = tokio::select! {
            asked = asked => asked,
            () = replacing => unreachable!("the second client is not replaced"),
        };
        assert!(asked.is_ok_and(|parts| Arc::ptr_eq(&parts.0, &second.0)));
        assert_eq!((first.retired(), second.retired()), (1, 0));
    }
}
