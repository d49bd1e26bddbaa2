//! The life of the process: open the ports, connect to Tor, serve until a signal.
//!
//! | module | holds |
//! |---|---|
//! | [`open_ports`] | the ports that are open, and how they change in a reload |
//! | [`signals`] | what the process is asked for |
//! | [`port_info`] | the file that names the ports |
//! | [`logging`] | the log |
//! | [`hardening`] | keeps debuggers and core dumps out |

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sd_notify::NotifyState;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::config::ProxyArgs;
use crate::config::{self, Config, PORT_INFO};
use crate::daemon::logging::ALWAYS;
use crate::daemon::open_ports::{Bound, Changes, OpenPorts};
use crate::daemon::port_info::PortInfo;
use crate::daemon::signals::{Asked, Signals};
use crate::inbound::http::ClientAuthForm;
use crate::inbound::listener::InheritedSockets;
use crate::request::address_map::AddressMap;
use crate::request::dispatch::{Epoch, Shared};
use crate::request::safe_socks::SafeSocks;
use crate::request::status::Status;
use crate::tor::client_auth::KeyFolder;
use crate::tor::{BootstrapProgress, ClientSettings, ReplaceError, Tor, client_auth};

mod atomic_file;
pub mod hardening;
pub mod logging;
pub mod open_ports;
pub mod port_info;
pub mod signals;

/// Open files that are not connections of clients: relays, directory files, the log.
const RESERVED_FILES: u64 = 128;

