//! Streams whose far end does what a test says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use tokio::io::AsyncReadExt as _;
use tor_cell::relaycell::msg::EndReason;
use tor_proto::Error as ProtoError;

use super::*;

/// A stream between the client and a far end.
#[derive(Clone, Debug, Default)]
struct Wire(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    connected: bool,
    ended: bool,
    /// What the far end has sent: bytes, or the end; nothing for an end without a reason.
    incoming: VecDeque<io::Result<Vec<u8>>>,
    /// What has reached it.
    received: Vec<u8>,
    /// What was written and not flushed.
    buffered: Vec<u8>,
    /// The most that one write takes.
    at_once: Option<usize>,
    /// Writing fails.
    broken: bool,
    waker: Option<Waker>,
}

impl Wire {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().expect("no test panics with the lock");
        let result = change(&mut state);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        result
    }

    fn connect(&self) {
        self.with(|state| state.connected = true);
    }

    fn send(&self, bytes: &[u8]) {
        self.with(|state| state.incoming.push_back(Ok(bytes.to_vec())));
    }

    fn end(&self, reason: EndReason) {
        // As arti's reading half reports it: DONE is the usual one.
        let end = match reason {
            EndReason::DONE => Ok(Vec::new()),
            reason => Err(io::Error::from(ProtoError::EndReceived(reason))),
        };
        self.with(|state| {
            state.incoming.push_back(end);
            state.ended = true;
        });
    }

    /// What has reached the far end.
    fn received(&self) -> String {
        self.with(|state| String::from_utf8(state.received.clone()).expect("text"))
    }

    async fn open(
        &self,
        early: &OptimisticData,
        closed: Option<Failure>,
    ) -> Result<Stream<Reader<Wire>, Wire>, StreamError> {
        open(self.clone(), self.clone(), self, early, closed).await
    }
}

impl Control for Wire {
    fn is_connected(&self) -> bool {
        self.with(|state| state.connected && !state.ended)
    }

