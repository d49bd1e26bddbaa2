//! Bodies that wait for the site's "100 Continue" (RFC 9110 section 10.1.1).
//!
//! A client that sends `Expect: 100-continue` keeps its body back until it is asked for it. hyper
//! asks as soon as somebody reads the body; so the body is not read before the site has asked.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::EXPECT;
use hyper::{Request, StatusCode};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Body, BodyError, Boxed, streamed};

/// How long to wait for the site. Some know nothing of this and wait for the body themselves.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the site wants the body.
pub(super) type Leave = watch::Sender<bool>;

/// A body that is held back.
struct Held {
    body: Incoming,
    /// Gives whether to go on; `None` once that is known.
    leave: Option<Boxed<bool>>,
}

/// The request with its body held back if the client expects that. For as long as the site has not
/// given its final answer, the second value has to be kept.
pub(super) fn hold(request: Request<Incoming>) -> (Request<Body>, Option<Leave>) {
    let expects = request
        .headers()
        .get(EXPECT)
        .is_some_and(|what| what.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if !expects || request.body().is_end_stream() {
        return (request.map(streamed), None);
    }
    let leave = Leave::new(false);
    let mut given = leave.subscribe();
    let waiting = async move {
        match timeout(PATIENCE, given.wait_for(|given| *given)).await {
            Ok(Ok(_)) | Err(_) => true,
            // The final answer is there.
            Ok(Err(_)) => false,
        }
    };
    let leave_for_site = leave.clone();
    let mut request = request.map(|body| {
        let leave = Some(Box::pin(waiting) as Boxed<bool>);
        Held { body, leave }.boxed_unsync()
    });
    hyper::ext::on_informational(&mut request, move |told| {
        if told.status() == StatusCode::CONTINUE {
            leave_for_site.send_replace(true);
        }
    });
    (request, Some(leave))
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(leave) = &mut self.leave {
            let go_on = ready!(leave.as_mut().poll(context));
            self.leave = None;
            if !go_on {
                return Poll::Ready(Some(Err("the site does not want the body".into())));
            }
        }
        Pin::new(&mut self.body)
            .poll_frame(context)
            .map_err(BodyError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
