//! Our part of `arti.toml` as written: only the types of values are checked here.
//!
//! arti-client reads its own keys in the sections marked "shared"; tor-config reports a key as
//! unknown only if neither side knows it.

use std::time::Duration;

use arti_client::config::{CfgPath, ConfigBuildError};
use serde::{Deserialize, Serialize};
use tor_config::load::{Builder, ConfigBuilder, TopLevel};

/// All sections that onionport reads itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct Sections {
    /// `[proxy]`
    pub(super) proxy: ProxySection,
    /// `[logging]`
    pub(super) logging: LoggingSection,
    /// `[system]`, shared
    pub(super) system: SystemSection,
    /// `[application]`
    pub(super) application: ApplicationSection,
    /// `[storage]`, shared
    pub(super) storage: StorageSection,
    /// `[channel]`, shared
    pub(super) channel: ChannelSection,
    /// `[address_filter]`, shared
    pub(super) address_filter: AddressFilterSection,
    /// `[stream_timeouts]`, shared
    pub(super) stream_timeouts: StreamTimeoutsSection,
}

/// `[proxy]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct ProxySection {
    /// SOCKS port lines.
    pub(super) socks_port: Option<PortValues>,
    /// arti's key for SOCKS ports; without flags.
    pub(super) socks_listen: Option<PortValues>,
    /// HTTP proxy port lines.
    pub(super) http_port: Option<PortValues>,
    /// Transparent port lines.
    pub(super) trans_port: Option<PortValues>,
    /// How connections reach the transparent ports.
    pub(super) trans_proxy_type: Option<String>,
    /// DNS port lines.
    pub(super) dns_port: Option<PortValues>,
    /// arti's key for DNS ports; without flags.
    pub(super) dns_listen: Option<PortValues>,
    /// Which clients may connect.
    pub(super) socks_policy: Vec<String>,
    /// Refuse requests that give an IP address.
    pub(super) safe_socks: bool,
    /// Whether to log, for each request, if it gives a name or an IP address.
    pub(super) test_socks: bool,
    /// Destination ports to warn about.
    pub(super) warn_plaintext_ports: Option<Vec<u16>>,
    /// Destination ports to refuse.
    pub(super) reject_plaintext_ports: Vec<u16>,
    /// Addresses to replace by others, `FROM TO`.
    pub(super) map_address: Vec<String>,
    /// Answer lookups of some names with virtual addresses.
    pub(super) automap_hosts_on_resolve: bool,
    /// The suffixes of these names.
    pub(super) automap_hosts_suffixes: Option<Vec<String>>,
    /// The network of virtual IPv4 addresses.
    pub(super) virtual_addr_network_ipv4: Option<String>,
    /// The network of virtual IPv6 addresses.
    pub(super) virtual_addr_network_ipv6: Option<String>,
    /// The deadline of a request.
    pub(super) socks_timeout: Option<DurationValue>,
    /// The folder of `*.auth_private` files.
    pub(super) client_onion_auth_dir: Option<CfgPath>,
}

/// `[logging]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct LoggingSection {
    /// The filter of the log on standard error.
    pub(super) console: Option<String>,
    /// The granularity of its timestamps.
    pub(super) time_granularity: Option<DurationValue>,
}

/// `[system]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct SystemSection {
    /// How many open files to ask the system for.
    pub(super) max_files: Option<u64>,
}

/// `[application]`: keys of the arti program.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct ApplicationSection {
    /// Reload the configuration when a file changes; has no effect here.
    pub(super) watch_configuration: bool,
    /// Let debuggers attach.
    pub(super) permit_debugging: bool,
    /// Whether to start as root; yes by default.
    pub(super) allow_running_as_root: Option<bool>,
}

/// `[storage]`: values that arti-client also reads, but does not expose.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct StorageSection {
    /// The folder of arti's persistent state.
    pub(super) state_dir: Option<CfgPath>,
    /// The file that lists the open ports.
    pub(super) port_info_file: Option<CfgPath>,
}

/// `[channel]`: values that arti-client also reads, but does not expose.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct ChannelSection {
    /// The proxy for connections to relays.
    pub(super) outbound_proxy: Option<String>,
}

