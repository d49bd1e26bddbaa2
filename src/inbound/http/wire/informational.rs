//! A site's interim answers (RFC 9110 section 15.2), such as 103 "Early Hints", on their way to the
//! client. "100 Continue" is not among them: hyper says it itself when the body is read.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::header::CONTENT_LENGTH;
use hyper::{HeaderMap, StatusCode};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::super::hop_by_hop;

/// How many wait for a client that reads slowly; what comes beyond is dropped.
const MAX_WAITING: usize = 8;
/// How long one may be, in bytes; a longer one is dropped. Most are a few links.
const MAX_LENGTH: usize = 16 * 1024;

/// What waits to be written for the request that is being answered.
#[derive(Default)]
pub(in super::super) struct Interim {
    /// There if interim answers may be written now: the final one has not been given to hyper.
    waiting: Mutex<Option<Receiver<Bytes>>>,
    /// Something was taken out of it.
    taken: Notify,
}

/// Takes the interim answers to one request. What it takes when the final answer is there already,
/// is dropped.
#[derive(Clone)]
pub(in super::super) struct Teller(Sender<Bytes>);

impl Interim {
    /// Begins with a request, of a client that knows interim answers: one of HTTP/1.1.
    pub(in super::super) fn begin(&self) -> Teller {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        *self.lock() = Some(receiver);
        Teller(sender)
    }

    /// Ends with it: gives back when everything told so far is on its way to the client. Then the
    /// final answer may be given to hyper, and nothing goes before it any more.
    pub(in super::super) async fn end(&self) {
        loop {
            {
                let mut waiting = self.lock();
                if waiting.as_ref().is_none_or(Receiver::is_empty) {
                    *waiting = None;
                    return;
                }
            }
            self.taken.notified().await;
        }
    }

    /// The next one to be written. Wakes the task when there is one.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut waiting = self.lock();
        let Some(waiting) = waiting.as_mut() else {
            return Poll::Ready(None);
        };
        let next = waiting.poll_recv(context);
        if let Poll::Ready(Some(_)) = next {
            self.taken.notify_one();
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, Option<Receiver<Bytes>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Teller {
    /// Takes what a site has said.
    pub(in super::super) fn tell(&self, status: StatusCode, headers: &HeaderMap) {
        // A switch of protocols is a final answer.
        let interim = status.is_informational()
            && ![StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS].contains(&status);
        if !interim {
            return;
        }
        // If there is no room, nobody can wait for it here.
        let Ok(place) = self.0.try_reserve() else {
            return;
        };
        let head = head(status, headers);
        if head.len() <= MAX_LENGTH {
            place.send(head.into());
        }
    }
}

/// One as it is written. Its names and values are such as hyper has read: there are no line ends in
/// them.
fn head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut headers = headers.clone();
    hop_by_hop::to_client(&mut headers, false);
    // There is no body (RFC 9110 section 8.6).
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

    fn next(interim: &Interim) -> Option<Bytes> {
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
    fn what_is_for_one_hop_or_for_a_body_stays_behind() {
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
        let written = head(StatusCode::EARLY_HINTS, &headers);
        let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&written), expected);
        let unknown = StatusCode::from_u16(199).expect("a status");
        let written = head(unknown, &HeaderMap::new());
        assert_eq!(written, b"HTTP/1.1 199 \r\n\r\n");
    }

    #[tokio::test]
    async fn only_what_comes_before_the_final_answer_to_its_own_request_is_written() {
        let interim = Interim::default();
        let first = interim.begin();
        for status in [100, 101, 200] {
            let status = StatusCode::from_u16(status).expect("a status");
            first.tell(status, &HeaderMap::new());
        }
        assert_eq!(next(&interim), None);
        first.tell(StatusCode::EARLY_HINTS, &hints("a"));
        assert!(next(&interim).is_some());
        interim.end().await;
        first.tell(StatusCode::EARLY_HINTS, &hints("late"));
        let second = interim.begin();
        first.tell(StatusCode::EARLY_HINTS, &hints("later"));
        assert_eq!(next(&interim), None);
        second.tell(StatusCode::PROCESSING, &HeaderMap::new());
        assert_eq!(
            next(&interim).as_deref(),
            Some(&b"HTTP/1.1 102 Processing\r\n\r\n"[..])
        );
    }

    #[tokio::test]
    async fn the_end_waits_for_what_is_to_be_written_before_it() {
        let interim = Interim::default();
        let teller = interim.begin();
        teller.tell(StatusCode::EARLY_HINTS, &hints("a"));
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
    fn what_waits_is_limited_in_number_and_length() {
        let interim = Interim::default();
        let teller = interim.begin();
        let long = HeaderValue::from_str(&"x".repeat(MAX_LENGTH)).expect("a value");
        let long = HeaderMap::from_iter([(hyper::header::LINK, long)]);
        teller.tell(StatusCode::EARLY_HINTS, &long);
        assert_eq!(next(&interim), None);
        for _ in 0..100 {
            teller.tell(StatusCode::EARLY_HINTS, &hints("a"));
        }
        let waiting = std::iter::from_fn(|| next(&interim)).count();
        assert_eq!(waiting, MAX_WAITING);
    }
}
