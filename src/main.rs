//! The `onionport` program: arguments, logging, runtime, exit status. All else is in the library.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use onionport::cli::{self, Invocation};
use onionport::daemon::hardening::keep_debuggers_out;
use onionport::daemon::logging::{self, ALWAYS, Log};
use onionport::inbound::listener::InheritedSockets;
use onionport::tor::client_auth;
use onionport::{config, daemon};

/// Gives memory that is free back to the system within seconds. glibc's allocator keeps it: after
/// 10,000 clients had come and gone, their 94 MB stayed resident for good.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How many threads carry bytes. A cell goes through four tasks; where they run side by side, waking the
/// other thread costs more than it brings (docs/performance.md). As in C tor, streams wait for the
/// moment that a new directory is read; key files are read, and puzzles solved, elsewhere.
const WORKERS: usize = 1;
/// tokio's own setting for the same.
const WORKERS_VARIABLE: &str = "TOKIO_WORKER_THREADS";

/// How long tasks may take to end when the program stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments = match cli::parse(std::env::args_os()) {
        Ok(Invocation::Proxy(arguments)) => arguments,
        Ok(Invocation::Print(text)) => {
            return match print(&text) {
                Ok(()) => ExitCode::SUCCESS,
                Err(problem) => {
                    complain(&format!("onionport: {problem}"));
                    ExitCode::from(cli::EXIT_FAILURE)
                }
            };
        }
        Err(error) => {
            complain(&format!("onionport: {error}"));
            return ExitCode::from(cli::EXIT_USAGE);
        }
    };
    let mut log = None;
    match run(&arguments, &mut log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            match &log {
                Some(log) => log.say(&format!("onionport: {problem}")),
                None => complain(&format!("onionport: {problem}")),
            }
            ExitCode::from(cli::EXIT_FAILURE)
        }
    }
}

/// Writes to standard output; the macros of the standard library panic where that fails.
fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| format!("cannot write to standard output: {error}"))
}

/// Writes a line to standard error, if somebody reads it.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Runs the program to its end. `log` is there once the log was started.
fn run(arguments: &config::ProxyArgs, log: &mut Option<Log>) -> Result<(), String> {
    let config = config::load(arguments).map_err(|error| error.message())?;
    if arguments.check_config {
        match &config.torrc {
            Some(toml) => {
                print(toml)?;
                // The output is a file to keep; those of the torrc itself stand in it.
                for warning in config
                    .warnings
                    .iter()
                    .filter(|w| !toml.contains(w.as_str()))
                {
                    complain(&format!("warning: {warning}"));
                }
                let beside = arguments.beside_torrc();
                if !beside.is_empty() {
                    complain(&format!(
                        "warning: the output is --torrc alone, without {}: give these options beside \
                         the file that you make of it, or write what they say into it",
                        beside.join(", ")
                    ));
                }
            }
            None => print(&config::describe(&config))?,
        }
        // The start would refuse these; looking changes nothing.
        if let Some(problem) = config.root_problem.or(config.folder_problem) {
            return Err(problem);
        }
        if let Some(folder) = &config.client_onion_auth_dir {
            client_auth::check_folder(folder, config.tor.fs_mistrust(), |file| {
                complain(&format!("warning: {file}"));
            })?;
        }
        return Ok(());
    }
    if let Some(problem) = config.root_problem {
        return Err(problem);
    }
    let hardened = match config.permit_debugging {
        true => Ok(()),
        false => keep_debuggers_out(),
    };
    logging::hide(&config.secrets);
    *log = Some(logging::start(&config.log_filter, config.log_granularity)?);
    if let Err(problem) = hardened {
        tracing::warn!(target: ALWAYS, "{problem}");
    }
    let handed = InheritedSockets::from_environment()?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os(WORKERS_VARIABLE).is_none() {
        builder.worker_threads(WORKERS);
    }
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    let ended = runtime.block_on(daemon::run(config, arguments, handed));
    // Tasks of the Tor client never end by themselves. With the last of them arti writes down its guards.
    runtime.shutdown_timeout(STOP_LIMIT);
    ended
}
