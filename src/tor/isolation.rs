//! Which streams may share a circuit: C tor's isolation flags, as a value that can be joined.
//!
//! C tor notes for each circuit, field by field, the value of the streams on it and whether streams
//! with different values have been mixed (tor(1), "SocksPort", isolation flags). Isolation is
//! therefore not an equivalence: two ports with different flags may share a circuit until a stream
//! comes along that forbids it. This type does the same, and one thing more: a stream's demand also
//! holds against streams that join the circuit after it, even from a port that asks for less.

use std::net::IpAddr;
use std::sync::Arc;

use zeroize::Zeroize as _;

use crate::config::port_line::IsolationFlags;

/// Who a stream belongs to and where it goes: the facts that isolation looks at.
#[derive(Clone, PartialEq, Eq)]
pub struct Facts {
    /// The client's address; `None` for a client on a unix socket.
    pub client: Option<IpAddr>,
    /// User name and password, or what the protocol has in their place, if any was given.
    pub credentials: Option<Secret>,
    /// The protocol the client spoke.
    pub protocol: Protocol,
    /// The port the client asked for.
    pub port: u16,
    /// The address as the client wrote it, in lower case.
    pub address: Arc<str>,
    /// The group of the port the client came in on.
    pub group: SessionGroup,
    /// Counts how often the user asked for new circuits.
    pub epoch: u64,
}

impl std::fmt::Debug for Facts {
    /// Shows none of the values: the Tor crates print isolation into their logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Facts([scrubbed])")
    }
}

/// A user name and password, or what stands for them: never to be shown, and wiped with its last copy.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<Login>);

#[derive(PartialEq, Eq, Hash)]
struct Login {
    user: Vec<u8>,
    password: Vec<u8>,
}

impl Drop for Login {
    fn drop(&mut self) {
        self.user.zeroize();
        self.password.zeroize();
    }
}

impl Secret {
    /// Both parts; `None` if both are empty, which counts as nothing said.
    pub fn new(user: &[u8], password: &[u8]) -> Option<Secret> {
        (!user.is_empty() || !password.is_empty()).then(|| {
            Secret(Arc::new(Login {
                user: user.to_vec(),
                password: password.to_vec(),
            }))
        })
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret([scrubbed])")
    }
}

/// The protocols that `IsolateClientProtocol` tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// SOCKS4 and SOCKS4a.
    Socks4,
    /// SOCKS5.
    Socks5,
    /// HTTP, to an HTTP port.
    Http,
    /// A connection that the system redirected to a transparent port.
    Transparent,
    /// DNS.
    Dns,
}

/// Streams of different groups never share a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionGroup {
    /// `SessionGroup=N` on the port's line: shared by all ports that name it.
    Named(u32),
    /// A port without one is a group of its own: the number of its line.
    Port(usize),
}

/// What may differ between two streams, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Fields(u8);

impl Fields {
    const CLIENT: Fields = Fields(1);
    const CREDENTIALS: Fields = Fields(1 << 1);
    const PROTOCOL: Fields = Fields(1 << 2);
    const PORT: Fields = Fields(1 << 3);
    const ADDRESS: Fields = Fields(1 << 4);
    const GROUP: Fields = Fields(1 << 5);
    const EPOCH: Fields = Fields(1 << 6);

    fn union(self, other: Fields) -> Fields {
        Fields(self.0 | other.0)
    }

    fn meets(self, other: Fields) -> bool {
        self.0 & other.0 != 0
    }

    fn when(self, condition: bool) -> Fields {
        if condition { self } else { Fields(0) }
    }
}

/// The isolation of a stream, or of a circuit with several streams on it.
#[derive(Clone, Debug)]
pub struct Isolation {
    /// The values of the first stream.
    facts: Facts,
    /// The fields in which some stream on the circuit must not differ from any other.
    demanded: Fields,
    /// The fields in which streams on the circuit already differ.
    mixed: Fields,
    /// Whether the circuit stays in use however old it grows (`KeepAliveIsolateSOCKSAuth`).
    keep_alive: bool,
}

/// The fields in which streams on a circuit must not differ. There are no more than 32 kinds: the port's flags
/// choose among five fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demands(Fields);

/// What an isolation looks like to some [`Demands`], to look circuits up by.
///
/// Isolations whose keys differ never share a circuit that makes these demands.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IsolationKey {
    demands: Fields,
    client: Option<IpAddr>,
    credentials: Option<Secret>,
    protocol: Option<Protocol>,
    port: Option<u16>,
    address: Option<Arc<str>>,
    group: SessionGroup,
    epoch: u64,
}

