//! Onion services, and what can be done to them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;

use crate::clock;
use crate::control::Control;
use crate::keys::ClientPublicKey;
use crate::network::{POLL, RelayId, Role, Shared};
use crate::process::{Tor, wait_for};
use crate::torrc::unix_now;
use crate::workdir::private_folder;

/// How long a service may take until it is published.
const PUBLISH_LIMIT: Duration = Duration::from_secs(60);

/// How many directories a descriptor goes to: two replicas, four directories each (fewer in a smaller network).
const HSDIRS_PER_DESCRIPTOR: usize = 8;

/// Settings of an onion service.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Virtual ports and the loopback addresses behind them. An address nobody listens at makes a closed port.
    pub ports: Vec<(u16, SocketAddr)>,
    /// The clients that may come; with none in the list, everybody may.
    pub authorized: Vec<ClientPublicKey>,
    /// Whether proof-of-work defences are on.
    pub proof_of_work: bool,
    /// How many introduction points; 3 is tor's default.
    pub introduction_points: u8,
    /// Whether the introduction points are to be spare relays, so that they can be stopped without harm to anything else;
    /// see [`NetworkBuilder::spare_relays`](crate::NetworkBuilder::spare_relays).
    pub intro_points_on_spare_relays: bool,
    /// Whether its `tor` has a clock of its own, for [`Service::advance_clock`]. Needs a C compiler.
    pub movable_clock: bool,
    /// More lines for its torrc.
    pub extra_torrc_lines: Vec<String>,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            authorized: Vec::new(),
            proof_of_work: false,
            introduction_points: 3,
            intro_points_on_spare_relays: false,
            movable_clock: false,
            extra_torrc_lines: Vec::new(),
        }
    }
}

impl ServiceOptions {
    /// An open service with one virtual port.
    pub fn with_port(virtual_port: u16, backend: SocketAddr) -> Self {
        Self {
            ports: vec![(virtual_port, backend)],
            ..Self::default()
        }
    }
}

/// A running onion service in a tor of its own, killed when dropped.
#[derive(Debug)]
pub struct Service {
    name: String,
    folder: PathBuf,
    address: String,
    options: ServiceOptions,
    running: Mutex<Option<Running>>,
    /// How many seconds its clock is ahead.
    clock_ahead: Mutex<i64>,
    pub(crate) shared: Arc<Shared>,
}

/// The process of a service and the line to it.
#[derive(Debug)]
struct Running {
    tor: Tor,
    control: Control,
}

impl Service {
    pub(crate) fn start(shared: &Arc<Shared>, options: ServiceOptions) -> Result<Self> {
        let (name, folder) = shared.new_folder("service")?;
        private_folder(&folder.join("hs"))?;
        let mut service = Self {
            name,
            folder,
            address: String::new(),
            options,
            running: Mutex::new(None),
            clock_ahead: Mutex::new(0),
            shared: Arc::clone(shared),
        };
        if service.options.movable_clock {
            clock::make(&service.folder)?;
        }
        service.write_authorized(&service.options.authorized)?;
        let lines = service.torrc_lines()?;
        fs::write(
            service.folder.join("torrc"),
            shared.common.service(&service.folder, &lines),
        )?;
        service.restart()?;
        let hostname = fs::read_to_string(service.folder.join("hs/hostname"))
            .context("tor made no hostname")?;
        hostname.trim().clone_into(&mut service.address);
        Ok(service)
    }

    fn torrc_lines(&self) -> Result<Vec<String>> {
        let options = &self.options;
        let mut lines = vec![
            "SocksPort 0".to_owned(),
            format!("HiddenServiceDir {}/hs", self.folder.display()),
            format!(
                "HiddenServiceNumIntroductionPoints {}",
                options.introduction_points
            ),
        ];
        lines.extend(
            options
                .ports
                .iter()
                .map(|(port, backend)| format!("HiddenServicePort {port} {backend}")),
        );
        if options.proof_of_work {
            lines.push("HiddenServicePoWDefensesEnabled 1".to_owned());
        }
        if options.intro_points_on_spare_relays {
            lines.extend(self.lines_for_spare_relays()?);
        }
        lines.extend(options.extra_torrc_lines.iter().cloned());
        Ok(lines)
    }

