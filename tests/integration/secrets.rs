//! No secret gets into the log or the error messages: not at trace level, not with a mistake beside
//! it, not during a reload.
//!
//! Each test puts the same word where a password, a key or the secret of a bridge belongs, and
//! searches the program's output for it.

use std::fs;

use crate::support::client::Client;
use crate::support::offline::{BAD_ONION_REQUEST, create_folder, write_private_file};
use crate::support::process::Ended;
use crate::support::program::{Daemon, Program, run};

/// The secret. Its letters are base32.
const CANARY: &str = "CANARYSECRETWORD";
/// Parts of the secret, each of which counts as a leak.
const PARTS: [&str; 2] = ["CANARY", "SECRETWORD"];

/// An onion address without `.onion`.
const LABEL: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid";
/// The fingerprint of a bridge.
const BRIDGE: &str = "0bac39417268b96b9f514ef763fa6fba1a788956";

/// Valid TOML tables with a secret, each with text that the log contains once the program uses them.
/// `{}` is replaced by [`CANARY`], `{B}` by [`BRIDGE`], here and in the tables below.
///
/// No process listens at the addresses. 0.0.0.0 is this computer, too, but not a loopback address to
/// arti, which therefore logs a warning about the proxy.
const GOOD: &[(&str, &str)] = &[
    (
        "[channel]\noutbound_proxy = \"socks5://me:{}@0.0.0.0:1\"",
        "Connecting to ",
    ),
    (
        "[channel]\noutbound_proxy = \"socks4://{}@127.0.0.1:1\"",
        "Connecting to ",
    ),
    (
        "[bridges]\nbridges = [\"obfs4 127.0.0.1:2 {B} cert={} iat-mode=0\"]\n\
         [[bridges.transports]]\nprotocols = [\"obfs4\"]\nproxy_addr = \"127.0.0.1:1\"",
        "Guard selected",
    ),
    (
        "[bridges]\nbridges = \"\"\"\nobfs4 127.0.0.1:2 {B} password={}\n\"\"\"\n\
         [[bridges.transports]]\nprotocols = [\"obfs4\"]\npath = \"/bin/false\"\narguments = [\"--pw\", \"{}\"]",
        "Guard selected",
    ),
];

