//! Settings of a network, and its start.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};

use super::identity::make_keys;
use super::watch::{Watch, make_own_side};
use super::{Network, Relay, Role, Shared};
use crate::distance::Distance;
use crate::names::NameServer;
use crate::ports::free_ports;
use crate::process::{PortTaken, Tor, find_program};
use crate::torrc::{
    AuthorityPart, Common, RelayPart, Schedule, VOTE_DELAY, Votes, authority_line, bandwidths_file,
    resolv_conf, unix_now,
};
use crate::workdir::WorkDir;

/// Three, the fewest among which a majority is more than one.
const AUTHORITIES: usize = 3;

/// Beside the authorities. Clients keep samples of guards and of second hops and want more than a handful of relays.
const DEFAULT_RELAYS: usize = 8;

/// For services on spare relays.
const SPARE_PATH: usize = 4;

/// How often a whole start is tried when somebody else takes one of our ports.
const STARTS: usize = 3;

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
    /// 3 authorities and 8 relays, tor's own timeouts.
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

    /// How many relays beside the three authorities; 8 if not said. All are guards, exits and onion service directories.
    /// These carry the traffic: the consensus gives authorities no bandwidth, so that clients leave them alone. With fewer
    /// than five there are too few different ones for a long circuit.
    pub fn relays(mut self, count: usize) -> Self {
        self.relays = count;
        self
    }

    /// How many further relays (none if not said) for the introduction points of services with
    /// `intro_points_on_spare_relays`, which want three of them or more. They are neither guards nor exits nor directories,
    /// and have next to no bandwidth, so that nobody else goes through them and stopping them harms nothing else. Four relays
    /// for the circuits of such services come on top.
    pub fn spare_relays(mut self, count: usize) -> Self {
        self.spare_relays = count;
        self
    }

    /// The consensus parameter `cbtinitialtimeout` in milliseconds: every timeout of a client that has not timed
    /// 100 circuits yet is a multiple of it. `None`, the default, leaves tor's 60 s, which is what users have. No timeout
    /// learned later is shorter than a second, either way.
    pub fn circuit_timeout_ms(mut self, timeout: Option<u32>) -> Self {
        self.circuit_timeout_ms = timeout;
        self
    }

    /// Whether relays and services send in runs that are some milliseconds apart (KIST), which is the default and what
    /// tor does. Otherwise they send each cell as soon as they have it: what then takes time is not the network.
    pub fn kist(mut self, kist: bool) -> Self {
        self.kist = kist;
        self
    }

    /// How long each link to a relay takes, each way: those of clients and services and those between relays. Nothing if
    /// not said.
    pub fn distance(mut self, each_way: Option<Duration>) -> Self {
        self.distance = each_way;
        self
    }

    /// Whether to note who connects to which relay and bridge: see [`Network::arrivals`]. Everything that runs `tor` then
    /// connects from [`NETWORK_SIDE`](crate::NETWORK_SIDE), so that whatever comes from another address is a client's. Needs
    /// a C compiler.
    pub fn watched(mut self, watched: bool) -> Self {
        self.watched = watched;
        self
    }

    /// How much all nodes log: `notice` (the default), `info` or `debug`. The logs are `DIR/NODE/log`.
    pub fn log_level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.log_level);
        self
    }

    /// Starts the network. Returns when the consensus lists every relay with the flags it should have, and every relay
    /// knows that consensus: about 14 seconds on two idle cores.
    ///
    /// # Errors
    /// When there is no `tor`, when a node ends, when a wait is over its limit; the text says which and why.
    pub fn start(self) -> Result<Network> {
        for program in ["tor", "tor-gencert", "setpriv"] {
            find_program(program)?;
        }
        for _ in 1..STARTS {
            let workdir = Arc::new(WorkDir::new()?);
            match self.start_once(&workdir) {
                Err(error) if error.is::<PortTaken>() => workdir.mark_done(),
                result => return result,
            }
        }
        self.start_once(&Arc::new(WorkDir::new()?))
    }

    fn start_once(&self, workdir: &Arc<WorkDir>) -> Result<Network> {
        if self.watched {
            make_own_side(workdir.path())?;
        }
        let names = NameServer::start()?;
        let resolver_file = workdir.path().join("resolv.conf");
        fs::write(&resolver_file, resolv_conf(names.address()))?;

        let plans = self.plans(workdir.path())?;
        let mut relays = make_keys(&plans)?;
        let watch = self.watched.then(Watch::default);
        let each_way = self.distance.or(self.watched.then_some(Duration::ZERO));
        let distance = each_way
            .map(|each_way| set_apart(&mut relays, each_way, watch.as_ref()))
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
        let schedule = Schedule::for_now();
        let votes = votes(&relays);
        let bandwidths = workdir.path().join("bandwidths");
        fs::write(
            &bandwidths,
            bandwidths_file(relays.iter().map(|r| (&r.id, r.role))),
        )?;
        for (relay, plan) in relays.iter_mut().zip(&plans) {
            let part = RelayPart {
                nickname: &relay.nickname,
                or_port: relay.or_port,
                behind: relay.behind,
                exit: relay.role.is_common(),
                resolv_conf: &resolver_file,
            };
            let mut torrc = common.relay(&relay.folder, &part);
            if let Some(dir_port) = plan.dir_port {
                // The authorities are told to vote when they know all relays; until then the vote is far away.
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
            names,
            distance,
            watch,
            nodes_made: AtomicUsize::new(0),
            workdir: Arc::clone(workdir),
        };
        shared.reach_consensus()?;
        Ok(Network {
            shared: Arc::new(shared),
        })
    }

    /// Names, folders and ports of all nodes.
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
                // At most 19 letters and digits, tor says.
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

/// A node before it has keys.
pub(super) struct Plan {
    pub(super) nickname: String,
    pub(super) role: Role,
    pub(super) folder: PathBuf,
    pub(super) or_port: u16,
    /// Only of an authority.
    pub(super) dir_port: Option<u16>,
}

/// Who gets which flag: everybody everything, unless there are spare relays.
fn votes(relays: &[Relay]) -> Votes {
    if relays.iter().all(|r| r.role.is_common()) {
        return Votes::default();
    }
    let ids = |wanted: fn(Role) -> bool| {
        let chosen = relays.iter().filter(|r| wanted(r.role));
        Some(chosen.map(|r| r.id.clone()).collect())
    };
    Votes {
        guards: ids(|role| role != Role::Spare),
        hs_dirs: ids(Role::is_common),
        exits: ids(Role::is_common),
    }
}

/// Puts a front before each relay, from which everything takes a while; `watch` is told who comes there.
fn set_apart(relays: &mut [Relay], each_way: Duration, watch: Option<&Watch>) -> Result<Distance> {
    let distance = Distance::new()?;
    for relay in relays {
        relay.behind = Some(relay.or_port);
        relay.or_port = match watch {
            None => distance.front(relay.or_port, each_way)?,
            Some(watch) => watch.front(&distance, &relay.id, relay.or_port, each_way)?,
        };
    }
    Ok(distance)
}
