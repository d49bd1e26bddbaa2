//! Streams to onion services.
//!
//! Requests for one service that may share a circuit, and that come with the same key, form a
//! [`Record`]. A record has at most one running [`Attempt`] to reach the service; everybody waits
//! for that one, each until their own deadline. To tor-hsclient each record is an isolation token
//! of its own, so that its bookkeeping and ours cannot disagree on who shares what.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tor_circmgr::ClientOnionServiceDataTunnel as Tunnel;
use tor_circmgr::IsolationToken;
use tor_circmgr::isolation::StreamIsolation;
use tor_hsclient::{HsClientConnector, HsClientSecretKeys};
use tor_hscrypto::pk::HsId;
use tor_proto::client::stream::{DataStream, StreamParameters};
use tracing::debug;

use super::Directory;
use super::border::{self, StreamError};
use super::evidence::Evidence;
use super::keys::KeyRing;
use super::runtime::TorRuntime;
use crate::failure::Failure;
use crate::isolation::Isolation;
use crate::target::OnionAddress;

/// A new request does not join an attempt in which nothing has moved for this long: the service may
/// have come back since, and only a new introduction would find out.
const STALLED: Duration = Duration::from_secs(15);

/// How often a request tries again because a circuit that looked open was not.
const MAX_DEAD_CIRCUITS: usize = 3;

/// Records that nobody asked for in this time are dropped, with what isolation they had.
const FORGET_AFTER: Duration = Duration::from_secs(60 * 60);

/// Opens streams to onion services.
pub(crate) struct Onions {
    shared: Arc<Shared>,
    keys: KeyRing,
    records: Mutex<HashMap<OnionAddress, Vec<Record>>>,
}

/// What an attempt needs when it runs on its own.
struct Shared {
    connector: HsClientConnector<TorRuntime>,
    directory: Directory,
    /// How long an attempt may go on.
    limit: Duration,
}

/// Requests that share circuits to one service.
struct Record {
    isolation: Isolation,
    keys: HsClientSecretKeys,
    token: IsolationToken,
    attempt: Option<Attempt>,
    used: Instant,
}

/// One effort to get a circuit, awaited by any number of requests.
#[derive(Clone)]
struct Attempt {
    evidence: watch::Receiver<Arc<Evidence>>,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// How an attempt ended.
#[derive(Clone)]
enum Outcome {
    /// With a circuit; `fresh` if it was built for this attempt.
    Circuit { tunnel: Arc<Tunnel>, fresh: bool },
    /// With a reason that holds for everybody who waits.
    Failed(Failure),
    /// Its own time was up. Who still has time begins a new one.
    Expired(Failure),
}

impl Onions {
    pub(crate) fn new(
        connector: HsClientConnector<TorRuntime>,
        directory: Directory,
        keys: KeyRing,
        limit: Duration,
    ) -> Onions {
        let shared = Arc::new(Shared {
            connector,
            directory,
            limit,
        });
        Onions {
            shared,
            keys,
            records: Mutex::default(),
        }
    }

    /// Opens a stream to `port` of a service, not later than `deadline`.
    pub(crate) async fn connect(
        &self,
        service: &OnionAddress,
        port: u16,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<DataStream, Failure> {
        let keys = self.keys.for_service(service)?;
        let mut failure = Failure::CircuitDestroyed;
        for _ in 0..MAX_DEAD_CIRCUITS {
            let (tunnel, fresh) = self.circuit(service, &keys, isolation, deadline).await?;
            // Onion services are told the port alone (rend-spec-v3, "Handling a BEGIN message").
            let mut parameters = StreamParameters::default();
            parameters.suppress_hostname().suppress_begin_flags();
            let begin = tunnel.begin_stream("", port, Some(parameters));
            match timeout_at(deadline, begin).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => match border::of_stream(&error) {
                    // The service went while the circuit was idle: what it says now is unknown.
                    StreamError::CircuitGone if !fresh => {
                        debug!("the open circuit to the onion service is gone; trying anew");
                    }
                    StreamError::CircuitGone => failure = Failure::RendezvousFailed,
                    other => return Err(other.failure()),
                },
                Err(_) => return Err(Failure::ConnectionTimedOut),
            }
        }
        Err(failure)
    }

