//! What becomes of a redirected connection, with a network that answers as it is told. That the
//! system's redirection is understood is shown on the network (`tests/network/transparent.rs`).

use std::net::SocketAddr;
use std::time::Duration;

use onionport::config::TransProxyType;
use onionport::failure::Failure;
use onionport::transparent::{Redirection, carry, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::client::Client;
use crate::support::scripted::Plan;
use crate::support::serve::{Port, V4};
use crate::support::{LIMIT, ONION};

/// A client whose connection was going to `destination`.
fn client(port: &Port, destination: &str) -> (Client, JoinHandle<()>) {
    let destination: SocketAddr = destination.parse().expect("an address and a port");
    let (near, far) = duplex(1024);
    let gateway = port.gateway();
    let served = tokio::spawn(async move {
        carry(&gateway, near, V4, destination).await;
    });
    (Client::over(far), served)
}

#[tokio::test]
async fn bytes_go_both_ways_and_nothing_else() {
    for (destination, target) in [
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("[2001:db8::1]:443", "2001:db8::1:443"),
    ] {
        let port = Port::new("", [(target, Plan::Held)]);
        let (mut client, served) = client(&port, destination);
        // Said before there is a stream.
        client.send_bytes(b"early ").await;
        port.tor.wait_for_running(1).await;
        port.tor.release();
        let mut far = port.tor.far_end().await;
        far.expect_bytes(b"early ").await;
        client.send_bytes(b"and late").await;
        far.expect_bytes(b"and late").await;
        far.send_bytes(b"answer").await;
        client.expect_bytes(b"answer").await;
        drop(far);
        client.expect_end().await;
        drop(client);
        timeout(LIMIT, served)
            .await
            .expect("over")
            .expect("no panic");
        assert_eq!(port.tor.calls()[0].target, target);
    }
}

#[tokio::test]
async fn a_failure_is_silence() {
    for &failure in Failure::ALL {
        let port = Port::new("ExtendedErrors", [("192.0.2.1:80", Plan::Fail(failure))]);
        let (mut client, _served) = client(&port, "192.0.2.1:80");
        client.send_bytes(b"hello").await;
        client.expect_end().await;
    }
    // Nor is the network asked for what is ours.
    let port = Port::new::<&str>("", []);
    for destination in ["127.0.0.1:80", "10.0.0.1:80", "192.0.2.1:0", "[fe80::1]:80"] {
        let (mut client, _served) = client(&port, destination);
        client.expect_end().await;
    }
    assert!(port.tor.calls().is_empty());
}

#[tokio::test]
async fn a_virtual_address_leads_to_its_name() {
    let onion = format!("{ONION}:80");
    let lines = [&*format!("127.192.0.10 {ONION}")];
    let port = Port::new("", [(onion.as_str(), Plan::Open)])
        .with_shared(crate::names::shared(&lines, false));
    let (mut client, _served) = client(&port, "127.192.0.10:80");
    client.send_bytes(b"hello").await;
    let mut far = port.tor.far_end().await;
    far.expect_bytes(b"hello").await;
    assert_eq!(port.tor.calls()[0].target, onion);
}

/// A connection to the port itself has nowhere to go, whatever the system says of it.
#[tokio::test]
async fn a_connection_that_nobody_redirected_is_closed() {
    let port = Port::new::<&str>("", []).with_private(true, true);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    for kind in [TransProxyType::Default, TransProxyType::Tproxy] {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let (near, peer) = listener.accept().await.expect("accepted");
        let gateway = port.gateway();
        let how = Redirection {
            kind,
            port: address,
        };
        let serving = serve(&gateway, near, peer.ip(), how);
        timeout(Duration::from_secs(5), serving)
            .await
            .expect("over");
        let _ = stream.write_all(b"hello").await;
        let mut said = Vec::new();
        let _ = timeout(LIMIT, stream.read_to_end(&mut said))
            .await
            .expect("closed");
        assert!(said.is_empty());
    }
    assert!(port.tor.calls().is_empty());
}
