//! A proxy between a client and the relays, which notes where it was asked to go.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use data_encoding::BASE64;
use socket2::{Domain, Socket, Type};

use crate::backend::Server;

/// The address from which the proxy connects to relays: a watched network sees there what came through it.
pub const PROXY_SIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// How long the head of a CONNECT request may be.
const LONGEST_HEAD: u64 = 16 * 1024;

/// SOCKS5 (RFC 1928), with a login (RFC 1929) or without, or HTTP CONNECT. Whoever lacks the login, and whoever asks for
/// anything but a connection to an IPv4 address, is sent away.
#[derive(Debug)]
pub struct OutboundProxy {
    server: Server,
    scheme: &'static str,
    login: Option<Login>,
    asked: Arc<Mutex<Vec<SocketAddr>>>,
}

/// What a client has to say first.
#[derive(Clone, Debug)]
struct Login {
    user: String,
    password: String,
}

impl OutboundProxy {
    /// Starts a SOCKS5 proxy on a free port of 127.0.0.1; with a login, nobody gets in without it.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn socks5(login: Option<(&str, &str)>) -> Result<Self> {
        Self::start("socks5", login, socks5)
    }

    /// The same for HTTP CONNECT, where the login is one of Basic authentication.
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
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (wanted, noted) = (login.clone(), Arc::clone(&asked));
        let server = Server::start(Ipv4Addr::LOCALHOST.into(), move |mut near| {
            near.set_nodelay(true)?;
            let Some(place) = handshake(&mut near, wanted.as_ref())? else {
                return near.shutdown(Shutdown::Both);
            };
            let mut all = noted.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(place);
            drop(all);
            pass(near, connect(place)?)
        })?;
        Ok(Self {
            server,
            scheme,
            login,
            asked,
        })
    }

    /// What `outbound_proxy` has to say for it.
    pub fn url(&self) -> String {
        let login = self.login.as_ref();
        let login = login.map(|login| format!("{}:{}@", login.user, login.password));
        let (scheme, place) = (self.scheme, self.server.address);
        format!("{scheme}://{}{place}", login.unwrap_or_default())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Where it was asked to connect to, in order.
    pub fn asked(&self) -> Vec<SocketAddr> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

/// Where a SOCKS5 client wants to go; nothing if it is to be sent away. The word that all is well is sent before the
/// connection is made: a failure is an end.
fn socks5(near: &mut TcpStream, login: Option<&Login>) -> std::io::Result<Option<SocketAddr>> {
    const NONE: u8 = 0;
    const PASSWORD: u8 = 2;
    let counted = |near: &mut TcpStream| {
        let mut length = [0];
        near.read_exact(&mut length)?;
        let mut bytes = vec![0; usize::from(length[0])];
        near.read_exact(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let mut version = [0];
    near.read_exact(&mut version)?;
    let offered = counted(near)?;
    let method = if login.is_some() { PASSWORD } else { NONE };
    if version != [5] || !offered.contains(&method) {
        near.write_all(&[5, 0xff])?;
        return Ok(None);
    }
    near.write_all(&[5, method])?;
    if let Some(login) = login {
        near.read_exact(&mut version)?;
        let (user, password) = (counted(near)?, counted(near)?);
        let right = user == login.user.as_bytes() && password == login.password.as_bytes();
        near.write_all(&[1, u8::from(!right)])?;
        if !right {
            return Ok(None);
        }
    }
    let mut request = [0; 10];
    near.read_exact(&mut request)?;
    let [5, 1, _, 1, a, b, c, d, port @ ..] = request else {
        near.write_all(&[5, 7, 0, 1, 0, 0, 0, 0, 0, 0])?;
        return Ok(None);
    };
    near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    Ok(Some(SocketAddr::from((
        [a, b, c, d],
        u16::from_be_bytes(port),
    ))))
}

/// The same for HTTP CONNECT.
fn http(near: &mut TcpStream, login: Option<&Login>) -> std::io::Result<Option<SocketAddr>> {
    // A client says nothing more until it is answered, so no byte behind the head is lost in the buffer.
    let mut reader = BufReader::new(near.try_clone()?.take(LONGEST_HEAD));
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
    let wanted = login.map(|login| {
        let pair = format!("{}:{}", login.user, login.password);
        format!("Basic {}", BASE64.encode(pair.as_bytes()))
    });
    let given = lines.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization")
            .then(|| value.trim().to_owned())
    });
    if given != wanted {
        near.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")?;
        return Ok(None);
    }
    let place = lines.first().and_then(|line| {
        let target = line.strip_prefix("CONNECT ")?;
        target.split(' ').next()?.parse().ok()
    });
    near.write_all(match place {
        Some(_) => b"HTTP/1.1 200 OK\r\n\r\n",
        None => b"HTTP/1.1 400 Bad Request\r\n\r\n",
    })?;
    Ok(place)
}

fn connect(place: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(place), Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((PROXY_SIDE, 0)).into())?;
    socket.connect(&place.into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Passes bytes both ways until both sides have ended, or one breaks.
fn pass(mut near: TcpStream, mut far: TcpStream) -> std::io::Result<()> {
    let (mut from_far, mut to_near) = (far.try_clone()?, near.try_clone()?);
    let back = thread::spawn(move || {
        let ended = std::io::copy(&mut from_far, &mut to_near);
        let _ = to_near.shutdown(Shutdown::Write);
        ended
    });
    let ended = std::io::copy(&mut near, &mut far);
    // Without this the other thread could wait for a relay that has nothing to say.
    let _ = far.shutdown(if ended.is_ok() {
        Shutdown::Write
    } else {
        Shutdown::Both
    });
    let _ = back.join();
    ended.map(drop)
}
