//! Stream isolation: which streams may share a circuit, by C tor's isolation flags.
//!
//! C tor keeps, for each circuit and each field, the value that the circuit's streams have and whether
//! streams with different values share it (tor(1), "SocksPort", isolation flags). Isolation is therefore
//! not an equivalence relation: streams of two ports with different flags may share a circuit until it
//! carries a mix of values that the next stream does not accept. [`Isolation`] follows these rules, with
//! one addition: the fields that a stream isolates also count against streams that join later from a port
//! with fewer flags.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use zeroize::Zeroize as _;

use crate::config::port_line::IsolationFlags;

/// The isolation of a stream, or of a circuit that carries several streams.
#[derive(Clone, Debug)]
pub struct Isolation {
    /// The attributes of the circuit's first stream.
    attributes: StreamAttributes,
    /// The fields in which the circuit's streams must agree.
    isolated: FieldSet,
    /// The fields in which the circuit's streams already differ.
    mixed: FieldSet,
    /// Whether the circuit takes new streams at any age (`KeepAliveIsolateSOCKSAuth`).
    keep_alive: bool,
}

/// The fields in which the streams of a circuit must agree.
///
/// At most 32 values exist: a port's flags select among five fields, the other two are always isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsolatedFields(FieldSet);

/// The values of some [`IsolatedFields`], as a key for looking up circuits.
///
/// Streams whose keys differ never share a circuit that isolates these fields.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IsolationKey {
    isolated: FieldSet,
    client: Option<IpAddr>,
    credentials: Option<ClientCredentials>,
    protocol: Option<Protocol>,
    port: Option<u16>,
    address: Option<Arc<str>>,
    group: SessionGroup,
    epoch: u64,
}

impl Isolation {
    /// Returns the isolation of a stream from a port with these flags.
    ///
    /// `keep_alive` is the port's `KeepAliveIsolateSOCKSAuth`; it affects only streams that are isolated by
    /// credentials.
    pub fn new(
        attributes: StreamAttributes,
        flags: &IsolationFlags,
        keep_alive: bool,
    ) -> Isolation {
        let isolated = FieldSet::GROUP
            .union(FieldSet::EPOCH)
            .union(FieldSet::CLIENT.when(flags.client_addr && attributes.client.is_some()))
            .union(FieldSet::CREDENTIALS.when(flags.socks_auth))
            .union(FieldSet::PROTOCOL.when(flags.client_protocol))
            .union(FieldSet::PORT.when(flags.dest_port))
            .union(FieldSet::ADDRESS.when(flags.dest_addr));
        let keep_alive = keep_alive && flags.socks_auth && attributes.credentials.is_some();
        Isolation {
            attributes,
            isolated,
            mixed: FieldSet::default(),
            keep_alive,
        }
    }

    /// Returns whether streams of both may share a circuit.
    pub fn is_compatible(&self, other: &Isolation) -> bool {
        !self
            .isolated
            .union(other.isolated)
            .intersects(self.differences(other))
    }

    /// Returns the isolation of a circuit that carries streams of both, or `None` if they may not share one.
    pub fn join(&self, other: &Isolation) -> Option<Isolation> {
        let mixed = self.differences(other);
        let isolated = self.isolated.union(other.isolated);
        (!isolated.intersects(mixed)).then(|| Isolation {
            attributes: self.attributes.clone(),
            isolated,
            mixed,
            keep_alive: self.keep_alive || other.keep_alive,
        })
    }

    /// Adds a stream with isolation `other` to the circuit with this isolation.
    ///
    /// Returns false and changes nothing if they may not share a circuit.
    pub(crate) fn admit(&mut self, other: &Isolation) -> bool {
        let mixed = self.differences(other);
        let isolated = self.isolated.union(other.isolated);
        let admitted = !isolated.intersects(mixed);
        if admitted {
            self.isolated = isolated;
            self.mixed = mixed;
            self.keep_alive |= other.keep_alive;
        }
        admitted
    }

    /// The fields in which joining streams must agree with the circuit's.
    pub(crate) fn isolated_fields(&self) -> IsolatedFields {
        IsolatedFields(self.isolated)
    }

