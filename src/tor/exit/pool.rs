//! Exit circuits of the Tor network, from arti's circuit manager.

use std::sync::Arc;

use tokio::time::Instant;
use tor_cell::relaycell::msg::IpVersionPreference;
use tor_circmgr::isolation::StreamIsolation;
use tor_circmgr::{CircMgr, ClientDataTunnel, TargetPort};
use tor_proto::circuit::UniqId;
use tor_proto::client::stream::StreamParameters;
use tracing::debug;

use super::{Answer, Circuit, Circuits, Exits, OnExit, Question};
use crate::config::ExitTimeouts;
use crate::failure::Failure;
use crate::tor::arti_errors::{self, StreamError};
use crate::tor::destination::Family;
use crate::tor::directory::Directory;
use crate::tor::open_stream::{self, Open};
use crate::tor::runtime::TorRuntime;

/// The circuit manager, and the directory it chooses relays from.
pub(crate) struct Pool {
    circuits: Arc<CircMgr<TorRuntime>>,
    directory: Directory,
}

impl Exits {
    pub(crate) fn new(
        circuits: Arc<CircMgr<TorRuntime>>,
        directory: Directory,
        timeouts: ExitTimeouts,
    ) -> Exits {
        Exits {
            circuits: Pool {
                circuits,
                directory,
            },
            timeouts,
        }
    }
}

impl Circuits for Pool {
    type Circuit = ClientDataTunnel;

    async fn get(
        &self,
        ports: &[TargetPort],
        isolation: OnExit<UniqId>,
        deadline: Instant,
    ) -> Result<ClientDataTunnel, Failure> {
        let Some(netdir) = self.directory.timely(deadline).await else {
            return Err(Failure::NotBootstrapped);
        };
        let isolation = StreamIsolation::builder()
            .stream_isolation(Box::new(isolation))
            .build()
            .map_err(|error| {
                tracing::warn!("cannot isolate a stream: {error}");
                Failure::Internal
            })?;
        self.circuits
            .get_or_launch_exit((&*netdir).into(), ports, isolation)
            .await
            .map_err(|error| arti_errors::of_exit_circuit(&error))
    }

    fn retire(&self, circuit: UniqId) {
        self.circuits.retire_circ(&circuit);
    }
}

impl Circuit for ClientDataTunnel {
    type Id = UniqId;
    type Stream = Open;

    fn id(&self) -> UniqId {
        self.unique_id()
    }

    async fn ask(&self, question: &Question<'_>) -> Result<Answer<Open>, StreamError> {
        let failed = |error| arti_errors::of_stream(&error);
        debug!("asking the exit of circuit {}", self.unique_id());
        match question {
            Question::Begin {
                host,
                port,
                family,
                early,
            } => {
                let parameters = parameters(*family);
                let begun = self.begin_stream(host, *port, Some(parameters)).await;
                // An exit that cannot connect always gives a reason; it closes what was open.
                let open =
                    open_stream::open_with_early_data(begun.map_err(failed)?, early, None).await?;
                Ok(Answer::Stream(Box::new(open)))
            }
            Question::Resolve(host) => {
                let addresses = self.resolve(host).await;
                addresses.map(Answer::Addresses).map_err(failed)
            }
            Question::ResolvePtr(address) => {
                let names = self.resolve_ptr(*address).await;
                names.map(Answer::Names).map_err(failed)
            }
        }
    }
}

/// How a stream is asked for: with the family that its request prefers, and optimistically, so that
/// early data need not wait for the answer.
fn parameters(family: Family) -> StreamParameters {
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
    fn each_family_is_asked_for_by_its_own_flags() {
        let expected = [
            (Family::V4Only, "Ipv4Only"),
            (Family::V4Preferred, "Ipv4Preferred"),
            (Family::V6Preferred, "Ipv6Preferred"),
            (Family::V6Only, "Ipv6Only"),
        ];
        for (family, name) in expected {
            // The fields are private.
            let shown = format!("{:?}", parameters(family));
            assert!(shown.contains(&format!("ip_version: {name},")), "{shown}");
            assert!(shown.contains("optimistic: true"), "{shown}");
            assert!(shown.contains("suppress_hostname: false"), "{shown}");
        }
    }
}
