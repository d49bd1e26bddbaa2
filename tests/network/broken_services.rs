//! Onion services that are each broken in another way, other destinations that fail, and the code that each must get.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use testnet::{
    CTor, ClientKey, ClientOptions, ClosedPort, Corruption, HttpServer, Network, Service,
    ServiceOptions, UnresponsivePort, Where, addresses,
};

use crate::daemon::Onionport;
use crate::setup::{PAGE, make_private, run_in_parallel, start_proxy};

/// Moves the virtual addresses away from 127.192.0.0/10, which contains the case 127.255.255.255.
const SETTINGS: &str = "virtual_addr_network_ipv4 = \"10.192.0.0/10\"";

/// Two reply codes: with `ExtendedErrors` and without.
type Codes = (u8, u8);

/// A destination and the codes that a request for it must get.
pub struct Case {
    /// What is wrong, in a few words.
    pub name: &'static str,
    pub host: String,
    pub port: u16,
    /// The reply code with `ExtendedErrors`.
    pub extended: u8,
    /// The reply code without `ExtendedErrors`.
    pub plain: u8,
    /// C tor's codes, if they are the same every time.
    #[allow(
        dead_code,
        reason = "the demo shows C tor's code, but does not check it"
    )]
    pub c_tor: Option<Codes>,
}

impl Case {
    /// Waits until no other case uses the exits, if the exit's reason is right only while no other stream fails there.
    /// C tor takes the reason for a failed connection from `errno`, which by then may hold another stream's error.
    pub fn lock_exits(&self) -> Option<MutexGuard<'static, ()>> {
        static EXITS: Mutex<()> = Mutex::new(());
        let needs_idle_exits = ["exit: connection refused", "exit: no route"].contains(&self.name);
        needs_idle_exits.then(|| EXITS.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All destinations, with the services and servers behind them.
pub struct BrokenServices {
    pub cases: Vec<Case>,
    _services: Vec<Service>,
    _servers: (HttpServer, ClosedPort, UnresponsivePort),
    /// The folder with the client's keys, in C tor's format.
    keys: PathBuf,
}

/// What is wrong with a service.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// It requires client authorization, and the client has no key.
    NoKey,
    RightKey,
    WrongKey,
    RevokedKey,
    BadSignature,
    BadBody,
    OneBadHsDir,
    Killed,
    Frozen,
}

/// One row for each service: its name, what is wrong, the codes with and without `ExtendedErrors`, and C tor's.
const SERVICES: &[(&str, Fault, u8, u8, Option<Codes>)] = &[
    (
        "nothing is wrong",
        Fault::None,
        0x00,
        0x00,
        Some((0x00, 0x00)),
    ),
    (
        "client authorization, right key",
        Fault::RightKey,
        0x00,
        0x00,
        Some((0x00, 0x00)),
    ),
    (
        "descriptor bad on one directory",
        Fault::OneBadHsDir,
        0x00,
        0x00,
        None,
    ),
    (
        "descriptor with bad signature",
        Fault::BadSignature,
        0xF1,
        0x04,
        Some((0x04, 0x04)),
    ),
    (
        "descriptor with damaged body",
        Fault::BadBody,
        0xF1,
        0x04,
        None,
    ),
    ("service killed", Fault::Killed, 0xF2, 0x04, None),
    ("service frozen", Fault::Frozen, 0xF3, 0x06, None),
    (
        "client authorization, no key",
        Fault::NoKey,
        0xF4,
        0x01,
        Some((0xF4, 0x01)),
    ),
    (
        "client authorization, wrong key",
        Fault::WrongKey,
        0xF5,
        0x01,
        Some((0xF5, 0x01)),
    ),
    (
        "client authorization, revoked key",
        Fault::RevokedKey,
        0xF5,
        0x01,
        Some((0xF5, 0x01)),
    ),
];

impl BrokenServices {
    /// Starts the services and breaks them. Creates the folder `keys` and saves the client's keys there.
    pub fn set_up(network: &Network, keys: &Path) -> Result<BrokenServices> {
        fs::create_dir_all(keys)?;
        make_private(keys)?;
        let server = HttpServer::start(PAGE)?;
        let services = start_services(network, &server, keys)?;
        let closed = ClosedPort::new()?;
        let unresponsive = UnresponsivePort::new()?;
        let good = services[0].address();
        let ports = Ports {
            open: server.address().port(),
            closed: closed.address().port(),
            unresponsive: unresponsive.address().port(),
        };
        let mut cases: Vec<Case> = SERVICES
            .iter()
            .zip(&services)
            .map(|(&(name, _, extended, plain, c_tor), service)| Case {
                name,
                host: service.address().to_owned(),
                port: 80,
                extended,
                plain,
                c_tor,
            })
            .collect();
        cases.extend(address_cases(network, good));
        cases.extend(exit_cases(&ports));
        Ok(BrokenServices {
            cases,
            _services: services,
            _servers: (server, closed, unresponsive),
            keys: keys.to_owned(),
        })
    }

    /// Starts the program with the client's keys, this deadline and more lines in its `[proxy]` section.
    pub fn start_proxy(
        &self,
        network: &Network,
        limit: Duration,
        settings: &str,
    ) -> Result<Onionport> {
        let keys = self.keys.display().to_string();
        let settings = format!("{SETTINGS}\nclient_onion_auth_dir = {keys:?}\n{settings}");
        start_proxy(network, limit, &settings)
    }