    /// Has the service choose its introduction points among the spare relays, and go its ways through the relays meant for that
    /// and no others. Directories and clients' rendezvous points it has to take as they come, excluded or not.
    fn lines_for_spare_relays(&self) -> Result<Vec<String>> {
        let list = |wanted: fn(Role) -> bool| {
            let relays = self.shared.relays.iter().filter(|r| wanted(r.role));
            relays.map(|r| r.id.fingerprint()).collect::<Vec<_>>()
        };
        let spares = list(|role| role == Role::Spare).len();
        let points = self.options.introduction_points;
        if spares < usize::from(points) {
            bail!("{spares} spare relays are too few for {points} introduction points");
        }
        let path = list(|role| role == Role::SparePath).join(",");
        Ok(vec![
            format!("ExcludeNodes {}", list(Role::is_common).join(",")),
            format!("EntryNodes {path}"),
            format!("HSLayer2Nodes {path}"),
            format!("MiddleNodes {path}"),
        ])
    }

    /// Its address: 56 characters and `.onion`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Kills the service's tor (SIGKILL): its introduction circuits go with it. Nothing happens if it does not run.
    pub fn kill(&self) {
        drop(self.running().take());
    }

    /// Starts the service again with the same keys, killing it first if it runs, and waits until it is published.
    /// It chooses new introduction points.
    ///
    /// # Errors
    /// When tor ends, or publishing takes longer than a minute.
    pub fn restart(&self) -> Result<()> {
        let mut slot = self.running();
        drop(slot.take());
        let mut tor = Tor::start(&self.name, &self.folder)?;
        let mut control = wait_for(
            &format!("the control socket of {}", self.name),
            PUBLISH_LIMIT,
            POLL,
            || {
                tor.check_alive()?;
                Ok(Control::connect(&self.folder.join("control")).ok())
            },
        )?;
        // The socket is there long before tor knows enough of the network to publish, so no event is missed.
        control.command("SETEVENTS HS_DESC")?;
        let mut running = Running { tor, control };
        self.wait_until_published(&mut running, PUBLISH_LIMIT)?;
        *slot = Some(running);
        Ok(())
    }

    /// Stops the service's tor (SIGSTOP): introduction points go on acknowledging, the rendezvous never comes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.with_running(|running| running.tor.signal(Signal::SIGSTOP))
    }

    /// Lets a stopped service go on (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.with_running(|running| running.tor.signal(Signal::SIGCONT))
    }

    /// Makes these the authorized clients (none: open to all) in place of those before, and waits until the new
    /// descriptors are published.
    ///
    /// # Errors
    /// When the service does not run, or publishing takes longer than a minute.
    pub fn set_authorized(&self, clients: &[ClientPublicKey]) -> Result<()> {
        self.write_authorized(clients)?;
        next_second();
        self.with_running(|running| {
            while running.control.event(Duration::from_millis(1))?.is_some() {}
            running.tor.signal(Signal::SIGHUP)?;
            self.wait_until_published(running, PUBLISH_LIMIT)
        })
    }

    /// Moves the clock of a service with [`ServiceOptions::movable_clock`] forward. By 100 seconds and more at once, tor
    /// takes it for a jump and gives up its circuits.
    ///
    /// # Errors
    /// When the service has no clock of its own.
    pub fn advance_clock(&self, by: Duration) -> Result<()> {
        if !self.options.movable_clock {
            bail!("{} has no clock of its own", self.name);
        }
        let mut ahead = self
            .clock_ahead
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *ahead += i64::try_from(by.as_secs())?;
        clock::set_ahead(&self.folder, *ahead)
    }

    /// Waits until the service has published new descriptors, for up to `limit`.
    ///
    /// # Errors
    /// When it does not run, or does not publish in time.
    pub fn wait_until_republished(&self, limit: Duration) -> Result<()> {
        self.with_running(|running| self.wait_until_published(running, limit))
    }

    /// The relays at which it waits for introductions now, as its own tor says: those of the descriptor of the present time
    /// period and those of its neighbour's, each chosen apart, so between three and six relays (with three for each).
    ///
    /// # Errors
    /// When it does not run, or is stopped.
    pub fn introduction_points(&self) -> Result<Vec<RelayId>> {
        self.with_running(|running| established_introduction_points(&mut running.control))
    }

    /// Its process id, or none if it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(|running| running.tor.pid())
    }

    /// Its log file.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The folder with its keys, the `HiddenServiceDir`.
    pub fn key_folder(&self) -> PathBuf {
        self.folder.join("hs")
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_running<T>(&self, action: impl FnOnce(&mut Running) -> Result<T>) -> Result<T> {
        action(
            self.running()
                .as_mut()
                .ok_or_else(|| anyhow!("{} is not running", self.name))?,
        )
    }

    fn write_authorized(&self, clients: &[ClientPublicKey]) -> Result<()> {
        let folder = self.folder.join("hs/authorized_clients");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        private_folder(&folder)?;
        for (number, client) in clients.iter().enumerate() {
            fs::write(
                folder.join(format!("client{number}.auth")),
                format!("{client}\n"),
            )?;
        }
        Ok(())
    }

    /// Waits until the descriptors of both time periods (this one and its neighbour) are at all their directories. Tor
    /// sends them no sooner than all introduction circuits stand.
    fn wait_until_published(&self, running: &mut Running, limit: Duration) -> Result<()> {
        let hsdirs = self
            .shared
            .relays
            .iter()
            .filter(|r| r.role.is_common())
            .count();
        let mut uploads = Uploads::default();
        let deadline = Instant::now() + limit;
        loop {
            if let Some(event) = running.control.event(POLL)? {
                uploads.note(&event);
            } else if uploads.complete(hsdirs.min(HSDIRS_PER_DESCRIPTOR)) {
                return Ok(());
            }
            running.tor.check_alive()?;
            if Instant::now() >= deadline {
                bail!(
                    "{} was not published within {} s: {uploads:?}",
                    self.name,
                    limit.as_secs()
                );
            }
        }
    }
}

