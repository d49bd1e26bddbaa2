//! The network directory: the consensus and the relays' descriptors, as arti keeps them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tor_dirmgr::DirProvider;
use tor_netdir::NetDir;

/// How often to check for a current directory while there is none, as after a long suspend.
const DIRECTORY_POLL: Duration = Duration::from_millis(250);

/// The network's current directory.
#[derive(Clone)]
pub(crate) struct Directory(Arc<dyn DirProvider>);

impl Directory {
    pub(crate) fn new(provider: Arc<dyn DirProvider>) -> Directory {
        Directory(provider)
    }

    /// Waits for a directory that is current; returns `None` if there is none until `deadline`.
    pub(crate) async fn timely(&self, deadline: Instant) -> Option<Arc<NetDir>> {
        loop {
            if let Ok(netdir) = self.0.timely_netdir() {
                return Some(netdir);
            }
            if Instant::now() + DIRECTORY_POLL > deadline {
                return None;
            }
            sleep(DIRECTORY_POLL).await;
        }
    }
}
