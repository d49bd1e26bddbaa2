//! CONNECT.

use std::time::Duration;

use onionport::failure::Failure;
use onionport::tor::destination::Family;

use super::{SITE, expect_tunnel, port, status_codes, use_and_end_tunnel};
use crate::support::ONION;
use crate::support::client::End;
use crate::support::http::{expect_text, read_response, read_response_to, send_text};
use crate::support::scripted::Plan;
use crate::support::serve::{Port, V4};
use crate::support::socks::{CONNECT_GOOD, SUCCEEDED, send_request};

#[tokio::test]
async fn a_tunnel_carries_everything_sent_before_it_was_open() {
    let port = Port::new("", [(SITE, Plan::OpenLater)]);
    let (mut client, served) = port.http_client_with(64 * 1024, V4);
    send_text(
        &mut client,
        "CONNECT good.example:80 HTTP/1.1\n\nbehind the head, ",
    )
    .await;
    port.tor.wait_for_running(1).await;
    let late = "later. ".repeat(1000);
    send_text(&mut client, &late).await;
    port.tor.release();
    expect_tunnel(&mut client).await;
    let mut site = port.tor.accept_stream().await;
    expect_text(&mut site, "behind the head, ").await;
    expect_text(&mut site, &late).await;
    use_and_end_tunnel(client, site, served).await;
}

#[tokio::test]
async fn a_head_may_come_in_any_two_parts() {
    let request =
        "CONNECT good.example:80 HTTP/1.1\r\nHost: a\r\nTor-Stream-Isolation: b\r\n\r\nbehind";
    for cut in 1..request.len() {
        let port = port();
        let (mut client, _served) = port.http_client();
        let (first, second) = request.as_bytes().split_at(cut);
        client.send_bytes(first).await;
        // Lets the server read the first part.
        tokio::task::yield_now().await;
        client.send_bytes(second).await;
        expect_tunnel(&mut client).await;
        let mut site = port.tor.accept_stream().await;
        expect_text(&mut site, "behind").await;
        assert_eq!(port.tor.calls().len(), 1, "{cut}");
    }
}

#[tokio::test]
async fn a_tunnel_opens_for_http_1_0_too() {
    let port = port();
    let (mut client, _served) = port.http_client();
    send_text(&mut client, "CONNECT good.example:80 HTTP/1.0\n\n").await;
    let opened = read_response_to("CONNECT", &mut client).await;
    assert_eq!(opened.line, "HTTP/1.0 200 Connection established");
    let mut site = port.tor.accept_stream().await;
    send_text(&mut client, "to").await;
    expect_text(&mut site, "to").await;
    drop(site);
    client.expect_end().await;
}

#[tokio::test]
async fn every_failure_is_reported_in_status_and_headers() {
    for &failure in Failure::ALL {
        let port = Port::new("", [("fails.example:80", Plan::Fail(failure))]);
        let (mut client, _served) = port.http_client();
        send_text(
            &mut client,
            "CONNECT fails.example:80 HTTP/1.1\nHost: fails.example\n\n",
        )
        .await;
        let response = read_response(&mut client).await;
        let row = failure.row();
        let (status, tokens) = status_codes::expected_status(failure);
        assert_eq!(response.status, status, "{failure:?}");
        assert!(
            response.line.ends_with(&format!("({})", row.name)),
            "{response:?}"
        );
        assert_eq!(response.header("tor-request-failed"), Some(tokens));
        assert!(response.header("via").is_some() && response.header("tor-capabilities").is_some());
        assert!(response.text().contains(row.sentence), "{response:?}");
        assert_eq!(port.shared().status.report().failures[0].0, failure);
        // The next bytes may be meant for the tunnel, so they must not be parsed as a request.
        assert_eq!(response.header("connection"), Some("close"));
        client.expect_end().await;
    }
}

#[tokio::test]
async fn an_onion_failure_has_onionports_token_and_c_tors() {
    for (failure, tokens) in [
        (
            Failure::DescriptorNotFound,
            "onionport/HS-DESC-NOT-FOUND end/RESOLVEFAILED",
        ),
        (
            Failure::RendezvousFailed,
            "onionport/HS-REND-FAILED end/TIMEOUT",
        ),
        (
            Failure::ClientAuthWrong,
            "onionport/HS-CLIENT-AUTH-WRONG end/MISC",
        ),
        (Failure::StreamClosed, "end/DONE"),
    ] {
        let port = Port::new("", [(format!("{ONION}:80"), Plan::Fail(failure))]);
        let (mut client, _served) = port.http_client();
        send_text(
            &mut client,
            &format!("CONNECT {ONION}:80 HTTP/1.1\nHost: a\n\n"),
        )
        .await;
        let response = read_response(&mut client).await;
        assert_eq!(response.header("tor-request-failed"), Some(tokens));
    }
    let port = Port::new("", Vec::<(String, Plan)>::new());
    let (mut client, _served) = port.http_client();
    send_text(
        &mut client,
        "CONNECT nonsense.onion:80 HTTP/1.1\nHost: a\n\n",
    )
    .await;
    let response = read_response(&mut client).await;
    let tokens = "onionport/HS-BAD-ADDRESS end/TORPROTOCOL";
    assert_eq!(
        (response.status, response.header("tor-request-failed")),
        (400, Some(tokens))
    );
    assert!(port.tor.calls().is_empty());
}

