//! The real program beside C tor's HTTPTunnelPort. Both get the same bytes.

use std::time::Duration;

use tokio::task::JoinSet;

use super::http_program;
use crate::support::LIMIT;
use crate::support::c_tor::{self, CTor};
use crate::support::client::{Client, End, ListenAddr};

/// How long to wait for more of a response.
const WINDOW: Duration = Duration::from_millis(300);

/// What a client receives: a response, or the end of the connection without one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Closed,
    Response { status: u16, tokens: String },
}

use Expected::{Differs, Same};

/// The expected outcomes with onionport and with C tor.
enum Expected {
    /// Both respond with this status, or close the connection.
    Same(&'static str),
    /// They differ on purpose: onionport's outcome, C tor's, and the reason.
    Differs(&'static str, &'static str, &'static str),
}

/// Requests and their outcomes: `closed`, or a status and possibly tokens. onionport's own tokens are left
/// out, because C tor has no counterpart for them.
const CASES: &[(&str, Expected)] = &[
    ("OPTIONS * HTTP/1.1\nHost: localhost\n\n", Same("200")),
    ("OPTIONS * HTTP/1.1\nHost: LocalHost\n\n", Same("200")),
    ("OPTIONS * HTTP/1.1\nHost: evil.example\n\n", Same("closed")),
    ("OPTIONS * HTTP/1.0\n\n", Same("closed")),
    (
        "OPTIONS * HTTP/1.1\nHost: 127.0.0.1:9080\n\n",
        Differs("200", "closed", "this names this computer, too"),
    ),
    (
        "OPTIONS * HTTP/1.1\nHost: [::1]\n\n",
        Differs("200", "closed", "this names this computer, too"),
    ),
    (
        "GET / HTTP/1.1\nHost: localhost\n\n",
        Differs("200", "405", "there is a status page"),
    ),
    (
        "POST / HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n",
        Same("405"),
    ),
    ("GET / HTTP/1.1\nHost: evil.example\n\n", Same("closed")),
    (
        "GET http://nonsense.onion/ HTTP/1.1\nHost: nonsense.onion\n\n",
        Differs("400 end/TORPROTOCOL", "closed", "plain requests are served"),
    ),
    (
        "CONNECT nonsense.onion:80 HTTP/1.1\nHost: a\n\n",
        Differs(
            "400 end/TORPROTOCOL",
            "502 end/TORPROTOCOL",
            "the mistake is the client's; arti responds with 400, too",
        ),
    ),
    (
        "CONNECT nonsense.onion:80 HTTP/1.0\n\n",
        Differs("400 end/TORPROTOCOL", "502 end/TORPROTOCOL", "as above"),
    ),
    (
        "CONNECT a.relay.exit:80 HTTP/1.1\nHost: a\n\n",
        Differs("400 end/TORPROTOCOL", "502 end/TORPROTOCOL", "as above"),
    ),
    (
        "CONNECT nonsense.onion:80 HTTP/1.1\nTor-Family-Preference: nonsense\n\n",
        Differs(
            "400 end/TORPROTOCOL",
            "502 end/TORPROTOCOL",
            "as above; the header is no error",
        ),
    ),
    (
        "CONNECT nonsense.onion:0 HTTP/1.1\nHost: a\n\n",
        Same("400"),
    ),
    (
        "CONNECT nonsense.onion:99999 HTTP/1.1\nHost: a\n\n",
        Same("400"),
    ),
    (
        "CONNECT nonsense.onion HTTP/1.1\nHost: a\n\n",
        Differs(
            "400",
            "502 end/TORPROTOCOL",
            "RFC 9110 section 9.3.6 requires a port",
        ),
    ),
    (
        "CONNECT 127.0.0.1:80 HTTP/1.1\nHost: a\n\n",
        Differs(
            "403",
            "500 c-tor/PRIVATE_ADDR",
            "a rule of the port is not a server error",
        ),
    ),
    (
        "CONNECT [::1]:80 HTTP/1.1\nHost: a\n\n",
        Differs("403", "500 c-tor/PRIVATE_ADDR", "as above"),
    ),
    (
        "CONNECT localhost:80 HTTP/1.1\nHost: a\n\n",
        Differs("403", "500 c-tor/PRIVATE_ADDR", "as above"),
    ),
    ("CONNECT LONG:80 HTTP/1.1\nHost: a\n\n", Same("414")),
    (
        "CONNECT a.example:80 HTTP/1.1\nTor-RPC-Target: x\n\n",
        Same("501"),
    ),
    (
        "connect nonsense.onion:80 HTTP/1.1\nHost: a\n\n",
        Differs(
            "closed",
            "502 end/TORPROTOCOL",
            "methods are case-sensitive (RFC 9110 section 9.1)",
        ),
    ),
    (
        "CONNECT nonsense.onion:80 HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello",
        Differs(
            "400",
            "502 end/TORPROTOCOL",
            "CONNECT has no body; C tor discards it",
        ),
    ),
    (
        "CONNECT nonsense.onion:80 HTTP/2.0\nHost: a\n\n",
        Differs("400", "closed", "a response helps more"),
    ),
    (
        "CONNECT nonsense.onion:80\n\n",
        Differs("400", "closed", "a response helps more"),
    ),
    (
        "nonsense\n\n",
        Differs("400", "closed", "a response helps more"),
    ),
    (
        "CONNECT nonsense.onion:80 HTTP/1.1\nHost: a\nX: BIG\n\n",
        Differs(
            "431",
            "closed",
            "a response helps more; and the limit is 32 KiB here",
        ),
    ),
    (
        "CONNECT nonsense.onion:80 HTTP/1.1\nHost: a\n\nOPTIONS * HTTP/1.1\nHost: localhost\n\n",
        Differs(
            "400 end/TORPROTOCOL",
            "502 end/TORPROTOCOL",
            "as above; both discard what follows",
        ),
    ),
    // A request that cannot be parsed is refused before its `Host` is checked. The response has no body
    // and does not name the program: a foreign page learns no more from it than from the open port.
    (
        "GET / HTTP/1.1\nHost: evil.example\nX: BIG\n\n",
        Differs("431", "closed", "an unparsed request has no Host"),
    ),
    (
        "GET /\u{1} HTTP/1.1\nHost: evil.example\n\n",
        Differs("400", "closed", "as above"),
    ),
];

async fn send_request(address: &ListenAddr, request: &str) -> Outcome {
    let mut client = Client::connect(address).await;
    let sent = request
        .replace('\n', "\r\n")
        .replace("LONG", &"a".repeat(300))
        .replace("BIG", &"b".repeat(40_000));
    // The server may close the connection before it has read everything.
    let _ = client.try_send(sent.as_bytes()).await;
    let mut got = Vec::new();
    let mut window = LIMIT;
    loop {
        match client.read_within(window).await {
            Some((more, End::Open)) => got.extend(more),
            Some(_) if got.is_empty() => return Outcome::Closed,
            Some(_) => break,
            None if got.is_empty() => panic!("no response to {request}"),
            // The connection stays open for the next request.
            None => break,
        }
        window = WINDOW;
    }
    let text = String::from_utf8_lossy(&got).into_owned();
    // Data behind a CONNECT is not a request, so each case has one response.
    assert!(text.matches("HTTP/1.1 ").count() <= 1, "{request}: {text}");
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let tokens = text
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("tor-request-failed")
                .then_some(value)
        })
        .unwrap_or_default();
    let shared: Vec<&str> = tokens
        .split(' ')
        .filter(|t| !t.starts_with("onionport/"))
        .collect();
    Outcome::Response {
        status: status.unwrap_or_else(|| panic!("no status: {text}")),
        tokens: shared.join(" "),
    }
}

