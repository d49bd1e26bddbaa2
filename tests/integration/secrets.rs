//! No secret gets into the log or onto a terminal: not at the finest level of the log, not with a
//! mistake beside it, not while the configuration is read again.
//!
//! Every test puts the same word where a password, a key or the secret of a bridge belongs, and looks
//! for it in everything that the program says.

use std::fs;
use std::path::Path;

use crate::support::client::Client;
use crate::support::process::Ended;
use crate::support::program::{Daemon, Program, run, set_mode};

/// The secret. Its letters are base32.
const CANARY: &str = "CANARYSECRETWORD";
/// What is left of it where two of its parts were torn apart.
const PARTS: [&str; 2] = ["CANARY", "SECRETWORD"];

const LABEL: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid";
const BRIDGE: &str = "0bac39417268b96b9f514ef763fa6fba1a788956";

/// Tables of a TOML file with a secret, and without a mistake. The addresses lead nowhere: 0.0.0.0 is
/// this computer, though arti does not know it.
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

/// Tables of a TOML file with a secret and a mistake.
const BAD: &[&str] = &[
    // In the URL of a proxy.
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
    // In the lines of bridges.
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

/// Lines of a torrc with a secret, and without a mistake.
const GOOD_TORRC: &[&str] = &[
    "Socks5Proxy 0.0.0.0:1\nSocks5ProxyUsername me\nSocks5ProxyPassword {}",
    "HashedControlPassword 16:{}",
    "HTTPProxy 127.0.0.1:1\nHTTPProxyAuthenticator me:{}",
    "UseBridges 1\nBridge obfs4 127.0.0.1:2 {B} cert={}\nClientTransportPlugin obfs4 socks5 127.0.0.1:1",
];

/// Lines of a torrc with a secret and a mistake.
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

/// `-o` options with a secret; all of them with a mistake.
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

/// A text with the secret in its place.
fn with_canary(text: &str) -> String {
    text.replace("{B}", BRIDGE).replace("{}", CANARY)
}

/// Fails if the secret stands in one of these lines, as text or as arti's list of numbers.
fn assert_silent<'a>(lines: impl IntoIterator<Item = &'a String>, what: &str) {
    let numbers: Vec<String> = CANARY[..6].bytes().map(|byte| byte.to_string()).collect();
    let numbers = numbers.join(", ");
    for line in lines {
        let upper = line.to_uppercase();
        let told = PARTS.iter().any(|part| upper.contains(part)) || line.contains(&numbers);
        assert!(!told, "{what}\n{line}");
    }
}

fn assert_ended_silent(ended: &Ended, what: &str) {
    assert_silent(ended.out.iter().chain(&ended.err), what);
}

/// A program that logs all there is.
fn tracing() -> Program {
    Program::offline()
        .arguments(&["-l", "trace"])
        .env("RUST_BACKTRACE", "full")
}

/// Tells a program to read its configuration again, and waits until it has told `what` once more.
fn reload(daemon: &Daemon, what: &str) {
    let log = daemon.process.err.all();
    let before = log.iter().filter(|line| line.contains(what)).count();
    daemon.process.signal("HUP");
    daemon.process.wait_err_times(what, before + 1);
}

fn end(daemon: Daemon) -> Ended {
    daemon.process.signal("TERM");
    daemon.process.wait()
}

#[test]
fn a_good_configuration_is_kept_to_itself() {
    for (tables, used) in GOOD {
        let text = with_canary(tables);
        let program = tracing().port("auto").proxy(&text);
        let ended = program.arguments(&["--check-config"]).run();
        assert_eq!(ended.status.code(), Some(0), "{text}: {:?}", ended.err);
        assert_ended_silent(&ended, &text);
        let daemon = tracing().port("auto").proxy(&text).start();
        daemon.process.wait_err(used);
        reload(&daemon, "configuration reloaded");
        let ended = end(daemon);
        assert!(ended.err.iter().any(|line| line.contains("TRACE")));
        assert_ended_silent(&ended, &text);
    }
}

#[test]
fn a_mistake_beside_a_secret_does_not_give_it_away() {
    let daemon = tracing().port("auto").start();
    let file = daemon.folder.path().join("onionport.toml");
    let good = fs::read_to_string(&file).expect("there");
    for tables in BAD {
        let text = with_canary(tables);
        let program = Program::offline()
            .proxy(&text)
            .arguments(&["--check-config"]);
        let ended = program.run();
        assert_eq!(ended.status.code(), Some(1), "{text}");
        assert_ended_silent(&ended, &text);
        // The line says where the mistake is: nobody sees what it is about otherwise.
        let [told] = &ended.err[..] else {
            panic!("{text}: {:?}", ended.err);
        };
        assert!(told.contains("onionport.toml:"), "{text}: {told}");
        fs::write(&file, format!("{good}\n{text}")).expect("written");
        reload(&daemon, "configuration not reloaded");
    }
    assert_ended_silent(&end(daemon), "reloads");
}

#[test]
fn a_torrc_is_kept_to_itself() {
    for lines in GOOD_TORRC {
        let text = with_canary(lines);
        let program = torrc(tracing(), &format!("SocksPort auto\n{text}\n"));
        let daemon = program.start_with_ports(1);
        reload(&daemon, "configuration reloaded");
        assert_ended_silent(&end(daemon), &text);
        // The output is the configuration itself, passwords and all.
        let program = torrc(Program::offline(), &text).arguments(&["--check-config"]);
        let ended = program.run();
        assert_eq!(ended.status.code(), Some(0), "{text}: {:?}", ended.err);
        assert_silent(&ended.err, &text);
        let comments = ended.out.iter().filter(|line| line.starts_with('#'));
        assert_silent(comments, &text);
    }
}

