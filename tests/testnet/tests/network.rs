//! One network, and C tor as the client that is led into each way of breaking; and what is left after a violent end.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use testnet::{
    CTor, ClientKey, ClientOptions, ClosedPort, Corruption, EchoServer, HttpServer, Network, Role,
    Service, ServiceOptions, SocksAddress, SocksRequest, Where, addresses, socks5_connect,
};

/// Longer than any of these cases takes.
const PATIENCE: Duration = Duration::from_secs(40);

/// What the server behind the services says.
const BODY: &str = "behind the onion";

/// Everything the cases need.
struct Stage {
    network: Network,
    server: HttpServer,
    service: Service,
    bystander: Service,
    authorized: Service,
    key: ClientKey,
}

impl Stage {
    fn set() -> Self {
        let start = Instant::now();
        let network = Network::builder()
            .circuit_timeout_ms(Some(2500))
            .start()
            .expect("a network");
        eprintln!("network: {:.1} s", start.elapsed().as_secs_f32());
        let server = HttpServer::start(BODY).expect("a server");
        let key = ClientKey::generate();
        let open = ServiceOptions::with_port(80, server.address());
        let closed = ServiceOptions {
            authorized: vec![key.public()],
            ..open.clone()
        };
        let start = Instant::now();
        let [service, bystander, authorized] = thread::scope(|scope| {
            [open.clone(), open, closed]
                .map(|options| scope.spawn(|| network.service(options)))
                .map(|worker| worker.join().expect("no panic").expect("a service"))
        });
        eprintln!("three services: {:.1} s", start.elapsed().as_secs_f32());
        Self {
            network,
            server,
            service,
            bystander,
            authorized,
            key,
        }
    }

    /// A client that knows no descriptor and remembers no failure yet.
    fn client(&self) -> CTor {
        self.network
            .c_tor_client(ClientOptions::default())
            .expect("a client")
    }

    /// A client with a key for the authorized service.
    fn client_with(&self, name: &str, key: &ClientKey) -> CTor {
        let folder = self.network.dir().join(name);
        key.write_to(&folder, "service", self.authorized.address())
            .expect("a key file");
        let options = ClientOptions {
            onion_auth_dir: Some(folder),
            ..ClientOptions::default()
        };
        self.network.c_tor_client(options).expect("a client")
    }
}

/// The code of a CONNECT.
fn code(port: SocketAddr, host: &str, target: u16) -> u8 {
    let reply = socks5_connect(port, host, target, PATIENCE)
        .unwrap_or_else(|e| panic!("{host}:{target}: {e:#}"));
    eprintln!(
        "{host}:{target}: {:02x} after {:.1} s",
        reply.code,
        reply.elapsed.as_secs_f32()
    );
    reply.code
}

/// The code for the service's port 80, with a client that comes new to it.
fn fresh_code(stage: &Stage, service: &Service) -> u8 {
    code(stage.client().extended_port(), service.address(), 80)
}

#[test]
fn every_way_of_breaking_is_what_c_tor_takes_it_for() {
    let stage = Stage::set();
    let judge = stage.client();
    reachable_services_answer(&stage, &judge);
    wrong_addresses_are_told_apart(&stage, &judge);
    authorization_is_asked_for(&stage, &judge);
    exits_reach_the_backends(&stage, &judge);
    spoilt_descriptors_spoil_one_service(&stage);
    a_frozen_service_thaws(&stage);
    relays_come_back(&stage);
    a_killed_service_comes_back(&stage);
    // A client keeps its network alive.
    drop(judge);
    stage.network.mark_done();
    nothing_is_left(stage);
}

fn reachable_services_answer(stage: &Stage, judge: &CTor) {
    let reply = socks5_connect(judge.extended_port(), stage.service.address(), 80, PATIENCE)
        .expect("a reply");
    assert_eq!(reply.code, 0x00);
    let mut stream = reply.stream.expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with(BODY), "{answer}");
    assert_eq!(stage.server.connections(), 1);
    assert!(stage.service.introduction_points().expect("points").len() >= 3);

    assert_eq!(
        code(judge.extended_port(), stage.service.address(), 81),
        0x05
    );
    let reply = SocksRequest::new(judge.plain_port(), stage.service.address(), 80)
        .login("one", "two")
        .send();
    assert_eq!(reply.expect("a reply").code, 0x00);
}

fn wrong_addresses_are_told_apart(stage: &Stage, judge: &CTor) {
    let extended = judge.extended_port();
    let address = stage.service.address();
    assert_eq!(
        code(extended, &stage.network.unpublished_address(), 80),
        0xf0
    );
    assert_eq!(
        code(judge.plain_port(), &stage.network.unpublished_address(), 80),
        0x04
    );
    let wrong = [
        addresses::bad_checksum(address),
        addresses::too_short(address),
        addresses::too_long_alias(address),
        addresses::version_two(),
        addresses::not_a_point(),
        addresses::torsion(address),
    ];
    for address in wrong {
        assert_eq!(code(extended, &address, 80), 0xf6, "{address}");
    }
    // C tor reckons the checksum with whatever version it finds, and looks at the version no further.
    assert_eq!(code(extended, &addresses::wrong_version(address), 80), 0x00);
}

