//! The targets that cannot be reached, each broken so that one code is correct.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use testnet::{
    ClientKey, Corruption, Network, Service, ServiceOptions, SilentServer, Where, addresses,
};

use crate::client::Target;
use crate::options::RowFilter;

/// The virtual port of all services.
const PORT: u16 = 80;

/// How a published service is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    BadSignature,
    Killed,
    Frozen,
    /// It requires client authorization, and the client has no key.
    KeyMissing,
    /// It requires client authorization, and the client has another key.
    KeyWrong,
    IntroPointsFrozen,
}

const FAULTS: [(&str, Fault); 6] = [
    ("codes.F1", Fault::BadSignature),
    ("codes.F2", Fault::Killed),
    ("codes.F3", Fault::Frozen),
    ("codes.F4", Fault::KeyMissing),
    ("codes.F5", Fault::KeyWrong),
    ("codes.F7", Fault::IntroPointsFrozen),
];

/// A target that cannot be reached.
#[derive(Debug)]
pub(super) struct BrokenTarget {
    /// The row, whose name contains the correct code.
    pub(super) id: &'static str,
    pub(super) target: Target,
    pub(super) pace: Pace,
}

/// When the reply is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Soon, from all programs.
    Fast,
    /// From some programs only after a minute.
    Slow,
    /// At the deadline, because the service or its introduction points never answer.
    AtDeadline,
}

/// All targets, and the services behind them.
pub(super) struct BrokenTargets {
    targets: Vec<BrokenTarget>,
    _services: Vec<Service>,
    _server: SilentServer,
}

impl BrokenTargets {
    /// Starts and breaks the services of the selected rows. Writes the client's authorization keys to
    /// `key_dir`.
    pub(super) fn start(
        network: &Network,
        key_dir: &Path,
        filter: &RowFilter,
    ) -> Result<BrokenTargets> {
        let server = SilentServer::start()?;
        let selected: Vec<_> = FAULTS
            .iter()
            .filter(|(id, _)| filter.includes(id))
            .collect();
        let services: Vec<Service> = std::thread::scope(|scope| {
            let threads: Vec<_> = selected
                .iter()
                .map(|(id, fault)| {
                    let server = &server;
                    let start = move || start_broken(network, server, key_dir, *fault);
                    (id, scope.spawn(start))
                })
                .collect();
            threads
                .into_iter()
                .map(|(id, thread)| {
                    let service = thread.join().map_err(|_| anyhow!("the thread panicked"))?;
                    service.with_context(|| format!("cannot set up {id}"))
                })
                .collect::<Result<_>>()
        })?;
        let mut targets: Vec<BrokenTarget> = selected
            .iter()
            .zip(&services)
            .map(|((id, fault), service)| BrokenTarget {
                id,
                target: Target::new(service.address(), PORT),
                pace: match fault {
                    Fault::Frozen | Fault::IntroPointsFrozen => Pace::AtDeadline,
                    Fault::Killed => Pace::Slow,
                    _ => Pace::Fast,
                },
            })
            .collect();
        let unpublished = network.unpublished_address();
        let mistyped = addresses::bad_checksum(&unpublished);
        for (id, address) in [("codes.F0", unpublished), ("codes.F6", mistyped)] {
            if filter.includes(id) {
                targets.push(BrokenTarget {
                    id,
                    target: Target::new(&address, PORT),
                    pace: Pace::Fast,
                });
            }
        }
        targets.sort_by_key(|broken| broken.id);
        Ok(BrokenTargets {
            targets,
            _services: services,
            _server: server,
        })
    }

    /// Returns the targets with this pace, in the order of their rows.
    pub(super) fn with_pace(&self, pace: Pace) -> impl Iterator<Item = &BrokenTarget> {
        self.targets
            .iter()
            .filter(move |broken| broken.pace == pace)
    }
}

/// Starts a service and breaks it.
fn start_broken(
    network: &Network,
    server: &SilentServer,
    key_dir: &Path,
    fault: Fault,
) -> Result<Service> {
    let (own_key, other_key) = (ClientKey::generate(), ClientKey::generate());
    let service = network.service(ServiceOptions {
        authorized: match fault {
            Fault::KeyMissing | Fault::KeyWrong => vec![other_key.public()],
            _ => Vec::new(),
        },
        intro_points_on_spare_relays: fault == Fault::IntroPointsFrozen,
        ..ServiceOptions::with_port(PORT, server.address())
    })?;
    match fault {
        Fault::BadSignature => {
            network.corrupt_descriptor(&service, Corruption::Signature, Where::EveryHsDir)?;
        }
        Fault::Killed => service.kill(),
        Fault::Frozen => service.freeze()?,
        Fault::KeyMissing => {}
        Fault::KeyWrong => {
            own_key.write_to(key_dir, "another", service.address())?;
        }
        Fault::IntroPointsFrozen => network.freeze_relays(&service.introduction_points()?)?,
    }
    Ok(service)
}
