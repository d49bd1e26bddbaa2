//! Names that stand for others.

use crate::failure::Failure;
use crate::request::{Answer, Request};

/// What the user has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `FROM TO` pairs, the last of those with the same `FROM` counting (tor(1) `MapAddress`).
    pub map: Vec<String>,
    /// Whether looking up some names gives an address that stands for the name (tor(1)
    /// `AutomapHostsOnResolve`).
    pub automap: bool,
    /// The ends of those names (`AutomapHostsSuffixes`).
    pub suffixes: Vec<String>,
    /// Where those addresses are taken from (`VirtualAddrNetworkIPv4`).
    pub network_v4: String,
    /// The same for IPv6 (`VirtualAddrNetworkIPv6`).
    pub network_v6: String,
}

impl Default for Settings {
    /// tor(1)'s defaults.
    fn default() -> Self {
        Settings {
            map: Vec::new(),
            automap: false,
            suffixes: vec![".onion".to_owned(), ".exit".to_owned()],
            network_v4: "127.192.0.0/10".to_owned(),
            network_v6: "[FE80::]/10".to_owned(),
        }
    }
}

impl Settings {
    /// Whether [`Names`] can be made of these. The error names the key of the configuration, and
    /// says what is wrong and what to do.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        Ok(())
    }
}

/// What names stand for.
#[derive(Debug, Default)]
pub struct Names {}

/// What a request is, once its names are put in.
#[derive(Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// The request to serve.
    Request(Request),
    /// The answer: the network needs not be asked.
    Answer(Answer),
}

impl Names {
    /// The names that these settings give.
    pub fn new(_settings: &Settings) -> Names {
        Names {}
    }

    /// Whether a line covers this address.
    pub fn covers(&self, _ip: std::net::IpAddr) -> bool {
        false
    }

    /// Puts in what the request's name stands for.
    pub fn rewrite(&self, request: &Request) -> Result<Rewritten, Failure> {
        Ok(Rewritten::Request(request.clone()))
    }
}
