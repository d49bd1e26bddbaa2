//! Services that go and come back, keys that come and go: the same failure says the same code, and
//! nothing of it remains afterwards.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testnet::{
    ClientKey, ClientOptions, HttpServer, Network, RecordingServer, Service, ServiceOptions,
    socks5_connect,
};

use crate::daemon::Onionport;
use crate::program;
use crate::stage::{PAGE, patience};
use crate::streams::greeting_and_request;

/// The deadline that users have.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// What tor-hsclient logs when it begins a rendezvous.
const RENDEZVOUS: &str = "setting up rendezvous point";
/// What it logs when the introduction was acknowledged and the service is to come to the rendezvous point.
const AT_RENDEZVOUS: &str = "awaiting rendezvous completion";
/// How long the program may take to get to a point where it waits for something.
const SOON: Duration = Duration::from_secs(30);

/// A network for one test, with short circuit timeouts.
pub(crate) fn network() -> Result<(Network, HttpServer)> {
    let network = Network::builder()
        .relays(8)
        .circuit_timeout_ms(Some(2500))
        .start()?;
    Ok((network, HttpServer::start(PAGE)?))
}

pub(crate) fn onionport(network: &Network, settings: &str) -> Result<Onionport> {
    let settings = format!("socks_timeout = {}\n{settings}", LIMIT.as_secs());
    Onionport::start(program(), network, &settings)
}

pub(crate) fn ask(onionport: &Onionport, service: &Service) -> Result<u8> {
    Ok(timed(onionport, service)?.0)
}

fn timed(onionport: &Onionport, service: &Service) -> Result<(u8, Duration)> {
    let reply = socks5_connect(onionport.extended(), service.address(), 80, patience(LIMIT))?;
    Ok((reply.code, reply.elapsed))
}

/// The code for a client that says something right behind its request.
fn early_code(proxy: SocketAddr, service: &Service) -> Result<u8> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(patience(LIMIT)))?;
    let mut bytes = greeting_and_request(service.address(), 80)?;
    bytes.extend_from_slice(b"GET /");
    stream.write_all(&bytes)?;
    let mut replies = [0; 4];
    stream.read_exact(&mut replies)?;
    Ok(replies[3])
}

