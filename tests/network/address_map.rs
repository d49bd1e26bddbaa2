//! `MapAddress`, virtual addresses and the DNS port: C tor gets the same requests and queries.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use testnet::{ClientOptions, EchoServer, ServiceOptions, SocksAddress, SocksReply, SocksRequest};

use crate::daemon::Onionport;
use crate::dns_client::{
    A, AAAA, IN, PTR, TXT, address_in, exchange, header, is_ignored, query, question,
};
use crate::setup::network_builder;

/// Tor's SOCKS commands for lookups.
const RESOLVE: u8 = 0xF0;
const RESOLVE_PTR: u8 = 0xF1;

/// How long a connection may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The mappings of both programs.
const MAPPINGS: [&str; 18] = [
    "mapped.test good.test",
    "*.wild.test *.sub.test",
    "six.sub.test six.test",
    "*.toone.test good.test",
    "toip.test 192.0.2.77",
    "toip6.test [2001:db8::77]",
    "192.0.2.9 good.test",
    "[2001:db8::9] six.test",
    "127.192.0.10 good.test",
    "chain.test next.test",
    "next.test good.test",
    "loopa.test loopb.test",
    "loopb.test loopa.test",
    "badonion.test foo.onion",
    "twice.test none.test",
    "twice.test good.test",
    "tovirt.test 127.192.3.4",
    "virt.virtual good.test",
];

/// The ports of one program.
#[derive(Clone, Copy)]
struct Ports {
    socks: SocketAddr,
    dns: SocketAddr,
}

#[test]
fn mapped_names_virtual_addresses_and_dns_answers_match_c_tor() -> Result<()> {
    let network = network_builder().relays(6).start()?;
    let echo = EchoServer::start()?;
    let service = network.service(ServiceOptions::with_port(80, echo.address()))?;
    let to_service = format!("short.test {}", service.address());
    let mappings = [&MAPPINGS[..], &[to_service.as_str()]].concat();
    let c_tor = network.c_tor_client(ClientOptions {
        extra_torrc_lines: mappings
            .iter()
            .map(|mapping| format!("MapAddress {mapping}"))
            .chain([
                format!("DNSPort {}:auto", Ipv4Addr::LOCALHOST),
                "AutomapHostsOnResolve 1".to_owned(),
                "AutomapHostsSuffixes .onion,.auto".to_owned(),
            ])
            .collect(),
        ..ClientOptions::default()
    })?;
    let onionport = Onionport::start(
        &network,
        &format!(
            "map_address = {mappings:?}\ndns_port = \"auto\"\nautomap_hosts_on_resolve = true\n\
             automap_hosts_suffixes = [\".onion\", \".auto\"]"
        ),
    )?;
    let ours = Ports {
        socks: onionport.extended_port(),
        dns: onionport.port(2),
    };
    let theirs = Ports {
        socks: c_tor.extended_port(),
        dns: c_tor.listener("dns", Ipv4Addr::LOCALHOST)?,
    };

    lookups_match(ours, theirs)?;
    for ports in [ours, theirs] {
        virtual_addresses_lead_to_the_service(ports, service.address())?;
    }
    connections_match(ours, theirs, echo.address().port())?;
    dns_answers_match(ours, theirs)?;
    for ports in [ours, theirs] {
        dns_answers_contain_virtual_addresses(ports, service.address())?;
    }
    known_differences_from_c_tor(ours, theirs)?;
    network.mark_done();
    Ok(())
}

/// Looks up a name or an address.
fn look_up(ports: Ports, command: u8, host: &str) -> Result<SocksReply> {
    SocksRequest::new(ports.socks, host, 0)
        .command(command)
        .send()
}

/// Requests a connection and returns the reply code.
fn connect(ports: Ports, host: &str, port: u16) -> Result<u8> {
    let request = SocksRequest::new(ports.socks, host, port).timeout(LIMIT);
    Ok(request.send()?.code)
}

