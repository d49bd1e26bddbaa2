//! Every way to break an onion service, and every code: onionport beside C tor.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use testnet::{ClientOptions, Network, SocksReply, socks5_connect};

use crate::daemon::Onionport;
use crate::deadline::SLACK;
use crate::program;
use crate::stage::{Case, SETTINGS, Stage, patience};

/// The deadline in this test: long enough for any sound answer on loopback, and short enough for a
/// frozen service not to hold up the others.
const LIMIT: Duration = Duration::from_secs(30);
/// How many clients ask at once.
const AT_ONCE: usize = 10;

/// What a proxy said, and after how many seconds.
#[derive(Clone, Copy)]
struct Said {
    code: u8,
    seconds: f32,
}

/// What one port said to the first request, to the same again, and to ten at once.
struct Asked {
    first: Said,
    again: Said,
    at_once: Vec<Said>,
}

/// All that was said of one case.
struct Line {
    extended: Asked,
    plain: Asked,
    judge: Said,
    judge_plain: Said,
}

#[test]
fn every_failure_has_its_code_with_and_without_extended_errors() -> Result<()> {
    let network = Network::builder()
        .relays(8)
        .circuit_timeout_ms(Some(2500))
        .start()?;
    let folder = tempfile::tempdir_in(network.dir())?;
    let stage = Stage::set(&network, &folder.path().join("keys"))?;
    let judge = network.c_tor_client(ClientOptions {
        onion_auth_dir: Some(stage.keys.clone()),
        extra_torrc_lines: vec![format!("SocksTimeout {}", LIMIT.as_secs())],
    })?;
    let settings = format!(
        "{SETTINGS}\nsocks_timeout = {}\nclient_onion_auth_dir = {:?}",
        LIMIT.as_secs(),
        stage.keys.display().to_string()
    );
    let onionport = Onionport::start(program(), &network, &settings)?;

    let lines: Vec<Line> = std::thread::scope(|scope| {
        let threads: Vec<_> = stage
            .cases
            .iter()
            .map(|case| {
                let (onionport, judge) = (&onionport, &judge);
                scope.spawn(move || {
                    let all = Line::of(case, onionport, judge.extended_port(), judge.plain_port());
                    all.with_context(|| format!("asking for: {}", case.broken))
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("no panic"))
            .collect::<Result<_>>()
    })?;

    println!(
        "{:36}| with: first, again, ten at once | without                 | C tor with | without",
        "broken"
    );
    let mut wrong = Vec::new();
    for (case, line) in stage.cases.iter().zip(&lines) {
        println!("{}", line.show(case));
        wrong.extend(line.wrong(case));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    network.mark_done();
    Ok(())
}

impl Asked {
    fn of(port: SocketAddr, case: &Case) -> Result<Asked> {
        let first = ask(port, case)?;
        let again = ask(port, case)?;
        let at_once = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE)
                .map(|_| scope.spawn(|| ask(port, case)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect::<Result<_>>()
        })?;
        Ok(Asked {
            first,
            again,
            at_once,
        })
    }

    fn all(&self) -> impl Iterator<Item = &Said> {
        [&self.first, &self.again].into_iter().chain(&self.at_once)
    }

    fn show(&self) -> String {
        let slowest = self.at_once.iter().map(|said| said.seconds);
        let slowest = slowest.fold(0.0, f32::max);
        format!("{} {} {AT_ONCE}x{slowest:5.1}", self.first, self.again)
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02X} {:5.1}", self.code, self.seconds)
    }
}

impl Line {
    /// Everybody is asked at the same time; they share nothing but the exits.
    fn of(
        case: &Case,
        onionport: &Onionport,
        judge: SocketAddr,
        judge_plain: SocketAddr,
    ) -> Result<Line> {
        static EXITS: Mutex<()> = Mutex::new(());
        let _alone = needs_the_exits_alone(case)
            .then(|| EXITS.lock().unwrap_or_else(PoisonError::into_inner));
        std::thread::scope(|scope| {
            let extended = scope.spawn(|| Asked::of(onionport.extended(), case));
            let plain = scope.spawn(|| Asked::of(onionport.plain(), case));
            let judge_plain = scope.spawn(|| ask(judge_plain, case));
            Ok(Line {
                judge: ask(judge, case)?,
                judge_plain: judge_plain.join().expect("no panic")?,
                extended: extended.join().expect("no panic")?,
                plain: plain.join().expect("no panic")?,
            })
        })
    }

    fn show(&self, case: &Case) -> String {
        format!(
            "{:36}| {} | {} | {} | {}",
            case.broken,
            self.extended.show(),
            self.plain.show(),
            self.judge,
            self.judge_plain,
        )
    }

    /// Whatever is not as it should be.
    fn wrong(&self, case: &Case) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |who: &str, said: &Said, expected: u8| {
            if said.code != expected {
                let Said { code, seconds } = said;
                wrong.push(format!(
                    "{}: {who} said {code:02X} after {seconds:.1} s, expected {expected:02X}",
                    case.broken
                ));
            }
        };
        for (port, asked, expected) in [
            ("with ExtendedErrors", &self.extended, case.extended),
            ("without ExtendedErrors", &self.plain, case.plain),
        ] {
            check(&format!("the first request {port}"), &asked.first, expected);
            check(
                &format!("the second request {port}"),
                &asked.again,
                expected,
            );
            for said in &asked.at_once {
                check(&format!("one of ten at once {port}"), said, expected);
            }
        }
        if let Some((extended, plain)) = case.judge {
            check("C tor", &self.judge, extended);
            check("C tor's plain port", &self.judge_plain, plain);
        }
        let limit = (LIMIT + SLACK).as_secs_f32();
        for said in self.extended.all().chain(self.plain.all()) {
            if said.seconds > limit {
                wrong.push(format!(
                    "{}: an answer took {:.1} s",
                    case.broken, said.seconds
                ));
            }
        }
        wrong
    }
}

/// Whether the exit's reason is only right as long as the exits do nothing else that fails. C tor
/// takes the reason for a failed connection from `errno`, which by then may hold another stream's
/// error.
fn needs_the_exits_alone(case: &Case) -> bool {
    ["exit: refused", "exit: no route"].contains(&case.broken)
}

fn ask(proxy: SocketAddr, case: &Case) -> Result<Said> {
    let SocksReply { code, elapsed, .. } =
        socks5_connect(proxy, &case.host, case.port, patience(LIMIT))?;
    Ok(Said {
        code,
        seconds: elapsed.as_secs_f32(),
    })
}
