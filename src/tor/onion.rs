//! Streams to onion services.
//!
//! Requests for one service that may share a circuit, and that come with the same client
//! authorization key, share a [`slot_table::CircuitSlot`]. A slot has at most one running
//! [`attempt::Attempt`] to reach the service; all its requests wait for that, each until its own
//! deadline.
//!
//! | module, in reading order | holds |
//! |---|---|
//! | this file | opens streams: finds or starts an attempt, and retries on closed circuits |
//! | [`slot_table`] | the slots, and which requests share one |
//! | [`attempt`] | one attempt: up to three parallel tries, each a sequence of calls to tor-hsclient |
//! | [`rendezvous_circuit`] | an open circuit to a service |
//! | [`hs_network`] | tor-hsclient and its circuits, as a [`network::Network`] |
//! | [`network`] | the trait for what is needed of the Tor network |
//! | [`observer`] | what is known of a call to tor-hsclient while it runs |
//! | [`classify`] | the rules that turn observations into one failure |
//!
//! Imports go down this table. Nothing here imports `tor::client`, `tor::backend` or `tor::exit`.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tor_hsclient::HsClientSecretKeys;
use tracing::{debug, warn};

use self::attempt::{AttemptLauncher, AttemptOutcome, AttemptParameters, AttemptWaiter};
use self::hs_network::HsNetwork;
use self::network::Network;
use self::rendezvous_circuit::RendezvousCircuit;
use self::slot_table::{SlotId, SlotTable};
use super::arti_errors::StreamError;
use crate::failure::Failure;
use crate::log_limit::{LogLimiter, Occurrences};
use crate::tor::isolation::Isolation;
use crate::tor::onion_address::OnionAddress;
use crate::tor::optimistic_data::OptimisticData;

mod attempt;
pub(super) mod classify;
pub(super) mod hs_network;
mod network;
pub(super) mod observer;
mod rendezvous_circuit;
#[cfg(test)]
mod scripted_network;
mod slot_table;
#[cfg(test)]
mod tests;

/// How many circuits a request tries if each is closed when the stream is to be opened.
///
/// A service closes the circuit when a stream requests a port that it does not have. That also ends
/// the other streams that are being opened on the circuit.
const MAX_DEAD_CIRCUITS: usize = 16;

/// How long a service may take to answer on a circuit that was open already. After that a new
/// circuit is built in parallel: the service's side may have gone without closing the circuit.
const OPEN_CIRCUIT_WAIT: Duration = Duration::from_secs(10);

/// How often to drop slots that are no longer needed, while there are any slots.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Log that reading the keys took too long at most once a minute.
static SLOW_KEYS: LogLimiter = LogLimiter::new(Duration::from_secs(60));

/// Opens streams to onion services.
pub(crate) struct Onions<N: Network = HsNetwork> {
    network: Arc<N>,
    launcher: AttemptLauncher<N>,
    table: Arc<Mutex<SlotTable<N>>>,
    /// Incremented by each [`Onions::retire_all`].
    generation: watch::Sender<u64>,
}

/// A request for a stream to a service.
#[derive(Clone, Copy)]
struct OnionRequest<'a> {
    service: &'a OnionAddress,
    port: u16,
    isolation: &'a Isolation,
    optimistic: &'a OptimisticData,
    deadline: Instant,
}

/// A circuit that a request may use, and its slot.
struct SlotCircuit<N: Network> {
    slot: SlotId,
    circuit: RendezvousCircuit<N>,
}

