//! Standard output or a log that is full or unread.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::time::timeout;

use super::assert_serves;
use crate::support::LIMIT;
use crate::support::client::ListenAddr;
use crate::support::offline::{assert_contains_all, error_line, request_bad_onion, unix_port};
use crate::support::program::Program;
use crate::support::unused_address::unused_addresses;

/// Opens a file to which every write fails with "no space left on device".
fn open_full_device() -> File {
    let device = File::options().write(true).open("/dev/full");
    device.expect("/dev/full opens")
}

#[tokio::test]
async fn a_full_standard_output_does_not_stop_the_program() {
    let program = Program::offline();
    let socket = program.folder().join("socks");
    let port = unix_port(&socket);
    let mut daemon = program.port(port).output(open_full_device()).launch();
    let listening = async {
        while UnixStream::connect(&socket).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, listening)
        .await
        .expect("the port does not open");
    assert_serves(&ListenAddr::Unix(socket)).await;
    assert!(daemon.process.is_alive());
}

#[tokio::test]
async fn an_unread_standard_output_delays_neither_clients_nor_the_exit() {
    let [port] = unused_addresses();
    let (reader, writer) = std::io::pipe().expect("pipe created");
    let mut full = File::from(OwnedFd::from(writer));
    fcntl(&full, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("non-blocking");
    while full.write(&[b'x'; 4096]).is_ok() {}
    fcntl(&full, FcntlArg::F_SETFL(OFlag::empty())).expect("blocking");
    let daemon = Program::offline()
        .port(format!("{port} ExtendedErrors"))
        .arguments(&["-l", "debug"])
        .output(full)
        .launch();
    daemon
        .process
        .wait_err("standard output is full; skipped: listening socks");
    let place = ListenAddr::Tcp(port.into());
    assert_eq!(request_bad_onion(&place).await, 0xF6);
    assert!(daemon.stop().status.success());
    drop(reader);
}

/// Otherwise a user who redirects the output to a file does not notice that the file is incomplete.
#[test]
fn output_that_cannot_be_written_is_an_error() {
    for argument in ["--check-config", "--help", "--version"] {
        let program = Program::offline()
            .arguments(&[argument])
            .output(open_full_device());
        let ended = program.run();
        assert_contains_all(
            error_line(&ended, 1),
            &["onionport: ", "cannot write to standard output"],
        );
    }
}

/// A parent process may stop reading the log; log lines must not delay clients then.
#[tokio::test]
async fn an_unread_log_does_not_stop_the_program() {
    /// Each failure is a line in the log: more than a pipe and the log's queue hold together.
    const FAILURES: usize = 6000;
    let program = Program::offline();
    let pipe = program.folder().join("log");
    mkfifo(&pipe, Mode::S_IRWXU).expect("named pipe created");
    let log = File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .expect("both ends of the pipe open");
    let daemon = program.port("auto").log(log).start();
    let failures = async {
        for _ in 0..FAILURES {
            assert_eq!(request_bad_onion(&daemon.addresses[0]).await, 0x01);
        }
    };
    timeout(10 * LIMIT, failures)
        .await
        .expect("clients get no replies");
    // The unread log does not delay the exit either.
    assert_eq!(daemon.stop().status.code(), Some(0));
}
