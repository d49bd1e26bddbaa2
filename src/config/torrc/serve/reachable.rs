//! `path_rules.reachable_addrs`: which addresses a firewall lets through.
//!
//! C tor's rules accept and reject, and the first that fits decides. arti knows only what to accept:
//! whatever was rejected before is taken out of the networks that a rule accepts.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use toml::Value;
use tor_netdoc::types::policy::{AddrPortPattern, IpPattern, PortRange};

use super::super::assign::{Said, Values};
use super::super::document::Document;
use super::super::error::{Place, TorrcError};
use super::super::value;
use super::{bad, port_numbers};
use crate::config::access::{ALL_PORTS, Rule};

/// How many pieces may be left of what one rule accepts. arti looks through all of them for each relay.
const MAX_PIECES: usize = 10_000;

/// A rule with the line it comes from.
type Placed = (Rule, Said);

/// Addresses and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    network: IpNet,
    /// The first and the last.
    ports: (u16, u16),
}

/// `ReachableORAddresses`, or else `ReachableAddresses`, or else `FascistFirewall`; and which of IPv4
/// and IPv6 may be used.
pub(super) fn serve(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    let v4 = values.is_on("ClientUseIPv4", true);
    // As C tor has it: something must be left, and bridges may be anywhere.
    let v6 = values.is_on("ClientUseIPv6", true) || !v4 || values.is_on("UseBridges", false);
    let firewall = ["ReachableORAddresses", "ReachableAddresses"]
        .iter()
        .map(|option| values.list(option).to_vec())
        .find(|said| !said.is_empty());
    let rules = match &firewall {
        Some(lines) => written(lines, values)?,
        None => implied(values, v4 && v6)?,
    };
    let (patterns, origins): (Vec<Value>, Vec<Place>) = accepted(&rules, v4, v6)?
        .into_iter()
        .map(|(pattern, place)| (Value::from(pattern.to_string()), place))
        .unzip();
    match firewall.as_ref().and_then(|lines| lines.last()) {
        Some(said) if patterns.is_empty() => Err(bad(
            said,
            "nothing can be reached then: allow some addresses",
        )),
        _ if patterns.is_empty() => Ok(()),
        _ => {
            document.set("path_rules.reachable_addrs", patterns, origins);
            Ok(())
        }
    }
}

/// The rules of lines such as `1.2.3.0/24:443, *:80, reject *:*`.
fn written(lines: &[Said], values: &mut Values) -> Result<Vec<Placed>, TorrcError> {
    let mut rules = Vec::new();
    for said in lines {
        for word in value::words(&said.value) {
            let bare = word.starts_with(|c: char| matches!(c, '*' | '[') || c.is_ascii_digit());
            let rule = match bare {
                true => Rule::read(&format!("accept {word}")),
                false => Rule::read(word),
            };
            let rule = rule.map_err(|problem| bad(said, format!("{word:?}: {problem}")))?;
            match rule.networks.is_empty() {
                true => values.warn_of_rule(said, &rule),
                false => rules.push((rule, said.clone())),
            }
        }
    }
    Ok(rules)
}

/// The rules that stand for none: those of `FascistFirewall`, or all addresses if only one family
/// may be used.
fn implied(values: &Values, both: bool) -> Result<Vec<Placed>, TorrcError> {
    let rule = |text: &str, said: &Said| {
        let rule = Rule::read(text).map_err(|problem| bad(said, problem))?;
        Ok((rule, said.clone()))
    };
    if let Some(said) = values.one("FascistFirewall").filter(|s| s.value == "1") {
        let ports = match values.one("FirewallPorts") {
            Some(ports) if !ports.value.is_empty() => port_numbers(ports)?,
            _ => vec![Value::from(80), Value::from(443)],
        };
        let rules = ports.iter();
        return rules
            .map(|port| rule(&format!("accept *:{port}"), said))
            .collect();
    }
    let off = ["ClientUseIPv4", "ClientUseIPv6"].iter();
    let off = off
        .filter_map(|name| values.one(name))
        .find(|said| !both && said.value != "1");
    off.map(|said| rule("accept *:*", said))
        .into_iter()
        .collect()
}

/// What is accepted and was not rejected before, rule by rule.
///
/// # Errors
/// When so many exceptions were made that a list of what is left would be too long.
fn accepted(
    rules: &[Placed],
    v4: bool,
    v6: bool,
) -> Result<Vec<(AddrPortPattern, Place)>, TorrcError> {
    let family = |network| Reach {
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
    for (rule, said) in rules {
        let mut reach: Vec<Reach> = Vec::new();
        reach.extend(rule.networks.iter().map(|network| Reach {
            network: network.trunc(),
            ports: rule.ports,
        }));
        if !rule.accept {
            rejected.extend(reach);
            continue;
        }
        for rejected in &rejected {
            reach = reach
                .into_iter()
                .flat_map(|r| r.without(*rejected))
                .collect();
            if reach.len() > MAX_PIECES {
                return Err(bad(
                    said,
                    format!(
                        "the rules before leave more than {MAX_PIECES} pieces of it: write with accept \
                         what can be reached"
                    ),
                ));
            }
        }
        let patterns = patterns(&reach).into_iter();
        accepted.extend(patterns.map(|pattern| (pattern, said.place.clone())));
    }
    Ok(accepted)
}

impl Reach {
    /// What is left of it without another.
    fn without(self, other: Reach) -> Vec<Reach> {
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
        let beside = beside(self.network, common).into_iter();
        let mut left: Vec<Reach> = beside.map(|network| Reach { network, ..self }).collect();
        if self.ports.0 < from {
            left.push(Reach {
                network: common,
                ports: (self.ports.0, from - 1),
            });
        }
        if to < self.ports.1 {
            left.push(Reach {
                network: common,
                ports: (to + 1, self.ports.1),
            });
        }
        left
    }
}

/// The networks that a network consists of beside one that is in it: halves of halves.
fn beside(network: IpNet, inner: IpNet) -> Vec<IpNet> {
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

/// The same for arti; all addresses of both families have one pattern.
fn patterns(reach: &[Reach]) -> Vec<AddrPortPattern> {
    let pattern = |addresses, (from, to)| {
        let ports = PortRange::new(from, to)?;
        Some(AddrPortPattern::new(addresses, ports))
    };
    if let [a, b] = reach
        && a.network.prefix_len() == 0
        && b.network.prefix_len() == 0
        && a.network != b.network
        && a.ports == b.ports
    {
        return pattern(IpPattern::All, a.ports).into_iter().collect();
    }
    let all = reach.iter();
    all.filter_map(|r| pattern(IpPattern::Net(r.network), r.ports))
        .collect()
}
