//! Measures which code each program replies for a broken onion service, and how long the reply takes.
//!
//! The services are in a separate network whose links have a delay. Some of its relays serve only as
//! introduction points of one service, so that they can be stopped. All services are broken before the
//! first request.
//!
//! How a code is measured depends on its pace:
//!
//! - Fast codes are requested from one program at a time, on several starts of it: what a program has
//!   learnt about a service, it answers from its cache.
//! - Slow codes are requested from one program at a time, on its last start.
//! - Codes that arrive only at the deadline are requested from all programs at the same time.
//!
//! A pause precedes each fast or slow request, so that the circuits of the previous request are closed
//! and new ones are built.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use testnet::Network;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::client::{Target, connect};
use crate::options::{RowFilter, Settings};
use crate::proxy::{Candidate, ExtraConfig, Program, Proxy, rotated};
use crate::results::{Results, RunResults};
use crate::stats::percentile;
use crate::testbed::ScratchDir;

mod broken_targets;

use broken_targets::{BrokenTargets, Pace};

/// The number of relays that serve only as introduction points that can be stopped.
const SPARE_RELAYS: usize = 6;

/// The time limit for a reply, in halves of the deadline. C tor restarts its deadline when it has the
/// descriptor; arti has no deadline.
const LIMIT_IN_HALF_DEADLINES: u32 = 3;

/// The pause before a request.
const PAUSE: Duration = Duration::from_millis(500);

/// A reply code, and the time until it arrived.
type Reply = (u8, Duration);

/// Measures the codes of all programs, round by round. Calls `progress` with the round and the name of
/// each step.
///
/// # Errors
/// If the network or a service cannot be set up. The failure of a program becomes part of the results.
pub fn measure(
    settings: &Settings,
    candidates: &[Candidate],
    filter: &RowFilter,
    results: &mut Results,
    mut progress: impl FnMut(u32, &str),
) -> Result<()> {
    let session = Session::start(settings, filter)?;
    for round in 0..settings.code_rounds {
        let mut running = Vec::new();
        for candidate in rotated(candidates, round) {
            progress(round, candidate.program.name());
            let mut run = RunResults::new(filter);
            match session.measure_in_turn(candidate, &mut run) {
                Ok(proxy) => running.push((candidate.program, proxy, run)),
                Err(error) => {
                    run.add_failures(super::CODES, &error);
                    results.add(candidate.program, run);
                }
            }
        }
        if session.targets.with_pace(Pace::AtDeadline).next().is_some() {
            progress(round, "all, waiting for the deadline");
        }
        session.measure_together(&mut running);
        for (program, _, run) in running {
            results.add(program, run);
        }
    }
    Ok(())
}

/// The network with the broken services.
///
/// The order of the fields matters: the network is dropped last.
struct Session<'a> {
    settings: &'a Settings,
    /// The configuration of the programs.
    extra: ExtraConfig,
    /// The time limit for a reply.
    limit: Duration,
    runtime: Runtime,
    targets: BrokenTargets,
    /// Contains the data folders of the programs.
    folder: ScratchDir,
    network: Network,
}

impl<'a> Session<'a> {
    /// Starts the network and breaks the services.
    fn start(settings: &'a Settings, filter: &RowFilter) -> Result<Self> {
        let network = Network::builder()
            .spare_relays(SPARE_RELAYS)
            .kist(settings.kist)
            .distance(Some(settings.distance()))
            .circuit_timeout_ms(settings.circuit_timeout_ms)
            .start()?;
        // Failures appear in the report, so the network's logs need not be kept.
        network.mark_done();
        let folder = ScratchDir::new(network.dir())?;
        let key_dir = folder.create_private("keys")?;
        let targets = BrokenTargets::start(&network, &key_dir, filter)?;
        Ok(Session {
            settings,
            extra: ExtraConfig {
                deadline_seconds: Some(settings.deadline_seconds),
                key_dir: Some(key_dir),
            },
            limit: Duration::from_secs(settings.deadline_seconds.into()) / 2
                * LIMIT_IN_HALF_DEADLINES,
            runtime: Runtime::new()?,
            targets,
            folder,
            network,
        })
    }

