//! Opening a stream on a circuit, with optimistic data right behind the BEGIN message.
//!
//! arti can wait for CONNECTED or send data early, but not both. [`open`] therefore polls the reading half
//! while it feeds the writing half. Whatever arrives right behind CONNECTED is read together with it, even
//! the end of a stream that the destination closed at once.

use std::future::poll_fn;
use std::io::{self, Cursor};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tor_proto::client::stream::{ClientDataStreamCtrl, DataReader, DataStream, DataWriter};
use tracing::debug;

use super::arti_errors::{self, StreamError};
use crate::failure::Failure;
use crate::tor::connector::Stream;
use crate::tor::optimistic_data::OptimisticData;

#[cfg(test)]
mod tests;

/// What Debug output of [`ClientDataStreamCtrl`] contains once CONNECTED has arrived.
pub(super) const RECEIVED_CONNECTED: &str = "received_connected: true";

/// The size of the read that waits for CONNECTED, in bytes: about one relay message.
const FIRST_READ: usize = 512;

/// An open stream of the Tor network.
pub(crate) type OpenStream = Stream<StreamReader, DataWriter>;

/// Wraps a stream that is open and has carried no optimistic data.
pub(crate) fn into_open_stream(stream: DataStream) -> OpenStream {
    let (reader, writer) = stream.split();
    Stream {
        reader: StreamReader::new(None, reader),
        writer,
        sent: 0,
    }
}

/// Waits until an optimistically begun stream is open, and sends optimistic data on it meanwhile.
///
/// `closed` is the failure if the remote end closes the stream with reason DONE instead of opening it;
/// `None` if it never does so, and DONE therefore means that the stream was open.
pub(crate) async fn open_optimistically(
    stream: DataStream,
    optimistic: &OptimisticData,
    closed: Option<Failure>,
) -> Result<OpenStream, StreamError> {
    let control = stream.client_stream_ctrl().cloned();
    let control = control.ok_or(StreamError::Failed(Failure::Internal))?;
    let (reader, writer) = stream.split();
    open(reader, writer, &*control, optimistic, closed).await
}

/// [`open_optimistically`] for the two halves of a stream.
async fn open<R, W>(
    mut reader: R,
    mut writer: W,
    control: &impl StreamControl,
    optimistic: &OptimisticData,
    closed: Option<Failure>,
) -> Result<Stream<StreamReader<R>, W>, StreamError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let sent = AtomicUsize::new(0);
    let sending = async {
        loop {
            let bytes = optimistic.wait_beyond(sent.load(Ordering::Relaxed)).await;
            optimistic.note_sent();
            match writer.write(&bytes).await {
                Ok(written) => {
                    sent.fetch_add(written, Ordering::Relaxed);
                }
                // The reading half reports the reason.
                Err(_) => break,
            }
            if sent.load(Ordering::Relaxed) == optimistic.len() && writer.flush().await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let first = tokio::select! {
        first = wait_connected(&mut reader, control) => first,
        () = sending => None,
    };
    let first = match first {
        Some(FirstRead::End(error)) if !control.was_connected() => match (error, closed) {
            (Some(error), _) => return Err(arti_errors::classify_stream_io(&error)),
            (None, Some(failure)) => return Err(StreamError::Ended(failure)),
            (None, None) => Some(FirstRead::End(None)),
        },
        Some(FirstRead::End(error)) => {
            debug!("the stream was opened and closed at once");
            Some(FirstRead::End(error))
        }
        first => first,
    };
    // The writer may still buffer part of a relay message; `inbound::relay` flushes it.
    let sent = sent.into_inner();
    if sent > 0 {
        debug!("{sent} bytes of optimistic data were sent before the stream was open");
    }
    Ok(Stream {
        reader: StreamReader::new(first, reader),
        writer,
        sent,
    })
}

/// Waits for CONNECTED or the end of the stream, and returns what arrived with it.
async fn wait_connected<R>(reader: &mut R, control: &impl StreamControl) -> Option<FirstRead>
where
    R: AsyncRead + Unpin,
{
    poll_fn(|context| {
        let mut bytes = [0; FIRST_READ];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut *reader).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                Poll::Ready(Some(FirstRead::End(None)))
            }
            Poll::Ready(Ok(())) => Poll::Ready(FirstRead::from_bytes(buffer.filled())),
            Poll::Ready(Err(error)) => Poll::Ready(Some(FirstRead::End(Some(error)))),
            Poll::Pending if control.is_connected() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The state of a stream, apart from its bytes.
trait StreamControl {
    /// Returns whether CONNECTED has arrived and the stream has not ended.
    fn is_connected(&self) -> bool;

    /// Returns whether CONNECTED has arrived, even if the stream has ended since.
    fn was_connected(&self) -> bool;
}

impl StreamControl for ClientDataStreamCtrl {
    fn is_connected(&self) -> bool {
        ClientDataStreamCtrl::is_connected(self)
    }

    /// `is_connected` is false for every stream that has ended, so only Debug output distinguishes a stream
    /// that was refused from one that ended right behind CONNECTED. `upstream_tests` and the network test
    /// `streams` check that it still does.
    fn was_connected(&self) -> bool {
        format!("{self:?}").contains(RECEIVED_CONNECTED)
    }
}

/// The reading half of a stream. It first returns what arrived together with CONNECTED.
#[derive(Debug)]
pub struct StreamReader<R = DataReader> {
    /// Boxed to keep all streams small: few have a first read.
    first: Option<Box<FirstRead>>,
    rest: R,
}

impl<R> StreamReader<R> {
    fn new(first: Option<FirstRead>, rest: R) -> Self {
        let first = first.map(Box::new);
        StreamReader { first, rest }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for StreamReader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.first.as_deref_mut() {
            Some(FirstRead::Bytes(bytes)) => {
                let before = buffer.filled().len();
                ready!(Pin::new(bytes).poll_read(cx, buffer))?;
                if buffer.filled().len() > before || buffer.remaining() == 0 {
                    return Poll::Ready(Ok(()));
                }
                self.first = None;
            }
            Some(FirstRead::End(error)) => {
                return Poll::Ready(error.take().map_or(Ok(()), ignore_ordinary_end));
            }
            None => {}
        }
        let read = ready!(Pin::new(&mut self.rest).poll_read(cx, buffer));
        Poll::Ready(read.or_else(ignore_ordinary_end))
    }
}

/// What was read together with CONNECTED.
#[derive(Debug)]
enum FirstRead {
    Bytes(Cursor<Vec<u8>>),
    /// The end of the stream, and its error unless the reason is DONE.
    End(Option<io::Error>),
}

impl FirstRead {
    /// Returns `None` if `bytes` is empty.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (!bytes.is_empty()).then(|| FirstRead::Bytes(Cursor::new(bytes.to_vec())))
    }
}

/// Turns the error of an open stream into its end, unless the stream broke.
fn ignore_ordinary_end(error: io::Error) -> io::Result<()> {
    match arti_errors::is_ordinary_end(&error) {
        true => Ok(()),
        false => Err(error),
    }
}
