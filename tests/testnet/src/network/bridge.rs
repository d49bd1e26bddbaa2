//! Bridges: relays that no consensus lists.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::identity::read_identity;
use super::{RelayId, Shared};
use crate::control::Control;
use crate::ports::free_ports;
use crate::process::{self, Tor, find_program, retry_if_port_taken, wait_for};
use crate::sync::lock;
use crate::torrc::{Obfs4Part, RelayPart};

/// How long a bridge may take until clients can use it.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The file, relative to the bridge's folder, in which `obfs4proxy` writes a bridge line for the operator.
const BRIDGE_LINE: &str = "data/pt_state/obfs4_bridgeline.txt";

/// Settings of a bridge.
#[derive(Clone, Copy, Debug, Default)]
pub struct BridgeOptions {
    /// Whether it also accepts obfs4, on a port of its own.
    pub obfs4: bool,
}

/// A running bridge, killed when dropped.
#[derive(Debug)]
pub struct Bridge {
    name: String,
    folder: PathBuf,
    id: RelayId,
    port: u16,
    /// The port that it listens on; differs from `port` if that is the port of a forwarder.
    listen_port: u16,
    obfs4: Option<Obfs4>,
    tor: Mutex<Option<Tor>>,
    _shared: Arc<Shared>,
}

/// The obfs4 part of a bridge line.
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
        retry_if_port_taken(|| Self::start_once(shared, options))
    }

    fn start_once(shared: &Arc<Shared>, options: BridgeOptions) -> Result<Self> {
        let program = options.obfs4.then(|| find_program("obfs4proxy"));
        let program = program.transpose()?;
        let (name, folder) = shared.new_folder("bridge")?;
        let free = free_ports(2)?;
        let listen_ports = Ports {
            plain: free[0],
            obfs4: options.obfs4.then_some(free[1]),
        };
        write_torrc(shared, &name, &folder, &listen_ports, program.as_deref())?;
        let mut tor = Tor::start(&name, &folder)?;
        wait_until_ready(&name, &folder, &mut tor, options.obfs4)?;
        let id = read_identity(&folder)?;
        // Bridge lines contain the forwarders' ports. The transport's server side connects to the bridge's own port.
        let forward = |port: u16| match (&shared.forwarders, &shared.watch) {
            (Some(forwarders), Some(watch)) => {
                watch.add_forwarder(forwarders, &id, port, Duration::ZERO)
            }
            _ => Ok(port),
        };
        let port = forward(listen_ports.plain)?;
        let obfs4 = listen_ports.obfs4.map(|port| {
            Ok::<_, anyhow::Error>(Obfs4 {
                port: forward(port)?,
                settings: obfs4_settings(&folder)?,
            })
        });
        let obfs4 = obfs4.transpose()?;
        Ok(Self {
            name,
            folder,
            id,
            port,
            listen_port: listen_ports.plain,
            obfs4,
            tor: Mutex::new(Some(tor)),
            _shared: Arc::clone(shared),
        })
    }

    /// Returns the bridge's identity.
    pub fn id(&self) -> &RelayId {
        &self.id
    }

    /// Returns the bridge line for a plain connection: address and fingerprint.
    pub fn line(&self) -> String {
        format!("127.0.0.1:{} {}", self.port, self.id)
    }

    /// Returns a bridge line for a plain connection that bypasses the forwarder of a watched network, as if the bridge had
    /// moved to another port. [`Network::arrivals`](super::Network::arrivals) does not contain connections to this port.
    pub fn moved_line(&self) -> String {
        format!("127.0.0.1:{} {}", self.listen_port, self.id)
    }

    /// Returns the bridge line for obfs4, if the bridge accepts it: the same fingerprint at another port.
    pub fn obfs4_line(&self) -> Option<String> {
        let Obfs4 { port, settings } = self.obfs4.as_ref()?;
        Some(format!("obfs4 127.0.0.1:{port} {} {settings}", self.id))
    }

    /// Returns the port of [`Bridge::line`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the port of [`Bridge::obfs4_line`].
    pub fn obfs4_port(&self) -> Option<u16> {
        self.obfs4.as_ref().map(|obfs4| obfs4.port)
    }

    /// Stops the bridge (SIGSTOP): the system accepts connections, but the bridge does not answer.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Continues a stopped bridge (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Kills the bridge (SIGKILL). Does nothing if it does not run.
    pub fn kill(&self) {
        drop(lock(&self.tor).take());
    }

    /// Kills the bridge if it runs, starts it with the same keys and ports, and waits until it is ready.
    ///
    /// # Errors
    /// When tor ends, or is not ready within a minute.
    pub fn restart(&self) -> Result<()> {
        let mut slot = lock(&self.tor);
        drop(slot.take());
        let mut tor = Tor::start(&self.name, &self.folder)?;
        wait_until_ready(&self.name, &self.folder, &mut tor, self.obfs4.is_some())?;
        *slot = Some(tor);
        Ok(())
    }

    /// Returns the path of its log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(&self.tor, &self.name, signal)
    }
}

fn write_torrc(
    shared: &Shared,
    name: &str,
    folder: &Path,
    listen_ports: &Ports,
    program: Option<&Path>,
) -> Result<()> {
    let part = RelayPart {
        nickname: name,
        or_port: listen_ports.plain,
        listen_port: None,
        exit: false,
        resolv_conf: Path::new("/dev/null"),
    };
    let obfs4 = listen_ports.obfs4.zip(program);
    let obfs4 = obfs4.map(|(port, program)| Obfs4Part { program, port });
    let text = shared.common.relay(folder, &part) + &shared.common.bridge(obfs4.as_ref());
    fs::write(folder.join("torrc"), text).context("cannot write the bridge's torrc")
}

/// Waits until a bridge has directory information and its transport listens.
fn wait_until_ready(name: &str, folder: &Path, tor: &mut Tor, obfs4: bool) -> Result<()> {
    let mut control = None;
    wait_for(&format!("{name} to be ready"), READY_LIMIT, || {
        tor.check_alive()?;
        if control.is_none() {
            control = Control::connect(folder).ok();
        }
        let Some(control) = &mut control else {
            return Ok(None);
        };
        let is_listening = !obfs4 || obfs4_settings(folder).is_ok();
        Ok((control.has_directory() && is_listening).then_some(()))
    })
}

/// Reads `cert=… iat-mode=…` from the bridge line that `obfs4proxy` has written for the operator.
fn obfs4_settings(folder: &Path) -> Result<String> {
    let text = fs::read_to_string(folder.join(BRIDGE_LINE))?;
    let line = text.lines().find(|line| line.starts_with("Bridge obfs4 "));
    let settings = line.and_then(|line| Some(&line[line.find("cert=")?..]));
    let settings = settings.context("obfs4proxy wrote no bridge line")?;
    Ok(settings.trim().to_owned())
}
