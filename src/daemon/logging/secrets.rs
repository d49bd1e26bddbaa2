//! Secrets of the configuration, which arti may repeat in its messages: at level warn it shows the
//! whole URL of a proxy that is not on this computer, at level trace what it tells a proxy.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use aho_corasick::{AhoCorasick, MatchKind};
use arc_swap::ArcSwap;
use tracing::{Level, Metadata};
use zeroize::Zeroizing;

/// What stands in the place of a secret.
const HIDDEN: &str = "…";
/// The shortest text that is looked for by itself. Shorter ones are parts of other words.
const SHORTEST: usize = 6;
/// How many secrets are known at most: those of the longest list of bridges, and of the list before a
/// reload.
const MAX_SECRETS: usize = 10_000;

/// Where arti logs, at level trace, the SOCKS login for a proxy or a pluggable transport as a list of
/// numbers.
const NUMBERS: &str = "tor_chanmgr::transport::proxied";

static KNOWN: LazyLock<ArcSwap<Known>> = LazyLock::new(ArcSwap::default);

/// What is looked for.
#[derive(Debug, Default)]
struct Known {
    secrets: Vec<Arc<Zeroizing<String>>>,
    finder: Option<AhoCorasick>,
}

/// Hides `values` of the configuration, and what is secret in them, in all lines from now on.
pub fn hide(values: &[Zeroizing<String>]) {
    let before = KNOWN.load();
    let mut secrets = before.secrets.clone();
    for secret in values.iter().flat_map(|value| secrets_in(value)) {
        if !secrets.iter().any(|known| **known == secret) {
            secrets.push(Arc::new(secret));
        }
    }
    let surplus = secrets.len().saturating_sub(MAX_SECRETS);
    secrets.drain(..surplus);
    let texts = secrets.iter().map(|secret| secret.as_bytes());
    // Of two secrets that begin alike the longer one is hidden as a whole.
    let finder = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(texts)
        .ok();
    KNOWN.store(Arc::new(Known { secrets, finder }));
}

/// A line without the secrets in it.
pub(super) fn redacted(line: &[u8]) -> Cow<'_, [u8]> {
    let mut line = without_logins(line);
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

/// Whether an event may be logged: those that hold secrets in a form that nothing finds may not.
pub(super) fn may_be_logged(event: &Metadata<'_>) -> bool {
    event.target() != NUMBERS || *event.level() < Level::TRACE
}

/// The secrets in a value: the parameters of a bridge, the password of a proxy.
fn secrets_in(value: &str) -> Vec<Zeroizing<String>> {
    let mut secrets = Vec::new();
    for word in value.split_whitespace() {
        // `url=https://…` is a parameter, and its path may be the secret.
        let is_parameter = word.find('=') < word.find("://") && word.contains('=');
        let secret = if let Some((_, rest)) = word.split_once("://").filter(|_| !is_parameter) {
            // A login of a proxy: what stands behind its first colon.
            let login = rest.rsplit_once('@').map(|(login, _)| login);
            login.map(|login| {
                login
                    .split_once(':')
                    .map_or(login, |(_, password)| password)
            })
        } else if let Some((name, value)) = word.split_once('=') {
            // A parameter of a bridge; with its name it is found however short it is.
            secrets.push(Zeroizing::new(word.to_owned()));
            secrets.push(Zeroizing::new(format!("{:?}", (name, value))));
            Some(value)
        } else {
            None
        };
        if let Some(secret) = secret.filter(|secret| secret.len() >= SHORTEST) {
            secrets.push(Zeroizing::new(secret.to_owned()));
            secrets.extend(Some(decoded(secret)).filter(|text| text.len() >= SHORTEST));
        }
    }
    secrets
}

/// A text with its percent-encoding taken off.
fn decoded(text: &str) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let hex = behind.get(..2).filter(|_| *first == b'%');
        let byte = hex.and_then(|hex| data_encoding::HEXUPPER_PERMISSIVE.decode(hex).ok());
        match byte {
            Some(byte) => {
                bytes.extend(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line without what stands between `://` and `@` in it.
fn without_logins(line: &[u8]) -> Cow<'_, [u8]> {
    const BEFORE: &[u8] = b"://";
    let mut out = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.windows(BEFORE.len()).position(|bytes| bytes == BEFORE) {
        let (before, behind) = rest.split_at(at + BEFORE.len());
        let word = behind.iter().position(u8::is_ascii_whitespace);
        let word = behind
            .get(..word.unwrap_or(behind.len()))
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
            let redacted = without_logins(line.as_bytes());
            assert_eq!(String::from_utf8_lossy(&redacted), shown, "{line}");
        }
    }

    #[test]
    fn secrets_of_the_configuration_are_hidden_in_every_line() {
        let values = [
            "socks5://me:p%40ssw0rd:1@192.0.2.1:1080",
            "obfs4 192.0.2.2:443 0bac39417268b96b9f514ef763fa6fba1a788956 cert=c3VnYXI/+w iat-mode=0",
        ];
        let values = values.map(|value| Zeroizing::new(value.to_owned()));
        hide(&values[..1]);
        hide(&values[1..]);
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
            let redacted = redacted(line.as_bytes());
            assert_eq!(String::from_utf8_lossy(&redacted), shown);
        }
    }
}
