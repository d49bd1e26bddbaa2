//! The proxy auto-configuration (PAC) file for browsers.

use super::request_kind::OWN_HOST;

/// Path of the file on onionport's own host.
pub(super) const PATH: &str = "/proxy.pac";
/// Its `Content-Type`.
pub(super) const CONTENT_TYPE: &str = "application/x-ns-proxy-autoconfig";

/// A warning in the file: nothing here can prevent what it describes.
const WARNING: &str = "// A browser that cannot fetch this file connects to every site without Tor and gives no warning.\n";

/// Returns a script that selects `proxy` (`host:port`): for everything if `all` is set, otherwise for
/// onion services and onionport's own pages.
///
/// What is for the proxy never falls back to a direct connection. Returns `None` if `proxy`, which may
/// come from a `Host` header, contains a character that no address has.
pub(super) fn script(proxy: &str, all: bool) -> Option<String> {
    let is_address_byte = |b: u8| b.is_ascii_alphanumeric() || b".:[]-".contains(&b);
    if !proxy.bytes().all(is_address_byte) {
        return None;
    }
    Some(if all {
        format!(
            "{WARNING}// To send everything through Tor, set {proxy} as the browser's HTTP and HTTPS proxy instead.\n\
             function FindProxyForURL(url, host) {{\n  return \"PROXY {proxy}\";\n}}"
        )
    } else {
        format!(
            "{WARNING}function FindProxyForURL(url, host) {{\n  host = host.toLowerCase();\n  \
             if (shExpMatch(host, \"*.onion\") || shExpMatch(host, \"*.onion.\") || \
             host == \"{OWN_HOST}\")\n    return \"PROXY {proxy}\";\n  return \"DIRECT\";\n}}"
        )
    })
}
