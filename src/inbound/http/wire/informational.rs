//! A site's interim responses (RFC 9110 section 15.2), such as 103 "Early Hints", forwarded to the
//! client. 100 "Continue" is not among them: hyper sends it when the request's body is polled.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::header::CONTENT_LENGTH;
use hyper::{HeaderMap, StatusCode};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::inbound::http::hop_by_hop;

/// Most interim responses queued for a client that reads slowly; more are dropped.
const MAX_QUEUED: usize = 8;
/// Longest interim response, in bytes; a longer one is dropped. Most contain a few links.
const MAX_LENGTH: usize = 16 * 1024;

/// The interim responses to the current request that are not written yet.
#[derive(Default)]
pub(in crate::inbound::http) struct InterimResponses {
    /// Present while interim responses may be written: until hyper has the final response.
    queue: Mutex<Option<Receiver<Bytes>>>,
    /// Notified when one is taken from the queue.
    taken: Notify,
}

/// Queues the interim responses to one request; drops those after the final response.
#[derive(Clone)]
pub(in crate::inbound::http) struct InterimSender(Sender<Bytes>);

impl InterimResponses {
    /// Begins a request of a client that accepts interim responses (HTTP/1.1).
    pub(in crate::inbound::http) fn begin(&self) -> InterimSender {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        *self.lock() = Some(receiver);
        InterimSender(sender)
    }

    /// Ends the request: waits until everything queued is on its way to the client, and drops what comes
    /// later. Then hyper may get the final response.
    pub(in crate::inbound::http) async fn end(&self) {
        loop {
            {
                let mut queue = self.lock();
                if queue.as_ref().is_none_or(Receiver::is_empty) {
                    *queue = None;
                    return;
                }
            }
            self.taken.notified().await;
        }
    }

    /// Returns the next one to write, encoded; wakes the task when there is one.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut queue = self.lock();
        let Some(queue) = queue.as_mut() else {
            return Poll::Ready(None);
        };
        let next = queue.poll_recv(context);
        if let Poll::Ready(Some(_)) = next {
            self.taken.notify_one();
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, Option<Receiver<Bytes>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InterimSender {
    /// Queues a response, if it is an interim one.
    pub(in crate::inbound::http) fn send(&self, status: StatusCode, headers: &HeaderMap) {
        // 101 is a final response.
        let is_interim = status.is_informational()
            && ![StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS].contains(&status);
        if !is_interim {
            return;
        }
        // hyper calls this synchronously, so it cannot wait for room.
        let Ok(permit) = self.0.try_reserve() else {
            return;
        };
        let head = encode_head(status, headers);
        if head.len() <= MAX_LENGTH {
            permit.send(head.into());
        }
    }
}

/// Encodes an interim response. hyper has parsed the names and values, so they contain no line ends.
fn encode_head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut headers = headers.clone();
    hop_by_hop::rewrite_for_client(&mut headers, false);
    // An interim response has no body (RFC 9110 section 8.6).
    headers.remove(CONTENT_LENGTH);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;
    use hyper::header::HeaderValue;

    use super::*;

    fn next(interim: &InterimResponses) -> Option<Bytes> {
        let mut context = Context::from_waker(noop_waker_ref());
        match interim.poll_next(&mut context) {
            Poll::Ready(next) => next,
            Poll::Pending => None,
        }
    }

    fn hints(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(hyper::header::LINK, HeaderValue::from_static(value))])
    }

    #[test]
    fn hop_by_hop_and_body_headers_are_not_forwarded() {
        let mut headers = hints("</a.css>; rel=preload");
        for (name, value) in [
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("tor-request-failed", "end/MISC"),
            ("proxy-authenticate", "Basic"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let written = encode_head(StatusCode::EARLY_HINTS, &headers);
        let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&written), expected);
        let unknown = StatusCode::from_u16(199).expect("a status code");
        let written = encode_head(unknown, &HeaderMap::new());
        assert_eq!(written, b"HTTP/1.1 199 \r\n\r\n");
    }

    #[tokio::test]
    async fn only_interim_responses_before_the_final_one_of_their_request_are_written() {
        let interim = InterimResponses::default();
        let first = interim.begin();
        for status in [100, 101, 200] {
            let status = StatusCode::from_u16(status).expect("a status code");
            first.send(status, &HeaderMap::new());
        }
        assert_eq!(next(&interim), None);
        first.send(StatusCode::EARLY_HINTS, &hints("a"));
        assert!(next(&interim).is_some());
        interim.end().await;
        first.send(StatusCode::EARLY_HINTS, &hints("late"));
        let second = interim.begin();
        first.send(StatusCode::EARLY_HINTS, &hints("later"));
        assert_eq!(next(&interim), None);
        second.send(StatusCode::PROCESSING, &HeaderMap::new());
        assert_eq!(
            next(&interim).as_deref(),
            Some(&b"HTTP/1.1 102 Processing\r\n\r\n"[..])
        );
    }

    #[tokio::test]
    async fn the_end_waits_for_queued_interim_responses() {
        let interim = InterimResponses::default();
        let sender = interim.begin();
        sender.send(StatusCode::EARLY_HINTS, &hints("a"));
        let written = std::cell::Cell::new(false);
        tokio::join!(
            async {
                interim.end().await;
                assert!(written.get());
            },
            async {
                tokio::task::yield_now().await;
                written.set(next(&interim).is_some());
            }
        );
    }

    #[test]
    fn queued_interim_responses_are_limited_in_number_and_length() {
        let interim = InterimResponses::default();
        let sender = interim.begin();
        let long = HeaderValue::from_str(&"x".repeat(MAX_LENGTH)).expect("a header value");
        let long = HeaderMap::from_iter([(hyper::header::LINK, long)]);
        sender.send(StatusCode::EARLY_HINTS, &long);
        assert_eq!(next(&interim), None);
        for _ in 0..100 {
            sender.send(StatusCode::EARLY_HINTS, &hints("a"));
        }
        let queued = std::iter::from_fn(|| next(&interim)).count();
        assert_eq!(queued, MAX_QUEUED);
    }
}
