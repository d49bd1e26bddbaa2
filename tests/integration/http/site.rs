//! Sites that mean no good, or break.

use super::SITE;
use crate::support::client::{Client, End};
use crate::support::http::{answer, head, hear, say};
use crate::support::scripted::Plan;
use crate::support::serve::{Port, Served};

/// From somebody who shows pages.
const GET: &str = "GET http://good.example/ HTTP/1.1\nHost: good.example\nAccept: text/html\n\n";

/// A client that has asked a site, which has read the request.
async fn asked() -> (Port, Client, Client, Served) {
    let port = Port::new("", [(SITE, Plan::Open)]);
    let (mut client, served) = port.http_client_with(64 * 1024, crate::support::serve::V4);
    say(&mut client, GET).await;
    let mut site = port.tor.far_end().await;
    head(&mut site).await;
    (port, client, site, served)
}

#[tokio::test]
async fn an_answer_that_contradicts_itself_is_not_passed_on() {
    for said in [
        "HTTP/1.1 200 OK\nContent-Length: 1\nContent-Length: 2\n\nab",
        "HTTP/1.1 200 OK\nContent-Length: -1\n\n",
        "HTTP/1.1 200 OK\nContent-Length: 1, 2\n\nab",
        "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n0\n\n",
        "HTTP/1.1 200 OK\nX-Folded: one\n two\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\nNo Colon Here\n\n",
        "HTTP/1.1 200 OK\nX : space\nContent-Length: 0\n\n",
        "HTTP/1.1 2000 OK\n\n",
        "HTTP/3.7 200 OK\n\n",
        "SSH-2.0-OpenSSH_9.9\n",
        "\u{1}\u{2}\u{3}\u{4}",
        "HTTP/1.1 407 Proxy Authentication Required\nProxy-Authenticate: Basic\nContent-Length: 0\n\n",
        "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: x\n\nsmuggled",
    ] {
        let (_port, mut client, mut site, _served) = asked().await;
        say(&mut site, said).await;
        site.finish().await;
        let got = answer(&mut client).await;
        assert_eq!(got.status, 502, "{said:?}: {got:?}");
        assert!(got.header("proxy-authenticate").is_none());
    }
}

#[tokio::test]
async fn a_site_that_says_nothing_is_told_as_that() {
    let (_port, mut client, site, _served) = asked().await;
    drop(site);
    let got = answer(&mut client).await;
    assert_eq!(got.line, "HTTP/1.1 502 Bad Gateway (no answer)");
}

#[tokio::test]
async fn scripts_in_a_browser_get_what_the_site_said_and_no_more() {
    for said in BAD {
        let browser = "Accept: */*\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)";
        let (_port, mut client, served) = badly_answered(browser, said).await;
        client.expect_end().await;
        drop(client);
        served.end().await;
    }
}

#[tokio::test]
async fn programs_are_told_what_was_wrong_with_the_site() {
    let names = [
        "no answer",
        "answer not understood",
        "answer not understood",
    ];
    let tokens = ["NO-ANSWER", "BAD-ANSWER", "BAD-ANSWER"];
    for headers in ["X: y", "Accept: */*\nUser-Agent: curl/8.14.1"] {
        for (number, said) in BAD.into_iter().enumerate() {
            let (_port, mut client, _served) = badly_answered(headers, said).await;
            let got = answer(&mut client).await;
            let (name, token) = (names[number], tokens[number]);
            assert_eq!(got.line, format!("HTTP/1.1 502 Bad Gateway ({name})"));
            let token = format!("onionport/{token}");
            assert_eq!(got.header("tor-request-failed"), Some(&*token));
            assert!(got.text().starts_with(&format!("HTTP {name}: ")), "{got:?}");
        }
    }
}

/// What no client can use: nothing, what is no HTTP, and a body nobody asked for in this form.
const BAD: [&str; 3] = [
    "",
    "nonsense\n",
    "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n0\n\n",
];

/// A client with these headers that has asked a site, which says this and closes.
async fn badly_answered(headers: &str, said: &str) -> (Port, Client, Served) {
    let port = Port::new("", [(SITE, Plan::Open)]);
    let (mut client, served) = port.http_client();
    say(&mut client, &GET.replace("Accept: text/html", headers)).await;
    let mut site = port.tor.far_end().await;
    head(&mut site).await;
    say(&mut site, said).await;
    (port, client, served)
}

