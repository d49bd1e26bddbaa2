//! A [`Network`] that a test controls.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tor_circmgr::IsolationToken;
use tor_hsclient::HsClientSecretKeys;

use super::classify::CallStage;
use super::network::{CallParameters, Network};
use super::observer::CallObserver;
use crate::failure::Failure;
use crate::tor::arti_errors::StreamError;
use crate::tor::onion_address::OnionAddress;
use crate::tor::optimistic_data::OptimisticData;

/// How long a test waits for a call or a stream. The tests pause the clock, so this takes no time.
const LONG_WAIT: Duration = Duration::from_secs(3600);

/// The network that the code under test uses.
pub(super) struct ScriptedNetwork {
    requests: mpsc::UnboundedSender<IncomingRequest>,
    state: Arc<Mutex<NetworkState>>,
}

/// Receives the calls and streams of a [`ScriptedNetwork`], and answers them.
pub(super) struct NetworkController {
    requests: mpsc::UnboundedReceiver<IncomingRequest>,
    sender: mpsc::UnboundedSender<IncomingRequest>,
    pub(super) state: Arc<Mutex<NetworkState>>,
    tunnels: usize,
}

/// What the network contains, and what it has counted.
#[derive(Default)]
pub(super) struct NetworkState {
    /// The keys of services, or the failure to read them. A service without an entry has no keys.
    pub(super) keys: HashMap<OnionAddress, Result<HsClientSecretKeys, Failure>>,
    /// How often keys were read.
    pub(super) key_reads: usize,
    /// How many connectors were created.
    pub(super) connectors: usize,
    /// How often the circuits built in advance were dropped.
    pub(super) retired_spares: usize,
}

/// A call or a stream that waits for the answer of the test.
pub(super) enum IncomingRequest {
    Call(IncomingCall),
    Stream(IncomingStream),
}

/// A call to a connector.
pub(super) struct IncomingCall {
    /// The number of the connector, counted from one.
    pub(super) connector: usize,
    pub(super) token: IsolationToken,
    pub(super) observer: Arc<CallObserver>,
    answer: oneshot::Sender<Result<Arc<ScriptedTunnel>, Failure>>,
}

/// A stream that is being opened.
pub(super) struct IncomingStream {
    /// The number of its circuit.
    pub(super) tunnel: usize,
    /// The length of the optimistic data, if it comes with any.
    pub(super) optimistic: Option<usize>,
    answer: oneshot::Sender<Result<(), StreamError>>,
}

/// Keeps the open circuit of each token, as the connector of tor-hsclient does.
#[derive(Clone)]
pub(super) struct ScriptedConnector {
    number: usize,
    open: OpenTunnels,
}

type OpenTunnels = Arc<Mutex<Vec<(IsolationToken, Arc<ScriptedTunnel>)>>>;

/// A circuit to a service.
pub(super) struct ScriptedTunnel {
    number: usize,
    is_closed: Arc<AtomicBool>,
    requests: mpsc::UnboundedSender<IncomingRequest>,
}

/// An open stream, with the number of its circuit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScriptedStream(pub(super) usize);

/// Returns a network and its controller.
pub(super) fn scripted_network() -> (ScriptedNetwork, NetworkController) {
    let (sender, requests) = mpsc::unbounded_channel();
    let state = Arc::<Mutex<NetworkState>>::default();
    let network = ScriptedNetwork {
        requests: sender.clone(),
        state: Arc::clone(&state),
    };
    let controller = NetworkController {
        requests,
        sender,
        state,
        tunnels: 0,
    };
    (network, controller)
}

impl NetworkController {
    async fn next(&mut self) -> IncomingRequest {
        let request = timeout(LONG_WAIT, self.requests.recv()).await;
        request
            .expect("a call or a stream")
            .expect("the controller holds a sender")
    }

    /// Waits for a call to a connector.
    pub(super) async fn next_call(&mut self) -> IncomingCall {
        match self.next().await {
            IncomingRequest::Call(call) => call,
            unexpected @ IncomingRequest::Stream(_) => panic!("unexpected {unexpected}"),
        }
    }

    /// Waits for a stream that is being opened.
    pub(super) async fn next_stream(&mut self) -> IncomingStream {
        match self.next().await {
            IncomingRequest::Stream(stream) => stream,
            unexpected @ IncomingRequest::Call(_) => panic!("unexpected {unexpected}"),
        }
    }

    /// Checks that there is no call and no stream for this long.
    pub(super) async fn expect_idle_for(&mut self, time: Duration) {
        if let Ok(Some(request)) = timeout(time, self.requests.recv()).await {
            panic!("unexpected {request}");
        }
    }