#[tokio::test]
async fn headers_isolate_unless_the_port_disables_it() {
    let header_sets = [
        "",
        "Proxy-Authorization: Basic dG9yOmE=\n",
        "Proxy-Authorization: Basic dG9yLWlzbzph\n",
        "Tor-Stream-Isolation: a\n",
        "X-Tor-Stream-Isolation: a\n",
        "Tor-Stream-Isolation: a\nX-Tor-Stream-Isolation: a\n",
    ];
    for (flags, apart) in [("", true), ("NoIsolateSOCKSAuth", false)] {
        let port = Port::new(flags, [(SITE, Plan::Open)]);
        for headers in header_sets {
            let (mut client, _served) = port.http_client();
            let request = format!("CONNECT good.example:80 HTTP/1.1\nHost: a\n{headers}\n");
            send_text(&mut client, &request).await;
            expect_tunnel(&mut client).await;
        }
        let calls = port.tor.calls();
        assert_eq!(calls.len(), header_sets.len());
        for (i, one) in calls.iter().enumerate() {
            for (j, other) in calls.iter().enumerate() {
                let shared = one.isolation.is_compatible(&other.isolation);
                assert_eq!(shared, !apart || i == j, "{flags} {i} {j}");
            }
        }
    }
}

#[tokio::test]
async fn the_preferred_family_must_be_one_that_the_port_allows() {
    use Family::{V4Only, V4Preferred, V6Only, V6Preferred};
    for (flags, family, status, passed_on) in [
        ("NoIPv6Traffic", "ipv6-only", 403, None),
        ("NoIPv6Traffic", "ipv6-preferred", 200, Some(V4Only)),
        ("NoIPv6Traffic", "nonsense", 200, Some(V4Only)),
        ("NoIPv4Traffic IPv6Traffic", "ipv4-only", 403, None),
        (
            "NoIPv4Traffic IPv6Traffic",
            "ipv4-preferred",
            200,
            Some(V6Only),
        ),
        ("NoIPv4Traffic IPv6Traffic", "ipv6-only", 200, Some(V6Only)),
        ("", "ipv4-only", 200, Some(V4Only)),
        ("", "ipv6-only", 200, Some(V6Only)),
        ("", "ipv6-preferred", 200, Some(V6Preferred)),
        ("PreferIPv6", "ipv4-preferred", 200, Some(V4Preferred)),
        ("PreferIPv6", "nonsense", 200, Some(V4Preferred)),
    ] {
        let ipv6 = "2001:db8::1";
        let ipv6_target = format!("{ipv6}:80");
        let port = Port::new(
            flags,
            [
                (SITE, Plan::Open),
                // Without IPv4, the port resolves the name first and connects to the address.
                (
                    "good.example",
                    Plan::Addresses(vec![ipv6.parse().expect("an address")]),
                ),
                (&ipv6_target, Plan::Open),
            ],
        );
        let (mut client, _served) = port.http_client();
        let header = format!("Tor-Family-Preference: {family}");
        send_text(
            &mut client,
            &format!("CONNECT good.example:80 HTTP/1.1\n{header}\n\n"),
        )
        .await;
        assert_eq!(
            read_response_to("CONNECT", &mut client).await.status,
            status,
            "{family}"
        );
        let requested = port.tor.calls().last().and_then(|call| call.family);
        assert_eq!(requested, passed_on, "{flags}: {family}");
    }
}

#[tokio::test]
async fn socks_and_http_clients_share_circuits_unless_the_port_isolates_protocols() {
    for (flags, shared) in [("", true), ("IsolateClientProtocol", false)] {
        let port = Port::new(flags, [(SITE, Plan::Open)]);
        let (mut client, _served) = port.http_client();
        send_text(&mut client, "CONNECT good.example:80 HTTP/1.1\n\n").await;
        expect_tunnel(&mut client).await;
        let (mut client, _served) = port.client(V4);
        send_request(&mut client, CONNECT_GOOD).await;
        client.expect(SUCCEEDED).await;
        let calls = port.tor.calls();
        let compatible = calls[0].isolation.is_compatible(&calls[1].isolation);
        assert_eq!(compatible, shared, "{flags}");
    }
}

#[tokio::test]
async fn a_request_is_dropped_when_its_client_disconnects() {
    let port = Port::new("", [(SITE, Plan::Never)]);
    let (mut client, served) = port.http_client();
    send_text(&mut client, "CONNECT good.example:80 HTTP/1.1\n\n").await;
    port.tor.wait_for_running(1).await;
    drop(client);
    port.tor.wait_for_running(0).await;
    served.wait().await;
}

#[tokio::test]
async fn a_stream_is_closed_if_its_client_disconnects_before_the_response() {
    let port = port();
    // Too small for the response, so that writing it has to wait.
    let (mut client, served) = port.http_client_with(16, V4);
    send_text(&mut client, "CONNECT good.example:80 HTTP/1.1\n\n").await;
    let mut site = port.tor.accept_stream().await;
    drop(client);
    site.expect_end().await;
    served.wait().await;
}

#[tokio::test]
async fn an_incomplete_head_is_dropped_after_the_timeout_without_a_response() {
    for sent in ["", "CONNECT good.example:80 HTTP/1.1\n", "GET"] {
        let port = port().with_timeout(Duration::from_millis(300));
        let (mut client, served) = port.http_client();
        send_text(&mut client, sent).await;
        let (got, end) = client.read_to_end().await;
        assert_eq!((got.as_slice(), end), (&b""[..], End::Closed), "{sent}");
        drop(client);
        served.wait().await;
    }
}
