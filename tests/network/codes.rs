//! Every way to break an onion service, and every reply code: onionport compared with C tor.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testnet::{CTor, SocksReply, socks5_connect};

use crate::broken_services::{BrokenServices, Case};
use crate::daemon::Onionport;
use crate::deadline::SLACK;
use crate::setup::{client_timeout, network_builder, run_in_parallel};

/// The deadline in this test: long enough for any good answer on loopback, and short enough that a frozen service
/// does not delay the others.
const LIMIT: Duration = Duration::from_secs(30);
/// How many clients send the same request at once.
const AT_ONCE: usize = 10;

/// A reply code and how long it took.
#[derive(Clone, Copy)]
struct Reply {
    code: u8,
    seconds: f32,
}

/// The replies of one port to a first request, to a second one, and to ten at once.
struct PortReplies {
    first: Reply,
    again: Reply,
    at_once: Vec<Reply>,
}

/// All replies for one case.
struct CaseReplies {
    extended: PortReplies,
    plain: PortReplies,
    c_tor_extended: Reply,
    c_tor_plain: Reply,
}

#[test]
fn every_failure_has_its_code_with_and_without_extended_errors() -> Result<()> {
    let network = network_builder().start()?;
    let folder = tempfile::tempdir_in(network.dir())?;
    let services = BrokenServices::set_up(&network, &folder.path().join("keys"))?;
    let c_tor = services.start_c_tor(&network, LIMIT, &[])?;
    let onionport = services.start_proxy(&network, LIMIT, "")?;

    let replies = run_in_parallel(&services.cases, |case| {
        CaseReplies::request(case, &onionport, &c_tor)
            .with_context(|| format!("requesting: {}", case.name))
    })?;

    println!(
        "{:36}| with: first, again, ten at once | without                 | C tor with | without",
        "case"
    );
    let mut wrong = Vec::new();
    for (case, replies) in services.cases.iter().zip(&replies) {
        println!("{}", replies.to_line(case));
        wrong.extend(replies.find_wrong(case));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    network.mark_done();
    Ok(())
}

impl PortReplies {
    fn request(port: SocketAddr, case: &Case) -> Result<PortReplies> {
        Ok(PortReplies {
            first: request(port, case)?,
            again: request(port, case)?,
            at_once: run_in_parallel(0..AT_ONCE, |_| request(port, case))?,
        })
    }

    fn iter(&self) -> impl Iterator<Item = &Reply> {
        [&self.first, &self.again].into_iter().chain(&self.at_once)
    }
}

impl std::fmt::Display for PortReplies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slowest = self.at_once.iter().map(|reply| reply.seconds);
        let slowest = slowest.fold(0.0, f32::max);
        write!(f, "{} {} {AT_ONCE}x{slowest:5.1}", self.first, self.again)
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02X} {:5.1}", self.code, self.seconds)
    }
}

impl CaseReplies {
    /// Sends the requests to all four ports at the same time. The two programs share nothing but the exits.
    fn request(case: &Case, onionport: &Onionport, c_tor: &CTor) -> Result<CaseReplies> {
        let _alone = case.lock_exits();
        std::thread::scope(|scope| {
            let extended = scope.spawn(|| PortReplies::request(onionport.extended_port(), case));
            let plain = scope.spawn(|| PortReplies::request(onionport.plain_port(), case));
            let c_tor_plain = scope.spawn(|| request(c_tor.plain_port(), case));
            Ok(CaseReplies {
                c_tor_extended: request(c_tor.extended_port(), case)?,
                c_tor_plain: c_tor_plain.join().expect("no panic")?,
                extended: extended.join().expect("no panic")?,
                plain: plain.join().expect("no panic")?,
            })
        })
    }

    fn to_line(&self, case: &Case) -> String {
        format!(
            "{:36}| {} | {} | {} | {}",
            case.name, self.extended, self.plain, self.c_tor_extended, self.c_tor_plain,
        )
    }

    /// Describes the replies with a wrong code and those that came too late.
    fn find_wrong(&self, case: &Case) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |what: &str, reply: &Reply, expected: u8| {
            let Reply { code, seconds } = reply;
            if *code != expected {
                wrong.push(format!(
                    "{}: {what} got {code:02X} after {seconds:.1} s, expected {expected:02X}",
                    case.name
                ));
            }
        };
        for (port, replies, expected) in [
            ("with ExtendedErrors", &self.extended, case.extended),
            ("without ExtendedErrors", &self.plain, case.plain),
        ] {
            check(
                &format!("the first request {port}"),
                &replies.first,
                expected,
            );
            check(
                &format!("the second request {port}"),
                &replies.again,
                expected,
            );
            for reply in &replies.at_once {
                check(&format!("one of ten at once {port}"), reply, expected);
            }
        }
        if let Some((extended, plain)) = case.c_tor {
            check("a request to C tor", &self.c_tor_extended, extended);
            check("a request to C tor's plain port", &self.c_tor_plain, plain);
        }
        let limit = (LIMIT + SLACK).as_secs_f32();
        for reply in self.extended.iter().chain(self.plain.iter()) {
            if reply.seconds > limit {
                wrong.push(format!(
                    "{}: a reply took {:.1} s",
                    case.name, reply.seconds
                ));
            }
        }
        wrong
    }
}

fn request(proxy: SocketAddr, case: &Case) -> Result<Reply> {
    let SocksReply { code, elapsed, .. } =
        socks5_connect(proxy, &case.host, case.port, client_timeout(LIMIT))?;
    Ok(Reply {
        code,
        seconds: elapsed.as_secs_f32(),
    })
}