#[test]
fn a_mistake_in_a_torrc_does_not_give_a_secret_away() {
    let program = torrc(tracing(), "SocksPort auto\n");
    let file = program.folder().join("torrc");
    let daemon = program.start_with_ports(1);
    for lines in BAD_TORRC {
        let text = with_canary(lines);
        let program = torrc(Program::offline(), &text).arguments(&["--check-config"]);
        let ended = program.run();
        assert_eq!(ended.status.code(), Some(1), "{text}");
        assert_ended_silent(&ended, &text);
        assert!(ended.err[0].contains("torrc:"), "{text}: {:?}", ended.err);
        fs::write(&file, text).expect("written");
        reload(&daemon, "configuration not reloaded");
    }
    assert_ended_silent(&end(daemon), "reloads");
}

/// A program with a torrc as well.
fn torrc(program: Program, text: &str) -> Program {
    let file = program.folder().join("torrc");
    fs::write(&file, text).expect("written");
    program.arguments(&["--torrc", file.to_str().expect("UTF-8")])
}

#[test]
fn a_mistake_on_the_command_line_does_not_give_a_secret_away() {
    for option in BAD_OPTIONS {
        let option = with_canary(option);
        for more in [&[][..], &["--check-config"]] {
            let ended = tracing().arguments(&["-o", &option]).arguments(more).run();
            assert_eq!(ended.status.code(), Some(1), "{option}");
            assert_ended_silent(&ended, &option);
            assert!(ended.err[0].contains("-o "), "{option}: {:?}", ended.err);
        }
    }
    let url = with_canary("socks5://me:{}@127.0.0.1:9150");
    for option in [
        "--socks-port",
        "--http-port",
        "--dns-port",
        "--trans-port",
        "-l",
        "-c",
        "--torrc",
    ] {
        assert_ended_silent(&run(&[option, &url, "--check-config"]), option);
    }
    for word in [&url, &with_canary("w@{}"), &with_canary("--proxy={}")] {
        let ended = run(&[word]);
        assert_eq!(ended.status.code(), Some(2), "{word}");
        assert_ended_silent(&ended, word);
    }
}

#[test]
fn the_environment_is_kept_to_itself() {
    let url = with_canary("socks5://me:{}@127.0.0.1:1");
    let mut program = tracing().port("auto");
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
    assert_ended_silent(&end(daemon), "the environment");
}

#[test]
fn keys_are_kept_to_themselves_whatever_their_files_look_like() {
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
    let program = tracing().port("auto");
    let keys = program.folder().join("keys");
    fs::create_dir(&keys).expect("made");
    set_mode(&keys, 0o700);
    for (number, form) in forms.iter().enumerate() {
        write(&keys.join(format!("{number}.auth_private")), form);
    }
    let program = program.proxy(format!("client_onion_auth_dir = {keys:?}"));
    let daemon = program.start();
    daemon.process.wait_err("1 client authorization keys");
    reload(&daemon, "configuration reloaded");
    let ended = end(daemon);
    let told = |line: &&String| line.contains("WARN") && line.contains("is not used");
    assert_eq!(ended.err.iter().filter(told).count(), 2 * (forms.len() - 1));
    assert_ended_silent(&ended, "key files");
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    set_mode(path, 0o600);
}

/// Names and passwords that keep circuits apart say who somebody is, too.
#[tokio::test]
async fn what_clients_log_in_with_is_kept_to_itself() {
    let program = tracing().port("auto ExtendedErrors");
    let daemon = program
        .arguments(&["--http-port", "auto"])
        .proxy("http_port = \"auto\"");
    let daemon = daemon.start_with_ports(2);
    let [socks, http] = &daemon.addresses[..] else {
        panic!("{:?}", daemon.addresses);
    };
    let length = u8::try_from(CANARY.len()).expect("short");
    let mut login = vec![1, length];
    login.extend(CANARY.bytes());
    login.push(length);
    login.extend(CANARY.bytes());
    let mut client = Client::connect(socks).await;
    client.send("05 01 02").await;
    client.expect("05 02").await;
    client.send_bytes(&login).await;
    client.expect("01 00").await;
    // A bad onion address.
    client.send("05 01 00 03 09 6261642e6f6e696f6e 0050").await;
    client.expect("05 F6 00 01 00000000 0000").await;
    let basic = data_encoding::BASE64.encode(format!("me:{CANARY}").as_bytes());
    let head = format!(
        "CONNECT bad.onion:80 HTTP/1.1\r\nHost: bad.onion:80\r\nProxy-Authorization: Basic {basic}\r\n\
         Tor-Stream-Isolation: {CANARY}\r\n\r\n"
    );
    let mut client = Client::connect(http).await;
    client.send_bytes(head.as_bytes()).await;
    client.expect_bytes(b"HTTP/1.1 400").await;
    let ended = end(daemon);
    assert_ended_silent(&ended, "logins");
    assert!(!ended.err.iter().any(|line| line.contains(&basic)));
}
