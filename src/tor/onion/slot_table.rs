//! The slots for circuits to onion services, and which requests share a slot.
//!
//! Requests share a [`CircuitSlot`] if they go to one service, come with the same client
//! authorization key, and may share a circuit. Slots are found by hash, so that a lookup among ten
//! thousand takes as long as with a single one. No two slots have the same [`SlotKey`]: each would
//! admit the other's streams, so the second request would have got the first slot (see
//! [`Isolation::key`]).
//!
//! A slot without an open circuit is dropped when its attempt fails. The others are kept, up to a
//! limited number and age, because their connectors remember descriptors.

use std::collections::HashMap;

use tokio::time::{Duration, Instant};
use tor_circmgr::IsolationToken;
use tor_hsclient::HsClientSecretKeys;

use super::attempt::{Attempt, AttemptOutcome, AttemptTokens, new_tokens};
use super::network::Network;
use super::rendezvous_circuit::RendezvousCircuit;
use crate::tor::isolation::{IsolatedFields, Isolation, IsolationKey};
use crate::tor::onion_address::OnionAddress;

/// How many slots without a running attempt are kept. The least recently used make room; open
/// streams on their circuits go on.
pub(super) const MAX_IDLE_SLOTS: usize = 1024;

/// How many slots are dropped at a time, so that not every new slot has to search them all.
const DROP_BATCH: usize = MAX_IDLE_SLOTS / 8;

/// How long an unused slot is kept. Its circuit closes earlier; the descriptor is worth keeping.
pub(super) const MAX_IDLE_TIME: Duration = Duration::from_secs(60 * 60);

/// How long after a stream was opened on a circuit the circuit is trusted to be alive.
const TRUST_TIME: Duration = Duration::from_secs(30);

/// How long a circuit is reused without reading the key files and without a call to tor-hsclient,
/// which keeps a circuit open as long as it is requested.
///
/// This holds for circuits without a client authorization key only. With a key, each request must
/// check that the key is still the same; a service that requires no key is reached whether or not
/// one was added.
const CACHE_TIME: Duration = Duration::from_secs(5);

/// The unique identifier of a slot, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SlotId(u64);

/// The hash key of a slot.
#[derive(PartialEq, Eq, Hash)]
struct SlotKey {
    service: OnionAddress,
    /// `None` for the empty set of keys: two empty sets are equal, but their hashes differ.
    keys: Option<HsClientSecretKeys>,
    isolation: IsolationKey,
}

impl SlotKey {
    fn new(service: &OnionAddress, keys: &HsClientSecretKeys, isolation: IsolationKey) -> SlotKey {
        SlotKey {
            service: *service,
            keys: (!keys.is_empty()).then(|| keys.clone()),
            isolation,
        }
    }
}

/// What the requests that may share a circuit to one service share.
pub(super) struct CircuitSlot<N: Network> {
    service: OnionAddress,
    keys: HsClientSecretKeys,
    isolation: Isolation,
    pub(super) connector: N::HsConnector,
    /// The isolation tokens for calls to the connector. They belong to this slot alone, so that the
    /// connector's isolation rules cannot differ from ours.
    pub(super) tokens: AttemptTokens,
    pub(super) attempt: Option<Attempt<N>>,
    last_used: Instant,
    /// The newest circuit. `None` if the slot never connected.
    circuit: Option<RendezvousCircuit<N>>,
    /// When a circuit was last requested from the connector.
    last_requested: Option<Instant>,
    /// The token of the circuit on which a stream was last opened, and when.
    last_opened: Option<(IsolationToken, Instant)>,
}

/// All slots.
pub(super) struct SlotTable<N: Network> {
    slots: HashMap<SlotId, CircuitSlot<N>>,
    index: HashMap<SlotKey, SlotId>,
    /// The sets of isolated fields seen so far: few, because ports differ in few flags.
    isolated_fields: Vec<IsolatedFields>,
    last_id: u64,
    /// The number of slots at which to drop the least recently used.
    drop_at: usize,
    /// Whether a task sweeps the table.
    pub(super) is_swept: bool,
}

impl<N: Network> Default for SlotTable<N> {
    fn default() -> Self {
        SlotTable {
            slots: HashMap::new(),
            index: HashMap::new(),
            isolated_fields: Vec::new(),
            last_id: 0,
            drop_at: MAX_IDLE_SLOTS,
            is_swept: false,
        }
    }
}

