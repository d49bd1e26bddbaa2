//! Which streams share a circuit: the same requests to onionport and C tor, on ports with the same flags.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};
use testnet::{CTor, ClientOptions, EchoServer, Service, ServiceOptions};

use crate::daemon::{Onionport, Start};
use crate::setup::{check_echo, circuits_of_streams, network_builder, wait_until};

/// How long a read, or a new identity, may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The flags of the ports. Each port has its own loopback address.
const PORTS: &[&str] = &[
    "",
    "IsolateDestAddr",
    "IsolateDestPort",
    "NoIsolateSOCKSAuth",
    "SessionGroup=7",
    "SessionGroup=7 IsolateClientProtocol",
    "NoIsolateClientAddr",
    "IsolateDestAddr IsolateDestPort",
];

/// One request.
struct Request {
    /// The index of the port in [`PORTS`].
    port: usize,
    /// The last byte of the client's address.
    from: u8,
    /// User name and password for SOCKS5.
    login: Option<(&'static str, &'static str)>,
    /// Whether to use SOCKS4a instead of SOCKS5.
    socks4: bool,
    /// A name or address for an exit, or [`SERVICE`], [`UPPERCASE`] or [`SUBDOMAIN`].
    host: &'static str,
    /// The index of one of the two servers, or of the service's ports to them.
    server: usize,
    /// Requests with the same letter share a circuit; all others do not.
    group: char,
}

const fn request(port: usize, group: char) -> Request {
    Request {
        port,
        from: 1,
        login: None,
        socks4: false,
        host: "good.test",
        server: 0,
        group,
    }
}

const fn login(user: &'static str, password: &'static str, request: Request) -> Request {
    Request {
        login: Some((user, password)),
        ..request
    }
}

const fn from(from: u8, request: Request) -> Request {
    Request { from, ..request }
}

const fn second_server(request: Request) -> Request {
    Request {
        server: 1,
        ..request
    }
}

const fn host(host: &'static str, request: Request) -> Request {
    Request { host, ..request }
}

const fn socks4(request: Request) -> Request {
    Request {
        socks4: true,
        ..request
    }
}

const fn service(request: Request) -> Request {
    Request {
        host: SERVICE,
        ..request
    }
}

/// The address of the onion service, the same in upper case, and a name below it.
const SERVICE: &str = "SERVICE";
const UPPERCASE: &str = "UPPERCASE";
const SUBDOMAIN: &str = "SUBDOMAIN";

/// The ports of the onion service, one for each server.
const SERVICE_PORTS: [u16; 2] = [80, 81];

/// The group of the first requests.
const FIRST: char = 'a';

const REQUESTS: &[Request] = &[
    // Without flags: isolated by client address and by login.
    request(0, 'a'),
    second_server(request(0, 'a')),
    host("127.0.0.1", request(0, 'a')),
    socks4(request(0, 'a')),
    login("alice", "1", request(0, 'b')),
    login("alice", "1", host("127.0.0.1", request(0, 'b'))),
    login("alice", "2", request(0, 'c')),
    login("bob", "1", request(0, 'd')),
    login("<torS0X>0", "token", request(0, 'e')),
    from(2, request(0, 'f')),
    from(2, request(0, 'f')),
    request(0, 'a'),
    // IsolateDestAddr: isolated by the address as the client wrote it.
    request(1, 'g'),
    second_server(request(1, 'g')),
    host("GOOD.test", request(1, 'g')),
    host("127.0.0.1", request(1, 'h')),
    // IsolateDestPort
    request(2, 'i'),
    host("127.0.0.1", request(2, 'i')),
    second_server(request(2, 'j')),
    // NoIsolateSOCKSAuth
    login("alice", "1", request(3, 'k')),
    login("bob", "2", request(3, 'k')),
    request(3, 'k'),
    // A session group of two ports: the second isolates SOCKS4 from SOCKS5.
    request(4, 'l'),
    request(5, 'l'),
    socks4(request(5, 'm')),
    // NoIsolateClientAddr
    request(6, 'n'),
    from(2, request(6, 'n')),
    // IsolateDestAddr and IsolateDestPort.
    request(7, 'o'),
    second_server(request(7, 'p')),
    host("127.0.0.1", request(7, 'q')),
    request(7, 'o'),
    // An onion service: the same rules, but no circuits are built in advance.
    service(request(0, 'A')),
    second_server(service(request(0, 'A'))),
    socks4(service(request(0, 'A'))),
    host(SUBDOMAIN, request(0, 'A')),
    login("alice", "1", service(request(0, 'B'))),
    login("alice", "1", second_server(service(request(0, 'B')))),
    login("alice", "2", service(request(0, 'C'))),
    login("bob", "1", service(request(0, 'D'))),
    from(2, service(request(0, 'E'))),
    from(2, second_server(service(request(0, 'E')))),
    // IsolateDestAddr
    service(request(1, 'F')),
    second_server(service(request(1, 'F'))),
    host(UPPERCASE, request(1, 'F')),
    host(SUBDOMAIN, request(1, 'G')),
    // IsolateDestPort
    service(request(2, 'H')),
    second_server(service(request(2, 'I'))),
    // NoIsolateSOCKSAuth
    login("alice", "1", service(request(3, 'J'))),
    login("bob", "2", service(request(3, 'J'))),
    // A session group of two ports.
    service(request(4, 'K')),
    service(request(5, 'K')),
    socks4(service(request(5, 'L'))),
    // NoIsolateClientAddr
    service(request(6, 'M')),
    from(2, service(request(6, 'M'))),
    // Repeats the first requests, late enough that the program must read the client's keys again.
    service(request(0, 'A')),
    login("alice", "1", service(request(0, 'B'))),
];

