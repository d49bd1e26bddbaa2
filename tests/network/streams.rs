//! Data through an open stream, and lookups, compared with C tor.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use testnet::{
    BulkServer, ClientOptions, EchoServer, Service, ServiceOptions, SocksAddress, SocksRequest,
    counted_bytes, socks5_connect,
};

use crate::daemon::Onionport;
use crate::families;
use crate::setup::{SUCCESS_REPLIES, network_builder, send_optimistic_data};

/// How long a request, a read or a write may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How many bytes are sent through a stream: many cells, several windows.
const BULK: usize = 2_000_000;

#[test]
fn streams_carry_what_was_sent_and_lookups_answer_as_c_tor_does() -> Result<()> {
    // The service logs its congestion control at this level.
    let network = network_builder().log_level("info").start()?;
    let echo = EchoServer::start()?;
    let bulk = BulkServer::start(BULK)?;
    let closing = BulkServer::start(0)?;
    let service = network.service(ServiceOptions {
        ports: vec![
            (80, echo.address()),
            (81, bulk.address()),
            (82, closing.address()),
        ],
        ..ServiceOptions::default()
    })?;
    let c_tor = network.c_tor_client(ClientOptions {
        extra_torrc_lines: families::c_tor_ports(),
        ..ClientOptions::default()
    })?;
    let onionport = Onionport::start(&network, "http_port = \"auto\"")?;
    let proxy = onionport.extended_port();
    let mut early_streams = 0;

    let port = |address: SocketAddr| address.port();
    for (host, echo_port, bulk_port, closing_port) in [
        (service.address(), 80, 81, 82),
        (
            "good.test",
            port(echo.address()),
            port(bulk.address()),
            port(closing.address()),
        ),
    ] {
        for socks in [true, false] {
            optimistic_data_arrives_first(&onionport, socks, (host, echo_port))?;
            early_streams += 1;
            let log = onionport.log();
            let message = "6 bytes of optimistic data were sent before the stream was open";
            assert_eq!(log.matches(message).count(), early_streams, "{host}");
        }
        an_answer_after_the_client_has_finished_arrives(proxy, host, echo_port)?;
        an_answer_arrives_whole(proxy, host, bulk_port)?;
        data_in_both_directions_at_once_arrives_whole(proxy, host, echo_port)?;
        a_stream_that_ends_at_once_was_open(proxy, (host, closing_port))?;
    }
    // Nine of ten such streams are logged here. With none, the check above would have tested nothing.
    assert!(onionport.log().contains("opened and closed at once"));
    congestion_control_was_negotiated(&service)?;
    lookups_match(proxy, c_tor.extended_port())?;
    families::exits_use_the_addresses_that_the_port_allows(&network, &c_tor)?;
    network.mark_done();
    Ok(())
}

/// Checks for the message that the service logs for each acknowledgement under congestion control. The old fixed
/// windows would limit a stream to 500 cells per round trip: 0.8 MB/s with round trips of 0.3 s.
fn congestion_control_was_negotiated(service: &Service) -> Result<()> {
    let log = std::fs::read_to_string(service.log())?;
    assert!(
        log.contains("TOR_VEGAS Onion Circuit"),
        "no congestion control in the log"
    );
    Ok(())
}

/// Sends a SOCKS5 greeting and request, or an HTTP CONNECT request, and data right behind it; then more data after the
/// reply.
fn optimistic_data_arrives_first(
    onionport: &Onionport,
    socks: bool,
    (host, port): (&str, u16),
) -> Result<()> {
    const EARLY: &[u8] = b"early ";
    let mut stream;
    if socks {
        let proxy = onionport.extended_port();
        stream = send_optimistic_data(proxy, (host, port), EARLY, LIMIT)?;
        let mut replies = [0; SUCCESS_REPLIES.len()];
        stream.read_exact(&mut replies)?;
        assert_eq!(replies, SUCCESS_REPLIES, "{host}");
    } else {
        // After the two SOCKS ports.
        stream = TcpStream::connect(onionport.port(2))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let request = format!("CONNECT {host}:{port} HTTP/1.1\r\n\r\n");
        stream.write_all(&[request.as_bytes(), EARLY].concat())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend_from_slice(&byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 200 "), "{host}");
    }
    stream.write_all(b"and late")?;
    let mut echoed = [0; 14];
    stream.read_exact(&mut echoed)?;
    assert_eq!(&echoed, b"early and late", "{host}");
    Ok(())
}

/// A server that accepts a connection and closes it has not refused it. The END of such a stream often arrives together
/// with CONNECTED.
fn a_stream_that_ends_at_once_was_open(proxy: SocketAddr, target: (&str, u16)) -> Result<()> {
    const TIMES: usize = 30;
    let (host, _) = target;
    for _ in 0..TIMES {
        let mut stream = send_optimistic_data(proxy, target, b"early", LIMIT)?;
        let mut replies = [0; SUCCESS_REPLIES.len()];
        stream.read_exact(&mut replies)?;
        assert_eq!(replies, SUCCESS_REPLIES, "{host}");
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            // The server had unread data when it closed the connection.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => bail!("{host}: the stream did not end: {error}"),
        }
        assert_eq!(rest, b"", "{host}");
    }
    Ok(())
}

