//! The real program with C tor's configuration files.

use std::fs;

use crate::support::client::Client;
use crate::support::http::{read_response, send_text};
use crate::support::program::Program;

/// A program whose folder holds `torrc` with these lines, which is named on its command line.
fn with_torrc(lines: &str) -> Program {
    let program = Program::offline();
    let file = program.folder().join("torrc");
    fs::write(&file, lines).expect("written");
    program.arguments(&["--torrc", file.to_str().expect("UTF-8")])
}

#[tokio::test]
async fn the_ports_of_a_torrc_are_served_with_their_flags_and_neighbours() {
    let daemon = with_torrc(
        "SocksPort 127.0.0.1:auto ExtendedErrors # codes\n\
         +SocksPort 127.0.0.1:auto \\\n  PreferSOCKSNoAuth\n\
         SafeSocks 1\n",
    )
    .start_with_ports(2);
    // A bad onion address: F6 where the line says ExtendedErrors.
    for (place, code) in daemon.addresses.iter().zip(["f6", "01"]) {
        let mut client = Client::connect(place).await;
        client.send("05 01 00").await;
        client.expect("05 00").await;
        client.send("05 01 00 03 09 6261642e6f6e696f6e 0050").await;
        client
            .expect(&format!("05 {code} 00 01 00000000 0000"))
            .await;
    }
    let mut client = Client::connect(&daemon.addresses[1]).await;
    client.send("05 02 00 02").await;
    client.expect("05 00").await;
    client.send("05 01 00 01 c0000201 0050").await;
    client.expect("05 02 00 01 00000000 0000").await;
}

#[tokio::test]
async fn the_http_tunnel_port_of_a_torrc_is_served_for_those_whom_the_policy_admits() {
    for (policy, served) in [("accept 127.0.0.1", true), ("reject 127.0.0.1", false)] {
        let lines = format!("SocksPort 0\nHTTPTunnelPort 127.0.0.1:auto\nSocksPolicy {policy}\n");
        let daemon = with_torrc(&lines).start_with_ports(1);
        let mut client = Client::connect(&daemon.addresses[0]).await;
        if served {
            send_text(&mut client, "CONNECT bad.onion:80 HTTP/1.1\nHost: a\n\n").await;
            let told = read_response(&mut client).await;
            let tokens = told.header("tor-request-failed").expect("tokens");
            assert!(tokens.starts_with("onionport/HS-BAD-ADDRESS "), "{tokens}");
        } else {
            let (said, _) = client.read_to_end().await;
            assert_eq!(said, b"");
        }
    }
}

#[test]
fn a_torrc_becomes_a_configuration_that_says_the_same() {
    let program = with_torrc(
        "SocksPort 127.0.0.1:9052 IsolateDestAddr\nSocksPort 0.0.0.0:9053\nSocksPolicy accept 192.168.0.0/16, reject *\n\
         SocksTimeout 1 minute\nMaxCircuitDirtiness 5 minutes\nControlPort 9051\n",
    );
    let ended = program.arguments(&["--check-config"]).run();
    assert!(ended.status.success(), "{:?}", ended.err);
    let toml = ended.out.join("\n");
    assert!(toml.contains("ControlPort"), "{toml}");

    let kept = Program::offline();
    let file = kept.folder().join("kept.toml");
    fs::write(&file, &toml).expect("written");
    let file = file.to_str().expect("UTF-8").to_owned();
    let ended = kept.arguments(&["-c", &file, "--check-config"]).run();
    assert!(ended.status.success(), "{toml}\n{:?}", ended.err);
    let said = ended.out.join("\n");
    for words in [
        "socks port: 127.0.0.1:9052 IsolateDestAddr",
        "socks port: 0.0.0.0:9053",
        "accept 192.168.0.0/16, reject *",
        "request deadline: 60s",
    ] {
        assert!(said.contains(words), "{words} is missing in {said}");
    }
}

#[test]
fn a_toml_file_counts_over_a_torrc_and_both_are_warned_of() {
    let program = with_torrc("SocksPort 127.0.0.1:9052\n");
    let file = program.folder().join("ours.toml");
    let keys = program.folder().join("keys");
    fs::create_dir(&keys).expect("made");
    fs::write(keys.join("bad.auth_private"), "no key").expect("written");
    let text = format!(
        "[proxy]\nsocks_listen = \"0.0.0.0:9053\"\nclient_onion_auth_dir = {keys:?}\n\
         [storage.permissions]\ndangerously_trust_everyone = true\n"
    );
    fs::write(&file, text).expect("written");
    let file = file.to_str().expect("UTF-8").to_owned();
    let program = program.arguments(&["-c", &file, "--check-config"]);
    let ended = program.run();
    assert!(ended.status.success(), "{:?}", ended.err);
    let said = ended.err.join("\n");
    for words in ["socks_listen", "0.0.0.0:9053", "bad.auth_private"] {
        assert!(said.contains(words), "{words} is missing in {said}");
    }
    // What is printed is the torrc alone, and that is said.
    let ended = program
        .arguments(&["--http-port", "9080", "-o", "proxy.safe_socks=true"])
        .run();
    assert!(ended.status.success(), "{:?}", ended.err);
    let printed = ended.out.join("\n");
    assert!(printed.contains("127.0.0.1:9052"), "{printed}");
    for words in ["9053", "9080", "safe_socks"] {
        assert!(!printed.contains(words), "{words} stands in {printed}");
    }
    let said = ended.err.join("\n");
    assert!(said.contains("without -c, -o, --http-port: "), "{said}");
}

#[test]
fn what_is_no_clients_business_is_refused_in_one_message() {
    let ended = with_torrc("SocksPort auto\nORPort 9001\nHiddenServiceDir /x\nExitRelay 1\n").run();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.out.is_empty(), "{:?}", ended.out);
    let [error] = &ended.err[..] else {
        panic!("not one line: {:?}", ended.err);
    };
    for words in [
        "torrc:2",
        "ORPort",
        "torrc:3",
        "HiddenServiceDir",
        "torrc:4",
        "ExitRelay",
    ] {
        assert!(error.contains(words), "{words} is missing in {error}");
    }
}

#[test]
fn a_bad_line_is_told_with_its_place_and_nothing_is_opened() {
    for (lines, words) in [
        ("SocksPort auto\nSocksPort 70000\n", ["torrc:2", "70000"]),
        (
            "SocksPort auto\nSocksPolicy permit *\n",
            ["torrc:2", "permit"],
        ),
        ("SocksPort auto\nSafeSocks yes\n", ["torrc:2", "SafeSocks"]),
        (
            "SocksPort auto\nSocksPolcy reject *\n",
            ["torrc:2 SocksPolcy", "SocksPolicy"],
        ),
        (
            "SocksPort auto SessionGroup=x\n",
            ["torrc:1", "SessionGroup"],
        ),
    ] {
        let ended = with_torrc(lines).run();
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.out.is_empty(), "{:?}", ended.out);
        let [error] = &ended.err[..] else {
            panic!("not one line: {:?}", ended.err);
        };
        for word in words {
            assert!(error.contains(word), "{word} is missing in {error}");
        }
    }
}
