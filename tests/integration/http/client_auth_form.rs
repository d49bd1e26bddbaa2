//! The form for client authorization keys, and attempts to misuse it.

use std::fs;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt as _;

use arc_swap::ArcSwap;
use onionport::config::address_map::AddressMapSettings;
use onionport::failure::Failure;
use onionport::request::ClientAddr;
use onionport::request::address_map::AddressMap;
use onionport::request::dispatch::SharedState;
use tempfile::TempDir;

use super::pages::{BROWSER, assert_self_contained, request_page};
use crate::support::ONION;
use crate::support::hex::socks5_request;
use crate::support::http::{Response, read_response, send_text};
use crate::support::offline::CLIENT_AUTH_KEY;
use crate::support::program::private_folder;
use crate::support::scripted::Plan;
use crate::support::serve::{Port, V4, V6};
use crate::support::socks::greet;

/// The headers that a browser sends with onionport's own form.
const OWN_ORIGIN: &str = "Origin: http://onionport.invalid\n";
const FORM_TYPE: &str = "Content-Type: application/x-www-form-urlencoded\n";

/// A port for which the onion service fails, and its key folder.
struct KeyFormFixture {
    port: Port,
    keys: TempDir,
}

impl KeyFormFixture {
    fn new(failure: Failure) -> KeyFormFixture {
        let keys = private_folder();
        let plans = [(format!("{ONION}:80"), Plan::Fail(failure))];
        let port = Port::new("", plans).with_keys(keys.path());
        KeyFormFixture { port, keys }
    }

    /// Sends a request from the client with this address, on a new connection.
    async fn request_from(&self, address: ClientAddr, request: &str) -> Response {
        let (mut client, _served) = self.port.http_client_with(64 * 1024, address);
        send_text(&mut client, request).await;
        read_response(&mut client).await
    }

    async fn get(&self, target: &str) -> Response {
        request_page(&self.port, target, BROWSER).await
    }

    async fn post(&self, headers: &str, body: &str) -> Response {
        let request = format!(
            "POST http://onionport.invalid/key HTTP/1.1\nHost: onionport.invalid\n{headers}\
             Content-Length: {}\n\n",
            body.len()
        );
        self.request_from(V4, &format!("{request}{body}")).await
    }

    /// Posts a token and a key as onionport's own form does.
    async fn submit(&self, token: &str, key: &str) -> Response {
        let headers = format!("{OWN_ORIGIN}{FORM_TYPE}");
        let body = format!("token={token}&key={key}");
        self.post(&headers, &body).await
    }

    /// Returns the failure page's link to the form.
    async fn form_link(&self) -> String {
        let page = self.get(&format!("http://{ONION}/page?a=b&c")).await;
        assert_self_contained(&page);
        assert!(
            !page.text().contains("<form"),
            "the site can read this page, so it must not have the form"
        );
        text_between(page.text(), "href=\"", "\">Enter ").to_owned()
    }

    /// Returns the token in the form.
    async fn form_token(&self) -> String {
        let form = self.get(&self.form_link().await).await;
        assert_eq!(form.status, 200);
        token_in(&form)
    }

    /// Returns the virtual address that the onion service has for a SOCKS client.
    async fn resolve_onion(&self) -> Ipv6Addr {
        let (mut client, _served) = self.port.client(V4);
        greet(&mut client).await;
        client.send_bytes(&socks5_request(0xF0, ONION, 0)).await;
        client.expect("05 00 00 04").await;
        let (address, _) = client.read(16).await;
        let octets: [u8; 16] = address.try_into().expect("an IPv6 address");
        octets.into()
    }

    fn key_files(&self) -> Vec<String> {
        let files = fs::read_dir(self.keys.path()).expect("read the folder");
        let names = files.map(|f| {
            f.expect("read the folder")
                .file_name()
                .into_string()
                .expect("UTF-8")
        });
        names.collect()
    }
}

/// Returns the text between `end` and the last `start` before it.
fn text_between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (head, _) = text
        .split_once(end)
        .unwrap_or_else(|| panic!("no {end} in {text}"));
    head.rsplit_once(start)
        .unwrap_or_else(|| panic!("no {start} in {text}"))
        .1
}

fn token_in(form: &Response) -> String {
    let (_, rest) = form
        .text()
        .split_once("name=\"token\" value=\"")
        .expect("a token");
    rest.split('"').next().expect("a closing quote").to_owned()
}

