//! A [`Network`] that a test has in its hands.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tor_circmgr::IsolationToken;
use tor_hsclient::HsClientSecretKeys;

use super::network::{Call, Network};
use crate::failure::Failure;
use crate::tor::arti_errors::StreamError;
use crate::tor::evidence::Evidence;
use crate::tor::onion_address::OnionAddress;
use crate::tor::optimistic_data::OptimisticData;
use crate::tor::verdict::Stage;

/// No test waits longer for something to happen. (The clock is paused: it stands still while anything does.)
const LONG: Duration = Duration::from_secs(3600);

type Shared<T> = Arc<Mutex<T>>;

/// The network, as the code under test has it.
pub(in crate::tor) struct Script {
    events: mpsc::UnboundedSender<Event>,
    known: Shared<Known>,
}

/// The test's end of it.
pub(in crate::tor) struct Director {
    events: mpsc::UnboundedReceiver<Event>,
    sender: mpsc::UnboundedSender<Event>,
    pub(in crate::tor) known: Shared<Known>,
    tunnels: usize,
}

/// What the network knows, and what it has counted.
#[derive(Default)]
pub(in crate::tor) struct Known {
    /// The keys of services that have some, or the failure to read them.
    pub(in crate::tor) keys: HashMap<OnionAddress, Result<HsClientSecretKeys, Failure>>,
    /// How often keys were asked for.
    pub(in crate::tor) keys_asked: usize,
    /// How many connectors there were.
    pub(in crate::tor) connectors: usize,
    /// How often the circuits built ahead were dropped.
    pub(in crate::tor) retired_spares: usize,
}

/// Something that waits for the test's answer.
pub(in crate::tor) enum Event {
    Called(Called),
    Begun(Begun),
}

/// A connector has begun to look for a service.
pub(in crate::tor) struct Called {
    /// Counts connectors from one.
    pub(in crate::tor) connector: usize,
    pub(in crate::tor) token: IsolationToken,
    pub(in crate::tor) evidence: Arc<Evidence>,
    answer: oneshot::Sender<Result<Arc<Tunnel>, Failure>>,
}

/// A stream is to be opened.
pub(in crate::tor) struct Begun {
    pub(in crate::tor) tunnel: usize,
    pub(in crate::tor) early: Option<usize>,
    answer: oneshot::Sender<Result<(), StreamError>>,
}

/// A connector as tor-hsclient's: it keeps the open circuit of each token.
#[derive(Clone)]
pub(in crate::tor) struct Connector {
    number: usize,
    open: Shared<Vec<(IsolationToken, Arc<Tunnel>)>>,
}

/// A circuit.
pub(in crate::tor) struct Tunnel {
    number: usize,
    is_closed: Arc<AtomicBool>,
    events: mpsc::UnboundedSender<Event>,
}

/// A stream, by the number of its circuit.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::tor) struct Stream(pub(in crate::tor) usize);

/// A network and who directs it.
pub(in crate::tor) fn script() -> (Script, Director) {
    let (sender, events) = mpsc::unbounded_channel();
    let known = Shared::<Known>::default();
    let script = Script {
        events: sender.clone(),
        known: Arc::clone(&known),
    };
    let director = Director {
        events,
        sender,
        known,
        tunnels: 0,
    };
    (script, director)
}

impl Director {
    async fn event(&mut self) -> Event {
        let event = timeout(LONG, self.events.recv()).await;
        event.expect("nothing happens").expect("a sender is kept")
    }

    /// Waits until a connector looks for a service.
    pub(in crate::tor) async fn called(&mut self) -> Called {
        match self.event().await {
            Event::Called(called) => called,
            Event::Begun(begun) => panic!("a stream is opened on circuit {}", begun.tunnel),
        }
    }

    /// Waits until a stream is to be opened.
    pub(in crate::tor) async fn begun(&mut self) -> Begun {
        match self.event().await {
            Event::Begun(begun) => begun,
            Event::Called(called) => panic!("connector {} is called", called.connector),
        }
    }

    /// Nothing happens for this long.
    pub(in crate::tor) async fn nothing_for(&mut self, time: Duration) {
        match timeout(time, self.events.recv()).await {
            Ok(Some(Event::Called(called))) => panic!("connector {} is called", called.connector),
            Ok(Some(Event::Begun(begun))) => panic!("a stream on circuit {}", begun.tunnel),
            Ok(None) | Err(_) => {}
        }
    }

