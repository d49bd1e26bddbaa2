//! Plain requests on their way to a site and back.

use std::time::Duration;

use super::{GET, GOT, SITE, YES, expect_yes, port};
use crate::support::client::End;
use crate::support::http::{answer, answer_to, head, hear, say};
use crate::support::serve::V4;

#[tokio::test]
async fn a_site_gets_what_the_client_wrote_and_nothing_about_it() {
    let port = port();
    let (mut client, _served) = port.http_client();
    say(
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
    let mut site = port.tor.far_end().await;
    hear(
        &mut site,
        "GET /a/../b?c=d HTTP/1.1\nHost: Good.Example\nuSER-agent: Any/1.0\nAccept: */*\n\
         Cookie: a=b; c=\"d\"\n\n",
    )
    .await;
    say(
        &mut site,
        "HTTP/1.1 203 Just So\nContent-Length: 3\nx-Own: 1\nConnection: close, X-Hop\n\
         X-Hop: 2\nProxy-Authenticate: Basic\nTor-Request-Failed: end/MISC\nDate: then\n\nyes",
    )
    .await;
    let got = answer(&mut client).await;
    assert_eq!(
        (got.line.as_str(), got.text()),
        ("HTTP/1.1 203 Just So", "yes")
    );
    let mut names: Vec<&str> = got.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "date", "x-own"]);
}

#[tokio::test]
async fn the_address_in_the_first_line_wins_over_the_host() {
    let port = port();
    let (mut client, _served) = port.http_client();
    say(
        &mut client,
        "GET http://good.example:80 HTTP/1.1\nHost: other.example\n\n",
    )
    .await;
    let mut site = port.tor.far_end().await;
    hear(&mut site, "GET / HTTP/1.1\nHost: good.example:80\n\n").await;
    let calls = port.tor.calls();
    assert_eq!((calls.len(), calls[0].target.as_str()), (1, SITE));
}

#[tokio::test]
async fn bodies_flow_both_ways_as_fast_as_they_are_taken() {
    const SIZE: usize = 3_000_000;
    let port = port();
    let (mut client, _served) = port.http_client();
    let head = format!(
        "POST http://good.example/ HTTP/1.1\nHost: good.example\nContent-Length: {SIZE}\n\n"
    );
    say(&mut client, &head).await;
    let mut site = port.tor.far_end().await;
    let (mut to_site, mut stuck) = (0, false);
    // Nobody reads at the site: after what the buffers hold, nothing more is taken.
    while to_site < SIZE && !stuck {
        let chunk = vec![b'x'; 1000];
        let sending = tokio::time::timeout(Duration::from_millis(300), client.try_send(&chunk));
        match sending.await {
            Ok(sent) => sent.expect("still there"),
            Err(_) => stuck = true,
        }
        to_site += 1000;
    }
    assert!(stuck && to_site < 1_000_000, "{to_site} bytes were taken");
    let expected = format!("POST / HTTP/1.1\nHost: good.example\nContent-Length: {SIZE}\n\n");
    hear(&mut site, &expected).await;
    // The last piece may have been taken in part.
    site.expect_bytes(&vec![b'x'; to_site - 1000]).await;
}

#[tokio::test]
async fn a_long_answer_waits_for_a_slow_client() {
    let port = port();
    let (mut client, _served) = port.http_client();
    say(&mut client, GET).await;
    let mut site = port.tor.far_end().await;
    hear(&mut site, GOT).await;
    say(&mut site, "HTTP/1.1 200 OK\nContent-Length: 3000000\n\n").await;
    let mut taken = 0;
    loop {
        let chunk = [b'y'; 1000];
        let sending = tokio::time::timeout(Duration::from_millis(300), site.try_send(&chunk));
        if sending.await.is_err() {
            break;
        }
        taken += 1000;
        assert!(taken < 1_000_000, "nothing holds it back");
    }
    let got = head(&mut client).await;
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got}");
    client.expect_bytes(&vec![b'y'; taken]).await;
}

#[tokio::test]
async fn chunks_and_trailers_go_through_both_ways() {
    let port = port();
    let (mut client, _served) = port.http_client();
    say(
        &mut client,
        "PUT http://good.example/x HTTP/1.1\nHost: good.example\nTE: trailers\n\
         Transfer-Encoding: chunked\nTrailer: X-Sum\n\n\
         3\none\n3;why=not\ntwo\n0\nX-Sum: 6\n\n",
    )
    .await;
    let mut site = port.tor.far_end().await;
    let got = head(&mut site).await;
    assert!(got.starts_with("PUT /x HTTP/1.1\r\n"), "{got}");
    for line in [
        "Transfer-Encoding: chunked",
        "Trailer: X-Sum",
        "TE: trailers",
        "Connection: TE",
    ] {
        let found = got
            .lines()
            .filter(|got| got.eq_ignore_ascii_case(line))
            .count();
        assert_eq!(found, 1, "{line} in {got}");
    }
    hear(&mut site, "3\none\n3\ntwo\n0\nx-sum: 6\n\n").await;
    say(
        &mut site,
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: X-Sum\n\n5\nthree\n0\nX-Sum: 5\n\n",
    )
    .await;
    let got = head(&mut client).await;
    assert!(
        got.to_ascii_lowercase()
            .contains("transfer-encoding: chunked\r\n"),
        "{got}"
    );
    hear(&mut client, "5\nthree\n0\nx-sum: 5\n\n").await;
}

