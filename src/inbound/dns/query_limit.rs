//! Limits the DNS queries in flight, and the share of each client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Limits the queries in flight to `limit`, of all clients together.
///
/// A client gets a permit while it holds fewer than are free, so one greedy client gets half of them,
/// the next a quarter, and so on. A new client finds a free permit until about log2(`limit`) greedy
/// clients are active.
#[derive(Debug)]
pub(super) struct QueryLimiter {
    limit: usize,
    in_flight: Mutex<QueriesInFlight>,
}

#[derive(Debug, Default)]
struct QueriesInFlight {
    total: usize,
    /// Contains only clients with queries in flight, so that its size is limited too.
    by_client: HashMap<IpAddr, usize>,
}

/// Allows one query. The permit is released on drop.
#[derive(Debug)]
pub(super) struct QueryPermit {
    limiter: Arc<QueryLimiter>,
    client: IpAddr,
}

impl QueryLimiter {
    /// Creates a limiter with `limit` free permits.
    pub(super) fn new(limit: usize) -> Arc<QueryLimiter> {
        let in_flight = Mutex::default();
        Arc::new(QueryLimiter { limit, in_flight })
    }

    /// Returns a permit for the client at `address`, or `None` if it has used its share.
    pub(super) fn acquire(self: &Arc<Self>, address: IpAddr) -> Option<QueryPermit> {
        let client = client_network(address);
        let mut in_flight = self.lock();
        let free = self.limit.saturating_sub(in_flight.total);
        let own = in_flight.by_client.get(&client).copied().unwrap_or(0);
        if own >= free {
            return None;
        }
        in_flight.total += 1;
        in_flight.by_client.insert(client, own + 1);
        Some(QueryPermit {
            limiter: Arc::clone(self),
            client,
        })
    }

    fn lock(&self) -> MutexGuard<'_, QueriesInFlight> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for QueryPermit {
    fn drop(&mut self) {
        let mut in_flight = self.limiter.lock();
        in_flight.total -= 1;
        match in_flight.by_client.get_mut(&self.client) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                in_flight.by_client.remove(&self.client);
            }
        }
    }
}

/// Returns what counts as one client: an IPv4 address, or the /64 prefix of an IPv6 address, within
/// which a computer chooses its addresses freely.
fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("IP address")
    }

    /// Acquires as many permits as the client gets.
    fn acquire_all(limiter: &Arc<QueryLimiter>, client: &str) -> Vec<QueryPermit> {
        std::iter::from_fn(|| limiter.acquire(ip(client))).collect()
    }

    #[test]
    fn a_greedy_client_gets_half_of_the_free_permits_and_leaves_some_for_others() {
        let limiter = QueryLimiter::new(16);
        let first = acquire_all(&limiter, "192.0.2.1");
        assert_eq!(first.len(), 8);
        let second = acquire_all(&limiter, "192.0.2.2");
        assert_eq!(second.len(), 4);
        assert!(limiter.acquire(ip("192.0.2.1")).is_none());
        assert!(limiter.acquire(ip("192.0.2.3")).is_some());
        drop(second);
        assert!(limiter.acquire(ip("192.0.2.1")).is_none());
        drop(first);
        assert_eq!(acquire_all(&limiter, "192.0.2.2").len(), 8);
    }

    #[test]
    fn dropped_permits_are_free_again_and_their_client_is_forgotten() {
        let limiter = QueryLimiter::new(4);
        for _ in 0..100 {
            let permits = acquire_all(&limiter, "192.0.2.1");
            assert_eq!(permits.len(), 2);
        }
        let in_flight = limiter.lock();
        assert_eq!((in_flight.total, in_flight.by_client.len()), (0, 0));
    }

    #[test]
    fn all_clients_together_do_not_exceed_the_limit() {
        let limiter = QueryLimiter::new(16);
        let permits: Vec<QueryPermit> = (0..=255)
            .flat_map(|last| acquire_all(&limiter, &format!("192.0.2.{last}")))
            .collect();
        assert_eq!(permits.len(), 16);
        assert_eq!(limiter.lock().by_client.len(), 5);
    }

    #[test]
    fn the_addresses_of_one_computer_count_as_one_client() {
        let limiter = QueryLimiter::new(16);
        let first = acquire_all(&limiter, "2001:db8::1");
        assert_eq!(first.len(), 8);
        assert!(
            limiter
                .acquire(ip("2001:db8::ffff:ffff:ffff:fff0"))
                .is_none()
        );
        assert!(limiter.acquire(ip("2001:db8:0:1::1")).is_some());
        let mapped = acquire_all(&limiter, "::ffff:192.0.2.1");
        assert!(!mapped.is_empty());
        assert!(limiter.acquire(ip("192.0.2.1")).is_none());
        assert!(limiter.acquire(ip("192.0.2.2")).is_some());
    }
}
