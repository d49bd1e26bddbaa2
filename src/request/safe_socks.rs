//! Requests that may give their user away: which are refused, and which are worth a warning.

use std::time::Duration;

use tracing::{info, warn};

use crate::config::PlaintextPorts;
use crate::failure::Failure;
use crate::log_limit::{LogLimiter, Occurrences};
use crate::request::Address;
use crate::request::address_map::AddressMap;

/// Log each warning at most this often: it is about a client's settings, not about one request.
const WARNING_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// How many requests of each kind `TestSocks` logs one by one per [`TEST_INTERVAL`]: more than one
/// person causes who tries out a program.
const MAX_TESTS: u32 = 20;
const TEST_INTERVAL: Duration = Duration::from_secs(60);

/// The checks that the user has configured, with their log limits.
#[derive(Debug)]
pub struct SafeSocks {
    safe_socks: bool,
    test_socks: bool,
    plaintext: PlaintextPorts,
    address_warnings: LogLimiter,
    port_warnings: LogLimiter,
    unsafe_tests: LogLimiter,
    safe_tests: LogLimiter,
}

impl Default for SafeSocks {
    fn default() -> Self {
        SafeSocks::new(false, false, PlaintextPorts::default())
    }
}

impl SafeSocks {
    /// Creates the checks. `safe_socks` refuses SOCKS requests that give an IP address, `test_socks`
    /// logs for each request whether it does (tor(1) `SafeSocks`, `TestSocks`); `plaintext` lists the
    /// destination ports of plaintext protocols (tor(1) `WarnPlaintextPorts`, `RejectPlaintextPorts`).
    pub fn new(safe_socks: bool, test_socks: bool, plaintext: PlaintextPorts) -> SafeSocks {
        SafeSocks {
            safe_socks,
            test_socks,
            plaintext,
            address_warnings: LogLimiter::new(WARNING_INTERVAL),
            port_warnings: LogLimiter::new(WARNING_INTERVAL),
            unsafe_tests: LogLimiter::with_burst(TEST_INTERVAL, MAX_TESTS),
            safe_tests: LogLimiter::with_burst(TEST_INTERVAL, MAX_TESTS),
        }
    }

    /// Whether a SOCKS request must be refused because it gives an IP address (`is_unsafe`), for which
    /// the client may have used a resolver outside Tor. Addresses that `address_map` replaces are
    /// exempt.
    pub(crate) fn forbids(
        &self,
        address: &Address,
        is_unsafe: bool,
        address_map: &AddressMap,
    ) -> bool {
        let is_mapped = match address {
            Address::Ip(ip) => address_map.is_mapped(*ip),
            Address::Name(_) => false,
        };
        let is_unsafe = is_unsafe && !is_mapped;
        if self.test_socks {
            let (limit, description) = match is_unsafe {
                true => (
                    &self.unsafe_tests,
                    "unsafe: a client gave an IP address, not a host name",
                ),
                false => (&self.safe_tests, "safe: a client gave a host name"),
            };
            if let Some(times) = limit.due() {
                info!("TestSocks: {description}{}", Occurrences(times));
            }
        }
        if !is_unsafe {
            return false;
        }
        if !self.test_socks
            && let Some(count) = self.address_warnings.due()
        {
            let done = if self.safe_socks { "refused" } else { "served" };
            warn!(
                "a client gives only IP addresses and may have looked up names outside Tor; have it \
                 send host names (SOCKS5 with remote DNS, or SOCKS4a); {count} {done}"
            );
        }
        self.safe_socks
    }

    /// Warns of, or refuses, a stream through an exit to a destination port whose protocol is not
    /// encrypted.
    ///
    /// # Errors
    /// [`Failure::TrafficForbidden`], if the port is configured to be refused.
    pub(crate) fn admit_port(&self, port: u16) -> Result<(), Failure> {
        let is_refused = self.plaintext.refuses(port);
        if self.plaintext.warns_of(port)
            && let Some(count) = self.port_warnings.due()
        {
            let done = if is_refused { "refused" } else { "served" };
            warn!(
                "port {port} is known for unencrypted protocols: the exit, and everyone between it and \
                 the destination, can read the stream; {count} {done}"
            );
        }
        match is_refused {
            true => Err(Failure::TrafficForbidden),
            false => Ok(()),
        }
    }
}
