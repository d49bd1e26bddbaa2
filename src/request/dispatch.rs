//! The path of every request, whatever its protocol: isolation, address map, policy, then the Tor
//! network.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::config::access::Access;
use crate::failure::Failure;
use crate::request::address_map::{AddressMap, Rewritten};
use crate::request::policy::{self, PortRules};
use crate::request::safe_socks::SafeSocks;
use crate::request::status::Status;
use crate::request::{Address, Answer, ClientAddr, Command, Request};
use crate::tor::connector::{Connector, Stream};
use crate::tor::destination::{Family, PermittedRequest};
use crate::tor::isolation::{Isolation, SessionGroup, StreamAttributes};
use crate::tor::optimistic_data::OptimisticData;

/// Serves the requests of one port.
pub struct Dispatcher<T> {
    /// The Tor network.
    pub tor: Arc<T>,
    /// What the port allows.
    pub rules: PortRules,
    /// The session group of the port's streams.
    pub group: SessionGroup,
    /// How long a client may take for its handshake, and after that a request until its answer
    /// (`socks_timeout`).
    pub timeout: Duration,
    /// What all ports share.
    pub shared: Arc<SharedState>,
}

/// What all ports share, besides the Tor network.
#[derive(Default)]
pub struct SharedState {
    /// Which clients may connect.
    pub access: ArcSwap<Access>,
    /// Mapped names and virtual addresses.
    pub address_map: ArcSwap<AddressMap>,
    /// Checks for requests that may give their user away.
    pub safe_socks: ArcSwap<SafeSocks>,
    /// Counts new identities and reloads.
    pub epoch: Epoch,
    /// The state of the program, for the status page.
    pub status: Status,
}

/// Counts new identities (C tor's `NEWNYM`) and reloads: streams of different epochs never share a circuit.
#[derive(Debug, Default)]
pub struct Epoch(AtomicU64);

impl Epoch {
    /// Starts the next epoch. Open streams continue; later streams use new circuits.
    pub fn advance(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of the current epoch.
    pub(crate) fn current(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The result of a request that succeeded.
pub enum Outcome<T: Connector> {
    /// A stream that is connected to the destination.
    Stream(Stream<T::Reader, T::Writer>),
    /// The answer to a lookup.
    Answer(Answer),
}

impl<T: Connector> Dispatcher<T> {
    /// Serves a request: refuses it, answers a lookup, or opens a stream. Answers within
    /// [`Dispatcher::timeout`].
    ///
    /// `optimistic` receives the data that the client sends meanwhile; a stream may carry it before it is
    /// connected.
    ///
    /// # Errors
    /// Why the request failed. The failure is also recorded for the status page.
    pub async fn serve(
        &self,
        request: &Request,
        client: ClientAddr,
        optimistic: &OptimisticData,
    ) -> Result<Outcome<T>, Failure> {
        let outcome = self.try_serve(request, client, optimistic).await;
        if let Err(failure) = &outcome {
            self.shared.status.record_failure(*failure);
        }
        outcome
    }

    async fn try_serve(
        &self,
        request: &Request,
        client: ClientAddr,
        optimistic: &OptimisticData,
    ) -> Result<Outcome<T>, Failure> {
        let deadline = Instant::now() + self.timeout;
        // Before the address map: isolation uses the address as the client wrote it.
        let isolation = self.isolate(request, client);
        let permitted = match self
            .shared
            .address_map
            .load()
            .rewrite(request, &self.rules.flags)?
        {
            Rewritten::Answer(answer) => return Ok(Outcome::Answer(answer)),
            Rewritten::Request(request) => self.rules.admit(&request)?,
        };
        if let PermittedRequest::Exit { port, .. } = &permitted {
            self.shared.safe_socks.load().admit_port(*port)?;
        }
        let permitted = self
            .resolve_if_ipv6_only(permitted, &isolation, deadline)
            .await?;
        match &permitted {
            PermittedRequest::Onion { .. } | PermittedRequest::Exit { .. } => {
                let connected = self
                    .tor
                    .connect(&permitted, &isolation, optimistic, deadline);
                Ok(Outcome::Stream(connected.await?))
            }
            PermittedRequest::Literal(ip) => Ok(Outcome::Answer(Answer::Ip(*ip))),
            PermittedRequest::Resolve { host, family } => {
                let addresses = self.tor.resolve(host, &isolation, deadline).await?;
                let allow_local = self.rules.allow_local_answers;
                let ip = policy::choose_address(&addresses, *family, allow_local)?;
                Ok(Outcome::Answer(Answer::Ip(ip)))
            }
            PermittedRequest::ResolvePtr(ip) => {
                let names = self.tor.resolve_ptr(*ip, &isolation, deadline).await?;
                let name = names.into_iter().next().ok_or(Failure::NameNotResolved)?;
                Ok(Outcome::Answer(Answer::Name(name)))
            }
        }
    }

    /// Replaces a host name that must not be reached over IPv4 by one of its IPv6 addresses.
    ///
    /// An exit that gets the name may use IPv4: arti 0.47 sets the flag that forbids IPv4 but not the
    /// one that allows IPv6, and even with both, exits use IPv4 for a host without an IPv6 address.
    /// C tor closes such a stream once it is open; arti does not report the address of a stream.
    async fn resolve_if_ipv6_only(
        &self,
        permitted: PermittedRequest,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<PermittedRequest, Failure> {
        let PermittedRequest::Exit {
            host,
            port,
            family: family @ Family::V6Only,
        } = &permitted
        else {
            return Ok(permitted);
        };
        if host.parse::<IpAddr>().is_ok() {
            return Ok(permitted);
        }
        let addresses = self.tor.resolve(host, isolation, deadline).await?;
        // Private addresses are allowed: for names, the exit decides about them.
        let address = policy::choose_address(&addresses, *family, true)?;
        Ok(PermittedRequest::Exit {
            host: address.to_string(),
            port: *port,
            family: *family,
        })
    }

    /// Builds the isolation of a request: which streams may share a circuit with it.
    fn isolate(&self, request: &Request, client: ClientAddr) -> Isolation {
        let address = match &request.address {
            Address::Ip(ip) => ip.to_string(),
            Address::Name(name) => name.to_ascii_lowercase(),
        };
        let attributes = StreamAttributes {
            client: client.ip(),
            credentials: request.credentials.clone(),
            protocol: request.protocol,
            port: match request.command {
                Command::Connect => request.port,
                Command::Resolve | Command::ResolvePtr => 0,
            },
            address: Arc::from(address),
            group: self.group,
            epoch: self.shared.epoch.current(),
        };
        let flags = &self.rules.flags;
        Isolation::new(
            attributes,
            &flags.isolation,
            flags.keep_alive_isolate_socks_auth,
        )
    }
}
