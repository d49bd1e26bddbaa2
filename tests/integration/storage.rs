//! The Tor client's files: damaged, or held by another process.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command};

use crate::support::client::Client;
use crate::support::program::{Daemon, Program, set_mode};

/// A bridge at a port on loopback at which nobody listens.
const BRIDGES: &str = "[bridges]\nenabled = true\nbridges = [\"127.0.0.1:1 0123456789ABCDEF0123456789ABCDEF01234567\"]";

/// Where the program keeps its guards.
fn guards(program: &Program) -> std::path::PathBuf {
    program.folder().join("state/state/guards.json")
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, bytes).expect("written");
}

/// Another process that has a file locked until it is dropped.
struct Locked(Child);

impl Locked {
    fn new(path: &Path) -> Locked {
        write(path, "");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "flock", "--no-fork"]);
        let child = command.arg(path).args(["sleep", "600"]).spawn();
        let locked = Locked(child.expect("setpriv(1) and flock(1) are there"));
        let file = fs::File::open(path).expect("there");
        while file.try_lock().is_ok() {
            file.unlock().expect("unlocked");
            std::thread::yield_now();
        }
        locked
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// It does what it can without a network: it answers for a bad address, and goes on connecting.
async fn assert_works(daemon: &mut Daemon) {
    let mut client = Client::connect(&daemon.addresses[0]).await;
    client.send("05 01 00").await;
    client.expect("05 00").await;
    client.send("05 01 00 03 09 6261642e6f6e696f6e 0050").await;
    client.expect("05 01 00 01 00000000 0000").await;
    daemon.process.wait_err("connecting to Tor");
    assert!(daemon.process.is_alive());
}