#[test]
fn streams_share_a_circuit_exactly_where_ports_allow_it_and_never_after_a_new_identity()
-> Result<()> {
    let network = network_builder().start()?;
    let servers = [EchoServer::start()?, EchoServer::start()?];
    let [first, second] = [0, 1].map(|i| (SERVICE_PORTS[i], servers[i].address()));
    let onion = network.service(ServiceOptions {
        ports: vec![first, second],
        ..ServiceOptions::default()
    })?;
    let targets = Targets { servers, onion };
    let lines: Vec<String> = PORTS
        .iter()
        .enumerate()
        .map(|(index, flags)| format!("{}:auto {flags}", port_address(index)))
        .collect();
    let c_tor = network.c_tor_client(ClientOptions {
        extra_torrc_lines: lines.iter().map(|l| format!("SocksPort {l}")).collect(),
        ..ClientOptions::default()
    })?;
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let onionport = Start::new(&network).socks_ports(&lines).start()?;

    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    // The streams stay open: an idle circuit may be closed, and its number used again.
    let mut streams = Vec::new();
    for request in REQUESTS {
        streams.push(request.send(onionport.port(request.port), &targets)?);
        ours.push(circuit_of_newest_stream(&onionport)?);
        streams.push(request.send(c_tor_port(&c_tor, request.port)?, &targets)?);
        theirs.push(c_tor_circuit_of_newest_stream(&c_tor)?);
    }
    println!("request  group   onionport  C tor");
    for (index, request) in REQUESTS.iter().enumerate() {
        let (ours, theirs) = (&ours[index], &theirs[index]);
        println!("{index:7}  {:6}  {ours:9}  {theirs}", request.group);
    }
    let mut wrong = Vec::new();
    for (i, a) in REQUESTS.iter().enumerate() {
        for (j, b) in REQUESTS.iter().enumerate().skip(i + 1) {
            let same_group = a.group == b.group;
            // The first group may use any of the circuits that were built in advance.
            let has_choice = same_group && a.group == FIRST;
            if (ours[i] == ours[j]) != same_group && !has_choice {
                wrong.push(format!("onionport, requests {i} and {j}"));
            }
            // C tor may use another circuit within a group.
            if theirs[i] == theirs[j] && !same_group {
                wrong.push(format!("C tor, requests {i} and {j}"));
            }
        }
    }
    assert!(wrong.is_empty(), "wrong: {}", wrong.join("; "));
    let first: Vec<&String> = REQUESTS
        .iter()
        .zip(&ours)
        .filter_map(|(request, circuit)| (request.group == FIRST).then_some(circuit))
        .collect();
    let circuits: HashSet<&&String> = first.iter().collect();
    assert!(
        circuits.len() < first.len(),
        "no streams share a circuit: {first:?}"
    );

    // After a new identity, new streams use new circuits, and open streams stay open.
    onionport.signal("USR1")?;
    c_tor.control("SIGNAL NEWNYM")?;
    wait_until("the program has a new identity", LIMIT, || {
        onionport
            .log()
            .contains("new identity: new streams use new circuits")
    })?;
    for request in [request(0, 'a'), service(request(0, 'A'))] {
        let host = request.host;
        streams.push(request.send(onionport.port(0), &targets)?);
        let newest = circuit_of_newest_stream(&onionport)?;
        assert!(
            !ours.contains(&newest),
            "{host}: circuit {newest} is not new"
        );
        streams.push(request.send(c_tor_port(&c_tor, 0)?, &targets)?);
        let newest = c_tor_circuit_of_newest_stream(&c_tor)?;
        assert!(
            !theirs.contains(&newest),
            "{host}: C tor's circuit {newest} is not new"
        );
    }
    for stream in &mut streams {
        check_echo(stream)?;
    }
    network.mark_done();
    Ok(())
}

