//! Set-up that tests share: a network with short circuit time-outs, the program with a deadline, and requests.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testnet::{HttpServer, Network, NetworkBuilder, Service, socks5_connect};

use crate::daemon::Onionport;

/// The default of `socks_timeout`.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(120);

/// The page of every web server.
pub const PAGE: &str = "hello from the onion";

/// The two replies to [`greeting_and_request`] after success.
pub const SUCCESS_REPLIES: [u8; 12] = [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

/// Interval between two checks of a condition.
const POLL: Duration = Duration::from_millis(50);

/// Returns the settings of a network with 8 relays and circuit time-outs that suit loopback.
pub fn network_builder() -> NetworkBuilder {
    Network::builder().relays(8).circuit_timeout_ms(Some(2500))
}

/// Starts such a network and a web server that serves [`PAGE`].
pub fn start_network() -> Result<(Network, HttpServer)> {
    Ok((network_builder().start()?, HttpServer::start(PAGE)?))
}

/// Returns the line of the `[proxy]` section that sets the deadline of requests.
pub fn socks_timeout(limit: Duration) -> String {
    format!("socks_timeout = {}\n", limit.as_secs())
}

/// Starts the program with this deadline and more lines in its `[proxy]` section.
pub fn start_proxy(network: &Network, limit: Duration, settings: &str) -> Result<Onionport> {
    Onionport::start(network, &(socks_timeout(limit) + settings))
}

/// Returns how long a client waits for a reply if the program's deadline is `limit`.
pub fn client_timeout(limit: Duration) -> Duration {
    limit + Duration::from_secs(30)
}

/// Requests port 80 of a service, on the port with `ExtendedErrors` of a program with the default deadline. Closes
/// the stream, if there is one, and returns the reply code and how long the reply took.
pub fn timed_request(onionport: &Onionport, service: &Service) -> Result<(u8, Duration)> {
    let proxy = onionport.extended_port();
    let timeout = client_timeout(DEFAULT_LIMIT);
    let reply = socks5_connect(proxy, service.address(), 80, timeout)?;
    Ok((reply.code, reply.elapsed))
}

/// Sends such a request and returns its reply code.
pub fn request_code(onionport: &Onionport, service: &Service) -> Result<u8> {
    Ok(timed_request(onionport, service)?.0)
}

/// Returns a SOCKS5 greeting without login and a CONNECT request, to be sent in one piece.
pub fn greeting_and_request(host: &str, port: u16) -> Result<Vec<u8>> {
    let mut bytes = vec![5, 1, 0, 5, 1, 0, 3, u8::try_from(host.len())?];
    bytes.extend_from_slice(host.as_bytes());
    bytes.extend_from_slice(&port.to_be_bytes());
    Ok(bytes)
}

/// Sends a SOCKS5 greeting, a CONNECT request and `data` in one piece, and reads nothing. Reads from the returned
/// connection time out after `timeout`.
pub fn send_optimistic_data(
    proxy: SocketAddr,
    (host, port): (&str, u16),
    data: &[u8],
    timeout: Duration,
) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(&[&greeting_and_request(host, port)?, data].concat())?;
    Ok(stream)
}

/// Sends a few bytes to an echo server and checks that they come back.
pub fn check_echo(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"hello")?;
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed)?;
    ensure!(&echoed == b"hello", "{echoed:?}");
    Ok(())
}

/// Returns the circuits on which the program requested streams, one entry for each stream, in the order of the log.
pub fn circuits_of_streams(log: &str) -> Vec<String> {
    let circuit = |line: &str| {
        let (_, circuit) = line
            .split_once("asking the exit of circuit ")
            .or_else(|| line.split_once("opening a stream to the onion service on circuit "))?;
        Some(circuit.to_owned())
    };
    log.lines().filter_map(circuit).collect()
}

/// Calls `run` for all items at once, each in its own thread, and returns the results in the order of the items.
pub fn run_in_parallel<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    run: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let run = &run;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .into_iter()
            .map(|item| scope.spawn(move || run(item)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    })
}

/// Waits until a condition holds; `what` names it.
///
/// # Errors
/// If it does not hold within `limit`.
pub fn wait_until(what: &str, limit: Duration, holds: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !holds() {
        ensure!(Instant::now() < deadline, "waited {limit:?} until {what}");
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Allows only the owner to use a folder.
pub fn make_private(folder: &Path) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    Ok(())
}
