//! The real program: how it starts, what it says, how it stops.

use std::fs::{self, File};
use std::net::{IpAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::support::client::{Client, ListenAddr};
use crate::support::hex::socks5_request;
use crate::support::process::Ended;
use crate::support::program::{self, Daemon, Program, private_folder, set_mode};
use crate::support::unresponsive_listener::UnresponsiveListener;
use crate::support::unused_address::unused_addresses;
use crate::support::{LIMIT, ONION};

/// What "at once" may take on a busy machine: what is told from it takes minutes.
const AT_ONCE: Duration = LIMIT;
/// CONNECT to foo.onion, port 80.
const CONNECT_BAD_ONION: &str = "05 01 00 03 09 666f6f2e6f6e696f6e 0050";

/// A client that has chosen no authentication.
async fn greeted(place: &ListenAddr) -> Client {
    let mut client = Client::connect(place).await;
    client.send("05 01 00").await;
    client.expect("05 00").await;
    client
}

/// The program answers clients.
async fn assert_serves(place: &ListenAddr) {
    let mut client = Client::connect(place).await;
    client.send("04 f0 0000 01020304 00").await;
    client.expect("00 5a 0000 01020304").await;
    client.expect_end().await;
}

/// Whether a TCP port can be bound, which it cannot while somebody listens there.
fn is_free(place: &ListenAddr) -> bool {
    match place {
        ListenAddr::Tcp(address) => TcpListener::bind(address).is_ok(),
        ListenAddr::Unix(path) => !path.exists(),
    }
}

fn exit_status(ended: &Ended) -> Option<i32> {
    ended.status.code()
}

/// The one line of an error on standard error; nothing is on standard output.
fn error_line(ended: &Ended, status: i32) -> &str {
    assert_eq!(exit_status(ended), Some(status), "{:?}", ended.err);
    assert!(ended.out.is_empty(), "{:?}", ended.out);
    let [line] = &ended.err[..] else {
        panic!("expected one line: {:#?}", ended.err);
    };
    line
}

/// The line, after log lines, with which the program says why it stops.
fn last_words(ended: &Ended) -> &str {
    assert_eq!(exit_status(ended), Some(1), "{:?}", ended.err);
    let words: Vec<_> = ended
        .err
        .iter()
        .filter(|line| line.starts_with("onionport: "))
        .collect();
    let [line] = words[..] else {
        panic!("expected one line of the program's own: {:#?}", ended.err);
    };
    assert_eq!(Some(line), ended.err.last());
    line
}

#[track_caller]
fn assert_mentions(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "{word:?} is missing in: {line}");
    }
}

// --- Ports ---

#[tokio::test]
async fn each_port_is_named_as_it_really_is_and_nothing_else_is_printed() {
    let program = Program::offline()
        .port("auto")
        .port("127.0.0.1:auto ExtendedErrors");
    let socket = program.folder().join("socks");
    let daemon = program.port(format!("unix:{}", socket.display())).start();
    let [
        ListenAddr::Tcp(first),
        ListenAddr::Tcp(second),
        ListenAddr::Unix(third),
    ] = &daemon.addresses[..]
    else {
        panic!("{:?}", daemon.addresses);
    };
    assert!(first.ip().is_loopback() && first.port() != 0, "{first}");
    assert!(second.ip().is_loopback() && second.port() != 0, "{second}");
    assert_ne!(first, second);
    assert_eq!(third, &socket);
    for place in &daemon.addresses {
        assert_serves(place).await;
    }
    let expected = vec![
        format!("listening socks {first}"),
        format!("listening socks {second}"),
        format!("listening socks unix:{}", socket.display()),
    ];
    // Above all not `bootstrapped`: there is no network.
    assert_eq!(daemon.process.out.all(), expected);
    daemon.process.signal("TERM");
    let Daemon {
        process, folder, ..
    } = daemon;
    assert_eq!(process.wait().out, expected);
    drop(folder);
}

