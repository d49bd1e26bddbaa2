//! The network itself: authorities, relays and bridges.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;

use crate::c_tor::{CTor, ClientOptions};
use crate::forwarder::Forwarders;
use crate::name_server::NameServer;
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

/// The parts that the network, its services and its clients share. The order of the fields matters: the processes end before
/// their folder is removed.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) relays: Vec<Relay>,
    pub(crate) common: Common,
    pub(crate) schedule: Schedule,
    #[expect(dead_code, reason = "it answers the exits until it is dropped")]
    name_server: NameServer,
    /// Forwards connections to the relays until it is dropped.
    forwarders: Option<Forwarders>,
    watch: Option<Watch>,
    /// How many folders for clients, services and bridges exist.
    folder_count: AtomicUsize,
    workdir: Arc<WorkDir>,
}

impl Shared {
    /// Creates the folder of a new client, service or bridge, and returns its name and path.
    pub(crate) fn new_folder(&self, kind: &str) -> Result<(String, PathBuf)> {
        let name = format!(
            "{kind}{}",
            self.folder_count.fetch_add(1, Ordering::Relaxed)
        );
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

/// A running private Tor network. It may be shared between threads.
///
/// Its processes are killed when the network and all its services, bridges and clients are dropped. The folder is then
/// removed if [`Network::mark_done`] was called, and kept otherwise.
#[derive(Debug)]
pub struct Network {
    pub(crate) shared: Arc<Shared>,
}

impl Network {
    /// Returns the default settings of a network: three authorities, eight relays, tor's own time-outs.
    pub fn builder() -> NetworkBuilder {
        NetworkBuilder::new()
    }

    /// Returns the folder of the network. It contains one folder for each node, with its `torrc` and `log`.
    pub fn dir(&self) -> &Path {
        self.shared.workdir.path()
    }

    /// Marks the run as successful, so that the folder is removed with the network. The logs of a test that returns early or
    /// panics before this call are kept.
    pub fn mark_done(&self) {
        self.shared.workdir.mark_done();
    }

    /// Prints the last lines of a log when the network is dropped without [`Network::mark_done`].
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

    /// Returns every connection so far to a relay or bridge of a [watched](NetworkBuilder::watched) network, in order, except
    /// those that the network's own `tor` processes made. None that was made before this call is missing.
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

    /// Returns the configuration of an arti client of this network, as TOML: `[tor_network]` with authorities and fallbacks,
    /// `[path_rules]`, `[address_filter]` (local addresses are allowed as destinations and as answers), and `[storage]` below
    /// `state_dir`, without checks of permissions.
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

    /// Returns a torrc for a C tor client of this network that the caller starts. Data, control socket and log are in
    /// `folder`, which must be private; `lines` are appended. Without a `SocksPort` line the client uses tor's default port.
    pub fn client_torrc(&self, folder: &Path, lines: &[String]) -> String {
        self.shared.common.client(folder, lines)
    }

    /// Returns a valid onion address for which no descriptor was ever published.
    pub fn unpublished_address(&self) -> String {
        crate::address::unpublished()
    }

    /// Returns all relays with a role, in the order of the numbers in their nicknames.
    pub fn relays(&self, role: Role) -> Vec<RelayId> {
        self.shared
            .relays
            .iter()
            .filter(|r| r.role == role)
            .map(|r| r.id.clone())
            .collect()
    }

    /// Returns the nickname of a relay (`auth0`, `relay3`, `spare1`), which is also the name of its folder.
    pub fn nickname(&self, relay: &RelayId) -> Option<&str> {
        self.shared.relay(relay).ok().map(|r| r.nickname.as_str())
    }

    /// Returns the address at which clients connect to a relay.
    ///
    /// # Errors
    /// When the relay is not in this network.
    pub fn or_address(&self, relay: &RelayId) -> Result<SocketAddr> {
        let port = self.shared.relay(relay)?.or_port;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// Returns the relay that has a connection to `server`: the exit of an open stream.
    ///
    /// # Errors
    /// When no relay has one.
    pub fn relay_connected_to(&self, server: SocketAddr) -> Result<RelayId> {
        let is_connected = |relay: &&Relay| {
            let pid = relay.tor().as_ref().map(Tor::pid);
            pid.is_some_and(|pid| is_connected_to(pid, server))
        };
        let found = self.shared.relays.iter().find(is_connected);
        Ok(found
            .with_context(|| format!("no relay is connected to {server}"))?
            .id
            .clone())
    }

    /// Stops relays (SIGSTOP): their connections stay open, but nothing is read or sent.
    ///
    /// # Errors
    /// When one of them is not in this network or does not run.
    pub fn freeze_relays(&self, relays: &[RelayId]) -> Result<()> {
        relays
            .iter()
            .try_for_each(|id| self.shared.relay(id)?.signal(Signal::SIGSTOP))
    }

    /// Continues stopped relays (SIGCONT).
    ///
    /// # Errors
    /// When one of them is not in this network or does not run.
    pub fn thaw_relays(&self, relays: &[RelayId]) -> Result<()> {
        relays
            .iter()
            .try_for_each(|id| self.shared.relay(id)?.signal(Signal::SIGCONT))
    }

    /// Kills a relay (SIGKILL): its connections break. The consensus still lists it.
    ///
    /// # Errors
    /// When the relay is not in this network or does not run.
    pub fn kill_relay(&self, relay: &RelayId) -> Result<()> {
        let relay = self.shared.relay(relay)?;
        relay
            .tor()
            .take()
            .ok_or_else(|| anyhow!("{} is not running", relay.nickname))?
            .kill();
        Ok(())
    }

    /// Kills a relay if it runs, starts it with the same keys and port, and waits until it has the consensus. The descriptors
    /// that it held as an HSDir are lost.
    ///
    /// # Errors
    /// When the relay is not in this network, ends, or does not get the consensus in time.
    pub fn restart_relay(&self, relay: &RelayId) -> Result<()> {
        let relay = self.shared.relay(relay)?;
        drop(relay.tor().take());
        let tor = Tor::start(&relay.nickname, &relay.folder)?;
        *relay.tor() = Some(tor);
        relay.wait_for_directory()
    }
}
