//! One attempt to get a circuit to an onion service, shared by any number of requests.
//!
//! An attempt starts with one *try* and may run up to [`MAX_TRIES`] in parallel. A try makes one
//! *call* to tor-hsclient after another: it calls again, so that the descriptor is fetched again,
//! if the introduction points of the first descriptor fail. The first try starts its second call
//! beside the first as soon as two introduction points have refused.
//!
//! When a try has made no progress for a while, the attempt starts another one beside it. Without
//! the second try, a rendezvous requested just before the service restarts would block the request
//! until its deadline. tor-hsclient sees each try, and the second call of the first try, under an
//! isolation token of its own.
//!
//! Read in this order: this file, [`parallel_try`] (the calls of one try), [`progress`] (the state
//! that tries and requests share), [`unawaited`] (the limit of attempts without a request). None
//! of them imports the slots or `Onions`, which use attempts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{AbortHandle, Aborted, abortable};
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tor_circmgr::IsolationToken;
use tor_hsclient::HsClientSecretKeys;
use tracing::debug;

use self::parallel_try::{AttemptContext, ParallelTry, TryOutcome};
use self::progress::AttemptProgress;
use self::unawaited::UnawaitedAttempts;
use super::classify::more_informative;
use super::network::Network;
use super::rendezvous_circuit::RendezvousCircuit;
use crate::failure::Failure;
use crate::tor::onion_address::OnionAddress;

mod parallel_try;
mod progress;
#[cfg(test)]
mod tests;
mod unawaited;

#[cfg(test)]
pub(super) use unawaited::MAX_UNAWAITED_ATTEMPTS;

/// How many tries an attempt runs at once. The first runs to its end; the oldest of the others
/// makes room for a new one.
const MAX_TRIES: usize = 3;

/// How long after its start an attempt may continue without a waiting request: a client that requests
/// the service again soon finds it further along.
const MIN_LIFETIME: Duration = Duration::from_secs(120);

/// How much longer a try with an acknowledged introduction may wait for the service when the
/// introduction points of another try have refused. Introduction points also refuse when the service
/// limits the rate of introductions, so a refusal does not prove that an acknowledged introduction
/// will fail.
const ACKNOWLEDGED_GRACE: Duration = Duration::from_secs(10);

/// The isolation tokens of a slot: one for each try, of which index 0 is the token of the newest
/// circuit; then one for the second call of the first try if it runs beside the first call.
pub(super) type AttemptTokens = [IsolationToken; MAX_TRIES + 1];

/// Returns tokens that tor-hsclient has no circuits for.
pub(super) fn new_tokens() -> AttemptTokens {
    std::array::from_fn(|_| IsolationToken::new())
}

/// Starts attempts.
pub(super) struct AttemptLauncher<N> {
    network: Arc<N>,
    unawaited: Arc<UnawaitedAttempts>,
}

/// The arguments of [`AttemptLauncher::launch`].
pub(super) struct AttemptParameters<N: Network> {
    pub(super) service: OnionAddress,
    pub(super) keys: HsClientSecretKeys,
    pub(super) connector: N::HsConnector,
    pub(super) tokens: AttemptTokens,
}

/// A running or finished attempt.
pub(super) struct Attempt<N: Network> {
    progress: Arc<AttemptProgress>,
    outcome: watch::Receiver<Option<AttemptOutcome<N>>>,
    unawaited: Arc<UnawaitedAttempts>,
}

/// A request that waits for an attempt, until it is dropped.
pub(super) struct AttemptWaiter<N: Network>(Attempt<N>);

/// How an attempt ended.
pub(super) enum AttemptOutcome<N: Network> {
    Circuit(RendezvousCircuit<N>),
    /// The failure of all requests that wait.
    Failed(Failure),
}

// Not derived: a derived `Clone` would require `N: Clone`.
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

impl<N: Network> AttemptLauncher<N> {
    pub(super) fn new(network: Arc<N>) -> AttemptLauncher<N> {
        AttemptLauncher {
            network,
            unawaited: Arc::default(),
        }
    }

    /// Starts an attempt in a task of its own, and returns it with the waiter of the request that
    /// it is started for, which waits until `deadline`.
    ///
    /// The attempt continues when the client disconnects, so that the same request a moment later
    /// finds it further along. `on_end` is called before any waiter gets the outcome.
    pub(super) fn launch(
        &self,
        parameters: AttemptParameters<N>,
        deadline: Instant,
        on_end: impl FnOnce(&Attempt<N>, &AttemptOutcome<N>) + Send + 'static,
    ) -> (Attempt<N>, AttemptWaiter<N>) {
        let progress = Arc::new(AttemptProgress::new(Instant::now() + MIN_LIFETIME));
        let (sender, outcome) = watch::channel(None);
        let attempt = Attempt {
            progress: Arc::clone(&progress),
            outcome,
            unawaited: Arc::clone(&self.unawaited),
        };
        self.unawaited.join(&progress, deadline);
        let waiter = AttemptWaiter(attempt.clone());
        let network = Arc::clone(&self.network);
        let this = attempt.clone();
        tokio::spawn(async move {
            let outcome = run(&*network, parameters, &this.progress).await;
            this.unawaited.finish(&this.progress);
            on_end(&this, &outcome);
            sender.send_replace(Some(outcome));
        });
        (attempt, waiter)
    }
}

