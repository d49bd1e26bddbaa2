//! Refused and ignored options.

use super::*;

#[test]
fn all_refused_options_are_listed_in_one_message() {
    let text = "SocksPort 9050\nORPort 9001\nNickname example\nHiddenServiceDir /a\n\
                HiddenServicePort 80\nExitPolicy accept *:80\nAuthoritativeDirectory 1\n\
                ExitNodes {us}\nNATDPort 5000";
    assert_eq!(
        read_error(text),
        "torrc:2 ORPort, torrc:3 Nickname, torrc:6 ExitPolicy: onionport is only a client; remove these \
         options of relays and bridges; \
         torrc:7 AuthoritativeDirectory: onionport is only a client; remove these options of directory \
         authorities; \
         torrc:4 HiddenServiceDir, torrc:5 HiddenServicePort: onionport is only a client; leave these \
         options of onion services to C tor or arti; \
         torrc:8 ExitNodes: arti cannot choose or avoid individual relays; remove these options if any \
         relay will do, or stay with C tor; \
         torrc:9 NATDPort: onionport has no port for natd; use TransPort"
    );
}

#[test]
fn options_that_are_off_are_not_refused() {
    let text = "ORPort 0\nDirPort 0\nExtORPort 0\nExitRelay 0\nBridgeRelay 0\nNATDPort 0\nControlPort 0\n\
                ExitPolicy reject *:*\nExitPolicy reject6 *:*, reject *:25\nPublishServerDescriptor 0\n\
                AccountingMax 0 bytes\nClientOnly 1\nDisableNetwork 0\nExitNodes\nDirCache 0\n\
                RelayBandwidthRate 0\nHiddenServiceStatistics 0\nDirReqStatistics 1\nSafeLogging 1";
    assert_gives(text, "");
    assert_eq!(read_warnings(text), Vec::<String>::new());
}

#[test]
fn options_that_users_rely_on_are_refused_and_not_ignored() {
    for option in [
        "ExcludeNodes {de}",
        "ExitNodes {us}",
        "EntryNodes 0123456789ABCDEF0123456789ABCDEF01234567",
        "MiddleNodes {us}",
        "ExcludeExitNodes {us}",
        "HSLayer2Nodes {us}",
        "NodeFamily a,b",
        "OutboundBindAddress 192.0.2.1",
        "TCPProxy haproxy 192.0.2.1:1",
        "DisableNetwork 1",
        "TestingTorNetwork 1",
        "DirAuthority a orport=1 192.0.2.1:1 89ABCDEF0123456789ABCDEF0123456789ABCDEF",
        "FallbackDir 192.0.2.1:80 orport=1 id=89ABCDEF0123456789ABCDEF0123456789ABCDEF",
        "UseDefaultFallbackDirs 0",
    ] {
        let name = option.split(' ').next().unwrap();
        let message = read_error(option);
        assert!(
            message.contains("torrc:1") && message.contains(name),
            "{message}"
        );
    }
}

#[test]
fn ignored_options_are_listed_with_a_remedy() {
    assert_eq!(
        read_warnings("ControlPort 9051\nCookieAuthentication 1\nUser tor\nNumEntryGuards 2"),
        [
            "torrc:1 ControlPort, torrc:2 CookieAuthentication: onionport has no control port, so \
             programs such as nyx and Tor Browser's launcher cannot control it; edit its files and \
             send SIGHUP, or send SIGUSR1 for new circuits",
            "torrc:3 User: onionport does not change its user; start it as the right user (systemd: \
             User=)",
            "torrc:4 NumEntryGuards: arti chooses guards by the network's parameters, and always uses \
             them",
        ]
    );
}

#[test]
fn redundant_values_cause_no_warning() {
    for line in [
        "HeartbeatPeriod 0",
        "DormantTimeoutEnabled 0",
        "CircuitPadding 0",
        "ShutdownWaitLength 0",
        "__ReloadTorrcOnSIGHUP 1",
        "DisableDebuggerAttachment 1",
        "DisableDebuggerAttachment 0",
    ] {
        assert_eq!(read_warnings(line), [""; 0], "{line}");
    }
    for (name, value) in options::redundant_values() {
        assert_eq!(read_warnings(&format!("{name} {value}")), [""; 0], "{name}");
        let option = options::find(name).unwrap().option;
        assert!(
            matches!(option.role, options::OptionRole::Ignored(_)) && option.default != *value,
            "{name} needs no entry"
        );
    }
    let [warning] = &read_warnings("ShutdownWaitLength 10")[..] else {
        panic!("no warning");
    };
    assert!(warning.contains("stops at once"), "{warning}");
    for (line, permitted) in [("1", false), ("0", true)] {
        assert_gives(
            &format!("DisableDebuggerAttachment {line}"),
            &format!("application.permit_debugging = {permitted}"),
        );
    }
}
