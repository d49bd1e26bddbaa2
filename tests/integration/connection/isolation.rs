//! Which streams may share a circuit.

use onionport::request::ClientAddr;
use onionport::tor::isolation::Isolation;

use crate::support::hex::show;
use crate::support::scripted::ScriptedNetwork;
use crate::support::serve::{Port, V4};

/// One request, and the client and port it comes from.
struct TestRequest {
    /// The flags of the port.
    flags: &'static str,
    /// The number of the port's line.
    port: usize,
    client_addr: ClientAddr,
    /// The client's messages in hex. It waits for a reply at each "/".
    messages: &'static str,
}

/// A SOCKS5 CONNECT to the host "a", port 80, without credentials.
const TO_A: &str = "05 01 00 / 05 01 00 03 01 61 0050";

impl TestRequest {
    fn new(flags: &'static str, messages: &'static str) -> Self {
        TestRequest {
            flags,
            port: 0,
            client_addr: V4,
            messages,
        }
    }

    /// Sends the request, and returns the isolation that reaches the network.
    async fn isolation(&self) -> Isolation {
        let port = Port::with_network(
            ScriptedNetwork::new::<&str>([]).into(),
            self.flags,
            self.port,
        );
        let (mut client, _served) = port.client(self.client_addr);
        let parts: Vec<&str> = self.messages.split('/').collect();
        for (number, part) in parts.iter().enumerate() {
            client.send(part).await;
            if number + 1 < parts.len() {
                client.read(2).await;
            }
        }
        // The scripted network does not know the target, so the request fails; it is recorded by then.
        let (reply, _) = client.read_to_end().await;
        assert!(reply.len() >= 8, "{}: {}", self.messages, show(&reply));
        let calls = port.tor.calls();
        assert_eq!(calls.len(), 1, "{}", self.messages);
        calls[0].isolation.clone()
    }
}

