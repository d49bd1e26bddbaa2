//! The SOCKS4, SOCKS4a and SOCKS5 handshake of a Tor SOCKS port, without any I/O.
//!
//! [`Handshake::step`] takes the bytes received so far and returns what to do next: read more, send two
//! bytes, serve a [`SocksRequest`], or refuse. Bytes that a step did not consume stay with the caller;
//! those behind a complete request are optimistic data. The steps depend on the bytes only, never on
//! how they were split into reads.
//!
//! The reference is C tor's `proto_socks.c`. In reading order:
//!
//! | module | holds |
//! |---|---|
//! | `step` | the steps, and why a client is refused ([`HandshakeStep`], [`HandshakeError`]) |
//! | `request` | the result of a handshake ([`SocksRequest`]) |
//! | `v4`, `v5` | the two protocols |
//! | `name` | the rules for host names |
//! | [`reply`] | the replies to requests; `v5` builds those to method choice and authentication |
//!
//! # What is left to the caller
//! C tor refuses some well-formed requests with the END reason of a stream. The handshake returns these as
//! requests, because the reply depends on later stages:
//! - **port 0**: `01`, but a bad `.onion` address with port 0 still gets `F6` with extended errors. SOCKS4
//!   itself forbids port 0, so that is refused here.
//! - **`.exit`**: `01`, after address mapping.
//! - **bad `.onion` addresses** that are host names (`a_b.onion`, `foo.onion`): `F6` with extended errors,
//!   otherwise `01`. Those that are not host names (`-bad.onion`, `foo..onion`, `.onion`) are refused here
//!   with `01`, whatever the port's flags: C tor checks the form first.
//! - **private addresses**, `localhost`, `*.local`: `01`.
//! - Failures of RESOLVE and RESOLVE_PTR: [`reply::resolve_failure`], whatever the reason.

pub(crate) mod name;
pub mod reply;
mod request;
mod step;
#[cfg(test)]
mod tests;
mod v4;
mod v5;

pub use reply::ClientFamily;
pub use request::{SocksCredentials, SocksRequest, Version};
pub use step::{HandshakeError, HandshakeOptions, HandshakeStep};

/// The length in bytes of the longest message: user name and password of 255 bytes each (RFC 1929).
///
/// For input of at least this length, [`Handshake::step`] never returns [`HandshakeStep::NeedMore`], so
/// a buffer of this size is sufficient.
pub const MAX_MESSAGE_LEN: usize = 513;

/// One handshake with one client, from the first byte to the request.
#[derive(Debug)]
pub struct Handshake {
    options: HandshakeOptions,
    state: HandshakeState,
}

#[derive(Debug)]
enum HandshakeState {
    /// Nothing is consumed yet; any protocol is possible.
    Initial,
    /// A SOCKS5 method has been chosen.
    Socks5(v5::Socks5Handshake),
    /// The request was returned, or the client was refused.
    Finished,
}

impl Handshake {
    /// Creates a handshake that has received nothing yet.
    pub fn new(options: HandshakeOptions) -> Self {
        Self {
            options,
            state: HandshakeState::Initial,
        }
    }

    /// Takes everything that was received and not consumed yet, and returns what to do next.
    ///
    /// Like C tor's `parse_socks`, recognises a message by its first byte, but waits for two bytes. After
    /// [`HandshakeStep::Done`] or [`HandshakeStep::Refuse`], every further call returns `Refuse`.
    pub fn step(&mut self, input: &[u8]) -> HandshakeStep {
        let step = self.next_step(input);
        if matches!(
            step,
            HandshakeStep::Done { .. } | HandshakeStep::Refuse { .. }
        ) {
            self.state = HandshakeState::Finished;
        }
        step
    }

    fn next_step(&mut self, input: &[u8]) -> HandshakeStep {
        let &[first, _, ..] = input else {
            return match self.state {
                HandshakeState::Finished => {
                    HandshakeStep::refuse_silently(HandshakeError::HandshakeOver)
                }
                HandshakeState::Initial | HandshakeState::Socks5(_) => HandshakeStep::NeedMore,
            };
        };
        match (&mut self.state, first) {
            (HandshakeState::Finished, _) => {
                HandshakeStep::refuse_silently(HandshakeError::HandshakeOver)
            }
            // GET, HEAD, PUT, POST, CONNECT: a browser that takes this port for an HTTP proxy.
            (_, b'G' | b'H' | b'P' | b'C') => HandshakeStep::Refuse {
                reply: reply::not_an_http_proxy(),
                error: HandshakeError::Http,
            },
            (HandshakeState::Initial, v4::VERSION) => v4::read_request(input, &self.options),
            (HandshakeState::Initial, v5::VERSION) => {
                match v5::read_greeting(input, &self.options) {
                    Ok((step, socks5)) => {
                        self.state = HandshakeState::Socks5(socks5);
                        step
                    }
                    Err(step) => step,
                }
            }
            (HandshakeState::Initial, v5::AUTH_VERSION) => v5::read_premature_auth(input),
            (HandshakeState::Initial, other) => {
                HandshakeStep::refuse_silently(HandshakeError::UnknownProtocol(other))
            }
            (HandshakeState::Socks5(socks5), _) => socks5.step(input, &self.options),
        }
    }
}