fn an_answer_after_the_client_has_finished_arrives(
    proxy: SocketAddr,
    host: &str,
    port: u16,
) -> Result<()> {
    let reply = socks5_connect(proxy, host, port, LIMIT)?;
    let mut stream = reply.stream.expect("code 00 comes with a stream");
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"question")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"question", "{host}");
    Ok(())
}

fn an_answer_arrives_whole(proxy: SocketAddr, host: &str, port: u16) -> Result<()> {
    let stream = open(proxy, host, port)?;
    ensure_counted(&read_all(&stream)?, host)
}

/// The client sends and receives at the same time, and half-closes the connection after its last byte.
fn data_in_both_directions_at_once_arrives_whole(
    proxy: SocketAddr,
    host: &str,
    port: u16,
) -> Result<()> {
    let stream = open(proxy, host, port)?;
    let echoed = std::thread::scope(|scope| {
        let reading = scope.spawn(|| read_all(&stream));
        (&stream).write_all(&counted_bytes(BULK))?;
        stream.shutdown(Shutdown::Write)?;
        reading.join().expect("no panic")
    })?;
    ensure_counted(&echoed, host)
}

fn open(proxy: SocketAddr, host: &str, port: u16) -> Result<TcpStream> {
    let reply = socks5_connect(proxy, host, port, LIMIT)?;
    let stream = reply.stream.context("no stream")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Reads until the end, which has to be a clean one.
fn read_all(mut stream: &TcpStream) -> Result<Vec<u8>> {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).context("no clean end")?;
    Ok(received)
}

/// Checks that these are the bytes that were sent, all of them and in order.
fn ensure_counted(received: &[u8], host: &str) -> Result<()> {
    let sent = counted_bytes(BULK);
    let differs = sent.iter().zip(received).position(|(a, b)| a != b);
    ensure!(differs.is_none(), "{host}: wrong byte at {differs:?}");
    let length = received.len();
    ensure!(length == sent.len(), "{host}: {length} bytes arrived");
    Ok(())
}

fn lookups_match(proxy: SocketAddr, c_tor: SocketAddr) -> Result<()> {
    const RESOLVE: u8 = 0xF0;
    const RESOLVE_PTR: u8 = 0xF1;
    let ip = |text: &str| SocksAddress::Ip(text.parse::<IpAddr>().expect("an address"));
    let cases = [
        (RESOLVE, "good.test", 0x00, ip("127.0.0.1")),
        (RESOLVE, "six.test", 0x00, ip("::1")),
        (RESOLVE, "192.0.2.1", 0x00, ip("192.0.2.1")),
        (RESOLVE, "none.test", 0x04, SocksAddress::None),
    ];
    for (command, host, code, answer) in cases {
        let look_up = |proxy| SocksRequest::new(proxy, host, 0).command(command).send();
        let ours = look_up(proxy)?;
        assert_eq!(
            (ours.code, &ours.bound),
            (code, &answer),
            "{command:02X} {host}"
        );
        let theirs = look_up(c_tor)?;
        assert_eq!(
            (ours.code, ours.bound),
            (theirs.code, theirs.bound),
            "{host}"
        );
    }
    for host in ["127.0.0.1", "192.0.2.7"] {
        let look_up = |proxy| {
            SocksRequest::new(proxy, host, 0)
                .command(RESOLVE_PTR)
                .send()
        };
        let (ours, theirs) = (look_up(proxy)?, look_up(c_tor)?);
        println!("RESOLVE_PTR {host}: {ours:?}, C tor {theirs:?}");
        assert_eq!(
            (ours.code, ours.bound),
            (theirs.code, theirs.bound),
            "{host}"
        );
    }
    Ok(())
}
