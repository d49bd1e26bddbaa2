//! The story of one connection, told to a network that answers as planned.
//!
//! | module | puts to the test |
//! |---|---|
//! | `refusals` | what is refused, with which bytes, and how a refused client is let go |
//! | `success` | what is told of streams and look-ups that work, and what the network is asked for |
//! | `early` | what the client says before it has an answer |
//! | `ends` | how connections end, and who may finish first |
//! | `breaks` | streams that break, and clients that go on sending at the end |
//! | `deadlines` | how long a client may take, and how long its request |
//! | `sharing` | who may share a circuit |

use crate::support::client::Client;
use crate::support::scripted::Plan;
use crate::support::serve::{Port, Served, V4};

mod breaks;
mod deadlines;
mod early;
mod ends;
mod refusals;
mod sharing;
mod success;

/// SOCKS5 without authentication; the answer is `05 00`.
const GREETING: &str = "05 01 00";
/// CONNECT to good.example, port 80.
const CONNECT_GOOD: &str = "05 01 00 03 0c 676f6f642e6578616d706c65 0050";
/// The key of its plan.
const GOOD: &str = "good.example:80";
/// The answer to an IPv4 client whose stream is open.
const SUCCEEDED: &str = "05 00 00 01 00000000 0000";

/// A port whose network knows good.example.
fn port(plan: Plan) -> Port {
    Port::new("", [(GOOD, plan)])
}

/// A client that has asked for good.example.
async fn asking(port: &Port) -> (Client, Served) {
    let (mut client, served) = port.client(V4);
    client.send(GREETING).await;
    client.expect("05 00").await;
    client.send(CONNECT_GOOD).await;
    (client, served)
}
