//! The real program among clients that mean no good, or do not know what they do.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::client::{Client, End, ListenAddr};
use crate::support::hex::{bytes, show, socks5_request};
use crate::support::program::{Daemon, Program};
use crate::support::random::Random;
use crate::support::{LIMIT, ONION};

/// How long a client may be kept waiting by others.
const PATIENCE: Duration = Duration::from_secs(10);

/// Clients are sockets on our side, too: more than the usual 1024.
fn allow_many_clients() {
    rlimit::increase_nofile_limit(8192).expect("more open files");
}

/// A new client gets its answer, and soon.
async fn assert_serves(place: &ListenAddr) {
    let asked = Instant::now();
    let mut client = Client::connect(place).await;
    client.send("05 01 00").await;
    client.expect("05 00").await;
    client.send("05 01 00 03 09 666f6f2e6f6e696f6e 0050").await;
    client.expect("05 f6 00 01 00000000 0000").await;
    client.expect_end().await;
    assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
}

/// Nothing in the program broke.
fn assert_unharmed(daemon: &mut Daemon) {
    assert!(daemon.process.is_alive());
    let log = daemon.process.err.all();
    let bad = log.iter().find(|line| line.contains("panicked"));
    assert!(bad.is_none(), "{bad:?}");
}

/// Conversations that are right, to be spoiled.
fn good_conversations() -> Vec<Vec<u8>> {
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
    all.push([bytes("05 01 00"), socks5_request(1, ONION, 80)].concat());
    all
}

