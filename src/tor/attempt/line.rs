//! A line of an attempt: one round of tor-hsclient's work after another, until a circuit is there or a
//! failure that another round would not change.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Fuse, FusedFuture as _};
use tokio::time::sleep;
use tor_circmgr::IsolationToken;
use tor_circmgr::isolation::StreamIsolation;
use tor_hsclient::{HsClientConnector, HsClientSecretKeys};
use tor_hscrypto::pk::HsId;
use tracing::debug;

use super::Circuit;
use super::progress::Progress;
use crate::failure::Failure;
use crate::target::OnionAddress;
use crate::tor::Directory;
use crate::tor::border;
use crate::tor::evidence::Evidence;
use crate::tor::runtime::TorRuntime;
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
pub(super) type Round<'a> = BoxFuture<'a, Result<Circuit, Failure>>;

/// What the lines of an attempt have in common.
#[derive(Clone, Copy)]
pub(super) struct Errand<'a> {
    pub(super) connector: &'a HsClientConnector<TorRuntime>,
    pub(super) directory: &'a Directory,
    pub(super) service: &'a OnionAddress,
    pub(super) keys: &'a HsClientSecretKeys,
    pub(super) progress: &'a Progress,
}

/// How a line ended.
pub(super) struct Ended {
    /// Its place among the lines of the attempt.
    pub(super) number: usize,
    pub(super) result: Result<Circuit, Failure>,
    /// Whether a failure is proven, whatever the other lines still wait for.
    pub(super) proven: bool,
}

/// A line that is followed.
pub(super) struct Line<'a> {
    errand: Errand<'a>,
    /// Its place among the lines of the attempt.
    number: usize,
    /// What it is to tor-hsclient.
    token: IsolationToken,
    /// What its second round is, should that begin before the first has ended.
    spare: Option<IsolationToken>,
    /// That of the newest round.
    evidence: Arc<Evidence>,
    /// The first round, while the second runs beside it.
    older: Fuse<Round<'a>>,
    /// How it has failed.
    older_failed: Option<Failure>,
    other_points_left: usize,
    further_rounds_left: usize,
}

/// What a round, or the waiting for it, came to.
enum Step<'a> {
    /// A circuit, from whichever round.
    Found(Circuit),
    /// The newest round failed.
    Failed(Failure),
    /// It turned to an introduction point at which another line stands still.
    SilentPoint,
    /// Introduction points refuse. The round can go on beside another that has the spare token.
    Doubted(Round<'a>, IsolationToken),
}

impl<'a> Line<'a> {
    /// A line in this place, noted in the progress: it counts before it is followed.
    pub(super) fn new(
        errand: Errand<'a>,
        number: usize,
        token: IsolationToken,
        spare: Option<IsolationToken>,
    ) -> Line<'a> {
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
    pub(super) async fn follow(mut self) -> Ended {
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
    async fn step(&mut self) -> Step<'a> {
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
    async fn conclude(mut self, failure: Failure) -> Ended {
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

fn found(number: usize, circuit: Circuit) -> Ended {
    Ended {
        number,
        result: Ok(circuit),
        proven: true,
    }
}

impl Errand<'_> {
    /// Asks tor-hsclient once, and no longer than it takes to know the outcome.
    async fn round(
        self,
        token: IsolationToken,
        evidence: Arc<Evidence>,
    ) -> Result<Circuit, Failure> {
        let until = self.progress.until();
        let netdir = self
            .directory
            .timely(until)
            .await
            .ok_or(Failure::NotBootstrapped)?;
        let isolation = StreamIsolation::builder()
            .stream_isolation(Box::new(token))
            .build()
            .map_err(|error| {
                tracing::warn!("cannot isolate a stream: {error}");
                Failure::Internal
            })?;
        let service = HsId::from(self.service.key());
        let asking =
            self.connector
                .get_or_launch_tunnel(&netdir, service, self.keys.clone(), isolation);
        tokio::select! {
            got = evidence.gather(asking) => match got {
                Ok(tunnel) => Ok(Circuit {
                    tunnel: Arc::downgrade(&tunnel),
                    fresh: evidence.worked(),
                    token,
                }),
                Err(error) => Err(evidence.beside_tries(border::of_onion_attempt(&error))),
            },
            failure = evidence.conclusion() => {
                evidence.abandon();
                Err(failure)
            }
        }
    }
}
