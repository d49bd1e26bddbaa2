//! Servers to stand behind onion services and exits. Each has its own threads and stops when dropped, with its connections.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket,
};

/// More connections than a queue of length 0 can hold on any system.
const LONGEST_QUEUE: usize = 16;

/// How many ports are tried until one is free on IPv4 and IPv6.
const PORT_TRIES: usize = 16;

/// How long the head of an HTTP request may be.
const LONGEST_HEAD: usize = 16 * 1024;

/// Listener, threads and connections of a server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

/// What the threads of a server share.
#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    accepted: AtomicUsize,
    open: Mutex<HashMap<usize, TcpStream>>,
}

impl Server {
    /// Listens on a free port of `ip` and lets `handle` have each connection on a thread of its own.
    pub(crate) fn start(
        ip: IpAddr,
        handle: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start_at((ip, 0).into(), handle)
    }

    /// The same at a given port.
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
                        // Out of file descriptors, most likely; some may come free.
                        thread::sleep(Duration::from_millis(10));
                        continue;
                    };
                    let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                    let Ok(copy) = stream.try_clone() else {
                        continue;
                    };
                    shared
                        .open
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(number, copy);
                    let (shared, handle) = (Arc::clone(&shared), Arc::clone(&handle));
                    thread::spawn(move || {
                        // A client that goes away in the middle is nothing to report.
                        let _ = handle(stream);
                        shared
                            .open
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .remove(&number);
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
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for stream in self
            .state
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
        {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// The methods that all servers have.
macro_rules! server_methods {
    ($name:ident) => {
        impl $name {
            /// Where it listens.
            pub fn address(&self) -> SocketAddr {
                self.0.address
            }

            /// How many connections it has accepted so far.
            pub fn connections(&self) -> usize {
                self.0.state.accepted.load(Ordering::SeqCst)
            }
        }
    };
}

/// Sends back what it gets. A half-close is kept: it echoes until the client closes its side, then closes its own.
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

/// Answers every GET with the same body, and closes; anything else gets 405.
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
            while memchr::memmem::find(&head, b"\r\n\r\n").is_none() && head.len() < LONGEST_HEAD {
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
            // Closing with unread bytes would be a reset, which can overtake the answer.
            std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
        })
        .map(Self)
    }
}

server_methods!(HttpServer);

/// `length` bytes from a sequence in which every place looks different: the number of each group of eight bytes, most
/// significant byte first.
pub fn counted_bytes(length: usize) -> Vec<u8> {
    (0u64..).flat_map(u64::to_be_bytes).take(length).collect()
}

/// Sends a number of [`counted_bytes`] as fast as they are taken, and closes. It does not read.
#[derive(Debug)]
pub struct BulkServer(Server);

impl BulkServer {
    /// Listens on a free port of 127.0.0.1; sends `count` bytes on every connection.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(count: usize) -> Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), count)
    }

    /// Two of them at the same port: one on 127.0.0.1 that sends `v4` bytes, one on `::1` that sends `v6`.
    ///
    /// # Errors
    /// When no port is free on both.
    pub fn start_pair(v4: usize, v6: usize) -> Result<(Self, Self)> {
        let mut taken = Vec::new();
        loop {
            let first = Self::start(v4)?;
            match Self::start_at((Ipv6Addr::LOCALHOST, first.address().port()).into(), v6) {
                Ok(second) => return Ok((first, second)),
                // Held, so that the system offers another port.
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

/// Accepts connections, reads what comes, and never says a word.
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
            // The client has closed its side; ours stays open until the server is dropped.
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

/// Sends back what it gets, as [`EchoServer`] does, and remembers it.
#[derive(Debug)]
pub struct RecordingServer {
    server: Server,
    /// What came on each connection, in the order in which they were accepted.
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// What came on each connection so far.
    pub fn received(&self) -> Vec<Vec<u8>> {
        lock(&self.received).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port of 127.0.0.1 that refuses connections, and that nobody else can take meanwhile: bound, but not listening.
#[derive(Debug)]
pub struct ClosedPort {
    address: SocketAddr,
    _held: OwnedFd,
}

impl ClosedPort {
    /// Takes a free port.
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

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A port of 127.0.0.1 at which a connection neither succeeds nor fails: its queue is full, so the system drops what
/// comes, and whoever connects waits until it has had enough.
#[derive(Debug)]
pub struct UnresponsivePort {
    address: SocketAddr,
    _held: OwnedFd,
    _queued: Vec<TcpStream>,
}

impl UnresponsivePort {
    /// Takes a free port and fills its queue.
    ///
    /// # Errors
    /// When there is no free port, or the queue cannot be filled.
    pub fn new() -> Result<Self> {
        let (held, address) = bound_socket()?;
        listen(&held, Backlog::new(0)?)?;
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            queued.push(stream);
            if queued.len() > LONGEST_QUEUE {
                bail!("the queue of a port has no end");
            }
        }
        Ok(Self {
            address,
            _held: held,
            _queued: queued,
        })
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A TCP socket on a free port of 127.0.0.1 that does not listen.
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
            .expect("timeout");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an end");
        bytes
    }

    #[test]
    fn the_echo_goes_on_until_the_client_closes_its_side() {
        let server = EchoServer::start().expect("server");
        let mut stream = TcpStream::connect(server.address()).expect("connected");
        stream.write_all(b"hello").expect("sent");
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).expect("echo");
        stream.write_all(b" world").expect("sent");
        stream.shutdown(Shutdown::Write).expect("half-closed");
        assert_eq!(
            (&echo[..], &read_all(&mut stream)[..]),
            (&b"hello"[..], &b" world"[..])
        );
        assert_eq!(server.connections(), 1);
    }

    #[test]
    fn http_answers_get_and_nothing_else() {
        let server = HttpServer::start("the body").expect("server");
        let ask = |request: &str| {
            let mut stream = TcpStream::connect(server.address()).expect("connected");
            stream.write_all(request.as_bytes()).expect("sent");
            stream.shutdown(Shutdown::Write).expect("half-closed");
            String::from_utf8(read_all(&mut stream)).expect("text")
        };
        let reply = ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(
            reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("\r\n\r\nthe body"),
            "{reply}"
        );
        assert!(ask("POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    }

    #[test]
    fn bulk_sends_exactly_the_number_asked_for() {
        let server = BulkServer::start(100_001).expect("server");
        let mut stream = TcpStream::connect(server.address()).expect("connected");
        assert_eq!(read_all(&mut stream), counted_bytes(100_001));
    }

    #[test]
    fn a_closed_port_refuses() {
        let port = ClosedPort::new().expect("port");
        let error = TcpStream::connect(port.address()).expect_err("nobody listens");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn an_unresponsive_port_lets_nobody_in_and_tells_nobody() {
        let port = UnresponsivePort::new().expect("port");
        let error = TcpStream::connect_timeout(&port.address(), Duration::from_millis(300))
            .expect_err("no answer");
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_dropped_server_takes_its_connections_along() {
        let server = SilentServer::start().expect("server");
        let address = server.address();
        let mut stream = TcpStream::connect(address).expect("connected");
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("timeout");
        let error = stream.read(&mut [0; 1]).expect_err("it says nothing");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        drop(server);
        assert!(read_all(&mut stream).is_empty());
        assert!(TcpStream::connect(address).is_err());
    }
}
