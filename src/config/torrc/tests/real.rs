//! The torrc files of packages and distributions, reduced to the lines in effect.

use super::*;

/// Returns the path of a file in tests/data/torrc.
fn data(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torrc");
    folder.join(name)
}

/// Reads files of tests/data/torrc, and asserts that they are a valid configuration.
fn read_files(names: &[&str]) -> Torrc {
    let files: Vec<PathBuf> = names.iter().map(|name| data(name)).collect();
    let torrc = read(&files).unwrap_or_else(|error| panic!("{error}"));
    let args = crate::config::ProxyArgs {
        torrc: files,
        ..Default::default()
    };
    let config = crate::config::load(&args).unwrap_or_else(|error| panic!("{names:?}: {error}"));
    assert!(!config.ports.is_empty(), "{names:?}");
    let text = to_toml(&torrc);
    let back: toml::Table = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(back, torrc.table, "{text}");
    torrc
}

/// Asserts that the settings are these in TOML.
fn assert_settings(torrc: &Torrc, expected: &str) {
    let expected: toml::Table = toml::from_str(expected).unwrap();
    assert_eq!(torrc.table, expected, "{}", torrc.table);
}

/// Returns the options that the warnings name, in order.
fn warned_options(torrc: &Torrc) -> Vec<&str> {
    let names = torrc.warnings.iter().flat_map(|warning| {
        let words = warning.split([' ', ',', ':']);
        words.filter(|word| options::find(word).is_some_and(|f| f.option.name == *word))
    });
    names.collect()
}

#[test]
fn debian_defaults_load_with_warnings() {
    let torrc = read_files(&["debian_defaults"]);
    assert_settings(
        &torrc,
        "[proxy]\nsocks_port = ['unix:/run/tor/socks WorldWritable', '9050']\n\
         [logging]\nconsole = 'info'\n\
         [storage]\ncache_dir = '/var/lib/tor/onionport/cache'\n\
         state_dir = '/var/lib/tor/onionport/state'",
    );
    assert_eq!(
        warned_options(&torrc),
        [
            "PidFile",
            "RunAsDaemon",
            "User",
            "ControlSocket",
            "ControlSocketsGroupWritable",
            "CookieAuthentication",
            "CookieAuthFileGroupReadable",
            "CookieAuthFile",
            "Log",
            "DataDirectory",
        ]
    );
    let origin = torrc.origin("proxy.socks_port[1]").unwrap();
    assert_eq!(
        (origin.path.clone(), origin.line),
        (data("debian_defaults"), 10)
    );
}

#[test]
fn an_instance_of_debian_keeps_its_own_socket_and_folder() {
    assert_settings(
        &read_files(&["debian_instance"]),
        "[proxy]\nsocks_port = ['unix:/run/tor-instances/one/socks WorldWritable']\n\
         [logging]\nconsole = 'info'\n\
         [storage]\ncache_dir = '/var/lib/tor-instances/one/onionport/cache'\n\
         state_dir = '/var/lib/tor-instances/one/onionport/state'",
    );
}

#[test]
fn a_user_file_adds_to_the_defaults_of_debian() {
    let torrc = read_files(&["debian_defaults", "debian_user"]);
    let proxy = &torrc.table["proxy"];
    let expected = [
        "unix:/run/tor/socks WorldWritable",
        "9050",
        "192.168.0.1:9100",
    ];
    assert_eq!(proxy["socks_port"], toml::Value::from(expected.to_vec()));
    let expected = ["accept 192.168.0.0/16", "accept6 FC00::/7", "reject *"];
    assert_eq!(proxy["socks_policy"], toml::Value::from(expected.to_vec()));
    assert_eq!(torrc.files, [data("debian_defaults"), data("debian_user")]);
    // Without the defaults, the socket and the folder of Debian's service are missing.
    let alone = read_files(&["debian_user"]);
    assert_eq!(
        alone.table["proxy"]["socks_port"],
        toml::Value::from(vec!["192.168.0.1:9100"])
    );
    assert!(!alone.table.contains_key("storage"));
}

#[test]
fn tails_keeps_its_ports_and_automapping() {
    let torrc = read_files(&["tails"]);
    assert_settings(
        &torrc,
        "[proxy]\nsocks_port = ['127.0.0.1:9050 IsolateDestAddr IsolateDestPort', \
         '127.0.0.1:9062 IsolateDestAddr IsolateDestPort', \
         '127.0.0.1:9150 IsolateSOCKSAuth KeepAliveIsolateSOCKSAuth']\n\
         trans_port = ['127.0.0.1:9040']\ndns_port = ['5353']\nwarn_plaintext_ports = [23, 109]\n\
         automap_hosts_on_resolve = true\nautomap_hosts_suffixes = ['.exit', '.onion']\n\
         [logging]\nconsole = 'info'",
    );
    assert_eq!(
        warned_options(&torrc),
        ["ControlPort", "AvoidDiskWrites", "Log"]
    );
}

