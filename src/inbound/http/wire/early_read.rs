//! What a client says behind the head of a CONNECT, while it waits for the tunnel.
//!
//! As on SOCKS ports it goes out with the request to open the stream ([`OptimisticData`]). That is done if the
//! CONNECT is the first request of its connection, as it is with browsers and other programs, and if
//! its lines end as they should. In all other cases hyper reads on and keeps what it has read, and
//! that goes out when the tunnel is open.
//!
//! A CONNECT that gets no tunnel is the last request of its connection, as in C tor: what stands behind
//! it, or comes before the client has the answer, is meant for the tunnel and never taken for a
//! request.

use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::tor::optimistic_data::{EARLY_LIMIT, OptimisticData};

/// The method and what is behind it. Methods are told apart by case (RFC 9110 section 9.1).
const CONNECT: &[u8] = b"CONNECT ";
/// How much is read at once of what is kept from hyper.
const PIECE: usize = 4 * 1024;

/// Reads for hyper.
pub(in super::super) struct Ahead {
    /// What was kept from hyper.
    pub(in super::super) early: OptimisticData,
    reading: Mutex<Reading>,
}

/// What hyper gets of that which the client says.
#[derive(Clone, Copy)]
enum Reading {
    /// The head of the first request, for which the end is looked for if it is a CONNECT.
    First(Scan),
    /// Nothing: the head was a CONNECT's, and has no answer yet.
    Kept,
    /// Everything.
    All,
    /// Nothing any more.
    Nothing,
}

impl Default for Ahead {
    fn default() -> Self {
        Ahead {
            early: OptimisticData::new(Vec::new()),
            reading: Mutex::new(Reading::First(Scan::default())),
        }
    }
}

impl Ahead {
    /// The CONNECT gets no tunnel: hyper gets nothing any more.
    pub(in super::super) fn give_up(&self) {
        *self.lock() = Reading::Nothing;
    }

    /// Reads what hyper may have. As long as something is kept from it, it hears of nothing but a
    /// client that has left.
    pub(super) fn poll_read(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Nobody else changes it meanwhile: requests are answered in the task that reads.
        let reading = *self.lock();
        match reading {
            Reading::First(scan) => self.poll_first(scan, reader, context, buffer),
            Reading::Kept => self.poll_keep(reader, context),
            Reading::All => Pin::new(reader).poll_read(context, buffer),
            Reading::Nothing => Poll::Pending,
        }
    }

    fn poll_first(
        &self,
        mut scan: Scan,
        reader: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining().min(EARLY_LIMIT);
        let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(reader).poll_read(context, &mut piece))?;
        let bytes = piece.filled();
        let (for_hyper, next) = match scan.look(bytes) {
            Look::On => (bytes.len(), Reading::First(scan)),
            Look::End(end) => {
                self.early.add(&bytes[end..]);
                (end, Reading::Kept)
            }
            Look::Other => (bytes.len(), Reading::All),
        };
        *self.lock() = next;
        buffer.advance(for_hyper);
        Poll::Ready(Ok(()))
    }

    fn poll_keep(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; PIECE];
        loop {
            let room = EARLY_LIMIT.saturating_sub(self.early.len()).min(PIECE);
            if room == 0 {
                // The rest waits in its socket.
                return Poll::Pending;
            }
            let mut piece = ReadBuf::new(&mut bytes[..room]);
            ready!(Pin::new(&mut *reader).poll_read(context, &mut piece))?;
            match piece.filled() {
                // An end of file: whoever has said nothing to the far end does not wait for it.
                [] if self.early.is_empty() => return Poll::Ready(Ok(())),
                // It may have finished its request and wait for the answer.
                [] => return Poll::Pending,
                more => self.early.add(more),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for the end of a CONNECT's head. It knows one way only to write one: lines that end with
/// CR LF, and no other CR or LF. hyper knows more, and it is hyper that counts; what could be read in
/// another way is left to it.
#[derive(Clone, Copy, Default)]
struct Scan {
    /// How many bytes of the method were there.
    method: usize,
    /// Whether the line has begun.
    in_line: bool,
    /// Whether the last byte was a CR.
    cr: bool,
}

/// What a [`Scan`] has found.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// Neither of the two, so far.
    On,
    /// The head is a CONNECT's, and ends before this byte.
    End(usize),
    /// It is not, or not for sure.
    Other,
}

impl Scan {
    /// Looks at the bytes behind those it has seen.
    fn look(&mut self, bytes: &[u8]) -> Look {
        for (place, &byte) in bytes.iter().enumerate() {
            if let Some(&expected) = CONNECT.get(self.method) {
                if byte != expected {
                    return Look::Other;
                }
                self.method += 1;
                self.in_line = true;
                continue;
            }
            match (byte, self.cr) {
                (b'\n', true) if !self.in_line => return Look::End(place + 1),
                (b'\n', true) => (self.in_line, self.cr) = (false, false),
                (b'\r', false) => self.cr = true,
                (b'\n', false) | (_, true) => return Look::Other,
                (_, false) => self.in_line = true,
            }
        }
        Look::On
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n";

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_is_cut() {
        let all = format!("{HEAD}CONNECT b:1 HTTP/1.1\r\n\r\n");
        assert_eq!(
            Scan::default().look(all.as_bytes()),
            Look::End(HEAD.len()),
            "in one piece"
        );
        for cut in 0..HEAD.len() {
            let mut scan = Scan::default();
            let (first, second) = all.as_bytes().split_at(cut);
            assert_eq!(scan.look(first), Look::On, "{cut}");
            assert_eq!(scan.look(second), Look::End(HEAD.len() - cut), "{cut}");
        }
    }

    #[test]
    fn what_could_be_read_in_another_way_is_left_to_hyper() {
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
                Scan::default().look(other.as_bytes()),
                Look::Other,
                "{other:?}"
            );
        }
    }
}
