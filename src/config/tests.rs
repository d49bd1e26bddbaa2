use std::path::{Path, PathBuf};
use std::time::Duration;

use arti_client::TorClientConfig;
use nix::unistd::geteuid;

use super::build::build;
use super::port_line::{PortKind, PortLine};
use super::*;

mod example;
mod locations;
mod ports;

impl Config {
    /// The lines of the ports of one kind.
    fn port_lines(&self, kind: PortKind) -> Vec<PortLine> {
        let ports = self.ports.iter().filter(|port| port.kind == kind);
        ports.map(|port| port.line.clone()).collect()
    }
}

/// Loads `text` as the only configuration file, with `args` on top.
fn with_args(text: &str, args: ProxyArgs) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.toml");
    std::fs::write(&path, text).unwrap();
    let args = ProxyArgs {
        config: vec![path],
        ..args
    };
    load(&args)
}

fn file(text: &str) -> Result<Config, ConfigError> {
    with_args(text, ProxyArgs::default())
}

/// Loads a file that must be valid.
fn good(text: &str) -> Config {
    file(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// Returns the message for a file that must be refused, without the folder of the file.
fn refusal(text: &str) -> String {
    message(file(text).expect_err(text))
}

/// Returns the message of an error, which must be one line.
fn message(error: ConfigError) -> String {
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    match text.find("test.toml") {
        Some(at) => text[at..].to_owned(),
        None => text,
    }
}

/// Loads `-o` options and nothing else.
fn options(options: &[&str]) -> Result<Config, ConfigError> {
    let option = options.iter().map(|&option| option.to_owned()).collect();
    with_args(
        "",
        ProxyArgs {
            option,
            ..ProxyArgs::default()
        },
    )
}

/// Returns the defaults, without any file.
fn defaults() -> Config {
    build(&Sources::default(), &ProxyArgs::default()).unwrap()
}

/// Removes the fields that depend on where a configuration was read from.
fn settings(config: Config) -> Config {
    Config {
        files: Vec::new(),
        secrets: Vec::new(),
        ..config
    }
}

#[test]
fn without_configuration_there_is_one_port_on_loopback() {
    let config = defaults();
    assert_eq!(
        config.port_lines(PortKind::Socks),
        ["127.0.0.1:9150".parse().unwrap()]
    );
    assert_eq!(config.socks_timeout, Duration::from_secs(120));
    assert_eq!(config.client_onion_auth_dir, None);
    assert_eq!(config.max_files, 16_384);
    assert_eq!(config.log_filter, "info");
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.files, Vec::<PathBuf>::new());
    assert_eq!(config.tor, TorClientConfig::default());
    assert!(config.state_dir.is_absolute() && config.cache_dir.is_absolute());
}

#[test]
fn later_files_override_earlier_ones_and_options_override_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let first = write(
        "a.toml",
        "[proxy]\nsocks_timeout = 10\nsocks_port = 1\n[system]\nmax_files = 7",
    );
    let second = write(
        "b.toml",
        "[proxy]\nsocks_timeout = 20\nsocks_port = [2, \"3\"]",
    );
    let mut args = ProxyArgs {
        config: vec![first.clone(), second.clone()],
        ..Default::default()
    };
    let config = load(&args).unwrap();
    assert_eq!(config.files, [first, second]);
    assert_eq!(config.socks_timeout, Duration::from_secs(20));
    assert_eq!(config.port_lines(PortKind::Socks).len(), 2);
    assert_eq!(config.max_files, 7);
    args.option = vec![
        "proxy.socks_timeout=30".into(),
        "proxy.socks_timeout = 40".into(),
    ];
    args.socks_port = vec!["auto ExtendedErrors".into()];
    let config = load(&args).unwrap();
    assert_eq!(config.socks_timeout, Duration::from_secs(40));
    assert_eq!(
        config.port_lines(PortKind::Socks),
        ["auto ExtendedErrors".parse().unwrap()]
    );
}

#[test]
fn the_files_of_a_folder_are_read_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("1.toml"), "[system]\nmax_files = 1").unwrap();
    std::fs::write(folder.path().join("2.toml"), "[system]\nmax_files = 2").unwrap();
    std::fs::write(folder.path().join("3.txt"), "not read").unwrap();
    let with_slash = PathBuf::from(format!("{}/", folder.path().display()));
    for path in [with_slash, folder.path().to_owned()] {
        let args = ProxyArgs {
            config: vec![path],
            ..Default::default()
        };
        let config = load(&args).unwrap();
        assert_eq!(config.max_files, 2);
        assert_eq!(config.files.len(), 2);
    }
}

