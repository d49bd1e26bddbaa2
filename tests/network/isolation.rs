//! Which streams share a circuit: the same requests through onionport and C tor, on ports with the
//! same flags.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};
use testnet::{CTor, ClientOptions, EchoServer, Network, Service, ServiceOptions};

use crate::daemon::Onionport;
use crate::program;

const PATIENCE: Duration = Duration::from_secs(60);

/// The flags of the ports, which each get a loopback address of their own.
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
struct Ask {
    /// The number of the port.
    port: usize,
    /// The last byte of the client's address.
    from: u8,
    /// User and password over SOCKS5; `None` for SOCKS4a, or for SOCKS5 without.
    login: Option<(&'static str, &'static str)>,
    socks4: bool,
    /// A name or address for an exit, or [`SERVICE`], [`SHOUTED`] or [`BELOW`].
    host: &'static str,
    /// Which of the two servers, or of the two ports of the service.
    server: usize,
    /// Requests with the same letter share a circuit, all others do not.
    group: char,
}

const fn ask(port: usize, group: char) -> Ask {
    Ask {
        port,
        from: 1,
        login: None,
        socks4: false,
        host: "good.test",
        server: 0,
        group,
    }
}

const fn login(user: &'static str, password: &'static str, ask: Ask) -> Ask {
    Ask {
        login: Some((user, password)),
        ..ask
    }
}

const fn from(from: u8, ask: Ask) -> Ask {
    Ask { from, ..ask }
}

const fn elsewhere(ask: Ask) -> Ask {
    Ask { server: 1, ..ask }
}

const fn host(host: &'static str, ask: Ask) -> Ask {
    Ask { host, ..ask }
}

const fn socks4(ask: Ask) -> Ask {
    Ask {
        socks4: true,
        ..ask
    }
}

const fn service(ask: Ask) -> Ask {
    Ask {
        host: SERVICE,
        ..ask
    }
}

/// The address of the onion service, the same in capitals, and a name below it.
const SERVICE: &str = "SERVICE";
const SHOUTED: &str = "SHOUTED";
const BELOW: &str = "BELOW";

/// The ports of the onion service, one for each server.
const SERVICE_PORTS: [u16; 2] = [80, 81];

/// The group of the first requests.
const FIRST: char = 'a';

