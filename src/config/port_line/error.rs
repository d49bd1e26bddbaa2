//! Errors of port lines.

use thiserror::Error;

/// Why a port line, or a list of them, cannot be used.
///
/// Every message is one line that quotes the offending word and names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PortError {
    /// Nothing but white space.
    #[error("the port line is empty: write a port such as 9150, or 0 for none")]
    Empty,
    /// A quoted path has no closing quote, or an escape that C does not have.
    #[error(
        "invalid quoted path in {text:?}: close it with a \" and use only the escapes \
         \\\\ \\\" \\' \\n \\r \\t \\xHH and \\NNN"
    )]
    BadQuoting {
        /// The line, from `unix:` on.
        text: String,
    },
    /// The path of a Unix socket does not start with `/`.
    #[error("the Unix socket path {path:?} is not absolute: begin it with /")]
    RelativePath {
        /// The path as written.
        path: String,
    },
    /// The path of a Unix socket contains a zero byte.
    #[error("the Unix socket path {path:?} contains a zero byte: remove it")]
    ZeroByteInPath {
        /// The path as written.
        path: String,
    },
    /// The path of a Unix socket is too long for the system.
    #[error(
        "the Unix socket path {path:?} is {length} bytes long, the limit is {limit}: \
         choose a shorter one"
    )]
    PathTooLong {
        /// The path as written.
        path: String,
        /// Its length, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// An address without a port.
    #[error("{address} has no port: write {address}:9150 or {address}:auto")]
    NoPort {
        /// The address, in brackets if it is an IPv6 one.
        address: String,
    },
    /// Port 0 with an address could mean "off" or "any port"; tor(1) allows neither.
    #[error(
        "{address}:0 is ambiguous: write {address}:auto for any free port, or 0 alone for no port"
    )]
    ZeroPort {
        /// The address, in brackets if it is an IPv6 one.
        address: String,
    },
    /// The port is not a number from 1 to 65535.
    #[error("{text:?} is not a port: write a number from 1 to 65535, or auto")]
    BadPort {
        /// The text as written.
        text: String,
    },
    /// The end of an IPv6 address could be the port.
    #[error("{text:?} is ambiguous: write an IPv6 address in brackets, [{host}]:{port}")]
    Unbracketed {
        /// The word as written.
        text: String,
        /// The text before the last colon.
        host: String,
        /// The text after it.
        port: String,
    },
    /// The first word is not a port, an address or a path.
    #[error(
        "{text:?} is not an address to listen on: write a port, an IP address with a port \
         (127.0.0.1:9150, [::1]:9150), auto, unix:/PATH, or 0 for none"
    )]
    BadAddress {
        /// The word as written.
        text: String,
    },
    /// The value of `SessionGroup=` is not a valid number.
    #[error("{word:?} is not a session group: write SessionGroup=N with N from 0 to 2147483647")]
    BadSessionGroup {
        /// The word as written.
        word: String,
    },
    /// `SessionGroup=` is given twice, with different values.
    #[error("SessionGroup={first} and SessionGroup={second} on one port: keep one of them")]
    TwoSessionGroups {
        /// The group named first.
        first: u32,
        /// The group named later.
        second: u32,
    },
    /// All kinds of traffic are switched off.
    #[error(
        "NoIPv4Traffic, NoIPv6Traffic and NoOnionTraffic together leave nothing to carry: \
         remove one of them (OnionTrafficOnly implies the first two)"
    )]
    NothingToCarry,
    /// DNS requests are allowed, but no IP traffic.
    #[error(
        "names cannot be resolved with NoIPv4Traffic and NoIPv6Traffic: \
         add NoDNSRequest, or write OnionTrafficOnly instead"
    )]
    DnsWithoutTraffic,
    /// A flag for Unix sockets is given for a TCP port.
    #[error("{flag} is for Unix sockets only: remove it or listen on unix:/PATH")]
    UnixFlagOnTcp {
        /// The flag, as tor(1) writes it.
        flag: &'static str,
    },
    /// `KeepAliveIsolateSOCKSAuth` is given without isolation by user and password.
    #[error(
        "KeepAliveIsolateSOCKSAuth needs IsolateSOCKSAuth: remove it or remove NoIsolateSOCKSAuth"
    )]
    KeepAliveWithoutAuth,
    /// One line is `0`, and another opens a port.
    #[error("0 closes all ports of this kind, but {open} opens one: keep one of the two")]
    ZeroAmongOthers {
        /// The address of the open port.
        open: String,
    },
    /// Two lines have the same address.
    #[error("{bind} is given twice: keep one of the lines")]
    Duplicate {
        /// The address.
        bind: String,
    },
}
