//! Services and keys that go and come back: each failure gets its code, and none has an effect on later requests.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use testnet::{
    ClientKey, ClientOptions, HttpServer, Network, RecordingServer, Service, ServiceOptions,
    socks5_connect,
};

use crate::daemon::Onionport;
use crate::setup::{
    DEFAULT_LIMIT, PAGE, SUCCESS_REPLIES, client_timeout, make_private, network_builder,
    request_code, run_in_parallel, send_optimistic_data, start_network, start_proxy, timed_request,
    wait_until,
};

/// What tor-hsclient logs when it starts to set up a rendezvous.
const RENDEZVOUS: &str = "setting up rendezvous point";
/// What tor-hsclient logs when the introduction was acknowledged and the service has to connect to the rendezvous
/// point.
const AT_RENDEZVOUS: &str = "awaiting rendezvous completion";
/// How long the program may take to reach a point where it waits.
const SOON: Duration = Duration::from_secs(30);

/// Returns the reply code for a client that sends data right after its request.
fn request_code_with_data(proxy: SocketAddr, service: &Service) -> Result<u8> {
    let target = (service.address(), 80);
    let mut stream = send_optimistic_data(proxy, target, b"GET /", client_timeout(DEFAULT_LIMIT))?;
    let mut replies = [0; 4];
    stream.read_exact(&mut replies)?;
    Ok(replies[3])
}

#[test]
fn a_service_that_goes_and_comes_back_gets_the_right_code_each_time() -> Result<()> {
    let (network, server) = start_network()?;
    let service = network.service(ServiceOptions::with_port(80, server.address()))?;
    let onionport = start_proxy(&network, DEFAULT_LIMIT, "")?;

    assert_eq!(request_code(&onionport, &service)?, 0x00);
    service.kill();
    // The introduction points may not have noticed yet, so that an introduction is acknowledged but lost.
    let (code, first) = timed_request(&onionport, &service)?;
    assert_eq!(code, 0xF2, "just after the kill, {first:?}");
    let (code, second) = timed_request(&onionport, &service)?;
    assert_eq!(code, 0xF2, "second request, {second:?}");
    println!("killed after a good connection: F2 {first:.1?}, again F2 {second:.1?}");

    service.restart()?;
    let (code, back) = timed_request(&onionport, &service)?;
    assert_eq!(code, 0x00, "restarted, after {back:?}");
    println!("restarted: 00 {back:.1?}");
    assert_eq!(request_code(&onionport, &service)?, 0x00);
    network.mark_done();
    Ok(())
}

#[test]
fn a_restarted_service_is_reached_through_its_new_descriptor() -> Result<()> {
    let (network, server) = start_network()?;
    let service = network.service(ServiceOptions::with_port(80, server.address()))?;
    let onionport = start_proxy(&network, DEFAULT_LIMIT, "")?;
    assert_eq!(request_code(&onionport, &service)?, 0x00);
    // The program's descriptor lists the old introduction points.
    service.kill();
    service.restart()?;
    assert_eq!(request_code(&onionport, &service)?, 0x00);
    network.mark_done();
    Ok(())
}

/// The scenarios share a network: another service's circuit becomes idle while requests to the frozen one wait.
#[test]
fn a_frozen_service_ends_in_f3_and_optimistic_data_on_an_idle_circuit_arrives_once() -> Result<()> {
    let (network, server) = start_network()?;
    let service = network.service(ServiceOptions::with_port(80, server.address()))?;
    let onionport = start_proxy(&network, DEFAULT_LIMIT, "")?;
    assert_eq!(request_code(&onionport, &service)?, 0x00);
    service.freeze()?;
    // The code is the same whether or not the client has sent data already.
    let code_with_data = std::thread::scope(|scope| {
        let idle = scope.spawn(|| optimistic_data_on_an_idle_circuit_arrives_once(&network));
        let with_data = scope.spawn(|| request_code_with_data(onionport.extended_port(), &service));
        let (code, elapsed) = timed_request(&onionport, &service)?;
        assert_eq!(code, 0xF3, "frozen, after {elapsed:?}");
        idle.join().expect("no panic")?;
        with_data.join().expect("no panic")
    })?;
    assert_eq!(code_with_data, 0xF3, "with optimistic data");

    // The service comes back, with new introduction points, while a client waits at the rendezvous point.
    std::thread::scope(|scope| {
        let rendezvous = || onionport.log().matches(AT_RENDEZVOUS).count();
        let before = rendezvous();
        let waiting = scope.spawn(|| timed_request(&onionport, &service));
        wait_until("a client waits at the rendezvous point", SOON, || {
            rendezvous() > before
        })?;
        ensure!(!waiting.is_finished(), "the client did not wait");
        service.kill();
        service.restart()?;
        let (code, elapsed) = waiting.join().expect("no panic")?;
        assert_eq!(
            code, 0x00,
            "restarted while a client waited, after {elapsed:?}"
        );
        println!("restarted while a client waited: 00 {elapsed:.1?}");
        anyhow::Ok(())
    })?;
    network.mark_done();
    Ok(())
}

