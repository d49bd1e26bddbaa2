//! The network itself: authorities and relays, from keys to a full consensus.

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;

use crate::control::Control;
use crate::distance::Distance;
use crate::judge::{CTor, ClientOptions};
use crate::names::NameServer;
use crate::ports::free_ports;
use crate::process::{PortTaken, Tor, find_program, spawn, wait_for};
use crate::service::{Service, ServiceOptions};
use crate::torrc::{
    AuthorityPart, Common, RelayPart, Schedule, VOTE_DELAY, Votes, authority_line, bandwidths_file,
    resolv_conf, unix_now,
};
use crate::workdir::{WorkDir, private_folder};

/// Three, the fewest among which a majority is more than one.
const AUTHORITIES: usize = 3;

/// Beside the authorities. Clients keep samples of guards and of second hops and want more than a handful of relays.
const DEFAULT_RELAYS: usize = 8;

/// For services on spare relays.
const SPARE_PATH: usize = 4;

/// How often a whole start is tried when somebody else takes one of our ports.
const STARTS: usize = 3;

/// How often the authorities are asked to vote until every relay is listed in full.
const VOTES: usize = 4;

/// How long a `tor` may take until its control socket answers.
const SOCKET_LIMIT: Duration = Duration::from_secs(30);

/// How long the relays may take to tell the authorities about themselves.
const UPLOAD_LIMIT: Duration = Duration::from_secs(40);

/// How long relays may take to learn the consensus.
const SPREAD_LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at something awaited.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// A relay or authority, named by the fingerprint of its RSA identity (40 upper case hex digits).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId(String);

impl RelayId {
    /// Takes a fingerprint with or without `$` before and `~nickname` or `=nickname` behind it.
    pub(crate) fn from_fingerprint(text: &str) -> Option<Self> {
        let hex: String = text
            .trim_start_matches('$')
            .chars()
            .take_while(char::is_ascii_hexdigit)
            .collect();
        (hex.len() == 40).then(|| Self(hex.to_ascii_uppercase()))
    }

    /// The fingerprint: 40 upper case hex digits.
    pub fn fingerprint(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a relay is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A directory authority, which is also a relay with all flags.
    Authority,
    /// A relay with all flags: guard, exit, onion service directory.
    Relay,
    /// A relay that is neither guard nor exit nor onion service directory: see [`NetworkBuilder::spare_relays`].
    Spare,
    /// A guard and middle hop for the services that have their introduction points on spare relays, and nothing else. There
    /// are four of these if there are spare relays.
    SparePath,
}

impl Role {
    /// Whether clients use it.
    pub(crate) fn is_common(self) -> bool {
        matches!(self, Self::Authority | Self::Relay)
    }
}

/// One relay or authority.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) id: RelayId,
    pub(crate) role: Role,
    pub(crate) nickname: String,
    ed_identity: String,
    /// Where the network reaches it.
    or_port: u16,
    /// Where it listens, if that is behind a front.
    behind: Option<u16>,
    /// Only of an authority.
    v3ident: Option<String>,
    folder: PathBuf,
    tor: Mutex<Option<Tor>>,
}

impl Relay {
    fn control(&self) -> Result<Control> {
        Control::connect(&self.folder.join("control"))
    }

    /// The running process, or none after a kill.
    pub(crate) fn tor(&self) -> MutexGuard<'_, Option<Tor>> {
        self.tor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_alive(&self) -> Result<()> {
        self.tor().as_mut().map_or(Ok(()), Tor::check_alive)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.tor()
            .as_mut()
            .ok_or_else(|| anyhow!("{} is not running", self.nickname))?
            .signal(signal)
    }
}

/// Settings of a network to be started; see [`Network::builder`].
#[derive(Clone, Debug)]
pub struct NetworkBuilder {
    relays: usize,
    spare_relays: usize,
    circuit_timeout_ms: Option<u32>,
    kist: bool,
    distance: Option<Duration>,
    log_level: String,
}

