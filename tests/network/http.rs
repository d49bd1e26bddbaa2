//! The HTTP port, asked by curl: plain requests and tunnels, for every case of the stage. C tor's
//! HTTPTunnelPort gets the same tunnels.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use onionport::failure::{Failure, Row};
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

/// Whether what was seen fits the code that a SOCKS port would give.
fn check(case: &Case, seen: &Seen) -> Result<(), String> {
    if case.extended == 0 {
        return match seen.status == 200 && seen.body.contains(PAGE) && seen.tokens.is_empty() {
            true => Ok(()),
            false => Err("the page did not come".to_owned()),
        };
    }
    let fits = |row: Row| row.http == seen.status && seen.tokens.starts_with(row.token);
    let mut with_this_code = Failure::ALL
        .iter()
        .map(|failure| failure.row())
        .filter(|row| row.extended == case.extended);
    match with_this_code.any(fits) {
        true => Ok(()),
        false => Err(format!("no failure with code {:02X}", case.extended)),
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
