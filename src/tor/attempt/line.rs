//! A line of an attempt: one round of tor-hsclient's work after another, until a circuit is there or a
//! failure that another round would not change.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Fuse, FusedFuture as _};
use tokio::time::sleep;
use tor_circmgr::IsolationToken;
use tor_hsclient::HsClientSecretKeys;
use tracing::debug;

use super::Circuit;
use super::progress::Progress;
use crate::failure::Failure;
use crate::tor::evidence::Evidence;
use crate::tor::onion::network::{Call, Network};
use crate::tor::onion_address::OnionAddress;
use crate::tor::verdict::more_telling;

/// How often a line is begun anew because it turned to an introduction point at which another stands
/// still: tor-hsclient chooses among them at random.
const OTHER_POINTS: usize = 5;
/// How often a line asks again with a descriptor fetched anew; the second time only if the first found one
/// that was left over.
const FURTHER_ROUNDS: usize = 2;

/// How soon to ask again if the Tor client was not ready: it chooses its vanguards a moment after the directory
/// is there, on which requests wait.
const NOT_READY: Duration = Duration::from_millis(50);

/// What a round leads to.
pub(super) type Round<'a, N> = BoxFuture<'a, Result<Circuit<N>, Failure>>;

/// What the lines of an attempt have in common.
pub(super) struct Errand<'a, N: Network> {
    pub(super) network: &'a N,
    pub(super) connector: &'a N::Connector,
    pub(super) service: &'a OnionAddress,
    pub(super) keys: &'a HsClientSecretKeys,
    pub(super) progress: &'a Progress,
}

impl<N: Network> Clone for Errand<'_, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N: Network> Copy for Errand<'_, N> {}

/// How a line ended.
pub(super) struct Ended<N: Network> {
    /// Its place among the lines of the attempt.
    pub(super) number: usize,
    pub(super) result: Result<Circuit<N>, Failure>,
    /// Whether a failure is proven, whatever the other lines still wait for.
    pub(super) proven: bool,
}

/// A line that is followed.
pub(super) struct Line<'a, N: Network> {
    errand: Errand<'a, N>,
    /// Its place among the lines of the attempt.
    number: usize,
    /// What it is to tor-hsclient.
    token: IsolationToken,
    /// What its second round is, should that begin before the first has ended.
    spare: Option<IsolationToken>,
    /// That of the newest round.
    evidence: Arc<Evidence>,
    /// The first round, while the second runs beside it.
    older: Fuse<Round<'a, N>>,
    /// How it has failed.
    older_failed: Option<Failure>,
    other_points_left: usize,
    further_rounds_left: usize,
}

/// What a round, or the waiting for it, came to.
enum Step<'a, N: Network> {
    /// A circuit, from whichever round.
    Found(Circuit<N>),
    /// The newest round failed.
    Failed(Failure),
    /// It turned to an introduction point at which another line stands still.
    SilentPoint,
    /// Introduction points refuse. The round can go on beside another that has the spare token.
    Doubted(Round<'a, N>, IsolationToken),
}

