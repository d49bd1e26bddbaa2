//! C tor clients, whose replies are compared with those of other clients.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::control::Control;
use crate::network::Shared;
use crate::ports::free_ports;
use crate::process::{Tor, retry_if_port_taken, wait_for};
use crate::sync::lock;
use crate::workdir::private_folder;

/// How long a client may take until its control socket answers, and again until it is bootstrapped.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(60);

/// Settings of a C tor client.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// Its `ClientOnionAuthDir`. Created with mode 0700 if missing, since tor does not start without it.
    pub onion_auth_dir: Option<PathBuf>,
    /// Further lines for its torrc.
    pub extra_torrc_lines: Vec<String>,
}

/// A running C tor client with two SOCKS ports, killed when dropped.
#[derive(Debug)]
pub struct CTor {
    tor: Mutex<Tor>,
    control: Mutex<Control>,
    folder: PathBuf,
    extended_port: SocketAddr,
    plain_port: SocketAddr,
    _shared: Arc<Shared>,
}

impl CTor {
    pub(crate) fn start(shared: &Arc<Shared>, options: &ClientOptions) -> Result<Self> {
        retry_if_port_taken(|| Self::start_once(shared, options))
    }

    fn start_once(shared: &Arc<Shared>, options: &ClientOptions) -> Result<Self> {
        let (name, folder) = shared.new_folder("client")?;
        let ports = free_ports(2)?;
        let [extended_port, plain_port] =
            [ports[0], ports[1]].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let mut lines = vec![
            format!("SocksPort {extended_port} ExtendedErrors"),
            format!("SocksPort {plain_port}"),
            "ClientRejectInternalAddresses 0".to_owned(),
            "ClientDNSRejectInternalAddresses 0".to_owned(),
        ];
        if let Some(auth_dir) = &options.onion_auth_dir {
            private_folder(auth_dir)?;
            lines.push(format!("ClientOnionAuthDir {}", auth_dir.display()));
        }
        lines.extend(options.extra_torrc_lines.iter().cloned());
        fs::write(folder.join("torrc"), shared.common.client(&folder, &lines))?;
        let mut tor = Tor::start(&name, &folder)?;
        let mut control = tor.wait_for_control(BOOTSTRAP_LIMIT)?;
        wait_for(&format!("{name} to bootstrap"), BOOTSTRAP_LIMIT, || {
            tor.check_alive()?;
            let phase = control.info("status/bootstrap-phase").unwrap_or_default();
            Ok(phase.contains("PROGRESS=100 ").then_some(()))
        })?;
        let (tor, control) = (Mutex::new(tor), Mutex::new(control));
        Ok(Self {
            tor,
            control,
            folder,
            extended_port,
            plain_port,
            _shared: Arc::clone(shared),
        })
    }

    /// Returns the SOCKS port with the flag `ExtendedErrors`.
    pub fn extended_port(&self) -> SocketAddr {
        self.extended_port
    }

    /// Returns the SOCKS port without flags.
    pub fn plain_port(&self) -> SocketAddr {
        self.plain_port
    }

    /// Returns the address of a listener on `ip` whose port the system chose, as for the line `DNSPort IP:auto`. `kind` is a
    /// key of `GETINFO net/listeners`: `socks`, `httptunnel`, `dns`, `trans`.
    ///
    /// # Errors
    /// When it has no such listener, or has ended.
    pub fn listener(&self, kind: &str, ip: Ipv4Addr) -> Result<SocketAddr> {
        let listeners = self
            .control(&format!("GETINFO net/listeners/{kind}"))?
            .join(" ");
        let (_, rest) = listeners
            .split_once(&format!("\"{ip}:"))
            .with_context(|| format!("no {kind} listener on {ip}: {listeners}"))?;
        let port = rest.split('"').next().unwrap_or_default().parse()?;
        Ok(SocketAddr::new(ip.into(), port))
    }

    /// Returns the path of its log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        lock(&self.tor).pid()
    }

    /// Sends a command such as `SIGNAL NEWNYM` or `SIGNAL HUP` to its control port, and returns the lines of the answer.
    ///
    /// # Errors
    /// When tor refuses the command, or has ended.
    pub fn control(&self, command: &str) -> Result<Vec<String>> {
        lock(&self.control)
            .command(command)
            .with_context(|| format!("the C tor client in {}", self.folder.display()))
    }
}