#[tokio::test]
async fn ports_on_the_command_line_replace_those_of_the_file() {
    let daemon = Program::offline()
        .port("127.0.0.1:1")
        .arguments(&[
            "--socks-port",
            "auto ExtendedErrors",
            "--socks-port",
            "auto",
        ])
        .start_with_ports(2);
    for (place, code) in daemon.addresses.iter().zip(["f6", "01"]) {
        let mut client = greeted(place).await;
        client.send(CONNECT_BAD_ONION).await;
        client
            .expect(&format!("05 {code} 00 01 00000000 0000"))
            .await;
        client.expect_end().await;
    }
    assert_eq!(daemon.process.out.all().len(), 2);
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_leaves_nothing_half_open() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken_address = taken.local_addr().expect("bound");
    // The first of the ports, which must not stay open.
    let [free] = unused_addresses();
    let program = Program::offline();
    let socket = program.folder().join("socks");
    let program = program
        .port(free.to_string())
        .port(format!("unix:{}", socket.display()))
        .port(taken_address.to_string());
    let ended = program.run();
    let line = last_words(&ended);
    assert_mentions(
        line,
        &[
            &taken_address.to_string(),
            "in use",
            "another port or `auto`",
        ],
    );
    assert!(ended.out.is_empty(), "{:?}", ended.out);
    assert!(
        is_free(&ListenAddr::Tcp(free.into())),
        "{free} is still open"
    );
    assert!(!socket.exists(), "the socket's file was left");
    assert!(UnixStream::connect(&socket).is_err());
}

#[tokio::test]
async fn a_unix_socket_that_somebody_listens_on_is_left_to_them() {
    let first = Program::offline();
    let socket = first.folder().join("socks");
    let line = format!("unix:{}", socket.display());
    let first = first.port(&line).start();
    let second = Program::offline().port(&line);
    let ended = second.run();
    assert_mentions(last_words(&ended), &[&line, "another program listens"]);
    assert_serves(&first.addresses[0]).await;
}

/// Connecting to it to see whether anybody listens would wait for good.
#[test]
fn a_unix_socket_that_a_stopped_program_listens_on_is_an_error_too() {
    let program = Program::offline();
    let socket = program.folder().join("socks");
    let _stopped = UnresponsiveListener::listen(&socket);
    let line = format!("unix:{}", socket.display());
    let ended = program.port(&line).run();
    assert_mentions(last_words(&ended), &[&line, "another program listens"]);
}

#[test]
fn an_address_that_is_not_there_is_an_error_that_names_the_way_out() {
    let ended = Program::offline().port("192.0.2.1:9150").run();
    let words = [
        "192.0.2.1:9150",
        "an address of this computer",
        "FreeBind=yes",
    ];
    assert_mentions(last_words(&ended), &words);
}

#[tokio::test]
async fn a_unix_socket_left_by_a_crash_is_taken_over() {
    let folder = private_folder();
    let socket = folder.path().join("socks");
    let line = format!("unix:{}", socket.display());
    let crashed = Program::offline().port(&line).start();
    crashed.process.signal("KILL");
    crashed.process.wait();
    assert!(
        socket.exists(),
        "nothing is left by a program that is killed"
    );
    let daemon = Program::offline().port(&line).start();
    assert_serves(&daemon.addresses[0]).await;
}

#[tokio::test]
async fn nobody_reading_standard_output_is_no_reason_to_stop() {
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("a device that is full");
    let program = Program::offline();
    let socket = program.folder().join("socks");
    let line = format!("unix:{}", socket.display());
    let mut daemon = program.port(line).output(full).launch();
    let listening = async {
        while UnixStream::connect(&socket).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, listening)
        .await
        .expect("the port is not open");
    assert_serves(&ListenAddr::Unix(socket)).await;
    assert!(daemon.process.is_alive());
}

/// Somebody makes a file of it, and would not know that the file is not whole.
#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let full = || File::options().write(true).open("/dev/full").expect("full");
    for argument in ["--check-config", "--help", "--version"] {
        let program = Program::offline().arguments(&[argument]).output(full());
        let ended = program.run();
        assert_mentions(
            error_line(&ended, 1),
            &["onionport: ", "cannot write to standard output"],
        );
    }
}

