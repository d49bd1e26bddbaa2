//! The network itself: authorities and relays, from keys to a full consensus.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;

use crate::distance::Distance;
use crate::judge::{CTor, ClientOptions};
use crate::names::NameServer;
use crate::process::{Tor, is_connected_to};
use crate::service::{Service, ServiceOptions};
use crate::torrc::{Common, Schedule};
use crate::workdir::WorkDir;

mod bridge;
mod builder;
mod consensus;
mod identity;
mod relay;
mod watch;

pub use self::bridge::{Bridge, BridgeOptions};
pub use self::builder::NetworkBuilder;
use self::relay::Relay;
pub use self::relay::{RelayId, Role};
use self::watch::Watch;
pub use self::watch::{Arrival, NETWORK_SIDE};

/// Between two looks at something awaited.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// What the network, its services and its clients hold together. The order matters: processes end before their folder goes.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) relays: Vec<Relay>,
    pub(crate) common: Common,
    pub(crate) schedule: Schedule,
    #[expect(dead_code, reason = "the exits ask it as long as it lives")]
    names: NameServer,
    /// The relays are reached through it as long as it lives.
    distance: Option<Distance>,
    watch: Option<Watch>,
    nodes_made: AtomicUsize,
    workdir: Arc<WorkDir>,
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

    pub(crate) fn relay(&self, id: &RelayId) -> Result<&Relay> {
        self.relays
            .iter()
            .find(|r| r.id == *id)
            .with_context(|| format!("no relay {id} in this network"))
    }
}

/// A running private Tor network. All of it is killed when this and all its services and clients are dropped; its folder
/// then goes if [`Network::mark_done`] was called, and stays otherwise. May be shared between threads.
#[derive(Debug)]
pub struct Network {
    pub(crate) shared: Arc<Shared>,
}

impl Network {
    /// Settings for a network: 3 authorities and 8 relays, tor's own timeouts.
    pub fn builder() -> NetworkBuilder {
        NetworkBuilder::new()
    }

    /// The folder with everything in it: one folder for each node, with its `torrc` and `log`.
    pub fn dir(&self) -> &Path {
        self.shared.workdir.path()
    }

    /// Says that all went well, so that the folder goes with the network. A test that returns early or panics does not
    /// get here: its logs are kept.
    pub fn mark_done(&self) {
        self.shared.workdir.mark_done();
    }

    /// Has the last lines of a log printed if the folder is kept.
    pub fn show_if_kept(&self, log: &Path) {
        self.shared.workdir.show_if_kept(log);
    }

    /// Starts an onion service and waits until all its descriptors are published, about five seconds.
    ///
    /// # Errors
    /// When tor ends, or publishing takes longer than a minute.
    pub fn service(&self, options: ServiceOptions) -> Result<Service> {
        Service::start(&self.shared, options)
    }

    /// Starts a bridge and waits until it is ready, about three seconds. No consensus lists it.
    ///
    /// # Errors
    /// When tor ends, or is not ready within a minute; when there is no `obfs4proxy` and the options ask for it.
    pub fn bridge(&self, options: BridgeOptions) -> Result<Bridge> {
        Bridge::start(&self.shared, options)
    }

    /// Everybody who has connected to a relay or bridge of a [watched](NetworkBuilder::watched) network until now and runs no
    /// `tor` of the network, in order. Nobody who came before this call is missing.
    ///
    /// # Errors
    /// When the network is not watched.
    pub fn arrivals(&self) -> Result<Vec<Arrival>> {
        let watch = self.shared.watch.as_ref();
        watch.context("this network is not watched")?.arrivals()
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

    /// Where clients connect to a relay.
    ///
    /// # Errors
    /// When it is not of this network.
    pub fn or_address(&self, relay: &RelayId) -> Result<SocketAddr> {
        let port = self.shared.relay(relay)?.or_port;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// The relay that has a connection to a server outside of the network, as the exit of an open stream has.
    ///
    /// # Errors
    /// When none has.
    pub fn relay_connected_to(&self, server: SocketAddr) -> Result<RelayId> {
        let ours = |relay: &&Relay| {
            let pid = relay.tor().as_ref().map(Tor::pid);
            pid.is_some_and(|pid| is_connected_to(pid, server))
        };
        let found = self.shared.relays.iter().find(ours);
        Ok(found
            .with_context(|| format!("no relay is connected to {server}"))?
            .id
            .clone())
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