    /// Returns the values of `fields`, for looking up a circuit that isolates them.
    pub fn key(&self, fields: IsolatedFields) -> IsolationKey {
        let attributes = &self.attributes;
        let has = |field| fields.0.intersects(field);
        IsolationKey {
            isolated: fields.0,
            client: attributes.client.filter(|_| has(FieldSet::CLIENT)),
            credentials: has(FieldSet::CREDENTIALS)
                .then(|| attributes.credentials.clone())
                .flatten(),
            protocol: has(FieldSet::PROTOCOL).then_some(attributes.protocol),
            port: has(FieldSet::PORT).then_some(attributes.port),
            address: has(FieldSet::ADDRESS).then(|| Arc::clone(&attributes.address)),
            group: attributes.group,
            epoch: attributes.epoch,
        }
    }

    /// Returns whether the circuit takes new streams for as long as it is in use.
    pub fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// The fields in which the two differ.
    fn differences(&self, other: &Isolation) -> FieldSet {
        let (a, b) = (&self.attributes, &other.attributes);
        FieldSet::CLIENT
            .when(a.client != b.client)
            .union(FieldSet::CREDENTIALS.when(a.credentials != b.credentials))
            .union(FieldSet::PROTOCOL.when(a.protocol != b.protocol))
            .union(FieldSet::PORT.when(a.port != b.port))
            .union(FieldSet::ADDRESS.when(a.address != b.address))
            .union(FieldSet::GROUP.when(a.group != b.group))
            .union(FieldSet::EPOCH.when(a.epoch != b.epoch))
            .union(self.mixed)
            .union(other.mixed)
    }
}

/// The attributes of a stream that isolation compares.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamAttributes {
    /// The client's IP address; `None` for a client on a Unix socket.
    pub client: Option<IpAddr>,
    /// The user name and password, or the protocol's equivalent; `None` if the client sent neither.
    pub credentials: Option<ClientCredentials>,
    /// The protocol that the client speaks.
    pub protocol: Protocol,
    /// The destination port.
    pub port: u16,
    /// The destination address as the client wrote it, in lower case.
    pub address: Arc<str>,
    /// The session group of the port that accepted the client.
    pub group: SessionGroup,
    /// The number of the stream's epoch; each new identity and each reload begins another.
    pub epoch: u64,
}

impl fmt::Debug for StreamAttributes {
    /// Hides all values: the Tor crates log isolation values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamAttributes([scrubbed])")
    }
}

/// The user name and password that a client sends, or the protocol's equivalent. They only isolate
/// streams; nothing verifies them.
///
/// Debug output is redacted. Dropping the last clone wipes the bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientCredentials(Arc<CredentialBytes>);

#[derive(PartialEq, Eq, Hash)]
struct CredentialBytes {
    user: Vec<u8>,
    password: Vec<u8>,
}

impl Drop for CredentialBytes {
    fn drop(&mut self) {
        self.user.zeroize();
        self.password.zeroize();
    }
}

impl ClientCredentials {
    /// Returns `None` if both parts are empty: such a client counts as one without credentials.
    pub fn new(user: &[u8], password: &[u8]) -> Option<ClientCredentials> {
        (!user.is_empty() || !password.is_empty()).then(|| {
            ClientCredentials(Arc::new(CredentialBytes {
                user: user.to_vec(),
                password: password.to_vec(),
            }))
        })
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCredentials([scrubbed])")
    }
}

/// The client protocols that `IsolateClientProtocol` distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// SOCKS4 and SOCKS4a.
    Socks4,
    /// SOCKS5.
    Socks5,
    /// HTTP, on an HTTP port.
    Http,
    /// A connection redirected to a transparent port.
    Transparent,
    /// DNS.
    Dns,
}

/// The session group of a port. Streams of different groups never share a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionGroup {
    /// `SessionGroup=N` on the port line; ports with the same number form one group.
    Named(u32),
    /// A port without the flag forms its own group, identified by a number that no other port gets.
    Port(usize),
}

/// A set of fields of [`StreamAttributes`], one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct FieldSet(u8);

