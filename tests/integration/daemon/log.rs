//! What the log contains at each level.

use std::net::IpAddr;

use crate::support::ONION;
use crate::support::client::Client;
use crate::support::hex::socks5_request;
use crate::support::program::Program;

/// Parts of the targets and of the client's address, which only debug lines may contain.
const SENSITIVE: [&str; 6] = [
    "tell-tale",
    "tell..tale",
    "pg6mmj",
    "203.0.113.",
    "10.77.77.",
    "127.77.77.",
];
/// The user name and password of all requests, as text and in hex, which no line may contain.
const CREDENTIALS: [&str; 2] = ["s3cret", "733363726574"];

/// Sends requests that each fail differently, and returns the log.
async fn log_requests(filter: &str) -> Vec<String> {
    let daemon = Program::offline()
        .port("auto")
        .port("auto ExtendedErrors")
        .arguments(&["-l", filter, "-o", "proxy.socks_timeout=1"])
        .start();
    let hosts = [
        "tell-tale.example",
        ONION,
        // A wrong checksum.
        "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryx.onion",
        // A wrong length.
        "tell-tale.onion",
        "tell-tale.local",
        // Not a host name.
        "tell..tale",
        "203.0.113.77",
        "10.77.77.77",
    ];
    let from = IpAddr::from([127, 77, 77, 77]);
    let mut requests = tokio::task::JoinSet::new();
    for place in &daemon.addresses {
        for host in hosts {
            for command in [0x01, 0xf0] {
                let place = place.clone();
                requests.spawn(async move {
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
    while let Some(request) = requests.join_next().await {
        request.expect("every request gets a reply");
    }
    daemon.stop().err
}

#[tokio::test]
async fn only_debug_lines_name_targets_or_clients_and_none_contains_credentials() {
    for filter in ["info", "info,onionport=debug", "debug"] {
        let log = log_requests(filter).await;
        // The log reports the failures of these requests.
        for failure in [
            "onion address invalid",
            "private address",
            "not connected to Tor",
        ] {
            assert!(
                log.iter().any(|line| line.contains(failure)),
                "{filter}: {log:#?}"
            );
        }
        for line in &log {
            let lower = line.to_lowercase();
            for secret in CREDENTIALS {
                assert!(!lower.contains(secret), "{filter}: {secret} is in: {line}");
            }
            if line.contains(" DEBUG ") {
                continue;
            }
            for part in SENSITIVE {
                assert!(!lower.contains(part), "{filter}: {part} is in: {line}");
            }
        }
    }
}

#[tokio::test]
async fn log_timestamps_are_in_seconds_unless_configured_otherwise() {
    for (options, length) in [
        (&[][..], "2026-01-02T03:04:05Z".len()),
        (
            &["-o", "logging.time_granularity=1ms"],
            "2026-01-02T03:04:05.678Z".len(),
        ),
    ] {
        let daemon = Program::offline().port("auto").arguments(options).start();
        let line = daemon.process.wait_err("connecting to Tor");
        let (timestamp, _) = line.split_once(' ').expect("a line of the log");
        assert_eq!(timestamp.len(), length, "{line}");
        assert!(timestamp.ends_with('Z'), "{line}");
    }
}

/// C tor also logs such warnings at any level.
#[tokio::test]
async fn configuration_problems_are_logged_at_every_level() {
    for level in ["error", "off", "error,onionport=off", "warn", "debug"] {
        let daemon = Program::offline()
            .port("auto Wombat")
            .arguments(&["-l", level])
            .start();
        daemon.process.wait_err("Wombat");
        daemon.edit_config("[proxy]", "[prxy]");
        daemon.process.signal("HUP");
        daemon.process.wait_err("configuration not reloaded");
        let log = daemon.stop().err;
        for text in ["Wombat", "configuration not reloaded"] {
            let count = log.iter().filter(|line| line.contains(text)).count();
            assert_eq!(count, 1, "{level}: {log:#?}");
        }
        if ["error", "off"].contains(&level) {
            assert_eq!(log.len(), 2, "{level}: {log:#?}");
        }
    }
}
