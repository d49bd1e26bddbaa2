//! The real program as containers and administrators run it: as a user without a home folder, as
//! root, and beside processes that try to read its memory.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};

use aho_corasick::AhoCorasick;
use nix::unistd::geteuid;
use sha3::{Digest as _, Sha3_256};

use crate::support::offline::{
    assert_contains_all, create_folder, error_line, final_error, write_private_file,
};
use crate::support::process::Process;
use crate::support::program::{NO_NETWORK, Program, launch_under, private_folder};

/// Runs a program as a user that passwd does not list. The user namespace makes this possible without
/// root.
const UNKNOWN_USER: [&str; 4] = ["unshare", "--user", "--map-user=54321", "--map-group=54321"];

#[test]
fn a_user_without_a_home_folder_can_run_the_program_with_both_folders_set() {
    let folder = private_folder();
    let option = |key: &str| {
        let path = folder.path().join(key);
        format!("storage.{key}={}", path.display())
    };
    let arguments = [
        "--socks-port",
        "auto",
        "-o",
        &option("state_dir"),
        "-o",
        &option("cache_dir"),
        "-o",
        NO_NETWORK,
    ];
    let process = launch_under(&UNKNOWN_USER, &arguments);
    process.wait_out("port", |lines| {
        let is_listening = |line: &String| line.starts_with("listening socks ");
        lines.iter().any(is_listening).then_some(())
    });
    process.signal("TERM");
    assert_eq!(process.wait().status.code(), Some(0));
}

#[test]
fn without_a_home_folder_one_error_names_both_folders() {
    let folder = private_folder();
    let cache = format!("storage.cache_dir={}", folder.path().display());
    let state = format!("storage.state_dir={}", folder.path().display());
    for given in [None, Some(&cache), Some(&state)] {
        let mut arguments = vec!["--socks-port", "auto"];
        arguments.extend(given.iter().flat_map(|option| ["-o", option.as_str()]));
        let ended = launch_under(&UNKNOWN_USER, &arguments).wait();
        assert_contains_all(
            error_line(&ended, 1),
            &[
                "no home",
                "storage.state_dir",
                "storage.cache_dir",
                "DataDirectory",
            ],
        );
    }
}

/// Returns a program without root's capabilities, with these lines in its table `[application]`.
fn unprivileged_program(application: &str) -> Program {
    let program = Program::offline()
        .port("auto")
        .config_lines(format!("[application]\n{application}"));
    match geteuid().is_root() {
        true => program.run_under(&["setpriv", WITHOUT_PRIVILEGES]),
        false => program,
    }
}

/// The setpriv(1) option that drops root's capabilities, such as the one to read any process's
/// memory.
const WITHOUT_PRIVILEGES: &str = "--bounding-set=-all";

/// Whether another process of the same user, without capabilities, may read the memory of a process.
fn can_read_memory(process: &Process) -> bool {
    let environment = format!("/proc/{}/environ", process.id());
    let mut command = Command::new("setpriv");
    if geteuid().is_root() {
        command.arg(WITHOUT_PRIVILEGES);
    }
    let status = command
        .args(["cat", &environment])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("setpriv(1) is installed");
    status.success()
}

/// Returns the line about core dumps in the limits of a process, with single spaces.
fn read_core_limit(process: &Process) -> String {
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.id()));
    let limits = limits.expect("limits readable");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let line = line.expect("a limit").split_whitespace();
    line.collect::<Vec<_>>().join(" ")
}

#[test]
fn other_processes_cannot_read_the_memory_unless_permit_debugging_is_set() {
    let protected = unprivileged_program("permit_debugging = false").start();
    assert!(!can_read_memory(&protected.process));
    assert_eq!(
        read_core_limit(&protected.process),
        "Max core file size 0 0 bytes"
    );
    let log = protected.process.err.all().join("\n");
    assert!(!log.contains("WARN") && !log.contains("debug"), "{log}");

    let permitted = unprivileged_program("permit_debugging = true").start();
    assert!(can_read_memory(&permitted.process));
    permitted.edit_config("permit_debugging = true", "");
    permitted.process.signal("HUP");
    permitted
        .process
        .wait_err("application.permit_debugging changed");
    assert!(can_read_memory(&permitted.process));
}

