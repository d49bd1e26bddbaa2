//! What a client says before its request has an answer.
//!
//! Clients need not wait for the reply before they speak. What they say is sent behind the request
//! to open the stream, as C tor does ("optimistic data", proposal 174), and saves a round trip.

use tokio::sync::watch;

/// How much a client may say before it has an answer, in bytes. What it says beyond waits in its
/// socket.
pub const EARLY_LIMIT: usize = 16 * 1024;

/// The bytes that a client has sent so far behind its request. They only grow in number, so that
/// a second try to open a stream can send them again, until [`Early::rest`] takes what is left.
#[derive(Debug)]
pub struct Early(watch::Sender<Vec<u8>>);

impl Early {
    /// Begins with what came together with the request.
    pub fn new(bytes: Vec<u8>) -> Early {
        Early(watch::Sender::new(bytes))
    }

    /// Adds what has just arrived.
    pub fn add(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.send_modify(|all| all.extend_from_slice(bytes));
        }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether nothing has been said yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for more than `seen` bytes and gives those beyond them. Never ends if no more come.
    pub async fn beyond(&self, seen: usize) -> Vec<u8> {
        let mut changed = self.0.subscribe();
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
        let mut all = self.0.send_replace(Vec::new());
        all.drain(..sent.min(all.len()));
        all
    }
}
