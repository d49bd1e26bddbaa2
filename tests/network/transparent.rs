//! Connections that the system redirects, in a network namespace of their own, C tor's transparent
//! port beside ours.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testnet::{ClientOptions, EchoServer, Network, ServiceOptions};

use crate::daemon::Onionport;
use crate::names::{exchange, header, question};
use crate::program;

/// Set for the part that runs in the namespace.
const INSIDE: &str = "ONIONPORT_TEST_NAMESPACE";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nobody else is in the namespace: ports can be chosen.
const OURS: &str = "127.0.0.1:9040";
const OURS_V6: &str = "[::1]:9040";
const OURS_TPROXY: &str = "127.0.0.1:9042";
const THEIRS: &str = "127.0.0.1:9140";
const THEIRS_V6: &str = "[::1]:9140";
const OUR_DNS: &str = "127.0.0.1:9053";
const THEIR_DNS: &str = "127.0.0.1:9153";

/// Each port has networks of its own, which are nowhere else.
const RULES: &str = "
table ip redirected {
    chain out {
        type nat hook output priority -100;
        ip protocol tcp ip daddr { 192.0.2.0/24, 127.192.0.0/10 } redirect to :9040
        ip protocol tcp ip daddr { 198.51.100.0/24, 10.192.0.0/10 } redirect to :9140
    }
}
table ip6 redirected {
    chain out {
        type nat hook output priority -100;
        meta l4proto tcp ip6 daddr 2001:db8:1::/48 redirect to :9040
        meta l4proto tcp ip6 daddr 2001:db8:2::/48 redirect to :9140
    }
}
";
/// TPROXY works on what comes in: what goes out to this network is sent round through loopback.
const TPROXY_RULES: &str = "
table ip diverted {
    chain out {
        type route hook output priority mangle;
        ip daddr 203.0.113.0/24 meta mark set 1
    }
    chain in {
        type filter hook prerouting priority mangle;
        ip protocol tcp ip daddr 203.0.113.0/24 tproxy to 127.0.0.1:9042
    }
}
";
/// The namespace needs an address of its own to go out from.
const ROUTES: &str = "
    ip link set lo up &&
    ip addr add 172.31.0.1/32 dev lo &&
    ip -6 addr add fd00::1/128 dev lo &&
    ip route add default dev lo &&
    ip -6 route add default dev lo &&
    ip rule add fwmark 1 lookup 100 &&
    ip route add local 0.0.0.0/0 dev lo table 100";

#[test]
fn redirected_connections_go_where_they_were_going() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return within();
    }
    if let Err(why) = shell(&format!(
        "unshare -rn sh -c '{ROUTES}' && unshare -rn nft list ruleset"
    )) {
        return not_tested(&format!("no network namespaces or no nftables: {why}"));
    }
    let myself = std::env::current_exe()?;
    let output = Command::new("unshare")
        .arg("-rn")
        .arg(myself)
        .args([
            "transparent::redirected_connections_go_where_they_were_going",
            "--exact",
            "--nocapture",
        ])
        .env(INSIDE, "1")
        .stderr(Stdio::inherit())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    ensure!(output.status.success(), "failed in the namespace");
    // A name that fits no test is no failure to the harness.
    ensure!(said.contains("1 passed"), "the test has another name");
    Ok(())
}

/// Says what this system lacks; where everything has to be there, that is an error.
fn not_tested(lacking: &str) -> Result<()> {
    ensure!(std::env::var_os("CI").is_none(), "{lacking}");
    println!("not tested: {lacking}");
    Ok(())
}

/// Runs commands; the error is what they complained about.
fn shell(script: &str) -> Result<()> {
    let done = Command::new("sh").args(["-c", script]).output()?;
    ensure!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(())
}

/// Sets rules of nftables.
fn rules(text: &str) -> Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    nft.stdin
        .take()
        .context("no pipe")?
        .write_all(text.as_bytes())?;
    ensure!(nft.wait()?.success(), "nft refused the rules");
    Ok(())
}

