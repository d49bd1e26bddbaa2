use super::*;
use crate::config::port_line::PortLine;

const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

fn build_map(lines: &[&str], suffixes: &[&str]) -> AddressMap {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    let settings = AddressMapSettings {
        map: owned(lines),
        automap: !suffixes.is_empty(),
        suffixes: owned(suffixes),
        ..AddressMapSettings::default()
    };
    AddressMap::new(&settings).expect("good settings")
}

fn request(command: Command, host: &str) -> Request {
    Request {
        command,
        address: match host.parse() {
            Ok(ip) => Address::Ip(ip),
            Err(_) => Address::Name(host.into()),
        },
        port: 80,
        protocol: Protocol::Socks5,
        credentials: None,
        family: None,
    }
}

fn parse_flags(words: &str) -> Flags {
    let line: PortLine = format!("9150 {words}").parse().expect("a good line");
    line.flags
}

/// Returns the host of a rewritten request on a port without flags.
fn rewrite_host(map: &AddressMap, command: Command, host: &str) -> Result<String, Failure> {
    match map.rewrite(&request(command, host), &parse_flags(""))? {
        Rewritten::Request(request) => Ok(to_text(&request.address)),
        Rewritten::Answer(answer) => panic!("{host}: {answer:?}"),
    }
}

