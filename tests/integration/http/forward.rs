//! Plain requests forwarded to a site, and their responses.

use std::time::Duration;

use super::{FORWARDED_GET, GET, SITE, SWITCHING, YES, complete_get, expect_yes, port};
use crate::support::client::End;
use crate::support::http::{expect_text, read_head, read_response, read_response_to, send_text};
use crate::support::serve::V4;

#[tokio::test]
async fn a_site_gets_the_clients_headers_and_none_about_the_proxy() {
    let port = port();
    let (mut client, _served) = port.http_client();
    send_text(
        &mut client,
        "GET http://Good.Example/a/../b?c=d#e HTTP/1.1\n\
         Host: Good.Example\n\
         Proxy-Connection: keep-alive\n\
         Proxy-Authorization: Basic dG9yOmE=\n\
         X-Tor-Stream-Isolation: me\n\
         uSER-agent: Any/1.0\n\
         Connection: keep-alive, X-Mine\n\
         X-Mine: 1\n\
         Accept: */*\n\
         Cookie: a=b; c=\"d\"\n\n",
    )
    .await;
    let mut site = port.tor.accept_stream().await;
    expect_text(
        &mut site,
        "GET /a/../b?c=d HTTP/1.1\nHost: Good.Example\nuSER-agent: Any/1.0\nAccept: */*\n\
         Cookie: a=b; c=\"d\"\n\n",
    )
    .await;
    send_text(
        &mut site,
        "HTTP/1.1 203 Just So\nContent-Length: 3\nx-Own: 1\nConnection: close, X-Hop\n\
         X-Hop: 2\nProxy-Authenticate: Basic\nTor-Request-Failed: end/MISC\nDate: then\n\nyes",
    )
    .await;
    let response = read_response(&mut client).await;
    assert_eq!(
        (response.line.as_str(), response.text()),
        ("HTTP/1.1 203 Just So", "yes")
    );
    let mut names: Vec<&str> = response
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "date", "x-own"]);
}

#[tokio::test]
async fn the_url_takes_precedence_over_the_host_header() {
    let port = port();
    let (mut client, _served) = port.http_client();
    send_text(
        &mut client,
        "GET http://good.example:80 HTTP/1.1\nHost: other.example\n\n",
    )
    .await;
    let mut site = port.tor.accept_stream().await;
    expect_text(&mut site, "GET / HTTP/1.1\nHost: good.example:80\n\n").await;
    let calls = port.tor.calls();
    assert_eq!((calls.len(), calls[0].target.as_str()), (1, SITE));
}

#[tokio::test]
async fn a_request_body_waits_for_a_slow_site() {
    const SIZE: usize = 3_000_000;
    let port = port();
    let (mut client, _served) = port.http_client();
    let head = format!(
        "POST http://good.example/ HTTP/1.1\nHost: good.example\nContent-Length: {SIZE}\n\n"
    );
    send_text(&mut client, &head).await;
    let mut site = port.tor.accept_stream().await;
    let (mut to_site, mut stuck) = (0, false);
    // The site does not read, so writing stops when the buffers are full.
    while to_site < SIZE && !stuck {
        let chunk = vec![b'x'; 1000];
        let sending = tokio::time::timeout(Duration::from_millis(300), client.try_send(&chunk));
        match sending.await {
            Ok(sent) => sent.expect("send"),
            Err(_) => stuck = true,
        }
        to_site += 1000;
    }
    assert!(stuck && to_site < 1_000_000, "{to_site} bytes were sent");
    let expected = format!("POST / HTTP/1.1\nHost: good.example\nContent-Length: {SIZE}\n\n");
    expect_text(&mut site, &expected).await;
    // The last chunk may have been sent in part.
    site.expect_bytes(&vec![b'x'; to_site - 1000]).await;
}

