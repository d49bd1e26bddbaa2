//! Destination ports of protocols that send passwords in plain text.

use std::fmt;

/// Destination ports of protocols that send passwords in plain text (tor(1) `WarnPlaintextPorts`,
/// `RejectPlaintextPorts`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaintextPorts {
    warn: Vec<u16>,
    reject: Vec<u16>,
}

/// tor(1)'s default: telnet, POP2, POP3 and IMAP.
const WARN: [u16; 4] = [23, 109, 110, 143];

impl PlaintextPorts {
    /// Takes the ports to warn about, `None` for tor(1)'s default, and the ports to refuse.
    pub fn new(warn: Option<Vec<u16>>, reject: Vec<u16>) -> PlaintextPorts {
        PlaintextPorts {
            warn: warn.unwrap_or(WARN.to_vec()),
            reject,
        }
    }

    /// Whether to refuse requests for this port.
    pub fn refuses(&self, port: u16) -> bool {
        self.reject.contains(&port)
    }

    /// Whether to warn about requests for this port; true for refused ports too.
    pub(crate) fn warns_of(&self, port: u16) -> bool {
        self.warn.contains(&port) || self.refuses(port)
    }
}

impl Default for PlaintextPorts {
    fn default() -> Self {
        PlaintextPorts::new(None, Vec::new())
    }
}

impl fmt::Display for PlaintextPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ports: &[u16]| match ports {
            [] => "none".to_owned(),
            ports => ports
                .iter()
                .map(u16::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        };
        let (warn, reject) = (list(&self.warn), list(&self.reject));
        write!(f, "plain-text ports: warn about {warn}; refuse {reject}")
    }
}
