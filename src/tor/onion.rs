//! Streams to onion services.
//!
//! Requests for one service that may share a circuit, and that come with the same key, share a
//! [`table::CircuitSlot`]. A slot has at most one running [`Attempt`](super::attempt::Attempt) to reach the service;
//! everybody waits for that one, each until their own deadline. How an attempt goes about it is told in
//! [`super::attempt`].

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tor_hsclient::HsClientSecretKeys;
use tracing::{debug, warn};

use self::network::{HsNetwork, Network};
use self::table::{SlotId, Table};
use super::arti_errors::StreamError;
use super::attempt::{Assignment, AttemptOutcome, Circuit, Launcher, Waiter};
use crate::failure::Failure;
use crate::log_limit::LogLimiter;
use crate::tor::isolation::Isolation;
use crate::tor::onion_address::OnionAddress;
use crate::tor::optimistic_data::OptimisticData;

pub(super) mod network;
#[cfg(test)]
pub(super) mod script;
mod table;
#[cfg(test)]
mod tests;

/// How often a request tries again because a circuit was gone when the stream was to be opened. A
/// service closes the circuit when a stream asks for a port that it does not have, and with it go the
/// other streams that were being opened.
const MAX_DEAD_CIRCUITS: usize = 16;

/// How long a service may take to answer on a circuit that was open already, before it is looked for
/// anew at the same time: its side of the circuit may be gone without a word.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to look for slots that are no longer needed, while there are any.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Log that the keys were slow at most once in this time.
static SLOW_KEYS: LogLimiter = LogLimiter::new(Duration::from_secs(60));

/// Opens streams to onion services.
pub(crate) struct Onions<N: Network = HsNetwork> {
    network: Arc<N>,
    launcher: Launcher<N>,
    table: Arc<Mutex<Table<N>>>,
    /// Counts how often everything was retired.
    generation: watch::Sender<u64>,
}

/// What a request to a service is about.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    service: &'a OnionAddress,
    port: u16,
    isolation: &'a Isolation,
    early: &'a OptimisticData,
    deadline: Instant,
}

/// A circuit that a request may use.
struct Found<N: Network> {
    slot: SlotId,
    circuit: Circuit<N>,
}

