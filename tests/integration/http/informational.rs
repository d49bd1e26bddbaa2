//! Interim responses of sites: the client gets each one whole, in order, and before the final response.

use std::time::Duration;

use super::{FORWARDED_GET, GET, SWITCHING, YES, port, start_request};
use crate::support::client::End;
use crate::support::http::{expect_text, read_head, read_response, send_text};
use crate::support::serve::V4;

/// Returns a numbered 103 response.
fn hints(number: usize) -> String {
    format!("HTTP/1.1 103 Early Hints\nlink: </{number}.css>; rel=preload\n\n")
}

#[tokio::test]
async fn interim_responses_arrive_before_the_response_without_added_headers() {
    let (_port, mut client, mut site, _served) = start_request(GET, 1024).await;
    send_text(
        &mut site,
        "HTTP/1.1 103 Early Hints\nLink: </a.css>; rel=preload\nConnection: X-Hop\nX-Hop: 1\n\
         Link: </b.css>; rel=preload\nTor-Request-Failed: end/MISC\nContent-Length: 0\n\n",
    )
    .await;
    expect_text(
        &mut client,
        "HTTP/1.1 103 Early Hints\nlink: </a.css>; rel=preload\nlink: </b.css>; rel=preload\n\n",
    )
    .await;
    send_text(&mut site, "HTTP/1.1 102 Processing\n\n").await;
    expect_text(&mut client, "HTTP/1.1 102 Processing\n\n").await;
    send_text(&mut site, "HTTP/1.1 199 Of Their Own\nx: y\n\n").await;
    expect_text(&mut client, "HTTP/1.1 199 \nx: y\n\n").await;
    send_text(&mut site, YES).await;
    expect_text(&mut client, YES).await;
}

#[tokio::test]
async fn interim_responses_that_arrive_with_the_response_are_written_before_it() {
    // Small buffers split the writes to the client.
    for capacity in [1, 7, 64, 4096] {
        let (_port, mut client, mut site, _served) = start_request(GET, capacity).await;
        let all = [hints(1), hints(2), YES.to_owned()].concat();
        send_text(&mut site, &all).await;
        expect_text(&mut client, &all).await;
    }
}

#[tokio::test]
async fn each_request_of_a_connection_gets_its_own_interim_responses() {
    let (port, mut client, mut site, _served) = start_request(GET, 1024).await;
    for number in 0..5 {
        if number > 0 {
            send_text(&mut client, GET).await;
            expect_text(&mut site, FORWARDED_GET).await;
        }
        let all = [hints(number), YES.to_owned()].concat();
        send_text(&mut site, &hints(number)).await;
        expect_text(&mut client, &hints(number)).await;
        send_text(&mut site, YES).await;
        expect_text(&mut client, &all[hints(number).len()..]).await;
    }
    assert_eq!(port.tor.calls().len(), 1);
}

#[tokio::test]
async fn pipelined_requests_get_their_interim_responses_in_order() {
    let all: String = (0..3).map(expected).collect();
    // Both capacities hold all requests; only the larger one holds a response.
    for capacity in [200, 64 * 1024] {
        let port = port();
        let (mut client, _served) = port.http_client_with(capacity, V4);
        let requesting = async {
            send_text(&mut client, &GET.repeat(3)).await;
            // Reads late, so that the next request is forwarded before this response is written.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let (got, _) = client.read(all.len()).await;
            String::from_utf8(got).expect("text")
        };
        let responding = async {
            let mut site = port.tor.accept_stream().await;
            for number in 0..3 {
                expect_text(&mut site, FORWARDED_GET).await;
                site.send_bytes(expected(number).as_bytes()).await;
            }
            site
        };
        let (got, _site) = tokio::join!(requesting, responding);
        assert_eq!(got, all, "{capacity}");
    }

    fn expected(number: usize) -> String {
        let body = number.to_string().repeat(3000);
        let response = format!("HTTP/1.1 200 OK\ncontent-length: 3000\n\n{body}");
        [hints(number), hints(number + 10), response]
            .concat()
            .replace('\n', "\r\n")
    }
}

