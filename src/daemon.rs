//! The life of the process: it opens the ports, connects to Tor, and serves until a signal ends it.
//!
//! Read [`run`] first, then the modules in this order:
//!
//! | module | holds |
//! |---|---|
//! | `signals` | which action each signal requests |
//! | `open_ports`, `bound_ports` | the open ports, and how a reload changes them |
//! | `reload` | SIGHUP: loads the configuration again and applies it |
//! | `build` | parts of the request path, built from a configuration |
//! | `announce` | messages to the parent process and the service manager: open ports, readiness |
//! | `port_info` | the file that lists the open ports |
//! | [`logging`] | the log |
//! | [`hardening`] | keeps debuggers and core dumps out |
//!
//! This is the top of the library: everything may be imported here, and nothing imports it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use sd_notify::NotifyState;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::config::{Config, ProxyArgs};
use crate::daemon::announce::{announce_ports, notify, print_line, write_port_info};
use crate::daemon::bound_ports::BoundPorts;
use crate::daemon::build::{build_address_map, build_key_folder, build_safe_socks};
use crate::daemon::logging::ALWAYS;
use crate::daemon::open_ports::OpenPorts;
use crate::daemon::reload::reload;
use crate::daemon::signals::{SignalAction, Signals};
use crate::inbound::http::ClientAuthForm;
use crate::inbound::listener::InheritedSockets;
use crate::request::dispatch::{Epoch, SharedState};
use crate::request::status::Status;
use crate::tor::{BootstrapProgress, ClientSettings, ReplaceError, Tor, client_auth};

mod announce;
mod bound_ports;
mod build;
pub mod hardening;
pub mod logging;
mod open_ports;
mod port_info;
mod reload;
mod signals;

/// Open files that are not client connections: relays, directory files, the log.
const RESERVED_FILES: u64 = 128;

/// Runs the daemon until a signal stops it. On SIGHUP, `arguments` locate the configuration to load
/// again; `inherited` are the sockets that a service manager has opened for the ports.
///
/// # Errors
/// One line that names the problem and the remedy, if the daemon cannot start or cannot go on.
pub async fn run(
    config: Config,
    arguments: &ProxyArgs,
    inherited: InheritedSockets,
) -> Result<(), String> {
    // First: a signal that arrives before its handler is installed kills the process.
    let mut signals = Signals::listen()?;
    for warning in &config.warnings {
        warn!(target: ALWAYS, "{warning}");
    }
    if let Some(problem) = config.folder_problem {
        return Err(problem);
    }
    let files = raise_file_limit(config.max_files);
    let connections = usize::try_from(files.saturating_sub(RESERVED_FILES).max(16))
        .unwrap_or(Semaphore::MAX_PERMITS)
        .min(Semaphore::MAX_PERMITS);

    // Bind all ports before the slow steps: an address in use must fail the start at once.
    let bound = BoundPorts::bind(&config, &inherited)?;
    if let Some(folder) = &config.client_onion_auth_dir {
        let found = client_auth::check_folder(folder, config.tor.fs_mistrust(), |file| file.log())?;
        info!("{found} client authorization keys in {}", folder.display());
    }
    let tor = tokio::select! {
        tor = Tor::new(ClientSettings::new(&config)) => Arc::new(tor?),
        () = signals.stop() => return Ok(()),
    };
    let shared = Arc::new(SharedState {
        access: ArcSwap::from_pointee(config.access.clone()),
        address_map: ArcSwap::from_pointee(build_address_map(&config)?),
        safe_socks: ArcSwap::from_pointee(build_safe_socks(&config)),
        epoch: Epoch::default(),
        status: Status::default(),
    });
    let client_auth_form = Arc::new(ClientAuthForm::new(build_key_folder(&config)));

    let permits = Arc::new(Semaphore::new(connections));
    let mut ports = OpenPorts::new(
        Arc::clone(&tor),
        Arc::clone(&shared),
        Arc::clone(&client_auth_form),
        permits,
        inherited,
    );
    let changes = ports.serve(&config, bound);
    let port_info = write_port_info(&config, &ports)?;
    announce_ports(&changes, &ports, &shared.status);
    notify(&[NotifyState::Ready, NotifyState::Status("connecting to Tor")]);

    let has_been_online = AtomicBool::new(false);
    let online = tor.run(|progress| {
        shared.status.set_progress(progress);
        if progress != BootstrapProgress::Connected {
            return;
        }
        match has_been_online.swap(true, Ordering::Relaxed) {
            false => print_line("bootstrapped"),
            true => info!("connected to Tor again"),
        }
        notify(&[NotifyState::Status("connected to Tor")]);
    });
    let until_stopped = async {
        let (mut config, mut port_info) = (config, port_info);
        loop {
            match signals.next().await {
                SignalAction::Stop => break,
                SignalAction::Reload => {
                    let reloaded = tokio::select! {
                        reloaded = reload(
                            &config,
                            arguments,
                            &tor,
                            &shared,
                            &client_auth_form,
                            &mut ports,
                            &mut port_info,
                        ) => reloaded,
                        () = signals.stop() => break,
                    };
                    match reloaded {
                        Ok(new_config) => config = new_config,
                        Err(ReplaceError::Refused(problem)) => {
                            warn!(target: ALWAYS, "configuration not reloaded: {problem}");
                        }
                        Err(ReplaceError::Lost(problem)) => return Err(problem),
                    }
                }
                SignalAction::NewIdentity => {
                    shared.epoch.advance();
                    info!("new identity: new streams use new circuits");
                }
            }
        }
        info!("stopping");
        Ok(())
    };
    let ended = tokio::select! {
        problem = online => Err(problem),
        ended = until_stopped => ended,
    };
    notify(&[NotifyState::Stopping]);
    ports.close().await;
    ended
}

/// Raises the limit of open files from the usual 1024 towards `wanted`; returns the limit that the
/// system allows.
fn raise_file_limit(wanted: u64) -> u64 {
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) => {
            if limit < wanted {
                warn!(
                    "only {limit} open files are allowed, fewer than system.max_files ({wanted}): \
                     raise the system's limit on open files (`ulimit -Hn`, `LimitNOFILE=`)"
                );
            }
            limit
        }
        Err(error) => {
            warn!("cannot raise the number of open files: {error}");
            1024
        }
    }
}
