//! The circuits to onion services, and who shares them.
//!
//! A [`CircuitSlot`] is what requests share that go to one service, may be on one circuit and come with the same client
//! authorization key. Slots are looked up by a key, so that a look-up takes as long with ten thousand of them as with
//! one. Two slots never have the same key: they would admit each other's streams, and whoever came second would have
//! been given the first (see [`Isolation::key`]).
//!
//! A slot that never connected is dropped as soon as nobody looks for its service. The others are kept for what they
//! know of it, and there is a limit to their number and their age.

use std::collections::HashMap;

use tokio::time::{Duration, Instant};
use tor_circmgr::IsolationToken;
use tor_hsclient::HsClientSecretKeys;

use super::network::Network;
use crate::tor::attempt::{Attempt, AttemptOutcome, Circuit, Tokens, fresh_tokens};
use crate::tor::isolation::{IsolatedFields, Isolation, IsolationKey};
use crate::tor::onion_address::OnionAddress;

/// How many slots are kept of those that are not looking for their service. Those that were not used for longest make
/// room; streams that are open on their circuits go on.
pub(super) const MAX_IDLE_SLOTS: usize = 1024;

/// How many are dropped at a time, so that not every new one has to look at them all.
const DROPPED_AT_ONCE: usize = MAX_IDLE_SLOTS / 8;

/// How long a slot is kept that nobody uses. Its circuit goes before that; the descriptor is worth keeping.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(60 * 60);

/// A circuit on which a stream was opened this short a time ago is believed to be alive.
const PROVEN: Duration = Duration::from_secs(30);

/// For how long a circuit that was asked for without a key is handed out to others who may share it,
/// without another look at the key files and another word with the connector (which keeps a circuit open
/// for as long as it is asked for). Where there is a key, each request looks whether it is still the
/// same one; where none is needed, one that is added changes nothing.
const CACHED: Duration = Duration::from_secs(5);

/// Names a slot. No other ever has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SlotId(u64);

/// What slots are looked up by.
#[derive(PartialEq, Eq, Hash)]
struct SlotKey {
    service: OnionAddress,
    /// `None` for the empty set of keys: two of these are equal and have different hashes.
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

/// Requests that share circuits to one service.
pub(super) struct CircuitSlot<N: Network> {
    service: OnionAddress,
    keys: HsClientSecretKeys,
    isolation: Isolation,
    pub(super) connector: N::Connector,
    /// What the slot is to its connector: isolations of its own, so that the connector's bookkeeping and ours
    /// cannot disagree on who shares what.
    pub(super) tokens: Tokens,
    pub(super) attempt: Option<Attempt<N>>,
    used: Instant,
    /// The circuit that was found last. Without one the slot never connected.
    circuit: Option<Circuit<N>>,
    /// When it was last asked for.
    asked: Option<Instant>,
    /// The circuit on which a stream was opened last, and when.
    proven: Option<(IsolationToken, Instant)>,
}

/// All slots.
pub(super) struct Table<N: Network> {
    slots: HashMap<SlotId, CircuitSlot<N>>,
    index: HashMap<SlotKey, SlotId>,
    /// The demands that isolations have made so far: a few, as there are few kinds of ports.
    demands: Vec<IsolatedFields>,
    next: u64,
    /// At how many slots to look for some to drop.
    full_at: usize,
    /// Whether a task sweeps the table.
    pub(super) is_swept: bool,
}

impl<N: Network> Default for Table<N> {
    fn default() -> Self {
        Table {
            slots: HashMap::new(),
            index: HashMap::new(),
            demands: Vec::new(),
            next: 0,
            full_at: MAX_IDLE_SLOTS,
            is_swept: false,
        }
    }
}

impl<N: Network> Table<N> {
    /// A slot that admits such a request.
    fn find(
        &self,
        service: &OnionAddress,
        keys: &HsClientSecretKeys,
        isolation: &Isolation,
    ) -> Option<SlotId> {
        self.demands.iter().find_map(|demands| {
            let key = SlotKey::new(service, keys, isolation.key(*demands));
            let id = self.index.get(&key)?;
            let slot = self.slots.get(id)?;
            slot.isolation.is_compatible(isolation).then_some(*id)
        })
    }

