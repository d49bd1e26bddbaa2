//! Connections to sites: when they are reused for later requests, and when they are closed.

use std::time::Duration;

use super::{FORWARDED_GET, GET, SWITCHING, YES, complete_get, expect_yes, port};
use crate::support::client::Client;
use crate::support::http::{expect_text, read_head, read_response, send_text};

#[tokio::test]
async fn a_connection_is_reused_only_for_the_same_site_and_isolation() {
    let port = port();
    let (mut client, _served) = port.http_client();
    let me = "Proxy-Authorization: Basic bWU6\n";
    let request =
        |site: &str, extra: &str| format!("GET http://{site}/ HTTP/1.1\nHost: {site}\n{extra}\n");
    let mut sites: Vec<Client> = Vec::new();
    // The numbers are those of the streams that carry the requests. At most four are kept.
    for (site, extra, number) in [
        ("good.example", "", 1),
        ("good.example", "", 1),
        ("other.example", "", 2),
        ("good.example", "", 1),
        ("other.example", "", 2),
        ("good.example", me, 3),
        ("good.example", me, 3),
        ("good.example", "Tor-Stream-Isolation: a\n", 4),
        // A fifth stream closes the one that was unused for the longest time.
        ("good.example", "Tor-Family-Preference: ipv6-preferred\n", 5),
        ("other.example", "", 2),
        ("good.example", "", 6),
        ("good.example", me, 7),
    ] {
        send_text(&mut client, &request(site, extra)).await;
        if sites.len() < number {
            sites.push(port.tor.accept_stream().await);
        }
        let calls = sites.len();
        let current = &mut sites[number - 1];
        expect_text(current, &format!("GET / HTTP/1.1\nHost: {site}\n\n")).await;
        send_text(current, YES).await;
        expect_yes(&mut client).await;
        assert_eq!(port.tor.calls().len(), calls, "{site} {extra}");
    }
    // The replaced connections are closed.
    for number in [1, 3, 4] {
        sites[number - 1].expect_end().await;
    }
    // After a "new identity", old connections carry no new requests.
    port.shared().epoch.advance();
    send_text(&mut client, GET).await;
    expect_text(&mut port.tor.accept_stream().await, FORWARDED_GET).await;
    assert_eq!(port.tor.calls().len(), 8);
    for number in [2, 5, 6, 7] {
        sites[number - 1].expect_end().await;
    }
    // Connections are not shared between clients.
    let (mut another, _served) = port.http_client();
    send_text(&mut another, GET).await;
    expect_text(&mut port.tor.accept_stream().await, FORWARDED_GET).await;
    assert_eq!(port.tor.calls().len(), 9);
}

#[tokio::test]
async fn a_request_is_retried_if_the_idle_connection_has_closed() {
    let port = port();
    let (mut client, _served) = port.http_client();
    for _ in 0..3 {
        send_text(&mut client, GET).await;
        let mut site = port.tor.accept_stream().await;
        complete_get(&mut site, &mut client).await;
        // The site closes the idle connection.
        drop(site);
    }
    // A site that closes instead of responding gets a second try only on a reused connection.
    send_text(&mut client, GET).await;
    let mut site = port.tor.accept_stream().await;
    complete_get(&mut site, &mut client).await;
    send_text(&mut client, GET).await;
    expect_text(&mut site, FORWARDED_GET).await;
    drop(site);
    let mut site = port.tor.accept_stream().await;
    expect_text(&mut site, FORWARDED_GET).await;
    drop(site);
    assert_eq!(read_response(&mut client).await.status, 502);
    assert_eq!(port.tor.calls().len(), 5);
}

#[tokio::test]
async fn a_post_is_never_retried() {
    let port = port();
    let (mut client, _served) = port.http_client();
    send_text(&mut client, GET).await;
    let mut site = port.tor.accept_stream().await;
    complete_get(&mut site, &mut client).await;
    send_text(
        &mut client,
        "POST http://good.example/ HTTP/1.1\nHost: good.example\nContent-Length: 0\n\n",
    )
    .await;
    expect_text(
        &mut site,
        "POST / HTTP/1.1\nHost: good.example\nContent-Length: 0\n\n",
    )
    .await;
    drop(site);
    assert_eq!(read_response(&mut client).await.status, 502);
    assert_eq!(port.tor.calls().len(), 1);
}

#[tokio::test]
async fn idle_connections_are_closed_when_the_clients_connection_becomes_a_tunnel() {
    let websocket = "GET http://other.example/ HTTP/1.1\nHost: other.example\n\
                     Connection: Upgrade\nUpgrade: websocket\n\n";
    for request in ["CONNECT other.example:80 HTTP/1.1\n\n", websocket] {
        let port = port();
        let (mut client, _served) = port.http_client();
        send_text(&mut client, GET).await;
        let mut site = port.tor.accept_stream().await;
        complete_get(&mut site, &mut client).await;
        send_text(&mut client, request).await;
        let mut other = port.tor.accept_stream().await;
        if request == websocket {
            read_head(&mut other).await;
            send_text(&mut other, SWITCHING).await;
        }
        read_head(&mut client).await;
        site.expect_end().await;
        send_text(&mut client, "hello").await;
        expect_text(&mut other, "hello").await;
    }
}

#[tokio::test]
async fn an_idle_clients_connection_is_closed_after_the_timeout() {
    let port = port().with_timeout(Duration::from_millis(300));
    let (mut client, served) = port.http_client();
    send_text(&mut client, GET).await;
    let mut site = port.tor.accept_stream().await;
    complete_get(&mut site, &mut client).await;
    client.expect_end().await;
    drop(client);
    served.wait().await;
    site.expect_end().await;
}