/// Waits until something is so; an error if that takes too long.
fn wait_until(what: &str, so: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while !so() {
        ensure!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn a_service_that_goes_and_comes_back_is_told_truly_each_time() -> Result<()> {
    let (network, server) = network()?;
    let service = network.service(ServiceOptions::with_port(80, server.address()))?;
    let onionport = onionport(&network, "")?;

    assert_eq!(ask(&onionport, &service)?, 0x00);
    service.kill();
    // The introduction points may not have noticed yet, and pass an introduction on to nobody.
    let (code, first) = timed(&onionport, &service)?;
    assert_eq!(code, 0xF2, "just after the kill, {first:?}");
    let (code, second) = timed(&onionport, &service)?;
    assert_eq!(code, 0xF2, "asked again, {second:?}");
    println!("killed after a good connection: F2 {first:.1?}, again F2 {second:.1?}");

    service.restart()?;
    let (code, back) = timed(&onionport, &service)?;
    assert_eq!(code, 0x00, "brought back, after {back:?}");
    println!("brought back: 00 {back:.1?}");
    assert_eq!(ask(&onionport, &service)?, 0x00);
    network.mark_done();
    Ok(())
}

#[test]
fn a_restart_that_nobody_told_of_is_found_with_a_new_descriptor() -> Result<()> {
    let (network, server) = network()?;
    let service = network.service(ServiceOptions::with_port(80, server.address()))?;
    let onionport = onionport(&network, "")?;
    assert_eq!(ask(&onionport, &service)?, 0x00);
    // The client's descriptor is older than the introduction points.
    service.kill();
    service.restart()?;
    assert_eq!(ask(&onionport, &service)?, 0x00);
    network.mark_done();
    Ok(())
}

#[test]
fn a_service_that_stops_answering_on_an_open_circuit_is_looked_for_anew() -> Result<()> {
    let (network, server) = network()?;
    let service = network.service(ServiceOptions::with_port(80, server.address()))?;
    let onionport = onionport(&network, "")?;
    assert_eq!(ask(&onionport, &service)?, 0x00);
    service.freeze()?;
    // Whether the client has said something already makes no difference to what it is told.
    let early = std::thread::scope(|scope| {
        // That takes long enough for another service's circuit to grow old.
        let idle = scope.spawn(|| early_data_on_an_idle_circuit_arrives_once(&network));
        let early = scope.spawn(|| early_code(onionport.extended(), &service));
        let (code, took) = timed(&onionport, &service)?;
        assert_eq!(code, 0xF3, "frozen, after {took:?}");
        idle.join().expect("no panic")?;
        early.join().expect("no panic")
    })?;
    assert_eq!(early, 0xF3, "with early data");

    // Somebody waits at the rendezvous point when it comes back with new introduction points.
    std::thread::scope(|scope| {
        let rendezvous = || onionport.log().matches(AT_RENDEZVOUS).count();
        let before = rendezvous();
        let waiting = scope.spawn(|| timed(&onionport, &service));
        wait_until("a client waits at the rendezvous point", || {
            rendezvous() > before
        })?;
        ensure!(!waiting.is_finished(), "the client did not wait");
        service.kill();
        service.restart()?;
        let (code, took) = waiting.join().expect("no panic")?;
        assert_eq!(
            code, 0x00,
            "restarted while a client waited, after {took:?}"
        );
        println!("restarted while a client waited: 00 {took:.1?}");
        anyhow::Ok(())
    })?;
    network.mark_done();
    Ok(())
}

/// Early data waits for the answer where it is unknown whether the service still hears on the circuit: sent on two circuits,
/// it could arrive twice.
fn early_data_on_an_idle_circuit_arrives_once(network: &Network) -> Result<()> {
    /// Longer than a circuit on which a stream was opened is trusted (docs/compatibility.md, "data sent before the reply").
    const IDLE: Duration = Duration::from_secs(31);
    const EARLY: &[u8] = b"do it once";
    let server = RecordingServer::start()?;
    let service = network.service(ServiceOptions::with_port(80, server.address()))?;
    let onionport = onionport(network, "")?;
    let proxy = onionport.extended();
    assert_eq!(ask(&onionport, &service)?, 0x00);
    std::thread::sleep(IDLE);

    service.freeze()?;
    let mut client = TcpStream::connect(proxy)?;
    client.set_read_timeout(Some(patience(LIMIT)))?;
    let request = greeting_and_request(service.address(), 80)?;
    client.write_all(&[&request, EARLY].concat())?;
    wait_until("the service is looked for anew", || {
        onionport.log().contains("building a new circuit")
    })?;
    // Now it hears of the stream on the old circuit, and of the new circuit.
    service.thaw()?;
    let mut replies = [0; 12];
    client.read_exact(&mut replies)?;
    assert_eq!(replies[3], 0x00, "{replies:02X?}");
    let mut echoed = [0; EARLY.len()];
    client.read_exact(&mut echoed)?;
    assert_eq!(echoed, EARLY);
    let arrived = server.received();
    let times = arrived.iter().filter(|bytes| !bytes.is_empty()).count();
    assert_eq!(times, 1, "{arrived:?}");
    let log = onionport.log();
    assert!(
        !log.contains("bytes of optimistic data were sent"),
        "on an idle circuit"
    );
    Ok(())
}

#[test]
fn keys_count_from_the_next_request_on_and_authorized_streams_share_a_circuit() -> Result<()> {
    let (network, server) = network()?;
    let (ours, theirs) = (ClientKey::generate(), ClientKey::generate());
    let service = network.service(ServiceOptions {
        authorized: vec![ours.public()],
        ..ServiceOptions::with_port(80, server.address())
    })?;
    let folder = tempfile::tempdir_in(network.dir())?;
    let keys = folder.path().join("keys");
    fs::create_dir(&keys)?;
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o700))?;
    let settings = format!("client_onion_auth_dir = {:?}", keys.display().to_string());
    let onionport = onionport(&network, &settings)?;

    let (code, missing) = timed(&onionport, &service)?;
    assert_eq!(code, 0xF4, "no key");
    assert_eq!(ask(&onionport, &service)?, 0xF4, "still no key");
    let file = theirs.write_to(&keys, "key", service.address())?;
    let (code, wrong) = timed(&onionport, &service)?;
    assert_eq!(code, 0xF5, "a wrong key");
    // One descriptor is proof enough: six fetches would take several times as long.
    let fetches = onionport.log().matches("failed hsdir desc fetch").count();
    assert!(fetches <= 6, "{fetches} fetches for three requests");
    println!("authorization missing: F4 {missing:.2?}, wrong: F5 {wrong:.2?}");

    fs::remove_file(file)?;
    let file = ours.write_to(&keys, "key", service.address())?;
    assert_eq!(ask(&onionport, &service)?, 0x00, "the right key");
    let before = onionport.log().matches(RENDEZVOUS).count();
    for _ in 0..4 {
        assert_eq!(ask(&onionport, &service)?, 0x00, "the right key, again");
    }
    let after = onionport.log().matches(RENDEZVOUS).count();
    assert_eq!(
        before, after,
        "streams to an authorized service share its circuit"
    );

    fs::remove_file(file)?;
    assert_eq!(ask(&onionport, &service)?, 0xF4, "the key was taken away");
    network.mark_done();
    Ok(())
}

