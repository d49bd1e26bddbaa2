//! One try of an attempt: it makes one call to tor-hsclient after another, until it has a circuit
//! or a failure that another call would not change.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Fuse, FusedFuture as _};
use tokio::time::sleep;
use tor_circmgr::IsolationToken;
use tor_hsclient::HsClientSecretKeys;
use tracing::debug;

use super::progress::AttemptProgress;
use crate::failure::Failure;
use crate::tor::onion::classify::more_informative;
use crate::tor::onion::network::{CallParameters, Network};
use crate::tor::onion::observer::CallObserver;
use crate::tor::onion::rendezvous_circuit::RendezvousCircuit;
use crate::tor::onion_address::OnionAddress;

/// How often a try replaces a call that arrived at an introduction point at which another try is
/// stalled: tor-hsclient tries the points of each call in random order.
const MAX_POINT_CHANGES: usize = 5;

/// How often a try calls again to fetch the descriptor again. The second time happens only if the
/// first used a descriptor that another call had fetched.
const MAX_FURTHER_CALLS: usize = 2;

/// How long to wait before the next call if the Tor client was not ready: it chooses its vanguards
/// a moment after it gets the network directory that requests wait for.
const NOT_READY_DELAY: Duration = Duration::from_millis(50);

/// A running call to tor-hsclient.
type PendingCall<'a, N> = BoxFuture<'a, Result<RendezvousCircuit<N>, Failure>>;

/// What all tries of an attempt share.
pub(super) struct AttemptContext<'a, N: Network> {
    pub(super) network: &'a N,
    pub(super) connector: &'a N::HsConnector,
    pub(super) service: &'a OnionAddress,
    pub(super) keys: &'a HsClientSecretKeys,
    pub(super) progress: &'a AttemptProgress,
}

// Not derived: a derived `Clone` would require `N: Clone`.
impl<N: Network> Clone for AttemptContext<'_, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N: Network> Copy for AttemptContext<'_, N> {}

/// How a try ended.
pub(super) struct TryOutcome<N: Network> {
    /// The number of the try in its attempt.
    pub(super) number: usize,
    pub(super) result: Result<RendezvousCircuit<N>, Failure>,
    /// Whether the result holds whatever the other tries of the attempt still wait for.
    pub(super) is_conclusive: bool,
}

/// A running try.
pub(super) struct ParallelTry<'a, N: Network> {
    context: AttemptContext<'a, N>,
    /// The number of the try in its attempt.
    number: usize,
    /// The isolation token of the newest call.
    token: IsolationToken,
    /// The isolation token for a second call that starts before the first has ended.
    spare: Option<IsolationToken>,
    /// The observer of the newest call.
    observer: Arc<CallObserver>,
    /// The first call, while the second runs beside it.
    earlier_call: Fuse<PendingCall<'a, N>>,
    /// How the first call failed while the second ran beside it.
    earlier_call_failure: Option<Failure>,
    point_changes_left: usize,
    further_calls_left: usize,
}

/// How a call ended, or why the try does not wait for it alone.
enum CallOutcome<'a, N: Network> {
    /// The newest or the earlier call returned a circuit.
    Connected(RendezvousCircuit<N>),
    /// The newest call failed.
    Failed(Failure),
    /// The call arrived at an introduction point at which another try is stalled.
    UnresponsivePoint,
    /// Introduction points refuse. The call can go on beside another one with the spare token.
    DescriptorSuspect(PendingCall<'a, N>, IsolationToken),
}

