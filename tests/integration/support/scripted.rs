//! A network that serves each request as the test planned.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use onionport::failure::Failure;
use onionport::tor::connector::{Connector, Stream};
use onionport::tor::destination::{Family, PermittedRequest};
use onionport::tor::isolation::Isolation;
use onionport::tor::optimistic_data::OptimisticData;
use tokio::io::{
    AsyncRead, AsyncWriteExt as _, DuplexStream, ReadBuf, ReadHalf, WriteHalf, duplex, split,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::LIMIT;
use super::client::Client;

/// How many unread bytes a stream buffers: few, so that tests can fill it.
pub const STREAM_CAPACITY: usize = 1024;
/// The time-out of requests in tests that do not set one.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// The outcome of requests for one target.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Fails at once.
    Fail(Failure),
    /// Opens a stream; [`ScriptedNetwork::accept_stream`] returns the other end.
    Open,
    /// Opens a stream that reports a reset when the other end closes.
    OpenThenReset,
    /// Opens a stream once [`ScriptedNetwork::release`] is called.
    OpenLater,
    /// Like [`Plan::OpenLater`], but sends the client's optimistic data at once, and reports it as sent.
    SendOptimistic,
    /// Fails once [`ScriptedNetwork::release`] is called.
    FailLater(Failure),
    /// Never completes, not even at the deadline.
    Never,
    /// A lookup finds these addresses.
    Addresses(Vec<IpAddr>),
    /// A reverse lookup finds these names.
    Names(Vec<String>),
}

/// A request that reached the network.
#[derive(Clone, Debug)]
pub struct Call {
    pub target: String,
    /// Which addresses an exit may connect to; `None` for onion services and lookups.
    pub family: Option<Family>,
    pub isolation: Isolation,
    /// When it arrived.
    pub at: Instant,
    pub deadline: Instant,
}

/// The scripted network.
pub struct ScriptedNetwork {
    /// By target: `HOST:PORT` for streams, a name or IP address for lookups.
    plans: HashMap<String, Plan>,
    calls: Mutex<Vec<Call>>,
    /// How many requests have no outcome yet.
    running: watch::Sender<usize>,
    released: watch::Sender<bool>,
    opened: mpsc::UnboundedSender<DuplexStream>,
    accepted: tokio::sync::Mutex<mpsc::UnboundedReceiver<DuplexStream>>,
}

/// Counts a request until dropped.
struct Running<'a>(&'a watch::Sender<usize>);

impl<'a> Running<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|running| *running += 1);
        Running(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

impl ScriptedNetwork {
    /// Creates a network with plans for these targets; requests for others fail with
    /// [`Failure::Internal`].
    pub fn new<T: Into<String>>(plans: impl IntoIterator<Item = (T, Plan)>) -> Self {
        let (opened, accepted) = mpsc::unbounded_channel();
        ScriptedNetwork {
            plans: plans
                .into_iter()
                .map(|(target, plan)| (target.into(), plan))
                .collect(),
            calls: Mutex::default(),
            running: watch::Sender::new(0),
            released: watch::Sender::new(false),
            opened,
            accepted: tokio::sync::Mutex::new(accepted),
        }
    }

    /// Returns all requests so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The targets of all requests so far.
    pub fn targets(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.target).collect()
    }

    /// Waits for the next stream and returns its other end: the destination's.
    pub async fn accept_stream(&self) -> Client {
        let mut accepted = self.accepted.lock().await;
        let next = timeout(LIMIT, accepted.recv()).await;
        let next = next.expect("a stream is opened");
        Client::over(next.expect("the network exists"))
    }

    /// Completes the requests that wait for this, and all later ones.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Waits until exactly `count` requests have no outcome yet.
    pub async fn wait_for_running(&self, count: usize) {
        let mut running = self.running.subscribe();
        let reached = timeout(LIMIT, running.wait_for(|now| *now == count)).await;
        if reached.is_err() {
            panic!(
                "{} requests are running, not {count}",
                *self.running.borrow()
            );
        }
    }

    /// Serves one request as planned.
    async fn serve(
        &self,
        target: String,
        family: Option<Family>,
        isolation: &Isolation,
        optimistic: &OptimisticData,
        deadline: Instant,
    ) -> Outcome {
        let _running = Running::new(&self.running);
        let plan = self.plans.get(&target).cloned();
        let call = Call {
            target,
            family,
            isolation: isolation.clone(),
            at: Instant::now(),
            deadline,
        };
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(call);
        match plan {
            None => Outcome::Failed(Failure::Internal),
            Some(Plan::Fail(failure)) => Outcome::Failed(failure),
            Some(Plan::Open | Plan::OpenThenReset) => Outcome::Stream(self.open(), 0),
            Some(Plan::OpenLater) => {
                self.wait_for_release().await;
                Outcome::Stream(self.open(), 0)
            }
            Some(Plan::SendOptimistic) => {
                let mut stream = self.open();
                let mut sent = 0;
                let sending = async {
                    loop {
                        let bytes = optimistic.wait_beyond(sent).await;
                        sent += stream.write(&bytes).await.expect("write to the stream");
                    }
                };
                tokio::select! {
                    biased;
                    () = self.wait_for_release() => {}
                    () = sending => {}
                }
                Outcome::Stream(stream, sent)
            }
            Some(Plan::FailLater(failure)) => {
                self.wait_for_release().await;
                Outcome::Failed(failure)
            }
            Some(Plan::Never) => pending().await,
            Some(Plan::Addresses(addresses)) => Outcome::Addresses(addresses),
            Some(Plan::Names(names)) => Outcome::Names(names),
        }
    }

    async fn wait_for_release(&self) {
        let mut released = self.released.subscribe();
        let _ = released.wait_for(|released| *released).await;
    }

    fn open(&self) -> DuplexStream {
        let (stream, destination) = duplex(STREAM_CAPACITY);
        let _ = self.opened.send(destination);
        stream
    }
}

