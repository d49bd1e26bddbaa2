//! The settings of a network, and its start.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};

use super::identity::generate_keys;
use super::watch::Watch;
use super::{Network, Relay, Role, Shared};
use crate::forwarder::Forwarders;
use crate::name_server::NameServer;
use crate::ports::free_ports;
use crate::preload;
use crate::process::{Tor, find_program, retry_if_port_taken};
use crate::torrc::{
    AuthorityPart, Common, FlagVotes, RelayPart, Schedule, VOTE_DELAY, authority_line,
    bandwidths_file, resolv_conf, unix_now,
};
use crate::workdir::WorkDir;

/// The number of authorities: three, so that a majority is more than one.
const AUTHORITIES: usize = 3;

/// The default number of relays besides the authorities. Clients keep samples of guards and of second hops, for which a
/// handful of relays is too few.
const DEFAULT_RELAYS: usize = 8;

/// The number of relays with the role [`Role::SparePath`], if there are spare relays.
const SPARE_PATH: usize = 4;

/// Settings of a network to be started; see [`Network::builder`].
#[derive(Clone, Debug)]
pub struct NetworkBuilder {
    relays: usize,
    spare_relays: usize,
    circuit_timeout_ms: Option<u32>,
    kist: bool,
    distance: Option<Duration>,
    watched: bool,
    log_level: String,
}

impl NetworkBuilder {
    pub(super) fn new() -> Self {
        Self {
            relays: DEFAULT_RELAYS,
            spare_relays: 0,
            circuit_timeout_ms: None,
            kist: true,
            distance: None,
            watched: false,
            log_level: std::env::var("TESTNET_LOG").unwrap_or_else(|_| "notice".into()),
        }
    }

    /// Sets the number of relays besides the three authorities; 8 by default. All are guards, exits and HSDirs. They carry the
    /// traffic: clients do not choose the authorities, since the consensus gives these no bandwidth. Fewer than five are too
    /// few for a long circuit, which needs different relays.
    pub fn relays(mut self, count: usize) -> Self {
        self.relays = count;
        self
    }

    /// Sets the number of spare relays; 0 by default. They are the introduction points of services with
    /// `intro_points_on_spare_relays`, which need at least three. They are neither guards nor exits nor HSDirs and have almost
    /// no bandwidth, so that nothing else uses them and stopping them affects only those services. The network then also has
    /// four relays for the circuits of such services.
    pub fn spare_relays(mut self, count: usize) -> Self {
        self.spare_relays = count;
        self
    }

    /// Sets the consensus parameter `cbtinitialtimeout`, in milliseconds. All circuit time-outs of a client are multiples of it
    /// until the client has measured 100 circuits. With `None`, the default, tor's 60 s apply, as on the public network. In
    /// both cases a time-out learned later is at least one second.
    pub fn circuit_timeout_ms(mut self, timeout: Option<u32>) -> Self {
        self.circuit_timeout_ms = timeout;
        self
    }

    /// Sets whether relays and services use tor's default scheduler KIST, which sends cells in batches some milliseconds apart;
    /// true by default. Otherwise they send each cell at once, so that measured times are not those of the scheduler.
    pub fn kist(mut self, kist: bool) -> Self {
        self.kist = kist;
        self
    }

    /// Sets the delay of every connection to a relay in each direction, for clients, services and other relays; none by
    /// default.
    pub fn distance(mut self, each_way: Option<Duration>) -> Self {
        self.distance = each_way;
        self
    }

    /// Sets whether to record the connections of clients to relays and bridges; see [`Network::arrivals`]. Every `tor` of the
    /// network then connects from [`NETWORK_SIDE`](crate::NETWORK_SIDE), so that a connection from any other address is a
    /// client's. Needs a C compiler.
    pub fn watched(mut self, watched: bool) -> Self {
        self.watched = watched;
        self
    }

