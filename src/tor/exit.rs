//! Streams to the rest of the internet, through exit relays.
//!
//! An exit that cannot serve a request may be replaced by one that can: as in C tor up to three may
//! say that they cannot, and one that says nothing for some seconds is left for another until the
//! request's time is up (tor(1), "CircuitStreamTimeout"; C tor's `connection_ap_process_end_not_open`
//! and `connection_ap_expire_beginning`). Requests that leave a circuit share the next one.
//!
//! Who is to blame shows afterwards: if another exit does better, the circuit gets no new streams any
//! more, for they would fail or wait there as well. If none does, it was the destination, and others
//! keep the circuit and its exit's address. (C tor gives up the circuit at once.) They also keep it if its
//! exit has but refused by its policy.

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tor_circmgr::TargetPort;
use tor_circmgr::isolation::IsolationHelper;
use tracing::debug;

use self::pool::Pool;
use super::arti_errors::StreamError;
use crate::config::{DEFAULT_EXIT_TIMEOUT, ExitTimeouts};
use crate::failure::Failure;
use crate::tor::destination::Family;
use crate::tor::isolation::Isolation;
use crate::tor::optimistic_data::OptimisticData;

mod pool;
#[cfg(test)]
mod tests;

/// How many exits may answer that they cannot (C tor's `MAX_RESOLVE_FAILURES`).
const REFUSALS: u32 = 3;

/// Opens streams, and looks up names, through exit relays.
pub(crate) struct Exits<C = Pool> {
    circuits: C,
    timeouts: ExitTimeouts,
}

/// Builds circuits to exits. [`Pool`] does it on the Tor network.
pub(crate) trait Circuits {
    /// What it builds.
    type Circuit: Circuit;

    /// Returns a circuit to an exit that allows `ports`, not later than `deadline`.
    async fn get(
        &self,
        ports: &[TargetPort],
        isolation: OnExit<IdOf<Self>>,
        deadline: Instant,
    ) -> Result<Self::Circuit, Failure>;

    /// Puts no new streams on a circuit.
    fn retire(&self, circuit: IdOf<Self>);
}

/// A circuit and the exit at its end.
pub(crate) trait Circuit {
    /// Tells circuits apart.
    type Id: Copy + Debug + PartialEq + Send + Sync + 'static;
    /// An open stream.
    type Stream;

    fn id(&self) -> Self::Id;

    /// Puts a question to the exit.
    async fn ask(&self, question: &Question<'_>) -> Result<Answer<Self::Stream>, StreamError>;
}

/// The identity of the circuits that `C` builds.
type IdOf<C> = <<C as Circuits>::Circuit as Circuit>::Id;
/// The streams on the circuits that `C` builds.
type StreamOf<C> = <<C as Circuits>::Circuit as Circuit>::Stream;

/// What an exit is asked for.
pub(crate) enum Question<'a> {
    Begin {
        host: &'a str,
        port: u16,
        family: Family,
        early: &'a OptimisticData,
    },
    Resolve(&'a str),
    ResolvePtr(IpAddr),
}

/// What it answered.
pub(crate) enum Answer<S> {
    Stream(Box<S>),
    Addresses(Vec<IpAddr>),
    Names(Vec<String>),
}

impl<C: Circuits> Exits<C> {
    /// Opens a stream to `host`, a name or an IP address as text, and `port`. Each exit that is tried
    /// is sent `early`, as C tor does.
    pub(crate) async fn connect(
        &self,
        host: &str,
        port: u16,
        family: Family,
        isolation: &Isolation,
        early: &OptimisticData,
        deadline: Instant,
    ) -> Result<StreamOf<C>, Failure> {
        let question = Question::Begin {
            host,
            port,
            family,
            early,
        };
        match self.ask(question, isolation, deadline).await? {
            Answer::Stream(stream) => Ok(*stream),
            Answer::Addresses(_) | Answer::Names(_) => Err(Failure::Internal),
        }
    }

