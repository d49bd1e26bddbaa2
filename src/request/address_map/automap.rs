//! Virtual addresses and their names (tor(1) `VirtualAddrNetworkIPv4`, `AutomapHostsOnResolve`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashlink::LinkedHashMap;
use ipnet::{Ipv4Net, Ipv6Net};

/// How many virtual addresses are in use at most. Beyond it, the least recently used one is forgotten,
/// and connections to it are refused.
const MAX_ADDRESSES: usize = 16_384;
/// How many random addresses are tried before the network counts as full (C tor's number).
const MAX_DRAWS: usize = 1000;

/// The networks that virtual addresses are taken from, and the addresses in use.
///
/// As in C tor, a name has the same address for all clients, and addresses are random, so that one
/// does not show how many others there are.
#[derive(Debug)]
pub(super) struct Automap {
    v4: Ipv4Net,
    v6: Ipv6Net,
    table: Mutex<VirtualAddresses>,
}

/// The addresses in use.
#[derive(Debug, Default)]
struct VirtualAddresses {
    /// Names by address, least recently used first.
    names: LinkedHashMap<IpAddr, Arc<str>>,
    /// Addresses by name, and by whether they are IPv6 addresses.
    addresses: HashMap<(Arc<str>, bool), IpAddr>,
}

impl Default for Automap {
    /// Uses tor(1)'s default networks, where nothing can be reached by mistake.
    fn default() -> Self {
        Automap::new(
            Ipv4Net::new_assert(Ipv4Addr::new(127, 192, 0, 0), 10),
            Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
        )
    }
}

impl Automap {
    /// Takes addresses from these networks.
    pub(super) fn new(v4: Ipv4Net, v6: Ipv6Net) -> Automap {
        Automap {
            v4,
            v6,
            table: Mutex::default(),
        }
    }

