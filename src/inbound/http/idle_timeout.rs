//! Time-outs of a forwarded request: for the site's "100 Continue" (RFC 9110 section 10.1.1), for the
//! client's body, and for the site's response.
//!
//! A client that sends `Expect: 100-continue` holds its body back until it gets a 100. hyper sends that
//! as soon as the body is polled, so the body is not polled before the site has sent its own 100.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::EXPECT;
use hyper::{Request, StatusCode};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::body::{Body, BodyError};
use super::hop_by_hop;
use super::wire::informational::InterimSender;
use super::wire::state::{ResponseInProgress, WireState};

/// How long to wait for the site's 100. Some sites do not know it and wait for the body themselves.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a site that has the whole request, or a client in the middle of its body, may send nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How far a request has got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The site has sent nothing.
    Sent,
    /// The site wants the body.
    BodyWanted,
    /// The head of the final response arrived.
    Responding,
    /// The response has ended, or none will come.
    Finished,
}

#[derive(Clone, Copy)]
struct ExchangeState {
    phase: Phase,
    /// When the client or the site last sent anything.
    last_activity: Instant,
    /// Whether the exchange waits for the next part of the client's body.
    awaits_client: bool,
    /// Whether the body is held back.
    body_held: bool,
}

/// One request and its response; over when dropped.
pub(super) struct Exchange {
    state: Arc<watch::Sender<ExchangeState>>,
    _in_progress: Option<ResponseInProgress>,
}

impl Exchange {
    /// Waits until nothing has been sent in either direction for [`IDLE_TIMEOUT`]; time spent waiting for
    /// the client's body does not count.
    pub(super) async fn wait_for_timeout(&self) {
        self.state
            .send_modify(|state| state.last_activity = Instant::now());
        loop {
            let state = *self.state.borrow();
            let idle_since = match state.awaits_client {
                // The site is not the one that delays.
                true => Instant::now(),
                false => state.last_activity,
            };
            if idle_since.elapsed() >= IDLE_TIMEOUT {
                return;
            }
            sleep_until(idle_since + IDLE_TIMEOUT).await;
        }
    }

    /// Records that the final response has arrived: a body that is still held back is not wanted.
    /// Returns whether the connection to the site may carry another request.
    pub(super) fn note_response(&self) -> bool {
        self.state
            .send_modify(|state| state.phase = Phase::Responding);
        !self.is_body_held()
    }

    /// Whether the body is held back; after the response, this means that the site did not want it.
    pub(super) fn is_body_held(&self) -> bool {
        self.state.borrow().body_held
    }

    /// Turns the body of the site's response into that of the response to the client on `wire`.
    pub(super) fn into_response_body(self, body: Incoming, wire: Arc<WireState>) -> Body {
        let download = Download {
            body,
            error: None,
            wire,
            _exchange: self,
        };
        download.boxed_unsync()
    }
}

/// The body of a response, forwarded from the site to the client.
struct Download {
    body: Incoming,
    /// Why the site's body ended early.
    error: Option<hyper::Error>,
    wire: Arc<WireState>,
    _exchange: Exchange,
}

impl hyper::body::Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.error.is_none() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Err(error)) => self.error = Some(error),
                Some(Ok(frame)) => {
                    let frame = hop_by_hop::rewrite_trailers(frame);
                    return Poll::Ready(Some(Ok(frame)));
                }
                None => return Poll::Ready(None),
            }
        }
        ready!(self.wire.aborted.poll_written(context));
        Poll::Ready(self.error.take().map(|error| Err(error.into())))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.state
            .send_modify(|state| state.phase = Phase::Finished);
    }
}

/// The body of a request, forwarded from the client to the site.
struct Upload {
    body: Incoming,
    /// Resolves when a body that is held back may be sent, or to an error if it never may.
    hold: Option<BoxFuture<'static, Result<(), BodyError>>>,
    /// Elapses when the client has sent nothing for [`IDLE_TIMEOUT`].
    idle: Option<Pin<Box<Sleep>>>,
    exchange: Arc<watch::Sender<ExchangeState>>,
    /// The client's connection, if the client may half-close it.
    wire: Option<Arc<WireState>>,
}