/// TOML tables with a secret and a mistake.
const BAD: &[&str] = &[
    // In a proxy URL.
    "[channel]\noutbound_proxy = \"socks5://me:{}@proxy.example:1\"",
    "[channel]\noutbound_proxy = \"socks5://me:{}@127.0.0.1\"",
    "[channel]\noutbound_proxy = \"socks5://me:{}:127.0.0.1:1\"",
    "[channel]\noutbound_proxy = \"http://me:{}%40@127.0.0.1:1\"",
    "[channel]\noutbound_proxy = \"socks5://{}\"",
    "[channel]\noutbound_proxy = \"socks5://{}:1\"",
    "[channel]\noutbound_proxy = \"socks5:me:{}@127.0.0.1:1\"",
    "[channel]\noutbound_proxy = \"me:{}@127.0.0.1:1\"",
    "[channel]\noutbound_proxy = \"socks4://me:{}@127.0.0.1:1\"",
    "[channel]\noutbound_proxy = \"https://me:{}@127.0.0.1:1\"",
    "[channel]\noutbound_proxy = \"socks5://me:{}/x@127.0.0.1:1\"",
    "[channel]\noutbound_proxy = \"socks5://me:{}#@127.0.0.1:1\"",
    "[channel]\noutbound_proxy = \"socks5://me:{}\\\"@127.0.0.1:1/path\"",
    "[channel]\noutbound_proxy = \"socks5://me: {} @127.0.0.1:1/path\"",
    "[channel]\noutbound_proxy = \"socks5://me:{}%ff@127.0.0.1:1\"",
    "[channel]\noutbound_proxy = [\"socks5://me:{}@127.0.0.1:1\"]",
    "[channel]\noutbound_proxy = {url = \"socks5://me:{}@127.0.0.1:1\"}",
    "[channel]\noutbound_proxy = socks5://me:{}@127.0.0.1:1",
    "[channel]\noutbound_proxy = \"socks5://me:{}@127.0.0.1:1",
    "[channel]\noutbound_proxy = 'socks5://me:{}\n@127.0.0.1:1'",
    // Under other keys.
    "[channel]\npadding = \"socks5://me:{}@127.0.0.1:1\"",
    "[channel]\noutbound-proxy = \"socks5://me:{}@127.0.0.1:1\"",
    "outbound_proxy = \"socks5://me:{}@127.0.0.1:1\"",
    "[vanguards]\nmode = \"socks5://me:{}@127.0.0.1:1\"",
    "[system]\nmax_files = \"socks5://me:{}@127.0.0.1:1\"",
    "[circuit_timing]\nmax_dirtiness = \"socks5://me:{}@127.0.0.1:1\"",
    "[path_rules]\nreachable_addrs = [\"socks5://me:{}@127.0.0.1:1\"]",
    // In bridge lines.
    "[bridges]\nbridges = [\"obfs4 127.0.0.1:2 {B} {}\"]",
    "[bridges]\nbridges = [\"obfs4 {} 127.0.0.1:2 {B}\"]",
    "[bridges]\nbridges = [\"{} obfs4 127.0.0.1:2 {B}\"]",
    "[bridges]\nbridges = [\"obfs4 127.0.0.1:2 cert={}\"]",
    "[bridges]\nbridges = [\"127.0.0.1:2 {B} cert={}\"]",
    "[bridges]\nbridges = [\"obfs4 127.0.0.1:2 {B} cert={} =\"]",
    "[bridges]\nbridges = [\"obfs4 127.0.0.1:2 {B} cert={}\"]",
    "[bridges]\nbridges = \"obfs4 127.0.0.1:2 {B} {} x\"",
    "[bridges]\nbridges = [[\"obfs4 127.0.0.1:2 {B} cert={}\"]]",
    "[bridges]\nbridges = obfs4 127.0.0.1:2 {B} cert={}",
    "[bridges]\nbridges = [\"obfs4 127.0.0.1:2 {B}\ncert={}\"]",
    "[bridges]\nenabled = \"obfs4 127.0.0.1:2 {B} cert={}\"",
    "[[bridges.transports]]\nprotocols = [\"{}=x\"]\npath = \"/bin/false\"",
    "[[bridges.transports]]\nprotocols = [\"obfs4\"]\narguments = \"password={}\"\npath = \"/bin/false\"",
    "[[bridges.transports]]\nprotocols = [\"obfs4\"]\narguments = [\"{}\", 1]\npath = \"/bin/false\"",
    "[[bridges.transports]]\nprotocols = [\"obfs4\"]\nproxy_addr = \"me:{}@127.0.0.1:1\"",
    // In port lines.
    "[proxy]\ndns_port = \"socks5://me:{}@127.0.0.1:9150\"",
    "[proxy]\nhttp_port = \"9080 password={}\"\ndns_port = \"x\"",
];

/// Valid torrc lines with a secret.
const GOOD_TORRC: &[&str] = &[
    "Socks5Proxy 0.0.0.0:1\nSocks5ProxyUsername me\nSocks5ProxyPassword {}",
    "HashedControlPassword 16:{}",
    "HTTPProxy 127.0.0.1:1\nHTTPProxyAuthenticator me:{}",
    "UseBridges 1\nBridge obfs4 127.0.0.1:2 {B} cert={}\nClientTransportPlugin obfs4 socks5 127.0.0.1:1",
];

