//! The configuration: what the files and the command line say, checked and typed.
//!
//! [`load`] reads `arti.toml` (arti-client's tables and ours) with tor-config, puts the command line on
//! top and gives one [`Config`], or one [`ConfigError`] that says what, where and what to do.
//! Nothing is bound, created or changed.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use arti_client::TorClientConfig;
use arti_client::config::{CfgPath, CfgPathResolver};
use nix::unistd::geteuid;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use zeroize::Zeroizing;

use crate::config::access::Access;
use crate::config::port_line::{Bind, Port, PortKind, PortLine};

pub mod access;
pub mod address_map;
mod arguments;
mod describe;
mod error;
mod file;
mod folders;
mod key;
mod limits;
mod plaintext;
pub mod port_line;
mod ports;
pub(crate) mod redact;
mod setting;
mod sources;
#[cfg(test)]
mod tests;
pub mod torrc;

pub use arguments::ProxyArgs;
pub use describe::describe;
pub use error::{ConfigError, Origin};
pub use plaintext::Plaintext;

use file::{Sections, Span};
use key::Key;
use limits::{DEFAULT_MAX_FILES, MAX_SOCKS_TIMEOUT, MIN_SOCKS_TIMEOUT};
use setting::Setting;
use sources::{Sources, chain};

/// How long a request may take if nothing is configured (tor(1) `SocksTimeout`).
pub const DEFAULT_SOCKS_TIMEOUT: Duration = Duration::from_secs(120);
/// How long an exit may take if nothing is configured; arti's, and C tor's for its first tries.
pub const DEFAULT_EXIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where the ports are named, below the state folder, if the configuration names no place.
pub const PORT_INFO: &str = "public/port_info.json";
/// The log filter if nothing is configured.
pub const DEFAULT_LOG_FILTER: &str = "info";
/// How exact the times of the log are if nothing is configured; C tor's and arti's.
pub const DEFAULT_LOG_GRANULARITY: Duration = Duration::from_secs(1);

/// What to do where the default folders would be in a home that is not there.
const NO_HOME: &str = "this user has no home folder (HOME is not set, and no entry in passwd names one): set \
                       storage.state_dir and storage.cache_dir (in a torrc: DataDirectory) to folders in \
                       which it may write";

/// The configuration of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What goes to arti-client.
    pub tor: TorClientConfig,
    /// The ports to open, each in another place.
    pub ports: Vec<Port>,
    /// How long a client may take for its handshake, and a request until it is answered.
    pub socks_timeout: Duration,
    /// How long an exit may take to answer.
    pub exit_timeouts: ExitTimeouts,
    /// Which clients may connect (`socks_policy`).
    pub access: Access,
    /// Whether requests that give an IP address are refused (tor(1) `SafeSocks`).
    pub safe_socks: bool,
    /// Whether each request is logged as safe or unsafe (tor(1) `TestSocks`).
    pub test_socks: bool,
    /// Destination ports that are known for plain text.
    pub plaintext: Plaintext,
    /// Names that stand for others, and addresses that stand for names.
    pub names: address_map::Settings,
    /// How connections get to the transparent ports.
    pub trans_proxy_type: TransProxyType,
    /// The folder with `*.auth_private` files (tor(1) `ClientOnionAuthDir`), if there is one.
    /// It has not been looked at.
    pub client_onion_auth_dir: Option<PathBuf>,
    /// Whether exits may be asked for private and local addresses
    /// (`address_filter.allow_local_addrs`; C tor's `ClientRejectInternalAddresses 0`).
    pub allow_local_addrs: bool,
    /// Whether onion services may be reached at all (`address_filter.allow_onion_addrs`).
    pub allow_onion_addrs: bool,
    /// Whether private and local addresses may be the answer to a look-up
    /// (`address_filter.allow_resolving_local_addrs`; C tor's `ClientDNSRejectInternalAddresses 0`).
    pub allow_resolving_local_addrs: bool,
    /// arti's folder for lasting state.
    pub state_dir: PathBuf,
    /// arti's folder for downloaded directories.
    pub cache_dir: PathBuf,
    /// Whether debuggers may attach, and crashes write core dumps (`application.permit_debugging`).
    pub permit_debugging: bool,
    /// Why this user must not start the program (`application.allow_running_as_root`).
    pub root_problem: Option<String>,
    /// Why this user cannot have the two folders as they are: the start would fail. The configuration is good
    /// otherwise, and somebody else's may be looked at.
    pub folder_problem: Option<String>,
    /// The proxy between us and the relays, if there is one (`channel.outbound_proxy`).
    pub outbound_proxy: Option<OutboundProxy>,
    /// The file that is to name the open ports; `None` for [`PORT_INFO`] if a port
    /// is chosen by the system, else none.
    pub port_info_file: Option<PathBuf>,
    /// The number of open files to ask the system for.
    pub max_files: u64,
    /// A filter that [`EnvFilter`] takes.
    pub log_filter: String,
    /// What the times of the log are cut to a multiple of.
    pub log_granularity: Duration,
    /// Whole sentences for the log, each with its origin.
    pub warnings: Vec<String>,
    /// Values in which there may be passwords: the log hides them.
    pub secrets: Vec<Zeroizing<String>>,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
    /// What C tor's files came to, as a file that the user could keep; `None` without such files. It may
    /// hold passwords.
    pub torrc: Option<Zeroizing<String>>,
}

