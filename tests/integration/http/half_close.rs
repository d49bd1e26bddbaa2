//! Clients that close their side before they have their answer: some wait for it, some have left.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{GET, GOT, SITE, YES, expect_yes, port};
use crate::support::client::{Client, End};
use crate::support::http::{answer, head, hear, say};
use crate::support::scripted::Plan;
use crate::support::serve::{Port, Served};

/// As in `wire/half_close.rs`.
const HOLD: Duration = Duration::from_secs(30);

/// A client that has said this, and no more than this.
async fn said(port: &Port, words: &str) -> (Client, Served) {
    let (mut client, served) = port.http_client();
    say(&mut client, words).await;
    client.finish().await;
    (client, served)
}

#[tokio::test]
async fn who_closes_its_side_behind_a_request_gets_the_answer() {
    let post = GET.replace("GET", "POST");
    for ask in [
        GET.to_owned(),
        GET.replace("\n\n", "\nConnection: close\n\n"),
        GET.replace("1.1", "1.0"),
        post.replace("\n\n", "\nContent-Length: 5\n\nhello"),
        post.replace("\n\n", "\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n"),
        post.replace("\n\n", "\nContent-Length: 5\nExpect: 100-continue\n\nhello"),
    ] {
        let port = port();
        let (mut client, served) = said(&port, &ask).await;
        let mut site = port.tor.far_end().await;
        head(&mut site).await;
        if ask.contains("Expect") {
            say(&mut site, "HTTP/1.1 100 Continue\n\n").await;
            hear(&mut client, "HTTP/1.1 100 Continue\n\n").await;
        }
        if ask.contains("hello") {
            let (body, _) = site.take(5).await;
            assert!(!body.is_empty(), "{ask}");
        }
        sleep(Duration::from_millis(50)).await;
        say(&mut site, YES).await;
        expect_yes(&mut client).await;
        client.expect_end().await;
        served.end().await;
    }
}

#[tokio::test]
async fn over_tcp_too() {
    let port = port();
    let (client, served) = port.http_tcp_client().await;
    let mut client = Client::over(client);
    say(&mut client, GET).await;
    client.finish().await;
    let mut site = port.tor.far_end().await;
    hear(&mut site, GOT).await;
    say(&mut site, YES).await;
    expect_yes(&mut client).await;
    client.expect_end().await;
    served.end().await;
}

#[tokio::test]
async fn the_last_of_several_requests_is_answered_and_our_own_pages_come() {
    let port = port();
    let ours = "GET http://onionport.invalid/ HTTP/1.1\nHost: a\n\n";
    let (mut client, served) = said(&port, &format!("{GET}{ours}{GET}")).await;
    let mut site = port.tor.far_end().await;
    hear(&mut site, GOT).await;
    say(&mut site, YES).await;
    expect_yes(&mut client).await;
    assert_eq!(answer(&mut client).await.status, 200);
    hear(&mut site, GOT).await;
    say(&mut site, YES).await;
    expect_yes(&mut client).await;
    client.expect_end().await;
    served.end().await;
    // Alone.
    let (mut client, _served) = said(&port, ours).await;
    assert_eq!(answer(&mut client).await.status, 200);
    client.expect_end().await;
}

#[tokio::test]
async fn an_answer_that_is_larger_than_all_buffers_comes_whole() {
    let port = port();
    let (mut client, served) = said(&port, GET).await;
    let mut site = port.tor.far_end().await;
    hear(&mut site, GOT).await;
    let body = "x".repeat(100_000);
    let sending = async {
        say(
            &mut site,
            &format!("HTTP/1.1 200 OK\nContent-Length: 100000\n\n{body}"),
        )
        .await;
    };
    let ((), got) = tokio::join!(sending, answer(&mut client));
    assert_eq!(got.text(), body);
    client.expect_end().await;
    served.end().await;
}

/// It may have left, and nobody can tell.
#[tokio::test(start_paused = true)]
async fn who_said_its_last_is_served_for_a_while() {
    for plan in [Plan::Never, Plan::Open] {
        let port = Port::new("", [(SITE, plan.clone())]);
        let (client, served) = said(&port, GET).await;
        let begun = Instant::now();
        let mut client = client.patient();
        client.expect_end().await;
        let waited = begun.elapsed();
        assert!(
            waited >= HOLD && waited < HOLD + Duration::from_secs(5),
            "{plan:?}: {waited:?}"
        );
        served.end().await;
        port.tor.wait_for_running(0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn as_long_as_bytes_flow_an_answer_goes_on() {
    let port = port();
    let (client, served) = said(&port, GET).await;
    let mut client = client.patient();
    let mut site = port.tor.far_end().await;
    hear(&mut site, GOT).await;
    sleep(HOLD - Duration::from_secs(2)).await;
    say(&mut site, "HTTP/1.1 200 OK\nContent-Length: 5\n\n").await;
    head(&mut client).await;
    for letter in ["h", "e", "l", "l", "o"] {
        sleep(HOLD - Duration::from_secs(2)).await;
        say(&mut site, letter).await;
        hear(&mut client, letter).await;
    }
    client.expect_end().await;
    served.end().await;
}

#[tokio::test]
async fn who_leaves_within_a_body_leaves_at_once() {
    for how in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let port = port();
        let ask = GET
            .replace("GET", "POST")
            .replace("\n\n", &format!("\n{how}\n\n"));
        let (mut client, _served) = said(&port, &format!("{ask}5\nhel")).await;
        let mut site = port.tor.far_end().await;
        let (_, end) = site.rest().await;
        assert_ne!(end, End::Open, "{how}");
        client.expect_end().await;
    }
}

#[tokio::test]
async fn who_does_not_take_the_answer_has_left() {
    let port = port();
    let (client, served) = said(&port, GET).await;
    let mut site = port.tor.far_end().await;
    hear(&mut site, GOT).await;
    drop(client);
    say(&mut site, "HTTP/1.1 200 OK\nContent-Length: 10\n\nsome").await;
    site.expect_end().await;
    served.end().await;
}
