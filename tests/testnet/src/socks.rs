//! A raw SOCKS5 client (RFC 1928), which returns a proxy's reply as it is and the time it took.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A request to a SOCKS5 proxy.
#[derive(Clone, Debug)]
pub struct SocksRequest<'a> {
    proxy: SocketAddr,
    host: &'a str,
    port: u16,
    timeout: Duration,
    command: u8,
    login: Option<(&'a str, &'a str)>,
}

/// The reply of a SOCKS5 proxy.
#[derive(Debug)]
pub struct SocksReply {
    /// The reply code (REP): 00 is success; F0 to F7 are those of proposal 304 and C tor's later ones.
    pub code: u8,
    /// The address in the reply; for a lookup, the answer.
    pub bound: SocksAddress,
    /// The time from the start of the connection to the last byte of the reply.
    pub elapsed: Duration,
    /// The connection; `None` unless the code is 00.
    pub stream: Option<TcpStream>,
}

/// The address in a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocksAddress {
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
    /// A name.
    Name(String),
    /// Address type 0, which no specification defines: C tor's reply to a failed lookup.
    None,
}

/// Requests a connection to `host` and `port` from `proxy`. [`SocksRequest`] has more options.
///
/// # Errors
/// When no complete reply comes within `timeout`, or the reply is not SOCKS5.
pub fn socks5_connect(
    proxy: SocketAddr,
    host: &str,
    port: u16,
    timeout: Duration,
) -> Result<SocksReply> {
    SocksRequest::new(proxy, host, port).timeout(timeout).send()
}

impl<'a> SocksRequest<'a> {
    /// Returns a CONNECT request without a login and with a time-out of one minute. If `host` is an IP address, it is sent as an
    /// address, otherwise as a name.
    pub fn new(proxy: SocketAddr, host: &'a str, port: u16) -> Self {
        Self {
            proxy,
            host,
            port,
            timeout: Duration::from_secs(60),
            command: 0x01,
            login: None,
        }
    }

    /// Sets the time-out for the complete reply.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets a user name and password (RFC 1929). Tor isolates streams with different ones from each other.
    pub fn login(mut self, user: &'a str, password: &'a str) -> Self {
        self.login = Some((user, password));
        self
    }

    /// Sets the command byte: 01 CONNECT, or Tor's F0 RESOLVE and F1 RESOLVE_PTR.
    pub fn command(mut self, command: u8) -> Self {
        self.command = command;
        self
    }

    /// Sends the request and waits for the reply.
    ///
    /// # Errors
    /// When no complete reply comes within the time-out, or the reply is not SOCKS5. A reply with a failure code is not an
    /// error.
    pub fn send(&self) -> Result<SocksReply> {
        let start = Instant::now();
        let mut connection = Connection {
            stream: TcpStream::connect_timeout(&self.proxy, self.timeout)?,
            deadline: start + self.timeout,
        };
        connection.stream.set_nodelay(true)?;
        let method = if self.login.is_some() { 2 } else { 0 };
        connection.send(&[5, 1, method])?;
        match connection.receive::<2>()? {
            [5, chosen] if chosen == method => {}
            other => bail!("the proxy answered the greeting with {other:02x?}"),
        }
        if let Some((user, password)) = self.login {
            let mut login = vec![1];
            push_with_length(&mut login, user)?;
            push_with_length(&mut login, password)?;
            connection.send(&login)?;
            match connection.receive::<2>()? {
                [_, 0] => {}
                other => bail!("the proxy answered the login with {other:02x?}"),
            }
        }
        connection.send(&self.encode()?)?;
        let [version, code, _, kind] = connection
            .receive::<4>()
            .context("no reply to the request")?;
        if version != 5 {
            bail!("the reply has version {version}");
        }
        let bound = match kind {
            // C tor's reply to a failed lookup has ten bytes, all zero but the version and the code.
            0 => {
                connection.receive::<4>()?;
                SocksAddress::None
            }
            1 => SocksAddress::Ip(IpAddr::from(connection.receive::<4>()?)),
            4 => SocksAddress::Ip(IpAddr::from(connection.receive::<16>()?)),
            3 => {
                let [length] = connection.receive::<1>()?;
                let mut name = vec![0; usize::from(length)];
                connection.read_exact(&mut name)?;
                SocksAddress::Name(String::from_utf8(name)?)
            }
            other => bail!("the reply has address type {other}"),
        };
        connection.receive::<2>()?;
        let elapsed = start.elapsed();
        connection.stream.set_read_timeout(None)?;
        Ok(SocksReply {
            code,
            bound,
            elapsed,
            stream: (code == 0).then_some(connection.stream),
        })
    }

    /// Encodes the request that follows the greeting and the login.
    fn encode(&self) -> Result<Vec<u8>> {
        let mut request = vec![5, self.command, 0];
        match self.host.parse() {
            Ok(IpAddr::V4(ip)) => {
                request.push(1);
                request.extend(ip.octets());
            }
            Ok(IpAddr::V6(ip)) => {
                request.push(4);
                request.extend(ip.octets());
            }
            Err(_) => {
                request.push(3);
                push_with_length(&mut request, self.host)?;
            }
        }
        request.extend(self.port.to_be_bytes());
        Ok(request)
    }
}

/// Appends the length of `text` as one byte, and `text`.
fn push_with_length(bytes: &mut Vec<u8>, text: &str) -> Result<()> {
    bytes.push(u8::try_from(text.len()).context("longer than 255 bytes")?);
    bytes.extend(text.as_bytes());
    Ok(())
}

/// A connection to a proxy with one deadline for everything that is read.
struct Connection {
    stream: TcpStream,
    deadline: Instant,
}

impl Connection {
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream
            .write_all(bytes)
            .context("the proxy closed the connection")
    }

    fn receive<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn read_exact(&mut self, mut bytes: &mut [u8]) -> Result<()> {
        while !bytes.is_empty() {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the proxy did not answer in time");
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(bytes) {
                Ok(0) => bail!("the proxy closed the connection"),
                Ok(count) => bytes = &mut bytes[count..],
                Err(e)
                    if matches!(
                        e.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("the connection to the proxy failed"),
            }
        }
        Ok(())
    }
}
