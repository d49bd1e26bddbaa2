//! Which of a destination's addresses an exit connects to, on ports with different flags, compared with C tor.
//!
//! The test `streams` runs these checks on its network.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testnet::{BulkServer, CTor, Network, socks5_connect};

use crate::daemon::{Onionport, Start};
use crate::setup::circuits_of_streams;

/// How long a request or a read may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A server: the one on IPv4 or the one on IPv6. Its number is the number of bytes that it sends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Server {
    V4 = 4,
    V6 = 6,
}
use Server::{V4, V6};

/// The destinations. Both servers have the same port.
const HOSTS: [&str; 5] = ["good.test", "six.test", "both.test", "127.0.0.1", "::1"];

/// The flags of a port, and the outcome for each of [`HOSTS`]: a server, or a reply code. [`C_TOR_CODES`] lists where
/// C tor's code differs.
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

/// Flags, host and C tor's code. An exit connects to a name's IPv4 address if the name has no other, although the
/// request forbids it; C tor closes the stream when it learns the address.
const C_TOR_CODES: [(&str, &str, u8); 1] = [("NoIPv4Traffic", "good.test", 0x01)];

/// The port that exits do not allow on IPv6.
const NOT_ON_V6: u16 = 19;
/// The port that exits do not allow on IPv4.
const NOT_ON_V4: u16 = 29;

/// Returns torrc lines with the same ports for C tor, each on its own loopback address.
pub fn c_tor_ports() -> Vec<String> {
    let ports = PORTS.iter().enumerate();
    ports
        .map(|(index, (flags, _))| format!("SocksPort {}:auto {flags}", c_tor_address(index)))
        .collect()
}

fn c_tor_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 6, u8::try_from(index).expect("few ports") + 1)
}

/// Requests each destination on each port. `c_tor` must have the ports of [`c_tor_ports`].
pub fn exits_use_the_addresses_that_the_port_allows(network: &Network, c_tor: &CTor) -> Result<()> {
    let (v4, _v6) = BulkServer::start_pair(V4 as usize, V6 as usize)?;
    let port = v4.address().port();
    let lines: Vec<String> = PORTS
        .iter()
        .map(|(flags, _)| format!("auto {flags}"))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let onionport = Start::new(network).socks_ports(&lines).start()?;
    let mut wrong = Vec::new();
    for (index, (flags, expected)) in PORTS.iter().enumerate() {
        let theirs = c_tor.listener("socks", c_tor_address(index))?;
        for (host, expected) in HOSTS.iter().zip(expected) {
            let code = C_TOR_CODES.iter().find(|(f, h, _)| (f, h) == (flags, host));
            let c_tor_expected = code.map_or(*expected, |(.., code)| Err(*code));
            for (program, proxy, expected) in [
                ("onionport", onionport.port(index), *expected),
                ("C tor", theirs, c_tor_expected),
            ] {
                let outcome = request(proxy, host, port)
                    .with_context(|| format!("{program}, {flags:?}, {host}"))?;
                if outcome != expected {
                    wrong.push(format!(
                        "{program}, {flags:?}, {host}: {outcome:02X?}, not {expected:02X?}"
                    ));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "wrong:\n{}", wrong.join("\n"));
    exits_are_chosen_by_the_family(&onionport)
}

/// Returns the server that a stream reaches, or the reply code.
fn request(proxy: SocketAddr, host: &str, port: u16) -> Result<Result<Server, u8>> {
    let reply = socks5_connect(proxy, host, port, LIMIT)?;
    let Some(mut stream) = reply.stream else {
        return Ok(Err(reply.code));
    };
    stream.set_read_timeout(Some(LIMIT))?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    [V4, V6]
        .into_iter()
        .find(|server| received.len() == *server as usize)
        .map(Ok)
        .with_context(|| format!("received {} bytes", received.len()))
}

/// The program does not send a request to exits that do not allow the port in the family that is needed.
fn exits_are_chosen_by_the_family(onionport: &Onionport) -> Result<()> {
    let count_requests = || circuits_of_streams(&onionport.log()).len();
    for (host, port, allowed) in [
        ("127.0.0.1", NOT_ON_V6, true),
        ("::1", NOT_ON_V6, false),
        ("127.0.0.1", NOT_ON_V4, false),
        ("::1", NOT_ON_V4, true),
    ] {
        let before = count_requests();
        let reply = socks5_connect(onionport.port(0), host, port, LIMIT)?;
        let code = reply.code;
        // An allowed request fails as well, because no server listens there.
        let expected = if allowed { 0x01 } else { 0x02 };
        ensure!(code == expected, "{host} port {port}: code {code:02X}");
        let was_sent = count_requests() > before;
        ensure!(
            was_sent == allowed,
            "{host} port {port}: request sent to an exit: {was_sent}"
        );
    }
    Ok(())
}
