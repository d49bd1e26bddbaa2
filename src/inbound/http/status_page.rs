//! Our own pages: how the program is doing, and the file that sets a browser.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use askama::Template;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::answer::{self, OUR_METHODS, takes_html};
use super::page::{self, Links};
use super::request_kind::{OUR_HOST, Place};
use super::{Body, Session};
use crate::failure::Failure;
use crate::request::status::StatusReport;
use crate::tor::connector::Connector;

/// Where browsers look for it.
const PAC: &str = "/proxy.pac";

#[derive(Template)]
#[template(path = "status.html", config = "src/inbound/http/askama.toml")]
struct StatusPage<'a> {
    nonce: &'a str,
    version: &'a str,
    report: &'a StatusReport,
    failures: Vec<Line>,
    /// What to tell a browser.
    proxy: Option<&'a str>,
}

/// One kind of failure.
struct Line {
    code: String,
    name: &'static str,
    times: usize,
    /// When it was seen last.
    ago: String,
}

/// The kinds of failures, the latest first.
fn lines(report: &StatusReport) -> Vec<Line> {
    let mut seen: Vec<(Failure, usize, Duration)> = Vec::new();
    for (failure, ago) in &report.failures {
        match seen.iter_mut().find(|(kind, ..)| kind == failure) {
            Some((_, times, _)) => *times += 1,
            None => seen.push((*failure, 1, *ago)),
        }
    }
    let line = |(failure, times, ago): (Failure, usize, Duration)| Line {
        code: page::code(failure),
        name: failure.name(),
        times,
        ago: in_words(ago),
    };
    seen.into_iter().map(line).collect()
}

impl<T: Connector> Session<T> {
    /// Answers a request for our own pages that came straight to the port.
    pub(super) fn at_home(&self, request: &Request<Incoming>) -> Response<Body> {
        match *request.method() {
            Method::OPTIONS => return answer::options(),
            Method::GET | Method::HEAD => {}
            _ => return not_allowed(),
        }
        // The way that the client took here is the way to the proxy.
        let host = request.headers().get(HOST);
        let host = host.and_then(|host| Place::read(host.to_str().ok()?));
        let proxy = host.zip(self.local).map(|(Place { host, port }, local)| {
            let port = port.unwrap_or(local.port());
            format!("{host}:{port}")
        });
        self.home(request, proxy)
    }

    /// Answers a request for `http://onionport.invalid/`.
    pub(super) async fn our_site(&self, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() == "/key" || request.uri().path().starts_with("/key/") {
            return self.at_desk(request).await;
        }
        match *request.method() {
            Method::OPTIONS => return answer::options(),
            Method::GET | Method::HEAD => {}
            _ => return not_allowed(),
        }
        let proxy = self.local.map(|local| here(local).to_string());
        self.home(&request, proxy)
    }

    fn home(&self, request: &Request<Incoming>, proxy: Option<String>) -> Response<Body> {
        match request.uri().path() {
            "/" => {
                let report = self.dispatcher.shared.status.report();
                if takes_html(request.headers()) {
                    status_page(&report, proxy.as_deref())
                } else {
                    answer::short(StatusCode::OK, &status_text(&report))
                }
            }
            PAC => match proxy {
                Some(proxy) => pac(&proxy, request.uri().query() == Some("all")),
                None => answer::short(
                    StatusCode::NOT_FOUND,
                    "this port is a unix socket: browsers cannot be sent to it",
                ),
            },
            _ => answer::short(StatusCode::NOT_FOUND, "there is no such page here"),
        }
    }
}

fn not_allowed() -> Response<Body> {
    let mut refused = answer::short(StatusCode::METHOD_NOT_ALLOWED, "these pages are only read");
    refused
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(OUR_METHODS));
    refused
}

/// Where a client on this computer finds the port.
fn here(local: SocketAddr) -> SocketAddr {
    let mut here = local;
    match local.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => here.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => here.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    here
}

