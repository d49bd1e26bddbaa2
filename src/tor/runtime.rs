//! The runtime handed to the Tor crates: tokio with rustls, and two parts of our own. Connections to
//! relays are [`RelaySockets`]. Tasks that tor-hsclient spawns for an attempt carry the attempt's
//! [`AttemptObserver`] along, and can be ended with it. All that it spawns for a circuit slot end with the slot.

use std::future::Future;
use std::io;

use futures::future::FutureObj;
use futures::task::{Spawn, SpawnError};
use tokio::sync::watch;
use tor_rtcompat::tokio::TokioRustlsRuntime;
use tor_rtcompat::{Blocking, CompoundRuntime, RealCoarseTimeProvider, ToplevelBlockOn};

use super::onion::observer::AttemptObserver;
use super::relay_socket::RelaySockets;

/// The runtime that every arti type here is built on.
pub(crate) type TorRuntime = CompoundRuntime<
    Tasks,
    TokioRustlsRuntime,
    RealCoarseTimeProvider,
    RelaySockets,
    TokioRustlsRuntime,
    TokioRustlsRuntime,
    TokioRustlsRuntime,
>;

/// Builds the runtime around the tokio runtime that is running.
///
/// Fails outside of a tokio runtime.
pub(crate) fn current() -> io::Result<TorRuntime> {
    Ok(around(rustls_on_tokio()?, None))
}

fn rustls_on_tokio() -> io::Result<TokioRustlsRuntime> {
    // An error means that a provider was installed before: just as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    TokioRustlsRuntime::current()
}

fn around(tokio: TokioRustlsRuntime, slot: Option<watch::Receiver<()>>) -> TorRuntime {
    let tasks = Tasks {
        tokio: tokio.clone(),
        slot,
    };
    CompoundRuntime::new(
        tasks,
        tokio.clone(),
        RealCoarseTimeProvider::new(),
        RelaySockets,
        tokio.clone(),
        tokio.clone(),
        tokio,
    )
}

/// Makes a runtime for each circuit slot.
pub(crate) struct SlotRuntimes(TokioRustlsRuntime);

impl SlotRuntimes {
    /// Fails outside of a tokio runtime.
    pub(crate) fn current() -> io::Result<SlotRuntimes> {
        Ok(SlotRuntimes(rustls_on_tokio()?))
    }

    /// A runtime whose tasks end when the sender is dropped.
    pub(crate) fn next(&self) -> (watch::Sender<()>, TorRuntime) {
        let (sender, receiver) = watch::channel(());
        (sender, around(self.0.clone(), Some(receiver)))
    }
}

/// Spawns tasks, binds those of an onion attempt to the attempt, and ends those of a circuit slot with it.
#[derive(Clone)]
pub(crate) struct Tasks {
    tokio: TokioRustlsRuntime,
    /// Closed when the slot is dropped.
    slot: Option<watch::Receiver<()>>,
}

impl Spawn for Tasks {
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        let future = match &self.slot {
            Some(slot) => Box::new(until_closed(slot.clone(), future)).into(),
            None => future,
        };
        match AttemptObserver::adopt(future) {
            Ok(adopted) => self.tokio.spawn_obj(adopted),
            Err(future) => self.tokio.spawn_obj(future),
        }
    }
}

/// Runs a future until nobody can send on `slot` any more.
async fn until_closed(mut slot: watch::Receiver<()>, future: FutureObj<'static, ()>) {
    tokio::select! {
        biased;
        // Nothing is ever sent.
        _ = slot.changed() => {}
        () = future => {}
    }
}

impl Blocking for Tasks {
    type ThreadHandle<T: Send + 'static> = <TokioRustlsRuntime as Blocking>::ThreadHandle<T>;

    fn spawn_blocking<F, T>(&self, f: F) -> Self::ThreadHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.tokio.spawn_blocking(f)
    }

    fn reenter_block_on<F>(&self, future: F) -> F::Output
    where
        F: Future,
        F::Output: Send + 'static,
    {
        self.tokio.reenter_block_on(future)
    }
}

impl ToplevelBlockOn for Tasks {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.tokio.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use tokio::sync::oneshot::error::TryRecvError;

    #[tokio::test(start_paused = true)]
    async fn tasks_of_a_slot_end_with_it_and_others_go_on() {
        let (slot, runtime) = SlotRuntimes::current().expect("inside of a runtime").next();
        let spawn = |runtime: &TorRuntime| {
            let (sender, ended) = tokio::sync::oneshot::channel::<()>();
            let task = async move {
                let _sender = sender;
                tokio::time::sleep(Duration::from_secs(60)).await;
            };
            runtime.spawn_obj(Box::new(task).into()).expect("spawned");
            ended
        };
        let mut bound = spawn(&runtime);
        let mut free = spawn(&current().expect("inside of a runtime"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(bound.try_recv(), Err(TryRecvError::Empty));
        drop(slot);
        let ended = tokio::time::timeout(Duration::from_secs(1), bound).await;
        assert!(ended.is_ok(), "the task outlives its slot");
        assert_eq!(free.try_recv(), Err(TryRecvError::Empty));
    }
}
