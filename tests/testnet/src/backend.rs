//! Servers that clients reach through onion services and exits. Each has its own threads. A dropped server stops and closes
//! its connections.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket,
};

use crate::sync::lock;

/// More connections than a backlog of 0 holds on any system.
const MAX_QUEUED: usize = 16;

/// How many ports are tried until one is free on IPv4 and IPv6.
const PORT_TRIES: usize = 16;

/// The longest accepted head of an HTTP request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// The threads and connections of a server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

/// The state that the threads of a server share.
#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    accepted: AtomicUsize,
    open: Mutex<HashMap<usize, TcpStream>>,
}

impl Server {
    /// Listens on a free port of `ip`, and calls `handle` for each connection on a thread of its own.
    pub(crate) fn start(
        ip: IpAddr,
        handle: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start_at((ip, 0).into(), handle)
    }

    /// Does the same as [`Server::start`] at a given port.
    fn start_at(
        address: SocketAddr,
        handle: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener =
            TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let (shared, handle) = (Arc::clone(&state), Arc::new(handle));
        let acceptor = thread::Builder::new()
            .name("testnet-server".into())
            .spawn(move || {
                for stream in listener.incoming() {
                    if shared.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else {
                        // Most likely there is no free file descriptor; wait until one is closed.
                        thread::sleep(Duration::from_millis(10));
                        continue;
                    };
                    let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                    let Ok(copy) = stream.try_clone() else {
                        continue;
                    };
                    lock(&shared.open).insert(number, copy);
                    let (shared, handle) = (Arc::clone(&shared), Arc::clone(&handle));
                    thread::spawn(move || {
                        // An error only means that the client closed the connection early.
                        let _ = handle(stream);
                        lock(&shared.open).remove(&number);
                    });
                }
            })?;
        Ok(Self {
            address,
            state,
            acceptor: Some(acceptor),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for stream in lock(&self.state.open).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// The methods of all servers that have no other state.
macro_rules! server_methods {
    ($name:ident) => {
        impl $name {
            /// Returns the address at which it listens.
            pub fn address(&self) -> SocketAddr {
                self.0.address
            }

            /// Returns how many connections it has accepted.
            pub fn connections(&self) -> usize {
                self.0.state.accepted.load(Ordering::SeqCst)
            }
        }
    };
}

/// A server that sends back all bytes it receives until the client half-closes, and then closes its own side.
#[derive(Debug)]
pub struct EchoServer(Server);

impl EchoServer {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST.into())
    }

    /// Listens on a free port of `ip`, for example `::1`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start_on(ip: IpAddr) -> Result<Self> {
        Server::start(ip, |mut stream| {
            stream.set_nodelay(true)?;
            let mut buffer = vec![0; 16 * 1024];
            loop {
                match stream.read(&mut buffer)? {
                    0 => return stream.shutdown(Shutdown::Write),
                    count => stream.write_all(&buffer[..count])?,
                }
            }
        })
        .map(Self)
    }
}

server_methods!(EchoServer);

/// A server that answers every GET request with the same body, and other requests with 405, and then closes.
#[derive(Debug)]
pub struct HttpServer(Server);

impl HttpServer {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(body: impl Into<Vec<u8>>) -> Result<Self> {
        let body = body.into();
        Server::start(Ipv4Addr::LOCALHOST.into(), move |mut stream| {
            let mut head = Vec::new();
            let mut buffer = [0; 1024];
            while memchr::memmem::find(&head, b"\r\n\r\n").is_none() && head.len() < MAX_HEAD {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => head.extend_from_slice(&buffer[..count]),
                }
            }
            let (status, body) = if head.starts_with(b"GET ") { ("200 OK", &body[..]) } else { ("405 Method Not Allowed", &[][..]) };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(body)?;
            stream.shutdown(Shutdown::Write)?;
            // Closing with unread bytes would reset the connection, and the reset can overtake the answer.
            std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
        })
        .map(Self)
    }
}

server_methods!(HttpServer);

/// Returns the first `length` bytes of a sequence of 64-bit numbers (0, 1, 2 and so on) in network byte order. Bytes that are
/// lost, repeated or in the wrong order change it.
pub fn counted_bytes(length: usize) -> Vec<u8> {
    (0u64..).flat_map(u64::to_be_bytes).take(length).collect()
}

/// A server that sends a number of [`counted_bytes`] as fast as the client reads, and closes. It does not read.
#[derive(Debug)]
pub struct BulkServer(Server);

impl BulkServer {
    /// Listens on a free port of 127.0.0.1, and sends `count` bytes on every connection.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(count: usize) -> Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), count)
    }

    /// Starts two servers at the same port: one on 127.0.0.1, which sends `v4` bytes, and one on `::1`, which sends `v6`.
    ///
    /// # Errors
    /// When no port is free on both addresses.
    pub fn start_pair(v4: usize, v6: usize) -> Result<(Self, Self)> {
        let mut taken = Vec::new();
        loop {
            let first = Self::start(v4)?;
            match Self::start_at((Ipv6Addr::LOCALHOST, first.address().port()).into(), v6) {
                Ok(second) => return Ok((first, second)),
                // Kept, so that the system offers another port.
                Err(_) if taken.len() < PORT_TRIES => taken.push(first),
                Err(error) => return Err(error),
            }
        }
    }

    fn start_at(address: SocketAddr, count: usize) -> Result<Self> {
        let bytes = counted_bytes(count);
        Server::start_at(address, move |mut stream| {
            stream.write_all(&bytes)?;
            stream.shutdown(Shutdown::Write)
        })
        .map(Self)
    }
}

server_methods!(BulkServer);

/// A server that accepts connections and reads, but never sends a byte.
#[derive(Debug)]
pub struct SilentServer(Server);

