//! Interim answers of sites on their way to the client: each whole, in its place, and before the
//! final one.

use std::time::Duration;

use super::SITE;
use crate::support::client::{Client, End};
use crate::support::http::{answer, head, hear, say};
use crate::support::scripted::Plan;
use crate::support::serve::{Port, Served, V4};

const GET: &str = "GET http://good.example/ HTTP/1.1\nHost: good.example\n\n";
/// The same, as the site gets it.
const GOT: &str = "GET / HTTP/1.1\nHost: good.example\n\n";
const YES: &str = "HTTP/1.1 200 OK\ncontent-length: 3\n\nyes";

/// A client that has asked a site; all that is written to it goes through `capacity` bytes.
async fn asked(ask: &str, capacity: usize) -> (Port, Client, Client, Served) {
    let port = Port::new("", [(SITE, Plan::Open)]);
    let (mut client, served) = port.http_client_with(capacity, V4);
    say(&mut client, ask).await;
    let mut site = port.tor.far_end().await;
    head(&mut site).await;
    (port, client, site, served)
}

/// Hints that differ by their number.
fn hints(number: usize) -> String {
    format!("HTTP/1.1 103 Early Hints\nlink: </{number}.css>; rel=preload\n\n")
}

#[tokio::test]
async fn hints_arrive_while_the_answer_is_not_there_yet_and_nothing_is_added() {
    let (_port, mut client, mut site, _served) = asked(GET, 1024).await;
    say(
        &mut site,
        "HTTP/1.1 103 Early Hints\nLink: </a.css>; rel=preload\nConnection: X-Hop\nX-Hop: 1\n\
         Link: </b.css>; rel=preload\nTor-Request-Failed: end/MISC\nContent-Length: 0\n\n",
    )
    .await;
    hear(
        &mut client,
        "HTTP/1.1 103 Early Hints\nlink: </a.css>; rel=preload\nlink: </b.css>; rel=preload\n\n",
    )
    .await;
    say(&mut site, "HTTP/1.1 102 Processing\n\n").await;
    hear(&mut client, "HTTP/1.1 102 Processing\n\n").await;
    say(&mut site, "HTTP/1.1 199 Of Their Own\nx: y\n\n").await;
    hear(&mut client, "HTTP/1.1 199 \nx: y\n\n").await;
    say(&mut site, YES).await;
    hear(&mut client, YES).await;
}

#[tokio::test]
async fn those_that_come_together_with_the_answer_are_written_before_it() {
    // Also where a few bytes at a time are taken.
    for capacity in [1, 7, 64, 4096] {
        let (_port, mut client, mut site, _served) = asked(GET, capacity).await;
        let all = [hints(1), hints(2), YES.to_owned()].concat();
        say(&mut site, &all).await;
        hear(&mut client, &all).await;
    }
}

#[tokio::test]
async fn each_request_of_a_connection_has_its_own() {
    let (port, mut client, mut site, _served) = asked(GET, 1024).await;
    for number in 0..5 {
        if number > 0 {
            say(&mut client, GET).await;
            hear(&mut site, GOT).await;
        }
        let all = [hints(number), YES.to_owned()].concat();
        say(&mut site, &hints(number)).await;
        hear(&mut client, &hints(number)).await;
        say(&mut site, YES).await;
        hear(&mut client, &all[hints(number).len()..]).await;
    }
    assert_eq!(port.tor.calls().len(), 1);
}

#[tokio::test]
async fn requests_that_are_sent_in_one_go_are_answered_in_order() {
    let all: String = (0..3).map(expected).collect();
    // All requests fit in either, and one answer in the second.
    for capacity in [200, 64 * 1024] {
        let port = Port::new("", [(SITE, Plan::Open)]);
        let (mut client, _served) = port.http_client_with(capacity, V4);
        let asking = async {
            say(&mut client, &GET.repeat(3)).await;
            // Reads late: the end of one answer waits while the next request is asked.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let (got, _) = client.take(all.len()).await;
            String::from_utf8(got).expect("text")
        };
        let answering = async {
            let mut site = port.tor.far_end().await;
            for number in 0..3 {
                hear(&mut site, GOT).await;
                site.send_bytes(expected(number).as_bytes()).await;
            }
            site
        };
        let (got, _site) = tokio::join!(asking, answering);
        assert_eq!(got, all, "{capacity}");
    }

    fn expected(number: usize) -> String {
        let body = number.to_string().repeat(3000);
        let answer = format!("HTTP/1.1 200 OK\ncontent-length: 3000\n\n{body}");
        [hints(number), hints(number + 10), answer]
            .concat()
            .replace('\n', "\r\n")
    }
}

