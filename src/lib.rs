//! A Tor SOCKS port that tells its clients exactly why an onion service could not be reached.
//!
//! The way of a request, and the modules it meets:
//!
//! | step | module | gives |
//! |---|---|---|
//! | a port is opened, clients are accepted | [`listener`] | a client's socket and [`connection::Origin`] |
//! | the story of one connection | [`connection`] | read this first |
//! | bytes become a request | [`socks`] | [`socks::Request`] |
//! | the destination is checked | [`target`] | [`target::Target`] |
//! | the port's rules are asked | [`policy`] | [`policy::Permit`] |
//! | who may share a circuit | [`isolation`] | [`isolation::Isolation`] |
//! | the network is asked | [`dial`], [`tor`] | a stream, or a [`failure::Failure`] |
//! | the failure becomes a code | [`failure`] | the table |
//! | bytes go both ways | [`relay`] | [`relay::Relayed`] |
//!
//! Around it: [`cli`], [`config`] and [`port`] read what the user wants, [`daemon`] is the life of
//! the process, [`logging`] its log.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod connection;
pub mod daemon;
pub mod dial;
pub mod failure;
pub mod isolation;
pub mod listener;
pub mod logging;
pub mod policy;
pub mod port;
pub mod relay;
pub mod socks;
pub mod target;
pub mod tor;
