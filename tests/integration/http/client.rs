//! Clients that mean no good: messages that two readers could read in two ways, names that do not
//! belong to this computer, heads without end.

use std::time::Duration;

use super::SITE;
use crate::support::client::End;
use crate::support::http::{answer, head, hear, say};
use crate::support::scripted::Plan;
use crate::support::serve::{Port, V4};

fn port() -> Port {
    Port::new("", [(SITE, Plan::Open)])
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_and_the_connection_with_it() {
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
        say(
            &mut client,
            &format!("POST http://good.example/ HTTP/1.1\n{headers}\n\nGET /smuggled HTTP/1.1\n\n"),
        )
        .await;
        let got = answer(&mut client).await;
        assert_eq!(got.status, status, "{headers:?}: {got:?}");
        assert!(port.tor.calls().is_empty(), "{headers:?}");
    }
}

#[tokio::test]
async fn a_length_beside_chunks_never_reaches_the_site() {
    for headers in [
        "Content-Length: 4\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\nContent-Length: 4",
    ] {
        let port = port();
        let (mut client, _served) = port.http_client();
        say(
            &mut client,
            &format!(
                "POST http://good.example/ HTTP/1.1\nHost: good.example\n{headers}\n\n\
                 2\nhi\n0\n\nGET http://good.example/smuggled HTTP/1.1\nHost: good.example\n\n"
            ),
        )
        .await;
        let mut site = port.tor.far_end().await;
        let got = head(&mut site).await.to_ascii_lowercase();
        assert!(got.contains("transfer-encoding: chunked\r\n"), "{got}");
        assert!(!got.contains("content-length"), "{got}");
        hear(&mut site, "2\nhi\n0\n\n").await;
        say(&mut site, "HTTP/1.1 200 OK\nContent-Length: 0\n\n").await;
        assert_eq!(answer(&mut client).await.status, 200);
        // RFC 9112 section 6.1: nothing behind it counts.
        client.expect_end().await;
        assert!(
            site.overhear(Duration::from_millis(100))
                .await
                .is_none_or(|(b, _)| b.is_empty())
        );
    }
}

#[tokio::test]
async fn bad_chunks_end_both_connections() {
    for body in [
        "nonsense\n",
        "5\nlonger than five\n0\n\n",
        "-1\nx\n0\n\n",
        "fffffffffffffffff\nx",
    ] {
        let port = port();
        let (mut client, served) = port.http_client();
        say(
            &mut client,
            &format!(
                "POST http://good.example/ HTTP/1.1\nHost: good.example\n\
                 Transfer-Encoding: chunked\n\n{body}"
            ),
        )
        .await;
        let mut site = port.tor.far_end().await;
        // The head may not even have been sent.
        let (got, end) = site.rest().await;
        let got = String::from_utf8_lossy(&got).into_owned();
        assert!(
            !got.contains("0\r\n\r\n") && end != End::Open,
            "{body:?}: {got:?} {end:?}"
        );
        let (_, end) = client.rest().await;
        assert_ne!(end, End::Open, "{body:?}");
        drop(client);
        served.end().await;
    }
}

#[tokio::test]
async fn heads_have_limits() {
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
        say(&mut client, &head).await;
        let got = answer(&mut client).await;
        assert_eq!(got.status, status, "{}", &head[..60]);
        assert!(port.tor.calls().is_empty());
    }
    // Without an end it does not grow in memory either.
    let port = port();
    let (mut client, _served) = port.http_client_with(1024, V4);
    let endless = format!(
        "GET http://good.example/ HTTP/1.1\r\nX: {}",
        "y".repeat(1_000_000)
    );
    let _ = client.try_send(endless.as_bytes()).await;
    let (got, end) = client.rest().await;
    assert!(
        got.starts_with(b"HTTP/1.1 431 ") || got.is_empty(),
        "{got:?}"
    );
    assert_ne!(end, End::Open);
}

#[tokio::test]
async fn a_foreign_name_for_this_computer_gets_nothing() {
    for ask in [
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
        say(&mut client, ask).await;
        client.expect_end().await;
        drop(client);
        served.end().await;
    }
}

#[tokio::test]
async fn a_slow_body_keeps_nobody_waiting_but_its_client() {
    let port = port();
    let (mut slow, _served) = port.http_client();
    say(
        &mut slow,
        "POST http://good.example/ HTTP/1.1\nHost: good.example\nContent-Length: 1000\n\nbegin",
    )
    .await;
    let mut site = port.tor.far_end().await;
    head(&mut site).await;
    hear(&mut site, "begin").await;
    let (mut quick, _served) = port.http_client();
    say(
        &mut quick,
        "GET http://good.example/ HTTP/1.1\nHost: good.example\n\n",
    )
    .await;
    let mut other = port.tor.far_end().await;
    head(&mut other).await;
    say(&mut other, "HTTP/1.1 200 OK\nContent-Length: 3\n\nyes").await;
    assert_eq!(answer(&mut quick).await.text(), "yes");
    // It goes on where it was.
    say(&mut slow, ", go on").await;
    hear(&mut site, ", go on").await;
    drop(slow);
    let (rest, _) = site.rest().await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn what_cannot_be_passed_on_says_so() {
    for (ask, status) in [
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
        say(&mut client, ask).await;
        let got = answer(&mut client).await;
        assert_eq!(got.status, status, "{ask}");
        // RFC 9110 section 15.5.6.
        assert_eq!(got.header("allow").is_some(), status == 405, "{ask}");
        assert!(port.tor.calls().is_empty(), "{ask}");
    }
}
