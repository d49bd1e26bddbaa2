//! Builds the checked [`Config`] from the sections as written and the command line.

use std::path::PathBuf;
use std::time::Duration;

use arti_client::TorClientConfig;
use arti_client::config::{CfgPath, CfgPathResolver};
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use super::access::Access;
use super::address_map::AddressMapSettings;
use super::arguments::ProxyArgs;
use super::arti_keys;
use super::checked::{Config, DEFAULT_EXIT_TIMEOUT, ExitTimeouts, OutboundProxy, TransProxyType};
use super::error::{ConfigError, SourceLocation};
use super::error_text::chain;
use super::file::{
    AddressFilterSection, ApplicationSection, ChannelSection, DurationValue, LoggingSection,
    ProxySection, Sections, StorageSection, StreamTimeoutsSection, SystemSection,
};
use super::folders;
use super::key::Key;
use super::known_keys;
use super::limits::{DEFAULT_MAX_FILES, MAX_SOCKS_TIMEOUT, MIN_SOCKS_TIMEOUT};
use super::log_filter;
use super::plaintext_ports::PlaintextPorts;
use super::ports::PortKeys;
use super::redact;
use super::setting::Setting;
use super::sources::Sources;
use super::torrc;

/// How long a request may take if nothing is configured (tor(1) `SocksTimeout`).
const DEFAULT_SOCKS_TIMEOUT: Duration = Duration::from_secs(120);
/// The granularity of the log's timestamps if nothing is configured; C tor's and arti's.
const DEFAULT_LOG_GRANULARITY: Duration = Duration::from_secs(1);

/// Shown if a default folder would be in a home folder that does not exist.
const NO_HOME: &str = "this user has no home folder (HOME is not set, and passwd names none): set \
                       storage.state_dir and storage.cache_dir (in a torrc: DataDirectory) to \
                       folders that this user can write to";

