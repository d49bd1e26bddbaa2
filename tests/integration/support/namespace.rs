//! Tests in a network namespace of their own, where addresses come and go and packets are lost.

use std::any::type_name_of_val;
use std::io::Write as _;
use std::process::Command;

use super::lacking::not_tested;

/// Set for the part that runs in the namespace.
const INSIDE: &str = "ONIONPORT_TEST_NAMESPACE";

/// Whether this process runs in a namespace of its own.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs `test` again in a new network namespace that `preparation`, commands for a shell, has
/// prepared. There, [`is_inside`].
#[track_caller]
pub fn run_again<F: Fn()>(test: F, preparation: &str) {
    let tried = unshare(&format!("{preparation}\n")).output();
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        not_tested(&format!(
            "no network namespaces, or not what they need: {tried:?}"
        ));
        return;
    }
    // The path of a function is the name of its test, behind that of the crate.
    let path = type_name_of_val(&test);
    let (_, name) = path.split_once("::").expect("a path");
    let myself = std::env::current_exe().expect("a file");
    let output = unshare(&format!("{preparation}\nexec \"$0\" \"$@\""))
        .arg(myself)
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("started");
    let _ = std::io::stderr().write_all(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    assert!(output.status.success(), "failed in the namespace");
    // A name that fits no test is no failure to the harness.
    assert!(said.contains("1 passed"), "{name} is no test");
}

/// A shell in a new namespace, which ends with us.
fn unshare(script: &str) -> Command {
    let mut command = Command::new("unshare");
    // Within: a new user namespace takes the signal away.
    command.args(["-rn", "setpriv", "--pdeathsig", "KILL", "sh", "-ec", script]);
    command
}

/// Runs commands in a shell.
#[track_caller]
pub fn shell(script: &str) {
    let done = Command::new("sh").args(["-ec", script]).output();
    let done = done.expect("a shell");
    assert!(done.status.success(), "{script}: {done:?}");
}
