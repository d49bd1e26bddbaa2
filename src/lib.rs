//! A Tor SOCKS port that tells its clients exactly why an onion service could not be reached.
//!
//! The way of a request, and the modules it meets:
//!
//! | step | module | gives |
//! |---|---|---|
//! | a port is opened, clients are accepted | [`listener`] | a client's socket and [`gateway::Origin`] |
//! | who may connect | [`access`] | yes or no |
//! | the story of one connection | [`connection`] | read this first |
//! | bytes become a request | [`socks`] | [`socks::Request`] |
//! | a redirected connection becomes a request | [`transparent`] | a [`request::Request`] |
//! | questions become requests, and get answers | [`dns`] | a [`request::Request`] |
//! | the same on an HTTP port, and its pages | [`http`] | [`request::Request`] |
//! | what every port does with a request | [`gateway`] | the steps below, in their order |
//! | names that stand for others are put in | [`names`] | the [`request::Request`] to serve |
//! | the destination is checked | [`target`] | [`target::Target`] |
//! | the port's rules are asked | [`policy`] | [`policy::Permit`] |
//! | what may give its user away is refused or told | [`safety`] | |
//! | who may share a circuit | [`isolation`] | [`isolation::Isolation`] |
//! | the network is asked | [`dial`], [`tor`] | a stream, or a [`failure::Failure`] |
//! | the failure becomes a code | [`failure`] | the table |
//! | bytes go both ways | [`relay`] | [`relay::Relayed`] |
//! | the connection ends | [`parting`] | |
//!
//! Around it: [`cli`], [`config`], [`torrc`] and [`port`] read what the user wants, [`daemon`] is
//! the life of the process, [`signals`] what it is asked meanwhile, [`port_info`] where others find
//! it, [`logging`] its log, [`status`] how it is doing.

#![forbid(unsafe_code)]

pub mod access;
mod atomic_file;
pub mod cli;
pub mod config;
pub mod connection;
pub mod daemon;
pub mod dial;
pub mod dns;
pub mod early;
pub mod failure;
mod failure_log;
pub mod gateway;
pub mod http;
pub mod isolation;
pub mod listener;
pub mod logging;
pub mod names;
pub mod open_ports;
pub mod parting;
pub mod policy;
pub mod port;
pub mod port_info;
pub mod rarely;
pub mod relay;
pub mod request;
pub mod safety;
pub mod signals;
pub mod socks;
pub mod status;
pub mod swap;
pub mod target;
pub mod tor;
pub mod torrc;
pub mod transparent;