#[tokio::test]
async fn to_be_asked_for_the_body_is_another_matter() {
    let post = |headers| {
        format!(
            "POST http://good.example/ HTTP/1.1\nHost: good.example\nContent-Length: 4\n{headers}\n"
        )
    };
    let (_port, mut client, mut site, _served) = asked(&post("Expect: 100-continue\n"), 1024).await;
    say(&mut site, &hints(1)).await;
    hear(&mut client, &hints(1)).await;
    let go_on = "HTTP/1.1 100 Continue\n\n";
    say(&mut site, go_on).await;
    hear(&mut client, go_on).await;
    say(&mut client, "body").await;
    hear(&mut site, "body").await;
    say(&mut site, &hints(2)).await;
    hear(&mut client, &hints(2)).await;
    say(&mut site, YES).await;
    hear(&mut client, YES).await;
    // Who did not ask to be asked is not asked.
    say(&mut client, &post("")).await;
    head(&mut site).await;
    say(&mut site, go_on).await;
    say(&mut client, "body").await;
    hear(&mut site, "body").await;
    say(&mut site, YES).await;
    hear(&mut client, YES).await;
}

#[tokio::test]
async fn an_old_client_gets_the_answer_alone() {
    let ask = "GET http://good.example/ HTTP/1.0\nHost: good.example\n\n";
    let (_port, mut client, mut site, _served) = asked(ask, 1024).await;
    say(&mut site, &hints(1)).await;
    assert_eq!(client.overhear(Duration::from_millis(100)).await, None);
    say(&mut site, YES).await;
    let got = answer(&mut client).await;
    assert_eq!((got.line.as_str(), got.text()), ("HTTP/1.0 200 OK", "yes"));
}

#[tokio::test]
async fn a_flood_fills_no_memory_and_hides_no_answer() {
    let (_port, mut client, mut site, _served) = asked(GET, 1024).await;
    // The client reads nothing; the site is not held up by that.
    for number in 0..5000 {
        say(&mut site, &hints(number)).await;
    }
    say(&mut site, YES).await;
    let mut before: Option<usize> = None;
    let mut count = 0;
    loop {
        let got = head(&mut client).await;
        if got.starts_with("HTTP/1.1 200 OK\r\n") {
            break;
        }
        let number = got.split(['/', '.']).nth(3).and_then(|n| n.parse().ok());
        assert!(number.is_some() && number > before, "{got}");
        (before, count) = (number, count + 1);
    }
    hear(&mut client, "yes").await;
    // What the pipe to the client holds, and what may wait.
    assert!((8..100).contains(&count), "{count}");
    // One that is too long does not go through; what follows does.
    let (_port, mut client, mut site, _served) = asked(GET, 1024).await;
    let long = format!("HTTP/1.1 103 Early Hints\nlink: {}\n\n", "x".repeat(20_000));
    say(&mut site, &[long, hints(1), YES.to_owned()].concat()).await;
    hear(&mut client, &[hints(1), YES.to_owned()].concat()).await;
}

#[tokio::test]
async fn a_websocket_may_have_hints_before_it() {
    let ask = "GET http://good.example/ HTTP/1.1\nHost: good.example\n\
               Connection: Upgrade\nUpgrade: websocket\n\n";
    for capacity in [3, 1024] {
        let (_port, mut client, mut site, _served) = asked(ask, capacity).await;
        let switch =
            "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n";
        say(&mut site, &[&hints(1), switch].concat()).await;
        hear(&mut client, &hints(1)).await;
        assert!(head(&mut client).await.starts_with("HTTP/1.1 101 "));
        say(&mut client, "to").await;
        hear(&mut site, "to").await;
        say(&mut site, "fro").await;
        hear(&mut client, "fro").await;
    }
}

#[tokio::test]
async fn a_site_that_breaks_after_its_hints_has_broken() {
    let html = GET.replace("\n\n", "\nAccept: text/html\n\n");
    let (_port, mut client, mut site, _served) = asked(&html, 1024).await;
    say(&mut site, &hints(1)).await;
    drop(site);
    hear(&mut client, &hints(1)).await;
    assert_eq!(answer(&mut client).await.status, 502);
    // To a script in a browser that is all.
    let post = GET
        .replace("GET", "POST")
        .replace("\n\n", "\nUser-Agent: Mozilla/5.0\n\n");
    let (_port, mut client, mut site, _served) = asked(&post, 1024).await;
    say(&mut site, &hints(1)).await;
    drop(site);
    hear(&mut client, &hints(1)).await;
    client.expect_end().await;
}

#[tokio::test]
async fn a_client_that_leaves_among_hints_leaves_nothing_behind() {
    let (_port, client, mut site, served) = asked(GET, 64).await;
    for number in 0..20 {
        say(&mut site, &hints(number)).await;
    }
    drop(client);
    let (_, end) = site.rest().await;
    assert_ne!(end, End::Open);
    served.end().await;
}
