//! Which clients a `SocksPolicy` admits, in the real program and, in the same run, in C tor.

use crate::support::c_tor::{self, CTor};
use crate::support::client::{Client, End, ListenAddr};
use crate::support::program::Program;

/// The policies.
const POLICIES: [&str; 3] = [
    "accept 127.0.0.2, reject 127.0.0.0/31, accept 127.0.0.4/30, reject *",
    "accept 127.0.0.0/30, reject *4, accept *6",
    "reject 127.0.0.0/30, accept 127.0.0.4/30",
];

/// Clients by address, and whether each policy admits them.
const CLIENTS: [(&str, [bool; 3]); 6] = [
    ("127.0.0.1", [false, true, false]),
    ("127.0.0.2", [true, true, false]),
    ("127.0.0.3", [false, true, false]),
    ("127.0.0.6", [true, false, true]),
    ("127.0.0.8", [false, false, true]),
    ("unix", [false, false, true]),
];

/// Sends a greeting from this address. Returns the reply, and how the connection ended.
async fn greet(client: &str, tcp: &ListenAddr, unix: &ListenAddr) -> (Vec<u8>, End) {
    let mut client = match client {
        "unix" => Client::connect(unix).await,
        ip => Client::connect_from(ip.parse().expect("an address"), tcp).await,
    };
    // The connection may be closed already.
    let _ = client.try_send(&[5, 1, 0]).await;
    client.read(2).await
}

#[tokio::test]
async fn a_client_that_the_policy_does_not_admit_gets_no_reply() {
    let tor = c_tor::find();
    for (number, policy) in POLICIES.into_iter().enumerate() {
        let program = Program::offline().port("127.0.0.1:auto");
        let socket = program.folder().join("socks");
        let daemon = program
            .port(format!("unix:{}", socket.display()))
            .config_lines(format!("socks_policy = [{policy:?}]"))
            .start();
        let c_tor = tor.as_ref().map(|tor| {
            let lines = [
                "SocksPort 127.0.0.1:auto".to_owned(),
                "SocksPort unix:FOLDER/socks".to_owned(),
                format!("SocksPolicy {policy}"),
            ];
            CTor::start(tor, &lines)
        });
        for (client, admitted) in CLIENTS {
            let expected: &[u8] = if admitted[number] { &[5, 0] } else { &[] };
            let (ours, end) = greet(client, &daemon.addresses[0], &daemon.addresses[1]).await;
            assert_eq!(ours, expected, "{policy}, {client}: {end:?}");
            let Some(c_tor) = &c_tor else { continue };
            let (tcp, unix) = (c_tor.listen_addr("127.0.0.1:"), c_tor.listen_addr("/"));
            let (theirs, end) = greet(client, &tcp, &unix).await;
            assert_eq!(theirs, expected, "C tor, {policy}, {client}: {end:?}");
        }
    }
}
