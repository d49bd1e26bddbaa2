//! One effort to get a circuit to an onion service, awaited by any number of requests.
//!
//! An attempt follows one or more *lines*. A line asks tor-hsclient for a circuit, and once more
//! with a descriptor fetched anew if the introduction points of the first have failed. When a line
//! has not moved for a while, another is begun beside it: a rendezvous that was asked for just
//! before the service went away, or came back, would be waited for until the end. To tor-hsclient
//! each line is an isolation token of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tor_circmgr::ClientOnionServiceDataTunnel as Tunnel;
use tor_circmgr::IsolationToken;
use tor_circmgr::isolation::StreamIsolation;
use tor_hsclient::{HsClientConnector, HsClientSecretKeys};
use tor_hscrypto::pk::HsId;
use tracing::debug;

use super::Directory;
use super::border;
use super::evidence::Evidence;
use super::runtime::TorRuntime;
use crate::failure::Failure;
use crate::target::OnionAddress;

/// How long the only line may stand still before another is begun, and the newest of several when a
/// new request comes to wait for it. A sound rendezvous is done in a few seconds.
const STALLED: Duration = Duration::from_secs(10);
/// How long the newest of several may stand still when no new request comes.
const STALLED_AGAIN: Duration = Duration::from_secs(30);

/// Begins attempts.
pub(super) struct Launcher(Arc<Shared>);

struct Shared {
    connector: HsClientConnector<TorRuntime>,
    directory: Directory,
    /// How long an attempt may go on.
    limit: Duration,
}

/// A running or finished attempt.
#[derive(Clone)]
pub(super) struct Attempt {
    progress: Arc<Progress>,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// How an attempt ended.
#[derive(Clone)]
pub(super) enum Outcome {
    /// With a circuit.
    Circuit(Circuit),
    /// With a reason that holds for everybody who waits.
    Failed(Failure),
    /// Its own time was up.
    Expired(Failure),
}

/// An open circuit to a service.
#[derive(Clone)]
pub(super) struct Circuit {
    pub(super) tunnel: Arc<Tunnel>,
    /// Whether it was built for this attempt.
    pub(super) fresh: bool,
    /// What tor-hsclient knows it by.
    pub(super) token: IsolationToken,
    /// What the attempt that found it began with.
    pub(super) began_with: IsolationToken,
}

/// How far the lines of an attempt have got, for those who wait.
struct Progress {
    /// The evidence of each line's current round.
    lines: Mutex<Vec<Arc<Evidence>>>,
    /// Somebody new waits.
    nudge: Notify,
}

impl Progress {
    fn lines(&self) -> MutexGuard<'_, Vec<Arc<Evidence>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What can be said now: the word of the line that has got furthest.
    fn verdict_so_far(&self) -> Failure {
        let lines = self.lines();
        let furthest = lines.iter().rev().max_by_key(|evidence| evidence.stage());
        furthest.map_or(Failure::DirectoriesTimedOut, |evidence| {
            evidence.verdict_so_far()
        })
    }

    /// Whether another line should be begun.
    fn stands_still(&self, somebody_new: bool) -> bool {
        let lines = self.lines();
        let limit = if somebody_new || lines.len() == 1 {
            STALLED
        } else {
            STALLED_AGAIN
        };
        lines
            .last()
            .is_some_and(|newest| newest.stalled_for() >= limit)
    }
}

impl Attempt {
    /// Whether it is still going on.
    pub(super) fn is_running(&self) -> bool {
        // A task that panicked leaves nothing in the channel, and closes it.
        self.outcome.borrow().is_none() && self.outcome.has_changed().is_ok()
    }

    /// Lets it know that somebody new waits.
    pub(super) fn nudge(&self) {
        self.progress.nudge.notify_one();
    }

    /// What can be said now, should the time be up.
    pub(super) fn verdict_so_far(&self) -> Failure {
        self.progress.verdict_so_far()
    }

    /// Waits for the end.
    pub(super) async fn ended(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await;
        ended
            .ok()
            .and_then(|outcome| outcome.clone())
            // The task panicked.
            .unwrap_or(Outcome::Failed(Failure::Internal))
    }
}

impl Launcher {
    /// Attempts last no longer than `limit`.
    pub(super) fn new(
        connector: HsClientConnector<TorRuntime>,
        directory: Directory,
        limit: Duration,
    ) -> Launcher {
        Launcher(Arc::new(Shared {
            connector,
            directory,
            limit,
        }))
    }

