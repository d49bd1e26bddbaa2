//! Standard output or a log that is full or unread.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;
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
    let place = ListenAddr::Ip(port.into());
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

/// Whether a write of a log line to this pipe would block: a pipe has room as long as one of its pages is
/// free, and after that as long as the line fits into the last page.
fn is_full(pipe: &File) -> bool {
    let mut pipe = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
    poll(&mut pipe, PollTimeout::ZERO).expect("pipe polled") == 0
}

/// A parent process may stop reading the log; log lines must not delay clients or the exit then.
#[tokio::test]
async fn an_unread_log_does_not_stop_the_program() {
    /// Each lookup logs a line at debug level: together more than a pipe and the log's queue hold.
    const LOOKUPS: usize = 6000;
    let program = Program::offline();
    let path = program.folder().join("log");
    mkfifo(&path, Mode::S_IRWXU).expect("named pipe created");
    let log = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .expect("both ends of the pipe open");
    // Small, because the default is sixteen pages, and pages may be large.
    fcntl(&log, FcntlArg::F_SETPIPE_SZ(8192)).expect("pipe size set");
    let pipe = log.try_clone().expect("pipe duplicated");
    let daemon = program
        .port("auto")
        .arguments(&["-l", "onionport=debug"])
        .log(log)
        .start();
    let look_up = async |count| {
        let lookups = async {
            for _ in 0..count {
                assert_serves(&daemon.addresses[0]).await;
            }
        };
        timeout(10 * LIMIT, lookups)
            .await
            .expect("clients get no replies");
    };
    look_up(LOOKUPS).await;
    assert!(is_full(&pipe));
    // Lines are dropped, and reported as missing, only if the queue was full as well.
    let reader = pipe::OpenOptions::new().open_receiver(&path);
    let mut lines = BufReader::new(reader.expect("log opens")).lines();
    let report = async {
        loop {
            let line = lines.next_line().await.expect("log readable");
            if line.expect("a line").contains(" log lines are missing") {
                return;
            }
        }
    };
    timeout(LIMIT, report)
        .await
        .expect("the log's queue was never full");
    // More lines than fit into the pipe, which do not delay the exit.
    look_up(LOOKUPS / 10).await;
    assert!(is_full(&pipe));
    assert_eq!(daemon.stop().status.code(), Some(0));
}