    /// The addresses of `host`, as an exit sees them.
    pub(crate) async fn resolve(
        &self,
        host: &str,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Failure> {
        match self
            .ask(Question::Resolve(host), isolation, deadline)
            .await?
        {
            Answer::Addresses(addresses) => Ok(addresses),
            Answer::Stream(_) | Answer::Names(_) => Err(Failure::Internal),
        }
    }

    /// The names of `address`, as an exit sees them.
    pub(crate) async fn resolve_ptr(
        &self,
        address: IpAddr,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<Vec<String>, Failure> {
        match self
            .ask(Question::ResolvePtr(address), isolation, deadline)
            .await?
        {
            Answer::Names(names) => Ok(names),
            Answer::Stream(_) | Answer::Addresses(_) => Err(Failure::Internal),
        }
    }

    /// Asks one exit after another.
    async fn ask(
        &self,
        question: Question<'_>,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<Answer<StreamOf<C>>, Failure> {
        let mut said = None;
        let mut refusals = 0;
        let mut left = None;
        let mut suspects = Vec::new();
        for number in 0.. {
            let circuit = self.circuit(&question, isolation, left, deadline);
            let circuit = match circuit.await {
                Ok(circuit) => circuit,
                // What the exit before has said is the better answer.
                Err(failure) => return Err(said.unwrap_or(failure)),
            };
            let until = deadline.min(Instant::now() + self.patience(&question, number));
            let failure = match timeout_at(until, circuit.ask(&question)).await {
                Ok(Ok(answer)) => {
                    suspects.into_iter().for_each(|id| self.circuits.retire(id));
                    return Ok(answer);
                }
                Ok(Err(error)) => {
                    refusals += 1;
                    if !another_exit_may_do_better(error) || refusals == REFUSALS {
                        return Err(error.failure());
                    }
                    error.failure()
                }
                Err(_) => Failure::ConnectionTimedOut,
            };
            said = Some(failure);
            if Instant::now() >= deadline {
                break;
            }
            debug!("an exit could not serve the request: {}", failure.name());
            let circuit = circuit.id();
            match failure {
                // It says so itself.
                Failure::CircuitDestroyed | Failure::RelayHibernating | Failure::RelayBusy => {
                    self.circuits.retire(circuit);
                }
                // It serves all others.
                Failure::ExitPolicyRefused => left = Some(circuit),
                _ => {
                    left = Some(circuit);
                    suspects.push(circuit);
                }
            }
        }
        Err(said.unwrap_or(Failure::DeadlinePassed))
    }

    /// How long the exit of this try may take. If nothing is configured C tor gives those after the
    /// second 15 seconds and not 10.
    fn patience(&self, question: &Question<'_>, number: u32) -> Duration {
        let patience = match question {
            Question::Begin { .. } => self.timeouts.connect,
            Question::Resolve(_) => self.timeouts.resolve,
            Question::ResolvePtr(_) => self.timeouts.resolve_ptr,
        };
        if number < 2 || patience != DEFAULT_EXIT_TIMEOUT {
            patience
        } else {
            patience * 3 / 2
        }
    }

    /// A circuit to an exit that allows the request, other than the one that was left.
    async fn circuit(
        &self,
        question: &Question<'_>,
        isolation: &Isolation,
        left: Option<IdOf<C>>,
        deadline: Instant,
    ) -> Result<C::Circuit, Failure> {
        let isolation = OnExit {
            isolation: isolation.clone(),
            left,
        };
        let ports = question.ports();
        let circuit = self.circuits.get(&ports, isolation, deadline);
        timeout_at(deadline, circuit)
            .await
            .unwrap_or(Err(Failure::DeadlinePassed))
    }
}

/// Whether the request is worth another exit (C tor's list of END reasons).
fn another_exit_may_do_better(error: StreamError) -> bool {
    match error {
        StreamError::CircuitGone => true,
        StreamError::Failed(_) => false,
        StreamError::Ended(failure) => matches!(
            failure,
            Failure::NameNotResolved
                | Failure::ConnectionTimedOut
                | Failure::StreamFailed
                | Failure::NoRoute
                | Failure::ExitPolicyRefused
                | Failure::RelayHibernating
                | Failure::RelayBusy
        ),
    }
}

impl Question<'_> {
    /// The ports that the exit has to allow.
    fn ports(&self) -> Vec<TargetPort> {
        match self {
            Question::Begin {
                port,
                family: Family::V6Only,
                ..
            } => vec![TargetPort::ipv6(*port)],
            Question::Begin { port, .. } => vec![TargetPort::ipv4(*port)],
            Question::Resolve(_) | Question::ResolvePtr(_) => Vec::new(),
        }
    }
}

/// The isolation of a stream on an exit circuit.
#[derive(Clone, Debug)]
pub(crate) struct OnExit<I> {
    isolation: Isolation,
    /// The circuit that the stream has left, if it has left one. Such streams share the next one, and only
    /// with each other: else they would be given the same again.
    left: Option<I>,
}

impl<I: Copy + PartialEq> IsolationHelper for OnExit<I> {
    fn compatible_same_type(&self, other: &Self) -> bool {
        self.left == other.left && self.isolation.compatible(&other.isolation)
    }

    fn join_same_type(&self, other: &Self) -> Option<Self> {
        if self.left != other.left {
            return None;
        }
        let isolation = self.isolation.join(&other.isolation)?;
        Some(OnExit {
            isolation,
            left: self.left,
        })
    }

    fn enables_long_lived_circuits(&self) -> bool {
        self.left.is_none() && self.isolation.keeps_alive()
    }
}