#[tokio::test]
async fn a_damaged_state_file_is_set_aside_and_the_start_goes_on() {
    for damage in [
        "",
        "{\"default\":{\"gua",
        "\0\0\0\0\0\0\0\0",
        "[]",
        "7",
        "{\"default\":7}",
    ] {
        let program = Program::offline().port("auto");
        let path = guards(&program);
        write(&path, damage);
        let mut daemon = program.start();
        let told = daemon.process.wait_err("is damaged");
        assert!(told.contains(&path.display().to_string()), "{told}");
        let aside = path.with_extension("json.damaged");
        assert_eq!(fs::read_to_string(aside).expect("kept"), damage);
        assert_works(&mut daemon).await;
        let all = daemon.process.err.all();
        let warnings = all.iter().filter(|line| line.contains("guards.json"));
        assert_eq!(warnings.count(), 1, "{damage:?}: {all:#?}");
    }
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_made_anew() {
    let mut newer = None;
    for damage in ["nonsense", "cut", "newer"] {
        let program = Program::offline().port("auto");
        let path = program.folder().join("cache/dir.sqlite3");
        match (damage, &newer) {
            ("nonsense", _) => write(&path, vec![b'x'; 8192]),
            (_, Some(bytes)) => write(&path, bytes),
            _ => unreachable!("the first start leaves a database"),
        }
        if damage == "cut" {
            let bytes = fs::read(&path).expect("there");
            write(&path, &bytes[..bytes.len() / 2]);
        }
        let mut daemon = program.start();
        let told = daemon.process.wait_err("is damaged");
        assert!(told.contains(&path.display().to_string()), "{told}");
        assert_works(&mut daemon).await;
        daemon.process.signal("TERM");
        let Daemon {
            process, folder, ..
        } = daemon;
        assert!(process.wait().status.success());
        // A database of a version that is yet to come, made of the good one.
        let good = folder.path().join("cache/dir.sqlite3");
        let changed = Command::new("python3")
            .args(["-c", NEWER])
            .arg(&good)
            .status();
        assert!(changed.expect("python3 is there").success());
        newer = Some(fs::read(good).expect("there"));
    }
}

/// Says of a database that it is of a version that nobody can read.
const NEWER: &str = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('UPDATE TorSchemaMeta SET version = 9999, readable_by = 9999')
db.commit()
db.execute('VACUUM')
";

#[tokio::test]
async fn with_bridges_a_state_folder_that_another_process_holds_ends_the_start() {
    let program = Program::offline().port("auto").proxy(BRIDGES);
    let other = Locked::new(&program.folder().join("state/state/state.lock"));
    let ended = program.run();
    assert_eq!(ended.status.code(), Some(1), "{:?}", ended.err);
    let last = ended.err.last().expect("a reason");
    let holder = format!("process {} (sleep) uses ", other.0.id());
    for words in [&*holder, "state/state", "storage.state_dir"] {
        assert!(last.contains(words), "{words:?} is missing in: {last}");
    }
}

#[tokio::test]
async fn a_state_folder_that_another_process_lets_go_is_waited_for() {
    let program = Program::offline().port("auto").proxy(BRIDGES);
    let other = Locked::new(&program.folder().join("state/state/state.lock"));
    let mut daemon = program.start_with_ports(0);
    daemon.process.wait_err("waiting for it to exit");
    drop(other);
    daemon.process.wait_err("connecting to Tor");
    assert!(daemon.process.is_alive());
}

#[tokio::test]
async fn without_bridges_the_program_serves_beside_another_and_says_so() {
    let program = Program::offline().port("auto");
    let _other = Locked::new(&program.folder().join("state/state/state.lock"));
    let mut daemon = program.start();
    daemon
        .process
        .wait_err("guards are not saved while it runs");
    assert_works(&mut daemon).await;
}

/// Ports would change and bridges would not.
#[tokio::test]
async fn bridges_that_cannot_be_used_refuse_the_whole_reload() {
    let program = Program::offline().port("auto");
    let _other = Locked::new(&program.folder().join("state/state/state.lock"));
    let file = program.file();
    let mut daemon = program.start();
    let text = fs::read_to_string(&file).expect("readable");
    let changed = text.replace("\"auto\"", "\"auto ExtendedErrors\"");
    fs::write(&file, format!("{changed}\n{BRIDGES}\n")).expect("written");
    daemon.process.signal("HUP");
    let told = daemon.process.wait_err("configuration not reloaded");
    assert!(told.contains("(sleep) uses "), "{told}");
    // Without ExtendedErrors, as before.
    assert_works(&mut daemon).await;
}

/// The user has to fix permissions and owners: the program names the file and the remedy, then exits.
#[test]
fn a_file_with_a_wrong_owner_or_mode_ends_the_start() {
    const USER: u32 = 54_321;
    const OTHER: u32 = 54_322;
    let changes = [
        ("unreadable", USER, 0o000),
        ("another user's", OTHER, 0o600),
        ("another user's, world-readable", OTHER, 0o644),
        ("world-writable", USER, 0o666),
    ];
    for file in [
        "state/state/guards.json",
        "state/state/circuit_timeouts.json",
        "state/state/state.lock",
        "cache/dir.lock",
        "cache/dir.sqlite3",
    ] {
        for (what, owner, mode) in changes {
            // arti goes on without these, with a warning that names the file.
            if file.ends_with("circuit_timeouts.json") && what == "unreadable" {
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
                chown(folder, Some(USER), Some(USER)).expect("root");
            }
            set_mode(&path, mode);
            chown(&path, Some(owner), Some(owner)).expect("root");
            let ended = program.run();
            let told = ended.err.last().expect("a reason");
            assert_eq!(ended.status.code(), Some(1), "{file} {what}: {told}");
            // arti abbreviates the home folder to ${HOME}, so compare only the file name.
            let (_, name) = file.rsplit_once('/').expect("a folder and a name");
            for words in [name, "chmod", "chown"] {
                assert!(told.contains(words), "{file} {what}: no {words} in {told}");
            }
        }
    }
}

/// A failure that passes costs the reload, not the program.
#[tokio::test]
async fn the_old_client_is_restored_once_a_failure_passes() {
    const USER: u32 = 54_321;
    let program = Program::offline()
        .port("auto")
        .check_permissions()
        .user(USER);
    let file = program.file();
    let database = program.folder().join("cache/dir.sqlite3");
    let mut daemon = program.start();
    assert_works(&mut daemon).await;
    set_mode(&database, 0o666);
    let text = fs::read_to_string(&file).expect("readable");
    let changed = "[circuit_timing]\nrequest_timeout = \"50 s\"\n";
    fs::write(&file, format!("{text}\n{changed}")).expect("written");
    daemon.process.signal("HUP");
    daemon
        .process
        .wait_err("cannot restore the previous Tor client");
    set_mode(&database, 0o600);
    let told = daemon.process.wait_err("configuration not reloaded");
    assert!(told.contains("dir.sqlite3"), "{told}");
    assert_works(&mut daemon).await;
}
