//! Clients, programs and networks that the tests share.

pub mod c_tor;
pub mod client;
pub mod hex;
pub mod http;
pub mod kernel;
pub mod namespace;
pub mod nonsense;
pub mod offline;
pub mod process;
pub mod program;
pub mod random;
pub mod scripted;
pub mod serve;
pub mod skipped;
pub mod socks;
pub mod unresponsive_listener;
pub mod unused_address;

use std::time::Duration;

/// Limit for each wait for something that should happen at once. It is generous because only a failing
/// test waits that long.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A well-formed onion address; nobody has its key.
pub const ONION: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";
