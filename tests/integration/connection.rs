//! A SOCKS connection from greeting to close, with a scripted network.
//!
//! | module | shows |
//! |---|---|
//! | `refusals` | the replies to refused requests, and how a refused client is closed |
//! | `success` | the replies to streams and lookups that succeed, and the requests that reach the network |
//! | `optimistic_data` | data that the client sends before the reply |
//! | `ends` | how connections end, and half-closed clients |
//! | `breaks` | streams that break, and clients that keep sending at the end |
//! | `deadlines` | the time limits of the handshake and of the request |
//! | `isolation` | which streams may share a circuit |

use crate::support::client::Client;
use crate::support::scripted::Plan;
use crate::support::serve::{Port, Served, V4};
use crate::support::socks::{CONNECT_GOOD, GOOD, send_request};

mod breaks;
mod deadlines;
mod ends;
mod isolation;
mod optimistic_data;
mod refusals;
mod success;

/// A port whose network knows only good.example.
fn port(plan: Plan) -> Port {
    Port::new("", [(GOOD, plan)])
}

/// A client that has requested good.example.
async fn connect_good(port: &Port) -> (Client, Served) {
    let (mut client, served) = port.client(V4);
    send_request(&mut client, CONNECT_GOOD).await;
    (client, served)
}
