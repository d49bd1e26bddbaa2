//! What every port does with a request, whatever protocol brought it: names, rules, isolation, and
//! then the network.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::config::access::Access;
use crate::failure::Failure;
use crate::request::address_map::{AddressMap, Rewritten};
use crate::request::policy::{self, Rules};
use crate::request::safe_socks::SafeSocks;
use crate::request::status::Status;
use crate::request::{Address, Answer, ClientAddr, Command, Request};
use crate::tor::connector::{Connector, Stream};
use crate::tor::destination::{Family, Permit};
use crate::tor::isolation::{Facts, Isolation, SessionGroup};
use crate::tor::optimistic_data::OptimisticData;

/// One port's way to the network.
pub struct Dispatcher<T> {
    /// The network.
    pub tor: Arc<T>,
    /// What the port may ask for.
    pub rules: Rules,
    /// The group of streams that the port belongs to.
    pub group: SessionGroup,
    /// How long a client may take for its handshake, and then a request until its answer
    /// (`socks_timeout`).
    pub timeout: Duration,
    /// What all ports have in common.
    pub shared: Arc<Shared>,
}

/// What all ports have in common, beside the network.
#[derive(Default)]
pub struct Shared {
    /// Which clients may connect.
    pub access: ArcSwap<Access>,
    /// Names that stand for others.
    pub address_map: ArcSwap<AddressMap>,
    /// What may give a user away.
    pub safe_socks: ArcSwap<SafeSocks>,
    /// Counts how often the user asked for new circuits.
    pub epoch: Epoch,
    /// How the program is doing.
    pub status: Status,
}

/// Counts how often the user asked for new circuits (C tor's NEWNYM): streams of different epochs
/// never share one.
#[derive(Debug, Default)]
pub struct Epoch(AtomicU64);

impl Epoch {
    /// Begins the next one: streams that are open go on, later ones get circuits of their own.
    pub fn begin(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of the present one.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a request led to.
pub enum Outcome<T: Connector> {
    /// A stream, open at the far end.
    Stream(Stream<T::Reader, T::Writer>),
    /// The answer to a look-up.
    Answer(Answer),
}

impl<T: Connector> Dispatcher<T> {
    /// Serves a request: refuses it, looks something up, or opens a stream.
    ///
    /// `early` is what the client says meanwhile. Answers after [`Dispatcher::timeout`] at the latest.
    pub async fn serve(
        &self,
        request: &Request,
        origin: ClientAddr,
        early: &OptimisticData,
    ) -> Result<Outcome<T>, Failure> {
        let outcome = self.try_serve(request, origin, early).await;
        if let Err(failure) = &outcome {
            self.shared.status.failed(*failure);
        }
        outcome
    }

    async fn try_serve(
        &self,
        request: &Request,
        origin: ClientAddr,
        early: &OptimisticData,
    ) -> Result<Outcome<T>, Failure> {
        let deadline = Instant::now() + self.timeout;
        // Isolation goes by the address as the client wrote it.
        let isolation = self.isolation(request, origin);
        let permit = match self
            .shared
            .address_map
            .load()
            .rewrite(request, &self.rules.flags)?
        {
            Rewritten::Answer(answer) => return Ok(Outcome::Answer(answer)),
            Rewritten::Request(request) => self.rules.admit(&request)?,
        };
        if let Permit::Exit { port, .. } = &permit {
            self.shared.safe_socks.load().admit_port(*port)?;
        }
        let permit = self.spare_ipv4(permit, &isolation, deadline).await?;
        match &permit {
            Permit::Onion { .. } | Permit::Exit { .. } => {
                let connected = self.tor.connect(&permit, &isolation, early, deadline);
                Ok(Outcome::Stream(connected.await?))
            }
            Permit::Literal(ip) => Ok(Outcome::Answer(Answer::Ip(*ip))),
            Permit::Resolve { host, family } => {
                let addresses = self.tor.resolve(host, &isolation, deadline).await?;
                let allow_local = self.rules.allow_local_answers;
                let ip = policy::choose(&addresses, *family, allow_local)?;
                Ok(Outcome::Answer(Answer::Ip(ip)))
            }
            Permit::ResolvePtr(ip) => {
                let names = self.tor.resolve_ptr(*ip, &isolation, deadline).await?;
                let name = names.into_iter().next().ok_or(Failure::NameNotResolved)?;
                Ok(Outcome::Answer(Answer::Name(name)))
            }
        }
    }

    /// Replaces the name of a host that must not be reached over IPv4 by one of its IPv6 addresses.
    ///
    /// An exit that gets the name may use IPv4 all the same: arti 0.47 forbids it IPv4 without allowing it IPv6, and even
    /// when both are said, exits connect over IPv4 to a host that has no other address. C tor closes such a stream once it
    /// is open; arti does not say which address a stream leads to.
    async fn spare_ipv4(
        &self,
        permit: Permit,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<Permit, Failure> {
        let Permit::Exit {
            host,
            port,
            family: family @ Family::V6Only,
        } = &permit
        else {
            return Ok(permit);
        };
        if host.parse::<IpAddr>().is_ok() {
            return Ok(permit);
        }
        let addresses = self.tor.resolve(host, isolation, deadline).await?;
        // Whether it is a private address is for the exit to judge, as always with names.
        let address = policy::choose(&addresses, *family, true)?;
        Ok(Permit::Exit {
            host: address.to_string(),
            port: *port,
            family: *family,
        })
    }

    /// Which streams this request may share a circuit with.
    fn isolation(&self, request: &Request, origin: ClientAddr) -> Isolation {
        let address = match &request.address {
            Address::Ip(ip) => ip.to_string(),
            Address::Name(name) => name.to_ascii_lowercase(),
        };
        let facts = Facts {
            client: origin.ip(),
            credentials: request.credentials.clone(),
            protocol: request.protocol,
            port: match request.command {
                Command::Connect => request.port,
                Command::Resolve | Command::ResolvePtr => 0,
            },
            address: Arc::from(address),
            group: self.group,
            epoch: self.shared.epoch.now(),
        };
        let flags = &self.rules.flags;
        Isolation::new(facts, &flags.isolation, flags.keep_alive_isolate_socks_auth)
    }
}
