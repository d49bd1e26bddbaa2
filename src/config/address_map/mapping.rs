//! `MapAddress` lines (tor(1)): names and addresses that are replaced by others.

use std::collections::HashMap;
use std::net::IpAddr;

use super::address::{MAX_NAME_LEN, canonicalize, parse_ip};

/// The maximum number of replacements (C tor's `addressmap_rewrite`), so that lines which map to each
/// other do not loop.
const MAX_REWRITES: usize = 16;

/// Parsed lines, by their left side without its wildcard.
#[derive(Debug, Default)]
pub(crate) struct Mapping(HashMap<Box<str>, Replacement>);

#[derive(Debug)]
struct Replacement {
    to: Box<str>,
    /// The left side is `*.name`: subdomains match, too.
    from_below: bool,
    /// The right side is `*.name`: the labels before the left side are kept.
    to_below: bool,
}

/// The result of a replacement is longer than [`MAX_NAME_LEN`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Mapping {
    /// Parses lines `FROM TO`. As in C tor, a later line replaces an earlier one with the same left
    /// side, with or without a wildcard, and a line that maps something to itself only removes the
    /// earlier one.
    ///
    /// # Errors
    /// A message with the line, the problem and the remedy.
    pub(super) fn parse(lines: &[String]) -> Result<Mapping, String> {
        let mut mapping = HashMap::new();
        for line in lines {
            let wrong = |problem: String| format!("{line:?}: {problem}");
            let words: Vec<&str> = line.split_whitespace().collect();
            let &[from, to] = &words[..] else {
                return Err(wrong("write two words, FROM TO".to_owned()));
            };
            let (from, from_below) = parse_side(from).map_err(wrong)?;
            let (to, to_below) = parse_side(to).map_err(wrong)?;
            if to_below && !from_below {
                return Err(wrong(
                    "a wildcard on the right needs one on the left: write *. before the first word"
                        .to_owned(),
                ));
            }
            if from == to && from_below == to_below {
                mapping.remove(&*from);
            } else {
                let replacement = Replacement {
                    to: to.into_boxed_str(),
                    from_below,
                    to_below,
                };
                mapping.insert(from.into_boxed_str(), replacement);
            }
        }
        Ok(Mapping(mapping))
    }

    /// Replaces an address until no line matches it; returns it unchanged if none does.
    pub(crate) fn rewrite(&self, address: String) -> Result<String, TooLong> {
        let mut address = address;
        for _ in 0..MAX_REWRITES {
            match self.rewrite_once(&address) {
                Some(next) if next.len() > MAX_NAME_LEN => return Err(TooLong),
                Some(next) => address = next,
                None => break,
            }
        }
        Ok(address)
    }

    /// Replaces an address once; `None` if no line matches it.
    fn rewrite_once(&self, address: &str) -> Option<String> {
        if let Some(entry) = self.0.get(address) {
            // `*.name name` does not apply to its own result.
            let done = entry.from_below && !entry.to_below && *entry.to == *address;
            return (!done).then(|| entry.to.to_string());
        }
        // The longest suffix with a wildcard counts.
        for (dot, _) in address.match_indices('.') {
            let Some(entry) = self.0.get(&address[dot + 1..]) else {
                continue;
            };
            if entry.from_below {
                return Some(match entry.to_below {
                    true => format!("{}.{}", &address[..dot], entry.to),
                    false => entry.to.to_string(),
                });
            }
        }
        None
    }

    /// Whether this IP address is the left side of a line.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.0.contains_key(ip.to_string().as_str())
    }
}

