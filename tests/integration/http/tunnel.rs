//! CONNECT.

use std::time::Duration;

use onionport::failure::Failure;
use onionport::tor::destination::Family;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;

use super::{SITE, statuses};
use crate::support::ONION;
use crate::support::client::{Client, End};
use crate::support::http::{answer, answer_to, hear, say};
use crate::support::kernel::finished_sending;
use crate::support::random::Random;
use crate::support::scripted::Plan;
use crate::support::serve::{Port, V4};

async fn open(client: &mut Client) {
    let opened = answer_to("CONNECT", client).await;
    assert_eq!(opened.line, "HTTP/1.1 200 Connection established");
    let via = concat!(
        "tor/1.0 tor-network (onionport ",
        env!("CARGO_PKG_VERSION"),
        ")"
    );
    assert_eq!(opened.header("via"), Some(via));
    assert_eq!(opened.header("tor-capabilities"), Some(""));
    assert_eq!(opened.header("content-length"), None);
    assert_eq!(opened.header("transfer-encoding"), None);
}

#[tokio::test]
async fn a_tunnel_loses_nothing_that_was_said_before_it_was_open() {
    let port = Port::new("", [(SITE, Plan::Held)]);
    let (mut client, served) = port.http_client_with(64 * 1024, V4);
    say(
        &mut client,
        "CONNECT good.example:80 HTTP/1.1\n\nbehind the head, ",
    )
    .await;
    port.tor.wait_for_running(1).await;
    let late = "later. ".repeat(1000);
    say(&mut client, &late).await;
    port.tor.release();
    open(&mut client).await;
    let mut site = port.tor.far_end().await;
    hear(&mut site, "behind the head, ").await;
    hear(&mut site, &late).await;
    say(&mut site, "and back").await;
    hear(&mut client, "and back").await;
    client.finish().await;
    site.expect_end().await;
    drop(site);
    client.expect_end().await;
    served.end().await;
}

#[tokio::test]
async fn a_head_may_come_in_any_two_parts() {
    let ask =
        "CONNECT good.example:80 HTTP/1.1\r\nHost: a\r\nTor-Stream-Isolation: b\r\n\r\nbehind";
    for cut in 1..ask.len() {
        let port = Port::new("", [(SITE, Plan::Open)]);
        let (mut client, _served) = port.http_client();
        let (first, second) = ask.as_bytes().split_at(cut);
        client.send_bytes(first).await;
        // Lets the other side take what there is.
        tokio::task::yield_now().await;
        client.send_bytes(second).await;
        open(&mut client).await;
        let mut site = port.tor.far_end().await;
        hear(&mut site, "behind").await;
        assert_eq!(port.tor.calls().len(), 1, "{cut}");
    }
}

#[tokio::test]
async fn an_old_client_gets_a_tunnel_too() {
    let port = Port::new("", [(SITE, Plan::Open)]);
    let (mut client, _served) = port.http_client();
    say(&mut client, "CONNECT good.example:80 HTTP/1.0\n\n").await;
    let opened = answer_to("CONNECT", &mut client).await;
    assert_eq!(opened.line, "HTTP/1.0 200 Connection established");
    let mut site = port.tor.far_end().await;
    say(&mut client, "to").await;
    hear(&mut site, "to").await;
    drop(site);
    client.expect_end().await;
}

#[tokio::test]
async fn every_failure_is_told_in_status_and_headers() {
    for &failure in Failure::ALL {
        let port = Port::new("", [("fails.example:80", Plan::Fail(failure))]);
        let (mut client, _served) = port.http_client();
        say(
            &mut client,
            "CONNECT fails.example:80 HTTP/1.1\nHost: fails.example\n\n",
        )
        .await;
        let told = answer(&mut client).await;
        let row = failure.row();
        let (status, tokens) = statuses::of(failure);
        assert_eq!(told.status, status, "{failure:?}");
        assert!(told.line.ends_with(&format!("({})", row.name)), "{told:?}");
        assert_eq!(told.header("tor-request-failed"), Some(tokens));
        assert!(told.header("via").is_some() && told.header("tor-capabilities").is_some());
        assert!(told.text().contains(row.sentence), "{told:?}");
        assert_eq!(port.shared().status.report().failures[0].0, failure);
        // What comes next may be meant for the tunnel.
        assert_eq!(told.header("connection"), Some("close"));
        client.expect_end().await;
    }
}

#[tokio::test]
async fn an_onion_failure_has_our_token_and_c_tors() {
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
        say(
            &mut client,
            &format!("CONNECT {ONION}:80 HTTP/1.1\nHost: a\n\n"),
        )
        .await;
        let told = answer(&mut client).await;
        assert_eq!(told.header("tor-request-failed"), Some(tokens));
    }
    let port = Port::new("", Vec::<(String, Plan)>::new());
    let (mut client, _served) = port.http_client();
    say(
        &mut client,
        "CONNECT nonsense.onion:80 HTTP/1.1\nHost: a\n\n",
    )
    .await;
    let told = answer(&mut client).await;
    let tokens = "onionport/HS-BAD-ADDRESS end/TORPROTOCOL";
    assert_eq!(
        (told.status, told.header("tor-request-failed")),
        (400, Some(tokens))
    );
    assert!(port.tor.calls().is_empty());
}

