//! The log of the real program while clients repeat the same request: a few lines for each kind of
//! request, not one for each client.

use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use crate::support::client::{Client, ListenAddr};
use crate::support::hex::{bytes, socks5_request};
use crate::support::program::{Daemon, Program};
use crate::support::{LIMIT, ONION};

/// How often a request is repeated.
const REPEATS: usize = 200;
/// The most lines that the repeats may add: the limit for one kind of line, twice in case a minute
/// passes meanwhile.
const MAX_LINES: usize = 10;

/// Lets clients send these bytes, one after the other, and wait for the end of their connection.
async fn flood(place: &ListenAddr, request: &[u8]) {
    for _ in 0..REPEATS {
        let mut client = Client::connect(place).await;
        // The port may close the connection before it has read everything.
        let _ = client.try_send(request).await;
        client.read_to_end().await;
    }
}

/// Queries a DNS port for the IPv4 address of a name.
async fn flood_dns(place: &ListenAddr, name: &str) {
    let ListenAddr::Ip(address) = place else {
        panic!("not a DNS port: {place}");
    };
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    client.connect(address).await.expect("connected");
    let mut query = bytes("0001 0100 0001 0000 0000 0000");
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("a short label"));
        query.extend(label.as_bytes());
    }
    query.extend(bytes("00 0001 0001"));
    for _ in 0..REPEATS {
        client.send(&query).await.expect("query sent");
        let answer = timeout(LIMIT, client.recv(&mut [0; 512])).await;
        answer.expect("an answer in time").expect("answer received");
    }
}

/// Returns the lines of the log after the first `before`, once it has stopped growing.
async fn read_new_lines(daemon: &Daemon, before: usize) -> Vec<String> {
    let deadline = Instant::now() + LIMIT;
    let mut seen = daemon.process.err.all().len();
    loop {
        sleep(Duration::from_millis(50)).await;
        let mut all = daemon.process.err.all();
        if all.len() == seen || Instant::now() > deadline {
            return all.split_off(before);
        }
        seen = all.len();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_requests_of_any_kind_add_few_lines() {
    let daemon = Program::offline()
        .port("auto ExtendedErrors")
        .port("auto NoOnionTraffic")
        .config_lines("http_port = \"auto\"")
        .config_lines("dns_port = \"auto\"")
        .config_lines("test_socks = true")
        .start_with_ports(4);
    let [socks, no_onions, http, dns] = &daemon.addresses[..] else {
        panic!("not four ports: {:?}", daemon.addresses);
    };
    let socks5 = |host: &str, port| [bytes("05 01 00"), socks5_request(1, host, port)].concat();
    let get = |host: &str| format!("GET http://{host}/ HTTP/1.0\r\nHost: a\r\n\r\n").into_bytes();
    let connect = |host: &str| format!("CONNECT {host}:80 HTTP/1.1\r\n\r\n").into_bytes();
    // The port, the request, and text that the log has to contain. `None` where lines of this kind
    // have reached their limit before, or the request is not logged.
    let kinds = [
        (
            socks,
            b"GET\n".to_vec(),
            Some("refused a client: the client speaks HTTP"),
        ),
        (socks, bytes("05 00"), None),
        (socks, bytes("16 03 01"), None),
        (socks, bytes("05 01 00 05 02 00 01 c0000201 0050"), None),
        (
            socks,
            socks5("foo.onion", 80),
            Some("failed with F6 after "),
        ),
        (
            socks,
            socks5("localhost", 80),
            Some("failed with 01 after "),
        ),
        (socks, socks5("a.exit", 80), Some("failed with 01 after ")),
        (no_onions, socks5(ONION, 80), Some("failed with 02 after ")),
        (http, connect("localhost"), None),
        (http, get("localhost"), None),
        (http, get("foo.onion"), None),
        (http, b"GET / HTTP/1.0\r\n\r\n".to_vec(), None),
        (http, b"nonsense\r\n\r\n".to_vec(), None),
    ];
    for (place, request, text) in kinds {
        let before = read_new_lines(&daemon, 0).await.len();
        flood(place, &request).await;
        let new = read_new_lines(&daemon, before).await;
        // `TestSocks` logs another line for each request with a host name.
        let (tests, others): (Vec<_>, Vec<_>) =
            new.iter().partition(|line| line.contains("TestSocks: "));
        let context = format!("{}: {new:#?}", String::from_utf8_lossy(&request));
        assert!(
            others.len() <= MAX_LINES && tests.len() <= 4 * MAX_LINES,
            "{context}"
        );
        if let Some(text) = text {
            assert!(others.iter().any(|line| line.contains(text)), "{context}");
        }
    }
    for (name, text) in [
        (ONION, Some("failed with ")),
        ("foo.onion", None),
        ("localhost", None),
        ("a.exit", None),
    ] {
        let before = read_new_lines(&daemon, 0).await.len();
        flood_dns(dns, name).await;
        let new = read_new_lines(&daemon, before).await;
        assert!(new.len() <= MAX_LINES, "{name}: {new:#?}");
        if let Some(text) = text {
            assert!(
                new.iter().any(|line| line.contains(text)),
                "{name}: {new:?}"
            );
        }
    }
}

/// The next line reports how many lines were left out.
#[tokio::test]
async fn clients_that_socks_policy_rejects_add_few_lines() {
    let daemon = Program::offline()
        .port("auto")
        .config_lines("socks_policy = [\"reject *\"]")
        .config_lines("dns_port = \"auto\"")
        .start_with_ports(2);
    flood(&daemon.addresses[0], b"hello").await;
    flood_dns(&daemon.addresses[1], "good.example").await;
    let log = read_new_lines(&daemon, 0).await;
    let refused = log
        .iter()
        .filter(|line| line.contains("refused a client that socks_policy"))
        .count();
    assert!((2..=MAX_LINES).contains(&refused), "{log:#?}");
    assert!(log.len() <= 4 * MAX_LINES, "{log:#?}");
}
