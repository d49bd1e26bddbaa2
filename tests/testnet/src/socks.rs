//! A raw SOCKS5 client: what a proxy says, and when.

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

/// What came back.
#[derive(Debug)]
pub struct SocksReply {
    /// The reply code (REP): 00 is success, F0 to F7 are proposal 304's and C tor's later ones.
    pub code: u8,
    /// The address in the reply: for a lookup, the answer.
    pub bound: SocksAddress,
    /// From the first byte of the connection to the last byte of the reply.
    pub elapsed: Duration,
    /// The connection, after success.
    pub stream: Option<TcpStream>,
}

/// An address within a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocksAddress {
    /// IPv4 or IPv6.
    Ip(IpAddr),
    /// A name.
    Name(String),
    /// Address type 0, which no specification knows: C tor's reply to a lookup that failed.
    None,
}

/// Asks `proxy` to connect to `host` and `port`; see [`SocksRequest`] for more.
///
/// # Errors
/// When no whole reply comes within `timeout`, or what comes is no SOCKS5.
pub fn socks5_connect(
    proxy: SocketAddr,
    host: &str,
    port: u16,
    timeout: Duration,
) -> Result<SocksReply> {
    SocksRequest::new(proxy, host, port).timeout(timeout).send()
}

impl<'a> SocksRequest<'a> {
    /// A CONNECT without login, with a minute's patience. An IP address as `host` is sent as one, anything else as a name.
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

    /// How long to wait for the whole reply.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A user name and password, which isolate streams from each other.
    pub fn login(mut self, user: &'a str, password: &'a str) -> Self {
        self.login = Some((user, password));
        self
    }

    /// The command byte: 01 CONNECT, F0 Tor's RESOLVE, F1 RESOLVE_PTR.
    pub fn command(mut self, command: u8) -> Self {
        self.command = command;
        self
    }

    /// Sends it and waits for the reply.
    ///
    /// # Errors
    /// When no whole reply comes within the timeout, or what comes is no SOCKS5. A refusal by the proxy is no error.
    pub fn send(&self) -> Result<SocksReply> {
        let start = Instant::now();
        let mut wire = Wire {
            stream: TcpStream::connect_timeout(&self.proxy, self.timeout)?,
            deadline: start + self.timeout,
        };
        wire.stream.set_nodelay(true)?;
        let method = if self.login.is_some() { 2 } else { 0 };
        wire.send(&[5, 1, method])?;
        match wire.receive::<2>()? {
            [5, chosen] if chosen == method => {}
            other => bail!("the proxy answered the greeting with {other:02x?}"),
        }
        if let Some((user, password)) = self.login {
            let mut login = vec![1];
            push_counted(&mut login, user)?;
            push_counted(&mut login, password)?;
            wire.send(&login)?;
            match wire.receive::<2>()? {
                [_, 0] => {}
                other => bail!("the proxy answered the login with {other:02x?}"),
            }
        }
        wire.send(&self.request()?)?;
        let [version, code, _, kind] = wire.receive::<4>().context("no reply to the request")?;
        if version != 5 {
            bail!("a reply of version {version}");
        }
        let bound = match kind {
            // C tor refuses lookups with ten bytes of which all but two are zero.
            0 => {
                wire.receive::<4>()?;
                SocksAddress::None
            }
            1 => SocksAddress::Ip(IpAddr::from(wire.receive::<4>()?)),
            4 => SocksAddress::Ip(IpAddr::from(wire.receive::<16>()?)),
            3 => {
                let [length] = wire.receive::<1>()?;
                let mut name = vec![0; usize::from(length)];
                wire.fill(&mut name)?;
                SocksAddress::Name(String::from_utf8(name)?)
            }
            other => bail!("a reply with address type {other}"),
        };
        wire.receive::<2>()?;
        let elapsed = start.elapsed();
        wire.stream.set_read_timeout(None)?;
        Ok(SocksReply {
            code,
            bound,
            elapsed,
            stream: (code == 0).then_some(wire.stream),
        })
    }

    fn request(&self) -> Result<Vec<u8>> {
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
                push_counted(&mut request, self.host)?;
            }
        }
        request.extend(self.port.to_be_bytes());
        Ok(request)
    }
}

/// Appends a length byte and the text.
fn push_counted(bytes: &mut Vec<u8>, text: &str) -> Result<()> {
    bytes.push(u8::try_from(text.len()).context("longer than 255 bytes")?);
    bytes.extend(text.as_bytes());
    Ok(())
}

/// A connection on which all reading has to be done by one deadline.
struct Wire {
    stream: TcpStream,
    deadline: Instant,
}

impl Wire {
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream
            .write_all(bytes)
            .context("the proxy closed the connection")
    }

    fn receive<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, mut bytes: &mut [u8]) -> Result<()> {
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
                Err(e) => return Err(e).context("the proxy broke the connection"),
            }
        }
        Ok(())
    }
}
