//! The real program as containers and administrators run it: users without a home or a name, root, and
//! others who want to look into its memory.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};

use aho_corasick::AhoCorasick;
use nix::unistd::geteuid;
use sha3::{Digest as _, Sha3_256};

use crate::support::process::Process;
use crate::support::program::{Program, launch_under, private_folder, set_mode};

/// Runs a program as a user that no file knows of, in a namespace where nobody needs to be root for it.
const NOBODY: [&str; 4] = ["unshare", "--user", "--map-user=54321", "--map-group=54321"];

/// Another Tor network than the public one, on the command line.
const NO_NETWORK: &str = r#"tor_network={authorities={v3idents=["0123456789ABCDEF0123456789ABCDEF01234567"]},
fallback_caches=[{rsa_identity="89ABCDEF0123456789ABCDEF0123456789ABCDEF",
ed_identity="qpL/LxLYVEXghU76iG3LsSI/UW7MBpIROZK0AB18560",orports=["127.0.0.1:1"]}]}"#;

#[test]
fn a_user_without_home_and_name_is_served_with_the_two_folders() {
    let folder = private_folder();
    let option = |key: &str| {
        let path = folder.path().join(key);
        format!("storage.{key}={}", path.display())
    };
    let network = NO_NETWORK.replace('\n', " ");
    let arguments = [
        "--socks-port",
        "auto",
        "-o",
        &option("state_dir"),
        "-o",
        &option("cache_dir"),
        "-o",
        &network,
    ];
    let process = launch_under(&NOBODY, &arguments);
    process.wait_out("port", |lines| {
        lines
            .iter()
            .find(|l| l.starts_with("listening socks "))
            .cloned()
    });
    process.signal("TERM");
    assert_eq!(process.wait().status.code(), Some(0));
}

#[test]
fn a_user_without_home_and_name_is_told_of_both_folders_at_once() {
    let folder = private_folder();
    let cache = format!("storage.cache_dir={}", folder.path().display());
    let state = format!("storage.state_dir={}", folder.path().display());
    for given in [None, Some(&cache), Some(&state)] {
        let mut arguments = vec!["--socks-port", "auto"];
        arguments.extend(given.iter().flat_map(|option| ["-o", option.as_str()]));
        let ended = launch_under(&NOBODY, &arguments).wait();
        assert_eq!(ended.status.code(), Some(1), "{given:?}: {:?}", ended.err);
        let [line] = &ended.err[..] else {
            panic!("{given:?}: {:?}", ended.err);
        };
        for word in [
            "no home",
            "storage.state_dir",
            "storage.cache_dir",
            "DataDirectory",
        ] {
            assert!(line.contains(word), "{given:?}: {line}");
        }
    }
}

/// A program that has no privileges, like the one in [`may_look_into`].
fn observed(application: &str) -> Program {
    let program = Program::offline()
        .port("auto")
        .proxy(format!("[application]\n{application}"));
    match geteuid().is_root() {
        true => program.run_under(&["setpriv", WITHOUT_PRIVILEGES]),
        false => program,
    }
}

/// Takes away root's rights, such as that to look into every process.
const WITHOUT_PRIVILEGES: &str = "--bounding-set=-all";

/// Whether another process of the same user may look into the memory of a process.
fn may_look_into(process: &Process) -> bool {
    let secret = format!("/proc/{}/environ", process.id());
    let mut command = Command::new("setpriv");
    if geteuid().is_root() {
        command.arg(WITHOUT_PRIVILEGES);
    }
    let status = command
        .args(["cat", &secret])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("setpriv");
    status.success()
}

/// The line for the longest core dump in the limits of a process.
fn core_limit(process: &Process) -> String {
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.id())).expect("limits");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let line = line.expect("a limit").split_whitespace();
    line.collect::<Vec<_>>().join(" ")
}

#[test]
fn nobody_looks_into_the_memory_unless_that_is_permitted() {
    let kept_out = observed("permit_debugging = false").start();
    assert!(!may_look_into(&kept_out.process));
    assert_eq!(
        core_limit(&kept_out.process),
        "Max core file size 0 0 bytes"
    );
    let log = kept_out.process.err.all().join("\n");
    assert!(!log.contains("WARN") && !log.contains("debug"), "{log}");

    let permitted = observed("permit_debugging = true").start();
    assert!(may_look_into(&permitted.process));
    let file = permitted.folder.path().join("onionport.toml");
    let text = fs::read_to_string(&file).expect("there");
    fs::write(&file, text.replace("permit_debugging = true", "")).expect("written");
    permitted.process.signal("HUP");
    permitted
        .process
        .wait_err("application.permit_debugging changed");
    assert!(may_look_into(&permitted.process));
}