/// Asserts that the key is saved and the page leads back to `url`, which is escaped for HTML. The page
/// must not redirect instead: browsers apply `form-action` to the whole chain of redirects, and sites
/// redirect to other hosts.
fn assert_saved(done: &Response, url: &str) {
    assert_eq!(done.status, 200, "{done:?}");
    assert_self_contained(done);
    assert_eq!(done.header("location"), None);
    for part in [
        format!("<meta http-equiv=\"refresh\" content=\"0;url={url}\">"),
        format!("href=\"{url}\""),
    ] {
        let text = done.text().replace("&#38;", "&amp;");
        assert!(text.contains(&part), "{part} in {text}");
    }
}

#[tokio::test]
async fn a_key_is_saved_and_the_client_returns_to_its_page() {
    for failure in [Failure::ClientAuthMissing, Failure::ClientAuthWrong] {
        let fixture = KeyFormFixture::new(failure);
        let link = fixture.form_link().await;
        assert!(link.starts_with("http://onionport.invalid/key/"), "{link}");
        let form = fixture.get(&link).await;
        assert_self_contained(&form);
        assert!(form.text().contains(ONION));
        let policy = form.header("content-security-policy").expect("a policy");
        assert!(policy.ends_with("form-action 'self'"), "{policy}");
        // With a stricter policy browsers would not send the form's origin.
        assert_eq!(form.header("referrer-policy"), Some("same-origin"));
        let token = token_in(&form);
        let done = fixture.submit(&token, CLIENT_AUTH_KEY).await;
        assert_saved(&done, &format!("http://{ONION}/page?a=b&amp;c"));
        let label = &ONION[..56];
        let file = fixture.keys.path().join(format!("{label}.auth_private"));
        let text = fs::read_to_string(&file).expect("read the key file");
        assert_eq!(
            text,
            format!("{label}:descriptor:x25519:{CLIENT_AUTH_KEY}\n")
        );
        let mode = fs::metadata(&file)
            .expect("a key file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fixture.key_files().len(), 1);
    }
}

#[tokio::test]
async fn an_invalid_key_is_reported_and_can_be_corrected() {
    let fixture = KeyFormFixture::new(Failure::ClientAuthMissing);
    let mut token = fixture.form_token().await;
    for (key, problem) in [
        ("", "Nothing"),
        ("short", "52 characters"),
        ("%3Cb%3E", "52 characters"),
    ] {
        let again = fixture.submit(&token, key).await;
        assert_eq!(again.status, 422, "{key}");
        assert_self_contained(&again);
        assert!(again.text().contains(problem), "{}", again.text());
        token = token_in(&again);
    }
    assert!(fixture.key_files().is_empty());
    // A user may paste the whole line of a key file; browsers encode it so.
    let line = format!(
        "{}%3Adescriptor%3Ax25519%3A{CLIENT_AUTH_KEY}+",
        &ONION[..56]
    );
    let headers = format!("{OWN_ORIGIN}{FORM_TYPE}");
    let done = fixture
        .post(&headers, &format!("key={line}&token={token}"))
        .await;
    assert_eq!(done.status, 200);
    assert_eq!(fixture.key_files().len(), 1);
}

#[tokio::test]
async fn a_form_of_another_site_saves_no_key() {
    let fixture = KeyFormFixture::new(Failure::ClientAuthMissing);
    let token = fixture.form_token().await;
    let valid = format!("token={token}&key={CLIENT_AUTH_KEY}");
    let service = format!("Origin: http://{ONION}\n");
    for headers in [
        FORM_TYPE.to_owned(),
        format!("{FORM_TYPE}Origin: null\n"),
        format!("{FORM_TYPE}Origin: http://evil.example\n"),
        // The onion service itself can read its own failure page.
        format!("{FORM_TYPE}{service}"),
        format!("{FORM_TYPE}{service}Referer: http://onionport.invalid/key/1\n"),
        format!("{FORM_TYPE}Referer: http://{ONION}/\n"),
        format!("{FORM_TYPE}{OWN_ORIGIN}Sec-Fetch-Site: cross-site\n"),
        format!("{OWN_ORIGIN}Content-Type: text/plain\n"),
        OWN_ORIGIN.to_owned(),
    ] {
        let refused = fixture.post(&headers, &valid).await;
        assert_eq!(refused.status, 403, "{headers}");
        assert_self_contained(&refused);
    }
    assert!(fixture.key_files().is_empty());
    // The refused posts did not use up the token, which is valid once.
    assert_eq!(fixture.submit(&token, CLIENT_AUTH_KEY).await.status, 200);
    assert_eq!(fixture.submit(&token, CLIENT_AUTH_KEY).await.status, 404);
}

#[tokio::test]
async fn a_ticket_or_a_guess_is_not_accepted_as_a_token() {
    let fixture = KeyFormFixture::new(Failure::ClientAuthMissing);
    let link = fixture.form_link().await;
    let ticket = link.rsplit('/').next().expect("a ticket");
    for token in [ticket, "", "0", "../../etc/passwd"] {
        let refused = fixture.submit(token, CLIENT_AUTH_KEY).await;
        assert_eq!(refused.status, 404, "{token}");
    }
    for target in [
        "key",
        "key/",
        "key/0",
        "key/0000000000000000000000000000000000000000",
    ] {
        let page = fixture
            .get(&format!("http://onionport.invalid/{target}"))
            .await;
        assert_eq!(page.status, 404, "{target}");
        assert!(!page.text().contains("<form"));
    }
    let token = fixture.form_token().await;
    let page = fixture
        .get(&format!("http://onionport.invalid/key/{token}"))
        .await;
    assert_eq!(page.status, 404);
    assert!(fixture.key_files().is_empty());
}

#[tokio::test]
async fn a_ticket_or_token_of_one_client_is_refused_for_another() {
    let fixture = KeyFormFixture::new(Failure::ClientAuthMissing);
    let link = fixture.form_link().await;
    let token = fixture.form_token().await;
    let body = format!("token={token}&key={CLIENT_AUTH_KEY}");
    let length = body.len();
    for (address, isolation) in [
        (V6, ""),
        (ClientAddr::Unix, ""),
        (V4, "Tor-Stream-Isolation: other\n"),
    ] {
        let request = format!("GET {link} HTTP/1.1\nHost: a\n{BROWSER}{isolation}\n");
        assert_eq!(
            fixture.request_from(address, &request).await.status,
            404,
            "{address:?} {isolation}"
        );
        let request = format!(
            "POST http://onionport.invalid/key HTTP/1.1\nHost: a\n{OWN_ORIGIN}{FORM_TYPE}{isolation}\
             Content-Length: {length}\n\n{body}"
        );
        assert_eq!(
            fixture.request_from(address, &request).await.status,
            404,
            "{address:?} {isolation}"
        );
    }
    // Requests to the port itself never reach the form.
    for request in [
        format!(
            "GET {} HTTP/1.1\nHost: localhost\n\n",
            &link["http://onionport.invalid".len()..]
        ),
        format!(
            "POST /key HTTP/1.1\nHost: localhost\n{OWN_ORIGIN}{FORM_TYPE}Content-Length: {length}\n\n{body}"
        ),
    ] {
        let refused = fixture.request_from(V4, &request).await;
        assert!([404, 405].contains(&refused.status), "{refused:?}");
    }
    assert!(fixture.key_files().is_empty());
}

#[tokio::test]
async fn an_endless_form_is_not_read_to_its_end() {
    let fixture = KeyFormFixture::new(Failure::ClientAuthMissing);
    let token = fixture.form_token().await;
    let refused = fixture.submit(&token, &"A".repeat(10_000)).await;
    assert_eq!(refused.status, 404);
    let (mut client, _served) = fixture.port.http_client_with(16 * 1024, V4);
    let request = format!(
        "POST http://onionport.invalid/key HTTP/1.1\nHost: a\n{OWN_ORIGIN}{FORM_TYPE}\
         Transfer-Encoding: chunked\n\n"
    );
    send_text(&mut client, &request).await;
    for _ in 0..1000 {
        if client
            .try_send(&[b"64\r\n".as_slice(), &[b'A'; 100], b"\r\n"].concat())
            .await
            .is_err()
        {
            break;
        }
    }
    assert_eq!(read_response(&mut client).await.status, 404);
    assert!(fixture.key_files().is_empty());
}

#[tokio::test]
async fn only_client_auth_failures_link_to_the_form() {
    for &failure in Failure::ALL {
        let fixture = KeyFormFixture::new(failure);
        let page = fixture.get(&format!("http://{ONION}/")).await;
        let wants_key = [Failure::ClientAuthMissing, Failure::ClientAuthWrong].contains(&failure);
        assert_eq!(
            page.text().contains("onionport.invalid/key/"),
            wants_key,
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn a_missing_key_folder_is_reported() {
    let fixture = KeyFormFixture::new(Failure::ClientAuthMissing);
    let token = fixture.form_token().await;
    let folder = fixture.keys.path().to_owned();
    drop(fixture.keys);
    let port = fixture.port;
    let fixture = KeyFormFixture {
        port,
        keys: private_folder(),
    };
    let failed = fixture.submit(&token, CLIENT_AUTH_KEY).await;
    assert_eq!(failed.status, 500);
    assert!(
        failed.text().contains(&folder.display().to_string()),
        "{}",
        failed.text()
    );
}

#[tokio::test]
async fn any_number_of_failures_leaves_a_users_form_valid() {
    let fixture = KeyFormFixture::new(Failure::ClientAuthMissing);
    let link = fixture.form_link().await;
    let token = token_in(&fixture.get(&link).await);
    for number in 0..600 {
        // A page can invent any number of isolation values.
        let request = format!(
            "GET http://{ONION}/ HTTP/1.1\nHost: a\n{BROWSER}Tor-Stream-Isolation: {number}\n\n"
        );
        assert_eq!(fixture.request_from(V4, &request).await.status, 503);
    }
    // A client that fails again keeps its ticket.
    for _ in 0..2 {
        assert_eq!(fixture.form_link().await, fixture.form_link().await);
    }
    assert_eq!(fixture.submit(&token, CLIENT_AUTH_KEY).await.status, 200);
    assert_eq!(fixture.key_files().len(), 1);
}

#[tokio::test]
async fn keys_are_accepted_only_from_this_computer() {
    let fixture = KeyFormFixture::new(Failure::ClientAuthMissing);
    let link = fixture.form_link().await;
    let remote = ClientAddr::Ip([192, 0, 2, 1].into());
    let request = format!("GET http://{ONION}/ HTTP/1.1\nHost: a\n{BROWSER}\n");
    let page = fixture.request_from(remote, &request).await;
    assert_eq!(page.status, 503);
    assert_self_contained(&page);
    assert!(!page.text().contains("onionport.invalid/key"));
    assert!(!page.text().contains("client_onion_auth_dir"));
    let explanation = "can be entered only on the computer that runs onionport";
    assert!(page.text().contains(explanation), "{}", page.text());
    for request in [
        format!("GET {link} HTTP/1.1\nHost: a\n\n"),
        format!(
            "POST http://onionport.invalid/key HTTP/1.1\nHost: a\n{OWN_ORIGIN}{FORM_TYPE}Content-Length: 7\n\ntoken=1"
        ),
    ] {
        let refused = fixture.request_from(remote, &request).await;
        assert_eq!(refused.status, 403);
        assert!(refused.text().contains(explanation), "{}", refused.text());
    }
    for local in [V4, V6, ClientAddr::Unix, mapped_loopback()] {
        let page = fixture.request_from(local, &request).await;
        assert!(page.text().contains("onionport.invalid/key"), "{local:?}");
    }
}

/// The IPv4 loopback address as a dual-stack socket reports it.
fn mapped_loopback() -> ClientAddr {
    let ip = std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    ClientAddr::Ip(ip.into())
}

#[tokio::test]
async fn a_mapped_name_gets_the_key_of_its_service() {
    assert_key_for_url(|_| "http://shop.example/".to_owned()).await;
}

#[tokio::test]
async fn a_virtual_address_gets_the_key_of_its_service() {
    assert_key_for_url(|address| format!("http://[{address}]/")).await;
}

/// Asserts that a key can be entered for a service that is requested by a URL without its own address.
/// `url` returns that URL, given the service's virtual address.
async fn assert_key_for_url(url: impl Fn(Ipv6Addr) -> String) {
    let keys = private_folder();
    let settings = AddressMapSettings {
        map: vec![format!("shop.example {ONION}")],
        automap: true,
        ..AddressMapSettings::default()
    };
    let shared = SharedState {
        address_map: ArcSwap::from_pointee(AddressMap::new(&settings).expect("valid settings")),
        ..SharedState::default()
    };
    let plans = [(
        format!("{ONION}:80"),
        Plan::Fail(Failure::ClientAuthMissing),
    )];
    let fixture = KeyFormFixture {
        port: Port::new("", plans)
            .with_shared(shared)
            .with_keys(keys.path()),
        keys,
    };
    let url = url(fixture.resolve_onion().await);
    let page = fixture.get(&url).await;
    assert_eq!(page.status, 503);
    assert!(
        page.text().contains(">Onion service</li>"),
        "{}",
        page.text()
    );
    assert!(!page.text().contains("client_onion_auth_dir"));
    let link = text_between(page.text(), "href=\"", "\">Enter ").to_owned();
    let form = fixture.get(&link).await;
    assert!(form.text().contains(ONION));
    let done = fixture.submit(&token_in(&form), CLIENT_AUTH_KEY).await;
    assert_saved(&done, &url);
    let label = &ONION[..56];
    assert_eq!(fixture.key_files(), [format!("{label}.auth_private")]);
}
