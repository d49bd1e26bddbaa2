//! Reports about parts of tests that this system cannot run.

use std::io::Write as _;

/// Reports that part of a test is skipped, and why. If `CI` is set, as in `scripts/test`, this fails the
/// test, so that CI never skips a comparison silently.
#[track_caller]
pub fn report_skipped(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    // Written directly: the harness hides what `eprintln!` prints in tests that pass.
    let _ = writeln!(std::io::stderr(), "NOT TESTED: {reason}");
}
