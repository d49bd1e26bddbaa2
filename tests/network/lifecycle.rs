//! One program after another in the same folders: what is remembered, and what becomes of damaged
//! files.

mod run;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testnet::{EchoServer, Network};

use run::{Folders, Run};

/// How many starts the guard has to survive; more with the variable [`STARTS_VARIABLE`].
const STARTS: u32 = 6;
const STARTS_VARIABLE: &str = "ONIONPORT_STARTS";
/// The latest moment, after the client is usable, at which a run is stopped.
const LONGEST_RUN: Duration = Duration::from_secs(3);
const LONGEST_RUN_VARIABLE: &str = "ONIONPORT_LONGEST_RUN";
/// How soon a guard that was used is saved: arti's minute, and slack for a busy machine.
const SAVED_WITHIN: Duration = Duration::from_secs(75);
/// How soon a program whose files are damaged has to serve.
const SOON: Duration = Duration::from_secs(10);

/// The guards that a state folder knows, and the order in which they were first used.
fn guards(folders: &Folders) -> Result<(BTreeSet<String>, Vec<String>)> {
    let path = folders.state().join("state/guards.json");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let state: Value = serde_json::from_str(&text)?;
    let list = |value: &Value| -> Vec<String> {
        let entries = value.as_array().into_iter().flatten();
        entries.map(|entry| entry["id"].to_string()).collect()
    };
    let sampled = list(&state["default"]["guards"]);
    let confirmed = state["default"]["confirmed"].as_array();
    let confirmed = confirmed.into_iter().flatten().map(Value::to_string);
    Ok((sampled.into_iter().collect(), confirmed.collect()))
}

fn number(variable: &str, otherwise: u32) -> u32 {
    let text = std::env::var(variable).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn guards_outlast_every_clean_end() -> Result<()> {
    let network = Network::builder().relays(8).start()?;
    let echo = EchoServer::start()?;
    let folders = Folders::new(&network)?;
    let longest = number(LONGEST_RUN_VARIABLE, LONGEST_RUN.as_secs() as u32) * 1000;
    let mut known: Option<(BTreeSet<String>, Vec<String>)> = None;
    for start in 0..number(STARTS_VARIABLE, STARTS) {
        let mut run = Run::start(&network, &folders, "")?;
        run.wait_until_usable(Duration::from_secs(60))?;
        // With a stream that is open to the end, every other time; the first one confirms a guard.
        let stream = match start % 2 {
            0 => Some(run.connect(echo.address())?),
            _ => None,
        };
        let moment = Duration::from_millis(u64::from(rand::random_range(0..=longest)));
        std::thread::sleep(moment);
        let signal = ["TERM", "INT"][start as usize / 2 % 2];
        let status = run.stop(signal)?;
        ensure!(status.success(), "ended with {status}");
        drop(stream);
        let (sampled, confirmed) = guards(&folders)?;
        let told = format!("start {start}, {signal} after {moment:?}");
        ensure!(!sampled.is_empty(), "{told}: no guards");
        match &known {
            None => ensure!(!confirmed.is_empty(), "{told}: no guard that was used"),
            Some((before, used)) => {
                ensure!(sampled.is_superset(before), "{told}: guards are lost");
                ensure!(
                    confirmed.starts_with(used),
                    "{told}: the first guard was {used:?} and is {confirmed:?}"
                );
            }
        }
        known = Some((sampled, confirmed));
    }
    network.mark_done();
    Ok(())
}

/// arti saves its guards once a minute, so a kill loses at most that much.
#[test]
fn a_kill_loses_at_most_a_minute_of_guards() -> Result<()> {
    let network = Network::builder().relays(8).start()?;
    let echo = EchoServer::start()?;
    let folders = Folders::new(&network)?;
    let mut run = Run::start(&network, &folders, "")?;
    run.wait_until_usable(Duration::from_secs(60))?;
    let stream = run.connect(echo.address())?;
    let begun = Instant::now();
    let (sampled, used) = loop {
        if let Ok((sampled, used)) = guards(&folders)
            && !used.is_empty()
        {
            break (sampled, used);
        }
        let waited = begun.elapsed();
        ensure!(waited < SAVED_WITHIN, "no guard is saved after {waited:?}");
        std::thread::sleep(Duration::from_millis(100));
    };
    run.stop("KILL")?;
    drop(stream);

    let mut run = Run::start(&network, &folders, "")?;
    run.wait_until_usable(SOON)?;
    drop(run.connect(echo.address())?);
    ensure!(run.stop("TERM")?.success(), "does not end well");
    let (after, used_after) = guards(&folders)?;
    ensure!(after.is_superset(&sampled), "guards are lost");
    ensure!(
        used_after.starts_with(&used),
        "the guards in use were {used:?} and are {used_after:?}"
    );
    network.mark_done();
    Ok(())
}

/// What can happen to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Empty,
    Cut,
    Zeroed,
    Changed,
    Folder,
    DeadLink,
    WritableForAll,
}