/// Who starts the program may stop reading its log: what it does not take must not hold up a client.
#[tokio::test]
async fn nobody_reading_the_log_is_no_reason_to_stop() {
    /// Each leaves a line in the log, more than a pipe and the queue before it hold.
    const FAILURES: usize = 6000;
    let program = Program::offline();
    let pipe = program.folder().join("log");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let log = File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .expect("both ends of it");
    let daemon = program.port("auto").log(log).start();
    let failures = async {
        for _ in 0..FAILURES {
            let mut client = Client::connect(&daemon.addresses[0]).await;
            // A bad onion address.
            client.send("05 01 00").await;
            client.expect("05 00").await;
            client.send("05 01 00 03 09 6261642e6f6e696f6e 0050").await;
            client.expect("05 01 00 01 00000000 0000").await;
        }
    };
    timeout(10 * LIMIT, failures)
        .await
        .expect("clients go unanswered");
    // Nor is it a reason not to end.
    daemon.process.signal("TERM");
    assert_eq!(exit_status(&daemon.process.wait()), Some(0));
}

#[tokio::test]
async fn a_program_without_ports_says_that_nothing_can_use_it() {
    let mut daemon = Program::offline()
        .arguments(&["--socks-port", "0"])
        .launch();
    daemon.process.wait_err("no port is open");
    assert!(daemon.process.is_alive());
    assert!(daemon.process.out.all().is_empty());
}

// --- Signals ---

#[tokio::test]
async fn a_signal_to_stop_is_obeyed_at_once_and_leaves_no_socket_behind() {
    // Again and again, since what is left may depend on which task is first.
    for round in 0..10 {
        for signal in ["TERM", "INT"] {
            let program = Program::offline();
            let socket = program.folder().join("socks");
            let line = format!("unix:{}", socket.display());
            let [port] = unused_addresses();
            let daemon = program.port(port.to_string()).port(line).start();
            // Clients in the middle of something do not hold it up.
            let _idle = Client::connect(&daemon.addresses[0]).await;
            let mut waiting = greeted(&daemon.addresses[1]).await;
            waiting.send_bytes(&socks5_request(1, ONION, 80)).await;
            let asked = Instant::now();
            daemon.process.signal(signal);
            let Daemon {
                process,
                addresses: places,
                folder,
            } = daemon;
            let ended = process.wait();
            assert_eq!(exit_status(&ended), Some(0), "{signal}: {:#?}", ended.err);
            assert!(asked.elapsed() < AT_ONCE, "{signal}: {:?}", asked.elapsed());
            assert!(
                !socket.exists(),
                "round {round}: {signal} left the socket's file"
            );
            assert!(is_free(&places[0]), "{signal} left {} open", places[0]);
            drop(folder);
        }
    }
}

#[tokio::test]
async fn a_signal_right_after_the_ports_are_named_is_not_too_early() {
    for _ in 0..10 {
        let program = Program::offline();
        let socket = program.folder().join("socks");
        let daemon = program.port(format!("unix:{}", socket.display())).start();
        daemon.process.signal("TERM");
        let Daemon {
            process, folder, ..
        } = daemon;
        let status: ExitStatus = process.wait().status;
        assert!(status.success(), "{status}");
        assert!(!socket.exists(), "the socket's file was left");
        drop(folder);
    }
}

// --- Requests without a network ---

#[tokio::test]
async fn a_bad_onion_address_needs_no_network_to_be_told() {
    let daemon = Program::offline()
        .port("auto")
        .port("auto ExtendedErrors")
        .start();
    for (place, code) in daemon.addresses.iter().zip(["01", "f6"]) {
        let mut client = greeted(place).await;
        let asked = Instant::now();
        client.send(CONNECT_BAD_ONION).await;
        client
            .expect(&format!("05 {code} 00 01 00000000 0000"))
            .await;
        client.expect_end().await;
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    }
}

