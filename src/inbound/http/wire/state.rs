//! What the connection that hyper has shares with those who answer requests.

use std::sync::Arc;

use super::aborted::AbortedResponse;
use super::half_close::HalfClose;
use super::informational::InterimResponses;
use super::optimistic_read::OptimisticReader;

/// State shared by a [`Wire`](super::Wire) and the requests on it.
#[derive(Default)]
pub(in crate::inbound::http) struct WireState {
    pub(in crate::inbound::http) interim: InterimResponses,
    pub(in crate::inbound::http) optimistic_reader: OptimisticReader,
    pub(in crate::inbound::http) half_close: HalfClose,
    pub(in crate::inbound::http) aborted: AbortedResponse,
}

/// Marks a request as being answered, until dropped.
pub(in crate::inbound::http) struct ResponseInProgress(Arc<WireState>);

impl ResponseInProgress {
    /// Marks the request on `wire`. Must be called before hyper reads on.
    pub(in crate::inbound::http) fn begin(wire: &Arc<WireState>) -> ResponseInProgress {
        wire.half_close.begin_response();
        ResponseInProgress(Arc::clone(wire))
    }

    /// Returns the state of the connection that the request arrived on.
    pub(in crate::inbound::http) fn wire(&self) -> &Arc<WireState> {
        &self.0
    }
}

impl Drop for ResponseInProgress {
    fn drop(&mut self) {
        self.0.half_close.end_response();
    }
}
