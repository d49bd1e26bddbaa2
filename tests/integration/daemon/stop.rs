//! SIGTERM and SIGINT stop the program.

use std::time::{Duration, Instant};

use super::is_free;
use crate::support::ONION;
use crate::support::client::Client;
use crate::support::hex::socks5_request;
use crate::support::offline::{connect_socks5, unix_port};
use crate::support::program::Program;
use crate::support::unused_address::unused_addresses;

/// Less than half of the time after which `main.rs` stops without waiting for its tasks.
const AT_ONCE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn term_and_int_stop_the_program_at_once_and_remove_its_sockets() {
    // Repeat: whether a socket is left may depend on the order in which tasks run.
    for round in 0..10 {
        for signal in ["TERM", "INT"] {
            let program = Program::offline();
            let socket = program.folder().join("socks");
            let [port] = unused_addresses();
            let daemon = program
                .port(port.to_string())
                .port(unix_port(&socket))
                .start();
            // An idle client and a pending request must not delay the exit.
            let _idle = Client::connect(&daemon.addresses[0]).await;
            let mut pending = connect_socks5(&daemon.addresses[1]).await;
            pending.send_bytes(&socks5_request(1, ONION, 80)).await;
            let start = Instant::now();
            daemon.process.signal(signal);
            let ended = daemon.process.wait();
            assert_eq!(ended.status.code(), Some(0), "{signal}: {:#?}", ended.err);
            let took = start.elapsed();
            assert!(took < AT_ONCE, "{signal}: {took:?}");
            assert!(
                !socket.exists(),
                "round {round}: {signal} left the socket's file"
            );
            let tcp = &daemon.addresses[0];
            assert!(is_free(tcp), "{signal} left {tcp} open");
        }
    }
}

#[tokio::test]
async fn a_signal_right_after_the_ports_are_listed_stops_the_program() {
    for _ in 0..10 {
        let program = Program::offline();
        let socket = program.folder().join("socks");
        let daemon = program.port(unix_port(&socket)).start();
        daemon.process.signal("TERM");
        let status = daemon.process.wait().status;
        assert!(status.success(), "{status}");
        assert!(!socket.exists(), "the socket's file is left");
    }
}