/// torrc lines with a secret and a mistake.
const BAD_TORRC: &[&str] = &[
    "HTTPSProxy 127.0.0.1:1\nHTTPSProxyAuthenticator me:{}",
    "HTTPSProxy me:{}@127.0.0.1:1",
    "HTTPSProxy http://me:{}@127.0.0.1:1",
    "HTTPSProxy 127.0.0.1:80\nHTTPSProxyAuthenticator me:{}",
    "HTTPSProxyAuthenticator me:{}\nHTTPSProxyAuthenticator=me:{}",
    "HTTPSProxyAuthenticator \"me:{}",
    "Socks5Proxy socks5://me:{}@127.0.0.1:1",
    "Socks5Proxy 127.0.0.1:1\nSocks5ProxyPassword {}",
    "Socks5Proxy 127.0.0.1:1\nSocks5ProxyPasswrd {}",
    "Socks5Proxy 127.0.0.1:1\nSocks5ProxyPassword={}",
    "Socks5Proxy 127.0.0.1:1\nSocks5ProxyPassword\n{}",
    "{} Socks5ProxyPassword",
    "Socks5Proxy 127.0.0.1:1\nSocks4Proxy 127.0.0.1:1\nSocks5ProxyUsername a\nSocks5ProxyPassword {}",
    "HashedControlPassword=16:{}",
    "16:{}",
    "UseBridges 1\nBridge obfs4 127.0.0.1:2 {B} {}",
    "UseBridges 1\nBridge obfs4 127.0.0.1:2 cert={}",
    "UseBridges 1\nBridge {} obfs4 127.0.0.1:2 {B}",
    "UseBridges 1\nBridge 127.0.0.1:2 {B} cert={}",
    "UseBridges 1\nBridge obfs4 127.0.0.1:2 {B}\ncert={}",
    "UseBridges 1\nClientTransportPlugin obfs4 {} /bin/false\nBridge 127.0.0.1:2 {B}",
    "ClientTransportPlugin {}=x exec /bin/false",
    "ClientTransportPlugin obfs4 socks5 me:{}@127.0.0.1:1",
    "ClientTransportPlugin obfs4 password={}",
    "ServerTransportOptions obfs4 password={}",
    "TCPProxy haproxy me:{}@127.0.0.1:1",
    "BridgePassword {}",
    "SocksPort socks5://me:{}@127.0.0.1:9150",
    "ConnLimit socks5://me:{}@127.0.0.1:1",
];

/// `-o` options with a secret and a mistake.
const BAD_OPTIONS: &[&str] = &[
    "channel.outbound_proxy=socks5://me:{}@proxy.example:1",
    "channel.outbound_proxy=\"socks5://me:{}@127.0.0.1:1",
    "channel.outbound_proxy socks5://me:{}@127.0.0.1:1",
    "channel.outbound_proxy:socks5://me:{}@127.0.0.1:1",
    "channel.outbound_prxy=socks5://me:{}@127.0.0.1:1",
    "channel.padding=socks5://me:{}@127.0.0.1:1",
    "socks5://me:{}@127.0.0.1:1",
    "{}",
    "me:{}=x",
    "bridges.bridges=[\"obfs4 127.0.0.1:2 {B} {}\"]",
    "bridges.bridges=obfs4 127.0.0.1:2 {B} {}",
    "proxy.socks_port=socks5://me:{}@127.0.0.1:1",
];

/// Replaces the placeholders of a text by the secret and the bridge.
fn insert_secret(text: &str) -> String {
    text.replace("{B}", BRIDGE).replace("{}", CANARY)
}

/// Asserts that none of the lines contains the secret, as text or as a list of byte values, which is
/// how `Debug` prints a byte string.
#[track_caller]
fn assert_no_secret<'a>(lines: impl IntoIterator<Item = &'a String>, context: &str) {
    let numbers: Vec<String> = CANARY[..6].bytes().map(|byte| byte.to_string()).collect();
    let numbers = numbers.join(", ");
    for line in lines {
        let upper = line.to_uppercase();
        let leaked = PARTS.iter().any(|part| upper.contains(part)) || line.contains(&numbers);
        assert!(!leaked, "{context}\n{line}");
    }
}

/// Asserts that the secret is neither on standard output nor on standard error.
#[track_caller]
fn assert_no_secret_in_output(ended: &Ended, context: &str) {
    assert_no_secret(ended.out.iter().chain(&ended.err), context);
}

/// Returns a program that logs at trace level.
fn tracing_program() -> Program {
    Program::offline()
        .arguments(&["-l", "trace"])
        .env("RUST_BACKTRACE", "full")
}

/// Sends SIGHUP and waits for one more log line that contains `text`.
fn reload(daemon: &Daemon, text: &str) {
    let log = daemon.process.err.all();
    let before = log.iter().filter(|line| line.contains(text)).count();
    daemon.process.signal("HUP");
    daemon.process.wait_err_times(text, before + 1);
}