fn parse_outcome(text: &str) -> Outcome {
    match text {
        "closed" => Outcome::Closed,
        _ => {
            let (status, tokens) = text.split_once(' ').unwrap_or((text, ""));
            Outcome::Response {
                status: status.parse().expect("a status"),
                tokens: tokens.to_owned(),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_has_c_tors_outcome_or_a_reason_to_differ() {
    let daemon = http_program().start_with_ports(2);
    let ours = daemon.addresses[1].clone();
    let c_tor = c_tor::find().map(|tor| {
        println!("compared with {}", c_tor::version(&tor));
        CTor::start(
            &tor,
            &["SocksPort 0".into(), "HTTPTunnelPort 127.0.0.1:auto".into()],
        )
    });
    let theirs = c_tor.as_ref().map(|c_tor| c_tor.listen_addr("127.0.0.1:"));
    let mut requests = JoinSet::new();
    for (number, (sent, _)) in CASES.iter().enumerate() {
        let (ours, theirs) = (ours.clone(), theirs.clone());
        requests.spawn(async move {
            let our_outcome = send_request(&ours, sent).await;
            let their_outcome = match theirs {
                Some(address) => Some(send_request(&address, sent).await),
                None => None,
            };
            (number, our_outcome, their_outcome)
        });
    }
    let mut wrong = Vec::new();
    while let Some(done) = requests.join_next().await {
        let (number, our_outcome, their_outcome) = done.expect("no panic");
        let (sent, expected) = &CASES[number];
        let (our_expected, their_expected) = match expected {
            Same(both) => (parse_outcome(both), parse_outcome(both)),
            Differs(ours, theirs, _) => (parse_outcome(ours), parse_outcome(theirs)),
        };
        if our_outcome != our_expected {
            wrong.push(format!(
                "{sent:?}: expected {our_expected:?}, got {our_outcome:?}"
            ));
        }
        if their_outcome
            .as_ref()
            .is_some_and(|theirs| *theirs != their_expected)
        {
            wrong.push(format!(
                "{sent:?}: expected {their_expected:?} from C tor, got {their_outcome:?}"
            ));
        }
    }
    let differing = CASES.iter().filter_map(|(sent, expected)| match expected {
        Same(_) => None,
        Differs(ours, theirs, why) => Some((sent, ours, theirs, why)),
    });
    for (sent, ours, theirs, why) in differing {
        println!(
            "{:60} onionport {ours:24} C tor {theirs:24} {why}",
            format!("{sent:.50?}")
        );
    }
    println!("{} cases", CASES.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
