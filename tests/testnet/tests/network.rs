//! The private network, seen by C tor clients: each way to break a service, the targets behind exits, and the clean-up.

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

/// How long to wait for a reply: longer than any of these requests takes.
const REPLY_LIMIT: Duration = Duration::from_secs(40);

/// How long to wait for a reply that must not come.
const SILENCE: Duration = Duration::from_secs(4);

/// The answer of the HTTP server behind the services.
const BODY: &str = "behind the onion";

/// The network, server and services of most tests here.
struct NetworkFixture {
    network: Network,
    server: HttpServer,
    service: Service,
    bystander: Service,
    authorized: Service,
    key: ClientKey,
}

impl NetworkFixture {
    fn start() -> Self {
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
                .map(|worker| worker.join().expect("a result").expect("a service"))
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

    /// Starts a client, which has no cached descriptor and no recorded failure.
    fn client(&self) -> CTor {
        start_client(&self.network)
    }

    /// Requests the service's port 80 with a new client, and returns the reply code.
    fn code_for_new_client(&self, service: &Service) -> u8 {
        request_code(self.client().extended_port(), service.address(), 80)
    }

    /// Requests the authorized service with a new client that has `key`, and returns the reply code. The client's key folder
    /// is `name`.
    fn code_with_key(&self, name: &str, key: &ClientKey) -> u8 {
        let folder = self.network.dir().join(name);
        key.write_to(&folder, "service", self.authorized.address())
            .expect("a key file");
        let options = ClientOptions {
            onion_auth_dir: Some(folder),
            ..ClientOptions::default()
        };
        let client = self.network.c_tor_client(options).expect("a client");
        request_code(client.extended_port(), self.authorized.address(), 80)
    }
}

fn start_client(network: &Network) -> CTor {
    let options = ClientOptions::default();
    network.c_tor_client(options).expect("a client")
}

/// Requests `host` and the port `target` from the SOCKS port `port`, and returns the reply code.
fn request_code(port: SocketAddr, host: &str, target: u16) -> u8 {
    let reply = socks5_connect(port, host, target, REPLY_LIMIT)
        .unwrap_or_else(|e| panic!("{host}:{target}: {e:#}"));
    eprintln!(
        "{host}:{target}: {:02x} after {:.1} s",
        reply.code,
        reply.elapsed.as_secs_f32()
    );
    reply.code
}

/// Requests the service's port 80 and checks that no reply comes.
fn assert_no_reply(client: &CTor, service: &Service) {
    let reply = socks5_connect(client.extended_port(), service.address(), 80, SILENCE);
    assert!(reply.is_err(), "{reply:?}");
}

#[test]
fn c_tor_replies_to_each_failure_with_the_documented_code() {
    let fixture = NetworkFixture::start();
    let client = fixture.client();
    reachable_services_answer(&fixture, &client);
    invalid_addresses_are_reported(&fixture, &client);
    client_authorization_is_enforced(&fixture, &client);
    exits_reach_the_servers(&fixture, &client);
    corrupt_descriptors_break_only_their_service(&fixture);
    a_frozen_service_continues_after_thaw(&fixture);
    a_killed_relay_restarts(&fixture);
    a_killed_service_restarts(&fixture);
    // A client keeps its network alive.
    drop(client);
    fixture.network.mark_done();
    a_dropped_network_leaves_nothing_behind(fixture);
}

fn reachable_services_answer(fixture: &NetworkFixture, client: &CTor) {
    let address = fixture.service.address();
    let reply = socks5_connect(client.extended_port(), address, 80, REPLY_LIMIT).expect("a reply");
    assert_eq!(reply.code, 0x00);
    let mut stream = reply.stream.expect("a connection");
    stream
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("the request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.ends_with(BODY), "{answer}");
    assert_eq!(fixture.server.connections(), 1);
    assert!(fixture.service.introduction_points().expect("points").len() >= 3);

    assert_eq!(request_code(client.extended_port(), address, 81), 0x05);
    let reply = SocksRequest::new(client.plain_port(), address, 80)
        .login("one", "two")
        .send();
    assert_eq!(reply.expect("a reply").code, 0x00);
}

fn invalid_addresses_are_reported(fixture: &NetworkFixture, client: &CTor) {
    let (extended, plain) = (client.extended_port(), client.plain_port());
    let address = fixture.service.address();
    let network = &fixture.network;
    assert_eq!(
        request_code(extended, &network.unpublished_address(), 80),
        0xf0
    );
    assert_eq!(
        request_code(plain, &network.unpublished_address(), 80),
        0x04
    );
    let invalid = [
        addresses::bad_checksum(address),
        addresses::too_short(address),
        addresses::too_long_alias(address),
        addresses::version_two(),
        addresses::not_a_point(),
        addresses::torsion(address),
    ];
    for address in invalid {
        assert_eq!(request_code(extended, &address, 80), 0xf6, "{address}");
    }
    // C tor computes the checksum with the version in the address and does not check the version itself.
    let wrong_version = addresses::wrong_version(address);
    assert_eq!(request_code(extended, &wrong_version, 80), 0x00);
}

fn client_authorization_is_enforced(fixture: &NetworkFixture, client: &CTor) {
    let service = &fixture.authorized;
    let other_key = ClientKey::generate();
    let missing = request_code(client.extended_port(), service.address(), 80);
    assert_eq!(missing, 0xf4);
    assert_eq!(fixture.code_with_key("right", &fixture.key), 0x00);
    assert_eq!(fixture.code_with_key("wrong", &other_key), 0xf5);
    service
        .set_authorized(&[other_key.public()])
        .expect("new descriptors");
    assert_eq!(fixture.code_with_key("revoked", &fixture.key), 0xf5);
    assert_eq!(fixture.code_with_key("granted", &other_key), 0x00);
    service.set_authorized(&[]).expect("new descriptors");
    assert_eq!(fixture.code_for_new_client(service), 0x00);
}

fn exits_reach_the_servers(fixture: &NetworkFixture, client: &CTor) {
    let port = client.extended_port();
    let code = |host, target| request_code(port, host, target);
    let http = fixture.server.address().port();
    let v6_echo = EchoServer::start_on(Ipv6Addr::LOCALHOST.into()).expect("a server");
    let closed = ClosedPort::new().expect("a port");
    assert_eq!(code("127.0.0.1", http), 0x00);
    assert_eq!(code("good.test", http), 0x00);
    assert_eq!(code("both.test", http), 0x00);
    assert_eq!(code("six.test", v6_echo.address().port()), 0x00);
    assert_eq!(code("nowhere.test", http), 0x04);
    assert_eq!(code("127.0.0.1", closed.address().port()), 0x01);
    assert_eq!(code("127.0.0.1", 9), 0x01);

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

fn corrupt_descriptors_break_only_their_service(fixture: &NetworkFixture) {
    let NetworkFixture {
        network,
        service,
        bystander,
        ..
    } = fixture;
    let corrupt = |corruption, place| {
        network
            .corrupt_descriptor(service, corruption, place)
            .expect("the descriptors are corrupted")
    };
    assert_eq!(corrupt(Corruption::Signature, Where::OneHsDir), 1);
    assert_eq!(fixture.code_for_new_client(service), 0x00);
    for corruption in [Corruption::Signature, Corruption::Syntax, Corruption::Body] {
        // Each of the two descriptors is on eight of the eleven HSDirs.
        let count = corrupt(corruption, Where::EveryHsDir);
        assert!((8..=11).contains(&count), "{corruption:?} on {count}");
        let client = fixture.client();
        for (service, expected) in [(service, 0x04), (bystander, 0x00)] {
            let code = request_code(client.extended_port(), service.address(), 80);
            assert_eq!(code, expected, "{corruption:?}");
        }
    }
    service.restart().expect("new descriptors");
    assert_eq!(fixture.code_for_new_client(service), 0x00);
}

fn a_frozen_service_continues_after_thaw(fixture: &NetworkFixture) {
    let client = fixture.client();
    let service = &fixture.bystander;
    service.freeze().expect("the service is stopped");
    assert_no_reply(&client, service);
    service.thaw().expect("the service continues");
    let code = request_code(client.extended_port(), service.address(), 80);
    assert_eq!(code, 0x00);
}

fn a_killed_relay_restarts(fixture: &NetworkFixture) {
    let network = &fixture.network;
    let relay = &network.relays(Role::Relay)[0];
    network
        .freeze_relays(std::slice::from_ref(relay))
        .expect("the relay is stopped");
    network
        .thaw_relays(std::slice::from_ref(relay))
        .expect("the relay continues");
    network.kill_relay(relay).expect("the relay is killed");
    assert!(network.kill_relay(relay).is_err());
    network.restart_relay(relay).expect("the relay restarts");
    assert_eq!(network.nickname(relay), Some("relay0"));
}

fn a_killed_service_restarts(fixture: &NetworkFixture) {
    let NetworkFixture { service, .. } = fixture;
    service.kill();
    assert!(service.freeze().is_err() && service.pid().is_none());
    // Each attempt uses a new client: soon after the kill, a client may start to wait for a rendezvous, and then its later
    // requests wait too.
    let deadline = Instant::now() + REPLY_LIMIT;
    loop {
        let client = fixture.client();
        let wait = Duration::from_secs(10);
        let reply = socks5_connect(client.extended_port(), service.address(), 80, wait);
        if reply.as_ref().is_ok_and(|reply| reply.code == 0xf2) {
            break;
        }
        assert!(Instant::now() < deadline, "not F2 in time: {reply:?}");
    }
    service.restart().expect("new descriptors");
    assert_eq!(fixture.code_for_new_client(service), 0x00);
}

#[test]
fn stopping_spare_introduction_points_affects_only_their_service() {
    let network = Network::builder()
        .relays(5)
        .spare_relays(3)
        .circuit_timeout_ms(Some(2500))
        .start()
        .expect("a network");
    let server = HttpServer::start(BODY).expect("a server");
    let open = ServiceOptions::with_port(80, server.address());
    let on_spare_relays = ServiceOptions {
        intro_points_on_spare_relays: true,
        ..open.clone()
    };
    let service = network.service(on_spare_relays).expect("a service");
    let bystander = network.service(open).expect("a service");
    let mut points = service.introduction_points().expect("points");
    let mut spares = network.relays(Role::Spare);
    points.sort();
    spares.sort();
    assert_eq!(points, spares);

    let code = |service: &Service| {
        let client = start_client(&network);
        request_code(client.extended_port(), service.address(), 80)
    };
    assert_eq!(code(&service), 0x00);
    network
        .freeze_relays(&points)
        .expect("the introduction points are stopped");
    assert_eq!(code(&bystander), 0x00);
    assert_no_reply(&start_client(&network), &service);
    network
        .thaw_relays(&points)
        .expect("the introduction points continue");
    assert_eq!(code(&service), 0x00);
    network.mark_done();
}

/// Also ends processes that are stopped, and removes the folder.
fn a_dropped_network_leaves_nothing_behind(fixture: NetworkFixture) {
    let folder = fixture.network.dir().to_owned();
    fixture.bystander.freeze().expect("the service is stopped");
    fixture
        .network
        .freeze_relays(&fixture.network.relays(Role::Relay)[..2])
        .expect("the relays are stopped");
    assert!(processes_of(&folder).len() >= 12);
    drop(fixture);
    assert_eq!(processes_of(&folder), Vec::<u32>::new());
    assert!(!folder.exists());
}

/// One of its relays is stopped.
#[test]
fn a_killed_testnet_program_leaves_no_process_and_no_folder() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_testnet"))
        .args(["run", "--relays", "5", "--service", "8080"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let lines: Vec<String> = BufReader::new(program.stdout.take().expect("its output"))
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
    let socks_port: SocketAddr = value("c-tor-extended").parse().expect("an address");
    let code = request_code(socks_port, address, port.parse().expect("a number"));
    assert_eq!(code, 0x00);

    let processes = processes_of(&folder);
    // Three authorities, five relays, a service, a client, and the watcher of the folder.
    assert_eq!(processes.len(), 11);
    let stopped = processes_of(&folder.join("relay0"));
    assert!(
        Command::new("kill")
            .args(["-STOP", &stopped[0].to_string()])
            .status()
            .expect("kill")
            .success()
    );
    program.kill().expect("the program is killed");
    program.wait().expect("the program ends");
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

/// Returns the processes that have the path of `folder`, or of a file below it, among their arguments.
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