/// What stands in the memory of a process that it can write to.
fn memory(process: &Process) -> Vec<u8> {
    let folder = format!("/proc/{}", process.id());
    let maps = fs::read_to_string(format!("{folder}/maps")).expect("its maps");
    let memory = fs::File::open(format!("{folder}/mem")).expect("its memory");
    let mut all = Vec::new();
    for line in maps.lines() {
        let mut words = line.split(' ');
        let (Some(range), Some(rights)) = (words.next(), words.next()) else {
            panic!("{line}");
        };
        let (start, end) = range.split_once('-').expect("two addresses");
        let address = |hex| u64::from_str_radix(hex, 16).expect("an address");
        let (start, end) = (address(start), address(end));
        let mut bytes = vec![0; usize::try_from(end - start).expect("no larger than memory")];
        // Some of what is there cannot be read, such as what the kernel shows of itself.
        if rights.starts_with("rw") && memory.read_exact_at(&mut bytes, start).is_ok() {
            all.extend(bytes);
        }
    }
    all
}

/// Onion addresses without `.onion`: every multiple of the base point is a key.
fn labels() -> impl Iterator<Item = String> {
    let base = curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
    std::iter::successors(Some(base), move |point| Some(point + base)).map(|point| {
        let key = point.compress().to_bytes();
        let sum = Sha3_256::digest([b".onion checksum", key.as_slice(), &[3]].concat());
        let bytes = [key.as_slice(), &sum[..2], &[3]].concat();
        data_encoding::BASE32_NOPAD.encode(&bytes).to_lowercase()
    })
}

#[test]
fn keys_that_were_read_are_wiped_from_memory() {
    /// So many that what is freed is not all used for something else at once.
    const FILES: usize = 300;
    let program = Program::offline().port("auto");
    let keys = program.folder().join("keys-that-are-read");
    fs::create_dir(&keys).expect("made");
    set_mode(&keys, 0o700);
    let mut secrets: Vec<Vec<u8>> = Vec::new();
    for (number, label) in labels().take(FILES).enumerate() {
        let key = Sha3_256::digest(number.to_le_bytes());
        let text = data_encoding::BASE32_NOPAD.encode(&key);
        let line = format!("{label}:descriptor:x25519:{text}\n");
        fs::write(keys.join(format!("{number}.auth_private")), line).expect("written");
        // Whoever takes over what was freed begins with the first bytes of it.
        secrets.extend([key[16..].to_vec(), text.as_bytes()[16..].to_vec()]);
    }
    let daemon = program
        .proxy(format!(
            "client_onion_auth_dir = {keys:?}\n[application]\npermit_debugging = true"
        ))
        .start();
    daemon
        .process
        .wait_err(&format!("{FILES} client authorization keys"));
    let memory = memory(&daemon.process);
    let found = |wanted: &[Vec<u8>]| {
        let finder = AhoCorasick::new(wanted).expect("texts");
        finder.find_iter(&memory).count()
    };
    assert!(
        found(&[b"keys-that-are-read".to_vec()]) > 0,
        "nothing is found"
    );
    assert_eq!(found(&secrets), 0);
}

#[test]
fn root_is_refused_only_if_so_asked() {
    for (application, refused) in [
        ("", false),
        ("allow_running_as_root = true", false),
        ("allow_running_as_root = false", geteuid().is_root()),
    ] {
        let program = Program::offline()
            .port("auto")
            .proxy(format!("[application]\n{application}"));
        if refused {
            for more in [&[][..], &["--check-config"]] {
                let program = Program::offline()
                    .proxy(format!("[application]\n{application}"))
                    .arguments(more);
                let ended = program.run();
                assert_eq!(ended.status.code(), Some(1), "{more:?}");
                let line = ended.err.last().expect("a line");
                assert!(line.contains("application.allow_running_as_root"), "{line}");
                let listening = |line: &String| line.starts_with("listening");
                assert!(!ended.out.iter().any(listening), "{:?}", ended.out);
            }
            continue;
        }
        let daemon = program.start();
        let log = daemon.process.err.all().join("\n");
        assert!(!log.contains("WARN"), "{log}");
    }
}