#[test]
fn a_whonix_gateway_opens_all_its_ports() {
    let torrc = read_files(&["whonix/65_gateway.conf"]);
    let proxy = &torrc.table["proxy"];
    let count = |key: &str| proxy[key].as_array().unwrap().len();
    assert_eq!((count("socks_port"), count("http_port")), (23, 40));
    assert_eq!(
        proxy["socks_port"][0].as_str(),
        Some("unix:/run/tor/socks IPv6Traffic WorldWritable")
    );
    assert_eq!(proxy["dns_port"][0].as_str(), Some("127.0.0.1:5400"));
    assert_eq!(
        proxy["virtual_addr_network_ipv4"].as_str(),
        Some("10.192.0.0/10")
    );
    assert_eq!(
        proxy["client_onion_auth_dir"].as_str(),
        Some("/var/lib/tor/authdir")
    );
    assert_eq!(
        warned_options(&torrc),
        ["ControlPort", "CookieAuthentication", "Log"]
    );
    let ports: Vec<&str> = proxy["socks_port"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|p| p.as_str())
        .collect();
    for port in ports {
        port.parse::<crate::config::port_line::PortLine>()
            .unwrap_or_else(|error| panic!("{port}: {error}"));
    }
}

#[test]
fn whonix_ports_for_the_workstation_need_the_network_enabled() {
    let alone = read(&[data("whonix/workstation_defaults")])
        .unwrap_err()
        .to_string();
    assert!(
        alone.contains("workstation_defaults:12 DisableNetwork: "),
        "{alone}"
    );
    let torrc = read_files(&["whonix/workstation_defaults", "whonix/torrc"]);
    let proxy = &torrc.table["proxy"];
    assert_eq!(proxy["socks_port"].as_array().unwrap().len(), 65);
    assert_eq!(
        proxy["dns_port"][0].as_str(),
        Some("10.152.152.10:53 IsolateDestPort")
    );
    assert_eq!(
        proxy["map_address"][1].as_str(),
        Some("2.2.2.2 gbhpq7eihle4btsn.onion")
    );
    assert!(
        warned_options(&torrc).contains(&"ControlListenAddress"),
        "{:?}",
        torrc.warnings
    );
}

#[test]
fn tor_browser_keeps_its_port_bridges_and_keys() {
    let torrc = read_files(&["tor_browser/torrc-defaults", "tor_browser/torrc"]);
    let proxy = &torrc.table["proxy"];
    let port = "127.0.0.1:9150 ExtendedErrors IPv6Traffic PreferIPv6 KeepAliveIsolateSOCKSAuth";
    assert_eq!(proxy["socks_port"], toml::Value::from(vec![port]));
    let folder = "/home/user/tor-browser/Browser/TorBrowser/Data/Tor";
    assert_eq!(
        proxy["client_onion_auth_dir"].as_str(),
        Some(format!("{folder}/onion-auth").as_str())
    );
    let bridges = &torrc.table["bridges"];
    assert_eq!(bridges["enabled"].as_bool(), Some(true));
    assert_eq!(bridges["bridges"].as_array().unwrap().len(), 2);
    let here = std::env::current_dir().unwrap();
    let lyrebird = here.join("TorBrowser/Tor/PluggableTransports/lyrebird");
    for transport in 0..2 {
        let path = bridges["transports"][transport]["path"].as_str();
        assert_eq!(path, lyrebird.to_str());
    }
    assert_eq!(
        warned_options(&torrc),
        [
            "AvoidDiskWrites",
            "CookieAuthentication",
            "GeoIPFile",
            "GeoIPv6File",
            "DataDirectory",
        ]
    );
}

#[test]
fn the_client_lines_of_bitcoin_core_load_and_its_service_is_refused() {
    let torrc = read_files(&["debian_defaults", "bitcoin_core"]);
    assert_eq!(
        torrc.table["proxy"]["socks_port"],
        toml::Value::from(vec!["unix:/run/tor/socks WorldWritable", "9050"])
    );
    let service = read(&[data("bitcoin_core_service")])
        .unwrap_err()
        .to_string();
    assert!(
        service.contains("bitcoin_core_service:2 HiddenServiceDir, "),
        "{service}"
    );
    assert!(
        service.contains("bitcoin_core_service:3 HiddenServicePort: "),
        "{service}"
    );
}

#[test]
fn a_docker_image_with_a_proxy_keeps_all_its_ports() {
    let torrc = read_files(&["docker"]);
    assert_settings(
        &torrc,
        "[proxy]\nsocks_port = ['0.0.0.0:9050 IsolateDestAddr']\nhttp_port = ['0.0.0.0:8118']\n\
         dns_port = ['0.0.0.0:5353']\ntrans_port = ['0.0.0.0:9040']\nsafe_socks = true\n\
         automap_hosts_on_resolve = true\nvirtual_addr_network_ipv4 = '10.192.0.0/10'\n\
         socks_policy = ['accept 127.0.0.0/8', 'accept 172.16.0.0/12', 'reject *']\n\
         [logging]\nconsole = 'info'\n[circuit_timing]\nmax_dirtiness = '600 s'\n\
         [storage]\ncache_dir = '/var/lib/tor/onionport/cache'\n\
         state_dir = '/var/lib/tor/onionport/state'",
    );
    assert_eq!(
        warned_options(&torrc),
        [
            "ControlPort",
            "HashedControlPassword",
            "AvoidDiskWrites",
            "User",
            "CircuitBuildTimeout",
            "LearnCircuitBuildTimeout",
            "NumEntryGuards",
            "DataDirectory",
        ]
    );
}
