//! The life of the process: open the ports, connect to Tor, serve until a signal.

use std::io::Write as _;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config::Config;
use crate::gateway::{Epoch, Gateway, Shared};
use crate::isolation::SessionGroup;
use crate::listener::Listener;
use crate::names::Names;
use crate::policy::Rules;
use crate::port::Flags;
use crate::safety::Safety;
use crate::tor::{Tor, keys};

/// Open files that are not connections of clients: relays, directory files, the log.
const RESERVED_FILES: u64 = 128;

/// Runs the daemon until it is told to stop.
///
/// The error is one line that says what is wrong and what to do.
pub async fn run(config: Config) -> Result<(), String> {
    // First of all: a signal that comes before somebody listens for it kills the process at once.
    let mut signals = Signals::listen()?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let files = raise_file_limit(config.max_files);
    let connections = usize::try_from(files.saturating_sub(RESERVED_FILES).max(16))
        .unwrap_or(Semaphore::MAX_PERMITS)
        .min(Semaphore::MAX_PERMITS);

    // All or nothing: a port that cannot be opened is found before anything else happens.
    let mut listeners = Vec::new();
    for (number, port) in config.ports.iter().enumerate() {
        if let Some(listener) = Listener::bind(port)? {
            listeners.push((number, port, listener));
        }
    }
    if let Some(folder) = &config.client_onion_auth_dir {
        let found = keys::check_folder(folder, config.tor.fs_mistrust())?;
        info!("{found} client authorization keys in {}", folder.display());
    }

    let tor = Tor::new(
        config.tor.clone(),
        config.client_onion_auth_dir.clone(),
        config.exit_timeouts,
    )?;
    let tor = Arc::new(tor);

    let permits = Arc::new(Semaphore::new(connections));
    let shared = Arc::new(Shared {
        access: config.access.clone(),
        names: Names::new(&config.names),
        safety: Safety::new(
            config.safe_socks,
            config.test_socks,
            config.plaintext.clone(),
        ),
        epoch: Epoch::default(),
    });
    let mut ports = JoinSet::new();
    for (number, port, listener) in listeners {
        let flags = port.line.flags;
        let gateway = Gateway {
            tor: Arc::clone(&tor),
            rules: Rules {
                flags: Flags {
                    onion_traffic: flags.onion_traffic && config.allow_onion_addrs,
                    ..flags
                },
                allow_local: config.allow_local_addrs,
                allow_local_answers: config.allow_resolving_local_addrs,
            },
            group: match flags.session_group {
                Some(group) => SessionGroup::Named(group),
                None => SessionGroup::Port(number),
            },
            timeout: config.socks_timeout,
            shared: Arc::clone(&shared),
        };
        say(&format!(
            "listening {} {}",
            port.kind.word(),
            listener.place()
        ));
        ports.spawn(listener.run(Arc::new(gateway), Arc::clone(&permits)));
    }

    let online = async {
        tor.bootstrap().await?;
        say("bootstrapped");
        std::future::pending::<()>().await;
        Ok(())
    };
    let ended = tokio::select! {
        ended = online => ended,
        () = signals.until_stopped(&config) => Ok(()),
    };
    // Closes the ports, and removes the files of those in the file system.
    ports.shutdown().await;
    ended
}

/// The signals that the daemon heeds.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, String> {
        let listen = |kind| signal(kind).map_err(|e| format!("cannot listen for signals: {e}"));
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGINT or SIGTERM; SIGHUP has the key folder checked again.
    async fn until_stopped(&mut self, config: &Config) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => break,
                _ = self.terminate.recv() => break,
                _ = self.hangup.recv() => {
                    // Keys are read anew for each request; this only names the bad files.
                    if let Some(folder) = &config.client_onion_auth_dir {
                        match keys::check_folder(folder, config.tor.fs_mistrust()) {
                            Ok(found) => info!("{found} client authorization keys"),
                            Err(problem) => warn!("{problem}"),
                        }
                    }
                }
            }
        }
        info!("stopping");
    }
}

/// Prints one line for whoever started the program. That nobody reads it is no reason to stop.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Asks the system for more open files than the usual 1024; gives the number it allows.
fn raise_file_limit(wanted: u64) -> u64 {
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) => {
            if limit < wanted {
                warn!("only {limit} open files are allowed; system.max_files asks for {wanted}");
            }
            limit
        }
        Err(error) => {
            warn!("cannot raise the number of open files: {error}");
            1024
        }
    }
}
