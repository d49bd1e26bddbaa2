//! One effort to get a circuit to an onion service, awaited by any number of requests.
//!
//! An attempt follows one or more *lines*. A line asks tor-hsclient for a circuit, and once more
//! with a descriptor fetched anew if the introduction points of the first have failed; the first line
//! does so beside its first round, once two of them have refused. When a line
//! has not moved for a while, another is begun beside it: a rendezvous that was asked for just
//! before the service went away, or came back, would be waited for until the end. To tor-hsclient
//! each line, and that second round, is an isolation token of its own.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::{AbortHandle, Aborted, BoxFuture, Fuse, FusedFuture as _, abortable};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
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
use super::verdict::more_telling;
use crate::failure::Failure;
use crate::target::OnionAddress;

/// How long the only line may stand still before another is begun, and the newest of several when a
/// new request comes to wait for it. A sound rendezvous is done in a few seconds.
const STALLED: Duration = Duration::from_secs(10);
/// How long the newest of several may stand still when no new request comes.
const STALLED_AGAIN: Duration = Duration::from_secs(15);
/// How many lines an attempt follows at once. The first is followed to its end; the others make room
/// for newer ones.
pub(super) const LINES: usize = 3;
/// How often a line is begun anew because it turned to an introduction point at which another stands
/// still: tor-hsclient chooses among them at random.
const OTHER_POINTS: usize = 5;
/// How often a line asks again with a descriptor fetched anew; the second time only if the first found one
/// that was left over.
const FURTHER_ROUNDS: usize = 2;
/// An attempt goes on for this long even if nobody waits: who asks again finds it further along.
const LEAST_LIFE: Duration = Duration::from_secs(120);

/// What the lines of a record's attempts are to tor-hsclient, and last, what the first line's second round
/// is if it runs beside the first. tor-hsclient never forgets a token that had no
/// success, so the same few are used again and again. The first is the one that worked last.
pub(super) type Tokens = [IsolationToken; LINES + 1];

/// What a round leads to.
type Round<'a> = BoxFuture<'a, Result<Found, Failure>>;

/// A circuit that was found, by the token that it was asked for with; and whether it was built for that.
type Found = (Weak<Tunnel>, bool, IsolationToken);

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

/// How far the lines of an attempt have got, for those who wait.
struct Progress {
    /// The evidence of each line's newest round, by the number of the line; and the number of the
    /// line that was begun last.
    lines: Mutex<(Vec<Arc<Evidence>>, usize)>,
    /// When the last of those who wait will have gone.
    until: Mutex<Instant>,
    /// Somebody new waits.
    nudge: Notify,
    /// The evidence of the first line's first round, while the second runs beside it.
    older: Mutex<Option<Arc<Evidence>>>,
    /// The introduction points at which lines have stood still.
    silent: Mutex<Vec<usize>>,
}

impl Progress {
    fn lines(&self) -> MutexGuard<'_, (Vec<Arc<Evidence>>, usize)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a line is begun, in the place of the one that had its number.
    fn begin(&self, number: usize, evidence: &Arc<Evidence>) {
        let (lines, newest) = &mut *self.lines();
        match lines.get_mut(number) {
            Some(line) => std::mem::replace(line, Arc::clone(evidence)).abandon(),
            None => lines.push(Arc::clone(evidence)),
        }
        *newest = number;
    }

    /// Notes that a line goes on with a new round.
    fn go_on(&self, number: usize, evidence: &Arc<Evidence>) {
        if let Some(line) = self.lines().0.get_mut(number) {
            *line = Arc::clone(evidence);
        }
    }

    /// Ends the work for all lines.
    fn abandon(&self) {
        for evidence in &self.lines().0 {
            evidence.abandon();
        }
    }

