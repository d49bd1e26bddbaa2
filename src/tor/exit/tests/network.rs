//! A scripted network of exits. Streams share circuits by the rules of arti's circuit manager.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::time::sleep;
use tor_circmgr::TargetPort;

use super::super::circuit::ExitCircuit;
use super::*;
use crate::config::port_line::IsolationFlags;
use crate::tor::isolation::{ClientCredentials, Protocol, SessionGroup, StreamAttributes};

/// The address in every lookup and every reply.
pub(super) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// What the exit at the end of a circuit does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Exit {
    /// Opens every stream and answers every lookup.
    Serves,
    /// Serves after a delay.
    ServesAfter(Duration),
    /// Fails every request with this error.
    Refuses(StreamError),
    /// Fails every request after a delay.
    RefusesAfter(Duration, StreamError),
    /// Never replies.
    Silent,
    /// Cannot be reached: the circuit to it is never complete.
    Unreachable,
}

/// A request that reached an exit.
#[derive(Clone, Debug)]
pub(super) struct SentRequest {
    /// When it was sent, in whole seconds since the network was created.
    pub(super) second: u64,
    pub(super) text: String,
    /// The optimistic data that the client had sent by then.
    pub(super) optimistic: String,
    /// The circuit that the request had abandoned.
    pub(super) abandoned: Option<usize>,
    pub(super) ports: Vec<TargetPort>,
}

/// A network of scripted exits.
#[derive(Clone)]
pub(super) struct ScriptedNetwork(Arc<Mutex<State>>);

struct State {
    created: Instant,
    /// The exits without a circuit, in the order in which they get one.
    exits: VecDeque<Exit>,
    /// All circuits; a circuit's index is its ID.
    circuits: Vec<BuiltCircuit>,
    retired: Vec<usize>,
    sent: Vec<SentRequest>,
    /// How often a circuit was requested.
    circuit_requests: usize,
}

struct BuiltCircuit {
    exit: Exit,
    isolation: ExitIsolation<usize>,
}

/// The use of a circuit by one request.
pub(super) struct CircuitHandle {
    network: ScriptedNetwork,
    number: usize,
    exit: Exit,
    abandoned: Option<usize>,
    ports: Vec<TargetPort>,
}

/// The subject of these tests, on a network that has only these exits.
pub(super) fn exits(exits: impl Into<Vec<Exit>>, timeouts: ExitTimeouts) -> Exits<ScriptedNetwork> {
    Exits {
        circuits: ScriptedNetwork(Arc::new(Mutex::new(State {
            created: Instant::now(),
            exits: VecDeque::from(exits.into()),
            circuits: Vec::new(),
            retired: Vec::new(),
            sent: Vec::new(),
            circuit_requests: 0,
        }))),
        timeouts,
    }
}

/// The same time-out for every kind of request.
pub(super) fn timeouts(seconds: u64) -> ExitTimeouts {
    let timeout = Duration::from_secs(seconds);
    ExitTimeouts {
        connect: timeout,
        resolve: timeout,
        resolve_ptr: timeout,
    }
}

/// The isolation of a stream with this user name.
pub(super) fn isolation(user: &[u8]) -> Isolation {
    isolation_with(user, false)
}

/// The same, on a port with or without `KeepAliveIsolateSOCKSAuth`.
pub(super) fn isolation_with(user: &[u8], keep_alive: bool) -> Isolation {
    let attributes = StreamAttributes {
        client: None,
        credentials: ClientCredentials::new(user, b""),
        protocol: Protocol::Socks5,
        port: 80,
        address: Arc::from("example.com"),
        group: SessionGroup::Port(0),
        epoch: 0,
    };
    let flags = IsolationFlags {
        client_addr: true,
        socks_auth: true,
        client_protocol: false,
        dest_port: false,
        dest_addr: false,
    };
    Isolation::new(attributes, &flags, keep_alive)
}