impl<N: Network> SlotTable<N> {
    /// Returns the slot for a request, and adds the request's isolation to the slot. Returns
    /// `None` if no slot admits the request.
    pub(super) fn admit(
        &mut self,
        service: &OnionAddress,
        keys: &HsClientSecretKeys,
        isolation: &Isolation,
    ) -> Option<SlotId> {
        let id = self.find(service, keys, isolation)?;
        self.add_isolation(id, isolation);
        Some(id)
    }

    /// Creates a slot for a request.
    pub(super) fn insert(
        &mut self,
        service: &OnionAddress,
        keys: &HsClientSecretKeys,
        isolation: &Isolation,
        connector: N::HsConnector,
    ) -> SlotId {
        if self.slots.len() >= self.drop_at {
            self.drop_least_recently_used();
        }
        self.last_id += 1;
        let id = SlotId(self.last_id);
        let slot = CircuitSlot {
            service: *service,
            keys: keys.clone(),
            isolation: isolation.clone(),
            connector,
            tokens: new_tokens(),
            attempt: None,
            last_used: Instant::now(),
            circuit: None,
            last_requested: None,
            last_opened: None,
        };
        self.slots.insert(id, slot);
        self.add_to_index(id);
        id
    }

    pub(super) fn slot(&mut self, id: SlotId) -> Option<&mut CircuitSlot<N>> {
        self.slots.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: SlotId) -> Option<CircuitSlot<N>> {
        let slot = self.slots.remove(&id)?;
        let key = slot.key(slot.isolation.isolated_fields());
        self.index.remove(&key);
        Some(slot)
    }

    /// Returns a recently requested circuit without a key that a request may share.
    pub(super) fn cached(
        &mut self,
        service: &OnionAddress,
        isolation: &Isolation,
    ) -> Option<(SlotId, RendezvousCircuit<N>)> {
        let id = self.find(service, &HsClientSecretKeys::none(), isolation)?;
        let slot = self.slots.get(&id)?;
        let (circuit, requested) = (slot.circuit.as_ref()?, slot.last_requested?);
        if requested.elapsed() >= CACHE_TIME || !circuit.is_open() {
            return None;
        }
        let circuit = circuit.clone();
        self.add_isolation(id, isolation);
        Some((id, circuit))
    }

    /// Records the outcome of a slot's attempt. Removes and returns the slot if it is useless now.
    pub(super) fn record_outcome(
        &mut self,
        id: SlotId,
        attempt: &Attempt<N>,
        outcome: &AttemptOutcome<N>,
    ) -> Option<CircuitSlot<N>> {
        let slot = self.slots.get_mut(&id)?;
        if !slot.attempt.as_ref().is_some_and(|a| a.is_same(attempt)) {
            return None;
        }
        match outcome {
            AttemptOutcome::Circuit(circuit) => {
                slot.move_to_front(circuit.token);
                slot.circuit = Some(circuit.to_reused());
            }
            // The connector has dropped all its data on the service. An open circuit may remain, if
            // the attempt failed before it called the connector.
            AttemptOutcome::Failed(_) if !slot.has_open_circuit() => return self.remove(id),
            AttemptOutcome::Failed(_) => {}
        }
        None
    }

    /// Removes and returns the slots that are no longer needed. The caller drops them after it has
    /// unlocked the table, because that takes a while.
    pub(super) fn sweep(&mut self) -> Vec<CircuitSlot<N>> {
        let is_useless = |slot: &CircuitSlot<N>| {
            let is_old = slot.last_used.elapsed() >= MAX_IDLE_TIME;
            let never_connected = slot.circuit.is_none();
            !slot.has_running_attempt() && (is_old || never_connected)
        };
        let ids = self.slots.iter().filter(|(_, slot)| is_useless(slot));
        let ids: Vec<SlotId> = ids.map(|(id, _)| *id).collect();
        let removed = ids.into_iter().filter_map(|id| self.remove(id)).collect();
        self.drop_least_recently_used();
        if self.slots.capacity() > 4 * self.slots.len().max(MAX_IDLE_SLOTS) {
            self.slots.shrink_to_fit();
            self.index.shrink_to_fit();
        }
        removed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(
            self.slots.len(),
            self.index.len(),
            "the index does not match"
        );
        self.slots.len()
    }

