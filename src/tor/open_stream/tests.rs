//! Streams with a scripted remote end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use tokio::io::AsyncReadExt as _;
use tor_cell::relaycell::msg::EndReason;
use tor_proto::Error as ProtoError;

use super::*;

/// Both halves of a stream, and control over its remote end.
#[derive(Clone, Debug, Default)]
struct ScriptedStream(Arc<Mutex<StreamState>>);

#[derive(Debug, Default)]
struct StreamState {
    connected: bool,
    ended: bool,
    /// What the remote end has sent: bytes, or an error; empty bytes for an end with reason DONE.
    incoming: VecDeque<io::Result<Vec<u8>>>,
    /// What the remote end has received.
    received: Vec<u8>,
    /// What was written but not flushed.
    buffered: Vec<u8>,
    /// How many bytes one write accepts at most.
    write_limit: Option<usize>,
    /// Whether writing fails.
    broken: bool,
    waker: Option<Waker>,
}

impl ScriptedStream {
    fn with<T>(&self, change: impl FnOnce(&mut StreamState) -> T) -> T {
        let mut state = self.0.lock().expect("no panic while locked");
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
        // As arti's reading half reports it: DONE is an ordinary end of file.
        let end = match reason {
            EndReason::DONE => Ok(Vec::new()),
            reason => Err(io::Error::from(ProtoError::EndReceived(reason))),
        };
        self.with(|state| {
            state.incoming.push_back(end);
            state.ended = true;
        });
    }

    /// What the remote end has received.
    fn received(&self) -> String {
        self.with(|state| String::from_utf8(state.received.clone()).expect("text"))
    }

    async fn open(
        &self,
        optimistic: &OptimisticData,
        closed: Option<Failure>,
    ) -> Result<Stream<StreamReader<ScriptedStream>, ScriptedStream>, StreamError> {
        open(self.clone(), self.clone(), self, optimistic, closed).await
    }
}

impl StreamControl for ScriptedStream {
    fn is_connected(&self) -> bool {
        self.with(|state| state.connected && !state.ended)
    }

    fn was_connected(&self) -> bool {
        self.with(|state| state.connected)
    }
}

impl AsyncRead for ScriptedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().expect("no panic while locked");
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

impl AsyncWrite for ScriptedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().expect("no panic while locked");
        if state.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = bytes.len().min(state.write_limit.unwrap_or(usize::MAX));
        state.buffered.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().expect("no panic while locked");
        let buffered = std::mem::take(&mut state.buffered);
        state.received.extend(buffered);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs the other tasks until none can make progress.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// Reads a stream to its end.
async fn read(reader: &mut StreamReader<ScriptedStream>) -> io::Result<String> {
    let mut text = String::new();
    reader.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test]
async fn a_stream_is_open_once_connected_has_arrived() {
    let scripted = ScriptedStream::default();
    let remote = scripted.clone();
    let optimistic = OptimisticData::new(Vec::new());
    let opening = tokio::spawn(async move { scripted.open(&optimistic, None).await });
    settle().await;
    assert!(!opening.is_finished());
    remote.connect();
    let mut stream = opening.await.expect("no panic").expect("open");
    assert_eq!(stream.sent, 0);
    remote.send(b"hello");
    remote.end(EndReason::DONE);
    assert_eq!(read(&mut stream.reader).await.expect("sound"), "hello");
}

#[tokio::test]
async fn optimistic_data_is_sent_at_once_and_so_is_data_that_arrives_later() {
    let scripted = ScriptedStream::default();
    scripted.with(|state| state.write_limit = Some(2));
    let optimistic = OptimisticData::new(b"GET".to_vec());
    let remote = scripted.clone();
    let (stream, ()) = tokio::join!(scripted.open(&optimistic, None), async {
        settle().await;
        assert_eq!(remote.received(), "GET", "flushed");
        optimistic.add(b" / HTTP");
        settle().await;
        assert_eq!(remote.received(), "GET / HTTP");
        remote.connect();
    });
    assert_eq!(stream.expect("open").sent, 10);
    assert_eq!(optimistic.take_rest(10), b"", "everything has been sent");
}