#[test]
fn arti_clients_settings_reach_arti_client() {
    let config = good(
        "[address_filter]\nallow_local_addrs = true\n[storage]\nstate_dir = \"/s\"\ncache_dir = \"/c\"",
    );
    assert!(config.allow_local_addrs);
    assert_ne!(config.tor, TorClientConfig::default());
    assert_eq!(config.state_dir, Path::new("/s"));
    assert_eq!(config.cache_dir, Path::new("/c"));
}

#[test]
fn the_deadline_has_units_and_limits() {
    let read = |text: &str| file(&format!("[proxy]\nsocks_timeout = {text}"));
    for (text, seconds) in [("1", 1), ("\"90\"", 90), ("\"2 min\"", 120), ("3600", 3600)] {
        let config = read(text).unwrap();
        assert_eq!(config.socks_timeout, Duration::from_secs(seconds));
    }
    for text in ["0", "3601", "\"999 ms\"", "\"soon\"", "-1", "1.5", "true"] {
        let error = message(read(text).unwrap_err());
        assert!(
            error.starts_with("test.toml:2: proxy.socks_timeout: "),
            "{text}: {error}"
        );
    }
}

#[test]
fn the_auth_folder_is_expanded_and_may_be_empty() {
    let folder = |text: &str| {
        good(&format!("[proxy]\nclient_onion_auth_dir = \"{text}\"")).client_onion_auth_dir
    };
    assert_eq!(folder(""), None);
    assert_eq!(folder("/a"), Some("/a".into()));
    let inside = folder("${ARTI_LOCAL_DATA}/auth").unwrap();
    assert!(
        inside.is_absolute() && inside.ends_with("auth"),
        "{inside:?}"
    );
    let error = refusal("[proxy]\nclient_onion_auth_dir = \"${WOMBAT}/a\"");
    assert!(
        error.starts_with("test.toml:2: proxy.client_onion_auth_dir: "),
        "{error}"
    );
    assert!(error.contains("WOMBAT"), "{error}");
}

#[test]
fn the_log_filter_is_checked_and_the_command_line_wins() {
    assert_eq!(
        good("[logging]\nconsole = \"debug,tor_proto=warn\"").log_filter,
        "debug,tor_proto=warn"
    );
    assert_eq!(good("[logging]\nconsole = \"\"").log_filter, "off");
    let args = |filter: &str| ProxyArgs {
        log: Some(filter.into()),
        ..Default::default()
    };
    assert_eq!(
        with_args("[logging]\nconsole = \"=x=\"", args("trace"))
            .unwrap()
            .log_filter,
        "trace"
    );
    let error = message(with_args("", args("onionport=loud")).unwrap_err());
    assert!(
        error.starts_with("command line: --log: \"onionport=loud\""),
        "{error}"
    );
    for (filter, words) in [
        ("notice", "here it is info"),
        ("Err", "here it is error"),
        ("wran", "\"wran\" is not a level"),
        ("info,tor_netdir", "\"tor_netdir\" is not a level"),
        ("6", "\"6\" is not a level"),
    ] {
        let error = refusal(&format!("[logging]\nconsole = {filter:?}"));
        assert!(
            error.starts_with(&format!("test.toml:2: logging.console: {filter:?} ")),
            "{error}"
        );
        assert!(error.contains(words), "{error}");
    }
    for (filter, read) in [
        ("WARN", "WARN"),
        ("3", "3"),
        ("Off", "Off"),
        ("tor_netdir=error", "tor_netdir=error"),
        (" info, tor_netdir=error,", "info,tor_netdir=error"),
    ] {
        let config = good(&format!("[logging]\nconsole = {filter:?}"));
        assert_eq!(config.log_filter, read);
    }
    let error = refusal("[logging]\nconsole = \"a=b=c\"");
    assert!(
        error.starts_with("test.toml:2: logging.console: \"a=b=c\""),
        "{error}"
    );
}

