//! Addresses that stand for names (tor(1) `VirtualAddrNetworkIPv4`, `AutomapHostsOnResolve`).

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::{Ipv4Net, Ipv6Net};

/// How many addresses stand for names at once. Beyond it the one that was not used for the longest
/// time is forgotten, and connections to it are refused.
const MAX_ADDRESSES: usize = 16_384;
/// How often a random address is drawn before the network counts as full (C tor's number).
const MAX_DRAWS: usize = 1000;

/// The networks that virtual addresses are taken from, and the addresses in use.
///
/// As in C tor a name has the same address for all clients, and addresses are drawn at random, so
/// that nobody can tell from one how many others there are.
#[derive(Debug)]
pub(super) struct Automap {
    v4: Ipv4Net,
    v6: Ipv6Net,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    names: HashMap<IpAddr, Entry>,
    /// By name and whether the address is an IPv6 one.
    addresses: HashMap<(Arc<str>, bool), IpAddr>,
    /// By the time of the last use.
    ages: BTreeMap<u64, IpAddr>,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    used: u64,
}

impl Default for Automap {
    /// tor(1)'s networks: nothing there can be reached by mistake.
    fn default() -> Self {
        Automap::new(
            Ipv4Net::new_assert(Ipv4Addr::new(127, 192, 0, 0), 10),
            Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
        )
    }
}

impl Automap {
    /// Addresses of these networks.
    pub(super) fn new(v4: Ipv4Net, v6: Ipv6Net) -> Automap {
        Automap {
            v4,
            v6,
            table: Mutex::default(),
        }
    }

