//! A proxy between a client and the relays, which records the requested addresses.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::Result;
use data_encoding::BASE64;
use socket2::{Domain, Socket, Type};

use crate::backend::Server;
use crate::sync::lock;

/// The address from which the proxy connects to relays. The [`Arrival`](crate::Arrival)s of a watched network that come from
/// it are connections through the proxy.
pub const PROXY_SIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// The longest accepted head of a CONNECT request, in bytes.
const MAX_HEAD: u64 = 16 * 1024;

/// A SOCKS5 proxy (RFC 1928), optionally with a login (RFC 1929), or a proxy for HTTP CONNECT. It refuses clients without the
/// login, and requests for anything but a connection to an IPv4 address.
#[derive(Debug)]
pub struct OutboundProxy {
    server: Server,
    scheme: &'static str,
    login: Option<Login>,
    requested: Arc<Mutex<Vec<SocketAddr>>>,
}

/// The required credentials.
#[derive(Clone, Debug)]
struct Login {
    user: String,
    password: String,
}

impl OutboundProxy {
    /// Starts a SOCKS5 proxy on a free port of 127.0.0.1. With `login`, clients must authenticate.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn socks5(login: Option<(&str, &str)>) -> Result<Self> {
        Self::start("socks5", login, socks5)
    }

    /// Starts a proxy for HTTP CONNECT on a free port of 127.0.0.1. With `login`, clients must authenticate (Basic).
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn http(login: Option<(&str, &str)>) -> Result<Self> {
        Self::start("http", login, http)
    }

    fn start(
        scheme: &'static str,
        login: Option<(&str, &str)>,
        handshake: fn(&mut TcpStream, Option<&Login>) -> std::io::Result<Option<SocketAddr>>,
    ) -> Result<Self> {
        let login = login.map(|(user, password)| Login {
            user: user.to_owned(),
            password: password.to_owned(),
        });
        let requested = Arc::new(Mutex::new(Vec::new()));
        let (required, record) = (login.clone(), Arc::clone(&requested));
        let server = Server::start(Ipv4Addr::LOCALHOST.into(), move |mut client| {
            client.set_nodelay(true)?;
            let Some(address) = handshake(&mut client, required.as_ref())? else {
                return client.shutdown(Shutdown::Both);
            };
            lock(&record).push(address);
            copy_both_ways(client, connect(address)?)
        })?;
        Ok(Self {
            server,
            scheme,
            login,
            requested,
        })
    }

    /// Returns the value of arti's setting `outbound_proxy` for this proxy.
    pub fn url(&self) -> String {
        let login = self.login.as_ref();
        let login = login.map(|login| format!("{}:{}@", login.user, login.password));
        let (scheme, address) = (self.scheme, self.server.address);
        format!("{scheme}://{}{address}", login.unwrap_or_default())
    }

    /// Returns the address at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Returns the addresses to which clients have requested connections, in order.
    pub fn requested(&self) -> Vec<SocketAddr> {
        lock(&self.requested).clone()
    }
}

/// Reads a SOCKS5 request and returns the requested address, or `None` if the client is refused.
///
/// The reply reports success before the connection to the address is opened. If that fails, the client's connection closes.
fn socks5(client: &mut TcpStream, login: Option<&Login>) -> std::io::Result<Option<SocketAddr>> {
    const NONE: u8 = 0;
    const PASSWORD: u8 = 2;
    let read_with_length = |client: &mut TcpStream| {
        let mut length = [0];
        client.read_exact(&mut length)?;
        let mut bytes = vec![0; usize::from(length[0])];
        client.read_exact(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let mut version = [0];
    client.read_exact(&mut version)?;
    let offered = read_with_length(client)?;
    let method = if login.is_some() { PASSWORD } else { NONE };
    if version != [5] || !offered.contains(&method) {
        client.write_all(&[5, 0xff])?;
        return Ok(None);
    }
    client.write_all(&[5, method])?;
    if let Some(login) = login {
        client.read_exact(&mut version)?;
        let (user, password) = (read_with_length(client)?, read_with_length(client)?);
        let is_valid = user == login.user.as_bytes() && password == login.password.as_bytes();
        client.write_all(&[1, u8::from(!is_valid)])?;
        if !is_valid {
            return Ok(None);
        }
    }
    let mut request = [0; 10];
    client.read_exact(&mut request)?;
    let [5, 1, _, 1, a, b, c, d, port @ ..] = request else {
        client.write_all(&[5, 7, 0, 1, 0, 0, 0, 0, 0, 0])?;
        return Ok(None);
    };
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    Ok(Some(SocketAddr::from((
        [a, b, c, d],
        u16::from_be_bytes(port),
    ))))
}

/// Reads an HTTP CONNECT request and returns the requested address, or `None` if the client is refused. Like [`socks5`], it
/// reports success before the connection is opened.
fn http(client: &mut TcpStream, login: Option<&Login>) -> std::io::Result<Option<SocketAddr>> {
    // The client waits for the reply before it sends more, so the buffer never holds bytes that follow the head.
    let mut reader = BufReader::new(client.try_clone()?.take(MAX_HEAD));
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let required = login.map(|login| {
        let pair = format!("{}:{}", login.user, login.password);
        format!("Basic {}", BASE64.encode(pair.as_bytes()))
    });
    let given = lines.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization")
            .then(|| value.trim().to_owned())
    });
    if given != required {
        client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")?;
        return Ok(None);
    }
    let address = lines.first().and_then(|line| {
        let target = line.strip_prefix("CONNECT ")?;
        target.split(' ').next()?.parse().ok()
    });
    client.write_all(match address {
        Some(_) => b"HTTP/1.1 200 OK\r\n\r\n",
        None => b"HTTP/1.1 400 Bad Request\r\n\r\n",
    })?;
    Ok(address)
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((PROXY_SIDE, 0)).into())?;
    socket.connect(&address.into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Copies bytes in both directions until both sides have closed or one has failed.
fn copy_both_ways(mut client: TcpStream, mut relay: TcpStream) -> std::io::Result<()> {
    let (mut from_relay, mut to_client) = (relay.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || {
        let result = std::io::copy(&mut from_relay, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Write);
        result
    });
    let result = std::io::copy(&mut client, &mut relay);
    // After an error both directions close, since otherwise the other thread could wait for an idle relay.
    let _ = relay.shutdown(if result.is_ok() {
        Shutdown::Write
    } else {
        Shutdown::Both
    });
    let _ = back.join();
    result.map(drop)
}
