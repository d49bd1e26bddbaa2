//! Optimistic data: what a client sends before its request has a reply (proposal 174).
//!
//! As in C tor, it follows the request to open the stream at once, which saves a round trip.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// How many bytes are read from a client before its request has a reply. Further bytes wait in its socket.
pub(crate) const OPTIMISTIC_LIMIT: usize = 16 * 1024;

/// The bytes that a client has sent so far behind its request.
///
/// They stay in memory, so that another try to open the stream can send them again, until
/// [`OptimisticData::take_rest`] takes what no stream has carried.
#[derive(Debug)]
pub struct OptimisticData {
    bytes: watch::Sender<Vec<u8>>,
    /// Whether some of the bytes may have left this machine.
    sent: AtomicBool,
}

impl OptimisticData {
    /// Starts with the bytes that arrived together with the request.
    pub fn new(bytes: Vec<u8>) -> OptimisticData {
        OptimisticData {
            bytes: watch::Sender::new(bytes),
            sent: AtomicBool::new(false),
        }
    }

    /// Appends bytes that have just arrived.
    pub fn add(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes.send_modify(|all| all.extend_from_slice(bytes));
        }
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.bytes.borrow().len()
    }

    /// Returns whether the client has sent nothing yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes that bytes are about to be sent on a stream that is not open yet.
    pub(crate) fn note_sent(&self) {
        self.sent.store(true, Ordering::Relaxed);
    }

    /// Returns whether a destination may have received some of the bytes ([`OptimisticData::note_sent`]).
    pub(crate) fn may_have_arrived(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until there are more than `seen` bytes and returns those beyond; waits for ever if none come.
    pub async fn wait_beyond(&self, seen: usize) -> Vec<u8> {
        let mut changed = self.bytes.subscribe();
        loop {
            {
                let all = changed.borrow_and_update();
                if all.len() > seen {
                    return all[seen..].to_vec();
                }
            }
            // The sender lives as long as `self`.
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Takes all bytes and returns those beyond the first `sent`, which a stream has carried.
    pub(crate) fn take_rest(&self, sent: usize) -> Vec<u8> {
        let mut all = self.bytes.send_replace(Vec::new());
        all.drain(..sent.min(all.len()));
        all
    }
}
