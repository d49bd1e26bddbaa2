//! The relays of a network, and what each is there for.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, anyhow};
use nix::sys::signal::Signal;

use crate::control::Control;
use crate::process::Tor;

/// A relay or authority, named by the fingerprint of its RSA identity (40 upper case hex digits).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId(String);

impl RelayId {
    /// Takes a fingerprint with or without `$` before and `~nickname` or `=nickname` behind it.
    pub(crate) fn from_fingerprint(text: &str) -> Option<Self> {
        let hex: String = text
            .trim_start_matches('$')
            .chars()
            .take_while(char::is_ascii_hexdigit)
            .collect();
        (hex.len() == 40).then(|| Self(hex.to_ascii_uppercase()))
    }

    /// The fingerprint: 40 upper case hex digits.
    pub fn fingerprint(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a relay is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A directory authority, which is also a relay with all flags.
    Authority,
    /// A relay with all flags: guard, exit, onion service directory.
    Relay,
    /// A relay that is neither guard nor exit nor onion service directory: see [`NetworkBuilder::spare_relays`](super::NetworkBuilder::spare_relays).
    Spare,
    /// A guard and middle hop for the services that have their introduction points on spare relays, and nothing else. There
    /// are four of these if there are spare relays.
    SparePath,
}

impl Role {
    /// Whether clients use it.
    pub(crate) fn is_common(self) -> bool {
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
    /// Where the network reaches it.
    pub(super) or_port: u16,
    /// Where it listens, if that is behind a front.
    pub(super) behind: Option<u16>,
    /// Only of an authority.
    pub(super) v3ident: Option<String>,
    pub(super) folder: PathBuf,
    pub(super) tor: Mutex<Option<Tor>>,
}

impl Relay {
    pub(super) fn control(&self) -> Result<Control> {
        Control::connect(&self.folder.join("control"))
    }

    /// The running process, or none after a kill.
    pub(crate) fn tor(&self) -> MutexGuard<'_, Option<Tor>> {
        self.tor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check_alive(&self) -> Result<()> {
        self.tor().as_mut().map_or(Ok(()), Tor::check_alive)
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        self.tor()
            .as_mut()
            .ok_or_else(|| anyhow!("{} is not running", self.nickname))?
            .signal(signal)
    }
}