    /// Cancels all attempts, and removes and returns all slots.
    pub(super) fn take_all(&mut self) -> HashMap<SlotId, CircuitSlot<N>> {
        self.index = HashMap::new();
        let slots = std::mem::take(&mut self.slots);
        for attempt in slots.values().filter_map(|slot| slot.attempt.as_ref()) {
            attempt.cancel();
        }
        slots
    }

    /// Finds a slot that admits a request.
    fn find(
        &self,
        service: &OnionAddress,
        keys: &HsClientSecretKeys,
        isolation: &Isolation,
    ) -> Option<SlotId> {
        self.isolated_fields.iter().find_map(|isolated_fields| {
            let key = SlotKey::new(service, keys, isolation.key(*isolated_fields));
            let id = self.index.get(&key)?;
            let slot = self.slots.get(id)?;
            slot.isolation.is_compatible(isolation).then_some(*id)
        })
    }

    /// Adds the isolation of an admitted request to a slot.
    fn add_isolation(&mut self, id: SlotId, isolation: &Isolation) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let before = slot.isolation.isolated_fields();
        slot.isolation.admit(isolation);
        slot.last_used = Instant::now();
        if slot.isolation.isolated_fields() != before {
            self.index.remove(&slot.key(before));
            self.add_to_index(id);
        }
    }

    fn add_to_index(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get(&id) else {
            return;
        };
        let isolated_fields = slot.isolation.isolated_fields();
        if !self.isolated_fields.contains(&isolated_fields) {
            self.isolated_fields.push(isolated_fields);
        }
        self.index.insert(slot.key(isolated_fields), id);
    }

    /// Drops the least recently used slots, if too many have no running attempt.
    fn drop_least_recently_used(&mut self) {
        let idle = self
            .slots
            .iter()
            .filter(|(_, slot)| !slot.has_running_attempt());
        let mut idle: Vec<(Instant, SlotId)> =
            idle.map(|(id, slot)| (slot.last_used, *id)).collect();
        if idle.len() >= MAX_IDLE_SLOTS {
            let dropped = idle.len() - MAX_IDLE_SLOTS + DROP_BATCH;
            idle.select_nth_unstable_by_key(dropped, |(last_used, _)| *last_used);
            for (_, id) in idle.drain(..dropped) {
                self.remove(id);
            }
        }
        self.drop_at = self.slots.len() + MAX_IDLE_SLOTS - idle.len();
    }
}

impl<N: Network> CircuitSlot<N> {
    /// Records that `circuit` was requested from the connector, so that later requests find it
    /// cached.
    pub(super) fn record_requested(&mut self, circuit: &RendezvousCircuit<N>, requested: Instant) {
        if self.tokens.contains(&circuit.token) {
            self.circuit = Some(circuit.to_reused());
            self.last_requested = self.last_requested.max(Some(requested));
        }
    }

    /// Whether a stream was opened on this circuit a short time ago.
    pub(super) fn is_trusted(&self, token: IsolationToken) -> bool {
        self.last_opened
            .is_some_and(|(opened_token, at)| opened_token == token && at.elapsed() < TRUST_TIME)
    }

    /// Records that a stream was opened on this circuit.
    pub(super) fn record_opened(&mut self, token: IsolationToken) {
        if self.tokens.contains(&token) {
            self.last_opened = Some((token, Instant::now()));
        }
    }

    /// Makes the next request start a new attempt, with this connector.
    pub(super) fn restart(&mut self, connector: N::HsConnector) {
        self.connector = connector;
        self.tokens = new_tokens();
        self.attempt = None;
        self.circuit = None;
        self.last_requested = None;
    }

    fn key(&self, isolated_fields: IsolatedFields) -> SlotKey {
        SlotKey::new(
            &self.service,
            &self.keys,
            self.isolation.key(isolated_fields),
        )
    }

    fn has_running_attempt(&self) -> bool {
        self.attempt.as_ref().is_some_and(Attempt::is_running)
    }

    fn has_open_circuit(&self) -> bool {
        self.circuit
            .as_ref()
            .is_some_and(RendezvousCircuit::is_open)
    }

    /// Makes the next attempt start with this token, because there is an open circuit for it.
    fn move_to_front(&mut self, token: IsolationToken) {
        if let Some(index) = self.tokens.iter().position(|t| *t == token) {
            self.tokens[..=index].rotate_right(1);
        }
    }
}
