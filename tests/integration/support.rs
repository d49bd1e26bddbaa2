//! What the tests have in common.

pub mod c_tor;
pub mod client;
pub mod hex;
pub mod http;
pub mod kernel;
pub mod lacking;
pub mod namespace;
pub mod nonsense;
pub mod offline;
pub mod own_address;
pub mod process;
pub mod program;
pub mod random;
pub mod scripted;
pub mod serve;
pub mod socks;
pub mod stopped;

use std::time::Duration;

/// How long anything may take that should happen at once. Generous: it costs time only when a test
/// fails.
pub const LIMIT: Duration = Duration::from_secs(20);

/// An onion address that is right in form; nobody has its key.
pub const ONION: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";
