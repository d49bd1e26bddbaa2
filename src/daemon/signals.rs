//! Signals, and the action that each requests.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};
use tracing::info;

/// The action that a signal requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalAction {
    /// SIGINT, SIGTERM: stop.
    Stop,
    /// SIGHUP: load the configuration again.
    Reload,
    /// SIGUSR1: use new circuits for new streams (`NEWNYM` on C tor's control port).
    NewIdentity,
}

/// The shortest time between two new identities; a request within it waits (C tor's
/// `MAX_SIGNEWNYM_RATE`).
const NEW_IDENTITY_INTERVAL: Duration = Duration::from_secs(10);

/// Receives the signals that arrive after [`Signals::listen`].
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    /// The earliest time of the next new identity.
    next_identity: Option<Instant>,
    /// Whether a new identity was requested and not yet returned.
    is_identity_requested: bool,
}

impl Signals {
    /// Installs the handlers. A signal that arrives earlier ends the process.
    ///
    /// # Errors
    /// One line, if the system refuses a handler.
    pub(super) fn listen() -> Result<Signals, String> {
        let listen = |kind| signal(kind).map_err(|e| format!("cannot listen for signals: {e}"));
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            user1: listen(SignalKind::user_defined1())?,
            user2: listen(SignalKind::user_defined2())?,
            next_identity: None,
            is_identity_requested: false,
        })
    }

    /// Waits for the next action that is due.
    pub(super) async fn next(&mut self) -> SignalAction {
        loop {
            let due = self.next_identity.filter(|_| self.is_identity_requested);
            tokio::select! {
                _ = self.interrupt.recv() => return SignalAction::Stop,
                _ = self.terminate.recv() => return SignalAction::Stop,
                _ = self.hangup.recv() => return SignalAction::Reload,
                _ = self.user1.recv() => {
                    self.is_identity_requested = true;
                    if self.next_identity.is_none_or(|at| at <= Instant::now()) {
                        return self.begin_new_identity();
                    }
                }
                // C tor switches to debug logs. Without a handler, the signal would end the process.
                _ = self.user2.recv() => info!("SIGUSR2 has no effect: set logging.console"),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    return self.begin_new_identity();
                }
            }
        }
    }

    /// Waits for SIGINT or SIGTERM. Leaves other signals that arrive meanwhile for [`Signals::next`].
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    fn begin_new_identity(&mut self) -> SignalAction {
        self.is_identity_requested = false;
        self.next_identity = Some(Instant::now() + NEW_IDENTITY_INTERVAL);
        SignalAction::NewIdentity
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tokio::time::timeout;

    use super::*;

    /// Sends this process a signal.
    fn send(name: &str) {
        let kill = format!("kill -{name} {}", std::process::id());
        let sent = Command::new("sh").args(["-c", &kill]).status();
        assert!(sent.expect("a shell").success());
    }

    fn request_new_identity() {
        send("USR1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_signal_that_arrives_while_waiting_for_stop_is_kept() {
        let mut signals = Signals::listen().expect("signals");
        send("HUP");
        let stopped = timeout(Duration::from_secs(1), signals.stop()).await;
        assert!(stopped.is_err());
        assert_eq!(signals.next().await, SignalAction::Reload);
    }

    #[tokio::test(start_paused = true)]
    async fn new_identities_are_at_least_ten_seconds_apart() {
        let mut signals = Signals::listen().expect("signals");
        let started = Instant::now();
        request_new_identity();
        assert_eq!(signals.next().await, SignalAction::NewIdentity);
        assert_eq!(started.elapsed(), Duration::ZERO);
        // Three more requests within ten seconds count as one.
        for _ in 0..3 {
            request_new_identity();
        }
        assert_eq!(signals.next().await, SignalAction::NewIdentity);
        assert_eq!(started.elapsed(), NEW_IDENTITY_INTERVAL);
        let more = timeout(Duration::from_secs(60), signals.next()).await;
        assert!(more.is_err(), "{more:?}");
        // After a pause of ten seconds, a request is served at once.
        let later = Instant::now();
        request_new_identity();
        assert_eq!(signals.next().await, SignalAction::NewIdentity);
        assert_eq!(later.elapsed(), Duration::ZERO);
    }
}
