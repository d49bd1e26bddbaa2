//! Data that clients send behind the head of a CONNECT, before the tunnel is open. It arrives once, in
//! order, and early, and is never parsed as a request.

use std::time::Duration;

use onionport::failure::Failure;

use super::{
    FORWARDED_GET, SITE, YES, expect_tunnel, expect_yes, http_program, use_and_end_tunnel,
};
use crate::support::client::{Client, End};
use crate::support::http::{expect_text, read_response, send_text};
use crate::support::scripted::Plan;
use crate::support::serve::{Port, Served, V4};

const CONNECT: &str = "CONNECT good.example:80 HTTP/1.1\nHost: good.example:80\n\n";
/// How many bytes are sent before the tunnel is open.
const OPTIMISTIC_LIMIT: usize = 16 * 1024;

/// Creates a port with this plan for the site, and connects a client to it.
fn connect(plan: Plan) -> (Port, Client, Served) {
    let port = Port::new("", [(SITE, plan)]);
    let (client, served) = port.http_client_with(64 * 1024, V4);
    (port, client, served)
}

/// Returns `count` bytes in which a lost, repeated or moved part shows.
fn numbered_text(count: usize) -> String {
    let words = (0..).map(|number: usize| format!("{number} "));
    let mut all: String = words.take(count).collect();
    all.truncate(count);
    all
}

#[tokio::test]
async fn early_data_is_sent_before_the_tunnel_is_open() {
    let (port, mut client, served) = connect(Plan::SendOptimistic);
    send_text(&mut client, &format!("{CONNECT}with the head, ")).await;
    let mut site = port.tor.accept_stream().await;
    expect_text(&mut site, "with the head, ").await;
    for later in ["later, ", "and later"] {
        send_text(&mut client, later).await;
        expect_text(&mut site, later).await;
    }
    assert_eq!(client.read_within(Duration::from_millis(50)).await, None);
    port.tor.release();
    expect_tunnel(&mut client).await;
    send_text(&mut client, ", and in the tunnel").await;
    expect_text(&mut site, ", and in the tunnel").await;
    use_and_end_tunnel(client, site, served).await;
}

#[tokio::test]
async fn a_head_may_come_in_any_two_parts_and_early_bytes_behind_it() {
    let request = format!("{CONNECT}early").replace('\n', "\r\n");
    for cut in 1..request.len() {
        let (port, mut client, _served) = connect(Plan::SendOptimistic);
        let (first, second) = request.as_bytes().split_at(cut);
        client.send_bytes(first).await;
        // Lets the server read the first part.
        tokio::task::yield_now().await;
        client.send_bytes(second).await;
        let mut site = port.tor.accept_stream().await;
        expect_text(&mut site, "early").await;
        port.tor.release();
        expect_tunnel(&mut client).await;
        send_text(&mut client, "late").await;
        expect_text(&mut site, "late").await;
        assert_eq!(port.tor.calls().len(), 1, "{cut}");
    }
}

#[tokio::test]
async fn data_beyond_the_limit_waits_for_the_tunnel() {
    let (port, mut client, _served) = connect(Plan::SendOptimistic);
    let data = numbered_text(50_000);
    send_text(&mut client, &format!("{CONNECT}{data}")).await;
    let mut site = port.tor.accept_stream().await;
    expect_text(&mut site, &data[..OPTIMISTIC_LIMIT]).await;
    assert_eq!(site.read_within(Duration::from_millis(100)).await, None);
    port.tor.release();
    expect_tunnel(&mut client).await;
    expect_text(&mut site, &data[OPTIMISTIC_LIMIT..]).await;
    send_text(&mut client, "the end").await;
    expect_text(&mut site, "the end").await;
}

