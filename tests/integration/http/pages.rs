//! onionport's own pages, and who gets them.

use onionport::failure::Failure;
use onionport::tor::BootstrapProgress;

use super::status_codes;
use crate::support::ONION;
use crate::support::client::Client;
use crate::support::http::{Response, read_response, read_response_to, send_text};
use crate::support::program::Program;
use crate::support::scripted::Plan;
use crate::support::serve::{Port, V4};

/// The `Accept` header of browsers.
pub const BROWSER: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\n";

/// Creates a port for which the onion service fails.
fn failing_port(failure: Failure) -> Port {
    Port::new("", [(format!("{ONION}:80"), Plan::Fail(failure))])
}

/// Requests `target` on a new connection.
pub async fn request_page(port: &Port, target: &str, headers: &str) -> Response {
    let (mut client, _served) = port.http_client_with(64 * 1024, V4);
    send_text(
        &mut client,
        &format!("GET {target} HTTP/1.1\nHost: a\n{headers}\n"),
    )
    .await;
    read_response(&mut client).await
}

/// Asserts what is true of every page: it loads nothing, and no other page can embed it.
pub fn assert_self_contained(page: &Response) {
    let text = page
        .text()
        .replacen("<link rel=\"icon\" href=\"data:,\">", "", 1);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    assert_eq!(
        page.header("cross-origin-resource-policy"),
        Some("same-origin")
    );
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'; style-src 'nonce-"),
        "{policy}"
    );
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("base-uri 'none'"));
    assert!(
        !policy.contains("unsafe") && !policy.contains("script-src"),
        "{policy}"
    );
    let nonce = policy
        .split("nonce-")
        .nth(1)
        .and_then(|n| n.split('\'').next());
    let nonce = nonce.expect("a nonce");
    assert!(nonce.len() >= 32 && text.contains(&format!("<style nonce=\"{nonce}\">")));
    for foreign in [
        "<script",
        "<img",
        "<link",
        "<iframe",
        "src=",
        "url(",
        "@import",
        " style=",
        " onload=",
        " onclick=",
        " onerror=",
    ] {
        assert!(!text.contains(foreign), "{foreign:?} in {text}");
    }
}

#[tokio::test]
async fn every_failure_has_its_page() {
    for &failure in Failure::ALL {
        let row = failure.row();
        let page = request_page(
            &failing_port(failure),
            &format!("http://{ONION}/x?y=z"),
            BROWSER,
        )
        .await;
        let (status, expected) = status_codes::expected_status(failure);
        assert_eq!(page.status, status, "{failure:?}");
        assert_self_contained(&page);
        let text = page.text();
        let code = format!("<b>{:02X}</b> · {}", row.extended, row.name);
        assert!(text.contains(&code), "{code} in {text}");
        // Escaped for HTML.
        let sentence = row.sentence.replace('\'', "&#39;");
        assert!(text.contains(&sentence), "{sentence} in {text}");
        assert!(
            text.contains(&format!("href=\"http://{ONION}/x?y=z\"")),
            "{text}"
        );
        assert!(text.contains("<details>") && text.contains(row.token));
        assert!(text.contains(&format!(">{ONION}</span>")));
        assert_eq!(page.header("tor-request-failed"), Some(expected));
    }
}