/// `[address_filter]`: values that arti-client also reads, but does not expose.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct AddressFilterSection {
    /// Whether exits may be asked to connect to private and local addresses.
    pub(super) allow_local_addrs: bool,
    /// Whether onion services may be reached; yes by default.
    pub(super) allow_onion_addrs: Option<bool>,
    /// Whether a lookup may return private and local addresses.
    pub(super) allow_resolving_local_addrs: bool,
}

/// `[stream_timeouts]`: values that arti-client also reads, but does not expose.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct StreamTimeoutsSection {
    /// How long an exit may take to connect.
    pub(super) connect_timeout: Option<DurationValue>,
    /// How long an exit may take to resolve a name.
    pub(super) resolve_timeout: Option<DurationValue>,
    /// How long an exit may take to resolve an address.
    pub(super) resolve_ptr_timeout: Option<DurationValue>,
}

/// The value of a key for ports, in any of its forms.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "write a port line in quotes, a port number, or a list of these"
)]
pub(super) enum PortValues {
    /// `false`: no port.
    Switch(bool),
    /// One line.
    One(PortValue),
    /// Several lines.
    Many(Vec<PortValue>),
}

/// One port line as a TOML value.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged, expecting = "write a port line in quotes, or a port number")]
pub(super) enum PortValue {
    /// A port number alone.
    Number(i64),
    /// A port line.
    Text(String),
}

impl PortValues {
    /// Returns the port lines. `false` and the empty text are arti's forms of `0`; in an `-o` option
    /// `false` arrives as text.
    ///
    /// # Errors
    /// A message if the value is `true`.
    pub(super) fn to_lines(&self) -> Result<Vec<String>, String> {
        let text = |line: &PortValue| match line {
            PortValue::Number(number) => number.to_string(),
            PortValue::Text(text) => text.clone(),
        };
        match self {
            PortValues::Switch(true) => Err("true is not a port: write a port number".to_owned()),
            PortValues::Switch(false) => Ok(vec!["0".to_owned()]),
            PortValues::One(PortValue::Text(text)) if ["", "false"].contains(&text.trim()) => {
                Ok(vec!["0".to_owned()])
            }
            PortValues::One(line) => Ok(vec![text(line)]),
            PortValues::Many(lines) => Ok(lines.iter().map(text).collect()),
        }
    }
}

/// A length of time: a number of seconds, or a number with a unit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "write a number of seconds, or a time such as \"90 s\" or \"2 min\""
)]
pub(super) enum DurationValue {
    /// Seconds.
    Seconds(u64),
    /// A number with a unit, or a sum of several: `"1 min 30 s"`.
    Text(String),
}

impl DurationValue {
    /// Returns the length of time; `None` if the text is not one.
    pub(super) fn to_duration(&self) -> Option<Duration> {
        match self {
            DurationValue::Seconds(seconds) => Some(Duration::from_secs(*seconds)),
            DurationValue::Text(text) => parse_duration(text),
        }
    }
}

/// Parses `2 min 30 s`, with arti's units up to an hour; a number alone is in seconds.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let mut sum = Duration::ZERO;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let letters = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit = match unit {
            "ms" | "msec" | "millis" => Duration::from_millis(1),
            "s" | "sec" | "secs" | "second" | "seconds" => Duration::from_secs(1),
            "m" | "min" | "mins" | "minute" | "minutes" => Duration::from_secs(60),
            "h" | "hr" | "hrs" | "hour" | "hours" => Duration::from_secs(60 * 60),
            _ => return None,
        };
        sum = sum.checked_add(unit.checked_mul(number.parse().ok()?)?)?;
        rest = tail.trim_start();
        if rest.is_empty() {
            return Some(sum);
        }
    }
}

impl TopLevel for Sections {
    type Builder = Sections;
}

// tor-config requires a builder for every configuration; the sections are their own builder.
impl Builder for Sections {
    type Built = Sections;

    fn build(&self) -> Result<Sections, ConfigBuildError> {
        Ok(self.clone())
    }
}

impl ConfigBuilder for Sections {
    fn apply_defaults(&mut self) -> Result<(), ConfigBuildError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_units() {
        for (text, seconds) in [
            ("120", 120),
            ("120 s", 120),
            ("2min", 120),
            ("1 hour", 3600),
            ("1 min 30 sec", 90),
            (" 3000 msec ", 3),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "-1",
            "1.5 s",
            "2 fortnights",
            "99999999999999999999 s",
            "10 s 5",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
