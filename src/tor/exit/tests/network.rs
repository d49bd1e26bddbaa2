//! A network whose exits do what a test says, with the rules of sharing that arti's circuit manager has.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::time::sleep;

use super::*;
use crate::config::port_line::IsolationFlags;
use crate::tor::isolation::{ClientCredentials, Protocol, SessionGroup, StreamAttributes};

/// The answer to every look-up, and the address that is looked up.
pub(super) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// What the exit at the end of a circuit does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Exit {
    /// Opens each stream, and answers each look-up.
    Serves,
    /// Does so after a while.
    ServesAfter(Duration),
    /// Answers that it cannot.
    Refuses(StreamError),
    /// Does so after a while.
    RefusesAfter(Duration, StreamError),
    /// Says nothing.
    Silent,
    /// The circuit to it is never finished.
    Unreachable,
}

/// One question to one exit.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The second at which it was put, counted from the making of the network.
    pub(super) second: u64,
    pub(super) question: String,
    /// What the client had said by then.
    pub(super) early: String,
    /// The circuit that the request had left.
    pub(super) left: Option<usize>,
    pub(super) ports: Vec<TargetPort>,
}

/// The circuits of one network.
#[derive(Clone)]
pub(super) struct Network(Arc<Mutex<State>>);

struct State {
    made: Instant,
    /// Those to which no circuit was built yet, in their order.
    exits: VecDeque<Exit>,
    /// Circuits have the number of their place.
    circuits: Vec<Built>,
    retired: Vec<usize>,
    asked: Vec<Asked>,
    /// How often a circuit was asked for.
    wanted: usize,
}

/// A circuit that was built.
struct Built {
    exit: Exit,
    isolation: OnExit<usize>,
}

/// A circuit that was given to a request.
pub(super) struct Given {
    network: Network,
    number: usize,
    exit: Exit,
    left: Option<usize>,
    ports: Vec<TargetPort>,
}

/// The subject of these tests on a network with these exits, and no more of them.
pub(super) fn exits(exits: impl Into<Vec<Exit>>, timeouts: ExitTimeouts) -> Exits<Network> {
    Exits {
        circuits: Network(Arc::new(Mutex::new(State {
            made: Instant::now(),
            exits: VecDeque::from(exits.into()),
            circuits: Vec::new(),
            retired: Vec::new(),
            asked: Vec::new(),
            wanted: 0,
        }))),
        timeouts,
    }
}

/// The same patience for everything.
pub(super) fn timeouts(seconds: u64) -> ExitTimeouts {
    let patience = Duration::from_secs(seconds);
    ExitTimeouts {
        connect: patience,
        resolve: patience,
        resolve_ptr: patience,
    }
}

/// The isolation of a stream with this login.
pub(super) fn isolation(login: &[u8]) -> Isolation {
    isolation_of(login, false)
}

/// The same, on a port that may keep its circuits alive.
pub(super) fn isolation_of(login: &[u8], keep_alive: bool) -> Isolation {
    let facts = StreamAttributes {
        client: None,
        credentials: ClientCredentials::new(login, b""),
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
    Isolation::new(facts, &flags, keep_alive)
}

impl Network {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().expect("no test panics with the lock"))
    }

    /// All that was asked of exits.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.with(|state| state.asked.clone())
    }

    /// The circuits that were given up, by number.
    pub(super) fn retired(&self) -> Vec<usize> {
        self.with(|state| state.retired.clone())
    }

    /// How often a circuit was asked for.
    pub(super) fn wanted(&self) -> usize {
        self.with(|state| state.wanted)
    }
}

impl Circuits for Network {
    type Circuit = Given;

    async fn get(
        &self,
        ports: &[TargetPort],
        isolation: OnExit<usize>,
        _deadline: Instant,
    ) -> Result<Given, Failure> {
        let left = isolation.left;
        let given = self.with(|state| {
            state.wanted += 1;
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
            state.circuits.push(Built { exit, isolation });
            Some((state.circuits.len() - 1, exit))
        });
        match given {
            Some((_, Exit::Unreachable)) => std::future::pending().await,
            Some((number, exit)) => Ok(Given {
                network: self.clone(),
                number,
                exit,
                left,
                ports: ports.to_vec(),
            }),
            None => Err(Failure::NoCircuit),
        }
    }

    fn retire(&self, circuit: usize) {
        self.with(|state| state.retired.push(circuit));
    }
}

impl Circuit for Given {
    type Id = usize;
    /// The number of the circuit that it is on.
    type Stream = usize;

    fn id(&self) -> usize {
        self.number
    }

    async fn ask(&self, question: &Question<'_>) -> Result<Answer<usize>, StreamError> {
        let (text, early) = match question {
            Question::Begin {
                host,
                port,
                family,
                early,
            } => {
                let said = if early.is_empty() {
                    Vec::new()
                } else {
                    early.beyond(0).await
                };
                let early = String::from_utf8(said).expect("text");
                (format!("BEGIN {host}:{port} {family:?}"), early)
            }
            Question::Resolve(host) => (format!("RESOLVE {host}"), String::new()),
            Question::ResolvePtr(address) => (format!("RESOLVE {address}"), String::new()),
        };
        self.network.with(|state| {
            state.asked.push(Asked {
                second: state.made.elapsed().as_secs(),
                question: text,
                early,
                left: self.left,
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
        Ok(match question {
            Question::Begin { .. } => Answer::Stream(Box::new(self.number)),
            Question::Resolve(_) => Answer::Addresses(vec![ADDRESS]),
            Question::ResolvePtr(_) => Answer::Names(vec!["example.com".to_owned()]),
        })
    }
}
