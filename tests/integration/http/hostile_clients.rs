//! Clients with malicious requests: messages that two parsers could read differently, foreign host
//! names, endless heads.

use std::time::Duration;

use super::{GET, YES, expect_yes, port, start_request};
use crate::support::client::End;
use crate::support::http::{expect_text, read_head, read_response, send_text};
use crate::support::serve::V4;

#[tokio::test]
async fn an_ambiguous_request_is_refused_and_reaches_no_site() {
    for (headers, status) in [
        ("Host: a\nContent-Length: 1\nContent-Length: 2", 400),
        ("Host: a\nContent-Length: 1, 2", 400),
        ("Host: a\nContent-Length: +1", 400),
        ("Host: a\nContent-Length: 0x1", 400),
        ("Host: a\nContent-Length: -1", 400),
        ("Host: a\nContent-Length: 99999999999999999999", 400),
        ("Host: a\nTransfer-Encoding: identity", 400),
        ("Host: a\nTransfer-Encoding: chunked, identity", 400),
        ("Host: a\nTransfer-Encoding: xchunked", 400),
        ("Host: a\nTransfer-Encoding: gzip, chunked", 501),
        (
            "Host: a\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked",
            501,
        ),
        ("Host: a\nTransfer-Encoding : chunked", 400),
        ("Host: a\nX: folded\n\tContent-Length: 1", 400),
        (" Host: a", 400),
        ("Host: a\nHost: b", 400),
        ("X: y", 400),
        ("Host: a\nX\u{0}: y", 400),
        ("Host: a\nX: y\rContent-Length: 1", 400),
    ] {
        let port = port();
        let (mut client, _served) = port.http_client();
        send_text(
            &mut client,
            &format!("POST http://good.example/ HTTP/1.1\n{headers}\n\nGET /smuggled HTTP/1.1\n\n"),
        )
        .await;
        let response = read_response(&mut client).await;
        assert_eq!(response.status, status, "{headers:?}: {response:?}");
        assert!(port.tor.calls().is_empty(), "{headers:?}");
    }
}

#[tokio::test]
async fn a_content_length_beside_chunks_is_not_forwarded() {
    for headers in [
        "Content-Length: 4\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\nContent-Length: 4",
    ] {
        let port = port();
        let (mut client, _served) = port.http_client();
        send_text(
            &mut client,
            &format!(
                "POST http://good.example/ HTTP/1.1\nHost: good.example\n{headers}\n\n\
                 2\nhi\n0\n\nGET http://good.example/smuggled HTTP/1.1\nHost: good.example\n\n"
            ),
        )
        .await;
        let mut site = port.tor.accept_stream().await;
        let head = read_head(&mut site).await.to_ascii_lowercase();
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
        assert!(!head.contains("content-length"), "{head}");
        expect_text(&mut site, "2\nhi\n0\n\n").await;
        send_text(&mut site, "HTTP/1.1 200 OK\nContent-Length: 0\n\n").await;
        assert_eq!(read_response(&mut client).await.status, 200);
        // RFC 9112 section 6.1: the connection is closed after such a request.
        client.expect_end().await;
        assert!(
            site.read_within(Duration::from_millis(100))
                .await
                .is_none_or(|(b, _)| b.is_empty())
        );
    }
}

#[tokio::test]
async fn malformed_chunks_end_both_connections() {
    for body in [
        "nonsense\n",
        "5\nlonger than five\n0\n\n",
        "-1\nx\n0\n\n",
        "fffffffffffffffff\nx",
    ] {
        let port = port();
        let (mut client, served) = port.http_client();
        send_text(
            &mut client,
            &format!(
                "POST http://good.example/ HTTP/1.1\nHost: good.example\n\
                 Transfer-Encoding: chunked\n\n{body}"
            ),
        )
        .await;
        let mut site = port.tor.accept_stream().await;
        // Possibly nothing was forwarded, not even the head.
        let (got, end) = site.read_to_end().await;
        let got = String::from_utf8_lossy(&got).into_owned();
        assert!(
            !got.contains("0\r\n\r\n") && end != End::Open,
            "{body:?}: {got:?} {end:?}"
        );
        let (_, end) = client.read_to_end().await;
        assert_ne!(end, End::Open, "{body:?}");
        drop(client);
        served.wait().await;
    }
}

