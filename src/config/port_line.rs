//! The port line: one grammar for `--socks-port`, a torrc's `SocksPort` and the TOML file.
//!
//! ```text
//! [ADDRESS:]PORT | [ADDRESS:]auto | unix:PATH | unix:"QUOTED PATH" | 0   [flag …]
//! ```
//!
//! The words mean what they mean in tor(1), "SocksPort": a bare port is on 127.0.0.1, `0` opens
//! nothing, flags are read from left to right without regard to case and the last one wins.
//! Reading a line opens nothing.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::str::FromStr;

mod error;
mod flags;
pub(crate) mod quote;
#[cfg(test)]
mod tests;

pub use error::PortError;
pub use flags::{DnsCacheFlags, Flags, IsolationFlags};

/// The longest path a unix socket can have on Linux, in bytes (`sun_path` less its closing zero).
const UNIX_PATH_MAX: usize = 107;

/// One port as the user wrote it, checked: where to listen and what its clients may do.
///
/// [`FromStr`] reads a line, [`Display`](fmt::Display) writes the shortest line that means the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortLine {
    /// Where to listen.
    pub bind: Bind,
    /// What the flags of the line say, together with tor(1)'s defaults for the others.
    pub flags: Flags,
    /// Whole sentences for the log: words that were not understood, flags without effect,
    /// an address that other machines can reach.
    pub warnings: Vec<String>,
}

/// Where a port listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bind {
    /// `0`: nowhere.
    Disabled,
    /// A TCP address; the port is never 0.
    Tcp(SocketAddr),
    /// A TCP port which the system chooses, on this address.
    TcpAuto(IpAddr),
    /// A unix socket at this absolute path.
    Unix(PathBuf),
}

impl Bind {
    /// Whether the system chooses the port.
    #[must_use]
    pub fn is_auto(&self) -> bool {
        matches!(self, Bind::TcpAuto(_))
    }
}

/// The protocol that a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortKind {
    /// SOCKS 4, 4a and 5 (tor(1) `SocksPort`).
    Socks,
    /// An HTTP proxy: CONNECT (tor(1) `HTTPTunnelPort`) and plain requests.
    Http,
    /// Whatever the system redirects to it (tor(1) `TransPort`).
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

    /// One word: what `listening` lines and the names of handed-over sockets say.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            PortKind::Socks => "socks",
            PortKind::Http => "http",
            PortKind::Transparent => "trans",
            PortKind::Dns => "dns",
        }
    }
}

/// A port to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// What it speaks.
    pub kind: PortKind,
    /// Where, and with which flags; never [`Bind::Disabled`].
    pub line: PortLine,
    /// Whether the user asked for it: a default port gives way to sockets that are handed over.
    pub chosen: bool,
}

impl PortLine {
    /// A line without any flag.
    #[must_use]
    pub fn plain(bind: Bind) -> Self {
        let flags = Flags::for_bind(&bind);
        let warnings = exposure(&bind).into_iter().collect();
        PortLine {
            bind,
            flags,
            warnings,
        }
    }

    /// Says why this line cannot be served by a port of this kind, if it cannot.
    ///
    /// Everything that the grammar knows and the program does not do yet is listed here, so that
    /// a request for it is refused at start and never quietly ignored.
    #[must_use]
    pub fn unserved(&self, kind: PortKind) -> Option<String> {
        match (kind, &self.bind) {
            (PortKind::Socks | PortKind::Http, _) | (_, Bind::Disabled) => None,
            (PortKind::Transparent, _) if !cfg!(target_os = "linux") => {
                Some("a transparent port needs Linux: remove this line or write 0".to_owned())
            }
            (PortKind::Transparent, Bind::Unix(_)) => Some(
                "nothing can be redirected to a unix socket: write an address and a port"
                    .to_owned(),
            ),
            (PortKind::Dns, Bind::Unix(_)) => {
                Some("DNS is not spoken over unix sockets: write an address and a port".to_owned())
            }
            (PortKind::Dns, _) if !self.flags.dns_request => Some(
                "a DNS port that answers no DNS is of no use: remove NoDNSRequest or \
                 OnionTrafficOnly"
                    .to_owned(),
            ),
            (PortKind::Transparent | PortKind::Dns, Bind::Tcp(_) | Bind::TcpAuto(_)) => None,
        }
    }
}

impl Default for PortLine {
    /// 127.0.0.1:9150 without flags: the port that is open when nothing is configured.
    fn default() -> Self {
        Self::plain(Bind::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 9150))))
    }
}

/// Checks the port lines of one kind together (tor(1) `SocksPort`, "multiple times").
///
/// # Errors
/// [`PortError::ZeroAmongOthers`] if `0` stands beside an open port,
/// [`PortError::Duplicate`] if two lines ask for the same address or path.
pub fn check_ports(lines: &[PortLine]) -> Result<(), PortError> {
    let closed = |line: &PortLine| line.bind == Bind::Disabled;
    if let Some(open) = lines.iter().find(|line| !closed(line))
        && lines.iter().any(closed)
    {
        return Err(PortError::ZeroAmongOthers {
            open: open.bind.to_string(),
        });
    }
    let mut seen = HashSet::new();
    for line in lines {
        // Each `auto` gets a port of its own, so only fixed places can collide.
        let fixed = matches!(line.bind, Bind::Tcp(_) | Bind::Unix(_));
        if fixed && !seen.insert(&line.bind) {
            return Err(PortError::Duplicate {
                bind: line.bind.to_string(),
            });
        }
    }
    Ok(())
}

