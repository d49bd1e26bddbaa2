//! Shows what onionport tells its clients: starts a private Tor network on this computer, breaks
//! onion services in each way, and asks onionport and C tor for each. Run it with `scripts/demo`.

#[path = "../network/daemon.rs"]
mod daemon;
#[path = "../network/stage.rs"]
mod stage;

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use onionport::failure::Failure;
use testnet::{CTor, ClientOptions, Network, socks5_connect};

use daemon::Onionport;
use stage::{Case, SETTINGS, Stage, patience};

/// The deadline of onionport and of C tor, if nothing is configured.
const LIMIT: Duration = Duration::from_secs(120);

/// The deadline with `--quick`.
const QUICK_LIMIT: Duration = Duration::from_secs(30);

/// A code and the seconds it took; nothing if there was no answer.
type Said = Option<(u8, f32)>;

fn main() -> Result<()> {
    let limit = match std::env::args().nth(1).as_deref() {
        None => LIMIT,
        Some("--quick") => QUICK_LIMIT,
        Some(other) => bail!("unknown argument {other}: the only one is --quick"),
    };
    let colours = std::io::stdout().is_terminal();
    let begun = Instant::now();
    let step = |what: &str| {
        println!("{:5.1} s  {what}", begun.elapsed().as_secs_f32());
        let _ = std::io::stdout().flush();
    };
    step("starting a private Tor network: 3 authorities, 8 relays, all on this computer ...");
    let network = Network::builder()
        .relays(8)
        .circuit_timeout_ms(Some(2500))
        .start()?;
    step("publishing onion services, and breaking each in its own way ...");
    let folder = tempfile::tempdir_in(network.dir())?;
    let stage = Stage::set(&network, &folder.path().join("keys"))?;
    step("starting C tor, to compare with ...");
    let judge = network.c_tor_client(ClientOptions {
        onion_auth_dir: Some(stage.keys.clone()),
        extra_torrc_lines: vec![format!("SocksTimeout {}", limit.as_secs())],
    })?;
    step("starting onionport ...");
    let settings = format!(
        "{SETTINGS}\nsocks_timeout = {}\nclient_onion_auth_dir = {:?}",
        limit.as_secs(),
        stage.keys.display().to_string()
    );
    let onionport = Onionport::start(&program()?, &network, &settings)?;
    step("asking both for each service, as a SOCKS5 client on a port with ExtendedErrors:");
    println!();
    println!(
        "{:35} {:14} {:>4} {:>6}  {:30} {:>5}  {:>5} {:>6}",
        "what is broken", "address", "code", "s", "meaning", "plain", "C tor", "s"
    );

    let wrong = std::thread::scope(|scope| {
        let (sender, answers) = mpsc::channel();
        for case in &stage.cases {
            let sender = sender.clone();
            let (onionport, judge) = (&onionport, &judge);
            scope.spawn(move || {
                let _ = sender.send((case, Answers::of(case, onionport, judge, limit)));
            });
        }
        drop(sender);
        let mut waiting = stage.cases.len();
        let mut wrong = Vec::new();
        for (case, answers) in answers {
            waiting -= 1;
            if !answers.are_right(case) {
                wrong.push(case.broken);
            }
            println!("{}", answers.row(case, colours));
            if waiting == 2 {
                step("waiting for the slowest two, who say nothing ...");
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
    step("done; stopping everything");
    network.mark_done();
    Ok(())
}

/// The program stands beside the folder of the examples.
fn program() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let folder = here
        .parent()
        .and_then(|p| p.parent())
        .context("no folder")?;
    let program = folder.join("onionport");
    ensure!(
        program.exists(),
        "{} is missing: run scripts/demo",
        program.display()
    );
    Ok(program)
}

fn ask(proxy: SocketAddr, case: &Case, limit: Duration) -> Said {
    let reply = socks5_connect(proxy, &case.host, case.port, patience(limit)).ok()?;
    Some((reply.code, reply.elapsed.as_secs_f32()))
}

/// What was said for one case.
struct Answers {
    extended: Said,
    plain: Said,
    judge: Said,
}

impl Answers {
    /// Asks all three at the same time.
    fn of(case: &Case, onionport: &Onionport, judge: &CTor, limit: Duration) -> Answers {
        std::thread::scope(|scope| {
            let plain = scope.spawn(|| ask(onionport.plain(), case, limit));
            let judge = scope.spawn(|| ask(judge.extended_port(), case, limit));
            Answers {
                extended: ask(onionport.extended(), case, limit),
                plain: plain.join().unwrap_or(None),
                judge: judge.join().unwrap_or(None),
            }
        })
    }

    /// Whether onionport's codes are those of the case.
    fn are_right(&self, case: &Case) -> bool {
        self.extended.is_some_and(|(code, _)| code == case.extended)
            && self.plain.is_some_and(|(code, _)| code == case.plain)
    }

    fn row(&self, case: &Case, colours: bool) -> String {
        let paint = |text: String, colour: u8| {
            if colours {
                format!("\x1b[{colour}m{text}\x1b[0m")
            } else {
                text
            }
        };
        let code = |said: Said| said.map_or("--".to_owned(), |(code, _)| format!("{code:02X}"));
        let seconds = |said: Said| said.map_or(String::new(), |(_, s)| format!("{s:.1}"));
        let colour = match self.extended {
            Some((0, _)) => 32,
            Some((code, _)) if code == case.extended => 36,
            _ => 31,
        };
        let plain = if self.plain.is_some_and(|(code, _)| code == case.plain) {
            0
        } else {
            31
        };
        let address = match case.host.len() {
            0..=14 => case.host.clone(),
            length => format!("{}...{}", &case.host[..5], &case.host[length - 6..]),
        };
        let same = self.extended.map(|s| s.0) == self.judge.map(|s| s.0);
        format!(
            "{:35} {address:14} {} {:>6}  {:30} {}  {} {:>6}",
            case.broken,
            paint(format!("{:>4}", code(self.extended)), colour),
            seconds(self.extended),
            self.extended
                .map_or("no answer", |(code, _)| meaning(code, case)),
            paint(format!("{:>5}", code(self.plain)), plain),
            paint(
                format!("{:>5}", code(self.judge)),
                if same { 0 } else { 33 }
            ),
            seconds(self.judge),
        )
    }
}

/// The program's own words for a code.
fn meaning(code: u8, case: &Case) -> &'static str {
    if code == 0 {
        return "connected";
    }
    // Several failures share the plain codes; the onion codes are each one's own.
    let mut named = Failure::ALL.iter().filter(|f| f.row().extended == code);
    match (code, case.broken) {
        (0x01, "exit: refused") => Failure::StreamFailed.name(),
        (0x05, _) => Failure::StreamClosed.name(),
        (0x04, "exit: no route") => Failure::NoRoute.name(),
        (0x04, broken) if broken.starts_with("exit") => Failure::NameNotResolved.name(),
        (0x06, broken) if broken.starts_with("exit") => Failure::ConnectionTimedOut.name(),
        _ => named.next().map_or("unknown", |f| f.name()),
    }
}