impl<N: Network> Attempt<N> {
    pub(super) fn is_running(&self) -> bool {
        // If the task panics, the channel closes without an outcome.
        !self.progress.is_cancelled()
            && self.outcome.borrow().is_none()
            && self.outcome.has_changed().is_ok()
    }

    pub(super) fn is_same(&self, other: &Attempt<N>) -> bool {
        Arc::ptr_eq(&self.progress, &other.progress)
    }

    /// Adds a request that waits until `deadline`. Returns `None` if the attempt has ended.
    pub(super) fn join(&self, deadline: Instant) -> Option<AttemptWaiter<N>> {
        let has_joined = self.is_running() && self.unawaited.join(&self.progress, deadline);
        has_joined.then(|| AttemptWaiter(self.clone()))
    }

    /// Ends the attempt, even if requests wait for it.
    pub(super) fn cancel(&self) {
        self.progress.cancel();
    }
}

impl<N: Network> AttemptWaiter<N> {
    /// The failure to report if the time is up now.
    pub(super) fn failure_so_far(&self) -> Failure {
        self.0.progress.failure_so_far()
    }

    /// Waits until the attempt ends.
    pub(super) async fn wait(&self) -> AttemptOutcome<N> {
        let mut outcome = self.0.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await;
        ended
            .ok()
            .and_then(|outcome| outcome.clone())
            // The task panicked.
            .unwrap_or(AttemptOutcome::Failed(Failure::Internal))
    }
}

impl<N: Network> Drop for AttemptWaiter<N> {
    fn drop(&mut self) {
        self.0.unawaited.leave(&self.0.progress);
    }
}

/// Runs an attempt to its end.
async fn run<N: Network>(
    network: &N,
    parameters: AttemptParameters<N>,
    progress: &AttemptProgress,
) -> AttemptOutcome<N> {
    let AttemptParameters {
        service,
        keys,
        connector,
        tokens,
    } = parameters;
    let context = AttemptContext {
        network,
        connector: &connector,
        service: &service,
        keys: &keys,
        progress,
    };
    let begin = |number: usize| {
        let spare = (number == 0).then_some(tokens[MAX_TRIES]);
        abortable(ParallelTry::new(context, number, tokens[number], spare).run())
    };
    let mut tries = FuturesUnordered::new();
    let (first, _) = begin(0);
    tries.push(first);
    // All but the first try, the oldest in front.
    let mut others: VecDeque<(usize, AbortHandle)> = VecDeque::new();
    let mut failed = None;
    // Set once introduction points have conclusively refused while another try's introduction is
    // acknowledged.
    let mut grace_end = None;
    let outcome = loop {
        tokio::select! {
            ended = tries.next() => match ended {
                Some(Ok(TryOutcome { result: Ok(circuit), .. })) => {
                    break AttemptOutcome::Circuit(circuit);
                }
                Some(Ok(TryOutcome { number, result: Err(failure), is_conclusive })) => {
                    let may_succeed = failure == Failure::IntroductionFailed
                        && progress.is_other_try_acknowledged(number);
                    if is_conclusive && !may_succeed {
                        break AttemptOutcome::Failed(failure);
                    }
                    if is_conclusive {
                        debug!("introduction points refuse; another try still waits for the onion service");
                        grace_end.get_or_insert_with(|| Instant::now() + ACKNOWLEDGED_GRACE);
                    }
                    let failure = failed.map_or(failure, |f| more_informative(f, failure));
                    failed = Some(failure);
                    if tries.is_empty() {
                        let refused = grace_end.map(|_| Failure::IntroductionFailed);
                        break AttemptOutcome::Failed(refused.unwrap_or(failure));
                    }
                }
                // The try has made room for another one.
                Some(Err(Aborted)) => {}
                None => break AttemptOutcome::Failed(failed.unwrap_or(Failure::Internal)),
            },
            () = progress.wait_until_stalled() => {
                debug!("no progress towards the onion service; starting a parallel try");
                progress.record_unresponsive_points();
                let number = if others.len() + 1 < MAX_TRIES {
                    others.len() + 1
                } else {
                    let Some((number, oldest)) = others.pop_front() else { continue };
                    oldest.abort();
                    number
                };
                let (new, handle) = begin(number);
                tries.push(new);
                others.push_back((number, handle));
            }
            () = sleep_until_some(grace_end) => {
                break AttemptOutcome::Failed(Failure::IntroductionFailed);
            }
            () = progress.wait_for_end() => break AttemptOutcome::Failed(progress.failure_so_far()),
        }
    };
    drop(tries);
    progress.abort_work();
    outcome
}

/// Sleeps until `time`, forever if it is `None`.
async fn sleep_until_some(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