    /// A first round that goes on beside the second; its work ends with it.
    fn beside<'a>(&'a self, round: Round<'a>, evidence: Arc<Evidence>) -> Round<'a> {
        struct Older<'a>(&'a Progress, Arc<Evidence>);
        impl Drop for Older<'_> {
            fn drop(&mut self) {
                *self.0.older() = None;
                self.1.abandon();
            }
        }
        *self.older() = Some(Arc::clone(&evidence));
        // Made here: the future may be dropped before it is polled.
        let older = Older(self, evidence);
        async move {
            let _older = older;
            round.await
        }
        .boxed()
    }

    fn older(&self) -> MutexGuard<'_, Option<Arc<Evidence>>> {
        self.older.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until(&self) -> MutexGuard<'_, Instant> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What can be said now: the word of the line that has got furthest.
    fn verdict_so_far(&self) -> Failure {
        let (lines, _) = &*self.lines();
        if let Some(proven) = lines.iter().find_map(|evidence| evidence.proven()) {
            return proven;
        }
        let older = self.older();
        let furthest = lines
            .iter()
            .chain(older.as_ref())
            .rev()
            .max_by_key(|evidence| evidence.furthest());
        furthest.map_or(Failure::DirectoriesTimedOut, |evidence| {
            evidence.verdict_so_far()
        })
    }

    /// Notes where the newest line stands still, and that round.
    fn note_silence(&self) {
        let (lines, newest) = &*self.lines();
        let older = self.older();
        let waiting = lines.get(*newest).into_iter().chain(older.as_ref());
        let points = waiting.filter_map(|evidence| evidence.silent_point());
        self.silent().extend(points);
    }

    fn silent(&self) -> MutexGuard<'_, Vec<usize>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another line should be begun.
    fn stands_still(&self, somebody_new: bool) -> bool {
        let (lines, newest) = &*self.lines();
        let limit = if somebody_new || lines.len() == 1 {
            STALLED
        } else {
            STALLED_AGAIN
        };
        lines
            .get(*newest)
            .is_some_and(|newest| newest.stands_still(limit))
    }

    /// Returns when another line should be begun.
    async fn standstill(&self) {
        /// How often to look whether the newest line has moved.
        const GLANCE: Duration = Duration::from_secs(1);
        let mut somebody_new = false;
        while !self.stands_still(somebody_new) {
            tokio::select! {
                () = self.nudge.notified() => somebody_new = true,
                () = sleep(GLANCE) => {}
            }
        }
    }

    /// Returns when nobody waits any more.
    async fn end(&self) {
        loop {
            let until = *self.until();
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
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
        {
            let mut until = self.progress.until();
            *until = deadline.max(*until);
        }
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
        let progress = Arc::new(Progress {
            lines: Mutex::default(),
            until: Mutex::new(deadline.max(Instant::now() + LEAST_LIFE)),
            nudge: Notify::new(),
            older: Mutex::default(),
            silent: Mutex::default(),
        });
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

/// How a line ended.
struct Ended {
    result: Result<Found, Failure>,
    /// Whether a failure is proven, whatever the other lines still wait for.
    proven: bool,
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
        let begin = |number: usize| {
            // Noted here, so that the line counts before it is polled for the first time.
            let evidence = Evidence::new(None);
            progress.begin(number, &evidence);
            let spare = (number == 0).then_some(tokens[LINES]);
            let place = Place {
                number,
                token: tokens[number],
                spare,
            };
            abortable(self.line(&service, &keys, place, evidence, progress))
        };
        let mut lines = FuturesUnordered::new();
        let (line, _) = begin(0);
        lines.push(line);
        let mut others: VecDeque<(usize, AbortHandle)> = VecDeque::new();
        let mut failed = None;
        let outcome = loop {
            tokio::select! {
                ended = lines.next() => match ended {
                    Some(Ok(Ended { result: Ok((tunnel, fresh, token)), .. })) => {
                        break Outcome::Circuit(Circuit { tunnel, fresh, token });
                    }
                    Some(Ok(Ended { result: Err(failure), proven, .. })) => {
                        if proven {
                            break Outcome::Failed(failure);
                        }
                        let failure = failed.map_or(failure, |f| more_telling(f, failure));
                        failed = Some(failure);
                        if lines.is_empty() {
                            break Outcome::Failed(failure);
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
                () = progress.end() => break Outcome::Failed(progress.verdict_so_far()),
            }
        };
        drop(lines);
        progress.abandon();
        outcome
    }

    /// Follows one line to its end.
    async fn line(
        &self,
        service: &OnionAddress,
        keys: &HsClientSecretKeys,
        mut place: Place,
        mut evidence: Arc<Evidence>,
        progress: &Progress,
    ) -> Ended {
        let mut other_points = OTHER_POINTS;
        let mut further_rounds = FURTHER_ROUNDS;
        // The first round, if the second was begun beside it; and how it has failed.
        let mut older: Fuse<Round<'_>> = Fuse::terminated();
        let mut older_failed = None;
        let found = |found| Ended {
            result: Ok(found),
            proven: true,
        };
        'rounds: loop {
            let silent = |point: usize| progress.silent().contains(&point);
            let round = self.round(service, keys, place.token, Arc::clone(&evidence), progress);
            let mut round: Round<'_> = round.boxed();
            let here = Arc::clone(&evidence);
            let mut turned_to_silent = pin!(async move { here.turned_to(silent).await });
            let round = loop {
                tokio::select! {
                    round = &mut round => break round,
                    ended = &mut older, if !older.is_terminated() => match ended {
                        Ok(circuit) => {
                            evidence.abandon();
                            return found(circuit);
                        }
                        Err(failure) => older_failed = Some(failure),
                    },
                    () = &mut turned_to_silent, if other_points > 0 => {
                        debug!("another way stands still at this introduction point; choosing again");
                        other_points -= 1;
                        evidence.abandon();
                        evidence = evidence.anew();
                        progress.go_on(place.number, &evidence);
                        continue 'rounds;
                    }
                    spare = evidence.doubted(place.spare) => {
                        debug!("introduction points refuse; fetching the descriptor anew beside the last");
                        place.token = spare;
                        place.spare = None;
                        let anew = Evidence::new(Some(Failure::IntroductionFailed));
                        let first = std::mem::replace(&mut evidence, anew);
                        older = progress.beside(round, first).fuse();
                        progress.go_on(place.number, &evidence);
                        continue 'rounds;
                    }
                }
            };
            let failure = match round {
                Ok(circuit) => return found(circuit),
                Err(failure) => failure,
            };
            if further_rounds > 0 && evidence.worth_another_round(failure) {
                debug!("trying the onion service once more with a descriptor fetched anew");
                further_rounds -= 1;
                evidence = Evidence::new(Some(failure));
                progress.go_on(place.number, &evidence);
                place.spare = None;
                continue;
            }
            let refused = failure == Failure::IntroductionFailed && evidence.refused_only();
            let proven = refused || evidence.proven().is_some();
            // The older round may be about to succeed all the same.
            let hopeful = progress
                .older()
                .as_ref()
                .is_some_and(|o| o.is_acknowledged());
            if !older.is_terminated() && (hopeful || !proven) {
                match older.await {
                    Ok(circuit) => return found(circuit),
                    Err(failure) => older_failed = Some(failure),
                }
            }
            let failure = evidence.beside_earlier(failure);
            let failure = match older_failed {
                // That introduction points refused is the reason for the second round, and no news.
                Some(older) if older != Failure::IntroductionFailed && !proven => {
                    more_telling(failure, older)
                }
                _ => failure,
            };
            return Ended {
                result: Err(failure),
                proven,
            };
        }
    }

    /// Asks tor-hsclient once, and no longer than it takes to know the outcome.
    async fn round(
        &self,
        service: &OnionAddress,
        keys: &HsClientSecretKeys,
        token: IsolationToken,
        evidence: Arc<Evidence>,
        progress: &Progress,
    ) -> Result<Found, Failure> {
        let until = *progress.until();
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
                Ok(tunnel) => Ok((Arc::downgrade(&tunnel), evidence.worked(), token)),
                Err(error) => Err(border::of_onion_attempt(&error)),
            },
            failure = evidence.conclusion() => {
                evidence.abandon();
                Err(failure)
            }
        }
    }
}

/// Which line it is.
struct Place {
    number: usize,
    /// What it is to tor-hsclient.
    token: IsolationToken,
    /// What its second round is, should it begin before the first has ended.
    spare: Option<IsolationToken>,
}
