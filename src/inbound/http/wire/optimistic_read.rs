//! Data that a client sends after the head of a CONNECT, before its tunnel is open.
//!
//! As on SOCKS ports, it is sent together with the request to open the stream ([`OptimisticData`]). That
//! works if the CONNECT is the first request of its connection, as it is with common clients, and if all
//! its lines end with CR LF. Otherwise hyper reads and buffers the data, and it is sent when the tunnel is
//! open.
//!
//! A CONNECT that gets no tunnel is the last request of its connection, as in C tor: data sent before
//! the client has read the response is meant for the tunnel and never parsed as a request.

use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::tor::optimistic_data::{OPTIMISTIC_LIMIT, OptimisticData};

/// The start of a CONNECT request. Methods are case-sensitive (RFC 9110 section 9.1).
const CONNECT: &[u8] = b"CONNECT ";
/// Most bytes of optimistic data to read at once.
const READ_SIZE: usize = 4 * 1024;

/// Reads the client's connection for hyper.
pub(in crate::inbound::http) struct OptimisticReader {
    /// The data withheld from hyper.
    pub(in crate::inbound::http) optimistic: OptimisticData,
    mode: Mutex<ReadMode>,
}

/// What hyper gets of the data that the client sends.
#[derive(Clone, Copy)]
enum ReadMode {
    /// The head of the first request, scanned for its end in case it is a CONNECT.
    FirstHead(HeadScanner),
    /// Nothing: a CONNECT has no response yet.
    Withhold,
    /// Everything.
    PassThrough,
    /// Nothing, for the rest of the connection.
    Stop,
}

impl Default for OptimisticReader {
    fn default() -> Self {
        OptimisticReader {
            optimistic: OptimisticData::new(Vec::new()),
            mode: Mutex::new(ReadMode::FirstHead(HeadScanner::default())),
        }
    }
}

impl OptimisticReader {
    /// Lets hyper read nothing more, after a CONNECT that gets no tunnel.
    pub(in crate::inbound::http) fn stop(&self) {
        *self.lock() = ReadMode::Stop;
    }

    /// Reads what hyper may have. While data is withheld, hyper reads nothing but the end of file of a
    /// client that has left.
    pub(super) fn poll_read(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Nothing changes it during this call: requests are answered in the task that reads.
        let mode = *self.lock();
        match mode {
            ReadMode::FirstHead(scanner) => self.poll_first_head(scanner, reader, context, buffer),
            ReadMode::Withhold => self.poll_withhold(reader, context),
            ReadMode::PassThrough => Pin::new(reader).poll_read(context, buffer),
            ReadMode::Stop => Poll::Pending,
        }
    }

    fn poll_first_head(
        &self,
        mut scanner: HeadScanner,
        reader: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining().min(OPTIMISTIC_LIMIT);
        let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(reader).poll_read(context, &mut piece))?;
        let bytes = piece.filled();
        let (for_hyper, next) = match scanner.scan(bytes) {
            ScanResult::Incomplete => (bytes.len(), ReadMode::FirstHead(scanner)),
            ScanResult::End(end) => {
                self.optimistic.add(&bytes[end..]);
                (end, ReadMode::Withhold)
            }
            ScanResult::Other => (bytes.len(), ReadMode::PassThrough),
        };
        *self.lock() = next;
        buffer.advance(for_hyper);
        Poll::Ready(Ok(()))
    }

    fn poll_withhold(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ_SIZE];
        loop {
            let room = OPTIMISTIC_LIMIT
                .saturating_sub(self.optimistic.len())
                .min(READ_SIZE);
            if room == 0 {
                // The rest stays in the socket.
                return Poll::Pending;
            }
            let mut piece = ReadBuf::new(&mut bytes[..room]);
            ready!(Pin::new(&mut *reader).poll_read(context, &mut piece))?;
            match piece.filled() {
                // End of file. A client that has sent nothing for the remote end does not wait for it.
                [] if self.optimistic.is_empty() => return Poll::Ready(Ok(())),
                // It may have half-closed after its data and wait for the response.
                [] => return Poll::Pending,
                more => self.optimistic.add(more),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, ReadMode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds the end of the head of a CONNECT.
///
/// It accepts only lines that end with CR LF, without any other CR or LF. hyper accepts more, so anything
/// that hyper could read in another way is left to it.
#[derive(Clone, Copy, Default)]
struct HeadScanner {
    /// How many bytes of [`CONNECT`] have matched.
    matched: usize,
    /// Whether the current line has any bytes.
    line_has_bytes: bool,
    /// Whether the last byte was a CR.
    cr: bool,
}

/// What a [`HeadScanner`] has found.
#[derive(Debug, PartialEq, Eq)]
enum ScanResult {
    /// A CONNECT so far, without an end.
    Incomplete,
    /// The head of a CONNECT, which ends before this index.
    End(usize),
    /// Not a CONNECT, or an ambiguous one.
    Other,
}

impl HeadScanner {
    /// Scans the bytes that follow those scanned before.
    fn scan(&mut self, bytes: &[u8]) -> ScanResult {
        for (index, &byte) in bytes.iter().enumerate() {
            if let Some(&expected) = CONNECT.get(self.matched) {
                if byte != expected {
                    return ScanResult::Other;
                }
                self.matched += 1;
                self.line_has_bytes = true;
                continue;
            }
            match (byte, self.cr) {
                (b'\n', true) if !self.line_has_bytes => return ScanResult::End(index + 1),
                (b'\n', true) => (self.line_has_bytes, self.cr) = (false, false),
                (b'\r', false) => self.cr = true,
                (b'\n', false) | (_, true) => return ScanResult::Other,
                (_, false) => self.line_has_bytes = true,
            }
        }
        ScanResult::Incomplete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n";

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_is_split() {
        let all = format!("{HEAD}CONNECT b:1 HTTP/1.1\r\n\r\n");
        assert_eq!(
            HeadScanner::default().scan(all.as_bytes()),
            ScanResult::End(HEAD.len()),
            "in one piece"
        );
        for cut in 0..HEAD.len() {
            let mut scanner = HeadScanner::default();
            let (first, second) = all.as_bytes().split_at(cut);
            assert_eq!(scanner.scan(first), ScanResult::Incomplete, "{cut}");
            assert_eq!(
                scanner.scan(second),
                ScanResult::End(HEAD.len() - cut),
                "{cut}"
            );
        }
    }

    #[test]
    fn ambiguous_heads_are_left_to_hyper() {
        for other in [
            "GET / HTTP/1.1\r\n\r\n",
            "connect a:1 HTTP/1.1\r\n\r\n",
            "CONNECTED a:1 HTTP/1.1\r\n\r\n",
            "CONNECT\ta:1 HTTP/1.1\r\n\r\n",
            "\r\nCONNECT a:1 HTTP/1.1\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\n\n",
            "CONNECT a:1 HTTP/1.1\r\n\n",
            "CONNECT a:1 HTTP/1.1\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nX: y\nZ: z\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nX: y\r\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nX: y\rZ: z\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\n\rX",
        ] {
            assert_eq!(
                HeadScanner::default().scan(other.as_bytes()),
                ScanResult::Other,
                "{other:?}"
            );
        }
    }
}
