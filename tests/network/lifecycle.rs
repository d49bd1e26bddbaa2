//! The program is started repeatedly with the same folders: which guards it keeps, and what it does about damaged
//! files.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testnet::{EchoServer, Network, socks5_connect};

use crate::daemon::{Onionport, Start};
use crate::setup::make_private;

/// How many starts the guards have to survive. The environment variable [`STARTS_VARIABLE`] overrides it.
const STARTS: u32 = 6;
const STARTS_VARIABLE: &str = "ONIONPORT_STARTS";
/// A run is stopped at a random moment, at most this long after its bootstrap. The environment variable
/// [`LONGEST_RUN_VARIABLE`] overrides it, in seconds.
const LONGEST_RUN: Duration = Duration::from_secs(3);
const LONGEST_RUN_VARIABLE: &str = "ONIONPORT_LONGEST_RUN";
/// How long the program may take to bootstrap with sound files or none.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(60);
/// How long a stream may take to open.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// How long the program may take to exit after a signal.
const EXIT_LIMIT: Duration = Duration::from_secs(20);
/// How soon a used guard is saved: arti saves once a minute; the rest is slack for a busy machine.
const SAVED_WITHIN: Duration = Duration::from_secs(75);
/// How soon a restarted program has to serve, also with damaged files.
const SOON: Duration = Duration::from_secs(10);

/// The folder with state and cache of a program.
struct Folders(tempfile::TempDir);

