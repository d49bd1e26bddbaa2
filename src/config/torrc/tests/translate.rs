//! Translation into settings, one module for each part, and the TOML that users keep.

use super::*;

mod local;
mod network;
mod ports;
mod refused;

/// Asserts that a text translates to these settings in TOML.
fn assert_gives(text: &str, expected: &str) {
    let expected: toml::Table = toml::from_str(expected).unwrap();
    let mut table = read_good(text).table;
    // Most tests are not about the default port.
    let default = toml::Value::from(vec!["9050"]);
    if let Some(proxy) = table.get_mut("proxy").and_then(toml::Value::as_table_mut)
        && proxy.get("socks_port") == Some(&default)
        && expected
            .get("proxy")
            .is_none_or(|p| p.get("socks_port").is_none())
    {
        proxy.remove("socks_port");
        if proxy.is_empty() {
            table.remove("proxy");
        }
    }
    assert_eq!(table, expected, "{text}");
}

/// A bridge's fingerprint.
const BRIDGE: &str = "0bac39417268b96b9f514ef763fa6fba1a788956";

#[test]
fn invalid_utf8_is_refused_only_in_values_that_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("torrc");
    fs::write(&path, b"# caf\xe9\nSocksPort 9055\n").unwrap();
    assert_eq!(
        read(std::slice::from_ref(&path)).unwrap().warnings,
        Vec::<String>::new()
    );
    fs::write(&path, b"SocksPort unix:/caf\xe9\n").unwrap();
    let error = read(&[path]).unwrap_err();
    assert!(
        error_text(&error, folder.path()).starts_with("torrc:1: SocksPort: "),
        "{error}"
    );
}

#[test]
fn the_toml_parses_to_the_same_table() {
    let torrc = read_good(&format!(
        "SocksPort 9050\nSocksPort unix:\"/a b\" WorldWritable\nSafeSocks 1\nUseBridges 1\nUser tor\n\
         Bridge obfs4 192.0.2.83:80 {BRIDGE} cert=x\nClientTransportPlugin obfs4 exec /usr/bin/lyrebird\n\
         Socks5Proxy 192.0.2.1\nLongLivedPorts 22\nMaxMemInQueues 1 GB\nDataDirectory /d\nLog notice"
    ));
    let text = to_toml(&torrc);
    let back: toml::Table = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(back, torrc.table, "{text}");
    let line = format!("    \"9050\", # {}:1\n", torrc.files[0].display());
    assert!(text.contains(&line), "{text}");
    assert!(
        text.contains("User: onionport does not change its user"),
        "{text}"
    );
}

#[test]
fn the_toml_is_a_valid_configuration() {
    let torrc = read_good(&format!(
        "SocksPort 9050 IsolateDestPort\nSocksTimeout 90\nSafeSocks 1\nSocksPolicy reject *\n\
         WarnPlaintextPorts 23\nRejectPlaintextPorts 25\nUseBridges 1\n\
         Bridge obfs4 192.0.2.83:80 {BRIDGE} cert=x\nClientTransportPlugin obfs4 exec /a/b$c -d\n\
         Socks5Proxy 192.0.2.1\nSocks5ProxyUsername a/b\nSocks5ProxyPassword c@d\n\
         ReducedConnectionPadding 1\nLongLivedPorts 22\nMaxMemInQueues 1 GB\nConnLimit 20000\n\
         DataDirectory /d$e\nLog notice\nClientOnionAuthDir /keys\nClientRejectInternalAddresses 0\n\
         ClientDNSRejectInternalAddresses 0\nCircuitStreamTimeout 20\nMaxCircuitDirtiness 5 minutes\n\
         EnforceDistinctSubnets 0\nReachableAddresses *:80,[2001:db8::]/32,203.0.113.7:1-443\n\
         VanguardsLiteEnabled 1"
    ));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("onionport.toml");
    fs::write(&file, to_toml(&torrc)).unwrap();
    let args = crate::config::ProxyArgs {
        config: vec![file],
        ..Default::default()
    };
    let config = crate::config::load(&args).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.ports.len(), 1);
    assert_eq!(config.socks_timeout.as_secs(), 90);
    assert_eq!(config.max_files, 20_000);
    assert_eq!(config.log_filter, "info");
    assert_eq!(config.state_dir, Path::new("/d$e/onionport/state"));
    assert_eq!(config.cache_dir, Path::new("/d$e/onionport/cache"));
    assert_eq!(
        config.client_onion_auth_dir.as_deref(),
        Some(Path::new("/keys"))
    );
    assert!(config.allow_local_addrs && config.allow_resolving_local_addrs);
    assert_eq!(config.exit_timeouts.connect.as_secs(), 20);
}
