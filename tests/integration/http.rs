//! HTTP ports.
//!
//! | module | shows |
//! |---|---|
//! | `tunnel` | CONNECT |
//! | `status_codes` | the status code and tokens of every failure |
//! | `optimistic_read` | data sent behind the head of a CONNECT, before the tunnel is open |
//! | `forward` | plain requests forwarded to a site, and their responses |
//! | `informational` | a site's interim responses |
//! | `half_close` | clients that half-close before they have the response |
//! | `idle_timeout` | time-outs of a forwarded request |
//! | `keep_alive` | connections to sites that are reused for later requests |
//! | `hostile_sites` | sites with malicious or broken responses |
//! | `hostile_clients` | clients with malicious requests |
//! | `pages` | onionport's own pages, and who gets them |
//! | `client_auth_form` | the form for client authorization keys, and attempts to misuse it |
//! | `malformed_requests` | the real program with random and damaged requests |
//! | `c_tor_comparison` | the real program beside C tor's HTTPTunnelPort |

use crate::support::client::Client;
use crate::support::http::{expect_text, read_head, read_response, read_response_to, send_text};
use crate::support::program::Program;
use crate::support::scripted::Plan;
use crate::support::serve::{Port, Served, V4};

mod c_tor_comparison;
mod client_auth_form;
mod forward;
mod half_close;
mod hostile_clients;
mod hostile_sites;
mod idle_timeout;
mod informational;
mod keep_alive;
mod malformed_requests;
mod optimistic_read;
mod pages;
mod status_codes;
mod tunnel;

/// A site, as the network's plans name it.
const SITE: &str = "good.example:80";
/// A request to that site, as the client sends it.
const GET: &str = "GET http://good.example/ HTTP/1.1\nHost: good.example\n\n";
/// The same request, as the site receives it.
const FORWARDED_GET: &str = "GET / HTTP/1.1\nHost: good.example\n\n";
/// A site's response.
const YES: &str = "HTTP/1.1 200 OK\nContent-Length: 3\n\nyes";
/// A site's response to an upgrade.
const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n";

/// A port whose network knows that site, and another.
fn port() -> Port {
    Port::new("", [(SITE, Plan::Open), ("other.example:80", Plan::Open)])
}

/// The real program with a SOCKS port and, second, an HTTP port.
fn http_program() -> Program {
    Program::offline()
        .port("auto")
        .config_lines("http_port = \"auto\"")
}

/// Sends text from the site through an open tunnel, and then ends the tunnel from the client's side.
async fn use_and_end_tunnel(mut client: Client, mut site: Client, served: Served) {
    send_text(&mut site, "and back").await;
    expect_text(&mut client, "and back").await;
    client.finish().await;
    site.expect_end().await;
    drop(site);
    client.expect_end().await;
    served.wait().await;
}

/// Sends a request to the site and reads its head there. Each direction of the client's connection
/// buffers up to `capacity` bytes. Returns the port, the client, the site, and the served connection.
async fn start_request(request: &str, capacity: usize) -> (Port, Client, Client, Served) {
    let port = port();
    let (mut client, served) = port.http_client_with(capacity, V4);
    send_text(&mut client, request).await;
    let mut site = port.tor.accept_stream().await;
    read_head(&mut site).await;
    (port, client, site, served)
}

/// Reads [`GET`] at the site, responds with [`YES`], and reads the response at the client.
async fn complete_get(site: &mut Client, client: &mut Client) {
    expect_text(site, FORWARDED_GET).await;
    send_text(site, YES).await;
    expect_yes(client).await;
}

async fn expect_yes(client: &mut Client) {
    let response = read_response(client).await;
    assert_eq!((response.status, response.text()), (200, "yes"));
}

/// Reads the response to a CONNECT that has opened a tunnel.
async fn expect_tunnel(client: &mut Client) {
    let opened = read_response_to("CONNECT", client).await;
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