fn within() -> Result<()> {
    shell(ROUTES)?;
    rules(RULES)?;
    let network = Network::builder()
        .relays(6)
        .circuit_timeout_ms(Some(2500))
        .start()?;
    let echo = EchoServer::start()?;
    let service = network.service(ServiceOptions::with_port(80, echo.address()))?;
    let port = echo.address().port();

    let map = |v4: &str, v6: &str| {
        [
            format!("{v4}.9 good.test"),
            format!("{v4}.8 {}", service.address()),
            format!("{v4}.7 none.test"),
            format!("{v4}.6 foo.onion"),
            format!("[{v6}::9] good.test"),
        ]
    };
    let judge = network.c_tor_client(ClientOptions {
        extra_torrc_lines: map("198.51.100", "2001:db8:2")
            .iter()
            .map(|line| format!("MapAddress {line}"))
            .chain([
                format!("TransPort {THEIRS}"),
                format!("TransPort {THEIRS_V6}"),
                format!("DNSPort {THEIR_DNS}"),
                "AutomapHostsOnResolve 1".to_owned(),
                "VirtualAddrNetworkIPv4 10.192.0.0/10".to_owned(),
            ])
            .collect(),
        ..ClientOptions::default()
    })?;
    let onionport = Onionport::start(
        program(),
        &network,
        &format!(
            "trans_port = [\"{OURS}\", \"{OURS_V6}\"]\ndns_port = \"{OUR_DNS}\"\n\
             automap_hosts_on_resolve = true\nmap_address = {:?}",
            map("192.0.2", "2001:db8:1")
        ),
    )?;

    for net in ["192.0.2", "198.51.100"] {
        assert_eq!(echoed(&format!("{net}.9:{port}"))?, EARLY, "{net}");
        assert_eq!(echoed(&format!("{net}.8:80"))?, EARLY, "{net}");
        // No such name, no such onion service, no such port of one: closed without a word.
        for nowhere in [
            format!("{net}.7:80"),
            format!("{net}.6:80"),
            format!("{net}.8:81"),
        ] {
            assert_eq!(echoed(&nowhere)?, "", "{nowhere}");
        }
    }
    for net in ["2001:db8:1", "2001:db8:2"] {
        assert_eq!(echoed(&format!("[{net}::9]:{port}"))?, EARLY, "{net}");
    }
    for dns in [OUR_DNS, THEIR_DNS] {
        let ip = address_of(dns.parse()?, service.address())?;
        assert_eq!(echoed(&format!("{ip}:80"))?, EARLY, "{ip}");
    }
    // Addresses that stand for nothing.
    for ip in ["127.192.77.77", "10.192.77.77"] {
        assert_eq!(echoed(&format!("{ip}:80"))?, "", "{ip}");
    }
    // Not redirected. (C tor asks an exit for its own port, which on this network is a circle.)
    for port in [OURS, OURS_V6] {
        assert_eq!(echoed(port)?, "");
    }
    let log = onionport.log();
    assert_eq!(log.matches("was not redirected").count(), 1, "{log}");
    drop((judge, onionport));

    if let Err(why) = rules(TPROXY_RULES) {
        network.mark_done();
        return not_tested(&format!("no TPROXY: {why}"));
    }
    let onionport = Onionport::start(
        program(),
        &network,
        &format!(
            "trans_port = \"{OURS_TPROXY}\"\ntrans_proxy_type = \"TPROXY\"\nmap_address = {:?}",
            map("203.0.113", "2001:db8:3")
        ),
    )?;
    assert_eq!(echoed(&format!("203.0.113.9:{port}"))?, EARLY);
    assert_eq!(echoed("203.0.113.8:80")?, EARLY);
    assert_eq!(echoed("203.0.113.7:80")?, "");
    assert_eq!(echoed(OURS_TPROXY)?, "");
    assert!(onionport.log().contains("was not redirected"));
    network.mark_done();
    Ok(())
}

const EARLY: &str = "said before anybody answered";

/// Connects, speaks at once, and gives as much of what comes back as was said.
fn echoed(to: &str) -> Result<String> {
    let to: SocketAddr = to.parse()?;
    let mut stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(EARLY.as_bytes())?;
    let mut back = Vec::new();
    let read = (&mut stream)
        .take(EARLY.len() as u64)
        .read_to_end(&mut back);
    match read {
        Ok(_) => {}
        // C tor resets a connection on which something unread waits.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        // A panic, because it shows the log.
        Err(error) => panic!("{to} says nothing: {error}"),
    }
    Ok(String::from_utf8(back)?)
}

/// The virtual IPv4 address of a name.
fn address_of(dns: SocketAddr, name: &str) -> Result<IpAddr> {
    const A: u16 = 1;
    const IN: u16 = 1;
    let reply = exchange(dns, &[header(0x0100, 1), question(name, A, IN)].concat())?;
    let octets = <[u8; 4]>::try_from(&reply[reply.len() - 4..])?;
    Ok(octets.into())
}
