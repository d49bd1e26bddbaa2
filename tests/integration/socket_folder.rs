//! The folders in which a Unix socket may be: the real program and C tor get the same folders and
//! flags.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use nix::unistd::Uid;
use tokio::task::JoinSet;

use crate::support::c_tor::{self, CTor};
use crate::support::offline::unix_port;
use crate::support::program::{Program, set_mode};
use crate::support::skipped::report_skipped;

/// The user who runs both programs, and another user.
const USER: u32 = 54_321;
const OTHER: u32 = 54_322;

const PLAIN: &str = "";
const GROUP: &str = "GroupWritable";
const RELAXED: &str = "RelaxDirModeCheck";
const WORLD: &str = "WorldWritable";
const GROUP_RELAXED: &str = "GroupWritable RelaxDirModeCheck";

/// A folder's owner, group and mode; the flags of the port; whether the socket may be in the folder.
type Case = (u32, u32, u32, &'static str, bool);

const CASES: [Case; 29] = [
    (USER, USER, 0o700, PLAIN, true),
    (USER, USER, 0o2700, PLAIN, true),
    (USER, USER, 0o710, PLAIN, false),
    (USER, USER, 0o755, PLAIN, false),
    (USER, USER, 0o300, PLAIN, false),
    (USER, OTHER, 0o700, PLAIN, true),
    (OTHER, USER, 0o770, PLAIN, false),
    (0, 0, 0o777, PLAIN, false),
    (USER, USER, 0o700, GROUP, true),
    (USER, USER, 0o750, GROUP, true),
    (USER, 0, 0o750, GROUP, true),
    (USER, OTHER, 0o750, GROUP, false),
    (USER, OTHER, 0o700, GROUP, false),
    (USER, USER, 0o770, GROUP, false),
    (USER, USER, 0o755, GROUP, false),
    (0, USER, 0o770, GROUP, false),
    (USER, USER, 0o755, RELAXED, true),
    (USER, OTHER, 0o755, RELAXED, true),
    (USER, USER, 0o775, RELAXED, false),
    (USER, USER, 0o777, RELAXED, false),
    (0, 0, 0o777, RELAXED, false),
    (OTHER, USER, 0o777, RELAXED, false),
    (0, USER, 0o775, RELAXED, false),
    (USER, USER, 0o755, GROUP_RELAXED, true),
    (USER, OTHER, 0o755, GROUP_RELAXED, false),
    (USER, USER, 0o770, GROUP_RELAXED, false),
    (USER, USER, 0o777, WORLD, true),
    (0, 0, 0o777, WORLD, true),
    (OTHER, OTHER, 0o1777, WORLD, true),
];

/// How many cases run at once.
const PARALLEL_CASES: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_opens_in_the_same_folders_as_with_c_tor() {
    if !Uid::effective().is_root() {
        return report_skipped("folders of other users: needs root");
    }
    let tor = c_tor::find();
    let mut cases = JoinSet::new();
    let mut mistakes = Vec::new();
    for case in CASES {
        if cases.len() >= PARALLEL_CASES {
            mistakes.extend(cases.join_next().await.expect("a case").expect("no panic"));
        }
        let tor = tor.clone();
        cases.spawn_blocking(move || check(case, tor.as_ref()));
    }
    while let Some(found) = cases.join_next().await {
        mistakes.extend(found.expect("no panic"));
    }
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

/// Runs both programs and returns one line for each that differs from the case.
fn check(case: Case, tor: Option<&PathBuf>) -> Vec<String> {
    let (uid, gid, mode, flags, allowed) = case;
    let folder = tempfile::tempdir().expect("a folder");
    set_mode(folder.path(), 0o755);
    let create_port = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir(&path).expect("folder created");
        chown(&path, Some(uid), Some(gid)).expect("root may change owners");
        set_mode(&path, mode);
        format!("{} {flags}", unix_port(&path.join("socket")))
    };
    let mut mistakes = Vec::new();
    let program = Program::offline().user(USER).port(create_port("ours"));
    let daemon = program.launch();
    let opened = daemon.process.try_wait_out(|lines| {
        let is_listening = |line: &String| line.starts_with("listening socks unix:");
        lines.iter().any(is_listening).then_some(())
    });
    if opened.is_some() != allowed {
        mistakes.push(format!(
            "{uid}:{gid} {mode:o} {flags}: onionport opened it: {}",
            opened.is_some()
        ));
    }
    if let Some(tor) = tor {
        let line = format!("SocksPort {}", create_port("c-tor"));
        let opened = CTor::start_as(Some(USER), tor, &[line]).opens_ports();
        if opened != allowed {
            mistakes.push(format!(
                "{uid}:{gid} {mode:o} {flags}: C tor opened it: {opened}"
            ));
        }
    }
    mistakes
}
