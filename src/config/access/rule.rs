//! One rule, as C tor reads it (policies.c: `router_parse_addr_policy_item_from_string`; address.c:
//! `tor_addr_parse_mask_ports`).

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// `accept PATTERN` or `reject PATTERN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Which of the two.
    pub(crate) accept: bool,
    /// The networks of the pattern. None if it has IPv4 alone or is `private`, and the rule is for IPv6.
    pub(crate) networks: Vec<IpNet>,
    /// The first and the last port.
    pub(crate) ports: (u16, u16),
    /// As it was written, for the user.
    pub(crate) text: String,
}

/// All ports.
pub(crate) const ALL_PORTS: (u16, u16) = (1, u16::MAX);

/// What `private` stands for in C tor's policies.
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

/// What to write, for errors.
const FORM: &str = "write \"accept NETWORK\" or \"reject NETWORK\", such as \"accept 192.168.0.0/16\" or \"reject *\"";
/// What to write where the end of an IPv6 address cannot be seen.
const BRACKETS: &str = "write IPv6 addresses in brackets: [::1]";

impl Rule {
    /// Reads a rule.
    ///
    /// The error says what to write.
    pub(crate) fn read(text: &str) -> Result<Rule, String> {
        let (verb, pattern) = text
            .split_once(|c: char| c.is_ascii_whitespace())
            .ok_or(FORM)?;
        let (accept, v6_alone) = match verb {
            "accept" => (true, false),
            "reject" => (false, false),
            "accept6" => (true, true),
            "reject6" => (false, true),
            _ => return Err(FORM.to_owned()),
        };
        let pattern = Pattern::split(pattern.trim())?;
        let mut networks = pattern.networks()?;
        // C tor takes the word for IPv4 here, and leaves the rule out.
        let six = |network: &IpNet| !pattern.is_private() && matches!(network, IpNet::V6(_));
        networks.retain(|network| !v6_alone || six(network));
        Ok(Rule {
            accept,
            networks,
            ports: pattern.ports()?,
            text: text.to_owned(),
        })
    }

    /// What is wrong with a rule that has no networks left.
    pub(crate) fn without_effect(&self) -> String {
        let (six, plain) = match self.accept {
            true => ("accept6", "accept"),
            false => ("reject6", "reject"),
        };
        format!("{six} is for IPv6: write \"{plain}\"")
    }
}

/// The parts of a pattern, `ADDRESS[/MASK][:PORTS]`.
#[derive(Debug, Clone, Copy)]
struct Pattern<'a> {
    /// Without its brackets.
    address: &'a str,
    /// Whether it had some.
    brackets: bool,
    mask: Option<&'a str>,
    ports: &'a str,
}

impl<'a> Pattern<'a> {
    /// Finds the parts. An address in no brackets ends at the first slash; only where there is none,
    /// at the first colon.
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
                return Err(format!(
                    "{rest:?} cannot stand behind the address: remove it"
                ));
            }
        };
        Ok(Pattern {
            address,
            brackets: inside.is_some(),
            mask,
            ports,
        })
    }

    /// The networks that address and mask stand for.
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

    /// Whether it is the word for all private networks.
    fn is_private(&self) -> bool {
        self.address == "private" && !self.brackets
    }

    /// The network of an IP address.
    fn network(&self) -> Result<IpNet, String> {
        let address = self.address;
        let ip: IpAddr = address.parse().map_err(|_| match address.is_empty() {
            true => BRACKETS.to_owned(),
            false => format!("{address:?} is no IP address: {FORM}"),
        })?;
        let Some(mask) = self.mask else {
            return Ok(IpNet::from(ip));
        };
        bits(ip, mask)
            .and_then(|bits| IpNet::new(ip, bits).ok())
            .ok_or_else(|| self.bad_mask(mask))
    }

    /// The error for a mask.
    fn bad_mask(&self, mask: &str) -> String {
        format!("{mask:?} is no mask for {}", self.address)
    }

    /// The first and the last port.
    fn ports(&self) -> Result<(u16, u16), String> {
        let (from, to) = match self.ports {
            "" | "*" => return Ok(ALL_PORTS),
            ports => ports.split_once('-').unwrap_or((ports, ports)),
        };
        match (from.parse(), to.parse()) {
            (Ok(from), Ok(to)) if 0 < from && from <= to => Ok((from, to)),
            _ => Err(format!(
                "{:?} is no port: write one from 1 to 65535, a range such as 80-90, or nothing",
                self.ports
            )),
        }
    }
}

/// A mask in bits. C tor takes the form of IPv4's masks for both families, and no digits at all
/// for 0.
fn bits(ip: IpAddr, mask: &str) -> Option<u8> {
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
