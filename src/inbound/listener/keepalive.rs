//! TCP keepalive: detects clients that vanished without closing their connection, such as a machine
//! that lost power or its network. Without it each of them would hold a connection permit and a Tor
//! stream for ever.
//!
//! Set on the listening socket, and inherited by its connections: no cost per client.

use std::time::Duration;

use socket2::{Socket, TcpKeepalive};
use tracing::debug;

/// How long a connection is idle before the first probe.
const IDLE: Duration = Duration::from_secs(5 * 60);
/// The time between two probes.
const INTERVAL: Duration = Duration::from_secs(30);
/// How many probes in a row go unanswered before the connection is dropped.
const RETRIES: u32 = 4;

/// Turns keepalive on for the connections that a listening socket accepts. An inherited socket that
/// has it on already keeps its times (systemd: `KeepAlive=`, `KeepAliveTimeSec=`).
pub(super) fn set_if_unset(listener: &Socket) {
    if listener.keepalive().is_ok_and(|on| on) {
        return;
    }
    let times = TcpKeepalive::new()
        .with_time(IDLE)
        .with_interval(INTERVAL)
        .with_retries(RETRIES);
    // Not fatal: clients can be served without it.
    if let Err(error) = listener.set_tcp_keepalive(&times) {
        debug!("cannot set TCP keepalive: {error}");
    }
}
