//! The real program with random and damaged requests.

use super::http_program;
use crate::support::client::{Client, ListenAddr};
use crate::support::http::{read_response, send_text};
use crate::support::nonsense::{Crowd, send_nonsense};
use crate::support::random::Random;

/// Valid requests, to be damaged.
const VALID: &[&str] = &[
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

/// Returns random bytes, or a valid request that is cut off, altered, or followed by random bytes.
fn make_malformed(random: &mut Random) -> Vec<u8> {
    let mut request = random.pick(VALID).as_bytes().to_vec();
    match random.below(5) {
        0 => {
            let length = random.below(3000);
            random.bytes(length)
        }
        1 => {
            let length = random.below(request.len());
            request.truncate(length);
            request
        }
        2 => {
            for _ in 0..=random.below(4) {
                let at = random.below(request.len());
                request[at] = random.number().to_le_bytes()[0];
            }
            request
        }
        3 => {
            let at = random.below(request.len());
            let piece = *random.pick(&["\r\n", "\n", "\0", ":", " ", "Host: b\r\n", "\r\n\r\n"]);
            request.splice(at..at, piece.bytes());
            request
        }
        _ => {
            let length = random.below(40_000);
            request.extend(random.bytes(length));
            request
        }
    }
}

async fn assert_serves(address: &ListenAddr) {
    let mut client = Client::connect(address).await;
    send_text(
        &mut client,
        "GET http://nonsense.onion/ HTTP/1.1\nHost: a\n\n",
    )
    .await;
    let response = read_response(&mut client).await;
    assert_eq!(response.status, 400, "{response:?}");
    assert!(response.text().starts_with("F6 "), "{response:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_with_malformed_requests_do_no_harm() {
    // A short time-out, so that requests that are valid by chance end soon, too.
    let mut daemon = http_program()
        .arguments(&["-o", "proxy.socks_timeout=1", "-l", "warn"])
        .start_with_ports(2);
    let address = daemon.addresses[1].clone();
    let mut random = Random::new(11);
    let crowd = Crowd {
        clients: 1000,
        at_once: 100,
        half_close: false,
    };
    // The time-out ends each connection at the latest.
    send_nonsense(&address, crowd, &mut random, make_malformed).await;
    assert_serves(&address).await;
    assert!(daemon.process.is_alive());
    let log = daemon.process.err.all();
    let bad = log.iter().find(|line| line.contains("panicked"));
    assert!(bad.is_none(), "{bad:?}");
}