    fn start_settled(&self, candidate: &Candidate) -> Result<Proxy> {
        let data_dir = candidate.data_dir(self.folder.path());
        let proxy = Proxy::start(candidate, &self.network, &data_dir, &self.extra)?;
        std::thread::sleep(self.settings.settle());
        Ok(proxy)
    }

    /// Measures the fast and the slow codes of a program, and returns its last start.
    fn measure_in_turn(&self, candidate: &Candidate, run: &mut RunResults<'_>) -> Result<Proxy> {
        let mut replies = Replies::default();
        let mut starts = 0;
        let proxy = loop {
            let proxy = self.start_settled(candidate)?;
            for broken in self.targets.with_pace(Pace::Fast) {
                if replies.has_failed(broken.id) {
                    continue;
                }
                replies.add(broken.id, self.pause_and_request(&proxy, &broken.target));
            }
            starts += 1;
            let has_fast_codes = self.targets.with_pace(Pace::Fast).next().is_some();
            if starts >= self.settings.code_starts || !has_fast_codes {
                break proxy;
            }
        };
        for broken in self.targets.with_pace(Pace::Slow) {
            replies.add(broken.id, self.pause_and_request(&proxy, &broken.target));
        }
        replies.add_to(run);
        Ok(proxy)
    }

    fn pause_and_request(&self, proxy: &Proxy, target: &Target) -> Result<Reply> {
        std::thread::sleep(PAUSE);
        let request = request_code(proxy.socks_addr(), target, self.limit);
        self.runtime.block_on(request)
    }

    /// Measures the codes that arrive at the deadline, from all running programs at the same time.
    fn measure_together(&self, running: &mut [(Program, Proxy, RunResults<'_>)]) {
        let requests = async {
            let mut tasks = JoinSet::new();
            for (number, (_, proxy, _)) in running.iter().enumerate() {
                for broken in self.targets.with_pace(Pace::AtDeadline) {
                    let (id, target) = (broken.id, broken.target.clone());
                    let (socks_addr, limit) = (proxy.socks_addr(), self.limit);
                    tasks.spawn(async move {
                        let reply = request_code(socks_addr, &target, limit).await;
                        (number, id, reply)
                    });
                }
            }
            tasks.join_all().await
        };
        for (number, id, reply) in self.runtime.block_on(requests) {
            let (_, _, run) = &mut running[number];
            let mut replies = Replies::default();
            replies.add(id, reply);
            replies.add_to(run);
        }
    }
}

async fn request_code(proxy: SocketAddr, target: &Target, limit: Duration) -> Result<Reply> {
    let begun = Instant::now();
    let (code, _) = connect(proxy, target, limit).await?;
    Ok((code, begun.elapsed()))
}

/// The replies of one program in one round: for each row all replies, or why one is missing.
#[derive(Default)]
struct Replies(BTreeMap<&'static str, Result<Vec<Reply>>>);

impl Replies {
    /// Whether a request of this row got no reply.
    fn has_failed(&self, id: &str) -> bool {
        self.0.get(id).is_some_and(Result::is_err)
    }

    /// Adds a reply. The first missing reply makes the row fail.
    fn add(&mut self, id: &'static str, reply: Result<Reply>) {
        let replies = self.0.entry(id).or_insert_with(|| Ok(Vec::new()));
        match (&mut *replies, reply) {
            (Ok(replies), Ok(reply)) => replies.push(reply),
            (Ok(_), Err(error)) => *replies = Err(error),
            (Err(_), _) => {}
        }
    }

    /// Adds the median times to the results, with the codes as notes.
    ///
    /// A code other than the row's is not a failure: it is the measured behaviour of the program.
    fn add_to(self, run: &mut RunResults<'_>) {
        for (id, replies) in self.0 {
            match replies {
                Ok(replies) => {
                    let codes: BTreeSet<u8> = replies.iter().map(|(code, _)| *code).collect();
                    let codes: Vec<_> = codes.iter().map(|code| format!("{code:02X}")).collect();
                    let seconds: Vec<_> = replies.iter().map(|(_, t)| t.as_secs_f64()).collect();
                    // The nearest rank is a measured time. A midpoint could lie between the times of
                    // two different codes.
                    if let Some(median) = percentile(&seconds, 50) {
                        run.add_with_note(id, median, codes.join("/"));
                    }
                }
                Err(error) => run.add_failure(id, &error),
            }
        }
    }
}
