//! TCP keepalive: finds clients that have vanished without a word, such as a machine that was
//! switched off or a network that is gone. Without it each of them keeps its place, and its stream,
//! for good.
//!
//! It is set on the listening socket, and connections inherit it: that costs nothing per client.

use std::time::Duration;

use socket2::{Socket, TcpKeepalive};
use tracing::debug;

/// How long a connection is silent before its client is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(5 * 60);
/// How long to wait for its answer before asking again.
const INTERVAL: Duration = Duration::from_secs(30);
/// How many questions in a row go unanswered until the connection is over.
const RETRIES: u32 = 4;

/// Has the kernel look after the connections that a listening socket accepts. A handed-over socket
/// on which keepalive is on already keeps its times (systemd: `KeepAlive=`, `KeepAliveTimeSec=`).
pub(super) fn set_if_unset(listener: &Socket) {
    if listener.keepalive().is_ok_and(|on| on) {
        return;
    }
    let times = TcpKeepalive::new()
        .with_time(IDLE)
        .with_interval(INTERVAL)
        .with_retries(RETRIES);
    // Clients are served without it, too.
    if let Err(error) = listener.set_tcp_keepalive(&times) {
        debug!("cannot set TCP keepalive: {error}");
    }
}
