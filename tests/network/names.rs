//! Names that stand for others and the DNS port: every question is put to C tor, too.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use testnet::{ClientOptions, EchoServer, Network, ServiceOptions, SocksAddress, SocksRequest};

use crate::daemon::Onionport;
use crate::program;

const RESOLVE: u8 = 0xF0;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing has to come.
const SILENCE: Duration = Duration::from_millis(500);

const A: u16 = 1;
const PTR: u16 = 12;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const IN: u16 = 1;

/// The settings of both programs.
fn map(service: &str) -> Vec<String> {
    [
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
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([format!("short.test {service}")])
    .collect()
}

#[test]
fn names_stand_for_the_same_as_with_c_tor() -> Result<()> {
    let network = Network::builder()
        .relays(6)
        .circuit_timeout_ms(Some(2500))
        .start()?;
    let echo = EchoServer::start()?;
    let service = network.service(ServiceOptions::with_port(80, echo.address()))?;
    let map = map(service.address());
    let judge = network.c_tor_client(ClientOptions {
        extra_torrc_lines: map
            .iter()
            .map(|line| format!("MapAddress {line}"))
            .chain([
                format!("DNSPort {}:auto", Ipv4Addr::LOCALHOST),
                "AutomapHostsOnResolve 1".to_owned(),
                "AutomapHostsSuffixes .onion,.auto".to_owned(),
            ])
            .collect(),
        ..ClientOptions::default()
    })?;
    let onionport = Onionport::start(
        program(),
        &network,
        &format!(
            "map_address = {map:?}\ndns_port = \"auto\"\nautomap_hosts_on_resolve = true\n\
             automap_hosts_suffixes = [\".onion\", \".auto\"]"
        ),
    )?;
    let ours = (onionport.extended(), onionport.port(2));
    let theirs = (
        judge.extended_port(),
        judge.listener("dns", Ipv4Addr::LOCALHOST)?,
    );

    look_ups_agree(ours.0, theirs.0)?;
    for proxy in [ours.0, theirs.0] {
        virtual_addresses_lead_to_the_service(proxy, service.address())?;
    }
    connections_agree(ours.0, theirs.0, echo.address().port())?;
    dns_answers_agree(ours.1, theirs.1)?;
    for (proxy, dns) in [ours, theirs] {
        dns_gives_virtual_addresses(proxy, dns, service.address())?;
    }
    where_we_differ_from_c_tor(ours.1, theirs.1)?;
    network.mark_done();
    Ok(())
}

fn look_ups_agree(ours: SocketAddr, theirs: SocketAddr) -> Result<()> {
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
        let ask = |port| SocksRequest::new(port, host, 0).command(RESOLVE).send();
        let (ours, theirs) = (ask(ours)?, ask(theirs)?);
        assert_eq!(
            (ours.code, ours.bound),
            (theirs.code, theirs.bound),
            "{host}"
        );
    }
    Ok(())
}

fn connections_agree(ours: SocketAddr, theirs: SocketAddr, echo: u16) -> Result<()> {
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
        let ask = |proxy| {
            SocksRequest::new(proxy, host, port)
                .timeout(PATIENCE)
                .send()
        };
        let (ours, theirs) = (ask(ours)?.code, ask(theirs)?.code);
        assert_eq!((ours, theirs), (code, code), "{host}:{port}");
    }
    Ok(())
}

fn virtual_addresses_lead_to_the_service(proxy: SocketAddr, service: &str) -> Result<()> {
    let look_up = |host: &str| -> Result<IpAddr> {
        let reply = SocksRequest::new(proxy, host, 0).command(RESOLVE).send()?;
        match reply.bound {
            SocksAddress::Ip(ip) => Ok(ip),
            other => anyhow::bail!("{host}: {:02X} {other:?}", reply.code),
        }
    };
    let ip = look_up(service)?;
    assert!(ip.is_ipv6(), "{ip}");
    assert_eq!(look_up(&service.to_ascii_uppercase())?, ip);
    assert_eq!(look_up("short.test")?, ip);
    assert_ne!(look_up("x.auto")?, ip);
    let reply = SocksRequest::new(proxy, &ip.to_string(), 80)
        .timeout(PATIENCE)
        .send()?;
    assert_eq!(reply.code, 0x00);
    // Neither forwards nor backwards does it tell anything.
    for command in [RESOLVE, 0xF1] {
        let reply = SocksRequest::new(proxy, &ip.to_string(), 0)
            .command(command)
            .send()?;
        assert_eq!(reply.code, 0x04, "{command:02X}");
    }
    Ok(())
}