    /// Has the service found: the number of the circuit, and what closes it.
    pub(in crate::tor) fn find(&mut self, called: Called) -> (usize, Arc<AtomicBool>) {
        called.reach(Stage::Descriptor);
        self.hand_out(called)
    }

    /// Answers with a circuit as if it had been open: the number of the circuit, and what closes it.
    pub(in crate::tor) fn hand_out(&mut self, called: Called) -> (usize, Arc<AtomicBool>) {
        self.tunnels += 1;
        let is_closed = Arc::new(AtomicBool::new(false));
        let tunnel = Arc::new(Tunnel {
            number: self.tunnels,
            is_closed: Arc::clone(&is_closed),
            events: self.sender.clone(),
        });
        let _ = called.answer.send(Ok(tunnel));
        (self.tunnels, is_closed)
    }
}

impl Called {
    /// The search has got this far.
    pub(in crate::tor) fn reach(&self, stage: Stage) {
        self.evidence.note(|findings| findings.enter(stage));
    }

    /// Has the search fail, after it got this far.
    pub(in crate::tor) fn fail(self, stage: Stage, failure: Failure) {
        self.reach(stage);
        let _ = self.answer.send(Err(failure));
    }

    /// Whether nobody waits for the answer any more.
    pub(in crate::tor) fn is_given_up(&self) -> bool {
        self.answer.is_closed()
    }
}

impl Begun {
    pub(in crate::tor) fn answer(self, answer: Result<(), StreamError>) {
        let _ = self.answer.send(answer);
    }
}

impl Network for Script {
    type Connector = Connector;
    type Tunnel = Tunnel;
    type Stream = Stream;

    async fn keys(&self, service: &OnionAddress) -> Result<HsClientSecretKeys, Failure> {
        let mut known = self.known.lock().expect("not poisoned");
        known.keys_asked += 1;
        let keys = known.keys.get(service);
        keys.cloned()
            .unwrap_or_else(|| Ok(HsClientSecretKeys::none()))
    }

    fn connector(&self) -> Result<Connector, Failure> {
        let mut known = self.known.lock().expect("not poisoned");
        known.connectors += 1;
        Ok(Connector {
            number: known.connectors,
            open: Shared::default(),
        })
    }

    async fn call(&self, connector: &Connector, call: Call<'_>) -> Result<Arc<Tunnel>, Failure> {
        let open = {
            let all = connector.open.lock().expect("not poisoned");
            let mut of_token = all.iter().rev().filter(|(token, _)| *token == call.token);
            of_token.next().map(|(_, tunnel)| Arc::clone(tunnel))
        };
        if let Some(tunnel) = open.filter(|tunnel| !Script::is_closed(tunnel)) {
            return Ok(tunnel);
        }
        let (answer, answered) = oneshot::channel();
        let called = Called {
            connector: connector.number,
            token: call.token,
            evidence: Arc::clone(call.evidence),
            answer,
        };
        assert!(
            self.events.send(Event::Called(called)).is_ok(),
            "the test is over"
        );
        let tunnel = answered.await.unwrap_or(Err(Failure::Internal))?;
        let mut open = connector.open.lock().expect("not poisoned");
        open.push((call.token, Arc::clone(&tunnel)));
        Ok(tunnel)
    }

    fn is_closed(tunnel: &Tunnel) -> bool {
        tunnel.is_closed.load(Ordering::Relaxed)
    }

    async fn begin(
        tunnel: &Tunnel,
        _port: u16,
        early: Option<&OptimisticData>,
    ) -> Result<Stream, StreamError> {
        let (answer, answered) = oneshot::channel();
        let begun = Begun {
            tunnel: tunnel.number,
            early: early.map(OptimisticData::len),
            answer,
        };
        assert!(
            tunnel.events.send(Event::Begun(begun)).is_ok(),
            "the test is over"
        );
        answered
            .await
            .unwrap_or(Err(StreamError::Failed(Failure::Internal)))?;
        Ok(Stream(tunnel.number))
    }

    fn retire_spare_circuits(&self) {
        self.known.lock().expect("not poisoned").retired_spares += 1;
    }
}