    /// Whether an address is for names only.
    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4.contains(&ip),
            IpAddr::V6(ip) => self.v6.contains(&ip),
        }
    }

    /// The name that an address stands for; from then on it counts as just used.
    pub(super) fn name(&self, ip: IpAddr) -> Option<String> {
        let mut table = self.table();
        let name = Arc::clone(&table.names.get(&ip)?.name);
        table.use_now(ip);
        Some(name.to_string())
    }

    /// Takes over those addresses of `older` that are in these networks and `still` right for their
    /// names, with the order of their last uses.
    pub(super) fn take_over(&self, older: &Automap, still: impl Fn(&str, IpAddr) -> bool) {
        let (mut table, older) = (self.table(), older.table());
        for ip in older.ages.values() {
            let Some(Entry { name, .. }) = older.names.get(ip) else {
                continue;
            };
            if self.contains(*ip) && still(name, *ip) {
                table.insert(*ip, (Arc::clone(name), ip.is_ipv6()));
            }
        }
    }

    /// Whether an address stands for a name.
    pub(super) fn knows(&self, ip: IpAddr) -> bool {
        self.table().names.contains_key(&ip)
    }

    /// The address that stands for a name: the same as before, or a new one that is not `taken` for
    /// another purpose. `None` if there are no more.
    pub(super) fn address(
        &self,
        name: &str,
        v6: bool,
        taken: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let mut table = self.table();
        let key = (Arc::from(name), v6);
        if let Some(&ip) = table.addresses.get(&key) {
            table.use_now(ip);
            return Some(ip);
        }
        let drawn = std::iter::repeat_with(|| self.draw(v6)).take(MAX_DRAWS);
        let ip = drawn
            .flatten()
            .find(|ip| !table.names.contains_key(ip) && !taken(*ip))?;
        table.insert(ip, key);
        Some(ip)
    }

    /// A random address; `None` for one that had better not be used.
    fn draw(&self, v6: bool) -> Option<IpAddr> {
        if v6 {
            let host = u128::from(self.v6.hostmask());
            let bits = u128::from(self.v6.network()) | (rand::random::<u128>() & host);
            return Some(Ipv6Addr::from(bits).into());
        }
        let host = u32::from(self.v4.hostmask());
        let ip = Ipv4Addr::from(u32::from(self.v4.network()) | (rand::random::<u32>() & host));
        // Some programs take these for the address of a network or of everybody in it.
        let [.., last] = ip.octets();
        (last != 0 && last != 255).then_some(ip.into())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, ip: IpAddr, key: (Arc<str>, bool)) {
        if self.names.len() >= MAX_ADDRESSES
            && let Some((_, oldest)) = self.ages.pop_first()
            && let Some(entry) = self.names.remove(&oldest)
        {
            self.addresses.remove(&(entry.name, oldest.is_ipv6()));
        }
        let name = Arc::clone(&key.0);
        self.addresses.insert(key, ip);
        self.names.insert(ip, Entry { name, used: 0 });
        self.use_now(ip);
    }

    /// Makes an address the one that was used last.
    fn use_now(&mut self, ip: IpAddr) {
        let Some(entry) = self.names.get_mut(&ip) else {
            return;
        };
        self.clock += 1;
        self.ages.remove(&entry.used);
        self.ages.insert(self.clock, ip);
        entry.used = self.clock;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody(_: IpAddr) -> bool {
        false
    }

    #[test]
    fn a_name_keeps_its_address_and_an_address_its_name() {
        let automap = Automap::default();
        let four = automap.address("a.onion", false, nobody).expect("room");
        let six = automap.address("a.onion", true, nobody).expect("room");
        assert!(four.is_ipv4() && six.is_ipv6());
        assert!(automap.contains(four) && automap.contains(six));
        assert_eq!(automap.address("a.onion", false, nobody), Some(four));
        assert_eq!(automap.address("a.onion", true, nobody), Some(six));
        assert_ne!(automap.address("b.onion", false, nobody), Some(four));
        for ip in [four, six] {
            assert_eq!(automap.name(ip).as_deref(), Some("a.onion"));
        }
        assert_eq!(automap.name(IpAddr::from([127, 192, 0, 0])), None);
    }

    #[test]
    fn addresses_are_drawn_from_all_of_the_network_and_nowhere_else() {
        let v4: Ipv4Net = "10.32.0.0/12".parse().expect("literal");
        let v6: Ipv6Net = "2001:db8:f000::/36".parse().expect("literal");
        let automap = Automap::new(v4, v6);
        let mut second = [false; 256];
        for number in 0..2000 {
            let name = format!("{number}.onion");
            let ip = automap.address(&name, false, nobody).expect("room");
            let IpAddr::V4(ip) = ip else {
                panic!("{ip}");
            };
            let [first, b, _, last] = ip.octets();
            assert!(first == 10 && (32..48).contains(&b), "{ip}");
            assert!(last != 0 && last != 255, "{ip}");
            second[usize::from(b)] = true;
            let ip = automap.address(&name, true, nobody).expect("room");
            assert!(automap.contains(ip) && ip.is_ipv6(), "{ip}");
        }
        assert_eq!(second.iter().filter(|seen| **seen).count(), 16);
    }

    #[test]
    fn what_is_used_otherwise_is_not_given_out() {
        let automap = Automap::default();
        assert_eq!(automap.address("a.onion", false, |_| true), None);
        let even = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.octets()[3] % 2 == 0);
        let ip = automap.address("a.onion", false, even).expect("room");
        assert!(!even(ip));
    }

    #[test]
    fn the_table_forgets_what_was_not_used_for_the_longest_time() {
        let automap = Automap::default();
        let address = |number: usize| {
            let name = format!("{number}.onion");
            automap.address(&name, false, nobody).expect("room")
        };
        let first: Vec<IpAddr> = (0..MAX_ADDRESSES).map(address).collect();
        // The oldest is used once more, each way; the next oldest is not.
        assert_eq!(automap.name(first[0]).as_deref(), Some("0.onion"));
        assert_eq!(address(2), first[2]);
        address(MAX_ADDRESSES);
        address(MAX_ADDRESSES + 1);
        let known = |number: usize| automap.knows(first[number]);
        assert!(known(0) && !known(1) && known(2) && !known(3) && known(4));
        let table = automap.table();
        assert_eq!(table.names.len(), MAX_ADDRESSES);
        assert_eq!(table.addresses.len(), MAX_ADDRESSES);
        assert_eq!(table.ages.len(), MAX_ADDRESSES);
    }
}
