//! Every way to break an onion service, and every code: onionport beside C tor.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testnet::{ClientOptions, Network, SocksReply, socks5_connect};

use crate::daemon::Onionport;
use crate::program;
use crate::stage::{Case, Stage, patience};

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

/// All that was said of one case.
struct Line {
    first: Said,
    again: Said,
    at_once: Vec<Said>,
    plain: Said,
    judge: Said,
    judge_plain: Said,
}

#[test]
fn every_failure_has_its_code_with_and_without_extended_errors() -> Result<()> {
    let network = Network::builder()
        .relays(8)
        .circuit_timeout_ms(Some(2500))
        .start()?;
    let folder = tempfile::tempdir()?;
    let stage = Stage::set(&network, &folder.path().join("keys"))?;
    let judge = network.c_tor_client(ClientOptions {
        onion_auth_dir: Some(stage.keys.clone()),
        extra_torrc_lines: vec![format!("SocksTimeout {}", LIMIT.as_secs())],
    })?;
    let settings = format!(
        "socks_timeout = {}\nclient_onion_auth_dir = {:?}",
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
        "{:36}| with ExtendedErrors              | without  | C tor with | C tor without",
        "broken"
    );
    let mut wrong = Vec::new();
    for (case, line) in stage.cases.iter().zip(&lines) {
        println!("{}", line.show(case));
        wrong.extend(line.wrong(case));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

impl Line {
    fn of(
        case: &Case,
        onionport: &Onionport,
        judge: SocketAddr,
        plain: SocketAddr,
    ) -> Result<Line> {
        std::thread::scope(|scope| {
            // C tor is asked at the same time; it shares nothing with onionport.
            let judged =
                scope.spawn(|| Ok::<_, anyhow::Error>((ask(judge, case)?, ask(plain, case)?)));
            let first = ask(onionport.extended(), case)?;
            let again = ask(onionport.extended(), case)?;
            let threads: Vec<_> = (0..AT_ONCE)
                .map(|_| scope.spawn(|| ask(onionport.extended(), case)))
                .collect();
            let at_once = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect::<Result<_>>()?;
            let plain = ask(onionport.plain(), case)?;
            let (judge, judge_plain) = judged.join().expect("no panic")?;
            Ok(Line {
                first,
                again,
                at_once,
                plain,
                judge,
                judge_plain,
            })
        })
    }

    /// The slowest of those that asked at once.
    fn slowest(&self) -> f32 {
        self.at_once
            .iter()
            .map(|said| said.seconds)
            .fold(0.0, f32::max)
    }

    fn show(&self, case: &Case) -> String {
        let Line {
            first,
            again,
            plain,
            judge,
            judge_plain,
            ..
        } = self;
        let show = |said: &Said| format!("{:02X} {:5.1}", said.code, said.seconds);
        format!(
            "{:36}| {} {} {AT_ONCE}x{:5.1} | {} | {} | {}",
            case.broken,
            show(first),
            show(again),
            self.slowest(),
            show(plain),
            show(judge),
            show(judge_plain),
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
        check("the first request", &self.first, case.extended);
        check("the second request", &self.again, case.extended);
        for said in &self.at_once {
            check("one of ten at once", said, case.extended);
        }
        check("the plain port", &self.plain, case.plain);
        if let Some((extended, plain)) = case.judge {
            check("C tor", &self.judge, extended);
            check("C tor's plain port", &self.judge_plain, plain);
        }
        let limit = (LIMIT + Duration::from_secs(2)).as_secs_f32();
        for said in [&self.first, &self.again, &self.plain]
            .into_iter()
            .chain(&self.at_once)
        {
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

fn ask(proxy: SocketAddr, case: &Case) -> Result<Said> {
    let SocksReply { code, elapsed, .. } =
        socks5_connect(proxy, &case.host, case.port, patience(LIMIT))?;
    Ok(Said {
        code,
        seconds: elapsed.as_secs_f32(),
    })
}
