//! Sends every vector of `tests/data/socks_vectors.txt` to the real program and, in the same run, to C tor,
//! and compares what the client receives.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::net::Ipv6Addr;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::c_tor::{self, CTor};
use crate::support::client::{Client, End, ListenAddr};
use crate::support::hex::{bytes, show};
use crate::support::program::Program;
use crate::support::skipped::report_skipped;

const VECTORS: &str = include_str!("../data/socks_vectors.txt");
/// A lower number means that the file is truncated.
const MIN_VECTORS: usize = 200;
/// Traffic flags; each has its own port.
const TRAFFIC_FLAGS: [&str; 5] = [
    "NoIPv4Traffic",
    "NoIPv6Traffic",
    "NoDNSRequest",
    "NoOnionTraffic",
    "OnionTrafficOnly",
];
/// How long to watch connections that should stay open, after all others have ended.
const OPEN_WINDOW: Duration = Duration::from_millis(300);

/// A line of the file.
#[derive(Debug)]
struct Vector {
    name: &'static str,
    option: &'static str,
    sent: Vec<Vec<u8>>,
    expected: Answer,
    /// The answer of C tor, if it differs.
    c_tor: Option<Answer>,
}

/// What a client should receive, and whether the connection then ends.
#[derive(Debug)]
struct Answer {
    /// One part for each part sent.
    parts: Vec<Vec<u8>>,
    /// More may follow the last part.
    open_ended: bool,
    end: End,
}

/// What a client has received.
#[derive(Debug)]
struct Received {
    parts: Vec<Vec<u8>>,
    end: End,
}

/// Parses the file.
fn vectors() -> Vec<Vector> {
    VECTORS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let (name, option, sent, expected, end, c_tor) = match fields[..] {
                [name, option, sent, expected, end, _] => (name, option, sent, expected, end, None),
                [name, option, sent, expected, end, _, c_tor, c_tor_end] => {
                    let c_tor = c_tor.strip_prefix("C tor").expect("C tor's answer");
                    (
                        name,
                        option,
                        sent,
                        expected,
                        end,
                        Some(parse_answer(c_tor, c_tor_end)),
                    )
                }
                _ => panic!("6 or 8 fields: {line}"),
            };
            Vector {
                name,
                option,
                sent: sent.split('/').map(bytes).collect(),
                expected: parse_answer(expected, end),
                c_tor,
            }
        })
        .collect()
}

/// Parses an answer and the end of the connection.
fn parse_answer(parts: &str, end: &str) -> Answer {
    let open_ended = parts.ends_with("..");
    // "+" marks where the bytes of the next stage begin, which a client cannot see.
    let parts = parts.trim_end_matches("..").replace('+', "");
    Answer {
        parts: parts.split('/').map(bytes).collect(),
        open_ended,
        end: match end {
            "closed" => End::Closed,
            "open" => End::Open,
            other => panic!("neither closed nor open: {other}"),
        },
    }
}

impl Answer {
    /// Whether a client has received this answer.
    fn matches(&self, received: &Received) -> bool {
        let (expected, got) = (self.parts.concat(), received.parts.concat());
        let same = match self.open_ended {
            true => got.starts_with(&expected),
            false => got == expected,
        };
        // Each part has to arrive as the answer to its own part of the request.
        let mut pairs = self.parts.iter().zip(&received.parts);
        let in_order = self.open_ended || pairs.all(|(a, b)| a == b);
        same && in_order && self.end == received.end
    }
}

impl std::fmt::Display for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.parts.iter().map(|part| show(part)).collect();
        write!(f, "{} ({:?})", parts.join(" / "), self.end)
    }
}