    /// Waits for a circuit to the service. The flag says whether it was built just now.
    async fn circuit(
        &self,
        service: &OnionAddress,
        keys: &HsClientSecretKeys,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<(Arc<Tunnel>, bool), Failure> {
        loop {
            let mut attempt = self.join_or_launch(service, keys, isolation);
            let ended = async {
                let ended = attempt.outcome.wait_for(Option::is_some).await;
                ended.ok().and_then(|outcome| (*outcome).clone())
            };
            match timeout_at(deadline, ended).await {
                Ok(Some(Outcome::Circuit { tunnel, fresh })) => return Ok((tunnel, fresh)),
                Ok(Some(Outcome::Failed(failure))) => return Err(failure),
                Ok(Some(Outcome::Expired(failure))) if Instant::now() >= deadline => {
                    return Err(failure);
                }
                Ok(Some(Outcome::Expired(_))) => {}
                // The task ended without a word: it panicked.
                Ok(None) => return Err(Failure::Internal),
                Err(_) => return Err(attempt.evidence.borrow().verdict_so_far()),
            }
        }
    }

    /// The running attempt that this request may share, or a new one.
    fn join_or_launch(
        &self,
        service: &OnionAddress,
        keys: &HsClientSecretKeys,
        isolation: &Isolation,
    ) -> Attempt {
        let now = Instant::now();
        let mut all = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let records = all.entry(*service).or_default();
        let found = records.iter_mut().find_map(|record| {
            if record.keys != *keys {
                return None;
            }
            let joined = record.isolation.join(isolation)?;
            Some((record, joined))
        });
        let record = match found {
            Some((record, joined)) => {
                record.isolation = joined;
                record
            }
            None => {
                records.push(Record {
                    isolation: isolation.clone(),
                    keys: keys.clone(),
                    token: IsolationToken::new(),
                    attempt: None,
                    used: now,
                });
                let last = records.len() - 1;
                &mut records[last]
            }
        };
        record.used = now;
        if let Some(running) = record
            .attempt
            .as_ref()
            .filter(|a| a.outcome.borrow().is_none())
        {
            if running.evidence.borrow().stalled_for() < STALLED {
                return running.clone();
            }
            debug!("an attempt to reach the onion service has stalled; beginning another");
            // Those who wait for the stalled one keep it. What comes now gets a token, and with it
            // a state in tor-hsclient, of its own.
            record.token = IsolationToken::new();
        }
        let attempt = self.shared.launch(*service, keys.clone(), record.token);
        record.attempt = Some(attempt.clone());
        all.retain(|_, records| {
            records.retain(|r| now.duration_since(r.used) < FORGET_AFTER);
            !records.is_empty()
        });
        attempt
    }
}

impl Shared {
    /// Begins an attempt in a task of its own: it goes on when a client hangs up, so that the same
    /// request a moment later finds it further along.
    fn launch(
        self: &Arc<Self>,
        service: OnionAddress,
        keys: HsClientSecretKeys,
        token: IsolationToken,
    ) -> Attempt {
        let (evidence_sender, evidence) = watch::channel(Evidence::new(None));
        let (outcome_sender, outcome) = watch::channel(None);
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = shared.run(service, keys, token, &evidence_sender).await;
            outcome_sender.send_replace(Some(outcome));
        });
        Attempt { evidence, outcome }
    }

    /// Runs an attempt to its end.
    async fn run(
        &self,
        service: OnionAddress,
        keys: HsClientSecretKeys,
        token: IsolationToken,
        current: &watch::Sender<Arc<Evidence>>,
    ) -> Outcome {
        let until = Instant::now() + self.limit;
        let mut earlier = None;
        loop {
            let Some(netdir) = self.directory.timely(until).await else {
                return Outcome::Expired(Failure::NotBootstrapped);
            };
            let evidence = Evidence::new(earlier);
            current.send_replace(Arc::clone(&evidence));
            let isolation = match stream_isolation(token) {
                Ok(isolation) => isolation,
                Err(failure) => return Outcome::Failed(failure),
            };
            let asking = self.connector.get_or_launch_tunnel(
                &netdir,
                HsId::from(service.key()),
                keys.clone(),
                isolation,
            );
            let failure = tokio::select! {
                got = evidence.gather(asking) => match got {
                    Ok(tunnel) => return Outcome::Circuit { tunnel, fresh: evidence.worked() },
                    Err(error) => border::of_onion_attempt(&error),
                },
                failure = evidence.conclusion() => {
                    evidence.abandon();
                    failure
                }
                () = sleep_until(until) => {
                    let failure = evidence.verdict_so_far();
                    evidence.abandon();
                    return Outcome::Expired(failure);
                }
            };
            if earlier.is_some() {
                return Outcome::Failed(evidence.beside_earlier(failure));
            }
            // Introduction points are only as good as the descriptor that names them, and directories
            // may differ in which one they hold. After a failure tor-hsclient forgets the
            // descriptor, so that asking again fetches one.
            let outdated = match failure {
                Failure::IntroductionFailed => true,
                Failure::IntroductionTimedOut | Failure::RendezvousFailed => {
                    !evidence.fetched_descriptor()
                }
                _ => false,
            };
            if !outdated {
                return Outcome::Failed(failure);
            }
            debug!("trying the onion service once more with a descriptor fetched anew");
            earlier = Some(failure);
        }
    }
}

/// The isolation that tor-hsclient is given for a record.
fn stream_isolation(token: IsolationToken) -> Result<StreamIsolation, Failure> {
    StreamIsolation::builder()
        .stream_isolation(Box::new(token))
        .build()
        .map_err(|error| {
            tracing::warn!("cannot isolate a stream: {error}");
            Failure::Internal
        })
}
