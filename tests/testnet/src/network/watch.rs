//! Records of the clients' connections to relays and bridges.
//!
//! A forwarder in front of each relay and bridge records where each connection comes from. The network's own `tor`
//! processes connect from [`NETWORK_SIDE`], so a connection from any other address is a client's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;
use socket2::{Domain, Socket, Type};

use super::RelayId;
use crate::forwarder::Forwarders;
use crate::process::wait_for;
use crate::sync::lock;

/// The address from which every `tor` of a watched network connects to relays. The system lets other programs connect from
/// 127.0.0.1 unless they bind another address.
pub const NETWORK_SIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// One TCP connection to a relay or bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The relay or bridge.
    pub relay: RelayId,
    /// The port that the client connected to; a bridge may have two.
    pub port: u16,
    /// The client's address.
    pub from: IpAddr,
}

/// The address of the probe connections, which show that a forwarder has accepted all earlier connections.
const PROBE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

/// How long the forwarders may take to accept the probe connections.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

/// The connections that the forwarders have recorded.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    records: Mutex<Records>,
    /// Held while probe connections are made and counted.
    probing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Records {
    /// The ports of all forwarders.
    ports: Vec<u16>,
    arrivals: Vec<Arrival>,
}

impl Watch {
    /// Starts a forwarder to the port `listen_port` of a relay that records connections, and returns the forwarder's port.
    pub(super) fn add_forwarder(
        &self,
        forwarders: &Forwarders,
        relay: &RelayId,
        listen_port: u16,
        each_way: Duration,
    ) -> Result<u16> {
        // Set when the forwarder has started. Nobody knows the port before that, so nobody connects.
        let port_cell = Arc::new(Mutex::new(0));
        let (watch, relay, own_port) = (self.clone(), relay.clone(), Arc::clone(&port_cell));
        let record = move |from: SocketAddr| {
            if from.ip() != IpAddr::from(NETWORK_SIDE) {
                let port = *lock(&own_port);
                let (relay, from) = (relay.clone(), from.ip());
                watch.records().arrivals.push(Arrival { relay, port, from });
            }
        };
        let port = forwarders.add_observed(listen_port, each_way, record)?;
        *lock(&port_cell) = port;
        self.records().ports.push(port);
        Ok(port)
    }

    /// Returns the clients' connections so far. A forwarder accepts connections in their order, so all earlier ones are
    /// recorded once the probe connection is.
    pub(super) fn arrivals(&self) -> Result<Vec<Arrival>> {
        let _probing = lock(&self.0.probing);
        let ports = self.records().ports.clone();
        let before = self.probe_count();
        for port in &ports {
            drop(connect_from(PROBE, *port)?);
        }
        wait_for("the forwarders", PROBE_LIMIT, || {
            Ok((self.probe_count() - before >= ports.len()).then_some(()))
        })?;
        let records = self.records();
        let clients = records.arrivals.iter().filter(|a| a.from != PROBE);
        Ok(clients.cloned().collect())
    }

    /// Returns how many probe connections have been recorded.
    fn probe_count(&self) -> usize {
        let records = self.records();
        records.arrivals.iter().filter(|a| a.from == PROBE).count()
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        lock(&self.0.records)
    }
}

fn connect_from(from: Ipv4Addr, port: u16) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Each connection is closed at once.
    #[test]
    fn even_short_connections_of_clients_are_recorded_but_not_those_of_relays() -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (watch, forwarders) = (Watch::default(), Forwarders::new()?);
        let relay = RelayId::from_fingerprint(&"A".repeat(40)).expect("a fingerprint");
        let listen_port = listener.local_addr()?.port();
        let port = watch.add_forwarder(&forwarders, &relay, listen_port, Duration::ZERO)?;
        assert!(watch.arrivals()?.is_empty());

        drop(connect_from(NETWORK_SIDE, port)?);
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?);
        let from = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert_eq!(watch.arrivals()?, [Arrival { relay, port, from }]);
        Ok(())
    }
}