#[tokio::test]
async fn a_response_body_waits_for_a_slow_client() {
    let port = port();
    let (mut client, _served) = port.http_client();
    send_text(&mut client, GET).await;
    let mut site = port.tor.accept_stream().await;
    expect_text(&mut site, FORWARDED_GET).await;
    send_text(&mut site, "HTTP/1.1 200 OK\nContent-Length: 3000000\n\n").await;
    let mut taken = 0;
    loop {
        let chunk = [b'y'; 1000];
        let sending = tokio::time::timeout(Duration::from_millis(300), site.try_send(&chunk));
        if sending.await.is_err() {
            break;
        }
        taken += 1000;
        assert!(taken < 1_000_000, "no backpressure");
    }
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    client.expect_bytes(&vec![b'y'; taken]).await;
}

#[tokio::test]
async fn chunks_and_trailers_are_forwarded_in_both_directions() {
    let port = port();
    let (mut client, _served) = port.http_client();
    send_text(
        &mut client,
        "PUT http://good.example/x HTTP/1.1\nHost: good.example\nTE: trailers\n\
         Transfer-Encoding: chunked\nTrailer: X-Sum\n\n\
         3\none\n3;why=not\ntwo\n0\nX-Sum: 6\n\n",
    )
    .await;
    let mut site = port.tor.accept_stream().await;
    let head = read_head(&mut site).await;
    assert!(head.starts_with("PUT /x HTTP/1.1\r\n"), "{head}");
    for line in [
        "Transfer-Encoding: chunked",
        "Trailer: X-Sum",
        "TE: trailers",
        "Connection: TE",
    ] {
        let found = head
            .lines()
            .filter(|got| got.eq_ignore_ascii_case(line))
            .count();
        assert_eq!(found, 1, "{line} in {head}");
    }
    expect_text(&mut site, "3\none\n3\ntwo\n0\nx-sum: 6\n\n").await;
    send_text(
        &mut site,
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: X-Sum\n\n5\nthree\n0\nX-Sum: 5\n\n",
    )
    .await;
    let head = read_head(&mut client).await;
    assert!(
        head.to_ascii_lowercase()
            .contains("transfer-encoding: chunked\r\n"),
        "{head}"
    );
    expect_text(&mut client, "5\nthree\n0\nx-sum: 5\n\n").await;
}

#[tokio::test]
async fn trailers_are_filtered_like_headers() {
    let port = port();
    let (mut client, _served) = port.http_client();
    let names = "X-Sum, Tor-Stream-Isolation, Tor-Request-Failed, Proxy-Authentication-Info";
    let trailers = "X-Sum: 3\nTor-Stream-Isolation: a\nTor-Request-Failed: end/MISC\n\
                    Proxy-Authentication-Info: x\n\n";
    send_text(
        &mut client,
        &format!(
            "PUT http://good.example/ HTTP/1.1\nHost: good.example\nTE: trailers\n\
             Transfer-Encoding: chunked\nTrailer: {names}\n\n3\none\n0\n{trailers}"
        ),
    )
    .await;
    let mut site = port.tor.accept_stream().await;
    read_head(&mut site).await;
    expect_text(&mut site, "3\none\n0\nx-sum: 3\n\n").await;
    send_text(
        &mut site,
        &format!(
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: {names}\n\n\
             3\ntwo\n0\n{trailers}"
        ),
    )
    .await;
    read_head(&mut client).await;
    expect_text(&mut client, "3\ntwo\n0\nx-sum: 3\n\n").await;
}

#[tokio::test]
async fn no_headers_are_added_to_a_response() {
    let port = port();
    let (mut client, _served) = port.http_client();
    send_text(&mut client, GET).await;
    let mut site = port.tor.accept_stream().await;
    expect_text(&mut site, FORWARDED_GET).await;
    send_text(&mut site, YES).await;
    // Not even `Date`.
    expect_text(&mut client, "HTTP/1.1 200 OK\nContent-Length: 3\n\nyes").await;
}

