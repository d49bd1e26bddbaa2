//! The checked configuration of a run.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use arti_client::TorClientConfig;
use zeroize::Zeroizing;

use super::access::Access;
use super::address_map::AddressMapSettings;
use super::plaintext_ports::PlaintextPorts;
use super::port_line::Port;

/// How long an exit may take if nothing is configured: arti's default, and C tor's for its first
/// attempts.
pub const DEFAULT_EXIT_TIMEOUT: Duration = Duration::from_secs(10);
/// The default file that lists the open ports, below the state folder.
pub const PORT_INFO: &str = "public/port_info.json";

/// The configuration of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The settings of arti-client.
    pub tor: TorClientConfig,
    /// The ports to open; no two have the same address.
    pub ports: Vec<Port>,
    /// Limit for a client's handshake, and for a request until it is answered (tor(1)
    /// `SocksTimeout`).
    pub socks_timeout: Duration,
    /// How long an exit may take to answer.
    pub exit_timeouts: ExitTimeouts,
    /// Which clients may connect (`socks_policy`).
    pub access: Access,
    /// Whether to refuse requests that give an IP address (tor(1) `SafeSocks`).
    pub safe_socks: bool,
    /// Whether to log each request as safe or unsafe (tor(1) `TestSocks`).
    pub test_socks: bool,
    /// Destination ports of plain-text protocols.
    pub plaintext_ports: PlaintextPorts,
    /// Address mapping and automapping.
    pub address_map: AddressMapSettings,
    /// How connections reach the transparent ports.
    pub trans_proxy_type: TransProxyType,
    /// The folder of `*.auth_private` files (tor(1) `ClientOnionAuthDir`), if any; not checked.
    pub client_onion_auth_dir: Option<PathBuf>,
    /// Whether exits may be asked to connect to private and local addresses
    /// (`address_filter.allow_local_addrs`; C tor's `ClientRejectInternalAddresses 0`).
    pub allow_local_addrs: bool,
    /// Whether onion services may be reached at all (`address_filter.allow_onion_addrs`).
    pub allow_onion_addrs: bool,
    /// Whether a lookup may return private and local addresses
    /// (`address_filter.allow_resolving_local_addrs`; C tor's `ClientDNSRejectInternalAddresses 0`).
    pub allow_resolving_local_addrs: bool,
    /// arti's folder for persistent state.
    pub state_dir: PathBuf,
    /// arti's folder for downloaded directories.
    pub cache_dir: PathBuf,
    /// Whether debuggers may attach, and crashes write core dumps (`application.permit_debugging`).
    pub permit_debugging: bool,
    /// Why this user must not start the program (`application.allow_running_as_root`).
    pub root_problem: Option<String>,
    /// Why this user cannot use the two folders. This is not an error of [`load`](super::load), so
    /// that a user can check another user's configuration; a start has to fail.
    pub folder_problem: Option<String>,
    /// The proxy for connections to relays, if any (`channel.outbound_proxy`).
    pub outbound_proxy: Option<OutboundProxy>,
    /// The file that lists the open ports. `None` means [`PORT_INFO`] if the system chooses a port,
    /// else no file.
    pub port_info_file: Option<PathBuf>,
    /// The number of open files to ask the system for.
    pub max_files: u64,
    /// A filter that [`EnvFilter`](tracing_subscriber::EnvFilter) accepts.
    pub log_filter: String,
    /// Timestamps of the log are rounded down to a multiple of this.
    pub log_granularity: Duration,
    /// Messages for the log, each with its location.
    pub warnings: Vec<String>,
    /// Values that may contain passwords, for the log to hide.
    pub secrets: Vec<Zeroizing<String>>,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
    /// The settings of C tor's files as a TOML file that the user can keep; `None` without such files.
    /// It may contain passwords.
    pub torrc: Option<Zeroizing<String>>,
}

/// The URL of a proxy as written: arti-client reads it, but does not expose it.
///
/// Debug output is redacted, and the text is wiped on drop: the URL may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct OutboundProxy(Zeroizing<String>);

impl OutboundProxy {
    /// Wraps a URL.
    pub(super) fn new(url: String) -> Self {
        OutboundProxy(Zeroizing::new(url))
    }
}

impl fmt::Debug for OutboundProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutboundProxy")
    }
}

/// How connections reach a transparent port (tor(1) `TransProxyType`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TransProxyType {
    /// iptables or nftables redirect them (`REDIRECT`); the system remembers the original
    /// destination.
    #[default]
    Default,
    /// They keep their destination as local address (`TPROXY`).
    Tproxy,
}

impl TransProxyType {
    /// Parses a name, ignoring case; the error contains the names to write.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "default" => Ok(TransProxyType::Default),
            "tproxy" => Ok(TransProxyType::Tproxy),
            _ => Err(format!(
                "{text:?} is not supported: write \"default\" or \"TPROXY\""
            )),
        }
    }
}

/// How long an exit may take to answer before another is tried (`[stream_timeouts]`).
///
/// If a value is the default, the third and later exits get half as long again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitTimeouts {
    /// To connect to a destination.
    pub connect: Duration,
    /// To look up a name.
    pub resolve: Duration,
    /// To look up the name of an address.
    pub resolve_ptr: Duration,
}
