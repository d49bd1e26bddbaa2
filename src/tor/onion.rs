//! Streams to onion services.
//!
//! Requests for one service that may share a circuit, and that come with the same key, form a
//! [`Record`]. A record has at most one running [`Attempt`] to reach the service; everybody waits
//! for that one, each until their own deadline. How an attempt goes about it is told in
//! [`super::attempt`].

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tor_circmgr::IsolationToken;
use tor_hsclient::{HsClientConnector, HsClientSecretKeys};
use tor_proto::client::stream::StreamParameters;
use tracing::{debug, warn};

use super::Directory;
use super::attempt::{Attempt, Circuit, Launcher, Outcome, Tokens};
use super::begin::{self, Open};
use super::border::{self, StreamError};
use super::keys::KeyRing;
use super::runtime::TorRuntime;
use crate::early::Early;
use crate::failure::Failure;
use crate::isolation::Isolation;
use crate::rarely::Rarely;
use crate::target::OnionAddress;

/// How often a request tries again because a circuit was gone when the stream was to be opened. A
/// service closes the circuit when a stream asks for a port that it does not have, and with it go the
/// other streams that were being opened.
const MAX_DEAD_CIRCUITS: usize = 16;

/// How long a service may take to answer on a circuit that was open already, before it is looked for
/// anew at the same time: its side of the circuit may be gone without a word.
const PATIENCE: Duration = Duration::from_secs(10);

/// A circuit on which a stream was opened this short a time ago is believed to be alive.
const PROVEN: Duration = Duration::from_secs(30);

/// For how long a circuit that was asked for without a key is at hand for others who may share it,
/// without another look at the key files and another word with tor-hsclient (which keeps a circuit open
/// for as long as it is asked for). Where there is a key, each request looks whether it is still the
/// same one; where none is needed, one that is added changes nothing.
const AT_HAND: Duration = Duration::from_secs(5);

/// Records that nobody asked for in this time are dropped.
const FORGET_AFTER: Duration = Duration::from_secs(60 * 60);

/// Those that were in vain are kept nevertheless, as long as there are records of no more services than these:
/// tor-hsclient never forgets a token that had no success, and who asks for the same dead services every
/// few hours should bring the same tokens.
const MAX_IN_VAIN: usize = 4096;

/// How often the same trouble is told.
static SLOW_KEYS: Rarely = Rarely::new(Duration::from_secs(60));

/// Opens streams to onion services.
pub(crate) struct Onions {
    launcher: Launcher,
    keys: Arc<KeyRing>,
    records: Mutex<HashMap<OnionAddress, Vec<Record>>>,
}

/// Requests that share circuits to one service.
struct Record {
    isolation: Isolation,
    keys: HsClientSecretKeys,
    /// What the record is to tor-hsclient: isolations of its own, so that its bookkeeping and ours
    /// cannot disagree on who shares what.
    tokens: Tokens,
    attempt: Option<Attempt>,
    /// Whether an attempt before that one has found a circuit.
    worked: bool,
    used: Instant,
    /// The circuit that was got last, and when it was asked for.
    at_hand: Option<(Circuit, Instant)>,
    /// The circuit on which a stream was opened last, and when.
    proven: Option<(IsolationToken, Instant)>,
}

/// What a request to a service is about.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    service: &'a OnionAddress,
    port: u16,
    isolation: &'a Isolation,
    early: &'a Early,
    deadline: Instant,
}

impl Onions {
    pub(crate) fn new(
        connector: HsClientConnector<TorRuntime>,
        directory: Directory,
        keys: Arc<KeyRing>,
    ) -> Onions {
        Onions {
            launcher: Launcher::new(connector, directory),
            keys,
            records: Mutex::default(),
        }
    }

    /// Opens a stream to `port` of a service, not later than `deadline`.
    pub(crate) async fn connect(
        &self,
        service: &OnionAddress,
        port: u16,
        isolation: &Isolation,
        early: &Early,
        deadline: Instant,
    ) -> Result<Open, Failure> {
        let wanted = Wanted {
            service,
            port,
            isolation,
            early,
            deadline,
        };
        for _ in 0..MAX_DEAD_CIRCUITS {
            let circuit = match self.at_hand(wanted) {
                Some(circuit) => circuit,
                None => self.circuit(wanted).await?,
            };
            // Data that may have arrived is never sent again: what it asks for would be done twice.
            // So it goes out early only where one stream is all there will be.
            let speaks_early =
                !early.is_empty() && (circuit.fresh || self.is_proven(service, circuit.token));
            let opened = if circuit.fresh {
                wanted.begin(&circuit, speaks_early).await
            } else {
                self.begin_on_open_circuit(wanted, &circuit, speaks_early)
                    .await
            };
            match opened {
                Ok(stream) => {
                    self.note_proven(service, circuit.token);
                    return Ok(stream);
                }
                // The service went while the circuit was idle: what it says now is unknown.
                Err(StreamError::CircuitGone) if !speaks_early => {
                    debug!("the circuit to the onion service is gone; trying anew");
                }
                Err(other) => return Err(other.failure()),
            }
        }
        Err(Failure::CircuitDestroyed)
    }

