//! A Tor SOCKS port that tells its clients exactly why an onion service could not be reached.
//!
//! | module | holds |
//! |---|---|
//! | [`daemon`] | the life of the process: ports, signals, reloads, the log |
//! | [`config`] | what the user wants: files, the command line, port lines, torrc |
//! | [`inbound`] | what clients talk to: SOCKS, HTTP, DNS, transparent ports |
//! | [`request`] | what each protocol turns into, and what is decided before the network is asked |
//! | [`tor`] | the Tor network; all knowledge of arti's crates |
//! | [`failure`] | why a request failed, and the table of codes |
//! | [`cli`] | the command line |
//! | [`log_limit`] | messages that would flood the log |
//!
//! Imports go one way, down this table: `tests/integration/layers.rs` checks it.
//!
//! A client's request goes through them in this order:
//!
//! | step | module | gives |
//! |---|---|---|
//! | a port is opened, clients are accepted | [`inbound::listener`] | a client's socket and [`request::ClientAddr`] |
//! | who may connect | [`config::access`] | yes or no |
//! | the story of one connection | [`inbound::connection`] | read this first |
//! | bytes become a request | [`inbound::socks`] | [`inbound::socks::SocksRequest`] |
//! | a redirected connection becomes a request | [`inbound::transparent`] | a [`request::Request`] |
//! | questions become requests, and get answers | [`inbound::dns`] | a [`request::Request`] |
//! | the same on an HTTP port, and its pages | [`inbound::http`] | [`request::Request`] |
//! | what every port does with a request | [`request::dispatch`] | the steps below, in their order |
//! | names that stand for others are put in | [`request::address_map`] | the [`request::Request`] to serve |
//! | the destination is checked | [`request::target`] | [`request::target::Target`] |
//! | the port's rules are asked | [`request::policy`] | [`tor::destination::Permit`] |
//! | what may give its user away is refused or told | [`request::safe_socks`] | |
//! | who may share a circuit | [`tor::isolation`] | [`tor::isolation::Isolation`] |
//! | the network is asked | [`tor::connector`], [`tor`] | a stream, or a [`failure::Failure`] |
//! | the failure becomes a code | [`failure`] | the table |
//! | bytes go both ways | [`inbound::relay`] | [`inbound::relay::RelaySummary`] |
//! | the connection ends | [`inbound::lingering_close`] | |

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod daemon;
pub mod failure;
pub mod inbound;
pub mod log_limit;
pub mod request;
pub mod tor;
