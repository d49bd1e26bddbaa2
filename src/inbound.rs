//! Everything that clients connect to: the ports and their protocols.
//!
//! Read [`connection`] first, the life of one SOCKS connection from its first byte to its last; then
//! [`listener`], which opens the ports and accepts their clients.
//!
//! | module | holds |
//! |---|---|
//! | [`listener`] | opening ports (TCP, UDP, Unix, inherited from systemd) and accepting clients |
//! | [`connection`] | the life of a SOCKS connection |
//! | [`socks`] | the SOCKS4, SOCKS4a and SOCKS5 handshake, without I/O |
//! | [`http`] | HTTP ports: CONNECT, plain requests, pages |
//! | [`dns`] | DNS ports |
//! | [`transparent`] | connections that the system redirects |
//! | [`relay`] | copying bytes both ways once a stream is open |
//! | [`lingering_close`] | closing or resetting a client's connection without losing bytes |
//! | `failure_log` | log lines about failed requests |
//!
//! Nothing here imports [`crate::daemon`].

pub mod connection;
pub mod dns;
mod failure_log;
pub mod http;
pub mod lingering_close;
pub mod listener;
pub mod relay;
pub mod socks;
pub mod transparent;
