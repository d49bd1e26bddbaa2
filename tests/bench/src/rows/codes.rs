//! How long each answer about a broken onion service takes, and which one it is.
//!
//! The services live in a network of their own, whose links take time, with relays that only one of them uses, so that its
//! introduction points can be stopped. All are broken before the first program is asked. Answers that
//! somebody has to work for are asked for one program after the other, those that come soon by several
//! starts of it: what a program has once learnt of a service it answers without asking. Before each is
//! a pause, so that circuits which the one before has left are closed, and others built. Of a frozen
//! service, and of silent introduction points, nothing is heard, or not for long: that wait is spent by all
//! programs at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use testnet::Network;
use tokio::task::JoinSet;

use crate::client::{Target, answer};
use crate::options::{Amounts, Picked};
use crate::proxy::{Candidate, Proxy, Setup, in_turn};
use crate::record::{Record, Sheet};
use crate::stats::percentile;
use crate::world::Home;

mod stage;

use stage::{Pace, Stage};

/// Relays whose only use is to be introduction points that can be stopped.
const SPARE_RELAYS: usize = 6;

/// How long an answer may take, in halves of the deadline. C tor begins its deadline anew when it has
/// the descriptor; arti has none, and is given up.
const PATIENCE: u32 = 3;

/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(500);

/// What was answered, and after how long.
type Answered = (u8, Duration);

/// Measures the codes of all programs, round by round. `tell` hears who is next.
///
/// # Errors
/// When the network or a service cannot be set up. A program that fails is noted in `record`.
pub fn measure(
    amounts: &Amounts,
    candidates: &[Candidate],
    picked: &Picked,
    record: &mut Record,
    mut tell: impl FnMut(u32, &str),
) -> Result<()> {
    let network = Network::builder()
        .spare_relays(SPARE_RELAYS)
        .kist(amounts.kist)
        .distance(Some(amounts.distance()))
        .circuit_timeout_ms(amounts.circuit_timeout_ms)
        .start()?;
    // What fails becomes a row of the report.
    network.mark_done();
    let home = Home::new(network.dir())?;
    let stage = Stage::set(&network, home.private("keys")?, picked)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let setup = Setup {
        deadline: Some(amounts.deadline_seconds),
        keys: Some(stage.keys.clone()),
    };
    let limit = Duration::from_secs(amounts.deadline_seconds.into()) / 2 * PATIENCE;
    let of_pace = |pace| -> Vec<_> { stage.broken.iter().filter(|b| b.pace == pace).collect() };
    let (soon, late, silent) = (
        of_pace(Pace::Soon),
        of_pace(Pace::Late),
        of_pace(Pace::Never),
    );
    let start = |candidate: &Candidate| -> Result<Proxy> {
        let proxy = Proxy::start(candidate, &network, &candidate.home(home.path()), &setup)?;
        std::thread::sleep(amounts.settle());
        Ok(proxy)
    };
    let ask_one = |proxy: &Proxy, target: &Target| {
        std::thread::sleep(PAUSE);
        runtime.block_on(ask(proxy.socks(), target, limit))
    };
    for round in 0..amounts.code_rounds {
        let mut asked = Vec::new();
        for candidate in in_turn(candidates, round) {
            tell(round, candidate.kind.name());
            let mut sheet = Sheet::new(picked);
            let ask_soon = || {
                let mut samples = Samples::default();
                let mut starts = 0;
                loop {
                    let proxy = start(candidate)?;
                    for broken in &soon {
                        if !samples.sound(broken.id) {
                            continue;
                        }
                        samples.add(broken.id, ask_one(&proxy, &broken.target));
                    }
                    starts += 1;
                    if starts >= amounts.code_starts || soon.is_empty() {
                        return anyhow::Ok((proxy, samples));
                    }
                }
            };
            match ask_soon() {
                Ok((proxy, mut samples)) => {
                    for broken in &late {
                        samples.add(broken.id, ask_one(&proxy, &broken.target));
                    }
                    samples.put(&mut sheet);
                    asked.push((candidate.kind, proxy, sheet));
                }
                Err(why) => {
                    sheet.fail_all(super::CODES, &why);
                    record.add(candidate.kind, sheet);
                }
            }
        }
        if !silent.is_empty() {
            tell(round, "all, waiting for the deadline");
        }
        let waits = async {
            let mut waiting = JoinSet::new();
            for (number, (_, proxy, _)) in asked.iter().enumerate() {
                for (which, broken) in silent.iter().enumerate() {
                    let (socks, target) = (proxy.socks(), broken.target.clone());
                    waiting.spawn(async move { (number, which, ask(socks, &target, limit).await) });
                }
            }
            waiting.join_all().await
        };
        for (number, which, said) in runtime.block_on(waits) {
            let (_, _, sheet) = &mut asked[number];
            let mut samples = Samples::default();
            samples.add(silent[which].id, said);
            samples.put(sheet);
        }
        for (kind, _, sheet) in asked {
            record.add(kind, sheet);
        }
    }
    Ok(())
}

async fn ask(proxy: SocketAddr, target: &Target, limit: Duration) -> Result<Answered> {
    let begun = Instant::now();
    let (code, _) = answer(proxy, target, limit).await?;
    Ok((code, begun.elapsed()))
}

/// What a program answered in a round: by row, all answers, or why there was none.
#[derive(Default)]
struct Samples(BTreeMap<&'static str, Result<Vec<Answered>>>);

impl Samples {
    /// Whether all was answered so far.
    fn sound(&self, id: &str) -> bool {
        self.0.get(id).is_none_or(Result::is_ok)
    }

    fn add(&mut self, id: &'static str, said: Result<Answered>) {
        let samples = self.0.entry(id).or_insert_with(|| Ok(Vec::new()));
        match (&mut *samples, said) {
            (Ok(samples), Ok(answered)) => samples.push(answered),
            (Ok(_), Err(why)) => *samples = Err(why),
            (Err(_), _) => {}
        }
    }

    /// Notes the medians, with the codes. Another code than the one that was to be provoked is no
    /// failure of the measurement: it is what the program says.
    fn put(self, sheet: &mut Sheet<'_>) {
        for (id, samples) in self.0 {
            match samples {
                Ok(samples) => {
                    let codes: BTreeSet<u8> = samples.iter().map(|(code, _)| *code).collect();
                    let codes: Vec<_> = codes.iter().map(|code| format!("{code:02X}")).collect();
                    let seconds: Vec<_> = samples.iter().map(|(_, t)| t.as_secs_f64()).collect();
                    // A time that was measured: between two codes lies none that anybody had.
                    if let Some(middle) = percentile(&seconds, 50) {
                        sheet.put_with(id, middle, codes.join("/"));
                    }
                }
                Err(why) => sheet.fail(id, &why),
            }
        }
    }
}
