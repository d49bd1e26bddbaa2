//! Bridges, proxies, firewalls and durations.

use super::*;

#[test]
fn durations_are_checked_and_limited() {
    assert_gives("SocksTimeout 2 days", "proxy.socks_timeout = '3600 s'");
    assert_gives(
        "MaxCircuitDirtiness 3\nCircuitStreamTimeout 30",
        "stream_timeouts.connect_timeout = '30 s'\ncircuit_timing.max_dirtiness = '10 s'",
    );
    assert_gives("CircuitStreamTimeout 0", "");
    let long = "CircuitStreamTimeout 2 hours\nMaxCircuitDirtiness 40 days\nSocksTimeout 3 hours";
    assert_gives(
        long,
        "proxy.socks_timeout = '3600 s'\nstream_timeouts.connect_timeout = '3600 s'\n\
         circuit_timing.max_dirtiness = '2592000 s'",
    );
    assert_eq!(
        read_warnings(long),
        [
            "torrc:3: SocksTimeout: reduced to 3600 seconds, the maximum",
            "torrc:1: CircuitStreamTimeout: reduced to 3600 seconds, the maximum",
            "torrc:2: MaxCircuitDirtiness: adjusted to 2592000 seconds, as in C tor",
        ]
    );
    assert_eq!(
        read_error("SocksTimeout 0"),
        "torrc:1: SocksTimeout: 0 is too short; write at least 1 second"
    );
}

#[test]
fn options_about_circuits_and_addresses_become_keys_of_arti() {
    assert_gives(
        "ClientRejectInternalAddresses 0\nClientDNSRejectInternalAddresses 1\nEnforceDistinctSubnets 0\n\
         LongLivedPorts 22,6667\nVanguardsLiteEnabled 0\nConnectionPadding 0\nConnLimit 20000\n\
         MaxMemInQueues 1 GB",
        "[address_filter]\nallow_local_addrs = true\nallow_resolving_local_addrs = false\n\
         [path_rules]\nipv4_subnet_family_prefix = 33\nipv6_subnet_family_prefix = 129\n\
         long_lived_ports = [22, 6667]\n[vanguards]\nmode = 'disabled'\n[channel]\npadding = 'none'\n\
         [system]\nmax_files = 20000\nmemory.max = 1073741824",
    );
    assert_gives(
        "ConnLimit 1000\nReducedConnectionPadding 1",
        "channel.padding = 'reduced'",
    );
}

#[test]
fn firewall_options_become_reachable_addresses() {
    assert_gives(
        "ReachableAddresses 198.51.100.0/255.255.255.0:443, accept *:80\nReachableAddresses reject *:*",
        "path_rules.reachable_addrs = ['198.51.100.0/24:443', '*:80']",
    );
    assert_gives(
        "ReachableAddresses *:80\nReachableORAddresses [2001:db8::]/32,203.0.113.7",
        "path_rules.reachable_addrs = ['[2001:db8::]/32:*', '203.0.113.7:*']",
    );
    assert_gives(
        "FascistFirewall 1",
        "path_rules.reachable_addrs = ['*:80', '*:443']",
    );
    assert_gives(
        "FascistFirewall 1\nFirewallPorts 8080",
        "path_rules.reachable_addrs = ['*:8080']",
    );
    assert_gives(
        "ClientUseIPv6 0",
        "path_rules.reachable_addrs = ['0.0.0.0/0:*']",
    );
    assert_gives(
        "ClientUseIPv4 0\nReachableAddresses *:443,203.0.113.7",
        "path_rules.reachable_addrs = ['[::]/0:443']",
    );
    assert_gives(
        "ReachableAddresses 2001:db8::/32:443,accept fc00::/7,*6:80-90",
        "path_rules.reachable_addrs = ['[2001:db8::]/32:443', '[fc00::]/7:*', '[::]/0:80-90']",
    );
    for bad in [
        "ReachableAddresses private:*",
        "ReachableAddresses reject *:*, *:80",
        "ClientUseIPv4 0\nReachableAddresses 203.0.113.7",
    ] {
        assert!(read_error(bad).contains(": ReachableAddresses: "), "{bad}");
    }
}

