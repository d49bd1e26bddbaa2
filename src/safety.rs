//! Requests that may give their user away: what is refused, and what is worth a warning.

use std::fmt;
use std::time::Duration;

use tracing::{info, warn};

use crate::failure::Failure;
use crate::names::Names;
use crate::rarely::{Rarely, Times};
use crate::request::Address;
use crate::socks::Request;

/// How often the same advice is given: it is about how a program is set up, not about one request.
const ADVICE: Duration = Duration::from_secs(10 * 60);

/// How many requests of each kind `TestSocks` logs one by one in each interval of [`TESTS`]: more than
/// somebody sees who tries a program.
const MAX_TESTS: u32 = 20;
const TESTS: Duration = Duration::from_secs(60);

/// What the user wants to have watched.
#[derive(Debug)]
pub struct Safety {
    safe_socks: bool,
    test_socks: bool,
    plaintext: Plaintext,
    addresses: Rarely,
    ports: Rarely,
    unsafe_tests: Rarely,
    safe_tests: Rarely,
}

impl Default for Safety {
    fn default() -> Self {
        Safety::new(false, false, Plaintext::default())
    }
}

impl Safety {
    /// `safe_socks`: refuse SOCKS requests that give an IP address; `test_socks`: log of each
    /// whether it does (tor(1) `SafeSocks`, `TestSocks`).
    pub fn new(safe_socks: bool, test_socks: bool, plaintext: Plaintext) -> Safety {
        Safety {
            safe_socks,
            test_socks,
            plaintext,
            addresses: Rarely::new(ADVICE),
            ports: Rarely::new(ADVICE),
            unsafe_tests: Rarely::burst(TESTS, MAX_TESTS),
            safe_tests: Rarely::burst(TESTS, MAX_TESTS),
        }
    }

    /// Whether the request is to be refused because it gives an IP address: the client may have
    /// asked a resolver outside Tor. Addresses that `names` stand in for are exempt.
    pub fn forbids(&self, request: &Request, names: &Names) -> bool {
        let covered = match &request.address {
            Address::Ip(ip) => names.covers(*ip),
            Address::Name(_) => false,
        };
        let unsafe_request = request.is_unsafe() && !covered;
        if self.test_socks {
            let (limit, verdict) = match unsafe_request {
                true => (
                    &self.unsafe_tests,
                    "unsafe: a client gave an IP address, not a host name",
                ),
                false => (&self.safe_tests, "safe: a client gave a host name"),
            };
            if let Some(times) = limit.due() {
                info!("TestSocks: {verdict}{}", Times(times));
            }
        }
        if !unsafe_request {
            return false;
        }
        if !self.test_socks
            && let Some(count) = self.addresses.due()
        {
            let done = if self.safe_socks { "refused" } else { "served" };
            warn!(
                "a client gives only IP addresses and may have looked up names outside Tor; have it \
                 send host names (SOCKS5 with remote DNS, or SOCKS4a); {count} {done}"
            );
        }
        self.safe_socks
    }

    /// Whether a stream to this port of a host may be opened through an exit, which sees what is
    /// said on it.
    pub fn admit_port(&self, port: u16) -> Result<(), Failure> {
        let refused = self.plaintext.refuses(port);
        if self.plaintext.warns_of(port)
            && let Some(count) = self.ports.due()
        {
            let done = if refused { "refused" } else { "served" };
            warn!(
                "port {port} is known for protocols without encryption: what is said there can be \
                 read on its way from the exit; {count} {done}"
            );
        }
        match refused {
            true => Err(Failure::TrafficForbidden),
            false => Ok(()),
        }
    }
}

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
