//! The time limits of the handshake and of the request.

use std::time::Duration;

use onionport::failure::Failure;
use tokio::time::{Instant, sleep};

use super::port;
use crate::support::hex::{bytes, show};
use crate::support::scripted::{Plan, TIMEOUT};
use crate::support::serve::{Port, V4};
use crate::support::socks::{CONNECT_GOOD, GOOD, GREETING, greet};

#[tokio::test(start_paused = true)]
async fn a_slow_handshake_is_closed_without_a_reply() {
    for (sent, reply) in [
        ("", ""),
        ("05", ""),
        ("05 02 00", ""),
        (GREETING, "05 00"),
        ("05 01 00 05 01 00 03 0c 676f", "05 00"),
        ("05 01 02 01 02 6d", "05 02"),
        ("04 01 0050 0000", ""),
    ] {
        let port = port(Plan::Open).with_timeout(Duration::from_secs(7));
        let begun = Instant::now();
        let (client, served) = port.client(V4);
        let mut client = client.patient();
        client.send(sent).await;
        client.expect(reply).await;
        client.expect_end().await;
        let took = begun.elapsed().as_secs_f32();
        assert!((7.0..7.1).contains(&took), "{sent}: {took} s");
        served.wait().await;
        assert_eq!(port.tor.calls().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn sending_more_does_not_extend_the_time_for_the_handshake() {
    let port = port(Plan::Open).with_timeout(Duration::from_secs(7));
    let begun = Instant::now();
    let (client, served) = port.client(V4);
    let mut client = client.patient();
    for byte in bytes("05 01 00 05 01 00 03 ff 61*255 0050") {
        sleep(Duration::from_secs(1)).await;
        if client.try_send(&[byte]).await.is_err() {
            break;
        }
    }
    let (got, _) = client.read_to_end().await;
    assert_eq!(show(&got), "05 00");
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "{:?}",
        begun.elapsed()
    );
    served.wait().await;
    assert_eq!(port.tor.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_gets_the_full_timeout_after_a_slow_handshake() {
    let requests = [
        CONNECT_GOOD,
        "05 f0 00 03 0c 676f6f642e6578616d706c65 0000",
        "05 f1 00 01 c0000201 0000",
    ];
    for request in requests {
        let port = Port::new(
            "",
            [GOOD, "good.example", "192.0.2.1"].map(|t| (t, Plan::Fail(Failure::DeadlinePassed))),
        );
        let (mut client, _served) = port.client(V4);
        sleep(Duration::from_secs(30)).await;
        greet(&mut client).await;
        sleep(Duration::from_secs(30)).await;
        let requested = Instant::now();
        client.send(request).await;
        client.read(10).await;
        let calls = port.tor.calls();
        assert_eq!(calls.len(), 1, "{request}");
        assert_eq!(calls[0].at, requested, "{request}");
        assert_eq!(calls[0].deadline - requested, TIMEOUT, "{request}");
    }
}
