//! The HTTP port, asked by curl: plain requests and tunnels, for every case of the stage. C tor's
//! HTTPTunnelPort gets the same tunnels.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testnet::{ClientOptions, Network};

use crate::daemon::Onionport;
use crate::program;
use crate::stage::{Case, PAGE, SETTINGS, Stage, patience};

/// As in the test of the codes.
const LIMIT: Duration = Duration::from_secs(30);

/// What curl saw.
#[derive(Debug)]
struct Seen {
    /// The status of the proxy's answer.
    status: u16,
    tokens: String,
    body: String,
    seconds: f32,
}

#[test]
fn curl_gets_every_page_and_every_failure_through_the_http_port() -> Result<()> {
    let network = Network::builder()
        .relays(8)
        .circuit_timeout_ms(Some(2500))
        .start()?;
    let folder = tempfile::tempdir_in(network.dir())?;
    let stage = Stage::set(&network, &folder.path().join("keys"))?;
    let judge = network.c_tor_client(ClientOptions {
        onion_auth_dir: Some(stage.keys.clone()),
        extra_torrc_lines: vec![
            format!("SocksTimeout {}", LIMIT.as_secs()),
            format!("HTTPTunnelPort {}:auto", Ipv4Addr::LOCALHOST),
        ],
    })?;
    let judge_port = judge.listener("httptunnel", Ipv4Addr::LOCALHOST)?;
    let settings = format!(
        "socks_timeout = {}\nclient_onion_auth_dir = {:?}\nhttp_port = \"auto\"\n{SETTINGS}",
        LIMIT.as_secs(),
        stage.keys.display().to_string()
    );
    let onionport = Onionport::start(program(), &network, &settings)?;
    // Behind the SOCKS ports.
    let http = onionport.port(2);

    let all: Vec<(Seen, Seen, Seen)> = std::thread::scope(|scope| {
        let threads: Vec<_> = stage
            .cases
            .iter()
            .map(|case| {
                scope.spawn(move || {
                    let judge = scope.spawn(move || curl(judge_port, case, true));
                    let tunnel = scope.spawn(move || curl(http, case, true));
                    let plain = curl(http, case, false)?;
                    Ok((
                        plain,
                        tunnel.join().expect("no panic")?,
                        judge.join().expect("no panic")?,
                    ))
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("no panic"))
            .collect::<Result<_>>()
    })?;
    let mut wrong = Vec::new();
    for (case, (plain, tunnel, judge)) in stage.cases.iter().zip(&all) {
        println!(
            "{:36}| plain {} {:5.1} s | tunnel {} {:5.1} s {:52} | C tor {} {:5.1} s {}",
            case.broken,
            plain.status,
            plain.seconds,
            tunnel.status,
            tunnel.seconds,
            tunnel.tokens,
            judge.status,
            judge.seconds,
            judge.tokens
        );
        for (what, seen) in [("plain", plain), ("tunnel", tunnel)] {
            if let Err(problem) = check(case, seen) {
                wrong.push(format!("{}, {what}: {problem}: {seen:?}", case.broken));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    network.mark_done();
    Ok(())
}

/// The status and the tokens of a case that fails, for each of them: several failures share a SOCKS code.
fn expected(case: &Case) -> Option<(u16, &'static str)> {
    Some(match case.broken {
        "never published" => (503, "onionport/HS-DESC-NOT-FOUND end/RESOLVEFAILED"),
        "descriptor's signature wrong" | "descriptor's body wrong" => {
            (503, "onionport/HS-DESC-INVALID end/RESOLVEFAILED")
        }
        "service killed" => (503, "onionport/HS-INTRO-FAILED end/RESOLVEFAILED"),
        "service frozen" => (504, "onionport/HS-REND-FAILED end/TIMEOUT"),
        "authorization missing" => (503, "onionport/HS-CLIENT-AUTH-MISSING end/MISC"),
        "authorization wrong" | "authorization revoked" => {
            (403, "onionport/HS-CLIENT-AUTH-WRONG end/MISC")
        }
        "address: checksum"
        | "address: too short"
        | "address: version 2"
        | "address: no curve point"
        | "address: second form"
        | "address: characters behind it"
        | "address: dot behind it" => (400, "onionport/HS-BAD-ADDRESS end/TORPROTOCOL"),
        "service has no such port" => (502, "end/DONE"),
        "exit: no such name" => (503, "end/RESOLVEFAILED"),
        "exit: refused" => (500, "end/MISC"),
        "exit: policy" | "exit: this exit's policy" => (503, "end/EXITPOLICY"),
        "exit: no route" => (503, "end/NOROUTE"),
        "exit: times out" => (504, "end/TIMEOUT"),
        _ => return None,
    })
}

/// Whether what was seen is what the case has to show.
fn check(case: &Case, seen: &Seen) -> Result<(), String> {
    if case.extended == 0 {
        return match seen.status == 200 && seen.body.contains(PAGE) && seen.tokens.is_empty() {
            true => Ok(()),
            false => Err("the page did not come".to_owned()),
        };
    }
    let expected = expected(case).ok_or("no status is written down for it")?;
    match expected == (seen.status, seen.tokens.as_str()) {
        true => Ok(()),
        false => Err(format!("not {expected:?}")),
    }
}

/// Asks for the page of a case, through a tunnel or as a plain request.
fn curl(proxy: SocketAddr, case: &Case, tunnel: bool) -> Result<Seen> {
    let patience = patience(LIMIT).as_secs() * 3;
    let mut command = Command::new("curl");
    command.env_clear().args(["-q", "-s", "-S", "-i"]);
    command.args(["--max-time", &patience.to_string()]);
    command.args(["-w", "\n%{http_connect} %{http_code} %{time_total}"]);
    command.args(["-x", &format!("http://{proxy}")]);
    if tunnel {
        command.arg("-p");
    }
    let output = command
        .arg(format!("http://{}:{}/", case.host, case.port))
        .output()
        .context("cannot start curl")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, numbers) = text.rsplit_once('\n').unwrap_or(("", &text));
    let numbers: Vec<&str> = numbers.split(' ').collect();
    let [connect, code, seconds] = numbers[..] else {
        anyhow::bail!(
            "curl said {text:?}, {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    // A tunnel that stands says 200 for itself.
    let status: u16 = if tunnel { connect } else { code }.parse()?;
    let tokens = body.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("tor-request-failed")
            .then(|| value.trim().to_owned())
    });
    Ok(Seen {
        status,
        tokens: tokens.unwrap_or_default(),
        body: body.to_owned(),
        seconds: seconds.parse()?,
    })
}
