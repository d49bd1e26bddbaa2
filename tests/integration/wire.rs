//! Every vector of `tests/data/socks_vectors.txt`, put to the real program and, in the same run, to
//! C tor. What counts is what a client receives.

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
/// Fewer would mean that the file was cut off.
const AT_LEAST_VECTORS: usize = 200;
/// Flags that each get a port of their own.
const TRAFFIC: [&str; 5] = [
    "NoIPv4Traffic",
    "NoIPv6Traffic",
    "NoDNSRequest",
    "NoOnionTraffic",
    "OnionTrafficOnly",
];
/// How long a connection that should stay open is listened to, after all others have ended.
const WINDOW: Duration = Duration::from_millis(300);

/// A line of the file.
#[derive(Debug)]
struct Vector {
    name: &'static str,
    option: &'static str,
    sent: Vec<Vec<u8>>,
    expected: Answer,
    /// What C tor answers, where it differs.
    c_tor: Option<Answer>,
}

/// What a client should receive.
#[derive(Debug)]
struct Answer {
    /// One part for each part sent.
    parts: Vec<Vec<u8>>,
    /// More may follow the last part.
    open_ended: bool,
    end: End,
}

/// What a client did receive.
#[derive(Debug)]
struct Heard {
    parts: Vec<Vec<u8>>,
    end: End,
}

fn vectors() -> Vec<Vector> {
    VECTORS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let (name, option, sent, expected, end, theirs) = match fields[..] {
                [name, option, sent, expected, end, _] => (name, option, sent, expected, end, None),
                [name, option, sent, expected, end, _, theirs, their_end] => {
                    let theirs = theirs.strip_prefix("C tor").expect("C tor's answer");
                    (
                        name,
                        option,
                        sent,
                        expected,
                        end,
                        Some(answer(theirs, their_end)),
                    )
                }
                _ => panic!("6 or 8 fields: {line}"),
            };
            Vector {
                name,
                option,
                sent: sent.split('/').map(bytes).collect(),
                expected: answer(expected, end),
                c_tor: theirs,
            }
        })
        .collect()
}

fn answer(parts: &str, end: &str) -> Answer {
    let open_ended = parts.ends_with("..");
    // Which stage says what makes no difference to a client.
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
    /// Whether this is what was heard.
    fn fits(&self, heard: &Heard) -> bool {
        let (expected, got) = (self.parts.concat(), heard.parts.concat());
        let same = match self.open_ended {
            true => got.starts_with(&expected),
            false => got == expected,
        };
        // Bytes have to come with the part that they answer.
        let in_time = self.open_ended || self.parts.iter().zip(&heard.parts).all(|(a, b)| a == b);
        same && in_time && self.end == heard.end
    }
}

impl std::fmt::Display for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.parts.iter().map(|part| show(part)).collect();
        write!(f, "{} ({:?})", parts.join(" / "), self.end)
    }
}

/// Says what the vector says, and listens as far as the answer is expected to go. Gives the
/// connection back if it is to stay open.
async fn converse(
    place: &ListenAddr,
    sent: &[Vec<u8>],
    expected: &Answer,
) -> (Heard, Option<Client>) {
    let mut client = Client::connect(place).await;
    let mut heard = Heard {
        parts: Vec::new(),
        end: End::Open,
    };
    for (number, part) in sent.iter().enumerate() {
        // It may have been closed already; then that is what is heard.
        let said = client.try_send(part).await.is_ok();
        let last = number + 1 == sent.len();
        let due = expected.parts.get(number).map_or(0, Vec::len);
        let all = !said || (last && (expected.end == End::Closed || expected.open_ended));
        let (got, end) = client.read(if all { usize::MAX } else { due }).await;
        heard.parts.push(got);
        if end != End::Open {
            heard.end = end;
            return (heard, None);
        }
    }
    let stays = expected.end == End::Open;
    (heard, stays.then_some(client))
}

/// Puts all vectors to one program, all at once. `places` has its ports by option.
async fn ask(
    vectors: &'static [Vector],
    places: HashMap<&'static str, ListenAddr>,
    expected: fn(&Vector) -> &Answer,
) -> BTreeMap<&'static str, Heard> {
    let mut talking = JoinSet::new();
    for vector in vectors {
        let Some(place) = places.get(vector.option).cloned() else {
            continue;
        };
        talking.spawn(async move {
            let (heard, open) = converse(&place, &vector.sent, expected(vector)).await;
            (vector.name, heard, open)
        });
    }
    let mut all = BTreeMap::new();
    let mut open = Vec::new();
    while let Some(talked) = talking.join_next().await {
        let (name, heard, client) = talked.expect("no panic");
        all.insert(name, heard);
        open.extend(client.map(|client| (name, client)));
    }
    // Whatever would still be said has had all that time. One more conversation on each port shows
    // that the program is not merely slow.
    for place in places.values() {
        let mut client = Client::connect(place).await;
        client.send("04 99 0050 c0000201 00").await;
        client.expect("00 5b 0000 00000000").await;
    }
    let mut listening = JoinSet::new();
    for (name, mut client) in open {
        listening.spawn(async move { (name, client.read_within(WINDOW).await) });
    }
    while let Some(listened) = listening.join_next().await {
        let (name, more) = listened.expect("no panic");
        let heard = all.get_mut(name).expect("heard before");
        if let Some((more, end)) = more {
            heard.parts.push(more);
            heard.end = end;
        }
    }
    all
}

