use super::*;
use crate::config::port_line::PortLine;

const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

fn names(map: &[&str], suffixes: &[&str]) -> AddressMap {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    let settings = AddressMapSettings {
        map: owned(map),
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

fn flags(words: &str) -> Flags {
    let line: PortLine = format!("9150 {words}").parse().expect("a good line");
    line.flags
}

/// What becomes of a request on a port without flags: the host to be asked for.
fn asked_for(names: &AddressMap, command: Command, host: &str) -> Result<String, Failure> {
    match names.rewrite(&request(command, host), &flags(""))? {
        Rewritten::Request(request) => Ok(text(&request.address)),
        Rewritten::Answer(answer) => panic!("{host}: {answer:?}"),
    }
}

/// The address that a look-up is answered with.
fn given(names: &AddressMap, request: &Request, words: &str) -> Result<IpAddr, Failure> {
    match names.rewrite(request, &flags(words))? {
        Rewritten::Answer(Answer::Ip(ip)) => Ok(ip),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_stands_for_nothing_is_left_as_it_is() {
    let names = AddressMap::default();
    for host in ["Example.COM", "192.0.2.1", "2001:db8::1", ONION, "a.onion."] {
        for command in [Command::Connect, Command::Resolve, Command::ResolvePtr] {
            let asked = request(command, host);
            let same = Ok(Rewritten::Request(asked.clone()));
            assert_eq!(names.rewrite(&asked, &flags("")), same, "{host}");
        }
    }
}

#[test]
fn lines_apply_to_connections_and_look_ups_but_not_backwards() {
    let lines = [
        "192.0.2.9 Good.test",
        "short.test foo.onion",
        "name.test 192.0.2.9",
    ];
    let names = names(&lines, &[]);
    for command in [Command::Connect, Command::Resolve] {
        let to = |host| asked_for(&names, command, host);
        assert_eq!(to("192.0.2.9").as_deref(), Ok("good.test"));
        assert_eq!(to("NAME.test").as_deref(), Ok("good.test"));
        assert_eq!(to("short.test").as_deref(), Ok("foo.onion"));
    }
    let back = asked_for(&names, Command::ResolvePtr, "192.0.2.9");
    assert_eq!(back.as_deref(), Ok("192.0.2.9"));
}

#[test]
fn a_name_mapped_to_an_address_in_text_is_an_address() {
    let names = names(&["six.test [2001:DB8::77]"], &[]);
    let rewritten = names.rewrite(&request(Command::Resolve, "six.test"), &flags(""));
    let Ok(Rewritten::Request(request)) = rewritten else {
        panic!("{rewritten:?}");
    };
    let ip = "2001:db8::77".parse().expect("literal");
    assert_eq!(request.address, Address::Ip(ip));
}

#[test]
fn exits_cannot_be_named() {
    let names = names(&["a.test b.test"], &[".exit"]);
    for host in ["a.exit", "B.EXIT"] {
        for command in [Command::Connect, Command::Resolve] {
            let outcome = asked_for(&names, command, host);
            assert_eq!(outcome, Err(Failure::DestinationInvalid), "{host}");
        }
    }
}

#[test]
fn a_virtual_address_leads_to_its_name() {
    let names = names(&["short.test foo.auto"], &[".onion", "AUTO"]);
    for (host, name) in [
        (ONION, ONION),
        ("X.auto", "x.auto"),
        ("short.test", "foo.auto"),
    ] {
        let ip = given(&names, &request(Command::Resolve, host), "").expect("an address");
        assert!(names.covers(ip));
        for command in [Command::Connect, Command::Resolve] {
            let to = asked_for(&names, command, &ip.to_string());
            assert_eq!(to.as_deref(), Ok(name));
        }
        // Nobody is told what others have looked up.
        let back = asked_for(&names, Command::ResolvePtr, &ip.to_string());
        assert_eq!(back, Err(Failure::PrivateAddress));
    }
    assert!(!names.covers("127.192.0.1".parse().expect("literal")));
    // Only look-ups make one, and only of names that end so.
    let connect = asked_for(&names, Command::Connect, "x.auto");
    assert_eq!(connect.as_deref(), Ok("x.auto"));
    let other = asked_for(&names, Command::Resolve, "auto.test");
    assert_eq!(other.as_deref(), Ok("auto.test"));
}

#[test]
fn a_dot_is_the_end_of_every_name() {
    let names = names(&[], &["."]);
    for host in ["a", "example.com", ONION] {
        given(&names, &request(Command::Resolve, host), "").expect("an address");
    }
    let literal = asked_for(&names, Command::Resolve, "192.0.2.1");
    assert_eq!(literal.as_deref(), Ok("192.0.2.1"));
}

#[test]
fn no_address_is_made_for_a_wrong_onion_address() {
    for names in [
        names(&[], &["."]),
        names(&["foo.test foo.onion"], &[".onion", "test"]),
    ] {
        for host in ["foo.onion", "foo.test"] {
            let outcome = names.rewrite(&request(Command::Resolve, host), &flags(""));
            match host {
                "foo.test" if names.suffixes == [""] => assert!(outcome.is_ok()),
                _ => assert_eq!(outcome, Err(Failure::AddressInvalid), "{host}"),
            }
        }
    }
}

#[test]
fn virtual_addresses_without_a_name_go_nowhere() {
    let lines = [
        "127.192.0.10 good.test",
        "tovirt.test 127.192.3.4",
        "set.virtual good.test",
    ];
    let names = names(&lines, &[]);
    let invalid = Err(Failure::DestinationInvalid);
    for host in [
        "127.192.0.11",
        "127.255.255.255",
        "fe80::1",
        "tovirt.test",
        "x.VIRTUAL",
    ] {
        for command in [Command::Connect, Command::Resolve] {
            assert_eq!(asked_for(&names, command, host), invalid, "{host}");
        }
    }
    for host in ["127.192.0.10", "set.virtual"] {
        let to = asked_for(&names, Command::Connect, host);
        assert_eq!(to.as_deref(), Ok("good.test"));
    }
    assert!(names.covers("127.192.0.10".parse().expect("literal")));
    let other_network = AddressMapSettings {
        network_v4: "10.192.0.0/16".to_owned(),
        ..AddressMapSettings::default()
    };
    let names = AddressMap::new(&other_network).expect("good settings");
    assert_eq!(asked_for(&names, Command::Connect, "10.192.0.1"), invalid);
    assert!(asked_for(&names, Command::Connect, "127.192.0.1").is_ok());
}

#[test]
fn the_family_of_a_virtual_address_follows_the_question_and_the_flags() {
    let names = names(&[], &[".onion"]);
    let family = |protocol, family, words: &str| {
        let asked = Request {
            protocol,
            family,
            ..request(Command::Resolve, ONION)
        };
        match given(&names, &asked, words).expect("an address") {
            IpAddr::V4(_) => 4,
            IpAddr::V6(_) => 6,
        }
    };
    let socks = |words| family(Protocol::Socks5, None, words);
    // As C tor answers.
    assert_eq!(socks(""), 6);
    assert_eq!(socks("NoPreferIPv6Automap"), 4);
    assert_eq!(socks("NoPreferIPv6Automap PreferIPv6"), 6);
    assert_eq!(socks("NoPreferIPv6Automap NoIPv4Traffic"), 6);
    assert_eq!(family(Protocol::Socks4, None, ""), 4);
    for words in ["", "NoPreferIPv6Automap"] {
        assert_eq!(family(Protocol::Dns, Some(Family::V4Only), words), 4);
        assert_eq!(family(Protocol::Dns, Some(Family::V6Only), words), 6);
    }
    // C tor finds an IPv6 address, and then refuses to give it.
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

/// C tor does so on SIGHUP; on NEWNYM it forgets none either.
#[test]
fn addresses_outlive_a_change_of_settings_that_allows_them() {
    let settings = |map: &str, suffixes: &[&str], network_v4: &str| AddressMapSettings {
        map: vec![map.to_owned()],
        automap: true,
        suffixes: suffixes.iter().map(|&text| text.to_owned()).collect(),
        network_v4: network_v4.to_owned(),
        ..AddressMapSettings::default()
    };
    let before = settings("a b", &[".one", ".two"], "10.0.0.0/8");
    let old = AddressMap::new(&before).expect("good settings");
    let v4 = |names: &AddressMap, host: &str| {
        let asked = Request {
            family: Some(Family::V4Only),
            ..request(Command::Resolve, host)
        };
        given(names, &asked, "").expect("an address")
    };
    let (one, two) = (v4(&old, "x.one"), v4(&old, "x.two"));
    let leads =
        |names: &AddressMap, ip: IpAddr| asked_for(names, Command::Connect, &ip.to_string());

    let new = settings("c d", &[".one"], "10.0.0.0/8");
    let new = old.renewed(&new).expect("good settings");
    assert_eq!(leads(&new, one).as_deref(), Ok("x.one"));
    assert_eq!(v4(&new, "x.one"), one);
    assert_eq!(leads(&new, two), Err(Failure::DestinationInvalid));

    let elsewhere = settings("a b", &["."], "172.16.0.0/12");
    let elsewhere = old.renewed(&elsewhere).expect("good settings");
    assert!(!elsewhere.covers(one) && v4(&elsewhere, "x.one") != one);

    let taken = settings(&format!("{one} d"), &["."], "10.0.0.0/8");
    let taken = old.renewed(&taken).expect("good settings");
    assert_eq!(leads(&taken, one).as_deref(), Ok("d"));
    assert_eq!(leads(&taken, two).as_deref(), Ok("x.two"));

    let off = AddressMapSettings {
        automap: false,
        ..before
    };
    assert!(!old.renewed(&off).expect("good settings").covers(one));
}