    /// Sets the log level of all nodes: `notice`, `info` or `debug`. The default is that of the environment variable
    /// `TESTNET_LOG`, or else `notice`. The logs are the files `DIR/NODE/log`.
    pub fn log_level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.log_level);
        self
    }

    /// Starts the network. Returns when the consensus lists every relay with its flags and every relay has that consensus:
    /// after about 14 seconds on two idle cores.
    ///
    /// # Errors
    /// When a program is not installed, a node ends, or a wait times out; the message contains the details.
    pub fn start(self) -> Result<Network> {
        for program in ["tor", "tor-gencert", "setpriv"] {
            find_program(program)?;
        }
        let mut workdir: Option<Arc<WorkDir>> = None;
        retry_if_port_taken(|| {
            if let Some(previous) = workdir.take() {
                // It failed only because a port was taken, so its logs are not needed.
                previous.mark_done();
            }
            self.start_once(workdir.insert(Arc::new(WorkDir::new()?)))
        })
    }

    fn start_once(&self, workdir: &Arc<WorkDir>) -> Result<Network> {
        if self.watched {
            preload::bind_source_address(workdir.path())?;
        }
        let name_server = NameServer::start()?;
        let resolver_file = workdir.path().join("resolv.conf");
        fs::write(&resolver_file, resolv_conf(name_server.address()))?;

        let plans = self.plans(workdir.path())?;
        let mut relays = generate_keys(&plans)?;
        let watch = self.watched.then(Watch::default);
        let each_way = self.distance.or(self.watched.then_some(Duration::ZERO));
        let forwarders = each_way
            .map(|each_way| add_forwarders(&mut relays, each_way, watch.as_ref()))
            .transpose()?;
        let authority_lines = relays.iter().zip(&plans).filter_map(|(relay, plan)| {
            let v3ident = relay.v3ident.as_ref()?;
            Some(authority_line(
                &relay.nickname,
                relay.or_port,
                v3ident,
                plan.dir_port?,
                relay.id.fingerprint(),
            ))
        });
        let common = Common {
            authority_lines: authority_lines.collect(),
            log_level: self.log_level.clone(),
            kist: self.kist,
        };
        let schedule = Schedule::choose();
        let votes = flag_votes(&relays);
        let bandwidths = workdir.path().join("bandwidths");
        fs::write(
            &bandwidths,
            bandwidths_file(relays.iter().map(|r| (&r.id, r.role))),
        )?;
        for (relay, plan) in relays.iter_mut().zip(&plans) {
            let part = RelayPart {
                nickname: &relay.nickname,
                or_port: relay.or_port,
                listen_port: relay.listen_port,
                exit: relay.role.is_for_clients(),
                resolv_conf: &resolver_file,
            };
            let mut torrc = common.relay(&relay.folder, &part);
            if let Some(dir_port) = plan.dir_port {
                // Far in the future: `reach_consensus` moves the vote when the authorities know all relays.
                let first_vote = unix_now() + schedule.voting_interval - 2 * VOTE_DELAY;
                torrc.push_str(&common.authority(&AuthorityPart {
                    dir_port,
                    schedule,
                    first_vote,
                    circuit_timeout_ms: self.circuit_timeout_ms,
                    votes: &votes,
                    bandwidths: &bandwidths,
                }));
            }
            fs::write(relay.folder.join("torrc"), torrc)?;
            relay.tor = Mutex::new(Some(Tor::start(&relay.nickname, &relay.folder)?));
        }
        let shared = Shared {
            relays,
            common,
            schedule,
            name_server,
            forwarders,
            watch,
            folder_count: AtomicUsize::new(0),
            workdir: Arc::clone(workdir),
        };
        shared.reach_consensus()?;
        Ok(Network {
            shared: Arc::new(shared),
        })
    }

    /// Chooses the nicknames, folders and ports of all nodes.
    fn plans(&self, folder: &Path) -> Result<Vec<Plan>> {
        let spare_path = if self.spare_relays > 0 { SPARE_PATH } else { 0 };
        let roles = [
            (Role::Authority, AUTHORITIES),
            (Role::Relay, self.relays),
            (Role::Spare, self.spare_relays),
            (Role::SparePath, spare_path),
        ];
        let count = roles.iter().map(|(_, count)| count).sum::<usize>() + AUTHORITIES;
        let mut ports = free_ports(count)?.into_iter();
        let mut port = || ports.next().context("too few ports");
        let mut plans = Vec::new();
        for (role, count) in roles {
            for number in 0..count {
                // A nickname has at most 19 letters and digits (dir-spec).
                let prefix = match role {
                    Role::Authority => "auth",
                    Role::Relay => "relay",
                    Role::Spare => "spare",
                    Role::SparePath => "path",
                };
                let nickname = format!("{prefix}{number}");
                let dir_port = (role == Role::Authority).then(&mut port).transpose()?;
                plans.push(Plan {
                    folder: folder.join(&nickname),
                    nickname,
                    role,
                    or_port: port()?,
                    dir_port,
                });
            }
        }
        Ok(plans)
    }
}

/// A node that has no keys yet.
pub(super) struct Plan {
    pub(super) nickname: String,
    pub(super) role: Role,
    pub(super) folder: PathBuf,
    pub(super) or_port: u16,
    /// The directory port of an authority; `None` for other relays.
    pub(super) dir_port: Option<u16>,
}

/// Chooses the relays that get each flag: all relays get all flags, unless there are spare relays.
fn flag_votes(relays: &[Relay]) -> FlagVotes {
    if relays.iter().all(|r| r.role.is_for_clients()) {
        return FlagVotes::default();
    }
    let ids = |wanted: fn(Role) -> bool| {
        let chosen = relays.iter().filter(|r| wanted(r.role));
        Some(chosen.map(|r| r.id.clone()).collect())
    };
    FlagVotes {
        guards: ids(|role| role != Role::Spare),
        hs_dirs: ids(Role::is_for_clients),
        exits: ids(Role::is_for_clients),
    }
}

/// Puts a forwarder in front of each relay, with a delay in each direction; `watch` records the connections.
fn add_forwarders(
    relays: &mut [Relay],
    each_way: Duration,
    watch: Option<&Watch>,
) -> Result<Forwarders> {
    let forwarders = Forwarders::new()?;
    for relay in relays {
        relay.listen_port = Some(relay.or_port);
        relay.or_port = match watch {
            None => forwarders.add(relay.or_port, each_way)?,
            Some(watch) => watch.add_forwarder(&forwarders, &relay.id, relay.or_port, each_way)?,
        };
    }
    Ok(forwarders)
}
