//! The real program and its SOCKS port with hostile or faulty clients.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::client::{Client, ListenAddr};
use crate::support::hex::{bytes, socks5_request};
use crate::support::nonsense::{Crowd, send_nonsense};
use crate::support::program::{Daemon, Program};
use crate::support::random::Random;
use crate::support::socks::{GREETING, greet, send_request};
use crate::support::{LIMIT, ONION};

/// A CONNECT to foo.onion, port 80, which is refused without a network.
const CONNECT_BAD_ONION: &str = "05 01 00 03 09 666f6f2e6f6e696f6e 0050";
/// How long other clients may delay a client.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// Raises the limit of open files, by default 1024: the clients are sockets of this process.
fn allow_many_clients() {
    rlimit::increase_nofile_limit(8192).expect("more open files");
}

/// Checks that a new client gets a reply without much delay.
async fn assert_serves(address: &ListenAddr) {
    let begun = Instant::now();
    let mut client = Client::connect(address).await;
    send_request(&mut client, CONNECT_BAD_ONION).await;
    client.expect("05 f6 00 01 00000000 0000").await;
    client.expect_end().await;
    assert!(begun.elapsed() < MAX_DELAY, "{:?}", begun.elapsed());
}

/// Checks that the program still runs and that no part of it has panicked.
fn assert_unharmed(daemon: &mut Daemon) {
    assert!(daemon.process.is_alive());
    let log = daemon.process.err.all();
    let panicked = log.iter().find(|line| line.contains("panicked"));
    assert!(panicked.is_none(), "{panicked:?}");
}

/// Valid messages, to be damaged.
fn valid_messages() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "04 01 0050 c0000201 6d65 00",
        "04 01 0050 00000001 6d65 00 676f6f642e6578616d706c65 00",
        "04 f0 0000 01020304 00",
        "05 01 00 05 01 00 01 c0000201 0050",
        "05 01 00 05 01 00 04 20010db8 00*11 01 0050 474554202f",
        "05 01 00 05 f0 00 03 0c 676f6f642e6578616d706c65 0000",
        "05 01 00 05 f1 00 01 c0000201 0000",
        "05 02 0002 01 02 6d65 03 796f75 05 01 00 03 09 666f6f2e6f6e696f6e 0050",
        "05 01 02 01 ff 75*255 ff 70*255 05 01 00 03 ff 61*255 0050",
        "474554202f20485454502f312e31 0d0a 486f73743a2061 0d0a0d0a",
    ]
    .map(bytes)
    .into();
    all.push([bytes(GREETING), socks5_request(1, ONION, 80)].concat());
    all
}