#[tokio::test]
async fn the_body_of_a_get_is_forwarded() {
    let port = port();
    let (mut client, _served) = port.http_client();
    send_text(
        &mut client,
        "GET http://good.example/ HTTP/1.1\nHost: good.example\nTransfer-Encoding: chunked\n\n\
         4\nbody\n0\n\n",
    )
    .await;
    let mut site = port.tor.accept_stream().await;
    let head = read_head(&mut site).await.to_ascii_lowercase();
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    expect_text(&mut site, "4\nbody\n0\n\n").await;
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_the_sites_100() {
    let post = "POST http://good.example/ HTTP/1.1\nHost: good.example\nContent-Length: 4\n\
               Expect: 100-continue\n\n";
    let port = port();
    let (mut client, _served) = port.http_client();
    send_text(&mut client, post).await;
    let mut site = port.tor.accept_stream().await;
    let head = read_head(&mut site).await;
    assert!(head.contains("Expect: 100-continue\r\n"), "{head}");
    assert!(
        client
            .read_within(Duration::from_millis(200))
            .await
            .is_none()
    );
    send_text(&mut site, "HTTP/1.1 100 Continue\n\n").await;
    expect_text(&mut client, "HTTP/1.1 100 Continue\n\n").await;
    send_text(&mut client, "body").await;
    expect_text(&mut site, "body").await;
    send_text(&mut site, YES).await;
    expect_yes(&mut client).await;
    // A site that refuses the body does not get it.
    send_text(&mut client, post).await;
    read_head(&mut site).await;
    send_text(
        &mut site,
        "HTTP/1.1 417 Expectation Failed\nContent-Length: 0\n\n",
    )
    .await;
    assert_eq!(read_response(&mut client).await.status, 417);
}

#[tokio::test]
async fn a_site_without_100_continue_gets_the_body_after_a_while() {
    let port = port();
    let (mut client, _served) = port.http_client();
    send_text(
        &mut client,
        "POST http://good.example/ HTTP/1.1\nHost: good.example\nContent-Length: 4\n\
         Expect: 100-continue\n\n",
    )
    .await;
    let mut site = port.tor.accept_stream().await;
    read_head(&mut site).await;
    expect_text(&mut client, "HTTP/1.1 100 Continue\n\n").await;
    send_text(&mut client, "body").await;
    expect_text(&mut site, "body").await;
    send_text(&mut site, YES).await;
    expect_yes(&mut client).await;
}

#[tokio::test(start_paused = true)]
async fn a_websocket_is_forwarded_with_the_data_behind_its_head() {
    let port = port();
    let (mut client, served) = port.http_client_with(16 * 1024, V4);
    send_text(
        &mut client,
        "GET http://good.example/chat HTTP/1.1\nHost: good.example\n\
         Connection: keep-alive, Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: k\n\n",
    )
    .await;
    let mut site = port.tor.accept_stream().await.patient();
    let head = read_head(&mut site).await.to_ascii_lowercase();
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-key: k",
    ] {
        assert!(head.contains(&format!("{line}\r\n")), "{line} in {head}");
    }
    send_text(
        &mut site,
        "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\
         Sec-WebSocket-Accept: a\n\nfirst words",
    )
    .await;
    let head = read_head(&mut client).await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-accept: a",
    ] {
        assert!(head.contains(&format!("{line}\r\n")), "{line} in {head}");
    }
    expect_text(&mut client, "first words").await;
    send_text(&mut client, "answer").await;
    expect_text(&mut site, "answer").await;
    drop(client);
    site.expect_end().await;
    drop(site);
    served.wait().await;
}

/// hyper returns the site's connection only when the whole body is written.
#[tokio::test]
async fn a_websocket_may_open_before_the_body_of_its_request_has_ended() {
    let port = port();
    let (mut client, _served) = port.http_client();
    send_text(
        &mut client,
        "GET http://good.example/ HTTP/1.1\nHost: good.example\nConnection: Upgrade\n\
         Upgrade: websocket\nContent-Length: 4\n\nbo",
    )
    .await;
    let mut site = port.tor.accept_stream().await;
    read_head(&mut site).await;
    expect_text(&mut site, "bo").await;
    send_text(&mut site, SWITCHING).await;
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 101 "));
    send_text(&mut client, "dy").await;
    expect_text(&mut site, "dy").await;
    send_text(&mut site, "from the site").await;
    expect_text(&mut client, "from the site").await;
    send_text(&mut client, "from the client").await;
    expect_text(&mut site, "from the client").await;
}