impl Damage {
    const ALL: [Damage; 7] = [
        Damage::Empty,
        Damage::Cut,
        Damage::Zeroed,
        Damage::Changed,
        Damage::Folder,
        Damage::DeadLink,
        Damage::WritableForAll,
    ];

    fn happen_to(self, path: &Path) -> Result<()> {
        let bytes = fs::read(path)?;
        match self {
            Damage::Empty => fs::write(path, "")?,
            Damage::Cut => fs::write(path, &bytes[..bytes.len() / 2])?,
            Damage::Zeroed => fs::write(path, vec![0; bytes.len()])?,
            Damage::Changed => {
                let mut bytes = bytes;
                let middle = bytes.len() / 2;
                for byte in bytes.iter_mut().skip(middle).take(64) {
                    *byte ^= 0x15;
                }
                fs::write(path, bytes)?;
            }
            Damage::Folder => {
                fs::remove_file(path)?;
                fs::create_dir(path)?;
            }
            Damage::DeadLink => {
                fs::remove_file(path)?;
                symlink("/nowhere/at/all", path)?;
            }
            Damage::WritableForAll => {
                fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
            }
        }
        Ok(())
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn a_damaged_file_is_mended_or_named_and_never_leaves_a_daemon_that_cannot_work() -> Result<()> {
    let network = Network::builder().relays(8).start()?;
    let echo = EchoServer::start()?;
    let good = Folders::new(&network)?;
    let mut run = Run::start(&network, &good, "")?;
    run.wait_until_usable(Duration::from_secs(60))?;
    drop(run.connect(echo.address())?);
    ensure!(run.stop("TERM")?.success(), "the good run");

    let names = files(good.path())?;
    let names = names.iter().map(|path| path.strip_prefix(good.path()));
    let names: Vec<_> = names.collect::<Result<_, _>>()?;
    for expected in ["guards.json", "dir.sqlite3", "con_microdesc"] {
        let there = |name: &&Path| name.display().to_string().contains(expected);
        ensure!(names.iter().any(there), "{expected} is not among {names:?}");
    }
    let mut wrong = Vec::new();
    for name in names {
        for damage in Damage::ALL {
            let case = format!("{} {damage:?}", name.display());
            let folders = good.copy(&network)?;
            damage.happen_to(&folders.path().join(name))?;
            match outcome(&network, &folders, damage, name, echo.address()) {
                Ok(outcome) => println!("{case}: {outcome}"),
                Err(error) => wrong.push(format!("{case}: {error:#}")),
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    network.mark_done();
    Ok(())
}

/// What became of a program whose file `name` was damaged, if that is as it should be.
fn outcome(
    network: &Network,
    folders: &Folders,
    damage: Damage,
    name: &Path,
    target: std::net::SocketAddr,
) -> Result<String> {
    let begun = Instant::now();
    let mut run = Run::start(network, folders, "")?;
    if let Err(error) = run.wait_until_usable(SOON) {
        let log = run.log();
        // A person has to decide who may change the program's files.
        ensure!(matches!(damage, Damage::WritableForAll), "{error}\n{log}");
        let status = run.ended(SOON)?;
        let log = run.log();
        let last = log.lines().last().unwrap_or_default();
        let file = name.file_name().unwrap_or_default().display().to_string();
        ensure!(status.code() == Some(1), "{status}\n{log}");
        ensure!(last.contains(&file), "not named in {last}");
        return Ok(last.to_owned());
    }
    let served = run.connect(target);
    served.with_context(|| run.log())?;
    let took = begun.elapsed();
    ensure!(took < SOON, "served after {took:?}");
    ensure!(run.stop("TERM")?.success(), "does not end well");
    let log = run.log();
    let warnings = log.lines().filter(|line| line.contains(" WARN "));
    Ok(format!("{took:.1?}, {} warnings", warnings.count()))
}
