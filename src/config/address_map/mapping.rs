//! `MapAddress` lines (tor(1)): names and addresses that stand for others.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{MAX_NAME_LEN, canonical, ip};

/// How often an address is replaced before it is used as it is (C tor's `addressmap_rewrite`):
/// lines that lead in a circle have to end somewhere.
const MAX_REWRITES: usize = 16;

/// What the lines say, by their left side without the wildcard.
#[derive(Debug, Default)]
pub(crate) struct Mapping(HashMap<Box<str>, Entry>);

#[derive(Debug)]
struct Entry {
    to: Box<str>,
    /// `*.name`: names below the left side are meant, too.
    from_below: bool,
    /// `*.name`: what stands before the left side is kept.
    to_below: bool,
}

/// An address grew longer than any name may be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Mapping {
    /// Reads lines `FROM TO`. As in C tor a later line takes the place of an earlier one with the
    /// same left side, with or without a wildcard, and a line that maps something to itself only
    /// takes the earlier one away.
    ///
    /// The error says which line is wrong, how, and what to do.
    pub(super) fn read(lines: &[String]) -> Result<Mapping, String> {
        let mut mapping = HashMap::new();
        for line in lines {
            let wrong = |problem: String| format!("{line:?}: {problem}");
            let words: Vec<&str> = line.split_whitespace().collect();
            let &[from, to] = &words[..] else {
                return Err(wrong(
                    "write two words: what is asked for, and what is meant".to_owned(),
                ));
            };
            let (from, from_below) = side(from).map_err(wrong)?;
            let (to, to_below) = side(to).map_err(wrong)?;
            if to_below && !from_below {
                return Err(wrong(
                    "a wildcard on the right needs one on the left: write *. before the first word"
                        .to_owned(),
                ));
            }
            if from == to && from_below == to_below {
                mapping.remove(&*from);
            } else {
                let entry = Entry {
                    to: to.into_boxed_str(),
                    from_below,
                    to_below,
                };
                mapping.insert(from.into_boxed_str(), entry);
            }
        }
        Ok(Mapping(mapping))
    }

    /// What an address stands for in the end; itself, if nothing is said about it.
    pub(crate) fn rewrite(&self, address: String) -> Result<String, TooLong> {
        let mut address = address;
        for _ in 0..MAX_REWRITES {
            match self.once(&address) {
                Some(next) if next.len() > MAX_NAME_LEN => return Err(TooLong),
                Some(next) => address = next,
                None => break,
            }
        }
        Ok(address)
    }

    /// What an address stands for at first.
    fn once(&self, address: &str) -> Option<String> {
        if let Some(entry) = self.0.get(address) {
            // `*.name name` is done when it has come to `name`.
            let done = entry.from_below && !entry.to_below && *entry.to == *address;
            return (!done).then(|| entry.to.to_string());
        }
        // The longest end of the name that has a wildcard counts.
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

    /// Whether a line has exactly this address on its left.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.0.contains_key(ip.to_string().as_str())
    }
}

/// One side of a line in its canonical form, and whether a wildcard stood before it.
fn side(word: &str) -> Result<(String, bool), String> {
    let (bare, below) = match word.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (word, false),
    };
    if bare == "*" || word == "*" {
        return Err(format!(
            "{word:?} would be every name: write *.name for the names below one"
        ));
    }
    if bare.contains('*') {
        return Err(format!(
            "the * in {word:?} stands for no whole label: write *.name"
        ));
    }
    if ip(bare).is_some() {
        return match below {
            true => Err(format!("{word:?}: nothing is below an address: remove *.")),
            false => Ok((canonical(bare), false)),
        };
    }
    if bare.is_empty() || bare.starts_with('.') {
        return Err(format!(
            "{word:?} begins with a dot: write *.name for the names below one, or the name alone"
        ));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !bare.chars().all(fits) || bare.len() > MAX_NAME_LEN {
        return Err(format!(
            "{word:?} is no host name and no IP address: write one, without port or scheme"
        ));
    }
    let name = canonical(bare);
    let last = name.trim_end_matches('.').rsplit('.').next();
    if last == Some("exit") {
        return Err(format!(
            "{word:?}: exit relays cannot be chosen here: remove the line"
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
        Mapping::read(&lines).expect("good lines")
    }

    /// Each expectation is what a C tor with these lines did.
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
            // Sixteen times to and fro.
            ("loopa.test", "loopa.test"),
            ("x.eq.test", "eq.test"),
            ("eq.test", "eq.test"),
            ("twice.test", "good.test"),
            // The later line has the same left side but for the wildcard.
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
    fn a_name_that_grows_with_each_round_ends() {
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
    fn addresses_are_covered_in_every_spelling() {
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

    /// What C tor ignores with a warning, and what it takes although it can never match.
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
            ("*a b", "no whole label"),
            ("a *b", "no whole label"),
            ("*.a *b", "no whole label"),
            ("a.*.b c", "no whole label"),
            ("a! b", "no host name"),
            ("a b!", "no host name"),
            ("a 1.2.3.4:80", "no host name"),
            ("a http://b/", "no host name"),
            ("a b:80", "no host name"),
            ("a [::1", "no host name"),
            ("a bü", "no host name"),
            ("\"a b\"", "no host name"),
            ("*.192.0.2.1 a", "below an address"),
            ("a b.exit", "exit relays"),
            ("b.EXIT a", "exit relays"),
            ("a exit.", "exit relays"),
        ] {
            let error = Mapping::read(&[line.to_owned()]).expect_err(line);
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
            assert!(Mapping::read(&[line.to_owned()]).is_ok(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn every_set_of_lines_comes_to_an_end(
            lines in proptest::collection::vec(r"(\*\.)?[abc](\.[abc]){0,2} (\*\.)?[abc](\.[abc]){0,2}", 0..8),
            asked in r"[abc](\.[abc]){0,4}",
        ) {
            let good: Vec<String> = lines
                .into_iter()
                .filter(|line| Mapping::read(std::slice::from_ref(line)).is_ok())
                .collect();
            let mapping = Mapping::read(&good).expect("each line is good");
            if let Ok(end) = mapping.rewrite(asked.clone()) {
                prop_assert!(!end.is_empty() && end.len() <= MAX_NAME_LEN);
                if good.is_empty() {
                    prop_assert_eq!(end, asked);
                }
            }
        }
    }
}
