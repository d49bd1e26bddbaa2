//! One effort to get a circuit to an onion service, awaited by any number of requests.
//!
//! An attempt follows one or more *lines*. A line asks tor-hsclient for a circuit, and once more
//! with a descriptor fetched anew if the introduction points of the first have failed; the first line
//! does so beside its first round, once two of them have refused. When a line
//! has not moved for a while, another is begun beside it: a rendezvous that was asked for just
//! before the service went away, or came back, would be waited for until the end. To tor-hsclient
//! each line, and that second round, is an isolation token of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{AbortHandle, Aborted, abortable};
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tor_circmgr::IsolationToken;
use tor_hsclient::HsClientSecretKeys;
use tracing::debug;

use self::line::{Ended, Errand, Line};
use self::progress::Progress;
use self::unawaited::Unawaited;
use super::onion::network::Network;
use super::verdict::more_telling;
use crate::failure::Failure;
use crate::tor::onion_address::OnionAddress;

mod line;
mod progress;
#[cfg(test)]
mod tests;
mod unawaited;

#[cfg(test)]
pub(super) use unawaited::MAX_UNAWAITED_ATTEMPTS;

/// How many lines an attempt follows at once. The first is followed to its end; the others make room
/// for newer ones.
const LINES: usize = 3;
/// An attempt goes on for this long even if nobody waits: who asks again finds it further along.
const LEAST_LIFE: Duration = Duration::from_secs(120);

/// How much longer a line may wait for a service to which its introduction was passed on, when introduction points
/// have refused another's: they also do so because the service wants no more at once.
const GRACE: Duration = Duration::from_secs(10);

/// What the lines of a slot's attempts are to tor-hsclient, and last, what the first line's second round
/// is if it runs beside the first. The first is the one that worked last.
pub(super) type Tokens = [IsolationToken; LINES + 1];

/// Tokens that nothing was asked for yet.
pub(super) fn fresh_tokens() -> Tokens {
    std::array::from_fn(|_| IsolationToken::new())
}

/// Begins attempts.
pub(super) struct Launcher<N> {
    network: Arc<N>,
    unawaited: Arc<Unawaited>,
}

/// What an attempt is for.
pub(super) struct Assignment<N: Network> {
    pub(super) service: OnionAddress,
    pub(super) keys: HsClientSecretKeys,
    pub(super) connector: N::Connector,
    pub(super) tokens: Tokens,
}

/// A running or finished attempt.
pub(super) struct Attempt<N: Network> {
    progress: Arc<Progress>,
    outcome: watch::Receiver<Option<AttemptOutcome<N>>>,
    unawaited: Arc<Unawaited>,
}

/// A request that waits for an attempt, until it is dropped.
pub(super) struct Waiter<N: Network>(Attempt<N>);

/// How an attempt ended.
pub(super) enum AttemptOutcome<N: Network> {
    /// With a circuit.
    Circuit(Circuit<N>),
    /// With a reason that holds for everybody who waits.
    Failed(Failure),
}

/// An open circuit to a service.
pub(super) struct Circuit<N: Network> {
    /// The connector holds the circuit, for as long as it may be used.
    tunnel: Weak<N::Tunnel>,
    /// Kept for those who are about to use the circuit while its slot gets another.
    connector: N::Connector,
    /// Whether it was built for this attempt.
    pub(super) fresh: bool,
    /// What the connector knows it by.
    pub(super) token: IsolationToken,
}

// A derived `Clone` would ask for it of the network.
impl<N: Network> Clone for Attempt<N> {
    fn clone(&self) -> Self {
        Attempt {
            progress: Arc::clone(&self.progress),
            outcome: self.outcome.clone(),
            unawaited: Arc::clone(&self.unawaited),
        }
    }
}

impl<N: Network> Clone for AttemptOutcome<N> {
    fn clone(&self) -> Self {
        match self {
            AttemptOutcome::Circuit(circuit) => AttemptOutcome::Circuit(circuit.clone()),
            AttemptOutcome::Failed(failure) => AttemptOutcome::Failed(*failure),
        }
    }
}

impl<N: Network> Clone for Circuit<N> {
    fn clone(&self) -> Self {
        Circuit {
            tunnel: Weak::clone(&self.tunnel),
            connector: self.connector.clone(),
            fresh: self.fresh,
            token: self.token,
        }
    }
}

impl<N: Network> Circuit<N> {
    /// The circuit itself, if it is still there.
    pub(super) fn tunnel(&self) -> Option<Arc<N::Tunnel>> {
        self.tunnel.upgrade()
    }

    /// The circuit as those find it who come later.
    pub(super) fn for_others(&self) -> Circuit<N> {
        Circuit {
            fresh: false,
            ..self.clone()
        }
    }

    /// Whether it may still be used.
    pub(super) fn is_open(&self) -> bool {
        self.tunnel().is_some_and(|tunnel| !N::is_closed(&tunnel))
    }
}

impl<N: Network> Attempt<N> {
    /// Whether it is still going on.
    pub(super) fn is_running(&self) -> bool {
        // A task that panicked leaves nothing in the channel, and closes it.
        !self.progress.is_cancelled()
            && self.outcome.borrow().is_none()
            && self.outcome.has_changed().is_ok()
    }

