//! Which values are accepted (`tor --verify-config`).

use std::fs;

use super::run_tor;
use crate::config::torrc::read;

#[test]
fn client_options_that_c_tor_accepts_are_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("torrc");
    for text in [
        "Log notice",
        "Log err-notice stderr",
        "Log NOTICE STDOUT",
        "Log [~net,~mm]info-notice [ net , mm ]debug stdout",
        "Log notice [net] info stdout",
        "Log notice file /tmp/a b",
        "Log [general,crypto,net,config,fs,protocol,mm,http,app,control,circ,rend,bug,dir,dirserv,or,\
         edge,acct,hist,handshake,heartbeat,channel,sched,guard,consdiff,dos,process,pt,btrack,mesg]\
         warn syslog",
        "Socks5Proxy 192.0.2.1",
        "HTTPSProxy [2001:db8::1]",
        "Socks5ProxyUsername a\nSocks5ProxyPassword b",
        "Socks5Proxy localhost:9050",
        "UseBridges 1\nBridge 192.0.2.1:443 4352 E584 20E6 8F5E 40BF 7C74 FADD CCD9 D134 9413",
        "ReachableAddresses 99.0.0.0/8, reject 18.0.0.0/8:80, accept *:80",
        "ClientTransportPlugin snow socks5 127.0.0.1:99 x",
        "CircuitStreamTimeout 5\nMaxCircuitDirtiness 40 days",
        "CircuitStreamTimeout 2 hours\nSocksTimeout 3 hours",
        "ClientUseIPv4 0\nClientUseIPv6 0",
        "FascistFirewall 1\nFirewallPorts 80,444",
        "ReachableAddresses 192.0.2.0/24:80, accept *:443, reject *:*",
        "TransPort 9040\nTransProxyType tproxy",
        "MaxMemInQueues 512 MB\nConnLimit 20",
        "ORPort 0\nExitPolicy reject *:*\nExitRelay 0\nPublishServerDescriptor 0",
    ] {
        fs::write(&file, text).unwrap();
        let Some((good, output)) = run_tor(&["--verify-config"], &[&file], folder.path()) else {
            return;
        };
        assert!(good, "C tor refuses {text:?}: {output}");
        read(std::slice::from_ref(&file)).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn client_options_that_c_tor_refuses_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("torrc");
    for text in [
        "UseBridges 1",
        "HTTPSProxy 192.0.2.1:0",
        "Socks5Proxy 192.0.2.1:1\nHTTPSProxy 192.0.2.1:2",
        "Socks5Proxy 192.0.2.1:1\nSocks5ProxyUsername a",
        "ClientTransportPlugin obfs4",
        "ClientTransportPlugin obfs4 exec",
        "ClientTransportPlugin a-b exec /x",
        "ClientTransportPlugin snow socks5 127.0.0.1",
        "ClientTransportPlugin a,b frob x",
        "LongLivedPorts x",
        "WarnPlaintextPorts 70000",
        "RejectPlaintextPorts 0",
        "ConnLimit 0",
        "TransProxyType TPROXY",
        "TransPort 9040\nTransProxyType frob",
        "ReachableAddresses foo",
        "VirtualAddrNetworkIPv4",
        "Log info,notice stdout",
        "Log stdout",
        "Log notice file",
        "Log frob stdout",
        "Log notice frob",
        "Log [frob]notice stdout",
        "Log [net,]notice stdout",
        "Log [net] stdout",
        "Log [net notice stdout",
    ] {
        fs::write(&file, text).unwrap();
        let Some((good, _)) = run_tor(&["--verify-config"], &[&file], folder.path()) else {
            return;
        };
        assert!(!good, "C tor accepts {text:?}");
        let error = read(std::slice::from_ref(&file))
            .expect_err(text)
            .to_string();
        assert!(error.contains("torrc:"), "{text}: {error}");
    }
}

/// Rules for `SocksPolicy` and `ReachableAddresses` in many spellings.
const RULES: &[&str] = &[
    "*",
    "*:80",
    "*4",
    "*6:80",
    "*4/8",
    "*/0",
    "*6/64",
    "[*]",
    "[*4]:80",
    "**",
    "*:",
    "*:0",
    "1.2.3.4",
    "1.2.3.4:",
    "1.2.3.4:80",
    "1.2.3.4:80-90",
    "1.2.3.4:90-80",
    "1.2.3.4:80-",
    "1.2.3.4:80x",
    "1.2.3.4:0",
    "1.2.3.4:65536",
    "1.2.3.4:*",
    "1.2.3.4:80:90",
    "1.2.3.4: 80",
    "1.2.3.4/8",
    "1.2.3.4/",
    "1.2.3.4/:80",
    "1.2.3.4/08",
    "1.2.3.4/33",
    "1.2.3.4/255.0.0.0:80",
    "1.2.3.4/255.0.255.0",
    "1.2.3.4/8/8",
    "1.2.3.4:80/8",
    "1.2.3",
    "01.2.3.4",
    "10/8",
    "[1.2.3.4]",
    "[1.2.3.4]/8:80",
    "::1",
    "::1/128",
    "::1/129",
    "::1:80",
    "::/0",
    "::/0:80",
    "FC00::/7",
    "2001:db8::/32:443",
    "2001:db8::/32:443-444",
    "2001:DB8::/32:*",
    "2001:db8:::/32",
    "[::1]",
    "[::1]:80",
    "[::1]/64:80",
    "[2001:db8::]/32",
    "[::1",
    "::1]",
    "[::1%lo]",
    "fe80::1%lo/64",
    "[::]/255.0.0.0",
    "[::ffff:1.2.3.4]/120",
    "[::ffff:1.2.3.4]/40",
    "[::ffff:1.2.3.4]",
    "private:*",
    "private:80",
    "private:",
    "[private]",
    "private/8",
    "PRIVATE:*",
    "public",
    "localhost",
    "1.2.3.4, reject *:*",
    "1.2.3.4,, *",
    ",",
    "1.2.3.4;1.2.3.5",
    "1.2.3.4 5",
    "",
];

#[test]
fn address_rules_are_accepted_and_refused_as_by_c_tor() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("torrc");
    let verbs = ["", "accept ", "reject6 ", "accept6 ", "Accept ", "permit "];
    for option in ["SocksPolicy", "ReachableAddresses"] {
        for (verb, rule) in verbs
            .iter()
            .flat_map(|verb| RULES.iter().map(move |rule| (verb, rule)))
        {
            // The first rule keeps something reachable.
            let text = format!("{option} accept *:443\n{option} {verb}{rule}\n");
            fs::write(&file, &text).unwrap();
            let Some((good, output)) = run_tor(&["--verify-config"], &[&file], folder.path())
            else {
                return;
            };
            let args = crate::config::ProxyArgs {
                torrc: vec![file.clone()],
                ..Default::default()
            };
            let ours = crate::config::load(&args);
            assert_eq!(good, ours.is_ok(), "{text}: {output} {:?}", ours.err());
            // A rule that C tor ignores is ignored here.
            if let Ok(config) = ours {
                let ours = config.warnings.iter().any(|w| w.contains("ignored rule"));
                let theirs = output.contains("Ignoring, but continuing to parse rules");
                assert_eq!(theirs, ours, "{text}: {output} {:?}", config.warnings);
            }
        }
    }
}
