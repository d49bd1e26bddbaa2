//! The runtime handed to the Tor crates: tokio with rustls, and two parts of our own. Connections to
//! relays are [`RelaySockets`]. Tasks that tor-hsclient spawns for an attempt carry the attempt's
//! [`Evidence`] along, and can be ended with it.

use std::future::Future;
use std::io;

use futures::future::FutureObj;
use futures::task::{Spawn, SpawnError};
use tor_rtcompat::tokio::TokioRustlsRuntime;
use tor_rtcompat::{Blocking, CompoundRuntime, RealCoarseTimeProvider, ToplevelBlockOn};

use super::evidence::Evidence;
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
    // An error means that a provider was installed before: just as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tokio = TokioRustlsRuntime::current()?;
    Ok(CompoundRuntime::new(
        Tasks(tokio.clone()),
        tokio.clone(),
        RealCoarseTimeProvider::new(),
        RelaySockets,
        tokio.clone(),
        tokio.clone(),
        tokio,
    ))
}

/// Spawns tasks, and binds those of an onion attempt to the attempt.
#[derive(Clone)]
pub(crate) struct Tasks(TokioRustlsRuntime);

impl Spawn for Tasks {
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        match Evidence::adopt(future) {
            Ok(adopted) => self.0.spawn_obj(adopted),
            Err(future) => self.0.spawn_obj(future),
        }
    }
}

impl Blocking for Tasks {
    type ThreadHandle<T: Send + 'static> = <TokioRustlsRuntime as Blocking>::ThreadHandle<T>;

    fn spawn_blocking<F, T>(&self, f: F) -> Self::ThreadHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.0.spawn_blocking(f)
    }

    fn reenter_block_on<F>(&self, future: F) -> F::Output
    where
        F: Future,
        F::Output: Send + 'static,
    {
        self.0.reenter_block_on(future)
    }
}

impl ToplevelBlockOn for Tasks {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.block_on(future)
    }
}