fn dns_answers_agree(ours: SocketAddr, theirs: SocketAddr) -> Result<()> {
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
    .map(|(name, kind)| {
        let datagram = [header(0x0100, 1), question(name, kind, IN)].concat();
        (format!("{name} {kind}"), datagram)
    })
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
            "the second can be answered",
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
            "something behind it",
            vec![header(0x0100, 1), good.clone(), vec![b'x'; 1600]],
        ),
    ] {
        datagrams.push((what.to_owned(), parts.concat()));
    }
    for (what, datagram) in &datagrams {
        let (ours, theirs) = (exchange(ours, datagram)?, exchange(theirs, datagram)?);
        assert_eq!(ours, theirs, "{what}");
    }
    for (what, parts) in [
        ("an answer", vec![header(0x8100, 1), good.clone()]),
        (
            "a cut question",
            vec![header(0x0100, 1), good[..14].to_vec()],
        ),
        ("a question too few", vec![header(0x0100, 2), good]),
        (
            "a name within itself",
            vec![header(0x0100, 1), vec![0xc0, 12, 0, 1, 0, 1]],
        ),
        (
            "a reserved label",
            vec![header(0x0100, 1), vec![0x80, b'x', 0, 0, 1, 0, 1]],
        ),
    ] {
        for server in [ours, theirs] {
            assert!(keeps_silent(server, &parts.concat())?, "{what}");
        }
    }
    // These end the C tor of today: it is not asked.
    for datagram in [vec![], header(0x0100, 1)[..11].to_vec(), header(0x0100, 0)] {
        assert!(keeps_silent(ours, &datagram)?, "{datagram:?}");
    }
    Ok(())
}

fn dns_gives_virtual_addresses(proxy: SocketAddr, dns: SocketAddr, service: &str) -> Result<()> {
    for (kind, length) in [(A, 4), (AAAA, 16)] {
        let datagram = [header(0x0100, 1), question(service, kind, IN)].concat();
        let reply = exchange(dns, &datagram)?;
        assert_eq!(reply[3] & 0x0f, 0);
        let data = &reply[reply.len() - length..];
        let ip = match <[u8; 4]>::try_from(data) {
            Ok(octets) => IpAddr::from(octets),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(data)?),
        };
        let reply = SocksRequest::new(proxy, &ip.to_string(), 80)
            .timeout(PATIENCE)
            .send()?;
        assert_eq!(reply.code, 0x00, "{ip}");
    }
    Ok(())
}

/// C tor answers for a mapped name under the name it stands for, which no client takes for an answer,
/// and gives addresses to onion services that cannot exist.
fn where_we_differ_from_c_tor(ours: SocketAddr, theirs: SocketAddr) -> Result<()> {
    let ask = |server, name| -> Result<Vec<u8>> {
        let datagram = [header(0x0100, 1), question(name, A, IN)].concat();
        exchange(server, &datagram)
    };
    let owner = |reply: &[u8], name: &str| reply[12 + name.len() + 2 + 4..][..2].to_vec();
    let name = "mapped.test";
    assert_eq!(owner(&ask(ours, name)?, name), [0xc0, 12]);
    assert_ne!(owner(&ask(theirs, name)?, name), [0xc0, 12]);
    for name in ["foo.onion", "badonion.test"] {
        let codes = (ask(ours, name)?[3] & 0x0f, ask(theirs, name)?[3] & 0x0f);
        assert_eq!(codes, (2, 0), "{name}");
    }
    Ok(())
}

/// The header of a datagram with so many questions.
pub fn header(flags: u16, questions: u16) -> Vec<u8> {
    let mut bytes = vec![0x43, 0x21];
    for number in [flags, questions, 0, 0, 0] {
        bytes.extend(number.to_be_bytes());
    }
    bytes
}

/// A question for a name, with its type and class.
pub fn question(name: &str, kind: u16, class: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(class.to_be_bytes());
    bytes
}

/// What a server answers.
pub fn exchange(server: SocketAddr, datagram: &[u8]) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(datagram)?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).context("no answer")?;
    Ok(buffer[..length].to_vec())
}

/// Whether a server answers nothing to a datagram, and lives on.
fn keeps_silent(server: SocketAddr, datagram: &[u8]) -> Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.send(datagram)?;
    // It has had its turn when this is answered.
    exchange(
        server,
        &[header(0x0100, 1), question("192.0.2.33", A, IN)].concat(),
    )?;
    socket.set_read_timeout(Some(SILENCE))?;
    Ok(socket.recv(&mut [0; 1500]).is_err())
}