const ASKS: &[Ask] = &[
    // Without flags: by client and by user and password.
    ask(0, 'a'),
    elsewhere(ask(0, 'a')),
    host("127.0.0.1", ask(0, 'a')),
    socks4(ask(0, 'a')),
    login("alice", "1", ask(0, 'b')),
    login("alice", "1", host("127.0.0.1", ask(0, 'b'))),
    login("alice", "2", ask(0, 'c')),
    login("bob", "1", ask(0, 'd')),
    login("<torS0X>0", "token", ask(0, 'e')),
    from(2, ask(0, 'f')),
    from(2, ask(0, 'f')),
    ask(0, 'a'),
    // IsolateDestAddr: by the address as it was written.
    ask(1, 'g'),
    elsewhere(ask(1, 'g')),
    host("GOOD.test", ask(1, 'g')),
    host("127.0.0.1", ask(1, 'h')),
    // IsolateDestPort
    ask(2, 'i'),
    host("127.0.0.1", ask(2, 'i')),
    elsewhere(ask(2, 'j')),
    // NoIsolateSOCKSAuth
    login("alice", "1", ask(3, 'k')),
    login("bob", "2", ask(3, 'k')),
    ask(3, 'k'),
    // A group of two ports: the second keeps SOCKS4 and SOCKS5 apart.
    ask(4, 'l'),
    ask(5, 'l'),
    socks4(ask(5, 'm')),
    // NoIsolateClientAddr
    ask(6, 'n'),
    from(2, ask(6, 'n')),
    // Both.
    ask(7, 'o'),
    elsewhere(ask(7, 'p')),
    host("127.0.0.1", ask(7, 'q')),
    ask(7, 'o'),
    // An onion service: the same rules, on circuits that nobody builds beforehand.
    service(ask(0, 'A')),
    elsewhere(service(ask(0, 'A'))),
    socks4(service(ask(0, 'A'))),
    host(BELOW, ask(0, 'A')),
    login("alice", "1", service(ask(0, 'B'))),
    login("alice", "1", elsewhere(service(ask(0, 'B')))),
    login("alice", "2", service(ask(0, 'C'))),
    login("bob", "1", service(ask(0, 'D'))),
    from(2, service(ask(0, 'E'))),
    from(2, elsewhere(service(ask(0, 'E')))),
    // IsolateDestAddr
    service(ask(1, 'F')),
    elsewhere(service(ask(1, 'F'))),
    host(SHOUTED, ask(1, 'F')),
    host(BELOW, ask(1, 'G')),
    // IsolateDestPort
    service(ask(2, 'H')),
    elsewhere(service(ask(2, 'I'))),
    // NoIsolateSOCKSAuth
    login("alice", "1", service(ask(3, 'J'))),
    login("bob", "2", service(ask(3, 'J'))),
    // A group of two ports.
    service(ask(4, 'K')),
    service(ask(5, 'K')),
    socks4(service(ask(5, 'L'))),
    // NoIsolateClientAddr
    service(ask(6, 'M')),
    from(2, service(ask(6, 'M'))),
    // Back to the first identities: longer ago than a circuit is at hand without a look at the keys.
    service(ask(0, 'A')),
    login("alice", "1", service(ask(0, 'B'))),
];

#[test]
fn streams_share_a_circuit_exactly_where_their_ports_allow_it() -> Result<()> {
    let network = Network::builder()
        .relays(8)
        .circuit_timeout_ms(Some(2500))
        .start()?;
    let servers = [EchoServer::start()?, EchoServer::start()?];
    let [first, second] = [0, 1].map(|n| (SERVICE_PORTS[n], servers[n].address()));
    let onion = network.service(ServiceOptions {
        ports: vec![first, second],
        ..ServiceOptions::default()
    })?;
    let targets = Targets { servers, onion };
    let lines: Vec<String> = PORTS
        .iter()
        .enumerate()
        .map(|(number, flags)| format!("{}:auto {flags}", place(number)))
        .collect();
    let judge = network.c_tor_client(ClientOptions {
        extra_torrc_lines: lines.iter().map(|l| format!("SocksPort {l}")).collect(),
        ..ClientOptions::default()
    })?;
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let onionport = Onionport::with_ports(program(), &network, "", &lines)?;

    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    // Open to the end: an idle circuit may be closed, and its number used again.
    let mut streams = Vec::new();
    for ask in ASKS {
        streams.push(ask.send(onionport.port(ask.port), &targets)?);
        ours.push(circuit_of_newest_stream(&onionport)?);
        streams.push(ask.send(judges_port(&judge, ask.port)?, &targets)?);
        theirs.push(judges_circuit_of_newest_stream(&judge)?);
    }
    println!("request  should  onionport  C tor");
    for (number, ask) in ASKS.iter().enumerate() {
        let (ours, theirs) = (&ours[number], &theirs[number]);
        println!("{number:7}  {:6}  {ours:9}  {theirs}", ask.group);
    }
    let mut wrong = Vec::new();
    for (i, a) in ASKS.iter().enumerate() {
        for (j, b) in ASKS.iter().enumerate().skip(i + 1) {
            let together = a.group == b.group;
            // The first group finds circuits that were built beforehand, and may use any of them.
            let choice = together && a.group == FIRST;
            if (ours[i] == ours[j]) != together && !choice {
                wrong.push(format!("onionport, requests {i} and {j}"));
            }
            // That C tor chooses another circuit where it need not is its own affair.
            if theirs[i] == theirs[j] && !together {
                wrong.push(format!("C tor, requests {i} and {j}"));
            }
        }
    }
    assert!(wrong.is_empty(), "wrong: {}", wrong.join("; "));
    let first: Vec<&String> = ASKS
        .iter()
        .zip(&ours)
        .filter_map(|(ask, circuit)| (ask.group == FIRST).then_some(circuit))
        .collect();
    let circuits: HashSet<&&String> = first.iter().collect();
    assert!(circuits.len() < first.len(), "no stream shares: {first:?}");

    // New circuits on demand; streams that are open go on.
    onionport.signal("USR1")?;
    judge.control("SIGNAL NEWNYM")?;
    wait_for(|| {
        onionport
            .log()
            .contains("new identity: new streams use new circuits")
    })?;
    for again in [ask(0, 'a'), service(ask(0, 'A'))] {
        let what = again.host;
        streams.push(again.send(onionport.port(0), &targets)?);
        let newest = circuit_of_newest_stream(&onionport)?;
        assert!(
            !ours.contains(&newest),
            "{what}: circuit {newest} is not new"
        );
        streams.push(again.send(judges_port(&judge, 0)?, &targets)?);
        let newest = judges_circuit_of_newest_stream(&judge)?;
        assert!(
            !theirs.contains(&newest),
            "{what}: C tor's circuit {newest} is not new"
        );
    }
    for stream in &mut streams {
        assert_echoes(stream)?;
    }
    network.mark_done();
    Ok(())
}

