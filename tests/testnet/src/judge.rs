//! A C tor client, whose answers ours are judged by.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::control::Control;
use crate::network::{POLL, Shared};
use crate::ports::free_ports;
use crate::process::{PortTaken, Tor, wait_for};
use crate::workdir::private_folder;

/// How often another pair of ports is tried.
const STARTS: usize = 3;

/// How long a client may take until it is ready.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(60);

/// Settings of a C tor client.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// Its `ClientOnionAuthDir`; made (mode 0700) if missing, for tor refuses to start without it.
    pub onion_auth_dir: Option<PathBuf>,
    /// More lines for its torrc.
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
        for _ in 1..STARTS {
            match Self::start_once(shared, options) {
                Err(error) if error.is::<PortTaken>() => {}
                result => return result,
            }
        }
        Self::start_once(shared, options)
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
        let mut control = wait_for(
            &format!("the control socket of {name}"),
            BOOTSTRAP_LIMIT,
            POLL,
            || {
                tor.check_alive()?;
                Ok(Control::connect(&folder.join("control")).ok())
            },
        )?;
        wait_for(
            &format!("{name} to bootstrap"),
            BOOTSTRAP_LIMIT,
            POLL,
            || {
                tor.check_alive()?;
                let phase = control.info("status/bootstrap-phase").unwrap_or_default();
                Ok(phase.contains("PROGRESS=100 ").then_some(()))
            },
        )?;
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

    /// The SOCKS port with the flag `ExtendedErrors`.
    pub fn extended_port(&self) -> SocketAddr {
        self.extended_port
    }

    /// The SOCKS port without flags.
    pub fn plain_port(&self) -> SocketAddr {
        self.plain_port
    }

    /// Where it listens on `ip` with a port that the system chose (`auto`), for example on the line `DNSPort IP:auto`.
    /// `kind` is tor's word for it: `socks`, `httptunnel`, `dns`, `trans`.
    ///
    /// # Errors
    /// When it does not listen there, or has ended.
    pub fn listener(&self, kind: &str, ip: Ipv4Addr) -> Result<SocketAddr> {
        let listeners = self
            .control(&format!("GETINFO net/listeners/{kind}"))?
            .join(" ");
        let (_, rest) = listeners
            .split_once(&format!("\"{ip}:"))
            .with_context(|| format!("no {kind} on {ip}: {listeners}"))?;
        let port = rest.split('"').next().unwrap_or_default().parse()?;
        Ok(SocketAddr::new(ip.into(), port))
    }

    /// Its log file.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Its process id, for measuring what it uses.
    pub fn pid(&self) -> u32 {
        self.tor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pid()
    }

    /// Sends a command to its control port, such as `SIGNAL NEWNYM` or `SIGNAL HUP`, and gives the lines of the answer.
    ///
    /// # Errors
    /// When tor refuses the command, or has ended.
    pub fn control(&self, command: &str) -> Result<Vec<String>> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control
            .command(command)
            .with_context(|| format!("the C tor client in {}", self.folder.display()))
    }
}