#[tokio::test]
async fn headers_isolate_and_the_port_may_say_that_they_do_not() {
    let asks = [
        "",
        "Proxy-Authorization: Basic dG9yOmE=\n",
        "Proxy-Authorization: Basic dG9yLWlzbzph\n",
        "Tor-Stream-Isolation: a\n",
        "X-Tor-Stream-Isolation: a\n",
        "Tor-Stream-Isolation: a\nX-Tor-Stream-Isolation: a\n",
    ];
    for (flags, apart) in [("", true), ("NoIsolateSOCKSAuth", false)] {
        let port = Port::new(flags, [(SITE, Plan::Open)]);
        for headers in asks {
            let (mut client, _served) = port.http_client();
            let ask = format!("CONNECT good.example:80 HTTP/1.1\nHost: a\n{headers}\n");
            say(&mut client, &ask).await;
            open(&mut client).await;
        }
        let calls = port.tor.calls();
        assert_eq!(calls.len(), asks.len());
        for (i, one) in calls.iter().enumerate() {
            for (j, other) in calls.iter().enumerate() {
                let shared = one.isolation.is_compatible(&other.isolation);
                assert_eq!(shared, !apart || i == j, "{flags} {i} {j}");
            }
        }
    }
}

#[tokio::test]
async fn the_family_that_a_client_prefers_must_be_one_that_the_port_carries() {
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
        let six = "2001:db8::1";
        let there = format!("{six}:80");
        let port = Port::new(
            flags,
            [
                (SITE, Plan::Open),
                // For exits that must not use IPv4.
                (
                    "good.example",
                    Plan::Addresses(vec![six.parse().expect("an address")]),
                ),
                (&there, Plan::Open),
            ],
        );
        let (mut client, _served) = port.http_client();
        let header = format!("Tor-Family-Preference: {family}");
        say(
            &mut client,
            &format!("CONNECT good.example:80 HTTP/1.1\n{header}\n\n"),
        )
        .await;
        assert_eq!(
            answer_to("CONNECT", &mut client).await.status,
            status,
            "{family}"
        );
        let asked = port.tor.calls().last().and_then(|call| call.family);
        assert_eq!(asked, passed_on, "{flags}: {family}");
    }
}

/// A socket that is closed before the client has read everything is reset by whatever the client still
/// says, and what it has not read is lost.
#[tokio::test]
async fn the_end_of_an_answer_is_not_lost_to_a_client_that_talks_on() {
    let answer: &'static [u8] = Random::new(8).bytes(500_000).leak();
    let port = Port::new("", [(SITE, Plan::Open)]);
    let (mut client, served) = port.http_tcp_client().await;
    let ask = b"CONNECT good.example:80 HTTP/1.1\r\n\r\n";
    client.write_all(ask).await.expect("written");
    let mut told = Vec::new();
    while !told.ends_with(b"\r\n\r\n") {
        told.push(client.read_u8().await.expect("an answer"));
    }
    let mut far = port.tor.far_end().await;
    far.send_bytes(answer).await;
    drop(far);
    // Until the program has said all of it: then it has finished sending, or has hung up.
    finished_sending(&client).await;
    // It fails if it comes too late, and that is the point.
    let _ = client.write_all(b"and another thing").await;
    sleep(Duration::from_millis(10)).await;
    let (heard, _) = Client::over(client).rest().await;
    assert!(heard == answer, "{} of {} bytes", heard.len(), answer.len());
    served.end().await;
}

#[tokio::test]
async fn a_client_that_speaks_socks_shares_with_one_that_speaks_http_unless_the_port_says_no() {
    for (flags, shared) in [("", true), ("IsolateClientProtocol", false)] {
        let port = Port::new(flags, [(SITE, Plan::Open)]);
        let (mut client, _served) = port.http_client();
        say(&mut client, "CONNECT good.example:80 HTTP/1.1\n\n").await;
        open(&mut client).await;
        let (mut client, _served) = port.client(V4);
        client.send("05 01 00").await;
        client.expect("05 00").await;
        client
            .send("05 01 00 03 0c 676f6f642e6578616d706c65 0050")
            .await;
        client.expect("05 00 00 01 00000000 0000").await;
        let calls = port.tor.calls();
        let compatible = calls[0].isolation.is_compatible(&calls[1].isolation);
        assert_eq!(compatible, shared, "{flags}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_not_served_any_more() {
    let port = Port::new("", [(SITE, Plan::Never)]);
    let (mut client, served) = port.http_client();
    say(&mut client, "CONNECT good.example:80 HTTP/1.1\n\n").await;
    port.tor.wait_for_running(1).await;
    drop(client);
    port.tor.wait_for_running(0).await;
    served.end().await;
}

#[tokio::test]
async fn a_client_that_leaves_before_it_has_its_answer_leaves_nothing_behind() {
    let port = Port::new("", [(SITE, Plan::Open)]);
    // The answer does not fit.
    let (mut client, served) = port.http_client_with(16, V4);
    say(&mut client, "CONNECT good.example:80 HTTP/1.1\n\n").await;
    let mut site = port.tor.far_end().await;
    drop(client);
    site.expect_end().await;
    served.end().await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_left_after_the_timeout_without_a_word() {
    for said in ["", "CONNECT good.example:80 HTTP/1.1\n", "GET"] {
        let port = Port::new("", [(SITE, Plan::Open)]).with_timeout(Duration::from_millis(300));
        let (mut client, served) = port.http_client();
        say(&mut client, said).await;
        let (got, end) = client.rest().await;
        assert_eq!((got.as_slice(), end), (&b""[..], End::Closed), "{said}");
        drop(client);
        served.end().await;
    }
}
