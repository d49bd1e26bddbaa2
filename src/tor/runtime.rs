//! The runtime handed to the Tor crates: tokio with rustls, and two parts of our own.
//!
//! Connections to relays have `TCP_NODELAY` set. Cells are small and each waits for an answer; with
//! Nagle's algorithm and delayed acknowledgements every round trip can cost 40 ms more.
//!
//! Tasks that tor-hsclient spawns for an attempt carry the attempt's [`Evidence`] along, and can be
//! ended with it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use futures::future::FutureObj;
use futures::task::{Spawn, SpawnError};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpSocket;
use tor_rtcompat::tokio::TokioRustlsRuntime;
use tor_rtcompat::{
    Blocking, CompoundRuntime, NetStreamProvider, RealCoarseTimeProvider, ToplevelBlockOn,
};

use super::evidence::Evidence;

/// The runtime that every arti type here is built on.
pub(crate) type TorRuntime = CompoundRuntime<
    Tasks,
    TokioRustlsRuntime,
    RealCoarseTimeProvider,
    NoDelay,
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
        NoDelay(tokio.clone()),
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

/// Opens TCP connections with `TCP_NODELAY` set.
#[derive(Clone)]
pub(crate) struct NoDelay(TokioRustlsRuntime);

#[async_trait]
impl NetStreamProvider<SocketAddr> for NoDelay {
    type Stream = <TokioRustlsRuntime as NetStreamProvider<SocketAddr>>::Stream;
    type Listener = <TokioRustlsRuntime as NetStreamProvider<SocketAddr>>::Listener;
    type ConnectOptions = <TokioRustlsRuntime as NetStreamProvider<SocketAddr>>::ConnectOptions;
    type ListenOptions = <TokioRustlsRuntime as NetStreamProvider<SocketAddr>>::ListenOptions;

    async fn connect(
        &self,
        address: &SocketAddr,
        options: &Self::ConnectOptions,
    ) -> io::Result<Self::Stream> {
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // Buffer sizes count only when they are set before the connection is made: tcp(7).
        if let Some(size) = options.common().send_buffer_size() {
            socket.set_send_buffer_size(*size)?;
        }
        if let Some(size) = options.common().recv_buffer_size() {
            socket.set_recv_buffer_size(*size)?;
        }
        socket.set_tcp_nodelay(true)?;
        let stream = TcpSocket::from_std_stream(socket.into())
            .connect(*address)
            .await?;
        Ok(stream.into())
    }

    async fn listen(
        &self,
        address: &SocketAddr,
        options: &Self::ListenOptions,
    ) -> io::Result<Self::Listener> {
        self.0.listen(address, options).await
    }
}
