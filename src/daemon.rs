//! The life of the process: open the ports, connect to Tor, serve until a signal.

use std::io::Write as _;
use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::gateway::{Epoch, Gateway, Shared};
use crate::http::Desk;
use crate::isolation::SessionGroup;
use crate::listener::{Handed, Listener};
use crate::names::Names;
use crate::policy::Rules;
use crate::port::{Flags, Port};
use crate::port_info::PortInfo;
use crate::safety::Safety;
use crate::signals::{Asked, Signals};
use crate::status::Status;
use crate::tor::keys::KeyFolder;
use crate::tor::{Tor, keys};

/// Open files that are not connections of clients: relays, directory files, the log.
const RESERVED_FILES: u64 = 128;

/// Where the ports are named, below the state folder, if the configuration names no place.
pub const PORT_INFO: &str = "public/port_info.json";

/// Runs the daemon until it is told to stop. `handed` are sockets that were opened for it.
///
/// The error is one line that says what is wrong and what to do.
pub async fn run(config: Config, mut handed: Handed) -> Result<(), String> {
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
    let opened = open_ports(&config, &mut handed)?;
    let _port_info = write_port_info(&config, &opened)?;
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
        names: Names::new(&config.names).map_err(|(key, problem)| format!("{key}: {problem}"))?,
        safety: Safety::new(
            config.safe_socks,
            config.test_socks,
            config.plaintext.clone(),
        ),
        epoch: Epoch::default(),
        status: Status::default(),
        desk: Desk::new(
            config
                .client_onion_auth_dir
                .clone()
                .map(|folder| KeyFolder::new(folder, config.tor.fs_mistrust().clone())),
        ),
    });
    let mut ports = JoinSet::new();
    for (number, (port, listener)) in opened.into_iter().enumerate() {
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
        let open = format!("{} {}", port.kind.word(), listener.place());
        say(&format!("listening {open}"));
        shared.status.listening(open);
        ports.spawn(listener.run(Arc::new(gateway), Arc::clone(&permits)));
    }
    notify(&[NotifyState::Ready, NotifyState::Status("connecting to Tor")]);

    let online = async {
        tor.bootstrap(&shared.status).await?;
        shared.status.bootstrapped();
        say("bootstrapped");
        notify(&[NotifyState::Status("connected to Tor")]);
        std::future::pending::<()>().await;
        Ok(())
    };
    let until_stopped = async {
        loop {
            match signals.next().await {
                Asked::Stop => break,
                Asked::Reload => reload(&config),
                Asked::NewCircuits => {
                    shared.epoch.begin();
                    info!("new streams get new circuits");
                }
            }
        }
        info!("stopping");
    };
    let ended = tokio::select! {
        ended = online => ended,
        () = until_stopped => Ok(()),
    };
    notify(&[NotifyState::Stopping]);
    // Closes the ports, and removes the files of those in the file system.
    ports.shutdown().await;
    ended
}

/// Opens every port of the configuration, and one for each handed-over socket that is left.
fn open_ports(config: &Config, handed: &mut Handed) -> Result<Vec<(Port, Listener)>, String> {
    let defaults_give_way = !handed.is_empty();
    let mut opened = Vec::new();
    for port in &config.ports {
        if defaults_give_way && !port.chosen {
            continue;
        }
        if let Some(listener) = Listener::bind(port, handed, config.trans_proxy_type)? {
            opened.push((port.clone(), listener));
        }
    }
    for port in handed.ports() {
        if let Some(problem) = port.line.unserved(port.kind) {
            return Err(format!(
                "socket {} of LISTEN_FDS: {problem}",
                port.line.bind
            ));
        }
        if let Some(listener) = Listener::bind(&port, handed, config.trans_proxy_type)? {
            opened.push((port, listener));
        }
    }
    Ok(opened)
}

/// Writes down which ports are open, if that was asked for or nobody can know it.
fn write_port_info(
    config: &Config,
    opened: &[(Port, Listener)],
) -> Result<Option<PortInfo>, String> {
    let chosen_for_user = opened.iter().any(|(port, _)| port.line.bind.is_auto());
    let path = match &config.port_info_file {
        Some(path) => path.clone(),
        None if chosen_for_user => config.state_dir.join(PORT_INFO),
        None => return Ok(None),
    };
    let ports = opened
        .iter()
        .map(|(port, listener)| (port.kind, listener.place()));
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

/// Names the bad files of the key folder; the keys themselves are read anew for each request.
fn reload(config: &Config) {
    if let Some(folder) = &config.client_onion_auth_dir {
        match keys::check_folder(folder, config.tor.fs_mistrust()) {
            Ok(found) => info!("{found} client authorization keys"),
            Err(problem) => warn!("{problem}"),
        }
    }
}

/// Tells the service manager, if there is one (sd_notify(3)).
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("cannot notify the service manager: {error}");
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
