//! The real program with C tor's configuration files.

use std::fs;

use crate::support::client::Client;
use crate::support::http::{read_response, send_text};
use crate::support::offline::{assert_contains_all, error_line, request_bad_onion};
use crate::support::program::Program;

#[tokio::test]
async fn the_socks_ports_of_a_torrc_open_with_their_flags_and_safe_socks_applies() {
    let daemon = Program::offline()
        .torrc(
            "SocksPort 127.0.0.1:auto ExtendedErrors # codes\n\
             +SocksPort 127.0.0.1:auto \\\n  PreferSOCKSNoAuth\n\
             SafeSocks 1\n",
        )
        .start_with_ports(2);
    for (place, code) in daemon.addresses.iter().zip([0xF6, 0x01]) {
        assert_eq!(request_bad_onion(place).await, code);
    }
    // PreferSOCKSNoAuth: the port chooses "no authentication" although the client also offers a password.
    let mut client = Client::connect(&daemon.addresses[1]).await;
    client.send("05 02 00 02").await;
    client.expect("05 00").await;
    // SafeSocks refuses a request with an IP address.
    client.send("05 01 00 01 c0000201 0050").await;
    client.expect("05 02 00 01 00000000 0000").await;
}

#[tokio::test]
async fn the_http_tunnel_port_of_a_torrc_opens_and_obeys_the_policy() {
    for (policy, served) in [("accept 127.0.0.1", true), ("reject 127.0.0.1", false)] {
        let lines = format!("SocksPort 0\nHTTPTunnelPort 127.0.0.1:auto\nSocksPolicy {policy}\n");
        let daemon = Program::offline().torrc(&lines).start_with_ports(1);
        let mut client = Client::connect(&daemon.addresses[0]).await;
        if served {
            send_text(&mut client, "CONNECT bad.onion:80 HTTP/1.1\nHost: a\n\n").await;
            let answer = read_response(&mut client).await;
            let tokens = answer.header("tor-request-failed").expect("tokens");
            assert!(tokens.starts_with("onionport/HS-BAD-ADDRESS "), "{tokens}");
        } else {
            let (received, _) = client.read_to_end().await;
            assert_eq!(received, b"");
        }
    }
}

#[test]
fn check_config_converts_a_torrc_to_an_equivalent_toml_file() {
    let program = Program::offline().torrc(
        "SocksPort 127.0.0.1:9052 IsolateDestAddr\nSocksPort 0.0.0.0:9053\nSocksPolicy accept 192.168.0.0/16, reject *\n\
         SocksTimeout 1 minute\nMaxCircuitDirtiness 5 minutes\nControlPort 9051\n",
    );
    let ended = program.arguments(&["--check-config"]).run();
    assert!(ended.status.success(), "{:?}", ended.err);
    let toml = ended.out.join("\n");
    assert_contains_all(&toml, &["ControlPort"]);

    let converted = Program::offline();
    let file = converted.folder().join("converted.toml");
    fs::write(&file, &toml).expect("file written");
    let file = file.to_str().expect("path in UTF-8").to_owned();
    let ended = converted.arguments(&["-c", &file, "--check-config"]).run();
    assert!(ended.status.success(), "{toml}\n{:?}", ended.err);
    assert_contains_all(
        &ended.out.join("\n"),
        &[
            "socks port: 127.0.0.1:9052 IsolateDestAddr",
            "socks port: 0.0.0.0:9053",
            "accept 192.168.0.0/16, reject *",
            "request deadline: 60s",
        ],
    );
}

#[test]
fn a_toml_file_overrides_a_torrc_and_check_config_warns_about_both() {
    let program = Program::offline().torrc("SocksPort 127.0.0.1:9052\n");
    let file = program.folder().join("overriding.toml");
    let keys = program.folder().join("keys");
    fs::create_dir(&keys).expect("folder created");
    fs::write(keys.join("bad.auth_private"), "no key").expect("file written");
    let text = format!(
        "[proxy]\nsocks_listen = \"0.0.0.0:9053\"\nclient_onion_auth_dir = {keys:?}\n\
         [storage.permissions]\ndangerously_trust_everyone = true\n"
    );
    fs::write(&file, text).expect("file written");
    let file = file.to_str().expect("path in UTF-8").to_owned();
    let program = program.arguments(&["-c", &file, "--check-config"]);
    let ended = program.run();
    assert!(ended.status.success(), "{:?}", ended.err);
    assert_contains_all(
        &ended.err.join("\n"),
        &["socks_listen", "0.0.0.0:9053", "bad.auth_private"],
    );
    // The output is the torrc alone, and a warning says so.
    let ended = program
        .arguments(&["--http-port", "9080", "-o", "proxy.safe_socks=true"])
        .run();
    assert!(ended.status.success(), "{:?}", ended.err);
    let output = ended.out.join("\n");
    assert_contains_all(&output, &["127.0.0.1:9052"]);
    for text in ["9053", "9080", "safe_socks"] {
        assert!(!output.contains(text), "{text} is in {output}");
    }
    assert_contains_all(
        &ended.err.join("\n"),
        &["not those of -c, -o, --http-port: "],
    );
}

#[test]
fn options_of_relays_and_services_are_refused_in_one_error() {
    let lines = "SocksPort auto\nORPort 9001\nHiddenServiceDir /x\nExitRelay 1\n";
    let ended = Program::offline().torrc(lines).run();
    assert_contains_all(
        error_line(&ended, 1),
        &[
            "torrc:2",
            "ORPort",
            "torrc:3",
            "HiddenServiceDir",
            "torrc:4",
            "ExitRelay",
        ],
    );
}

#[test]
fn a_bad_line_is_an_error_with_its_line_number_and_no_port_opens() {
    for (lines, parts) in [
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
        let ended = Program::offline().torrc(lines).run();
        assert_contains_all(error_line(&ended, 1), &parts);
    }
}
