//! The backend that serves requests, and its replacement while requests wait.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::failure::Failure;

/// Serves requests until it is replaced.
pub(super) trait Backend {
    /// Stops all background work. Open streams are not affected.
    fn retire(&self);
}

/// The backend that serves requests; none before a client has bootstrapped, and while it is replaced.
pub(super) struct CurrentBackend<T>(watch::Sender<Option<Arc<T>>>);

impl<T: Backend> CurrentBackend<T> {
    pub(super) fn new() -> CurrentBackend<T> {
        CurrentBackend(watch::Sender::new(None))
    }

    /// Serves requests with `backend` until `clients` reports that its client is replaced; calls `serving`
    /// once requests are served.
    pub(super) async fn serve_until_replaced<C>(
        &self,
        backend: T,
        clients: &mut watch::Receiver<C>,
        serving: impl FnOnce(),
    ) {
        self.0.send_replace(Some(Arc::new(backend)));
        serving();
        let _ = clients.changed().await;
        // The replacement may have begun, and called `retire`, before this backend was set.
        self.retire();
    }

    /// Stops serving requests with the current backend, if there is one. Requests in progress wait for the
    /// next.
    pub(super) fn retire(&self) {
        if let Some(backend) = self.0.send_replace(None) {
            backend.retire();
        }
    }

    /// Runs `request` with the current backend once there is one. If the backend is replaced before `request`
    /// completes, runs it again with the next one, until `deadline`.
    ///
    /// # Errors
    /// Those of `request`; [`Failure::NotBootstrapped`] if there is no backend until `deadline`.
    pub(super) async fn call<R, F: Future<Output = Result<R, Failure>>>(
        &self,
        deadline: Instant,
        mut request: impl FnMut(Arc<T>) -> F,
    ) -> Result<R, Failure> {
        let mut current = self.0.subscribe();
        loop {
            let ready = timeout_at(deadline, current.wait_for(Option::is_some)).await;
            let backend = ready.ok().and_then(Result::ok);
            let backend = backend.and_then(|backend| backend.clone());
            let Some(backend) = backend else {
                return Err(Failure::NotBootstrapped);
            };
            tokio::select! {
                biased;
                // Every change means another backend, or none for the moment. This branch comes first, so
                // that no request starts on a client that is being replaced.
                _ = current.changed() => debug!("the Tor client is being replaced; waiting for the next one"),
                result = request(backend) => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// A backend that counts how often it is retired.
    #[derive(Clone, Default)]
    struct CountingBackend(Arc<AtomicUsize>);

    impl Backend for CountingBackend {
        fn retire(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl CountingBackend {
        fn retired(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// A client may become usable after it is discarded and before the loop that follows the clients notices.
    #[tokio::test(start_paused = true)]
    async fn the_backend_of_a_client_that_is_already_replaced_stops_serving() {
        let current = CurrentBackend::new();
        let clients = watch::Sender::new(1);
        let mut seen = clients.subscribe();
        current.retire();
        clients.send_replace(2);
        let backend = CountingBackend::default();
        let serving = current.serve_until_replaced(backend.clone(), &mut seen, || {});
        serving.await;
        assert_eq!(backend.retired(), 1);
        let deadline = Instant::now() + Duration::from_secs(1);
        let result = current.call(deadline, async |_| Ok(())).await;
        assert_eq!(result, Err(Failure::NotBootstrapped));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_request_is_served_by_the_next_backend() {
        let current = CurrentBackend::new();
        let clients = watch::Sender::new(1);
        let (first, second) = (CountingBackend::default(), CountingBackend::default());
        let deadline = Instant::now() + Duration::from_secs(60);
        let request = current.call(deadline, async |backend: Arc<CountingBackend>| {
            if Arc::ptr_eq(&backend.0, &first.0) {
                std::future::pending().await
            }
            Ok(backend)
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
        let served = tokio::select! {
            served = request => served,
            () = replacing => unreachable!("the second client is not replaced"),
        };
        assert!(served.is_ok_and(|backend| Arc::ptr_eq(&backend.0, &second.0)));
        assert_eq!((first.retired(), second.retired()), (1, 0));
    }
}