#[tokio::test]
async fn trailers_are_not_a_way_around_what_may_not_pass() {
    let port = port();
    let (mut client, _served) = port.http_client();
    let names = "X-Sum, Tor-Stream-Isolation, Tor-Request-Failed, Proxy-Authentication-Info";
    let trailers = "X-Sum: 3\nTor-Stream-Isolation: a\nTor-Request-Failed: end/MISC\n\
                    Proxy-Authentication-Info: x\n\n";
    say(
        &mut client,
        &format!(
            "PUT http://good.example/ HTTP/1.1\nHost: good.example\nTE: trailers\n\
             Transfer-Encoding: chunked\nTrailer: {names}\n\n3\none\n0\n{trailers}"
        ),
    )
    .await;
    let mut site = port.tor.far_end().await;
    head(&mut site).await;
    hear(&mut site, "3\none\n0\nx-sum: 3\n\n").await;
    say(
        &mut site,
        &format!(
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: {names}\n\n\
             3\ntwo\n0\n{trailers}"
        ),
    )
    .await;
    head(&mut client).await;
    hear(&mut client, "3\ntwo\n0\nx-sum: 3\n\n").await;
}

#[tokio::test]
async fn nothing_is_said_for_the_site() {
    let port = port();
    let (mut client, _served) = port.http_client();
    say(&mut client, GET).await;
    let mut site = port.tor.far_end().await;
    hear(&mut site, GOT).await;
    say(&mut site, YES).await;
    // With no Date, for one.
    hear(&mut client, "HTTP/1.1 200 OK\nContent-Length: 3\n\nyes").await;
}

#[tokio::test]
async fn a_get_keeps_its_body() {
    let port = port();
    let (mut client, _served) = port.http_client();
    say(
        &mut client,
        "GET http://good.example/ HTTP/1.1\nHost: good.example\nTransfer-Encoding: chunked\n\n\
         4\nbody\n0\n\n",
    )
    .await;
    let mut site = port.tor.far_end().await;
    let got = head(&mut site).await.to_ascii_lowercase();
    assert!(got.contains("transfer-encoding: chunked\r\n"), "{got}");
    hear(&mut site, "4\nbody\n0\n\n").await;
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_the_site_asks() {
    let ask = "POST http://good.example/ HTTP/1.1\nHost: good.example\nContent-Length: 4\n\
               Expect: 100-continue\n\n";
    let port = port();
    let (mut client, _served) = port.http_client();
    say(&mut client, ask).await;
    let mut site = port.tor.far_end().await;
    let got = head(&mut site).await;
    assert!(got.contains("Expect: 100-continue\r\n"), "{got}");
    assert!(client.overhear(Duration::from_millis(200)).await.is_none());
    say(&mut site, "HTTP/1.1 100 Continue\n\n").await;
    hear(&mut client, "HTTP/1.1 100 Continue\n\n").await;
    say(&mut client, "body").await;
    hear(&mut site, "body").await;
    say(&mut site, YES).await;
    expect_yes(&mut client).await;
    // And a site that does not want it is not given it.
    say(&mut client, ask).await;
    head(&mut site).await;
    say(
        &mut site,
        "HTTP/1.1 417 Expectation Failed\nContent-Length: 0\n\n",
    )
    .await;
    assert_eq!(answer(&mut client).await.status, 417);
}

#[tokio::test]
async fn a_site_that_never_asks_gets_the_body_all_the_same() {
    let port = port();
    let (mut client, _served) = port.http_client();
    say(
        &mut client,
        "POST http://good.example/ HTTP/1.1\nHost: good.example\nContent-Length: 4\n\
         Expect: 100-continue\n\n",
    )
    .await;
    let mut site = port.tor.far_end().await;
    head(&mut site).await;
    hear(&mut client, "HTTP/1.1 100 Continue\n\n").await;
    say(&mut client, "body").await;
    hear(&mut site, "body").await;
    say(&mut site, YES).await;
    expect_yes(&mut client).await;
}

#[tokio::test(start_paused = true)]
async fn a_websocket_goes_through_with_what_stands_behind_its_head() {
    let port = port();
    let (mut client, served) = port.http_client_with(16 * 1024, V4);
    say(
        &mut client,
        "GET http://good.example/chat HTTP/1.1\nHost: good.example\n\
         Connection: keep-alive, Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: k\n\n",
    )
    .await;
    let mut site = port.tor.far_end().await.patient();
    let got = head(&mut site).await.to_ascii_lowercase();
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-key: k",
    ] {
        assert!(got.contains(&format!("{line}\r\n")), "{line} in {got}");
    }
    say(
        &mut site,
        "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\
         Sec-WebSocket-Accept: a\n\nfirst words",
    )
    .await;
    let got = head(&mut client).await.to_ascii_lowercase();
    assert!(got.starts_with("http/1.1 101 "), "{got}");
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-accept: a",
    ] {
        assert!(got.contains(&format!("{line}\r\n")), "{line} in {got}");
    }
    hear(&mut client, "first words").await;
    say(&mut client, "answer").await;
    hear(&mut site, "answer").await;
    drop(client);
    site.expect_end().await;
    drop(site);
    served.end().await;
}

