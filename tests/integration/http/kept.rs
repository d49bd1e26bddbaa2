//! Connections to sites that are kept for later requests, and given up in time.

use std::time::Duration;

use super::{GET, GOT, YES, expect_yes, port};
use crate::support::client::Client;
use crate::support::http::{answer, head, hear, say};

#[tokio::test]
async fn a_connection_serves_one_site_for_one_identity_and_no_other() {
    let port = port();
    let (mut client, _served) = port.http_client();
    let me = "Proxy-Authorization: Basic bWU6\n";
    let ask =
        |site: &str, extra: &str| format!("GET http://{site}/ HTTP/1.1\nHost: {site}\n{extra}\n");
    let mut sites: Vec<Client> = Vec::new();
    // Each with the number of the stream it comes through: four are kept.
    for (site, extra, number) in [
        ("good.example", "", 1),
        ("good.example", "", 1),
        ("other.example", "", 2),
        ("good.example", "", 1),
        ("other.example", "", 2),
        ("good.example", me, 3),
        ("good.example", me, 3),
        ("good.example", "Tor-Stream-Isolation: a\n", 4),
        // The one that was not used for the longest time is closed.
        ("good.example", "Tor-Family-Preference: ipv6-preferred\n", 5),
        ("other.example", "", 2),
        ("good.example", "", 6),
        ("good.example", me, 7),
    ] {
        say(&mut client, &ask(site, extra)).await;
        if sites.len() < number {
            sites.push(port.tor.far_end().await);
        }
        let calls = sites.len();
        let current = &mut sites[number - 1];
        hear(current, &format!("GET / HTTP/1.1\nHost: {site}\n\n")).await;
        say(current, YES).await;
        expect_yes(&mut client).await;
        assert_eq!(port.tor.calls().len(), calls, "{site} {extra}");
    }
    // Those that had to go are closed.
    for number in [1, 3, 4] {
        sites[number - 1].expect_end().await;
    }
    // After the user has asked for new circuits, old connections carry no new request.
    port.shared().epoch.advance();
    say(&mut client, GET).await;
    hear(&mut port.tor.far_end().await, GOT).await;
    assert_eq!(port.tor.calls().len(), 8);
    for number in [2, 5, 6, 7] {
        sites[number - 1].expect_end().await;
    }
    // Nor does another client get one.
    let (mut another, _served) = port.http_client();
    say(&mut another, GET).await;
    hear(&mut port.tor.far_end().await, GOT).await;
    assert_eq!(port.tor.calls().len(), 9);
}

#[tokio::test]
async fn a_request_is_sent_again_when_the_idle_connection_is_gone() {
    let port = port();
    let (mut client, _served) = port.http_client();
    for _ in 0..3 {
        say(&mut client, GET).await;
        let mut site = port.tor.far_end().await;
        hear(&mut site, GOT).await;
        say(&mut site, YES).await;
        expect_yes(&mut client).await;
        // The site closes it, as sites do after some seconds.
        drop(site);
    }
    // It takes a request, and closes instead of answering: only a first one is answered so.
    say(&mut client, GET).await;
    let mut site = port.tor.far_end().await;
    hear(&mut site, GOT).await;
    say(&mut site, YES).await;
    expect_yes(&mut client).await;
    say(&mut client, GET).await;
    hear(&mut site, GOT).await;
    drop(site);
    let mut site = port.tor.far_end().await;
    hear(&mut site, GOT).await;
    drop(site);
    assert_eq!(answer(&mut client).await.status, 502);
    assert_eq!(port.tor.calls().len(), 5);
}

#[tokio::test]
async fn what_changes_something_at_the_site_is_never_sent_twice() {
    let port = port();
    let (mut client, _served) = port.http_client();
    say(&mut client, GET).await;
    let mut site = port.tor.far_end().await;
    hear(&mut site, GOT).await;
    say(&mut site, YES).await;
    expect_yes(&mut client).await;
    say(
        &mut client,
        "POST http://good.example/ HTTP/1.1\nHost: good.example\nContent-Length: 0\n\n",
    )
    .await;
    hear(
        &mut site,
        "POST / HTTP/1.1\nHost: good.example\nContent-Length: 0\n\n",
    )
    .await;
    drop(site);
    assert_eq!(answer(&mut client).await.status, 502);
    assert_eq!(port.tor.calls().len(), 1);
}

#[tokio::test]
async fn sites_are_left_when_the_connection_becomes_something_else() {
    let websocket = "GET http://other.example/ HTTP/1.1\nHost: other.example\n\
                     Connection: Upgrade\nUpgrade: websocket\n\n";
    for ask in ["CONNECT other.example:80 HTTP/1.1\n\n", websocket] {
        let port = port();
        let (mut client, _served) = port.http_client();
        say(&mut client, GET).await;
        let mut site = port.tor.far_end().await;
        hear(&mut site, GOT).await;
        say(&mut site, YES).await;
        expect_yes(&mut client).await;
        say(&mut client, ask).await;
        let mut other = port.tor.far_end().await;
        if ask == websocket {
            head(&mut other).await;
            let switch =
                "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n";
            say(&mut other, switch).await;
        }
        head(&mut client).await;
        site.expect_end().await;
        // The rest goes on.
        say(&mut client, "hello").await;
        hear(&mut other, "hello").await;
    }
}

#[tokio::test]
async fn an_idle_client_is_left_after_the_timeout() {
    let port = port().with_timeout(Duration::from_millis(300));
    let (mut client, served) = port.http_client();
    say(&mut client, GET).await;
    let mut site = port.tor.far_end().await;
    hear(&mut site, GOT).await;
    say(&mut site, YES).await;
    expect_yes(&mut client).await;
    client.expect_end().await;
    drop(client);
    served.end().await;
    site.expect_end().await;
}
