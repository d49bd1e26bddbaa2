//! Who may connect: the same rules for the program and, in the same run, for C tor.

use crate::support::c_tor::{self, CTor};
use crate::support::client::{Client, End, ListenAddr};
use crate::support::program::Program;

/// Sets of rules.
const RULES: [&str; 3] = [
    "accept 127.0.0.2, reject 127.0.0.0/31, accept 127.0.0.4/30, reject *",
    "accept 127.0.0.0/30, reject *4, accept *6",
    "reject 127.0.0.0/30, accept 127.0.0.4/30",
];

/// Clients by their address, and whether they may under each set.
const CLIENTS: [(&str, [bool; 3]); 6] = [
    ("127.0.0.1", [false, true, false]),
    ("127.0.0.2", [true, true, false]),
    ("127.0.0.3", [false, true, false]),
    ("127.0.0.6", [true, false, true]),
    ("127.0.0.8", [false, false, true]),
    ("unix", [false, false, true]),
];

/// What a client hears after its greeting.
async fn greeting(from: &str, tcp: &ListenAddr, unix: &ListenAddr) -> (Vec<u8>, End) {
    let mut client = match from {
        "unix" => Client::connect(unix).await,
        ip => Client::connect_from(ip.parse().expect("an address"), tcp).await,
    };
    // The connection may be closed already.
    let _ = client.try_send(&[5, 1, 0]).await;
    client.read(2).await
}

#[tokio::test]
async fn a_client_that_the_rules_do_not_admit_hears_nothing() {
    let tor = c_tor::find();
    for (number, rules) in RULES.into_iter().enumerate() {
        let program = Program::offline().port("127.0.0.1:auto");
        let socket = program.folder().join("socks");
        let daemon = program
            .port(format!("unix:{}", socket.display()))
            .proxy(format!("socks_policy = [{rules:?}]"))
            .start();
        let judge = tor.as_ref().map(|tor| {
            let lines = [
                "SocksPort 127.0.0.1:auto".to_owned(),
                "SocksPort unix:FOLDER/socks".to_owned(),
                format!("SocksPolicy {rules}"),
            ];
            CTor::start(tor, &lines)
        });
        for (from, may) in CLIENTS {
            let expected: &[u8] = if may[number] { &[5, 0] } else { &[] };
            let (ours, end) = greeting(from, &daemon.addresses[0], &daemon.addresses[1]).await;
            assert_eq!(ours, expected, "{rules}, {from}: {end:?}");
            let Some(judge) = &judge else { continue };
            let (tcp, unix) = (judge.listen_addr("127.0.0.1:"), judge.listen_addr("/"));
            let (theirs, end) = greeting(from, &tcp, &unix).await;
            assert_eq!(theirs, expected, "C tor, {rules}, {from}: {end:?}");
        }
    }
}