fn lookups_match(ours: Ports, theirs: Ports) -> Result<()> {
    for host in [
        "mapped.test",
        "MAPPED.Test",
        "mapped.test.",
        "six.wild.test",
        "wild.test",
        "x.toone.test",
        "toone.test",
        "toip.test",
        "toip6.test",
        "chain.test",
        "loopa.test",
        "twice.test",
        "tovirt.test",
        "virt.virtual",
        "x.virtual",
        "a.exit",
        "192.0.2.9",
        "2001:db8::9",
        "192.0.2.33",
        "127.192.0.10",
        "127.192.0.11",
        "127.255.255.255",
        "fe80::1",
    ] {
        let ours = look_up(ours, RESOLVE, host)?;
        let theirs = look_up(theirs, RESOLVE, host)?;
        assert_eq!(
            (ours.code, ours.bound),
            (theirs.code, theirs.bound),
            "{host}"
        );
    }
    Ok(())
}

fn connections_match(ours: Ports, theirs: Ports, echo: u16) -> Result<()> {
    for (host, port, code) in [
        ("mapped.test", echo, 0x00),
        ("x.toone.test", echo, 0x00),
        ("192.0.2.9", echo, 0x00),
        ("127.192.0.10", echo, 0x00),
        ("short.test", 80, 0x00),
        ("short.test", 81, 0x05),
        ("badonion.test", 80, 0xF6),
        ("loopa.test", 80, 0x04),
        ("127.192.0.11", 80, 0x01),
        ("fe80::1", 80, 0x01),
        ("tovirt.test", 80, 0x01),
        ("x.virtual", 80, 0x01),
        ("a.exit", 80, 0x01),
    ] {
        let codes = (connect(ours, host, port)?, connect(theirs, host, port)?);
        assert_eq!(codes, (code, code), "{host}:{port}");
    }
    Ok(())
}

fn virtual_addresses_lead_to_the_service(ports: Ports, service: &str) -> Result<()> {
    let resolve = |host: &str| -> Result<IpAddr> {
        let reply = look_up(ports, RESOLVE, host)?;
        match reply.bound {
            SocksAddress::Ip(ip) => Ok(ip),
            other => anyhow::bail!("{host}: {:02X} {other:?}", reply.code),
        }
    };
    let ip = resolve(service)?;
    assert!(ip.is_ipv6(), "{ip}");
    assert_eq!(resolve(&service.to_ascii_uppercase())?, ip);
    assert_eq!(resolve("short.test")?, ip);
    assert_ne!(resolve("x.auto")?, ip);
    let ip = ip.to_string();
    assert_eq!(connect(ports, &ip, 80)?, 0x00);
    // Lookups of the virtual address do not reveal the service.
    for command in [RESOLVE, RESOLVE_PTR] {
        let reply = look_up(ports, command, &ip)?;
        assert_eq!(reply.code, 0x04, "{command:02X}");
    }
    Ok(())
}