    /// Opens a stream on a circuit that was open already; if there is no answer for a while, looks for the
    /// service anew as well: for a stream there, whichever comes first, or if early data has gone out
    /// here, for what there is to say of the service.
    async fn begin_on_open_circuit(
        &self,
        wanted: Wanted<'_>,
        circuit: &Circuit,
        speaks_early: bool,
    ) -> Result<Open, StreamError> {
        let mut here = pin!(wanted.begin(circuit, speaks_early));
        if let Ok(opened) = timeout(PATIENCE, &mut here).await {
            return opened;
        }
        debug!("no answer on the open circuit to the onion service; looking for it anew");
        self.retire(wanted.service, circuit.token);
        let anew = async {
            let circuit = self.circuit(wanted).await.map_err(StreamError::Failed)?;
            if speaks_early {
                // The service is there, and nothing more to be said of it.
                return Err(StreamError::Failed(Failure::ConnectionTimedOut));
            }
            wanted.begin(&circuit, false).await
        };
        let mut anew = pin!(anew);
        tokio::select! {
            opened = &mut here => match opened {
                // At the deadline the new way has the better reason.
                Err(gone @ (StreamError::CircuitGone | StreamError::Failed(_))) => {
                    let opened = anew.await;
                    match opened {
                        Err(other) if speaks_early && !other.failure().blames_the_service() => {
                            Err(gone)
                        }
                        opened => opened,
                    }
                }
                opened => opened,
            },
            opened = &mut anew => match opened {
                // The way to the service failed, which says nothing of the service.
                Err(StreamError::Failed(failure)) if !failure.blames_the_service() => here.await,
                // It may have heard what was said here, and be slow to answer.
                Err(blame) if speaks_early => match timeout(PATIENCE, here).await {
                    Ok(Err(StreamError::CircuitGone | StreamError::Failed(_))) | Err(_) => {
                        Err(blame)
                    }
                    Ok(opened) => opened,
                },
                opened => opened,
            },
        }
    }

    /// Waits for a circuit to the service.
    async fn circuit(&self, wanted: Wanted<'_>) -> Result<Circuit, Failure> {
        let asked = Instant::now();
        let keys = timeout_at(wanted.deadline, self.keys.for_service(wanted.service)).await;
        let keys = keys.unwrap_or_else(|_| {
            if let Some(times) = SLOW_KEYS.due() {
                warn!("client authorization keys could not be read in time ({times} times)");
            }
            Err(Failure::ClientAuthUnreadable)
        })?;
        let attempt = self.join_or_launch(wanted, &keys);
        match timeout_at(wanted.deadline, attempt.ended()).await {
            Ok(Outcome::Circuit(circuit)) => {
                self.keep_at_hand(wanted.service, &circuit, asked);
                Ok(circuit)
            }
            Ok(Outcome::Failed(failure)) => Err(failure),
            Err(_) => Err(attempt.verdict_so_far()),
        }
    }

    /// The running attempt that this request may share, or a new one.
    fn join_or_launch(&self, wanted: Wanted<'_>, keys: &HsClientSecretKeys) -> Attempt {
        let now = Instant::now();
        let mut all = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let few = all.len() < MAX_IN_VAIN;
        all.retain(|_, records| {
            records.retain_mut(|record| {
                let recent = now.duration_since(record.used) < FORGET_AFTER;
                recent || (few && record.is_kept_in_vain())
            });
            !records.is_empty()
        });
        let records = all.entry(*wanted.service).or_default();
        let found = records.iter_mut().find_map(|record| {
            let joined = record.isolation.join(wanted.isolation)?;
            (record.keys == *keys).then_some((record, joined))
        });
        let record = match found {
            Some((record, joined)) => {
                record.isolation = joined;
                record
            }
            None => {
                // tor-hsclient never forgets a token that had no success: who comes with an isolation
                // of its own for each request takes over those that nobody needs.
                let left = records
                    .iter()
                    .position(|r| r.is_in_vain() && r.keys == *keys);
                let tokens = left.map(|place| records.swap_remove(place).tokens);
                let fresh = || std::array::from_fn(|_| IsolationToken::new());
                records.push(Record {
                    isolation: wanted.isolation.clone(),
                    keys: keys.clone(),
                    tokens: tokens.unwrap_or_else(fresh),
                    attempt: None,
                    worked: false,
                    used: now,
                    at_hand: None,
                    proven: None,
                });
                let last = records.len() - 1;
                &mut records[last]
            }
        };
        record.used = now;
        if let Some(attempt) = &record.attempt {
            if attempt.is_running() {
                attempt.join(wanted.deadline);
                return attempt.clone();
            }
            if let Some(circuit) = attempt.found() {
                record.worked = true;
                record.put_first(circuit.token);
            }
        }
        let attempt = self.launcher.launch(
            *wanted.service,
            keys.clone(),
            record.tokens,
            wanted.deadline,
        );
        record.attempt = Some(attempt.clone());
        attempt
    }