#[tokio::test]
async fn a_client_that_does_not_accept_html_gets_a_line_of_text() {
    for accept in [
        "",
        "Accept: */*\n",
        "Accept: image/webp,*/*\n",
        "Accept: text/html;q=0\n",
    ] {
        let port = failing_port(Failure::IntroductionFailed);
        let response = request_page(&port, &format!("http://{ONION}/"), accept).await;
        assert_eq!(response.status, 503);
        assert_eq!(
            response.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert!(
            response.text().starts_with("F2 introduction failed: "),
            "{response:?}"
        );
    }
}

#[tokio::test]
async fn parts_of_the_request_are_escaped() {
    let port = failing_port(Failure::DescriptorNotFound);
    let target = format!("http://{ONION}/'--><b>&\"x\"=%3Cscript%3E?<img+src=x>");
    let page = request_page(&port, &target, BROWSER).await;
    // hyper may refuse such a target.
    if page.status == 503 {
        assert_self_contained(&page);
        let text = page.text();
        assert!(!text.contains("<b>&") && !text.contains("--><b>") && !text.contains("<img"));
    } else {
        assert_eq!(page.status, 400);
    }
    let page = request_page(&port, &format!("http://{ONION}/a'b&c=d"), BROWSER).await;
    assert_self_contained(&page);
    assert!(!page.text().contains("a'b&c"), "{}", page.text());
}

#[tokio::test]
async fn the_failure_page_links_to_the_url_only_if_a_get_requested_it() {
    let port = failing_port(Failure::DescriptorNotFound);
    let (mut client, _served) = port.http_client_with(64 * 1024, V4);
    let request =
        format!("POST http://{ONION}/ HTTP/1.1\nHost: a\n{BROWSER}Content-Length: 3\n\na=b");
    send_text(&mut client, &request).await;
    let page = read_response(&mut client).await;
    assert_eq!(page.status, 503);
    assert!(
        !page.text().contains("<a class=\"button\""),
        "{}",
        page.text()
    );
    assert!(page.text().contains("send it again"));
}

#[tokio::test]
async fn without_a_key_folder_the_page_explains_how_to_set_one() {
    for failure in [Failure::ClientAuthMissing, Failure::ClientAuthWrong] {
        let page = request_page(&failing_port(failure), &format!("http://{ONION}/"), BROWSER).await;
        assert_self_contained(&page);
        assert!(page.text().contains("client_onion_auth_dir"));
        assert!(!page.text().contains("onionport.invalid/key"));
    }
}

#[tokio::test]
async fn the_status_page_shows_progress_and_failures_but_no_destinations() {
    let port = failing_port(Failure::RendezvousFailed);
    request_page(&port, &format!("http://{ONION}/"), "").await;
    port.shared()
        .status
        .set_ports(vec!["http 127.0.0.1:9080".to_owned()]);
    port.shared()
        .status
        .set_progress(BootstrapProgress::Step("5%: <connecting>"));
    for (target, headers) in [
        ("http://onionport.invalid/", "Accept: text/html\n"),
        ("http://onionport.invalid/", ""),
    ] {
        let page = request_page(&port, target, headers).await;
        assert_eq!(page.status, 200);
        let text = page.text();
        for part in [
            "F3",
            "rendezvous failed",
            "http 127.0.0.1:9080",
            env!("CARGO_PKG_VERSION"),
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains(&ONION[..20]), "{text}");
        if !headers.is_empty() {
            assert_self_contained(&page);
            assert!(text.contains("5%: &#60;connecting&#62;"), "{text}");
        }
    }
    let page = request_page(&port, "http://onionport.invalid/", BROWSER).await;
    assert!(page.text().contains("cannot fetch the file"));
    port.shared()
        .status
        .set_progress(BootstrapProgress::Connected);
    for host in ["localhost:9080", "127.0.0.1:9080", "[::1]:9080", "[::1]"] {
        let (mut client, _served) = port.http_client();
        send_text(&mut client, &format!("GET / HTTP/1.1\nHost: {host}\n\n")).await;
        let response = read_response(&mut client).await;
        assert!(
            response.text().contains("\nconnected to the Tor network\n"),
            "{host}: {response:?}"
        );
    }
}

#[tokio::test]
async fn a_pac_file_configures_browsers() {
    let port = failing_port(Failure::Internal);
    for (request, proxy) in [
        (
            "GET /proxy.pac HTTP/1.1\nHost: localhost:8000\n\n",
            "localhost:8000",
        ),
        ("GET /proxy.pac HTTP/1.1\nHost: [::1]\n\n", "[::1]:9080"),
        (
            "GET http://onionport.invalid/proxy.pac HTTP/1.1\nHost: a\n\n",
            "127.0.0.1:9080",
        ),
    ] {
        for all in [false, true] {
            let (mut client, _served) = port.http_client();
            let query = if all { "/proxy.pac?all" } else { "/proxy.pac" };
            send_text(&mut client, &request.replace("/proxy.pac", query)).await;
            let file = read_response(&mut client).await;
            let kind = file.header("content-type");
            assert_eq!(kind, Some("application/x-ns-proxy-autoconfig"));
            let text = file.text();
            assert!(
                text.contains(&format!("return \"PROXY {proxy}\";")),
                "{text}"
            );
            assert_eq!(text.contains("DIRECT"), !all, "{text}");
            assert_eq!(text.contains("*.onion"), !all, "{text}");
            // Requests for the proxy must not fall back to a direct connection.
            assert!(!text.contains("; DIRECT"), "{text}");
            // No PAC file can prevent this, so the file warns about it.
            assert!(text.starts_with(
                "// A browser that cannot fetch this file connects to every site without Tor"
            ));
            let fixed = format!("set {proxy} as the browser's HTTP and HTTPS proxy instead");
            assert_eq!(text.contains(&fixed), all, "{text}");
        }
    }
}

#[tokio::test]
async fn own_pages_accept_only_methods_that_read() {
    let port = failing_port(Failure::Internal);
    for (method, target, status) in [
        ("OPTIONS", "*", 200),
        ("OPTIONS", "http://onionport.invalid/", 200),
        ("HEAD", "/", 200),
        ("POST", "/", 405),
        ("DELETE", "http://onionport.invalid/", 405),
        ("GET", "/other", 404),
        ("GET", "/key/1", 404),
        ("POST", "/key", 405),
        ("GET", "http://onionport.invalid/key/1", 404),
    ] {
        let (mut client, _served) = port.http_client_with(64 * 1024, V4);
        let request = format!("{method} {target} HTTP/1.1\nHost: 127.0.0.1\nContent-Length: 0\n\n");
        send_text(&mut client, &request).await;
        let response = read_response_to(method, &mut client).await;
        assert_eq!(response.status, status, "{method} {target}");
        if [200, 405].contains(&status) && method != "HEAD" {
            let allowed = response.header("allow").expect("an Allow header");
            assert!(allowed.contains("CONNECT") && allowed.contains("OPTIONS"));
        }
        assert!(port.tor.calls().is_empty());
    }
}

#[tokio::test]
async fn a_unix_socket_serves_http_too() {
    let program = Program::offline().port("auto");
    let line = format!("unix:{}", program.folder().join("http").display());
    let daemon = program
        .config_lines(format!("http_port = {line:?}"))
        .start_with_ports(2);
    assert_eq!(daemon.addresses[1].to_string(), line);
    for (target, status, part) in [
        ("/", 200, format!("listening http {line}\n")),
        ("/proxy.pac", 404, "Unix socket".to_owned()),
        (
            "http://onionport.invalid/proxy.pac",
            404,
            "Unix socket".to_owned(),
        ),
        ("http://nonsense.onion/", 400, "F6 ".to_owned()),
    ] {
        let mut client = Client::connect(&daemon.addresses[1]).await;
        send_text(
            &mut client,
            &format!("GET {target} HTTP/1.1\nHost: localhost\n\n"),
        )
        .await;
        let response = read_response(&mut client).await;
        assert_eq!(response.status, status, "{target}");
        assert!(
            response.text().contains(&part),
            "{part} in {}",
            response.text()
        );
    }
    // No browser supports a proxy on a Unix socket, so the page does not offer a PAC file.
    let mut client = Client::connect(&daemon.addresses[1]).await;
    send_text(
        &mut client,
        &format!("GET / HTTP/1.1\nHost: localhost\n{BROWSER}\n"),
    )
    .await;
    let page = read_response(&mut client).await;
    assert_self_contained(&page);
    assert!(!page.text().contains("proxy.pac"), "{}", page.text());
}
