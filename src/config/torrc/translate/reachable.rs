//! `path_rules.reachable_addrs`: the addresses that a firewall allows.
//!
//! In C tor rules accept or reject, and the first match decides. arti only has a list of what to accept:
//! so every rule that accepts loses the networks and ports that earlier rules reject.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use toml::Value;
use tor_netdoc::types::policy::{AddrPortPattern, IpPattern, PortRange};

use super::super::assign::Values;
use super::super::assigned::Assigned;
use super::super::document::Document;
use super::super::error::{FilePosition, TorrcError};
use super::super::value;
use crate::config::access::{ALL_PORTS, Rule};

/// The largest number of pieces of one rule: arti checks each relay against all of them.
const MAX_PIECES: usize = 10_000;

/// A rule with the line that has it.
type AssignedRule = (Rule, Assigned);

/// A range of ports at the addresses of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NetworkPorts {
    network: IpNet,
    /// The first and the last port.
    ports: (u16, u16),
}

/// Translates `ReachableORAddresses`, or else `ReachableAddresses`, or else `FascistFirewall`, and
/// `ClientUseIPv4` and `ClientUseIPv6`.
pub(super) fn translate(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    let v4 = values.is_on("ClientUseIPv4", true);
    // As in C tor: one family is always allowed, and bridges may have addresses of both.
    let v6 = values.is_on("ClientUseIPv6", true) || !v4 || values.is_on("UseBridges", false);
    let firewall = ["ReachableORAddresses", "ReachableAddresses"]
        .iter()
        .map(|option| values.list(option).to_vec())
        .find(|lines| !lines.is_empty());
    let rules = match &firewall {
        Some(lines) => parse_rules(lines, values)?,
        None => implied_rules(values, v4 && v6)?,
    };
    let (patterns, origins): (Vec<Value>, Vec<FilePosition>) = subtract_rejected(&rules, v4, v6)?
        .into_iter()
        .map(|(pattern, position)| (Value::from(pattern.to_string()), position))
        .unzip();
    match firewall.as_ref().and_then(|lines| lines.last()) {
        Some(assigned) if patterns.is_empty() => {
            Err(assigned.error("no address is reachable; accept some addresses"))
        }
        _ if patterns.is_empty() => Ok(()),
        _ => {
            document.set("path_rules.reachable_addrs", patterns, origins);
            Ok(())
        }
    }
}

/// Parses the rules of lines such as `1.2.3.0/24:443, *:80, reject *:*`.
fn parse_rules(lines: &[Assigned], values: &mut Values) -> Result<Vec<AssignedRule>, TorrcError> {
    let mut rules = Vec::new();
    for line in lines {
        for word in value::words(&line.value) {
            let bare = word.starts_with(|c: char| matches!(c, '*' | '[') || c.is_ascii_digit());
            let rule = match bare {
                true => Rule::parse(&format!("accept {word}")),
                false => Rule::parse(word),
            };
            let rule = rule.map_err(|problem| line.error(format!("{word:?}: {problem}")))?;
            match rule.networks.is_empty() {
                true => values.warn_ineffective(line, &rule),
                false => rules.push((rule, line.clone())),
            }
        }
    }
    Ok(rules)
}

/// Returns the rules without lines for a firewall: those of `FascistFirewall`, or one that accepts all
/// addresses if an option excludes IPv4 or IPv6.
fn implied_rules(values: &Values, both: bool) -> Result<Vec<AssignedRule>, TorrcError> {
    let rule = |text: &str, assigned: &Assigned| {
        let rule = Rule::parse(text).map_err(|problem| assigned.error(problem))?;
        Ok((rule, assigned.clone()))
    };
    let firewall = values.get("FascistFirewall");
    if let Some(assigned) = firewall.filter(|assigned| assigned.value == "1") {
        let ports = match values.get("FirewallPorts") {
            Some(ports) if !ports.value.is_empty() => ports.parse_ports()?,
            _ => vec![Value::from(80), Value::from(443)],
        };
        let rules = ports.iter();
        return rules
            .map(|port| rule(&format!("accept *:{port}"), assigned))
            .collect();
    }
    let families = ["ClientUseIPv4", "ClientUseIPv6"].iter();
    let excluded = families
        .filter_map(|name| values.get(name))
        .find(|assigned| !both && assigned.value != "1");
    excluded
        .map(|assigned| rule("accept *:*", assigned))
        .into_iter()
        .collect()
}