    /// The slot for a request, whose isolation it takes on. None if there is no such slot yet.
    pub(super) fn admit(
        &mut self,
        service: &OnionAddress,
        keys: &HsClientSecretKeys,
        isolation: &Isolation,
    ) -> Option<SlotId> {
        let id = self.find(service, keys, isolation)?;
        self.take_on(id, isolation);
        Some(id)
    }

    /// Has a slot take on the isolation of a request that it admits.
    fn take_on(&mut self, id: SlotId, isolation: &Isolation) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let before = slot.isolation.isolated_fields();
        slot.isolation.admit(isolation);
        slot.used = Instant::now();
        if slot.isolation.isolated_fields() != before {
            self.index.remove(&slot.key_for(before));
            self.enter(id);
        }
    }

    /// Makes a slot for a request.
    pub(super) fn insert(
        &mut self,
        service: &OnionAddress,
        keys: &HsClientSecretKeys,
        isolation: &Isolation,
        connector: N::Connector,
    ) -> SlotId {
        if self.slots.len() >= self.full_at {
            self.drop_least_used();
        }
        self.next += 1;
        let id = SlotId(self.next);
        let slot = CircuitSlot {
            service: *service,
            keys: keys.clone(),
            isolation: isolation.clone(),
            connector,
            tokens: fresh_tokens(),
            attempt: None,
            used: Instant::now(),
            circuit: None,
            asked: None,
            proven: None,
        };
        self.slots.insert(id, slot);
        self.enter(id);
        id
    }

    /// Enters a slot in the index.
    fn enter(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get(&id) else {
            return;
        };
        let demands = slot.isolation.isolated_fields();
        if !self.demands.contains(&demands) {
            self.demands.push(demands);
        }
        self.index.insert(slot.key_for(demands), id);
    }

    pub(super) fn slot(&mut self, id: SlotId) -> Option<&mut CircuitSlot<N>> {
        self.slots.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: SlotId) -> Option<CircuitSlot<N>> {
        let slot = self.slots.remove(&id)?;
        let key = slot.key_for(slot.isolation.isolated_fields());
        self.index.remove(&key);
        Some(slot)
    }

    /// A circuit that was asked for without a key a moment ago, and that a request may share.
    pub(super) fn cached(
        &mut self,
        service: &OnionAddress,
        isolation: &Isolation,
    ) -> Option<(SlotId, Circuit<N>)> {
        let id = self.find(service, &HsClientSecretKeys::none(), isolation)?;
        let slot = self.slots.get(&id)?;
        let (circuit, asked) = (slot.circuit.as_ref()?, slot.asked?);
        if asked.elapsed() >= CACHED || !circuit.is_open() {
            return None;
        }
        let circuit = circuit.clone();
        self.take_on(id, isolation);
        Some((id, circuit))
    }

    /// Notes how an attempt of a slot has ended. Gives the slot back if it is dropped.
    pub(super) fn note_outcome(
        &mut self,
        id: SlotId,
        attempt: &Attempt<N>,
        outcome: &AttemptOutcome<N>,
    ) -> Option<CircuitSlot<N>> {
        let slot = self.slots.get_mut(&id)?;
        if !slot.attempt.as_ref().is_some_and(|a| a.is(attempt)) {
            return None;
        }
        match outcome {
            AttemptOutcome::Circuit(circuit) => {
                slot.put_first(circuit.token);
                slot.circuit = Some(circuit.for_others());
            }
            // The connector has forgotten all it knew. There may still be an open circuit, if it was not even asked.
            AttemptOutcome::Failed(_) if !slot.has_open_circuit() => return self.remove(id),
            AttemptOutcome::Failed(_) => {}
        }
        None
    }

