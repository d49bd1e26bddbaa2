//! Circuits and settings when the configuration is read again.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use testnet::{BridgeOptions, Role};

use crate::daemon::{Onionport, Start};
use crate::entry::{World, bridges, echo};
use crate::program;

/// The circuits on which streams were opened.
fn circuits(log: &str) -> HashSet<String> {
    let asked = [
        "asking the exit of circuit ",
        "opening a stream to the onion service on circuit ",
    ];
    let found = asked.iter().flat_map(|asked| log.split(asked).skip(1));
    let names = found.filter_map(|rest| Some(rest.lines().next()?.to_owned()));
    names.collect()
}

/// Streams of one client before and after SIGHUP: those that are open stay so, and new ones get circuits of which
/// none is from before, as after a reload of C tor.
fn new_streams_get_new_circuits(what: &str, world: &World, after: &str) -> Result<()> {
    let onionport = Onionport::start_with(program(), &world.network, Start::default())?;
    let mut held = world.talk(&onionport, "same")?;
    let before = circuits(&onionport.log());
    ensure!(!before.is_empty(), "{what}: no circuits in the log");
    let said = onionport.reload(None, Some(after))?;
    ensure!(
        !said.contains("configuration not reloaded"),
        "{what}: {said}"
    );
    let begun = onionport.log().len();
    world.talk(&onionport, "same").context(what.to_owned())?;
    let log = onionport.log();
    let now = circuits(&log[begun..]);
    ensure!(now.len() >= 2, "{what}: {now:?}");
    ensure!(
        now.is_disjoint(&before),
        "{what}: circuits from before: {before:?}, now: {now:?}"
    );
    held.iter_mut()
        .try_for_each(echo)
        .with_context(|| format!("{what}: streams that were open"))
}

#[test]
fn a_reload_gives_new_streams_new_circuits_though_nothing_has_changed() -> Result<()> {
    new_streams_get_new_circuits("nothing has changed", World::shared()?, "")
}

#[test]
fn no_new_stream_uses_a_circuit_from_before_bridges_were_asked_for() -> Result<()> {
    let world = World::shared()?;
    let bridge = world.network.bridge(BridgeOptions::default())?;
    new_streams_get_new_circuits("bridges", world, &bridges(&[&bridge.line()]))
}

#[test]
fn no_new_stream_uses_a_circuit_from_before_a_firewall_was_told_of() -> Result<()> {
    let world = World::shared()?;
    let some = world.network.relays(Role::Relay);
    let some = some.iter().take(3).map(|relay| {
        let address = world.network.or_address(relay)?;
        Ok(address.to_string())
    });
    let some = some.collect::<Result<Vec<String>>>()?;
    let after = format!("[path_rules]\nreachable_addrs = {some:?}\n");
    new_streams_get_new_circuits("reachable_addrs", world, &after)
}

#[test]
fn no_new_stream_uses_a_circuit_from_before_vanguards_changed() -> Result<()> {
    let after = "[vanguards]\nmode = \"full\"\n";
    new_streams_get_new_circuits("vanguards", World::shared()?, after)
}

/// A program for a transport that leaves a mark when it is started.
fn transport(folder: &Path, name: &str) -> Result<String> {
    let path = folder.join(name);
    let mark = folder.join(format!("{name}.mark"));
    let text = format!(
        "#!/bin/sh\ntouch {}\nexec /usr/bin/obfs4proxy \"$@\"\n",
        mark.display()
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

#[test]
fn another_program_for_a_transport_is_started_or_a_warning_says_from_when_on_it_counts()
-> Result<()> {
    let world = World::shared()?;
    let bridge = world.network.bridge(BridgeOptions { obfs4: true })?;
    let line = bridge.obfs4_line().context("obfs4 was asked for")?;
    let folder = tempfile::tempdir_in(world.network.dir())?;
    let torrc = |program: &str| {
        format!("UseBridges 1\nBridge {line}\nClientTransportPlugin obfs4 exec {program}\n")
    };
    let first = torrc(&transport(folder.path(), "first")?);
    let second = torrc(&transport(folder.path(), "second")?);
    let start = Start {
        torrc: Some(&first),
        ..Start::default()
    };
    let onionport = Onionport::start_with(program(), &world.network, start)?;
    world.talk(&onionport, "before")?;
    ensure!(folder.path().join("first.mark").exists());
    let said = onionport.reload(Some(&second), None)?;
    world.talk(&onionport, "after")?;
    let warned = |line: &str| line.contains("WARN") && line.contains("transports");
    ensure!(
        folder.path().join("second.mark").exists() || said.lines().any(warned),
        "the second program was not started, and nothing was said: {said}"
    );
    Ok(())
}

/// Bridges need the state folder, and somebody else has it.
#[test]
fn a_reload_that_cannot_have_its_bridges_changes_nothing() -> Result<()> {
    let world = World::shared()?;
    let bridge = world.network.bridge(BridgeOptions::default())?;
    let state = tempfile::tempdir_in(world.network.dir())?;
    let socket = state.path().join("socket");
    let start = Start {
        state: Some(state.path()),
        ..Start::default()
    };
    let _holder = Onionport::start_with(program(), &world.network, start)?;
    // The command line would win over the file.
    let ports = "socks_port = [\"auto ExtendedErrors\"]";
    let start = Start {
        proxy: ports,
        ports: &[],
        ..start
    };
    let onionport = Onionport::start_with(program(), &world.network, start)?;
    world.talk(&onionport, "before")?;
    let extra = format!(
        "[proxy]\nsocks_port = [\"auto ExtendedErrors\", \"unix:{} RelaxDirModeCheck\"]\n{}",
        socket.display(),
        bridges(&[&bridge.line()])
    );
    let said = onionport.reload(None, Some(&extra))?;
    ensure!(said.contains("configuration not reloaded"), "{said}");
    ensure!(!socket.exists(), "a port has changed");
    world.talk(&onionport, "after")?;
    Ok(())
}
