//! The configuration of each program for the private network.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use testnet::Network;

use super::{Candidate, Kind};

/// What the arti programs log: as they do by default, but for one complaint, which comes every second
/// on so small a network.
const ARTI_LOG: &str = "info,tor_netdir=error";

/// Settings beyond the defaults.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// How long a request may take, in seconds. arti has no such setting.
    pub deadline: Option<u32>,
    /// The folder with client authorization keys, in C tor's format.
    pub keys: Option<PathBuf>,
}

impl Setup {
    /// Writes the configuration of a program into its folder; gives its arguments.
    pub(super) fn write(
        &self,
        candidate: &Candidate,
        network: &Network,
        home: &Path,
        free_port: SocketAddr,
    ) -> Result<Vec<String>> {
        let file = home.join("config");
        let path = file.display().to_string();
        let (mut text, arguments) = match candidate.kind {
            Kind::Onionport | Kind::Before => {
                let text = self.onionport(network.arti_config(home));
                (text, vec!["-c".into(), path, "-l".into(), ARTI_LOG.into()])
            }
            Kind::CTor => {
                let text = network.client_torrc(home, &self.c_tor());
                let defaults = ["--defaults-torrc", "/dev/null", "-f"].map(str::to_owned);
                (text, defaults.into_iter().chain([path]).collect())
            }
            Kind::Arti => {
                let text = self.arti(network.arti_config(home), free_port);
                (text, vec!["proxy".into(), "-c".into(), path])
            }
        };
        for line in &candidate.lines {
            let _ = writeln!(text, "{line}");
        }
        fs::write(file, text)?;
        Ok(arguments)
    }

    fn onionport(&self, mut text: String) -> String {
        text.push_str("\n[proxy]\nsocks_port = [\"auto ExtendedErrors\"]\n");
        if let Some(deadline) = self.deadline {
            let _ = writeln!(text, "socks_timeout = {deadline}");
        }
        if let Some(keys) = &self.keys {
            let _ = writeln!(
                text,
                "client_onion_auth_dir = {:?}",
                keys.display().to_string()
            );
        }
        text
    }

    fn c_tor(&self) -> Vec<String> {
        let mut lines = vec![
            "SocksPort auto ExtendedErrors".to_owned(),
            "Log notice stdout".to_owned(),
            // Everything here is on loopback.
            "ClientRejectInternalAddresses 0".to_owned(),
            "ClientDNSRejectInternalAddresses 0".to_owned(),
        ];
        if let Some(deadline) = self.deadline {
            lines.push(format!("SocksTimeout {deadline}"));
        }
        if let Some(keys) = &self.keys {
            lines.push(format!("ClientOnionAuthDir {}", keys.display()));
        }
        lines
    }

    fn arti(&self, mut text: String, port: SocketAddr) -> String {
        let port = port.port();
        let _ = write!(
            text,
            "\n[proxy]\nsocks_listen = {port}\n\n[logging]\nconsole = \"{ARTI_LOG}\"\n\n\
             [application]\nallow_running_as_root = true\n"
        );
        if let Some(keys) = &self.keys {
            let path = keys.display().to_string();
            let _ = write!(
                text,
                "\n[[storage.keystore.ctor.clients]]\nid = \"bench\"\npath = {path:?}\n"
            );
        }
        text
    }
}

/// Shuts others out of a folder, as C tor and arti want it.
pub(super) fn make_private(folder: &Path) -> Result<()> {
    Ok(fs::set_permissions(
        folder,
        fs::Permissions::from_mode(0o700),
    )?)
}
