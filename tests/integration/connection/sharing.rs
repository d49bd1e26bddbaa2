//! Who may share a circuit.

use onionport::request::ClientAddr;
use onionport::tor::isolation::Isolation;

use crate::support::hex::show;
use crate::support::scripted::ScriptedNetwork;
use crate::support::serve::{Port, V4};

/// Someone who asks for something.
struct Asker {
    flags: &'static str,
    /// The number of the port's line.
    port: usize,
    origin: ClientAddr,
    /// SOCKS5: user name and password in hex; SOCKS4: the user name.
    conversation: &'static str,
}

const TO_A: &str = "05 01 00 / 05 01 00 03 01 61 0050";

impl Asker {
    fn new(flags: &'static str, conversation: &'static str) -> Self {
        Asker {
            flags,
            port: 0,
            origin: V4,
            conversation,
        }
    }

    /// What the network is told about who may share with this request.
    async fn isolation(&self) -> Isolation {
        let port = Port::with_network(
            ScriptedNetwork::new::<&str>([]).into(),
            self.flags,
            self.port,
        );
        let (mut client, _served) = port.client(self.origin);
        let parts: Vec<&str> = self.conversation.split('/').collect();
        for (number, part) in parts.iter().enumerate() {
            client.send(part).await;
            if number + 1 < parts.len() {
                client.read(2).await;
            }
        }
        // The plan has no such target, so it fails; whoever asked has been noted by then.
        let (answer, _) = client.read_to_end().await;
        assert!(
            answer.len() >= 8,
            "{}: {}",
            self.conversation,
            show(&answer)
        );
        let calls = port.tor.calls();
        assert_eq!(calls.len(), 1, "{}", self.conversation);
        calls[0].isolation.clone()
    }
}

#[tokio::test]
async fn streams_share_circuits_exactly_when_the_flags_of_their_ports_allow_it() {
    // me:you, me:them, we:you, and "me" without a password.
    let me_you = "05 01 02 / 01 02 6d65 03 796f75 / 05 01 00 03 01 61 0050";
    let me_them = "05 01 02 / 01 02 6d65 04 7468656d / 05 01 00 03 01 61 0050";
    let we_you = "05 01 02 / 01 02 7765 03 796f75 / 05 01 00 03 01 61 0050";
    let me = "05 01 02 / 01 02 6d65 00 / 05 01 00 03 01 61 0050";
    let nobody = "05 01 02 / 01 00 00 / 05 01 00 03 01 61 0050";
    let me4 = "04 01 0050 00000001 6d65 00 61 00";
    let nobody4 = "04 01 0050 00000001 00 61 00";
    // Where the user name ends and the password begins makes a difference.
    let ab_c = "05 01 02 / 01 02 6162 01 63 / 05 01 00 03 01 61 0050";
    let a_bc = "05 01 02 / 01 01 61 02 6263 / 05 01 00 03 01 61 0050";
    let token_1 = "05 01 02 / 01 09 3c746f725330583e30 01 31 / 05 01 00 03 01 61 0050";
    let token_2 = "05 01 02 / 01 09 3c746f725330583e30 01 32 / 05 01 00 03 01 61 0050";
    let other_port = "05 01 00 / 05 01 00 03 01 61 0051";
    let other_host = "05 01 00 / 05 01 00 03 01 62 0050";
    let same_host = "05 01 00 / 05 01 00 03 01 41 0050";
    let look_up = "05 01 00 / 05 f0 00 03 01 61 0000";

    let at = |asker: Asker, host: [u8; 4]| Asker {
        origin: ClientAddr::Ip(host.into()),
        ..asker
    };
    let unix = |asker: Asker| Asker {
        origin: ClientAddr::Unix,
        ..asker
    };
    let on = |asker: Asker, port: usize| Asker { port, ..asker };
    let plain = |conversation| Asker::new("", conversation);
    let with = Asker::new;
    let [here, there] = [[127, 0, 0, 1], [127, 0, 0, 2]];
    let cases = [
        // The defaults: client, user and password, port line.
        (true, plain(TO_A), plain(TO_A)),
        (true, plain(me_you), plain(me_you)),
        (false, plain(me_you), plain(me_them)),
        (false, plain(me_you), plain(we_you)),
        (false, plain(me_you), plain(me)),
        (false, plain(me_you), plain(TO_A)),
        (false, plain(ab_c), plain(a_bc)),
        (false, plain(token_1), plain(token_2)),
        (true, plain(nobody), plain(TO_A)),
        (true, plain(me), plain(me4)),
        (true, plain(nobody4), plain(TO_A)),
        (false, plain(me4), plain(nobody4)),
        (false, at(plain(TO_A), here), at(plain(TO_A), there)),
        (true, at(plain(TO_A), there), at(plain(TO_A), there)),
        (true, unix(plain(TO_A)), unix(plain(TO_A))),
        (false, unix(plain(me)), unix(plain(TO_A))),
        (true, plain(TO_A), plain(other_port)),
        (true, plain(TO_A), plain(other_host)),
        (true, plain(TO_A), plain(look_up)),
        (false, on(plain(TO_A), 0), on(plain(TO_A), 1)),
        // Each switched off.
        (
            true,
            with("NoIsolateSOCKSAuth", me_you),
            with("NoIsolateSOCKSAuth", we_you),
        ),
        (
            true,
            at(with("NoIsolateClientAddr", TO_A), here),
            at(with("NoIsolateClientAddr", TO_A), there),
        ),
        // Each switched on.
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
            with("IsolateDestAddr", look_up),
        ),
        (
            false,
            with("IsolateClientProtocol", TO_A),
            with("IsolateClientProtocol", nobody4),
        ),
        // Groups of ports; the stricter of two ports decides.
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
        let whose = format!(
            "{:?} {} and {:?} {}",
            one.flags, one.conversation, other.flags, other.conversation
        );
        assert_eq!(a.is_compatible(&b), *shared, "{whose}");
        assert_eq!(b.is_compatible(&a), *shared, "the other way round: {whose}");
    }
}

#[tokio::test]
async fn circuits_are_kept_alive_only_for_a_user_on_a_port_that_says_so() {
    let me = "05 01 02 / 01 02 6d65 00 / 05 01 00 03 01 61 0050";
    for (flags, conversation, kept) in [
        ("KeepAliveIsolateSOCKSAuth", me, true),
        ("KeepAliveIsolateSOCKSAuth", TO_A, false),
        ("", me, false),
    ] {
        let isolation = Asker::new(flags, conversation).isolation().await;
        assert_eq!(isolation.keeps_alive(), kept, "{flags:?} {conversation}");
    }
}
