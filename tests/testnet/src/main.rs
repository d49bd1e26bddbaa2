//! `testnet run`: runs a private Tor network for experiments, until Ctrl-C.

use std::fs;
use std::io::{IsTerminal, Read};
use std::os::unix::fs::FileTypeExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use testnet::{ClientOptions, HttpServer, Network, NetworkBuilder, ServiceOptions};

/// A private Tor network on loopback.
#[derive(Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a network, an onion service and a C tor client, and print their addresses. Ends on Ctrl-C, SIGTERM or the end
    /// of standard input.
    Run {
        /// Number of relays besides the three authorities.
        #[arg(long, value_name = "N", default_value_t = 8)]
        relays: usize,
        /// Number of further relays that clients do not use, for introduction points that can be stopped.
        #[arg(long, value_name = "N", default_value_t = 0)]
        spare_relays: usize,
        /// Initial circuit time-out in milliseconds [default: tor's, one minute].
        #[arg(long, value_name = "MS")]
        circuit_timeout: Option<u32>,
        /// Make relays and services send each cell at once, instead of in batches as tor's default scheduler (KIST) does.
        #[arg(long)]
        at_once: bool,
        /// Delay of every connection to a relay in each direction, in milliseconds.
        #[arg(long, value_name = "MS")]
        distance: Option<u64>,
        /// Virtual port of the onion service, whose target is an HTTP server.
        #[arg(long, value_name = "PORT", default_value_t = 80)]
        service: u16,
    },
}

/// The exit status after a signal during the start, as shells report it for SIGINT.
const INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let Command::Run {
        relays,
        spare_relays,
        circuit_timeout,
        at_once,
        distance,
        service,
    } = Options::parse().command;
    let builder = Network::builder()
        .relays(relays)
        .spare_relays(spare_relays)
        .circuit_timeout_ms(circuit_timeout)
        .kist(!at_once)
        .distance(distance.map(Duration::from_millis));
    match run(builder, service) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testnet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the network, the service and the client, prints their addresses line by line, and waits for the end.
fn run(builder: NetworkBuilder, virtual_port: u16) -> Result<()> {
    let ready = Arc::new(AtomicBool::new(false));
    let (end, ended) = channel();
    end_on_signal(end.clone(), Arc::clone(&ready))?;

    let network = builder.start()?;
    println!("folder {}", network.dir().display());
    let arti = network.dir().join("arti");
    let config = network.dir().join("arti.toml");
    fs::write(&config, network.arti_config(&arti))
        .context("cannot write the configuration for arti")?;
    println!("arti-config {}", config.display());

    let server = HttpServer::start("It works.\n")?;
    let service = network.service(ServiceOptions::with_port(virtual_port, server.address()))?;
    println!("service {}:{virtual_port}", service.address());

    let client = network.c_tor_client(ClientOptions::default())?;
    println!("c-tor-extended {}", client.extended_port());
    println!("c-tor-plain {}", client.plain_port());

    ready.store(true, Ordering::SeqCst);
    println!("ready");
    end_on_closed_input(end);
    ended
        .recv()
        .context("the threads that wait for a signal have ended")?;
    network.mark_done();
    Ok(())
}

/// Notifies `end` of a signal. Before everything is `ready`, a signal ends the process at once: the kernel kills its children,
/// and the watcher removes the folder.
fn end_on_signal(end: Sender<()>, ready: Arc<AtomicBool>) -> Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if !ready.load(Ordering::SeqCst) || end.send(()).is_err() {
                std::process::exit(INTERRUPTED);
            }
        }
    });
    Ok(())
}

/// Notifies `end` when standard input ends, if that is a terminal, a pipe or a socket. Shells give /dev/null to programs in the
/// background, and its end means nothing.
fn end_on_closed_input(end: Sender<()>) {
    let stdin = std::io::stdin();
    let piped = fs::metadata("/proc/self/fd/0")
        .is_ok_and(|m| m.file_type().is_fifo() || m.file_type().is_socket());
    if !piped && !stdin.is_terminal() {
        return;
    }
    thread::spawn(move || {
        // An error counts as the end.
        let _ = std::io::copy(&mut stdin.lock().take(u64::MAX), &mut std::io::sink());
        let _ = end.send(());
    });
}
