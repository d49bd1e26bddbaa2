//! An exit circuit as the retry logic sees it: what it carries, who builds it, and which streams share it.

use std::fmt::Debug;
use std::net::IpAddr;

use tokio::time::Instant;
use tor_circmgr::TargetPort;
use tor_circmgr::isolation::IsolationHelper;

use crate::failure::Failure;
use crate::tor::arti_errors::StreamError;
use crate::tor::destination::Family;
use crate::tor::isolation::Isolation;
use crate::tor::optimistic_data::OptimisticData;

/// Builds circuits to exits. [`ExitPool`](super::pool::ExitPool) does so on the Tor network.
pub(crate) trait CircuitProvider {
    /// The circuits that it builds.
    type Circuit: ExitCircuit;

    /// Returns a circuit to an exit whose policy allows `ports`, by `deadline` at the latest.
    async fn get(
        &self,
        ports: &[TargetPort],
        isolation: ExitIsolation<CircuitId<Self>>,
        deadline: Instant,
    ) -> Result<Self::Circuit, Failure>;

    /// Puts no new streams on a circuit.
    fn retire(&self, circuit: CircuitId<Self>);
}

/// A circuit that ends at an exit.
pub(crate) trait ExitCircuit {
    /// Identifies the circuit.
    type Id: Copy + Debug + PartialEq + Send + Sync + 'static;
    /// An open stream on the circuit.
    type Stream;

    fn id(&self) -> Self::Id;

    /// Sends a request to the exit and waits for its reply.
    async fn send(&self, request: &ExitRequest<'_>)
    -> Result<ExitReply<Self::Stream>, StreamError>;
}

/// The identity of the circuits that `C` builds.
pub(super) type CircuitId<C> = <<C as CircuitProvider>::Circuit as ExitCircuit>::Id;
/// The streams on the circuits that `C` builds.
pub(super) type CircuitStream<C> = <<C as CircuitProvider>::Circuit as ExitCircuit>::Stream;

/// A request to an exit.
pub(crate) enum ExitRequest<'a> {
    Begin {
        host: &'a str,
        port: u16,
        family: Family,
        optimistic: &'a OptimisticData,
    },
    Resolve(&'a str),
    ResolvePtr(IpAddr),
}

/// The exit's reply to an [`ExitRequest`].
pub(crate) enum ExitReply<S> {
    Stream(Box<S>),
    Addresses(Vec<IpAddr>),
    Names(Vec<String>),
}

impl ExitRequest<'_> {
    /// The ports that the exit's policy must allow.
    pub(super) fn ports(&self) -> Vec<TargetPort> {
        match self {
            ExitRequest::Begin {
                port,
                family: Family::V6Only,
                ..
            } => vec![TargetPort::ipv6(*port)],
            ExitRequest::Begin { port, .. } => vec![TargetPort::ipv4(*port)],
            ExitRequest::Resolve(_) | ExitRequest::ResolvePtr(_) => Vec::new(),
        }
    }
}

/// The isolation of a stream on an exit circuit.
#[derive(Clone, Debug)]
pub(crate) struct ExitIsolation<I> {
    pub(super) isolation: Isolation,
    /// The circuit that the stream has just abandoned, if any. Streams that abandoned the same circuit share
    /// the next one, and only with each other: otherwise they would get the abandoned circuit again.
    pub(super) abandoned: Option<I>,
}

impl<I: Copy + PartialEq> IsolationHelper for ExitIsolation<I> {
    fn compatible_same_type(&self, other: &Self) -> bool {
        self.abandoned == other.abandoned && self.isolation.is_compatible(&other.isolation)
    }

    fn join_same_type(&self, other: &Self) -> Option<Self> {
        if self.abandoned != other.abandoned {
            return None;
        }
        let isolation = self.isolation.join(&other.isolation)?;
        Some(ExitIsolation {
            isolation,
            abandoned: self.abandoned,
        })
    }

    fn enables_long_lived_circuits(&self) -> bool {
        self.abandoned.is_none() && self.isolation.keeps_alive()
    }
}
