//! Tests that run in their own network namespace, where they may change addresses and drop packets.

use std::any::type_name_of_val;
use std::io::Write as _;
use std::process::Command;

use super::skipped::report_skipped;

/// The environment variable that marks the process in the namespace.
const INSIDE: &str = "ONIONPORT_TEST_NAMESPACE";

/// Returns whether this process runs in its own namespace.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs `test` again, in a new network namespace after the shell commands `preparation`. There,
/// [`is_inside`] returns true.
#[track_caller]
pub fn run_inside<F: Fn()>(test: F, preparation: &str) {
    let tried = unshare(&format!("{preparation}\n")).output();
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        report_skipped(&format!("cannot prepare a network namespace: {tried:?}"));
        return;
    }
    // The path of a function without its crate is the name of its test.
    let path = type_name_of_val(&test);
    let (_, name) = path.split_once("::").expect("a path with a crate");
    let executable = std::env::current_exe().expect("the path of this executable");
    let output = unshare(&format!("{preparation}\nexec \"$0\" \"$@\""))
        .arg(executable)
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("start unshare");
    let _ = std::io::stderr().write_all(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    print!("{stdout}");
    assert!(output.status.success(), "failed in the namespace");
    // The harness also succeeds if no test has this name.
    assert!(stdout.contains("1 passed"), "{name} is not a test");
}

/// Returns a command for a shell in a new namespace, killed when this process ends.
fn unshare(script: &str) -> Command {
    let mut command = Command::new("unshare");
    // After `unshare`: entering a new user namespace clears the parent death signal.
    command.args(["-rn", "setpriv", "--pdeathsig", "KILL", "sh", "-ec", script]);
    command
}

/// Runs commands in a shell and asserts that they succeed.
#[track_caller]
pub fn run_shell(script: &str) {
    let done = Command::new("sh").args(["-ec", script]).output();
    let done = done.expect("start a shell");
    assert!(done.status.success(), "{script}: {done:?}");
}