/// Returns what each rule accepts, without what earlier rules reject.
///
/// # Errors
/// A rule of which more than [`MAX_PIECES`] pieces are left.
fn subtract_rejected(
    rules: &[AssignedRule],
    v4: bool,
    v6: bool,
) -> Result<Vec<(AddrPortPattern, FilePosition)>, TorrcError> {
    let family = |network| NetworkPorts {
        network,
        ports: ALL_PORTS,
    };
    let mut rejected = Vec::new();
    if !v4 {
        rejected.push(family(Ipv4Net::default().into()));
    }
    if !v6 {
        rejected.push(family(Ipv6Net::default().into()));
    }
    let mut accepted = Vec::new();
    for (rule, assigned) in rules {
        let networks = rule.networks.iter();
        let mut pieces: Vec<NetworkPorts> = networks
            .map(|network| NetworkPorts {
                network: network.trunc(),
                ports: rule.ports,
            })
            .collect();
        if !rule.accept {
            rejected.extend(pieces);
            continue;
        }
        for rejected in &rejected {
            pieces = pieces
                .into_iter()
                .flat_map(|piece| piece.without(*rejected))
                .collect();
            if pieces.len() > MAX_PIECES {
                return Err(assigned.error(format!(
                    "earlier rules split this one into more than {MAX_PIECES} pieces; accept only what \
                     is reachable instead"
                )));
            }
        }
        let patterns = to_patterns(&pieces).into_iter();
        accepted.extend(patterns.map(|pattern| (pattern, assigned.position.clone())));
    }
    Ok(accepted)
}

impl NetworkPorts {
    /// Returns what is left of `self` without `other`.
    fn without(self, other: NetworkPorts) -> Vec<NetworkPorts> {
        let from = self.ports.0.max(other.ports.0);
        let to = self.ports.1.min(other.ports.1);
        let common = match (self.network, other.network) {
            (ours, theirs) if ours.contains(&theirs) => theirs,
            (ours, theirs) if theirs.contains(&ours) => ours,
            _ => return vec![self],
        };
        if from > to {
            return vec![self];
        }
        let outside = subtract_network(self.network, common).into_iter();
        let mut left: Vec<NetworkPorts> = outside
            .map(|network| NetworkPorts { network, ..self })
            .collect();
        if self.ports.0 < from {
            left.push(NetworkPorts {
                network: common,
                ports: (self.ports.0, from - 1),
            });
        }
        if to < self.ports.1 {
            left.push(NetworkPorts {
                network: common,
                ports: (to + 1, self.ports.1),
            });
        }
        left
    }
}

/// Returns the networks that cover `network` without `inner`, by halving `network` until `inner` is left.
fn subtract_network(network: IpNet, inner: IpNet) -> Vec<IpNet> {
    let mut left = Vec::new();
    let mut around = network;
    while around != inner
        && let Ok(halves) = around.subnets(around.prefix_len() + 1)
    {
        for half in halves {
            match half.contains(&inner) {
                true => around = half,
                false => left.push(half),
            }
        }
    }
    left
}

/// Converts pieces to arti's patterns. All addresses of both families make one pattern.
fn to_patterns(pieces: &[NetworkPorts]) -> Vec<AddrPortPattern> {
    let pattern = |addresses, (from, to)| {
        let ports = PortRange::new(from, to)?;
        Some(AddrPortPattern::new(addresses, ports))
    };
    if let [a, b] = pieces
        && a.network.prefix_len() == 0
        && b.network.prefix_len() == 0
        && a.network != b.network
        && a.ports == b.ports
    {
        return pattern(IpPattern::All, a.ports).into_iter().collect();
    }
    let all = pieces.iter();
    all.filter_map(|piece| pattern(IpPattern::Net(piece.network), piece.ports))
        .collect()
}
