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
use tor_circmgr::ClientOnionServiceDataTunnel as Tunnel;
use tor_circmgr::IsolationToken;
use tor_hsclient::{HsClientConnector, HsClientSecretKeys};
use tracing::debug;

use self::line::{Ended, Errand, Line};
use self::progress::Progress;
use super::Directory;
use super::runtime::TorRuntime;
use super::verdict::more_telling;
use crate::failure::Failure;
use crate::target::OnionAddress;

mod line;
mod progress;

/// How many lines an attempt follows at once. The first is followed to its end; the others make room
/// for newer ones.
const LINES: usize = 3;
/// An attempt goes on for this long even if nobody waits: who asks again finds it further along.
const LEAST_LIFE: Duration = Duration::from_secs(120);

/// How much longer a line may wait for a service to which its introduction was passed on, when introduction points
/// have refused another's: they also do so because the service wants no more at once.
const GRACE: Duration = Duration::from_secs(10);

/// What the lines of a record's attempts are to tor-hsclient, and last, what the first line's second round
/// is if it runs beside the first. tor-hsclient never forgets a token that had no
/// success, so the same few are used again and again. The first is the one that worked last.
pub(super) type Tokens = [IsolationToken; LINES + 1];

/// Begins attempts.
pub(super) struct Launcher(Arc<Shared>);

struct Shared {
    connector: HsClientConnector<TorRuntime>,
    directory: Directory,
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
}

/// An open circuit to a service.
#[derive(Clone)]
pub(super) struct Circuit {
    /// tor-hsclient holds the circuit, for as long as it may be used.
    tunnel: Weak<Tunnel>,
    /// Whether it was built for this attempt.
    pub(super) fresh: bool,
    /// What tor-hsclient knows it by.
    pub(super) token: IsolationToken,
}

impl Circuit {
    /// The circuit itself, if it is still there.
    pub(super) fn tunnel(&self) -> Option<Arc<Tunnel>> {
        self.tunnel.upgrade()
    }

    /// The circuit as those find it who come later.
    pub(super) fn for_others(&self) -> Circuit {
        Circuit {
            fresh: false,
            ..self.clone()
        }
    }

    /// Whether it may still be used.
    pub(super) fn is_open(&self) -> bool {
        self.tunnel().is_some_and(|tunnel| !tunnel.is_closed())
    }
}

impl Attempt {
    /// Whether it is still going on.
    pub(super) fn is_running(&self) -> bool {
        // A task that panicked leaves nothing in the channel, and closes it.
        self.outcome.borrow().is_none() && self.outcome.has_changed().is_ok()
    }

    /// The circuit it ended with.
    pub(super) fn found(&self) -> Option<Circuit> {
        match &*self.outcome.borrow() {
            Some(Outcome::Circuit(circuit)) => Some(circuit.clone()),
            Some(Outcome::Failed(_)) | None => None,
        }
    }

    /// Lets it know that somebody new waits, and until when.
    pub(super) fn join(&self, deadline: Instant) {
        self.progress.join(deadline);
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
    pub(super) fn new(connector: HsClientConnector<TorRuntime>, directory: Directory) -> Launcher {
        Launcher(Arc::new(Shared {
            connector,
            directory,
        }))
    }

    /// Begins an attempt in a task of its own: it goes on when a client hangs up, so that the same
    /// request a moment later finds it further along.
    pub(super) fn launch(
        &self,
        service: OnionAddress,
        keys: HsClientSecretKeys,
        tokens: Tokens,
        deadline: Instant,
    ) -> Attempt {
        let until = deadline.max(Instant::now() + LEAST_LIFE);
        let progress = Arc::new(Progress::new(until));
        let (sender, outcome) = watch::channel(None);
        let attempt = Attempt {
            progress: Arc::clone(&progress),
            outcome,
        };
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            let outcome = shared.attempt(service, keys, tokens, &progress).await;
            sender.send_replace(Some(outcome));
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
        tokens: Tokens,
        progress: &Progress,
    ) -> Outcome {
        let errand = Errand {
            connector: &self.connector,
            directory: &self.directory,
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
                    Some(Ok(Ended { result: Ok(circuit), .. })) => break Outcome::Circuit(circuit),
                    Some(Ok(Ended { number, result: Err(failure), proven })) => {
                        let hope = failure == Failure::IntroductionFailed
                            && progress.another_is_acknowledged(number);
                        if proven && !hope {
                            break Outcome::Failed(failure);
                        }
                        if proven {
                            debug!("introduction points refuse; another way still waits for the onion service");
                            gone.get_or_insert_with(|| Instant::now() + GRACE);
                        }
                        let failure = failed.map_or(failure, |f| more_telling(f, failure));
                        failed = Some(failure);
                        if lines.is_empty() {
                            let gone = gone.map(|_| Failure::IntroductionFailed);
                            break Outcome::Failed(gone.unwrap_or(failure));
                        }
                    }
                    // It made room for another.
                    Some(Err(Aborted)) => {}
                    None => break Outcome::Failed(failed.unwrap_or(Failure::Internal)),
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
                () = at(gone) => break Outcome::Failed(Failure::IntroductionFailed),
                () = progress.end() => break Outcome::Failed(progress.verdict_so_far()),
            }
        };
        drop(lines);
        progress.abandon();
        outcome
    }
}

/// Returns at that time, if there is one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
