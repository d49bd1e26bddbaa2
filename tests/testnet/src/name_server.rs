//! The name server of all exits.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// The time between two checks of the flag that stops the server.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long an answer may be cached, in seconds.
const TTL: u32 = 60;

/// A UDP name server on loopback.
///
/// | query | answer |
/// |---|---|
/// | `good.test` | 127.0.0.1 |
/// | `six.test` | ::1 |
/// | `both.test` | 127.0.0.1 and ::1 |
/// | `public.test` | 203.0.113.7, which no host has |
/// | PTR of 192.0.2.7 | `good.test` |
/// | PTR of 2001:db8::7 | `six.test` |
/// | `slow.test` | none, ever |
/// | `broken.test` | SERVFAIL |
/// | anything else | NXDOMAIN |
///
/// There are no PTR records of loopback addresses, because exits refuse to look up the names of internal addresses.
#[derive(Debug)]
pub(crate) struct NameServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    pub(crate) fn start() -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").context("cannot bind the name server")?;
        socket.set_read_timeout(Some(POLL_INTERVAL))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("testnet-name-server".into())
            .spawn(move || serve(&socket, &stopped))?;
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, stop: &AtomicBool) {
    let mut packet = [0; 1500];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut packet) {
            Ok((length, from)) => {
                if let Some(answer) = answer(&packet[..length]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            // An ICMP error: the client's socket was closed before the answer came.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// The answer for a name.
enum Answer {
    Addresses(&'static [IpAddr]),
    Name(&'static str),
    None,
    ServerFailure,
    NoSuchName,
}

fn look_up(name: &str) -> Answer {
    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
    const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
    match name {
        "good.test" => Answer::Addresses(&[V4]),
        "public.test" => Answer::Addresses(&[PUBLIC]),
        "six.test" => Answer::Addresses(&[V6]),
        "both.test" => Answer::Addresses(&[V4, V6]),
        "slow.test" => Answer::None,
        "broken.test" => Answer::ServerFailure,
        "7.2.0.192.in-addr.arpa" => Answer::Name("good.test"),
        name if name == format!("7.{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(23)) => {
            Answer::Name("six.test")
        }
        _ => Answer::NoSuchName,
    }
}

/// Returns the packet that answers a query packet; `None` for a malformed one and for the name that is never answered.
fn answer(packet: &[u8]) -> Option<Vec<u8>> {
    let message = Message::from_vec(packet).ok()?;
    let query = message.queries.first()?;
    let name = query.name().to_ascii().to_ascii_lowercase();
    let mut reply = Message::response(message.metadata.id, message.metadata.op_code);
    reply.metadata.recursion_desired = message.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    // Repeats the query unchanged: tor randomizes the case of the letters and checks it in the answer.
    reply.add_query(query.clone());
    let mut records = Vec::new();
    match look_up(name.trim_end_matches('.')) {
        Answer::Addresses(addresses) => {
            records.extend(addresses.iter().filter_map(|address| {
                match (address, query.query_type()) {
                    (IpAddr::V4(v4), RecordType::A) => Some(RData::A((*v4).into())),
                    (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA((*v6).into())),
                    _ => None,
                }
            }))
        }
        Answer::Name(name) if query.query_type() == RecordType::PTR => {
            records.push(RData::PTR(PTR(Name::from_ascii(format!("{name}.")).ok()?)));
        }
        Answer::Name(_) => {}
        Answer::None => return None,
        Answer::ServerFailure => reply.metadata.response_code = ResponseCode::ServFail,
        Answer::NoSuchName => reply.metadata.response_code = ResponseCode::NXDomain,
    }
    for data in records {
        reply.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
    }
    reply.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{OpCode, Query};

    /// Sends a query over UDP and returns the answer, or `None` if none comes within half a second.
    fn query(server: &NameServer, name: &str, kind: RecordType) -> Option<Message> {
        let mut message = Message::new(4711, hickory_proto::op::MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .expect("the time-out is set");
        socket
            .send_to(&message.to_vec().expect("a packet"), server.address())
            .expect("the query is sent");
        let mut packet = [0; 1500];
        let length = socket.recv(&mut packet).ok()?;
        Some(Message::from_vec(&packet[..length]).expect("a message"))
    }

    #[test]
    fn every_name_is_answered_as_documented() {
        let server = NameServer::start().expect("a server");
        let answers = |name: &str, kind| {
            let reply = query(&server, name, kind).expect("an answer");
            assert_eq!(reply.metadata.id, 4711);
            let records: Vec<String> = reply.answers.iter().map(|r| r.data.to_string()).collect();
            (reply.metadata.response_code, records.join(" "))
        };
        let ok = |text: &str| (ResponseCode::NoError, text.to_owned());
        assert_eq!(answers("good.test.", RecordType::A), ok("127.0.0.1"));
        assert_eq!(answers("GoOd.TeSt.", RecordType::A), ok("127.0.0.1"));
        assert_eq!(answers("good.test.", RecordType::AAAA), ok(""));
        assert_eq!(answers("six.test.", RecordType::A), ok(""));
        assert_eq!(answers("six.test.", RecordType::AAAA), ok("::1"));
        assert_eq!(answers("both.test.", RecordType::A), ok("127.0.0.1"));
        assert_eq!(answers("both.test.", RecordType::AAAA), ok("::1"));
        assert_eq!(
            answers("7.2.0.192.in-addr.arpa.", RecordType::PTR),
            ok("good.test.")
        );
        let six = format!("7.{}8.b.d.0.1.0.0.2.ip6.arpa.", "0.".repeat(23));
        assert_eq!(answers(&six, RecordType::PTR), ok("six.test."));
        assert_eq!(
            answers("1.0.0.127.in-addr.arpa.", RecordType::PTR).0,
            ResponseCode::NXDomain
        );
        assert_eq!(
            answers("broken.test.", RecordType::A).0,
            ResponseCode::ServFail
        );
        assert_eq!(
            answers("other.test.", RecordType::A).0,
            ResponseCode::NXDomain
        );
    }

    #[test]
    fn the_answer_repeats_the_case_of_the_query() {
        let server = NameServer::start().expect("a server");
        let reply = query(&server, "GoOd.TeSt.", RecordType::A).expect("an answer");
        assert_eq!(reply.queries[0].name().to_ascii(), "GoOd.TeSt.");
    }

    #[test]
    fn the_slow_name_is_never_answered() {
        let server = NameServer::start().expect("a server");
        assert!(query(&server, "slow.test.", RecordType::A).is_none());
    }
}