/// A proxy as it is written: arti-client, which reads it, does not tell. Debug output is redacted: the URL
/// may hold a password. It is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct OutboundProxy(Zeroizing<String>);

impl fmt::Debug for OutboundProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutboundProxy")
    }
}

/// How connections get to a transparent port (tor(1) `TransProxyType`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TransProxyType {
    /// iptables or nftables redirect them (`REDIRECT`): the system remembers where they were going.
    #[default]
    Default,
    /// They keep their destination as local address (`TPROXY`).
    Tproxy,
}

impl TransProxyType {
    /// Reads a name without regard to case; the error says what to write.
    fn read(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "default" => Ok(TransProxyType::Default),
            "tproxy" => Ok(TransProxyType::Tproxy),
            _ => Err(format!(
                "{text:?} is not served here: write \"default\" or \"TPROXY\""
            )),
        }
    }
}

impl Config {
    /// The lines of the ports of one kind.
    pub fn ports_of(&self, kind: PortKind) -> Vec<PortLine> {
        let of_kind = self.ports.iter().filter(|port| port.kind == kind);
        of_kind.map(|port| port.line.clone()).collect()
    }
}

/// How long an exit may take to answer before another is asked (`[stream_timeouts]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitTimeouts {
    /// To connect to a destination; the last of several exits may take half as long again.
    pub connect: Duration,
    /// To look up a name.
    pub resolve: Duration,
    /// To look up an address.
    pub resolve_ptr: Duration,
}

/// Reads the configuration that a command line asks for.
///
/// Without `-c` and `--torrc` the files are `arti.toml` and `arti.d/*.toml` in arti's configuration
/// folder, as far as they are there. Later files win over earlier ones, ours over C tor's, `-o` over
/// all files, and the options of their own (`--socks-port`, `--log`) over everything.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong.
pub fn load(args: &ProxyArgs) -> Result<Config, ConfigError> {
    let sources = Sources::read(&args.torrc, &args.config, &args.option)?;
    check(&sources, args)
}