#[tokio::test]
async fn only_a_client_that_expects_100_continue_gets_it() {
    let post = |headers| {
        format!(
            "POST http://good.example/ HTTP/1.1\nHost: good.example\nContent-Length: 4\n{headers}\n"
        )
    };
    let (_port, mut client, mut site, _served) =
        start_request(&post("Expect: 100-continue\n"), 1024).await;
    send_text(&mut site, &hints(1)).await;
    expect_text(&mut client, &hints(1)).await;
    let proceed = "HTTP/1.1 100 Continue\n\n";
    send_text(&mut site, proceed).await;
    expect_text(&mut client, proceed).await;
    send_text(&mut client, "body").await;
    expect_text(&mut site, "body").await;
    send_text(&mut site, &hints(2)).await;
    expect_text(&mut client, &hints(2)).await;
    send_text(&mut site, YES).await;
    expect_text(&mut client, YES).await;
    // A client that did not send `Expect` does not get the site's 100.
    send_text(&mut client, &post("")).await;
    read_head(&mut site).await;
    send_text(&mut site, proceed).await;
    send_text(&mut client, "body").await;
    expect_text(&mut site, "body").await;
    send_text(&mut site, YES).await;
    expect_text(&mut client, YES).await;
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_interim_responses() {
    let request = "GET http://good.example/ HTTP/1.0\nHost: good.example\n\n";
    let (_port, mut client, mut site, _served) = start_request(request, 1024).await;
    send_text(&mut site, &hints(1)).await;
    assert_eq!(client.read_within(Duration::from_millis(100)).await, None);
    send_text(&mut site, YES).await;
    let response = read_response(&mut client).await;
    assert_eq!(
        (response.line.as_str(), response.text()),
        ("HTTP/1.0 200 OK", "yes")
    );
}

#[tokio::test]
async fn a_flood_of_interim_responses_is_bounded_and_does_not_hide_the_response() {
    let (_port, mut client, mut site, _served) = start_request(GET, 1024).await;
    // The client reads nothing, and the site can still send all of them.
    for number in 0..5000 {
        send_text(&mut site, &hints(number)).await;
    }
    send_text(&mut site, YES).await;
    let mut before: Option<usize> = None;
    let mut count = 0;
    loop {
        let got = read_head(&mut client).await;
        if got.starts_with("HTTP/1.1 200 OK\r\n") {
            break;
        }
        let number = got.split(['/', '.']).nth(3).and_then(|n| n.parse().ok());
        assert!(number.is_some() && number > before, "{got}");
        (before, count) = (number, count + 1);
    }
    expect_text(&mut client, "yes").await;
    // The buffer to the client and the queue hold this many.
    assert!((8..100).contains(&count), "{count}");
    // One that is too long is dropped; the next one is forwarded.
    let (_port, mut client, mut site, _served) = start_request(GET, 1024).await;
    let long = format!("HTTP/1.1 103 Early Hints\nlink: {}\n\n", "x".repeat(20_000));
    send_text(&mut site, &[long, hints(1), YES.to_owned()].concat()).await;
    expect_text(&mut client, &[hints(1), YES.to_owned()].concat()).await;
}

#[tokio::test]
async fn interim_responses_may_precede_a_websocket() {
    let request = "GET http://good.example/ HTTP/1.1\nHost: good.example\n\
               Connection: Upgrade\nUpgrade: websocket\n\n";
    for capacity in [3, 1024] {
        let (_port, mut client, mut site, _served) = start_request(request, capacity).await;
        send_text(&mut site, &[&hints(1), SWITCHING].concat()).await;
        expect_text(&mut client, &hints(1)).await;
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 101 "));
        send_text(&mut client, "to").await;
        expect_text(&mut site, "to").await;
        send_text(&mut site, "fro").await;
        expect_text(&mut client, "fro").await;
    }
}

#[tokio::test]
async fn a_site_that_closes_after_an_interim_response_is_a_failure() {
    let html = GET.replace("\n\n", "\nAccept: text/html\n\n");
    let (_port, mut client, mut site, _served) = start_request(&html, 1024).await;
    send_text(&mut site, &hints(1)).await;
    drop(site);
    expect_text(&mut client, &hints(1)).await;
    assert_eq!(read_response(&mut client).await.status, 502);
    // A script in a browser gets nothing more.
    let post = GET
        .replace("GET", "POST")
        .replace("\n\n", "\nUser-Agent: Mozilla/5.0\n\n");
    let (_port, mut client, mut site, _served) = start_request(&post, 1024).await;
    send_text(&mut site, &hints(1)).await;
    drop(site);
    expect_text(&mut client, &hints(1)).await;
    client.expect_end().await;
}

#[tokio::test]
async fn the_stream_is_closed_if_the_client_disconnects_between_interim_responses() {
    let (_port, client, mut site, served) = start_request(GET, 64).await;
    for number in 0..20 {
        send_text(&mut site, &hints(number)).await;
    }
    drop(client);
    let (_, end) = site.read_to_end().await;
    assert_ne!(end, End::Open);
    served.wait().await;
}