fn status_page(report: &StatusReport, proxy: Option<&str>) -> Response<Body> {
    let nonce = page::nonce();
    let page = StatusPage {
        nonce: &nonce,
        version: env!("CARGO_PKG_VERSION"),
        report,
        failures: lines(report),
        proxy,
    };
    page::html(StatusCode::OK, &page, &nonce, Links::No)
}

fn status_text(report: &StatusReport) -> String {
    let mut lines = vec![concat!("onionport ", env!("CARGO_PKG_VERSION")).to_owned()];
    lines.push(match report.bootstrapped {
        true => "connected to the Tor network".to_owned(),
        false => format!("not connected to the Tor network yet: {}", report.progress),
    });
    lines.extend(report.ports.iter().map(|port| format!("listening {port}")));
    for line in self::lines(report) {
        let Line {
            code,
            name,
            times,
            ago,
        } = line;
        lines.push(format!(
            "failed with {code}: {name}, {times} times, last {ago}"
        ));
    }
    lines.join("\n")
}

/// How long ago, roughly: nobody needs the second.
fn in_words(ago: Duration) -> String {
    match ago.as_secs() {
        0..60 => "just now".to_owned(),
        seconds @ 60..7200 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3600),
    }
}

/// What browsers make of a file they cannot get: nothing here can keep them from it.
const UNSAFE: &str = "// A browser that cannot fetch this file goes to every site without Tor, and does not say so.\n";

/// A proxy auto-configuration file. What is for the proxy never goes anywhere else: there is no
/// second choice behind it.
fn pac(proxy: &str, all: bool) -> Response<Body> {
    // A Host is what is written here: anything but these would be no proxy anyway.
    let good = |b: u8| b.is_ascii_alphanumeric() || b".:[]-".contains(&b);
    if !proxy.bytes().all(good) {
        return answer::short(StatusCode::BAD_REQUEST, "the Host is no address");
    }
    let script = if all {
        format!(
            "{UNSAFE}// For everything to go through Tor give the browser {proxy} as HTTP and HTTPS proxy instead.\n\
             function FindProxyForURL(url, host) {{\n  return \"PROXY {proxy}\";\n}}"
        )
    } else {
        format!(
            "{UNSAFE}function FindProxyForURL(url, host) {{\n  host = host.toLowerCase();\n  \
             if (shExpMatch(host, \"*.onion\") || shExpMatch(host, \"*.onion.\") || \
             host == \"{OUR_HOST}\")\n    return \"PROXY {proxy}\";\n  return \"DIRECT\";\n}}"
        )
    };
    let mut answer = answer::short(StatusCode::OK, &script);
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-ns-proxy-autoconfig"),
    );
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_on_all_addresses_is_found_on_loopback() {
        for (local, expected) in [
            ("127.0.0.1:9080", "127.0.0.1:9080"),
            ("0.0.0.0:9080", "127.0.0.1:9080"),
            ("[::]:9080", "[::1]:9080"),
            ("192.0.2.1:1", "192.0.2.1:1"),
        ] {
            let local = local.parse().expect("an address");
            assert_eq!(here(local).to_string(), expected);
        }
    }

    #[test]
    fn failures_of_one_kind_are_one_line() {
        let seconds = Duration::from_secs;
        let report = StatusReport {
            bootstrapped: true,
            progress: String::new(),
            ports: Vec::new(),
            failures: vec![
                (Failure::NoRoute, seconds(1)),
                (Failure::RendezvousFailed, seconds(100)),
                (Failure::NoRoute, seconds(200)),
            ],
        };
        let text = status_text(&report);
        let failed: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            failed,
            [
                "failed with 04: no route, 2 times, last just now",
                "failed with F3: rendezvous failed, 1 times, last 1 min ago",
            ]
        );
    }

    #[test]
    fn times_are_rough() {
        let words = |seconds| in_words(Duration::from_secs(seconds));
        assert_eq!(words(59), "just now");
        assert_eq!(words(60), "1 min ago");
        assert_eq!(words(7199), "119 min ago");
        assert_eq!(words(7200), "2 h ago");
    }
}