    fn was_connected(&self) -> bool {
        self.with(|state| state.connected)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().expect("no test panics with the lock");
        match state.incoming.pop_front() {
            Some(Ok(mut bytes)) => {
                let rest = bytes.split_off(bytes.len().min(buffer.remaining()));
                buffer.put_slice(&bytes);
                if !rest.is_empty() {
                    state.incoming.push_front(Ok(rest));
                }
                Poll::Ready(Ok(()))
            }
            Some(Err(error)) => Poll::Ready(Err(error)),
            None if state.ended => Poll::Ready(Ok(())),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().expect("no test panics with the lock");
        if state.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = bytes.len().min(state.at_once.unwrap_or(usize::MAX));
        state.buffered.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().expect("no test panics with the lock");
        let buffered = std::mem::take(&mut state.buffered);
        state.received.extend(buffered);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Lets the tasks of a test come to rest.
async fn rest() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// Everything that is read from a stream until its end.
async fn read(reader: &mut Reader<Wire>) -> io::Result<String> {
    let mut text = String::new();
    reader.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test]
async fn a_stream_is_open_when_connected_has_come() {
    let wire = Wire::default();
    let far = wire.clone();
    let early = OptimisticData::new(Vec::new());
    let opening = tokio::spawn(async move { wire.open(&early, None).await });
    rest().await;
    assert!(!opening.is_finished());
    far.connect();
    let mut stream = opening.await.expect("no panic").expect("open");
    assert_eq!(stream.sent, 0);
    far.send(b"hello");
    far.end(EndReason::DONE);
    assert_eq!(read(&mut stream.reader).await.expect("sound"), "hello");
}

#[tokio::test]
async fn early_data_goes_out_at_once_and_what_comes_later_as_well() {
    let wire = Wire::default();
    wire.with(|state| state.at_once = Some(2));
    let early = OptimisticData::new(b"GET".to_vec());
    let far = wire.clone();
    let (stream, ()) = tokio::join!(wire.open(&early, None), async {
        rest().await;
        assert_eq!(far.received(), "GET", "and it is flushed");
        early.add(b" / HTTP");
        rest().await;
        assert_eq!(far.received(), "GET / HTTP");
        far.connect();
    });
    assert_eq!(stream.expect("open").sent, 10);
    assert_eq!(early.rest(10), b"", "nothing is left to be sent again");
}

#[tokio::test]
async fn what_comes_with_connected_is_read_first() {
    for piece in [1, 2, 1000] {
        let wire = Wire::default();
        wire.connect();
        wire.send(b"SSH-2.0");
        let early = OptimisticData::new(Vec::new());
        let mut stream = wire.open(&early, None).await.expect("open");
        wire.send(b" and more");
        wire.end(EndReason::DONE);
        let mut text = Vec::new();
        loop {
            // A read without room takes nothing and loses nothing.
            assert_eq!(stream.reader.read(&mut []).await.expect("sound"), 0);
            let mut bytes = vec![0; piece];
            match stream.reader.read(&mut bytes).await.expect("sound") {
                0 => break,
                n => text.extend_from_slice(&bytes[..n]),
            }
        }
        assert_eq!(text, b"SSH-2.0 and more", "in pieces of {piece}");
    }
}

#[tokio::test]
async fn more_than_one_message_with_connected_is_not_lost() {
    let wire = Wire::default();
    let long: String = (0..2000).map(|n| char::from(b'a' + n as u8 % 26)).collect();
    wire.connect();
    wire.send(long.as_bytes());
    wire.end(EndReason::DONE);
    let early = OptimisticData::new(Vec::new());
    let mut stream = wire.open(&early, None).await.expect("open");
    assert_eq!(read(&mut stream.reader).await.expect("sound"), long);
}

#[tokio::test]
async fn a_far_end_that_refuses_says_why() {
    let wire = Wire::default();
    wire.end(EndReason::CONNECTREFUSED);
    let early = OptimisticData::new(b"GET".to_vec());
    let error = wire.open(&early, None).await.expect_err("refused");
    assert_eq!(error, StreamError::Ended(Failure::ConnectionRefused));
    // With the reason of its own, also where a close would mean something.
    let wire = Wire::default();
    wire.end(EndReason::CONNECTREFUSED);
    let error = wire.open(&early, Some(Failure::StreamClosed)).await;
    let error = error.expect_err("refused");
    assert_eq!(error, StreamError::Ended(Failure::ConnectionRefused));
}

#[tokio::test]
async fn a_close_instead_of_connected_means_what_the_caller_says() {
    let early = OptimisticData::new(Vec::new());
    let wire = Wire::default();
    wire.end(EndReason::DONE);
    let error = wire.open(&early, Some(Failure::StreamClosed)).await;
    let error = error.expect_err("closed");
    assert_eq!(error, StreamError::Ended(Failure::StreamClosed));
    // Of an exit it means that the stream was open and is at its end.
    let wire = Wire::default();
    wire.end(EndReason::DONE);
    let mut stream = wire.open(&early, None).await.expect("open");
    assert_eq!(read(&mut stream.reader).await.expect("sound"), "");
}

#[tokio::test]
async fn an_end_right_behind_connected_is_no_refusal() {
    let early = OptimisticData::new(Vec::new());
    let wire = Wire::default();
    wire.connect();
    wire.end(EndReason::DONE);
    let opened = wire.open(&early, Some(Failure::StreamClosed)).await;
    let mut stream = opened.expect("it was open");
    assert_eq!(read(&mut stream.reader).await.expect("sound"), "");

    let wire = Wire::default();
    wire.connect();
    wire.end(EndReason::CONNRESET);
    let opened = wire.open(&early, Some(Failure::StreamClosed)).await;
    let mut stream = opened.expect("it was open");
    let error = read(&mut stream.reader).await.expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    // Said once, and at its end from then on.
    assert_eq!(read(&mut stream.reader).await.expect("the end"), "");
}

#[tokio::test]
async fn a_writing_half_that_fails_leaves_the_word_to_the_reading_half() {
    let wire = Wire::default();
    wire.with(|state| state.broken = true);
    let far = wire.clone();
    let early = OptimisticData::new(b"GET".to_vec());
    let opening = tokio::spawn(async move { wire.open(&early, None).await });
    rest().await;
    assert!(!opening.is_finished());
    far.end(EndReason::TIMEOUT);
    let error = opening.await.expect("no panic").expect_err("refused");
    assert_eq!(error, StreamError::Ended(Failure::ConnectionTimedOut));
}