impl NetworkBuilder {
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
        for _ in 1..STARTS {
            match self.start_once() {
                Err(error) if error.is::<PortTaken>() => {}
                result => return result,
            }
        }
        self.start_once()
    }

    fn start_once(&self) -> Result<Network> {
        for program in ["tor", "tor-gencert", "setpriv"] {
            find_program(program)?;
        }
        let workdir = WorkDir::new()?;
        let names = NameServer::start()?;
        let resolver_file = workdir.path().join("resolv.conf");
        fs::write(&resolver_file, resolv_conf(names.address()))?;

        let plans = self.plans(workdir.path())?;
        let mut relays = make_keys(&plans)?;
        let distance = self
            .distance
            .map(|each_way| set_apart(&mut relays, each_way));
        let distance = distance.transpose()?;
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
            nodes_made: AtomicUsize::new(0),
            workdir,
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
struct Plan {
    nickname: String,
    role: Role,
    folder: PathBuf,
    or_port: u16,
    /// Only of an authority.
    dir_port: Option<u16>,
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

/// Puts a front before each relay, from which everything takes a while.
fn set_apart(relays: &mut [Relay], each_way: Duration) -> Result<Distance> {
    let distance = Distance::new()?;
    for relay in relays {
        relay.behind = Some(relay.or_port);
        relay.or_port = distance.front(relay.or_port, each_way)?;
    }
    Ok(distance)
}

/// Makes the keys of all nodes, side by side.
fn make_keys(plans: &[Plan]) -> Result<Vec<Relay>> {
    thread::scope(|scope| {
        let workers: Vec<_> = plans
            .iter()
            .map(|plan| scope.spawn(|| make_relay_keys(plan)))
            .collect();
        workers
            .into_iter()
            .map(|w| w.join().map_err(|_| anyhow!("making keys failed"))?)
            .collect()
    })
}

/// Lets tor make the keys of one node and reads who it is.
fn make_relay_keys(plan: &Plan) -> Result<Relay> {
    let data = plan.folder.join("data");
    private_folder(&data.join("keys"))?;
    let v3ident = plan
        .dir_port
        .map(|port| make_authority_keys(&data.join("keys"), port))
        .transpose()?;
    let empty = plan.folder.join("empty");
    fs::write(&empty, "")?;
    let mut command = Command::new(find_program("tor")?);
    command
        .args([
            "--defaults-torrc",
            "/dev/null",
            "--hush",
            "--list-fingerprint",
            "-f",
        ])
        .arg(&empty);
    command.arg("--DataDirectory").arg(&data);
    command.args([
        "--Nickname",
        &plan.nickname,
        "--Address",
        "127.0.0.1",
        "--ORPort",
        &format!("127.0.0.1:{}", plan.or_port),
    ]);
    run(command, "")?;
    let read = |file: &str| -> Result<String> {
        let text =
            fs::read_to_string(data.join(file)).with_context(|| format!("tor made no {file}"))?;
        Ok(text
            .split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned())
    };
    let fingerprint = read("fingerprint")?;
    Ok(Relay {
        id: RelayId::from_fingerprint(&fingerprint)
            .with_context(|| format!("no fingerprint: {fingerprint:?}"))?,
        role: plan.role,
        nickname: plan.nickname.clone(),
        ed_identity: read("fingerprint-ed25519")?,
        or_port: plan.or_port,
        behind: None,
        v3ident,
        folder: plan.folder.clone(),
        tor: Mutex::new(None),
    })
}

/// Makes an authority's identity, signing key and certificate; gives its `v3ident`.
fn make_authority_keys(keys: &Path, dir_port: u16) -> Result<String> {
    let mut command = Command::new(find_program("tor-gencert")?);
    command.args([
        "--create-identity-key",
        "--passphrase-fd",
        "0",
        "-m",
        "12",
        "-a",
        &format!("127.0.0.1:{dir_port}"),
    ]);
    let certificate = keys.join("authority_certificate");
    command.arg("-i").arg(keys.join("authority_identity_key"));
    command.arg("-s").arg(keys.join("authority_signing_key"));
    command.arg("-c").arg(&certificate);
    run(command, "any\n")?;
    let text = fs::read_to_string(certificate).context("tor-gencert made no certificate")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("fingerprint "));
    Ok(line
        .context("the authority certificate has no fingerprint")?
        .to_owned())
}

/// Runs a helper program to its end; an error holds what it said.
fn run(mut command: Command, input: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = spawn(command)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end without reading.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!(
            "{program} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&said).trim()
        );
    }
    Ok(())
}

