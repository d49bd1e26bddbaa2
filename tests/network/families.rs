//! Which of a target's addresses an exit connects to, on ports with different flags, beside C tor.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testnet::{BulkServer, CTor, Network, socks5_connect};

use crate::daemon::Onionport;
use crate::program;

const PATIENCE: Duration = Duration::from_secs(60);

/// The server that a stream got to: the one on IPv4, or the one on IPv6. It sends that many bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Server {
    V4 = 4,
    V6 = 6,
}
use Server::{V4, V6};

/// Targets; both servers have the same port.
const HOSTS: [&str; 5] = ["good.test", "six.test", "both.test", "127.0.0.1", "::1"];

/// The flags of a port, and where each of the targets leads: to a server, or to a failure with a code. Where C tor says
/// another code, see [`JUDGES_CODES`].
const PORTS: &[(&str, [Result<Server, u8>; HOSTS.len()])] = &[
    ("", [Ok(V4), Ok(V6), Ok(V4), Ok(V4), Ok(V6)]),
    ("PreferIPv6", [Ok(V4), Ok(V6), Ok(V6), Ok(V4), Ok(V6)]),
    (
        "NoIPv6Traffic",
        [Ok(V4), Err(0x04), Ok(V4), Ok(V4), Err(0x02)],
    ),
    (
        "NoIPv4Traffic",
        [Err(0x04), Ok(V6), Ok(V6), Err(0x02), Ok(V6)],
    ),
    (
        "NoIPv6Traffic PreferIPv6",
        [Ok(V4), Err(0x04), Ok(V4), Ok(V4), Err(0x02)],
    ),
];

/// Exits connect to an IPv4 address if a name has no other, although they are told not to: C tor closes the stream when
/// it hears of it.
const JUDGES_CODES: [(&str, &str, u8); 1] = [("NoIPv4Traffic", "good.test", 0x01)];

/// The port that exits do not allow on IPv6, and the one that they do not allow on IPv4.
const NOT_ON_V6: u16 = 19;
const NOT_ON_V4: u16 = 29;

/// The same ports for C tor, each on a loopback address of its own.
pub fn judges_ports() -> Vec<String> {
    let ports = PORTS.iter().enumerate();
    ports
        .map(|(number, (flags, _))| format!("SocksPort {}:auto {flags}", place(number)))
        .collect()
}

fn place(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 6, u8::try_from(number).expect("few ports") + 1)
}

/// Asks on each port for each target. C tor has to have the ports of [`judges_ports`].
pub fn exits_use_the_addresses_that_the_port_carries(
    network: &Network,
    judge: &CTor,
) -> Result<()> {
    let (v4, _v6) = BulkServer::start_pair(V4 as usize, V6 as usize)?;
    let port = v4.address().port();
    let lines: Vec<String> = PORTS
        .iter()
        .map(|(flags, _)| format!("auto {flags}"))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let onionport = Onionport::with_ports(program(), network, "", &lines)?;
    let mut wrong = Vec::new();
    for (number, (flags, expected)) in PORTS.iter().enumerate() {
        let theirs = judge.listener("socks", place(number))?;
        for (host, expected) in HOSTS.iter().zip(expected) {
            let code = JUDGES_CODES
                .iter()
                .find(|(f, h, _)| (f, h) == (flags, host));
            let judges = code.map_or(*expected, |(.., code)| Err(*code));
            for (who, proxy, expected) in [
                ("onionport", onionport.port(number), *expected),
                ("C tor", theirs, judges),
            ] {
                let reached = reached(proxy, host, port)
                    .with_context(|| format!("{who}, {flags:?}, {host}"))?;
                if reached != expected {
                    wrong.push(format!(
                        "{who}, {flags:?}, {host}: {reached:02X?}, not {expected:02X?}"
                    ));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "wrong:\n{}", wrong.join("\n"));
    exits_are_chosen_by_the_family(&onionport)
}

/// Which server a stream gets to, or with which code it fails.
fn reached(proxy: SocketAddr, host: &str, port: u16) -> Result<Result<Server, u8>> {
    let reply = socks5_connect(proxy, host, port, PATIENCE)?;
    let Some(mut stream) = reply.stream else {
        return Ok(Err(reply.code));
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    [V4, V6]
        .into_iter()
        .find(|server| received.len() == *server as usize)
        .map(Ok)
        .with_context(|| format!("{} bytes came", received.len()))
}

/// Exits that do not allow a port in the family that is needed are not asked at all.
fn exits_are_chosen_by_the_family(onionport: &Onionport) -> Result<()> {
    let asked = || {
        onionport
            .log()
            .matches("asking the exit of circuit")
            .count()
    };
    for (host, port, allowed) in [
        ("127.0.0.1", NOT_ON_V6, true),
        ("::1", NOT_ON_V6, false),
        ("127.0.0.1", NOT_ON_V4, false),
        ("::1", NOT_ON_V4, true),
    ] {
        let before = asked();
        let reply = socks5_connect(onionport.port(0), host, port, PATIENCE)?;
        let code = reply.code;
        // Nobody listens there.
        let expected = if allowed { 0x01 } else { 0x02 };
        ensure!(code == expected, "{host} port {port}: code {code:02X}");
        let were_asked = asked() > before;
        ensure!(
            were_asked == allowed,
            "{host} port {port}: exits were asked: {were_asked}"
        );
    }
    Ok(())
}
