//! Our part of `arti.toml` as written: nothing is checked here but the kinds of values.
//!
//! The tables `[system]` and `[storage]` are shared with arti-client, which reads its own keys in
//! them; tor-config reports a key as unknown only if neither side knows it.

use std::time::Duration;

use arti_client::config::{CfgPath, ConfigBuildError};
use serde::{Deserialize, Serialize};
use tor_config::load::{Builder, ConfigBuilder, TopLevel};

/// All tables that this program reads itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct Sections {
    /// `[proxy]`
    pub(super) proxy: Proxy,
    /// `[logging]`
    pub(super) logging: Logging,
    /// `[system]`, with arti-client
    pub(super) system: System,
    /// `[application]`
    pub(super) application: Application,
    /// `[storage]`, with arti-client
    pub(super) storage: Storage,
    /// `[channel]`, with arti-client
    pub(super) channel: Channel,
    /// `[address_filter]`, with arti-client
    pub(super) address_filter: AddressFilter,
    /// `[stream_timeouts]`, with arti-client
    pub(super) stream_timeouts: StreamTimeouts,
}

/// `[proxy]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct Proxy {
    /// SOCKS port lines.
    pub(super) socks_port: Option<Lines>,
    /// arti's name for SOCKS ports without flags.
    pub(super) socks_listen: Option<Lines>,
    /// HTTP proxy port lines.
    pub(super) http_port: Option<Lines>,
    /// Transparent port lines.
    pub(super) trans_port: Option<Lines>,
    /// How connections get to the transparent ports.
    pub(super) trans_proxy_type: Option<String>,
    /// DNS port lines.
    pub(super) dns_port: Option<Lines>,
    /// arti's DNS ports.
    pub(super) dns_listen: Option<Lines>,
    /// Who may connect.
    pub(super) socks_policy: Vec<String>,
    /// Refuse requests that give an IP address.
    pub(super) safe_socks: bool,
    /// Tell of each request whether it gives a name or an IP address.
    pub(super) test_socks: bool,
    /// Destination ports to warn of.
    pub(super) warn_plaintext_ports: Option<Vec<u16>>,
    /// Destination ports to refuse.
    pub(super) reject_plaintext_ports: Vec<u16>,
    /// Names that stand for others, `FROM TO`.
    pub(super) map_address: Vec<String>,
    /// Give out addresses that stand for names.
    pub(super) automap_hosts_on_resolve: bool,
    /// For names that end in these.
    pub(super) automap_hosts_suffixes: Option<Vec<String>>,
    /// The IPv4 addresses to give out.
    pub(super) virtual_addr_network_ipv4: Option<String>,
    /// The IPv6 addresses to give out.
    pub(super) virtual_addr_network_ipv6: Option<String>,
    /// The deadline for a whole request.
    pub(super) socks_timeout: Option<Span>,
    /// The folder of `*.auth_private` files.
    pub(super) client_onion_auth_dir: Option<CfgPath>,
}

/// `[logging]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct Logging {
    /// The filter of the log on standard error.
    pub(super) console: Option<String>,
    /// How exact its times are.
    pub(super) time_granularity: Option<Span>,
}

/// `[system]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct System {
    /// How many open files to ask the system for.
    pub(super) max_files: Option<u64>,
}

/// `[application]`: arti's keys.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct Application {
    /// Reload the configuration when a file changes; without effect.
    pub(super) watch_configuration: bool,
    /// Let a debugger attach.
    pub(super) permit_debugging: bool,
    /// Whether to start as root: yes, if nothing is said.
    pub(super) allow_running_as_root: Option<bool>,
}

/// `[storage]`: what arti-client reads too and does not tell.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct Storage {
    /// The folder of arti's lasting state.
    pub(super) state_dir: Option<CfgPath>,
    /// The file that names the open ports.
    pub(super) port_info_file: Option<CfgPath>,
}

/// `[channel]`: what arti-client reads too and does not tell.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct Channel {
    /// The proxy between us and the relays.
    pub(super) outbound_proxy: Option<String>,
}

/// `[address_filter]`: what arti-client reads too and does not tell.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct AddressFilter {
    /// Whether exits may be asked for private and local addresses.
    pub(super) allow_local_addrs: bool,
    /// Whether onion services may be reached: yes, if nothing is said.
    pub(super) allow_onion_addrs: Option<bool>,
    /// Whether private and local addresses may be the answer to a look-up.
    pub(super) allow_resolving_local_addrs: bool,
}

/// `[stream_timeouts]`: what arti-client reads too and does not tell.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, expecting = "a table")]
pub(super) struct StreamTimeouts {
    /// How long an exit may take to connect.
    pub(super) connect_timeout: Option<Span>,
    /// How long an exit may take to resolve a name.
    pub(super) resolve_timeout: Option<Span>,
    /// How long an exit may take to resolve an address.
    pub(super) resolve_ptr_timeout: Option<Span>,
}

/// Port lines in any of the ways to write them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "write a port line in quotes, a port number, or a list of these"
)]
pub(super) enum Lines {
    /// `false`: no port.
    Switch(bool),
    /// One line.
    One(Line),
    /// Several lines.
    Many(Vec<Line>),
}

/// One port line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged, expecting = "write a port line in quotes, or a port number")]
pub(super) enum Line {
    /// Only a port.
    Number(i64),
    /// A line in full.
    Text(String),
}

impl Lines {
    /// The lines as text. `false` and the empty text are arti's ways to say `0`; on the command line `false`
    /// is a text too.
    ///
    /// # Errors
    /// What is wrong, for `true`.
    pub(super) fn texts(&self) -> Result<Vec<String>, String> {
        let text = |line: &Line| match line {
            Line::Number(number) => number.to_string(),
            Line::Text(text) => text.clone(),
        };
        match self {
            Lines::Switch(true) => Err("true is not a port: write its number".to_owned()),
            Lines::Switch(false) => Ok(vec!["0".to_owned()]),
            Lines::One(Line::Text(text)) if ["", "false"].contains(&text.trim()) => {
                Ok(vec!["0".to_owned()])
            }
            Lines::One(line) => Ok(vec![text(line)]),
            Lines::Many(lines) => Ok(lines.iter().map(text).collect()),
        }
    }
}

/// A length of time: a number of seconds, or a number with a unit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "write a number of seconds, or a time such as \"90 s\" or \"2 min\""
)]
pub(super) enum Span {
    /// Seconds.
    Seconds(u64),
    /// A number with a unit, or several to be added up: `"1 min 30 s"`.
    Text(String),
}

impl Span {
    /// The length of time; `None` if the text is none.
    pub(super) fn duration(&self) -> Option<Duration> {
        match self {
            Span::Seconds(seconds) => Some(Duration::from_secs(*seconds)),
            Span::Text(text) => parse_duration(text),
        }
    }
}

/// Reads `2 min 30 s`, with the units that arti takes up to an hour; a bare number is in seconds.
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

// tor-config builds every configuration from a builder; what is written here needs no building.
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