fn authorization_is_asked_for(stage: &Stage, judge: &CTor) {
    let address = stage.authorized.address();
    let other_key = ClientKey::generate();
    assert_eq!(code(judge.extended_port(), address, 80), 0xf4);
    assert_eq!(
        code(
            stage.client_with("right", &stage.key).extended_port(),
            address,
            80
        ),
        0x00
    );
    assert_eq!(
        code(
            stage.client_with("wrong", &other_key).extended_port(),
            address,
            80
        ),
        0xf5
    );
    stage
        .authorized
        .set_authorized(&[other_key.public()])
        .expect("published anew");
    assert_eq!(
        code(
            stage.client_with("revoked", &stage.key).extended_port(),
            address,
            80
        ),
        0xf5
    );
    assert_eq!(
        code(
            stage.client_with("granted", &other_key).extended_port(),
            address,
            80
        ),
        0x00
    );
    stage
        .authorized
        .set_authorized(&[])
        .expect("published anew");
    assert_eq!(fresh_code(stage, &stage.authorized), 0x00);
}

fn exits_reach_the_backends(stage: &Stage, judge: &CTor) {
    let port = judge.extended_port();
    let four = stage.server.address().port();
    let six = EchoServer::start_on(Ipv6Addr::LOCALHOST.into()).expect("a server");
    let closed = ClosedPort::new().expect("a port");
    assert_eq!(code(port, "127.0.0.1", four), 0x00);
    assert_eq!(code(port, "good.test", four), 0x00);
    assert_eq!(code(port, "both.test", four), 0x00);
    assert_eq!(code(port, "six.test", six.address().port()), 0x00);
    assert_eq!(code(port, "nowhere.test", four), 0x04);
    assert_eq!(code(port, "127.0.0.1", closed.address().port()), 0x01);
    assert_eq!(code(port, "127.0.0.1", 9), 0x01);

    let look_up = |command, host| {
        SocksRequest::new(port, host, 0)
            .command(command)
            .send()
            .expect("a reply")
    };
    assert_eq!(
        look_up(0xf0, "six.test").bound,
        SocksAddress::Ip(Ipv6Addr::LOCALHOST.into())
    );
    assert_eq!(
        look_up(0xf1, "192.0.2.7").bound,
        SocksAddress::Name("good.test".into())
    );
    assert_eq!(look_up(0xf0, "nowhere.test").code, 0x04);
}

fn spoilt_descriptors_spoil_one_service(stage: &Stage) {
    let Stage {
        network,
        service,
        bystander,
        ..
    } = stage;
    let spoil = |corruption, place| {
        network
            .corrupt_descriptor(service, corruption, place)
            .expect("spoilt")
    };
    assert_eq!(spoil(Corruption::Signature, Where::OneHsDir), 1);
    assert_eq!(fresh_code(stage, service), 0x00);
    for corruption in [Corruption::Signature, Corruption::Syntax, Corruption::Body] {
        // Eight directories have each of two descriptors.
        let directories = spoil(corruption, Where::EveryHsDir);
        assert!(
            (8..=11).contains(&directories),
            "{corruption:?} at {directories}"
        );
        let client = stage.client();
        assert_eq!(
            code(client.extended_port(), service.address(), 80),
            0x04,
            "{corruption:?}"
        );
        assert_eq!(
            code(client.extended_port(), bystander.address(), 80),
            0x00,
            "{corruption:?}"
        );
    }
    service.restart().expect("published anew");
    assert_eq!(fresh_code(stage, service), 0x00);
}

fn a_frozen_service_thaws(stage: &Stage) {
    let client = stage.client();
    stage.bystander.freeze().expect("frozen");
    let wait = Duration::from_secs(4);
    let reply = socks5_connect(client.extended_port(), stage.bystander.address(), 80, wait);
    assert!(reply.is_err(), "{reply:?}");
    stage.bystander.thaw().expect("thawed");
    assert_eq!(
        code(client.extended_port(), stage.bystander.address(), 80),
        0x00
    );
}

fn relays_come_back(stage: &Stage) {
    let network = &stage.network;
    let relay = &network.relays(Role::Relay)[0];
    network
        .freeze_relays(std::slice::from_ref(relay))
        .expect("frozen");
    network
        .thaw_relays(std::slice::from_ref(relay))
        .expect("thawed");
    network.kill_relay(relay).expect("killed");
    assert!(network.kill_relay(relay).is_err());
    network.restart_relay(relay).expect("back");
    assert_eq!(network.nickname(relay), Some("relay0"));
}