#[tokio::test]
async fn other_upgrades_are_not_forwarded() {
    let port = port();
    let (mut client, _served) = port.http_client();
    send_text(
        &mut client,
        "GET http://good.example/ HTTP/1.1\nHost: good.example\n\
         Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABk\n\n",
    )
    .await;
    let mut site = port.tor.accept_stream().await;
    complete_get(&mut site, &mut client).await;
}

#[tokio::test]
async fn responses_without_a_body_have_none() {
    let port = port();
    let (mut client, _served) = port.http_client();
    let mut sites = Vec::new();
    for (method, sent, status, length) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\nContent-Length: 1000\n\n",
            200,
            Some("1000"),
        ),
        // No `Content-Length` unless the site sends one.
        ("HEAD", "HTTP/1.1 200 OK\n\n", 200, None),
        (
            "HEAD",
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n",
            200,
            None,
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\nETag: \"a\"\n\n",
            304,
            None,
        ),
        ("DELETE", "HTTP/1.1 204 No Content\n\n", 204, None),
        ("GET", YES, 200, Some("3")),
    ] {
        send_text(&mut client, &GET.replace("GET", method)).await;
        if sites.is_empty() {
            sites.push(port.tor.accept_stream().await);
        }
        let head = read_head(&mut sites[0]).await;
        assert!(
            head.starts_with(&format!("{method} / HTTP/1.1\r\n")),
            "{head}"
        );
        send_text(&mut sites[0], sent).await;
        let response = read_response_to(method, &mut client).await;
        let received = (response.status, response.header("content-length"));
        assert_eq!(received, (status, length), "{method}: {sent}");
    }
    assert_eq!(port.tor.calls().len(), 1);
}

#[tokio::test]
async fn an_http_1_0_client_gets_a_body_that_ends_with_the_connection() {
    let port = port();
    let (mut client, _served) = port.http_client();
    send_text(&mut client, "GET http://good.example/ HTTP/1.0\n\n").await;
    let mut site = port.tor.accept_stream().await;
    // The client sent no `Host`; the one added for it is in lower case.
    expect_text(&mut site, &FORWARDED_GET.replace("Host", "host")).await;
    send_text(
        &mut site,
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\nyes\n0\n\n",
    )
    .await;
    let response = read_response(&mut client).await;
    assert!(response.line.starts_with("HTTP/1.0 200"), "{response:?}");
    assert_eq!((response.text(), response.end), ("yes", End::Closed));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let port = port();
    let (mut client, _served) = port.http_client_with(16 * 1024, V4);
    send_text(&mut client, &GET.repeat(3)).await;
    let mut site = port.tor.accept_stream().await;
    for number in 1..=3 {
        expect_text(&mut site, FORWARDED_GET).await;
        let response = format!("HTTP/1.1 200 OK\nContent-Length: 1\n\n{number}");
        send_text(&mut site, &response).await;
        assert_eq!(read_response(&mut client).await.text(), number.to_string());
    }
}

#[tokio::test]
async fn options_requests_are_forwarded_up_to_max_forwards() {
    let port = port();
    let (mut client, _served) = port.http_client();
    let options = |header: &str| {
        format!("OPTIONS http://good.example HTTP/1.1\nHost: good.example\n{header}\n")
    };
    send_text(&mut client, &options("Max-Forwards: 0\n")).await;
    let response = read_response(&mut client).await;
    assert_eq!(
        (response.status, response.header("allow").is_some()),
        (200, true)
    );
    assert!(port.tor.calls().is_empty());
    send_text(&mut client, &options("Max-Forwards: 2\n")).await;
    let mut site = port.tor.accept_stream().await;
    expect_text(
        &mut site,
        "OPTIONS / HTTP/1.1\nHost: good.example\nMax-Forwards: 1\n\n",
    )
    .await;
}