/// Checks what was read, and puts the command line on top of it.
fn check(sources: &Sources, args: &ProxyArgs) -> Result<Config, ConfigError> {
    let resolved = sources.resolve()?;
    for unknown in &resolved.unrecognized {
        refuse_unknown(sources, &Key::parse(&unknown.to_string()))?;
    }
    let (tor, sections) = resolved.value;
    let deprecated = resolved.deprecated.iter().map(|key| {
        let origin = sources.origin(&Key::parse(&key.to_string()));
        format!("{origin}: {key} is deprecated and may stop working")
    });

    // Every field is named, so that no setting goes unread.
    let Sections {
        proxy,
        logging,
        system,
        application,
        storage,
        channel,
        address_filter,
        stream_timeouts,
    } = sections;
    let file::Proxy {
        socks_port,
        socks_listen,
        http_port,
        trans_port,
        trans_proxy_type,
        dns_port,
        dns_listen,
        socks_policy,
        safe_socks,
        test_socks,
        warn_plaintext_ports,
        reject_plaintext_ports,
        map_address,
        automap_hosts_on_resolve,
        automap_hosts_suffixes,
        virtual_addr_network_ipv4,
        virtual_addr_network_ipv6,
        socks_timeout,
        client_onion_auth_dir,
    } = proxy;
    let file::Logging {
        console,
        time_granularity,
    } = logging;
    let file::System { max_files } = system;
    let file::Storage {
        state_dir,
        port_info_file,
    } = storage;
    let file::Channel { outbound_proxy } = channel;
    if outbound_proxy.as_deref().is_some_and(has_http_login) {
        // tor-chanmgr 0.47 sends `[scrubbed]:[scrubbed]` in its place.
        return Err(sources.setting("channel.outbound_proxy").wrong(
            "arti cannot log in to an HTTP proxy: use a SOCKS5 proxy, or let this computer in without a login",
        ));
    }
    let file::AddressFilter {
        allow_local_addrs,
        allow_onion_addrs,
        allow_resolving_local_addrs,
    } = address_filter;
    let file::StreamTimeouts {
        connect_timeout,
        resolve_timeout,
        resolve_ptr_timeout,
    } = stream_timeouts;

    let torrc = sources.torrc();
    let mut warnings: Vec<String> = torrc.map(|t| t.warnings.clone()).unwrap_or_default();
    warnings.extend(deprecated);
    let file::Application {
        watch_configuration,
        permit_debugging,
        allow_running_as_root,
    } = application;
    if watch_configuration {
        warnings.push(format!(
            "{}: has no effect: send the program SIGHUP after a change",
            sources.setting("application.watch_configuration")
        ));
    }
    let written = ports::Written {
        socks_port,
        socks_listen,
        http_port,
        trans_port,
        dns_port,
        dns_listen,
    };
    let mut ports = Vec::new();
    for kind in PortKind::ALL {
        let of_kind = written.ports(kind, args, sources)?;
        warnings.extend(of_kind.warnings());
        ports.extend(of_kind.open(kind));
    }
    if let Some((bind, one, other)) = same_place(&ports) {
        return Err(other.wrong(format!(
            "{bind} is also the place of {one}: give each a place of its own"
        )));
    }
    let ports: Vec<Port> = ports.into_iter().map(|(port, _)| port).collect();
    if ports.is_empty() {
        warnings.push("no port is open: nothing can use this proxy".to_owned());
    }

    let at = |key| sources.setting(key);
    let auth_dir = client_onion_auth_dir.filter(|path| path.as_unexpanded_str() != Some(""));
    let auth_dir = auth_dir
        .map(|path| expand(&path, &tor, &at("proxy.client_onion_auth_dir")))
        .transpose()?;
    let state_dir = match state_dir {
        Some(path) => expand(&path, &tor, &at("storage.state_dir"))?,
        None => {
            let path = CfgPath::new("${ARTI_LOCAL_DATA}".to_owned());
            expand(&path, &tor, &at("storage.state_dir"))
                .map_err(|_| at("storage.state_dir").wrong(NO_HOME))?
        }
    };
    let port_info_file = port_info_file
        .filter(|path| path.as_unexpanded_str() != Some(""))
        .map(|path| expand(&path, &tor, &at("storage.port_info_file")))
        .transpose()?;
    let cache_dir = tor
        .dir_mgr_config()
        .map_err(|error| match at("storage.cache_dir") {
            setting if setting.origin == Origin::Unknown => setting.wrong(NO_HOME),
            setting => setting.wrong(chain(&error)),
        })?
        .cache_dir;
    let mistrust = tor.fs_mistrust();
    let folder_problem = folders::check_state(&state_dir, mistrust, &at("storage.state_dir"))
        .and_then(|()| folders::check_cache(&cache_dir, mistrust, &at("storage.cache_dir")))
        .err()
        .map(|error| error.to_string());
    let defaults = address_map::Settings::default();
    let names = address_map::Settings {
        map: map_address,
        automap: automap_hosts_on_resolve,
        suffixes: automap_hosts_suffixes.unwrap_or(defaults.suffixes),
        network_v4: virtual_addr_network_ipv4.unwrap_or(defaults.network_v4),
        network_v6: virtual_addr_network_ipv6.unwrap_or(defaults.network_v6),
    };
    names
        .parse()
        .map_err(|(key, problem)| at(key).wrong(problem))?;
    Ok(Config {
        ports,
        access: Access::read(&socks_policy)
            .map_err(|problem| at("proxy.socks_policy").wrong(problem))?,
        safe_socks,
        test_socks,
        plaintext: Plaintext::new(warn_plaintext_ports, reject_plaintext_ports),
        names,
        trans_proxy_type: trans_proxy_type
            .as_deref()
            .map_or(Ok(TransProxyType::Default), TransProxyType::read)
            .map_err(|problem| at("proxy.trans_proxy_type").wrong(problem))?,
        socks_timeout: timeout(
            socks_timeout,
            DEFAULT_SOCKS_TIMEOUT,
            &at("proxy.socks_timeout"),
        )?,
        exit_timeouts: ExitTimeouts {
            connect: exit_timeout(connect_timeout, &at("stream_timeouts.connect_timeout"))?,
            resolve: exit_timeout(resolve_timeout, &at("stream_timeouts.resolve_timeout"))?,
            resolve_ptr: exit_timeout(
                resolve_ptr_timeout,
                &at("stream_timeouts.resolve_ptr_timeout"),
            )?,
        },
        client_onion_auth_dir: auth_dir,
        allow_local_addrs,
        allow_onion_addrs: allow_onion_addrs.unwrap_or(true),
        allow_resolving_local_addrs,
        state_dir,
        cache_dir,
        permit_debugging,
        root_problem: root_problem(
            allow_running_as_root,
            &at("application.allow_running_as_root"),
        ),
        folder_problem,
        outbound_proxy: outbound_proxy
            .filter(|proxy| !proxy.is_empty())
            .map(|proxy| OutboundProxy(Zeroizing::new(proxy))),
        port_info_file,
        max_files: max_files.unwrap_or(DEFAULT_MAX_FILES),
        log_granularity: match time_granularity {
            None => DEFAULT_LOG_GRANULARITY,
            Some(span) => span.duration().ok_or_else(|| {
                at("logging.time_granularity")
                    .wrong("write a time such as \"1 s\" or \"100 ms\", or seconds as a number")
            })?,
        },
        log_filter: log_filter(args.log.as_deref(), console, at("logging.console"))?,
        warnings: warnings.iter().map(|text| redact::hide(text)).collect(),
        secrets: sources.secrets(),
        files: sources.files(),
        torrc: torrc.map(|torrc| Zeroizing::new(torrc::to_toml(torrc))),
        tor,
    })
}