    /// Whether an address is in one of the networks, in use or not.
    pub(super) fn is_in_networks(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4.contains(&ip),
            IpAddr::V6(ip) => self.v6.contains(&ip),
        }
    }

    /// Whether an address is in use.
    pub(super) fn has_address(&self, ip: IpAddr) -> bool {
        self.lock().names.contains_key(&ip)
    }

    /// Finds the name of an address, which becomes the most recently used one.
    pub(super) fn find_name(&self, ip: IpAddr) -> Option<String> {
        let mut table = self.lock();
        let name = table.names.to_back(&ip)?;
        Some(name.to_string())
    }

    /// Finds the address of a name, which becomes the most recently used one, or assigns a new one that
    /// is not `is_taken` for another purpose. Returns `None` if no address is left.
    pub(super) fn find_or_assign(
        &self,
        name: &str,
        v6: bool,
        is_taken: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let mut table = self.lock();
        let key = (Arc::from(name), v6);
        if let Some(&ip) = table.addresses.get(&key) {
            table.names.to_back(&ip);
            return Some(ip);
        }
        let drawn = std::iter::repeat_with(|| self.draw(v6)).take(MAX_DRAWS);
        let ip = drawn
            .flatten()
            .find(|ip| !table.names.contains_key(ip) && !is_taken(*ip))?;
        table.insert(ip, key);
        Some(ip)
    }

    /// Copies the addresses of `older` that are in these networks and that `is_allowed` accepts, in the
    /// order of their last uses.
    pub(super) fn copy_from(&self, older: &Automap, is_allowed: impl Fn(&str, IpAddr) -> bool) {
        let (mut table, older) = (self.lock(), older.lock());
        for (ip, name) in &older.names {
            if self.is_in_networks(*ip) && is_allowed(name, *ip) {
                table.insert(*ip, (Arc::clone(name), ip.is_ipv6()));
            }
        }
    }

    /// Draws a random address of a network; `None` for one that should not be used.
    fn draw(&self, v6: bool) -> Option<IpAddr> {
        if v6 {
            let host = u128::from(self.v6.hostmask());
            let bits = u128::from(self.v6.network()) | (rand::random::<u128>() & host);
            return Some(Ipv6Addr::from(bits).into());
        }
        let host = u32::from(self.v4.hostmask());
        let ip = Ipv4Addr::from(u32::from(self.v4.network()) | (rand::random::<u32>() & host));
        // Some programs take these for network and broadcast addresses.
        let [.., last] = ip.octets();
        (last != 0 && last != 255).then_some(ip.into())
    }

    fn lock(&self) -> MutexGuard<'_, VirtualAddresses> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VirtualAddresses {
    /// Adds an address as the most recently used one; forgets the least recently used one if there are
    /// too many.
    fn insert(&mut self, ip: IpAddr, key: (Arc<str>, bool)) {
        if self.names.len() >= MAX_ADDRESSES
            && let Some((oldest, name)) = self.names.pop_front()
        {
            self.addresses.remove(&(name, oldest.is_ipv6()));
        }
        self.names.insert(ip, Arc::clone(&key.0));
        self.addresses.insert(key, ip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none_taken(_: IpAddr) -> bool {
        false
    }

    #[test]
    fn a_name_keeps_its_address_and_an_address_its_name() {
        let automap = Automap::default();
        let four = automap
            .find_or_assign("a.onion", false, none_taken)
            .expect("room");
        let six = automap
            .find_or_assign("a.onion", true, none_taken)
            .expect("room");
        assert!(four.is_ipv4() && six.is_ipv6());
        assert!(automap.is_in_networks(four) && automap.is_in_networks(six));
        assert_eq!(
            automap.find_or_assign("a.onion", false, none_taken),
            Some(four)
        );
        assert_eq!(
            automap.find_or_assign("a.onion", true, none_taken),
            Some(six)
        );
        assert_ne!(
            automap.find_or_assign("b.onion", false, none_taken),
            Some(four)
        );
        for ip in [four, six] {
            assert_eq!(automap.find_name(ip).as_deref(), Some("a.onion"));
        }
        assert_eq!(automap.find_name(IpAddr::from([127, 192, 0, 0])), None);
    }

    #[test]
    fn addresses_are_drawn_from_the_whole_network_and_nowhere_else() {
        let v4: Ipv4Net = "10.32.0.0/12".parse().expect("literal");
        let v6: Ipv6Net = "2001:db8:f000::/36".parse().expect("literal");
        let automap = Automap::new(v4, v6);
        let mut second = [false; 256];
        for number in 0..2000 {
            let name = format!("{number}.onion");
            let ip = automap
                .find_or_assign(&name, false, none_taken)
                .expect("room");
            let IpAddr::V4(ip) = ip else {
                panic!("{ip}");
            };
            let [first, b, _, last] = ip.octets();
            assert!(first == 10 && (32..48).contains(&b), "{ip}");
            assert!(last != 0 && last != 255, "{ip}");
            second[usize::from(b)] = true;
            let ip = automap
                .find_or_assign(&name, true, none_taken)
                .expect("room");
            assert!(automap.is_in_networks(ip) && ip.is_ipv6(), "{ip}");
        }
        assert_eq!(second.iter().filter(|seen| **seen).count(), 16);
    }

    #[test]
    fn an_address_taken_for_another_purpose_is_not_assigned() {
        let automap = Automap::default();
        assert_eq!(automap.find_or_assign("a.onion", false, |_| true), None);
        let even = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.octets()[3] % 2 == 0);
        let ip = automap
            .find_or_assign("a.onion", false, even)
            .expect("room");
        assert!(!even(ip));
    }

    #[test]
    fn the_least_recently_used_address_is_forgotten() {
        let automap = Automap::default();
        let address = |number: usize| {
            let name = format!("{number}.onion");
            automap
                .find_or_assign(&name, false, none_taken)
                .expect("room")
        };
        let first: Vec<IpAddr> = (0..MAX_ADDRESSES).map(address).collect();
        // Addresses 0 and 2 are used again, one by address and one by name; 1 and 3 are not.
        assert_eq!(automap.find_name(first[0]).as_deref(), Some("0.onion"));
        assert_eq!(address(2), first[2]);
        address(MAX_ADDRESSES);
        address(MAX_ADDRESSES + 1);
        let known = |number: usize| automap.has_address(first[number]);
        assert!(known(0) && !known(1) && known(2) && !known(3) && known(4));
        let table = automap.lock();
        assert_eq!(table.names.len(), MAX_ADDRESSES);
        assert_eq!(table.addresses.len(), MAX_ADDRESSES);
    }
}