impl Isolation {
    /// The isolation of one stream that came in on a port with these flags.
    ///
    /// `keep_alive` is the port's `KeepAliveIsolateSOCKSAuth`; it has an effect only on streams
    /// that credentials isolate.
    pub fn new(facts: Facts, flags: &IsolationFlags, keep_alive: bool) -> Isolation {
        let demanded = Fields::GROUP
            .union(Fields::EPOCH)
            .union(Fields::CLIENT.when(flags.client_addr && facts.client.is_some()))
            .union(Fields::CREDENTIALS.when(flags.socks_auth))
            .union(Fields::PROTOCOL.when(flags.client_protocol))
            .union(Fields::PORT.when(flags.dest_port))
            .union(Fields::ADDRESS.when(flags.dest_addr));
        let keep_alive = keep_alive && flags.socks_auth && facts.credentials.is_some();
        Isolation {
            facts,
            demanded,
            mixed: Fields::default(),
            keep_alive,
        }
    }

    /// The fields in which the two differ.
    fn differences(&self, other: &Isolation) -> Fields {
        let (a, b) = (&self.facts, &other.facts);
        Fields::CLIENT
            .when(a.client != b.client)
            .union(Fields::CREDENTIALS.when(a.credentials != b.credentials))
            .union(Fields::PROTOCOL.when(a.protocol != b.protocol))
            .union(Fields::PORT.when(a.port != b.port))
            .union(Fields::ADDRESS.when(a.address != b.address))
            .union(Fields::GROUP.when(a.group != b.group))
            .union(Fields::EPOCH.when(a.epoch != b.epoch))
            .union(self.mixed)
            .union(other.mixed)
    }

    /// Whether streams of both may be on one circuit.
    pub fn compatible(&self, other: &Isolation) -> bool {
        !self
            .demanded
            .union(other.demanded)
            .meets(self.differences(other))
    }

    /// The isolation of a circuit that carries streams of both; `None` if they may not share one.
    pub fn join(&self, other: &Isolation) -> Option<Isolation> {
        let mixed = self.differences(other);
        let demanded = self.demanded.union(other.demanded);
        (!demanded.meets(mixed)).then(|| Isolation {
            facts: self.facts.clone(),
            demanded,
            mixed,
            keep_alive: self.keep_alive || other.keep_alive,
        })
    }

    /// Makes this the isolation of a circuit that carries streams of `other` as well; false, and no change, if they may
    /// not share one.
    pub fn admit(&mut self, other: &Isolation) -> bool {
        let mixed = self.differences(other);
        let demanded = self.demanded.union(other.demanded);
        let admitted = !demanded.meets(mixed);
        if admitted {
            self.demanded = demanded;
            self.mixed = mixed;
            self.keep_alive |= other.keep_alive;
        }
        admitted
    }

    /// The fields in which streams that join have to be alike.
    pub fn demands(&self) -> Demands {
        Demands(self.demanded)
    }

    /// What this looks like to a circuit with these demands.
    pub fn key(&self, demands: Demands) -> IsolationKey {
        let facts = &self.facts;
        let looks_at = |field| demands.0.meets(field);
        IsolationKey {
            demands: demands.0,
            client: facts.client.filter(|_| looks_at(Fields::CLIENT)),
            credentials: looks_at(Fields::CREDENTIALS)
                .then(|| facts.credentials.clone())
                .flatten(),
            protocol: looks_at(Fields::PROTOCOL).then_some(facts.protocol),
            port: looks_at(Fields::PORT).then_some(facts.port),
            address: looks_at(Fields::ADDRESS).then(|| Arc::clone(&facts.address)),
            group: facts.group,
            epoch: facts.epoch,
        }
    }