/// Waits until the clock shows another second. Tor makes a descriptor's revision number of the time in seconds, and the
/// directories refuse a second descriptor of the same second as an old one.
fn next_second() {
    let now = unix_now();
    while unix_now() <= now + 1 {
        std::thread::sleep(POLL);
    }
}

/// The descriptor uploads of a service, as its `HS_DESC` events tell them.
#[derive(Debug, Default)]
struct Uploads {
    /// The directories each descriptor was sent to.
    begun: HashMap<String, HashSet<RelayId>>,
    sent: usize,
    arrived: usize,
    failed: usize,
}

impl Uploads {
    fn note(&mut self, event: &str) {
        let words: Vec<&str> = event.split_whitespace().collect();
        let ["HS_DESC", action, _address, _auth, hsdir, ..] = words[..] else {
            return;
        };
        match action {
            "UPLOAD" => {
                self.sent += 1;
                let descriptor = words.get(5).copied().unwrap_or_default().to_owned();
                self.begun
                    .entry(descriptor)
                    .or_default()
                    .extend(RelayId::from_fingerprint(hsdir));
            }
            "UPLOADED" => self.arrived += 1,
            "FAILED" => self.failed += 1,
            _ => {}
        }
    }

    /// Whether two descriptors are with `hsdirs` directories each and no upload is under way.
    fn complete(&self, hsdirs: usize) -> bool {
        self.begun.len() >= 2
            && self.begun.values().all(|at| at.len() >= hsdirs)
            && self.arrived > 0
            && self.arrived + self.failed >= self.sent
    }
}

/// Where the circuits for introductions end.
fn established_introduction_points(control: &mut Control) -> Result<Vec<RelayId>> {
    let circuits = control
        .info("circuit-status")
        .context("no list of circuits")?;
    let mut points: Vec<RelayId> = circuits
        .lines()
        .filter(|line| {
            line.contains("PURPOSE=HS_SERVICE_INTRO") && line.contains("HS_STATE=HSSI_ESTABLISHED")
        })
        .filter_map(|line| RelayId::from_fingerprint(line.split(' ').nth(2)?.rsplit(',').next()?))
        .collect();
    points.sort();
    points.dedup();
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, hsdir: char, rest: &str) -> String {
        format!(
            "HS_DESC {action} abc UNKNOWN ${}~relay {rest}",
            hsdir.to_string().repeat(40)
        )
    }

    #[test]
    fn published_means_both_descriptors_everywhere_and_nothing_under_way() {
        let mut uploads = Uploads::default();
        for descriptor in ["one", "two"] {
            for hsdir in ['A', 'B'] {
                uploads.note(&event("UPLOAD", hsdir, descriptor));
            }
        }
        for done in 0..4 {
            assert!(!uploads.complete(2), "after {done} of 4");
            uploads.note(&event(
                if done == 2 { "FAILED" } else { "UPLOADED" },
                'A',
                "",
            ));
        }
        assert!(uploads.complete(2));
        assert!(!uploads.complete(3));
        uploads.note(&event("UPLOAD", 'A', "one"));
        assert!(!uploads.complete(2));
    }

    #[test]
    fn one_descriptor_is_not_enough() {
        let mut uploads = Uploads::default();
        uploads.note(&event("UPLOAD", 'A', "one"));
        uploads.note(&event("UPLOADED", 'A', ""));
        assert!(!uploads.complete(1));
    }
}
