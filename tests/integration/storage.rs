//! The Tor client's files: damaged, locked by another process, or with wrong permissions.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::unistd::Uid;

use crate::support::offline::{assert_contains_all, final_error, request_bad_onion};
use crate::support::program::{Daemon, Program, set_mode};
use crate::support::skipped::report_skipped;

/// A bridge at a loopback port where no process listens.
const BRIDGES: &str = "[bridges]\nenabled = true\nbridges = [\"127.0.0.1:1 0123456789ABCDEF0123456789ABCDEF01234567\"]";

/// The user who runs the program where owners matter, and another user.
const USER: u32 = 54_321;
const OTHER_USER: u32 = 54_322;

/// Returns the file in which the program keeps its guards.
fn guards_file(program: &Program) -> PathBuf {
    program.folder().join("state/state/guards.json")
}

/// Returns the lock file of the state folder.
fn state_lock(program: &Program) -> PathBuf {
    program.folder().join("state/state/state.lock")
}

/// Writes a file and creates its folders.
fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders created");
    fs::write(path, bytes).expect("file written");
}

/// Another process, `sleep`, that holds the lock of a file until this is dropped.
struct LockHolder(Child);

impl LockHolder {
    /// Starts the process and waits until it holds the lock.
    fn start(path: &Path) -> LockHolder {
        write(path, "");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "flock", "--no-fork"]);
        let child = command.arg(path).args(["sleep", "600"]).spawn();
        let holder = LockHolder(child.expect("setpriv(1) and flock(1) are installed"));
        let file = fs::File::open(path).expect("lock file opens");
        while file.try_lock().is_ok() {
            file.unlock().expect("unlocked");
            std::thread::yield_now();
        }
        holder
    }
}

impl Drop for LockHolder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asserts that the program, on a port without `ExtendedErrors`, refuses a bad onion address and
/// tries to connect to Tor.
async fn assert_works(daemon: &mut Daemon) {
    assert_eq!(request_bad_onion(&daemon.addresses[0]).await, 0x01);
    daemon.process.wait_err("connecting to Tor");
    assert!(daemon.process.is_alive());
}

#[tokio::test]
async fn a_damaged_state_file_is_renamed_and_the_program_starts() {
    for damage in [
        "",
        "{\"default\":{\"gua",
        "\0\0\0\0\0\0\0\0",
        "[]",
        "7",
        "{\"default\":7}",
    ] {
        let program = Program::offline().port("auto");
        let path = guards_file(&program);
        write(&path, damage);
        let mut daemon = program.start();
        let warning = daemon.process.wait_err("is damaged");
        assert_contains_all(&warning, &[&path.display().to_string()]);
        let renamed = path.with_extension("json.damaged");
        let kept = fs::read_to_string(renamed).expect("renamed file readable");
        assert_eq!(kept, damage);
        assert_works(&mut daemon).await;
        let log = daemon.process.err.all();
        let warnings = log.iter().filter(|line| line.contains("guards.json"));
        assert_eq!(warnings.count(), 1, "{damage:?}: {log:#?}");
    }
}

#[tokio::test]
async fn a_damaged_database_is_replaced() {
    let mut newer = None;
    for damage in ["nonsense", "cut", "newer"] {
        let program = Program::offline().port("auto");
        let path = program.folder().join("cache/dir.sqlite3");
        match (damage, &newer) {
            ("nonsense", _) => write(&path, vec![b'x'; 8192]),
            (_, Some(bytes)) => write(&path, bytes),
            _ => unreachable!("the first run leaves a database"),
        }
        if damage == "cut" {
            let bytes = fs::read(&path).expect("database readable");
            write(&path, &bytes[..bytes.len() / 2]);
        }
        let mut daemon = program.start();
        let warning = daemon.process.wait_err("is damaged");
        assert_contains_all(&warning, &[&path.display().to_string()]);
        assert_works(&mut daemon).await;
        daemon.process.signal("TERM");
        assert!(daemon.process.wait().status.success());
        // Turn the new, good database into one with a future schema version.
        let changed = Command::new("python3")
            .args(["-c", RAISE_SCHEMA_VERSION])
            .arg(&path)
            .status();
        assert!(changed.expect("python3 is installed").success());
        newer = Some(fs::read(path).expect("database readable"));
    }
}

/// Gives a database a schema version that this arti cannot read.
const RAISE_SCHEMA_VERSION: &str = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('UPDATE TorSchemaMeta SET version = 9999, readable_by = 9999')
db.commit()
db.execute('VACUUM')
";

#[tokio::test]
async fn with_bridges_a_locked_state_folder_is_an_error_at_start() {
    let program = Program::offline().port("auto").config_lines(BRIDGES);
    let other = LockHolder::start(&state_lock(&program));
    let ended = program.run();
    let holder = format!("process {} (sleep) uses ", other.0.id());
    assert_contains_all(
        final_error(&ended),
        &[&holder, "state/state", "storage.state_dir"],
    );
}

