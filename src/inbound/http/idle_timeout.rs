//! How long a request waits: for the site's "100 Continue" (RFC 9110 section 10.1.1), for the
//! client's body, and for the site's answer.
//!
//! A client that sends `Expect: 100-continue` keeps its body back until it is asked for it. hyper
//! asks as soon as somebody reads the body; so the body is not read before the site has asked.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::EXPECT;
use hyper::{Request, StatusCode};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::wire::Line;
use super::wire::half_close::Answering;
use super::wire::informational::Teller;
use super::{Body, BodyError, Boxed, hop_by_hop};

/// How long to wait for the site. Some know nothing of this and wait for the body themselves.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a site may be silent that has been told all there is to tell, and a client that has
/// begun a body.
const SILENCE: Duration = Duration::from_secs(120);

/// How far a request has got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The site has not said anything.
    Asked,
    /// It wants the body.
    Wanted,
    /// The final answer is there.
    Answered,
    /// The answer has come to its end, or there will be none.
    Over,
}

#[derive(Clone, Copy)]
struct State {
    phase: Phase,
    /// When something was heard last, of the client or of the site.
    moved: Instant,
    /// Whether the next part of the body has to come from the client.
    owed: bool,
    /// Whether the client keeps its body back.
    held: bool,
}

/// One request and its answer. It is over when this is dropped.
pub(super) struct Exchange {
    state: Arc<watch::Sender<State>>,
    _answering: Option<Answering>,
}

impl Exchange {
    /// Waits until the site has been silent for too long.
    pub(super) async fn silence(&self) {
        self.state.send_modify(|state| state.moved = Instant::now());
        loop {
            let state = *self.state.borrow();
            let begun = match state.owed {
                // It is not the site that is waited for.
                true => Instant::now(),
                false => state.moved,
            };
            if begun.elapsed() >= SILENCE {
                return;
            }
            sleep_until(begun + SILENCE).await;
        }
    }

    /// The final answer is there: a body that was not asked for by now is not wanted. Whether the
    /// connection to the site may carry another request.
    pub(super) fn answered(&self) -> bool {
        self.state
            .send_modify(|state| state.phase = Phase::Answered);
        !self.refused()
    }

    /// Whether the site has answered without the body.
    pub(super) fn refused(&self) -> bool {
        self.state.borrow().held
    }

    /// The answer's body, for the client on `line`.
    pub(super) fn answer(self, body: Incoming, line: Arc<Line>) -> Body {
        let download = Download {
            body,
            broke: None,
            line,
            _exchange: self,
        };
        download.boxed_unsync()
    }
}

/// A site's body on its way to a client.
struct Download {
    body: Incoming,
    /// Why the site has broken off.
    broke: Option<hyper::Error>,
    line: Arc<Line>,
    _exchange: Exchange,
}

impl hyper::body::Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.broke.is_none() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Err(error)) => self.broke = Some(error),
                Some(Ok(frame)) => {
                    let frame = hop_by_hop::without_trailers_for_one_hop(frame);
                    return Poll::Ready(Some(Ok(frame)));
                }
                None => return Poll::Ready(None),
            }
        }
        ready!(self.line.broken.poll_written(context));
        Poll::Ready(self.broke.take().map(|error| Err(error.into())))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.state.send_modify(|state| state.phase = Phase::Over);
    }
}

/// A client's body on its way to a site.
struct Upload {
    body: Incoming,
    /// Ends when the body may flow, or with an error if it never may.
    held: Option<Boxed<Result<(), BodyError>>>,
    /// Runs out when the client has not sent anything for too long.
    idle: Option<Pin<Box<Sleep>>>,
    exchange: Arc<watch::Sender<State>>,
    /// The client's connection.
    line: Option<Arc<Line>>,
}

/// The request with its body held back if the client expects that, and what is known of it on its
/// way. The second value has to be kept for as long as the answer is not at its end. `teller` takes
/// the site's interim answers, if the client knows such.
pub(super) fn watch(
    request: Request<Incoming>,
    teller: Option<Teller>,
    answering: Option<Answering>,
) -> (Request<Body>, Exchange) {
    let expects = request
        .headers()
        .get(EXPECT)
        .is_some_and(|what| what.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let held = expects && !request.body().is_end_stream();
    let exchange = Arc::new(watch::Sender::new(State {
        phase: Phase::Asked,
        moved: Instant::now(),
        owed: false,
        held,
    }));
    let mut request = request.map(|body| {
        let held = held.then(|| Box::pin(leave(exchange.subscribe())) as _);
        Upload {
            body,
            held,
            idle: None,
            exchange: Arc::clone(&exchange),
            line: answering
                .as_ref()
                .map(|answering| Arc::clone(answering.line())),
        }
        .boxed_unsync()
    });
    let site = Arc::clone(&exchange);
    hyper::ext::on_informational(&mut request, move |told| {
        if let Some(teller) = &teller {
            teller.tell(told.status(), told.headers());
        }
        site.send_modify(|state| {
            state.moved = Instant::now();
            if told.status() == StatusCode::CONTINUE && state.phase == Phase::Asked {
                state.phase = Phase::Wanted;
            }
        });
    });
    let exchange = Exchange {
        state: exchange,
        _answering: answering,
    };
    (request, exchange)
}

/// Waits until a body may flow that is held back.
async fn leave(mut states: watch::Receiver<State>) -> Result<(), BodyError> {
    let asked = states.wait_for(|state| state.phase != Phase::Asked);
    let phase = match timeout(PATIENCE, asked).await {
        Ok(Ok(state)) => state.phase,
        Ok(Err(_)) => Phase::Over,
        Err(_) => Phase::Wanted,
    };
    if phase == Phase::Wanted {
        return Ok(());
    }
    // A body that breaks off ends the connection to the site, and its answer with it.
    let _ = states.wait_for(|state| state.phase == Phase::Over).await;
    Err("the site does not want the body".into())
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            // Nobody waits for it any more.
            line.goodbye.owe(false);
        }
    }
}

impl Upload {
    /// Takes note of a part of the body, or that it has to be waited for.
    fn note(&self, owed: bool) {
        self.exchange.send_if_modified(|state| {
            if !owed {
                state.moved = Instant::now();
            }
            state.owed = owed;
            false
        });
        if let Some(line) = &self.line {
            line.goodbye.owe(owed);
        }
    }

    /// Ready when the client has been silent for too long. Once the site has answered, clients may
    /// stop where they are to hear what it says.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let idle = self.idle.get_or_insert_with(|| Box::pin(sleep(SILENCE)));
        loop {
            ready!(idle.as_mut().poll(context));
            if self.exchange.borrow().phase != Phase::Answered {
                return Poll::Ready(());
            }
            idle.set(sleep(SILENCE));
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
        if let Some(held) = &mut self.held {
            let allowed = ready!(held.as_mut().poll(context));
            self.held = None;
            if let Err(refused) = allowed {
                return Poll::Ready(Some(Err(refused)));
            }
            self.exchange.send_modify(|state| state.held = false);
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                self.idle = None;
                self.note(false);
                Poll::Ready(frame.map(|frame| {
                    frame
                        .map(hop_by_hop::without_trailers_for_one_hop)
                        .map_err(BodyError::from)
                }))
            }
            Poll::Pending => {
                self.note(true);
                ready!(self.poll_idle(context));
                let error = "the client does not go on with its body".into();
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
