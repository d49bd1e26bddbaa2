//! Clients that must not take what they have got for the whole: their stream breaks.

use onionport::failure::Failure;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Duration, sleep};

use super::{CONNECT_GOOD, GOOD, GREETING, SUCCEEDED};
use crate::support::client::{Client, End};
use crate::support::http::{read_head, read_response_to, send_text};
use crate::support::random::Random;
use crate::support::scripted::Plan;
use crate::support::serve::{Port, Served};

/// More than all buffers of the system hold: some of it is unsent when the stream breaks.
const LARGE: usize = 8_000_000;

/// A SOCKS client with a stream.
async fn over_socks(port: &Port) -> (Client, Served) {
    let (client, served) = port.tcp_client().await;
    let mut client = Client::over(client);
    client.send(GREETING).await;
    client.expect("05 00").await;
    client.send(CONNECT_GOOD).await;
    client.expect(SUCCEEDED).await;
    (client, served)
}

/// A client of an HTTP port with a tunnel.
async fn over_http(port: &Port) -> (Client, Served) {
    let (client, served) = port.http_tcp_client().await;
    let mut client = Client::over(client);
    send_text(&mut client, "CONNECT good.example:80 HTTP/1.1\n\n").await;
    assert_eq!(read_response_to("CONNECT", &mut client).await.status, 200);
    (client, served)
}

#[tokio::test]
async fn a_client_hears_the_last_bytes_of_a_stream_and_how_it_ended() {
    for (plan, expected) in [(Plan::Open, End::Closed), (Plan::OpenThenReset, End::Reset)] {
        for socks in [true, false] {
            for finishes in [true, false] {
                let port = Port::new("", [(GOOD, plan.clone())]);
                let (mut client, served) = match socks {
                    true => over_socks(&port).await,
                    false => over_http(&port).await,
                };
                if finishes {
                    client.finish().await;
                }
                let mut far = port.tor.accept_stream().await;
                far.send_bytes(b"the last words").await;
                drop(far);
                let (heard, end) = client.read_to_end().await;
                let what = format!("{plan:?}, socks: {socks}, finishes: {finishes}");
                assert_eq!(heard, b"the last words", "{what}");
                assert_eq!(end, expected, "{what}");
                drop(client);
                served.wait().await;
            }
        }
    }
}

/// A reset takes away what the system has not sent, so it has to wait for a client that reads slowly.
#[tokio::test]
async fn a_client_that_reads_slowly_gets_all_that_came_before_the_break() {
    let answer: &'static [u8] = Random::new(9).bytes(LARGE).leak();
    let port = Port::new("", [(GOOD, Plan::OpenThenReset)]);
    let (mut client, served) = over_socks(&port).await;
    let mut far = port.tor.accept_stream().await;
    let speaking = tokio::spawn(async move {
        far.send_bytes(answer).await;
    });
    let (mut heard, _) = client.read(LARGE / 2).await;
    // The rest fits into the buffers, or not: the client says something meanwhile and reads on.
    client.send_bytes(b"still here").await;
    let (rest, end) = loop {
        let (more, end) = client.read(100_000).await;
        heard.extend(&more);
        if end != End::Open {
            break (heard, end);
        }
        sleep(Duration::from_millis(2)).await;
    };
    speaking.await.expect("no panic");
    assert_eq!((rest.len(), end), (LARGE, End::Reset));
    assert!(rest == answer, "not as it was sent");
    drop(client);
    served.wait().await;
}

/// Reads one answer as far as it comes.
async fn heard(client: TcpStream) -> (String, Vec<u8>, End) {
    let mut client = Client::over(client);
    let head = read_head(&mut client).await;
    let (body, end) = client.read_to_end().await;
    (head, body, end)
}

#[tokio::test]
async fn an_answer_of_a_site_that_breaks_off_is_reset_behind_its_last_bytes() {
    // How long the body is, and what the client sees of "some" when the site is gone.
    for (version, headers, seen) in [
        ("1.0", "", "some"),
        ("1.1", "", "4\r\nsome\r\n"),
        ("1.1", "Transfer-Encoding: chunked\r\n", "4\r\nsome\r\n"),
        ("1.1", "Content-Length: 100\r\n", "some"),
    ] {
        for (plan, long) in [
            (Plan::Open, false),
            (Plan::OpenThenReset, false),
            (Plan::OpenThenReset, true),
        ] {
            let what = format!("HTTP/{version} {headers:?} {plan:?} {long}");
            let whole = matches!(plan, Plan::Open) && headers.is_empty();
            let port = Port::new("", [(GOOD, plan)]);
            let (mut client, served) = port.http_tcp_client().await;
            let ask = format!(
                "GET http://good.example/ HTTP/{version}\r\nHost: good.example\r\nConnection: close\r\n\r\n"
            );
            client.write_all(ask.as_bytes()).await.expect("written");
            let mut site = port.tor.accept_stream().await;
            read_head(&mut site).await;
            let mut said = format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes();
            let body = match headers.starts_with("Transfer") {
                true => &b"4\r\nsome\r\n"[..],
                false => b"some",
            };
            said.extend_from_slice(body);
            // A head and its body in one piece, or a body that comes when the head was passed on.
            match long {
                true => {
                    let (head, body) = said.split_at(said.len() - body.len());
                    site.send_bytes(head).await;
                    sleep(Duration::from_millis(20)).await;
                    site.send_bytes(body).await;
                }
                false => site.send_bytes(&said).await,
            }
            drop(site);
            let (head, body, end) = heard(client).await;
            assert!(head.contains(" 200 "), "{what}: {head}");
            let mut expected = seen.to_owned();
            if whole && version == "1.1" {
                expected += "0\r\n\r\n";
            }
            assert_eq!(String::from_utf8_lossy(&body), expected, "{what}");
            // A site that is done where the client expects no more has not broken off.
            match whole {
                true => assert_eq!(end, End::Closed, "{what}"),
                false => assert_eq!(end, End::Reset, "{what}"),
            }
            served.wait().await;
        }
    }
}