/// Checks what the sources set, and applies the command line on top.
///
/// # Errors
/// [`ConfigError`] for the first problem found.
pub(super) fn build(sources: &Sources, args: &ProxyArgs) -> Result<Config, ConfigError> {
    let resolved = sources.resolve()?;
    for unknown in &resolved.unrecognized {
        refuse_unknown(sources, &Key::parse(&unknown.to_string()))?;
    }
    let (tor, sections) = resolved.value;
    let deprecated = resolved.deprecated.iter().map(|key| {
        let location = sources.locate(&Key::parse(&key.to_string()));
        format!("{location}: {key} is deprecated and may stop working")
    });

    // Every field is named, so that the compiler finds a setting that nothing reads.
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
    let ProxySection {
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
    let LoggingSection {
        console,
        time_granularity,
    } = logging;
    let SystemSection { max_files } = system;
    let StorageSection {
        state_dir,
        port_info_file,
    } = storage;
    let ChannelSection { outbound_proxy } = channel;
    let AddressFilterSection {
        allow_local_addrs,
        allow_onion_addrs,
        allow_resolving_local_addrs,
    } = address_filter;
    let StreamTimeoutsSection {
        connect_timeout,
        resolve_timeout,
        resolve_ptr_timeout,
    } = stream_timeouts;
    let ApplicationSection {
        watch_configuration,
        permit_debugging,
        allow_running_as_root,
    } = application;

    let at = |key| sources.setting(key);
    if outbound_proxy.as_deref().is_some_and(has_http_login) {
        // Instead of the login, arti 0.47 sends the text `[scrubbed]:[scrubbed]` to HTTP proxies.
        return Err(at("channel.outbound_proxy").value_error(
            "arti cannot log in to an HTTP proxy: use a SOCKS5 proxy, or let this computer connect \
             without a login",
        ));
    }
    let torrc = sources.torrc();
    let mut warnings: Vec<String> = torrc.map(|t| t.warnings.clone()).unwrap_or_default();
    warnings.extend(deprecated);
    if watch_configuration {
        warnings.push(format!(
            "{}: has no effect: send onionport SIGHUP after a change",
            at("application.watch_configuration")
        ));
    }
    let port_keys = PortKeys {
        socks_port,
        socks_listen,
        http_port,
        trans_port,
        dns_port,
        dns_listen,
    };
    let ports = port_keys.ports_to_open(args, sources, &mut warnings)?;

    let auth_dir = client_onion_auth_dir.filter(|path| path.as_unexpanded_str() != Some(""));
    let auth_dir = auth_dir
        .map(|path| expand(&path, &tor, &at("proxy.client_onion_auth_dir")))
        .transpose()?;
    let state_dir = match state_dir {
        Some(path) => expand(&path, &tor, &at("storage.state_dir"))?,
        None => {
            let path = CfgPath::new("${ARTI_LOCAL_DATA}".to_owned());
            expand(&path, &tor, &at("storage.state_dir"))
                .map_err(|_| at("storage.state_dir").value_error(NO_HOME))?
        }
    };
    let port_info_file = port_info_file
        .filter(|path| path.as_unexpanded_str() != Some(""))
        .map(|path| expand(&path, &tor, &at("storage.port_info_file")))
        .transpose()?;
    let cache_dir = tor
        .dir_mgr_config()
        .map_err(|error| match at("storage.cache_dir") {
            setting if setting.location == SourceLocation::Unknown => setting.value_error(NO_HOME),
            setting => setting.value_error(chain(&error)),
        })?
        .cache_dir;
    let mistrust = tor.fs_mistrust();
    let folder_problem = folders::check_state(&state_dir, mistrust, &at("storage.state_dir"))
        .and_then(|()| folders::check_cache(&cache_dir, mistrust, &at("storage.cache_dir")))
        .err()
        .map(|error| error.to_string());
    let defaults = AddressMapSettings::default();
    let address_map = AddressMapSettings {
        map: map_address,
        automap: automap_hosts_on_resolve,
        suffixes: automap_hosts_suffixes.unwrap_or(defaults.suffixes),
        network_v4: virtual_addr_network_ipv4.unwrap_or(defaults.network_v4),
        network_v6: virtual_addr_network_ipv6.unwrap_or(defaults.network_v6),
    };
    address_map
        .parse()
        .map_err(|(key, problem)| at(key).value_error(problem))?;
    Ok(Config {
        ports,
        access: Access::parse(&socks_policy)
            .map_err(|problem| at("proxy.socks_policy").value_error(problem))?,
        safe_socks,
        test_socks,
        plaintext_ports: PlaintextPorts::new(warn_plaintext_ports, reject_plaintext_ports),
        address_map,
        trans_proxy_type: trans_proxy_type
            .as_deref()
            .map_or(Ok(TransProxyType::Default), TransProxyType::parse)
            .map_err(|problem| at("proxy.trans_proxy_type").value_error(problem))?,
        socks_timeout: check_timeout(
            socks_timeout,
            DEFAULT_SOCKS_TIMEOUT,
            &at("proxy.socks_timeout"),
        )?,
        exit_timeouts: ExitTimeouts {
            connect: check_exit_timeout(connect_timeout, &at("stream_timeouts.connect_timeout"))?,
            resolve: check_exit_timeout(resolve_timeout, &at("stream_timeouts.resolve_timeout"))?,
            resolve_ptr: check_exit_timeout(
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
        root_problem: find_root_problem(
            allow_running_as_root,
            &at("application.allow_running_as_root"),
        ),
        folder_problem,
        outbound_proxy: outbound_proxy
            .filter(|proxy| !proxy.is_empty())
            .map(OutboundProxy::new),
        port_info_file,
        max_files: max_files.unwrap_or(DEFAULT_MAX_FILES),
        log_granularity: match time_granularity {
            None => DEFAULT_LOG_GRANULARITY,
            Some(value) => value.to_duration().ok_or_else(|| {
                at("logging.time_granularity").value_error(
                    "write a time such as \"1 s\" or \"100 ms\", or a number of seconds",
                )
            })?,
        },
        log_filter: log_filter::parse(args.log.as_deref(), console, at("logging.console"))?,
        warnings: warnings.iter().map(|text| redact::hide(text)).collect(),
        secrets: sources.secrets(),
        files: sources.files(),
        torrc: torrc.map(|torrc| Zeroizing::new(torrc::to_toml(torrc))),
        tor,
    })
}

/// Refuses a key that neither arti-client nor onionport reads.
///
/// Keys of the arti program pass if they request nothing: the bare heading of a table, or a value
/// such as `false`.
fn refuse_unknown(sources: &Sources, key: &Key) -> Result<(), ConfigError> {
    if arti_keys::find(key).is_none() {
        return Err(ConfigError::UnknownKey {
            location: sources.locate(key),
            key: key.to_string(),
            nearest: known_keys::find_nearest(key),
        });
    }
    match sources.find_unsupported(key) {
        None => Ok(()),
        Some((key, remedy)) => Err(ConfigError::UnsupportedKey {
            location: sources.locate(&key),
            key: key.to_string(),
            remedy,
        }),
    }
}

/// Checks a time-out for exits; it has the limits of `socks_timeout`.
fn check_exit_timeout(
    value: Option<DurationValue>,
    setting: &Setting,
) -> Result<Duration, ConfigError> {
    check_timeout(value, DEFAULT_EXIT_TIMEOUT, setting)
}

/// Checks a time-out against the limits of `socks_timeout`.
fn check_timeout(
    value: Option<DurationValue>,
    default: Duration,
    setting: &Setting,
) -> Result<Duration, ConfigError> {
    let Some(value) = value else {
        return Ok(default);
    };
    value
        .to_duration()
        .filter(|time| (MIN_SOCKS_TIMEOUT..=MAX_SOCKS_TIMEOUT).contains(time))
        .ok_or_else(|| {
            setting.value_error("write a time from \"1 s\" to \"1 h\", or a number of seconds")
        })
}

/// Whether a proxy's URL is that of an HTTP proxy with a login.
fn has_http_login(url: &str) -> bool {
    let scheme = url
        .split_once("://")
        .map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
    scheme.is_some_and(|(scheme, rest)| scheme == "http" && rest.contains('@'))
}

/// Expands variables and `~` in a path.
fn expand(
    path: &CfgPath,
    tor: &TorClientConfig,
    setting: &Setting,
) -> Result<PathBuf, ConfigError> {
    let resolver: &CfgPathResolver = tor.as_ref();
    path.path(resolver)
        .map_err(|error| setting.value_error(chain(&error)))
}

/// Returns why this user must not start the program, if it is root and the key forbids that.
fn find_root_problem(allowed: Option<bool>, setting: &Setting) -> Option<String> {
    let refused = allowed == Some(false) && geteuid().is_root();
    refused.then(|| {
        let problem =
            "running as root: start onionport as another user (systemd: User=), or remove this key";
        setting.value_error(problem).to_string()
    })
}
