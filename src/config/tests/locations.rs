//! Errors name their location: keys, values, files and options.

use super::*;

#[test]
fn the_error_for_an_unknown_key_names_its_location_and_the_nearest_key() {
    for (text, key, nearest) in [
        (
            "[proxy]\nsocks_prot = 1",
            "proxy.socks_prot",
            "proxy.socks_port",
        ),
        (
            "[proxy]\ntimeout = 1",
            "proxy.timeout",
            "proxy.socks_timeout",
        ),
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
            error.contains(&format!("did you mean {nearest}")),
            "{error}"
        );
    }
    let error = message(options(&["proxy.sock_port=1"]).unwrap_err());
    assert!(
        error.starts_with("-o proxy.sock_port: unknown key proxy.sock_port: "),
        "{error}"
    );
}

#[test]
fn unsupported_keys_of_arti_are_refused_with_the_remedy() {
    for (text, start, remedy) in [
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
            "[logging]\nfiles = [{path = \"/log\", filter = \"info\"}]",
            "test.toml:2: logging.files ",
            "logging.console",
        ),
        (
            "[application]\ndefer_bootstrap = true",
            "test.toml:2: application.defer_bootstrap ",
            "start onionport when it may connect",
        ),
        (
            "[logging]\nsyslog = \"info\"",
            "test.toml:2: logging.syslog ",
            "logging.console",
        ),
        (
            "[proxy]\nsocket_send_buf_size = \"64 KB\"",
            "test.toml:2: proxy.socket_send_buf_size ",
            "the system chooses",
        ),
        (
            "[proxy]\nenable_http_connect = true",
            "test.toml:2: proxy.enable_http_connect ",
            "proxy.http_port",
        ),
        (
            "[rpc]\nenable = false\nlisten_default = [\"a\"]",
            "test.toml:3: rpc.listen_default ",
            "remove it",
        ),
        (
            "metrics.prometheus.listen = 1",
            "test.toml:1: metrics.prometheus.listen ",
            "remove it",
        ),
    ] {
        let error = refusal(text);
        assert!(error.starts_with(start), "{error}");
        assert!(error.contains(remedy), "{error}");
    }
}

#[test]
fn unsupported_keys_of_arti_pass_if_their_value_is_harmless() {
    let config = good(
        "[application]\ndefer_bootstrap = false\n\
         [proxy]\nenable_http_connect = false\nsocket_send_buf_size = \"128 KB\"\n\
         socket_recv_buf_size = 128000\n\
         [logging]\nsyslog = \"\"\njournald = \"\"\nfiles = []\nlog_sensitive_information = false\n\
         protocol_warnings = false\ntokio_console.enabled = false\n\
         [metrics]\nprometheus.listen = \"\"\n[rpc]\nenable = false",
    );
    assert_eq!(config.warnings, Vec::<String>::new());
    // A later source overrides the file.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("first.toml");
    std::fs::write(&path, "[rpc]\nenable = true").unwrap();
    let with = |option: &str| {
        load(&ProxyArgs {
            config: vec![path.clone()],
            option: vec![option.to_owned()],
            ..Default::default()
        })
    };
    assert!(with("rpc.enable=false").is_ok());
    assert!(with("logging.syslog=").is_err());
}

#[cfg(unix)]
#[test]
fn folders_that_arti_cannot_use_are_reported_with_location_and_remedy() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, mode: u32| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let (private, readable, open) = (make("a", 0o700), make("b", 0o755), make("c", 0o777));
    let file = folder.path().join("d");
    std::fs::write(&file, "").unwrap();
    let file = file.display().to_string();
    let text = |key: &str, path: &str| format!("[storage]\n{key} = {path:?}\n");
    for (key, path, remedy) in [
        (
            "state_dir",
            readable.clone(),
            format!("chmod go-rx {readable}"),
        ),
        ("state_dir", open.clone(), format!("chmod go-rwx {open}")),
        ("cache_dir", open.clone(), format!("chmod go-w {open}")),
        // Does not exist, in a folder that others can write to.
        (
            "cache_dir",
            format!("{open}/new"),
            format!("chmod go-w {open}"),
        ),
        ("state_dir", file.clone(), format!("move {file} away")),
    ] {
        let text = text(key, &path);
        let error = good(&text).folder_problem.expect("a problem");
        let place = format!("/test.toml:2: storage.{key}: {path}: ");
        assert!(error.contains(&place), "{error}");
        assert!(error.contains(&remedy), "{error}");
        let trusting = format!("{text}[storage.permissions]\ndangerously_trust_everyone = true");
        let problem = good(&trusting).folder_problem;
        assert_eq!(problem.is_none(), path != file, "{path}");
    }
    for (key, path) in [
        ("state_dir", private.clone()),
        ("cache_dir", readable),
        ("state_dir", format!("{private}/not/yet")),
    ] {
        assert_eq!(good(&text(key, &path)).folder_problem, None);
    }
    assert!(!Path::new(&private).join("not").exists());
}

#[test]
fn the_bare_headings_of_artis_own_example_are_harmless() {
    good("[metrics]\n[rpc]\n[onion_services]\n[logging]\n[proxy]\ndns_listen = 0");
    assert!(options(&["proxy.dns_listen=0"]).is_ok());
}

#[test]
fn the_error_for_invalid_toml_names_file_and_line() {
    let error = refusal("[proxy]\nsocks_port = \n");
    assert!(error.starts_with("test.toml:2: invalid TOML: "), "{error}");
    let error = refusal("[proxy]\n[proxy]\n");
    assert!(error.starts_with("test.toml:2: invalid TOML: "), "{error}");
}

#[test]
fn the_error_for_a_file_that_is_not_utf8_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.toml");
    std::fs::write(&path, b"\n\n# \xff").unwrap();
    let args = ProxyArgs {
        config: vec![path],
        ..Default::default()
    };
    let error = message(load(&args).unwrap_err());
    assert!(
        error.starts_with("test.toml:3: invalid TOML: not UTF-8"),
        "{error}"
    );
}

#[test]
fn the_error_for_a_missing_file_names_it() {
    for name in ["/nowhere/test.toml", "/nowhere/test.toml/"] {
        let args = ProxyArgs {
            config: vec![name.into()],
            ..Default::default()
        };
        let error = message(load(&args).unwrap_err());
        assert!(error.contains("no such file"), "{error}");
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
fn the_value_of_an_option_needs_quotes_only_if_toml_reads_it_differently() {
    let config = options(&[
        "proxy.socks_port=9150 ExtendedErrors",
        "storage.cache_dir=/a-b",
        "system.max_files=5",
        "application.permit_debugging=false",
        "logging.console=\"debug\"",
        "path_rules.long_lived_ports=[22]",
    ])
    .unwrap();
    assert!(config.port_lines(PortKind::Socks)[0].flags.extended_errors);
    assert_eq!(config.cache_dir, Path::new("/a-b"));
    assert_eq!(config.max_files, 5);
    assert_eq!(config.log_filter, "debug");
}

#[test]
fn an_option_that_is_not_key_value_is_refused() {
    for (option, shown) in [
        ("proxy", "proxy"),
        ("hunter2", "…"),
        ("=1", "…"),
        ("a b=1", "…"),
        ("channel.outbound_proxy:socks5://a:b@c", "…"),
        ("proxy.socks_port=[\"9150\"", "proxy.socks_port"),
        ("proxy.socks_port=\"9150", "proxy.socks_port"),
    ] {
        let error = message(options(&[option]).unwrap_err());
        assert!(error.starts_with(&format!("-o {shown}: ")), "{error}");
        assert!(error.contains("KEY=VALUE"), "{error}");
    }
}
