//! The relays of a network and their roles.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::control::Control;
use crate::process::{self, Tor, wait_for};
use crate::sync::lock;

/// How long a `tor` may take until its control socket answers.
const SOCKET_LIMIT: Duration = Duration::from_secs(30);

/// How long a relay may take to get the consensus.
const DIRECTORY_LIMIT: Duration = Duration::from_secs(60);

/// The identity of a relay or authority: the fingerprint of its RSA key, 40 upper-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId(String);

impl RelayId {
    /// Parses a fingerprint with an optional `$` before it and an optional `~nickname` or `=nickname` after it.
    pub(crate) fn from_fingerprint(text: &str) -> Option<Self> {
        let hex: String = text
            .trim_start_matches('$')
            .chars()
            .take_while(char::is_ascii_hexdigit)
            .collect();
        (hex.len() == 40).then(|| Self(hex.to_ascii_uppercase()))
    }

    /// Returns the fingerprint: 40 upper-case hex digits.
    pub fn fingerprint(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The purpose of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A directory authority, which is also a relay with all flags.
    Authority,
    /// A relay with all flags: guard, exit, HSDir.
    Relay,
    /// A relay that is neither guard nor exit nor HSDir; see
    /// [`NetworkBuilder::spare_relays`](super::NetworkBuilder::spare_relays).
    Spare,
    /// A guard and middle hop for the services that have their introduction points on spare relays, and for nothing else. A
    /// network with spare relays has four of these.
    SparePath,
}

impl Role {
    /// Whether clients use relays with this role.
    pub(crate) fn is_for_clients(self) -> bool {
        matches!(self, Self::Authority | Self::Relay)
    }
}

/// One relay or authority.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) id: RelayId,
    pub(crate) role: Role,
    pub(crate) nickname: String,
    pub(super) ed_identity: String,
    /// The port that the network knows.
    pub(super) or_port: u16,
    /// The port that it listens on, if `or_port` is that of a forwarder.
    pub(super) listen_port: Option<u16>,
    /// The fingerprint of an authority's signing identity; `None` for other relays.
    pub(super) v3ident: Option<String>,
    pub(super) folder: PathBuf,
    pub(super) tor: Mutex<Option<Tor>>,
}

impl Relay {
    /// Waits until its control socket accepts connections.
    pub(super) fn wait_for_control(&self) -> Result<Control> {
        // Not `Tor::wait_for_control`, which would keep the process locked during the wait.
        let what = format!("the control socket of {}", self.nickname);
        wait_for(&what, SOCKET_LIMIT, || {
            self.check_alive()?;
            Ok(Control::connect(&self.folder).ok())
        })
    }

    /// Waits until it has the consensus and the descriptors of the other relays.
    pub(super) fn wait_for_directory(&self) -> Result<()> {
        let mut control = self.wait_for_control()?;
        let what = format!("the consensus at {}", self.nickname);
        wait_for(&what, DIRECTORY_LIMIT, || {
            self.check_alive()?;
            Ok(control.has_directory().then_some(()))
        })
    }

    /// Returns the running process, or `None` after it was killed.
    pub(crate) fn tor(&self) -> MutexGuard<'_, Option<Tor>> {
        lock(&self.tor)
    }

    pub(super) fn check_alive(&self) -> Result<()> {
        self.tor().as_mut().map_or(Ok(()), Tor::check_alive)
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(&self.tor, &self.nickname, signal)
    }
}