fn a_killed_service_comes_back(stage: &Stage) {
    let Stage { service, .. } = stage;
    service.kill();
    assert!(service.freeze().is_err() && service.pid().is_none());
    // At first a client may come to wait for a rendezvous, and all its later requests with it; so each time a new client.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let client = stage.client();
        let wait = Duration::from_secs(10);
        let reply = socks5_connect(client.extended_port(), service.address(), 80, wait);
        if reply.as_ref().is_ok_and(|reply| reply.code == 0xf2) {
            break;
        }
        assert!(Instant::now() < deadline, "it never became F2: {reply:?}");
    }
    service.restart().expect("published anew");
    assert_eq!(fresh_code(stage, service), 0x00);
}

/// Introduction points that nothing else depends on: stopping them stops one service.
#[test]
fn spare_introduction_points_stop_alone() {
    let network = Network::builder()
        .relays(5)
        .spare_relays(3)
        .circuit_timeout_ms(Some(2500))
        .start()
        .expect("a network");
    let server = HttpServer::start(BODY).expect("a server");
    let open = ServiceOptions::with_port(80, server.address());
    let spared = ServiceOptions {
        intro_points_on_spare_relays: true,
        ..open.clone()
    };
    let service = network.service(spared).expect("a service");
    let bystander = network.service(open).expect("a service");
    let mut points = service.introduction_points().expect("points");
    let mut spares = network.relays(Role::Spare);
    points.sort();
    spares.sort();
    assert_eq!(points, spares);

    let client = || {
        let options = ClientOptions::default();
        network.c_tor_client(options).expect("a client")
    };
    let ask = |service: &Service| code(client().extended_port(), service.address(), 80);
    assert_eq!(ask(&service), 0x00);
    network.freeze_relays(&points).expect("frozen");
    assert_eq!(ask(&bystander), 0x00);
    let wait = Duration::from_secs(4);
    let reply = socks5_connect(client().extended_port(), service.address(), 80, wait);
    assert!(reply.is_err(), "{reply:?}");
    network.thaw_relays(&points).expect("thawed");
    assert_eq!(ask(&service), 0x00);
    network.mark_done();
}

/// Dropping ends what runs, what is stopped, and the folder.
fn nothing_is_left(stage: Stage) {
    let folder = stage.network.dir().to_owned();
    stage.bystander.freeze().expect("frozen");
    stage
        .network
        .freeze_relays(&stage.network.relays(Role::Relay)[..2])
        .expect("frozen");
    assert!(processes_of(&folder).len() >= 12);
    drop(stage);
    assert_eq!(processes_of(&folder), Vec::<u32>::new());
    assert!(!folder.exists());
}

/// A `testnet run` that is killed, and so has no time to clean up, with one of its relays stopped.
#[test]
fn a_killed_owner_leaves_nothing_behind() {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_testnet"))
        .args(["run", "--relays", "5", "--service", "8080"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let lines: Vec<String> = BufReader::new(owner.stdout.take().expect("output"))
        .lines()
        .map(|line| line.expect("text"))
        .take_while(|line| line != "ready")
        .collect();
    let value = |key: &str| {
        let found = lines
            .iter()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {key} in {lines:?}"))
    };
    let folder = PathBuf::from(value("folder"));
    let config = fs::read_to_string(value("arti-config")).expect("a configuration");
    assert!(config.contains("[tor_network]"));
    let (address, port) = value("service").split_once(':').expect("a port");
    let judge: SocketAddr = value("c-tor-extended").parse().expect("an address");
    assert_eq!(code(judge, address, port.parse().expect("a number")), 0x00);

    let processes = processes_of(&folder);
    // Eight relays, a service, a client, and the watcher of the folder.
    assert_eq!(processes.len(), 11);
    let stopped = processes_of(&folder.join("relay0"));
    assert!(
        Command::new("kill")
            .args(["-STOP", &stopped[0].to_string()])
            .status()
            .expect("kill")
            .success()
    );
    owner.kill().expect("killed");
    owner.wait().expect("dead");
    let deadline = Instant::now() + Duration::from_secs(10);
    while folder.exists() || !processes_of(&folder).is_empty() {
        assert!(
            Instant::now() < deadline,
            "left: {:?}",
            processes_of(&folder)
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// The processes that have a path below `folder` (or itself) among their arguments.
fn processes_of(folder: &Path) -> Vec<u32> {
    let folder = folder.to_str().expect("text");
    let mentions = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line)
            .split('\0')
            .any(|word| word.starts_with(folder))
    };
    let all = fs::read_dir("/proc")
        .expect("proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(mentions).collect()
}
