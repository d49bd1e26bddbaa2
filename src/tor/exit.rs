//! Streams and lookups through exit relays.
//!
//! An exit that cannot serve a request may be replaced by another. As in C tor, up to three exits may report
//! a failure, and an exit that does not reply in time is abandoned for another one until the request's
//! deadline (tor(1), "CircuitStreamTimeout"; C tor's `connection_ap_process_end_not_open` and
//! `connection_ap_expire_beginning`). Requests that abandon a circuit share the next one.
//!
//! The outcome shows whether the exit or the destination was at fault. If another exit serves the request,
//! the abandoned circuits get no new streams, which would fail or wait there as well. If none does, the
//! destination is at fault, and other requests keep the circuit and its exit address. (C tor gives up the
//! circuit at once.) They also keep it if the exit only refused by its policy.
//!
//! Read in this order: this file (which exit to try, and for how long), [`circuit`] (what a circuit must
//! offer), [`pool`] (circuits of the Tor network).

mod circuit;
mod pool;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tor_circmgr::CircMgr;
use tracing::debug;

use self::circuit::{
    CircuitId, CircuitProvider, CircuitStream, ExitCircuit as _, ExitIsolation, ExitReply,
    ExitRequest,
};
use self::pool::ExitPool;
use super::arti_errors::StreamError;
use super::directory::Directory;
use super::runtime::TorRuntime;
use crate::config::{DEFAULT_EXIT_TIMEOUT, ExitTimeouts};
use crate::failure::Failure;
use crate::tor::destination::Family;
use crate::tor::isolation::Isolation;
use crate::tor::optimistic_data::OptimisticData;

/// How many exits may report a failure (C tor's `MAX_RESOLVE_FAILURES`).
const MAX_FAILED_EXITS: u32 = 3;

/// Opens streams, and looks up names, through exit relays.
pub(crate) struct Exits<C = ExitPool> {
    circuits: C,
    timeouts: ExitTimeouts,
}

impl Exits {
    pub(crate) fn new(
        circuits: Arc<CircMgr<TorRuntime>>,
        directory: Directory,
        timeouts: ExitTimeouts,
    ) -> Exits {
        Exits {
            circuits: ExitPool::new(circuits, directory),
            timeouts,
        }
    }
}

impl<C: CircuitProvider> Exits<C> {
    /// Opens a stream to `host`, a name or an IP address as text, and `port`. Each exit that is tried
    /// is sent `optimistic`, as in C tor.
    pub(crate) async fn connect(
        &self,
        host: &str,
        port: u16,
        family: Family,
        isolation: &Isolation,
        optimistic: &OptimisticData,
        deadline: Instant,
    ) -> Result<CircuitStream<C>, Failure> {
        let request = ExitRequest::Begin {
            host,
            port,
            family,
            optimistic,
        };
        match self.request(request, isolation, deadline).await? {
            ExitReply::Stream(stream) => Ok(*stream),
            ExitReply::Addresses(_) | ExitReply::Names(_) => Err(Failure::Internal),
        }
    }

    /// Returns the addresses of `host`, as an exit resolves it.
    pub(crate) async fn resolve(
        &self,
        host: &str,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Failure> {
        match self
            .request(ExitRequest::Resolve(host), isolation, deadline)
            .await?
        {
            ExitReply::Addresses(addresses) => Ok(addresses),
            ExitReply::Stream(_) | ExitReply::Names(_) => Err(Failure::Internal),
        }
    }

    /// Returns the names of `address`, as an exit resolves it.
    pub(crate) async fn resolve_ptr(
        &self,
        address: IpAddr,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<Vec<String>, Failure> {
        match self
            .request(ExitRequest::ResolvePtr(address), isolation, deadline)
            .await?
        {
            ExitReply::Names(names) => Ok(names),
            ExitReply::Stream(_) | ExitReply::Addresses(_) => Err(Failure::Internal),
        }
    }

    /// Sends the request to one exit after another until one serves it or no further exit may be tried.
    async fn request(
        &self,
        request: ExitRequest<'_>,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<ExitReply<CircuitStream<C>>, Failure> {
        let mut last_failure = None;
        let mut failed_exits = 0;
        let mut abandoned = None;
        let mut suspects = Vec::new();
        for number in 0.. {
            let circuit = self.circuit(&request, isolation, abandoned, deadline);
            let circuit = match circuit.await {
                Ok(circuit) => circuit,
                // The failure that the previous exit reported is more precise.
                Err(failure) => return Err(last_failure.unwrap_or(failure)),
            };
            let until = deadline.min(Instant::now() + self.timeout(&request, number));
            let failure = match timeout_at(until, circuit.send(&request)).await {
                Ok(Ok(reply)) => {
                    suspects.into_iter().for_each(|id| self.circuits.retire(id));
                    return Ok(reply);
                }
                Ok(Err(error)) => {
                    failed_exits += 1;
                    if !may_succeed_elsewhere(error) || failed_exits == MAX_FAILED_EXITS {
                        return Err(error.failure());
                    }
                    error.failure()
                }
                Err(_) => Failure::ConnectionTimedOut,
            };
            last_failure = Some(failure);
            if Instant::now() >= deadline {
                break;
            }
            debug!("an exit could not serve the request: {}", failure.name());
            let circuit = circuit.id();
            match failure {
                // The circuit is closed, or the relay reports that it is busy or hibernating: not the
                // destination's fault.
                Failure::CircuitDestroyed | Failure::RelayHibernating | Failure::RelayBusy => {
                    self.circuits.retire(circuit);
                }
                // The exit still serves destinations that its policy allows.
                Failure::ExitPolicyRefused => abandoned = Some(circuit),
                _ => {
                    abandoned = Some(circuit);
                    suspects.push(circuit);
                }
            }
        }
        Err(last_failure.unwrap_or(Failure::DeadlinePassed))
    }

    /// Returns how long the exit of this try, counted from 0, may take. By default the third and later
    /// exits get 15 seconds instead of 10, as in C tor.
    fn timeout(&self, request: &ExitRequest<'_>, number: u32) -> Duration {
        let timeout = match request {
            ExitRequest::Begin { .. } => self.timeouts.connect,
            ExitRequest::Resolve(_) => self.timeouts.resolve,
            ExitRequest::ResolvePtr(_) => self.timeouts.resolve_ptr,
        };
        if number < 2 || timeout != DEFAULT_EXIT_TIMEOUT {
            timeout
        } else {
            timeout * 3 / 2
        }
    }

    /// Returns a circuit, other than the abandoned one, to an exit that allows the request.
    async fn circuit(
        &self,
        request: &ExitRequest<'_>,
        isolation: &Isolation,
        abandoned: Option<CircuitId<C>>,
        deadline: Instant,
    ) -> Result<C::Circuit, Failure> {
        let isolation = ExitIsolation {
            isolation: isolation.clone(),
            abandoned,
        };
        let ports = request.ports();
        let circuit = self.circuits.get(&ports, isolation, deadline);
        timeout_at(deadline, circuit)
            .await
            .unwrap_or(Err(Failure::DeadlinePassed))
    }
}

/// Returns whether another exit may succeed after this error (C tor's list of END reasons).
fn may_succeed_elsewhere(error: StreamError) -> bool {
    match error {
        StreamError::CircuitGone => true,
        StreamError::Failed(_) => false,
        StreamError::Ended(failure) => matches!(
            failure,
            Failure::NameNotResolved
                | Failure::ConnectionTimedOut
                | Failure::StreamFailed
                | Failure::NoRoute
                | Failure::ExitPolicyRefused
                | Failure::RelayHibernating
                | Failure::RelayBusy
        ),
    }
}