#[tokio::test]
async fn data_behind_connected_is_read_first() {
    for piece in [1, 2, 1000] {
        let scripted = ScriptedStream::default();
        scripted.connect();
        scripted.send(b"SSH-2.0");
        let optimistic = OptimisticData::new(Vec::new());
        let mut stream = scripted.open(&optimistic, None).await.expect("open");
        scripted.send(b" and more");
        scripted.end(EndReason::DONE);
        let mut text = Vec::new();
        loop {
            // A read into an empty buffer loses nothing.
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
async fn data_of_several_messages_behind_connected_is_complete() {
    let scripted = ScriptedStream::default();
    let long: String = (0..2000).map(|n| char::from(b'a' + n as u8 % 26)).collect();
    scripted.connect();
    scripted.send(long.as_bytes());
    scripted.end(EndReason::DONE);
    let optimistic = OptimisticData::new(Vec::new());
    let mut stream = scripted.open(&optimistic, None).await.expect("open");
    assert_eq!(read(&mut stream.reader).await.expect("sound"), long);
}

#[tokio::test]
async fn a_refused_stream_returns_the_end_reason() {
    let scripted = ScriptedStream::default();
    scripted.end(EndReason::CONNECTREFUSED);
    let optimistic = OptimisticData::new(b"GET".to_vec());
    let error = scripted.open(&optimistic, None).await.expect_err("refused");
    assert_eq!(error, StreamError::Ended(Failure::ConnectionRefused));
    // The reason takes precedence over the failure for a close.
    let scripted = ScriptedStream::default();
    scripted.end(EndReason::CONNECTREFUSED);
    let error = scripted
        .open(&optimistic, Some(Failure::StreamClosed))
        .await;
    let error = error.expect_err("refused");
    assert_eq!(error, StreamError::Ended(Failure::ConnectionRefused));
}

#[tokio::test]
async fn a_close_instead_of_connected_is_the_failure_that_the_caller_names() {
    let optimistic = OptimisticData::new(Vec::new());
    let scripted = ScriptedStream::default();
    scripted.end(EndReason::DONE);
    let error = scripted
        .open(&optimistic, Some(Failure::StreamClosed))
        .await;
    let error = error.expect_err("closed");
    assert_eq!(error, StreamError::Ended(Failure::StreamClosed));
    // From an exit, it means that the stream was open and has ended.
    let scripted = ScriptedStream::default();
    scripted.end(EndReason::DONE);
    let mut stream = scripted.open(&optimistic, None).await.expect("open");
    assert_eq!(read(&mut stream.reader).await.expect("sound"), "");
}

#[tokio::test]
async fn an_end_right_behind_connected_is_not_a_refusal() {
    let optimistic = OptimisticData::new(Vec::new());
    let scripted = ScriptedStream::default();
    scripted.connect();
    scripted.end(EndReason::DONE);
    let opened = scripted
        .open(&optimistic, Some(Failure::StreamClosed))
        .await;
    let mut stream = opened.expect("it was open");
    assert_eq!(read(&mut stream.reader).await.expect("sound"), "");

    let scripted = ScriptedStream::default();
    scripted.connect();
    scripted.end(EndReason::CONNRESET);
    let opened = scripted
        .open(&optimistic, Some(Failure::StreamClosed))
        .await;
    let mut stream = opened.expect("it was open");
    let error = read(&mut stream.reader).await.expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    // The error is returned once; then the stream is at its end.
    assert_eq!(read(&mut stream.reader).await.expect("the end"), "");
}

#[tokio::test]
async fn the_reading_half_reports_why_a_write_failed() {
    let scripted = ScriptedStream::default();
    scripted.with(|state| state.broken = true);
    let remote = scripted.clone();
    let optimistic = OptimisticData::new(b"GET".to_vec());
    let opening = tokio::spawn(async move { scripted.open(&optimistic, None).await });
    settle().await;
    assert!(!opening.is_finished());
    remote.end(EndReason::TIMEOUT);
    let error = opening.await.expect("no panic").expect_err("refused");
    assert_eq!(error, StreamError::Ended(Failure::ConnectionTimedOut));
}
