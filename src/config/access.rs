//! Which clients may connect. `rule` parses a single rule.

use std::fmt;
use std::net::IpAddr;

mod rule;

pub(crate) use rule::{ALL_PORTS, Rule};

/// Which clients may connect (tor(1) `SocksPolicy`).
///
/// The first rule that matches a client decides; a client that no rule matches may connect. As in C
/// tor, clients on Unix sockets, which have no address, match every network with a prefix of length 0:
/// `*`, `*4`, `*6`, and addresses with `/0`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access(Vec<Rule>);

impl Access {
    /// Parses rules in the form of tor(1) `ExitPolicy`; a text may contain several, separated by
    /// commas. As in C tor, ports are parsed and have no effect.
    ///
    /// # Errors
    /// A message with the rule, the problem and the remedy.
    pub fn parse(texts: &[String]) -> Result<Access, String> {
        let mut rules = Vec::new();
        for text in texts {
            for text in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
                let rule = Rule::parse(text).and_then(|rule| match rule.networks.is_empty() {
                    true => Err(rule.ineffective_message()),
                    false => Ok(rule),
                });
                rules.push(rule.map_err(|problem| format!("{text:?}: {problem}"))?);
            }
        }
        Ok(Access(rules))
    }

    /// Whether a client with this address may connect; `None` for one on a Unix socket.
    pub fn permits(&self, client: Option<IpAddr>) -> bool {
        let matches = |rule: &&Rule| {
            rule.networks.iter().any(|network| match client {
                Some(ip) => network.contains(&ip.to_canonical()),
                None => network.prefix_len() == 0,
            })
        };
        self.0.iter().find(matches).is_none_or(|rule| rule.accept)
    }
}

impl fmt::Display for Access {
    /// Lists the rules, for a person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("all may connect");
        }
        for rule in &self.0 {
            write!(f, "{}, ", rule.text)?;
        }
        f.write_str("all others may connect")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(text: &str) -> Access {
        Access::parse(&[text.to_owned()]).unwrap_or_else(|problem| panic!("{problem}"))
    }

    fn permits(policy: &str, ip: &str) -> bool {
        access(policy).permits(Some(ip.parse().expect("an address")))
    }

    #[test]
    fn the_first_matching_rule_decides_and_all_others_may_connect() {
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
            assert!(!access(policy).permits(None));
        }
        assert!(access("reject 10.0.0.0/8, accept 11.0.0.0/8").permits(None));
        assert!(!access("accept 10.0.0.0/8, reject *6").permits(None));
        assert!(permits("reject *4", "::1") && !permits("reject *4", "192.0.2.1"));
        assert!(!permits("reject6 *", "::1") && permits("reject6 *", "192.0.2.1"));
        assert!(!permits("reject private:*", "10.1.1.1") && !permits("reject private", "fe80::1"));
        assert!(!permits("reject 10.0.0.0/255.0.0.0", "10.9.9.9"));
        assert!(!permits("reject6 FC00::/7", "fd00::1") && permits("reject6 FC00::/7", "fe00::1"));
        // A mask without digits is 0 bits: this rule rejects all IPv4 clients.
        assert!(!permits("reject 10.0.0.0/", "192.0.2.1"));
        assert!(permits("reject [::]/", "192.0.2.1") && !permits("reject [::]/", "2001:db8::1"));
    }

    /// The expectations are the results of `tor --verify-config` (0.4.9.11).
    #[test]
    fn rules_are_accepted_and_refused_as_by_c_tor() {
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
            "accept6 FC00::/7",
            "accept fc00::/7:443",
            "accept ::/0",
            "accept ::1/128:80-90",
            "accept [1.2.3.4]/8",
            "accept [*]:80",
            "accept 1.2.3.4:",
            "accept 1.2.3.4/:80",
            "accept [::]/255.0.0.0",
            "accept private:",
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
            "accept6 private:*",
            "accept :80",
            "127.0.0.1",
            "accept 1.2.3",
            "accept 1.2.3.4/-1",
            "reject *:0",
            "accept  127.0.0.1  :80",
            "accept \"1.2.3.4\"",
            "accept6 ::1",
            "accept ::1:80",
            "accept [::1",
            "accept ::1]",
            "accept */0",
            "accept *4/8",
            "accept [private]",
            "accept private/8",
            "accept PRIVATE",
            "accept 1.2.3.4:80-70",
            "accept 1.2.3.4:80/8",
            "accept 1.2.3.4/32/8",
            "accept [::1]/129",
            "accept [::ffff:1.2.3.4]/40",
            "accept [fe80::1%lo]",
            "accept 01.2.3.4",
        ] {
            let problem = Access::parse(&[bad.to_owned()]).expect_err(bad);
            assert!(problem.contains('"'), "{problem}");
        }
    }
}
