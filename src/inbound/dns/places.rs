//! The questions that are under way, and how many of them each client may have.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A limited number of places for questions. A client may take one for as long as more are free than
/// it holds. So one that is alone gets half of them, and there is always one for a client that has none,
/// until there are as many greedy clients as `most` can be halved.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// No more entries than places are taken.
    by_client: HashMap<IpAddr, usize>,
}

/// A place that is taken, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    client: IpAddr,
}

impl Places {
    /// So many places, all of them free.
    pub(super) fn new(most: usize) -> Arc<Places> {
        let taken = Mutex::default();
        Arc::new(Places { most, taken })
    }

    /// A place for a question of the client at `address`; `None` if it has its share.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let client = network(address);
        let mut taken = self.lock();
        let free = self.most.saturating_sub(taken.all);
        let own = taken.by_client.get(&client).copied().unwrap_or(0);
        if own >= free {
            return None;
        }
        taken.all += 1;
        taken.by_client.insert(client, own + 1);
        Some(Place {
            places: Arc::clone(self),
            client,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        match taken.by_client.get_mut(&self.client) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or the 64 bits of an IPv6 address that a computer does
/// not choose for itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Takes as many places as the client gets.
    fn take_all(places: &Arc<Places>, client: &str) -> Vec<Place> {
        std::iter::from_fn(|| places.take(ip(client))).collect()
    }

    #[test]
    fn a_greedy_client_gets_half_of_what_is_free_and_leaves_room_for_others() {
        let places = Places::new(16);
        let first = take_all(&places, "192.0.2.1");
        assert_eq!(first.len(), 8);
        let second = take_all(&places, "192.0.2.2");
        assert_eq!(second.len(), 4);
        assert!(places.take(ip("192.0.2.1")).is_none());
        assert!(places.take(ip("192.0.2.3")).is_some());
        drop(second);
        assert!(places.take(ip("192.0.2.1")).is_none());
        drop(first);
        assert_eq!(take_all(&places, "192.0.2.2").len(), 8);
    }

    #[test]
    fn a_place_is_free_again_when_its_question_is_answered_and_nothing_is_left_of_its_client() {
        let places = Places::new(4);
        for _ in 0..100 {
            let held = take_all(&places, "192.0.2.1");
            assert_eq!(held.len(), 2);
        }
        let taken = places.lock();
        assert_eq!((taken.all, taken.by_client.len()), (0, 0));
    }

    #[test]
    fn never_more_are_taken_than_there_are() {
        let places = Places::new(16);
        let held: Vec<Place> = (0..=255)
            .flat_map(|last| take_all(&places, &format!("192.0.2.{last}")))
            .collect();
        assert_eq!(held.len(), 16);
        assert_eq!(places.lock().by_client.len(), 5);
    }

    #[test]
    fn a_computer_with_many_addresses_is_one_client() {
        let places = Places::new(16);
        let first = take_all(&places, "2001:db8::1");
        assert_eq!(first.len(), 8);
        assert!(places.take(ip("2001:db8::ffff:ffff:ffff:fff0")).is_none());
        assert!(places.take(ip("2001:db8:0:1::1")).is_some());
        let mapped = take_all(&places, "::ffff:192.0.2.1");
        assert!(!mapped.is_empty());
        assert!(places.take(ip("192.0.2.1")).is_none());
        assert!(places.take(ip("192.0.2.2")).is_some());
    }
}