#[test]
fn a_valid_configuration_leaks_no_secret() {
    for (tables, used) in GOOD {
        let text = insert_secret(tables);
        let program = tracing_program().port("auto").config_lines(&text);
        let ended = program.arguments(&["--check-config"]).run();
        assert_eq!(ended.status.code(), Some(0), "{text}: {:?}", ended.err);
        assert_no_secret_in_output(&ended, &text);
        let daemon = tracing_program().port("auto").config_lines(&text).start();
        daemon.process.wait_err(used);
        reload(&daemon, "configuration reloaded");
        let ended = daemon.stop();
        assert!(ended.err.iter().any(|line| line.contains("TRACE")));
        assert_no_secret_in_output(&ended, &text);
    }
}

#[test]
fn a_mistake_beside_a_secret_leaks_no_secret() {
    let daemon = tracing_program().port("auto").start();
    let file = daemon.config_file();
    let good = fs::read_to_string(&file).expect("configuration readable");
    for tables in BAD {
        let text = insert_secret(tables);
        let program = Program::offline()
            .config_lines(&text)
            .arguments(&["--check-config"]);
        let ended = program.run();
        assert_eq!(ended.status.code(), Some(1), "{text}");
        assert_no_secret_in_output(&ended, &text);
        // The value is left out, so the user needs the position to find the mistake.
        let [error] = &ended.err[..] else {
            panic!("{text}: {:?}", ended.err);
        };
        assert!(error.contains("onionport.toml:"), "{text}: {error}");
        fs::write(&file, format!("{good}\n{text}")).expect("configuration written");
        reload(&daemon, "configuration not reloaded");
    }
    assert_no_secret_in_output(&daemon.stop(), "reloads");
}

#[test]
fn a_valid_torrc_leaks_no_secret() {
    for lines in GOOD_TORRC {
        let text = insert_secret(lines);
        let program = tracing_program().torrc(&format!("SocksPort auto\n{text}\n"));
        let daemon = program.start_with_ports(1);
        reload(&daemon, "configuration reloaded");
        assert_no_secret_in_output(&daemon.stop(), &text);
        // --check-config prints the converted configuration, which contains the passwords. Its
        // comments and warnings must not.
        let program = Program::offline().torrc(&text);
        let ended = program.arguments(&["--check-config"]).run();
        assert_eq!(ended.status.code(), Some(0), "{text}: {:?}", ended.err);
        assert_no_secret(&ended.err, &text);
        let comments = ended.out.iter().filter(|line| line.starts_with('#'));
        assert_no_secret(comments, &text);
    }
}

#[test]
fn a_mistake_in_a_torrc_leaks_no_secret() {
    let program = tracing_program().torrc("SocksPort auto\n");
    let file = program.folder().join("torrc");
    let daemon = program.start_with_ports(1);
    for lines in BAD_TORRC {
        let text = insert_secret(lines);
        let program = Program::offline().torrc(&text);
        let ended = program.arguments(&["--check-config"]).run();
        assert_eq!(ended.status.code(), Some(1), "{text}");
        assert_no_secret_in_output(&ended, &text);
        assert!(ended.err[0].contains("torrc:"), "{text}: {:?}", ended.err);
        fs::write(&file, text).expect("torrc written");
        reload(&daemon, "configuration not reloaded");
    }
    assert_no_secret_in_output(&daemon.stop(), "reloads");
}

#[test]
fn a_mistake_on_the_command_line_leaks_no_secret() {
    for option in BAD_OPTIONS {
        let option = insert_secret(option);
        for more in [&[][..], &["--check-config"]] {
            let program = tracing_program().arguments(&["-o", &option]);
            let ended = program.arguments(more).run();
            assert_eq!(ended.status.code(), Some(1), "{option}");
            assert_no_secret_in_output(&ended, &option);
            assert!(ended.err[0].contains("-o "), "{option}: {:?}", ended.err);
        }
    }
    let url = insert_secret("socks5://me:{}@127.0.0.1:9150");
    for option in [
        "--socks-port",
        "--http-port",
        "--dns-port",
        "--trans-port",
        "-l",
        "-c",
        "--torrc",
    ] {
        assert_no_secret_in_output(&run(&[option, &url, "--check-config"]), option);
    }
    for argument in [&url, &insert_secret("w@{}"), &insert_secret("--proxy={}")] {
        let ended = run(&[argument]);
        assert_eq!(ended.status.code(), Some(2), "{argument}");
        assert_no_secret_in_output(&ended, argument);
    }
}