/// What a client says that does not know what it does.
fn spoiled(random: &mut Random, good: &[Vec<u8>]) -> Vec<u8> {
    let mut said = random.pick(good).clone();
    match random.below(6) {
        // Anything at all, beginning in any way, or like one of the protocols.
        0 => {
            let length = random.below(600);
            random.bytes(length)
        }
        1 => {
            let length = random.below(600);
            let first = *random.pick(&[0x04, 0x05, 0x01, b'G']);
            [vec![first], random.bytes(length)].concat()
        }
        // Cut short.
        2 => {
            let length = random.below(said.len());
            said.truncate(length);
            said
        }
        // With bytes changed, put in, or behind it.
        3 => {
            for _ in 0..=random.below(4) {
                let at = random.below(said.len());
                said[at] = random.number().to_le_bytes()[0];
            }
            said
        }
        4 => {
            let at = random.below(said.len());
            let count = random.below(20);
            said.splice(at..at, random.bytes(count));
            said
        }
        _ => {
            let length = random.below(40_000);
            said.extend(random.bytes(length));
            said
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_that_talk_nonsense_do_no_harm() {
    const CLIENTS: usize = 2000;
    const AT_ONCE: usize = 200;
    allow_many_clients();
    // Short, so that what parses by chance comes to its end as well.
    let mut daemon = Program::offline()
        .port("auto ExtendedErrors")
        .arguments(&["-o", "proxy.socks_timeout=1", "-l", "warn"])
        .start();
    let place = daemon.addresses[0].clone();
    let good = good_conversations();
    let mut random = Random::new(7);
    let mut talking = JoinSet::new();
    for number in 0..CLIENTS {
        if talking.len() >= AT_ONCE {
            talking
                .join_next()
                .await
                .expect("some talk")
                .expect("no panic");
        }
        let said = spoiled(&mut random, &good);
        let cut = random.below(said.len() + 1);
        let manners = random.below(3);
        let place = place.clone();
        talking.spawn(async move {
            let mut client = Client::connect(&place).await;
            let (first, second) = said.split_at(cut);
            let heard_all =
                client.try_send(first).await.is_ok() && client.try_send(second).await.is_ok();
            match manners {
                // Leaves without listening.
                0 => return,
                // Hangs up; what it said may be a request, which then is answered all the same.
                1 if heard_all => client.finish().await,
                // Waits.
                _ => {}
            }
            let (got, end) = client.read_to_end().await;
            let told = format!("client {number}: {} heard {}", show(&said), show(&got));
            assert_ne!(end, End::Open, "{told}");
        });
    }
    while let Some(talked) = talking.join_next().await {
        talked.expect("no panic");
    }
    assert_serves(&place).await;
    assert_unharmed(&mut daemon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_idle_clients_do_not_keep_out_another() {
    const CLIENTS: usize = 500;
    allow_many_clients();
    let mut daemon = Program::offline().port("auto ExtendedErrors").start();
    let place = daemon.addresses[0].clone();
    let mut idle = Vec::new();
    for number in 0..CLIENTS {
        let mut client = Client::connect(&place).await;
        // Each falls silent at another point.
        match number % 4 {
            0 => {}
            1 => client.send("05").await,
            2 => client.send("05 01 00").await,
            _ => {
                client.send("05 01 00").await;
                client.expect("05 00").await;
                client.send_bytes(&socks5_request(1, ONION, 80)).await;
            }
        }
        idle.push(client);
    }
    for _ in 0..20 {
        assert_serves(&place).await;
    }
    // None of them was thrown out for it.
    let mut listening = JoinSet::new();
    for (number, mut client) in idle.into_iter().enumerate() {
        listening.spawn(async move {
            if number % 4 == 2 {
                client.expect("05 00").await;
            }
            let heard = client.read_within(Duration::from_millis(100)).await;
            assert!(heard.is_none(), "idle client {number}: {heard:?}");
        });
    }
    while let Some(listened) = listening.join_next().await {
        listened.expect("still connected");
    }
    assert_unharmed(&mut daemon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_dribble_keep_nobody_waiting_and_are_served_in_the_end() {
    let mut daemon = Program::offline().port("auto ExtendedErrors").start();
    let place = daemon.addresses[0].clone();
    let mut dribbling = JoinSet::new();
    for _ in 0..50 {
        let place = place.clone();
        dribbling.spawn(async move {
            let mut client = Client::connect(&place).await;
            for byte in bytes("05 01 00 05 01 00 03 09 666f6f2e6f6e696f6e 0050") {
                client.send_bytes(&[byte]).await;
                sleep(Duration::from_millis(100)).await;
            }
            client.expect("05 00 05 f6 00 01 00000000 0000").await;
            client.expect_end().await;
        });
    }
    let begun = Instant::now();
    for _ in 0..50 {
        assert_serves(&place).await;
    }
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    while let Some(dribbled) = dribbling.join_next().await {
        dribbled.expect("served");
    }
    assert_unharmed(&mut daemon);
}

#[tokio::test]
async fn a_program_out_of_open_files_goes_on_when_it_has_some_again() {
    // Enough to start, and fewer than the clients it would take on.
    let mut daemon = Program::offline()
        .port("auto ExtendedErrors")
        .open_files(24)
        .start();
    let place = daemon.addresses[0].clone();
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(Client::connect(&place).await);
    }
    daemon.process.wait_err("cannot accept connections");
    drop(idle);
    assert_serves(&place).await;
    assert_unharmed(&mut daemon);
}

/// The memory that a process has, in kB (proc(5), `VmRSS`).
fn resident(daemon: &Daemon) -> u64 {
    let path = format!("/proc/{}/status", daemon.process.id());
    let status = std::fs::read_to_string(path).expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let line = line.expect("a running process");
    line.trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number")
}

/// What the allocator keeps for itself is not free for anybody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_clients_that_have_left_is_given_back() {
    const CLIENTS: usize = 3000;
    const TWO_MINUTES: Duration = Duration::from_secs(120);
    allow_many_clients();
    let mut daemon = Program::offline().port("auto ExtendedErrors").start();
    let place = daemon.addresses[0].clone();
    assert_serves(&place).await;
    let before = resident(&daemon);
    let mut silent = Vec::new();
    for _ in 0..CLIENTS {
        silent.push(Client::connect(&place).await);
    }
    // Who comes last is served last.
    assert_serves(&place).await;
    let grown = resident(&daemon).saturating_sub(before);
    assert!(grown > 8 * 1024, "they take {grown} kB: too few to tell");
    drop(silent);
    let left = Instant::now();
    let mut kept = grown;
    while kept > grown / 3 {
        let waited = left.elapsed();
        assert!(waited < TWO_MINUTES, "{kept} of {grown} kB are still kept");
        sleep(Duration::from_millis(500)).await;
        kept = resident(&daemon).saturating_sub(before);
    }
    assert_serves(&place).await;
    assert_unharmed(&mut daemon);
}
