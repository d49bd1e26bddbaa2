//! Clients that half-close before they have the response: some wait for it, others have gone.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{FORWARDED_GET, GET, SITE, YES, complete_get, expect_yes, port};
use crate::support::client::{Client, End};
use crate::support::http::{expect_text, read_head, read_response, send_text};
use crate::support::scripted::Plan;
use crate::support::serve::{Port, Served};

/// As in `src/inbound/http/wire/half_close.rs`.
const HOLD_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects a client that sends `text` and shuts down its sending side.
async fn send_and_half_close(port: &Port, text: &str) -> (Client, Served) {
    let (mut client, served) = port.http_client();
    send_text(&mut client, text).await;
    client.finish().await;
    (client, served)
}

#[tokio::test]
async fn a_client_that_half_closes_behind_its_request_gets_the_response() {
    let post = GET.replace("GET", "POST");
    for request in [
        GET.to_owned(),
        GET.replace("\n\n", "\nConnection: close\n\n"),
        GET.replace("1.1", "1.0"),
        post.replace("\n\n", "\nContent-Length: 5\n\nhello"),
        post.replace("\n\n", "\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n"),
        post.replace("\n\n", "\nContent-Length: 5\nExpect: 100-continue\n\nhello"),
    ] {
        let port = port();
        let (mut client, served) = send_and_half_close(&port, &request).await;
        let mut site = port.tor.accept_stream().await;
        read_head(&mut site).await;
        if request.contains("Expect") {
            send_text(&mut site, "HTTP/1.1 100 Continue\n\n").await;
            expect_text(&mut client, "HTTP/1.1 100 Continue\n\n").await;
        }
        if request.contains("hello") {
            let (body, _) = site.read(5).await;
            assert!(!body.is_empty(), "{request}");
        }
        sleep(Duration::from_millis(50)).await;
        send_text(&mut site, YES).await;
        expect_yes(&mut client).await;
        client.expect_end().await;
        served.wait().await;
    }
}

#[tokio::test]
async fn a_client_over_tcp_that_half_closes_gets_the_response() {
    let port = port();
    let (client, served) = port.http_tcp_client().await;
    let mut client = Client::over(client);
    send_text(&mut client, GET).await;
    client.finish().await;
    let mut site = port.tor.accept_stream().await;
    complete_get(&mut site, &mut client).await;
    client.expect_end().await;
    served.wait().await;
}

#[tokio::test]
async fn all_of_several_requests_and_own_pages_are_answered_after_a_half_close() {
    let port = port();
    let own_page = "GET http://onionport.invalid/ HTTP/1.1\nHost: a\n\n";
    let (mut client, served) = send_and_half_close(&port, &format!("{GET}{own_page}{GET}")).await;
    let mut site = port.tor.accept_stream().await;
    complete_get(&mut site, &mut client).await;
    assert_eq!(read_response(&mut client).await.status, 200);
    complete_get(&mut site, &mut client).await;
    client.expect_end().await;
    served.wait().await;
    // An own page as the only request.
    let (mut client, _served) = send_and_half_close(&port, own_page).await;
    assert_eq!(read_response(&mut client).await.status, 200);
    client.expect_end().await;
}

#[tokio::test]
async fn a_response_larger_than_all_buffers_arrives_whole() {
    let port = port();
    let (mut client, served) = send_and_half_close(&port, GET).await;
    let mut site = port.tor.accept_stream().await;
    expect_text(&mut site, FORWARDED_GET).await;
    let body = "x".repeat(100_000);
    let sending = async {
        send_text(
            &mut site,
            &format!("HTTP/1.1 200 OK\nContent-Length: 100000\n\n{body}"),
        )
        .await;
    };
    let ((), got) = tokio::join!(sending, read_response(&mut client));
    assert_eq!(got.text(), body);
    client.expect_end().await;
    served.wait().await;
}

/// The client may have gone, which a half-close does not show.
#[tokio::test(start_paused = true)]
async fn a_half_closed_client_is_served_until_the_hold_timeout() {
    for plan in [Plan::Never, Plan::Open] {
        let port = Port::new("", [(SITE, plan.clone())]);
        let (client, served) = send_and_half_close(&port, GET).await;
        let start = Instant::now();
        let mut client = client.patient();
        client.expect_end().await;
        let waited = start.elapsed();
        assert!(
            waited >= HOLD_TIMEOUT && waited < HOLD_TIMEOUT + Duration::from_secs(5),
            "{plan:?}: {waited:?}"
        );
        served.wait().await;
        port.tor.wait_for_running(0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_continues_as_long_as_bytes_arrive() {
    let port = port();
    let (client, served) = send_and_half_close(&port, GET).await;
    let mut client = client.patient();
    let mut site = port.tor.accept_stream().await;
    expect_text(&mut site, FORWARDED_GET).await;
    sleep(HOLD_TIMEOUT - Duration::from_secs(2)).await;
    send_text(&mut site, "HTTP/1.1 200 OK\nContent-Length: 5\n\n").await;
    read_head(&mut client).await;
    for letter in ["h", "e", "l", "l", "o"] {
        sleep(HOLD_TIMEOUT - Duration::from_secs(2)).await;
        send_text(&mut site, letter).await;
        expect_text(&mut client, letter).await;
    }
    client.expect_end().await;
    served.wait().await;
}

#[tokio::test]
async fn a_client_that_half_closes_within_a_body_is_dropped_at_once() {
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let port = port();
        let request = GET
            .replace("GET", "POST")
            .replace("\n\n", &format!("\n{framing}\n\n"));
        let (mut client, _served) = send_and_half_close(&port, &format!("{request}5\nhel")).await;
        let mut site = port.tor.accept_stream().await;
        let (_, end) = site.read_to_end().await;
        assert_ne!(end, End::Open, "{framing}");
        client.expect_end().await;
    }
}

#[tokio::test]
async fn a_client_that_closes_without_reading_the_response_is_dropped() {
    let port = port();
    let (client, served) = send_and_half_close(&port, GET).await;
    let mut site = port.tor.accept_stream().await;
    expect_text(&mut site, FORWARDED_GET).await;
    drop(client);
    send_text(&mut site, "HTTP/1.1 200 OK\nContent-Length: 10\n\nsome").await;
    site.expect_end().await;
    served.wait().await;
}
