//! What the daemon reports to the outside: lines on standard output, messages to the service manager,
//! and the file that lists the ports.

use std::io::Write as _;
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sd_notify::NotifyState;
use tracing::{debug, warn};

use crate::config::{Config, PORT_INFO};
use crate::daemon::logging::ALWAYS;
use crate::daemon::open_ports::{OpenPorts, PortChanges};
use crate::daemon::port_info::PortInfo;
use crate::request::status::Status;
use crate::tor::Tor;

/// Prints which ports were opened and closed, and passes all open ones to the status page.
pub(super) fn announce_ports(changes: &PortChanges, ports: &OpenPorts<Tor>, status: &Status) {
    let open = ports.iter();
    status.set_ports(
        open.map(|(port, address)| format!("{} {address}", port.kind.name()))
            .collect(),
    );
    for (kind, address) in &changes.closed {
        print_line(&format!("closed {} {address}", kind.name()));
    }
    for (kind, address) in &changes.opened {
        print_line(&format!("listening {} {address}", kind.name()));
    }
}

/// Prints one line on standard output, for the process that started this one; skips it if the write
/// would block.
pub(super) fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    // A pipe is writable when it has room for `PIPE_BUF` bytes, more than one line.
    let mut ready = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut ready, PollTimeout::ZERO) == Ok(0) {
        debug!("standard output is full; skipped: {line}");
        return;
    }
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Notifies the service manager, if there is one (sd_notify(3)).
pub(super) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("cannot notify the service manager: {error}");
    }
}

/// Writes the file that lists the open ports again, and removes the file at the previous path if the path
/// has changed. Logs a warning if the file cannot be written.
pub(super) fn rewrite_port_info(
    config: &Config,
    ports: &OpenPorts<Tor>,
    port_info: &mut Option<PortInfo>,
) {
    let new = write_port_info(config, ports).unwrap_or_else(|problem| {
        warn!(target: ALWAYS, "{problem}");
        None
    });
    if let Some(old) = port_info.take() {
        old.yield_to(new.as_ref());
    }
    *port_info = new;
}

/// Writes the file that lists the open ports, if one is configured or if the system chose a port's
/// number, which nobody could know otherwise.
///
/// # Errors
/// One line, if a configured file cannot be written.
pub(super) fn write_port_info(
    config: &Config,
    ports: &OpenPorts<Tor>,
) -> Result<Option<PortInfo>, String> {
    let system_chose_a_port = ports.iter().any(|(port, _)| port.line.bind.is_auto());
    let path = match &config.port_info_file {
        Some(path) => path.clone(),
        None if system_chose_a_port => config.state_dir.join(PORT_INFO),
        None => return Ok(None),
    };
    let ports = ports.iter().map(|(port, address)| (port.kind, address));
    match PortInfo::write(&path, ports) {
        Ok(written) => Ok(Some(written)),
        Err(error) if config.port_info_file.is_some() => Err(format!(
            "storage.port_info_file: cannot write {}: {error}; choose another path",
            path.display()
        )),
        Err(error) => {
            warn!("cannot write {}: {error}", path.display());
            Ok(None)
        }
    }
}
