use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use super::key::{EXAMPLE, ExampleLine, example_line};
use super::*;
use crate::port::Bind;

/// Reads `text` as the only configuration file, with `args` on top.
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

/// The configuration of a file that must be good.
fn good(text: &str) -> Config {
    file(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// The message for a file that must be refused, without the folder of the file.
fn refusal(text: &str) -> String {
    message(file(text).expect_err(text))
}

/// The message of an error, which has to be one line.
fn message(error: ConfigError) -> String {
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    match text.find("test.toml") {
        Some(at) => text[at..].to_owned(),
        None => text,
    }
}

/// The configuration of `-o` options, and nothing else.
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

/// The defaults, with no file at all.
fn defaults() -> Config {
    check(&Sources::default(), &ProxyArgs::default()).unwrap()
}

/// A configuration without what tells where it was read.
fn settings(config: Config) -> Config {
    Config {
        files: Vec::new(),
        ..config
    }
}

// --- the example file ---

#[test]
fn the_example_as_it_stands_is_the_defaults() {
    assert_eq!(settings(good(EXAMPLE)), defaults());
}

#[test]
fn every_default_in_the_example_is_the_real_default() {
    // `#key` is a default, `# key` prose and `#   key` an example.
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| !c.is_whitespace()) => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(uncommented.contains("\nsocks_timeout = "), "{uncommented}");
    assert_eq!(settings(good(&uncommented)), defaults());
}

/// The tables of the example, each with its heading and with every setting in it, the examples'
/// values before the defaults'.
fn example_tables() -> BTreeMap<String, (String, BTreeMap<String, String>)> {
    let mut tables: BTreeMap<String, (String, BTreeMap<String, String>)> = BTreeMap::new();
    let mut table = String::new();
    for line in EXAMPLE.lines() {
        let example = line.starts_with("#  ");
        match example_line(line) {
            Some(ExampleLine::Table(name)) => {
                table = name.to_owned();
                let heading = line.trim_start_matches('#').trim().to_owned();
                tables
                    .entry(table.clone())
                    .or_insert((heading, BTreeMap::new()));
            }
            Some(ExampleLine::Setting(key, value)) => {
                let settings = &mut tables.get_mut(&table).expect(line).1;
                if example || !settings.contains_key(key) {
                    settings.insert(key.to_owned(), value.to_owned());
                }
            }
            None => {}
        }
    }
    tables
}

/// A file with this table filled in as in the example, and with what it needs beside it.
fn filled(table: &str) -> String {
    let tables = example_tables();
    let mut text = String::new();
    // Other authorities need other fallbacks.
    if table == "tor_network.authorities" {
        text.push_str(&filled("tor_network.fallback_caches"));
    }
    let (heading, settings) = &tables[table];
    text.push_str(&format!("{heading}\n"));
    for (key, value) in settings {
        // Two ways to say the same thing, of which a file may use one.
        let other_way = ["socks_listen", "proxy_addr"].contains(&key.as_str());
        if !other_way {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    text
}

#[test]
fn every_table_of_the_example_can_be_used() {
    for table in example_tables().keys() {
        good(&filled(table));
    }
    good("[proxy]\nsocks_listen = [9150, \"[::1]:9150\"]");
}

#[test]
fn a_typo_in_any_table_is_refused_with_the_nearest_key() {
    for (table, (_, settings)) in example_tables() {
        // Its keys are names of the network's parameters and can be anything.
        if table == "override_net_params" {
            continue;
        }
        for key in settings.keys() {
            let wrong = format!("{key}x");
            let text = format!("{}{wrong} = 1\n", filled(&table));
            let line = text.lines().count();
            let error = refusal(&text);
            assert!(
                error.starts_with(&format!("test.toml:{line}: unknown key ")),
                "{error}"
            );
            assert!(error.contains(&wrong), "{error}");
            assert!(
                error.contains(&format!("the nearest is {table}.{key};")),
                "{error}"
            );
        }
    }
}

#[test]
fn the_example_knows_every_key_that_arti_client_has() {
    type Table = BTreeMap<String, serde::de::IgnoredAny>;
    let mut want = tor_config::load::ConfigResolveOptions::default();
    want.want_output_tree = true;
    let nothing = tor_config::ConfigurationSources::new_empty()
        .load()
        .unwrap();
    let resolved = tor_config::resolve_return_results::<TorClientConfig>(&nothing, &want).unwrap();
    let all = resolved.output_tree.unwrap();
    let tables = example_tables();

    let mut paths = vec![
        "address_filter",
        "bridges",
        "channel",
        "circuit_timing",
        "directory_tolerance",
        "download_schedule",
        "override_net_params",
        "path_rules",
        "preemptive_circuits",
        "storage",
        "stream_timeouts",
        "system",
        "tor_network",
        "vanguards",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect::<Vec<_>>();
    let top: Table = all.get_serde_value("").unwrap().unwrap();
    assert_eq!(top.into_keys().collect::<Vec<_>>(), paths);
    while let Some(path) = paths.pop() {
        // What is no table cannot be read as one.
        match all.get_serde_value::<Table>(&path) {
            Ok(Some(table)) if !table.is_empty() => {
                paths.extend(table.keys().map(|key| format!("{path}.{key}")));
            }
            _ => {
                let (table, key) = path.rsplit_once('.').unwrap_or(("", &path));
                let has = |table: &str| tables.get(table).is_some_and(|t| t.1.contains_key(key));
                let below = |name: &String| *name == path || name.starts_with(&format!("{path}."));
                assert!(
                    has(table) || tables.keys().any(below),
                    "arti.toml.example lacks {path}"
                );
            }
        }
    }
}

// --- defaults and precedence ---

#[test]
fn nothing_configured_is_one_port_on_loopback() {
    let config = defaults();
    assert_eq!(config.socks_ports, ["127.0.0.1:9150".parse().unwrap()]);
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
fn later_files_and_then_options_win() {
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
    assert_eq!(config.socks_ports.len(), 2);
    assert_eq!(config.max_files, 7);
    args.option = vec![
        "proxy.socks_timeout=30".into(),
        "proxy.socks_timeout = 40".into(),
    ];
    args.socks_port = vec!["auto ExtendedErrors".into()];
    let config = load(&args).unwrap();
    assert_eq!(config.socks_timeout, Duration::from_secs(40));
    assert_eq!(config.socks_ports, ["auto ExtendedErrors".parse().unwrap()]);
}

#[test]
fn a_folder_is_read_in_the_order_of_its_names() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("1.toml"), "[system]\nmax_files = 1").unwrap();
    std::fs::write(folder.path().join("2.toml"), "[system]\nmax_files = 2").unwrap();
    std::fs::write(folder.path().join("3.txt"), "not read").unwrap();
    let with_slash = PathBuf::from(format!("{}/", folder.path().display()));
    let args = ProxyArgs {
        config: vec![with_slash],
        ..Default::default()
    };
    let config = load(&args).unwrap();
    assert_eq!(config.max_files, 2);
    assert_eq!(config.files.len(), 2);
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

// --- ports ---

#[test]
fn port_lines_mean_the_same_in_the_file_as_on_the_command_line() {
    let line = "unix:\"/run/a b\" ExtendedErrors WorldWritable";
    let in_file = good(&format!("[proxy]\nsocks_port = '{line}'"));
    let args = ProxyArgs {
        socks_port: vec![line.to_owned()],
        ..Default::default()
    };
    assert_eq!(
        in_file.socks_ports,
        with_args("", args).unwrap().socks_ports
    );
}

#[test]
fn artis_socks_listen_is_served() {
    let bind = |text: &str| {
        good(&format!("[proxy]\nsocks_listen = {text}"))
            .socks_ports
            .into_iter()
            .map(|line| line.bind)
            .collect::<Vec<_>>()
    };
    let tcp = |text: &str| Bind::Tcp(text.parse().unwrap());
    assert_eq!(bind("9150"), [tcp("127.0.0.1:9150")]);
    assert_eq!(
        bind("\"auto\""),
        [Bind::TcpAuto(Ipv4Addr::LOCALHOST.into())]
    );
    assert_eq!(
        bind("[1, \"[::1]:2\"]"),
        [tcp("127.0.0.1:1"), tcp("[::1]:2")]
    );
    for none in ["0", "false", "\"\"", "[]"] {
        assert_eq!(bind(none), []);
    }
}

#[test]
fn socks_listen_takes_no_flags_and_no_second_opinion() {
    let error = refusal("[proxy]\nsocks_listen = \"9150 ExtendedErrors\"");
    assert!(
        error.starts_with("test.toml:2: proxy.socks_listen: "),
        "{error}"
    );
    assert!(error.contains("proxy.socks_port"), "{error}");
    let both = "[proxy]\nsocks_listen = 1\nsocks_port = 2";
    let error = refusal(both);
    assert!(
        error.contains("test.toml:2") && error.contains("test.toml:3"),
        "{error}"
    );
    let args = ProxyArgs {
        socks_port: vec!["3".into()],
        ..Default::default()
    };
    assert_eq!(with_args(both, args).unwrap().socks_ports.len(), 1);
}

#[test]
fn a_bad_port_line_names_its_place() {
    let error = refusal("[proxy]\n\nsocks_port = [\"9150\", \"9151 WorldWritable\"]");
    assert!(
        error.starts_with("test.toml:3: proxy.socks_port: \"9151 WorldWritable\": "),
        "{error}"
    );
    let args = ProxyArgs {
        socks_port: vec!["70000".into()],
        ..Default::default()
    };
    let error = message(with_args("", args).unwrap_err());
    assert!(
        error.starts_with("command line: --socks-port: \"70000\": "),
        "{error}"
    );
    let error = refusal("[proxy]\nsocks_port = [9150, 0]");
    assert!(
        error.starts_with("test.toml:2: proxy.socks_port: "),
        "{error}"
    );
    let error = message(options(&["proxy.socks_port=wombat"]).unwrap_err());
    assert!(
        error.starts_with("-o proxy.socks_port=wombat: proxy.socks_port: "),
        "{error}"
    );
}

#[test]
fn no_port_at_all_is_a_warning() {
    let config = good("[proxy]\nsocks_port = 0");
    assert_eq!(config.socks_ports, []);
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn http_ports_are_refused_but_zero_is_fine() {
    let error = refusal("[proxy]\nhttp_port = 9080");
    assert!(error.contains("not served yet"), "{error}");
    for none in ["0", "\"0\"", "\"\"", "[]"] {
        good(&format!("[proxy]\nhttp_port = {none}"));
    }
    let args = |line: &str| ProxyArgs {
        http_port: vec![line.into()],
        ..Default::default()
    };
    assert!(with_args("", args("0")).is_ok());
    let error = message(with_args("", args("auto")).unwrap_err());
    assert!(error.starts_with("command line: --http-port: "), "{error}");
}

#[test]
fn warnings_of_a_line_come_with_their_place() {
    let config = good("[proxy]\nsocks_port = \"9150 ExtendedError\"");
    let [warning] = &config.warnings[..] else {
        panic!("{:?}", config.warnings);
    };
    assert!(
        warning.contains("test.toml:2: proxy.socks_port: "),
        "{warning}"
    );
    assert!(warning.contains("ExtendedErrors"), "{warning}");
}

// --- other values ---

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
    let error = refusal("[logging]\nconsole = \"a=b=c\"");
    assert!(
        error.starts_with("test.toml:2: logging.console: \"a=b=c\""),
        "{error}"
    );
}

#[test]
fn application_switches_have_no_effect_and_say_so() {
    let config = good("[application]\nwatch_configuration = true\nallow_running_as_root = false");
    let [warning] = &config.warnings[..] else {
        panic!("{:?}", config.warnings);
    };
    assert!(
        warning.contains("test.toml:2: application.watch_configuration: "),
        "{warning}"
    );
    assert!(warning.contains("no effect"), "{warning}");
}

#[test]
fn a_value_of_the_wrong_kind_names_key_and_line() {
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
        ("proxy = 1", "test.toml:1: proxy: "),
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

// --- keys ---

#[test]
fn an_unknown_key_names_place_and_nearest_key() {
    for (text, key, nearest) in [
        (
            "[proxy]\nsocks_prot = 1",
            "proxy.socks_prot",
            "proxy.socks_port",
        ),
        ("a = 1\nsocks_port = 1", "a", ""),
        ("socks_port = 1", "socks_port", "proxy.socks_port"),
        ("[prxy]\nsocks_port = 1", "prxy", "proxy"),
        (
            "[proxy]\nmax_files = 1",
            "proxy.max_files",
            "system.max_files",
        ),
        ("[proxy]\n\"a b\" = 1", "proxy.\"a b\"", ""),
    ] {
        let error = refusal(text);
        assert!(error.contains(&format!(" unknown key {key}: ")), "{error}");
        assert!(
            error.contains(&format!("the nearest is {nearest}")),
            "{error}"
        );
    }
    let error = message(options(&["proxy.sock_port=1"]).unwrap_err());
    assert!(
        error.starts_with("-o proxy.sock_port=1: unknown key proxy.sock_port: "),
        "{error}"
    );
}

#[test]
fn keys_that_only_arti_serves_are_refused_with_the_remedy() {
    for (text, start, remedy) in [
        (
            "[proxy]\ndns_listen = 53",
            "test.toml:2: proxy.dns_listen ",
            "set it to 0",
        ),
        (
            "[proxy]\nsocks_policy = []",
            "test.toml:2: proxy.socks_policy ",
            "not yet",
        ),
        (
            "[rpc]\n\nenable = true",
            "test.toml:3: rpc.enable ",
            "remove it",
        ),
        (
            "[onion_services.a]\nenabled = true",
            "test.toml:2: onion_services.a.enabled ",
            "remove it",
        ),
        (
            "[logging]\nfiles = []",
            "test.toml:2: logging.files ",
            "logging.console",
        ),
        (
            "metrics.prometheus.listen = 1",
            "test.toml:1: metrics.prometheus.listen ",
            "remove it",
        ),
        (
            "[storage]\nport_info_file = \"/p\"",
            "test.toml:2: storage.port_info_file ",
            "standard output",
        ),
    ] {
        let error = refusal(text);
        assert!(error.starts_with(start), "{error}");
        assert!(error.contains(remedy), "{error}");
    }
}

#[test]
fn the_bare_headings_of_artis_own_example_are_harmless() {
    good("[metrics]\n[rpc]\n[onion_services]\n[logging]\n[proxy]\ndns_listen = 0");
    assert!(options(&["proxy.dns_listen=0"]).is_ok());
}

// --- files and options ---

#[test]
fn broken_toml_names_file_and_line() {
    let error = refusal("[proxy]\nsocks_port = \n");
    assert!(error.starts_with("test.toml:2: not TOML: "), "{error}");
    let error = refusal("[proxy]\n[proxy]\n");
    assert!(error.starts_with("test.toml:2: not TOML: "), "{error}");
}

#[test]
fn a_file_that_is_not_utf8_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.toml");
    std::fs::write(&path, b"\n\n# \xff").unwrap();
    let args = ProxyArgs {
        config: vec![path],
        ..Default::default()
    };
    let error = message(load(&args).unwrap_err());
    assert!(
        error.starts_with("test.toml:3: not TOML: not UTF-8"),
        "{error}"
    );
}

#[test]
fn a_missing_file_is_named() {
    for name in ["/nowhere/test.toml", "/nowhere/test.toml/"] {
        let args = ProxyArgs {
            config: vec![name.into()],
            ..Default::default()
        };
        let error = message(load(&args).unwrap_err());
        assert!(error.contains("there is no such file"), "{error}");
        assert!(error.contains("test.toml"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.toml");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let args = ProxyArgs {
        config: vec![path],
        ..Default::default()
    };
    let error = message(load(&args).unwrap_err());
    assert!(error.contains("not safe to read"), "{error}");
}

#[test]
fn options_need_quotes_only_where_toml_is_not_clear() {
    let config = options(&[
        "proxy.socks_port=9150 ExtendedErrors",
        "storage.cache_dir=/a-b",
        "system.max_files=5",
        "application.permit_debugging=false",
        "logging.console=\"debug\"",
        "path_rules.long_lived_ports=[22]",
    ])
    .unwrap();
    assert!(config.socks_ports[0].flags.extended_errors);
    assert_eq!(config.cache_dir, Path::new("/a-b"));
    assert_eq!(config.max_files, 5);
    assert_eq!(config.log_filter, "debug");
}

#[test]
fn an_option_that_sets_nothing_is_refused() {
    for option in [
        "proxy",
        "=1",
        "a b=1",
        "proxy.socks_port=[\"9150\"",
        "proxy.socks_port=\"9150",
    ] {
        let error = message(options(&[option]).unwrap_err());
        assert!(error.starts_with(&format!("-o {option}: ")), "{error}");
        assert!(error.contains("KEY=VALUE"), "{error}");
    }
}

// --- describing ---

#[test]
fn the_description_says_what_would_be_done() {
    let config = good(
        "[proxy]\nsocks_port = [\"9150 ExtendedErrors PreferIPv6 Wombat\", \"unix:/s OnionTrafficOnly\"]\n\
         client_onion_auth_dir = \"/auth\"\nsocks_timeout = 60",
    );
    let text = describe(&config);
    for part in [
        "test.toml",
        "socks port: 127.0.0.1:9150 ExtendedErrors PreferIPv6\n",
        "socks port: unix:/s ",
        "F0 to F7",
        "carries onion services\n",
        "prefers IPv6",
        "deadline of a request: 60s",
        "client authorization keys: /auth",
        "state: /",
        "cache: /",
        "warning: ",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}
