//! Onion services, each broken so that one code is the right answer.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use testnet::{
    ClientKey, Corruption, Network, Service, ServiceOptions, SilentServer, Where, addresses,
};

use crate::client::Target;
use crate::options::Picked;

/// The virtual port of all services.
const PORT: u16 = 80;

/// What is done to a service once it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    BadSignature,
    Killed,
    Frozen,
    NeedsKey,
    NeedsAnotherKey,
    PointsFrozen,
}

const HARMS: [(&str, Harm); 6] = [
    ("codes.F1", Harm::BadSignature),
    ("codes.F2", Harm::Killed),
    ("codes.F3", Harm::Frozen),
    ("codes.F4", Harm::NeedsKey),
    ("codes.F5", Harm::NeedsAnotherKey),
    ("codes.F7", Harm::PointsFrozen),
];

/// One address to ask for.
#[derive(Debug)]
pub(super) struct Broken {
    /// The row, which names the right code.
    pub(super) id: &'static str,
    pub(super) target: Target,
    pub(super) pace: Pace,
}

/// How soon an answer may be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// At once, by all programs.
    Soon,
    /// From some programs after a minute.
    Late,
    /// At the deadline: nothing is ever heard of it.
    Never,
}

/// All of them, and what keeps them there.
pub(super) struct Stage {
    pub(super) broken: Vec<Broken>,
    /// The folder with the client's keys.
    pub(super) keys: PathBuf,
    _services: Vec<Service>,
    _server: SilentServer,
}

impl Stage {
    /// Starts the services that the wanted rows need, and breaks them. `keys` is an empty folder for
    /// the client's keys.
    pub(super) fn set(network: &Network, keys: PathBuf, picked: &Picked) -> Result<Stage> {
        let server = SilentServer::start()?;
        let wanted: Vec<_> = HARMS.iter().filter(|(id, _)| picked.wants(id)).collect();
        let services: Vec<Service> = std::thread::scope(|scope| {
            let starts: Vec<_> = wanted
                .iter()
                .map(|(id, harm)| {
                    let (server, keys) = (&server, &keys);
                    let start = move || start(network, server, keys, *harm);
                    (id, scope.spawn(start))
                })
                .collect();
            starts
                .into_iter()
                .map(|(id, start)| {
                    let service = start.join().map_err(|_| anyhow!("it panicked"))?;
                    service.with_context(|| format!("cannot set up {id}"))
                })
                .collect::<Result<_>>()
        })?;
        let mut broken: Vec<Broken> = wanted
            .iter()
            .zip(&services)
            .map(|((id, harm), service)| Broken {
                id,
                target: Target::new(service.address(), PORT),
                pace: match harm {
                    Harm::Frozen | Harm::PointsFrozen => Pace::Never,
                    Harm::Killed => Pace::Late,
                    _ => Pace::Soon,
                },
            })
            .collect();
        let unknown = network.unpublished_address();
        let mistyped = addresses::bad_checksum(&unknown);
        for (id, address) in [("codes.F0", unknown), ("codes.F6", mistyped)] {
            if picked.wants(id) {
                broken.push(Broken {
                    id,
                    target: Target::new(&address, PORT),
                    pace: Pace::Soon,
                });
            }
        }
        broken.sort_by_key(|broken| broken.id);
        Ok(Stage {
            broken,
            keys,
            _services: services,
            _server: server,
        })
    }
}

/// Starts a service and does it harm.
fn start(network: &Network, server: &SilentServer, keys: &Path, harm: Harm) -> Result<Service> {
    let (ours, theirs) = (ClientKey::generate(), ClientKey::generate());
    let service = network.service(ServiceOptions {
        authorized: match harm {
            Harm::NeedsKey | Harm::NeedsAnotherKey => vec![theirs.public()],
            _ => Vec::new(),
        },
        intro_points_on_spare_relays: harm == Harm::PointsFrozen,
        ..ServiceOptions::with_port(PORT, server.address())
    })?;
    match harm {
        Harm::BadSignature => {
            network.corrupt_descriptor(&service, Corruption::Signature, Where::EveryHsDir)?;
        }
        Harm::Killed => service.kill(),
        Harm::Frozen => service.freeze()?,
        Harm::NeedsKey => {}
        Harm::NeedsAnotherKey => {
            ours.write_to(keys, "another", service.address())?;
        }
        Harm::PointsFrozen => network.freeze_relays(&service.introduction_points()?)?,
    }
    Ok(service)
}