fn lock<N: Network>(table: &Mutex<Table<N>>) -> MutexGuard<'_, Table<N>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<N: Network> Onions<N> {
    pub(crate) fn new(network: N) -> Onions<N> {
        let network = Arc::new(network);
        Onions {
            launcher: Launcher::new(Arc::clone(&network)),
            network,
            table: Arc::default(),
            generation: watch::Sender::new(0),
        }
    }

    /// Has all streams from now on use circuits that are built from now on.
    ///
    /// Streams that are open go on, and their circuits end with them. Requests that have no circuit yet start over at
    /// once, within their own deadlines.
    pub(crate) fn retire_all(&self) {
        self.network.retire_spare_circuits();
        let retired = {
            let mut table = lock(&self.table);
            // Before the attempts end, so that no waiting request takes that for a failure.
            self.generation.send_modify(|generation| *generation += 1);
            table.take_all()
        };
        drop(retired);
    }

    /// Opens a stream to `port` of a service, not later than `deadline`.
    pub(crate) async fn connect(
        &self,
        service: &OnionAddress,
        port: u16,
        isolation: &Isolation,
        early: &OptimisticData,
        deadline: Instant,
    ) -> Result<N::Stream, Failure> {
        let wanted = Wanted {
            service,
            port,
            isolation,
            early,
            deadline,
        };
        for _ in 0..MAX_DEAD_CIRCUITS {
            let found = match self.cached(wanted) {
                Some(found) => found,
                None => self.circuit(wanted).await?,
            };
            // Data that may have arrived is never sent again: what it asks for would be done twice.
            // So it goes out early only where one stream is all there will be.
            let speaks_early = !early.is_empty() && (found.circuit.fresh || self.is_proven(&found));
            let opened = if found.circuit.fresh {
                wanted.begin(&found.circuit, speaks_early).await
            } else {
                self.begin_on_open_circuit(wanted, &found, speaks_early)
                    .await
            };
            match opened {
                Ok(stream) => {
                    self.note_proven(&found);
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
        found: &Found<N>,
        speaks_early: bool,
    ) -> Result<N::Stream, StreamError> {
        let mut here = pin!(wanted.begin(&found.circuit, speaks_early));
        if let Ok(opened) = timeout(PATIENCE, &mut here).await {
            return opened;
        }
        debug!("no answer on the open circuit to the onion service; looking for it anew");
        self.retire(found);
        let anew = async {
            let found = self.circuit(wanted).await.map_err(StreamError::Failed)?;
            if speaks_early {
                // The service is there, and nothing more to be said of it.
                return Err(StreamError::Failed(Failure::ConnectionTimedOut));
            }
            wanted.begin(&found.circuit, false).await
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
    async fn circuit(&self, wanted: Wanted<'_>) -> Result<Found<N>, Failure> {
        loop {
            let mut generation = self.generation.subscribe();
            let asked = Instant::now();
            let keys = timeout_at(wanted.deadline, self.network.keys(wanted.service)).await;
            let keys = keys.unwrap_or_else(|_| {
                if let Some(times) = SLOW_KEYS.due() {
                    warn!("client authorization keys could not be read in time ({times} times)");
                }
                Err(Failure::ClientAuthUnreadable)
            })?;
            let (slot, waiter) = self.join_or_launch(wanted, &keys)?;
            let ended = tokio::select! {
                biased;
                _ = generation.changed() => continue,
                ended = timeout_at(wanted.deadline, waiter.ended()) => ended,
            };
            return match ended {
                Ok(AttemptOutcome::Circuit(circuit)) => {
                    if let Some(slot) = lock(&self.table).slot(slot) {
                        slot.note_asked(&circuit, asked);
                    }
                    Ok(Found { slot, circuit })
                }
                Ok(AttemptOutcome::Failed(failure)) => Err(failure),
                Err(_) => Err(waiter.verdict_so_far()),
            };
        }
    }

    /// Waits for the running attempt that this request may share, or for a new one.
    fn join_or_launch(
        &self,
        wanted: Wanted<'_>,
        keys: &HsClientSecretKeys,
    ) -> Result<(SlotId, Waiter<N>), Failure> {
        let Wanted {
            service, isolation, ..
        } = wanted;
        let mut table = lock(&self.table);
        let id = match table.admit(service, keys, isolation) {
            Some(id) => id,
            None => table.insert(service, keys, isolation, self.network.connector()?),
        };
        if !table.is_swept {
            table.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.table)));
        }
        let slot = table.slot(id).ok_or(Failure::Internal)?;
        let running = slot.attempt.as_ref();
        if let Some(waiter) = running.and_then(|attempt| attempt.join(wanted.deadline)) {
            return Ok((id, waiter));
        }
        let assignment = Assignment {
            service: *service,
            keys: keys.clone(),
            connector: slot.connector.clone(),
            tokens: slot.tokens,
        };
        let table = Arc::downgrade(&self.table);
        let ended = move |attempt: &_, outcome: &_| {
            let Some(table) = table.upgrade() else { return };
            let dropped = lock(&table).note_outcome(id, attempt, outcome);
            drop(dropped);
        };
        let (attempt, waiter) = self.launcher.launch(assignment, wanted.deadline, ended);
        slot.attempt = Some(attempt);
        Ok((id, waiter))
    }

    /// A circuit that was asked for a moment ago and that this request may share.
    fn cached(&self, wanted: Wanted<'_>) -> Option<Found<N>> {
        let cached = lock(&self.table).cached(wanted.service, wanted.isolation);
        let (slot, circuit) = cached?;
        Some(Found { slot, circuit })
    }

    /// Whether a stream was opened on this circuit a short time ago.
    fn is_proven(&self, found: &Found<N>) -> bool {
        let mut table = lock(&self.table);
        let slot = table.slot(found.slot);
        slot.is_some_and(|slot| slot.is_proven(found.circuit.token))
    }

    /// Notes that a stream was opened on this circuit.
    fn note_proven(&self, found: &Found<N>) {
        if let Some(slot) = lock(&self.table).slot(found.slot) {
            slot.note_proven(found.circuit.token);
        }
    }

    /// Has the next request look for the service anew, unless another one does so already.
    fn retire(&self, found: &Found<N>) {
        let mut table = lock(&self.table);
        let Some(slot) = table.slot(found.slot) else {
            return;
        };
        if !slot.tokens.contains(&found.circuit.token) {
            return;
        }
        match self.network.connector() {
            Ok(connector) => slot.restart(connector),
            Err(_) => drop(table.remove(found.slot)),
        }
    }
}

/// Sweeps the table for as long as there is something in it.
async fn sweep<N: Network>(table: Weak<Mutex<Table<N>>>) {
    loop {
        sleep(SWEEP_EVERY).await;
        let Some(table) = table.upgrade() else { return };
        let dropped = lock(&table).sweep();
        drop(dropped);
        let mut table = lock(&table);
        if table.is_empty() {
            table.is_swept = false;
            return;
        }
    }
}

impl Wanted<'_> {
    /// Opens a stream on a circuit, with early data behind it if `speaks_early`.
    async fn begin<N: Network>(
        &self,
        circuit: &Circuit<N>,
        speaks_early: bool,
    ) -> Result<N::Stream, StreamError> {
        let tunnel = circuit.tunnel().ok_or(StreamError::CircuitGone)?;
        let early = speaks_early.then_some(self.early);
        match timeout_at(self.deadline, N::begin(&tunnel, self.port, early)).await {
            Ok(opened) => opened,
            Err(_) => Err(StreamError::Failed(Failure::ConnectionTimedOut)),
        }
    }
}
