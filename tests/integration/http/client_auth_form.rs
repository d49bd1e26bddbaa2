//! Keys handed in, and attempts to do it for others.

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

use super::page::{BROWSER, assert_self_contained};
use crate::support::ONION;
use crate::support::hex::socks5_request;
use crate::support::http::{Answer, answer, say};
use crate::support::program::private_folder;
use crate::support::scripted::Plan;
use crate::support::serve::{Port, V4, V6};

const KEY: &str = "YDPBBAYQMPIOEWCWQJRNRFD4RIXU3B52ASVTM3M54MSRE6FPTR6Q";
/// What a browser sends along with our own form.
const OURS: &str = "Origin: http://onionport.invalid\n";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\n";

struct Stage {
    port: Port,
    keys: TempDir,
}

impl Stage {
    fn new(failure: Failure) -> Stage {
        let keys = private_folder();
        let plans = [(format!("{ONION}:80"), Plan::Fail(failure))];
        let port = Port::new("", plans).with_keys(keys.path());
        Stage { port, keys }
    }

    /// One request of a client from `origin`, on a connection of its own.
    async fn ask_from(&self, origin: ClientAddr, ask: &str) -> Answer {
        let (mut client, _served) = self.port.http_client_with(64 * 1024, origin);
        say(&mut client, ask).await;
        answer(&mut client).await
    }

    async fn get(&self, target: &str) -> Answer {
        let ask = format!("GET {target} HTTP/1.1\nHost: a\n{BROWSER}\n");
        self.ask_from(V4, &ask).await
    }

    async fn post(&self, headers: &str, body: &str) -> Answer {
        let ask = format!(
            "POST http://onionport.invalid/key HTTP/1.1\nHost: onionport.invalid\n{headers}\
             Content-Length: {}\n\n",
            body.len()
        );
        self.ask_from(V4, &format!("{ask}{body}")).await
    }

    /// The link on the failure page.
    async fn link(&self) -> String {
        let page = self.get(&format!("http://{ONION}/page?a=b&c")).await;
        assert_self_contained(&page);
        assert!(
            !page.text().contains("<form"),
            "a form on a page of the site"
        );
        between(page.text(), "href=\"", "\">Enter ").to_owned()
    }

    /// The token in the form.
    async fn token(&self) -> String {
        let form = self.get(&self.link().await).await;
        assert_eq!(form.status, 200);
        token_in(&form)
    }

    /// The address that a SOCKS client of the same program gets for the service.
    async fn look_up(&self) -> Ipv6Addr {
        let (mut client, _served) = self.port.client(V4);
        client.send("05 01 00").await;
        client.expect("05 00").await;
        client.send_bytes(&socks5_request(0xF0, ONION, 0)).await;
        client.expect("05 00 00 04").await;
        let (address, _) = client.take(16).await;
        let octets: [u8; 16] = address.try_into().expect("an IPv6 address");
        octets.into()
    }

    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(self.keys.path()).expect("folder");
        let names = files.map(|f| f.expect("entry").file_name().into_string().expect("text"));
        names.collect()
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (head, _) = text
        .split_once(end)
        .unwrap_or_else(|| panic!("no {end} in {text}"));
    head.rsplit_once(start)
        .unwrap_or_else(|| panic!("no {start} in {text}"))
        .1
}

fn token_in(form: &Answer) -> String {
    let (_, rest) = form
        .text()
        .split_once("name=\"token\" value=\"")
        .expect("a token");
    rest.split('"').next().expect("its end").to_owned()
}