fn lock<N: Network>(table: &Mutex<SlotTable<N>>) -> MutexGuard<'_, SlotTable<N>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<N: Network> Onions<N> {
    pub(crate) fn new(network: N) -> Onions<N> {
        let network = Arc::new(network);
        Onions {
            launcher: AttemptLauncher::new(Arc::clone(&network)),
            network,
            table: Arc::default(),
            generation: watch::Sender::new(0),
        }
    }

    /// Makes all streams from now on use circuits that are built from now on.
    ///
    /// Open streams continue, and their circuits end with them. Requests without a circuit start over
    /// at once, and keep their deadlines.
    pub(crate) fn retire_all(&self) {
        self.network.retire_spare_circuits();
        let retired = {
            let mut table = lock(&self.table);
            // Before the attempts end, so that waiting requests do not fail with them.
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
        optimistic: &OptimisticData,
        deadline: Instant,
    ) -> Result<N::HsStream, Failure> {
        let request = OnionRequest {
            service,
            port,
            isolation,
            optimistic,
            deadline,
        };
        for _ in 0..MAX_DEAD_CIRCUITS {
            let found = match self.cached(request) {
                Some(found) => found,
                None => self.wait_for_circuit(request).await?,
            };
            // Data that may have arrived is never sent again: the service would act on it twice.
            // So send it early only if no second stream will be needed.
            let sends_optimistic =
                !optimistic.is_empty() && (found.circuit.fresh || self.is_trusted(&found));
            let opened = if found.circuit.fresh {
                request.open_stream(&found.circuit, sends_optimistic).await
            } else {
                self.open_on_reused_circuit(request, &found, sends_optimistic)
                    .await
            };
            match opened {
                Ok(stream) => {
                    self.record_opened(&found);
                    return Ok(stream);
                }
                // The circuit closed while it was idle, which proves nothing about the service.
                Err(StreamError::CircuitGone) if !sends_optimistic => {
                    debug!("the circuit to the onion service is closed; trying again");
                }
                Err(other) => return Err(other.failure()),
            }
        }
        Err(Failure::CircuitDestroyed)
    }

    /// Opens a stream on a circuit that was open already.
    ///
    /// If the service does not answer for a while, builds a new circuit in parallel. The stream is
    /// then opened there as well, and the first to open is returned. If optimistic data was sent on the
    /// old circuit, no second stream is opened: the attempt only finds out whether the service is
    /// reachable.
    async fn open_on_reused_circuit(
        &self,
        request: OnionRequest<'_>,
        found: &SlotCircuit<N>,
        sends_optimistic: bool,
    ) -> Result<N::HsStream, StreamError> {
        let mut on_old = pin!(request.open_stream(&found.circuit, sends_optimistic));
        if let Ok(opened) = timeout(OPEN_CIRCUIT_WAIT, &mut on_old).await {
            return opened;
        }
        debug!("no answer on the open circuit to the onion service; building a new circuit");
        self.retire(found);
        let on_new = async {
            let found = self.wait_for_circuit(request).await;
            let found = found.map_err(StreamError::Failed)?;
            if sends_optimistic {
                // The service is reachable, but does not answer on the old circuit.
                return Err(StreamError::Failed(Failure::ConnectionTimedOut));
            }
            request.open_stream(&found.circuit, false).await
        };
        let mut on_new = pin!(on_new);
        tokio::select! {
            opened = &mut on_old => match opened {
                // At the deadline, the new circuit gives the more precise failure.
                Err(gone @ (StreamError::CircuitGone | StreamError::Failed(_))) => {
                    let opened = on_new.await;
                    match opened {
                        Err(other) if sends_optimistic && !other.failure().has_onion_code() => {
                            Err(gone)
                        }
                        opened => opened,
                    }
                }
                opened => opened,
            },
            opened = &mut on_new => match opened {
                // No new circuit, or optimistic data forbids a stream on it: neither is the service's fault,
                // so wait on the old circuit.
                Err(StreamError::Failed(failure)) if !failure.has_onion_code() => {
                    on_old.await
                }
                // The service may have got the optimistic data, and be slow to answer.
                Err(failed) if sends_optimistic => match timeout(OPEN_CIRCUIT_WAIT, on_old).await {
                    Ok(Err(StreamError::CircuitGone | StreamError::Failed(_))) | Err(_) => {
                        Err(failed)
                    }
                    Ok(opened) => opened,
                },
                opened => opened,
            },
        }
    }

    /// Waits for a circuit to the service.
    async fn wait_for_circuit(&self, request: OnionRequest<'_>) -> Result<SlotCircuit<N>, Failure> {
        loop {
            let mut generation = self.generation.subscribe();
            let requested = Instant::now();
            let keys = self.network.read_keys(request.service);
            let keys = timeout_at(request.deadline, keys).await;
            let keys = keys.unwrap_or_else(|_| {
                if let Some(times) = SLOW_KEYS.due() {
                    warn!(
                        "reading client authorization keys timed out{}",
                        Occurrences(times)
                    );
                }
                Err(Failure::ClientAuthUnreadable)
            })?;
            let (slot, waiter) = self.join_or_launch(request, &keys)?;
            let ended = tokio::select! {
                biased;
                _ = generation.changed() => continue,
                ended = timeout_at(request.deadline, waiter.wait()) => ended,
            };
            return match ended {
                Ok(AttemptOutcome::Circuit(circuit)) => {
                    if let Some(slot) = lock(&self.table).slot(slot) {
                        slot.record_requested(&circuit, requested);
                    }
                    Ok(SlotCircuit { slot, circuit })
                }
                Ok(AttemptOutcome::Failed(failure)) => Err(failure),
                Err(_) => Err(waiter.failure_so_far()),
            };
        }
    }

    /// Joins the running attempt that the request may share, or launches a new one.
    fn join_or_launch(
        &self,
        request: OnionRequest<'_>,
        keys: &HsClientSecretKeys,
    ) -> Result<(SlotId, AttemptWaiter<N>), Failure> {
        let OnionRequest {
            service, isolation, ..
        } = request;
        let mut table = lock(&self.table);
        let id = match table.admit(service, keys, isolation) {
            Some(id) => id,
            None => table.insert(service, keys, isolation, self.network.new_connector()?),
        };
        if !table.is_swept {
            table.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.table)));
        }
        let slot = table.slot(id).ok_or(Failure::Internal)?;
        let running = slot.attempt.as_ref();
        if let Some(waiter) = running.and_then(|attempt| attempt.join(request.deadline)) {
            return Ok((id, waiter));
        }
        let parameters = AttemptParameters {
            service: *service,
            keys: keys.clone(),
            connector: slot.connector.clone(),
            tokens: slot.tokens,
        };
        let table = Arc::downgrade(&self.table);
        let on_end = move |attempt: &_, outcome: &_| {
            let Some(table) = table.upgrade() else { return };
            let dropped = lock(&table).record_outcome(id, attempt, outcome);
            drop(dropped);
        };
        let (attempt, waiter) = self.launcher.launch(parameters, request.deadline, on_end);
        slot.attempt = Some(attempt);
        Ok((id, waiter))
    }

    /// Returns a recently requested circuit that the request may share.
    fn cached(&self, request: OnionRequest<'_>) -> Option<SlotCircuit<N>> {
        let cached = lock(&self.table).cached(request.service, request.isolation);
        let (slot, circuit) = cached?;
        Some(SlotCircuit { slot, circuit })
    }

    /// Whether a stream was opened on this circuit a short time ago.
    fn is_trusted(&self, found: &SlotCircuit<N>) -> bool {
        let mut table = lock(&self.table);
        let slot = table.slot(found.slot);
        slot.is_some_and(|slot| slot.is_trusted(found.circuit.token))
    }

    /// Records that a stream was opened on this circuit.
    fn record_opened(&self, found: &SlotCircuit<N>) {
        if let Some(slot) = lock(&self.table).slot(found.slot) {
            slot.record_opened(found.circuit.token);
        }
    }

    /// Makes the next request build a new circuit, unless another request has retired this one.
    fn retire(&self, found: &SlotCircuit<N>) {
        let mut table = lock(&self.table);
        let Some(slot) = table.slot(found.slot) else {
            return;
        };
        if !slot.tokens.contains(&found.circuit.token) {
            return;
        }
        match self.network.new_connector() {
            Ok(connector) => slot.restart(connector),
            Err(_) => drop(table.remove(found.slot)),
        }
    }
}

/// Sweeps the table until it is empty or dropped.
async fn sweep<N: Network>(table: Weak<Mutex<SlotTable<N>>>) {
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

impl OnionRequest<'_> {
    /// Opens a stream on a circuit, and sends the optimistic data with it if `sends_optimistic`.
    async fn open_stream<N: Network>(
        &self,
        circuit: &RendezvousCircuit<N>,
        sends_optimistic: bool,
    ) -> Result<N::HsStream, StreamError> {
        let tunnel = circuit.tunnel().ok_or(StreamError::CircuitGone)?;
        let optimistic = sends_optimistic.then_some(self.optimistic);
        let opening = N::open_stream(&tunnel, self.port, optimistic);
        match timeout_at(self.deadline, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(StreamError::Failed(Failure::ConnectionTimedOut)),
        }
    }
}