#[test]
fn the_granularity_of_log_timestamps_is_configurable() {
    let granularity =
        |value: &str| good(&format!("[logging]\ntime_granularity = {value}")).log_granularity;
    assert_eq!(defaults().log_granularity, Duration::from_secs(1));
    assert_eq!(granularity("\"1s\""), Duration::from_secs(1));
    assert_eq!(granularity("\"100 ms\""), Duration::from_millis(100));
    assert_eq!(granularity("60"), Duration::from_secs(60));
    let error = refusal("[logging]\ntime_granularity = \"soon\"");
    assert!(
        error.starts_with("test.toml:2: logging.time_granularity: write a time"),
        "{error}"
    );
}

#[test]
fn wrong_address_mappings_are_refused_with_their_location() {
    for (text, start, part) in [
        (
            "map_address = [\"a b\", \"a b.exit\"]",
            "map_address: ",
            "exit relays",
        ),
        (
            "automap_hosts_suffixes = [\"\"]",
            "automap_hosts_suffixes: ",
            "all names",
        ),
        (
            "virtual_addr_network_ipv4 = \"127.0.0.0/24\"",
            "virtual_addr_network_ipv4: ",
            "/16",
        ),
        (
            "virtual_addr_network_ipv6 = \"127.0.0.0/8\"",
            "virtual_addr_network_ipv6: ",
            "IPv6",
        ),
    ] {
        let error = refusal(&format!("[proxy]\n{text}"));
        assert!(
            error.starts_with(&format!("test.toml:2: proxy.{start}")),
            "{error}"
        );
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_application_key_has_an_effect_or_a_warning() {
    let config = good("[application]\nwatch_configuration = true");
    let [warning] = &config.warnings[..] else {
        panic!("{:?}", config.warnings);
    };
    assert!(
        warning.contains("test.toml:2: application.watch_configuration: "),
        "{warning}"
    );
    assert!(warning.contains("no effect"), "{warning}");
    for permitted in [false, true] {
        let config = good(&format!("[application]\npermit_debugging = {permitted}"));
        assert_eq!(config.permit_debugging, permitted);
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
    assert!(!defaults().permit_debugging);
    for (key, refused) in [
        ("", false),
        ("allow_running_as_root = true", false),
        ("allow_running_as_root = false", geteuid().is_root()),
    ] {
        let config = good(&format!("[application]\n{key}"));
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let problem = config.root_problem.unwrap_or_default();
        let place = "test.toml:2: application.allow_running_as_root: running as root";
        assert_eq!(problem.contains(place), refused, "{key}: {problem}");
    }
}

#[test]
fn the_error_for_a_value_of_the_wrong_type_names_key_and_line() {
    for (text, start) in [
        (
            "[system]\n\nmax_files = \"many\"",
            "test.toml:3: system.max_files: ",
        ),
        (
            "[circuit_timing]\nmax_dirtiness = true",
            "test.toml:2: circuit_timing.max_dirtiness: ",
        ),
        (
            "[proxy]\nsocks_port = 1.5",
            "test.toml:2: proxy.socks_port: ",
        ),
        (
            "[proxy]\nsocks_port = true",
            "test.toml:2: proxy.socks_port: ",
        ),
        ("proxy = 1", "test.toml:1: proxy: invalid type"),
        (
            "[bridges]\nenabled = true",
            "test.toml:2: bridges.enabled: ",
        ),
        (
            "[override_net_params]\nwombat = \"x\"",
            "test.toml:2: override_net_params.wombat: ",
        ),
    ] {
        let error = refusal(text);
        assert!(error.starts_with(start), "{error}");
        assert!(!error.contains("default."), "{error}");
    }
}

#[test]
fn the_description_covers_the_configuration() {
    let config = good(
        "[proxy]\nsocks_port = [\"9150 ExtendedErrors PreferIPv6 Wombat\", \"unix:/s OnionTrafficOnly\"]\n\
         client_onion_auth_dir = \"/auth\"\nsocks_timeout = 60\n\
         map_address = [\"*.a.test  *.b.test\"]\nautomap_hosts_on_resolve = true\n\
         virtual_addr_network_ipv4 = \"10.192.0.0/10\"",
    );
    let text = describe(&config);
    for part in [
        "test.toml",
        "socks port: 127.0.0.1:9150 ExtendedErrors PreferIPv6\n",
        "socks port: unix:/s ",
        "F0 to F7",
        "carries onion services\n",
        "prefers IPv6",
        "request deadline: 60s",
        "client authorization keys: /auth",
        "requests for *.a.test go to *.b.test\n",
        "lookups of names that end in .onion, .exit return a virtual address of 10.192.0.0/10 or [FE80::]/10",
        "state folder: /",
        "cache folder: /",
        "warning: ",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}
