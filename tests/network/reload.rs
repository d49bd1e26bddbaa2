//! Circuits and settings after a reload of the configuration.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use testnet::{BridgeOptions, Role};

use crate::daemon::{Onionport, Start};
use crate::entry::{OBFS4PROXY, WatchedNetwork, bridges_config, obfs4_torrc};
use crate::setup::{check_echo, circuits_of_streams};

/// Returns the circuits on which the program requested streams.
fn circuits(log: &str) -> HashSet<String> {
    circuits_of_streams(log).into_iter().collect()
}

/// Opens streams of one client before and after a reload with `config`. The open streams must stay open, and the new
/// ones must not use a circuit from before, as after a reload of C tor.
fn new_streams_use_new_circuits(what: &str, watched: &WatchedNetwork, config: &str) -> Result<()> {
    let onionport = Onionport::start(&watched.network, "")?;
    let mut held = watched.open_both(&onionport, "same")?;
    let before = circuits(&onionport.log());
    ensure!(!before.is_empty(), "{what}: no circuits in the log");
    let log = onionport.reload(None, Some(config))?;
    ensure!(!log.contains("configuration not reloaded"), "{what}: {log}");
    let reloaded = onionport.log().len();
    watched
        .open_both(&onionport, "same")
        .context(what.to_owned())?;
    let log = onionport.log();
    let after = circuits(&log[reloaded..]);
    ensure!(after.len() >= 2, "{what}: {after:?}");
    ensure!(
        after.is_disjoint(&before),
        "{what}: circuits before: {before:?}, after: {after:?}"
    );
    held.iter_mut()
        .try_for_each(check_echo)
        .with_context(|| format!("{what}: streams opened before the reload"))
}

#[test]
fn a_reload_without_changes_gives_new_streams_new_circuits() -> Result<()> {
    new_streams_use_new_circuits("no changes", WatchedNetwork::shared()?, "")
}

#[test]
fn no_new_stream_uses_a_circuit_from_before_bridges_were_configured() -> Result<()> {
    let watched = WatchedNetwork::shared()?;
    let bridge = watched.network.bridge(BridgeOptions::default())?;
    let config = bridges_config(&[&bridge.line()]);
    new_streams_use_new_circuits("bridges", watched, &config)
}

#[test]
fn no_new_stream_uses_a_circuit_from_before_a_firewall_was_configured() -> Result<()> {
    let watched = WatchedNetwork::shared()?;
    let relays = watched.network.relays(Role::Relay);
    let addresses = relays.iter().take(3).map(|relay| {
        let address = watched.network.or_address(relay)?;
        Ok(address.to_string())
    });
    let addresses = addresses.collect::<Result<Vec<String>>>()?;
    let config = format!("[path_rules]\nreachable_addrs = {addresses:?}\n");
    new_streams_use_new_circuits("reachable_addrs", watched, &config)
}

#[test]
fn no_new_stream_uses_a_circuit_from_before_vanguards_changed() -> Result<()> {
    let config = "[vanguards]\nmode = \"full\"\n";
    new_streams_use_new_circuits("vanguards", WatchedNetwork::shared()?, config)
}

/// Writes a program for a transport that creates the file `NAME.mark` when it starts. Returns its path.
fn write_transport_program(folder: &Path, name: &str) -> Result<String> {
    let path = folder.join(name);
    let mark = folder.join(format!("{name}.mark"));
    let text = format!(
        "#!/bin/sh\ntouch {}\nexec {OBFS4PROXY} \"$@\"\n",
        mark.display()
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

#[test]
fn a_changed_transport_program_is_started_or_a_warning_names_the_setting() -> Result<()> {
    let watched = WatchedNetwork::shared()?;
    let bridge = watched.network.bridge(BridgeOptions { obfs4: true })?;
    let line = bridge.obfs4_line().context("the bridge has no obfs4")?;
    let folder = tempfile::tempdir_in(watched.network.dir())?;
    let torrc = |name| {
        let program = write_transport_program(folder.path(), name)?;
        anyhow::Ok(obfs4_torrc(&line, &program))
    };
    let first = torrc("first")?;
    let second = torrc("second")?;
    let onionport = Start::new(&watched.network).torrc(&first).start()?;
    watched.open_both(&onionport, "before")?;
    ensure!(folder.path().join("first.mark").exists());
    let log = onionport.reload(Some(&second), None)?;
    watched.open_both(&onionport, "after")?;
    let is_warning = |line: &str| line.contains("WARN") && line.contains("transports");
    ensure!(
        folder.path().join("second.mark").exists() || log.lines().any(is_warning),
        "the second program was not started, and there was no warning: {log}"
    );
    Ok(())
}

/// Bridges need the state folder, and another process has locked it.
#[test]
fn a_reload_that_cannot_store_its_bridges_changes_nothing() -> Result<()> {
    let watched = WatchedNetwork::shared()?;
    let bridge = watched.network.bridge(BridgeOptions::default())?;
    let state = tempfile::tempdir_in(watched.network.dir())?;
    let socket = state.path().join("socket");
    let start = Start::new(&watched.network).state(state.path());
    let _holder = start.start()?;
    // The ports are in the file, because ports on the command line would take precedence after the reload.
    let onionport = start
        .proxy_settings("socks_port = [\"auto ExtendedErrors\"]")
        .socks_ports(&[])
        .start()?;
    watched.open_both(&onionport, "before")?;
    let changed = format!(
        "[proxy]\nsocks_port = [\"auto ExtendedErrors\", \"unix:{} RelaxDirModeCheck\"]\n{}",
        socket.display(),
        bridges_config(&[&bridge.line()])
    );
    let log = onionport.reload(None, Some(&changed))?;
    ensure!(log.contains("configuration not reloaded"), "{log}");
    ensure!(!socket.exists(), "a port has changed");
    watched.open_both(&onionport, "after")?;
    Ok(())
}
