//! Ports whose protocols send passwords in plain text.

use std::fmt;

/// Destination ports of protocols that send passwords in plain text (tor(1) `WarnPlaintextPorts`,
/// `RejectPlaintextPorts`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plaintext {
    warn: Vec<u16>,
    reject: Vec<u16>,
}

/// tor(1)'s default: telnet, POP2, POP3 and IMAP.
const WARN: [u16; 4] = [23, 109, 110, 143];

impl Default for Plaintext {
    fn default() -> Self {
        Plaintext::new(None, Vec::new())
    }
}

impl Plaintext {
    /// `warn`: the ports to warn of, `None` for tor(1)'s; `reject`: those to refuse.
    pub fn new(warn: Option<Vec<u16>>, reject: Vec<u16>) -> Plaintext {
        Plaintext {
            warn: warn.unwrap_or(WARN.to_vec()),
            reject,
        }
    }

    /// Whether requests for this port are refused.
    pub fn refuses(&self, port: u16) -> bool {
        self.reject.contains(&port)
    }

    /// Whether requests for this port are worth a warning.
    pub fn warns_of(&self, port: u16) -> bool {
        self.warn.contains(&port) || self.refuses(port)
    }
}

impl fmt::Display for Plaintext {
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
        write!(f, "plain-text ports: warn of {warn}; refuse {reject}")
    }
}