/// A place that two ports of different kinds ask for, and where the two stand. DNS is served over UDP,
/// and has places of its own.
fn same_place(ports: &[(Port, Setting)]) -> Option<(&Bind, &Setting, &Setting)> {
    let streams = || ports.iter().filter(|(port, _)| port.kind != PortKind::Dns);
    streams().find_map(|(a, one)| {
        let (_, other) = streams().rfind(|(b, _)| {
            a.kind != b.kind && a.line.bind == b.line.bind && !a.line.bind.is_auto()
        })?;
        Some((&a.line.bind, one, other))
    })
}

/// Refuses a key that neither arti-client nor we know, unless the arti program knows it and nothing is
/// asked for: the bare heading of a table, or a value such as `false`.
fn refuse_unknown(sources: &Sources, key: &Key) -> Result<(), ConfigError> {
    if key.not_served().is_none() {
        return Err(ConfigError::UnknownKey {
            origin: sources.origin(key),
            key: key.to_string(),
            nearest: key.nearest(),
        });
    }
    match sources.first_asking(key) {
        None => Ok(()),
        Some((key, remedy)) => Err(ConfigError::NotServed {
            origin: sources.origin(&key),
            key: key.to_string(),
            remedy,
        }),
    }
}

/// How long an exit may take, within the limits of a deadline.
fn exit_timeout(span: Option<Span>, setting: &Setting) -> Result<Duration, ConfigError> {
    timeout(span, DEFAULT_EXIT_TIMEOUT, setting)
}

