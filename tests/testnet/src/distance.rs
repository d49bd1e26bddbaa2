//! Links that take time.
//!
//! On loopback a packet arrives at once. For a network with distances each relay is reached through a front: the
//! network knows the front's port, and what comes there is passed on to the relay after a while, and what the relay
//! sends back as well. Only that is like the Internet: nothing is lost, TCP ends at the front, which acknowledges at
//! once, and a connection is open without delay. A relay that was killed does not refuse connections: its front takes
//! and closes them.

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

/// What is read at once.
const CHUNK: usize = 16 * 1024;

/// How many bytes may be under way in one direction of a connection: what 100 MB/s bring in 80 ms.
const UNDER_WAY: usize = 8 << 20;

/// How long to pause when there is no room for another connection.
const PAUSE: Duration = Duration::from_millis(10);

/// The fronts of all relays. They are gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Distance {
    runtime: Option<Runtime>,
}

impl Distance {
    /// Makes the thread that runs the fronts.
    pub(crate) fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("testnet-distance")
            .enable_all()
            .build()
            .context("cannot start the links")?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Makes a front for the relay that listens on a port of 127.0.0.1; gives the front's port. Each way takes
    /// `delay`, and up to a millisecond more.
    pub(crate) fn front(&self, relay: u16, delay: Duration) -> Result<u16> {
        self.noting_front(relay, delay, |_| {})
    }

    /// The same, and `note` is given the address of whoever connects, before anything else happens.
    pub(crate) fn noting_front(
        &self,
        relay: u16,
        delay: Duration,
        note: impl Fn(SocketAddr) + Send + 'static,
    ) -> Result<u16> {
        let runtime = self.runtime.as_ref().context("the links are gone")?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .context("no free port on 127.0.0.1")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let _runtime = runtime.enter();
        runtime.spawn(accept(
            TcpListener::from_std(listener)?,
            SocketAddr::from((Ipv4Addr::LOCALHOST, relay)),
            delay,
            note,
        ));
        Ok(port)
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waits for nobody, and may be called where a runtime must not block.
            runtime.shutdown_background();
        }
    }
}

async fn accept(
    listener: TcpListener,
    relay: SocketAddr,
    delay: Duration,
    note: impl Fn(SocketAddr),
) {
    loop {
        match listener.accept().await {
            Ok((near, from)) => {
                note(from);
                // Either side may go away at any time: the other one is told, nobody else.
                tokio::spawn(async move { link(near, relay, delay).await.ok() });
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// One connection, until a side breaks or both have ended.
async fn link(near: TcpStream, relay: SocketAddr, delay: Duration) -> std::io::Result<()> {
    let far = TcpStream::connect(relay).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (from_near, to_near) = near.into_split();
    let (from_far, to_far) = far.into_split();
    tokio::try_join!(
        pass(from_near, to_far, delay),
        pass(from_far, to_near, delay)
    )?;
    Ok(())
}

/// Passes on what comes, and the end of it, a while later. If either side breaks, what is under way is lost.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
) -> std::io::Result<()> {
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    let (sender, mut under_way) = mpsc::unbounded_channel();
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
            let space = Arc::clone(&room).acquire_many_owned(count).await;
            let bytes = chunk[..length].to_vec();
            sender
                .send((due, bytes, space))
                .map_err(std::io::Error::other)?;
        }
    };
    let writing = async {
        while let Some((due, bytes, _space)) = under_way.recv().await {
            sleep_until(due).await;
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing)?;
    Ok(())
}

/// Acknowledges what was read now; has to be said after each time: tcp(7).
fn acknowledge(connection: &OwnedReadHalf) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // A connection that is broken says so when it is used next.
    let _ = SockRef::from(AsRef::<TcpStream>::as_ref(connection)).set_tcp_quickack(true);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = connection;
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// What is said arrives in order and as late as it should, both ways, and so does the end.
    #[test]
    fn each_way_takes_its_time() -> Result<()> {
        const DELAY: Duration = Duration::from_millis(30);
        let relay = std::net::TcpListener::bind("127.0.0.1:0")?;
        let links = Distance::new()?;
        let front = links.front(relay.local_addr()?.port(), DELAY)?;
        let mut near = std::net::TcpStream::connect(("127.0.0.1", front))?;
        let (mut far, _) = relay.accept()?;
        let begun = Instant::now();
        let sent = vec![7; 3 * CHUNK];
        near.write_all(&sent)?;
        let mut arrived = vec![0; sent.len()];
        far.read_exact(&mut arrived)?;
        assert!(arrived == sent && begun.elapsed() >= DELAY);
        far.write_all(b"back")?;
        drop(far);
        let mut answer = String::new();
        near.read_to_string(&mut answer)?;
        assert_eq!(answer, "back");
        assert!(begun.elapsed() >= 2 * DELAY);
        Ok(())
    }
}