#[tokio::test]
async fn a_switch_with_a_body_is_no_switch() {
    let port = Port::new("", [(SITE, Plan::Open)]);
    let (mut client, _served) = port.http_client_with(64 * 1024, crate::support::serve::V4);
    let ask = GET.replace("Accept", "Connection: Upgrade\nUpgrade: websocket\nAccept");
    say(&mut client, &ask).await;
    let mut site = port.tor.far_end().await;
    head(&mut site).await;
    say(
        &mut site,
        "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\
         Transfer-Encoding: gzip\n\n",
    )
    .await;
    assert_eq!(answer(&mut client).await.status, 502);
    site.expect_end().await;
    // It still carries requests.
    say(&mut client, GET).await;
    let mut site = port.tor.far_end().await;
    head(&mut site).await;
    say(&mut site, "HTTP/1.1 200 OK\nContent-Length: 4\n\ngood").await;
    assert_eq!(answer(&mut client).await.text(), "good");
}

#[tokio::test]
async fn a_head_that_is_too_long_ends_in_502() {
    let long = format!("HTTP/1.1 200 OK\nX: {}\n", "y".repeat(100_000));
    let many = format!("HTTP/1.1 200 OK\n{}\n", "X: y\n".repeat(1000));
    for said in [long, many] {
        let (_port, mut client, mut site, _served) = asked().await;
        // It stops being read at some point.
        let said = said.replace('\n', "\r\n");
        let _ = site.try_send(said.as_bytes()).await;
        assert_eq!(answer(&mut client).await.status, 502);
    }
}

#[tokio::test]
async fn an_answer_that_is_shorter_than_it_says_ends_the_clients_connection() {
    for said in [
        "HTTP/1.1 200 OK\nContent-Length: 10\n\nshort",
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nshort\n",
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nshort\nnonsense\n",
    ] {
        let (_port, mut client, mut site, served) = asked().await;
        say(&mut site, said).await;
        drop(site);
        head(&mut client).await;
        let (got, end) = client.rest().await;
        // Neither ten bytes nor a last chunk: whoever reads it knows that something is missing.
        let got = String::from_utf8_lossy(&got).into_owned();
        assert!(
            got.contains("short") && !got.contains("0\r\n\r\n"),
            "{said:?}: {got:?}"
        );
        assert_ne!(end, End::Open, "{said:?}");
        drop(client);
        served.end().await;
    }
}

#[tokio::test]
async fn what_a_site_says_beyond_its_answer_answers_no_other_request() {
    let (port, mut client, mut site, _served) = asked().await;
    say(
        &mut site,
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nokHTTP/1.1 200 OK\nContent-Length: 4\n\nevil",
    )
    .await;
    assert_eq!(answer(&mut client).await.text(), "ok");
    say(&mut client, GET).await;
    let mut site = port.tor.far_end().await;
    head(&mut site).await;
    say(&mut site, "HTTP/1.1 200 OK\nContent-Length: 4\n\ngood").await;
    assert_eq!(answer(&mut client).await.text(), "good");
}

#[tokio::test]
async fn a_length_beside_chunks_counts_for_nothing() {
    let (_port, mut client, mut site, _served) = asked().await;
    say(
        &mut site,
        "HTTP/1.1 200 OK\nContent-Length: 3\nTransfer-Encoding: chunked\n\n5\nwhole\n0\n\n",
    )
    .await;
    let got = answer(&mut client).await;
    assert_eq!((got.text(), got.header("content-length")), ("whole", None));
}

#[tokio::test]
async fn a_site_that_answers_before_it_has_heard_all_is_heard() {
    let port = Port::new("", [(SITE, Plan::Open)]);
    let (mut client, _served) = port.http_client();
    say(
        &mut client,
        "POST http://good.example/ HTTP/1.1\nHost: good.example\nContent-Length: 100000\n\nbegin",
    )
    .await;
    let mut site = port.tor.far_end().await;
    head(&mut site).await;
    hear(&mut site, "begin").await;
    say(
        &mut site,
        "HTTP/1.1 413 Content Too Large\nContent-Length: 2\n\nno",
    )
    .await;
    let got = answer(&mut client).await;
    assert_eq!((got.status, got.text()), (413, "no"));
}