/// The address of a port, which also identifies the listener of C tor.
fn port_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 7, u8::try_from(index).expect("few ports") + 1)
}

/// C tor's port with this index.
fn c_tor_port(c_tor: &CTor, index: usize) -> Result<SocketAddr> {
    c_tor.listener("socks", port_address(index))
}

fn circuit_of_newest_stream(onionport: &Onionport) -> Result<String> {
    let newest = circuits_of_streams(&onionport.log()).pop();
    newest.context("no circuit in the log")
}

/// `GETINFO stream-status` has a line for each stream: number, state, circuit and destination.
fn c_tor_circuit_of_newest_stream(c_tor: &CTor) -> Result<String> {
    let answer = c_tor.control("GETINFO stream-status")?;
    let lines = answer.iter().flat_map(|part| part.lines());
    let streams = lines.filter_map(|line| {
        let line = line.rsplit("stream-status=").next()?;
        let [number, "SUCCEEDED", circuit, ..] = line.split(' ').collect::<Vec<_>>()[..] else {
            return None;
        };
        Some((number.parse::<u64>().ok()?, circuit.to_owned()))
    });
    let newest = streams.max_by_key(|(number, _)| *number);
    Ok(newest
        .with_context(|| format!("no open stream in {answer:?}"))?
        .1)
}

/// The destinations of requests.
struct Targets {
    servers: [EchoServer; 2],
    onion: Service,
}

impl Request {
    /// The host and port to request.
    fn target(&self, targets: &Targets) -> (String, u16) {
        let onion = targets.onion.address();
        let host = match self.host {
            SERVICE => onion.to_owned(),
            UPPERCASE => onion.to_ascii_uppercase(),
            SUBDOMAIN => format!("www.{onion}"),
            name => {
                return (
                    name.to_owned(),
                    targets.servers[self.server].address().port(),
                );
            }
        };
        (host, SERVICE_PORTS[self.server])
    }

    /// Opens the stream and checks that it works.
    fn send(&self, proxy: SocketAddr, targets: &Targets) -> Result<TcpStream> {
        let (host, port) = self.target(targets);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let client = IpAddr::V4(Ipv4Addr::new(127, 0, 0, self.from));
        socket.bind(&SocketAddr::new(client, 0).into())?;
        socket.connect(&proxy.into())?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LIMIT))?;
        let length = u8::try_from(host.len())?;
        if self.socks4 {
            let mut request = vec![4, 1];
            request.extend(port.to_be_bytes());
            request.extend([0, 0, 0, 1, 0]);
            request.extend(host.as_bytes());
            request.push(0);
            stream.write_all(&request)?;
            let mut reply = [0; 8];
            stream.read_exact(&mut reply)?;
            ensure!(reply[1] == 0x5A, "SOCKS4 reply {reply:02X?}");
        } else {
            match self.login {
                None => {
                    stream.write_all(&[5, 1, 0])?;
                    stream.read_exact(&mut [0; 2])?;
                }
                Some((user, password)) => {
                    stream.write_all(&[5, 1, 2])?;
                    stream.read_exact(&mut [0; 2])?;
                    let mut login = vec![1, u8::try_from(user.len())?];
                    login.extend(user.as_bytes());
                    login.push(u8::try_from(password.len())?);
                    login.extend(password.as_bytes());
                    stream.write_all(&login)?;
                    stream.read_exact(&mut [0; 2])?;
                }
            }
            let mut request = vec![5, 1, 0, 3, length];
            request.extend(host.as_bytes());
            request.extend(port.to_be_bytes());
            stream.write_all(&request)?;
            let mut reply = [0; 10];
            stream.read_exact(&mut reply)?;
            ensure!(reply[1] == 0, "reply {reply:02X?}");
        }
        check_echo(&mut stream)?;
        Ok(stream)
    }
}