#[tokio::test]
async fn a_request_that_the_network_cannot_answer_times_out_with_06_at_the_deadline() {
    let program = Program::offline().port("auto").port("auto ExtendedErrors");
    let socket = program.folder().join("socks");
    let daemon = program
        .port(format!("unix:{} ExtendedErrors", socket.display()))
        .arguments(&["-o", "proxy.socks_timeout=2"])
        .start();
    let mut asking = tokio::task::JoinSet::new();
    let v4 = "05 06 00 01 00000000 0000";
    let replies = [v4, v4, "05 06 00 04 00*16 0000"];
    for (place, reply) in daemon.addresses.iter().zip(replies) {
        for host in [ONION, "name.example", "192.0.2.1"] {
            let place = place.clone();
            asking.spawn(async move {
                let mut client = greeted(&place).await;
                let asked = Instant::now();
                client.send_bytes(&socks5_request(1, host, 80)).await;
                client.expect(reply).await;
                let took = asked.elapsed().as_secs_f32();
                let late = 2.0 + LIMIT.as_secs_f32();
                assert!((1.9..late).contains(&took), "{host} on {place}: {took} s");
                client.expect_end().await;
            });
        }
    }
    let place = daemon.addresses[0].clone();
    asking.spawn(async move {
        let mut client = greeted(&place).await;
        client
            .send_bytes(&socks5_request(0xf0, "name.example", 0))
            .await;
        client.expect("05 04 00 00 00000000 0000").await;
        client.expect_end().await;
    });
    while let Some(asked) = asking.join_next().await {
        asked.expect("answered as expected");
    }
}