    /// A circuit that was asked for a moment ago and that this request may share.
    fn at_hand(&self, wanted: Wanted<'_>) -> Option<Circuit> {
        let now = Instant::now();
        let mut all = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_mut(wanted.service)?.iter_mut().find_map(|record| {
            let (circuit, asked) = record.at_hand.as_ref()?;
            let still =
                record.keys.is_empty() && now.duration_since(*asked) < AT_HAND && circuit.is_open();
            let joined = still.then(|| record.isolation.join(wanted.isolation))??;
            let circuit = circuit.clone();
            (record.isolation, record.used) = (joined, now);
            Some(circuit)
        })
    }

    /// Keeps a circuit for those who ask next.
    fn keep_at_hand(&self, service: &OnionAddress, circuit: &Circuit, asked: Instant) {
        let mut all = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for record in all.get_mut(service).into_iter().flatten() {
            if record.tokens.contains(&circuit.token) {
                record.at_hand = Some((circuit.for_others(), asked));
            }
        }
    }

    /// Whether a stream was opened on this circuit a short time ago.
    fn is_proven(&self, service: &OnionAddress, token: IsolationToken) -> bool {
        let all = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records = all.get(service).into_iter().flatten();
        records.any(|record| {
            record
                .proven
                .is_some_and(|(t, at)| t == token && at.elapsed() < PROVEN)
        })
    }

    /// Notes that a stream was opened on this circuit.
    fn note_proven(&self, service: &OnionAddress, token: IsolationToken) {
        let mut all = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for record in all.get_mut(service).into_iter().flatten() {
            if record.tokens.contains(&token) {
                record.proven = Some((token, Instant::now()));
            }
        }
    }

    /// Has the next request look for the service anew.
    fn retire(&self, service: &OnionAddress, token: IsolationToken) {
        let mut all = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for record in all.get_mut(service).into_iter().flatten() {
            if let Some(retired) = record.tokens.iter_mut().find(|t| **t == token) {
                *retired = IsolationToken::new();
                record.worked = true;
                record.attempt = None;
                record.at_hand = None;
            }
        }
    }
}

impl Record {
    /// Whether no circuit was ever found, and nobody is looking for one.
    fn is_in_vain(&self) -> bool {
        let failed = |attempt: &Attempt| !attempt.is_running() && attempt.found().is_none();
        !self.worked && self.proven.is_none() && self.attempt.as_ref().is_none_or(failed)
    }

    /// The same; if so, it lets go of all but what it takes to be used again.
    fn is_kept_in_vain(&mut self) -> bool {
        let in_vain = self.is_in_vain();
        if in_vain {
            self.attempt = None;
        }
        in_vain
    }

    /// Has the next attempt begin with this token: there is an open circuit on it.
    fn put_first(&mut self, token: IsolationToken) {
        if let Some(place) = self.tokens.iter().position(|t| *t == token) {
            self.tokens[..=place].rotate_right(1);
        }
    }
}

impl Wanted<'_> {
    /// Opens a stream on a circuit, with early data behind it if `speaks_early`.
    async fn begin(&self, circuit: &Circuit, speaks_early: bool) -> Result<Open, StreamError> {
        let tunnel = circuit.tunnel().ok_or(StreamError::CircuitGone)?;
        debug!("asking the onion service of circuit {}", tunnel.unique_id());
        // Onion services are told the port alone (rend-spec-v3, "Handling a BEGIN message").
        let mut parameters = StreamParameters::default();
        parameters.suppress_hostname().suppress_begin_flags();
        parameters.optimistic(speaks_early);
        let opening = async {
            let begun = tunnel.begin_stream("", self.port, Some(parameters)).await;
            let stream = begun.map_err(|error| border::of_stream(&error))?;
            if !speaks_early {
                return Ok(begin::opened(stream));
            }
            // A service that lacks the port closes the stream without opening it.
            begin::open_with_early_data(stream, self.early, Some(Failure::StreamClosed)).await
        };
        match timeout_at(self.deadline, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(StreamError::Failed(Failure::ConnectionTimedOut)),
        }
    }
}
