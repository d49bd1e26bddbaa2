//! Which folders a unix socket may be in: the same folders and flags for the program and for C tor.

use std::fs;
use std::os::unix::fs::chown;

use nix::unistd::Uid;
use tokio::task::JoinSet;

use crate::support::c_tor::{self, CTor};
use crate::support::program::{Program, set_mode};
use crate::support::skipped::report_skipped;

/// The user that both run as, and another one.
const ME: u32 = 54_321;
const OTHER: u32 = 54_322;

const PLAIN: &str = "";
const GROUP: &str = "GroupWritable";
const RELAXED: &str = "RelaxDirModeCheck";
const WORLD: &str = "WorldWritable";
const GROUP_RELAXED: &str = "GroupWritable RelaxDirModeCheck";

/// A folder's owner, group and mode; the flags of the port; whether the socket may be there.
const CASES: [(u32, u32, u32, &str, bool); 29] = [
    (ME, ME, 0o700, PLAIN, true),
    (ME, ME, 0o2700, PLAIN, true),
    (ME, ME, 0o710, PLAIN, false),
    (ME, ME, 0o755, PLAIN, false),
    (ME, ME, 0o300, PLAIN, false),
    (ME, OTHER, 0o700, PLAIN, true),
    (OTHER, ME, 0o770, PLAIN, false),
    (0, 0, 0o777, PLAIN, false),
    (ME, ME, 0o700, GROUP, true),
    (ME, ME, 0o750, GROUP, true),
    (ME, 0, 0o750, GROUP, true),
    (ME, OTHER, 0o750, GROUP, false),
    (ME, OTHER, 0o700, GROUP, false),
    (ME, ME, 0o770, GROUP, false),
    (ME, ME, 0o755, GROUP, false),
    (0, ME, 0o770, GROUP, false),
    (ME, ME, 0o755, RELAXED, true),
    (ME, OTHER, 0o755, RELAXED, true),
    (ME, ME, 0o775, RELAXED, false),
    (ME, ME, 0o777, RELAXED, false),
    (0, 0, 0o777, RELAXED, false),
    (OTHER, ME, 0o777, RELAXED, false),
    (0, ME, 0o775, RELAXED, false),
    (ME, ME, 0o755, GROUP_RELAXED, true),
    (ME, OTHER, 0o755, GROUP_RELAXED, false),
    (ME, ME, 0o770, GROUP_RELAXED, false),
    (ME, ME, 0o777, WORLD, true),
    (0, 0, 0o777, WORLD, true),
    (OTHER, OTHER, 0o1777, WORLD, true),
];

/// How many programs of each kind run at once.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_is_opened_in_the_folders_in_which_c_tor_opens_one() {
    if !Uid::effective().is_root() {
        return report_skipped("folders of other users: needs root");
    }
    let tor = c_tor::find();
    let mut judging = JoinSet::new();
    let mut wrong = Vec::new();
    for case in CASES {
        if judging.len() >= AT_ONCE {
            wrong.extend(judging.join_next().await.expect("some").expect("no panic"));
        }
        let tor = tor.clone();
        judging.spawn_blocking(move || judge(case, tor.as_ref()));
    }
    while let Some(judged) = judging.join_next().await {
        wrong.extend(judged.expect("no panic"));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What is not as the case says.
fn judge(case: (u32, u32, u32, &str, bool), tor: Option<&std::path::PathBuf>) -> Vec<String> {
    let (uid, gid, mode, flags, fits) = case;
    let folder = tempfile::tempdir().expect("a folder");
    set_mode(folder.path(), 0o755);
    let place = |name: &str| {
        let place = folder.path().join(name);
        fs::create_dir(&place).expect("made");
        chown(&place, Some(uid), Some(gid)).expect("root");
        set_mode(&place, mode);
        format!("unix:{}/socket {flags}", place.display())
    };
    let mut wrong = Vec::new();
    let program = Program::offline().user(ME).port(place("ours"));
    let daemon = program.launch();
    let opened = daemon.process.try_wait_out(|lines| {
        let listens = |line: &String| line.starts_with("listening socks unix:");
        lines.iter().any(listens).then_some(())
    });
    if opened.is_some() != fits {
        wrong.push(format!("{uid}:{gid} {mode:o} {flags}: ours {opened:?}"));
    }
    if let Some(tor) = tor {
        let line = format!("SocksPort {}", place("theirs"));
        let opened = CTor::start_as(Some(ME), tor, &[line]).opens_ports();
        if opened != fits {
            wrong.push(format!("{uid}:{gid} {mode:o} {flags}: C tor {opened}"));
        }
    }
    wrong
}