impl ScriptedNetwork {
    fn with<T>(&self, access: impl FnOnce(&mut State) -> T) -> T {
        access(&mut self.0.lock().expect("no panic while locked"))
    }

    /// All requests that reached an exit.
    pub(super) fn sent(&self) -> Vec<SentRequest> {
        self.with(|state| state.sent.clone())
    }

    /// The IDs of the retired circuits.
    pub(super) fn retired(&self) -> Vec<usize> {
        self.with(|state| state.retired.clone())
    }

    /// How often a circuit was requested.
    pub(super) fn circuit_requests(&self) -> usize {
        self.with(|state| state.circuit_requests)
    }
}

impl CircuitProvider for ScriptedNetwork {
    type Circuit = CircuitHandle;

    async fn get(
        &self,
        ports: &[TargetPort],
        isolation: ExitIsolation<usize>,
        _deadline: Instant,
    ) -> Result<CircuitHandle, Failure> {
        let abandoned = isolation.abandoned;
        let circuit = self.with(|state| {
            state.circuit_requests += 1;
            let retired = &state.retired;
            let shared = state.circuits.iter_mut().enumerate().find_map(|(n, c)| {
                let joined = c.isolation.join_same_type(&isolation)?;
                (!retired.contains(&n)).then_some((n, c, joined))
            });
            if let Some((number, circuit, joined)) = shared {
                circuit.isolation = joined;
                return Some((number, circuit.exit));
            }
            let exit = state.exits.pop_front()?;
            state.circuits.push(BuiltCircuit { exit, isolation });
            Some((state.circuits.len() - 1, exit))
        });
        match circuit {
            Some((_, Exit::Unreachable)) => std::future::pending().await,
            Some((number, exit)) => Ok(CircuitHandle {
                network: self.clone(),
                number,
                exit,
                abandoned,
                ports: ports.to_vec(),
            }),
            None => Err(Failure::NoCircuit),
        }
    }

    fn retire(&self, circuit: usize) {
        self.with(|state| state.retired.push(circuit));
    }
}

impl ExitCircuit for CircuitHandle {
    type Id = usize;
    /// The ID of the stream's circuit.
    type Stream = usize;

    fn id(&self) -> usize {
        self.number
    }

    async fn send(&self, request: &ExitRequest<'_>) -> Result<ExitReply<usize>, StreamError> {
        let (text, optimistic) = match request {
            ExitRequest::Begin {
                host,
                port,
                family,
                optimistic,
            } => {
                let bytes = if optimistic.is_empty() {
                    Vec::new()
                } else {
                    optimistic.wait_beyond(0).await
                };
                let optimistic = String::from_utf8(bytes).expect("text");
                (format!("BEGIN {host}:{port} {family:?}"), optimistic)
            }
            ExitRequest::Resolve(host) => (format!("RESOLVE {host}"), String::new()),
            ExitRequest::ResolvePtr(address) => (format!("RESOLVE {address}"), String::new()),
        };
        self.network.with(|state| {
            state.sent.push(SentRequest {
                second: state.created.elapsed().as_secs(),
                text,
                optimistic,
                abandoned: self.abandoned,
                ports: self.ports.clone(),
            });
        });
        match self.exit {
            Exit::Serves => {}
            Exit::ServesAfter(time) => sleep(time).await,
            Exit::Refuses(error) => return Err(error),
            Exit::RefusesAfter(time, error) => {
                sleep(time).await;
                return Err(error);
            }
            Exit::Silent | Exit::Unreachable => std::future::pending().await,
        }
        Ok(match request {
            ExitRequest::Begin { .. } => ExitReply::Stream(Box::new(self.number)),
            ExitRequest::Resolve(_) => ExitReply::Addresses(vec![ADDRESS]),
            ExitRequest::ResolvePtr(_) => ExitReply::Names(vec!["example.com".to_owned()]),
        })
    }
}
