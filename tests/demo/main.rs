//! Shows what onionport replies to its clients: starts a private Tor network on this computer, breaks onion services in
//! each way, and requests each through onionport and through C tor. Run it with `scripts/demo`.

#[path = "../network/broken_services.rs"]
mod broken_services;
#[allow(dead_code, reason = "only the network tests use all of it")]
#[path = "../network/daemon.rs"]
mod daemon;
#[allow(dead_code, reason = "only the network tests use all of it")]
#[path = "../network/setup.rs"]
mod setup;

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use onionport::failure::Failure;
use testnet::{CTor, socks5_connect};

use broken_services::{BrokenServices, Case};
use daemon::Onionport;
use setup::{DEFAULT_LIMIT, client_timeout, network_builder};

/// The deadline of both programs with `--quick`. Otherwise both have their default, which is the same.
const QUICK_LIMIT: Duration = Duration::from_secs(30);

/// A reply code and after how many seconds it came; `None` if there was no reply.
type Reply = Option<(u8, f32)>;

/// Escape sequences for colours of a terminal.
const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;
const CYAN: u8 = 36;
const NO_COLOUR: u8 = 0;

fn main() -> Result<()> {
    let limit = match std::env::args().nth(1).as_deref() {
        None => DEFAULT_LIMIT,
        Some("--quick") => QUICK_LIMIT,
        Some(other) => bail!("unknown argument {other}: the only argument is --quick"),
    };
    let colours = std::io::stdout().is_terminal();
    let started = Instant::now();
    let print_step = |step: &str| {
        println!("{:5.1} s  {step}", started.elapsed().as_secs_f32());
        let _ = std::io::stdout().flush();
    };
    print_step("starting a private Tor network: 3 authorities, 8 relays, all on this computer ...");
    let network = network_builder().start()?;
    print_step("publishing onion services, and breaking each in another way ...");
    let folder = tempfile::tempdir_in(network.dir())?;
    let services = BrokenServices::set_up(&network, &folder.path().join("keys"))?;
    print_step("starting C tor, to compare with ...");
    let c_tor = services.start_c_tor(&network, limit, &[])?;
    print_step("starting onionport ...");
    let onionport = services.start_proxy(&network, limit, "")?;
    print_step("connecting to each destination through both, as a SOCKS5 client");
    println!();
    println!(
        "code, C tor: the reply codes on a port with ExtendedErrors; plain: onionport's code on a port without"
    );
    println!();
    println!(
        "{:35} {:14} {:>4} {:>7}  {:30} {:>5}  {:>5} {:>7}",
        "what is wrong", "address", "code", "seconds", "meaning", "plain", "C tor", "seconds"
    );

    let wrong = std::thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for case in &services.cases {
            let sender = sender.clone();
            let (onionport, c_tor) = (&onionport, &c_tor);
            scope.spawn(move || {
                let _alone = case.lock_exits();
                let _ = sender.send((case, Replies::request(case, onionport, c_tor, limit)));
            });
        }
        drop(sender);
        let mut waiting = services.cases.len();
        let mut wrong = Vec::new();
        for (case, replies) in results {
            waiting -= 1;
            if !replies.are_right(case) {
                wrong.push(case.name);
            }
            println!("{}", replies.to_row(case, colours));
            if waiting == 2 {
                print_step("waiting for the last two, which do not answer ...");
            }
        }
        wrong
    });
    println!();
    ensure!(
        wrong.is_empty(),
        "onionport's code is wrong for: {}",
        wrong.join(", ")
    );
    print_step("done; stopping all programs");
    network.mark_done();
    Ok(())
}

/// Returns the path of the program, which is in the folder above that of the examples.
fn program() -> Result<PathBuf> {
    let demo = std::env::current_exe()?;
    let folder = demo
        .parent()
        .and_then(|p| p.parent())
        .context("the demo is not in a folder of examples")?;
    let program = folder.join("onionport");
    ensure!(
        program.exists(),
        "{} is missing: run scripts/demo",
        program.display()
    );
    Ok(program)
}

fn request(proxy: SocketAddr, case: &Case, limit: Duration) -> Reply {
    let reply = socks5_connect(proxy, &case.host, case.port, client_timeout(limit)).ok()?;
    Some((reply.code, reply.elapsed.as_secs_f32()))
}

/// The replies for one case.
struct Replies {
    extended: Reply,
    plain: Reply,
    c_tor: Reply,
}

impl Replies {
    /// Sends all three requests at the same time.
    fn request(case: &Case, onionport: &Onionport, c_tor: &CTor, limit: Duration) -> Replies {
        std::thread::scope(|scope| {
            let plain = scope.spawn(|| request(onionport.plain_port(), case, limit));
            let c_tor = scope.spawn(|| request(c_tor.extended_port(), case, limit));
            Replies {
                extended: request(onionport.extended_port(), case, limit),
                plain: plain.join().unwrap_or(None),
                c_tor: c_tor.join().unwrap_or(None),
            }
        })
    }

    /// Whether onionport's codes are those of the case.
    fn are_right(&self, case: &Case) -> bool {
        self.extended.is_some_and(|(code, _)| code == case.extended)
            && self.plain.is_some_and(|(code, _)| code == case.plain)
    }

    /// Formats the row of the table.
    fn to_row(&self, case: &Case, colours: bool) -> String {
        let paint = |text: String, colour: u8| {
            if colours {
                format!("\x1b[{colour}m{text}\x1b[0m")
            } else {
                text
            }
        };
        let code = |reply: Reply| reply.map_or("--".to_owned(), |(code, _)| format!("{code:02X}"));
        let seconds = |reply: Reply| reply.map_or(String::new(), |(_, s)| format!("{s:.1}"));
        let colour = match self.extended {
            Some((0, _)) => GREEN,
            Some((code, _)) if code == case.extended => CYAN,
            _ => RED,
        };
        let plain_colour = match self.plain {
            Some((code, _)) if code == case.plain => NO_COLOUR,
            _ => RED,
        };
        let is_same = self.extended.map(|s| s.0) == self.c_tor.map(|s| s.0);
        let c_tor_colour = if is_same { NO_COLOUR } else { YELLOW };
        let address = match case.host.len() {
            0..=14 => case.host.clone(),
            length => format!("{}...{}", &case.host[..5], &case.host[length - 6..]),
        };
        format!(
            "{:35} {address:14} {} {:>7}  {:30} {}  {} {:>7}",
            case.name,
            paint(format!("{:>4}", code(self.extended)), colour),
            seconds(self.extended),
            self.extended
                .map_or("no reply", |(code, _)| meaning(code, case)),
            paint(format!("{:>5}", code(self.plain)), plain_colour),
            paint(format!("{:>5}", code(self.c_tor)), c_tor_colour),
            seconds(self.c_tor),
        )
    }
}

/// Returns the program's name for a reply code.
fn meaning(code: u8, case: &Case) -> &'static str {
    if code == 0 {
        return "connected";
    }
    // Several failures share each code below F0.
    let mut failures = Failure::ALL.iter().filter(|f| f.row().extended == code);
    match (code, case.name) {
        (0x01, "exit: connection refused") => Failure::StreamFailed.name(),
        (0x05, _) => Failure::StreamClosed.name(),
        (0x04, "exit: no route") => Failure::NoRoute.name(),
        (0x04, name) if name.starts_with("exit") => Failure::NameNotResolved.name(),
        (0x06, name) if name.starts_with("exit") => Failure::ConnectionTimedOut.name(),
        _ => failures.next().map_or("unknown", |f| f.name()),
    }
}
