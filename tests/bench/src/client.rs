//! Who asks the proxies: many SOCKS5 clients at once, each with a deadline.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::Order;

/// How long a stream may take to open, and an echo to come back. Nothing here should take a second.
const LIMIT: Duration = Duration::from_secs(60);

/// A host name and a port.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name, an onion service's or another.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Target {
    /// A target.
    pub fn new(host: &str, port: u16) -> Target {
        Target {
            host: host.to_owned(),
            port,
        }
    }

    /// The SOCKS5 request to connect to it (RFC 1928, 4).
    ///
    /// # Errors
    /// When the name is longer than 255 bytes.
    pub fn request(&self) -> Result<Vec<u8>> {
        let length = u8::try_from(self.host.len()).context("longer than 255 bytes")?;
        let mut request = vec![5, 1, 0, 3, length];
        request.extend(self.host.as_bytes());
        request.extend(self.port.to_be_bytes());
        Ok(request)
    }
}

/// Opens a stream.
///
/// # Errors
/// When the proxy refuses, breaks off, or takes longer than a minute.
pub async fn open(proxy: SocketAddr, target: &Target) -> Result<TcpStream> {
    match answer(proxy, target, LIMIT).await? {
        (0, stream) => Ok(stream),
        (code, _) => bail!("the proxy said {code:02X}"),
    }
}

/// The code that the proxy answers, within `limit`, and the connection.
///
/// # Errors
/// When there is no answer.
pub async fn answer(
    proxy: SocketAddr,
    target: &Target,
    limit: Duration,
) -> Result<(u8, TcpStream)> {
    let asked = timeout(limit, ask(proxy, target)).await;
    asked.map_err(|_| anyhow::anyhow!("no answer in {} s", limit.as_secs()))?
}

async fn ask(proxy: SocketAddr, target: &Target) -> Result<(u8, TcpStream)> {
    let mut stream = TcpStream::connect(proxy)
        .await
        .context("cannot connect to the proxy")?;
    stream.set_nodelay(true)?;
    stream.write_all(&[5, 1, 0]).await?;
    let mut chosen = [0; 2];
    let read = stream.read_exact(&mut chosen).await;
    read.context("no answer to the greeting")?;
    ensure!(chosen == [5, 0], "the proxy chose {chosen:02x?}");
    stream.write_all(&target.request()?).await?;
    let mut head = [0; 4];
    let read = stream.read_exact(&mut head).await;
    read.context("no answer to the request")?;
    let [_, code, _, kind] = head;
    let address = match kind {
        // C tor's answers to some requests have a kind that does not exist.
        0 | 1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await?),
        other => bail!("an answer with address type {other}"),
    };
    let mut rest = vec![0; address + 2];
    stream.read_exact(&mut rest).await?;
    Ok((code, stream))
}

/// Sends one byte on an open stream and waits until it comes back.
///
/// # Errors
/// When it does not.
pub async fn echo(stream: &mut TcpStream) -> Result<()> {
    let mut message = Order::Echo(1).bytes().to_vec();
    message.push(b'.');
    let exchange = async {
        stream.write_all(&message).await?;
        stream.read_exact(&mut [0]).await
    };
    timeout(LIMIT, exchange)
        .await
        .context("no echo in time")?
        .context("no echo")?;
    Ok(())
}

/// How long a stream took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// Until the proxy said that it was open.
    pub open: Duration,
    /// Until the first byte of an answer was there.
    pub answer: Duration,
}

/// Opens a stream, has one byte echoed, and closes it.
///
/// # Errors
/// When any of it fails.
pub async fn visit(proxy: SocketAddr, target: &Target) -> Result<Took> {
    let begun = Instant::now();
    let mut stream = open(proxy, target).await?;
    let open = begun.elapsed();
    echo(&mut stream).await?;
    let answer = begun.elapsed();
    Ok(Took { open, answer })
}
