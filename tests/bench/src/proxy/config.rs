//! The configuration files of the programs for the private network.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use testnet::Network;

use super::{Candidate, Program};

/// The log filter of onionport and arti: their default, without the warnings that `tor_netdir` logs
/// every second on such a small network.
const ARTI_LOG: &str = "info,tor_netdir=error";

/// Settings that some measurements change.
#[derive(Clone, Debug, Default)]
pub struct ExtraConfig {
    /// The deadline of a request, in seconds. arti has no such setting.
    pub deadline_seconds: Option<u32>,
    /// The folder of client authorization keys, in C tor's format.
    pub key_dir: Option<PathBuf>,
}

impl ExtraConfig {
    /// Writes the configuration of a program into its data folder, and returns its arguments.
    pub(super) fn write_file(
        &self,
        candidate: &Candidate,
        network: &Network,
        data_dir: &Path,
        free_port: SocketAddr,
    ) -> Result<Vec<String>> {
        let file = data_dir.join("config");
        let path = file.display().to_string();
        let (mut text, arguments) = match candidate.program {
            Program::Onionport | Program::Before => {
                let text = self.onionport_config(network.arti_config(data_dir));
                (text, vec!["-c".into(), path, "-l".into(), ARTI_LOG.into()])
            }
            Program::CTor => {
                let text = network.client_torrc(data_dir, &self.c_tor_lines());
                let defaults = ["--defaults-torrc", "/dev/null", "-f"].map(str::to_owned);
                (text, defaults.into_iter().chain([path]).collect())
            }
            Program::Arti => {
                let text = self.arti_config(network.arti_config(data_dir), free_port);
                (text, vec!["proxy".into(), "-c".into(), path])
            }
        };
        for line in &candidate.torrc_lines {
            let _ = writeln!(text, "{line}");
        }
        fs::write(file, text)?;
        Ok(arguments)
    }

    fn onionport_config(&self, mut text: String) -> String {
        text.push_str("\n[proxy]\nsocks_port = [\"auto ExtendedErrors\"]\n");
        if let Some(deadline) = self.deadline_seconds {
            let _ = writeln!(text, "socks_timeout = {deadline}");
        }
        if let Some(key_dir) = &self.key_dir {
            let _ = writeln!(
                text,
                "client_onion_auth_dir = {:?}",
                key_dir.display().to_string()
            );
        }
        text
    }

    fn c_tor_lines(&self) -> Vec<String> {
        let mut lines = vec![
            "SocksPort auto ExtendedErrors".to_owned(),
            "Log notice stdout".to_owned(),
            // The servers are on loopback.
            "ClientRejectInternalAddresses 0".to_owned(),
            "ClientDNSRejectInternalAddresses 0".to_owned(),
        ];
        if let Some(deadline) = self.deadline_seconds {
            lines.push(format!("SocksTimeout {deadline}"));
        }
        if let Some(key_dir) = &self.key_dir {
            lines.push(format!("ClientOnionAuthDir {}", key_dir.display()));
        }
        lines
    }

    fn arti_config(&self, mut text: String, port: SocketAddr) -> String {
        let port = port.port();
        let _ = write!(
            text,
            "\n[proxy]\nsocks_listen = {port}\n\n[logging]\nconsole = \"{ARTI_LOG}\"\n\n\
             [application]\nallow_running_as_root = true\n"
        );
        if let Some(key_dir) = &self.key_dir {
            let path = key_dir.display().to_string();
            let _ = write!(
                text,
                "\n[[storage.keystore.ctor.clients]]\nid = \"bench\"\npath = {path:?}\n"
            );
        }
        text
    }
}

/// Removes the access of other users to a folder, as C tor and arti require.
pub(super) fn make_private(folder: &Path) -> Result<()> {
    Ok(fs::set_permissions(
        folder,
        fs::Permissions::from_mode(0o700),
    )?)
}
