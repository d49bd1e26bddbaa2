//! Streams that break, and clients that keep sending at the end.
//!
//! A client must not mistake a part of an answer for the whole: when the stream breaks, its connection is
//! reset instead of closed. An answer that is whole must not be lost: a socket that is closed while
//! data of the client is unread, or still arrives, is reset, and the client loses what it has not read.

use onionport::failure::Failure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::net::TcpStream;
use tokio::time::{Duration, sleep, timeout};

use super::port;
use crate::support::LIMIT;
use crate::support::client::{Client, End};
use crate::support::http::{read_head, send_text};
use crate::support::kernel::wait_finished_sending;
use crate::support::random::Random;
use crate::support::scripted::Plan;
use crate::support::serve::{Port, Served};
use crate::support::socks::{CONNECT_GOOD, GREETING, open_stream};

/// More bytes than the system buffers: some of them are unsent when the stream breaks.
const LARGE: usize = 8_000_000;

/// The protocol that a client opens its stream with.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    Socks,
    Http,
}

/// A client over TCP with an open stream to good.example.
async fn client_with_stream(port: &Port, protocol: Protocol) -> (TcpStream, Served) {
    match protocol {
        Protocol::Socks => {
            let (mut client, served) = port.tcp_client().await;
            open_stream(&mut client).await;
            (client, served)
        }
        Protocol::Http => {
            let (mut client, served) = port.http_tcp_client().await;
            let request = b"CONNECT good.example:80 HTTP/1.1\r\n\r\n";
            client.write_all(request).await.expect("written");
            let mut reply = Vec::new();
            while !reply.ends_with(b"\r\n\r\n") {
                let read = timeout(LIMIT, client.read_u8()).await;
                reply.push(read.expect("in time").expect("a reply"));
            }
            assert!(reply.starts_with(b"HTTP/1.1 200 "), "{reply:?}");
            (client, served)
        }
    }
}

#[tokio::test]
async fn a_client_gets_the_last_bytes_of_a_stream_and_sees_how_it_ended() {
    for (plan, expected) in [(Plan::Open, End::Closed), (Plan::OpenThenReset, End::Reset)] {
        for protocol in [Protocol::Socks, Protocol::Http] {
            for half_closes in [true, false] {
                let port = port(plan.clone());
                let (client, served) = client_with_stream(&port, protocol).await;
                let mut client = Client::over(client);
                if half_closes {
                    client.finish().await;
                }
                let mut far = port.tor.accept_stream().await;
                far.send_bytes(b"the last bytes").await;
                drop(far);
                let (received, end) = client.read_to_end().await;
                let case = format!("{plan:?}, {protocol:?}, half-closes: {half_closes}");
                assert_eq!(received, b"the last bytes", "{case}");
                assert_eq!(end, expected, "{case}");
                drop(client);
                served.wait().await;
            }
        }
    }
}

/// A reset discards what the system has not sent, so it has to wait for a client that reads slowly.
#[tokio::test]
async fn a_slow_client_gets_everything_that_was_sent_before_the_break() {
    let answer: &'static [u8] = Random::new(9).bytes(LARGE).leak();
    let port = port(Plan::OpenThenReset);
    let (client, served) = client_with_stream(&port, Protocol::Socks).await;
    let mut client = Client::over(client);
    let mut far = port.tor.accept_stream().await;
    let sending = tokio::spawn(async move {
        far.send_bytes(answer).await;
    });
    let (mut received, _) = client.read(LARGE / 2).await;
    // Whether or not the rest fits into the buffers, the client sends something and keeps reading.
    client.send_bytes(b"still here").await;
    let end = loop {
        let (more, end) = client.read(100_000).await;
        received.extend(&more);
        if end != End::Open {
            break end;
        }
        sleep(Duration::from_millis(2)).await;
    };
    sending.await.expect("no panic");
    assert_eq!((received.len(), end), (LARGE, End::Reset));
    assert!(received == answer, "differs from what was sent");
    drop(client);
    served.wait().await;
}

/// Reads one HTTP answer to its end: the head, the body, and how the connection ended.
async fn read_answer(client: TcpStream) -> (String, Vec<u8>, End) {
    let mut client = Client::over(client);
    let head = read_head(&mut client).await;
    let (body, end) = client.read_to_end().await;
    (head, body, end)
}