#[tokio::test]
async fn the_tunnel_continues_where_the_optimistic_data_ended() {
    for (plan, count) in [
        // The stream accepts part of the optimistic data.
        (Plan::SendOptimistic, 5000),
        // It accepts none.
        (Plan::OpenLater, 5000),
        (Plan::OpenLater, 50_000),
        (Plan::Open, 5000),
        (Plan::Open, 50_000),
    ] {
        let (port, mut client, _served) = connect(plan.clone());
        let data = numbered_text(count);
        send_text(&mut client, &format!("{CONNECT}{data}")).await;
        if !matches!(plan, Plan::Open) {
            port.tor.wait_for_running(1).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        port.tor.release();
        expect_tunnel(&mut client).await;
        let mut site = port.tor.accept_stream().await;
        send_text(&mut client, "the end").await;
        expect_text(&mut site, &format!("{data}the end")).await;
    }
}

#[tokio::test]
async fn heads_with_other_line_ends_and_later_requests_get_their_tunnel_too() {
    let get = "GET http://good.example/ HTTP/1.1\r\nHost: good.example\r\n\r\n";
    for (before, request) in [
        ("", "CONNECT good.example:80 HTTP/1.1\n\n"),
        ("", "CONNECT good.example:80 HTTP/1.1\r\nHost: a\n\r\n"),
        ("", "\r\nCONNECT good.example:80 HTTP/1.1\r\n\r\n"),
        (get, "CONNECT good.example:80 HTTP/1.1\r\n\r\n"),
    ] {
        let (port, mut client, _served) = connect(Plan::Open);
        if !before.is_empty() {
            client.send_bytes(before.as_bytes()).await;
            let mut site = port.tor.accept_stream().await;
            expect_text(&mut site, FORWARDED_GET).await;
            send_text(&mut site, YES).await;
            expect_yes(&mut client).await;
        }
        let data = numbered_text(20_000);
        client
            .send_bytes(format!("{request}{data}").as_bytes())
            .await;
        expect_tunnel(&mut client).await;
        let mut site = port.tor.accept_stream().await;
        expect_text(&mut site, &data).await;
        send_text(&mut client, "the end").await;
        expect_text(&mut site, "the end").await;
    }
}

#[tokio::test]
async fn a_client_may_half_close_before_the_tunnel_is_open() {
    for plan in [Plan::SendOptimistic, Plan::OpenLater] {
        let (port, mut client, served) = connect(plan);
        send_text(&mut client, &format!("{CONNECT}question")).await;
        client.finish().await;
        port.tor.wait_for_running(1).await;
        port.tor.release();
        expect_tunnel(&mut client).await;
        let mut site = port.tor.accept_stream().await;
        expect_text(&mut site, "question").await;
        send_text(&mut site, "answer").await;
        expect_text(&mut client, "answer").await;
        drop(site);
        client.expect_end().await;
        served.wait().await;
    }
}

#[tokio::test]
async fn data_meant_for_a_tunnel_is_never_parsed_as_a_request() {
    let smuggled = [
        "CONNECT other.example:80 HTTP/1.1\n\n",
        "GET http://other.example/ HTTP/1.1\nHost: other.example\n\n",
        "GET / HTTP/1.1\nHost: localhost\n\n",
        "x",
    ];
    for behind in smuggled {
        for plan in [
            Plan::Fail(Failure::StreamClosed),
            Plan::FailLater(Failure::StreamClosed),
        ] {
            let later = matches!(plan, Plan::FailLater(_));
            let plans = [(SITE, plan), ("other.example:80", Plan::Open)];
            let port = Port::new("", plans);
            let (mut client, served) = port.http_client();
            match later {
                false => send_text(&mut client, &format!("{CONNECT}{behind}")).await,
                true => {
                    send_text(&mut client, CONNECT).await;
                    port.tor.wait_for_running(1).await;
                    send_text(&mut client, behind).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    port.tor.release();
                }
            }
            let response = read_response(&mut client).await;
            assert_eq!(response.status, 502, "{behind}");
            assert_eq!(response.header("connection"), Some("close"), "{behind}");
            let _ = client
                .try_send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await;
            client.expect_end().await;
            drop(client);
            served.wait().await;
            assert_eq!(port.tor.calls().len(), 1, "{behind}");
        }
    }
}

#[tokio::test]
async fn a_refused_connect_is_the_last_request_of_its_connection() {
    let get = "GET / HTTP/1.1\nHost: localhost\n\n";
    for (request, status) in [
        ("CONNECT nonsense.onion:80 HTTP/1.1\nHost: a\n\n", 400),
        ("CONNECT good.example HTTP/1.1\nHost: a\n\n", 400),
        (
            "CONNECT good.example:80 HTTP/1.1\nTor-RPC-Target: x\n\n",
            501,
        ),
        (
            "CONNECT good.example:80 HTTP/1.1\nContent-Length: 5\n\n",
            400,
        ),
    ] {
        let (port, mut client, served) = connect(Plan::Open);
        send_text(&mut client, &format!("{request}hello{get}")).await;
        let response = read_response(&mut client).await;
        assert_eq!(response.status, status, "{request}");
        client.expect_end().await;
        drop(client);
        served.wait().await;
        assert!(port.tor.calls().is_empty(), "{request}");
    }
    // Nor is a request served that arrives a moment later, or behind a CONNECT that is not the first
    // request.
    let request = "CONNECT nonsense.onion:80 HTTP/1.1\nHost: a\n\n";
    for before in ["", get] {
        for apart in [false, true] {
            let (_port, mut client, served) = connect(Plan::Open);
            match apart {
                false => send_text(&mut client, &format!("{before}{request}{get}")).await,
                true => {
                    send_text(&mut client, &format!("{before}{request}")).await;
                    send_text(&mut client, get).await;
                }
            }
            if !before.is_empty() {
                assert_eq!(read_response(&mut client).await.status, 200);
            }
            let response = read_response(&mut client).await;
            assert_eq!(
                (response.status, response.header("connection")),
                (400, Some("close"))
            );
            client.expect_end().await;
            drop(client);
            served.wait().await;
        }
    }
}

/// Over TCP, unread bytes would reset the connection and lose the response.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_much_early_data_still_receives_the_refusal() {
    let daemon = http_program().start_with_ports(2);
    let request = "CONNECT nonsense.onion:80 HTTP/1.1\nHost: a\n\n";
    for count in [1, 1000, OPTIMISTIC_LIMIT, 60_000] {
        for _ in 0..20 {
            let mut client = Client::connect(&daemon.addresses[1]).await;
            send_text(&mut client, &format!("{request}{}", numbered_text(count))).await;
            let response = read_response(&mut client).await;
            assert_eq!(response.status, 400, "{count}");
            assert_eq!(response.header("connection"), Some("close"));
            // On a connection that was reset, the second write fails.
            for _ in 0..2 {
                client.send_bytes(b"more").await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let (rest, end) = client.read_to_end().await;
            assert_eq!((rest.as_slice(), end), (&b""[..], End::Closed), "{count}");
        }
    }
}
