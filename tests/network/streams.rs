//! What goes through an open stream, and look-ups, beside C tor.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use testnet::{
    BulkServer, ClientOptions, EchoServer, Network, Service, ServiceOptions, SocksAddress,
    SocksRequest, counted_bytes, socks5_connect,
};

use crate::daemon::Onionport;
use crate::families;
use crate::program;

const PATIENCE: Duration = Duration::from_secs(60);
/// How much is sent through a stream: many cells, several windows.
const BULK: usize = 2_000_000;

#[test]
fn streams_carry_what_was_sent_and_lookups_answer_as_c_tor_does() -> Result<()> {
    let network = Network::builder()
        .relays(8)
        .circuit_timeout_ms(Some(2500))
        .log_level("info")
        .start()?;
    let echo = EchoServer::start()?;
    let bulk = BulkServer::start(BULK)?;
    let hasty = BulkServer::start(0)?;
    let service = network.service(ServiceOptions {
        ports: vec![
            (80, echo.address()),
            (81, bulk.address()),
            (82, hasty.address()),
        ],
        ..ServiceOptions::default()
    })?;
    let judge = network.c_tor_client(ClientOptions {
        extra_torrc_lines: families::judges_ports(),
        ..ClientOptions::default()
    })?;
    let onionport = Onionport::start(program(), &network, "http_port = \"auto\"")?;
    let proxy = onionport.extended();
    let mut early_streams = 0;

    let port = |address: SocketAddr| address.port();
    for (host, echo_port, bulk_port, hasty_port) in [
        (service.address(), 80, 81, 82),
        (
            "good.test",
            port(echo.address()),
            port(bulk.address()),
            port(hasty.address()),
        ),
    ] {
        for socks in [true, false] {
            early_data_arrives_first(&onionport, socks, host, echo_port, &mut early_streams)?;
        }
        the_answer_comes_after_the_client_has_finished(proxy, host, echo_port)?;
        an_answer_arrives_whole(proxy, host, bulk_port)?;
        what_goes_both_ways_at_once_arrives_whole(proxy, host, echo_port)?;
        a_stream_that_ends_at_once_was_open(proxy, host, hasty_port)?;
    }
    // Nine of ten do here; without, the last check would have seen nothing.
    assert!(onionport.log().contains("opened and closed at once"));
    congestion_control_was_agreed_on(&service)?;
    lookups_agree(proxy, judge.extended_port())?;
    families::exits_use_the_addresses_that_the_port_carries(&network, &judge)?;
    network.mark_done();
    Ok(())
}

/// What the service says of each acknowledgement when it is not bound to the old fixed windows. They would
/// allow 500 cells a round trip for a stream: 0.8 MB/s if that takes 0.3 s.
fn congestion_control_was_agreed_on(service: &Service) -> Result<()> {
    let log = std::fs::read_to_string(service.log())?;
    assert!(
        log.contains("TOR_VEGAS Onion Circuit"),
        "no word of it in the log"
    );
    Ok(())
}

/// Sends a whole conversation at once: greeting, request, and data behind it; or a CONNECT, and data
/// behind its head.
fn early_data_arrives_first(
    onionport: &Onionport,
    socks: bool,
    host: &str,
    port: u16,
    early_streams: &mut usize,
) -> Result<()> {
    let place = match socks {
        true => onionport.extended(),
        // Behind the SOCKS ports.
        false => onionport.port(2),
    };
    let mut stream = TcpStream::connect(place)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = match socks {
        true => greeting_and_request(host, port)?,
        false => format!("CONNECT {host}:{port} HTTP/1.1\r\n\r\n").into_bytes(),
    };
    bytes.extend_from_slice(b"early ");
    stream.write_all(&bytes)?;
    if socks {
        let mut replies = [0; 12];
        stream.read_exact(&mut replies)?;
        assert_eq!(replies, [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0], "{host}");
    } else {
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
    let early = onionport.log();
    let early = early.matches("6 bytes of optimistic data were sent before the stream was open");
    *early_streams += 1;
    assert_eq!(early.count(), *early_streams, "{host}");
    Ok(())
}

/// All that a SOCKS client says to have a stream, in one piece.
pub fn greeting_and_request(host: &str, port: u16) -> Result<Vec<u8>> {
    let mut bytes = vec![5, 1, 0, 5, 1, 0, 3, u8::try_from(host.len())?];
    bytes.extend_from_slice(host.as_bytes());
    bytes.extend_from_slice(&port.to_be_bytes());
    Ok(bytes)
}

/// A server that takes a connection and closes it has not refused it: the end of such a stream often comes
/// in one piece with the word that it is open.
fn a_stream_that_ends_at_once_was_open(proxy: SocketAddr, host: &str, port: u16) -> Result<()> {
    const TIMES: usize = 30;
    for _ in 0..TIMES {
        let mut stream = TcpStream::connect(proxy)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut bytes = greeting_and_request(host, port)?;
        bytes.extend_from_slice(b"early");
        stream.write_all(&bytes)?;
        let mut replies = [0; 12];
        stream.read_exact(&mut replies)?;
        assert_eq!(replies, [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0], "{host}");
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            // The server has left something unread.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => bail!("{host}: no end came: {error}"),
        }
        assert_eq!(rest, b"", "{host}");
    }
    Ok(())
}

fn the_answer_comes_after_the_client_has_finished(
    proxy: SocketAddr,
    host: &str,
    port: u16,
) -> Result<()> {
    let reply = socks5_connect(proxy, host, port, PATIENCE)?;
    let mut stream = reply.stream.expect("code 00 comes with a stream");
    stream.set_read_timeout(Some(PATIENCE))?;
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

/// The client sends and receives at the same time, and says when it has finished.
fn what_goes_both_ways_at_once_arrives_whole(
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
    let reply = socks5_connect(proxy, host, port, PATIENCE)?;
    let stream = reply.stream.context("no stream")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads up to the end, which has to be a clean one.
fn read_all(mut stream: &TcpStream) -> Result<Vec<u8>> {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).context("no clean end")?;
    Ok(received)
}

/// Whether these are the bytes that were sent, all of them and in their order.
fn ensure_counted(received: &[u8], host: &str) -> Result<()> {
    let sent = counted_bytes(BULK);
    let differs = sent.iter().zip(received).position(|(a, b)| a != b);
    ensure!(differs.is_none(), "{host}: another byte at {differs:?}");
    let length = received.len();
    ensure!(length == sent.len(), "{host}: {length} bytes arrived");
    Ok(())
}

fn lookups_agree(proxy: SocketAddr, judge: SocketAddr) -> Result<()> {
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
        let ask = |port| SocksRequest::new(port, host, 0).command(command).send();
        let ours = ask(proxy)?;
        assert_eq!(
            (ours.code, &ours.bound),
            (code, &answer),
            "{command:02X} {host}"
        );
        let theirs = ask(judge)?;
        assert_eq!(
            (ours.code, ours.bound),
            (theirs.code, theirs.bound),
            "{host}"
        );
    }
    for host in ["127.0.0.1", "192.0.2.7"] {
        let ask = |port| SocksRequest::new(port, host, 0).command(RESOLVE_PTR).send();
        let (ours, theirs) = (ask(proxy)?, ask(judge)?);
        println!("RESOLVE_PTR {host}: {ours:?}, C tor {theirs:?}");
        assert_eq!(
            (ours.code, ours.bound),
            (theirs.code, theirs.bound),
            "{host}"
        );
    }
    Ok(())
}
