//! Hides the secrets of the configuration in log lines. arti may log them: at level warn the whole URL
//! of a proxy on another host, at level trace what it sends to a proxy.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use aho_corasick::{AhoCorasick, MatchKind};
use arc_swap::ArcSwap;
use percent_encoding::percent_decode_str;
use tracing::{Level, Metadata};
use zeroize::Zeroizing;

/// Replaces a secret.
const HIDDEN: &str = "…";
/// The length in bytes of the shortest secret that is searched for by itself. Shorter ones occur in
/// other words.
const MIN_SECRET_LEN: usize = 6;
/// The largest number of secrets: those of the longest list of bridges, and of the list before a
/// reload.
const MAX_SECRETS: usize = 10_000;

/// Where arti logs, at level trace, the SOCKS login for a proxy or a pluggable transport as a list of
/// numbers.
const LOGIN_AS_NUMBERS: &str = "tor_chanmgr::transport::proxied";

static KNOWN: LazyLock<ArcSwap<KnownSecrets>> = LazyLock::new(ArcSwap::default);

/// The secrets to search for, and the automaton that finds them.
#[derive(Debug, Default)]
struct KnownSecrets {
    secrets: Vec<Arc<Zeroizing<String>>>,
    finder: Option<AhoCorasick>,
}

/// Hides `values` of the configuration, and the secrets in them, in all lines logged from now on.
pub fn hide_secrets(values: &[Zeroizing<String>]) {
    let before = KNOWN.load();
    let mut secrets = before.secrets.clone();
    for secret in values.iter().flat_map(|value| extract_secrets(value)) {
        if !secrets.iter().any(|known| **known == secret) {
            secrets.push(Arc::new(secret));
        }
    }
    let surplus = secrets.len().saturating_sub(MAX_SECRETS);
    secrets.drain(..surplus);
    let texts = secrets.iter().map(|secret| secret.as_bytes());
    // If one secret is the beginning of another, the longer one is hidden whole.
    let finder = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(texts)
        .ok();
    KNOWN.store(Arc::new(KnownSecrets { secrets, finder }));
}

/// Returns the line with its secrets replaced.
pub(super) fn redact(line: &[u8]) -> Cow<'_, [u8]> {
    let mut line = redact_url_logins(line);
    let known = KNOWN.load();
    if let Some(finder) = known
        .finder
        .as_ref()
        .filter(|finder| finder.is_match(&*line))
    {
        let hidden = vec![HIDDEN; finder.patterns_len()];
        line = Cow::Owned(finder.replace_all_bytes(&line, &hidden));
    }
    line
}

/// Whether an event may be logged: one that holds secrets in a form [`redact`] cannot find may not.
pub(super) fn can_be_logged(event: &Metadata<'_>) -> bool {
    event.target() != LOGIN_AS_NUMBERS || *event.level() < Level::TRACE
}

/// Extracts the secrets of a value: the parameters of a bridge line, the password of a proxy URL.
fn extract_secrets(value: &str) -> Vec<Zeroizing<String>> {
    let mut secrets = Vec::new();
    for word in value.split_whitespace() {
        // `url=https://…` is a parameter, and its path may be the secret.
        let is_parameter = word.find('=') < word.find("://") && word.contains('=');
        let secret = if let Some((_, rest)) = word.split_once("://").filter(|_| !is_parameter) {
            // The password is behind the first colon of the login; without a colon, all of it counts.
            let login = rest.rsplit_once('@').map(|(login, _)| login);
            login.map(|login| {
                login
                    .split_once(':')
                    .map_or(login, |(_, password)| password)
            })
        } else if let Some((name, value)) = word.split_once('=') {
            // With its name, a bridge parameter is found however short it is; also as arti's debug
            // output.
            secrets.push(Zeroizing::new(word.to_owned()));
            secrets.push(Zeroizing::new(format!("{:?}", (name, value))));
            Some(value)
        } else {
            None
        };
        if let Some(secret) = secret.filter(|secret| secret.len() >= MIN_SECRET_LEN) {
            secrets.push(Zeroizing::new(secret.to_owned()));
            secrets
                .extend(Some(percent_decode(secret)).filter(|text| text.len() >= MIN_SECRET_LEN));
        }
    }
    secrets
}

/// Decodes the percent-encoding of a text; invalid UTF-8 becomes U+FFFD.
fn percent_decode(text: &str) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    bytes.extend(percent_decode_str(text));
    Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the line with what is between `://` and `@` in each word replaced.
fn redact_url_logins(line: &[u8]) -> Cow<'_, [u8]> {
    const SCHEME_END: &[u8] = b"://";
    let mut out = Vec::new();
    let mut rest = line;
    while let Some(at) = rest
        .windows(SCHEME_END.len())
        .position(|bytes| bytes == SCHEME_END)
    {
        let (before, behind) = rest.split_at(at + SCHEME_END.len());
        let word_len = behind.iter().position(u8::is_ascii_whitespace);
        let word = behind
            .get(..word_len.unwrap_or(behind.len()))
            .unwrap_or_default();
        out.extend_from_slice(before);
        rest = match word.iter().rposition(|byte| *byte == b'@') {
            Some(end) => {
                out.extend_from_slice(HIDDEN.as_bytes());
                behind.get(end..).unwrap_or_default()
            }
            None => behind,
        };
    }
    if out.is_empty() {
        return Cow::Borrowed(line);
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_in_urls_are_hidden() {
        for (line, shown) in [
            (
                "via socks5://a:b@192.0.2.1:1 and on",
                "via socks5://…@192.0.2.1:1 and on",
            ),
            ("http://a@b@c http://d@e", "http://…@c http://…@e"),
            ("http://a/b c@d", "http://a/b c@d"),
            ("a@b ://", "a@b ://"),
            ("", ""),
        ] {
            let redacted = redact_url_logins(line.as_bytes());
            assert_eq!(String::from_utf8_lossy(&redacted), shown, "{line}");
        }
    }

    #[test]
    fn secrets_of_the_configuration_are_hidden_in_log_lines() {
        let values = [
            "socks5://me:p%40ssw0rd:1@192.0.2.1:1080",
            "obfs4 192.0.2.2:443 0bac39417268b96b9f514ef763fa6fba1a788956 cert=c3VnYXI/+w iat-mode=0",
        ];
        let values = values.map(|value| Zeroizing::new(value.to_owned()));
        hide_secrets(&values[..1]);
        hide_secrets(&values[1..]);
        for (line, shown) in [
            ("password: Some(\"p@ssw0rd:1\")", "password: Some(\"…\")"),
            ("it was p%40ssw0rd:1, once", "it was …, once"),
            ("settings: [(\"cert\", \"c3VnYXI/+w\")]", "settings: […]"),
            ("cert c3VnYXI/+w", "cert …"),
            (
                "bridge 192.0.2.2:443, iat-mode=0, 0",
                "bridge 192.0.2.2:443, …, 0",
            ),
        ] {
            let redacted = redact(line.as_bytes());
            assert_eq!(String::from_utf8_lossy(&redacted), shown);
        }
    }
}
