//! What a client says before its request has an answer.
//!
//! Clients need not wait for the reply before they speak. What they say is sent behind the request
//! to open the stream, as C tor does ("optimistic data", proposal 174), and saves a round trip.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// How much a client may say before it has an answer, in bytes. What it says beyond waits in its
/// socket.
pub const EARLY_LIMIT: usize = 16 * 1024;

/// The bytes that a client has sent so far behind its request. They only grow in number, so that
/// a second try to open a stream can send them again, until [`OptimisticData::rest`] takes what is left.
#[derive(Debug)]
pub struct OptimisticData {
    bytes: watch::Sender<Vec<u8>>,
    /// Whether some of it may have left this computer.
    sent: AtomicBool,
}

impl OptimisticData {
    /// Begins with what came together with the request.
    pub fn new(bytes: Vec<u8>) -> OptimisticData {
        OptimisticData {
            bytes: watch::Sender::new(bytes),
            sent: AtomicBool::new(false),
        }
    }

    /// Adds what has just arrived.
    pub fn add(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes.send_modify(|all| all.extend_from_slice(bytes));
        }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.bytes.borrow().len()
    }

    /// Whether nothing has been said yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes that a part of it is sent from now on, on a stream that is not open yet.
    pub fn note_sent(&self) {
        self.sent.store(true, Ordering::Relaxed);
    }

    /// Whether a part of it may have arrived somewhere ([`OptimisticData::note_sent`]).
    pub fn may_have_arrived(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits for more than `seen` bytes and gives those beyond them. Never ends if no more come.
    pub async fn beyond(&self, seen: usize) -> Vec<u8> {
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

    /// Takes what is left when the first `sent` bytes are on their way.
    pub fn rest(&self, sent: usize) -> Vec<u8> {
        let mut all = self.bytes.send_replace(Vec::new());
        all.drain(..sent.min(all.len()));
        all
    }
}