/// What the network, its services and its clients hold together. The order matters: processes end before their folder goes.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) relays: Vec<Relay>,
    pub(crate) common: Common,
    pub(crate) schedule: Schedule,
    #[expect(dead_code, reason = "the exits ask it as long as it lives")]
    names: NameServer,
    #[expect(
        dead_code,
        reason = "the relays are reached through it as long as it lives"
    )]
    distance: Option<Distance>,
    nodes_made: AtomicUsize,
    workdir: WorkDir,
}

impl Shared {
    /// A folder for one more client or service.
    pub(crate) fn new_folder(&self, kind: &str) -> Result<(String, PathBuf)> {
        let name = format!("{kind}{}", self.nodes_made.fetch_add(1, Ordering::Relaxed));
        let folder = self.workdir.private_folder(&name)?;
        Ok((name, folder))
    }

    fn authorities(&self) -> impl Iterator<Item = &Relay> {
        self.relays.iter().filter(|r| r.role == Role::Authority)
    }

    /// From freshly started processes to a full consensus that every relay knows.
    fn reach_consensus(&self) -> Result<()> {
        let mut authorities = Vec::new();
        for relay in &self.relays {
            let control = wait_for(
                &format!("the control socket of {}", relay.nickname),
                SOCKET_LIMIT,
                POLL,
                || {
                    relay.check_alive()?;
                    Ok(relay.control().ok())
                },
            )?;
            if relay.role == Role::Authority {
                authorities.push(control);
            }
        }
        for control in &mut authorities {
            wait_for(
                "the relays' descriptors at the authorities",
                UPLOAD_LIMIT,
                POLL,
                || {
                    self.check_relays()?;
                    let known = control.info("desc/all-recent").unwrap_or_default();
                    let known = known
                        .lines()
                        .filter(|line| line.starts_with("router "))
                        .count();
                    Ok((known >= self.relays.len()).then_some(()))
                },
            )?;
        }
        let mut missing = String::new();
        for _ in 0..VOTES {
            self.vote(&mut authorities)?;
            missing = self.missing_flags(&mut authorities)?;
            if missing.is_empty() {
                return self.spread();
            }
        }
        bail!("the consensus still lacks, after {VOTES} votes: {missing}")
    }

    fn check_relays(&self) -> Result<()> {
        self.relays.iter().try_for_each(Relay::check_alive)
    }

    /// Lets all authorities vote now, and waits for a consensus newer than the one before.
    ///
    /// They vote by the clock, at multiples of the interval plus an offset: so the offset is what we change.
    fn vote(&self, authorities: &mut [Control]) -> Result<()> {
        let valid_after = unix_now() + 2 * VOTE_DELAY + 1;
        let offset = self.schedule.offset_for(valid_after);
        let before: Vec<_> = authorities.iter_mut().map(consensus).collect();
        for control in authorities.iter_mut() {
            control.command(&format!("SETCONF TestingV3AuthVotingStartOffset={offset}"))?;
        }
        // An authority that lost the votes of the others has none to show; the next vote mends it.
        let limit = Duration::from_secs(2 * VOTE_DELAY + 6);
        let _ = wait_for("the vote", limit, POLL, || {
            self.check_relays()?;
            let now: Vec<_> = authorities.iter_mut().map(consensus).collect();
            Ok(now
                .iter()
                .zip(&before)
                .all(|(now, before)| now.is_some() && now != before)
                .then_some(()))
        });
        self.check_relays()
    }

    /// What the consensus of an authority lacks, in words; empty if nothing.
    fn missing_flags(&self, authorities: &mut [Control]) -> Result<String> {
        let mut missing = String::new();
        for (number, control) in authorities.iter_mut().enumerate() {
            let Some(text) = consensus(control) else {
                write!(missing, "all of authority {number}; ")?;
                continue;
            };
            let flags = flags_by_nickname(&text);
            for relay in &self.relays {
                let wanted: &[&str] = match relay.role {
                    Role::Spare => &["Running", "Stable", "Fast", "Valid"],
                    Role::SparePath => &["Guard", "Running", "Stable", "Fast", "Valid"],
                    Role::Authority | Role::Relay => &[
                        "Exit", "Guard", "HSDir", "Running", "Stable", "Fast", "Valid",
                    ],
                };
                let has = flags
                    .get(relay.nickname.as_str())
                    .map_or(&[][..], Vec::as_slice);
                for flag in wanted.iter().filter(|flag| !has.contains(flag)) {
                    write!(missing, "{flag} of {}; ", relay.nickname)?;
                }
            }
        }
        Ok(missing)
    }

