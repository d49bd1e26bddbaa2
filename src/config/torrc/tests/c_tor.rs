//! Compares the readings of the same files with C tor's, offline.
//!
//! Without C tor these tests are skipped with a message; in CI they fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod names;
mod odd;
mod verify;

use odd::{ODD, PAIRS};

use super::super::assign::Values;
use super::super::files::FileReader;
use super::super::options::{self, OptionKind};

/// Returns C tor's program: from `PATH`, or from folders that a user's `PATH` may lack.
fn find_tor() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/sbin"].map(PathBuf::from))
        .map(|folder| folder.join("tor"))
        .find(|file| file.is_file())
        .unwrap_or("tor".into())
}

/// Runs `tor` for a task that needs no network, and returns its success and output; `None` without C tor.
fn run_tor(args: &[&str], files: &[&Path], home: &Path) -> Option<(bool, String)> {
    let mut command = Command::new(find_tor());
    command.args(args).env("HOME", home).stdin(Stdio::null());
    match files {
        [only] => command
            .arg("-f")
            .arg(only)
            .args(["--defaults-torrc", "/dev/null"]),
        [defaults, file] => command
            .arg("-f")
            .arg(file)
            .arg("--defaults-torrc")
            .arg(defaults),
        _ => &mut command,
    };
    match command.output() {
        Ok(output) => Some((
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )),
        Err(error) => {
            // Fail in CI, where nobody would notice skipped tests.
            assert!(
                std::env::var_os("CI").is_none(),
                "C tor is missing; run `apt-get install tor`"
            );
            eprintln!("skipped: cannot start tor: {error}");
            None
        }
    }
}

/// Returns the options that C tor reads with values other than its defaults; the inner `None` if it refuses
/// the files. The full dump is needed: for two files, the short one leaves out the options of the first.
fn read_as_tor(files: &[&Path], home: &Path) -> Option<Option<Vec<(String, String)>>> {
    let (good, dump) = run_tor(&["--dump-config", "full"], files, home)?;
    let lines = dump.lines().filter(|line| {
        let log =
            line.contains(" [notice] ") || line.contains(" [warn] ") || line.contains(" [err] ");
        !log && !line.is_empty()
    });
    let options = lines.filter_map(|line| {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let option = options::find(key)?.option;
        let value = match option.kind {
            OptionKind::Float => value.parse::<f64>().ok()?.to_string(),
            _ => value.to_owned(),
        };
        // Packagers choose the paths of the GeoIP files.
        let changed = value != option.default && !key.starts_with("GeoIP");
        changed.then(|| (key.to_owned(), value))
    });
    Some(good.then(|| options.collect()))
}

/// Returns what onionport reads, in the same form.
fn read_as_onionport(files: &[&Path]) -> Result<Vec<(String, String)>, String> {
    let mut reader = FileReader::default();
    let mut values = Values::default();
    for file in files {
        let lines = reader.read(file).map_err(|error| error.to_string())?;
        values.assign(lines).map_err(|error| error.to_string())?;
    }
    values.refuse_unknown().map_err(|error| error.to_string())?;
    let mut all = values.all();
    all.sort_by_key(|assigned| assigned.name.to_ascii_lowercase());
    Ok(all
        .iter()
        .filter(|assigned| {
            let option = options::find(assigned.name).unwrap().option;
            assigned.value != option.default && !assigned.name.starts_with("GeoIP")
        })
        .map(|assigned| (assigned.name.to_owned(), assigned.value.clone()))
        .collect())
}

/// Asserts that C tor and onionport read the same in files; `false` without C tor.
fn compare(files: &[&Path], text: &str, home: &Path) -> bool {
    let Some(theirs) = read_as_tor(files, home) else {
        return false;
    };
    let ours = read_as_onionport(files);
    match (&theirs, &ours) {
        (None, Err(_)) => {}
        // The dump quotes values that need quotes in a file.
        (Some(theirs), Ok(ours)) => {
            let bare = |(key, value): &(String, String)| {
                let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
                let value = inner.map_or(value.clone(), |inner| {
                    inner
                        .replace("\\013", "\x0b")
                        .replace("\\\"", "\"")
                        .replace("\\\\", "\\")
                });
                (key.clone(), value)
            };
            let mut theirs: Vec<_> = theirs.iter().map(bare).collect();
            theirs.sort_by_key(|(name, _)| name.to_ascii_lowercase());
            assert_eq!(*ours, theirs, "{text:?}");
        }
        _ => panic!("{text:?}: C tor reads {theirs:?}, onionport reads {ours:?}"),
    }
    true
}

/// Creates the files to include.
fn create_include_folder(folder: &Path) {
    for (name, text) in [
        ("inc/a.conf", "SocksPort 9061\n"),
        ("inc/b.conf", "SocksPort 9060\n"),
        ("inc/A Z", "SocksPort 9064\n"),
        ("inc/[ab].conf", "SocksPort 9065\n"),
        ("inc/a*.lit", "SocksPort 9066"),
        ("inc/.hid", "SocksPort 9062\n"),
        ("inc/empty", ""),
        ("inc/sub/x", "SocksPort 9063\n"),
        ("self", "%include FOLDER/self\n"),
    ] {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.replace("FOLDER", &folder.display().to_string())).unwrap();
    }
    // Starting with the second file, the chain has exactly the deepest nesting allowed.
    let chain = folder.join("chain");
    fs::create_dir(&chain).unwrap();
    for number in 1..31 {
        let text = format!("%include {}/{}\n", chain.display(), number + 1);
        fs::write(chain.join(number.to_string()), text).unwrap();
    }
    fs::write(chain.join("31"), "SocksPort 9031\n").unwrap();
}

#[test]
fn odd_files_are_read_as_c_tor_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    create_include_folder(folder.path());
    let file = folder.path().join("torrc");
    let mut compared = 0;
    for odd in ODD {
        let text = odd.replace("FOLDER", &folder.path().display().to_string());
        fs::write(&file, &text).unwrap();
        if !compare(&[&file], odd, folder.path()) {
            return;
        }
        compared += 1;
    }
    assert_eq!(compared, ODD.len());
}

#[test]
fn later_files_take_precedence_as_over_the_defaults_file_of_c_tor() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("1"), folder.path().join("2"));
    for (defaults, text) in PAIRS {
        fs::write(&first, defaults).unwrap();
        fs::write(&second, text).unwrap();
        if !compare(
            &[&first, &second],
            &format!("{defaults:?}, {text:?}"),
            folder.path(),
        ) {
            return;
        }
    }
}

#[test]
fn files_of_packages_are_read_as_c_tor_reads_them() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torrc");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("torrc");
    for name in [
        "debian_defaults",
        "debian_instance",
        "tails",
        "whonix/65_gateway.conf",
        "whonix/workstation_defaults",
        "tor_browser/torrc-defaults",
        "tor_browser/torrc",
        "bitcoin_core",
        "docker",
    ] {
        let text = fs::read_to_string(data.join(name)).unwrap();
        // C tor checks the users and folders of this computer.
        let local = ["User ", "DataDirectory ", "ClientOnionAuthDir "];
        let kept: Vec<&str> = text
            .lines()
            .filter(|line| !local.iter().any(|option| line.starts_with(option)))
            .collect();
        // The dump leaves out options with names such as `__SocksPort`.
        fs::write(&file, kept.join("\n").replace("__SocksPort", "SocksPort")).unwrap();
        if !compare(&[&file], name, folder.path()) {
            return;
        }
    }
}
