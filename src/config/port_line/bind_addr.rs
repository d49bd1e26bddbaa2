//! Where a port listens: the first word of a port line.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use super::error::PortError;
use super::quote;

/// The longest path of a Unix socket on Linux, in bytes (`sun_path` without its closing zero).
const UNIX_PATH_MAX: usize = 107;

/// Where a port listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BindAddr {
    /// `0`: the port is not opened.
    Disabled,
    /// An IP address and a port, which is never 0.
    Tcp(SocketAddr),
    /// An IP address, with a port that the system chooses.
    TcpAuto(IpAddr),
    /// A Unix socket at this absolute path.
    Unix(PathBuf),
}

impl BindAddr {
    /// Whether the system chooses the port.
    #[must_use]
    pub(crate) fn is_auto(&self) -> bool {
        matches!(self, BindAddr::TcpAuto(_))
    }

    /// Returns the warning for an address that other machines can reach (C tor:
    /// `warn_nonlocal_client_ports`).
    pub(super) fn exposure_warning(&self) -> Option<String> {
        let ip = match self {
            BindAddr::Tcp(addr) => addr.ip(),
            BindAddr::TcpAuto(ip) => *ip,
            BindAddr::Disabled | BindAddr::Unix(_) => return None,
        };
        (!ip.is_loopback()).then(|| {
            format!(
                "other machines can reach {self} and use this proxy, over unencrypted connections: \
                 listen on 127.0.0.1 or on a Unix socket unless you want that"
            )
        })
    }
}

impl fmt::Display for BindAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindAddr::Disabled => f.write_str("0"),
            BindAddr::Tcp(addr) => addr.fmt(f),
            BindAddr::TcpAuto(IpAddr::V4(Ipv4Addr::LOCALHOST)) => f.write_str("auto"),
            BindAddr::TcpAuto(IpAddr::V4(ip)) => write!(f, "{ip}:auto"),
            BindAddr::TcpAuto(IpAddr::V6(ip)) => write!(f, "[{ip}]:auto"),
            BindAddr::Unix(path) => write!(f, "unix:{}", quote::quote_path(path)),
        }
    }
}

/// Parses the address at the start of a line, and returns it with the flags that follow.
pub(super) fn parse(line: &str) -> Result<(BindAddr, &str), PortError> {
    let line = line.trim_matches(is_space);
    if let Some(quoted) = line.strip_prefix("unix:\"") {
        let (path, rest) = quote::unquote(quoted).ok_or_else(|| PortError::BadQuoting {
            text: line.to_owned(),
        })?;
        return Ok((check_unix_path(path)?, rest));
    }
    let (word, rest) = line.split_once(is_space).unwrap_or((line, ""));
    let bind = match word.strip_prefix("unix:") {
        Some(path) => check_unix_path(path.as_bytes().to_vec())?,
        None => parse_tcp(word)?,
    };
    Ok((bind, rest))
}

/// Whether C tor takes a character of a configuration line as white space.
pub(crate) fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

/// Checks the path of a Unix socket, without looking at the file system.
fn check_unix_path(path: Vec<u8>) -> Result<BindAddr, PortError> {
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
    Ok(BindAddr::Unix(PathBuf::from(OsString::from_vec(path))))
}

/// Parses the word for a TCP port: `PORT`, `auto`, `ADDRESS:PORT`, `ADDRESS:auto` or `0`.
fn parse_tcp(word: &str) -> Result<BindAddr, PortError> {
    if word.is_empty() {
        return Err(PortError::Empty);
    }
    let all_digits = word.bytes().all(|b| b.is_ascii_digit());
    if all_digits || word.eq_ignore_ascii_case("auto") {
        // Only here 0 means "off" and not "any port".
        return match parse_port(word)? {
            Some(0) => Ok(BindAddr::Disabled),
            number => Ok(with_port(Ipv4Addr::LOCALHOST.into(), number)),
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
            address: to_bracketed(ip),
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
    match parse_port(number)? {
        Some(0) => Err(PortError::ZeroPort {
            address: to_bracketed(ip),
        }),
        number => Ok(with_port(ip, number)),
    }
}

/// Combines an IP address and a port; without a port, the system chooses it.
fn with_port(ip: IpAddr, number: Option<u16>) -> BindAddr {
    match number {
        Some(number) => BindAddr::Tcp(SocketAddr::new(ip, number)),
        None => BindAddr::TcpAuto(ip),
    }
}

/// Parses a port number; `auto` is `None`.
fn parse_port(text: &str) -> Result<Option<u16>, PortError> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    // u16's own parser accepts "+80".
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(PortError::BadPort {
            text: text.to_owned(),
        });
    }
    text.parse().map(Some).map_err(|_| PortError::BadPort {
        text: text.to_owned(),
    })
}

/// Formats an IP address as it is written before `:PORT`.
fn to_bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}
