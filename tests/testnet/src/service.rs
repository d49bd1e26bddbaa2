//! Onion services, and the ways to break them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;

use crate::clock;
use crate::control::Control;
use crate::keys::ClientPublicKey;
use crate::network::{RelayId, Role, Shared};
use crate::process::{POLL_INTERVAL, Tor};
use crate::sync::lock;
use crate::torrc::unix_now;
use crate::workdir::private_folder;

/// How long a service may take until its control socket answers, and again until its descriptors are published.
const PUBLISH_LIMIT: Duration = Duration::from_secs(60);

/// How many HSDirs store a descriptor: four for each of its two replicas (fewer in a smaller network).
const HSDIRS_PER_DESCRIPTOR: usize = 8;

/// Settings of an onion service.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Virtual ports and their targets, which are addresses on loopback. With a target that does not listen, the port is
    /// closed.
    pub ports: Vec<(u16, SocketAddr)>,
    /// The keys of the authorized clients; if empty, every client may connect.
    pub authorized: Vec<ClientPublicKey>,
    /// Whether proof-of-work defences are enabled.
    pub proof_of_work: bool,
    /// The number of introduction points; 3, tor's default, by default.
    pub introduction_points: u8,
    /// Whether the introduction points are spare relays, which can be stopped without affecting anything else; see
    /// [`NetworkBuilder::spare_relays`](crate::NetworkBuilder::spare_relays).
    pub intro_points_on_spare_relays: bool,
    /// Whether its `tor` has a clock of its own, for [`Service::advance_clock`]. Needs a C compiler.
    pub movable_clock: bool,
    /// Further lines for its torrc.
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
    /// Returns the options of a service with one virtual port and without client authorization.
    pub fn with_port(virtual_port: u16, backend: SocketAddr) -> Self {
        Self {
            ports: vec![(virtual_port, backend)],
            ..Self::default()
        }
    }
}

/// An onion service in a `tor` of its own, which is killed when the service is dropped.
#[derive(Debug)]
pub struct Service {
    name: String,
    folder: PathBuf,
    address: String,
    options: ServiceOptions,
    running: Mutex<Option<Running>>,
    /// By how many seconds its clock is ahead.
    clock_offset: Mutex<i64>,
    pub(crate) shared: Arc<Shared>,
}

/// The process of a service and its control connection.
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
            clock_offset: Mutex::new(0),
            shared: Arc::clone(shared),
        };
        if service.options.movable_clock {
            clock::create(&service.folder)?;
        }
        service.write_authorized(&service.options.authorized)?;
        let lines = service.torrc_lines()?;
        fs::write(
            service.folder.join("torrc"),
            shared.common.service(&service.folder, &lines),
        )?;
        service.restart()?;
        let hostname = fs::read_to_string(service.folder.join("hs/hostname"))
            .context("tor wrote no host name")?;
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

    /// Returns the lines that make the service use the spare relays as introduction points and only relays with the role
    /// [`Role::SparePath`] on its circuits. They do not restrict HSDirs and rendezvous points: tor uses those even if they are
    /// excluded.
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
            format!("ExcludeNodes {}", list(Role::is_for_clients).join(",")),
            format!("EntryNodes {path}"),
            format!("HSLayer2Nodes {path}"),
            format!("MiddleNodes {path}"),
        ])
    }

    /// Returns its address: 56 characters and `.onion`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Kills the service's `tor` (SIGKILL), and with it the introduction circuits. Does nothing if it does not run.
    pub fn kill(&self) {
        drop(self.running().take());
    }

    /// Kills the service's `tor` if it runs, starts it with the same keys, and waits until its descriptors are published. It
    /// chooses new introduction points.
    ///
    /// # Errors
    /// When tor ends, or publishing takes longer than a minute.
    pub fn restart(&self) -> Result<()> {
        let mut slot = self.running();
        drop(slot.take());
        let mut tor = Tor::start(&self.name, &self.folder)?;
        let mut control = tor.wait_for_control(PUBLISH_LIMIT)?;
        // No event is missed: the socket answers long before tor has the directory information that publishing needs.
        control.command("SETEVENTS HS_DESC")?;
        let mut running = Running { tor, control };
        self.wait_until_published(&mut running, PUBLISH_LIMIT)?;
        *slot = Some(running);
        Ok(())
    }

    /// Stops the service's `tor` (SIGSTOP): introduction points still acknowledge introductions, but no rendezvous completes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.with_running(|running| running.tor.signal(Signal::SIGSTOP))
    }

    /// Continues a stopped service (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.with_running(|running| running.tor.signal(Signal::SIGCONT))
    }

    /// Replaces the list of authorized clients and waits until the new descriptors are published. With an empty list, every
    /// client may connect.
    ///
    /// # Errors
    /// When the service does not run, or publishing takes longer than a minute.
    pub fn set_authorized(&self, clients: &[ClientPublicKey]) -> Result<()> {
        self.write_authorized(clients)?;
        wait_for_newer_revision();
        self.with_running(|running| {
            while running.control.event(Duration::from_millis(1))?.is_some() {}
            running.tor.signal(Signal::SIGHUP)?;
            self.wait_until_published(running, PUBLISH_LIMIT)
        })
    }

    /// Moves the clock of a service with [`ServiceOptions::movable_clock`] forward. Tor closes its circuits if the clock jumps
    /// by 100 seconds or more.
    ///
    /// # Errors
    /// When the service has no clock of its own.
    pub fn advance_clock(&self, by: Duration) -> Result<()> {
        if !self.options.movable_clock {
            bail!("{} has no clock of its own", self.name);
        }
        let mut offset = lock(&self.clock_offset);
        *offset += i64::try_from(by.as_secs())?;
        clock::set_offset(&self.folder, *offset)
    }

    /// Waits up to `limit` until the service has published new descriptors.
    ///
    /// # Errors
    /// When it does not run, or does not publish in time.
    pub fn wait_until_republished(&self, limit: Duration) -> Result<()> {
        self.with_running(|running| self.wait_until_published(running, limit))
    }

    /// Returns the relays that are its introduction points according to its own `tor`. The descriptors of the current and the
    /// neighbouring time period each have their own introduction points, chosen independently: with three each, these are
    /// three to six relays.
    ///
    /// # Errors
    /// When it does not run, or is stopped.
    pub fn introduction_points(&self) -> Result<Vec<RelayId>> {
        self.with_running(|running| established_introduction_points(&mut running.control))
    }

    /// Returns its process id, or `None` if it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(|running| running.tor.pid())
    }

    /// Returns the path of its log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Returns the folder with its keys, the `HiddenServiceDir`.
    pub fn key_folder(&self) -> PathBuf {
        self.folder.join("hs")
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        lock(&self.running)
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

    /// Waits until all HSDirs have the descriptors of both time periods, the current one and its neighbour. Tor uploads them
    /// only when all introduction circuits are established.
    fn wait_until_published(&self, running: &mut Running, limit: Duration) -> Result<()> {
        let hsdirs = self
            .shared
            .relays
            .iter()
            .filter(|r| r.role.is_for_clients())
            .count();
        let mut uploads = Uploads::default();
        let deadline = Instant::now() + limit;
        loop {
            if let Some(event) = running.control.event(POLL_INTERVAL)? {
                uploads.record(&event);
            } else if uploads.are_complete(hsdirs.min(HSDIRS_PER_DESCRIPTOR)) {
                return Ok(());
            }
            running.tor.check_alive()?;
            if Instant::now() >= deadline {
                bail!(
                    "{} did not publish its descriptors within {} s: {uploads:?}",
                    self.name,
                    limit.as_secs()
                );
            }
        }
    }
}