#[tokio::test]
async fn streams_share_circuits_exactly_when_the_flags_of_their_ports_allow_it() {
    // Users and passwords: me:you, me:them, we:you, "me" without a password, and neither.
    let me_you = "05 01 02 / 01 02 6d65 03 796f75 / 05 01 00 03 01 61 0050";
    let me_them = "05 01 02 / 01 02 6d65 04 7468656d / 05 01 00 03 01 61 0050";
    let we_you = "05 01 02 / 01 02 7765 03 796f75 / 05 01 00 03 01 61 0050";
    let user_only = "05 01 02 / 01 02 6d65 00 / 05 01 00 03 01 61 0050";
    let no_user = "05 01 02 / 01 00 00 / 05 01 00 03 01 61 0050";
    let socks4_user = "04 01 0050 00000001 6d65 00 61 00";
    let socks4_no_user = "04 01 0050 00000001 00 61 00";
    // The same bytes, split differently into user name and password.
    let ab_c = "05 01 02 / 01 02 6162 01 63 / 05 01 00 03 01 61 0050";
    let a_bc = "05 01 02 / 01 01 61 02 6263 / 05 01 00 03 01 61 0050";
    // Isolation tokens of proposal 351, `<torS0X>0`.
    let token_1 = "05 01 02 / 01 09 3c746f725330583e30 01 31 / 05 01 00 03 01 61 0050";
    let token_2 = "05 01 02 / 01 09 3c746f725330583e30 01 32 / 05 01 00 03 01 61 0050";
    let other_port = "05 01 00 / 05 01 00 03 01 61 0051";
    let other_host = "05 01 00 / 05 01 00 03 01 62 0050";
    let same_host = "05 01 00 / 05 01 00 03 01 41 0050";
    let lookup = "05 01 00 / 05 f0 00 03 01 61 0000";

    let from = |request: TestRequest, host: [u8; 4]| TestRequest {
        client_addr: ClientAddr::Ip(host.into()),
        ..request
    };
    let unix = |request: TestRequest| TestRequest {
        client_addr: ClientAddr::Unix,
        ..request
    };
    let on = |request: TestRequest, port: usize| TestRequest { port, ..request };
    let plain = |messages| TestRequest::new("", messages);
    let with = TestRequest::new;
    let [host_1, host_2] = [[127, 0, 0, 1], [127, 0, 0, 2]];
    let cases = [
        // By default isolated: client addresses, credentials, port lines.
        (true, plain(TO_A), plain(TO_A)),
        (true, plain(me_you), plain(me_you)),
        (false, plain(me_you), plain(me_them)),
        (false, plain(me_you), plain(we_you)),
        (false, plain(me_you), plain(user_only)),
        (false, plain(me_you), plain(TO_A)),
        (false, plain(ab_c), plain(a_bc)),
        (false, plain(token_1), plain(token_2)),
        (true, plain(no_user), plain(TO_A)),
        (true, plain(user_only), plain(socks4_user)),
        (true, plain(socks4_no_user), plain(TO_A)),
        (false, plain(socks4_user), plain(socks4_no_user)),
        (false, from(plain(TO_A), host_1), from(plain(TO_A), host_2)),
        (true, from(plain(TO_A), host_2), from(plain(TO_A), host_2)),
        (true, unix(plain(TO_A)), unix(plain(TO_A))),
        (false, unix(plain(user_only)), unix(plain(TO_A))),
        (true, plain(TO_A), plain(other_port)),
        (true, plain(TO_A), plain(other_host)),
        (true, plain(TO_A), plain(lookup)),
        (false, on(plain(TO_A), 0), on(plain(TO_A), 1)),
        // Without the default flags.
        (
            true,
            with("NoIsolateSOCKSAuth", me_you),
            with("NoIsolateSOCKSAuth", we_you),
        ),
        (
            true,
            from(with("NoIsolateClientAddr", TO_A), host_1),
            from(with("NoIsolateClientAddr", TO_A), host_2),
        ),
        // With further flags.
        (
            false,
            with("IsolateDestPort", TO_A),
            with("IsolateDestPort", other_port),
        ),
        (
            true,
            with("IsolateDestPort", TO_A),
            with("IsolateDestPort", other_host),
        ),
        (
            false,
            with("IsolateDestAddr", TO_A),
            with("IsolateDestAddr", other_host),
        ),
        (
            true,
            with("IsolateDestAddr", TO_A),
            with("IsolateDestAddr", same_host),
        ),
        (
            true,
            with("IsolateDestAddr", TO_A),
            with("IsolateDestAddr", lookup),
        ),
        (
            false,
            with("IsolateClientProtocol", TO_A),
            with("IsolateClientProtocol", socks4_no_user),
        ),
        // Session groups. Of two ports in one group, the stricter decides.
        (
            true,
            on(with("SessionGroup=7", TO_A), 0),
            on(with("SessionGroup=7", TO_A), 1),
        ),
        (
            false,
            on(with("SessionGroup=7", TO_A), 0),
            on(with("SessionGroup=8", TO_A), 1),
        ),
        (
            false,
            on(with("SessionGroup=1", TO_A), 0),
            on(plain(TO_A), 1),
        ),
        (
            false,
            on(with("SessionGroup=7 IsolateDestPort", TO_A), 0),
            on(with("SessionGroup=7", other_port), 1),
        ),
        (
            false,
            on(with("SessionGroup=7", me_you), 0),
            on(with("SessionGroup=7 NoIsolateSOCKSAuth", we_you), 1),
        ),
    ];
    for (shared, one, other) in &cases {
        let (a, b) = (one.isolation().await, other.isolation().await);
        let case = format!(
            "{:?} {} and {:?} {}",
            one.flags, one.messages, other.flags, other.messages
        );
        assert_eq!(a.is_compatible(&b), *shared, "{case}");
        assert_eq!(b.is_compatible(&a), *shared, "in reverse: {case}");
    }
}

#[tokio::test]
async fn circuits_are_kept_alive_only_for_a_user_name_and_only_with_the_flag() {
    let user_only = "05 01 02 / 01 02 6d65 00 / 05 01 00 03 01 61 0050";
    for (flags, messages, kept) in [
        ("KeepAliveIsolateSOCKSAuth", user_only, true),
        ("KeepAliveIsolateSOCKSAuth", TO_A, false),
        ("", user_only, false),
    ] {
        let isolation = TestRequest::new(flags, messages).isolation().await;
        assert_eq!(isolation.keeps_alive(), kept, "{flags:?} {messages}");
    }
}
