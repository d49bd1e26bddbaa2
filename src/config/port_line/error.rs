//! What can be wrong with a port line.

use thiserror::Error;

/// Why a port line, or a list of them, cannot be used.
///
/// Every message is one line that quotes the offending word and says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PortError {
    /// Nothing but white space.
    #[error("a port line is empty: write a port such as 9150, or 0 for none")]
    Empty,
    /// A quoted path without its closing quote, or with an escape that C does not know.
    #[error(
        "the quoted path in {text:?} cannot be read: close it with a \" and use only the escapes \
         \\\\ \\\" \\' \\n \\r \\t \\xHH and \\NNN in it"
    )]
    BadQuoting {
        /// The line from `unix:` on.
        text: String,
    },
    /// A unix socket's path that does not start with `/`.
    #[error("the unix socket path {path:?} is not absolute: begin it with /")]
    RelativePath {
        /// The path as written.
        path: String,
    },
    /// A unix socket's path with a zero byte.
    #[error("the unix socket path {path:?} holds a zero byte: remove it")]
    ZeroByteInPath {
        /// The path as written.
        path: String,
    },
    /// A unix socket's path that the system has no room for.
    #[error(
        "the unix socket path {path:?} has {length} bytes and the system takes {limit}: \
         choose a shorter one"
    )]
    PathTooLong {
        /// The path as written.
        path: String,
        /// Its length in bytes.
        length: usize,
        /// The longest length in bytes.
        limit: usize,
    },
    /// An address alone.
    #[error("{address} has no port: write {address}:9150 or {address}:auto")]
    NoPort {
        /// The address, in brackets if it is an IPv6 one.
        address: String,
    },
    /// Port 0 with an address: off or any? tor(1) takes neither.
    #[error(
        "{address}:0 is ambiguous: write {address}:auto for any free port, or 0 alone for no port"
    )]
    ZeroPort {
        /// The address, in brackets if it is an IPv6 one.
        address: String,
    },
    /// Something where a port belongs.
    #[error("{text:?} is not a port: write a number from 1 to 65535, or auto")]
    BadPort {
        /// The text as written.
        text: String,
    },
    /// An IPv6 address whose end cannot be told from the port.
    #[error("{text:?} is not clear: write an IPv6 address in brackets, [{host}]:{port}")]
    Unbracketed {
        /// The word as written.
        text: String,
        /// What stands before the last colon.
        host: String,
        /// What stands after it.
        port: String,
    },
    /// Neither a port nor an address nor a path.
    #[error(
        "{text:?} is no place to listen on: write a port, an IP address with a port \
         (127.0.0.1:9150, [::1]:9150), auto, unix:/PATH, or 0 for none"
    )]
    BadAddress {
        /// The word as written.
        text: String,
    },
    /// `SessionGroup=` with something else than a number.
    #[error("{word:?} is not a session group: write SessionGroup=N with N from 0 to 2147483647")]
    BadSessionGroup {
        /// The word as written.
        word: String,
    },
    /// `SessionGroup=` twice, and not the same.
    #[error("SessionGroup={first} and SessionGroup={second} on one port: keep one of them")]
    TwoSessionGroups {
        /// The group named first.
        first: u32,
        /// The group named later.
        second: u32,
    },
    /// A port that may carry nothing.
    #[error(
        "NoIPv4Traffic, NoIPv6Traffic and NoOnionTraffic together leave nothing to carry: \
         remove one of them (OnionTrafficOnly switches the first two)"
    )]
    NothingToCarry,
    /// Names may be looked up, yet no address may be used.
    #[error(
        "with NoIPv4Traffic and NoIPv6Traffic names cannot be resolved: \
         add NoDNSRequest, or write OnionTrafficOnly instead"
    )]
    DnsWithoutTraffic,
    /// A flag of unix sockets on a TCP port.
    #[error("{flag} is for unix sockets only: remove it or listen on unix:/PATH")]
    UnixFlagOnTcp {
        /// The flag by its proper name.
        flag: &'static str,
    },
    /// Keeping circuits for the user and password that are not to be looked at.
    #[error(
        "KeepAliveIsolateSOCKSAuth needs IsolateSOCKSAuth: remove it or remove NoIsolateSOCKSAuth"
    )]
    KeepAliveWithoutAuth,
    /// `0` and a port.
    #[error("0 closes all ports of its kind, and {open} opens one: keep one of the two")]
    ZeroAmongOthers {
        /// The place of an open port.
        open: String,
    },
    /// The same place twice.
    #[error("{bind} is given twice: keep one of the lines")]
    Duplicate {
        /// The place.
        bind: String,
    },
}