impl Folders {
    /// Creates an empty folder.
    fn new(network: &Network) -> Result<Folders> {
        let folder = tempfile::tempdir_in(network.dir())?;
        make_private(folder.path())?;
        Ok(Folders(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Copies the folder with all files.
    fn copy(&self, network: &Network) -> Result<Folders> {
        let copy = Folders::new(network)?;
        let mut from = self.path().as_os_str().to_owned();
        from.push("/.");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(from)
            .arg(copy.path())
            .status()?;
        ensure!(copied.success(), "cp -a");
        Ok(copy)
    }

    /// Starts a program with one SOCKS port in this folder. It checks the permissions of its files, and logs little, so
    /// that the last line of its log is the error with which it exits.
    fn spawn_proxy(&self, network: &Network) -> Result<Onionport> {
        Start::new(network)
            .socks_ports(&["auto"])
            .state(self.path())
            .check_permissions()
            .log_filter("info,tor_netdir=error")
            .spawn()
    }
}

/// Opens a stream.
fn connect(onionport: &Onionport, target: SocketAddr) -> Result<TcpStream> {
    let host = target.ip().to_string();
    let reply = socks5_connect(onionport.port(0), &host, target.port(), REQUEST_LIMIT)?;
    let code = reply.code;
    reply
        .stream
        .with_context(|| format!("refused with {code:02X}"))
}

/// Sends a signal and waits until the program has exited.
fn stop(onionport: &mut Onionport, signal: &str) -> Result<ExitStatus> {
    onionport.signal(signal)?;
    onionport.wait_until_exit(EXIT_LIMIT)
}

/// Returns the saved guards, and the used ones among them in the order of their first use.
fn read_guards(folders: &Folders) -> Result<(BTreeSet<String>, Vec<String>)> {
    let path = folders.path().join("state/state/guards.json");
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

/// Reads a number from an environment variable.
fn number_from_env(variable: &str, default: u32) -> u32 {
    let text = std::env::var(variable).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn guards_survive_every_clean_exit() -> Result<()> {
    let network = Network::builder().relays(8).start()?;
    let echo = EchoServer::start()?;
    let folders = Folders::new(&network)?;
    let longest = number_from_env(LONGEST_RUN_VARIABLE, LONGEST_RUN.as_secs() as u32) * 1000;
    let mut known: Option<(BTreeSet<String>, Vec<String>)> = None;
    for start in 0..number_from_env(STARTS_VARIABLE, STARTS) {
        let mut onionport = folders.spawn_proxy(&network)?;
        onionport.wait_until_bootstrapped(BOOTSTRAP_LIMIT)?;
        // Every other run has a stream that stays open until the exit. The first one confirms a guard.
        let stream = match start % 2 {
            0 => Some(connect(&onionport, echo.address())?),
            _ => None,
        };
        let moment = Duration::from_millis(u64::from(rand::random_range(0..=longest)));
        std::thread::sleep(moment);
        let signal = ["TERM", "INT"][start as usize / 2 % 2];
        let status = stop(&mut onionport, signal)?;
        ensure!(status.success(), "exited with {status}");
        drop(stream);
        let (sampled, confirmed) = read_guards(&folders)?;
        let run = format!("start {start}, {signal} after {moment:?}");
        ensure!(!sampled.is_empty(), "{run}: no guards");
        match &known {
            None => ensure!(!confirmed.is_empty(), "{run}: no used guard"),
            Some((before, used)) => {
                ensure!(sampled.is_superset(before), "{run}: guards lost");
                ensure!(
                    confirmed.starts_with(used),
                    "{run}: the used guards were {used:?} and are {confirmed:?}"
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
    let mut onionport = folders.spawn_proxy(&network)?;
    onionport.wait_until_bootstrapped(BOOTSTRAP_LIMIT)?;
    let stream = connect(&onionport, echo.address())?;
    let begun = Instant::now();
    let (sampled, used) = loop {
        if let Ok((sampled, used)) = read_guards(&folders)
            && !used.is_empty()
        {
            break (sampled, used);
        }
        let waited = begun.elapsed();
        ensure!(
            waited < SAVED_WITHIN,
            "no used guard saved after {waited:?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    };
    stop(&mut onionport, "KILL")?;
    drop(stream);

    let mut onionport = folders.spawn_proxy(&network)?;
    onionport.wait_until_bootstrapped(SOON)?;
    drop(connect(&onionport, echo.address())?);
    ensure!(
        stop(&mut onionport, "TERM")?.success(),
        "exit status after SIGTERM"
    );
    let (after, used_after) = read_guards(&folders)?;
    ensure!(after.is_superset(&sampled), "guards lost");
    ensure!(
        used_after.starts_with(&used),
        "the used guards were {used:?} and are {used_after:?}"
    );
    network.mark_done();
    Ok(())
}

/// Damage to a file.
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

    fn apply_to(self, path: &Path) -> Result<()> {
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

/// Returns all files below a folder.
fn find_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(find_files(&path)?),
            false => found.push(path),
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn a_program_with_a_damaged_file_serves_soon_or_exits_with_an_error_that_names_it() -> Result<()> {
    let network = Network::builder().relays(8).start()?;
    let echo = EchoServer::start()?;
    let good = Folders::new(&network)?;
    let mut onionport = good.spawn_proxy(&network)?;
    onionport.wait_until_bootstrapped(BOOTSTRAP_LIMIT)?;
    drop(connect(&onionport, echo.address())?);
    ensure!(
        stop(&mut onionport, "TERM")?.success(),
        "exit status of the undamaged run"
    );

    let names = find_files(good.path())?;
    let names = names.iter().map(|path| path.strip_prefix(good.path()));
    let names: Vec<_> = names.collect::<Result<_, _>>()?;
    for expected in ["guards.json", "dir.sqlite3", "con_microdesc"] {
        let is_expected = |name: &&Path| name.display().to_string().contains(expected);
        ensure!(
            names.iter().any(is_expected),
            "{expected} is not among {names:?}"
        );
    }
    let mut wrong = Vec::new();
    for name in names {
        for damage in Damage::ALL {
            let case = format!("{} {damage:?}", name.display());
            let folders = good.copy(&network)?;
            damage.apply_to(&folders.path().join(name))?;
            match run_damaged(&network, &folders, damage, name, echo.address()) {
                Ok(outcome) => println!("{case}: {outcome}"),
                Err(error) => wrong.push(format!("{case}: {error:#}")),
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    network.mark_done();
    Ok(())
}

/// Starts a program whose file `name` is damaged, and describes what it does. Fails if it neither serves soon nor exits
/// with an error that names the file.
fn run_damaged(
    network: &Network,
    folders: &Folders,
    damage: Damage,
    name: &Path,
    target: SocketAddr,
) -> Result<String> {
    let begun = Instant::now();
    let mut onionport = folders.spawn_proxy(network)?;
    if let Err(error) = onionport.wait_until_bootstrapped(SOON) {
        let log = onionport.log();
        // Only the administrator can decide who may write to the files, so the program must exit.
        ensure!(matches!(damage, Damage::WritableForAll), "{error}\n{log}");
        let status = onionport.wait_until_exit(SOON)?;
        let log = onionport.log();
        let last = log.lines().last().unwrap_or_default();
        let file = name.file_name().unwrap_or_default().display().to_string();
        ensure!(status.code() == Some(1), "{status}\n{log}");
        ensure!(
            last.contains(&file),
            "{file} is not in the last line: {last}"
        );
        return Ok(last.to_owned());
    }
    let served = connect(&onionport, target);
    served.with_context(|| onionport.log())?;
    let took = begun.elapsed();
    ensure!(took < SOON, "served after {took:?}");
    ensure!(
        stop(&mut onionport, "TERM")?.success(),
        "exit status after SIGTERM"
    );
    let log = onionport.log();
    let warnings = log.lines().filter(|line| line.contains(" WARN "));
    Ok(format!("{took:.1?}, {} warnings", warnings.count()))
}