    /// Answers a call with a new circuit. Returns the number of the circuit, and a flag that
    /// closes it.
    pub(super) fn answer_with_new_circuit(
        &mut self,
        call: IncomingCall,
    ) -> (usize, Arc<AtomicBool>) {
        call.enter(CallStage::Descriptor);
        self.answer_with_open_circuit(call)
    }

    /// Answers a call with a circuit that was open already. Returns the number of the circuit, and
    /// a flag that closes it.
    pub(super) fn answer_with_open_circuit(
        &mut self,
        call: IncomingCall,
    ) -> (usize, Arc<AtomicBool>) {
        self.tunnels += 1;
        let is_closed = Arc::new(AtomicBool::new(false));
        let tunnel = Arc::new(ScriptedTunnel {
            number: self.tunnels,
            is_closed: Arc::clone(&is_closed),
            requests: self.sender.clone(),
        });
        let _ = call.answer.send(Ok(tunnel));
        (self.tunnels, is_closed)
    }
}

impl std::fmt::Display for IncomingRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IncomingRequest::Call(call) => write!(f, "call to connector {}", call.connector),
            IncomingRequest::Stream(stream) => write!(f, "stream on circuit {}", stream.tunnel),
        }
    }
}

impl IncomingCall {
    /// Makes the call enter a stage.
    pub(super) fn enter(&self, stage: CallStage) {
        self.observer
            .record(|observations| observations.enter(stage));
    }

    /// Makes the call fail in a stage.
    pub(super) fn fail(self, stage: CallStage, failure: Failure) {
        self.enter(stage);
        let _ = self.answer.send(Err(failure));
    }

    /// Whether the caller has dropped the call.
    pub(super) fn is_dropped(&self) -> bool {
        self.answer.is_closed()
    }
}

impl IncomingStream {
    pub(super) fn answer(self, answer: Result<(), StreamError>) {
        let _ = self.answer.send(answer);
    }
}

impl Network for ScriptedNetwork {
    type HsConnector = ScriptedConnector;
    type HsTunnel = ScriptedTunnel;
    type HsStream = ScriptedStream;

    async fn read_keys(&self, service: &OnionAddress) -> Result<HsClientSecretKeys, Failure> {
        let mut state = self.state.lock().expect("not poisoned");
        state.key_reads += 1;
        let keys = state.keys.get(service);
        keys.cloned()
            .unwrap_or_else(|| Ok(HsClientSecretKeys::none()))
    }

    fn new_connector(&self) -> Result<ScriptedConnector, Failure> {
        let mut state = self.state.lock().expect("not poisoned");
        state.connectors += 1;
        Ok(ScriptedConnector {
            number: state.connectors,
            open: Arc::default(),
        })
    }

    async fn call(
        &self,
        connector: &ScriptedConnector,
        call: CallParameters<'_>,
    ) -> Result<Arc<ScriptedTunnel>, Failure> {
        let open = {
            let open = connector.open.lock().expect("not poisoned");
            let mut of_token = open.iter().rev().filter(|(token, _)| *token == call.token);
            of_token.next().map(|(_, tunnel)| Arc::clone(tunnel))
        };
        if let Some(tunnel) = open.filter(|tunnel| !ScriptedNetwork::is_closed(tunnel)) {
            return Ok(tunnel);
        }
        let (answer, answered) = oneshot::channel();
        let request = IncomingRequest::Call(IncomingCall {
            connector: connector.number,
            token: call.token,
            observer: Arc::clone(call.observer),
            answer,
        });
        let sent = self.requests.send(request);
        assert!(sent.is_ok(), "the test is over");
        let tunnel = answered.await.unwrap_or(Err(Failure::Internal))?;
        let mut open = connector.open.lock().expect("not poisoned");
        open.push((call.token, Arc::clone(&tunnel)));
        Ok(tunnel)
    }

    fn is_closed(tunnel: &ScriptedTunnel) -> bool {
        tunnel.is_closed.load(Ordering::Relaxed)
    }

    async fn open_stream(
        tunnel: &ScriptedTunnel,
        _port: u16,
        optimistic: Option<&OptimisticData>,
    ) -> Result<ScriptedStream, StreamError> {
        let (answer, answered) = oneshot::channel();
        let request = IncomingRequest::Stream(IncomingStream {
            tunnel: tunnel.number,
            optimistic: optimistic.map(OptimisticData::len),
            answer,
        });
        let sent = tunnel.requests.send(request);
        assert!(sent.is_ok(), "the test is over");
        answered
            .await
            .unwrap_or(Err(StreamError::Failed(Failure::Internal)))?;
        Ok(ScriptedStream(tunnel.number))
    }

    fn retire_spare_circuits(&self) {
        self.state.lock().expect("not poisoned").retired_spares += 1;
    }
}
