//! Keeps other processes out of this one's memory, which holds keys: C tor's
//! `DisableDebuggerAttachment 1`, and arti's default unless `permit_debugging` is set.

use rlimit::Resource;

/// Prevents debuggers of the same user from attaching, and core dumps. Processes started by this one
/// can be debugged; they write no core dumps either.
///
/// # Errors
/// One line for the log, if the system refuses either or cannot forbid debuggers.
pub fn keep_debuggers_out() -> Result<(), String> {
    Resource::CORE
        .set(0, 0)
        .map_err(|error| format!("cannot forbid core dumps: {error}"))?;
    set_undumpable().map_err(|error| format!("cannot block debuggers: {error}"))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn set_undumpable() -> nix::Result<()> {
    nix::sys::prctl::set_dumpable(false)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn set_undumpable() -> Result<(), &'static str> {
    Err("not supported on this system")
}