/// Whether this computer has an IPv6 loopback address.
fn has_ipv6() -> bool {
    std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_vector_is_answered_as_written_by_the_program_and_by_c_tor() {
    let vectors: &'static [Vector] = vectors().leak();
    assert!(
        vectors.len() >= AT_LEAST_VECTORS,
        "only {} vectors",
        vectors.len()
    );
    let ipv6 = has_ipv6();
    if !ipv6 {
        report_skipped("no IPv6 on loopback: no vectors of IPv6 clients");
    }

    let program = Program::offline()
        .port("auto")
        .port("auto PreferSOCKSNoAuth")
        .port("auto ExtendedErrors");
    let program = TRAFFIC.iter().fold(program, |program, flag| {
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
        .chain(TRAFFIC)
        .chain(["UnixClient", "IPv6Client"])
        .collect();
    let mut ours: HashMap<_, _> = options
        .iter()
        .copied()
        .zip(daemon.addresses.iter().cloned())
        .collect();
    let safe = Program::offline()
        .port("auto")
        .proxy("safe_socks = true")
        .proxy("reject_plaintext_ports = [6667]");
    let safe_daemon = safe.start();
    ours.insert("SafeSocks", safe_daemon.addresses[0].clone());
    for vector in vectors {
        let known = options.contains(&vector.option) || vector.option == "SafeSocks";
        assert!(known, "{}: unknown option {}", vector.name, vector.option);
    }

    let c_tor = c_tor::find();
    let asking_c_tor = async {
        let Some(tor) = &c_tor else {
            return BTreeMap::new();
        };
        let mut lines = vec![
            "SocksPort 127.0.0.1:auto".to_owned(),
            "SocksPort 127.0.0.2:auto PreferSOCKSNoAuth".to_owned(),
            "SocksPort 127.0.0.3:auto ExtendedErrors".to_owned(),
            "SocksPort unix:FOLDER/socks".to_owned(),
        ];
        let traffic_place = |number: usize| format!("127.0.1.{}:", number + 1);
        lines.extend(
            TRAFFIC
                .iter()
                .enumerate()
                .map(|(number, flag)| format!("SocksPort {}auto {flag}", traffic_place(number))),
        );
        lines.extend(ipv6.then(|| "SocksPort [::1]:auto".to_owned()));
        let judge = CTor::start(tor, &lines);
        let lines = [
            "SocksPort 127.0.0.4:auto".to_owned(),
            "SafeSocks 1".to_owned(),
            "RejectPlaintextPorts 6667".to_owned(),
        ];
        let safe_judge = CTor::start(tor, &lines);
        let mut places = HashMap::from([
            ("plain", judge.listen_addr("127.0.0.1:")),
            ("PreferSOCKSNoAuth", judge.listen_addr("127.0.0.2:")),
            ("ExtendedErrors", judge.listen_addr("127.0.0.3:")),
            ("UnixClient", judge.listen_addr("/")),
            ("SafeSocks", safe_judge.listen_addr("127.0.0.4:")),
        ]);
        places.extend(
            TRAFFIC
                .iter()
                .enumerate()
                .map(|(number, flag)| (*flag, judge.listen_addr(&traffic_place(number)))),
        );
        if ipv6 {
            places.insert("IPv6Client", judge.listen_addr("[::1]:"));
        }
        ask(vectors, places, |v| v.c_tor.as_ref().unwrap_or(&v.expected)).await
    };
    let (ours, theirs) = tokio::join!(ask(vectors, ours, |vector| &vector.expected), asking_c_tor);

    let mut wrong = Vec::new();
    let (mut agree, mut differ, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for vector in vectors {
        let (ours, theirs) = (ours.get(vector.name), theirs.get(vector.name));
        if let Some(heard) = ours
            && !vector.expected.fits(heard)
        {
            wrong.push(format!("{}: onionport said {heard}", vector.name));
        }
        if let Some(heard) = theirs {
            let (right, same) = match &vector.c_tor {
                Some(different) => (different.fits(heard), vector.expected.fits(heard)),
                None => (vector.expected.fits(heard), true),
            };
            if !right {
                wrong.push(format!("{}: C tor said {heard}", vector.name));
            } else if vector.c_tor.is_some() && same {
                wrong.push(format!("{}: C tor no longer differs", vector.name));
            }
        }
        match (ours, theirs, &vector.c_tor) {
            (None, ..) => skipped.push(vector.name),
            (Some(_), None, _) => {}
            (Some(_), Some(_), None) => agree.push(vector.name),
            (Some(_), Some(_), Some(_)) => differ.push(vector.name),
        }
    }
    // Written past the harness, which keeps to itself what tests print as long as they pass.
    let judge = match &c_tor {
        Some(tor) => format!(
            "beside {}: {} agree, {} differ on purpose ({})",
            c_tor::version(tor),
            agree.len(),
            differ.len(),
            differ.join(", ")
        ),
        None => "NOT COMPARED WITH C TOR: none is installed (apt-get install tor)".to_owned(),
    };
    let report = format!(
        "socks_vectors.txt: {} vectors, {} put to onionport, {} skipped{}; {judge}; {} wrong\n",
        vectors.len(),
        ours.len(),
        skipped.len(),
        if ipv6 { "" } else { " (no IPv6 here)" },
        wrong.len()
    );
    let _ = std::io::stderr().write_all(report.as_bytes());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
