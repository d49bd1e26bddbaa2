//! Port lines of files and of the command line.

use std::net::Ipv4Addr;

use super::*;
use crate::config::port_line::BindAddr;

#[test]
fn port_lines_have_the_same_meaning_in_the_file_and_on_the_command_line() {
    let line = "unix:\"/run/a b\" ExtendedErrors WorldWritable";
    let in_file = good(&format!("[proxy]\nsocks_port = '{line}'"));
    let args = ProxyArgs {
        socks_port: vec![line.to_owned()],
        ..Default::default()
    };
    assert_eq!(
        in_file.port_lines(PortKind::Socks),
        with_args("", args).unwrap().port_lines(PortKind::Socks)
    );
}

#[test]
fn the_arti_key_socks_listen_is_supported() {
    let bind = |text: &str| {
        good(&format!("[proxy]\nsocks_listen = {text}"))
            .port_lines(PortKind::Socks)
            .into_iter()
            .map(|line| line.bind)
            .collect::<Vec<_>>()
    };
    let tcp = |text: &str| BindAddr::Tcp(text.parse().unwrap());
    assert_eq!(bind("9150"), [tcp("127.0.0.1:9150")]);
    assert_eq!(
        bind("\"auto\""),
        [BindAddr::TcpAuto(Ipv4Addr::LOCALHOST.into())]
    );
    assert_eq!(
        bind("[1, \"[::1]:2\"]"),
        [tcp("127.0.0.1:1"), tcp("[::1]:2")]
    );
    for none in ["0", "false", "\"\"", "[]"] {
        assert_eq!(bind(none), []);
    }
    // The value of an `-o` option arrives as text.
    let config = options(&["proxy.http_port=false", "proxy.dns_listen=false"]).unwrap();
    assert_eq!(config.port_lines(PortKind::Http), []);
    assert_eq!(config.port_lines(PortKind::Dns), []);
}

#[test]
fn socks_listen_accepts_no_flags_and_no_socks_port_beside_it() {
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
    assert_eq!(
        with_args(both, args)
            .unwrap()
            .port_lines(PortKind::Socks)
            .len(),
        1
    );
}

#[test]
fn the_error_for_a_bad_port_line_names_its_location() {
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
        error.starts_with("-o proxy.socks_port: proxy.socks_port: \"wombat\": "),
        "{error}"
    );
}

#[test]
fn two_ports_of_different_kinds_cannot_share_an_address() {
    let error = refusal("[proxy]\nsocks_port = 9150\nhttp_port = 9150");
    assert!(
        error.starts_with("test.toml:3: proxy.http_port: 127.0.0.1:9150 ")
            && error.contains("test.toml:2: proxy.socks_port"),
        "{error}"
    );
    good(
        "[proxy]\nsocks_port = \"auto\"\nhttp_port = \"auto\"\ndns_port = 9151\ntrans_port = 9151",
    );
    let error = refusal("[proxy]\ndns_port = \"53 NoDNSRequest\"");
    assert!(error.contains("NoDNSRequest"), "{error}");
}

#[test]
fn a_configuration_without_ports_gets_a_warning() {
    let config = good("[proxy]\nsocks_port = 0");
    assert_eq!(config.port_lines(PortKind::Socks), []);
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn an_http_port_is_opened_only_if_configured() {
    assert_eq!(good("").port_lines(PortKind::Http), []);
    for none in ["0", "\"0\"", "\"\"", "[]"] {
        let config = good(&format!("[proxy]\nhttp_port = {none}"));
        assert_eq!(config.port_lines(PortKind::Http), []);
    }
    let config = good("[proxy]\nhttp_port = [9080, \"auto IsolateDestAddr\"]");
    assert_eq!(config.port_lines(PortKind::Http).len(), 2);
    assert_eq!(config.port_lines(PortKind::Socks).len(), 1);
    let args = |line: &str| ProxyArgs {
        http_port: vec![line.into()],
        ..Default::default()
    };
    let config = with_args("[proxy]\nhttp_port = 9080", args("auto")).expect("good");
    assert_eq!(
        config.port_lines(PortKind::Http),
        ["auto".parse().expect("a line")]
    );
    let error = message(with_args("", args("nowhere")).unwrap_err());
    assert!(error.starts_with("command line: --http-port: "), "{error}");
}

#[test]
fn dns_and_transparent_ports_need_an_address() {
    let config = good(
        "[proxy]\ndns_port = [5353, \"[::1]:auto IsolateDestAddr\"]\ntrans_port = \"9040\"\n\
         trans_proxy_type = \"tproxy\"",
    );
    assert_eq!(config.port_lines(PortKind::Dns).len(), 2);
    assert_eq!(config.port_lines(PortKind::Transparent).len(), 1);
    assert_eq!(config.trans_proxy_type, TransProxyType::Tproxy);
    let text = describe(&config);
    for part in [
        "dns port: 127.0.0.1:5353\n",
        "trans port: 127.0.0.1:9040\n",
        "(TPROXY)",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    for key in ["dns_port", "trans_port"] {
        let error = refusal(&format!("[proxy]\n{key} = \"unix:/run/a\""));
        let start = format!("test.toml:2: proxy.{key}: \"unix:/run/a\": ");
        assert!(error.starts_with(&start), "{error}");
        assert!(error.contains("write an address and a port"), "{error}");
        assert!(config.ports.len() > good(&format!("[proxy]\n{key} = 0")).ports.len());
    }
    let error = refusal("[proxy]\ntrans_proxy_type = \"ipfw\"");
    assert!(
        error.starts_with("test.toml:2: proxy.trans_proxy_type: "),
        "{error}"
    );
    let listen = good("[proxy]\ndns_listen = [5353, \"[::1]:53\"]");
    assert_eq!(listen.port_lines(PortKind::Dns).len(), 2);
    let error = refusal("[proxy]\ndns_listen = \"5353 IsolateDestAddr\"");
    assert!(error.contains("proxy.dns_port"), "{error}");
}

#[test]
fn warnings_about_a_port_line_name_its_location() {
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
