//! HTTP ports.
//!
//! | module | puts to the test |
//! |---|---|
//! | `tunnel` | CONNECT |
//! | `statuses` | the status and tokens of every failure |
//! | `early_read` | what is said behind the head of a CONNECT |
//! | `forward` | plain requests on their way to a site and back |
//! | `informational` | the answers of a site before its answer |
//! | `half_close` | clients that close their side before they have their answer |
//! | `idle_timeout` | who waits for whom, and for how long |
//! | `kept` | connections to sites that are kept for later requests |
//! | `site` | sites that mean no good, or break |
//! | `client` | clients that mean no good |
//! | `page` | the pages, and who gets to see them |
//! | `client_auth_form` | keys handed in, and attempts to do it for others |
//! | `nonsense` | the real program among clients that do not know what they say |
//! | `judge` | the real program beside C tor's HTTPTunnelPort |

use crate::support::client::Client;
use crate::support::http::answer;
use crate::support::scripted::Plan;
use crate::support::serve::Port;

mod client;
mod client_auth_form;
mod early_read;
mod forward;
mod half_close;
mod idle_timeout;
mod informational;
mod judge;
mod kept;
mod nonsense;
mod page;
mod site;
mod statuses;
mod tunnel;

/// A site, and the key of its plan.
const SITE: &str = "good.example:80";
/// What a site says to most requests.
const YES: &str = "HTTP/1.1 200 OK\nContent-Length: 3\n\nyes";
/// What a client asks of it.
const GET: &str = "GET http://good.example/ HTTP/1.1\nHost: good.example\n\n";
/// The same, as the site gets it.
const GOT: &str = "GET / HTTP/1.1\nHost: good.example\n\n";

/// A port whose network knows that site, and another.
fn port() -> Port {
    Port::new("", [(SITE, Plan::Open), ("other.example:80", Plan::Open)])
}

async fn expect_yes(client: &mut Client) {
    let got = answer(client).await;
    assert_eq!((got.status, got.text()), (200, "yes"));
}