    /// Waits until every relay knows the consensus and the other relays.
    fn spread(&self) -> Result<()> {
        // The relays have asked for a consensus in vain for a while, at growing distances; a reload makes them ask again now.
        // Not the authorities: they have it, and would forget when they were told to vote.
        self.relays
            .iter()
            .filter(|r| r.role != Role::Authority)
            .try_for_each(|relay| relay.signal(Signal::SIGHUP))?;
        self.relays
            .iter()
            .try_for_each(|relay| self.wait_until_informed(relay))
    }

    fn wait_until_informed(&self, relay: &Relay) -> Result<()> {
        let mut control = wait_for(
            &format!("the control socket of {}", relay.nickname),
            SOCKET_LIMIT,
            POLL,
            || {
                relay.check_alive()?;
                Ok(relay.control().ok())
            },
        )?;
        wait_for(
            &format!("{} to learn the consensus", relay.nickname),
            SPREAD_LIMIT,
            POLL,
            || {
                relay.check_alive()?;
                Ok((control.info("status/enough-dir-info").as_deref() == Some("1")).then_some(()))
            },
        )
    }

    pub(crate) fn relay(&self, id: &RelayId) -> Result<&Relay> {
        self.relays
            .iter()
            .find(|r| r.id == *id)
            .with_context(|| format!("no relay {id} in this network"))
    }
}

fn consensus(control: &mut Control) -> Option<String> {
    control
        .info("dir/status-vote/current/consensus")
        .filter(|text| !text.is_empty())
}

/// The `s` lines of a consensus, under the nicknames of the `r` lines before them.
fn flags_by_nickname(consensus: &str) -> HashMap<&str, Vec<&str>> {
    let mut flags = HashMap::new();
    let mut nickname = "";
    for line in consensus.lines() {
        let mut words = line.split(' ');
        match words.next() {
            Some("r") => nickname = words.next().unwrap_or_default(),
            Some("s") => {
                flags.insert(nickname, words.collect());
            }
            _ => {}
        }
    }
    flags
}

/// A running private Tor network. All of it is killed and its folder removed when this and all its services and clients
/// are dropped. May be shared between threads.
#[derive(Debug)]
pub struct Network {
    pub(crate) shared: Arc<Shared>,
}

impl Network {
    /// Settings for a network: 3 authorities and 8 relays, tor's own timeouts.
    pub fn builder() -> NetworkBuilder {
        NetworkBuilder {
            relays: DEFAULT_RELAYS,
            spare_relays: 0,
            circuit_timeout_ms: None,
            kist: true,
            distance: None,
            log_level: std::env::var("TESTNET_LOG").unwrap_or_else(|_| "notice".into()),
        }
    }

    /// The folder with everything in it: one folder for each node, with its `torrc` and `log`.
    pub fn dir(&self) -> &Path {
        self.shared.workdir.path()
    }

    /// Starts an onion service and waits until all its descriptors are published, about five seconds.
    ///
    /// # Errors
    /// When tor ends, or publishing takes longer than a minute.
    pub fn service(&self, options: ServiceOptions) -> Result<Service> {
        Service::start(&self.shared, options)
    }

    /// Starts a C tor client with two SOCKS ports and waits until it is ready, about two seconds.
    ///
    /// # Errors
    /// When tor ends, or is not ready within a minute.
    pub fn c_tor_client(&self, options: ClientOptions) -> Result<CTor> {
        CTor::start(&self.shared, &options)
    }

