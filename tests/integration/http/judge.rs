//! The real program beside C tor's HTTPTunnelPort: both get the same bytes.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::LIMIT;
use crate::support::c_tor::{self, CTor};
use crate::support::client::{Client, End, ListenAddr};
use crate::support::program::Program;

/// How long to listen for more of an answer.
const WINDOW: Duration = Duration::from_millis(300);

/// What a client sees: status and tokens, or that the connection ends without a word.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Closed,
    Answer { status: u16, tokens: String },
}

use Verdict::{Differs, Same};

/// What is expected of the two.
enum Verdict {
    /// They agree in status, and that there is an answer at all.
    Same(&'static str),
    /// They differ on purpose: ours, C tor's, and why.
    Differs(&'static str, &'static str, &'static str),
}

/// What is sent, and what comes: `closed`, or a status and perhaps tokens. Tokens of our own have
/// no counterpart in C tor; of ours the one that C tor knows is compared.
const CASES: &[(&str, Verdict)] = &[
    ("OPTIONS * HTTP/1.1\nHost: localhost\n\n", Same("200")),
    ("OPTIONS * HTTP/1.1\nHost: LocalHost\n\n", Same("200")),
    ("OPTIONS * HTTP/1.1\nHost: evil.example\n\n", Same("closed")),
    ("OPTIONS * HTTP/1.0\n\n", Same("closed")),
    (
        "OPTIONS * HTTP/1.1\nHost: 127.0.0.1:9080\n\n",
        Differs("200", "closed", "this is this computer, too"),
    ),
    (
        "OPTIONS * HTTP/1.1\nHost: [::1]\n\n",
        Differs("200", "closed", "this is this computer, too"),
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
            "the mistake is the client's; arti says 400, too",
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
            "as above: the header is no error",
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
            "RFC 9110 section 9.3.6 wants a port",
        ),
    ),
    (
        "CONNECT 127.0.0.1:80 HTTP/1.1\nHost: a\n\n",
        Differs(
            "403",
            "500 c-tor/PRIVATE_ADDR",
            "it is a rule, and no error of the server",
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
            "methods have a case (RFC 9110 section 9.1)",
        ),
    ),
    (
        "CONNECT nonsense.onion:80 HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello",
        Differs(
            "400",
            "502 end/TORPROTOCOL",
            "CONNECT has no body: it would be lost in C tor",
        ),
    ),
    (
        "CONNECT nonsense.onion:80 HTTP/2.0\nHost: a\n\n",
        Differs("400", "closed", "an answer is more help"),
    ),
    (
        "CONNECT nonsense.onion:80\n\n",
        Differs("400", "closed", "an answer is more help"),
    ),
    (
        "nonsense\n\n",
        Differs("400", "closed", "an answer is more help"),
    ),
    (
        "CONNECT nonsense.onion:80 HTTP/1.1\nHost: a\nX: BIG\n\n",
        Differs(
            "431",
            "closed",
            "an answer is more help; and the limit is 32 KiB here",
        ),
    ),
    (
        "CONNECT nonsense.onion:80 HTTP/1.1\nHost: a\n\nOPTIONS * HTTP/1.1\nHost: localhost\n\n",
        Differs(
            "400 end/TORPROTOCOL",
            "502 end/TORPROTOCOL",
            "as without anything behind it, which both throw away",
        ),
    ),
    // What cannot be read is answered before anybody looks at its Host. Such an answer has neither
    // body nor name: it tells a foreign page that there is something, as the open port does.
    (
        "GET / HTTP/1.1\nHost: evil.example\nX: BIG\n\n",
        Differs("431", "closed", "what is no request has no Host"),
    ),
    (
        "GET /\u{1} HTTP/1.1\nHost: evil.example\n\n",
        Differs("400", "closed", "as above"),
    ),
];

async fn ask(place: &ListenAddr, sent: &str) -> Seen {
    let mut client = Client::connect(place).await;
    let sent = sent
        .replace('\n', "\r\n")
        .replace("LONG", &"a".repeat(300))
        .replace("BIG", &"b".repeat(40_000));
    // Whoever closes early may not take all.
    let _ = client.try_send(sent.as_bytes()).await;
    let mut got = Vec::new();
    let mut patience = LIMIT;
    loop {
        match client.overhear(patience).await {
            Some((more, End::Open)) => got.extend(more),
            Some(_) if got.is_empty() => return Seen::Closed,
            // Some connections stay open for the next request.
            Some(_) => break,
            None if got.is_empty() => panic!("no answer to {sent}"),
            None => break,
        }
        patience = WINDOW;
    }
    let text = String::from_utf8_lossy(&got).into_owned();
    // None asks twice: what stands behind a CONNECT is no request.
    assert!(text.matches("HTTP/1.1 ").count() <= 1, "{sent}: {text}");
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
    let known: Vec<&str> = tokens
        .split(' ')
        .filter(|t| !t.starts_with("onionport/"))
        .collect();
    Seen::Answer {
        status: status.unwrap_or_else(|| panic!("no status: {text}")),
        tokens: known.join(" "),
    }
}

fn seen(text: &str) -> Seen {
    match text {
        "closed" => Seen::Closed,
        _ => {
            let (status, tokens) = text.split_once(' ').unwrap_or((text, ""));
            Seen::Answer {
                status: status.parse().expect("a status"),
                tokens: tokens.to_owned(),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_is_answered_as_c_tor_does_or_for_a_reason() {
    let daemon = Program::offline()
        .port("auto")
        .proxy("http_port = \"auto\"")
        .start_with(2);
    let ours = daemon.places[1].clone();
    let judge = c_tor::find().map(|tor| {
        println!("judge: {}", c_tor::version(&tor));
        CTor::start(
            &tor,
            &["SocksPort 0".into(), "HTTPTunnelPort 127.0.0.1:auto".into()],
        )
    });
    let theirs = judge.as_ref().map(|judge| judge.place("127.0.0.1:"));
    let mut asking = JoinSet::new();
    for (number, (sent, _)) in CASES.iter().enumerate() {
        let (ours, theirs) = (ours.clone(), theirs.clone());
        asking.spawn(async move {
            let our_answer = ask(&ours, sent).await;
            let their_answer = match theirs {
                Some(place) => Some(ask(&place, sent).await),
                None => None,
            };
            (number, our_answer, their_answer)
        });
    }
    let mut wrong = Vec::new();
    while let Some(asked) = asking.join_next().await {
        let (number, our_answer, their_answer) = asked.expect("no panic");
        let (sent, verdict) = &CASES[number];
        let (our_due, their_due) = match verdict {
            Same(both) => (seen(both), seen(both)),
            Differs(ours, theirs, _) => (seen(ours), seen(theirs)),
        };
        if our_answer != our_due {
            wrong.push(format!(
                "{sent:?}: expected {our_due:?}, got {our_answer:?}"
            ));
        }
        if their_answer
            .as_ref()
            .is_some_and(|theirs| *theirs != their_due)
        {
            wrong.push(format!(
                "{sent:?}: C tor was to say {their_due:?}: {their_answer:?}"
            ));
        }
    }
    let differing = CASES.iter().filter_map(|(sent, verdict)| match verdict {
        Same(_) => None,
        Differs(ours, theirs, why) => Some((sent, ours, theirs, why)),
    });
    for (sent, ours, theirs, why) in differing {
        println!(
            "{:60} here {ours:24} C tor {theirs:24} {why}",
            format!("{sent:.50?}")
        );
    }
    println!("{} cases", CASES.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