impl<'a, N: Network> Line<'a, N> {
    /// A line in this place, noted in the progress: it counts before it is followed.
    pub(super) fn new(
        errand: Errand<'a, N>,
        number: usize,
        token: IsolationToken,
        spare: Option<IsolationToken>,
    ) -> Line<'a, N> {
        let evidence = Evidence::new(None);
        errand.progress.begin(number, &evidence);
        Line {
            errand,
            number,
            token,
            spare,
            evidence,
            older: Fuse::terminated(),
            older_failed: None,
            other_points_left: OTHER_POINTS,
            further_rounds_left: FURTHER_ROUNDS,
        }
    }

    /// Follows it to its end.
    pub(super) async fn follow(mut self) -> Ended<N> {
        loop {
            match self.step().await {
                Step::Found(circuit) => return found(self.number, circuit),
                Step::SilentPoint => {
                    debug!("another way stands still at this introduction point; choosing again");
                    self.other_points_left -= 1;
                    self.evidence.abandon();
                    self.go_on(self.evidence.anew());
                }
                Step::Doubted(round, spare) => {
                    debug!(
                        "introduction points refuse; fetching the descriptor anew beside the last"
                    );
                    self.token = spare;
                    self.spare = None;
                    let first = Arc::clone(&self.evidence);
                    self.older = self.errand.progress.beside(round, first).fuse();
                    self.go_on(Evidence::new(Some(Failure::IntroductionFailed)));
                }
                Step::Failed(_) if self.evidence.was_not_ready() => {
                    sleep(NOT_READY).await;
                    self.go_on(self.evidence.anew());
                }
                Step::Failed(failure) if self.worth_another_round(failure) => {
                    debug!("trying the onion service once more with a descriptor fetched anew");
                    self.further_rounds_left -= 1;
                    self.spare = None;
                    self.go_on(Evidence::new(Some(failure)));
                }
                Step::Failed(failure) => return self.conclude(failure).await,
            }
        }
    }

    /// Begins a round, and waits for what it comes to.
    async fn step(&mut self) -> Step<'a, N> {
        let evidence = Arc::clone(&self.evidence);
        let mut round = self.errand.round(self.token, Arc::clone(&evidence)).boxed();
        let (progress, number) = (self.errand.progress, self.number);
        let silent = |point| progress.is_silent(point, number);
        let mut turned_to_silent = pin!(evidence.turned_to(silent));
        loop {
            tokio::select! {
                ended = &mut round => return match ended {
                    Ok(circuit) => Step::Found(circuit),
                    Err(failure) => Step::Failed(failure),
                },
                ended = &mut self.older, if !self.older.is_terminated() => match ended {
                    Ok(circuit) => {
                        evidence.abandon();
                        return Step::Found(circuit);
                    }
                    Err(failure) => self.older_failed = Some(failure),
                },
                () = &mut turned_to_silent, if self.other_points_left > 0 => {
                    return Step::SilentPoint;
                }
                spare = evidence.doubted(self.spare) => return Step::Doubted(round, spare),
            }
        }
    }

    /// Goes on with a new round.
    fn go_on(&mut self, evidence: Arc<Evidence>) {
        self.errand.progress.go_on(self.number, &evidence);
        self.evidence = evidence;
    }

    fn worth_another_round(&self, failure: Failure) -> bool {
        self.further_rounds_left > 0 && self.evidence.worth_another_round(failure)
    }

    /// Ends with the failure of the newest round, and with what the older one says to it.
    async fn conclude(mut self, failure: Failure) -> Ended<N> {
        let evidence = &self.evidence;
        evidence.rest();
        let refused = failure == Failure::IntroductionFailed && evidence.refused_only();
        let proven = refused || evidence.proven().is_some();
        // The older round may be about to succeed all the same.
        let hopeful = self.errand.progress.older_is_acknowledged();
        if !self.older.is_terminated() && (hopeful || !proven) {
            match (&mut self.older).await {
                Ok(circuit) => return found(self.number, circuit),
                Err(failure) => self.older_failed = Some(failure),
            }
        }
        let failure = evidence.beside_earlier(failure);
        let failure = match self.older_failed {
            // That introduction points refused is the reason for the second round, and no news.
            Some(older) if older != Failure::IntroductionFailed && !proven => {
                more_telling(failure, older)
            }
            _ => failure,
        };
        Ended {
            number: self.number,
            result: Err(failure),
            proven,
        }
    }
}

fn found<N: Network>(number: usize, circuit: Circuit<N>) -> Ended<N> {
    Ended {
        number,
        result: Ok(circuit),
        proven: true,
    }
}

impl<N: Network> Errand<'_, N> {
    /// Asks the connector once, and no longer than it takes to know the outcome.
    async fn round(
        self,
        token: IsolationToken,
        evidence: Arc<Evidence>,
    ) -> Result<Circuit<N>, Failure> {
        let call = Call {
            service: self.service,
            keys: self.keys,
            token,
            until: self.progress.until(),
            evidence: &evidence,
        };
        tokio::select! {
            got = self.network.call(self.connector, call) => got.map(|tunnel| Circuit {
                tunnel: Arc::downgrade(&tunnel),
                connector: self.connector.clone(),
                fresh: evidence.worked(),
                token,
            }),
            failure = evidence.conclusion() => {
                evidence.abandon();
                Err(failure)
            }
        }
    }
}