    /// Starts a C tor client with the same keys and deadline and more lines in its torrc.
    pub fn start_c_tor(
        &self,
        network: &Network,
        limit: Duration,
        torrc_lines: &[String],
    ) -> Result<CTor> {
        let mut extra_torrc_lines = vec![format!("SocksTimeout {}", limit.as_secs())];
        extra_torrc_lines.extend_from_slice(torrc_lines);
        network.c_tor_client(ClientOptions {
            onion_auth_dir: Some(self.keys.clone()),
            extra_torrc_lines,
        })
    }
}

/// Starts the services of [`SERVICES`] in parallel and breaks each of them.
fn start_services(network: &Network, server: &HttpServer, keys: &Path) -> Result<Vec<Service>> {
    let ours = ClientKey::generate();
    let theirs = ClientKey::generate();
    let start = |fault: Fault| -> Result<Service> {
        let authorized = match fault {
            Fault::NoKey | Fault::WrongKey => vec![theirs.public()],
            Fault::RightKey | Fault::RevokedKey => vec![ours.public()],
            _ => Vec::new(),
        };
        let service = network.service(ServiceOptions {
            authorized,
            ..ServiceOptions::with_port(80, server.address())
        })?;
        let address = service.address();
        let label = address.split('.').next().unwrap_or_default();
        match fault {
            Fault::RightKey | Fault::WrongKey => {
                ours.write_to(keys, label, address)?;
            }
            Fault::RevokedKey => {
                ours.write_to(keys, label, address)?;
                service.set_authorized(&[theirs.public()])?;
            }
            Fault::BadSignature => {
                network.corrupt_descriptor(&service, Corruption::Signature, Where::EveryHsDir)?;
            }
            Fault::BadBody => {
                network.corrupt_descriptor(&service, Corruption::Body, Where::EveryHsDir)?;
            }
            Fault::OneBadHsDir => {
                network.corrupt_descriptor(&service, Corruption::Signature, Where::OneHsDir)?;
            }
            Fault::Killed => service.kill(),
            Fault::Frozen => service.freeze()?,
            Fault::None | Fault::NoKey => {}
        }
        Ok(service)
    };
    run_in_parallel(SERVICES, |&(name, fault, ..)| {
        start(fault).with_context(|| format!("cannot set up: {name}"))
    })
}

/// Builds a case.
fn case(
    name: &'static str,
    (host, port): (impl Into<String>, u16),
    (extended, plain): Codes,
    c_tor: Option<Codes>,
) -> Case {
    Case {
        name,
        host: host.into(),
        port,
        extended,
        plain,
        c_tor,
    }
}

/// Addresses without a service behind them, and a port that the service `good` does not have.
fn address_cases(network: &Network, good: &str) -> Vec<Case> {
    const INVALID: Codes = (0xF6, 0x01);
    let invalid = |name, address: String, c_tor| case(name, (address, 80), INVALID, c_tor);
    let unpublished = network.unpublished_address();
    let checksum = addresses::bad_checksum(good);
    let short = addresses::too_short(good);
    let long = addresses::too_long_alias(good);
    vec![
        case(
            "service never published",
            (unpublished, 80),
            (0xF0, 0x04),
            Some((0xF0, 0x04)),
        ),
        invalid("address with bad checksum", checksum, Some(INVALID)),
        invalid("address too short", short, Some(INVALID)),
        invalid(
            "address of version 2",
            addresses::version_two(),
            Some(INVALID),
        ),
        invalid(
            "address is not a curve point",
            addresses::not_a_point(),
            None,
        ),
        invalid(
            "address with torsion component",
            addresses::torsion(good),
            None,
        ),
        invalid("address with extra characters", long, Some(INVALID)),
        // C tor sends the name to an exit.
        invalid(
            "address with trailing dot",
            format!("{good}."),
            Some((0x04, 0x04)),
        ),
        case(
            "service without this port",
            (good, 81),
            (0x05, 0x05),
            Some((0x05, 0x05)),
        ),
    ]
}

/// Ports of servers on 127.0.0.1.
struct Ports {
    open: u16,
    closed: u16,
    unresponsive: u16,
}

/// Destinations behind exits.
fn exit_cases(ports: &Ports) -> Vec<Case> {
    let (open, closed, unresponsive) = (ports.open, ports.closed, ports.unresponsive);
    vec![
        case(
            "exit: nothing is wrong",
            ("good.test", open),
            (0x00, 0x00),
            Some((0x00, 0x00)),
        ),
        case(
            "exit: unknown host name",
            ("none.test", 80),
            (0x04, 0x04),
            Some((0x04, 0x04)),
        ),
        // The relays' tor answers END MISC to a refused port on loopback.
        case(
            "exit: connection refused",
            ("127.0.0.1", closed),
            (0x01, 0x01),
            Some((0x01, 0x01)),
        ),
        // C tor reports CANT_ATTACH: a general failure.
        case(
            "exit: port not allowed",
            ("127.0.0.1", 9),
            (0x02, 0x02),
            Some((0x01, 0x01)),
        ),
        // An exit replies EXITPOLICY to the first address and NOROUTE to the second.
        case(
            "exit: address not allowed",
            ("127.0.0.9", 80),
            (0x02, 0x02),
            None,
        ),
        case(
            "exit: no route",
            ("127.255.255.255", 80),
            (0x04, 0x04),
            None,
        ),
        case(
            "exit: no answer",
            ("127.0.0.1", unresponsive),
            (0x06, 0x06),
            None,
        ),
    ]
}
