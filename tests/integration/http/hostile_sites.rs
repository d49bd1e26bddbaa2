//! Sites with malicious or broken responses.

use super::start_request;
use crate::support::client::{Client, End};
use crate::support::http::{expect_text, read_head, read_response, send_text};
use crate::support::serve::{Port, Served};

/// A request that accepts HTML, so that failures are reported as pages.
const HTML_GET: &str =
    "GET http://good.example/ HTTP/1.1\nHost: good.example\nAccept: text/html\n\n";

/// Sends [`HTML_GET`] and reads its head at the site.
async fn start_html_request() -> (Port, Client, Client, Served) {
    start_request(HTML_GET, 64 * 1024).await
}

/// Checks that the client's connection still carries requests, each to a new stream to the site.
async fn expect_new_response(port: &Port, client: &mut Client) {
    send_text(client, HTML_GET).await;
    let mut site = port.tor.accept_stream().await;
    read_head(&mut site).await;
    send_text(&mut site, "HTTP/1.1 200 OK\nContent-Length: 4\n\ngood").await;
    assert_eq!(read_response(client).await.text(), "good");
}

#[tokio::test]
async fn an_invalid_or_ambiguous_response_is_not_forwarded() {
    for sent in [
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
        let (_port, mut client, mut site, _served) = start_html_request().await;
        send_text(&mut site, sent).await;
        site.finish().await;
        let response = read_response(&mut client).await;
        assert_eq!(response.status, 502, "{sent:?}: {response:?}");
        assert!(response.header("proxy-authenticate").is_none());
    }
}

#[tokio::test]
async fn a_site_that_sends_nothing_is_reported_as_no_answer() {
    let (_port, mut client, site, _served) = start_html_request().await;
    drop(site);
    let response = read_response(&mut client).await;
    assert_eq!(response.line, "HTTP/1.1 502 Bad Gateway (no answer)");
}

#[tokio::test]
async fn scripts_in_a_browser_get_no_details_about_a_bad_response() {
    for response in BAD_RESPONSES {
        let browser = "Accept: */*\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)";
        let (_port, mut client, served) = send_bad_response(browser, response).await;
        client.expect_end().await;
        drop(client);
        served.wait().await;
    }
}

#[tokio::test]
async fn programs_get_details_about_a_bad_response() {
    let names = [
        "no answer",
        "answer not understood",
        "answer not understood",
    ];
    let tokens = ["NO-ANSWER", "BAD-ANSWER", "BAD-ANSWER"];
    for headers in ["X: y", "Accept: */*\nUser-Agent: curl/8.14.1"] {
        for (number, sent) in BAD_RESPONSES.into_iter().enumerate() {
            let (_port, mut client, _served) = send_bad_response(headers, sent).await;
            let response = read_response(&mut client).await;
            let (name, token) = (names[number], tokens[number]);
            assert_eq!(response.line, format!("HTTP/1.1 502 Bad Gateway ({name})"));
            let token = format!("onionport/{token}");
            assert_eq!(response.header("tor-request-failed"), Some(&*token));
            let start = format!("HTTP {name}: ");
            assert!(response.text().starts_with(&start), "{response:?}");
        }
    }
}

/// Responses that cannot be forwarded: nothing, not HTTP, and an unsupported transfer coding.
const BAD_RESPONSES: [&str; 3] = [
    "",
    "nonsense\n",
    "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n0\n\n",
];

/// Sends a request with these headers, for which the site sends `response` and closes its connection.
async fn send_bad_response(headers: &str, response: &str) -> (Port, Client, Served) {
    let request = HTML_GET.replace("Accept: text/html", headers);
    let (port, client, mut site, served) = start_request(&request, 1024).await;
    send_text(&mut site, response).await;
    (port, client, served)
}

#[tokio::test]
async fn a_101_with_a_transfer_encoding_is_refused() {
    let upgrade = HTML_GET.replace("Accept", "Connection: Upgrade\nUpgrade: websocket\nAccept");
    let (port, mut client, mut site, _served) = start_request(&upgrade, 64 * 1024).await;
    send_text(
        &mut site,
        "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\
         Transfer-Encoding: gzip\n\n",
    )
    .await;
    assert_eq!(read_response(&mut client).await.status, 502);
    site.expect_end().await;
    expect_new_response(&port, &mut client).await;
}

#[tokio::test]
async fn a_response_head_that_is_too_long_ends_in_502() {
    let long = format!("HTTP/1.1 200 OK\nX: {}\n", "y".repeat(100_000));
    let many = format!("HTTP/1.1 200 OK\n{}\n", "X: y\n".repeat(1000));
    for head in [long, many] {
        let (_port, mut client, mut site, _served) = start_html_request().await;
        let head = head.replace('\n', "\r\n");
        // Fails when the rest is not read.
        let _ = site.try_send(head.as_bytes()).await;
        assert_eq!(read_response(&mut client).await.status, 502);
    }
}

#[tokio::test]
async fn a_truncated_body_ends_the_clients_connection() {
    for sent in [
        "HTTP/1.1 200 OK\nContent-Length: 10\n\nshort",
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nshort\n",
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nshort\nnonsense\n",
    ] {
        let (_port, mut client, mut site, served) = start_html_request().await;
        send_text(&mut site, sent).await;
        drop(site);
        read_head(&mut client).await;
        let (got, end) = client.read_to_end().await;
        // Without ten bytes or a last chunk, the client can see that the body is incomplete.
        let got = String::from_utf8_lossy(&got).into_owned();
        assert!(
            got.contains("short") && !got.contains("0\r\n\r\n"),
            "{sent:?}: {got:?}"
        );
        assert_ne!(end, End::Open, "{sent:?}");
        drop(client);
        served.wait().await;
    }
}

#[tokio::test]
async fn bytes_behind_a_response_do_not_answer_the_next_request() {
    let (port, mut client, mut site, _served) = start_html_request().await;
    send_text(
        &mut site,
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nokHTTP/1.1 200 OK\nContent-Length: 4\n\nevil",
    )
    .await;
    assert_eq!(read_response(&mut client).await.text(), "ok");
    expect_new_response(&port, &mut client).await;
}

#[tokio::test]
async fn a_content_length_beside_chunks_is_dropped_from_a_response() {
    let (_port, mut client, mut site, _served) = start_html_request().await;
    send_text(
        &mut site,
        "HTTP/1.1 200 OK\nContent-Length: 3\nTransfer-Encoding: chunked\n\n5\nwhole\n0\n\n",
    )
    .await;
    let response = read_response(&mut client).await;
    assert_eq!(
        (response.text(), response.header("content-length")),
        ("whole", None)
    );
}

#[tokio::test]
async fn a_response_before_the_end_of_the_request_is_forwarded() {
    let post =
        "POST http://good.example/ HTTP/1.1\nHost: good.example\nContent-Length: 100000\n\nbegin";
    let (_port, mut client, mut site, _served) = start_request(post, 1024).await;
    expect_text(&mut site, "begin").await;
    send_text(
        &mut site,
        "HTTP/1.1 413 Content Too Large\nContent-Length: 2\n\nno",
    )
    .await;
    let response = read_response(&mut client).await;
    assert_eq!((response.status, response.text()), (413, "no"));
}