impl FieldSet {
    const CLIENT: FieldSet = FieldSet(1);
    const CREDENTIALS: FieldSet = FieldSet(1 << 1);
    const PROTOCOL: FieldSet = FieldSet(1 << 2);
    const PORT: FieldSet = FieldSet(1 << 3);
    const ADDRESS: FieldSet = FieldSet(1 << 4);
    const GROUP: FieldSet = FieldSet(1 << 5);
    const EPOCH: FieldSet = FieldSet(1 << 6);

    fn union(self, other: FieldSet) -> FieldSet {
        FieldSet(self.0 | other.0)
    }

    fn intersects(self, other: FieldSet) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns the set if `condition` holds, and the empty set otherwise.
    fn when(self, condition: bool) -> FieldSet {
        if condition { self } else { FieldSet(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attributes() -> impl Strategy<Value = StreamAttributes> {
        (
            0..2u8,
            0..3u8,
            any::<bool>(),
            0..2u16,
            0..2u8,
            0..2usize,
            0..2u64,
        )
            .prop_map(
                |(client, user, v4, port, address, group, epoch)| StreamAttributes {
                    client: (client > 0).then(|| IpAddr::from([127, 0, 0, client])),
                    credentials: ClientCredentials::new(&[user][..usize::from(user > 0)], &[]),
                    protocol: if v4 {
                        Protocol::Socks4
                    } else {
                        Protocol::Socks5
                    },
                    port,
                    address: Arc::from(format!("host{address}.example")),
                    group: SessionGroup::Port(group),
                    epoch,
                },
            )
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

    /// The specification: two streams must not share a circuit if they differ in a field that either port
    /// isolates.
    fn must_be_apart(
        a: &(StreamAttributes, IsolationFlags),
        b: &(StreamAttributes, IsolationFlags),
    ) -> bool {
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
        fn isolated_streams_never_share_a_circuit(
            streams in proptest::collection::vec((attributes(), flags()), 1..12)
        ) {
            // Each stream takes the first circuit that admits it.
            let mut circuits: Vec<(Isolation, Vec<usize>)> = Vec::new();
            for (number, (attributes, flags)) in streams.iter().enumerate() {
                let isolation = Isolation::new(attributes.clone(), flags, false);
                match circuits.iter_mut().find(|(c, _)| c.is_compatible(&isolation)) {
                    Some((circuit, on_it)) => {
                        *circuit = circuit.join(&isolation).expect("compatible isolation");
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
        fn a_key_finds_the_only_circuit_that_admits_a_stream(
            streams in proptest::collection::vec((attributes(), flags()), 1..12)
        ) {
            let mut circuits: Vec<Isolation> = Vec::new();
            for (attributes, flags) in &streams {
                let isolation = Isolation::new(attributes.clone(), flags, false);
                let key_fits = |c: &Isolation| c.key(c.isolated_fields()) == isolation.key(c.isolated_fields());
                // The key finds every circuit that admits the stream.
                prop_assert!(circuits.iter().all(|c| key_fits(c) || !c.is_compatible(&isolation)));
                match circuits.iter_mut().find(|c| key_fits(c) && c.is_compatible(&isolation)) {
                    Some(circuit) => {
                        let joined = circuit.join(&isolation).expect("compatible isolation");
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
                // Keys are unique, so that a map with one circuit per key suffices.
                for (i, a) in circuits.iter().enumerate() {
                    for b in &circuits[i + 1..] {
                        prop_assert!(a.key(a.isolated_fields()) != b.key(b.isolated_fields()));
                    }
                }
            }
        }

        #[test]
        fn two_streams_share_a_circuit_unless_isolated(
            a in (attributes(), flags()), b in (attributes(), flags())
        ) {
            let one = Isolation::new(a.0.clone(), &a.1, false);
            let two = Isolation::new(b.0.clone(), &b.1, false);
            prop_assert_eq!(one.is_compatible(&two), !must_be_apart(&a, &b));
            prop_assert_eq!(one.is_compatible(&two), two.is_compatible(&one));
            prop_assert_eq!(one.join(&two).is_some(), one.is_compatible(&two));
        }
    }
}
