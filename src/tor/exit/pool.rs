//! Exit circuits on the Tor network, from arti's circuit manager.

use std::sync::Arc;

use tokio::time::Instant;
use tor_cell::relaycell::msg::IpVersionPreference;
use tor_circmgr::isolation::StreamIsolation;
use tor_circmgr::{CircMgr, ClientDataTunnel, TargetPort};
use tor_proto::circuit::UniqId;
use tor_proto::client::stream::StreamParameters;
use tracing::{debug, warn};

use super::circuit::{CircuitProvider, ExitCircuit, ExitIsolation, ExitReply, ExitRequest};
use crate::failure::Failure;
use crate::tor::arti_errors::{self, StreamError};
use crate::tor::destination::Family;
use crate::tor::directory::Directory;
use crate::tor::open_stream::{self, OpenStream};
use crate::tor::runtime::TorRuntime;

/// arti's circuit manager, and the directory that it chooses relays from.
pub(crate) struct ExitPool {
    circuits: Arc<CircMgr<TorRuntime>>,
    directory: Directory,
}

impl ExitPool {
    pub(super) fn new(circuits: Arc<CircMgr<TorRuntime>>, directory: Directory) -> ExitPool {
        ExitPool {
            circuits,
            directory,
        }
    }
}

impl CircuitProvider for ExitPool {
    type Circuit = ClientDataTunnel;

    async fn get(
        &self,
        ports: &[TargetPort],
        isolation: ExitIsolation<UniqId>,
        deadline: Instant,
    ) -> Result<ClientDataTunnel, Failure> {
        let Some(netdir) = self.directory.timely(deadline).await else {
            return Err(Failure::NotBootstrapped);
        };
        let isolation = StreamIsolation::builder()
            .stream_isolation(Box::new(isolation))
            .build()
            .map_err(|error| {
                warn!("cannot isolate a stream: {error}");
                Failure::Internal
            })?;
        self.circuits
            .get_or_launch_exit((&*netdir).into(), ports, isolation)
            .await
            .map_err(|error| arti_errors::classify_exit_circuit(&error))
    }

    fn retire(&self, circuit: UniqId) {
        self.circuits.retire_circ(&circuit);
    }
}

impl ExitCircuit for ClientDataTunnel {
    type Id = UniqId;
    type Stream = OpenStream;

    fn id(&self) -> UniqId {
        self.unique_id()
    }

    async fn send(&self, request: &ExitRequest<'_>) -> Result<ExitReply<OpenStream>, StreamError> {
        let failed = |error| arti_errors::classify_stream(&error);
        debug!("asking the exit of circuit {}", self.unique_id());
        match request {
            ExitRequest::Begin {
                host,
                port,
                family,
                optimistic,
            } => {
                let parameters = stream_parameters(*family);
                let begun = self.begin_stream(host, *port, Some(parameters)).await;
                // An exit that cannot connect always gives a reason. END with reason DONE instead of
                // CONNECTED therefore means that the stream was open.
                let open =
                    open_stream::open_optimistically(begun.map_err(failed)?, optimistic, None);
                Ok(ExitReply::Stream(Box::new(open.await?)))
            }
            ExitRequest::Resolve(host) => {
                let addresses = self.resolve(host).await;
                addresses.map(ExitReply::Addresses).map_err(failed)
            }
            ExitRequest::ResolvePtr(address) => {
                let names = self.resolve_ptr(*address).await;
                names.map(ExitReply::Names).map_err(failed)
            }
        }
    }
}

/// Returns the parameters of a stream that prefers this family. The stream is optimistic: optimistic data need
/// not wait for CONNECTED.
fn stream_parameters(family: Family) -> StreamParameters {
    let mut parameters = StreamParameters::default();
    parameters.ip_version(match family {
        Family::V4Only => IpVersionPreference::Ipv4Only,
        Family::V4Preferred => IpVersionPreference::Ipv4Preferred,
        Family::V6Preferred => IpVersionPreference::Ipv6Preferred,
        Family::V6Only => IpVersionPreference::Ipv6Only,
    });
    parameters.optimistic(true);
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_sets_its_own_begin_flags() {
        let expected = [
            (Family::V4Only, "Ipv4Only"),
            (Family::V4Preferred, "Ipv4Preferred"),
            (Family::V6Preferred, "Ipv6Preferred"),
            (Family::V6Only, "Ipv6Only"),
        ];
        for (family, name) in expected {
            // The fields are private; only Debug output shows them.
            let shown = format!("{:?}", stream_parameters(family));
            assert!(shown.contains(&format!("ip_version: {name},")), "{shown}");
            assert!(shown.contains("optimistic: true"), "{shown}");
            assert!(shown.contains("suppress_hostname: false"), "{shown}");
        }
    }
}
