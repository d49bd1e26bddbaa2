//! The port line: one grammar for `--socks-port`, a torrc's `SocksPort` and the TOML file.
//!
//! ```text
//! [ADDRESS:]PORT | [ADDRESS:]auto | unix:PATH | unix:"QUOTED PATH" | 0   [flag …]
//! ```
//!
//! The words have the meaning of tor(1), "SocksPort": a bare port is on 127.0.0.1, and `0` opens
//! nothing. Flags are read from left to right, ignoring case, and the last one wins. Parsing a line
//! opens nothing.
//!
//! `bind_addr` parses the address, `flags` the words after it, `quote` quoted paths.

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

mod bind_addr;
mod error;
mod flags;
pub(crate) mod quote;
#[cfg(test)]
mod tests;

pub use bind_addr::BindAddr;
pub(crate) use bind_addr::is_space;
pub use error::PortError;
pub use flags::{DnsCacheFlags, Flags, IsolationFlags};

/// A port to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The protocol of its clients.
    pub kind: PortKind,
    /// Where to listen, with which flags. [`crate::config::load`] leaves out lines that are `0`
    /// ([`BindAddr::Disabled`]).
    pub line: PortLine,
    /// Whether the user asked for it. Sockets inherited from a service manager replace a default
    /// port.
    pub explicit: bool,
}

/// The protocol of a port's clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortKind {
    /// SOCKS 4, 4a and 5 (tor(1) `SocksPort`).
    Socks,
    /// An HTTP proxy: CONNECT (tor(1) `HTTPTunnelPort`) and plain requests.
    Http,
    /// Any connection that the system redirects to it (tor(1) `TransPort`).
    Transparent,
    /// DNS over UDP (tor(1) `DNSPort`).
    Dns,
}

impl PortKind {
    /// All kinds, in the order in which their ports are opened.
    pub const ALL: [PortKind; 4] = [
        PortKind::Socks,
        PortKind::Http,
        PortKind::Transparent,
        PortKind::Dns,
    ];

    /// Returns the name of this kind in `listening` lines and in the names of inherited sockets.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            PortKind::Socks => "socks",
            PortKind::Http => "http",
            PortKind::Transparent => "trans",
            PortKind::Dns => "dns",
        }
    }
}

/// One port line, checked: where to listen and what clients may do.
///
/// [`FromStr`] parses a line, [`Display`](fmt::Display) writes the shortest line with the same
/// meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortLine {
    /// Where to listen.
    pub bind: BindAddr,
    /// The flags of the line, and tor(1)'s defaults for all others.
    pub flags: Flags,
    /// Messages for the log: unknown words, flags without effect, an address that other machines
    /// can reach.
    pub warnings: Vec<String>,
}

impl PortLine {
    /// Builds a line without flags.
    #[must_use]
    pub fn plain(bind: BindAddr) -> Self {
        let flags = Flags::for_bind(&bind);
        let warnings = bind.exposure_warning().into_iter().collect();
        PortLine {
            bind,
            flags,
            warnings,
        }
    }

    /// Returns why a port of this kind cannot serve this line, if it cannot.
    ///
    /// This covers all that the grammar accepts but the program does not support, so that such a
    /// line is refused at start and never silently ignored.
    #[must_use]
    pub fn unsupported_reason(&self, kind: PortKind) -> Option<String> {
        match (kind, &self.bind) {
            (PortKind::Socks | PortKind::Http, _) | (_, BindAddr::Disabled) => None,
            (PortKind::Transparent, _) if !cfg!(target_os = "linux") => {
                Some("a transparent port needs Linux: remove this line or write 0".to_owned())
            }
            (PortKind::Transparent, BindAddr::Unix(_)) => Some(
                "connections cannot be redirected to a Unix socket: write an address and a port"
                    .to_owned(),
            ),
            (PortKind::Dns, BindAddr::Unix(_)) => {
                Some("a DNS port cannot be a Unix socket: write an address and a port".to_owned())
            }
            (PortKind::Dns, _) if !self.flags.dns_request => Some(
                "a DNS port has to answer DNS requests: remove NoDNSRequest or OnionTrafficOnly"
                    .to_owned(),
            ),
            (PortKind::Transparent | PortKind::Dns, BindAddr::Tcp(_) | BindAddr::TcpAuto(_)) => {
                None
            }
        }
    }
}

impl Default for PortLine {
    /// 127.0.0.1:9150 without flags: the port to open if nothing is configured.
    fn default() -> Self {
        Self::plain(BindAddr::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 9150))))
    }
}

impl FromStr for PortLine {
    type Err = PortError;

    fn from_str(line: &str) -> Result<Self, PortError> {
        let (bind, rest) = bind_addr::parse(line)?;
        let (flags, mut warnings) = flags::parse(&bind, rest)?;
        warnings.extend(bind.exposure_warning());
        Ok(PortLine {
            bind,
            flags,
            warnings,
        })
    }
}

impl fmt::Display for PortLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bind.fmt(f)?;
        for word in self.flags.to_words(&self.bind) {
            write!(f, " {word}")?;
        }
        Ok(())
    }
}

/// Checks the port lines of one kind together (tor(1) `SocksPort`, "multiple times").
///
/// # Errors
/// [`PortError::ZeroAmongOthers`] if one line is `0` and another opens a port,
/// [`PortError::Duplicate`] if two lines have the same address or path.
pub fn check_ports(lines: &[PortLine]) -> Result<(), PortError> {
    let is_closed = |line: &PortLine| line.bind == BindAddr::Disabled;
    if let Some(open) = lines.iter().find(|line| !is_closed(line))
        && lines.iter().any(is_closed)
    {
        return Err(PortError::ZeroAmongOthers {
            open: open.bind.to_string(),
        });
    }
    let mut seen = HashSet::new();
    for line in lines {
        // Each `auto` gets a port of its own, so only fixed addresses can collide.
        let fixed = matches!(line.bind, BindAddr::Tcp(_) | BindAddr::Unix(_));
        if fixed && !seen.insert(&line.bind) {
            return Err(PortError::Duplicate {
                bind: line.bind.to_string(),
            });
        }
    }
    Ok(())
}
