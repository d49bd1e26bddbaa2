//! The log of the real program while clients do the same thing again and again: a few lines for each
//! kind, not one for each client.

use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use crate::support::client::{Client, ListenAddr};
use crate::support::hex::{bytes, socks5_request};
use crate::support::program::{Daemon, Program};
use crate::support::{LIMIT, ONION};

/// How often each thing is done.
const FLOOD: usize = 200;
/// How many lines it may cost: the limit of a kind, and again if a minute has passed meanwhile.
const FEW: usize = 10;

/// Clients that say this, one after another, and wait for the end.
async fn flood(place: &ListenAddr, said: &[u8]) {
    for _ in 0..FLOOD {
        let mut client = Client::connect(place).await;
        // It may be refused before it has said all.
        let _ = client.try_send(said).await;
        client.read_to_end().await;
    }
}

/// Asks a DNS port for the IPv4 address of a name.
async fn flood_dns(place: &ListenAddr, name: &str) {
    let ListenAddr::Tcp(address) = place else {
        panic!("{place} is no DNS port");
    };
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    client.connect(address).await.expect("connected");
    let mut asked = bytes("0001 0100 0001 0000 0000 0000");
    for label in name.split('.') {
        asked.push(u8::try_from(label.len()).expect("a label"));
        asked.extend(label.as_bytes());
    }
    asked.extend(bytes("00 0001 0001"));
    for _ in 0..FLOOD {
        client.send(&asked).await.expect("sent");
        let answer = timeout(LIMIT, client.recv(&mut [0; 512])).await;
        answer.expect("no answer").expect("received");
    }
}

/// The lines of the log since `before`, when there are no more to come.
async fn new_lines(daemon: &Daemon, before: usize) -> Vec<String> {
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
async fn a_flood_of_any_kind_costs_a_few_lines() {
    let daemon = Program::offline()
        .port("auto ExtendedErrors")
        .port("auto NoOnionTraffic")
        .proxy("http_port = \"auto\"")
        .proxy("dns_port = \"auto\"")
        .proxy("test_socks = true")
        .start_with_ports(4);
    let [socks, no_onions, http, dns] = &daemon.addresses[..] else {
        panic!("not four ports: {:?}", daemon.addresses);
    };
    let socks5 = |host: &str, port| [bytes("05 01 00"), socks5_request(1, host, port)].concat();
    let get = |host: &str| format!("GET http://{host}/ HTTP/1.0\r\nHost: a\r\n\r\n").into_bytes();
    let connect = |host: &str| format!("CONNECT {host}:80 HTTP/1.1\r\n\r\n").into_bytes();
    // What the log says of it, unless lines of the same kind have reached their limit before.
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
        // No line at all: the log has one of each failure already, or says nothing of it.
        (http, connect("localhost"), None),
        (http, get("localhost"), None),
        (http, get("foo.onion"), None),
        (http, b"GET / HTTP/1.0\r\n\r\n".to_vec(), None),
        (http, b"nonsense\r\n\r\n".to_vec(), None),
    ];
    for (place, said, text) in kinds {
        let before = new_lines(&daemon, 0).await.len();
        flood(place, &said).await;
        let new = new_lines(&daemon, before).await;
        // A request by name is worth a line of `TestSocks`, too.
        let (tests, others): (Vec<_>, Vec<_>) =
            new.iter().partition(|line| line.contains("TestSocks: "));
        let what = format!("{}: {new:#?}", String::from_utf8_lossy(&said));
        assert!(others.len() <= FEW && tests.len() <= 4 * FEW, "{what}");
        if let Some(text) = text {
            assert!(others.iter().any(|line| line.contains(text)), "{what}");
        }
    }
    for (name, text) in [
        (ONION, Some("failed with ")),
        ("foo.onion", None),
        ("localhost", None),
        ("a.exit", None),
    ] {
        let before = new_lines(&daemon, 0).await.len();
        flood_dns(dns, name).await;
        let new = new_lines(&daemon, before).await;
        assert!(new.len() <= FEW, "{name}: {new:#?}");
        if let Some(text) = text {
            assert!(
                new.iter().any(|line| line.contains(text)),
                "{name}: {new:?}"
            );
        }
    }
}

/// What was not logged is counted in the next line.
#[tokio::test]
async fn clients_that_a_port_does_not_admit_cost_a_line_for_all() {
    let daemon = Program::offline()
        .port("auto")
        .proxy("socks_policy = [\"reject *\"]")
        .proxy("dns_port = \"auto\"")
        .start_with_ports(2);
    for place in &daemon.addresses[..1] {
        flood(place, b"hello").await;
    }
    flood_dns(&daemon.addresses[1], "good.example").await;
    let log = new_lines(&daemon, 0).await;
    let refused = log
        .iter()
        .filter(|line| line.contains("refused a client that socks_policy"));
    let refused = refused.count();
    assert!((2..=FEW).contains(&refused), "{log:#?}");
    assert!(log.len() <= 4 * FEW, "{log:#?}");
}