/// Returns the address that a lookup is answered with.
fn resolve(map: &AddressMap, request: &Request, words: &str) -> Result<IpAddr, Failure> {
    match map.rewrite(request, &parse_flags(words))? {
        Rewritten::Answer(Answer::Ip(ip)) => Ok(ip),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_address_without_a_mapping_is_not_changed() {
    let map = AddressMap::default();
    for host in ["Example.COM", "192.0.2.1", "2001:db8::1", ONION, "a.onion."] {
        for command in [Command::Connect, Command::Resolve, Command::ResolvePtr] {
            let req = request(command, host);
            let same = Ok(Rewritten::Request(req.clone()));
            assert_eq!(map.rewrite(&req, &parse_flags("")), same, "{host}");
        }
    }
}

#[test]
fn lines_apply_to_connections_and_lookups_but_not_to_reverse_lookups() {
    let lines = [
        "192.0.2.9 Good.test",
        "short.test foo.onion",
        "name.test 192.0.2.9",
    ];
    let map = build_map(&lines, &[]);
    for command in [Command::Connect, Command::Resolve] {
        let to = |host| rewrite_host(&map, command, host);
        assert_eq!(to("192.0.2.9").as_deref(), Ok("good.test"));
        assert_eq!(to("NAME.test").as_deref(), Ok("good.test"));
        assert_eq!(to("short.test").as_deref(), Ok("foo.onion"));
    }
    let back = rewrite_host(&map, Command::ResolvePtr, "192.0.2.9");
    assert_eq!(back.as_deref(), Ok("192.0.2.9"));
}

#[test]
fn a_name_mapped_to_an_address_in_text_is_an_address() {
    let map = build_map(&["six.test [2001:DB8::77]"], &[]);
    let rewritten = map.rewrite(&request(Command::Resolve, "six.test"), &parse_flags(""));
    let Ok(Rewritten::Request(request)) = rewritten else {
        panic!("{rewritten:?}");
    };
    let ip = "2001:db8::77".parse().expect("literal");
    assert_eq!(request.address, Address::Ip(ip));
}

#[test]
fn exit_names_are_refused() {
    let map = build_map(&["a.test b.test"], &[".exit"]);
    for host in ["a.exit", "B.EXIT"] {
        for command in [Command::Connect, Command::Resolve] {
            let outcome = rewrite_host(&map, command, host);
            assert_eq!(outcome, Err(Failure::DestinationInvalid), "{host}");
        }
    }
}

#[test]
fn a_virtual_address_leads_to_its_name() {
    let map = build_map(&["short.test foo.auto"], &[".onion", "AUTO"]);
    for (host, name) in [
        (ONION, ONION),
        ("X.auto", "x.auto"),
        ("short.test", "foo.auto"),
    ] {
        let ip = resolve(&map, &request(Command::Resolve, host), "").expect("an address");
        assert!(map.is_mapped(ip));
        for command in [Command::Connect, Command::Resolve] {
            let to = rewrite_host(&map, command, &ip.to_string());
            assert_eq!(to.as_deref(), Ok(name));
        }
        // That would show one client what another has looked up.
        let back = rewrite_host(&map, Command::ResolvePtr, &ip.to_string());
        assert_eq!(back, Err(Failure::PrivateAddress));
    }
    assert!(!map.is_mapped("127.192.0.1".parse().expect("literal")));
    // Only lookups assign one, and only to names with such a suffix.
    let connect = rewrite_host(&map, Command::Connect, "x.auto");
    assert_eq!(connect.as_deref(), Ok("x.auto"));
    let other = rewrite_host(&map, Command::Resolve, "auto.test");
    assert_eq!(other.as_deref(), Ok("auto.test"));
}

#[test]
fn the_suffix_dot_matches_every_name() {
    let map = build_map(&[], &["."]);
    for host in ["a", "example.com", ONION] {
        resolve(&map, &request(Command::Resolve, host), "").expect("an address");
    }
    let literal = rewrite_host(&map, Command::Resolve, "192.0.2.1");
    assert_eq!(literal.as_deref(), Ok("192.0.2.1"));
}

#[test]
fn an_invalid_onion_address_gets_no_virtual_address() {
    for map in [
        build_map(&[], &["."]),
        build_map(&["foo.test foo.onion"], &[".onion", "test"]),
    ] {
        for host in ["foo.onion", "foo.test"] {
            let outcome = map.rewrite(&request(Command::Resolve, host), &parse_flags(""));
            match host {
                "foo.test" if map.suffixes == [""] => assert!(outcome.is_ok()),
                _ => assert_eq!(outcome, Err(Failure::AddressInvalid), "{host}"),
            }
        }
    }
}

#[test]
fn virtual_addresses_without_a_name_are_refused() {
    let lines = [
        "127.192.0.10 good.test",
        "tovirt.test 127.192.3.4",
        "set.virtual good.test",
    ];
    let map = build_map(&lines, &[]);
    let invalid = Err(Failure::DestinationInvalid);
    for host in [
        "127.192.0.11",
        "127.255.255.255",
        "fe80::1",
        "tovirt.test",
        "x.VIRTUAL",
    ] {
        for command in [Command::Connect, Command::Resolve] {
            assert_eq!(rewrite_host(&map, command, host), invalid, "{host}");
        }
    }
    for host in ["127.192.0.10", "set.virtual"] {
        let to = rewrite_host(&map, Command::Connect, host);
        assert_eq!(to.as_deref(), Ok("good.test"));
    }
    assert!(map.is_mapped("127.192.0.10".parse().expect("literal")));
    let other_network = AddressMapSettings {
        network_v4: "10.192.0.0/16".to_owned(),
        ..AddressMapSettings::default()
    };
    let map = AddressMap::new(&other_network).expect("good settings");
    assert_eq!(rewrite_host(&map, Command::Connect, "10.192.0.1"), invalid);
    assert!(rewrite_host(&map, Command::Connect, "127.192.0.1").is_ok());
}

#[test]
fn the_family_of_a_virtual_address_follows_the_request_and_the_flags() {
    let map = build_map(&[], &[".onion"]);
    let family = |protocol, family, words: &str| {
        let req = Request {
            protocol,
            family,
            ..request(Command::Resolve, ONION)
        };
        match resolve(&map, &req, words).expect("an address") {
            IpAddr::V4(_) => 4,
            IpAddr::V6(_) => 6,
        }
    };
    let socks = |words| family(Protocol::Socks5, None, words);
    // As in C tor.
    assert_eq!(socks(""), 6);
    assert_eq!(socks("NoPreferIPv6Automap"), 4);
    assert_eq!(socks("NoPreferIPv6Automap PreferIPv6"), 6);
    assert_eq!(socks("NoPreferIPv6Automap NoIPv4Traffic"), 6);
    assert_eq!(family(Protocol::Socks4, None, ""), 4);
    for words in ["", "NoPreferIPv6Automap"] {
        assert_eq!(family(Protocol::Dns, Some(Family::V4Only), words), 4);
        assert_eq!(family(Protocol::Dns, Some(Family::V6Only), words), 6);
    }
    // Unlike C tor, which assigns an IPv6 address and then refuses it.
    assert_eq!(socks("NoIPv6Traffic"), 4);
    assert_eq!(socks("OnionTrafficOnly"), 6);
    assert_eq!(socks("OnionTrafficOnly NoPreferIPv6Automap"), 4);
}

#[test]
fn wrong_settings_name_their_key() {
    let wrong = |change: fn(&mut AddressMapSettings)| {
        let mut settings = AddressMapSettings::default();
        change(&mut settings);
        AddressMap::new(&settings).expect_err("wrong settings").0
    };
    assert_eq!(wrong(|s| s.map.push("a".into())), "proxy.map_address");
    assert_eq!(
        wrong(|s| s.suffixes.push(String::new())),
        "proxy.automap_hosts_suffixes"
    );
    assert_eq!(
        wrong(|s| s.suffixes.push("*.onion".into())),
        "proxy.automap_hosts_suffixes"
    );
    assert_eq!(
        wrong(|s| s.network_v4 = "127.0.0.0/24".into()),
        "proxy.virtual_addr_network_ipv4"
    );
    assert_eq!(
        wrong(|s| s.network_v6 = "127.0.0.0/8".into()),
        "proxy.virtual_addr_network_ipv6"
    );
    assert!(AddressMap::new(&AddressMapSettings::default()).is_ok());
}

/// As in C tor on SIGHUP; its NEWNYM forgets no addresses either.
#[test]
fn virtual_addresses_outlive_a_reload_that_allows_them() {
    let settings = |map: &str, suffixes: &[&str], network_v4: &str| AddressMapSettings {
        map: vec![map.to_owned()],
        automap: true,
        suffixes: suffixes.iter().map(|&text| text.to_owned()).collect(),
        network_v4: network_v4.to_owned(),
        ..AddressMapSettings::default()
    };
    let before = settings("a b", &[".one", ".two"], "10.0.0.0/8");
    let old = AddressMap::new(&before).expect("good settings");
    let v4 = |map: &AddressMap, host: &str| {
        let req = Request {
            family: Some(Family::V4Only),
            ..request(Command::Resolve, host)
        };
        resolve(map, &req, "").expect("an address")
    };
    let (one, two) = (v4(&old, "x.one"), v4(&old, "x.two"));
    let leads = |map: &AddressMap, ip: IpAddr| rewrite_host(map, Command::Connect, &ip.to_string());

    let new = settings("c d", &[".one"], "10.0.0.0/8");
    let new = old.rebuild(&new).expect("good settings");
    assert_eq!(leads(&new, one).as_deref(), Ok("x.one"));
    assert_eq!(v4(&new, "x.one"), one);
    assert_eq!(leads(&new, two), Err(Failure::DestinationInvalid));

    let elsewhere = settings("a b", &["."], "172.16.0.0/12");
    let elsewhere = old.rebuild(&elsewhere).expect("good settings");
    assert!(!elsewhere.is_mapped(one) && v4(&elsewhere, "x.one") != one);

    let taken = settings(&format!("{one} d"), &["."], "10.0.0.0/8");
    let taken = old.rebuild(&taken).expect("good settings");
    assert_eq!(leads(&taken, one).as_deref(), Ok("d"));
    assert_eq!(leads(&taken, two).as_deref(), Ok("x.two"));

    let off = AddressMapSettings {
        automap: false,
        ..before
    };
    assert!(!old.rebuild(&off).expect("good settings").is_mapped(one));
}