fn dns_answers_match(ours: Ports, theirs: Ports) -> Result<()> {
    let six = format!("7.{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(23));
    let long = ["x".repeat(60), "y".repeat(60), "z".repeat(60)].join(".");
    let mut datagrams: Vec<(String, Vec<u8>)> = [
        ("good.test", A),
        ("GoOd.TesT", A),
        ("good.test", AAAA),
        ("six.test", A),
        ("six.test", AAAA),
        ("both.test", A),
        ("both.test", AAAA),
        ("none.test", A),
        ("broken.test", A),
        ("good.test", TXT),
        ("good.test", 255),
        ("a.exit", A),
        ("toip.test", A),
        ("toip.test", AAAA),
        ("toip6.test", A),
        ("toip6.test", AAAA),
        ("x.virtual", A),
        ("tovirt.test", A),
        ("loopa.test", A),
        ("127.192.0.11", A),
        ("192.0.2.33", A),
        ("192.0.2.33", AAAA),
        ("localhost", A),
        ("x.local", A),
        ("bad!name.test", A),
        ("-bad.test", A),
        (&long, A),
        ("7.2.0.192.in-addr.arpa", PTR),
        (&six, PTR),
        ("3.2.0.192.in-addr.arpa", PTR),
        ("1.0.0.127.in-addr.arpa", PTR),
        ("10.0.192.127.in-addr.arpa", PTR),
        ("192.0.2.7", PTR),
        ("good.test", PTR),
        ("2.0.192.in-addr.arpa", PTR),
        ("in-addr.arpa", PTR),
    ]
    .into_iter()
    .map(|(name, record_type)| (format!("{name} {record_type}"), query(name, record_type)))
    .collect();
    let good = question("good.test", A, IN);
    let six = question("six.test", AAAA, IN);
    let text = question("good.test", TXT, IN);
    for (what, parts) in [
        (
            "another class",
            vec![header(0x0100, 1), question("good.test", A, 3)],
        ),
        (
            "any class",
            vec![header(0x0100, 1), question("good.test", A, 255)],
        ),
        (
            "two questions",
            vec![header(0x0100, 2), good.clone(), six.clone()],
        ),
        (
            "only the second question can be answered",
            vec![header(0x0100, 2), text, six],
        ),
        ("another opcode", vec![header(0x2900, 1), good.clone()]),
        ("other flags", vec![header(0x0650, 1), good.clone()]),
        ("CD", vec![header(0x0030, 1), good.clone()]),
        ("EDNS", {
            let mut header = header(0x0100, 1);
            header[11] = 1;
            vec![header, good.clone(), b"\0\0\x29\x10\0\0\0\0\0\0\0".to_vec()]
        }),
        (
            "data after the question",
            vec![header(0x0100, 1), good.clone(), vec![b'x'; 1600]],
        ),
    ] {
        datagrams.push((what.to_owned(), parts.concat()));
    }
    for (what, datagram) in &datagrams {
        let (ours, theirs) = (
            exchange(ours.dns, datagram)?,
            exchange(theirs.dns, datagram)?,
        );
        assert_eq!(ours, theirs, "{what}");
    }
    for (what, parts) in [
        ("an answer", vec![header(0x8100, 1), good.clone()]),
        (
            "a truncated question",
            vec![header(0x0100, 1), good[..14].to_vec()],
        ),
        (
            "one question less than the header says",
            vec![header(0x0100, 2), good],
        ),
        (
            "a name that points to itself",
            vec![header(0x0100, 1), vec![0xc0, 12, 0, 1, 0, 1]],
        ),
        (
            "a reserved label",
            vec![header(0x0100, 1), vec![0x80, b'x', 0, 0, 1, 0, 1]],
        ),
    ] {
        for server in [ours.dns, theirs.dns] {
            assert!(is_ignored(server, &parts.concat())?, "{what}");
        }
    }
    // These terminate the current C tor, so only onionport gets them.
    for datagram in [vec![], header(0x0100, 1)[..11].to_vec(), header(0x0100, 0)] {
        assert!(is_ignored(ours.dns, &datagram)?, "{datagram:?}");
    }
    Ok(())
}

fn dns_answers_contain_virtual_addresses(ports: Ports, service: &str) -> Result<()> {
    for record_type in [A, AAAA] {
        let answer = exchange(ports.dns, &query(service, record_type))?;
        assert_eq!(answer[3] & 0x0f, 0);
        let ip = address_in(&answer, record_type)?;
        assert_eq!(connect(ports, &ip.to_string(), 80)?, 0x00, "{ip}");
    }
    Ok(())
}

/// C tor's answer for a mapped name has the name of the mapping's target, so that clients ignore it. C tor also assigns
/// virtual addresses to invalid onion addresses.
fn known_differences_from_c_tor(ours: Ports, theirs: Ports) -> Result<()> {
    /// A pointer to the name in the question (RFC 1035 section 4.1.4).
    const NAME_OF_QUESTION: [u8; 2] = [0xc0, 12];
    let send = |ports: Ports, name| exchange(ports.dns, &query(name, A));
    let name = "mapped.test";
    // The record follows the header and the question.
    let owner = |answer: &[u8]| answer[12 + name.len() + 2 + 4..][..2].to_vec();
    assert_eq!(owner(&send(ours, name)?), NAME_OF_QUESTION);
    assert_ne!(owner(&send(theirs, name)?), NAME_OF_QUESTION);
    for name in ["foo.onion", "badonion.test"] {
        let codes = (send(ours, name)?[3] & 0x0f, send(theirs, name)?[3] & 0x0f);
        assert_eq!(codes, (2, 0), "{name}");
    }
    Ok(())
}