/// How long reading the configuration again may take.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// Runs the daemon until it is told to stop. `arguments` say where the configuration is read again
/// on SIGHUP; `handed` are sockets that were opened for it.
///
/// The error is one line that says what is wrong and what to do.
pub async fn run(
    config: Config,
    arguments: &ProxyArgs,
    handed: InheritedSockets,
) -> Result<(), String> {
    // First of all: a signal that comes before somebody listens for it kills the process at once.
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

    // All or nothing: a port that cannot be opened is found before anything else happens.
    let bound = Bound::open(&config, &handed)?;
    if let Some(folder) = &config.client_onion_auth_dir {
        let found = client_auth::check_folder(folder, config.tor.fs_mistrust(), |file| file.log())?;
        info!("{found} client authorization keys in {}", folder.display());
    }
    let tor = tokio::select! {
        tor = Tor::new(ClientSettings::new(&config)) => Arc::new(tor?),
        () = signals.stop() => return Ok(()),
    };
    let shared = Arc::new(Shared {
        access: ArcSwap::from_pointee(config.access.clone()),
        address_map: ArcSwap::from_pointee(names(&config)?),
        safe_socks: ArcSwap::from_pointee(safety(&config)),
        epoch: Epoch::default(),
        status: Status::default(),
    });
    let client_auth_form = Arc::new(ClientAuthForm::new(key_folder(&config)));

    let permits = Arc::new(Semaphore::new(connections));
    let mut ports = OpenPorts::new(
        Arc::clone(&tor),
        Arc::clone(&shared),
        Arc::clone(&client_auth_form),
        permits,
        handed,
    );
    let changes = ports.serve(&config, bound);
    let port_info = write_port_info(&config, &ports)?;
    tell(&changes, &ports, &shared.status);
    notify(&[NotifyState::Ready, NotifyState::Status("connecting to Tor")]);

    let is_again = AtomicBool::new(false);
    let online = tor.run(|progress| {
        shared.status.connection(progress);
        if progress != BootstrapProgress::Connected {
            return;
        }
        match is_again.swap(true, Ordering::Relaxed) {
            false => say("bootstrapped"),
            true => info!("connected to Tor again"),
        }
        notify(&[NotifyState::Status("connected to Tor")]);
    });
    let until_stopped = async {
        let (mut config, mut port_info) = (config, port_info);
        loop {
            match signals.next().await {
                Asked::Stop => break,
                Asked::Reload => {
                    let reloaded = tokio::select! {
                        reloaded = reload(&config, arguments, &tor, &shared, &client_auth_form, &mut ports) => reloaded,
                        () = signals.stop() => break,
                    };
                    match reloaded {
                        Ok((again, newer)) => {
                            if let Some(older) = port_info.take() {
                                older.give_way(newer.as_ref());
                            }
                            (config, port_info) = (again, newer);
                        }
                        Err(ReplaceError::Refused(problem)) => {
                            warn!(target: ALWAYS, "the configuration stays as it was: {problem}");
                        }
                        Err(ReplaceError::Lost(problem)) => return Err(problem),
                    }
                }
                Asked::NewCircuits => {
                    shared.epoch.begin();
                    info!("new streams get new circuits");
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

/// Reads the configuration again and does what it says, as far as that is possible without a new
/// start. On an error nothing has changed.
async fn reload(
    before: &Config,
    arguments: &ProxyArgs,
    tor: &Tor,
    shared: &Shared,
    client_auth_form: &ClientAuthForm,
    ports: &mut OpenPorts<Tor>,
) -> Result<(Config, Option<PortInfo>), ReplaceError> {
    let arguments = arguments.clone();
    // On a blocking thread: a disk may hang, and a pipe may have no writer.
    let reading = tokio::task::spawn_blocking(move || read_again(&arguments));
    let config = timeout(READ_LIMIT, reading)
        .await
        .map_err(|_| format!("reading it takes longer than {} s", READ_LIMIT.as_secs()))?
        .map_err(|error| format!("cannot read it: {error}"))??;
    let new_names = match config.address_map == before.address_map {
        // The addresses that stand for names are kept.
        true => None,
        false => Some(renewed(&shared.address_map.load(), &config)?),
    };
    if let Some(problem) = config.folder_problem {
        return Err(problem.into());
    }
    let settings = ClientSettings::new(&config);
    tor.check(&settings)?;
    // Before a port is opened: whoever comes there at once is met with what the new configuration says.
    let old_names = shared.address_map.load_full();
    shared.access.store(Arc::new(config.access.clone()));
    shared.safe_socks.store(Arc::new(safety(&config)));
    if let Some(names) = new_names {
        shared.address_map.store(Arc::new(names));
    }
    let taken_back = || {
        shared.access.store(Arc::new(before.access.clone()));
        shared.safe_socks.store(Arc::new(safety(before)));
        shared.address_map.store(Arc::clone(&old_names));
    };
    let settings_before = tor.settings();
    let is_replaced = match tor.change_to(settings).await {
        Ok(is_replaced) => is_replaced,
        Err(error) => {
            taken_back();
            return Err(error);
        }
    };
    let changes = match ports.change(before, &config).await {
        Ok(changes) => changes,
        Err(problem) => {
            taken_back();
            if is_replaced {
                tor.change_to(settings_before).await?;
            }
            return Err(problem.into());
        }
    };
    client_auth_form.set_folder(key_folder(&config));
    // As in C tor: whoever reloads gets new circuits for new streams, whether anything has changed or
    // not.
    shared.epoch.begin();
    for warning in &config.warnings {
        warn!(target: ALWAYS, "{warning}");
    }
    for setting in needs_a_new_start(before, &config) {
        warn!(target: ALWAYS, "{setting} has changed: restart onionport to apply it");
    }
    let port_info = write_port_info(&config, ports).unwrap_or_else(|problem| {
        warn!(target: ALWAYS, "{problem}");
        None
    });
    tell(&changes, ports, &shared.status);
    info!("the configuration was read again");
    Ok((config, port_info))
}

/// Loads the configuration again and checks its key folder.
fn read_again(arguments: &ProxyArgs) -> Result<Config, String> {
    let mut config = config::load(arguments).map_err(|error| error.message())?;
    logging::hide(&config.secrets);
    if let Some(problem) = config.root_problem.take() {
        return Err(problem);
    }
    if let Some(folder) = &config.client_onion_auth_dir {
        let found = client_auth::check_folder(folder, config.tor.fs_mistrust(), |file| file.log())?;
        info!("{found} client authorization keys in {}", folder.display());
    }
    Ok(config)
}

/// Where a page of an HTTP port saves the keys that it takes.
fn key_folder(config: &Config) -> Option<KeyFolder> {
    let folder = config.client_onion_auth_dir.clone()?;
    Some(KeyFolder::new(folder, config.tor.fs_mistrust().clone()))
}

/// What differs and counts only from the next start on.
fn needs_a_new_start(before: &Config, after: &Config) -> Vec<&'static str> {
    [
        (
            "proxy.trans_proxy_type",
            before.trans_proxy_type != after.trans_proxy_type,
        ),
        (
            "application.permit_debugging",
            before.permit_debugging != after.permit_debugging,
        ),
        ("system.max_files", before.max_files != after.max_files),
        ("logging.console", before.log_filter != after.log_filter),
        (
            "logging.time_granularity",
            before.log_granularity != after.log_granularity,
        ),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(setting, _)| setting)
    .collect()
}

/// Names that stand for others, as configured.
fn names(config: &Config) -> Result<AddressMap, String> {
    AddressMap::new(&config.address_map).map_err(|(key, problem)| format!("{key}: {problem}"))
}

/// The same for a configuration that was read again.
fn renewed(names: &AddressMap, config: &Config) -> Result<AddressMap, String> {
    let renewed = names.renewed(&config.address_map);
    renewed.map_err(|(key, problem)| format!("{key}: {problem}"))
}

/// What may give a user away, as configured.
fn safety(config: &Config) -> SafeSocks {
    SafeSocks::new(
        config.safe_socks,
        config.test_socks,
        config.plaintext_ports.clone(),
    )
}

/// Tells which ports are open now.
fn tell(changes: &Changes, ports: &OpenPorts<Tor>, status: &Status) {
    let open = ports.places();
    status.listening(
        open.map(|(port, place)| format!("{} {place}", port.kind.word()))
            .collect(),
    );
    for (kind, place) in &changes.closed {
        say(&format!("closed {} {place}", kind.word()));
    }
    for (kind, place) in &changes.opened {
        say(&format!("listening {} {place}", kind.word()));
    }
}

/// Writes down which ports are open, if that was asked for or nobody can know it.
fn write_port_info(config: &Config, ports: &OpenPorts<Tor>) -> Result<Option<PortInfo>, String> {
    let chosen_for_user = ports.places().any(|(port, _)| port.line.bind.is_auto());
    let path = match &config.port_info_file {
        Some(path) => path.clone(),
        None if chosen_for_user => config.state_dir.join(PORT_INFO),
        None => return Ok(None),
    };
    let ports = ports.places().map(|(port, place)| (port.kind, place));
    match PortInfo::write(&path, ports) {
        Ok(written) => Ok(Some(written)),
        Err(error) if config.port_info_file.is_some() => Err(format!(
            "storage.port_info_file: cannot write {}: {error}; choose another place",
            path.display()
        )),
        Err(error) => {
            warn!("cannot write {}: {error}", path.display());
            Ok(None)
        }
    }
}

/// Tells the service manager, if there is one (sd_notify(3)).
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("cannot notify the service manager: {error}");
    }
}

/// Prints one line for whoever started the program; skips it if the write would block.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A pipe is writable when it has room for `PIPE_BUF` bytes, more than one line.
    let mut ready = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut ready, PollTimeout::ZERO) == Ok(0) {
        debug!("standard output is full; skipped: {line}");
        return;
    }
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
