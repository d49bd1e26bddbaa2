//! What clients say behind the head of a CONNECT, before they have their tunnel: it arrives once, in
//! order, and early; and it is never taken for a request.

use std::time::Duration;

use onionport::failure::Failure;

use super::SITE;
use crate::support::client::{Client, End};
use crate::support::http::{answer, answer_to, hear, say};
use crate::support::program::Program;
use crate::support::scripted::Plan;
use crate::support::serve::{Port, Served, V4};

const ASK: &str = "CONNECT good.example:80 HTTP/1.1\nHost: good.example:80\n\n";
/// How much may be said early.
const LIMIT: usize = 16 * 1024;

fn client(plan: Plan) -> (Port, Client, Served) {
    let port = Port::new("", [(SITE, plan)]);
    let (client, served) = port.http_client_with(64 * 1024, V4);
    (port, client, served)
}

async fn open(client: &mut Client) {
    assert_eq!(answer_to("CONNECT", client).await.status, 200);
}

/// Bytes of which no two places look alike.
fn much(count: usize) -> String {
    let words = (0..).map(|number: usize| format!("{number} "));
    let mut all: String = words.take(count).collect();
    all.truncate(count);
    all
}

#[tokio::test]
async fn what_is_said_early_is_sent_before_the_tunnel_is_open() {
    let (port, mut client, served) = client(Plan::Eager);
    say(&mut client, &format!("{ASK}with the head, ")).await;
    let mut site = port.tor.far_end().await;
    hear(&mut site, "with the head, ").await;
    for later in ["later, ", "and later"] {
        say(&mut client, later).await;
        hear(&mut site, later).await;
    }
    assert_eq!(client.overhear(Duration::from_millis(50)).await, None);
    port.tor.release();
    open(&mut client).await;
    say(&mut client, ", and in the tunnel").await;
    hear(&mut site, ", and in the tunnel").await;
    say(&mut site, "and back").await;
    hear(&mut client, "and back").await;
    client.finish().await;
    site.expect_end().await;
    drop(site);
    client.expect_end().await;
    served.end().await;
}

#[tokio::test]
async fn a_head_may_come_in_any_two_parts_and_early_bytes_behind_it() {
    let ask = format!("{ASK}early").replace('\n', "\r\n");
    for cut in 1..ask.len() {
        let (port, mut client, _served) = client(Plan::Eager);
        let (first, second) = ask.as_bytes().split_at(cut);
        client.send_bytes(first).await;
        // Lets the other side take what there is.
        tokio::task::yield_now().await;
        client.send_bytes(second).await;
        let mut site = port.tor.far_end().await;
        hear(&mut site, "early").await;
        port.tor.release();
        open(&mut client).await;
        say(&mut client, "late").await;
        hear(&mut site, "late").await;
        assert_eq!(port.tor.calls().len(), 1, "{cut}");
    }
}

#[tokio::test]
async fn too_much_is_held_back_and_nothing_of_it_is_lost() {
    let (port, mut client, _served) = client(Plan::Eager);
    let said = much(50_000);
    say(&mut client, &format!("{ASK}{said}")).await;
    let mut site = port.tor.far_end().await;
    hear(&mut site, &said[..LIMIT]).await;
    assert_eq!(site.overhear(Duration::from_millis(100)).await, None);
    port.tor.release();
    open(&mut client).await;
    hear(&mut site, &said[LIMIT..]).await;
    say(&mut client, "the end").await;
    hear(&mut site, "the end").await;
}