#[test]
fn the_environment_leaks_no_secret() {
    let url = insert_secret("socks5://me:{}@127.0.0.1:1");
    let mut program = tracing_program().port("auto");
    for name in [
        "ALL_PROXY",
        "HTTPS_PROXY",
        "ARTI_CACHE",
        "TOR_CONTROL_PASSWD",
    ] {
        program = program.env(name, &url);
    }
    let daemon = program.start();
    daemon.process.wait_err("Connecting to ");
    assert_no_secret_in_output(&daemon.stop(), "the environment");
}

#[test]
fn key_files_leak_no_key_whatever_their_form() {
    let key = format!("{CANARY}{}", &"A".repeat(52)[CANARY.len()..]);
    let forms = [
        format!("{LABEL}:descriptor:x25519:{key}\n"),
        format!("{LABEL}:descriptor:x25519:{key}====\n"),
        format!("{LABEL}:descriptor:x25519:{key}\n").repeat(2),
        format!("{LABEL}:x25519:{key}:descriptor\n"),
        format!("{LABEL}:{key}:descriptor:x25519\n"),
        format!("{key}:{LABEL}:descriptor:x25519\n"),
        format!("{key}:descriptor:x25519:{LABEL}\n"),
        format!("descriptor:x25519:{key}\n"),
        format!("{key}\n"),
        format!("{LABEL}:descriptor:x25519:{}\n", &key[1..]),
        format!("{LABEL}:descriptor:x25519:{key} # mine\n"),
    ];
    let program = tracing_program().port("auto");
    let keys = program.folder().join("keys");
    create_folder(&keys, 0o700);
    for (number, form) in forms.iter().enumerate() {
        write_private_file(&keys.join(format!("{number}.auth_private")), form);
    }
    let program = program.config_lines(format!("client_onion_auth_dir = {keys:?}"));
    let daemon = program.start();
    daemon.process.wait_err("1 client authorization keys");
    reload(&daemon, "configuration reloaded");
    let ended = daemon.stop();
    let is_warning = |line: &&String| line.contains("WARN") && line.contains("is not used");
    let warnings = ended.err.iter().filter(is_warning).count();
    // Only the first form is valid; the start and the reload warn about each of the others.
    assert_eq!(warnings, 2 * (forms.len() - 1));
    assert_no_secret_in_output(&ended, "key files");
}

/// Clients use names and passwords to isolate circuits; these can identify a user, too.
#[tokio::test]
async fn client_credentials_are_not_logged() {
    let daemon = tracing_program()
        .port("auto ExtendedErrors")
        .arguments(&["--http-port", "auto"])
        .config_lines("http_port = \"auto\"")
        .start_with_ports(2);
    let [socks, http] = &daemon.addresses[..] else {
        panic!("{:?}", daemon.addresses);
    };
    let length = u8::try_from(CANARY.len()).expect("a short name");
    let mut credentials = vec![1, length];
    credentials.extend(CANARY.bytes());
    credentials.push(length);
    credentials.extend(CANARY.bytes());
    let mut client = Client::connect(socks).await;
    client.send("05 01 02").await;
    client.expect("05 02").await;
    client.send_bytes(&credentials).await;
    client.expect("01 00").await;
    client.send(BAD_ONION_REQUEST).await;
    client.expect("05 F6 00 01 00000000 0000").await;
    let basic = data_encoding::BASE64.encode(format!("me:{CANARY}").as_bytes());
    let head = format!(
        "CONNECT bad.onion:80 HTTP/1.1\r\nHost: bad.onion:80\r\nProxy-Authorization: Basic {basic}\r\n\
         Tor-Stream-Isolation: {CANARY}\r\n\r\n"
    );
    let mut client = Client::connect(http).await;
    client.send_bytes(head.as_bytes()).await;
    client.expect_bytes(b"HTTP/1.1 400").await;
    let ended = daemon.stop();
    assert_no_secret_in_output(&ended, "credentials");
    assert!(!ended.err.iter().any(|line| line.contains(&basic)));
}