enum Outcome {
    Failed(Failure),
    /// With the number of optimistic bytes already sent.
    Stream(DuplexStream, usize),
    Addresses(Vec<IpAddr>),
    Names(Vec<String>),
}

/// The reading half of a stream.
pub struct Reader {
    half: ReadHalf<DuplexStream>,
    /// Whether the end is reported as a reset.
    resets: bool,
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.half).poll_read(context, buffer))?;
        let is_end = buffer.filled().len() == before && buffer.remaining() > 0;
        Poll::Ready(match is_end && self.resets {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        })
    }
}

impl Connector for ScriptedNetwork {
    type Reader = Reader;
    type Writer = WriteHalf<DuplexStream>;

    async fn connect(
        &self,
        request: &PermittedRequest,
        isolation: &Isolation,
        optimistic: &OptimisticData,
        deadline: Instant,
    ) -> Result<Stream<Self::Reader, Self::Writer>, Failure> {
        let (target, family) = match request {
            PermittedRequest::Onion { service, port } => (format!("{service}:{port}"), None),
            PermittedRequest::Exit { host, port, family } => {
                (format!("{host}:{port}"), Some(*family))
            }
            other => panic!("{other:?} is not a request for a stream"),
        };
        let resets = matches!(self.plans.get(&target), Some(Plan::OpenThenReset));
        match self
            .serve(target, family, isolation, optimistic, deadline)
            .await
        {
            Outcome::Stream(stream, sent) => {
                let (half, writer) = split(stream);
                Ok(Stream {
                    reader: Reader { half, resets },
                    writer,
                    sent,
                })
            }
            Outcome::Failed(failure) => Err(failure),
            Outcome::Addresses(_) | Outcome::Names(_) => panic!("the plan is for a lookup"),
        }
    }

    async fn resolve(
        &self,
        host: &str,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Failure> {
        let nothing = OptimisticData::new(Vec::new());
        match self
            .serve(host.to_owned(), None, isolation, &nothing, deadline)
            .await
        {
            Outcome::Addresses(addresses) => Ok(addresses),
            Outcome::Failed(failure) => Err(failure),
            Outcome::Stream(..) | Outcome::Names(_) => {
                panic!("the plan is not for this kind of lookup")
            }
        }
    }

    async fn resolve_ptr(
        &self,
        address: IpAddr,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<Vec<String>, Failure> {
        let nothing = OptimisticData::new(Vec::new());
        match self
            .serve(address.to_string(), None, isolation, &nothing, deadline)
            .await
        {
            Outcome::Names(names) => Ok(names),
            Outcome::Failed(failure) => Err(failure),
            Outcome::Stream(..) | Outcome::Addresses(_) => {
                panic!("the plan is not for this kind of lookup")
            }
        }
    }
}
