//! Everything that clients talk to: the ports and their protocols.
//!
//! Read [`listener`] first (a port is opened, clients are accepted), then [`connection`] (the story of
//! one SOCKS connection from its first byte to its last).
//!
//! | module | holds |
//! |---|---|
//! | [`listener`] | ports on TCP and unix sockets, those of a service manager, and their clients |
//! | [`connection`] | the life of a SOCKS connection |
//! | [`socks`] | SOCKS4, SOCKS4a and SOCKS5: bytes and requests |
//! | [`http`] | CONNECT, plain requests, and pages |
//! | [`dns`] | questions and answers over UDP |
//! | [`transparent`] | connections that the system redirects |
//! | [`relay`] | carries bytes both ways once a stream is open |
//! | [`lingering_close`] | ends a connection without losing what is on its way |
//!
//! Nothing in here imports [`crate::daemon`].

pub mod connection;
pub mod dns;
mod failure_log;
pub mod http;
pub mod lingering_close;
pub mod listener;
pub mod relay;
pub mod socks;
pub mod transparent;
