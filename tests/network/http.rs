//! The HTTP port, with curl as the client: plain requests and tunnels, for every case of [`BrokenServices`]. C tor's
//! HTTPTunnelPort gets the same tunnels.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::broken_services::{BrokenServices, Case};
use crate::setup::{PAGE, client_timeout, network_builder, run_in_parallel};

/// The deadline of both programs, as in the test of the codes.
const LIMIT: Duration = Duration::from_secs(30);

/// What curl received.
#[derive(Debug)]
struct Response {
    /// The status that the proxy sent.
    status: u16,
    /// The value of `Tor-Request-Failed`; empty if the header is missing.
    tokens: String,
    body: String,
    seconds: f32,
}

#[test]
fn curl_gets_every_page_and_every_failure_through_the_http_port() -> Result<()> {
    let network = network_builder().start()?;
    let folder = tempfile::tempdir_in(network.dir())?;
    let services = BrokenServices::set_up(&network, &folder.path().join("keys"))?;
    let tunnel_port = format!("HTTPTunnelPort {}:auto", Ipv4Addr::LOCALHOST);
    let c_tor = services.start_c_tor(&network, LIMIT, &[tunnel_port])?;
    let c_tor_port = c_tor.listener("httptunnel", Ipv4Addr::LOCALHOST)?;
    let onionport = services.start_proxy(&network, LIMIT, "http_port = \"auto\"")?;
    // After the two SOCKS ports.
    let http = onionport.port(2);

    let all: Vec<Vec<Response>> = run_in_parallel(&services.cases, |case| {
        let _alone = case.lock_exits();
        let requests = [(http, false), (http, true), (c_tor_port, true)];
        run_in_parallel(requests, |(proxy, tunnel)| run_curl(proxy, case, tunnel))
    })?;
    let mut wrong = Vec::new();
    for (case, responses) in services.cases.iter().zip(&all) {
        let [plain, tunnel, c_tor] = &responses[..] else {
            unreachable!("three requests");
        };
        println!(
            "{:36}| plain {} {:5.1} s | tunnel {} {:5.1} s {:52} | C tor {} {:5.1} s {}",
            case.name,
            plain.status,
            plain.seconds,
            tunnel.status,
            tunnel.seconds,
            tunnel.tokens,
            c_tor.status,
            c_tor.seconds,
            c_tor.tokens
        );
        for (kind, response) in [("plain", plain), ("tunnel", tunnel)] {
            if let Err(problem) = check(case, response) {
                wrong.push(format!("{}, {kind}: {problem}: {response:?}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    network.mark_done();
    Ok(())
}

/// The status and the tokens of a case that fails. Each case has its own entry, because several failures share a
/// SOCKS code.
fn expected(case: &Case) -> Option<(u16, &'static str)> {
    Some(match case.name {
        "service never published" => (503, "onionport/HS-DESC-NOT-FOUND end/RESOLVEFAILED"),
        "descriptor with bad signature" | "descriptor with damaged body" => {
            (503, "onionport/HS-DESC-INVALID end/RESOLVEFAILED")
        }
        "service killed" => (503, "onionport/HS-INTRO-FAILED end/RESOLVEFAILED"),
        "service frozen" => (504, "onionport/HS-REND-FAILED end/TIMEOUT"),
        "client authorization, no key" => (503, "onionport/HS-CLIENT-AUTH-MISSING end/MISC"),
        "client authorization, wrong key" | "client authorization, revoked key" => {
            (403, "onionport/HS-CLIENT-AUTH-WRONG end/MISC")
        }
        "address with bad checksum"
        | "address too short"
        | "address of version 2"
        | "address is not a curve point"
        | "address with torsion component"
        | "address with extra characters"
        | "address with trailing dot" => (400, "onionport/HS-BAD-ADDRESS end/TORPROTOCOL"),
        "service without this port" => (502, "end/DONE"),
        "exit: unknown host name" => (503, "end/RESOLVEFAILED"),
        "exit: connection refused" => (500, "end/MISC"),
        "exit: port not allowed" | "exit: address not allowed" => (503, "end/EXITPOLICY"),
        "exit: no route" => (503, "end/NOROUTE"),
        "exit: no answer" => (504, "end/TIMEOUT"),
        _ => return None,
    })
}

/// Checks the response to a case; the error describes what is wrong.
fn check(case: &Case, response: &Response) -> Result<(), String> {
    if case.extended == 0 {
        let is_page = response.status == 200 && response.body.contains(PAGE);
        return match is_page && response.tokens.is_empty() {
            true => Ok(()),
            false => Err("not the page".to_owned()),
        };
    }
    let expected = expected(case).ok_or("this case has no entry in the table of statuses")?;
    match expected == (response.status, response.tokens.as_str()) {
        true => Ok(()),
        false => Err(format!("not {expected:?}")),
    }
}

/// Requests the page of a case, through a tunnel or with a plain request.
fn run_curl(proxy: SocketAddr, case: &Case, tunnel: bool) -> Result<Response> {
    let timeout = client_timeout(LIMIT).as_secs() * 3;
    let mut command = Command::new("curl");
    command.env_clear().args(["-q", "-s", "-S", "-i"]);
    command.args(["--max-time", &timeout.to_string()]);
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
            "curl printed {text:?}, {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    // A tunnel that was set up has status 200 of its own.
    let status: u16 = if tunnel { connect } else { code }.parse()?;
    let tokens = body.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("tor-request-failed")
            .then(|| value.trim().to_owned())
    });
    Ok(Response {
        status,
        tokens: tokens.unwrap_or_default(),
        body: body.to_owned(),
        seconds: seconds.parse()?,
    })
}
