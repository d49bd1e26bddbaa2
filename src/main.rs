//! The `onionport` program: command line, log, runtime and exit status. The rest is in the library.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use onionport::cli::{self, Invocation};
use onionport::daemon::hardening::keep_debuggers_out;
use onionport::daemon::logging::{self, ALWAYS, LogGuard};
use onionport::inbound::listener::InheritedSockets;
use onionport::tor::client_auth;
use onionport::{config, daemon};

/// Returns unused memory to the system within seconds. glibc's allocator keeps it: after 10,000 clients
/// had come and gone, their 94 MB stayed resident.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The number of threads that carry bytes. A cell goes through four tasks; if they run on several
/// threads, waking those costs more than it gains (docs/performance.md). As in C tor, streams wait
/// while a new directory is parsed; key files are read, and puzzles solved, on other threads.
const WORKERS: usize = 1;
/// tokio's own variable for that number, which overrides [`WORKERS`].
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
                    print_error(&format!("onionport: {problem}"));
                    ExitCode::from(cli::EXIT_FAILURE)
                }
            };
        }
        Err(error) => {
            print_error(&format!("onionport: {error}"));
            return ExitCode::from(cli::EXIT_USAGE);
        }
    };
    let mut log = None;
    match run(&arguments, &mut log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            match &log {
                Some(log) => log.write_line(&format!("onionport: {problem}")),
                None => print_error(&format!("onionport: {problem}")),
            }
            ExitCode::from(cli::EXIT_FAILURE)
        }
    }
}

/// Runs the program until it ends. Sets `log` once the log is started.
fn run(arguments: &config::ProxyArgs, log: &mut Option<LogGuard>) -> Result<(), String> {
    let config = config::load(arguments).map_err(|error| error.message())?;
    if arguments.check_config {
        return print_config(config, arguments);
    }
    if let Some(problem) = config.root_problem {
        return Err(problem);
    }
    let hardened = match config.permit_debugging {
        true => Ok(()),
        false => keep_debuggers_out(),
    };
    logging::hide_secrets(&config.secrets);
    *log = Some(logging::start(&config.log_filter, config.log_granularity)?);
    if let Err(problem) = hardened {
        tracing::warn!(target: ALWAYS, "{problem}");
    }
    let inherited = InheritedSockets::from_environment()?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os(WORKERS_VARIABLE).is_none() {
        builder.worker_threads(WORKERS);
    }
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    let ended = runtime.block_on(daemon::run(config, arguments, inherited));
    // Tasks of the Tor client do not end by themselves. arti saves its guards when the last one is
    // dropped.
    runtime.shutdown_timeout(STOP_LIMIT);
    ended
}

/// Prints what the configuration does (`--check-config`); for `--torrc`, prints it as TOML.
///
/// # Errors
/// A problem that would make the start fail, or a failed write to standard output.
fn print_config(config: config::Config, arguments: &config::ProxyArgs) -> Result<(), String> {
    match &config.torrc {
        Some(toml) => {
            print(toml)?;
            // The TOML file contains the warnings about the torrc itself.
            for warning in config
                .warnings
                .iter()
                .filter(|w| !toml.contains(w.as_str()))
            {
                print_error(&format!("warning: {warning}"));
            }
            let beside = arguments.beside_torrc();
            if !beside.is_empty() {
                print_error(&format!(
                    "warning: the output contains only the torrc's settings, not those of {}: keep \
                     passing these options, or add their settings to the TOML file",
                    beside.join(", ")
                ));
            }
        }
        None => print(&config::describe(&config))?,
    }
    // The start would fail on these problems; the checks change no files.
    if let Some(problem) = config.root_problem.or(config.folder_problem) {
        return Err(problem);
    }
    if let Some(folder) = &config.client_onion_auth_dir {
        client_auth::check_folder(folder, config.tor.fs_mistrust(), |file| {
            print_error(&format!("warning: {file}"));
        })?;
    }
    Ok(())
}

/// Prints to standard output. Unlike the standard library's macros, does not panic on an error.
fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| format!("cannot write to standard output: {error}"))
}

/// Prints a line to standard error; an error has nowhere to go.
fn print_error(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