#[tokio::test]
async fn a_broken_http_answer_is_reset_after_its_last_bytes() {
    // The version, how the site delimits its body, and what the client receives of the body "some".
    for (version, headers, received) in [
        ("1.0", "", "some"),
        ("1.1", "", "4\r\nsome\r\n"),
        ("1.1", "Transfer-Encoding: chunked\r\n", "4\r\nsome\r\n"),
        ("1.1", "Content-Length: 100\r\n", "some"),
    ] {
        for (plan, in_two_parts) in [
            (Plan::Open, false),
            (Plan::OpenThenReset, false),
            (Plan::OpenThenReset, true),
        ] {
            let case = format!("HTTP/{version} {headers:?} {plan:?}, in two parts: {in_two_parts}");
            // Without a length, the end of the stream is the end of the body.
            let whole = matches!(plan, Plan::Open) && headers.is_empty();
            let port = port(plan);
            let (mut client, served) = port.http_tcp_client().await;
            let request = format!(
                "GET http://good.example/ HTTP/{version}\r\nHost: good.example\r\nConnection: close\r\n\r\n"
            );
            client.write_all(request.as_bytes()).await.expect("written");
            let mut site = port.tor.accept_stream().await;
            read_head(&mut site).await;
            let mut answer = format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes();
            let body = match headers.starts_with("Transfer") {
                true => &b"4\r\nsome\r\n"[..],
                false => b"some",
            };
            answer.extend_from_slice(body);
            // Head and body in one piece, or the body once the head has been forwarded.
            match in_two_parts {
                true => {
                    let (head, body) = answer.split_at(answer.len() - body.len());
                    site.send_bytes(head).await;
                    sleep(Duration::from_millis(20)).await;
                    site.send_bytes(body).await;
                }
                false => site.send_bytes(&answer).await,
            }
            drop(site);
            let (head, body, end) = read_answer(client).await;
            assert!(head.contains(" 200 "), "{case}: {head}");
            let mut expected = received.to_owned();
            if whole && version == "1.1" {
                expected += "0\r\n\r\n";
            }
            assert_eq!(String::from_utf8_lossy(&body), expected, "{case}");
            match whole {
                true => assert_eq!(end, End::Closed, "{case}"),
                false => assert_eq!(end, End::Reset, "{case}"),
            }
            served.wait().await;
        }
    }
}

#[tokio::test]
async fn a_broken_websocket_is_reset() {
    for (plan, expected) in [(Plan::Open, End::Closed), (Plan::OpenThenReset, End::Reset)] {
        let port = port(plan);
        let (mut client, served) = port.http_tcp_client().await;
        let request = b"GET http://good.example/ HTTP/1.1\r\nHost: good.example\r\n\
                    Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        client.write_all(request).await.expect("written");
        let mut site = port.tor.accept_stream().await;
        read_head(&mut site).await;
        send_text(
            &mut site,
            "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\nbytes",
        )
        .await;
        drop(site);
        let (head, body, end) = read_answer(client).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!((&body[..], end), (&b"bytes"[..], expected));
        served.wait().await;
    }
}

#[tokio::test]
async fn a_client_that_sends_more_after_the_end_gets_the_whole_answer() {
    let answer: &'static [u8] = Random::new(8).bytes(500_000).leak();
    for protocol in [Protocol::Socks, Protocol::Http] {
        let port = port(Plan::Open);
        let (mut client, served) = client_with_stream(&port, protocol).await;
        let mut far = port.tor.accept_stream().await;
        far.send_bytes(answer).await;
        drop(far);
        // Wait until the program has sent everything: it then shuts its side down, or closes.
        wait_finished_sending(&client).await;
        // Sending fails if the program has closed already; the answer has to arrive in any case.
        let _ = client.write_all(b"and another thing").await;
        sleep(Duration::from_millis(10)).await;
        let (received, _) = Client::over(client).read_to_end().await;
        assert!(
            received == answer,
            "{protocol:?}: {} of {} bytes",
            received.len(),
            answer.len()
        );
        served.wait().await;
    }
}