/// Parses one side of a line; returns its canonical form, and whether it had a wildcard.
fn parse_side(word: &str) -> Result<(String, bool), String> {
    let (bare, below) = match word.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (word, false),
    };
    if bare == "*" || word == "*" {
        return Err(format!(
            "{word:?} would match every name: write *.name for the subdomains of a name"
        ));
    }
    if bare.contains('*') {
        return Err(format!(
            "the * in {word:?} is not a whole label at the start: write *.name"
        ));
    }
    if parse_ip(bare).is_some() {
        return match below {
            true => Err(format!(
                "{word:?}: an IP address has no subdomains: remove *."
            )),
            false => Ok((canonicalize(bare), false)),
        };
    }
    if bare.is_empty() || bare.starts_with('.') {
        return Err(format!(
            "{word:?} begins with a dot: write *.name for subdomains, or the name without the dot"
        ));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !bare.chars().all(fits) || bare.len() > MAX_NAME_LEN {
        return Err(format!(
            "{word:?} is neither a host name nor an IP address: write one, without port or scheme"
        ));
    }
    let name = canonicalize(bare);
    let last = name.trim_end_matches('.').rsplit('.').next();
    if last == Some("exit") {
        return Err(format!(
            "{word:?}: exit relays cannot be chosen: remove this line"
        ));
    }
    Ok((name, below))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mapping(lines: &[&str]) -> Mapping {
        let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
        Mapping::parse(&lines).expect("good lines")
    }

    /// The expectations are C tor's results with these lines.
    #[test]
    fn lines_are_applied_as_c_tor_applies_them() {
        let mapping = mapping(&[
            "mapped.test good.test",
            "Upper.test Good.Test",
            "*.wild.test *.sub.test",
            "*.toone.test good.test",
            "six.sub.test six.test",
            "toip6.test [2001:DB8::77]",
            "192.0.2.9 good.test",
            "[2001:db8:0::9] six.test",
            "chain1.test chain2.test",
            "chain2.test chain3.test",
            "chain3.test good.test",
            "loopa.test loopb.test",
            "loopb.test loopa.test",
            "*.eq.test eq.test",
            "twice.test none.test",
            "twice.test good.test",
            "*.over.test none.test",
            "over.test good.test",
            "gone.test good.test",
            "gone.test gone.test",
            "*.a.deep.test one.test",
            "*.deep.test *.two.test",
        ]);
        for (from, to) in [
            ("mapped.test", "good.test"),
            ("upper.test", "good.test"),
            ("x.mapped.test", "x.mapped.test"),
            ("mapped.test.", "mapped.test."),
            ("six.wild.test", "six.test"),
            ("a.b.wild.test", "a.b.sub.test"),
            ("wild.test", "sub.test"),
            ("xwild.test", "xwild.test"),
            ("x.toone.test", "good.test"),
            ("toone.test", "good.test"),
            ("toip6.test", "2001:db8::77"),
            ("192.0.2.9", "good.test"),
            ("2001:db8::9", "six.test"),
            ("chain1.test", "good.test"),
            // Replaced sixteen times, so back where it began.
            ("loopa.test", "loopa.test"),
            ("x.eq.test", "eq.test"),
            ("eq.test", "eq.test"),
            ("twice.test", "good.test"),
            // The later line has the same left side, except for the wildcard.
            ("x.over.test", "x.over.test"),
            ("over.test", "good.test"),
            ("gone.test", "gone.test"),
            ("x.a.deep.test", "one.test"),
            ("x.b.deep.test", "x.b.two.test"),
        ] {
            assert_eq!(
                mapping.rewrite(from.to_owned()).as_deref(),
                Ok(to),
                "{from}"
            );
        }
    }

    #[test]
    fn a_name_that_grows_with_each_replacement_has_a_limit() {
        let mapping = mapping(
            &["*.grow.test *.b.grow.test", "*.burst.test *.{}.burst.test"]
                .map(|line| line.replace("{}", &"x".repeat(63)))
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        );
        let grown = format!("a{}.grow.test", ".b".repeat(MAX_REWRITES));
        assert_eq!(mapping.rewrite("a.grow.test".to_owned()), Ok(grown));
        assert_eq!(mapping.rewrite("a.burst.test".to_owned()), Err(TooLong));
    }

    #[test]
    fn ip_addresses_match_in_every_spelling() {
        let mapping = mapping(&["192.0.2.1 a", "[2001:DB8::0:1] b", "c 192.0.2.2"]);
        for (text, covered) in [
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("192.0.2.2", false),
        ] {
            assert_eq!(
                mapping.has(text.parse().expect("literal")),
                covered,
                "{text}"
            );
        }
    }

    /// C tor ignores some of these with a warning, and accepts others that can never match.
    #[test]
    fn lines_that_cannot_work_are_refused() {
        for (line, part) in [
            ("", "two words"),
            ("a", "two words"),
            ("a b c", "two words"),
            (".a b", "begins with a dot"),
            ("a .b", "begins with a dot"),
            (". b", "begins with a dot"),
            ("*. b", "begins with a dot"),
            ("* b", "every name"),
            ("a *", "every name"),
            ("*.* b", "every name"),
            ("a *.b", "a wildcard on the right"),
            ("*a b", "not a whole label"),
            ("a *b", "not a whole label"),
            ("*.a *b", "not a whole label"),
            ("a.*.b c", "not a whole label"),
            ("a! b", "neither a host name"),
            ("a b!", "neither a host name"),
            ("a 1.2.3.4:80", "neither a host name"),
            ("a http://b/", "neither a host name"),
            ("a b:80", "neither a host name"),
            ("a [::1", "neither a host name"),
            ("a bü", "neither a host name"),
            ("\"a b\"", "neither a host name"),
            ("*.192.0.2.1 a", "no subdomains"),
            ("a b.exit", "exit relays"),
            ("b.EXIT a", "exit relays"),
            ("a exit.", "exit relays"),
        ] {
            let error = Mapping::parse(&[line.to_owned()]).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        for line in [
            "a_b c-d",
            "a [2001:db8::1]",
            "a 2001:db8::1",
            "0.0.0.0 a",
            "::0 a",
            "127.192.0.10 some.name",
            "a foo.onion",
            "a b.",
            "a -b",
            " a \t b ",
        ] {
            assert!(Mapping::parse(&[line.to_owned()]).is_ok(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn rewritten_addresses_are_neither_empty_nor_too_long(
            lines in proptest::collection::vec(r"(\*\.)?[abc](\.[abc]){0,2} (\*\.)?[abc](\.[abc]){0,2}", 0..8),
            asked in r"[abc](\.[abc]){0,4}",
        ) {
            let good: Vec<String> = lines
                .into_iter()
                .filter(|line| Mapping::parse(std::slice::from_ref(line)).is_ok())
                .collect();
            let mapping = Mapping::parse(&good).expect("each line is good");
            if let Ok(end) = mapping.rewrite(asked.clone()) {
                prop_assert!(!end.is_empty() && end.len() <= MAX_NAME_LEN);
                if good.is_empty() {
                    prop_assert_eq!(end, asked);
                }
            }
        }
    }
}
