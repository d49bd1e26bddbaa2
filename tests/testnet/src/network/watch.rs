//! Who connects to which relay.
//!
//! A front stands before each relay and bridge, and notes where each connection comes from. The network's own side
//! connects from an address of its own, so that whatever comes from another one is a client's.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use socket2::{Domain, Socket, Type};

use super::{POLL, RelayId};
use crate::distance::Distance;
use crate::process::{OWN_SIDE, find_program, run, wait_for};

/// The address from which everything that runs `tor` in a watched network connects to relays. Others connect from
/// 127.0.0.1 unless told otherwise.
pub const NETWORK_SIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Compiles what makes each `tor` connect from [`NETWORK_SIDE`]; it is loaded into all whose folders are in this one.
pub(super) fn make_own_side(folder: &Path) -> Result<()> {
    let source = folder.join("own_side.c");
    fs::write(&source, include_str!("own_side.c"))?;
    let mut command = Command::new(find_program("cc")?);
    command.args(["-O1", "-shared", "-fPIC", "-o"]);
    command.arg(folder.join(OWN_SIDE)).arg(source).arg("-ldl");
    run(command, "")
}

/// One TCP connection to a relay or bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The relay or bridge.
    pub relay: RelayId,
    /// The port connected to: a bridge may have two.
    pub port: u16,
    /// Where the connection comes from.
    pub from: IpAddr,
}

/// The address from which we connect ourselves, to see whether a front has taken everybody who came before.
const PROBE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

/// How long the fronts may take for that.
const SETTLED_LIMIT: Duration = Duration::from_secs(20);

/// What the fronts have seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seen: Mutex<Seen>,
    /// Held by whoever connects to the fronts and counts.
    probing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The ports of all fronts.
    fronts: Vec<u16>,
    arrivals: Vec<Arrival>,
}

impl Watch {
    /// Makes a front that notes who comes to it; gives its port.
    pub(super) fn front(
        &self,
        distance: &Distance,
        relay: &RelayId,
        behind: u16,
        each_way: Duration,
    ) -> Result<u16> {
        // The port is known only when the front stands, and nobody can connect before it is told.
        let own_port = Arc::new(Mutex::new(0));
        let (arrivals, relay, place) = (self.clone(), relay.clone(), Arc::clone(&own_port));
        let note = move |from: SocketAddr| {
            if from.ip() != IpAddr::from(NETWORK_SIDE) {
                let port = *place.lock().unwrap_or_else(PoisonError::into_inner);
                let (relay, from) = (relay.clone(), from.ip());
                arrivals.seen().arrivals.push(Arrival { relay, port, from });
            }
        };
        let port = distance.noting_front(behind, each_way, note)?;
        *own_port.lock().unwrap_or_else(PoisonError::into_inner) = port;
        self.seen().fronts.push(port);
        Ok(port)
    }

    /// Everybody who has come until now. A front takes connections in their order, so those before ours have been noted
    /// when ours has.
    pub(super) fn arrivals(&self) -> Result<Vec<Arrival>> {
        let _alone = self
            .0
            .probing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let fronts = self.seen().fronts.clone();
        let before = self.probes();
        for port in &fronts {
            drop(connect_from(PROBE, *port)?);
        }
        wait_for("the fronts", SETTLED_LIMIT, POLL, || {
            Ok((self.probes() - before >= fronts.len()).then_some(()))
        })?;
        let seen = self.seen();
        let clients = seen.arrivals.iter().filter(|a| a.from != PROBE);
        Ok(clients.cloned().collect())
    }

    /// How often we have come ourselves.
    fn probes(&self) -> usize {
        let seen = self.seen();
        seen.arrivals.iter().filter(|a| a.from == PROBE).count()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// A connection that is closed at once is noted as well; one from the network's own side is not.
    #[test]
    fn clients_are_noted_and_relays_are_not() -> Result<()> {
        let relay = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (watch, distance) = (Watch::default(), Distance::new()?);
        let id = RelayId::from_fingerprint(&"A".repeat(40)).expect("a fingerprint");
        let behind = relay.local_addr()?.port();
        let port = watch.front(&distance, &id, behind, Duration::ZERO)?;
        assert!(watch.arrivals()?.is_empty());

        drop(connect_from(NETWORK_SIDE, port)?);
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?);
        let from = IpAddr::from(Ipv4Addr::LOCALHOST);
        let relay = id;
        assert_eq!(watch.arrivals()?, [Arrival { relay, port, from }]);
        Ok(())
    }
}