/// Waits until a new descriptor gets a higher revision counter than one published before. Tor derives it from the time in
/// seconds, and HSDirs reject a descriptor whose revision counter is not higher.
fn wait_for_newer_revision() {
    let now = unix_now();
    while unix_now() <= now + 1 {
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// The descriptor uploads of a service, according to its `HS_DESC` events.
#[derive(Debug, Default)]
struct Uploads {
    /// The HSDirs to which each descriptor was sent.
    hsdirs: HashMap<String, HashSet<RelayId>>,
    started: usize,
    succeeded: usize,
    failed: usize,
}

impl Uploads {
    fn record(&mut self, event: &str) {
        let words: Vec<&str> = event.split_whitespace().collect();
        let ["HS_DESC", action, _address, _auth, hsdir, ..] = words[..] else {
            return;
        };
        match action {
            "UPLOAD" => {
                self.started += 1;
                let descriptor = words.get(5).copied().unwrap_or_default().to_owned();
                self.hsdirs
                    .entry(descriptor)
                    .or_default()
                    .extend(RelayId::from_fingerprint(hsdir));
            }
            "UPLOADED" => self.succeeded += 1,
            "FAILED" => self.failed += 1,
            _ => {}
        }
    }

    /// Whether two descriptors were sent to `hsdirs` HSDirs each and no upload is in progress.
    fn are_complete(&self, hsdirs: usize) -> bool {
        self.hsdirs.len() >= 2
            && self.hsdirs.values().all(|sent_to| sent_to.len() >= hsdirs)
            && self.succeeded > 0
            && self.succeeded + self.failed >= self.started
    }
}

/// Returns the last relays of all established introduction circuits.
fn established_introduction_points(control: &mut Control) -> Result<Vec<RelayId>> {
    let circuits = control
        .info("circuit-status")
        .context("tor returned no list of circuits")?;
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
    fn uploads_are_complete_when_all_hsdirs_have_both_descriptors_and_no_upload_is_in_progress() {
        let mut uploads = Uploads::default();
        for descriptor in ["one", "two"] {
            for hsdir in ['A', 'B'] {
                uploads.record(&event("UPLOAD", hsdir, descriptor));
            }
        }
        for ended in 0..4 {
            assert!(!uploads.are_complete(2), "after {ended} of 4 uploads");
            uploads.record(&event(
                if ended == 2 { "FAILED" } else { "UPLOADED" },
                'A',
                "",
            ));
        }
        assert!(uploads.are_complete(2));
        assert!(!uploads.are_complete(3));
        uploads.record(&event("UPLOAD", 'A', "one"));
        assert!(!uploads.are_complete(2));
    }

    #[test]
    fn uploads_of_only_one_descriptor_are_not_complete() {
        let mut uploads = Uploads::default();
        uploads.record(&event("UPLOAD", 'A', "one"));
        uploads.record(&event("UPLOADED", 'A', ""));
        assert!(!uploads.are_complete(1));
    }
}