#[tokio::test]
async fn the_address_filter_of_the_configuration_is_heeded() {
    let onion = socks5_request(0x01, ONION, 80);
    let private = socks5_request(0x01, "10.0.0.1", 80);
    let whose = socks5_request(0xf1, "10.0.0.1", 0);
    // What is allowed waits for the network until the deadline; what is not is told at once.
    let not_connected = "05 06 00 01 00000000 0000";
    let not_found = "05 04 00 00 00000000 0000";
    let cases = [
        ("onion", true, &onion, not_connected),
        ("onion", false, &onion, "05 02 00 01 00000000 0000"),
        ("local", true, &private, not_connected),
        ("local", false, &private, "05 01 00 01 00000000 0000"),
        ("resolving_local", true, &whose, not_found),
        ("resolving_local", false, &whose, not_found),
    ];
    for (kind, allowed, request, reply) in cases {
        let option = format!("address_filter.allow_{kind}_addrs={allowed}");
        let daemon = Program::offline()
            .port("auto")
            .arguments(&["-o", "proxy.socks_timeout=2", "-o", &option])
            .start();
        let mut client = greeted(&daemon.addresses[0]).await;
        let asked = Instant::now();
        client.send_bytes(request).await;
        client.expect(reply).await;
        let waited = asked.elapsed() > Duration::from_millis(1900);
        assert_eq!(waited, allowed, "{option}: {:?}", asked.elapsed());
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_closed_at_the_deadline() {
    let daemon = Program::offline()
        .port("auto")
        .proxy("socks_timeout = \"1 s\"")
        .start();
    let mut client = greeted(&daemon.addresses[0]).await;
    client.send("05 01 00").await;
    client.expect_end().await;
}

// --- The command line and the file ---

#[test]
fn a_configuration_is_checked_without_opening_anything() {
    let program = Program::offline()
        .port("127.0.0.1:9150 ExtendedErrors")
        .arguments(&["--check-config"]);
    let socket = program.folder().join("socks");
    let program = program.port(format!("unix:{}", socket.display()));
    // Were it to bind anything, this would be in its way.
    let taken = TcpListener::bind("127.0.0.1:9150");
    let ended = program.run();
    assert_eq!(exit_status(&ended), Some(0), "{:?}", ended.err);
    assert!(ended.err.is_empty(), "{:?}", ended.err);
    let said = ended.out.join("\n");
    let file = program.file().display().to_string();
    let line = format!("unix:{}", socket.display());
    assert_mentions(
        &said,
        &[
            &file,
            "127.0.0.1:9150 ExtendedErrors",
            &line,
            "F0 to F7",
            "2",
        ],
    );
    assert!(!said.contains("listening"), "{said}");
    drop(taken);
    let made: Vec<_> = fs::read_dir(program.folder())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(made, ["onionport.toml"], "something was made");
    // Without any configuration it is the port that people expect.
    let ended = program::run(&["--check-config"]);
    assert_eq!(exit_status(&ended), Some(0), "{:?}", ended.err);
    assert_mentions(
        &ended.out.join("\n"),
        &["socks port: 127.0.0.1:9150", "request deadline: 120s"],
    );
}

#[test]
fn a_mistake_in_the_file_is_told_with_its_place_and_what_was_meant() {
    let program = Program::offline().proxy("sock_port = 9150");
    let ended = program.run();
    let line = error_line(&ended, 1);
    let text = fs::read_to_string(program.file()).expect("written");
    let number = 1 + text
        .lines()
        .position(|l| l.starts_with("sock_port"))
        .expect("there");
    let place = format!("{}:{number}", program.file().display());
    assert_mentions(
        line,
        &["onionport: ", &place, "proxy.sock_port", "proxy.socks_port"],
    );
    // The same with nothing but a check.
    let program = program.arguments(&["--check-config"]);
    assert_mentions(error_line(&program.run(), 1), &[":", "proxy.sock_port"]);
}

#[test]
fn a_bad_port_line_is_told_with_its_place_wherever_it_stands() {
    let program = Program::offline().port("9150 SessionGroup=one");
    let ended = program.run();
    let file = program.file().display().to_string();
    assert_mentions(
        error_line(&ended, 1),
        &[&file, "socks_port", "SessionGroup=one"],
    );
    let ended = program::run(&["--socks-port", "127.0.0.1"]);
    assert_mentions(error_line(&ended, 1), &["--socks-port", "127.0.0.1:9150"]);
    let ended = program::run(&["-o", "proxy.socks_timeout=never"]);
    assert_mentions(
        error_line(&ended, 1),
        &["-o proxy.socks_timeout: ", "write a time"],
    );
    let ended = program::run(&["-c", "/nonexistent/onionport.toml"]);
    assert_mentions(
        error_line(&ended, 1),
        &["/nonexistent/onionport.toml", "no such file"],
    );
}

#[test]
fn a_command_line_that_cannot_be_read_is_status_2_and_one_line() {
    let cases: [(&[&str], &[&str]); 4] = [
        (
            &["--sock-port", "9150"],
            &["--sock-port", "--socks-port", "--help"],
        ),
        (&["prxy"], &["prxy"]),
        (&["--socks-port"], &["--socks-port"]),
        (&["proxy", "9150"], &["9150"]),
    ];
    for (words, mentions) in cases {
        let ended = program::run(words);
        assert_mentions(
            error_line(&ended, 2),
            &[&["onionport: "], mentions].concat(),
        );
    }
}

#[test]
fn version_and_help_go_to_standard_output() {
    let ended = program::run(&["--version"]);
    assert_eq!(exit_status(&ended), Some(0));
    assert_eq!(
        ended.out,
        [format!("onionport {}", env!("CARGO_PKG_VERSION"))]
    );
    assert!(ended.err.is_empty(), "{:?}", ended.err);
    let ended = program::run(&["--help"]);
    assert_eq!(exit_status(&ended), Some(0));
    assert_mentions(
        &ended.out.join("\n"),
        &["--socks-port", "--check-config", "Examples:"],
    );
    assert!(ended.err.is_empty(), "{:?}", ended.err);
}

// --- The log ---

/// What must not stand in the log: parts of the targets and of the client's address.
const TELL_TALES: [&str; 6] = [
    "tell-tale",
    "tell..tale",
    "pg6mmj",
    "203.0.113.",
    "10.77.77.",
    "127.77.77.",
];
/// User name and password of all requests, and the same in hex.
const CREDENTIALS: [&str; 2] = ["s3cret", "733363726574"];

/// Sends requests for targets that can be told apart, and gives the log.
async fn log_of(filter: &str) -> Vec<String> {
    let daemon = Program::offline()
        .port("auto")
        .port("auto ExtendedErrors")
        .arguments(&["-l", filter, "-o", "proxy.socks_timeout=1"])
        .start();
    let hosts = [
        "tell-tale.example",
        ONION,
        // Wrong in its checksum, in its length, and as a host name.
        "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryx.onion",
        "tell-tale.onion",
        "tell-tale.local",
        "tell..tale",
        "203.0.113.77",
        "10.77.77.77",
    ];
    let from = IpAddr::from([127, 77, 77, 77]);
    let mut asking = tokio::task::JoinSet::new();
    for place in &daemon.addresses {
        for host in hosts {
            for command in [0x01, 0xf0] {
                let place = place.clone();
                asking.spawn(async move {
                    let mut client = Client::connect_from(from, &place).await;
                    client.send("05 01 02").await;
                    client.expect("05 02").await;
                    client.send("01 06 733363726574 06 733363726574").await;
                    client.expect("01 00").await;
                    client.send_bytes(&socks5_request(command, host, 80)).await;
                    let (reply, _) = client.read_to_end().await;
                    assert!(!reply.is_empty(), "{host}");
                });
            }
        }
    }
    while let Some(asked) = asking.join_next().await {
        asked.expect("answered");
    }
    daemon.process.signal("TERM");
    let Daemon {
        process, folder, ..
    } = daemon;
    let log = process.wait().err;
    drop(folder);
    log
}

#[tokio::test]
async fn no_level_of_the_log_above_debug_names_targets_or_clients() {
    for filter in ["info", "info,onionport=debug", "debug"] {
        let log = log_of(filter).await;
        // It is the log of these requests, and says what came of them.
        for outcome in [
            "onion address invalid",
            "private address",
            "not connected to Tor",
        ] {
            assert!(
                log.iter().any(|line| line.contains(outcome)),
                "{filter}: {log:#?}"
            );
        }
        for line in &log {
            let low = line.to_lowercase();
            for secret in CREDENTIALS {
                assert!(
                    !low.contains(secret),
                    "{filter}: {secret} stands in: {line}"
                );
            }
            if line.contains(" DEBUG ") {
                continue;
            }
            for tell_tale in TELL_TALES {
                assert!(
                    !low.contains(tell_tale),
                    "{filter}: {tell_tale} stands in: {line}"
                );
            }
        }
    }
}

/// What stands before the first blank of a line of the log.
fn time_of(line: &str) -> &str {
    line.split_once(' ').expect("a line of the log").0
}

#[tokio::test]
async fn times_of_the_log_are_exact_to_a_second_unless_more_is_asked_for() {
    for (options, length) in [
        (&[][..], "2026-01-02T03:04:05Z".len()),
        (
            &["-o", "logging.time_granularity=1ms"],
            "2026-01-02T03:04:05.678Z".len(),
        ),
    ] {
        let daemon = Program::offline().port("auto").arguments(options).start();
        let line = daemon.process.wait_err("connecting to Tor");
        assert_eq!(time_of(&line).len(), length, "{line}");
        assert!(time_of(&line).ends_with('Z'), "{line}");
    }
}

/// C tor tells them at any level too.
#[tokio::test]
async fn no_level_of_the_log_hides_configuration_that_is_not_obeyed() {
    for level in ["error", "off", "error,onionport=off", "warn", "debug"] {
        let daemon = Program::offline()
            .port("auto Wombat")
            .arguments(&["-l", level])
            .start();
        daemon.process.wait_err("Wombat");
        let file = daemon.folder.path().join("onionport.toml");
        let text = fs::read_to_string(&file).expect("readable");
        fs::write(&file, text.replace("[proxy]", "[prxy]")).expect("written");
        daemon.process.signal("HUP");
        daemon.process.wait_err("configuration not reloaded");
        daemon.process.signal("TERM");
        let Daemon {
            process, folder, ..
        } = daemon;
        let log = process.wait().err;
        drop(folder);
        for words in ["Wombat", "configuration not reloaded"] {
            let told = log.iter().filter(|line| line.contains(words)).count();
            assert_eq!(told, 1, "{level}: {log:#?}");
        }
        if ["error", "off"].contains(&level) {
            assert_eq!(log.len(), 2, "{level}: {log:#?}");
        }
    }
}

// --- Client authorization keys ---

/// A good key file for the service of [`ONION`].
fn write_key(path: &Path) {
    let label = ONION.strip_suffix(".onion").expect("an onion address");
    let key = "YDPBBAYQMPIOEWCWQJRNRFD4RIXU3B52ASVTM3M54MSRE6FPTR6Q";
    fs::write(path, format!("{label}:descriptor:x25519:{key}\n")).expect("written");
    set_mode(path, 0o600);
}

/// A program that reads keys in the folder `keys` of its own folder, which is made with this mode.
fn with_keys(mode: u32) -> Program {
    let program = Program::offline().check_permissions().port("auto");
    let keys = program.folder().join("keys");
    fs::create_dir(&keys).expect("made");
    set_mode(&keys, mode);
    program.proxy(format!("client_onion_auth_dir = {keys:?}"))
}

#[tokio::test]
async fn a_bad_key_file_is_named_and_costs_nothing_else() {
    let program = with_keys(0o700);
    let keys = program.folder().join("keys");
    write_key(&keys.join("good.auth_private"));
    fs::write(keys.join("bad.auth_private"), "nonsense\n").expect("written");
    fs::write(keys.join("notes.txt"), "nonsense\n").expect("written");
    let mut daemon = program.start();
    let warning = daemon.process.wait_err("bad.auth_private");
    assert_mentions(
        &warning,
        &["WARN", "is not used", &keys.display().to_string()],
    );
    daemon.process.wait_err("1 client authorization keys");
    assert_serves(&daemon.addresses[0]).await;
    // It looks again when it is told to.
    write_key(&keys.join("new.auth_private"));
    fs::write(keys.join("worse.auth_private"), "nonsense\n").expect("written");
    daemon.process.signal("HUP");
    daemon.process.wait_err("worse.auth_private");
    assert_serves(&daemon.addresses[0]).await;
    assert!(daemon.process.is_alive());
    let log = daemon.process.err.all().join("\n");
    assert!(
        !log.contains("good.auth_private") && !log.contains("notes.txt"),
        "{log}"
    );
    assert!(!log.contains("nonsense") && !log.contains("YDPB"), "{log}");
}

/// Most key files have the address of their service as their name.
#[tokio::test]
async fn a_bad_key_file_whose_name_is_an_address_is_named_at_debug_alone() {
    let label = ONION.strip_suffix(".onion").expect("an onion address");
    for level in ["info", "debug"] {
        let program = with_keys(0o700).arguments(&["-l", level]);
        let keys = program.folder().join("keys");
        let bad = |name: String| keys.join(name);
        fs::write(bad(format!("{label}.auth_private")), "nonsense\n").expect("written");
        std::os::unix::fs::symlink("/nonexistent", bad(format!("{label}-2.auth_private")))
            .expect("a dead link");
        let daemon = program.start();
        daemon.process.wait_err("0 client authorization keys");
        let log = daemon.process.err.all();
        let warnings: Vec<_> = log.iter().filter(|l| l.contains("is not used")).collect();
        let (named, unnamed): (Vec<&&String>, Vec<&&String>) =
            warnings.iter().partition(|l| l.contains(label));
        assert_eq!(
            named.len(),
            if level == "debug" { 2 } else { 0 },
            "{log:#?}"
        );
        assert!(
            named.iter().all(|line| line.contains("DEBUG")),
            "{named:#?}"
        );
        assert_eq!(unnamed.len(), 2, "{log:#?}");
        for line in unnamed {
            let folder = keys.display().to_string();
            assert_mentions(line, &["WARN", &folder, "--check-config", "level debug"]);
        }
        if level == "info" {
            assert!(!log.join("\n").contains(label), "{log:#?}");
        }
    }
    // Whoever asks is told.
    let program = with_keys(0o700).arguments(&["--check-config"]);
    let name = format!("{label}.auth_private");
    fs::write(program.folder().join("keys").join(&name), "nonsense\n").expect("written");
    assert!(program.run().err[0].contains(&name));
}

#[test]
fn a_key_folder_that_others_can_enter_is_refused_at_start() {
    for mode in [0o755, 0o750, 0o701] {
        let program = with_keys(mode);
        let ended = program.run();
        let keys = program.folder().join("keys").display().to_string();
        let line = last_words(&ended);
        assert_mentions(line, &["client_onion_auth_dir", &keys, "0700"]);
        assert!(ended.out.is_empty(), "{mode:o}: {:?}", ended.out);
    }
}

#[test]
fn a_key_folder_that_is_not_there_is_refused_at_start() {
    let program = Program::offline().check_permissions().port("auto");
    let keys = program.folder().join("keys");
    let program = program.proxy(format!("client_onion_auth_dir = {keys:?}"));
    let ended = program.run();
    let path = keys.display().to_string();
    assert_mentions(
        last_words(&ended),
        &["client_onion_auth_dir", &path, "0700"],
    );
    assert!(ended.out.is_empty(), "{:?}", ended.out);
    assert!(!keys.exists());
}
