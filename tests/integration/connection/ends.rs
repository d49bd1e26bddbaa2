//! How connections end, and half-closed clients.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use onionport::inbound::connection::serve;
use onionport::request::dispatch::Dispatcher;
use tokio::io::duplex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::{connect_good, port};
use crate::support::client::{Client, End};
use crate::support::hex::{bytes, show};
use crate::support::scripted::{Plan, ScriptedNetwork};
use crate::support::serve::V4;
use crate::support::socks::{CONNECT_GOOD, SUCCEEDED, send_request};

#[tokio::test(start_paused = true)]
async fn a_half_closed_client_still_gets_the_answer() {
    let port = port(Plan::Open);
    let (mut client, served) = connect_good(&port).await;
    client.expect(SUCCEEDED).await;
    client.send_bytes(b"question").await;
    client.finish().await;
    let mut far = port.tor.accept_stream().await;
    far.expect_bytes(b"question").await;
    sleep(Duration::from_secs(50)).await;
    far.send_bytes(b"answer").await;
    client.expect_bytes(b"answer").await;
    drop(far);
    client.expect_end().await;
    served.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_may_half_close_while_its_request_is_pending() {
    let port = port(Plan::OpenLater);
    let (mut client, served) = connect_good(&port).await;
    client.send_bytes(b"question").await;
    client.finish().await;
    port.tor.wait_for_running(1).await;
    sleep(Duration::from_secs(30)).await;
    port.tor.release();
    let mut far = port.tor.accept_stream().await;
    far.expect_bytes(b"question").await;
    far.send_bytes(b"answer").await;
    drop(far);
    client.expect(SUCCEEDED).await;
    client.expect_bytes(b"answer").await;
    client.expect_end().await;
    served.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_closes_ends_the_connection_of_a_client_that_stays() {
    let port = port(Plan::Open);
    let (mut client, served) = connect_good(&port).await;
    client.expect(SUCCEEDED).await;
    let mut far = port.tor.accept_stream().await;
    far.send_bytes(b"bye").await;
    drop(far);
    client.expect_bytes(b"bye").await;
    client.expect_end().await;
    served.wait().await;
}

#[tokio::test]
async fn a_client_that_resets_its_connection_cancels_its_request() {
    let port = port(Plan::Never);
    let (client, served) = port.tcp_client().await;
    // Dropping the socket then sends a reset.
    client.set_zero_linger().expect("set");
    let mut client = Client::over(client);
    send_request(&mut client, CONNECT_GOOD).await;
    port.tor.wait_for_running(1).await;
    assert!(!served.is_over());
    drop(client);
    port.tor.wait_for_running(0).await;
    served.wait().await;
}

#[tokio::test]
async fn a_client_that_leaves_during_the_handshake_requests_nothing() {
    for whole in [
        format!("05 01 02 01 02 6d65 03 796f75 {CONNECT_GOOD}"),
        "04 01 0050 00000001 6d65 00 676f6f642e6578616d706c65 00".to_owned(),
    ] {
        let whole = bytes(&whole);
        for length in 0..whole.len() {
            let port = port(Plan::Open);
            let (mut client, served) = port.client(V4);
            client.send_bytes(&whole[..length]).await;
            client.finish().await;
            let (got, end) = client.read_to_end().await;
            assert_eq!(end, End::Closed, "after {length} bytes");
            let replies = [&[][..], &[5, 2], &[5, 2, 1, 0]];
            assert!(
                replies.contains(&&got[..]),
                "after {length} bytes: {}",
                show(&got)
            );
            served.wait().await;
            assert_eq!(port.tor.calls().len(), 0, "after {length} bytes");
        }
    }
}

/// A dispatcher with the permit of a listener that limits its clients.
struct DispatcherWithPermit(
    Arc<Dispatcher<ScriptedNetwork>>,
    #[expect(dead_code)] OwnedSemaphorePermit,
);

impl Deref for DispatcherWithPermit {
    type Target = Dispatcher<ScriptedNetwork>;

    fn deref(&self) -> &Dispatcher<ScriptedNetwork> {
        &self.0
    }
}

#[tokio::test]
async fn a_client_holds_its_permit_until_its_stream_ends() {
    let port = port(Plan::Open);
    let permits = Arc::new(Semaphore::new(1));
    let permit = Arc::clone(&permits).try_acquire_owned().expect("free");
    let (near_end, client_end) = duplex(1024);
    let serving = tokio::spawn(serve(
        DispatcherWithPermit(port.dispatcher(), permit),
        near_end,
        V4,
    ));
    let mut client = Client::over(client_end);
    send_request(&mut client, CONNECT_GOOD).await;
    client.expect(SUCCEEDED).await;
    let mut destination = port.tor.accept_stream().await;
    client.send_bytes(b"hello").await;
    destination.expect_bytes(b"hello").await;
    assert_eq!(permits.available_permits(), 0);
    drop(destination);
    client.expect_end().await;
    drop(client);
    serving.await.expect("no panic");
    assert_eq!(permits.available_permits(), 1);
}