    /// Whether the two are one attempt.
    pub(super) fn is(&self, other: &Attempt<N>) -> bool {
        Arc::ptr_eq(&self.progress, &other.progress)
    }

    /// Lets it know that somebody new waits, and until when. `None` if it is no longer going on.
    pub(super) fn join(&self, deadline: Instant) -> Option<Waiter<N>> {
        let joined = self.is_running() && self.unawaited.join(&self.progress, deadline);
        joined.then(|| Waiter(self.clone()))
    }

    /// Ends it, whoever waits.
    pub(super) fn cancel(&self) {
        self.progress.cancel();
    }
}

impl<N: Network> Waiter<N> {
    /// What can be said now, should the time be up.
    pub(super) fn verdict_so_far(&self) -> Failure {
        self.0.progress.verdict_so_far()
    }

    /// Waits for the end.
    pub(super) async fn ended(&self) -> AttemptOutcome<N> {
        let mut outcome = self.0.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await;
        ended
            .ok()
            .and_then(|outcome| outcome.clone())
            // The task panicked.
            .unwrap_or(AttemptOutcome::Failed(Failure::Internal))
    }
}

impl<N: Network> Drop for Waiter<N> {
    fn drop(&mut self) {
        self.0.unawaited.leave(&self.0.progress);
    }
}

impl<N: Network> Launcher<N> {
    pub(super) fn new(network: Arc<N>) -> Launcher<N> {
        Launcher {
            network,
            unawaited: Arc::default(),
        }
    }

    /// Begins an attempt in a task of its own: it goes on when a client hangs up, so that the same
    /// request a moment later finds it further along. `ended` is called before anybody learns the outcome.
    ///
    /// The request that it is for waits for it.
    pub(super) fn launch(
        &self,
        assignment: Assignment<N>,
        deadline: Instant,
        ended: impl FnOnce(&Attempt<N>, &AttemptOutcome<N>) + Send + 'static,
    ) -> (Attempt<N>, Waiter<N>) {
        let progress = Arc::new(Progress::new(Instant::now() + LEAST_LIFE));
        let (sender, outcome) = watch::channel(None);
        let attempt = Attempt {
            progress: Arc::clone(&progress),
            outcome,
            unawaited: Arc::clone(&self.unawaited),
        };
        self.unawaited.join(&progress, deadline);
        let waiter = Waiter(attempt.clone());
        let network = Arc::clone(&self.network);
        let this = attempt.clone();
        tokio::spawn(async move {
            let outcome = follow(&*network, assignment, &this.progress).await;
            this.unawaited.end(&this.progress);
            ended(&this, &outcome);
            sender.send_replace(Some(outcome));
        });
        (attempt, waiter)
    }
}

/// Runs an attempt to its end.
async fn follow<N: Network>(
    network: &N,
    assignment: Assignment<N>,
    progress: &Progress,
) -> AttemptOutcome<N> {
    let Assignment {
        service,
        keys,
        connector,
        tokens,
    } = assignment;
    let errand = Errand {
        network,
        connector: &connector,
        service: &service,
        keys: &keys,
        progress,
    };
    let begin = |number: usize| {
        let spare = (number == 0).then_some(tokens[LINES]);
        abortable(Line::new(errand, number, tokens[number], spare).follow())
    };
    let mut lines = FuturesUnordered::new();
    let (line, _) = begin(0);
    lines.push(line);
    let mut others: VecDeque<(usize, AbortHandle)> = VecDeque::new();
    let mut failed = None;
    let mut gone = None;
    let outcome = loop {
        tokio::select! {
            ended = lines.next() => match ended {
                Some(Ok(Ended { result: Ok(circuit), .. })) => break AttemptOutcome::Circuit(circuit),
                Some(Ok(Ended { number, result: Err(failure), proven })) => {
                    let hope = failure == Failure::IntroductionFailed
                        && progress.another_is_acknowledged(number);
                    if proven && !hope {
                        break AttemptOutcome::Failed(failure);
                    }
                    if proven {
                        debug!("introduction points refuse; another way still waits for the onion service");
                        gone.get_or_insert_with(|| Instant::now() + GRACE);
                    }
                    let failure = failed.map_or(failure, |f| more_telling(f, failure));
                    failed = Some(failure);
                    if lines.is_empty() {
                        let gone = gone.map(|_| Failure::IntroductionFailed);
                        break AttemptOutcome::Failed(gone.unwrap_or(failure));
                    }
                }
                // It made room for another.
                Some(Err(Aborted)) => {}
                None => break AttemptOutcome::Failed(failed.unwrap_or(Failure::Internal)),
            },
            () = progress.standstill() => {
                debug!("no progress on the way to the onion service; trying another way");
                progress.note_silence();
                let number = if others.len() + 1 < LINES {
                    others.len() + 1
                } else {
                    let Some((number, oldest)) = others.pop_front() else { continue };
                    oldest.abort();
                    number
                };
                let (line, handle) = begin(number);
                lines.push(line);
                others.push_back((number, handle));
            }
            () = at(gone) => break AttemptOutcome::Failed(Failure::IntroductionFailed),
            () = progress.end() => break AttemptOutcome::Failed(progress.verdict_so_far()),
        }
    };
    drop(lines);
    progress.abandon();
    outcome
}

/// Returns at that time, if there is one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
