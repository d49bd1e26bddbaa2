//! Onion services, each broken in its own way, and what has to be said of each.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use testnet::{
    ClientKey, ClosedPort, Corruption, HttpServer, Network, Service, ServiceOptions,
    UnresponsivePort, Where, addresses,
};

/// What a page of every service says.
pub const PAGE: &str = "hello from the onion";

/// For `[proxy]`: the usual network of virtual addresses holds an address that a case needs.
pub const SETTINGS: &str = "virtual_addr_network_ipv4 = \"10.192.0.0/10\"";

/// Two reply codes: with `ExtendedErrors` and without.
type Judged = Option<(u8, u8)>;

/// One request and its outcome.
pub struct Case {
    /// What is wrong, in a few words.
    pub broken: &'static str,
    pub host: String,
    pub port: u16,
    /// Reply code with `ExtendedErrors`, and without.
    pub extended: u8,
    pub plain: u8,
    /// What C tor says, with `ExtendedErrors` and without, if it is the same every time.
    #[allow(dead_code, reason = "the demo shows what it says, whatever it is")]
    pub judge: Judged,
}

/// All the services, kept alive.
pub struct Stage {
    pub cases: Vec<Case>,
    _services: Vec<Service>,
    _servers: (HttpServer, ClosedPort, UnresponsivePort),
    /// The folder with the client's keys, in C tor's format.
    pub keys: PathBuf,
}

/// What is done to a service once it is published.
#[derive(Clone, Copy, PartialEq)]
enum Harm {
    None,
    NeedsKey,
    NeedsKeyWeHave,
    NeedsAnotherKey,
    RevokesOurKey,
    BadSignature,
    BadBody,
    OneBadHsDir,
    Killed,
    Frozen,
}

const SERVICES: &[(&str, Harm, u8, u8, Judged)] = &[
    ("nothing", Harm::None, 0x00, 0x00, Some((0x00, 0x00))),
    (
        "authorized, right key",
        Harm::NeedsKeyWeHave,
        0x00,
        0x00,
        Some((0x00, 0x00)),
    ),
    (
        "one directory's descriptor damaged",
        Harm::OneBadHsDir,
        0x00,
        0x00,
        None,
    ),
    (
        "descriptor's signature wrong",
        Harm::BadSignature,
        0xF1,
        0x04,
        Some((0x04, 0x04)),
    ),
    ("descriptor's body wrong", Harm::BadBody, 0xF1, 0x04, None),
    ("service killed", Harm::Killed, 0xF2, 0x04, None),
    ("service frozen", Harm::Frozen, 0xF3, 0x06, None),
    (
        "authorization missing",
        Harm::NeedsKey,
        0xF4,
        0x01,
        Some((0xF4, 0x01)),
    ),
    (
        "authorization wrong",
        Harm::NeedsAnotherKey,
        0xF5,
        0x01,
        Some((0xF5, 0x01)),
    ),
    (
        "authorization revoked",
        Harm::RevokesOurKey,
        0xF5,
        0x01,
        Some((0xF5, 0x01)),
    ),
];