/// The address of a port: by it the judge's listeners are told apart.
fn place(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 7, u8::try_from(number).expect("few ports") + 1)
}

/// The judge's port of that number.
fn judges_port(judge: &CTor, number: usize) -> Result<SocketAddr> {
    judge.listener("socks", place(number))
}

fn circuit_of_newest_stream(onionport: &Onionport) -> Result<String> {
    let log = onionport.log();
    let mut circuits = log.lines().rev().filter_map(|line| {
        let (_, circuit) = line
            .split_once("asking the exit of circuit ")
            .or_else(|| line.split_once("opening a stream to the onion service on circuit "))?;
        Some(circuit.to_owned())
    });
    circuits.next().context("no circuit in the log")
}

/// `GETINFO stream-status` has a line for each stream: its number, state, circuit and target.
fn judges_circuit_of_newest_stream(judge: &CTor) -> Result<String> {
    let answer = judge.control("GETINFO stream-status")?;
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

/// Where requests go.
struct Targets {
    servers: [EchoServer; 2],
    onion: Service,
}

impl Ask {
    /// The host and port to ask for.
    fn target(&self, targets: &Targets) -> (String, u16) {
        let onion = targets.onion.address();
        let host = match self.host {
            SERVICE => onion.to_owned(),
            SHOUTED => onion.to_ascii_uppercase(),
            BELOW => format!("www.{onion}"),
            name => {
                return (
                    name.to_owned(),
                    targets.servers[self.server].address().port(),
                );
            }
        };
        (host, SERVICE_PORTS[self.server])
    }

    /// Opens the stream, and sees that it works.
    fn send(&self, proxy: SocketAddr, targets: &Targets) -> Result<TcpStream> {
        let (host, port) = self.target(targets);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let client = IpAddr::V4(Ipv4Addr::new(127, 0, 0, self.from));
        socket.bind(&SocketAddr::new(client, 0).into())?;
        socket.connect(&proxy.into())?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
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
        assert_echoes(&mut stream)?;
        Ok(stream)
    }
}

fn assert_echoes(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"hello")?;
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed)?;
    ensure!(&echoed == b"hello", "{echoed:?}");
    Ok(())
}

/// Waits until something is so.
fn wait_for(mut so: impl FnMut() -> bool) -> Result<()> {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !so() {
        ensure!(std::time::Instant::now() < deadline, "waited in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