impl<'a, N: Network> ParallelTry<'a, N> {
    /// Creates a try, and adds it to the progress of the attempt even before it runs.
    pub(super) fn new(
        context: AttemptContext<'a, N>,
        number: usize,
        token: IsolationToken,
        spare: Option<IsolationToken>,
    ) -> ParallelTry<'a, N> {
        let observer = CallObserver::new(None);
        context.progress.begin_try(number, &observer);
        ParallelTry {
            context,
            number,
            token,
            spare,
            observer,
            earlier_call: Fuse::terminated(),
            earlier_call_failure: None,
            point_changes_left: MAX_POINT_CHANGES,
            further_calls_left: MAX_FURTHER_CALLS,
        }
    }

    /// Runs the try to its end.
    pub(super) async fn run(mut self) -> TryOutcome<N> {
        loop {
            match self.call().await {
                CallOutcome::Connected(circuit) => return connected(self.number, circuit),
                CallOutcome::UnresponsivePoint => {
                    debug!("another try is stalled at this introduction point; choosing again");
                    self.point_changes_left -= 1;
                    self.observer.abort_work();
                    self.observe_next_call(self.observer.renew());
                }
                CallOutcome::DescriptorSuspect(call, spare) => {
                    debug!("introduction points refuse; refetching the descriptor in parallel");
                    self.token = spare;
                    self.spare = None;
                    let observer = Arc::clone(&self.observer);
                    let progress = self.context.progress;
                    self.earlier_call = progress.track_earlier_call(call, observer).fuse();
                    self.observe_next_call(CallObserver::new(Some(Failure::IntroductionFailed)));
                }
                CallOutcome::Failed(_) if self.observer.is_client_unready() => {
                    sleep(NOT_READY_DELAY).await;
                    self.observe_next_call(self.observer.renew());
                }
                CallOutcome::Failed(failure) if self.is_worth_another_call(failure) => {
                    debug!("trying the onion service again with a new descriptor");
                    self.further_calls_left -= 1;
                    self.spare = None;
                    self.observe_next_call(CallObserver::new(Some(failure)));
                }
                CallOutcome::Failed(failure) => return self.conclude(failure).await,
            }
        }
    }

    /// Makes a call, and waits for its outcome.
    async fn call(&mut self) -> CallOutcome<'a, N> {
        let observer = Arc::clone(&self.observer);
        let mut call = self.context.call(self.token, Arc::clone(&observer)).boxed();
        let (progress, number) = (self.context.progress, self.number);
        let is_unresponsive = |point| progress.is_unresponsive(point, number);
        let mut unresponsive_point = pin!(observer.wait_until_at_point(is_unresponsive));
        loop {
            tokio::select! {
                result = &mut call => return match result {
                    Ok(circuit) => CallOutcome::Connected(circuit),
                    Err(failure) => CallOutcome::Failed(failure),
                },
                result = &mut self.earlier_call, if !self.earlier_call.is_terminated() => {
                    match result {
                        Ok(circuit) => {
                            observer.abort_work();
                            return CallOutcome::Connected(circuit);
                        }
                        Err(failure) => self.earlier_call_failure = Some(failure),
                    }
                }
                () = &mut unresponsive_point, if self.point_changes_left > 0 => {
                    return CallOutcome::UnresponsivePoint;
                }
                spare = observer.wait_until_descriptor_suspect(self.spare) => {
                    return CallOutcome::DescriptorSuspect(call, spare);
                }
            }
        }
    }

    /// Observes the next call with `observer`.
    fn observe_next_call(&mut self, observer: Arc<CallObserver>) {
        self.context
            .progress
            .replace_observer(self.number, &observer);
        self.observer = observer;
    }

    fn is_worth_another_call(&self, failure: Failure) -> bool {
        self.further_calls_left > 0 && self.observer.is_worth_another_call(failure)
    }

    /// Ends the try with the failure of the newest call, combined with the result of the earlier
    /// call.
    async fn conclude(mut self, failure: Failure) -> TryOutcome<N> {
        let observer = &self.observer;
        observer.set_finished();
        let is_refused = failure == Failure::IntroductionFailed && observer.has_only_refusals();
        let is_conclusive = is_refused || observer.proven_failure().is_some();
        // The earlier call may be about to succeed all the same.
        let may_succeed = self.context.progress.is_earlier_call_acknowledged();
        if !self.earlier_call.is_terminated() && (may_succeed || !is_conclusive) {
            match (&mut self.earlier_call).await {
                Ok(circuit) => return connected(self.number, circuit),
                Err(failure) => self.earlier_call_failure = Some(failure),
            }
        }
        let failure = observer.combine_with_earlier(failure);
        let failure = match self.earlier_call_failure {
            // Refused introductions are why the second call was made; that adds nothing.
            Some(earlier) if earlier != Failure::IntroductionFailed && !is_conclusive => {
                more_informative(failure, earlier)
            }
            _ => failure,
        };
        TryOutcome {
            number: self.number,
            result: Err(failure),
            is_conclusive,
        }
    }
}

fn connected<N: Network>(number: usize, circuit: RendezvousCircuit<N>) -> TryOutcome<N> {
    TryOutcome {
        number,
        result: Ok(circuit),
        is_conclusive: true,
    }
}

impl<N: Network> AttemptContext<'_, N> {
    /// Calls the connector once, and stops as soon as the failure is proven.
    async fn call(
        self,
        token: IsolationToken,
        observer: Arc<CallObserver>,
    ) -> Result<RendezvousCircuit<N>, Failure> {
        let call = CallParameters {
            service: self.service,
            keys: self.keys,
            token,
            directory_deadline: self.progress.end_time(),
            observer: &observer,
        };
        tokio::select! {
            result = self.network.call(self.connector, call) => result.map(|tunnel| {
                let is_new = observer.has_started();
                RendezvousCircuit::new(&tunnel, self.connector.clone(), is_new, token)
            }),
            failure = observer.wait_for_proven_failure() => {
                observer.abort_work();
                Err(failure)
            }
        }
    }
}
