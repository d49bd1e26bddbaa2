use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use proptest::prelude::*;

use super::*;

/// Parses a line that must be valid.
fn line(text: &str) -> PortLine {
    text.parse()
        .unwrap_or_else(|e| panic!("{text:?} was refused: {e}"))
}

/// Parses a line that must be refused.
fn refusal(text: &str) -> PortError {
    text.parse::<PortLine>().expect_err(text)
}

fn bind(text: &str) -> BindAddr {
    line(text).bind
}

fn flags(words: &str) -> Flags {
    line(&format!("9150 {words}")).flags
}

fn tcp(text: &str) -> BindAddr {
    BindAddr::Tcp(text.parse().unwrap())
}

#[test]
fn a_bare_port_is_on_loopback() {
    assert_eq!(bind("9150"), tcp("127.0.0.1:9150"));
    assert_eq!(bind("  9150\t"), tcp("127.0.0.1:9150"));
    assert_eq!(bind("localhost:9150"), tcp("127.0.0.1:9150"));
}

#[test]
fn both_address_families_are_parsed() {
    assert_eq!(bind("127.0.0.2:1"), tcp("127.0.0.2:1"));
    assert_eq!(bind("[::1]:65535"), tcp("[::1]:65535"));
}

#[test]
fn auto_is_a_free_port_on_the_address_given() {
    assert_eq!(bind("auto"), BindAddr::TcpAuto(Ipv4Addr::LOCALHOST.into()));
    assert_eq!(bind("AUTO"), BindAddr::TcpAuto(Ipv4Addr::LOCALHOST.into()));
    assert_eq!(
        bind("[::1]:auto"),
        BindAddr::TcpAuto(Ipv6Addr::LOCALHOST.into())
    );
}

#[test]
fn zero_opens_nothing() {
    assert_eq!(bind("0"), BindAddr::Disabled);
    assert_eq!(bind("0 ExtendedErrors"), BindAddr::Disabled);
}

