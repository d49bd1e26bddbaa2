//! Data that the client sends before the reply (proposal 174: optimistic data).

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::port;
use crate::support::client::Client;
use crate::support::random::Random;
use crate::support::scripted::Plan;
use crate::support::serve::V4;
use crate::support::socks::{CONNECT_GOOD, GREETING, SUCCEEDED, send_request};

#[tokio::test]
async fn data_after_the_request_reaches_the_stream_whole_and_in_order() {
    let port = port(Plan::OpenLater);
    let (mut client, _served) = port.client(V4);
    // Greeting, request and the first data in one piece.
    client
        .send(&format!("{GREETING} {CONNECT_GOOD} 6f6e6520"))
        .await;
    client.expect("05 00").await;
    port.tor.wait_for_running(1).await;
    client.send_bytes(b"two ").await;
    client.send_bytes(b"three ").await;
    port.tor.release();
    let mut far = port.tor.accept_stream().await;
    client.expect(SUCCEEDED).await;
    client.send_bytes(b"four").await;
    far.expect_bytes(b"one two three four").await;
}

#[tokio::test]
async fn data_after_a_socks4_request_reaches_the_stream() {
    let port = port(Plan::Open);
    let (mut client, _served) = port.client(V4);
    client
        .send("04 01 0050 00000001 00 676f6f642e6578616d706c65 00 474554202f")
        .await;
    client.expect("00 5a 0000 00000000").await;
    port.tor.accept_stream().await.expect_bytes(b"GET /").await;
}

#[tokio::test(start_paused = true)]
async fn too_much_data_before_the_reply_is_held_back_and_none_is_lost() {
    /// How many bytes the program buffers for a client.
    const BUFFERED: usize = 16 * 1024;
    /// The capacity of the pipe between client and program.
    const PIPE: usize = 4096;
    let data = Random::new(1).bytes(300_000);
    let port = port(Plan::OpenLater);
    let (mut client, _served) = port.client_with(PIPE, V4);
    send_request(&mut client, CONNECT_GOOD).await;
    let mut client = client.into_stream();
    let mut taken = 0;
    // The paused clock advances only when no task can make progress.
    while taken < data.len()
        && let Ok(written) = timeout(Duration::from_secs(1), client.write(&data[taken..])).await
    {
        taken += written.expect("still connected");
    }
    assert!(
        (BUFFERED..=BUFFERED + PIPE).contains(&taken),
        "{taken} bytes were taken"
    );
    port.tor.release();
    let mut far = port.tor.accept_stream().await;
    let mut client = Client::over(client);
    tokio::join!(client.send_bytes(&data[taken..]), far.expect_bytes(&data));
}