/// A length of time, within the limits of a deadline.
fn timeout(
    span: Option<Span>,
    default: Duration,
    setting: &Setting,
) -> Result<Duration, ConfigError> {
    let Some(span) = span else {
        return Ok(default);
    };
    span.duration()
        .filter(|time| (MIN_SOCKS_TIMEOUT..=MAX_SOCKS_TIMEOUT).contains(time))
        .ok_or_else(|| {
            setting.wrong("write a time from \"1 s\" to \"1 h\", or seconds as a number".to_owned())
        })
}

/// The log filter: the command line's, the files' or the default.
fn log_filter(
    option: Option<&str>,
    console: Option<String>,
    console_setting: Setting,
) -> Result<String, ConfigError> {
    let (filter, setting) = match (option, console) {
        (Some(filter), _) => (filter.to_owned(), Setting::option("--log")),
        (None, Some(filter)) => (filter, console_setting),
        (None, None) => return Ok(DEFAULT_LOG_FILTER.to_owned()),
    };
    let directives = filter.split(',').map(str::trim);
    let directives: Vec<&str> = directives.filter(|d| !d.is_empty()).collect();
    if directives.is_empty() {
        return Ok("off".to_owned());
    }
    // Blanks would be part of a target's name.
    let read = directives.join(",");
    let problem = directives.iter().find_map(|d| no_level(d));
    let problem = problem.or_else(|| EnvFilter::try_new(&read).err().map(|error| chain(&error)));
    match problem {
        None => Ok(read),
        Some(problem) => Err(ConfigError::LogFilter {
            origin: setting.origin,
            key: setting.key.to_owned(),
            filter,
            problem,
        }),
    }
}

/// What is wrong with a directive of a log filter that should be a level and is none. [`EnvFilter`] takes
/// the word for a target, shows all of it, and nothing else.
fn no_level(directive: &str) -> Option<String> {
    if directive.contains(['=', '[']) || directive.parse::<LevelFilter>().is_ok() {
        return None;
    }
    Some(match directive.to_ascii_lowercase().as_str() {
        "notice" => "notice is C tor's level: info shows as much".to_owned(),
        "err" => "err is C tor's level: here it is error".to_owned(),
        _ => format!("{directive:?} is no level"),
    })
}

/// Whether the URL of a proxy is that of an HTTP proxy with a login.
fn has_http_login(url: &str) -> bool {
    let scheme = url
        .split_once("://")
        .map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
    scheme.is_some_and(|(scheme, rest)| scheme == "http" && rest.contains('@'))
}

/// A path with its variables and `~` put in.
fn expand(
    path: &CfgPath,
    tor: &TorClientConfig,
    setting: &Setting,
) -> Result<PathBuf, ConfigError> {
    let resolver: &CfgPathResolver = tor.as_ref();
    path.path(resolver)
        .map_err(|error| setting.wrong(chain(&error)))
}

/// Why this user must not start the program, if so asked.
fn root_problem(allowed: Option<bool>, setting: &Setting) -> Option<String> {
    let refused = allowed == Some(false) && geteuid().is_root();
    refused.then(|| {
        let problem =
            "this is root: start onionport as another user (systemd: User=), or remove the key";
        setting.wrong(problem).to_string()
    })
}
