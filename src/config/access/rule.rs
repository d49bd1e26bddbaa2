//! One rule of a policy, parsed as by C tor (policies.c:
//! `router_parse_addr_policy_item_from_string`; address.c: `tor_addr_parse_mask_ports`).

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// `accept PATTERN` or `reject PATTERN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Whether the rule accepts.
    pub(crate) accept: bool,
    /// The networks of the pattern. Empty if the rule is for IPv6 (`accept6`, `reject6`) and the
    /// pattern has only IPv4 networks or is `private`.
    pub(crate) networks: Vec<IpNet>,
    /// The first and the last port.
    pub(crate) ports: (u16, u16),
    /// The rule as written.
    pub(crate) text: String,
}

/// All ports.
pub(crate) const ALL_PORTS: (u16, u16) = (1, u16::MAX);

/// The networks of `private` in C tor's policies.
const PRIVATE: [&str; 12] = [
    "0.0.0.0/8",
    "169.254.0.0/16",
    "127.0.0.0/8",
    "192.168.0.0/16",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "::/8",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    "::/127",
];

/// The remedy for a malformed rule.
const FORM: &str = "write \"accept NETWORK\" or \"reject NETWORK\", such as \"accept 192.168.0.0/16\" or \"reject *\"";
/// The remedy if the end of an IPv6 address is not clear.
const BRACKETS: &str = "write IPv6 addresses in brackets: [::1]";

impl Rule {
    /// Parses a rule.
    ///
    /// # Errors
    /// A message with problem and remedy.
    pub(crate) fn parse(text: &str) -> Result<Rule, String> {
        let (verb, pattern) = text
            .split_once(|c: char| c.is_ascii_whitespace())
            .ok_or(FORM)?;
        let (accept, v6_only) = match verb {
            "accept" => (true, false),
            "reject" => (false, false),
            "accept6" => (true, true),
            "reject6" => (false, true),
            _ => return Err(FORM.to_owned()),
        };
        let pattern = AddressPattern::split(pattern.trim())?;
        let mut networks = pattern.networks()?;
        // In an IPv6 rule, C tor treats `private` as IPv4 and skips the rule.
        let is_v6 = |network: &IpNet| !pattern.is_private() && matches!(network, IpNet::V6(_));
        networks.retain(|network| !v6_only || is_v6(network));
        Ok(Rule {
            accept,
            networks,
            ports: pattern.ports()?,
            text: text.to_owned(),
        })
    }

    /// Returns the message for a rule without networks.
    pub(crate) fn ineffective_message(&self) -> String {
        let (v6_word, word) = match self.accept {
            true => ("accept6", "accept"),
            false => ("reject6", "reject"),
        };
        format!("{v6_word} is for IPv6: write \"{word}\"")
    }
}

/// The parts of a pattern, `ADDRESS[/MASK][:PORTS]`.
#[derive(Debug, Clone, Copy)]
struct AddressPattern<'a> {
    /// Without brackets.
    address: &'a str,
    /// Whether the address was in brackets.
    brackets: bool,
    mask: Option<&'a str>,
    ports: &'a str,
}

impl<'a> AddressPattern<'a> {
    /// Finds the parts. An address without brackets ends at the first slash or, if there is none, at
    /// the first colon.
    fn split(pattern: &'a str) -> Result<Self, String> {
        let inside = pattern.strip_prefix('[');
        let (address, rest) = match inside {
            Some(inside) => inside.split_once(']').ok_or(BRACKETS)?,
            None => {
                let end = pattern.find('/').or_else(|| pattern.find(':'));
                pattern.split_at(end.unwrap_or(pattern.len()))
            }
        };
        let (mask, rest) = match rest.strip_prefix('/') {
            Some(rest) => {
                let (mask, rest) = rest.split_at(rest.find(':').unwrap_or(rest.len()));
                (Some(mask), rest)
            }
            None => (None, rest),
        };
        let ports = match rest.strip_prefix(':') {
            Some(ports) => ports,
            None if rest.is_empty() => "*",
            None => {
                return Err(format!("{rest:?} cannot follow the address: remove it"));
            }
        };
        Ok(AddressPattern {
            address,
            brackets: inside.is_some(),
            mask,
            ports,
        })
    }

    /// Returns the networks of address and mask.
    fn networks(&self) -> Result<Vec<IpNet>, String> {
        let v4 = || IpNet::V4(Ipv4Net::default());
        let v6 = || IpNet::V6(Ipv6Net::default());
        let several = match self.address {
            "*" => vec![v4(), v6()],
            "*4" => vec![v4()],
            "*6" => vec![v6()],
            _ if self.is_private() => PRIVATE.iter().filter_map(|n| n.parse().ok()).collect(),
            _ => return self.network().map(|network| vec![network]),
        };
        match self.mask {
            Some(mask) => Err(self.bad_mask(mask)),
            None => Ok(several),
        }
    }

    /// Whether the address is the word `private`.
    fn is_private(&self) -> bool {
        self.address == "private" && !self.brackets
    }

    /// Returns the network of an IP address and a mask.
    fn network(&self) -> Result<IpNet, String> {
        let address = self.address;
        let ip: IpAddr = address.parse().map_err(|_| match address.is_empty() {
            true => BRACKETS.to_owned(),
            false => format!("{address:?} is not an IP address: {FORM}"),
        })?;
        let Some(mask) = self.mask else {
            return Ok(IpNet::from(ip));
        };
        prefix_len(ip, mask)
            .and_then(|bits| IpNet::new(ip, bits).ok())
            .ok_or_else(|| self.bad_mask(mask))
    }

    /// Builds the error for a mask.
    fn bad_mask(&self, mask: &str) -> String {
        format!(
            "{mask:?} is not a mask for {}: write a number of bits",
            self.address
        )
    }

    /// Returns the first and the last port.
    fn ports(&self) -> Result<(u16, u16), String> {
        let (from, to) = match self.ports {
            "" | "*" => return Ok(ALL_PORTS),
            ports => ports.split_once('-').unwrap_or((ports, ports)),
        };
        match (from.parse(), to.parse()) {
            (Ok(from), Ok(to)) if 0 < from && from <= to => Ok((from, to)),
            _ => Err(format!(
                "{:?} is not a port: write one from 1 to 65535, a range such as 80-90, or nothing",
                self.ports
            )),
        }
    }
}

/// Parses a mask; returns its length in bits. C tor accepts dotted masks for both families, and the
/// empty text as 0.
fn prefix_len(ip: IpAddr, mask: &str) -> Option<u8> {
    let dotted = || ipnet::ipv4_mask_to_prefix(mask.parse().ok()?).ok();
    let bits = match mask {
        "" => 0,
        _ => mask.parse().ok().or_else(dotted)?,
    };
    match ip {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => match bits {
            33..96 | 129.. => None,
            _ => Some(96 + bits % 32),
        },
        _ => Some(bits),
    }
}
