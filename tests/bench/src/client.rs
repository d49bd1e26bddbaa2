//! SOCKS5 clients.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::Command;

/// The time limit for opening a stream, and for an echo. Normally neither takes a second.
const LIMIT: Duration = Duration::from_secs(60);

/// A host name and a port.
#[derive(Clone, Debug)]
pub struct Target {
    /// The host name or onion address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Target {
    /// Creates a target.
    pub fn new(host: &str, port: u16) -> Target {
        Target {
            host: host.to_owned(),
            port,
        }
    }

    /// Returns the SOCKS5 CONNECT request for this target (RFC 1928, section 4).
    ///
    /// # Errors
    /// If the host name is longer than 255 bytes.
    pub fn socks5_request(&self) -> Result<Vec<u8>> {
        let length =
            u8::try_from(self.host.len()).context("the host name is longer than 255 bytes")?;
        let mut request = vec![5, 1, 0, 3, length];
        request.extend(self.host.as_bytes());
        request.extend(self.port.to_be_bytes());
        Ok(request)
    }
}

/// Opens a stream through the proxy.
///
/// # Errors
/// If the proxy refuses the request, closes the connection, or does not reply within a minute.
pub async fn open_stream(proxy: SocketAddr, target: &Target) -> Result<TcpStream> {
    match connect(proxy, target, LIMIT).await? {
        (0, stream) => Ok(stream),
        (code, _) => bail!("the proxy replied {code:02X}"),
    }
}

/// Sends a CONNECT request to the proxy and returns the reply code and the connection.
///
/// # Errors
/// If there is no valid reply within `limit`.
pub async fn connect(
    proxy: SocketAddr,
    target: &Target,
    limit: Duration,
) -> Result<(u8, TcpStream)> {
    let connected = timeout(limit, connect_without_limit(proxy, target)).await;
    connected.map_err(|_| anyhow::anyhow!("no reply within {} s", limit.as_secs()))?
}

async fn connect_without_limit(proxy: SocketAddr, target: &Target) -> Result<(u8, TcpStream)> {
    let mut stream = TcpStream::connect(proxy)
        .await
        .context("cannot connect to the proxy")?;
    stream.set_nodelay(true)?;
    stream.write_all(&[5, 1, 0]).await?;
    let mut method = [0; 2];
    let read = stream.read_exact(&mut method).await;
    read.context("no reply to the greeting")?;
    ensure!(
        method == [5, 0],
        "the proxy replied {method:02x?} to the greeting"
    );
    stream.write_all(&target.socks5_request()?).await?;
    let mut head = [0; 4];
    let read = stream.read_exact(&mut head).await;
    read.context("no reply to the request")?;
    let [_, code, _, address_type] = head;
    let address_length = match address_type {
        // C tor sends some replies with address type 0, which is not in RFC 1928, and four bytes.
        0 | 1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await?),
        other => bail!("the reply has the unknown address type {other}"),
    };
    let mut address_and_port = vec![0; address_length + 2];
    stream.read_exact(&mut address_and_port).await?;
    Ok((code, stream))
}

/// Sends one byte on an open stream and waits until the server has sent it back.
///
/// # Errors
/// If the byte does not come back within a minute.
pub async fn echo_byte(stream: &mut TcpStream) -> Result<()> {
    let mut message = Command::Echo(1).to_bytes().to_vec();
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

/// How long a stream took, measured from before the TCP connection to the proxy.
#[derive(Clone, Copy, Debug)]
pub struct StreamTimes {
    /// The time until the proxy reported success.
    pub open: Duration,
    /// The time until the first byte of the server's answer.
    pub answer: Duration,
}

/// Opens a stream, echoes one byte on it, closes it, and returns how long it took.
///
/// # Errors
/// If the stream cannot be opened or the byte does not come back.
pub async fn time_stream(proxy: SocketAddr, target: &Target) -> Result<StreamTimes> {
    let begun = Instant::now();
    let mut stream = open_stream(proxy, target).await?;
    let open = begun.elapsed();
    echo_byte(&mut stream).await?;
    let answer = begun.elapsed();
    Ok(StreamTimes { open, answer })
}