#[test]
fn unix_paths_are_parsed_bare_and_quoted() {
    let unix = |text| match bind(text) {
        BindAddr::Unix(path) => path,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        unix("unix:/run/tor/socks WorldWritable"),
        Path::new("/run/tor/socks")
    );
    assert_eq!(unix(r#"unix:"/a b" GroupWritable"#), Path::new("/a b"));
    assert_eq!(unix(r#"unix:"/\x41\102\"\\\t""#), Path::new("/AB\"\\\t"));
    assert!(line(r#"unix:"/a b" GroupWritable"#).flags.group_writable);
}

#[test]
fn invalid_addresses_are_refused_with_the_remedy() {
    for (text, remedy) in [
        ("", "write a port"),
        ("   ", "write a port"),
        ("127.0.0.1", "127.0.0.1:9150"),
        ("[::1]", "[::1]:9150"),
        ("::1", "[::1]:9150"),
        ("127.0.0.1:0", "127.0.0.1:auto"),
        ("::1:2:9150", "[::1:2]:9150"),
        ("65536", "65535"),
        ("127.0.0.1:+80", "65535"),
        ("127.0.0.1:", "65535"),
        ("example.com:9150", "IP address"),
        ("socks", "unix:/PATH"),
        ("unix:", "begin it with /"),
        ("unix:socks", "begin it with /"),
        (r#"unix:"/a"#, "close it"),
        (r#"unix:"/\q""#, "escapes"),
        (r#"unix:"/\x00""#, "zero byte"),
    ] {
        let error = refusal(text).to_string();
        assert!(error.contains(remedy), "{text:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let long = format!("unix:/{}", "a".repeat(107));
    assert!(matches!(
        refusal(&long),
        PortError::PathTooLong { length: 108, .. }
    ));
}

#[test]
fn a_line_without_flags_has_the_defaults_of_c_tor() {
    let flags = flags("");
    assert_eq!(flags, Flags::default());
    assert!(flags.ipv4_traffic && flags.ipv6_traffic && flags.onion_traffic && flags.dns_request);
    assert!(flags.isolation.client_addr && flags.isolation.socks_auth);
    assert!(!flags.extended_errors && !flags.prefer_ipv6);
    assert_eq!(flags.session_group, None);
}

#[test]
fn the_line_of_tor_browser_is_parsed() {
    let flags = flags("ExtendedErrors IPv6Traffic PreferIPv6 KeepAliveIsolateSOCKSAuth");
    assert!(flags.extended_errors && flags.ipv6_traffic && flags.prefer_ipv6);
    assert!(flags.keep_alive_isolate_socks_auth);
}

#[test]
fn flags_ignore_case_have_a_no_form_and_the_last_one_wins() {
    assert!(flags("extendederrors").extended_errors);
    assert!(!flags("noIPV6traffic").ipv6_traffic);
    assert!(!flags("ExtendedErrors NoExtendedErrors").extended_errors);
    assert!(flags("NoExtendedErrors ExtendedErrors").extended_errors);
    assert!(!flags("NoIsolateClientAddr").isolation.client_addr);
}

#[test]
fn isolation_flags_may_be_plural() {
    assert!(flags("IsolateDestPorts").isolation.dest_port);
    assert!(flags("isolatedestaddrS").isolation.dest_addr);
    assert!(!flags("NoIsolateClientAddrs").isolation.client_addr);
    assert_eq!(line("9150 ExtendedErrorss").warnings.len(), 1);
}

#[test]
fn onion_traffic_only_switches_off_all_other_traffic() {
    let flags = flags("OnionTrafficOnly");
    assert!(!flags.ipv4_traffic && !flags.ipv6_traffic && !flags.dns_request);
    assert!(flags.onion_traffic);
    assert_eq!(line("9150 NoOnionTrafficOnly").flags, Flags::default());
    assert_eq!(line("9150 NoOnionTrafficOnly").warnings.len(), 1);
}

#[test]
fn a_port_without_isolation_by_socks_auth_prefers_no_auth() {
    assert!(flags("NoIsolateSOCKSAuth").prefer_socks_no_auth);
    assert!(flags("NoIsolateSOCKSAuth NoPreferSOCKSNoAuth").prefer_socks_no_auth);
    assert!(!flags("NoPreferSOCKSNoAuth").prefer_socks_no_auth);
}

#[test]
fn unix_sockets_do_not_isolate_by_client_address() {
    let flags = line("unix:/s IsolateClientAddr").flags;
    assert!(!flags.isolation.client_addr);
    assert!(flags.isolation.socks_auth);
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    for (words, error) in [
        (
            "NoIPv4Traffic NoIPv6Traffic NoOnionTraffic",
            PortError::NothingToCarry,
        ),
        ("OnionTrafficOnly NoOnionTraffic", PortError::NothingToCarry),
        ("NoIPv4Traffic NoIPv6Traffic", PortError::DnsWithoutTraffic),
        (
            "NoIsolateSOCKSAuth KeepAliveIsolateSOCKSAuth",
            PortError::KeepAliveWithoutAuth,
        ),
        (
            "worldwritable",
            PortError::UnixFlagOnTcp {
                flag: "WorldWritable",
            },
        ),
        (
            "NoGroupWritable",
            PortError::UnixFlagOnTcp {
                flag: "GroupWritable",
            },
        ),
        (
            "RelaxDirModeCheck",
            PortError::UnixFlagOnTcp {
                flag: "RelaxDirModeCheck",
            },
        ),
        (
            "SessionGroup=1 SessionGroup=2",
            PortError::TwoSessionGroups {
                first: 1,
                second: 2,
            },
        ),
        (
            "SessionGroup=",
            PortError::BadSessionGroup {
                word: "SessionGroup=".into(),
            },
        ),
        (
            "SessionGroup=-1",
            PortError::BadSessionGroup {
                word: "SessionGroup=-1".into(),
            },
        ),
        (
            "SessionGroup=2147483648",
            PortError::BadSessionGroup {
                word: "SessionGroup=2147483648".into(),
            },
        ),
    ] {
        assert_eq!(refusal(&format!("9150 {words}")), error, "{words}");
    }
}

#[test]
fn the_same_session_group_twice_is_accepted() {
    assert_eq!(
        flags("SessionGroup=7 sessiongroup=07").session_group,
        Some(7)
    );
}

#[test]
fn the_warning_about_an_unknown_flag_names_the_nearest() {
    for (word, nearest) in [
        ("ExtendedError", "ExtendedErrors"),
        ("IsolateDestAdr", "IsolateDestAddr"),
        ("NoIpv4Trafic", "NoIPv4Traffic"),
        ("SessionGroup", "SessionGroup="),
        ("NoSessionGroup=3", "SessionGroup="),
        ("OnionOnly", "OnionTraffic"),
    ] {
        let line = line(&format!("9150 {word} PreferIPv6"));
        assert!(line.flags.prefer_ipv6);
        let [warning] = &line.warnings[..] else {
            panic!("{:?}", line.warnings);
        };
        assert!(warning.contains(word), "{warning}");
        assert!(warning.ends_with(&format!("{nearest}?")), "{warning}");
    }
}

#[test]
fn cache_flags_are_accepted_with_one_warning() {
    let cached = line("9150 CacheDNS UseIPv4Cache NoUseDNSCache UseIPv6Cache");
    assert_eq!(cached.warnings.len(), 1, "{:?}", cached.warnings);
    assert_eq!(
        cached.flags.dns_cache,
        DnsCacheFlags {
            cache_ipv4: true,
            cache_ipv6: true,
            use_ipv4: false,
            use_ipv6: true
        }
    );
    assert_eq!(line("9150 NoPreferIPv6Automap").warnings.len(), 0);
}

#[test]
fn an_address_that_other_machines_can_reach_gets_a_warning() {
    assert_eq!(line("0.0.0.0:9150").warnings.len(), 1);
    assert_eq!(line("192.168.1.1:auto").warnings.len(), 1);
    assert_eq!(line("[::1]:9150").warnings.len(), 0);
    assert_eq!(line("unix:/s").warnings.len(), 0);
}

#[test]
fn zero_beside_a_port_is_refused() {
    let ports = |lines: &[&str]| check_ports(&lines.iter().map(|l| line(l)).collect::<Vec<_>>());
    assert_eq!(ports(&[]), Ok(()));
    assert_eq!(ports(&["0"]), Ok(()));
    assert_eq!(ports(&["0", "0"]), Ok(()));
    assert!(matches!(
        ports(&["9150", "0"]),
        Err(PortError::ZeroAmongOthers { .. })
    ));
}

#[test]
fn the_same_address_twice_is_refused_except_auto() {
    let ports = |lines: &[&str]| check_ports(&lines.iter().map(|l| line(l)).collect::<Vec<_>>());
    assert_eq!(
        ports(&["auto", "auto", "9150", "[::1]:9150", "unix:/s"]),
        Ok(())
    );
    assert!(matches!(
        ports(&["9150", "127.0.0.1:9150 ExtendedErrors"]),
        Err(PortError::Duplicate { .. })
    ));
    assert!(matches!(
        ports(&["unix:/s", "unix:\"/s\""]),
        Err(PortError::Duplicate { .. })
    ));
}

#[test]
fn socks_ports_http_ports_and_closed_ports_are_supported() {
    assert_eq!(
        line("9150 ExtendedErrors").unsupported_reason(PortKind::Socks),
        None
    );
    assert_eq!(line("9080").unsupported_reason(PortKind::Http), None);
    assert_eq!(line("0").unsupported_reason(PortKind::Dns), None);
}

#[test]
fn the_canonical_line_is_short() {
    for (text, canonical) in [
        (
            "9150 NoIsolateSOCKSAuth PreferSOCKSNoAuth",
            "127.0.0.1:9150 NoIsolateSOCKSAuth",
        ),
        ("127.0.0.1:auto IPv6Traffic", "auto"),
        ("unix:\"/run/a\" NoIsolateClientAddr", "unix:/run/a"),
        ("unix:/a#b", "unix:\"/a#b\""),
        (
            "9 sessiongroup=3 extendederrors",
            "127.0.0.1:9 ExtendedErrors SessionGroup=3",
        ),
        (
            "9 OnionTrafficOnly",
            "127.0.0.1:9 NoIPv4Traffic NoIPv6Traffic NoDNSRequest",
        ),
    ] {
        assert_eq!(line(text).to_string(), canonical);
    }
    assert_eq!(PortLine::default(), line("9150"));
}

/// An address in any of its spellings.
fn any_address() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("0".to_owned()),
        Just("auto".to_owned()),
        (1..=u16::MAX).prop_map(|port| port.to_string()),
        (any::<Ipv4Addr>(), 1..=u16::MAX).prop_map(|(ip, port)| format!("{ip}:{port}")),
        (any::<Ipv6Addr>(), 1..=u16::MAX).prop_map(|(ip, port)| format!("[{ip}]:{port}")),
        any::<Ipv6Addr>().prop_map(|ip| format!("[{ip}]:auto")),
        proptest::collection::vec(1..=u8::MAX, 0..40).prop_map(|path| {
            let path: String = path.iter().map(|byte| format!("\\x{byte:02X}")).collect();
            format!("unix:\"/{path}\"")
        }),
    ]
}

/// A flag in any of its spellings.
fn any_flag() -> impl Strategy<Value = String> {
    let names: Vec<&'static str> = vec![
        "ExtendedErrors",
        "IPv4Traffic",
        "IPv6Traffic",
        "PreferIPv6",
        "DNSRequest",
        "OnionTraffic",
        "OnionTrafficOnly",
        "IsolateClientAddr",
        "IsolateSOCKSAuth",
        "IsolateClientProtocols",
        "IsolateDestPort",
        "IsolateDestAddrs",
        "KeepAliveIsolateSOCKSAuth",
        "PreferSOCKSNoAuth",
        "GroupWritable",
        "WorldWritable",
        "RelaxDirModeCheck",
        "PreferIPv6Automap",
        "CacheDNS",
        "CacheIPv4DNS",
        "UseIPv6Cache",
        "UseDNSCache",
        "SessionGroup=1",
        "SessionGroup=1",
        "Wombat",
    ];
    (
        proptest::sample::select(names),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(name, no, lower)| {
            let word = format!("{}{name}", if no { "No" } else { "" });
            if lower { word.to_lowercase() } else { word }
        })
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = text.parse::<PortLine>();
        let _ = format!("unix:\"{text}").parse::<PortLine>();
        let _ = format!("9150 {text}").parse::<PortLine>();
    }

    #[test]
    fn a_written_line_parses_to_the_same_line(
        address in any_address(),
        flags in proptest::collection::vec(any_flag(), 0..6),
    ) {
        if let Ok(first) = format!("{address} {}", flags.join(" ")).parse::<PortLine>() {
            let written = first.to_string();
            let second: PortLine = written.parse().unwrap();
            prop_assert_eq!(&second.bind, &first.bind);
            prop_assert_eq!(second.flags, first.flags);
            prop_assert_eq!(second.to_string(), written);
        }
    }
}