impl SilentServer {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        Server::start(Ipv4Addr::LOCALHOST.into(), |mut stream| {
            std::io::copy(&mut stream, &mut std::io::sink())?;
            // The client has half-closed; the server's side stays open until the server is dropped.
            loop {
                thread::park_timeout(Duration::from_secs(1));
                if stream.take_error()?.is_some() || stream.peer_addr().is_err() {
                    return Ok(());
                }
            }
        })
        .map(Self)
    }
}

server_methods!(SilentServer);

/// A server that sends back all bytes it receives, as [`EchoServer`] does, and records them.
#[derive(Debug)]
pub struct RecordingServer {
    server: Server,
    /// The bytes received on each connection, in the order in which the connections were accepted.
    received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl RecordingServer {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        let received = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
        let record = Arc::clone(&received);
        let server = Server::start(Ipv4Addr::LOCALHOST.into(), move |mut stream| {
            let number = {
                let mut all = lock(&record);
                all.push(Vec::new());
                all.len() - 1
            };
            let mut buffer = [0; 1024];
            loop {
                let count = stream.read(&mut buffer)?;
                if count == 0 {
                    return stream.shutdown(Shutdown::Write);
                }
                lock(&record)[number].extend_from_slice(&buffer[..count]);
                stream.write_all(&buffer[..count])?;
            }
        })?;
        Ok(Self { server, received })
    }

    /// Returns the address at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Returns the bytes received on each connection.
    pub fn received(&self) -> Vec<Vec<u8>> {
        lock(&self.received).clone()
    }
}

/// A port of 127.0.0.1 that refuses connections. Its socket is bound, so that no other process takes the port, but does not
/// listen.
#[derive(Debug)]
pub struct ClosedPort {
    address: SocketAddr,
    _held: OwnedFd,
}

impl ClosedPort {
    /// Binds a free port.
    ///
    /// # Errors
    /// When there is none.
    pub fn new() -> Result<Self> {
        let (held, address) = bound_socket()?;
        Ok(Self {
            address,
            _held: held,
        })
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A port of 127.0.0.1 at which every connection times out: the backlog of its listener is full, so the system drops
/// connection requests.
#[derive(Debug)]
pub struct UnresponsivePort {
    address: SocketAddr,
    _held: OwnedFd,
    _queued: Vec<TcpStream>,
}

impl UnresponsivePort {
    /// Binds a free port and fills its backlog.
    ///
    /// # Errors
    /// When there is no free port, or the backlog cannot be filled.
    pub fn new() -> Result<Self> {
        let (held, address) = bound_socket()?;
        listen(&held, Backlog::new(0)?)?;
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            queued.push(stream);
            if queued.len() > MAX_QUEUED {
                bail!("the system accepts connections in spite of a full backlog");
            }
        }
        Ok(Self {
            address,
            _held: held,
            _queued: queued,
        })
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Binds a TCP socket to a free port of 127.0.0.1, without listening.
fn bound_socket() -> Result<(OwnedFd, SocketAddr)> {
    let held = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bind(held.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0))?;
    let address: SockaddrIn = getsockname(held.as_raw_fd())?;
    Ok((
        held,
        SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(stream: &mut TcpStream) -> Vec<u8> {
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("the time-out is set");
        let mut bytes = Vec::new();
        stream
            .read_to_end(&mut bytes)
            .expect("the server closes the connection");
        bytes
    }

    #[test]
    fn the_echo_server_echoes_until_the_client_half_closes() {
        let server = EchoServer::start().expect("a server");
        let mut stream = TcpStream::connect(server.address()).expect("a connection");
        stream.write_all(b"hello").expect("the bytes are sent");
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).expect("an echo");
        stream.write_all(b" world").expect("the bytes are sent");
        stream
            .shutdown(Shutdown::Write)
            .expect("the client half-closes");
        assert_eq!(
            (&echo[..], &read_all(&mut stream)[..]),
            (&b"hello"[..], &b" world"[..])
        );
        assert_eq!(server.connections(), 1);
    }

    #[test]
    fn the_http_server_answers_only_get_requests_with_its_body() {
        let server = HttpServer::start("the body").expect("a server");
        let request = |request: &str| {
            let mut stream = TcpStream::connect(server.address()).expect("a connection");
            stream
                .write_all(request.as_bytes())
                .expect("the bytes are sent");
            stream
                .shutdown(Shutdown::Write)
                .expect("the client half-closes");
            String::from_utf8(read_all(&mut stream)).expect("the answer is text")
        };
        let reply = request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(
            reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("\r\n\r\nthe body"),
            "{reply}"
        );
        assert!(request("POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    }

    #[test]
    fn the_bulk_server_sends_exactly_the_configured_number_of_bytes() {
        let server = BulkServer::start(100_001).expect("a server");
        let mut stream = TcpStream::connect(server.address()).expect("a connection");
        assert_eq!(read_all(&mut stream), counted_bytes(100_001));
    }

    #[test]
    fn a_closed_port_refuses_connections() {
        let port = ClosedPort::new().expect("a port");
        let error = TcpStream::connect(port.address()).expect_err("the port is closed");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_connection_to_an_unresponsive_port_times_out() {
        let port = UnresponsivePort::new().expect("a port");
        let error = TcpStream::connect_timeout(&port.address(), Duration::from_millis(300))
            .expect_err("the connection times out");
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_dropped_server_closes_its_connections() {
        let server = SilentServer::start().expect("a server");
        let address = server.address();
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("the time-out is set");
        let error = stream
            .read(&mut [0; 1])
            .expect_err("the server sends nothing");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        drop(server);
        assert!(read_all(&mut stream).is_empty());
        assert!(TcpStream::connect(address).is_err());
    }
}