#[tokio::test]
async fn what_was_sent_in_part_goes_on_where_it_was() {
    for (plan, count) in [
        // The stream takes a part of it.
        (Plan::Eager, 5000),
        // Or nothing at all.
        (Plan::Held, 5000),
        (Plan::Held, 50_000),
        (Plan::Open, 5000),
        (Plan::Open, 50_000),
    ] {
        let (port, mut client, _served) = client(plan.clone());
        let said = much(count);
        say(&mut client, &format!("{ASK}{said}")).await;
        if !matches!(plan, Plan::Open) {
            port.tor.wait_for_running(1).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        port.tor.release();
        open(&mut client).await;
        let mut site = port.tor.far_end().await;
        say(&mut client, "the end").await;
        hear(&mut site, &format!("{said}the end")).await;
    }
}

#[tokio::test]
async fn heads_that_are_written_in_other_ways_and_later_ones_get_their_tunnel_too() {
    let get = "GET http://good.example/ HTTP/1.1\r\nHost: good.example\r\n\r\n";
    for (before, ask) in [
        ("", "CONNECT good.example:80 HTTP/1.1\n\n"),
        ("", "CONNECT good.example:80 HTTP/1.1\r\nHost: a\n\r\n"),
        ("", "\r\nCONNECT good.example:80 HTTP/1.1\r\n\r\n"),
        (get, "CONNECT good.example:80 HTTP/1.1\r\n\r\n"),
    ] {
        let (port, mut client, _served) = client(Plan::Open);
        if !before.is_empty() {
            client.send_bytes(before.as_bytes()).await;
            let mut site = port.tor.far_end().await;
            hear(&mut site, "GET / HTTP/1.1\nHost: good.example\n\n").await;
            say(&mut site, "HTTP/1.1 200 OK\nContent-Length: 3\n\nyes").await;
            assert_eq!(answer(&mut client).await.text(), "yes");
        }
        let said = much(20_000);
        client.send_bytes(format!("{ask}{said}").as_bytes()).await;
        open(&mut client).await;
        let mut site = port.tor.far_end().await;
        hear(&mut site, &said).await;
        say(&mut client, "the end").await;
        hear(&mut site, "the end").await;
    }
}

#[tokio::test]
async fn a_client_may_have_said_all_there_is_to_say() {
    for plan in [Plan::Eager, Plan::Held] {
        let (port, mut client, served) = client(plan);
        say(&mut client, &format!("{ASK}question")).await;
        client.finish().await;
        port.tor.wait_for_running(1).await;
        port.tor.release();
        open(&mut client).await;
        let mut site = port.tor.far_end().await;
        hear(&mut site, "question").await;
        say(&mut site, "answer").await;
        hear(&mut client, "answer").await;
        drop(site);
        client.expect_end().await;
        served.end().await;
    }
}

#[tokio::test]
async fn what_was_meant_for_a_tunnel_is_never_taken_for_a_request() {
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
                false => say(&mut client, &format!("{ASK}{behind}")).await,
                true => {
                    say(&mut client, ASK).await;
                    port.tor.wait_for_running(1).await;
                    say(&mut client, behind).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    port.tor.release();
                }
            }
            let told = answer(&mut client).await;
            assert_eq!(told.status, 502, "{behind}");
            assert_eq!(told.header("connection"), Some("close"), "{behind}");
            let _ = client
                .try_send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await;
            client.expect_end().await;
            drop(client);
            served.end().await;
            assert_eq!(port.tor.calls().len(), 1, "{behind}");
        }
    }
}

#[tokio::test]
async fn a_connect_that_is_refused_is_the_last_request_of_its_connection() {
    let get = "GET / HTTP/1.1\nHost: localhost\n\n";
    for (ask, status) in [
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
        let (port, mut client, served) = client(Plan::Open);
        say(&mut client, &format!("{ask}hello{get}")).await;
        let told = answer(&mut client).await;
        assert_eq!(told.status, status, "{ask}");
        client.expect_end().await;
        drop(client);
        served.end().await;
        assert!(port.tor.calls().is_empty(), "{ask}");
    }
    // Neither is what comes a moment later, or stands behind a CONNECT that is not the first request.
    let ask = "CONNECT nonsense.onion:80 HTTP/1.1\nHost: a\n\n";
    for before in ["", get] {
        for apart in [false, true] {
            let (_port, mut client, served) = self::client(Plan::Open);
            match apart {
                false => say(&mut client, &format!("{before}{ask}{get}")).await,
                true => {
                    say(&mut client, &format!("{before}{ask}")).await;
                    say(&mut client, get).await;
                }
            }
            if !before.is_empty() {
                assert_eq!(answer(&mut client).await.status, 200);
            }
            let told = answer(&mut client).await;
            assert_eq!(
                (told.status, told.header("connection")),
                (400, Some("close"))
            );
            client.expect_end().await;
            drop(client);
            served.end().await;
        }
    }
}

/// Over TCP, where bytes that nobody reads would take the answer away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_says_much_hears_all_the_same_that_there_is_no_tunnel() {
    let daemon = Program::offline()
        .port("auto")
        .proxy("http_port = \"auto\"")
        .start_with(2);
    let ask = "CONNECT nonsense.onion:80 HTTP/1.1\nHost: a\n\n";
    for count in [1, 1000, LIMIT, 60_000] {
        for _ in 0..20 {
            let mut client = Client::connect(&daemon.places[1]).await;
            say(&mut client, &format!("{ask}{}", much(count))).await;
            let told = answer(&mut client).await;
            assert_eq!(told.status, 400, "{count}");
            assert_eq!(told.header("connection"), Some("close"));
            // It may go on for a while: a connection that is reset fails the second time.
            for _ in 0..2 {
                client.send_bytes(b"more").await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let (rest, end) = client.rest().await;
            assert_eq!((rest.as_slice(), end), (&b""[..], End::Closed), "{count}");
        }
    }
}