    /// Whether the circuit may go on taking new streams for as long as it is in use.
    pub fn keeps_alive(&self) -> bool {
        self.keep_alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts() -> impl Strategy<Value = Facts> {
        (
            0..2u8,
            0..3u8,
            any::<bool>(),
            0..2u16,
            0..2u8,
            0..2usize,
            0..2u64,
        )
            .prop_map(|(client, user, v4, port, address, group, epoch)| Facts {
                client: (client > 0).then(|| IpAddr::from([127, 0, 0, client])),
                credentials: Secret::new(&[user][..usize::from(user > 0)], &[]),
                protocol: if v4 {
                    Protocol::Socks4
                } else {
                    Protocol::Socks5
                },
                port,
                address: Arc::from(format!("host{address}.example")),
                group: SessionGroup::Port(group),
                epoch,
            })
    }

    fn flags() -> impl Strategy<Value = IsolationFlags> {
        any::<[bool; 5]>().prop_map(|[a, b, c, d, e]| IsolationFlags {
            client_addr: a,
            socks_auth: b,
            client_protocol: c,
            dest_port: d,
            dest_addr: e,
        })
    }

    /// The rule in words: two streams must be kept apart if either's port asks for a difference
    /// that there is between them.
    fn must_be_apart(a: &(Facts, IsolationFlags), b: &(Facts, IsolationFlags)) -> bool {
        let either = |pick: fn(&IsolationFlags) -> bool| pick(&a.1) || pick(&b.1);
        let wants_client =
            (a.1.client_addr && a.0.client.is_some()) || (b.1.client_addr && b.0.client.is_some());
        a.0.group != b.0.group
            || a.0.epoch != b.0.epoch
            || (wants_client && a.0.client != b.0.client)
            || (either(|f| f.socks_auth) && a.0.credentials != b.0.credentials)
            || (either(|f| f.client_protocol) && a.0.protocol != b.0.protocol)
            || (either(|f| f.dest_port) && a.0.port != b.0.port)
            || (either(|f| f.dest_addr) && a.0.address != b.0.address)
    }

    proptest! {
        #[test]
        fn streams_that_must_be_apart_never_meet_on_a_circuit(
            streams in proptest::collection::vec((facts(), flags()), 1..12)
        ) {
            // Streams arrive one by one and take the first circuit that admits them.
            let mut circuits: Vec<(Isolation, Vec<usize>)> = Vec::new();
            for (number, (facts, flags)) in streams.iter().enumerate() {
                let isolation = Isolation::new(facts.clone(), flags, false);
                match circuits.iter_mut().find(|(c, _)| c.compatible(&isolation)) {
                    Some((circuit, on_it)) => {
                        *circuit = circuit.join(&isolation).expect("compatible");
                        on_it.push(number);
                    }
                    None => circuits.push((isolation, vec![number])),
                }
            }
            for (_, on_it) in &circuits {
                for (i, a) in on_it.iter().enumerate() {
                    for b in &on_it[i + 1..] {
                        prop_assert!(!must_be_apart(&streams[*a], &streams[*b]));
                    }
                }
            }
        }

        #[test]
        fn a_key_leads_to_the_one_circuit_that_admits_a_stream(
            streams in proptest::collection::vec((facts(), flags()), 1..12)
        ) {
            let mut circuits: Vec<Isolation> = Vec::new();
            for (facts, flags) in &streams {
                let isolation = Isolation::new(facts.clone(), flags, false);
                let key_fits = |c: &Isolation| c.key(c.demands()) == isolation.key(c.demands());
                // Circuits that admit it are found by the key.
                prop_assert!(circuits.iter().all(|c| key_fits(c) || !c.compatible(&isolation)));
                match circuits.iter_mut().find(|c| key_fits(c) && c.compatible(&isolation)) {
                    Some(circuit) => {
                        let joined = circuit.join(&isolation).expect("compatible");
                        prop_assert!(circuit.admit(&isolation));
                        prop_assert_eq!(format!("{circuit:?}"), format!("{joined:?}"));
                    }
                    None => {
                        for circuit in &mut circuits {
                            let before = format!("{circuit:?}");
                            prop_assert!(!circuit.admit(&isolation));
                            prop_assert_eq!(format!("{circuit:?}"), before);
                        }
                        circuits.push(isolation);
                    }
                }
                // No two circuits have the same key, so that one place in a map is enough.
                for (i, a) in circuits.iter().enumerate() {
                    for b in &circuits[i + 1..] {
                        prop_assert!(a.key(a.demands()) != b.key(b.demands()));
                    }
                }
            }
        }

        #[test]
        fn two_streams_share_whenever_nothing_keeps_them_apart(
            a in (facts(), flags()), b in (facts(), flags())
        ) {
            let one = Isolation::new(a.0.clone(), &a.1, false);
            let two = Isolation::new(b.0.clone(), &b.1, false);
            prop_assert_eq!(one.compatible(&two), !must_be_apart(&a, &b));
            prop_assert_eq!(one.compatible(&two), two.compatible(&one));
            prop_assert_eq!(one.join(&two).is_some(), one.compatible(&two));
        }
    }
}
