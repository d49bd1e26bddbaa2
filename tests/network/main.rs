//! The real program on private Tor networks: every reply code from a real failure, compared with C tor.
//!
//! | module | shows |
//! |---|---|
//! | `address_map` | `MapAddress`, virtual addresses and the DNS port |
//! | `bridges` | bridges that change, and bridges that do not answer |
//! | `browser` | what a person sees in Chromium |
//! | `clients` | curl, torsocks, ssh, git, a browser and others behave as with C tor |
//! | `codes` | every way to break a service, and every reply code |
//! | `deadline` | the reply code when the deadline passes, also with default circuit time-outs |
//! | `entry` | bridges, proxies and firewalls: what the program connects to, and what it does not |
//! | `exits` | exits that cannot serve a request |
//! | `families` | which of a destination's IPv4 and IPv6 addresses an exit connects to |
//! | `http` | the HTTP port, with curl as the client |
//! | `isolation` | which streams share a circuit |
//! | `lifecycle` | starts, exits and damaged files: which guards are kept, and what is repaired |
//! | `proof_of_work` | puzzles of services under attack |
//! | `recovery` | services and keys that go and come back |
//! | `reload` | circuits and settings after a reload of the configuration |
//! | `startup` | requests before the program has bootstrapped, and circuits that are built in advance |
//! | `streams` | data through an open stream; lookups |
//! | `transparent` | redirected connections, in a network namespace |
//!
//! The other modules are support:
//!
//! | module | holds |
//! |---|---|
//! | `daemon` | starts and stops the program |
//! | `dns_client` | builds DNS queries and sends them |
//! | `setup` | set-up and requests that several tests share |
//! | `broken_services` | onion services that are each broken in another way, and the codes that they must get |

mod address_map;
mod bridges;
mod broken_services;
mod browser;
mod clients;
mod codes;
mod daemon;
mod deadline;
mod dns_client;
mod entry;
mod exits;
mod families;
mod http;
mod isolation;
mod lifecycle;
mod proof_of_work;
mod recovery;
mod reload;
mod setup;
mod startup;
mod streams;
mod transparent;

use std::path::PathBuf;

use anyhow::Result;

/// Returns the path of the program under test. The demo has a function of the same name, which can fail.
fn program() -> Result<PathBuf> {
    Ok(PathBuf::from(env!("CARGO_BIN_EXE_onionport")))
}