#[tokio::test]
async fn with_bridges_the_program_waits_for_another_process_to_release_the_state_folder() {
    let program = Program::offline().port("auto").config_lines(BRIDGES);
    let other = LockHolder::start(&state_lock(&program));
    let mut daemon = program.start_with_ports(0);
    daemon.process.wait_err("waiting for it to exit");
    drop(other);
    daemon.process.wait_err("connecting to Tor");
    assert!(daemon.process.is_alive());
}

#[tokio::test]
async fn without_bridges_a_locked_state_folder_is_only_a_warning() {
    let program = Program::offline().port("auto");
    let _other = LockHolder::start(&state_lock(&program));
    let mut daemon = program.start();
    daemon
        .process
        .wait_err("guards are not saved while it runs");
    assert_works(&mut daemon).await;
}

/// Otherwise the ports would change and the bridges would not.
#[tokio::test]
async fn bridges_that_need_a_locked_state_folder_fail_the_whole_reload() {
    let program = Program::offline().port("auto");
    let _other = LockHolder::start(&state_lock(&program));
    let mut daemon = program.start();
    daemon.edit_config("\"auto\"", "\"auto ExtendedErrors\"");
    append_config(&daemon, BRIDGES);
    daemon.process.signal("HUP");
    let error = daemon.process.wait_err("configuration not reloaded");
    assert_contains_all(&error, &["(sleep) uses "]);
    // The port is still without ExtendedErrors.
    assert_works(&mut daemon).await;
}

/// Adds tables at the end of the configuration file.
fn append_config(daemon: &Daemon, tables: &str) {
    let file = daemon.config_file();
    let text = fs::read_to_string(&file).expect("configuration readable");
    fs::write(&file, format!("{text}\n{tables}\n")).expect("configuration written");
}

/// The user has to fix permissions and owners: the program names the file and the remedy, then exits.
#[test]
fn a_file_with_a_wrong_owner_or_mode_ends_the_start() {
    if !Uid::effective().is_root() {
        return report_skipped("files of other users: needs root");
    }
    let changes = [
        ("unreadable", USER, 0o000),
        ("another user's", OTHER_USER, 0o600),
        ("another user's, world-readable", OTHER_USER, 0o644),
        ("world-writable", USER, 0o666),
    ];
    for file in [
        "state/state/guards.json",
        "state/state/circuit_timeouts.json",
        "state/state/state.lock",
        "cache/dir.lock",
        "cache/dir.sqlite3",
    ] {
        for (change, owner, mode) in changes {
            // arti starts without readable circuit time-outs and only logs a warning.
            if file.ends_with("circuit_timeouts.json") && change == "unreadable" {
                continue;
            }
            let program = Program::offline()
                .port("auto")
                .check_permissions()
                .user(USER);
            let path = program.folder().join(file);
            write(&path, "{}");
            let folders = path.ancestors().skip(1);
            for folder in folders.take_while(|&folder| folder != program.folder()) {
                set_mode(folder, 0o700);
                chown(folder, Some(USER), Some(USER)).expect("root may change owners");
            }
            set_mode(&path, mode);
            chown(&path, Some(owner), Some(owner)).expect("root may change owners");
            let ended = program.run();
            let error = ended.err.last().expect("an error");
            assert_eq!(ended.status.code(), Some(1), "{file} {change}: {error}");
            // arti abbreviates the home folder to ${HOME}, so compare only the file name.
            let (_, name) = file.rsplit_once('/').expect("a folder and a name");
            for text in [name, "chmod", "chown"] {
                assert!(
                    error.contains(text),
                    "{file} {change}: {text} is missing in {error}"
                );
            }
        }
    }
}

/// A temporary failure fails the reload, but does not stop the program.
#[tokio::test]
async fn the_old_client_is_restored_once_a_failure_passes() {
    if !Uid::effective().is_root() {
        return report_skipped("checked permissions as another user: needs root");
    }
    let program = Program::offline()
        .port("auto")
        .check_permissions()
        .user(USER);
    let database = program.folder().join("cache/dir.sqlite3");
    let mut daemon = program.start();
    assert_works(&mut daemon).await;
    set_mode(&database, 0o666);
    append_config(&daemon, "[circuit_timing]\nrequest_timeout = \"50 s\"");
    daemon.process.signal("HUP");
    daemon
        .process
        .wait_err("cannot restore the previous Tor client");
    set_mode(&database, 0o600);
    let error = daemon.process.wait_err("configuration not reloaded");
    assert_contains_all(&error, &["dir.sqlite3"]);
    assert_works(&mut daemon).await;
}