/// The program keeps optimistic data until the stream is open if the circuit has been idle, because the service may
/// have left it: sent on two circuits, the data could arrive twice.
fn optimistic_data_on_an_idle_circuit_arrives_once(network: &Network) -> Result<()> {
    /// Longer than the program trusts a circuit after its last stream was opened (docs/compatibility.md, "data sent
    /// before the reply").
    const IDLE: Duration = Duration::from_secs(31);
    const DATA: &[u8] = b"do it once";
    let server = RecordingServer::start()?;
    let service = network.service(ServiceOptions::with_port(80, server.address()))?;
    let onionport = start_proxy(network, DEFAULT_LIMIT, "")?;
    assert_eq!(request_code(&onionport, &service)?, 0x00);
    std::thread::sleep(IDLE);

    service.freeze()?;
    let target = (service.address(), 80);
    let timeout = client_timeout(DEFAULT_LIMIT);
    let mut client = send_optimistic_data(onionport.extended_port(), target, DATA, timeout)?;
    wait_until("the program builds a new circuit", SOON, || {
        onionport.log().contains("building a new circuit")
    })?;
    // The service receives both the request on the old circuit and the introduction for the new one.
    service.thaw()?;
    let mut replies = [0; SUCCESS_REPLIES.len()];
    client.read_exact(&mut replies)?;
    assert_eq!(replies[3], 0x00, "{replies:02X?}");
    let mut echoed = [0; DATA.len()];
    client.read_exact(&mut echoed)?;
    assert_eq!(echoed, DATA);
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
fn a_key_takes_effect_at_the_next_request_and_authorized_streams_share_a_circuit() -> Result<()> {
    let (network, server) = start_network()?;
    let (ours, theirs) = (ClientKey::generate(), ClientKey::generate());
    let service = network.service(ServiceOptions {
        authorized: vec![ours.public()],
        ..ServiceOptions::with_port(80, server.address())
    })?;
    let folder = tempfile::tempdir_in(network.dir())?;
    let keys = folder.path().join("keys");
    fs::create_dir(&keys)?;
    make_private(&keys)?;
    let settings = format!("client_onion_auth_dir = {:?}", keys.display().to_string());
    let onionport = start_proxy(&network, DEFAULT_LIMIT, &settings)?;

    let (code, missing) = timed_request(&onionport, &service)?;
    assert_eq!(code, 0xF4, "no key");
    assert_eq!(request_code(&onionport, &service)?, 0xF4, "still no key");
    let file = theirs.write_to(&keys, "key", service.address())?;
    let (code, wrong) = timed_request(&onionport, &service)?;
    assert_eq!(code, 0xF5, "a wrong key");
    // One descriptor proves that the key is missing or wrong: six fetches for each request would take several times
    // as long.
    let fetches = onionport.log().matches("failed hsdir desc fetch").count();
    assert!(fetches <= 6, "{fetches} fetches for three requests");
    println!("no key: F4 {missing:.2?}, wrong key: F5 {wrong:.2?}");

    fs::remove_file(file)?;
    let file = ours.write_to(&keys, "key", service.address())?;
    assert_eq!(request_code(&onionport, &service)?, 0x00, "the right key");
    let before = onionport.log().matches(RENDEZVOUS).count();
    for _ in 0..4 {
        assert_eq!(
            request_code(&onionport, &service)?,
            0x00,
            "the right key, again"
        );
    }
    let after = onionport.log().matches(RENDEZVOUS).count();
    assert_eq!(
        before, after,
        "streams to an authorized service share its circuit"
    );

    fs::remove_file(file)?;
    assert_eq!(request_code(&onionport, &service)?, 0xF4, "key removed");
    network.mark_done();
    Ok(())
}

#[test]
fn clients_that_wait_for_the_same_service_share_one_attempt() -> Result<()> {
    let (network, server) = start_network()?;
    let service = network.service(ServiceOptions::with_port(80, server.address()))?;
    let onionport = start_proxy(&network, DEFAULT_LIMIT, "")?;
    let codes = run_in_parallel(0..10, |_| request_code(&onionport, &service))?;
    assert_eq!(codes, [0; 10]);
    assert_eq!(onionport.log().matches(RENDEZVOUS).count(), 1);
    network.mark_done();
    Ok(())
}

#[test]
fn a_dead_introduction_point_does_not_make_the_service_unreachable() -> Result<()> {
    /// How many clients send a request at once.
    const AT_ONCE: usize = 10;
    let network = network_builder().spare_relays(6).start()?;
    let server = HttpServer::start(PAGE)?;
    let service = network.service(ServiceOptions {
        intro_points_on_spare_relays: true,
        ..ServiceOptions::with_port(80, server.address())
    })?;
    let c_tor = network.c_tor_client(ClientOptions::default())?;
    let points = service.introduction_points()?;
    network.kill_relay(&points[0])?;
    let onionport = Onionport::start(&network, "")?;
    let request = |port| socks5_connect(port, service.address(), 80, client_timeout(DEFAULT_LIMIT));
    for port in [onionport.extended_port(), onionport.plain_port()] {
        let first = request(port)?;
        println!(
            "one introduction point dead: {:02X} {:.1?}",
            first.code, first.elapsed
        );
        assert_eq!(first.code, 0x00, "first");
        assert_eq!(request(port)?.code, 0x00, "again");
        let codes = run_in_parallel(0..AT_ONCE, |_| Ok(request(port)?.code))?;
        assert_eq!(codes, [0x00; AT_ONCE], "at once");
    }
    let theirs = request(c_tor.extended_port())?;
    println!("C tor: {:02X} {:.1?}", theirs.code, theirs.elapsed);
    network.mark_done();
    Ok(())
}