/// The site's connection is handed over only when the body is written.
#[tokio::test]
async fn a_websocket_may_begin_before_the_body_of_its_request_has_ended() {
    let port = port();
    let (mut client, _served) = port.http_client();
    say(
        &mut client,
        "GET http://good.example/ HTTP/1.1\nHost: good.example\nConnection: Upgrade\n\
         Upgrade: websocket\nContent-Length: 4\n\nbo",
    )
    .await;
    let mut site = port.tor.far_end().await;
    head(&mut site).await;
    hear(&mut site, "bo").await;
    say(
        &mut site,
        "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n",
    )
    .await;
    assert!(head(&mut client).await.starts_with("HTTP/1.1 101 "));
    say(&mut client, "dy").await;
    hear(&mut site, "dy").await;
    say(&mut site, "from the site").await;
    hear(&mut client, "from the site").await;
    say(&mut client, "from the client").await;
    hear(&mut site, "from the client").await;
}

#[tokio::test]
async fn other_upgrades_are_not_offered() {
    let port = port();
    let (mut client, _served) = port.http_client();
    say(
        &mut client,
        "GET http://good.example/ HTTP/1.1\nHost: good.example\n\
         Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABk\n\n",
    )
    .await;
    let mut site = port.tor.far_end().await;
    hear(&mut site, GOT).await;
    say(&mut site, YES).await;
    expect_yes(&mut client).await;
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let port = port();
    let (mut client, _served) = port.http_client();
    let mut sites = Vec::new();
    for (method, said, status, length) in [
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
        say(&mut client, &GET.replace("GET", method)).await;
        if sites.is_empty() {
            sites.push(port.tor.far_end().await);
        }
        let got = head(&mut sites[0]).await;
        assert!(
            got.starts_with(&format!("{method} / HTTP/1.1\r\n")),
            "{got}"
        );
        say(&mut sites[0], said).await;
        let got = answer_to(method, &mut client).await;
        let told = (got.status, got.header("content-length"));
        assert_eq!(told, (status, length), "{method}: {said}");
    }
    assert_eq!(port.tor.calls().len(), 1);
}

#[tokio::test]
async fn an_old_client_gets_an_answer_up_to_the_end_of_its_connection() {
    let port = port();
    let (mut client, _served) = port.http_client();
    say(&mut client, "GET http://good.example/ HTTP/1.0\n\n").await;
    let mut site = port.tor.far_end().await;
    // It wrote no Host of its own.
    hear(&mut site, &GOT.replace("Host", "host")).await;
    say(
        &mut site,
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\nyes\n0\n\n",
    )
    .await;
    let got = answer(&mut client).await;
    assert!(got.line.starts_with("HTTP/1.0 200"), "{got:?}");
    assert_eq!((got.text(), got.end), ("yes", End::Closed));
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_order() {
    let port = port();
    let (mut client, _served) = port.http_client_with(16 * 1024, V4);
    say(&mut client, &GET.repeat(3)).await;
    let mut site = port.tor.far_end().await;
    for number in 1..=3 {
        hear(&mut site, GOT).await;
        let said = format!("HTTP/1.1 200 OK\nContent-Length: 1\n\n{number}");
        say(&mut site, &said).await;
        assert_eq!(answer(&mut client).await.text(), number.to_string());
    }
}

#[tokio::test]
async fn options_go_to_the_site_and_stop_where_the_client_says() {
    let port = port();
    let (mut client, _served) = port.http_client();
    let ask =
        |left: &str| format!("OPTIONS http://good.example HTTP/1.1\nHost: good.example\n{left}\n");
    say(&mut client, &ask("Max-Forwards: 0\n")).await;
    let got = answer(&mut client).await;
    assert_eq!((got.status, got.header("allow").is_some()), (200, true));
    assert!(port.tor.calls().is_empty());
    say(&mut client, &ask("Max-Forwards: 2\n")).await;
    let mut site = port.tor.far_end().await;
    hear(
        &mut site,
        "OPTIONS / HTTP/1.1\nHost: good.example\nMax-Forwards: 1\n\n",
    )
    .await;
}
