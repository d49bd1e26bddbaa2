//! DNS queries for the tests of the DNS port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Record types (RFC 1035 section 3.2.2, RFC 3596).
pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;

/// The class of the Internet.
pub const IN: u16 = 1;

/// How long a server may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long to wait for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(500);

/// Builds the header of a query that claims to have this many questions.
pub fn header(flags: u16, questions: u16) -> Vec<u8> {
    let mut bytes = vec![0x43, 0x21];
    for number in [flags, questions, 0, 0, 0] {
        bytes.extend(number.to_be_bytes());
    }
    bytes
}

/// Builds the question for a name.
pub fn question(name: &str, record_type: u16, class: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(record_type.to_be_bytes());
    bytes.extend(class.to_be_bytes());
    bytes
}

/// Builds a query with one question, of class IN and with recursion desired.
pub fn query(name: &str, record_type: u16) -> Vec<u8> {
    [header(0x0100, 1), question(name, record_type, IN)].concat()
}

/// Sends a datagram and returns the answer.
pub fn exchange(server: SocketAddr, datagram: &[u8]) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    socket.send(datagram)?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).context("no answer")?;
    Ok(buffer[..length].to_vec())
}

/// Whether a server sends no answer to a datagram. Fails if the server does not answer a good query afterwards.
pub fn is_ignored(server: SocketAddr, datagram: &[u8]) -> Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.send(datagram)?;
    // When this is answered, the server has processed the datagram before it.
    exchange(server, &query("192.0.2.33", A))?;
    socket.set_read_timeout(Some(SILENCE))?;
    Ok(socket.recv(&mut [0; 1500]).is_err())
}

/// Returns the address at the end of an answer to a query for `A` or `AAAA`.
pub fn address_in(answer: &[u8], record_type: u16) -> Result<IpAddr> {
    match record_type {
        A => Ok(IpAddr::from(
            *answer.last_chunk::<4>().context("too short")?,
        )),
        AAAA => Ok(IpAddr::from(
            *answer.last_chunk::<16>().context("too short")?,
        )),
        other => anyhow::bail!("record type {other} has no address"),
    }
}
