//! The signals that the daemon heeds.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};
use tracing::info;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGINT, SIGTERM: stop.
    Stop,
    /// SIGHUP: read again what can be read again.
    Reload,
    /// SIGUSR1: new circuits for new streams, as C tor's `NEWNYM` on its control port.
    NewCircuits,
}

/// New circuits are given at most this often; who asks more often waits (C tor's
/// `MAX_SIGNEWNYM_RATE`).
const NEW_CIRCUITS_EVERY: Duration = Duration::from_secs(10);

/// Listens for signals, from the moment it is made.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    /// When new circuits may be given again, and whether somebody waits for them.
    next_circuits: Option<Instant>,
    wanted: bool,
}

impl Signals {
    /// Begins to listen. A signal that comes before would end the process.
    pub fn listen() -> Result<Signals, String> {
        let listen = |kind| signal(kind).map_err(|e| format!("cannot listen for signals: {e}"));
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            user1: listen(SignalKind::user_defined1())?,
            user2: listen(SignalKind::user_defined2())?,
            next_circuits: None,
            wanted: false,
        })
    }

    /// Waits for the next signal that is due.
    pub async fn next(&mut self) -> Asked {
        loop {
            let due = self.next_circuits.filter(|_| self.wanted);
            tokio::select! {
                _ = self.interrupt.recv() => return Asked::Stop,
                _ = self.terminate.recv() => return Asked::Stop,
                _ = self.hangup.recv() => return Asked::Reload,
                _ = self.user1.recv() => {
                    self.wanted = true;
                    if self.next_circuits.is_none_or(|at| at <= Instant::now()) {
                        return self.new_circuits();
                    }
                }
                // C tor logs more from then on; without a handler it would end the program.
                _ = self.user2.recv() => info!("SIGUSR2 has no effect: set logging.console"),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    return self.new_circuits();
                }
            }
        }
    }

    /// Waits until the program is to stop. Other signals that come meanwhile are left for
    /// [`Signals::next`].
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    fn new_circuits(&mut self) -> Asked {
        self.wanted = false;
        self.next_circuits = Some(Instant::now() + NEW_CIRCUITS_EVERY);
        Asked::NewCircuits
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

    fn ask_for_new_circuits() {
        send("USR1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_that_comes_while_only_the_end_is_waited_for_is_kept() {
        let mut signals = Signals::listen().expect("signals");
        send("HUP");
        let stopped = timeout(Duration::from_secs(1), signals.stop()).await;
        assert!(stopped.is_err());
        assert_eq!(signals.next().await, Asked::Reload);
    }

    #[tokio::test(start_paused = true)]
    async fn new_circuits_are_given_at_most_once_in_ten_seconds() {
        let mut signals = Signals::listen().expect("signals");
        let begun = Instant::now();
        ask_for_new_circuits();
        assert_eq!(signals.next().await, Asked::NewCircuits);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        // Three more within the ten seconds count as one.
        for _ in 0..3 {
            ask_for_new_circuits();
        }
        assert_eq!(signals.next().await, Asked::NewCircuits);
        assert_eq!(begun.elapsed(), NEW_CIRCUITS_EVERY);
        let more = timeout(Duration::from_secs(60), signals.next()).await;
        assert!(more.is_err(), "{more:?}");
        // Who has waited long enough waits no longer.
        let later = Instant::now();
        ask_for_new_circuits();
        assert_eq!(signals.next().await, Asked::NewCircuits);
        assert_eq!(later.elapsed(), Duration::ZERO);
    }
}
