//! Keeps secrets out of messages.
//!
//! A message about a setting contains its location and its key. It contains the value only if that
//! cannot be a secret: proxies, bridges and transports are never quoted, and messages of other
//! crates, which may quote them, are cleaned here. [`hide`] is the last line of defence, for a
//! secret in an unexpected key.

use super::key::Key;

/// The replacement for a secret.
const HIDDEN: &str = "…";

/// Keys whose values, and those of all keys below them, may contain passwords or secrets of bridges.
const SECRET_KEYS: &[&str] = &[
    "channel.outbound_proxy",
    "bridges.bridges",
    "bridges.transports",
];

/// In `NAME=VALUE`, the endings of names whose value is a secret.
const SECRET_NAMES: &[&str] = &[
    "authenticator",
    "cert",
    "passwd",
    "password",
    "pw",
    "secret",
    "token",
];

/// The beginnings of arti's messages about a proxy; the URL follows.
const PROXY_PROBLEMS: &[&str] = &[
    "unsupported or missing proxy scheme",
    "password not supported for proxy scheme",
    "invalid proxy address",
    "missing or invalid port",
    "invalid proxy URI format",
    "invalid type",
];

/// How to write a proxy.
const PROXY_FORM: &str = "write socks5://, socks4:// or http://, followed by IP:PORT or \
                          USER:PASSWORD@IP:PORT, with %XX for special characters in USER and PASSWORD";

/// Whether the value of a key may be a secret.
pub(super) fn is_secret(key: &Key) -> bool {
    SECRET_KEYS
        .iter()
        .any(|secret| key.is_below(&Key::parse(secret)))
}

/// Redacts another crate's message about the value of a secret key.
pub(super) fn redact_problem(key: &Key, problem: &str) -> String {
    if key.is_below(&Key::parse("channel.outbound_proxy")) {
        let known = PROXY_PROBLEMS
            .iter()
            .find(|known| problem.contains(**known));
        let known = known.unwrap_or(&"not a proxy");
        return format!("{known}: {PROXY_FORM}");
    }
    without_quoted(problem)
}

/// Removes values from a message, plain and in the escaped form of `Debug`.
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

/// Removes everything in double quotes or backticks from a message.
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

/// Removes what looks like a secret from a text: what follows `://`, and the values of names such
/// as `password=`.
pub(crate) fn hide(text: &str) -> String {
    let mut out = String::new();
    for part in text.split_inclusive(is_end) {
        let (word, end) = part.split_at(part.trim_end_matches(is_end).len());
        out.push_str(&hide_in_word(word));
        out.push_str(end);
    }
    out
}

/// Whether a word ends at this character.
fn is_end(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ';' | '(' | ')')
}

/// Does the work of [`hide`] for one word.
fn hide_in_word(word: &str) -> String {
    if let Some((scheme, rest)) = word.split_once("://")
        && !rest.is_empty()
    {
        return format!("{scheme}://{HIDDEN}");
    }
    match word.split_once('=') {
        Some((name, value)) if !value.is_empty() && names_secret(name) => {
            format!("{name}={HIDDEN}")
        }
        _ => word.to_owned(),
    }
}

/// Whether the value of this name is a secret.
fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_looks_like_a_secret_is_hidden() {
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
                "write socks5:// followed by IP:PORT",
                "write socks5:// followed by IP:PORT",
            ),
            ("write -o TABLE.KEY=VALUE", "write -o TABLE.KEY=VALUE"),
            ("unix:/run/socks password=", "unix:/run/socks password="),
            ("", ""),
        ] {
            assert_eq!(hide(text), hidden, "{text}");
        }
    }

    #[test]
    fn quoted_text_is_removed() {
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
    fn a_message_about_a_secret_key_contains_only_our_own_words() {
        let proxy = Key::parse("channel.outbound_proxy");
        let text = redact_problem(&proxy, "invalid proxy address: socks5://a:SECRET@host:1");
        assert!(text.starts_with("invalid proxy address: write "), "{text}");
        let text = redact_problem(&proxy, "SECRET is not understood");
        assert!(text.starts_with("not a proxy: write "), "{text}");
        let bridge = Key::parse("bridges.bridges[1]");
        assert!(is_secret(&bridge) && is_secret(&proxy));
        assert!(!is_secret(&Key::parse("channel.padding")));
        let text = redact_problem(&bridge, "Cannot parse \"SECRET\" as identity key");
        assert_eq!(text, "Cannot parse \"…\" as identity key");
    }

    #[test]
    fn a_value_is_removed_plain_and_escaped() {
        let text = without_values("string \"a\\\"b\", a\"b, c", ["a\"b", " ", ""]);
        assert_eq!(text, "string \"…\", …, c");
    }
}
