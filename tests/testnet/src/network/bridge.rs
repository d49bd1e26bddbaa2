//! Bridges: relays that no consensus lists.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;

use super::{POLL, RelayId, Shared};
use crate::control::Control;
use crate::ports::free_ports;
use crate::process::{PortTaken, Tor, find_program, wait_for};
use crate::torrc::{Obfs4Part, RelayPart};

/// How often other ports are tried.
const STARTS: usize = 3;

/// How long a bridge may take until it can serve clients.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// What `obfs4proxy` leaves in the bridge's data folder.
const BRIDGE_LINE: &str = "data/pt_state/obfs4_bridgeline.txt";

/// Settings of a bridge.
#[derive(Clone, Copy, Debug, Default)]
pub struct BridgeOptions {
    /// Whether it can be reached by obfs4 too, on a port of its own.
    pub obfs4: bool,
}

/// A running bridge, killed when dropped.
#[derive(Debug)]
pub struct Bridge {
    name: String,
    folder: PathBuf,
    id: RelayId,
    port: u16,
    /// The port behind the front; the same as `port` if there is no front.
    own_port: u16,
    obfs4: Option<Obfs4>,
    tor: Mutex<Option<Tor>>,
    _shared: Arc<Shared>,
}

/// How a bridge is reached by obfs4.
#[derive(Debug)]
struct Obfs4 {
    port: u16,
    /// `cert=… iat-mode=…`
    settings: String,
}

/// The ports that a bridge listens on.
struct Ports {
    plain: u16,
    obfs4: Option<u16>,
}

impl Bridge {
    pub(crate) fn start(shared: &Arc<Shared>, options: BridgeOptions) -> Result<Self> {
        for _ in 1..STARTS {
            match Self::start_once(shared, options) {
                Err(error) if error.is::<PortTaken>() => {}
                result => return result,
            }
        }
        Self::start_once(shared, options)
    }

    fn start_once(shared: &Arc<Shared>, options: BridgeOptions) -> Result<Self> {
        let program = options.obfs4.then(|| find_program("obfs4proxy"));
        let program = program.transpose()?;
        let (name, folder) = shared.new_folder("bridge")?;
        let found = free_ports(2)?;
        let own = Ports {
            plain: found[0],
            obfs4: options.obfs4.then_some(found[1]),
        };
        write_torrc(shared, &name, &folder, &own, program.as_deref())?;
        let mut tor = Tor::start(&name, &folder)?;
        wait_until_ready(&name, &folder, &mut tor, options.obfs4)?;
        let text = fs::read_to_string(folder.join("data/fingerprint"))?;
        let id = text
            .split_whitespace()
            .nth(1)
            .and_then(RelayId::from_fingerprint);
        let id = id.with_context(|| format!("no fingerprint: {text:?}"))?;
        // Clients are told of the fronts. The transport's server side connects to the port behind.
        let front = |port: u16| match (&shared.distance, &shared.watch) {
            (Some(distance), Some(watch)) => watch.front(distance, &id, port, Duration::ZERO),
            _ => Ok(port),
        };
        let port = front(own.plain)?;
        let obfs4 = own.obfs4.map(|port| {
            Ok::<_, anyhow::Error>(Obfs4 {
                port: front(port)?,
                settings: obfs4_settings(&folder)?,
            })
        });
        let obfs4 = obfs4.transpose()?;
        Ok(Self {
            name,
            folder,
            id,
            port,
            own_port: own.plain,
            obfs4,
            tor: Mutex::new(Some(tor)),
            _shared: Arc::clone(shared),
        })
    }

    /// Its identity.
    pub fn id(&self) -> &RelayId {
        &self.id
    }

    /// The bridge line for a plain connection: address and fingerprint.
    pub fn line(&self) -> String {
        format!("127.0.0.1:{} {}", self.port, self.id)
    }

    /// The bridge line for a plain connection past the front of a watched network, as if the bridge had moved to another
    /// port. Nobody notes who comes there.
    pub fn moved_line(&self) -> String {
        format!("127.0.0.1:{} {}", self.own_port, self.id)
    }

    /// The bridge line for obfs4, if it has that: the same fingerprint behind another port.
    pub fn obfs4_line(&self) -> Option<String> {
        let Obfs4 { port, settings } = self.obfs4.as_ref()?;
        Some(format!("obfs4 127.0.0.1:{port} {} {settings}", self.id))
    }

    /// The port of [`Bridge::line`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of [`Bridge::obfs4_line`].
    pub fn obfs4_port(&self) -> Option<u16> {
        self.obfs4.as_ref().map(|obfs4| obfs4.port)
    }

    /// Stops it (SIGSTOP): connections are taken by the system, and nobody answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Kills it (SIGKILL). Nothing happens if it does not run.
    pub fn kill(&self) {
        drop(self.tor().take());
    }

    /// Starts it again with the same keys and ports, killing it first if it runs, and waits until it is ready.
    ///
    /// # Errors
    /// When tor ends, or is not ready within a minute.
    pub fn restart(&self) -> Result<()> {
        let mut slot = self.tor();
        drop(slot.take());
        let mut tor = Tor::start(&self.name, &self.folder)?;
        wait_until_ready(&self.name, &self.folder, &mut tor, self.obfs4.is_some())?;
        *slot = Some(tor);
        Ok(())
    }

    /// Its log file.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let mut tor = self.tor();
        let tor = tor.as_mut();
        tor.ok_or_else(|| anyhow!("{} is not running", self.name))?
            .signal(signal)
    }

    fn tor(&self) -> MutexGuard<'_, Option<Tor>> {
        self.tor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_torrc(
    shared: &Shared,
    name: &str,
    folder: &Path,
    own: &Ports,
    program: Option<&Path>,
) -> Result<()> {
    let part = RelayPart {
        nickname: name,
        or_port: own.plain,
        behind: None,
        exit: false,
        resolv_conf: Path::new("/dev/null"),
    };
    let obfs4 = own.obfs4.zip(program);
    let obfs4 = obfs4.map(|(port, program)| Obfs4Part { program, port });
    let text = shared.common.relay(folder, &part) + &shared.common.bridge(obfs4.as_ref());
    fs::write(folder.join("torrc"), text).context("cannot write the bridge's torrc")
}

/// Waits until a bridge knows the network, and its transport listens.
fn wait_until_ready(name: &str, folder: &Path, tor: &mut Tor, obfs4: bool) -> Result<()> {
    let mut control = None;
    wait_for(&format!("{name} to be ready"), READY_LIMIT, POLL, || {
        tor.check_alive()?;
        if control.is_none() {
            control = Control::connect(&folder.join("control")).ok();
        }
        let Some(control) = &mut control else {
            return Ok(None);
        };
        let informed = control.info("status/enough-dir-info").as_deref() == Some("1");
        let listening = !obfs4 || obfs4_settings(folder).is_ok();
        Ok((informed && listening).then_some(()))
    })
}

/// `cert=… iat-mode=…` of the line that `obfs4proxy` has written for the operator to complete.
fn obfs4_settings(folder: &Path) -> Result<String> {
    let text = fs::read_to_string(folder.join(BRIDGE_LINE))?;
    let line = text.lines().find(|line| line.starts_with("Bridge obfs4 "));
    let settings = line.and_then(|line| Some(&line[line.find("cert=")?..]));
    let settings = settings.context("obfs4proxy has written no bridge line")?;
    Ok(settings.trim().to_owned())
}
