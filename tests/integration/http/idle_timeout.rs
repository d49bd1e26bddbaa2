//! Time-outs of a forwarded request: for the site, and for the client's body.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::start_request;
use crate::support::client::Client;
use crate::support::http::{expect_text, read_head, read_response, send_text};
use crate::support::serve::{Port, Served};

/// As in `src/inbound/http/idle_timeout.rs`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Like [`start_request`], with ends that wait as long as the paused clock needs.
async fn start_patient_request(request: &str) -> (Port, Client, Client, Served) {
    let (port, client, site, served) = start_request(request, 16 * 1024).await;
    (port, client.patient(), site.patient(), served)
}

/// Formats a request with this method and these headers.
fn request(method: &str, headers: &str) -> String {
    format!("{method} http://good.example/ HTTP/1.1\nHost: good.example\n{headers}\n")
}

#[tokio::test(start_paused = true)]
async fn a_final_response_instead_of_100_continue_arrives_whole() {
    for status in ["401 Unauthorized", "413 Content Too Large", "307 Moved"] {
        for framing in ["Content-Length: 12", "Transfer-Encoding: chunked"] {
            let post = request("POST", "Content-Length: 4\nExpect: 100-continue\n");
            let (port, mut client, mut site, _served) = start_patient_request(&post).await;
            send_text(&mut site, &format!("HTTP/1.1 {status}\n{framing}\n\n")).await;
            for part in ["some", "more", "text"] {
                sleep(Duration::from_millis(50)).await;
                let part = match framing.starts_with("Content") {
                    true => part.to_owned(),
                    false => format!("4\n{part}\n"),
                };
                send_text(&mut site, &part).await;
            }
            if !framing.starts_with("Content") {
                send_text(&mut site, "0\n\n").await;
            }
            let response = read_response(&mut client).await;
            assert!(response.line.ends_with(status), "{response:?}");
            assert_eq!(response.text(), "somemoretext", "{status} {framing}");
            // The body may or may not follow, so neither connection can carry another request.
            assert_eq!(response.header("connection"), Some("close"));
            client.expect_end().await;
            site.expect_end().await;
            assert_eq!(port.tor.calls().len(), 1);
        }
    }
}

#[tokio::test]
async fn a_response_in_the_middle_of_a_body_arrives() {
    let post = request("POST", "Content-Length: 3000000\n");
    let (_port, mut client, mut site, _served) = start_patient_request(&post).await;
    // Fills all buffers, so that the body is still being written.
    let chunk = [b'x'; 1000];
    loop {
        let sending = client.try_send(&chunk);
        if tokio::time::timeout(Duration::from_millis(300), sending)
            .await
            .is_err()
        {
            break;
        }
    }
    let chunks = "4\nsome\n".repeat(50);
    send_text(
        &mut site,
        &format!("HTTP/1.1 413 Content Too Large\nTransfer-Encoding: chunked\n\n{chunks}0\n\n"),
    )
    .await;
    drop(site);
    let response = read_response(&mut client).await;
    assert_eq!(
        (response.status, response.text()),
        (413, "some".repeat(50).as_str())
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_is_held_back_only_with_expect_100_continue() {
    let heads = [
        ("", Duration::ZERO),
        ("Expect: a-miracle\n", Duration::ZERO),
        ("Expect: 100-continue\n", Duration::from_secs(5)),
    ];
    for (header, expected) in heads {
        let post = request("POST", &format!("Content-Length: 4\n{header}"));
        let (_port, mut client, mut site, _served) = start_patient_request(&post).await;
        let start = Instant::now();
        send_text(&mut client, "body").await;
        expect_text(&mut site, "body").await;
        let waited = start.elapsed();
        let late = expected + Duration::from_millis(100);
        assert!((expected..late).contains(&waited), "{header}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_site_times_out_after_two_minutes() {
    let (_port, mut client, mut site, _served) =
        start_patient_request(&request("GET", "Accept: text/html\n")).await;
    let start = Instant::now();
    let response = read_response(&mut client).await;
    assert_eq!(
        response.line,
        "HTTP/1.1 504 Gateway Timeout (no answer in time)"
    );
    assert!(
        response
            .text()
            .contains("The site accepted the request and did not answer.")
    );
    let waited = start.elapsed();
    assert!(waited >= IDLE_TIMEOUT && waited < IDLE_TIMEOUT + Duration::from_secs(1));
    site.expect_end().await;
    // A program gets the error, too; a script in a browser does not. No request is retried, not even a
    // safe one.
    let (port, mut client, mut site, _served) = start_patient_request(&request("GET", "")).await;
    let response = read_response(&mut client).await;
    assert_eq!(response.status, 504);
    let token = response.header("tor-request-failed");
    assert_eq!(token, Some("onionport/ANSWER-TIMED-OUT"));
    site.expect_end().await;
    assert_eq!(port.tor.calls().len(), 1);
    let (port, mut client, mut site, served) =
        start_patient_request(&request("GET", "User-Agent: Mozilla/5.0\n")).await;
    client.expect_end().await;
    site.expect_end().await;
    drop(client);
    served.wait().await;
    assert_eq!(port.tor.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn uploads_and_interim_responses_keep_a_request_alive() {
    let post = request("POST", "Content-Length: 5\n");
    let (_port, mut client, mut site, _served) = start_patient_request(&post).await;
    for letter in ["a", "b", "c", "d", "e"] {
        sleep(IDLE_TIMEOUT - Duration::from_secs(20)).await;
        send_text(&mut client, letter).await;
        expect_text(&mut site, letter).await;
    }
    for _ in 0..3 {
        sleep(IDLE_TIMEOUT - Duration::from_secs(20)).await;
        send_text(&mut site, "HTTP/1.1 102 Processing\n\n").await;
        expect_text(&mut client, "HTTP/1.1 102 Processing\n\n").await;
    }
    sleep(IDLE_TIMEOUT - Duration::from_secs(20)).await;
    send_text(&mut site, "HTTP/1.1 200 OK\nContent-Length: 3\n\n").await;
    // There is no limit for the response itself.
    read_head(&mut client).await;
    sleep(IDLE_TIMEOUT * 3).await;
    send_text(&mut site, "yes").await;
    expect_text(&mut client, "yes").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_within_its_body_times_out() {
    let post = request("POST", "Content-Length: 100\nAccept: text/html\n");
    let (_port, mut client, mut site, served) = start_patient_request(&post).await;
    send_text(&mut client, "begin").await;
    expect_text(&mut site, "begin").await;
    let start = Instant::now();
    site.expect_end().await;
    let waited = start.elapsed();
    assert!(waited >= IDLE_TIMEOUT && waited < IDLE_TIMEOUT + Duration::from_secs(1));
    client.expect_end().await;
    drop(client);
    served.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_may_pause_its_body_until_the_response_has_ended() {
    let post = request("POST", "Content-Length: 100\n");
    let (_port, mut client, mut site, served) = start_patient_request(&post).await;
    send_text(&mut client, "begin").await;
    expect_text(&mut site, "begin").await;
    send_text(
        &mut site,
        "HTTP/1.1 413 Content Too Large\nContent-Length: 6\n\nno",
    )
    .await;
    read_head(&mut client).await;
    expect_text(&mut client, "no").await;
    sleep(IDLE_TIMEOUT * 3).await;
    send_text(&mut site, ", no").await;
    expect_text(&mut client, ", no").await;
    // Then the time-out applies.
    site.expect_end().await;
    client.expect_end().await;
    drop(client);
    served.wait().await;
}
