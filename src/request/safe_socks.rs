//! Requests that may give their user away: what is refused, and what is worth a warning.

use std::time::Duration;

use tracing::{info, warn};

use crate::config::PlaintextPorts;
use crate::failure::Failure;
use crate::log_limit::{LogLimiter, Times};
use crate::request::Address;
use crate::request::address_map::AddressMap;

/// How often the same advice is given: it is about how a program is set up, not about one request.
const ADVICE: Duration = Duration::from_secs(10 * 60);

/// How many requests of each kind `TestSocks` logs one by one in each interval of [`TESTS`]: more than
/// somebody sees who tries a program.
const MAX_TESTS: u32 = 20;
const TESTS: Duration = Duration::from_secs(60);

/// What the user wants to have watched.
#[derive(Debug)]
pub struct SafeSocks {
    safe_socks: bool,
    test_socks: bool,
    plaintext: PlaintextPorts,
    addresses: LogLimiter,
    ports: LogLimiter,
    unsafe_tests: LogLimiter,
    safe_tests: LogLimiter,
}

impl Default for SafeSocks {
    fn default() -> Self {
        SafeSocks::new(false, false, PlaintextPorts::default())
    }
}

impl SafeSocks {
    /// `safe_socks`: refuse SOCKS requests that give an IP address; `test_socks`: log of each
    /// whether it does (tor(1) `SafeSocks`, `TestSocks`).
    pub fn new(safe_socks: bool, test_socks: bool, plaintext: PlaintextPorts) -> SafeSocks {
        SafeSocks {
            safe_socks,
            test_socks,
            plaintext,
            addresses: LogLimiter::new(ADVICE),
            ports: LogLimiter::new(ADVICE),
            unsafe_tests: LogLimiter::burst(TESTS, MAX_TESTS),
            safe_tests: LogLimiter::burst(TESTS, MAX_TESTS),
        }
    }

    /// Whether a SOCKS request is to be refused because it gives an IP address (`is_unsafe`): the client
    /// may have asked a resolver outside Tor. Addresses that `names` stand in for are exempt.
    pub fn forbids(&self, address: &Address, is_unsafe: bool, names: &AddressMap) -> bool {
        let covered = match address {
            Address::Ip(ip) => names.covers(*ip),
            Address::Name(_) => false,
        };
        let unsafe_request = is_unsafe && !covered;
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
