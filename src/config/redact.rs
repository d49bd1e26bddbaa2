//! Keeping secrets out of messages.
//!
//! A message about a setting names its place and its key, which is enough to find it. It repeats
//! the value only where that can be no secret: proxies, bridges and their transports are never
//! quoted, and what comes from other crates, which quote freely, is cleaned here. [`hide`] is the
//! last net, for a secret under a key where none belongs.

use super::key::Key;

/// What stands in the place of a secret.
const HIDDEN: &str = "…";

/// Keys whose values may hold passwords or secrets of bridges. Each stands for everything below it.
const SECRET: &[&str] = &[
    "channel.outbound_proxy",
    "bridges.bridges",
    "bridges.transports",
];

/// Names before a `=` that tell of a secret behind it.
const TELLING: &[&str] = &[
    "authenticator",
    "cert",
    "passwd",
    "password",
    "pw",
    "secret",
    "token",
];

/// How arti begins its messages about a proxy; behind them it repeats the URL.
const PROXY_PROBLEMS: &[&str] = &[
    "unsupported or missing proxy scheme",
    "password not supported for proxy scheme",
    "invalid proxy address",
    "missing or invalid port",
    "invalid proxy URI format",
    "invalid type",
];

/// How to write a proxy.
const PROXY_FORM: &str = "write socks5://, socks4:// or http://, and behind it IP:PORT or \
                          USER:PASSWORD@IP:PORT, with %XX for special characters of USER and PASSWORD";

/// Whether the value of a key may be a secret.
pub(super) fn is_secret(key: &Key) -> bool {
    SECRET
        .iter()
        .any(|secret| key.is_below(&Key::parse(secret)))
}

/// What another crate says of the value of a secret key, without the value.
pub(super) fn foreign_problem(key: &Key, problem: &str) -> String {
    if key.is_below(&Key::parse("channel.outbound_proxy")) {
        let known = PROXY_PROBLEMS
            .iter()
            .find(|known| problem.contains(**known));
        let known = known.unwrap_or(&"not a proxy");
        return format!("{known}: {PROXY_FORM}");
    }
    without_quoted(problem)
}

/// A message without the values that it may have been made of.
pub(super) fn without_values<'a>(
    problem: &str,
    values: impl IntoIterator<Item = &'a str>,
) -> String {
    let mut text = problem.to_owned();
    for value in values.into_iter().filter(|value| !value.trim().is_empty()) {
        for form in [value.to_owned(), value.escape_debug().to_string()] {
            text = text.replace(&form, HIDDEN);
        }
    }
    text
}

/// A message without what stands in it in double quotes or backticks.
pub(crate) fn without_quoted(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(c);
        if c != '"' && c != '`' {
            continue;
        }
        out.push_str(HIDDEN);
        let mut escaped = false;
        for inner in chars.by_ref() {
            if inner == c && !escaped {
                break;
            }
            escaped = inner == '\\' && !escaped;
        }
        out.push(c);
    }
    out
}

/// A text without what looks like a secret in it: what follows `://`, and values of names such as
/// `password=`.
pub(crate) fn hide(text: &str) -> String {
    let mut out = String::new();
    for part in text.split_inclusive(is_end) {
        let (word, end) = part.split_at(part.trim_end_matches(is_end).len());
        out.push_str(&hidden(word));
        out.push_str(end);
    }
    out
}

/// Where a word ends.
fn is_end(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ';' | '(' | ')')
}

fn hidden(word: &str) -> String {
    if let Some((scheme, rest)) = word.split_once("://")
        && !rest.is_empty()
    {
        return format!("{scheme}://{HIDDEN}");
    }
    match word.split_once('=') {
        Some((name, value)) if !value.is_empty() && is_telling(name) => {
            format!("{name}={HIDDEN}")
        }
        _ => word.to_owned(),
    }
}

/// Whether a name ends in a word that tells of a secret.
fn is_telling(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    TELLING.iter().any(|telling| name.ends_with(telling))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_hidden_wherever_it_stands() {
        for (text, hidden) in [
            ("socks5://a:b@192.0.2.1:1 x", "socks5://… x"),
            ("\"HTTP://a:b@c/d\", next", "\"HTTP://…\", next"),
            ("('socks5://a')", "('socks5://…')"),
            (
                "obfs4 1.2.3.4:5 cert=abc iat-mode=0",
                "obfs4 1.2.3.4:5 cert=… iat-mode=0",
            ),
            ("Socks5ProxyPassword=abc;more", "Socks5ProxyPassword=…;more"),
            // Nothing to hide.
            (
                "write socks5:// and behind it IP:PORT",
                "write socks5:// and behind it IP:PORT",
            ),
            ("write -o TABLE.KEY=VALUE", "write -o TABLE.KEY=VALUE"),
            ("unix:/run/socks password=", "unix:/run/socks password="),
            ("", ""),
        ] {
            assert_eq!(hide(text), hidden, "{text}");
        }
    }

    #[test]
    fn quoted_words_of_others_are_left_out() {
        for (text, left) in [
            (r#"Cannot parse "a b" as PT"#, r#"Cannot parse "…" as PT"#),
            (
                r#"one "a\"b\\" and "c" of `d`"#,
                r#"one "…" and "…" of `…`"#,
            ),
            (r#"no end "abc"#, r#"no end "…""#),
            ("none", "none"),
        ] {
            assert_eq!(without_quoted(text), left, "{text}");
        }
    }

    #[test]
    fn of_a_secret_key_only_our_own_words_are_told() {
        let proxy = Key::parse("channel.outbound_proxy");
        let told = foreign_problem(&proxy, "invalid proxy address: socks5://a:SECRET@host:1");
        assert!(told.starts_with("invalid proxy address: write "), "{told}");
        let told = foreign_problem(&proxy, "SECRET is not understood");
        assert!(told.starts_with("not a proxy: write "), "{told}");
        let bridge = Key::parse("bridges.bridges[1]");
        assert!(is_secret(&bridge) && is_secret(&proxy));
        assert!(!is_secret(&Key::parse("channel.padding")));
        let told = foreign_problem(&bridge, "Cannot parse \"SECRET\" as identity key");
        assert_eq!(told, "Cannot parse \"…\" as identity key");
    }

    #[test]
    fn a_value_is_found_in_each_form_in_which_others_quote_it() {
        let told = without_values("string \"a\\\"b\", a\"b, c", ["a\"b", " ", ""]);
        assert_eq!(told, "string \"…\", …, c");
    }
}
