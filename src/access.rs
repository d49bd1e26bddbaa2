//! Who may connect.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::gateway::Origin;

/// Which clients may connect (tor(1) `SocksPolicy`): the first rule that fits decides, and whoever
/// fits none may. Clients on unix sockets have no address: rules for a whole family fit them, `*`,
/// `*4` and `*6`, as in C tor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access(Vec<Rule>);

/// `accept NETWORK` or `reject NETWORK`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    accept: bool,
    networks: Vec<IpNet>,
    /// As it was written, for the user.
    text: String,
}

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

impl Access {
    /// Reads rules, each as in tor(1) `ExitPolicy`; a text may hold several, with commas between.
    /// Ports are read and mean nothing, as in C tor.
    ///
    /// The error names the rule and says what to write.
    pub fn read(texts: &[String]) -> Result<Access, String> {
        let mut rules = Vec::new();
        for text in texts {
            for text in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
                let rule = Rule::read(text).map_err(|problem| format!("{text:?}: {problem}"))?;
                rules.push(rule);
            }
        }
        Ok(Access(rules))
    }

    /// Whether a client from there may connect.
    pub fn permits(&self, origin: Origin) -> bool {
        let fits = |rule: &&Rule| {
            rule.networks.iter().any(|network| match origin.ip() {
                Some(ip) => network.contains(&ip.to_canonical()),
                None => network.prefix_len() == 0,
            })
        };
        self.0.iter().find(fits).is_none_or(|rule| rule.accept)
    }
}

impl Rule {
    fn read(text: &str) -> Result<Rule, String> {
        let (verb, rest) = text
            .split_once(|c: char| c.is_ascii_whitespace())
            .ok_or(FORM)?;
        let (accept, v6_alone) = match verb {
            "accept" => (true, false),
            "reject" => (false, false),
            "accept6" => (true, true),
            "reject6" => (false, true),
            _ => return Err(FORM.to_owned()),
        };
        let pattern = without_ports(rest.trim())?;
        let mut networks = networks(pattern)?;
        if v6_alone {
            networks.retain(|network| matches!(network, IpNet::V6(_)));
            if networks.is_empty() {
                return Err(format!("{verb} is for IPv6: write \"{}\"", &verb[..6]));
            }
        }
        Ok(Rule {
            accept,
            networks,
            text: text.to_owned(),
        })
    }
}

/// The pattern without the ports behind it.
fn without_ports(pattern: &str) -> Result<&str, String> {
    // The colons of an IPv6 address stand in brackets.
    let address_end = pattern.find(']').unwrap_or(0);
    let Some(colon) = pattern[address_end..].find(':') else {
        return Ok(pattern);
    };
    let (address, ports) = pattern.split_at(address_end + colon);
    let ports = &ports[1..];
    let port = |text: &str| matches!(text.parse::<u16>(), Ok(1..));
    let good = ports == "*"
        || match ports.split_once('-') {
            Some((from, to)) => port(from) && port(to),
            None => port(ports),
        };
    if good {
        Ok(address)
    } else {
        Err(format!(
            "{ports:?} is no port: leave it out, it has no effect"
        ))
    }
}