    /// A configuration for an arti client of this network, as TOML: `[tor_network]` with authorities and fallbacks,
    /// `[path_rules]`, `[address_filter]` (local addresses allowed, as connections and as answers), and `[storage]` below
    /// `state_dir`, whose permissions are not looked at.
    pub fn arti_config(&self, state_dir: &Path) -> String {
        let authorities: Vec<&Relay> = self.shared.authorities().collect();
        let v3idents: Vec<String> = authorities
            .iter()
            .filter_map(|a| Some(format!("{:?}", a.v3ident.as_ref()?)))
            .collect();
        let fallbacks: Vec<String> = authorities
            .iter()
            .map(|a| {
                format!(
                    "    {{ rsa_identity = \"{}\", ed_identity = \"{}\", orports = [\"127.0.0.1:{}\"] }},\n",
                    a.id, a.ed_identity, a.or_port
                )
            })
            .collect();
        format!(
            "[tor_network]\n\
             authorities.v3idents = [{}]\n\
             fallback_caches = [\n{}]\n\
             \n\
             [path_rules]\n\
             ipv4_subnet_family_prefix = 33\n\
             ipv6_subnet_family_prefix = 129\n\
             \n\
             [address_filter]\n\
             allow_local_addrs = true\n\
             allow_resolving_local_addrs = true\n\
             \n\
             [storage]\n\
             cache_dir = {:?}\n\
             state_dir = {:?}\n\
             \n\
             [storage.permissions]\n\
             dangerously_trust_everyone = true\n",
            v3idents.join(", "),
            fallbacks.concat(),
            state_dir.join("cache").display().to_string(),
            state_dir.join("state").display().to_string(),
        )
    }

    /// A torrc for a C tor client of this network, for those who start it themselves: with its data, control socket and
    /// log in `folder`, which has to be private, and `lines` at its end. Without a `SocksPort` line it has tor's own port.
    pub fn client_torrc(&self, folder: &Path, lines: &[String]) -> String {
        self.shared.common.client(folder, lines)
    }

    /// The valid onion address of a key that never published anything.
    pub fn unpublished_address(&self) -> String {
        crate::address::unpublished()
    }

    /// All relays with a role, in the order of their nicknames' numbers.
    pub fn relays(&self, role: Role) -> Vec<RelayId> {
        self.shared
            .relays
            .iter()
            .filter(|r| r.role == role)
            .map(|r| r.id.clone())
            .collect()
    }

    /// The nickname of a relay (`auth0`, `relay3`, `spare1`), which is also the name of its folder.
    pub fn nickname(&self, relay: &RelayId) -> Option<&str> {
        self.shared.relay(relay).ok().map(|r| r.nickname.as_str())
    }

    /// Stops relays (SIGSTOP): their connections stay open and nothing moves.
    ///
    /// # Errors
    /// When one of them is not of this network or does not run.
    pub fn freeze_relays(&self, relays: &[RelayId]) -> Result<()> {
        relays
            .iter()
            .try_for_each(|id| self.shared.relay(id)?.signal(Signal::SIGSTOP))
    }

    /// Lets stopped relays go on (SIGCONT).
    ///
    /// # Errors
    /// When one of them is not of this network or does not run.
    pub fn thaw_relays(&self, relays: &[RelayId]) -> Result<()> {
        relays
            .iter()
            .try_for_each(|id| self.shared.relay(id)?.signal(Signal::SIGCONT))
    }

    /// Kills a relay (SIGKILL): its connections break. The consensus goes on listing it.
    ///
    /// # Errors
    /// When it is not of this network or does not run.
    pub fn kill_relay(&self, relay: &RelayId) -> Result<()> {
        let relay = self.shared.relay(relay)?;
        relay
            .tor()
            .take()
            .ok_or_else(|| anyhow!("{} is not running", relay.nickname))?
            .kill();
        Ok(())
    }

    /// Starts a relay again with the same keys and port, killing it first if it runs, and waits until it knows the
    /// network. Descriptors it held as an onion service directory are lost.
    ///
    /// # Errors
    /// When it is not of this network, ends, or does not learn the consensus in time.
    pub fn restart_relay(&self, relay: &RelayId) -> Result<()> {
        let relay = self.shared.relay(relay)?;
        drop(relay.tor().take());
        let tor = Tor::start(&relay.nickname, &relay.folder)?;
        *relay.tor() = Some(tor);
        self.shared.wait_until_informed(relay)
    }
}
