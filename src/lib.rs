//! A Tor SOCKS port on arti's crates that reports exactly why an onion service could not be reached.
//!
//! The program `onionport` is this library with a command line. The library can also be used without
//! any port: a [`tor::Tor`] client opens streams, and each request that fails ends with a
//! [`failure::Failure`], which maps to the SOCKS5 codes of proposal 304 and to HTTP status codes.
//!
//! # Example
//!
//! One request to an onion service. The example needs a tokio runtime, and the `tracing` layer that it
//! installs first.
//!
//! ```no_run
//! use std::error::Error;
//! use std::time::Duration;
//!
//! use onionport::config::port_line::IsolationFlags;
//! use onionport::config::{self, ProxyArgs};
//! use onionport::tor::connector::Connector as _;
//! use onionport::tor::destination::PermittedRequest;
//! use onionport::tor::isolation::{Isolation, Protocol, SessionGroup, StreamAttributes};
//! use onionport::tor::onion_address::OnionAddress;
//! use onionport::tor::optimistic_data::OptimisticData;
//! use onionport::tor::{ClientSettings, Tor};
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//! use tokio::time::Instant;
//! use tracing_subscriber::layer::SubscriberExt as _;
//! use tracing_subscriber::util::SubscriberInitExt as _;
//!
//! const HOST: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn Error>> {
//!     // Observes arti's attempts. Without it, failures of onion services are imprecise, and the
//!     // optimistic data and retries that rely on its reports are disabled.
//!     tracing_subscriber::registry()
//!         .with(onionport::tor::observer_layer())
//!         .init();
//!
//!     // Reads arti's configuration files, if there are any, and uses arti's folders.
//!     let config = config::load(&ProxyArgs::default())?;
//!     let tor = Tor::new(ClientSettings::new(&config)).await?;
//!     tokio::select! {
//!         // Connects to the Tor network, and returns only if that cannot work.
//!         problem = tor.run(|progress| println!("{progress:?}")) => Err(problem.into()),
//!         done = fetch(&tor) => done,
//!     }
//! }
//!
//! async fn fetch(tor: &Tor) -> Result<(), Box<dyn Error>> {
//!     let request = PermittedRequest::Onion {
//!         service: OnionAddress::parse(HOST)?,
//!         port: 80,
//!     };
//!     // Streams that differ in an isolated attribute do not share a circuit.
//!     let attributes = StreamAttributes {
//!         client: None,
//!         credentials: None,
//!         protocol: Protocol::Socks5,
//!         port: 80,
//!         address: HOST.into(),
//!         group: SessionGroup::Named(1),
//!         epoch: 0,
//!     };
//!     let isolation = Isolation::new(attributes, &IsolationFlags::default(), false);
//!     // Data to send before the stream is connected: none.
//!     let optimistic = OptimisticData::new(Vec::new());
//!     // Includes the time until the client has connected to the Tor network.
//!     let deadline = Instant::now() + Duration::from_secs(120);
//!     match tor.connect(&request, &isolation, &optimistic, deadline).await {
//!         Ok(mut stream) => {
//!             let request = format!("HEAD / HTTP/1.0\r\nHost: {HOST}\r\n\r\n");
//!             stream.write_all(request.as_bytes()).await?;
//!             stream.flush().await?;
//!             let mut answer = String::new();
//!             stream.read_to_string(&mut answer).await?;
//!             println!("{answer}");
//!         }
//!         Err(failure) => {
//!             let code = failure.socks5_code(true);
//!             println!("SOCKS5 code {code:02X}, {}: {failure}", failure.name());
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Modules
//!
//! | module | holds |
//! |---|---|
//! | [`daemon`] | the life of the process: ports, signals, reloads, the log |
//! | [`inbound`] | what clients connect to: SOCKS, HTTP, DNS and transparent ports |
//! | [`request`] | a client's request, and what is decided before the Tor network is used |
//! | [`tor`] | the Tor network, through arti's crates |
//! | [`cli`] | the command line |
//! | [`config`] | the configuration: files, command line, port lines, torrc |
//! | [`failure`] | why a request failed, and the table of codes |
//! | `log_limit` | rate limits for log messages |
//!
//! Imports go down this table only; `tests/integration/layers.rs` checks it.
//!
//! # The life of a connection
//!
//! These eight files, in this order, follow a SOCKS request from accept to close. Read the third one first:
//! it is the connection's life on one page, and each file after it is one of its steps.
//!
//! 1. `inbound/listener.rs` accepts the client and checks whether it may connect.
//! 2. `inbound/listener/client_task.rs` spawns its task.
//! 3. `inbound/connection.rs` runs the steps from the first byte to the last. The reply's code is in the
//!    table of `failure.rs`.
//! 4. `inbound/socks.rs` turns bytes into a request.
//! 5. `request/dispatch.rs` checks the request and passes it to the Tor network.
//! 6. `tor.rs` opens a stream to the onion service or through an exit, or fails.
//! 7. `inbound/relay.rs` copies bytes both ways.
//! 8. `inbound/lingering_close.rs` closes the connection without losing the last bytes.
//!
//! The same steps as modules, with the other protocols:
//!
//! | step | module | result |
//! |---|---|---|
//! | accept a client | [`inbound::listener`] | its socket and [`request::ClientAddr`] |
//! | check whether it may connect | [`config::access`] | yes or no |
//! | parse SOCKS | [`inbound::connection`], [`inbound::socks`] | [`request::Request`] |
//! | parse HTTP; serve pages | [`inbound::http`] | [`request::Request`] |
//! | parse DNS queries | [`inbound::dns`] | [`request::Request`] |
//! | find a redirected connection's destination | [`inbound::transparent`] | [`request::Request`] |
//! | run the steps below | [`request::dispatch`] | [`request::dispatch::Outcome`] |
//! | decide which streams may share a circuit | [`tor::isolation`] | [`tor::isolation::Isolation`] |
//! | replace mapped names and virtual addresses | [`request::address_map`] | another [`request::Request`], or its answer |
//! | check the destination | `request::target` | an onion service, a host name or an IP address |
//! | apply the port's flags | [`request::policy`] | [`tor::destination::PermittedRequest`] |
//! | warn of, or refuse, unsafe requests | [`request::safe_socks`] | |
//! | open a stream, or look up a name | [`tor::connector`], [`tor`] | [`tor::connector::Stream`], or a [`failure::Failure`] |
//! | choose the reply code | [`failure`] | a row of the table |
//! | copy bytes both ways | [`inbound::relay`] | how many bytes went each way |
//! | close | [`inbound::lingering_close`] | |

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod daemon;
pub mod failure;
pub mod inbound;
mod log_limit;
pub mod request;
pub mod tor;