/// The page that leads back to `url`, as it is written in HTML. A redirect would have to end at a
/// place that `form-action` allows: browsers stop those of sites that redirect to another.
fn assert_kept(done: &Answer, url: &str) {
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
async fn a_key_is_kept_and_the_client_sent_back() {
    for failure in [Failure::ClientAuthMissing, Failure::ClientAuthWrong] {
        let stage = Stage::new(failure);
        let link = stage.link().await;
        assert!(link.starts_with("http://onionport.invalid/key/"), "{link}");
        let form = stage.get(&link).await;
        assert_self_contained(&form);
        assert!(form.text().contains(ONION));
        let policy = form.header("content-security-policy").expect("a policy");
        assert!(policy.ends_with("form-action 'self'"), "{policy}");
        // With a stricter one browsers would not say where the form was sent from.
        assert_eq!(form.header("referrer-policy"), Some("same-origin"));
        let token = token_in(&form);
        let done = stage
            .post(
                &format!("{OURS}{FORM}"),
                &format!("token={token}&key={KEY}"),
            )
            .await;
        assert_kept(&done, &format!("http://{ONION}/page?a=b&amp;c"));
        let label = &ONION[..56];
        let file = stage.keys.path().join(format!("{label}.auth_private"));
        let text = fs::read_to_string(&file).expect("kept");
        assert_eq!(text, format!("{label}:descriptor:x25519:{KEY}\n"));
        let mode = fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(stage.files().len(), 1);
    }
}

#[tokio::test]
async fn what_is_no_key_is_told_and_may_be_corrected() {
    let stage = Stage::new(Failure::ClientAuthMissing);
    let mut token = stage.token().await;
    for (key, problem) in [
        ("", "Nothing"),
        ("short", "52 characters"),
        ("%3Cb%3E", "52 characters"),
    ] {
        let body = format!("token={token}&key={key}");
        let again = stage.post(&format!("{OURS}{FORM}"), &body).await;
        assert_eq!(again.status, 422, "{key}");
        assert_self_contained(&again);
        assert!(again.text().contains(problem), "{}", again.text());
        token = token_in(&again);
    }
    assert!(stage.files().is_empty());
    // As people paste it: the whole line, encoded as browsers do.
    let line = format!("{}%3Adescriptor%3Ax25519%3A{KEY}+", &ONION[..56]);
    let done = stage
        .post(
            &format!("{OURS}{FORM}"),
            &format!("key={line}&token={token}"),
        )
        .await;
    assert_eq!(done.status, 200);
    assert_eq!(stage.files().len(), 1);
}

#[tokio::test]
async fn a_form_that_is_not_ours_adds_no_key() {
    let stage = Stage::new(Failure::ClientAuthMissing);
    let good = format!("token={}&key={KEY}", stage.token().await);
    let own = format!("Origin: http://{ONION}\n");
    for headers in [
        FORM.to_owned(),
        format!("{FORM}Origin: null\n"),
        format!("{FORM}Origin: http://evil.example\n"),
        // The onion service itself, which can read its own failure page.
        format!("{FORM}{own}"),
        format!("{FORM}{own}Referer: http://onionport.invalid/key/1\n"),
        format!("{FORM}Referer: http://{ONION}/\n"),
        format!("{FORM}{OURS}Sec-Fetch-Site: cross-site\n"),
        format!("{OURS}Content-Type: text/plain\n"),
        OURS.to_owned(),
    ] {
        let refused = stage.post(&headers, &good).await;
        assert_eq!(refused.status, 403, "{headers}");
        assert_self_contained(&refused);
    }
    assert!(stage.files().is_empty());
    // None of them has used the token up.
    assert_eq!(
        stage.post(&format!("{OURS}{FORM}"), &good).await.status,
        200
    );
    // It is good for once.
    let again = stage.post(&format!("{OURS}{FORM}"), &good).await;
    assert_eq!(again.status, 404);
}

#[tokio::test]
async fn a_ticket_is_no_token_and_a_guess_is_neither() {
    let stage = Stage::new(Failure::ClientAuthMissing);
    let link = stage.link().await;
    let ticket = link.rsplit('/').next().expect("a ticket");
    for token in [ticket, "", "0", "../../etc/passwd"] {
        let body = format!("token={token}&key={KEY}");
        let refused = stage.post(&format!("{OURS}{FORM}"), &body).await;
        assert_eq!(refused.status, 404, "{token}");
    }
    for target in [
        "key",
        "key/",
        "key/0",
        "key/0000000000000000000000000000000000000000",
    ] {
        let page = stage
            .get(&format!("http://onionport.invalid/{target}"))
            .await;
        assert_eq!(page.status, 404, "{target}");
        assert!(!page.text().contains("<form"));
    }
    let token = stage.token().await;
    let page = stage
        .get(&format!("http://onionport.invalid/key/{token}"))
        .await;
    assert_eq!(page.status, 404);
    assert!(stage.files().is_empty());
}

#[tokio::test]
async fn what_was_made_for_one_client_is_of_no_use_to_another() {
    let stage = Stage::new(Failure::ClientAuthMissing);
    let link = stage.link().await;
    let token = stage.token().await;
    let body = format!("token={token}&key={KEY}");
    let length = body.len();
    for (origin, isolation) in [
        (V6, ""),
        (ClientAddr::Unix, ""),
        (V4, "Tor-Stream-Isolation: other\n"),
    ] {
        let ask = format!("GET {link} HTTP/1.1\nHost: a\n{BROWSER}{isolation}\n");
        assert_eq!(
            stage.ask_from(origin, &ask).await.status,
            404,
            "{origin:?} {isolation}"
        );
        let ask = format!(
            "POST http://onionport.invalid/key HTTP/1.1\nHost: a\n{OURS}{FORM}{isolation}\
             Content-Length: {length}\n\n{body}"
        );
        assert_eq!(
            stage.ask_from(origin, &ask).await.status,
            404,
            "{origin:?} {isolation}"
        );
    }
    // Straight to the port there is no desk at all.
    for ask in [
        format!(
            "GET {} HTTP/1.1\nHost: localhost\n\n",
            &link["http://onionport.invalid".len()..]
        ),
        format!(
            "POST /key HTTP/1.1\nHost: localhost\n{OURS}{FORM}Content-Length: {length}\n\n{body}"
        ),
    ] {
        let refused = stage.ask_from(V4, &ask).await;
        assert!([404, 405].contains(&refused.status), "{refused:?}");
    }
    assert!(stage.files().is_empty());
}

#[tokio::test]
async fn a_form_without_end_is_not_read_to_it() {
    let stage = Stage::new(Failure::ClientAuthMissing);
    let token = stage.token().await;
    let long = format!("token={token}&key={}", "A".repeat(10_000));
    let refused = stage.post(&format!("{OURS}{FORM}"), &long).await;
    assert_eq!(refused.status, 404);
    let (mut client, _served) = stage.port.http_client_with(16 * 1024, V4);
    let ask = format!(
        "POST http://onionport.invalid/key HTTP/1.1\nHost: a\n{OURS}{FORM}\
         Transfer-Encoding: chunked\n\n"
    );
    say(&mut client, &ask).await;
    for _ in 0..1000 {
        if client
            .try_send(&[b"64\r\n".as_slice(), &[b'A'; 100], b"\r\n"].concat())
            .await
            .is_err()
        {
            break;
        }
    }
    assert_eq!(answer(&mut client).await.status, 404);
    assert!(stage.files().is_empty());
}

#[tokio::test]
async fn other_failures_ask_for_no_key() {
    for &failure in Failure::ALL {
        let stage = Stage::new(failure);
        let page = stage.get(&format!("http://{ONION}/")).await;
        let asks = [Failure::ClientAuthMissing, Failure::ClientAuthWrong].contains(&failure);
        assert_eq!(
            page.text().contains("onionport.invalid/key/"),
            asks,
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_told() {
    let stage = Stage::new(Failure::ClientAuthMissing);
    let token = stage.token().await;
    let folder = stage.keys.path().to_owned();
    drop(stage.keys);
    let port = stage.port;
    let stage = Stage {
        port,
        keys: private_folder(),
    };
    let told = stage
        .post(
            &format!("{OURS}{FORM}"),
            &format!("token={token}&key={KEY}"),
        )
        .await;
    assert_eq!(told.status, 500);
    assert!(
        told.text().contains(&folder.display().to_string()),
        "{}",
        told.text()
    );
}

#[tokio::test]
async fn failures_without_end_cost_a_user_no_form() {
    let stage = Stage::new(Failure::ClientAuthMissing);
    let link = stage.link().await;
    let token = token_in(&stage.get(&link).await);
    for number in 0..600 {
        // As many clients as a page can make up.
        let ask = format!(
            "GET http://{ONION}/ HTTP/1.1\nHost: a\n{BROWSER}Tor-Stream-Isolation: {number}\n\n"
        );
        assert_eq!(stage.ask_from(V4, &ask).await.status, 503);
    }
    // And the same one again: it has its ticket already.
    for _ in 0..2 {
        assert_eq!(stage.link().await, stage.link().await);
    }
    let body = format!("token={token}&key={KEY}");
    let done = stage.post(&format!("{OURS}{FORM}"), &body).await;
    assert_eq!(done.status, 200);
    assert_eq!(stage.files().len(), 1);
}

#[tokio::test]
async fn keys_are_taken_on_this_computer_alone() {
    let stage = Stage::new(Failure::ClientAuthMissing);
    let link = stage.link().await;
    let far = ClientAddr::Ip([192, 0, 2, 1].into());
    let ask = format!("GET http://{ONION}/ HTTP/1.1\nHost: a\n{BROWSER}\n");
    let page = stage.ask_from(far, &ask).await;
    assert_eq!(page.status, 503);
    assert_self_contained(&page);
    assert!(!page.text().contains("onionport.invalid/key"));
    assert!(!page.text().contains("client_onion_auth_dir"));
    let told = "can be entered only on the computer that runs onionport";
    assert!(page.text().contains(told), "{}", page.text());
    for ask in [
        format!("GET {link} HTTP/1.1\nHost: a\n\n"),
        format!(
            "POST http://onionport.invalid/key HTTP/1.1\nHost: a\n{OURS}{FORM}Content-Length: 7\n\ntoken=1"
        ),
    ] {
        let refused = stage.ask_from(far, &ask).await;
        assert_eq!(refused.status, 403);
        assert!(refused.text().contains(told), "{}", refused.text());
    }
    // Those who are on it.
    for near in [V4, V6, ClientAddr::Unix, mapped()] {
        let page = stage.ask_from(near, &ask).await;
        assert!(page.text().contains("onionport.invalid/key"), "{near:?}");
    }
}

/// This computer, as a socket for both families sees it.
fn mapped() -> ClientAddr {
    let ip = std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    ClientAddr::Ip(ip.into())
}

#[tokio::test]
async fn a_service_behind_another_name_gets_its_key() {
    hand_in_behind(|_| "http://shop.example/".to_owned()).await;
}

#[tokio::test]
async fn a_service_behind_a_virtual_address_gets_its_key() {
    hand_in_behind(|address| format!("http://[{address}]/")).await;
}

/// Hands in a key for a service that is not asked for by its own name: `url` makes the address, of the
/// virtual address that was given out for it.
async fn hand_in_behind(url: impl Fn(Ipv6Addr) -> String) {
    let keys = private_folder();
    let names = AddressMapSettings {
        map: vec![format!("shop.example {ONION}")],
        automap: true,
        ..AddressMapSettings::default()
    };
    let shared = SharedState {
        address_map: ArcSwap::from_pointee(AddressMap::new(&names).expect("good")),
        ..SharedState::default()
    };
    let plans = [(
        format!("{ONION}:80"),
        Plan::Fail(Failure::ClientAuthMissing),
    )];
    let stage = Stage {
        port: Port::new("", plans)
            .with_shared(shared)
            .with_keys(keys.path()),
        keys,
    };
    let url = url(stage.look_up().await);
    let page = stage.get(&url).await;
    assert_eq!(page.status, 503);
    assert!(
        page.text().contains(">Onion service</li>"),
        "{}",
        page.text()
    );
    assert!(!page.text().contains("client_onion_auth_dir"));
    let link = between(page.text(), "href=\"", "\">Enter ").to_owned();
    let form = stage.get(&link).await;
    assert!(form.text().contains(ONION));
    let body = format!("token={}&key={KEY}", token_in(&form));
    let done = stage.post(&format!("{OURS}{FORM}"), &body).await;
    assert_kept(&done, &url);
    let label = &ONION[..56];
    assert_eq!(stage.files(), [format!("{label}.auth_private")]);
}