/// Reads all writable memory of a process.
fn read_memory(process: &Process) -> Vec<u8> {
    let folder = format!("/proc/{}", process.id());
    let maps = fs::read_to_string(format!("{folder}/maps")).expect("maps readable");
    let memory = fs::File::open(format!("{folder}/mem")).expect("memory opens");
    let mut all = Vec::new();
    for line in maps.lines() {
        let mut words = line.split(' ');
        let (Some(range), Some(rights)) = (words.next(), words.next()) else {
            panic!("{line}");
        };
        let (start, end) = range.split_once('-').expect("two addresses");
        let address = |hex| u64::from_str_radix(hex, 16).expect("an address");
        let (start, end) = (address(start), address(end));
        let mut bytes = vec![0; usize::try_from(end - start).expect("fits the address space")];
        // Some mappings, such as those of the kernel, cannot be read.
        if rights.starts_with("rw") && memory.read_exact_at(&mut bytes, start).is_ok() {
            all.extend(bytes);
        }
    }
    all
}

/// Generates valid onion addresses, without `.onion`: every multiple of the base point is a public
/// key.
fn onion_labels() -> impl Iterator<Item = String> {
    let base = curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
    std::iter::successors(Some(base), move |point| Some(point + base)).map(|point| {
        let key = point.compress().to_bytes();
        let sum = Sha3_256::digest([b".onion checksum", key.as_slice(), &[3]].concat());
        let bytes = [key.as_slice(), &sum[..2], &[3]].concat();
        data_encoding::BASE32_NOPAD.encode(&bytes).to_lowercase()
    })
}

#[test]
fn client_auth_keys_are_wiped_from_memory_after_reading() {
    /// Enough files that the allocator does not overwrite all freed copies by chance.
    const FILES: usize = 300;
    let program = Program::offline().port("auto");
    let keys = program.folder().join("keys-that-are-read");
    create_folder(&keys, 0o700);
    let mut secrets: Vec<Vec<u8>> = Vec::new();
    for (number, label) in onion_labels().take(FILES).enumerate() {
        let key = Sha3_256::digest(number.to_le_bytes());
        let text = data_encoding::BASE32_NOPAD.encode(&key);
        let line = format!("{label}:descriptor:x25519:{text}\n");
        write_private_file(&keys.join(format!("{number}.auth_private")), &line);
        // Search without the first 16 bytes, which a reuse of the freed memory overwrites first.
        secrets.extend([key[16..].to_vec(), text.as_bytes()[16..].to_vec()]);
    }
    let daemon = program
        .config_lines(format!(
            "client_onion_auth_dir = {keys:?}\n[application]\npermit_debugging = true"
        ))
        .start();
    daemon
        .process
        .wait_err(&format!("{FILES} client authorization keys"));
    let memory = read_memory(&daemon.process);
    let count = |patterns: &[Vec<u8>]| {
        let finder = AhoCorasick::new(patterns).expect("search patterns");
        finder.find_iter(&memory).count()
    };
    assert!(
        count(&[b"keys-that-are-read".to_vec()]) > 0,
        "not even the folder's name is found"
    );
    assert_eq!(count(&secrets), 0);
}

#[test]
fn root_is_refused_only_if_allow_running_as_root_is_false() {
    for (application, refused) in [
        ("", false),
        ("allow_running_as_root = true", false),
        ("allow_running_as_root = false", geteuid().is_root()),
    ] {
        let table = format!("[application]\n{application}");
        if refused {
            for more in [&[][..], &["--check-config"]] {
                let program = Program::offline().config_lines(&table).arguments(more);
                let ended = program.run();
                assert_contains_all(final_error(&ended), &["application.allow_running_as_root"]);
                let is_listening = |line: &String| line.starts_with("listening");
                assert!(!ended.out.iter().any(is_listening), "{:?}", ended.out);
            }
            continue;
        }
        let daemon = Program::offline().port("auto").config_lines(&table).start();
        let log = daemon.process.err.all().join("\n");
        assert!(!log.contains("WARN"), "{log}");
    }
}
