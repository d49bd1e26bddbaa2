//! HTTP ports.
//!
//! | module | puts to the test |
//! |---|---|
//! | `tunnel` | CONNECT |
//! | `ahead` | what is said behind the head of a CONNECT |
//! | `forward` | plain requests on their way to a site and back |
//! | `interim` | the answers of a site before its answer |
//! | `patience` | who waits for whom, and for how long |
//! | `kept` | connections to sites that are kept for later requests |
//! | `site` | sites that mean no good, or break |
//! | `client` | clients that mean no good |
//! | `page` | the pages, and who gets to see them |
//! | `desk` | keys handed in, and attempts to do it for others |
//! | `nonsense` | the real program among clients that do not know what they say |
//! | `judge` | the real program beside C tor's HTTPTunnelPort |

mod ahead;
mod client;
mod desk;
mod forward;
mod interim;
mod judge;
mod kept;
mod nonsense;
mod page;
mod patience;
mod site;
mod tunnel;

/// A site, and the key of its plan.
const SITE: &str = "good.example:80";
