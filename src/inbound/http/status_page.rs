//! onionport's own pages: its status, and the PAC file that configures browsers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use askama::Template;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::body::Body;
use super::html::{self, FormPolicy};
use super::pac;
use super::request_kind::HostPort;
use super::request_summary::accepts_html;
use super::response::{self, OWN_METHODS};
use super::session::HttpSession;
use super::site_error::failure_code;
use crate::failure::Failure;
use crate::request::status::StatusReport;
use crate::tor::connector::Connector;

#[derive(Template)]
#[template(path = "status.html", config = "src/inbound/http/askama.toml")]
struct StatusPage<'a> {
    nonce: &'a str,
    version: &'a str,
    report: &'a StatusReport,
    failures: Vec<FailureSummary>,
    /// The address of the port, for the configuration of a browser.
    proxy: Option<&'a str>,
}

/// All recent failures of one kind.
struct FailureSummary {
    code: String,
    name: &'static str,
    times: usize,
    /// How long ago the latest was.
    ago: String,
}

impl<T: Connector> HttpSession<T> {
    /// Answers a request for one of onionport's own pages, sent to the port as to an HTTP server.
    pub(super) fn respond_directly(&self, request: &Request<Incoming>) -> Response<Body> {
        match *request.method() {
            Method::OPTIONS => return response::options(),
            Method::GET | Method::HEAD => {}
            _ => return method_not_allowed(),
        }
        // The client reached the port at this address, so a browser can use it as its proxy.
        let host = request.headers().get(HOST);
        let host = host.and_then(|host| HostPort::parse(host.to_str().ok()?));
        let proxy = host
            .zip(self.local)
            .map(|(HostPort { host, port }, local)| {
                let port = port.unwrap_or(local.port());
                format!("{host}:{port}")
            });
        self.own_page(request, proxy)
    }

    /// Answers a request for `http://onionport.invalid/`.
    pub(super) async fn respond_as_own_host(&self, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() == "/key" || request.uri().path().starts_with("/key/") {
            let form = &self.client_auth_form;
            return form
                .respond(self.client, self.dispatcher.group, request)
                .await;
        }
        match *request.method() {
            Method::OPTIONS => return response::options(),
            Method::GET | Method::HEAD => {}
            _ => return method_not_allowed(),
        }
        let proxy = self.local.map(|local| reachable_address(local).to_string());
        self.own_page(&request, proxy)
    }

    fn own_page(&self, request: &Request<Incoming>, proxy: Option<String>) -> Response<Body> {
        match request.uri().path() {
            "/" => {
                let report = self.dispatcher.shared.status.report();
                if accepts_html(request.headers()) {
                    status_page(&report, proxy.as_deref())
                } else {
                    response::text(StatusCode::OK, &status_text(&report))
                }
            }
            pac::PATH => match proxy {
                Some(proxy) => pac_file(&proxy, request.uri().query() == Some("all")),
                None => response::text(
                    StatusCode::NOT_FOUND,
                    "a PAC file cannot name a Unix socket: open an HTTP port on an IP address",
                ),
            },
            _ => response::text(StatusCode::NOT_FOUND, "no such page"),
        }
    }
}

fn method_not_allowed() -> Response<Body> {
    let mut response = response::text(
        StatusCode::METHOD_NOT_ALLOWED,
        "onionport's pages are read-only",
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(OWN_METHODS));
    response
}

/// Returns the address at which a client on this computer reaches the port.
fn reachable_address(local: SocketAddr) -> SocketAddr {
    let mut address = local;
    match local.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn status_page(report: &StatusReport, proxy: Option<&str>) -> Response<Body> {
    let nonce = html::new_nonce();
    let page = StatusPage {
        nonce: &nonce,
        version: env!("CARGO_PKG_VERSION"),
        report,
        failures: summarize_failures(report),
        proxy,
    };
    html::render(StatusCode::OK, &page, &nonce, FormPolicy::Forbidden)
}

fn status_text(report: &StatusReport) -> String {
    let mut lines = vec![concat!("onionport ", env!("CARGO_PKG_VERSION")).to_owned()];
    lines.push(match report.bootstrapped {
        true => "connected to the Tor network".to_owned(),
        false => format!("not connected to the Tor network yet: {}", report.progress),
    });
    lines.extend(report.ports.iter().map(|port| format!("listening {port}")));
    for failure in summarize_failures(report) {
        let FailureSummary {
            code,
            name,
            times,
            ago,
        } = failure;
        lines.push(format!(
            "failed with {code}: {name}, {times} times, last {ago}"
        ));
    }
    lines.join("\n")
}

/// Groups the failures of a report by kind, the latest first.
fn summarize_failures(report: &StatusReport) -> Vec<FailureSummary> {
    let mut seen: Vec<(Failure, usize, Duration)> = Vec::new();
    for (failure, ago) in &report.failures {
        match seen.iter_mut().find(|(kind, ..)| kind == failure) {
            Some((_, times, _)) => *times += 1,
            None => seen.push((*failure, 1, *ago)),
        }
    }
    let summarize = |(failure, times, ago): (Failure, usize, Duration)| FailureSummary {
        code: failure_code(failure),
        name: failure.name(),
        times,
        ago: format_age(ago),
    };
    seen.into_iter().map(summarize).collect()
}

/// Formats an age in minutes or hours.
fn format_age(ago: Duration) -> String {
    match ago.as_secs() {
        0..60 => "just now".to_owned(),
        seconds @ 60..7200 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3600),
    }
}

fn pac_file(proxy: &str, all: bool) -> Response<Body> {
    let Some(script) = pac::script(proxy, all) else {
        let text = "the Host header is not a valid address";
        return response::text(StatusCode::BAD_REQUEST, text);
    };
    let mut response = response::text(StatusCode::OK, &script);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(pac::CONTENT_TYPE));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_reach_a_port_on_all_addresses_over_loopback() {
        for (local, expected) in [
            ("127.0.0.1:9080", "127.0.0.1:9080"),
            ("0.0.0.0:9080", "127.0.0.1:9080"),
            ("[::]:9080", "[::1]:9080"),
            ("192.0.2.1:1", "192.0.2.1:1"),
        ] {
            let local = local.parse().expect("a socket address");
            assert_eq!(reachable_address(local).to_string(), expected);
        }
    }

    #[test]
    fn failures_of_one_kind_are_counted_in_one_line() {
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
    fn ages_are_rounded_down_to_minutes_or_hours() {
        let age = |seconds| format_age(Duration::from_secs(seconds));
        assert_eq!(age(59), "just now");
        assert_eq!(age(60), "1 min ago");
        assert_eq!(age(7199), "119 min ago");
        assert_eq!(age(7200), "2 h ago");
    }
}
