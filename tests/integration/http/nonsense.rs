//! The real program among clients that do not know what they say.

use tokio::task::JoinSet;

use crate::support::client::{Client, End, ListenAddr};
use crate::support::http::{answer, say};
use crate::support::program::Program;
use crate::support::random::Random;

/// Conversations that are right, to be spoiled.
const GOOD: &[&str] = &[
    "CONNECT nonsense.onion:80 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic dG9yOmE=\r\n\r\n",
    "CONNECT good.example:443 HTTP/1.0\r\n\r\nbehind it",
    "GET http://nonsense.onion/?a=b HTTP/1.1\r\nHost: nonsense.onion\r\nAccept: text/html\r\n\r\n",
    "POST http://nonsense.onion/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "POST http://good.example/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
    "GET /proxy.pac HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: [::1]:9080\r\n\r\n",
    "POST http://onionport.invalid/key HTTP/1.1\r\nHost: a\r\nOrigin: http://onionport.invalid\r\n\
     Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\ntoken=a&k",
    "GET http://good.example/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
];

/// What a client says that does not know what it does.
fn spoiled(random: &mut Random) -> Vec<u8> {
    let mut said = random.pick(GOOD).as_bytes().to_vec();
    match random.below(5) {
        0 => {
            let length = random.below(3000);
            random.bytes(length)
        }
        1 => {
            let length = random.below(said.len());
            said.truncate(length);
            said
        }
        2 => {
            for _ in 0..=random.below(4) {
                let at = random.below(said.len());
                said[at] = random.number().to_le_bytes()[0];
            }
            said
        }
        3 => {
            let at = random.below(said.len());
            let piece = *random.pick(&["\r\n", "\n", "\0", ":", " ", "Host: b\r\n", "\r\n\r\n"]);
            said.splice(at..at, piece.bytes());
            said
        }
        _ => {
            let length = random.below(40_000);
            said.extend(random.bytes(length));
            said
        }
    }
}

async fn assert_serves(place: &ListenAddr) {
    let mut client = Client::connect(place).await;
    say(
        &mut client,
        "GET http://nonsense.onion/ HTTP/1.1\nHost: a\n\n",
    )
    .await;
    let got = answer(&mut client).await;
    assert_eq!(got.status, 400, "{got:?}");
    assert!(got.text().starts_with("F6 "), "{got:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_that_talk_nonsense_do_no_harm() {
    const CLIENTS: usize = 1000;
    const AT_ONCE: usize = 100;
    // Short, so that what is understood by chance comes to its end as well.
    let mut daemon = Program::offline()
        .port("auto")
        .proxy("http_port = \"auto\"")
        .arguments(&["-o", "proxy.socks_timeout=1", "-l", "warn"])
        .start_with(2);
    let place = daemon.places[1].clone();
    let mut random = Random::new(11);
    let mut talking = JoinSet::new();
    for number in 0..CLIENTS {
        if talking.len() >= AT_ONCE {
            let talked = talking.join_next().await.expect("some talk");
            talked.expect("no panic");
        }
        let said = spoiled(&mut random);
        let cut = random.below(said.len() + 1);
        let leaves = random.below(3) == 0;
        let place = place.clone();
        talking.spawn(async move {
            let mut client = Client::connect(&place).await;
            let (first, second) = said.split_at(cut);
            let heard_all =
                client.try_send(first).await.is_ok() && client.try_send(second).await.is_ok();
            if leaves || !heard_all {
                return;
            }
            // Whatever it was: the timeout ends it at the latest.
            let (got, end) = client.rest().await;
            let said = String::from_utf8_lossy(&said).into_owned();
            assert_ne!(
                end,
                End::Open,
                "client {number}: {said:?} heard {} bytes",
                got.len()
            );
        });
    }
    while let Some(talked) = talking.join_next().await {
        talked.expect("no panic");
    }
    assert_serves(&place).await;
    assert!(daemon.process.is_alive());
    let log = daemon.process.err.all();
    let bad = log.iter().find(|line| line.contains("panicked"));
    assert!(bad.is_none(), "{bad:?}");
}
