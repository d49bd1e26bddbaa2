//! Clients that vanish without closing: their machine was switched off, or the path to it is gone.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::support::LIMIT;
use crate::support::kernel::{State, find_connection, ipv4_addr};
use crate::support::namespace::{self, run_shell};
use crate::support::program::Program;
use crate::support::scripted::Plan;
use crate::support::serve::Port;
use crate::support::socks::{GOOD, open_stream};
use crate::support::unused_address::unused_addresses;

/// How long a connection is idle before TCP keepalive sends the first probe.
const FIVE_MINUTES: Duration = Duration::from_secs(300);

#[tokio::test]
async fn keepalive_probes_clients_after_five_minutes_of_silence() {
    let [address] = unused_addresses();
    let listener = std::net::TcpListener::bind(address).expect("free");
    let daemon = Program::offline()
        .port("auto")
        .config_lines("http_port = \"auto\"")
        .config_lines("trans_port = \"auto\"")
        .start_with_ports(3);
    let inherited = Program::offline()
        .inherit_socket(listener, "socks")
        .start_with_ports(1);
    // Not the transparent port: it closes connections that were not redirected. It opens its listener
    // like the others.
    for listen_addr in daemon.addresses.iter().take(2).chain(&inherited.addresses) {
        let address = ipv4_addr(listen_addr);
        let mut client = TcpStream::connect(address).await.expect("connected");
        let SocketAddr::V4(from) = client.local_addr().expect("connected") else {
            panic!("no IPv4 address");
        };
        if listen_addr != &daemon.addresses[1] {
            // After the reply the connection is accepted and idle.
            client.write_all(&[5, 1, 0]).await.expect("written");
            let reply = timeout(LIMIT, client.read_u16()).await;
            assert_eq!(reply.expect("in time").expect("a reply"), 0x0500);
        }
        let server_side = find_connection(address, from).expect("there");
        assert_eq!(server_side.state, State::Established);
        let due = server_side.keepalive_in.expect("keepalive is on");
        assert!(
            due <= FIVE_MINUTES && due > FIVE_MINUTES / 2,
            "{listen_addr}: {due:?}"
        );
    }
}

/// Uses shorter keepalive times, and a firewall rule that drops the client's packets.
#[test]
fn the_stream_of_a_vanished_client_ends() {
    if namespace::is_inside() {
        return Runtime::new()
            .expect("a runtime")
            .block_on(check_in_namespace());
    }
    namespace::run_inside(
        the_stream_of_a_vanished_client_ends,
        "ip link set lo up && nft list ruleset",
    );
}

async fn check_in_namespace() {
    let second = Duration::from_secs(1);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let times = TcpKeepalive::new().with_time(second).with_interval(second);
    socket
        .set_tcp_keepalive(&times.with_retries(2))
        .expect("set");
    let address: SocketAddr = ([127, 0, 0, 1], 9050).into();
    socket.bind(&address.into()).expect("free");
    socket.listen(1).expect("listening");
    socket.set_nonblocking(true).expect("set");
    let listener = TcpListener::from_std(socket.into()).expect("in a runtime");
    let port = Port::new("", [(GOOD, Plan::Open)]);
    let mut client = TcpStream::connect(address).await.expect("connected");
    let (near, _) = listener.accept().await.expect("accepted");
    let served = port.serve(near);
    open_stream(&mut client).await;
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
    let (received, _) = far.read_to_end().await;
    assert!(received.is_empty(), "{received:?}");
    served.wait().await;
    drop(client);
}
