//! The real program on private Tor networks: every reply code from a real failure, C tor asked
//! beside it.
//!
//! | module | shows |
//! |---|---|
//! | `ahead` | requests that come before the network, circuits that are there before anybody asks |
//! | `bridges` | bridges that change, and bridges that do not answer |
//! | `browser` | what a person sees in Chromium |
//! | `codes` | every way to break a service, and every code |
//! | `clients` | curl, torsocks, ssh, git, a browser and others do the same as through C tor |
//! | `entry` | bridges, a proxy, a firewall: what the program connects to, and what it does not |
//! | `deadline` | what is said when the time is up, on a network with default timeouts |
//! | `exits` | exits that cannot serve a request |
//! | `families` | IPv4 or IPv6: which address of a target an exit connects to |
//! | `http` | the HTTP port, asked by curl |
//! | `lifecycle` | starts, ends and damaged files: what is remembered and what is mended |
//! | `proof_of_work` | puzzles of services under attack |
//! | `recovery` | services that go and come back |
//! | `reload` | circuits and settings when the configuration is read again |
//! | `names` | names that stand for others, virtual addresses, DNS |
//! | `isolation` | which streams share a circuit |
//! | `streams` | what goes through an open stream; look-ups |
//! | `transparent` | redirected connections, in a network namespace |

mod ahead;
mod bridges;
mod browser;
mod clients;
mod codes;
mod daemon;
mod deadline;
mod entry;
mod exits;
mod families;
mod http;
mod isolation;
mod lifecycle;
mod names;
mod proof_of_work;
mod recovery;
mod reload;
mod stage;
mod streams;
mod transparent;

use std::path::Path;

/// The program under test.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_onionport"))
}