#[test]
fn clients_that_wait_for_the_same_service_share_one_attempt() -> Result<()> {
    let (network, server) = network()?;
    let service = network.service(ServiceOptions::with_port(80, server.address()))?;
    let onionport = onionport(&network, "")?;
    let codes: Vec<u8> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10)
            .map(|_| scope.spawn(|| ask(&onionport, &service)))
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("no panic"))
            .collect::<Result<_>>()
    })?;
    assert_eq!(codes, [0; 10]);
    assert_eq!(onionport.log().matches(RENDEZVOUS).count(), 1);
    network.mark_done();
    Ok(())
}

#[test]
fn an_introduction_point_that_has_died_costs_nobody_the_service() -> Result<()> {
    /// How many clients ask at once.
    const AT_ONCE: usize = 10;
    let network = Network::builder()
        .relays(8)
        .spare_relays(6)
        .circuit_timeout_ms(Some(2500))
        .start()?;
    let server = HttpServer::start(PAGE)?;
    let service = network.service(ServiceOptions {
        intro_points_on_spare_relays: true,
        ..ServiceOptions::with_port(80, server.address())
    })?;
    let judge = network.c_tor_client(ClientOptions::default())?;
    let points = service.introduction_points()?;
    network.kill_relay(&points[0])?;
    let onionport = Onionport::start(program(), &network, "")?;
    let ask = |port| socks5_connect(port, service.address(), 80, patience(LIMIT));
    for port in [onionport.extended(), onionport.plain()] {
        let first = ask(port)?;
        println!(
            "one introduction point dead: {:02X} {:.1?}",
            first.code, first.elapsed
        );
        assert_eq!(first.code, 0x00, "first");
        assert_eq!(ask(port)?.code, 0x00, "again");
        let codes = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| ask(port))).collect();
            let answers = asking
                .into_iter()
                .map(|asked| asked.join().expect("no panic"));
            answers
                .map(|answer| Ok(answer?.code))
                .collect::<Result<Vec<_>>>()
        })?;
        assert_eq!(codes, [0x00; AT_ONCE], "at once");
    }
    let theirs = ask(judge.extended_port())?;
    println!(
        "the same, C tor: {:02X} {:.1?}",
        theirs.code, theirs.elapsed
    );
    network.mark_done();
    Ok(())
}
