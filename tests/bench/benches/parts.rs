//! Measures the parts of onionport that need no network: the SOCKS codec and the relay loop.
//!
//! The classification of failures is private to the library and not among them.

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

/// The messages that a client sends in one handshake.
struct ClientMessages {
    name: &'static str,
    messages: Vec<Vec<u8>>,
}

impl std::fmt::Display for ClientMessages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

fn handshakes() -> Vec<ClientMessages> {
    let mut onion = vec![5, 1, 0, 3, 62];
    onion.extend([b'a'; 56]);
    onion.extend(b".onion\x00\x50");
    let mut socks4a = vec![4, 1, 0, 80, 0, 0, 0, 1];
    socks4a.extend(b"user\0www.example.com\0");
    vec![
        ClientMessages {
            name: "SOCKS5 onion",
            messages: vec![vec![5, 1, 0], onion.clone()],
        },
        ClientMessages {
            name: "SOCKS5 onion, username and password",
            messages: vec![vec![5, 2, 0, 2], b"\x01\x04user\x06secret".to_vec(), onion],
        },
        ClientMessages {
            name: "SOCKS4a host name",
            messages: vec![socks4a],
        },
    ]
}

#[divan::bench(args = handshakes())]
fn handshake(bencher: Bencher<'_, '_>, client: &ClientMessages) {
    bencher.counter(ItemsCount::new(1_usize)).bench(|| {
        let mut handshake = Handshake::new(OPTIONS);
        let mut last = None;
        for message in &client.messages {
            last = Some(handshake.step(black_box(message)));
        }
        assert!(matches!(last, Some(HandshakeStep::Done { .. })));
        last
    });
}

/// How many bytes one iteration transfers.
const TRANSFERRED: usize = 4 << 20;

/// The capacity of the pipes that replace the client's socket and the Tor stream, in bytes.
const PIPE_SIZE: usize = 64 * 1024;

/// Downloads: the remote end writes messages of the given size, the client reads.
#[divan::bench(args = [498, 4096, 16384])]
fn relay_down(bencher: Bencher<'_, '_>, message_size: usize) {
    transfer_through_relay(bencher, message_size, |client, remote| (remote, client));
}

/// Uploads: the client writes messages of the given size, the remote end reads.
#[divan::bench(args = [498, 4096, 16384])]
fn relay_up(bencher: Bencher<'_, '_>, message_size: usize) {
    transfer_through_relay(bencher, message_size, |client, remote| (client, remote));
}

fn transfer_through_relay(
    bencher: Bencher<'_, '_>,
    message_size: usize,
    direction: fn(DuplexStream, DuplexStream) -> (DuplexStream, DuplexStream),
) {
    let runtime = Runtime::new().expect("a runtime");
    bencher.counter(BytesCount::new(TRANSFERRED)).bench(|| {
        runtime.block_on(async {
            let (client, client_end) = duplex(PIPE_SIZE);
            let (remote, remote_end) = duplex(PIPE_SIZE);
            let relaying =
                tokio::spawn(async move { relay(client_end, remote_end, Vec::new(), false).await });
            let (mut from, mut to) = direction(client, remote);
            let writing = tokio::spawn(async move {
                let bytes = vec![0x5a; message_size];
                let mut remaining = TRANSFERRED;
                while remaining > 0 {
                    let length = remaining.min(message_size);
                    from.write_all(&bytes[..length]).await.expect("written");
                    remaining -= length;
                }
                from
            });
            let mut bytes = vec![0; PIPE_SIZE];
            let mut read = 0;
            while read < TRANSFERRED {
                read += to.read(&mut bytes).await.expect("read");
            }
            drop(writing.await.expect("no panic"));
            drop(to);
            let (_, relayed) = relaying.await.expect("no panic");
            assert_eq!(relayed.sent + relayed.received, TRANSFERRED as u64);
        });
    });
}

/// Echoes small messages, as in a shell session, to measure one round trip through the relay.
#[divan::bench]
fn relay_echo(bencher: Bencher<'_, '_>) {
    let runtime = Runtime::new().expect("a runtime");
    let (mut client, mut remote) = runtime.block_on(async {
        let (client, client_end) = duplex(PIPE_SIZE);
        let (remote, remote_end) = duplex(PIPE_SIZE);
        tokio::spawn(async move { relay(client_end, remote_end, Vec::new(), false).await });
        (client, remote)
    });
    bencher.bench_local(|| {
        runtime.block_on(async {
            let mut bytes = [0; 8];
            client.write_all(b"question").await.expect("written");
            remote.read_exact(&mut bytes).await.expect("read");
            remote.write_all(&bytes).await.expect("written");
            client.read_exact(&mut bytes).await.expect("read");
        });
    });
}
