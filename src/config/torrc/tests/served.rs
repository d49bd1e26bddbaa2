use super::*;

/// Compares the settings of a text with TOML.
fn gives(text: &str, expected: &str) {
    let expected: toml::Table = toml::from_str(expected).unwrap();
    let mut table = good(text).table;
    // Most tests are not about the port that opens anyway.
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

#[test]
fn without_a_socks_port_c_tors_default_is_opened() {
    assert_eq!(toml(""), "[proxy]\nsocks_port = [\"9050\"]\n");
    gives("SocksPort 0", "proxy.socks_port = ['0']");
    assert_eq!(good("").origin("proxy.socks_port"), None);
}

#[test]
fn ports_are_taken_as_they_are_written() {
    gives(
        "SocksPort 9050 IsolateDestPort\n__SocksPort \"unix:/a ExtendedErrors\"\n\
         HTTPTunnelPort 8118\nTransPort 9040\nTransProxyType tproxy\nDNSPort 127.0.0.1:53 NoIPv6Traffic",
        "[proxy]\n\
         socks_port = ['9050 IsolateDestPort', 'unix:/a ExtendedErrors']\n\
         http_port = ['8118']\ntrans_port = ['9040']\ntrans_proxy_type = 'TPROXY'\n\
         dns_port = ['127.0.0.1:53 NoIPv6Traffic']",
    );
}

#[test]
fn unix_socks_ports_become_group_writable_together() {
    gives(
        "UnixSocksGroupWritable 1\nSocksPort unix:/a\nSocksPort unix:\"/b c\" RelaxDirModeCheck\n\
         SocksPort unix:/d nogroupwritable\nSocksPort 9050",
        "proxy.socks_port = ['unix:/a GroupWritable', \
         'unix:\"/b c\" RelaxDirModeCheck GroupWritable', 'unix:/d nogroupwritable', '9050']",
    );
}

#[test]
fn what_clients_may_ask_for_becomes_proxy_keys() {
    gives(
        "SocksTimeout 2 minutes\nSocksPolicy accept 192.168.0.0/16, accept6 [::1]\nSocksPolicy reject *\n\
         SafeSocks 1\nTestSocks 0\nWarnPlaintextPorts 23, 80\nRejectPlaintextPorts 25\n\
         MapAddress  a.example   b.example\nAutomapHostsOnResolve 1\nAutomapHostsSuffixes .exit,.onion\n\
         VirtualAddrNetworkIPv4 10.192.0.0/10\nVirtualAddrNetworkIPv6 [FC00::]/7",
        "[proxy]\nsocks_timeout = '120 s'\n\
         socks_policy = ['accept 192.168.0.0/16', 'accept6 [::1]', 'reject *']\n\
         safe_socks = true\ntest_socks = false\nwarn_plaintext_ports = [23, 80]\n\
         reject_plaintext_ports = [25]\nmap_address = ['a.example b.example']\n\
         automap_hosts_on_resolve = true\nautomap_hosts_suffixes = ['.exit', '.onion']\n\
         virtual_addr_network_ipv4 = '10.192.0.0/10'\nvirtual_addr_network_ipv6 = '[FC00::]/7'",
    );
    gives("WarnPlaintextPorts\n", "proxy.warn_plaintext_ports = []");
    let policy = good("SocksPolicy accept 10.0.0.1,reject *\nSocksPolicy reject *");
    assert_eq!(policy.origin("proxy.socks_policy[1]").unwrap().line, 1);
    assert_eq!(policy.origin("proxy.socks_policy[2]").unwrap().line, 2);
}

#[test]
fn times_are_checked_and_cut_to_their_limits() {
    gives("SocksTimeout 2 days", "proxy.socks_timeout = '3600 s'");
    gives(
        "MaxCircuitDirtiness 3\nCircuitStreamTimeout 30",
        "stream_timeouts.connect_timeout = '30 s'\ncircuit_timing.max_dirtiness = '10 s'",
    );
    gives("CircuitStreamTimeout 0", "");
    let long = "CircuitStreamTimeout 2 hours\nMaxCircuitDirtiness 40 days\nSocksTimeout 3 hours";
    gives(
        long,
        "proxy.socks_timeout = '3600 s'\nstream_timeouts.connect_timeout = '3600 s'\n\
         circuit_timing.max_dirtiness = '2592000 s'",
    );
    assert_eq!(
        warnings(long),
        [
            "torrc:3: SocksTimeout is cut to 3600 seconds, the longest there is",
            "torrc:1: CircuitStreamTimeout is cut to 3600 seconds, the longest there is",
            "torrc:2: MaxCircuitDirtiness is taken as 2592000 seconds, as C tor does",
        ]
    );
    assert_eq!(
        refusal("SocksTimeout 0"),
        "torrc:1: SocksTimeout: no request succeeds in no time: write at least 1 second"
    );
}

#[test]
fn a_relative_key_folder_counts_from_where_the_program_starts() {
    let here = std::env::current_dir().unwrap();
    let torrc = good("ClientOnionAuthDir a$b/keys");
    let folder = torrc.table["proxy"]["client_onion_auth_dir"]
        .as_str()
        .unwrap();
    assert_eq!(folder, format!("{}/a$$b/keys", here.display()));
}

#[test]
fn addresses_and_paths_through_the_network_become_artis_keys() {
    gives(
        "ClientRejectInternalAddresses 0\nClientDNSRejectInternalAddresses 1\nEnforceDistinctSubnets 0\n\
         LongLivedPorts 22,6667\nVanguardsLiteEnabled 0\nConnectionPadding 0\nConnLimit 20000\n\
         MaxMemInQueues 1 GB",
        "[address_filter]\nallow_local_addrs = true\nallow_resolving_local_addrs = false\n\
         [path_rules]\nipv4_subnet_family_prefix = 33\nipv6_subnet_family_prefix = 129\n\
         long_lived_ports = [22, 6667]\n[vanguards]\nmode = 'disabled'\n[channel]\npadding = 'none'\n\
         [system]\nmax_files = 20000\nmemory.max = 1073741824",
    );
    gives(
        "ConnLimit 1000\nReducedConnectionPadding 1",
        "channel.padding = 'reduced'",
    );
}

#[test]
fn a_firewall_becomes_what_can_be_reached() {
    gives(
        "ReachableAddresses 198.51.100.0/255.255.255.0:443, accept *:80\nReachableAddresses reject *:*",
        "path_rules.reachable_addrs = ['198.51.100.0/24:443', '*:80']",
    );
    gives(
        "ReachableAddresses *:80\nReachableORAddresses [2001:db8::]/32,203.0.113.7",
        "path_rules.reachable_addrs = ['[2001:db8::]/32:*', '203.0.113.7:*']",
    );
    gives(
        "FascistFirewall 1",
        "path_rules.reachable_addrs = ['*:80', '*:443']",
    );
    gives(
        "FascistFirewall 1\nFirewallPorts 8080",
        "path_rules.reachable_addrs = ['*:8080']",
    );
    gives(
        "ClientUseIPv6 0",
        "path_rules.reachable_addrs = ['0.0.0.0/0:*']",
    );
    gives(
        "ClientUseIPv4 0\nReachableAddresses *:443,203.0.113.7",
        "path_rules.reachable_addrs = ['[::]/0:443']",
    );
    gives(
        "ReachableAddresses 2001:db8::/32:443,accept fc00::/7,*6:80-90",
        "path_rules.reachable_addrs = ['[2001:db8::]/32:443', '[fc00::]/7:*', '[::]/0:80-90']",
    );
    for bad in [
        "ReachableAddresses private:*",
        "ReachableAddresses reject *:*, *:80",
        "ClientUseIPv4 0\nReachableAddresses 203.0.113.7",
    ] {
        assert!(refusal(bad).contains(": ReachableAddresses: "), "{bad}");
    }
}

#[test]
fn what_a_firewall_rejects_is_taken_out_of_what_it_accepts_later() {
    // The example of tor(1), on fewer addresses.
    gives(
        "ReachableAddresses 99.0.0.0/8, reject 18.0.0.0/9:80, accept 18.0.0.0/8:79-81",
        "path_rules.reachable_addrs = ['99.0.0.0/8:*', '18.128.0.0/9:79-81', '18.0.0.0/9:79', \
         '18.0.0.0/9:81']",
    );
    gives(
        "ReachableAddresses reject 128.0.0.0/1\nReachableAddresses reject6 *\n\
         ReachableAddresses accept *:443, reject *:*, *:80",
        "path_rules.reachable_addrs = ['0.0.0.0/1:443']",
    );
    gives(
        "ReachableAddresses accept 192.0.2.1:80, reject 192.0.2.0/24, reject *:25, accept 192.0.2.0/31",
        "path_rules.reachable_addrs = ['192.0.2.1:80']",
    );
    let all = good("ReachableAddresses reject private:*, accept *:*");
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
fn rules_for_ipv6_about_ipv4_are_left_out_with_a_warning() {
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
        gives(&text, key);
        assert_eq!(
            warnings(&text),
            [format!(
                "torrc:1: {option}: \"accept6 192.0.2.1\" is left out: accept6 is for IPv6: write \"accept\""
            )]
        );
    }
}

#[test]
fn a_proxy_becomes_a_url() {
    gives(
        "HTTPSProxy 192.0.2.1",
        "channel.outbound_proxy = 'http://192.0.2.1:443'",
    );
    gives(
        "Socks4Proxy [2001:db8::1]:99",
        "channel.outbound_proxy = 'socks4://[2001:db8::1]:99'",
    );
    gives(
        "Socks5Proxy 2001:db8::1\nSocks5ProxyUsername a\nSocks5ProxyPassword b",
        "channel.outbound_proxy = 'socks5://a:b@[2001:db8::1]:1080'",
    );
    for (text, url) in [
        ("Socks5Proxy localhost:9050", "socks5://127.0.0.1:9050"),
        ("Socks4Proxy localhost", "socks4://127.0.0.1:1080"),
    ] {
        gives(text, &format!("channel.outbound_proxy = '{url}'"));
    }
    for bad in [
        "localhost:0",
        "localhost:x",
        "localhost.example",
        "192.0.2.1:0",
    ] {
        let text = refusal(&format!("HTTPSProxy {bad}"));
        assert!(text.contains("write IP:PORT"), "{text}");
    }
    assert_eq!(
        refusal("HTTPSProxy 192.0.2.1:80"),
        "torrc:1: HTTPSProxy: arti cannot be told of an HTTP proxy on port 80: let it listen on another \
         port too"
    );
    assert_eq!(
        refusal("Socks5Proxy proxy.example:1080"),
        "torrc:1: Socks5Proxy: the value is not an address for arti, which looks up no names here: \
         write IP:PORT"
    );
}

/// The fingerprint of a bridge.
const BRIDGE: &str = "0bac39417268b96b9f514ef763fa6fba1a788956";

#[test]
fn bridges_are_used_only_with_their_switch() {
    gives(
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
    gives(
        "UseBridges 1\nBridge 192.0.2.83:80 0bac 3941 7268 b96b 9f51 4ef7 63fa 6fba 1a78 8956",
        &format!("bridges.enabled = true\nbridges.bridges = ['192.0.2.83:80 {BRIDGE}']"),
    );
    let unused = format!("Bridge 192.0.2.83:80 {BRIDGE}\nBridge 192.0.2.84:80");
    gives(
        &unused,
        &format!("[bridges]\nenabled = false\nbridges = ['192.0.2.83:80 {BRIDGE}']"),
    );
    assert_eq!(warnings(&unused).len(), 2);
    let no_fingerprint = refusal("UseBridges 1\nBridge 192.0.2.84:80");
    assert!(
        no_fingerprint.starts_with("torrc:2: Bridge: the line has no fingerprint"),
        "{no_fingerprint}"
    );
    assert!(no_fingerprint.contains("fingerprint"), "{no_fingerprint}");
}

#[test]
fn no_exec_forbids_to_run_transports_that_would_be_run() {
    let text = format!(
        "NoExec 1\nBridge 192.0.2.83:80 {BRIDGE}\nClientTransportPlugin obfs4 exec /usr/bin/lyrebird"
    );
    good(&text);
    assert_eq!(
        refusal(&format!("{text}\nUseBridges 1")),
        "torrc:3: ClientTransportPlugin: NoExec 1 forbids to run it: remove one of the two"
    );
}

#[test]
fn the_log_shows_no_more_than_c_tor_would_or_a_warning_says_so() {
    for (text, level) in [
        ("Log notice stdout", Some("info")),
        ("Log info stderr", Some("info")),
        ("Log debug", Some("debug")),
        ("Log warn-err syslog", Some("warn")),
        ("Log NOTICE file /tmp/a b", Some("info")),
        ("Log debug file /tmp/a\nLog err stderr", Some("error")),
        ("Log [net]debug [*,~net]warn stdout", Some("warn")),
        ("Log err stdout\nLog notice stdout", Some("info")),
        ("", None),
    ] {
        let torrc = good(text);
        let console = torrc
            .table
            .get("logging")
            .map(|l| l["console"].as_str().unwrap());
        assert_eq!(console, level, "{text}");
        let elsewhere = text.contains("file") || text.contains("syslog");
        assert_eq!(
            !torrc.warnings.is_empty(),
            elsewhere || level == Some("debug"),
            "{text}: {:?}",
            torrc.warnings
        );
    }
}

#[test]
fn the_times_of_the_log_are_no_more_exact_than_c_tors() {
    for (line, taken, warned) in [
        ("LogTimeGranularity 1", "1 ms", false),
        ("LogTimeGranularity 300 msec", "500 ms", true),
        ("LogTimeGranularity 600 msec", "1000 ms", true),
        ("LogTimeGranularity 1500 msec", "2000 ms", true),
        ("LogTimeGranularity 1 minute", "60000 ms", false),
    ] {
        gives(line, &format!("[logging]\ntime_granularity = \"{taken}\""));
        assert_eq!(!warnings(line).is_empty(), warned, "{line}");
    }
    assert!(refusal("LogTimeGranularity 0").starts_with("torrc:1: LogTimeGranularity: "));
}

#[test]
fn a_data_folder_gets_a_folder_of_our_own() {
    gives(
        "DataDirectory /var/lib/tor",
        "[storage]\ncache_dir = '/var/lib/tor/onionport/cache'\n\
         state_dir = '/var/lib/tor/onionport/state'",
    );
    gives(
        "CacheDirectory /var/cache/tor",
        "[storage]\ncache_dir = '/var/cache/tor/onionport/cache'",
    );
}

#[test]
fn relay_and_service_options_are_refused_in_one_message_that_lists_them() {
    let text = "SocksPort 9050\nORPort 9001\nNickname example\nHiddenServiceDir /a\n\
                HiddenServicePort 80\nExitPolicy accept *:80\nAuthoritativeDirectory 1\n\
                ExitNodes {us}\nNATDPort 5000";
    assert_eq!(
        refusal(text),
        "torrc:2 ORPort, torrc:3 Nickname, torrc:6 ExitPolicy: these are options of relays and bridges, \
         and onionport is a client: remove them; \
         torrc:7 AuthoritativeDirectory: these are options of directory authorities, and onionport is a \
         client: remove them; \
         torrc:4 HiddenServiceDir, torrc:5 HiddenServicePort: these are options of onion services, and \
         onionport is a client: leave them to C tor or arti; \
         torrc:8 ExitNodes: arti cannot choose or avoid single relays: remove them if any relay will do, \
         or stay with C tor; \
         torrc:9 NATDPort: there is no port for natd: use TransPort"
    );
}

#[test]
fn what_is_switched_off_is_no_reason_to_refuse() {
    let text = "ORPort 0\nDirPort 0\nExtORPort 0\nExitRelay 0\nBridgeRelay 0\nNATDPort 0\nControlPort 0\n\
                ExitPolicy reject *:*\nExitPolicy reject6 *:*, reject *:25\nPublishServerDescriptor 0\n\
                AccountingMax 0 bytes\nClientOnly 1\nDisableNetwork 0\nExitNodes\nDirCache 0\n\
                RelayBandwidthRate 0\nHiddenServiceStatistics 0\nDirReqStatistics 1\nSafeLogging 1";
    gives(text, "");
    assert_eq!(warnings(text), Vec::<String>::new());
}

#[test]
fn a_login_to_an_http_proxy_is_refused_without_being_quoted() {
    let message = refusal("HTTPSProxy 192.0.2.1:3128\nHTTPSProxyAuthenticator me:p@ss:word");
    assert!(message.contains("torrc:2"), "{message}");
    assert!(message.contains("Socks5Proxy"), "{message}");
    assert!(!message.contains("p@ss"), "{message}");
}

#[test]
fn what_would_be_disobeyed_is_refused_and_not_passed_over() {
    for option in [
        "ExcludeNodes {de}",
        "ExitNodes {us}",
        "EntryNodes 0123456789ABCDEF0123456789ABCDEF01234567",
        "MiddleNodes {us}",
        "ExcludeExitNodes {us}",
        "HSLayer2Nodes {us}",
        "NodeFamily a,b",
        "OutboundBindAddress 192.0.2.1",
        "TCPProxy haproxy 192.0.2.1:1",
        "DisableNetwork 1",
        "TestingTorNetwork 1",
        "DirAuthority a orport=1 192.0.2.1:1 89ABCDEF0123456789ABCDEF0123456789ABCDEF",
        "FallbackDir 192.0.2.1:80 orport=1 id=89ABCDEF0123456789ABCDEF0123456789ABCDEF",
        "UseDefaultFallbackDirs 0",
    ] {
        let name = option.split(' ').next().unwrap();
        let message = refusal(option);
        assert!(
            message.contains("torrc:1") && message.contains(name),
            "{message}"
        );
    }
}

#[test]
fn options_without_effect_are_named_with_what_to_do() {
    assert_eq!(
        warnings("ControlPort 9051\nCookieAuthentication 1\nUser tor\nNumEntryGuards 2"),
        [
            "torrc:1 ControlPort, torrc:2 CookieAuthentication: there is no control port, so programs \
             such as nyx and Tor Browser's own launcher cannot steer onionport: change its files and \
             send it the signal HUP, or USR1 for new circuits",
            "torrc:3 User: onionport does not change its user: start it as the right one (systemd: \
             User=)",
            "torrc:4 NumEntryGuards: arti chooses guards by the network's parameters, and always uses \
             them",
        ]
    );
}

#[test]
fn what_asks_for_what_is_so_anyway_is_not_warned_of() {
    for line in [
        "HeartbeatPeriod 0",
        "DormantTimeoutEnabled 0",
        "CircuitPadding 0",
        "ShutdownWaitLength 0",
        "__ReloadTorrcOnSIGHUP 1",
        "DisableDebuggerAttachment 1",
        "DisableDebuggerAttachment 0",
    ] {
        assert_eq!(warnings(line), [""; 0], "{line}");
    }
    for (name, value) in options::fulfilled() {
        assert_eq!(warnings(&format!("{name} {value}")), [""; 0], "{name}");
        let option = options::find(name).unwrap().option;
        assert!(
            matches!(option.role, options::Role::Warned(_)) && option.default != *value,
            "{name} needs no entry"
        );
    }
    let [warning] = &warnings("ShutdownWaitLength 10")[..] else {
        panic!("no warning");
    };
    assert!(warning.contains("stops at once"), "{warning}");
    for (line, permitted) in [("1", false), ("0", true)] {
        gives(
            &format!("DisableDebuggerAttachment {line}"),
            &format!("application.permit_debugging = {permitted}"),
        );
    }
}

#[test]
fn bytes_that_are_no_utf8_matter_only_where_they_are_used() {
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
        message(&error, folder.path()).starts_with("torrc:1: SocksPort: "),
        "{error}"
    );
}

#[test]
fn the_text_reads_back_as_the_same_table() {
    let torrc = good(&format!(
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
fn the_program_takes_the_text_as_its_configuration() {
    let torrc = good(&format!(
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