#[tokio::test]
async fn heads_that_are_too_long_are_refused() {
    let name = "y".repeat(40_000);
    for (head, status) in [
        (
            format!("GET http://good.example/ HTTP/1.1\nHost: a\nX: {name}\n\n"),
            431,
        ),
        (
            format!("GET http://good.example/{name}{name} HTTP/1.1\nHost: a\n\n"),
            431,
        ),
        (
            format!(
                "GET http://good.example/ HTTP/1.1\n{}\n",
                "X: y\n".repeat(300)
            ),
            431,
        ),
        (format!("CONNECT {}:80 HTTP/1.1\n\n", "a".repeat(300)), 414),
    ] {
        let port = port();
        let (mut client, _served) = port.http_client_with(256 * 1024, V4);
        send_text(&mut client, &head).await;
        let response = read_response(&mut client).await;
        assert_eq!(response.status, status, "{}", &head[..60]);
        assert!(port.tor.calls().is_empty());
    }
    // An endless head does not fill memory either.
    let port = port();
    let (mut client, _served) = port.http_client_with(1024, V4);
    let endless = format!(
        "GET http://good.example/ HTTP/1.1\r\nX: {}",
        "y".repeat(1_000_000)
    );
    let _ = client.try_send(endless.as_bytes()).await;
    let (got, end) = client.read_to_end().await;
    assert!(
        got.starts_with(b"HTTP/1.1 431 ") || got.is_empty(),
        "{got:?}"
    );
    assert_ne!(end, End::Open);
}

#[tokio::test]
async fn a_request_with_a_foreign_host_name_gets_no_response() {
    for request in [
        "GET / HTTP/1.1\nHost: evil.example\n\n",
        "GET /proxy.pac HTTP/1.1\nHost: evil.example:9080\n\n",
        "OPTIONS * HTTP/1.1\nHost: evil.example\n\n",
        "POST /key HTTP/1.1\nHost: onionport.invalid\nContent-Length: 0\n\n",
        "GET / HTTP/1.1\nHost: localhost\nHost: evil.example\n\n",
        "GET / HTTP/1.0\n\n",
        "GET evil.example HTTP/1.1\nHost: evil.example\n\n",
    ] {
        let port = port();
        let (mut client, served) = port.http_client();
        send_text(&mut client, request).await;
        client.expect_end().await;
        drop(client);
        served.wait().await;
    }
}

#[tokio::test]
async fn a_slow_body_delays_no_other_client() {
    let post =
        "POST http://good.example/ HTTP/1.1\nHost: good.example\nContent-Length: 1000\n\nbegin";
    let (port, mut slow, mut site, _served) = start_request(post, 1024).await;
    expect_text(&mut site, "begin").await;
    let (mut quick, _served) = port.http_client();
    send_text(&mut quick, GET).await;
    let mut other = port.tor.accept_stream().await;
    read_head(&mut other).await;
    send_text(&mut other, YES).await;
    expect_yes(&mut quick).await;
    // The slow body continues where it stopped.
    send_text(&mut slow, ", go on").await;
    expect_text(&mut site, ", go on").await;
    drop(slow);
    let (rest, _) = site.read_to_end().await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_request_that_cannot_be_forwarded_gets_an_error_response() {
    for (request, status) in [
        (
            "GET https://good.example/ HTTP/1.1\nHost: good.example\n\n",
            400,
        ),
        (
            "GET http://me:pw@good.example/ HTTP/1.1\nHost: good.example\n\n",
            400,
        ),
        (
            "GET http://good.example:99999/ HTTP/1.1\nHost: good.example\n\n",
            400,
        ),
        (
            "TRACE http://good.example/ HTTP/1.1\nHost: good.example\n\n",
            405,
        ),
        (
            "CONNECT good.example:80 HTTP/1.1\nTor-RPC-Target: x\n\n",
            501,
        ),
        (
            "CONNECT good.example:80 HTTP/1.1\nContent-Length: 5\n\nhello",
            400,
        ),
    ] {
        let port = port();
        let (mut client, _served) = port.http_client();
        send_text(&mut client, request).await;
        let response = read_response(&mut client).await;
        assert_eq!(response.status, status, "{request}");
        // RFC 9110 section 15.5.6 requires `Allow` with a 405.
        assert_eq!(
            response.header("allow").is_some(),
            status == 405,
            "{request}"
        );
        assert!(port.tor.calls().is_empty(), "{request}");
    }
}
