//! A network that answers as it is told.

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
use onionport::tor::destination::{Family, Permit};
use onionport::tor::isolation::Isolation;
use onionport::tor::optimistic_data::OptimisticData;
use tokio::io::{
    AsyncRead, AsyncWriteExt as _, DuplexStream, ReadBuf, ReadHalf, WriteHalf, duplex, split,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::LIMIT;
use super::client::Client;

/// How much a stream holds that nobody reads: little, so that it fills up.
pub const STREAM_CAPACITY: usize = 1024;

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Plan {
    /// It fails.
    Fail(Failure),
    /// A stream opens; its far end comes out of [`Scripted::far_end`].
    Open,
    /// The same, but where the far end ends, the stream breaks.
    Breaks,
    /// The same as [`Plan::Open`], once [`Scripted::release`] is called.
    Held,
    /// The same, and what the client says before is sent on it at once, and counts as sent.
    Eager,
    /// It fails, once [`Scripted::release`] is called.
    FailLater(Failure),
    /// It is never answered: not even at its deadline.
    Never,
    /// A look-up finds these addresses.
    Addresses(Vec<IpAddr>),
    /// A look-up finds these names.
    AddressMap(Vec<String>),
}

/// One request, as it reached the network.
#[derive(Clone, Debug)]
pub struct Call {
    pub target: String,
    /// Which addresses an exit may connect to; nothing for onion services and look-ups.
    pub family: Option<Family>,
    pub isolation: Isolation,
    /// When it was asked.
    pub at: Instant,
    pub deadline: Instant,
}

/// The network.
pub struct Scripted {
    /// By target: a host name, an address, or an onion address.
    plans: HashMap<String, Plan>,
    calls: Mutex<Vec<Call>>,
    /// How many requests have no answer yet.
    running: watch::Sender<usize>,
    released: watch::Sender<bool>,
    near: mpsc::UnboundedSender<DuplexStream>,
    far: tokio::sync::Mutex<mpsc::UnboundedReceiver<DuplexStream>>,
}

/// Counts a request for as long as it is not dropped.
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

impl Scripted {
    /// A network that knows these targets and no other.
    pub fn new<T: Into<String>>(plans: impl IntoIterator<Item = (T, Plan)>) -> Self {
        let (near, far) = mpsc::unbounded_channel();
        Scripted {
            plans: plans
                .into_iter()
                .map(|(target, plan)| (target.into(), plan))
                .collect(),
            calls: Mutex::default(),
            running: watch::Sender::new(0),
            released: watch::Sender::new(false),
            near,
            far: tokio::sync::Mutex::new(far),
        }
    }

    /// All requests so far.
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

    /// The far end of the next stream.
    pub async fn far_end(&self) -> Client {
        let mut far = self.far.lock().await;
        let next = timeout(LIMIT, far.recv()).await;
        let next = next.expect("no stream was opened");
        Client::over(next.expect("the sender is ours"))
    }

    /// Opens the streams that are held.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Waits until so many requests are without an answer.
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

    /// Answers one request as planned.
    async fn answer(
        &self,
        target: String,
        family: Option<Family>,
        isolation: &Isolation,
        early: &OptimisticData,
        deadline: Instant,
    ) -> Answer {
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
            None => Answer::Failed(Failure::Internal),
            Some(Plan::Fail(failure)) => Answer::Failed(failure),
            Some(Plan::Open | Plan::Breaks) => Answer::Stream(self.open(), 0),
            Some(Plan::Held) => {
                self.wait_for_release().await;
                Answer::Stream(self.open(), 0)
            }
            Some(Plan::Eager) => {
                let mut stream = self.open();
                let mut sent = 0;
                let speaking = async {
                    loop {
                        let bytes = early.wait_beyond(sent).await;
                        sent += stream.write(&bytes).await.expect("the far end is there");
                    }
                };
                tokio::select! {
                    biased;
                    () = self.wait_for_release() => {}
                    () = speaking => {}
                }
                Answer::Stream(stream, sent)
            }
            Some(Plan::FailLater(failure)) => {
                self.wait_for_release().await;
                Answer::Failed(failure)
            }
            Some(Plan::Never) => pending().await,
            Some(Plan::Addresses(addresses)) => Answer::Addresses(addresses),
            Some(Plan::AddressMap(names)) => Answer::AddressMap(names),
        }
    }

    async fn wait_for_release(&self) {
        let mut released = self.released.subscribe();
        let _ = released.wait_for(|released| *released).await;
    }

    fn open(&self) -> DuplexStream {
        let (near, far) = duplex(STREAM_CAPACITY);
        let _ = self.near.send(far);
        near
    }
}

enum Answer {
    Failed(Failure),
    /// With how many early bytes are on their way.
    Stream(DuplexStream, usize),
    Addresses(Vec<IpAddr>),
    AddressMap(Vec<String>),
}

/// The half of a stream that bytes come from.
pub struct Reader {
    half: ReadHalf<DuplexStream>,
    breaks: bool,
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
        Poll::Ready(match is_end && self.breaks {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        })
    }
}

impl Connector for Scripted {
    type Reader = Reader;
    type Writer = WriteHalf<DuplexStream>;

    async fn connect(
        &self,
        permit: &Permit,
        isolation: &Isolation,
        early: &OptimisticData,
        deadline: Instant,
    ) -> Result<Stream<Self::Reader, Self::Writer>, Failure> {
        let (target, family) = match permit {
            Permit::Onion { service, port } => (format!("{service}:{port}"), None),
            Permit::Exit { host, port, family } => (format!("{host}:{port}"), Some(*family)),
            other => panic!("asked for a stream with {other:?}"),
        };
        let breaks = matches!(self.plans.get(&target), Some(Plan::Breaks));
        match self
            .answer(target, family, isolation, early, deadline)
            .await
        {
            Answer::Stream(stream, sent) => {
                let (half, writer) = split(stream);
                Ok(Stream {
                    reader: Reader { half, breaks },
                    writer,
                    sent,
                })
            }
            Answer::Failed(failure) => Err(failure),
            Answer::Addresses(_) | Answer::AddressMap(_) => panic!("the plan is for a look-up"),
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
            .answer(host.to_owned(), None, isolation, &nothing, deadline)
            .await
        {
            Answer::Addresses(addresses) => Ok(addresses),
            Answer::Failed(failure) => Err(failure),
            Answer::Stream(..) | Answer::AddressMap(_) => panic!("the plan is for something else"),
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
            .answer(address.to_string(), None, isolation, &nothing, deadline)
            .await
        {
            Answer::AddressMap(names) => Ok(names),
            Answer::Failed(failure) => Err(failure),
            Answer::Stream(..) | Answer::Addresses(_) => panic!("the plan is for something else"),
        }
    }
}

/// How long a request may take in tests that do not say.
pub const TIMEOUT: Duration = Duration::from_secs(120);
