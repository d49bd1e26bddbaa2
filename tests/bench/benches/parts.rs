//! The parts of onionport that need no network: the SOCKS codec and the relay loop.
//!
//! The classifier of failures is private to the library, and not measured here.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use onionport::inbound::relay::relay;
use onionport::inbound::socks::{ClientFamily, Handshake, HandshakeOptions, HandshakeStep};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

const OPTIONS: HandshakeOptions = HandshakeOptions {
    prefer_no_auth: false,
    client: ClientFamily::V4,
};

/// A whole handshake: each message as the client sends it.
struct Conversation {
    name: &'static str,
    messages: Vec<Vec<u8>>,
}

impl std::fmt::Display for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

fn conversations() -> Vec<Conversation> {
    let mut onion = vec![5, 1, 0, 3, 62];
    onion.extend([b'a'; 56]);
    onion.extend(b".onion\x00\x50");
    let mut socks4a = vec![4, 1, 0, 80, 0, 0, 0, 1];
    socks4a.extend(b"user\0www.example.com\0");
    vec![
        Conversation {
            name: "SOCKS5 onion",
            messages: vec![vec![5, 1, 0], onion.clone()],
        },
        Conversation {
            name: "SOCKS5 onion, login",
            messages: vec![vec![5, 2, 0, 2], b"\x01\x04user\x06secret".to_vec(), onion],
        },
        Conversation {
            name: "SOCKS4a name",
            messages: vec![socks4a],
        },
    ]
}

#[divan::bench(args = conversations())]
fn handshake(bencher: Bencher<'_, '_>, conversation: &Conversation) {
    bencher.counter(ItemsCount::new(1_usize)).bench(|| {
        let mut handshake = Handshake::new(OPTIONS);
        let mut last = None;
        for message in &conversation.messages {
            last = Some(handshake.step(black_box(message)));
        }
        assert!(matches!(last, Some(HandshakeStep::Done { .. })));
        last
    });
}

/// How many bytes go through the relay at a time.
const CARRIED: usize = 4 << 20;

/// Between the relay and what stands in for the client's socket and for the Tor stream.
const PIPE: usize = 64 * 1024;

/// Downloads through the relay loop: the far end writes messages of a size, the client reads.
#[divan::bench(args = [498, 4096, 16384])]
fn relay_down(bencher: Bencher<'_, '_>, message: usize) {
    through_relay(bencher, message, |client, far| (far, client));
}

/// Uploads.
#[divan::bench(args = [498, 4096, 16384])]
fn relay_up(bencher: Bencher<'_, '_>, message: usize) {
    through_relay(bencher, message, |client, far| (client, far));
}

fn through_relay(
    bencher: Bencher<'_, '_>,
    message: usize,
    direction: fn(DuplexStream, DuplexStream) -> (DuplexStream, DuplexStream),
) {
    let runtime = Runtime::new().expect("a runtime");
    bencher.counter(BytesCount::new(CARRIED)).bench(|| {
        runtime.block_on(async {
            let (client, client_end) = duplex(PIPE);
            let (far, far_end) = duplex(PIPE);
            let relaying =
                tokio::spawn(async move { relay(client_end, far_end, Vec::new(), false).await });
            let (mut from, mut to) = direction(client, far);
            let writing = tokio::spawn(async move {
                let bytes = vec![0x5a; message];
                let mut left = CARRIED;
                while left > 0 {
                    let now = left.min(message);
                    from.write_all(&bytes[..now]).await.expect("written");
                    left -= now;
                }
                from
            });
            let mut bytes = vec![0; PIPE];
            let mut read = 0;
            while read < CARRIED {
                read += to.read(&mut bytes).await.expect("read");
            }
            drop(writing.await.expect("no panic"));
            drop(to);
            let (_, relayed) = relaying.await.expect("no panic");
            assert_eq!(relayed.sent + relayed.received, CARRIED as u64);
        });
    });
}

/// Small messages there and back, as in a shell: what one turn through the relay costs.
#[divan::bench]
fn relay_echo(bencher: Bencher<'_, '_>) {
    let runtime = Runtime::new().expect("a runtime");
    let (mut client, mut far) = runtime.block_on(async {
        let (client, client_end) = duplex(PIPE);
        let (far, far_end) = duplex(PIPE);
        tokio::spawn(async move { relay(client_end, far_end, Vec::new(), false).await });
        (client, far)
    });
    bencher.bench_local(|| {
        runtime.block_on(async {
            let mut bytes = [0; 8];
            client.write_all(b"question").await.expect("written");
            far.read_exact(&mut bytes).await.expect("read");
            far.write_all(&bytes).await.expect("written");
            client.read_exact(&mut bytes).await.expect("read");
        });
    });
}