/// Sends the parts of a vector, and reads as much as is expected. Returns the connection as well if it
/// should stay open.
async fn send_vector(
    address: &ListenAddr,
    sent: &[Vec<u8>],
    expected: &Answer,
) -> (Received, Option<Client>) {
    let mut client = Client::connect(address).await;
    let mut received = Received {
        parts: Vec::new(),
        end: End::Open,
    };
    for (number, part) in sent.iter().enumerate() {
        // If the connection is closed already, sending fails, and the rest is read.
        let is_sent = client.try_send(part).await.is_ok();
        let last = number + 1 == sent.len();
        let due = expected.parts.get(number).map_or(0, Vec::len);
        let all = !is_sent || (last && (expected.end == End::Closed || expected.open_ended));
        let (got, end) = client.read(if all { usize::MAX } else { due }).await;
        received.parts.push(got);
        if end != End::Open {
            received.end = end;
            return (received, None);
        }
    }
    let stays = expected.end == End::Open;
    (received, stays.then_some(client))
}

/// Sends all vectors to one program at once. `ports` has its ports by option; vectors with other options
/// are left out.
async fn send_all(
    vectors: &'static [Vector],
    ports: HashMap<&'static str, ListenAddr>,
    expected: fn(&Vector) -> &Answer,
) -> BTreeMap<&'static str, Received> {
    let mut sending = JoinSet::new();
    for vector in vectors {
        let Some(address) = ports.get(vector.option).cloned() else {
            continue;
        };
        sending.spawn(async move {
            let (received, open) = send_vector(&address, &vector.sent, expected(vector)).await;
            (vector.name, received, open)
        });
    }
    let mut all = BTreeMap::new();
    let mut open = Vec::new();
    while let Some(sent) = sending.join_next().await {
        let (name, received, client) = sent.expect("no panic");
        all.insert(name, received);
        open.extend(client.map(|client| (name, client)));
    }
    // The open connections have had all this time to receive more. One more request on each port shows
    // that the program is not just slow.
    for address in ports.values() {
        let mut client = Client::connect(address).await;
        client.send("04 99 0050 c0000201 00").await;
        client.expect("00 5b 0000 00000000").await;
    }
    let mut watching = JoinSet::new();
    for (name, mut client) in open {
        watching.spawn(async move { (name, client.read_within(OPEN_WINDOW).await) });
    }
    while let Some(watched) = watching.join_next().await {
        let (name, more) = watched.expect("no panic");
        let received = all.get_mut(name).expect("an open connection");
        if let Some((more, end)) = more {
            received.parts.push(more);
            received.end = end;
        }
    }
    all
}