    /// Begins an attempt in a task of its own: it goes on when a client hangs up, so that the same
    /// request a moment later finds it further along.
    pub(super) fn launch(
        &self,
        service: OnionAddress,
        keys: HsClientSecretKeys,
        token: IsolationToken,
    ) -> Attempt {
        let progress = Arc::new(Progress {
            lines: Mutex::default(),
            nudge: Notify::new(),
        });
        let (sender, outcome) = watch::channel(None);
        let attempt = Attempt {
            progress: Arc::clone(&progress),
            outcome,
        };
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            sender.send_replace(Some(shared.attempt(service, keys, token, &progress).await));
        });
        attempt
    }
}

impl Shared {
    /// Runs an attempt to its end.
    async fn attempt(
        &self,
        service: OnionAddress,
        keys: HsClientSecretKeys,
        began_with: IsolationToken,
        progress: &Progress,
    ) -> Outcome {
        let until = Instant::now() + self.limit;
        let mut lines = FuturesUnordered::new();
        lines.push(self.line(&service, &keys, began_with, progress, until));
        let outcome = loop {
            tokio::select! {
                ended = lines.next() => match ended {
                    Some((token, Ok((tunnel, fresh)))) => {
                        break Outcome::Circuit(Circuit { tunnel, fresh, token, began_with });
                    }
                    // The introduction points have said that the service is gone: nothing that
                    // another line still waits for will come.
                    Some((_, Err(failure @ Failure::IntroductionFailed))) => {
                        break Outcome::Failed(failure);
                    }
                    Some((_, Err(failure))) if lines.is_empty() => break Outcome::Failed(failure),
                    Some(_) => {}
                    None => break Outcome::Failed(Failure::Internal),
                },
                () = standstill(progress) => {
                    debug!("no progress on the way to the onion service; trying another way");
                    lines.push(self.line(&service, &keys, IsolationToken::new(), progress, until));
                }
                () = sleep_until(until) => break Outcome::Expired(progress.verdict_so_far()),
            }
        };
        for evidence in &*progress.lines() {
            evidence.abandon();
        }
        outcome
    }

    /// Follows one line to its end.
    async fn line(
        &self,
        service: &OnionAddress,
        keys: &HsClientSecretKeys,
        token: IsolationToken,
        progress: &Progress,
        until: Instant,
    ) -> (IsolationToken, Result<(Arc<Tunnel>, bool), Failure>) {
        let mut evidence = Evidence::new(None);
        let number = {
            let mut lines = progress.lines();
            lines.push(Arc::clone(&evidence));
            lines.len() - 1
        };
        let failure = loop {
            let failure = match self.round(service, keys, token, &evidence, until).await {
                Ok(found) => return (token, Ok(found)),
                Err(failure) => failure,
            };
            if !evidence.worth_another_round(failure) {
                break evidence.beside_earlier(failure);
            }
            debug!("trying the onion service once more with a descriptor fetched anew");
            evidence = Evidence::new(Some(failure));
            progress.lines()[number] = Arc::clone(&evidence);
        };
        (token, Err(failure))
    }

    /// Asks tor-hsclient once, and no longer than it takes to know the outcome.
    async fn round(
        &self,
        service: &OnionAddress,
        keys: &HsClientSecretKeys,
        token: IsolationToken,
        evidence: &Arc<Evidence>,
        until: Instant,
    ) -> Result<(Arc<Tunnel>, bool), Failure> {
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
        let service = HsId::from(service.key());
        let asking = self
            .connector
            .get_or_launch_tunnel(&netdir, service, keys.clone(), isolation);
        tokio::select! {
            got = evidence.gather(asking) => match got {
                Ok(tunnel) => Ok((tunnel, evidence.worked())),
                Err(error) => Err(border::of_onion_attempt(&error)),
            },
            failure = evidence.conclusion() => {
                evidence.abandon();
                Err(failure)
            }
        }
    }
}

/// Returns when another line should be begun.
async fn standstill(progress: &Progress) {
    /// How often to look whether the newest line has moved.
    const GLANCE: Duration = Duration::from_secs(1);
    let mut somebody_new = false;
    loop {
        tokio::select! {
            () = progress.nudge.notified() => somebody_new = true,
            () = sleep(GLANCE) => {}
        }
        if progress.stands_still(somebody_new) {
            return;
        }
    }
}