/// The networks that a pattern without ports stands for.
fn networks(pattern: &str) -> Result<Vec<IpNet>, String> {
    let all_v4 = || IpNet::V4(Ipv4Net::default());
    let all_v6 = || IpNet::V6(Ipv6Net::default());
    match pattern {
        "*" => return Ok(vec![all_v4(), all_v6()]),
        "*4" => return Ok(vec![all_v4()]),
        "*6" => return Ok(vec![all_v6()]),
        "private" => return Ok(PRIVATE.iter().filter_map(|n| n.parse().ok()).collect()),
        _ => {}
    }
    let (address, mask) = match pattern.split_once('/') {
        Some((address, "")) => (address, None),
        Some((address, mask)) => (address, Some(mask)),
        None => (pattern, None),
    };
    let ip: IpAddr = match address.strip_prefix('[').and_then(|a| a.strip_suffix(']')) {
        Some(bracketed) => bracketed.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
        None => address.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
    }
    .ok_or_else(|| {
        if address.contains(':') || pattern.is_empty() {
            "write IPv6 addresses in brackets: [::1]".to_owned()
        } else {
            format!("{address:?} is no IP address: {FORM}")
        }
    })?;
    let network = match (ip, mask) {
        (_, None) => Ok(IpNet::from(ip)),
        (IpAddr::V4(ip), Some(mask)) if mask.contains('.') => mask
            .parse::<Ipv4Addr>()
            .ok()
            .and_then(|mask| Ipv4Net::with_netmask(ip, mask).ok())
            .map(IpNet::V4)
            .ok_or(mask),
        (ip, Some(mask)) => mask
            .parse()
            .ok()
            .and_then(|bits| IpNet::new(ip, bits).ok())
            .ok_or(mask),
    };
    network
        .map(|network| vec![network])
        .map_err(|mask| format!("{mask:?} is no mask for {address}"))
}

impl fmt::Display for Access {
    /// What a person would say of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("all");
        }
        for rule in &self.0 {
            write!(f, "{}, ", rule.text)?;
        }
        f.write_str("all others may")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(text: &str) -> Access {
        Access::read(&[text.to_owned()]).unwrap_or_else(|problem| panic!("{problem}"))
    }

    fn permits(policy: &str, ip: &str) -> bool {
        access(policy).permits(Origin::Ip(ip.parse().expect("an address")))
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_all_others_may() {
        let policy = "accept 192.168.0.0/16, reject 192.168.0.0/8, reject [2001:db8::]/32:80";
        for (ip, may) in [
            ("192.168.7.7", true),
            ("192.0.2.1", false),
            ("198.51.100.1", true),
            ("2001:db8::1", false),
            ("2001:db9::1", true),
            ("::ffff:192.0.2.1", false),
        ] {
            assert_eq!(permits(policy, ip), may, "{ip}");
        }
        assert!(permits("", "192.0.2.1"));
        for policy in ["reject *", "reject *:*"] {
            assert!(!permits(policy, "192.0.2.1"));
            assert!(!permits(policy, "::1"));
            assert!(!access(policy).permits(Origin::Unix));
        }
        assert!(access("reject 10.0.0.0/8, accept 11.0.0.0/8").permits(Origin::Unix));
        assert!(!access("accept 10.0.0.0/8, reject *6").permits(Origin::Unix));
        assert!(permits("reject *4", "::1") && !permits("reject *4", "192.0.2.1"));
        assert!(!permits("reject6 *", "::1") && permits("reject6 *", "192.0.2.1"));
        assert!(!permits("reject private:*", "10.1.1.1") && !permits("reject private", "fe80::1"));
        assert!(!permits("reject 10.0.0.0/255.0.0.0", "10.9.9.9"));
    }

    /// What `tor --verify-config` (0.4.9.11) says of the same rules.
    #[test]
    fn rules_are_taken_and_refused_as_c_tor_does() {
        for good in [
            "accept 127.0.0.1",
            "accept 127.0.0.1/8",
            "accept *6:22",
            "accept [::1]/64:80",
            "accept6 [::1]",
            "accept 127.0.0.1:80-90",
            "accept 1.2.3.4 , reject *:*",
            "accept 127.0.0.1/0",
            "accept 1.2.3.4/",
            "accept *, , reject *",
        ] {
            access(good);
        }
        for bad in [
            "accept ::1",
            "foo",
            "accept",
            "accept host.example",
            "accept 1.2.3.4/33",
            "accept 127.0.0.1/255.0.255.0",
            "ACCEPT 1.2.3.4",
            "accept 1.2.3.4:99999",
            "reject public",
            "accept :80",
            "127.0.0.1",
            "accept 1.2.3",
            "accept 1.2.3.4/-1",
            "reject *:0",
            "accept  127.0.0.1  :80",
            "accept \"1.2.3.4\"",
        ] {
            let problem = Access::read(&[bad.to_owned()]).expect_err(bad);
            assert!(problem.contains('"'), "{problem}");
        }
    }
}