/// Whether this computer has an IPv6 loopback address.
fn has_ipv6() -> bool {
    std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_and_c_tor_answer_every_vector_as_listed() {
    let vectors: &'static [Vector] = vectors().leak();
    assert!(
        vectors.len() >= MIN_VECTORS,
        "only {} vectors",
        vectors.len()
    );
    let ipv6 = has_ipv6();
    if !ipv6 {
        report_skipped("no IPv6 on loopback: cannot send the vectors of IPv6 clients");
    }

    let program = Program::offline()
        .port("auto")
        .port("auto PreferSOCKSNoAuth")
        .port("auto ExtendedErrors");
    let program = TRAFFIC_FLAGS.iter().fold(program, |program, flag| {
        program.port(format!("auto {flag}"))
    });
    let socket = program.folder().join("socks");
    let program = program.port(format!("unix:{}", socket.display()));
    let program = if ipv6 {
        program.port("[::1]:auto")
    } else {
        program
    };
    let daemon = program.start();
    let options: Vec<&str> = ["plain", "PreferSOCKSNoAuth", "ExtendedErrors"]
        .into_iter()
        .chain(TRAFFIC_FLAGS)
        .chain(["UnixClient", "IPv6Client"])
        .collect();
    let mut ports: HashMap<_, _> = options
        .iter()
        .copied()
        .zip(daemon.addresses.iter().cloned())
        .collect();
    let safe = Program::offline()
        .port("auto")
        .config_lines("safe_socks = true")
        .config_lines("reject_plaintext_ports = [6667]");
    let safe_daemon = safe.start();
    ports.insert("SafeSocks", safe_daemon.addresses[0].clone());
    for vector in vectors {
        let known = options.contains(&vector.option) || vector.option == "SafeSocks";
        assert!(known, "{}: unknown option {}", vector.name, vector.option);
    }

    let c_tor = c_tor::find();
    let sending_to_c_tor =
        async {
            let Some(tor) = &c_tor else {
                return BTreeMap::new();
            };
            let mut lines = vec![
                "SocksPort 127.0.0.1:auto".to_owned(),
                "SocksPort 127.0.0.2:auto PreferSOCKSNoAuth".to_owned(),
                "SocksPort 127.0.0.3:auto ExtendedErrors".to_owned(),
                "SocksPort unix:FOLDER/socks".to_owned(),
            ];
            let traffic_address = |number: usize| format!("127.0.1.{}:", number + 1);
            lines.extend(
                TRAFFIC_FLAGS.iter().enumerate().map(|(number, flag)| {
                    format!("SocksPort {}auto {flag}", traffic_address(number))
                }),
            );
            lines.extend(ipv6.then(|| "SocksPort [::1]:auto".to_owned()));
            let tor_process = CTor::start(tor, &lines);
            let lines = [
                "SocksPort 127.0.0.4:auto".to_owned(),
                "SafeSocks 1".to_owned(),
                "RejectPlaintextPorts 6667".to_owned(),
            ];
            let safe_tor_process = CTor::start(tor, &lines);
            let mut ports = HashMap::from([
                ("plain", tor_process.listen_addr("127.0.0.1:")),
                ("PreferSOCKSNoAuth", tor_process.listen_addr("127.0.0.2:")),
                ("ExtendedErrors", tor_process.listen_addr("127.0.0.3:")),
                ("UnixClient", tor_process.listen_addr("/")),
                ("SafeSocks", safe_tor_process.listen_addr("127.0.0.4:")),
            ]);
            ports.extend(
                TRAFFIC_FLAGS.iter().enumerate().map(|(number, flag)| {
                    (*flag, tor_process.listen_addr(&traffic_address(number)))
                }),
            );
            if ipv6 {
                ports.insert("IPv6Client", tor_process.listen_addr("[::1]:"));
            }
            send_all(vectors, ports, |v| v.c_tor.as_ref().unwrap_or(&v.expected)).await
        };
    let sending = send_all(vectors, ports, |vector| &vector.expected);
    let (ours, c_tors) = tokio::join!(sending, sending_to_c_tor);

    let mut wrong = Vec::new();
    let (mut agree, mut differ, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for vector in vectors {
        let (ours, c_tors) = (ours.get(vector.name), c_tors.get(vector.name));
        if let Some(received) = ours
            && !vector.expected.matches(received)
        {
            wrong.push(format!("{}: onionport sent {received}", vector.name));
        }
        if let Some(received) = c_tors {
            let (right, same) = match &vector.c_tor {
                Some(different) => (
                    different.matches(received),
                    vector.expected.matches(received),
                ),
                None => (vector.expected.matches(received), true),
            };
            if !right {
                wrong.push(format!("{}: C tor sent {received}", vector.name));
            } else if vector.c_tor.is_some() && same {
                wrong.push(format!("{}: C tor does not differ as listed", vector.name));
            }
        }
        match (ours, c_tors, &vector.c_tor) {
            (None, ..) => skipped.push(vector.name),
            (Some(_), None, _) => {}
            (Some(_), Some(_), None) => agree.push(vector.name),
            (Some(_), Some(_), Some(_)) => differ.push(vector.name),
        }
    }
    // Written to standard error directly: the test harness hides the output of tests that pass.
    let comparison = match &c_tor {
        Some(tor) => format!(
            "compared with {}: {} agree, {} differ as listed ({})",
            c_tor::version(tor),
            agree.len(),
            differ.len(),
            differ.join(", ")
        ),
        None => "NOT COMPARED WITH C TOR: it is not installed (apt-get install tor)".to_owned(),
    };
    let report = format!(
        "socks_vectors.txt: {} vectors, {} sent to onionport, {} skipped{}; {comparison}; {} wrong\n",
        vectors.len(),
        ours.len(),
        skipped.len(),
        if ipv6 { "" } else { " (no IPv6 here)" },
        wrong.len()
    );
    let _ = std::io::stderr().write_all(report.as_bytes());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