impl Stage {
    /// Starts the services and breaks them. Keys of the client are put into `keys`.
    pub fn set(network: &Network, keys: &Path) -> Result<Stage> {
        fs::create_dir_all(keys)?;
        fs::set_permissions(keys, fs::Permissions::from_mode(0o700))?;
        let server = HttpServer::start(PAGE)?;
        let ours = ClientKey::generate();
        let theirs = ClientKey::generate();
        let start = &|harm: Harm| -> Result<Service> {
            let authorized = match harm {
                Harm::NeedsKey | Harm::NeedsAnotherKey => vec![theirs.public()],
                Harm::NeedsKeyWeHave | Harm::RevokesOurKey => vec![ours.public()],
                _ => Vec::new(),
            };
            let options = ServiceOptions {
                authorized,
                ..ServiceOptions::with_port(80, server.address())
            };
            let service = network.service(options)?;
            let name = service
                .address()
                .split('.')
                .next()
                .unwrap_or_default()
                .to_owned();
            match harm {
                Harm::NeedsKeyWeHave | Harm::NeedsAnotherKey => {
                    ours.write_to(keys, &name, service.address())?;
                }
                Harm::RevokesOurKey => {
                    ours.write_to(keys, &name, service.address())?;
                    service.set_authorized(&[theirs.public()])?;
                }
                Harm::BadSignature => {
                    network.corrupt_descriptor(
                        &service,
                        Corruption::Signature,
                        Where::EveryHsDir,
                    )?;
                }
                Harm::BadBody => {
                    network.corrupt_descriptor(&service, Corruption::Body, Where::EveryHsDir)?;
                }
                Harm::OneBadHsDir => {
                    network.corrupt_descriptor(&service, Corruption::Signature, Where::OneHsDir)?;
                }
                Harm::Killed => service.kill(),
                Harm::Frozen => service.freeze()?,
                Harm::None | Harm::NeedsKey => {}
            }
            Ok(service)
        };
        let services: Vec<Service> = std::thread::scope(|scope| {
            let threads: Vec<_> = SERVICES
                .iter()
                .map(|&(broken, harm, ..)| (broken, scope.spawn(move || start(harm))))
                .collect();
            threads
                .into_iter()
                .map(|(broken, thread)| {
                    let service = thread.join().map_err(|_| anyhow::anyhow!("panicked"))?;
                    service.with_context(|| format!("cannot set up: {broken}"))
                })
                .collect::<Result<_>>()
        })?;
        let closed = ClosedPort::new()?;
        let silent = UnresponsivePort::new()?;
        let good = services[0].address().to_owned();
        let mut cases: Vec<Case> = SERVICES
            .iter()
            .zip(&services)
            .map(|(&(broken, _, extended, plain, judge), service)| Case {
                broken,
                host: service.address().to_owned(),
                port: 80,
                extended,
                plain,
                judge,
            })
            .collect();
        let mut add = |broken, host: String, port, extended, plain, judge| {
            cases.push(Case {
                broken,
                host,
                port,
                extended,
                plain,
                judge,
            });
        };
        add(
            "never published",
            network.unpublished_address(),
            80,
            0xF0,
            0x04,
            Some((0xF0, 0x04)),
        );
        let bad = Some((0xF6, 0x01));
        add(
            "address: checksum",
            addresses::bad_checksum(&good),
            80,
            0xF6,
            0x01,
            bad,
        );
        add(
            "address: too short",
            addresses::too_short(&good),
            80,
            0xF6,
            0x01,
            bad,
        );
        add(
            "address: version 2",
            addresses::version_two(),
            80,
            0xF6,
            0x01,
            bad,
        );
        add(
            "address: no curve point",
            addresses::not_a_point(),
            80,
            0xF6,
            0x01,
            None,
        );
        add(
            "address: second form",
            addresses::torsion(&good),
            80,
            0xF6,
            0x01,
            None,
        );
        add(
            "address: characters behind it",
            addresses::too_long_alias(&good),
            80,
            0xF6,
            0x01,
            bad,
        );
        // C tor sends the name to an exit.
        add(
            "address: dot behind it",
            format!("{good}."),
            80,
            0xF6,
            0x01,
            Some((0x04, 0x04)),
        );
        add(
            "service has no such port",
            good,
            81,
            0x05,
            0x05,
            Some((0x05, 0x05)),
        );
        let exit = server.address().port();
        add(
            "exit: nothing",
            "good.test".into(),
            exit,
            0x00,
            0x00,
            Some((0x00, 0x00)),
        );
        add(
            "exit: no such name",
            "none.test".into(),
            80,
            0x04,
            0x04,
            Some((0x04, 0x04)),
        );
        // The relays' tor answers END MISC to a refused port on loopback.
        let refused = closed.address().port();
        add(
            "exit: refused",
            "127.0.0.1".into(),
            refused,
            0x01,
            0x01,
            Some((0x01, 0x01)),
        );
        // C tor calls this CANT_ATTACH: a general failure.
        add(
            "exit: policy",
            "127.0.0.1".into(),
            9,
            0x02,
            0x02,
            Some((0x01, 0x01)),
        );
        // What an exit says at the first look at these: not this address; no way there.
        let (refused, nowhere) = ("127.0.0.9".into(), "127.255.255.255".into());
        add("exit: this exit's policy", refused, 80, 0x02, 0x02, None);
        add("exit: no route", nowhere, 80, 0x04, 0x04, None);
        let unresponsive = silent.address().port();
        add(
            "exit: times out",
            "127.0.0.1".into(),
            unresponsive,
            0x06,
            0x06,
            None,
        );
        Ok(Stage {
            cases,
            _services: services,
            _servers: (server, closed, silent),
            keys: keys.to_owned(),
        })
    }
}

/// How long to wait for a reply when the program's own deadline is `limit`.
pub fn patience(limit: Duration) -> Duration {
    limit + Duration::from_secs(30)
}