/// Wraps the body of a request, so that time-outs and `Expect: 100-continue` are observed. The returned
/// [`Exchange`] must live until the end of the response. `interim` gets the site's interim responses, if
/// the client accepts these.
pub(super) fn watch(
    request: Request<Incoming>,
    interim: Option<InterimSender>,
    in_progress: Option<ResponseInProgress>,
) -> (Request<Body>, Exchange) {
    let expects_continue = request
        .headers()
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let body_held = expects_continue && !request.body().is_end_stream();
    let exchange = Arc::new(watch::Sender::new(ExchangeState {
        phase: Phase::Sent,
        last_activity: Instant::now(),
        awaits_client: false,
        body_held,
    }));
    let mut request = request.map(|body| {
        let hold = body_held.then(|| Box::pin(wait_until_wanted(exchange.subscribe())) as _);
        Upload {
            body,
            hold,
            idle: None,
            exchange: Arc::clone(&exchange),
            wire: in_progress
                .as_ref()
                .map(|in_progress| Arc::clone(in_progress.wire())),
        }
        .boxed_unsync()
    });
    let site = Arc::clone(&exchange);
    hyper::ext::on_informational(&mut request, move |response| {
        if let Some(interim) = &interim {
            interim.send(response.status(), response.headers());
        }
        site.send_modify(|state| {
            state.last_activity = Instant::now();
            if response.status() == StatusCode::CONTINUE && state.phase == Phase::Sent {
                state.phase = Phase::BodyWanted;
            }
        });
    });
    let exchange = Exchange {
        state: exchange,
        _in_progress: in_progress,
    };
    (request, exchange)
}

/// Waits until a body that is held back may be sent.
async fn wait_until_wanted(mut states: watch::Receiver<ExchangeState>) -> Result<(), BodyError> {
    let changed = states.wait_for(|state| state.phase != Phase::Sent);
    let phase = match timeout(CONTINUE_TIMEOUT, changed).await {
        Ok(Ok(state)) => state.phase,
        Ok(Err(_)) => Phase::Finished,
        Err(_) => Phase::BodyWanted,
    };
    if phase == Phase::BodyWanted {
        return Ok(());
    }
    // An error before the end of the exchange would close the connection to the site, and cut off its
    // response.
    let _ = states
        .wait_for(|state| state.phase == Phase::Finished)
        .await;
    Err("the site does not want the body".into())
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(wire) = &self.wire {
            // Nothing waits for the body after this.
            wire.half_close.set_awaits_client(false);
        }
    }
}

impl Upload {
    /// Records that a part of the body arrived, or that the exchange waits for one.
    fn set_awaits_client(&self, awaits_client: bool) {
        self.exchange.send_if_modified(|state| {
            if !awaits_client {
                state.last_activity = Instant::now();
            }
            state.awaits_client = awaits_client;
            false
        });
        if let Some(wire) = &self.wire {
            wire.half_close.set_awaits_client(awaits_client);
        }
    }

    /// Ready when the client has been idle for too long. Never ready while the site is responding:
    /// clients may pause their body to read the response.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let idle = self
            .idle
            .get_or_insert_with(|| Box::pin(sleep(IDLE_TIMEOUT)));
        loop {
            ready!(idle.as_mut().poll(context));
            if self.exchange.borrow().phase != Phase::Responding {
                return Poll::Ready(());
            }
            idle.set(sleep(IDLE_TIMEOUT));
        }
    }
}

impl hyper::body::Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(hold) = &mut self.hold {
            let result = ready!(hold.as_mut().poll(context));
            self.hold = None;
            if let Err(unwanted) = result {
                return Poll::Ready(Some(Err(unwanted)));
            }
            self.exchange.send_modify(|state| state.body_held = false);
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                self.idle = None;
                self.set_awaits_client(false);
                Poll::Ready(frame.map(|frame| {
                    frame
                        .map(hop_by_hop::rewrite_trailers)
                        .map_err(BodyError::from)
                }))
            }
            Poll::Pending => {
                self.set_awaits_client(true);
                ready!(self.poll_idle(context));
                let error = "the client stopped sending its body".into();
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