/// Returns random bytes or a damaged message.
fn nonsense(random: &mut Random, valid: &[Vec<u8>]) -> Vec<u8> {
    let mut message = random.pick(valid).clone();
    match random.below(6) {
        // Random bytes, with any first byte or with that of a protocol.
        0 => {
            let length = random.below(600);
            random.bytes(length)
        }
        1 => {
            let length = random.below(600);
            let first = *random.pick(&[0x04, 0x05, 0x01, b'G']);
            [vec![first], random.bytes(length)].concat()
        }
        // A truncated message.
        2 => {
            let length = random.below(message.len());
            message.truncate(length);
            message
        }
        // A message with bytes changed, inserted, or appended.
        3 => {
            for _ in 0..=random.below(4) {
                let at = random.below(message.len());
                message[at] = random.number().to_le_bytes()[0];
            }
            message
        }
        4 => {
            let at = random.below(message.len());
            let count = random.below(20);
            message.splice(at..at, random.bytes(count));
            message
        }
        _ => {
            let length = random.below(40_000);
            message.extend(random.bytes(length));
            message
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_that_send_nonsense_do_no_harm() {
    allow_many_clients();
    // A short time-out, so that requests that are valid by chance end as well.
    let mut daemon = Program::offline()
        .port("auto ExtendedErrors")
        .arguments(&["-o", "proxy.socks_timeout=1", "-l", "warn"])
        .start();
    let address = daemon.addresses[0].clone();
    let valid = valid_messages();
    let crowd = Crowd {
        clients: 2000,
        at_once: 200,
        half_close: true,
    };
    let message = |random: &mut Random| nonsense(random, &valid);
    send_nonsense(&address, crowd, &mut Random::new(7), message).await;
    assert_serves(&address).await;
    assert_unharmed(&mut daemon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_idle_clients_do_not_block_others() {
    const CLIENTS: usize = 500;
    allow_many_clients();
    let mut daemon = Program::offline().port("auto ExtendedErrors").start();
    let address = daemon.addresses[0].clone();
    let mut idle = Vec::new();
    for number in 0..CLIENTS {
        let mut client = Client::connect(&address).await;
        // The clients stop at different points.
        match number % 4 {
            0 => {}
            1 => client.send("05").await,
            2 => client.send(GREETING).await,
            _ => {
                greet(&mut client).await;
                client.send_bytes(&socks5_request(1, ONION, 80)).await;
            }
        }
        idle.push(client);
    }
    for _ in 0..20 {
        assert_serves(&address).await;
    }
    // None of them was disconnected.
    let mut reading = JoinSet::new();
    for (number, mut client) in idle.into_iter().enumerate() {
        reading.spawn(async move {
            if number % 4 == 2 {
                client.expect("05 00").await;
            }
            let received = client.read_within(Duration::from_millis(100)).await;
            assert!(received.is_none(), "idle client {number}: {received:?}");
        });
    }
    while let Some(read) = reading.join_next().await {
        read.expect("still connected");
    }
    assert_unharmed(&mut daemon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_send_slowly_delay_nobody_and_are_served() {
    let mut daemon = Program::offline().port("auto ExtendedErrors").start();
    let address = daemon.addresses[0].clone();
    let mut sending = JoinSet::new();
    for _ in 0..50 {
        let address = address.clone();
        sending.spawn(async move {
            let mut client = Client::connect(&address).await;
            for byte in bytes(&format!("{GREETING} {CONNECT_BAD_ONION}")) {
                client.send_bytes(&[byte]).await;
                sleep(Duration::from_millis(100)).await;
            }
            client.expect("05 00 05 f6 00 01 00000000 0000").await;
            client.expect_end().await;
        });
    }
    let begun = Instant::now();
    for _ in 0..50 {
        assert_serves(&address).await;
    }
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    while let Some(sent) = sending.join_next().await {
        sent.expect("served");
    }
    assert_unharmed(&mut daemon);
}

#[tokio::test]
async fn a_program_that_ran_out_of_open_files_recovers() {
    // Enough to start, and fewer than the clients below.
    let mut daemon = Program::offline()
        .port("auto ExtendedErrors")
        .open_files(24)
        .start();
    let address = daemon.addresses[0].clone();
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(Client::connect(&address).await);
    }
    daemon.process.wait_err("cannot accept connections");
    drop(idle);
    assert_serves(&address).await;
    assert_unharmed(&mut daemon);
}

/// Returns the resident memory of the program in kB (proc(5), `VmRSS`).
fn resident_memory(daemon: &Daemon) -> u64 {
    let path = format!("/proc/{}/status", daemon.process.id());
    let status = std::fs::read_to_string(path).expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let line = line.expect("a running process");
    line.trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number")
}

/// Memory that the allocator keeps is not available to other programs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_disconnected_clients_is_returned_to_the_system() {
    const CLIENTS: usize = 3000;
    const TWO_MINUTES: Duration = Duration::from_secs(120);
    allow_many_clients();
    let mut daemon = Program::offline().port("auto ExtendedErrors").start();
    let address = daemon.addresses[0].clone();
    assert_serves(&address).await;
    let before = resident_memory(&daemon);
    let mut silent = Vec::new();
    for _ in 0..CLIENTS {
        silent.push(Client::connect(&address).await);
    }
    // Clients are accepted in order, so by this reply all of them have been.
    assert_serves(&address).await;
    let grown = resident_memory(&daemon).saturating_sub(before);
    assert!(
        grown > 8 * 1024,
        "the clients take only {grown} kB: too little to measure"
    );
    drop(silent);
    let disconnected = Instant::now();
    let mut kept = grown;
    while kept > grown / 3 {
        let waited = disconnected.elapsed();
        assert!(
            waited < TWO_MINUTES,
            "{kept} of {grown} kB are not returned"
        );
        sleep(Duration::from_millis(500)).await;
        kept = resident_memory(&daemon).saturating_sub(before);
    }
    assert_serves(&address).await;
    assert_unharmed(&mut daemon);
}
