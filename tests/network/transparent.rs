//! Connections that the system redirects, in a network namespace of their own, compared with C tor's
//! transparent port.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testnet::{ClientOptions, EchoServer, ServiceOptions};

use crate::daemon::Onionport;
use crate::dns_client::{A, address_in, exchange, query};
use crate::setup::network_builder;

/// The environment variable of the process that runs in the namespace.
const INSIDE: &str = "ONIONPORT_TEST_NAMESPACE";
/// How long a read may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Fixed ports: the namespace has no other processes. "Their" ports are C tor's.
const OURS: &str = "127.0.0.1:9040";
const OURS_V6: &str = "[::1]:9040";
const OURS_TPROXY: &str = "127.0.0.1:9042";
const THEIRS: &str = "127.0.0.1:9140";
const THEIRS_V6: &str = "[::1]:9140";
const OUR_DNS: &str = "127.0.0.1:9053";
const THEIR_DNS: &str = "127.0.0.1:9153";

/// Each port has its own destination networks.
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
/// TPROXY applies to incoming packets, so outgoing packets to this network are routed through loopback.
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
/// The namespace needs its own address as the source of outgoing packets.
const ROUTES: &str = "
    ip link set lo up &&
    ip addr add 172.31.0.1/32 dev lo &&
    ip -6 addr add fd00::1/128 dev lo &&
    ip route add default dev lo &&
    ip -6 route add default dev lo &&
    ip rule add fwmark 1 lookup 100 &&
    ip route add local 0.0.0.0/0 dev lo table 100";

#[test]
fn redirected_connections_reach_their_original_destination() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return test_in_namespace();
    }
    if let Err(error) = run_shell(&format!(
        "unshare -rn sh -c '{ROUTES}' && unshare -rn nft list ruleset"
    )) {
        return skip(&format!("no network namespaces or no nftables: {error}"));
    }
    let myself = std::env::current_exe()?;
    let output = Command::new("unshare")
        .arg("-rn")
        .arg(myself)
        .args([
            "transparent::redirected_connections_reach_their_original_destination",
            "--exact",
            "--nocapture",
        ])
        .env(INSIDE, "1")
        .stderr(Stdio::inherit())
        .output()?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    print!("{stdout}");
    ensure!(output.status.success(), "failed in the namespace");
    // The harness succeeds if no test has the given name.
    ensure!(stdout.contains("1 passed"), "the test has another name");
    Ok(())
}

/// Prints why the test is skipped. In CI, where nothing may be missing, this is an error.
fn skip(reason: &str) -> Result<()> {
    ensure!(std::env::var_os("CI").is_none(), "{reason}");
    println!("skipped: {reason}");
    Ok(())
}

/// Runs commands; the error contains their standard error output.
fn run_shell(script: &str) -> Result<()> {
    let output = Command::new("sh").args(["-c", script]).output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Loads rules into nftables.
fn load_rules(rules: &str) -> Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    nft.stdin
        .take()
        .context("no pipe")?
        .write_all(rules.as_bytes())?;
    ensure!(nft.wait()?.success(), "nft refused the rules");
    Ok(())
}

fn test_in_namespace() -> Result<()> {
    run_shell(ROUTES)?;
    load_rules(RULES)?;
    let network = network_builder().relays(6).start()?;
    let echo = EchoServer::start()?;
    let service = network.service(ServiceOptions::with_port(80, echo.address()))?;
    let port = echo.address().port();

    let mappings = |v4: &str, v6: &str| {
        [
            format!("{v4}.9 good.test"),
            format!("{v4}.8 {}", service.address()),
            format!("{v4}.7 none.test"),
            format!("{v4}.6 foo.onion"),
            format!("[{v6}::9] good.test"),
        ]
    };
    let c_tor = network.c_tor_client(ClientOptions {
        extra_torrc_lines: mappings("198.51.100", "2001:db8:2")
            .iter()
            .map(|mapping| format!("MapAddress {mapping}"))
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
        &network,
        &format!(
            "trans_port = [\"{OURS}\", \"{OURS_V6}\"]\ndns_port = \"{OUR_DNS}\"\n\
             automap_hosts_on_resolve = true\nmap_address = {:?}",
            mappings("192.0.2", "2001:db8:1")
        ),
    )?;

    for net in ["192.0.2", "198.51.100"] {
        assert_eq!(send_and_receive(&format!("{net}.9:{port}"))?, DATA, "{net}");
        assert_eq!(send_and_receive(&format!("{net}.8:80"))?, DATA, "{net}");
        // An unknown name, an invalid onion address and a port that the service does not have: closed without data.
        for target in [
            format!("{net}.7:80"),
            format!("{net}.6:80"),
            format!("{net}.8:81"),
        ] {
            assert_eq!(send_and_receive(&target)?, "", "{target}");
        }
    }
    for net in ["2001:db8:1", "2001:db8:2"] {
        assert_eq!(
            send_and_receive(&format!("[{net}::9]:{port}"))?,
            DATA,
            "{net}"
        );
    }
    for dns in [OUR_DNS, THEIR_DNS] {
        let answer = exchange(dns.parse()?, &query(service.address(), A))?;
        let ip = address_in(&answer, A)?;
        assert_eq!(send_and_receive(&format!("{ip}:80"))?, DATA, "{ip}");
    }
    // Virtual addresses that are not assigned.
    for ip in ["127.192.77.77", "10.192.77.77"] {
        assert_eq!(send_and_receive(&format!("{ip}:80"))?, "", "{ip}");
    }
    // Not redirected. (C tor sends the request for its own port to an exit, which on this network reaches C tor again.)
    for port in [OURS, OURS_V6] {
        assert_eq!(send_and_receive(port)?, "");
    }
    let log = onionport.log();
    assert_eq!(log.matches("was not redirected").count(), 1, "{log}");
    drop((c_tor, onionport));

    if let Err(error) = load_rules(TPROXY_RULES) {
        network.mark_done();
        return skip(&format!("no TPROXY: {error}"));
    }
    let onionport = Onionport::start(
        &network,
        &format!(
            "trans_port = \"{OURS_TPROXY}\"\ntrans_proxy_type = \"TPROXY\"\nmap_address = {:?}",
            mappings("203.0.113", "2001:db8:3")
        ),
    )?;
    assert_eq!(send_and_receive(&format!("203.0.113.9:{port}"))?, DATA);
    assert_eq!(send_and_receive("203.0.113.8:80")?, DATA);
    assert_eq!(send_and_receive("203.0.113.7:80")?, "");
    assert_eq!(send_and_receive(OURS_TPROXY)?, "");
    assert!(onionport.log().contains("was not redirected"));
    network.mark_done();
    Ok(())
}

/// What a client sends before it has received anything.
const DATA: &str = "sent before any answer";

/// Connects, sends [`DATA`] at once, and returns what comes back, up to the same length.
fn send_and_receive(target: &str) -> Result<String> {
    let target: SocketAddr = target.parse()?;
    let mut stream =
        TcpStream::connect(target).with_context(|| format!("cannot connect to {target}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(DATA.as_bytes())?;
    let mut received = Vec::new();
    let read = (&mut stream)
        .take(DATA.len() as u64)
        .read_to_end(&mut received);
    match read {
        Ok(_) => {}
        // C tor resets a connection that still has unread data.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        // A panic, because it makes the test print the log.
        Err(error) => panic!("no data from {target}: {error}"),
    }
    Ok(String::from_utf8(received)?)
}
