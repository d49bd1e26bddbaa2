//! TCP forwarders in front of relays, which delay traffic and observe connections.
//!
//! On loopback a packet arrives at once. To simulate distance, the network knows a relay by the port of its forwarder, which
//! passes the bytes of both directions on after a delay. The forwarder simulates nothing else of the Internet: no packet is
//! lost, TCP ends at the forwarder, which acknowledges at once, and connections open without delay. A killed relay does not
//! refuse connections: its forwarder accepts and closes them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
#[cfg(any(target_os = "linux", target_os = "android"))]
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

/// The size of the read buffer, in bytes.
const CHUNK: usize = 16 * 1024;

/// How many bytes may be in flight in one direction of a connection: 80 ms at 100 MB/s.
const MAX_IN_FLIGHT: usize = 8 << 20;

/// How long to wait after `accept` failed, most likely because there is no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The forwarders of all relays. They stop when it is dropped.
#[derive(Debug)]
pub(crate) struct Forwarders {
    runtime: Option<Runtime>,
}

impl Forwarders {
    /// Starts the thread that runs the forwarders.
    pub(crate) fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("testnet-forwarders")
            .enable_all()
            .build()
            .context("cannot start the thread of the forwarders")?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Starts a forwarder for the relay that listens on the port `relay` of 127.0.0.1, and returns the forwarder's port.
    /// Each direction takes `delay`, and up to a millisecond more.
    pub(crate) fn add(&self, relay: u16, delay: Duration) -> Result<u16> {
        self.add_observed(relay, delay, |_| {})
    }

    /// Does the same as [`Forwarders::add`], and calls `on_accept` with the client's address first for every connection.
    pub(crate) fn add_observed(
        &self,
        relay: u16,
        delay: Duration,
        on_accept: impl Fn(SocketAddr) + Send + 'static,
    ) -> Result<u16> {
        let runtime = self
            .runtime
            .as_ref()
            .context("the forwarders have stopped")?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .context("no free port on 127.0.0.1")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let _runtime = runtime.enter();
        runtime.spawn(accept(
            TcpListener::from_std(listener)?,
            SocketAddr::from((Ipv4Addr::LOCALHOST, relay)),
            delay,
            on_accept,
        ));
        Ok(port)
    }
}

impl Drop for Forwarders {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Does not wait, since the drop may be inside an async runtime, where blocking is forbidden.
            runtime.shutdown_background();
        }
    }
}

async fn accept(
    listener: TcpListener,
    relay: SocketAddr,
    delay: Duration,
    on_accept: impl Fn(SocketAddr),
) {
    loop {
        match listener.accept().await {
            Ok((client, from)) => {
                on_accept(from);
                // An error only means that one side is gone; it closes the other side's connection.
                tokio::spawn(async move { forward(client, relay, delay).await.ok() });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Forwards one connection until one side fails or both have closed.
async fn forward(client: TcpStream, relay: SocketAddr, delay: Duration) -> std::io::Result<()> {
    let relay = TcpStream::connect(relay).await?;
    client.set_nodelay(true)?;
    relay.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_relay, to_relay) = relay.into_split();
    tokio::try_join!(
        copy_delayed(from_client, to_relay, delay),
        copy_delayed(from_relay, to_client, delay)
    )?;
    Ok(())
}

/// Copies all bytes, and then the end of the stream, after a delay. If either side fails, bytes in flight are lost.
async fn copy_delayed(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
) -> std::io::Result<()> {
    let capacity = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let (sender, mut in_flight) = mpsc::unbounded_channel();
    let reading = async move {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = from.read(&mut chunk).await?;
            if length == 0 {
                return Ok(());
            }
            acknowledge(&from);
            let due = Instant::now() + delay;
            let count = u32::try_from(length).map_err(std::io::Error::other)?;
            let permit = Arc::clone(&capacity).acquire_many_owned(count).await;
            let bytes = chunk[..length].to_vec();
            sender
                .send((due, bytes, permit))
                .map_err(std::io::Error::other)?;
        }
    };
    let writing = async {
        while let Some((due, bytes, _permit)) = in_flight.recv().await {
            sleep_until(due).await;
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing)?;
    Ok(())
}

/// Makes the system acknowledge received data at once. The setting is not permanent, so this follows each read (TCP_QUICKACK
/// in tcp(7)).
fn acknowledge(connection: &OwnedReadHalf) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // Fails only on a broken connection, which the next read or write reports.
    let _ = SockRef::from(AsRef::<TcpStream>::as_ref(connection)).set_tcp_quickack(true);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = connection;
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn bytes_and_the_end_of_the_stream_are_delayed_in_both_directions() -> Result<()> {
        const DELAY: Duration = Duration::from_millis(30);
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let forwarders = Forwarders::new()?;
        let port = forwarders.add(listener.local_addr()?.port(), DELAY)?;
        let mut client = std::net::TcpStream::connect(("127.0.0.1", port))?;
        let (mut relay, _) = listener.accept()?;
        let start = Instant::now();
        let sent = vec![7; 3 * CHUNK];
        client.write_all(&sent)?;
        let mut received = vec![0; sent.len()];
        relay.read_exact(&mut received)?;
        assert!(received == sent && start.elapsed() >= DELAY);
        relay.write_all(b"back")?;
        drop(relay);
        let mut answer = String::new();
        client.read_to_string(&mut answer)?;
        assert_eq!(answer, "back");
        assert!(start.elapsed() >= 2 * DELAY);
        Ok(())
    }
}