#[tokio::test]
async fn a_websocket_that_breaks_is_reset() {
    for (plan, expected) in [(Plan::Open, End::Closed), (Plan::OpenThenReset, End::Reset)] {
        let port = Port::new("", [(GOOD, plan)]);
        let (mut client, served) = port.http_tcp_client().await;
        let ask = b"GET http://good.example/ HTTP/1.1\r\nHost: good.example\r\n\
                    Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        client.write_all(ask).await.expect("written");
        let mut site = port.tor.accept_stream().await;
        read_head(&mut site).await;
        send_text(
            &mut site,
            "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\nwords",
        )
        .await;
        drop(site);
        let (head, words, end) = heard(client).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!((&words[..], end), (&b"words"[..], expected));
        served.wait().await;
    }
}

/// A client that sends more than the system's buffers hold while the last of its answer is on its way.
async fn talk_on(mut client: TcpStream, size: usize) -> (Vec<u8>, End) {
    let words = vec![b'x'; size];
    // It fails if it comes too late, and that is the point.
    let _ = client.write_all(&words).await;
    Client::over(client).read_to_end().await
}

#[tokio::test]
async fn the_end_of_an_answer_is_not_lost_to_a_client_that_goes_on_sending() {
    for (answer, more) in [(500_000, 300_000), (3_000_000, 20_000_000)] {
        let answer: &'static [u8] = Random::new(8).bytes(answer).leak();
        for socks in [true, false] {
            let port = Port::new("", [(GOOD, Plan::Open)]);
            let (client, served) = match socks {
                true => over_socks(&port).await,
                false => over_http(&port).await,
            };
            let client = client.into_stream();
            let mut far = port.tor.accept_stream().await;
            let speaking = async move {
                far.send_bytes(answer).await;
                // Whatever the client says is left.
                drop(far);
            };
            let words = vec![b'x'; more];
            let (mut reader, mut writer) = tokio::io::split(client);
            let listening = async {
                // Behind all buffers: what comes now comes when the stream is over.
                sleep(Duration::from_millis(100)).await;
                let _ = writer.write_all(&words).await;
            };
            let (heard, (), ()) = tokio::join!(
                async {
                    sleep(Duration::from_millis(200)).await;
                    let mut heard = Vec::new();
                    let read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut heard);
                    let end = tokio::time::timeout(crate::support::LIMIT, read).await;
                    (heard, end.map(|end| end.is_ok()))
                },
                speaking,
                listening
            );
            assert!(heard.0 == answer, "{} of {}", heard.0.len(), answer.len());
            assert_eq!(heard.1, Ok(true), "it ends in order");
            drop((reader, writer));
            served.wait().await;
        }
    }
}

#[tokio::test]
async fn an_error_is_not_lost_to_a_client_that_goes_on_sending() {
    const BODY: usize = 20_000_000;
    for (fails, method, path) in [
        (true, "POST", "http://good.example/"),
        (true, "CONNECT", "good.example:80"),
        // Our own pages.
        (false, "POST", "http://onionport.invalid/"),
        (false, "POST", "/"),
        // Told apart from what can be served before the network is asked.
        (false, "POST", "http://good.exit/"),
        (false, "TRACE", "http://good.example/"),
    ] {
        let port = Port::new("", [(GOOD, Plan::Fail(Failure::NoRoute))]);
        let (mut client, served) = port.http_tcp_client().await;
        let length = match method {
            // What follows is meant for the tunnel.
            "CONNECT" => String::new(),
            _ => format!("Content-Length: {BODY}\r\n"),
        };
        let ask = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n");
        client.write_all(ask.as_bytes()).await.expect("written");
        let (heard, end) = talk_on(client, BODY).await;
        let heard = String::from_utf8_lossy(&heard);
        let (head, body) = heard.split_once("\r\n\r\n").unwrap_or_default();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        });
        let what = format!("{method} {path}: {heard:?}");
        assert_eq!(length, Some(body.len()), "{what}");
        assert_eq!(fails, head.contains("(no route)"), "{what}");
        assert_eq!(end, End::Closed, "{what}");
        served.wait().await;
    }
}

#[tokio::test]
async fn a_refusal_is_not_lost_to_a_client_that_goes_on_sending() {
    for (ask, reply) in [
        // Fails.
        (
            format!("{GREETING} {CONNECT_GOOD}"),
            "05 00 05 04 00 01 00000000 0000",
        ),
        (
            "04 01 0050 00000001 00 676f6f642e6578616d706c65 00".to_owned(),
            "00 5b 0000 00000000",
        ),
        // Malformed.
        (
            "05 01 00 05 02 00 01 c0000201 0050".to_owned(),
            "05 00 05 07 00 01 00000000 0000",
        ),
        ("05 01 01".to_owned(), "05 ff"),
        // Looked up without the network.
        (
            "05 01 00 05 f0 00 01 c0000201 0000".to_owned(),
            "05 00 05 00 00 01 c0000201 0000",
        ),
    ] {
        let port = Port::new("", [(GOOD, Plan::Fail(Failure::NoRoute))]);
        let (client, served) = port.tcp_client().await;
        let mut client = Client::over(client);
        client.send(&ask).await;
        let sent = client.try_send(&vec![b'x'; 20_000_000]).await;
        sent.unwrap_or_else(|error| panic!("{ask}: {error}"));
        client.expect(reply).await;
        client.expect_end().await;
        drop(client);
        served.wait().await;
    }
}