    /// Drops what is no longer needed. Gives what was dropped: that takes a while, and the table is locked.
    pub(super) fn sweep(&mut self) -> Vec<CircuitSlot<N>> {
        let of_no_use = |slot: &CircuitSlot<N>| {
            let is_old = slot.used.elapsed() >= FORGET_AFTER;
            !slot.is_looking() && (is_old || slot.circuit.is_none())
        };
        let ids = self.slots.iter().filter(|(_, slot)| of_no_use(slot));
        let ids: Vec<SlotId> = ids.map(|(id, _)| *id).collect();
        let dropped = ids.into_iter().filter_map(|id| self.remove(id)).collect();
        self.drop_least_used();
        if self.slots.capacity() > 4 * self.slots.len().max(MAX_IDLE_SLOTS) {
            self.slots.shrink_to_fit();
            self.index.shrink_to_fit();
        }
        dropped
    }

    /// Drops those that were not used for longest, if there are too many that look for nothing.
    fn drop_least_used(&mut self) {
        let idle = self.slots.iter().filter(|(_, slot)| !slot.is_looking());
        let mut idle: Vec<(Instant, SlotId)> = idle.map(|(id, slot)| (slot.used, *id)).collect();
        if idle.len() >= MAX_IDLE_SLOTS {
            let dropped = idle.len() - MAX_IDLE_SLOTS + DROPPED_AT_ONCE;
            idle.select_nth_unstable_by_key(dropped, |(used, _)| *used);
            for (_, id) in idle.drain(..dropped) {
                self.remove(id);
            }
        }
        self.full_at = self.slots.len() + MAX_IDLE_SLOTS - idle.len();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.slots.len(), self.index.len(), "the index is at odds");
        self.slots.len()
    }

    /// Empties the table, ending all attempts.
    pub(super) fn take_all(&mut self) -> HashMap<SlotId, CircuitSlot<N>> {
        self.index = HashMap::new();
        let slots = std::mem::take(&mut self.slots);
        for attempt in slots.values().filter_map(|slot| slot.attempt.as_ref()) {
            attempt.cancel();
        }
        slots
    }
}

impl<N: Network> CircuitSlot<N> {
    fn key_for(&self, demands: IsolatedFields) -> SlotKey {
        SlotKey::new(&self.service, &self.keys, self.isolation.key(demands))
    }

    /// Whether an attempt is under way.
    fn is_looking(&self) -> bool {
        self.attempt.as_ref().is_some_and(Attempt::is_running)
    }

    fn has_open_circuit(&self) -> bool {
        self.circuit.as_ref().is_some_and(Circuit::is_open)
    }

    /// Has the next attempt begin with this token: there is an open circuit on it.
    fn put_first(&mut self, token: IsolationToken) {
        if let Some(place) = self.tokens.iter().position(|t| *t == token) {
            self.tokens[..=place].rotate_right(1);
        }
    }

    /// Notes that a circuit was asked for, so that it is at hand for those who ask next.
    pub(super) fn note_asked(&mut self, circuit: &Circuit<N>, asked: Instant) {
        if self.tokens.contains(&circuit.token) {
            self.circuit = Some(circuit.for_others());
            self.asked = self.asked.max(Some(asked));
        }
    }

    /// Whether a stream was opened on this circuit a short time ago.
    pub(super) fn is_proven(&self, token: IsolationToken) -> bool {
        self.proven
            .is_some_and(|(proven, at)| proven == token && at.elapsed() < PROVEN)
    }

    /// Notes that a stream was opened on this circuit.
    pub(super) fn note_proven(&mut self, token: IsolationToken) {
        if self.tokens.contains(&token) {
            self.proven = Some((token, Instant::now()));
        }
    }

    /// Has the next request look for the service anew, with this connector.
    pub(super) fn restart(&mut self, connector: N::Connector) {
        self.connector = connector;
        self.tokens = fresh_tokens();
        self.attempt = None;
        self.circuit = None;
        self.asked = None;
    }
}
