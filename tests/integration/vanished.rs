//! Clients that vanish without a word: their machine was switched off, or the way to it is gone.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::support::LIMIT;
use crate::support::hex::bytes;
use crate::support::kernel::{State, find_connection, ipv4_addr};
use crate::support::namespace::{self, run_shell};
use crate::support::program::Program;
use crate::support::scripted::Plan;
use crate::support::serve::Port;
use crate::support::unused_address::unused_addresses;

/// Keepalive asks after five minutes.
const FIVE_MINUTES: Duration = Duration::from_secs(300);

#[tokio::test]
async fn whoever_is_silent_for_five_minutes_is_asked_whether_it_is_still_there() {
    let [handed] = unused_addresses();
    let listener = std::net::TcpListener::bind(handed).expect("free");
    let ours = Program::offline()
        .port("auto")
        .proxy("http_port = \"auto\"")
        .proxy("trans_port = \"auto\"")
        .start_with_ports(3);
    let inherited = Program::offline()
        .inherit_socket(listener, "socks")
        .start_with_ports(1);
    // The transparent port closes whoever was not redirected; it is opened as the others are.
    for place in ours.addresses.iter().take(2).chain(&inherited.addresses) {
        let at = ipv4_addr(place);
        let mut client = TcpStream::connect(at).await.expect("connected");
        let SocketAddr::V4(from) = client.local_addr().expect("connected") else {
            panic!("no IPv4 address");
        };
        if place != &ours.addresses[1] {
            // It has been accepted, and does nothing more.
            client.write_all(&[5, 1, 0]).await.expect("written");
            let answer = timeout(LIMIT, client.read_u16()).await;
            assert_eq!(answer.expect("in time").expect("an answer"), 0x0500);
        }
        let ours = find_connection(at, from).expect("there");
        assert_eq!(ours.state, State::Established);
        let due = ours.keepalive_in.expect("keepalive is on");
        assert!(
            due <= FIVE_MINUTES && due > FIVE_MINUTES / 2,
            "{place}: {due:?}"
        );
    }
}

/// With shorter times, and packets that are lost.
#[test]
fn the_stream_of_a_client_that_has_vanished_is_ended_and_its_place_is_free() {
    if namespace::is_inside() {
        return Runtime::new().expect("a runtime").block_on(vanish());
    }
    namespace::run_inside(
        the_stream_of_a_client_that_has_vanished_is_ended_and_its_place_is_free,
        "ip link set lo up && nft list ruleset",
    );
}

async fn vanish() {
    let second = Duration::from_secs(1);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let times = TcpKeepalive::new().with_time(second).with_interval(second);
    socket
        .set_tcp_keepalive(&times.with_retries(2))
        .expect("set");
    let at: SocketAddr = ([127, 0, 0, 1], 9050).into();
    socket.bind(&at.into()).expect("free");
    socket.listen(1).expect("listening");
    socket.set_nonblocking(true).expect("set");
    let listener = TcpListener::from_std(socket.into()).expect("in a runtime");
    let port = Port::new("", [("good.example:80", Plan::Open)]);
    let mut client = TcpStream::connect(at).await.expect("connected");
    let (near, _) = listener.accept().await.expect("accepted");
    let served = port.serve(near);
    let request = bytes("05 01 00 05 01 00 03 0c 676f6f642e6578616d706c65 0050");
    client.write_all(&request).await.expect("written");
    let mut answer = [0; 12];
    client.read_exact(&mut answer).await.expect("an answer");
    let mut far = port.tor.accept_stream().await;
    client.write_all(b"hello").await.expect("written");
    far.expect_bytes(b"hello").await;
    assert!(!served.is_over());
    run_shell(
        "nft -f - <<'END'
table inet gone {
    chain in {
        type filter hook input priority 0;
        tcp dport 9050 drop
    }
}
END",
    );
    let (said, _) = far.read_to_end().await;
    assert!(said.is_empty(), "{said:?}");
    served.wait().await;
    drop(client);
}