#[tokio::test]
async fn a_client_that_keeps_sending_gets_the_whole_answer() {
    for (answer, more) in [(500_000, 300_000), (3_000_000, 20_000_000)] {
        let answer: &'static [u8] = Random::new(8).bytes(answer).leak();
        for protocol in [Protocol::Socks, Protocol::Http] {
            let port = port(Plan::Open);
            let (client, served) = client_with_stream(&port, protocol).await;
            let mut far = port.tor.accept_stream().await;
            let answering = async move {
                far.send_bytes(answer).await;
                // Nothing has read what the client sends.
                drop(far);
            };
            let more = vec![b'x'; more];
            let (mut reader, mut writer) = split(client);
            let sending = async {
                // By then all buffers are full or the stream is over.
                sleep(Duration::from_millis(100)).await;
                let _ = writer.write_all(&more).await;
            };
            let reading = async {
                sleep(Duration::from_millis(200)).await;
                let mut received = Vec::new();
                let end = timeout(LIMIT, reader.read_to_end(&mut received)).await;
                (received, end.map(|end| end.is_ok()))
            };
            let ((received, end), (), ()) = tokio::join!(reading, answering, sending);
            let (got, all) = (received.len(), answer.len());
            assert!(received == answer, "{protocol:?}: {got} of {all} bytes");
            assert_eq!(end, Ok(true), "{protocol:?}: not an orderly end");
            drop((reader, writer));
            served.wait().await;
        }
    }
}

#[tokio::test]
async fn a_client_that_keeps_sending_gets_the_whole_http_error() {
    const BODY: usize = 20_000_000;
    for (fails, method, path) in [
        (true, "POST", "http://good.example/"),
        (true, "CONNECT", "good.example:80"),
        // The program's own pages.
        (false, "POST", "http://onionport.invalid/"),
        (false, "POST", "/"),
        // Refused before the network is used.
        (false, "POST", "http://good.exit/"),
        (false, "TRACE", "http://good.example/"),
    ] {
        let port = port(Plan::Fail(Failure::NoRoute));
        let (mut client, served) = port.http_tcp_client().await;
        let length = match method {
            // What follows the head is data for the tunnel.
            "CONNECT" => String::new(),
            _ => format!("Content-Length: {BODY}\r\n"),
        };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n");
        client.write_all(request.as_bytes()).await.expect("written");
        // Fails if the program closes first; the answer has to arrive in any case.
        let _ = client.write_all(&vec![b'x'; BODY]).await;
        let (received, end) = Client::over(client).read_to_end().await;
        let received = String::from_utf8_lossy(&received);
        let (head, body) = received.split_once("\r\n\r\n").unwrap_or_default();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        });
        let case = format!("{method} {path}: {received:?}");
        assert_eq!(length, Some(body.len()), "{case}");
        assert_eq!(fails, head.contains("(no route)"), "{case}");
        assert_eq!(end, End::Closed, "{case}");
        served.wait().await;
    }
}

#[tokio::test]
async fn a_client_that_keeps_sending_gets_the_whole_socks_reply() {
    for (request, reply) in [
        // The request fails.
        (
            format!("{GREETING} {CONNECT_GOOD}"),
            "05 00 05 04 00 01 00000000 0000",
        ),
        (
            "04 01 0050 00000001 00 676f6f642e6578616d706c65 00".to_owned(),
            "00 5b 0000 00000000",
        ),
        // The request is malformed.
        (
            "05 01 00 05 02 00 01 c0000201 0050".to_owned(),
            "05 00 05 07 00 01 00000000 0000",
        ),
        ("05 01 01".to_owned(), "05 ff"),
        // The lookup needs no network.
        (
            "05 01 00 05 f0 00 01 c0000201 0000".to_owned(),
            "05 00 05 00 00 01 c0000201 0000",
        ),
    ] {
        let port = port(Plan::Fail(Failure::NoRoute));
        let (client, served) = port.tcp_client().await;
        let mut client = Client::over(client);
        client.send(&request).await;
        let sent = client.try_send(&vec![b'x'; 20_000_000]).await;
        sent.unwrap_or_else(|error| panic!("{request}: {error}"));
        client.expect(reply).await;
        client.expect_end().await;
        drop(client);
        served.wait().await;
    }
}