impl FromStr for PortLine {
    type Err = PortError;

    fn from_str(line: &str) -> Result<Self, PortError> {
        let (bind, rest) = split_bind(line)?;
        let (flags, mut warnings) = flags::parse(&bind, rest)?;
        warnings.extend(exposure(&bind));
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
        for word in self.flags.words(&self.bind) {
            write!(f, " {word}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Disabled => f.write_str("0"),
            Bind::Tcp(addr) => addr.fmt(f),
            Bind::TcpAuto(IpAddr::V4(Ipv4Addr::LOCALHOST)) => f.write_str("auto"),
            Bind::TcpAuto(IpAddr::V4(ip)) => write!(f, "{ip}:auto"),
            Bind::TcpAuto(IpAddr::V6(ip)) => write!(f, "[{ip}]:auto"),
            Bind::Unix(path) => write!(f, "unix:{}", quote::path(path)),
        }
    }
}

/// Takes the place off the front of a line and gives it with the flags that follow.
fn split_bind(line: &str) -> Result<(Bind, &str), PortError> {
    let line = line.trim_matches(is_space);
    if let Some(quoted) = line.strip_prefix("unix:\"") {
        let (path, rest) = quote::unquote(quoted).ok_or_else(|| PortError::BadQuoting {
            text: line.to_owned(),
        })?;
        return Ok((unix(path)?, rest));
    }
    let (word, rest) = line.split_once(is_space).unwrap_or((line, ""));
    let bind = match word.strip_prefix("unix:") {
        Some(path) => unix(path.as_bytes().to_vec())?,
        None => tcp(word)?,
    };
    Ok((bind, rest))
}

/// The white space of C tor's configuration lines.
fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

/// Checks the path of a unix socket; the file system is not looked at.
fn unix(path: Vec<u8>) -> Result<Bind, PortError> {
    let shown = String::from_utf8_lossy(&path).into_owned();
    if !path.starts_with(b"/") {
        return Err(PortError::RelativePath { path: shown });
    }
    if path.contains(&0) {
        return Err(PortError::ZeroByteInPath { path: shown });
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(PortError::PathTooLong {
            path: shown,
            length: path.len(),
            limit: UNIX_PATH_MAX,
        });
    }
    Ok(Bind::Unix(PathBuf::from(OsString::from_vec(path))))
}

/// Reads the word of a TCP port: `PORT`, `auto`, `ADDRESS:PORT`, `ADDRESS:auto` or `0`.
fn tcp(word: &str) -> Result<Bind, PortError> {
    if word.is_empty() {
        return Err(PortError::Empty);
    }
    let all_digits = word.bytes().all(|b| b.is_ascii_digit());
    if all_digits || word.eq_ignore_ascii_case("auto") {
        // The one place where 0 means "off" and not "any".
        return match port(word)? {
            Some(0) => Ok(Bind::Disabled),
            number => Ok(on(Ipv4Addr::LOCALHOST.into(), number)),
        };
    }
    let (host, number) = word.rsplit_once(':').unwrap_or((word, ""));
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err(PortError::Unbracketed {
            text: word.to_owned(),
            host: host.to_owned(),
            port: number.to_owned(),
        });
    }
    if let Ok(ip) = word.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Err(PortError::NoPort {
            address: bracketed(ip),
        });
    }
    let ip = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(inner) => inner.parse().map(IpAddr::V6).ok(),
        None if host.eq_ignore_ascii_case("localhost") => Some(Ipv4Addr::LOCALHOST.into()),
        None => host.parse().map(IpAddr::V4).ok(),
    };
    let ip = ip.ok_or_else(|| PortError::BadAddress {
        text: word.to_owned(),
    })?;
    match port(number)? {
        Some(0) => Err(PortError::ZeroPort {
            address: bracketed(ip),
        }),
        number => Ok(on(ip, number)),
    }
}

/// An address and its port, where no port means that the system chooses.
fn on(ip: IpAddr, number: Option<u16>) -> Bind {
    match number {
        Some(number) => Bind::Tcp(SocketAddr::new(ip, number)),
        None => Bind::TcpAuto(ip),
    }
}

/// Reads a port number; `auto` is `None`.
fn port(text: &str) -> Result<Option<u16>, PortError> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    // u16's own parser would take "+80".
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(PortError::BadPort {
            text: text.to_owned(),
        });
    }
    text.parse().map(Some).map_err(|_| PortError::BadPort {
        text: text.to_owned(),
    })
}

/// An address as it stands before `:PORT`.
fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The warning for a port that is not only for this machine (C tor: `warn_nonlocal_client_ports`).
fn exposure(bind: &Bind) -> Option<String> {
    let ip = match bind {
        Bind::Tcp(addr) => addr.ip(),
        Bind::TcpAuto(ip) => *ip,
        Bind::Disabled | Bind::Unix(_) => return None,
    };
    (!ip.is_loopback()).then(|| {
        format!(
            "{bind} can be reached from other machines, and whoever reaches it can use this proxy \
             unencrypted: listen on 127.0.0.1 or on a unix socket unless that is wanted"
        )
    })
}