#[test]
fn rejected_addresses_are_subtracted_from_those_accepted_later() {
    // The example of tor(1) with fewer addresses.
    assert_gives(
        "ReachableAddresses 99.0.0.0/8, reject 18.0.0.0/9:80, accept 18.0.0.0/8:79-81",
        "path_rules.reachable_addrs = ['99.0.0.0/8:*', '18.128.0.0/9:79-81', '18.0.0.0/9:79', \
         '18.0.0.0/9:81']",
    );
    assert_gives(
        "ReachableAddresses reject 128.0.0.0/1\nReachableAddresses reject6 *\n\
         ReachableAddresses accept *:443, reject *:*, *:80",
        "path_rules.reachable_addrs = ['0.0.0.0/1:443']",
    );
    assert_gives(
        "ReachableAddresses accept 192.0.2.1:80, reject 192.0.2.0/24, reject *:25, accept 192.0.2.0/31",
        "path_rules.reachable_addrs = ['192.0.2.1:80']",
    );
    let all = read_good("ReachableAddresses reject private:*, accept *:*");
    let patterns: Vec<tor_netdoc::types::policy::AddrPortPattern> =
        all.table["path_rules"]["reachable_addrs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pattern| pattern.as_str().unwrap().parse().unwrap())
            .collect();
    for (address, reached) in [
        ("10.1.2.3", false),
        ("11.1.2.3", true),
        ("172.31.0.1", false),
        ("172.32.0.1", true),
        ("fd00::1", false),
        ("2001:db8::1", true),
    ] {
        let ip = address.parse().unwrap();
        let found = patterns.iter().any(|pattern| pattern.matches(&ip, 443));
        assert_eq!(found, reached, "{address}");
    }
}

#[test]
fn ipv6_rules_with_ipv4_addresses_are_ignored_with_a_warning() {
    for (option, key) in [
        ("SocksPolicy", "proxy.socks_policy = ['reject *']"),
        (
            "ReachableAddresses",
            "path_rules.reachable_addrs = ['*:443']",
        ),
    ] {
        let last = match option {
            "SocksPolicy" => "reject *",
            _ => "accept *:443",
        };
        let text = format!("{option} accept6 192.0.2.1,{last}");
        assert_gives(&text, key);
        assert_eq!(
            read_warnings(&text),
            [format!(
                "torrc:1: {option}: ignored rule \"accept6 192.0.2.1\": accept6 is for IPv6: write \"accept\""
            )]
        );
    }
}

#[test]
fn a_proxy_becomes_a_url() {
    assert_gives(
        "HTTPSProxy 192.0.2.1",
        "channel.outbound_proxy = 'http://192.0.2.1:443'",
    );
    assert_gives(
        "Socks4Proxy [2001:db8::1]:99",
        "channel.outbound_proxy = 'socks4://[2001:db8::1]:99'",
    );
    assert_gives(
        "Socks5Proxy 2001:db8::1\nSocks5ProxyUsername a\nSocks5ProxyPassword b",
        "channel.outbound_proxy = 'socks5://a:b@[2001:db8::1]:1080'",
    );
    for (text, url) in [
        ("Socks5Proxy localhost:9050", "socks5://127.0.0.1:9050"),
        ("Socks4Proxy localhost", "socks4://127.0.0.1:1080"),
    ] {
        assert_gives(text, &format!("channel.outbound_proxy = '{url}'"));
    }
    for bad in [
        "localhost:0",
        "localhost:x",
        "localhost.example",
        "192.0.2.1:0",
    ] {
        let text = read_error(&format!("HTTPSProxy {bad}"));
        assert!(text.contains("write IP:PORT"), "{text}");
    }
    assert_eq!(
        read_error("HTTPSProxy 192.0.2.1:80"),
        "torrc:1: HTTPSProxy: arti cannot use an HTTP proxy on port 80; let the proxy listen on another \
         port"
    );
    assert_eq!(
        read_error("Socks5Proxy proxy.example:1080"),
        "torrc:1: Socks5Proxy: arti needs an IP address here and looks up no name; write IP:PORT"
    );
}

#[test]
fn bridges_are_used_only_with_use_bridges() {
    assert_gives(
        &format!(
            "UseBridges 1\nBridge 192.0.2.83:80 {BRIDGE}\nBridge obfs4 192.0.2.83:81 {BRIDGE} cert=x\n\
             ClientTransportPlugin obfs4,meek_lite exec /usr/bin/lyrebird -a b\n\
             ClientTransportPlugin snowflake socks5 127.0.0.1:99"
        ),
        &format!(
            "[bridges]\nenabled = true\n\
             bridges = ['192.0.2.83:80 {BRIDGE}', 'obfs4 192.0.2.83:81 {BRIDGE} cert=x']\n\
             [[bridges.transports]]\nprotocols = ['obfs4', 'meek_lite']\npath = '/usr/bin/lyrebird'\n\
             arguments = ['-a', 'b']\n\
             [[bridges.transports]]\nprotocols = ['snowflake']\nproxy_addr = '127.0.0.1:99'"
        ),
    );
    assert_gives(
        "UseBridges 1\nBridge 192.0.2.83:80 0bac 3941 7268 b96b 9f51 4ef7 63fa 6fba 1a78 8956",
        &format!("bridges.enabled = true\nbridges.bridges = ['192.0.2.83:80 {BRIDGE}']"),
    );
    let unused = format!("Bridge 192.0.2.83:80 {BRIDGE}\nBridge 192.0.2.84:80");
    assert_gives(
        &unused,
        &format!("[bridges]\nenabled = false\nbridges = ['192.0.2.83:80 {BRIDGE}']"),
    );
    assert_eq!(read_warnings(&unused).len(), 2);
    let no_fingerprint = read_error("UseBridges 1\nBridge 192.0.2.84:80");
    assert!(
        no_fingerprint.starts_with("torrc:2: Bridge: no fingerprint"),
        "{no_fingerprint}"
    );
}

#[test]
fn no_exec_refuses_transports_that_would_run() {
    let text = format!(
        "NoExec 1\nBridge 192.0.2.83:80 {BRIDGE}\nClientTransportPlugin obfs4 exec /usr/bin/lyrebird"
    );
    read_good(&text);
    assert_eq!(
        read_error(&format!("{text}\nUseBridges 1")),
        "torrc:3: ClientTransportPlugin: NoExec 1 forbids running this program; remove one of the two lines"
    );
}

#[test]
fn a_login_to_an_http_proxy_is_refused_and_not_quoted() {
    let message = read_error("HTTPSProxy 192.0.2.1:3128\nHTTPSProxyAuthenticator me:p@ss:word");
    assert!(message.contains("torrc:2"), "{message}");
    assert!(message.contains("Socks5Proxy"), "{message}");
    assert!(!message.contains("p@ss"), "{message}");
}
