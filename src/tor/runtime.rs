//! The runtime of the Tor crates: tokio with rustls, and two components of our own.
//!
//! Connections to relays are [`RelaySockets`]. [`TaskSpawner`] passes a call's [`CallObserver`] on to the tasks
//! that tor-hsclient spawns for it, so that they can end with the attempt, and ends all tasks of a circuit
//! slot with the slot.

use std::future::Future;
use std::io;

use futures::FutureExt as _;
use futures::future::FutureObj;
use futures::task::{Spawn, SpawnError};
use tokio_util::sync::{CancellationToken, DropGuard};
use tor_rtcompat::tokio::TokioRustlsRuntime;
use tor_rtcompat::{Blocking, CompoundRuntime, RealCoarseTimeProvider, ToplevelBlockOn};

use super::onion::observer::CallObserver;
use super::relay_socket::RelaySockets;

/// The runtime type of all arti objects.
pub(crate) type TorRuntime = CompoundRuntime<
    TaskSpawner,
    TokioRustlsRuntime,
    RealCoarseTimeProvider,
    RelaySockets,
    TokioRustlsRuntime,
    TokioRustlsRuntime,
    TokioRustlsRuntime,
>;

/// Returns a runtime on top of the current tokio runtime.
///
/// # Errors
/// Outside a tokio runtime.
pub(crate) fn current() -> io::Result<TorRuntime> {
    Ok(build(current_tokio()?, None))
}

fn current_tokio() -> io::Result<TokioRustlsRuntime> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    TokioRustlsRuntime::current()
}

fn build(tokio: TokioRustlsRuntime, slot: Option<CancellationToken>) -> TorRuntime {
    let tasks = TaskSpawner {
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

/// Creates a runtime for each circuit slot.
pub(crate) struct SlotRuntimeFactory(TokioRustlsRuntime);

impl SlotRuntimeFactory {
    /// Builds on the current tokio runtime.
    ///
    /// # Errors
    /// Outside a tokio runtime.
    pub(crate) fn current() -> io::Result<SlotRuntimeFactory> {
        Ok(SlotRuntimeFactory(current_tokio()?))
    }

    /// Creates a runtime whose tasks end when the guard is dropped.
    pub(crate) fn create(&self) -> (DropGuard, TorRuntime) {
        let slot = CancellationToken::new();
        let runtime = build(self.0.clone(), Some(slot.clone()));
        (slot.drop_guard(), runtime)
    }
}

/// Spawns tasks on tokio. Binds the tasks of an attempt to the attempt, and those of a circuit slot to the
/// slot.
#[derive(Clone)]
pub(crate) struct TaskSpawner {
    tokio: TokioRustlsRuntime,
    /// Cancelled when the slot is dropped.
    slot: Option<CancellationToken>,
}

impl Spawn for TaskSpawner {
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        let future = match &self.slot {
            Some(slot) => {
                let until_dropped = slot.clone().run_until_cancelled_owned(future);
                Box::new(until_dropped.map(drop)).into()
            }
            None => future,
        };
        match CallObserver::adopt(future) {
            Ok(adopted) => self.tokio.spawn_obj(adopted),
            Err(future) => self.tokio.spawn_obj(future),
        }
    }
}

impl Blocking for TaskSpawner {
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

impl ToplevelBlockOn for TaskSpawner {
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
    async fn dropping_a_slot_ends_its_tasks_and_no_others() {
        let (slot, runtime) = SlotRuntimeFactory::current()
            .expect("a tokio runtime")
            .create();
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
        let mut free = spawn(&current().expect("a tokio runtime"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(bound.try_recv(), Err(TryRecvError::Empty));
        drop(slot);
        let ended = tokio::time::timeout(Duration::from_secs(1), bound).await;
        assert!(ended.is_ok(), "the task outlives its slot");
        assert_eq!(free.try_recv(), Err(TryRecvError::Empty));
    }
}
