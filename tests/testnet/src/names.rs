//! The name server that every exit asks.

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

/// How often the server looks whether it is to stop.
const POLL: Duration = Duration::from_millis(100);

/// Seconds an answer may be kept.
const TTL: u32 = 60;

/// A UDP name server on loopback. It knows `good.test` (127.0.0.1), `six.test` (::1 only), `both.test` (both) and
/// `public.test` (203.0.113.7, where nobody is); the
/// address 192.0.2.7 is `good.test` and 2001:db8::7 is `six.test` (no loopback addresses, because exits refuse to look up the
/// names of internal ones); `slow.test` is never answered, `broken.test` gets SERVFAIL, anything else NXDOMAIN.
#[derive(Debug)]
pub(crate) struct NameServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    pub(crate) fn start() -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").context("cannot bind the name server")?;
        socket.set_read_timeout(Some(POLL))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("testnet-names".into())
            .spawn(move || serve(&socket, &told))?;
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
            // An ICMP error for an answer nobody waited for any more.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// What stands behind a name.
enum Known {
    Addresses(&'static [IpAddr]),
    Name(&'static str),
    NeverAnswered,
    Broken,
    Unknown,
}

fn look_up(name: &str) -> Known {
    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
    const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
    match name {
        "good.test" => Known::Addresses(&[V4]),
        "public.test" => Known::Addresses(&[PUBLIC]),
        "six.test" => Known::Addresses(&[V6]),
        "both.test" => Known::Addresses(&[V4, V6]),
        "slow.test" => Known::NeverAnswered,
        "broken.test" => Known::Broken,
        "7.2.0.192.in-addr.arpa" => Known::Name("good.test"),
        name if name == format!("7.{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(23)) => {
            Known::Name("six.test")
        }
        _ => Known::Unknown,
    }
}

/// The answer to a question packet; none to nonsense and to the name that is never answered.
fn answer(packet: &[u8]) -> Option<Vec<u8>> {
    let question = Message::from_vec(packet).ok()?;
    let query = question.queries.first()?;
    let asked = query.name().to_ascii().to_ascii_lowercase();
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    reply.metadata.recursion_desired = question.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    // The question goes back as it came: tor varies the case of the letters and checks that.
    reply.add_query(query.clone());
    let mut records = Vec::new();
    match look_up(asked.trim_end_matches('.')) {
        Known::Addresses(addresses) => {
            records.extend(addresses.iter().filter_map(|address| {
                match (address, query.query_type()) {
                    (IpAddr::V4(v4), RecordType::A) => Some(RData::A((*v4).into())),
                    (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA((*v6).into())),
                    _ => None,
                }
            }))
        }
        Known::Name(name) if query.query_type() == RecordType::PTR => {
            records.push(RData::PTR(PTR(Name::from_ascii(format!("{name}.")).ok()?)));
        }
        Known::Name(_) => {}
        Known::NeverAnswered => return None,
        Known::Broken => reply.metadata.response_code = ResponseCode::ServFail,
        Known::Unknown => reply.metadata.response_code = ResponseCode::NXDomain,
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

    /// Asks the server over UDP; `None` if it does not answer.
    fn ask(server: &NameServer, name: &str, kind: RecordType) -> Option<Message> {
        let mut question = Message::new(4711, hickory_proto::op::MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_ascii(name).expect("name"), kind));
        let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .expect("timeout");
        socket
            .send_to(&question.to_vec().expect("packet"), server.address())
            .expect("sent");
        let mut packet = [0; 1500];
        let length = socket.recv(&mut packet).ok()?;
        Some(Message::from_vec(&packet[..length]).expect("a message"))
    }

    #[test]
    fn every_name_answers_as_promised() {
        let server = NameServer::start().expect("server");
        let answers = |name: &str, kind| {
            let reply = ask(&server, name, kind).expect("an answer");
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
    fn the_case_of_the_question_comes_back() {
        let server = NameServer::start().expect("server");
        let reply = ask(&server, "GoOd.TeSt.", RecordType::A).expect("an answer");
        assert_eq!(reply.queries[0].name().to_ascii(), "GoOd.TeSt.");
    }

    #[test]
    fn the_slow_name_is_never_answered() {
        let server = NameServer::start().expect("server");
        assert!(ask(&server, "slow.test.", RecordType::A).is_none());
    }
}
