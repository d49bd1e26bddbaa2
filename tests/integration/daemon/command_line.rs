//! Arguments, `--check-config`, and mistakes in the configuration file.

use std::fs;
use std::net::TcpListener;

use crate::support::offline::{assert_contains_all, error_line, unix_port};
use crate::support::program::{self, Program};

#[test]
fn check_config_opens_and_creates_nothing() {
    let program = Program::offline()
        .port("127.0.0.1:9150 ExtendedErrors")
        .arguments(&["--check-config"]);
    let unix = unix_port(&program.folder().join("socks"));
    let program = program.port(&unix);
    // If the program tried to bind this port, it would fail.
    let taken = TcpListener::bind("127.0.0.1:9150");
    let ended = program.run();
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.err);
    assert!(ended.err.is_empty(), "{:?}", ended.err);
    let report = ended.out.join("\n");
    let file = program.file().display().to_string();
    assert_contains_all(
        &report,
        &[
            &file,
            "127.0.0.1:9150 ExtendedErrors",
            &unix,
            "(codes F0 to F7)",
            // The second port has no ExtendedErrors.
            "uses only the codes of RFC 1928",
        ],
    );
    assert!(!report.contains("listening"), "{report}");
    drop(taken);
    let files: Vec<_> = fs::read_dir(program.folder())
        .expect("folder readable")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(files, ["onionport.toml"], "something was created");
}

#[test]
fn without_a_configuration_the_port_and_the_deadline_have_their_defaults() {
    let ended = program::run(&["--check-config"]);
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.err);
    assert_contains_all(
        &ended.out.join("\n"),
        &["socks port: 127.0.0.1:9150", "request deadline: 120s"],
    );
}

#[test]
fn a_mistake_in_the_file_is_reported_with_its_line_and_a_suggestion() {
    let program = Program::offline().config_lines("sock_port = 9150");
    let ended = program.run();
    let line = error_line(&ended, 1);
    let text = fs::read_to_string(program.file()).expect("configuration readable");
    let number = 1 + text
        .lines()
        .position(|l| l.starts_with("sock_port"))
        .expect("the mistake is in the file");
    let position = format!("{}:{number}", program.file().display());
    assert_contains_all(
        line,
        &[
            "onionport: ",
            &position,
            "proxy.sock_port",
            "proxy.socks_port",
        ],
    );
    // --check-config reports it too.
    let program = program.arguments(&["--check-config"]);
    assert_contains_all(
        error_line(&program.run(), 1),
        &[&position, "proxy.sock_port"],
    );
}

#[test]
fn a_bad_setting_is_reported_with_its_source() {
    let program = Program::offline().port("9150 SessionGroup=one");
    let ended = program.run();
    let file = program.file().display().to_string();
    assert_contains_all(
        error_line(&ended, 1),
        &[&file, "socks_port", "SessionGroup=one"],
    );
    let ended = program::run(&["--socks-port", "127.0.0.1"]);
    assert_contains_all(error_line(&ended, 1), &["--socks-port", "127.0.0.1:9150"]);
    let ended = program::run(&["-o", "proxy.socks_timeout=never"]);
    assert_contains_all(
        error_line(&ended, 1),
        &["-o proxy.socks_timeout: ", "write a time"],
    );
    let ended = program::run(&["-c", "/nonexistent/onionport.toml"]);
    assert_contains_all(
        error_line(&ended, 1),
        &["/nonexistent/onionport.toml", "no such file"],
    );
}

#[test]
fn a_bad_command_line_exits_with_status_2_and_one_line() {
    let cases: [(&[&str], &[&str]); 4] = [
        (
            &["--sock-port", "9150"],
            &["--sock-port", "--socks-port", "--help"],
        ),
        (&["prxy"], &["prxy"]),
        (&["--socks-port"], &["--socks-port"]),
        (&["proxy", "9150"], &["9150"]),
    ];
    for (arguments, parts) in cases {
        let ended = program::run(arguments);
        assert_contains_all(error_line(&ended, 2), &[&["onionport: "], parts].concat());
    }
}

#[test]
fn version_and_help_go_to_standard_output() {
    let ended = program::run(&["--version"]);
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(
        ended.out,
        [format!("onionport {}", env!("CARGO_PKG_VERSION"))]
    );
    assert!(ended.err.is_empty(), "{:?}", ended.err);
    let ended = program::run(&["--help"]);
    assert_eq!(ended.status.code(), Some(0));
    assert_contains_all(
        &ended.out.join("\n"),
        &["--socks-port", "--check-config", "Examples:"],
    );
    assert!(ended.err.is_empty(), "{:?}", ended.err);
}
