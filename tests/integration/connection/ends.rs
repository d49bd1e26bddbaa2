//! How connections end, and who may finish first.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use onionport::inbound::connection::serve;
use onionport::request::dispatch::Dispatcher;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::{CONNECT_GOOD, GREETING, SUCCEEDED, asking, port};
use crate::support::client::{Client, End};
use crate::support::hex::{bytes, show};
use crate::support::kernel::wait_finished_sending;
use crate::support::random::Random;
use crate::support::scripted::{Plan, ScriptedNetwork};
use crate::support::serve::V4;

#[tokio::test(start_paused = true)]
async fn a_client_that_has_finished_its_question_still_gets_the_answer() {
    let port = port(Plan::Open);
    let (mut client, served) = asking(&port).await;
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
async fn a_client_may_finish_while_its_request_is_still_under_way() {
    let port = port(Plan::OpenLater);
    let (mut client, served) = asking(&port).await;
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
    let (mut client, served) = asking(&port).await;
    client.expect(SUCCEEDED).await;
    let mut far = port.tor.accept_stream().await;
    far.send_bytes(b"bye").await;
    drop(far);
    client.expect_bytes(b"bye").await;
    client.expect_end().await;
    served.wait().await;
}

#[tokio::test]
async fn the_end_of_an_answer_is_not_lost_to_a_client_that_talks_on() {
    // A socket that is closed before the client has read everything is reset by whatever the client
    // still says, and what it has not read is lost.
    let answer: &'static [u8] = Random::new(8).bytes(500_000).leak();
    let port = port(Plan::Open);
    let (mut client, served) = port.tcp_client().await;
    say(&mut client, GREETING).await;
    hear(&mut client, "05 00").await;
    say(&mut client, CONNECT_GOOD).await;
    hear(&mut client, SUCCEEDED).await;
    let mut far = port.tor.accept_stream().await;
    far.send_bytes(answer).await;
    drop(far);
    // Until the program has said all of it: then it has finished sending, or has hung up.
    wait_finished_sending(&client).await;
    // It fails if it comes too late, and that is the point.
    let _ = client.write_all(b"and another thing").await;
    sleep(Duration::from_millis(10)).await;
    let (heard, _) = Client::over(client).read_to_end().await;
    assert!(heard == answer, "{} of {} bytes", heard.len(), answer.len());
    served.wait().await;
}

#[tokio::test]
async fn a_client_that_breaks_off_takes_its_request_with_it() {
    let port = port(Plan::Never);
    let (mut client, served) = port.tcp_client().await;
    say(&mut client, GREETING).await;
    hear(&mut client, "05 00").await;
    say(&mut client, CONNECT_GOOD).await;
    port.tor.wait_for_running(1).await;
    assert!(!served.is_over());
    client.set_zero_linger().expect("set");
    drop(client);
    port.tor.wait_for_running(0).await;
    served.wait().await;
}

async fn say(client: &mut TcpStream, hex: &str) {
    client.write_all(&bytes(hex)).await.expect("written");
}

async fn hear(client: &mut TcpStream, hex: &str) {
    let expected = bytes(hex);
    let mut heard = vec![0; expected.len()];
    let read = timeout(crate::support::LIMIT, client.read_exact(&mut heard)).await;
    read.expect("in time").expect("read");
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_handshake_asks_for_nothing() {
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
            let answers = [&[][..], &[5, 2], &[5, 2, 1, 0]];
            assert!(
                answers.contains(&&got[..]),
                "after {length} bytes: {}",
                show(&got)
            );
            served.wait().await;
            assert_eq!(port.tor.calls().len(), 0, "after {length} bytes");
        }
    }
}

/// What a client is served by, and its place among others.
struct Admission(
    Arc<Dispatcher<ScriptedNetwork>>,
    #[expect(dead_code)] OwnedSemaphorePermit,
);

impl Deref for Admission {
    type Target = Dispatcher<ScriptedNetwork>;

    fn deref(&self) -> &Dispatcher<ScriptedNetwork> {
        &self.0
    }
}

#[tokio::test]
async fn a_client_keeps_its_place_until_its_stream_is_over() {
    let port = port(Plan::Open);
    let places = Arc::new(Semaphore::new(1));
    let place = Arc::clone(&places).try_acquire_owned().expect("free");
    let (near, far) = duplex(1024);
    let serving = tokio::spawn(serve(Admission(port.dispatcher(), place), near, V4));
    let mut client = Client::over(far);
    client.send(&format!("{GREETING} {CONNECT_GOOD}")).await;
    client.expect("05 00").await;
    client.expect(SUCCEEDED).await;
    let mut far = port.tor.accept_stream().await;
    client.send_bytes(b"hello").await;
    far.expect_bytes(b"hello").await;
    assert_eq!(places.available_permits(), 0);
    drop(far);
    client.expect_end().await;
    drop(client);
    serving.await.expect("no panic");
    assert_eq!(places.available_permits(), 1);
}
