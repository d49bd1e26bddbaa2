//! Opening a stream on a circuit, with what the client has said already right behind the request.
//!
//! arti can wait for CONNECTED, or send early data, but not both at once; so this watches the
//! reading half while it feeds the writing half. What comes right behind CONNECTED is read with it,
//! also the end of a stream that its far end closed at once.

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

/// The reading half of a stream; first comes what arrived together with CONNECTED.
#[derive(Debug)]
pub struct Reader<R = DataReader> {
    /// In a box, as few streams have any and all remember whether they do.
    first: Option<Box<First>>,
    rest: R,
}

/// What was read together with CONNECTED.
#[derive(Debug)]
enum First {
    Bytes(Cursor<Vec<u8>>),
    /// The end of the stream, and its reason if it was not the usual one.
    End(Option<io::Error>),
}

impl First {
    /// Nothing if nothing came.
    fn bytes(bytes: Vec<u8>) -> Option<Self> {
        (!bytes.is_empty()).then(|| First::Bytes(Cursor::new(bytes)))
    }
}

/// The end of an open stream: an error only if the stream broke.
fn end_of_open_stream(error: io::Error) -> io::Result<()> {
    match arti_errors::is_ordinary_end(&error) {
        true => Ok(()),
        false => Err(error),
    }
}

impl<R> Reader<R> {
    fn new(first: Option<First>, rest: R) -> Self {
        let first = first.map(Box::new);
        Reader { first, rest }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Reader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.first.as_deref_mut() {
            Some(First::Bytes(bytes)) => {
                let before = buffer.filled().len();
                ready!(Pin::new(bytes).poll_read(cx, buffer))?;
                if buffer.filled().len() > before || buffer.remaining() == 0 {
                    return Poll::Ready(Ok(()));
                }
                self.first = None;
            }
            Some(First::End(error)) => {
                return Poll::Ready(error.take().map_or(Ok(()), end_of_open_stream));
            }
            None => {}
        }
        let read = ready!(Pin::new(&mut self.rest).poll_read(cx, buffer));
        Poll::Ready(read.or_else(end_of_open_stream))
    }
}

/// A stream that is open at the far end.
pub(crate) type Open = Stream<Reader, DataWriter>;

/// The most that is taken in together with CONNECTED: one relay message.
const FIRST_READ: usize = 512;

/// A stream on which nothing was sent early, once it is open.
pub(crate) fn opened(stream: DataStream) -> Open {
    let (reader, writer) = stream.split();
    Stream {
        reader: Reader::new(None, reader),
        writer,
        sent: 0,
    }
}

/// Waits until a stream is open that was begun optimistically, and sends early data on it.
///
/// `closed` is what it means if the far end closes the stream instead of opening it; `None` if it
/// never does that.
pub(crate) async fn open_with_early_data(
    stream: DataStream,
    early: &OptimisticData,
    closed: Option<Failure>,
) -> Result<Open, StreamError> {
    let control = stream.client_stream_ctrl().cloned();
    let control = control.ok_or(StreamError::Failed(Failure::Internal))?;
    let (reader, writer) = stream.split();
    open(reader, writer, &*control, early, closed).await
}

/// What is known of a stream beside its bytes.
trait Control {
    /// Whether CONNECTED has come, and no end yet.
    fn is_connected(&self) -> bool;

    /// Whether CONNECTED has come, even if the end of the stream came right behind it.
    fn was_connected(&self) -> bool;
}

impl Control for ClientDataStreamCtrl {
    fn is_connected(&self) -> bool {
        ClientDataStreamCtrl::is_connected(self)
    }

    /// Once the end has come, `is_connected` says no, as for a stream that was refused, and only what
    /// the object shows for debugging tells the two apart. A unit test looks whether it still does, and
    /// so does the network test `streams`.
    fn was_connected(&self) -> bool {
        format!("{self:?}").contains(RECEIVED_CONNECTED)
    }
}

/// What a stream's control object shows after CONNECTED.
pub(super) const RECEIVED_CONNECTED: &str = "received_connected: true";

/// The same for the halves of a stream.
async fn open<R, W>(
    mut reader: R,
    mut writer: W,
    control: &impl Control,
    early: &OptimisticData,
    closed: Option<Failure>,
) -> Result<Stream<Reader<R>, W>, StreamError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let sent = AtomicUsize::new(0);
    let sending = async {
        loop {
            let bytes = early.beyond(sent.load(Ordering::Relaxed)).await;
            early.note_sent();
            match writer.write(&bytes).await {
                Ok(written) => {
                    sent.fetch_add(written, Ordering::Relaxed);
                }
                // The reading half tells why.
                Err(_) => break,
            }
            if sent.load(Ordering::Relaxed) == early.len() && writer.flush().await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let first = tokio::select! {
        first = connected(&mut reader, control) => first,
        () = sending => None,
    };
    let first = match first {
        Some(First::End(error)) if !control.was_connected() => match (error, closed) {
            (Some(error), _) => return Err(arti_errors::of_stream_io(&error)),
            (None, Some(failure)) => return Err(StreamError::Ended(failure)),
            (None, None) => Some(First::End(None)),
        },
        Some(First::End(error)) => {
            debug!("the stream was opened and closed in one go");
            Some(First::End(error))
        }
        first => first,
    };
    // A partly filled message may be left over: whoever carries the stream flushes it.
    let sent = sent.into_inner();
    if sent > 0 {
        debug!("{sent} early bytes went out before the stream was open");
    }
    Ok(Stream {
        reader: Reader::new(first, reader),
        writer,
        sent,
    })
}

/// Waits for CONNECTED or the end, and gives what came with it.
async fn connected<R>(reader: &mut R, control: &impl Control) -> Option<First>
where
    R: AsyncRead + Unpin,
{
    poll_fn(|context| {
        let mut bytes = [0; FIRST_READ];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut *reader).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                Poll::Ready(Some(First::End(None)))
            }
            Poll::Ready(Ok(())) => Poll::Ready(First::bytes(buffer.filled().to_vec())),
            Poll::Ready(Err(error)) => Poll::Ready(Some(First::End(Some(error)))),
            Poll::Pending if control.is_connected() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
