//! Keeping others out of the memory of the process, which holds keys: what C tor does for
//! `DisableDebuggerAttachment 1` and arti unless `permit_debugging` is set.

use rlimit::Resource;

/// Lets no debugger of this user attach, and no crash write a core dump. Programs that this one
/// starts can be debugged again; they write no core dump either.
///
/// # Errors
/// What could not be done, in a sentence for the log.
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
