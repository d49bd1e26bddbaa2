//! The programs that people point at a SOCKS port: each does the same through onionport as through
//! C tor.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use testnet::{ClientOptions, Network, ServiceOptions};

use crate::daemon::Onionport;
use crate::program;

/// How many seconds a client may take.
const LIMIT: u32 = 60;
/// What the web server behind the onion service has to offer.
const PAGE: &str = "hello from the onion\n";
/// The SOCKS ports of one program.
struct Ports {
    tcp: SocketAddr,
    unix: PathBuf,
}

/// What is there to be reached.
struct World {
    /// Offers a page and a git repository at port 80, sshd at port 22, nothing at port 81.
    onion: String,
    unpublished: String,
    folder: PathBuf,
}

/// One client with one thing to do.
struct Client {
    name: &'static str,
    /// The program that has to be installed.
    program: &'static str,
    /// The command, for a shell.
    command: fn(&Ports, &World) -> String,
    /// What its output has to hold, or `None` if it has to fail.
    expected: Option<&'static str>,
}

const CLIENTS: &[Client] = &[
    Client {
        name: "curl, SOCKS5",
        program: "curl",
        command: |p, w| {
            format!(
                "curl -sS --socks5-hostname {} http://{}/page",
                p.tcp, w.onion
            )
        },
        expected: Some(PAGE),
    },
    Client {
        name: "curl, SOCKS4a",
        program: "curl",
        command: |p, w| format!("curl -sS --socks4a {} http://{}/page", p.tcp, w.onion),
        expected: Some(PAGE),
    },
    Client {
        name: "curl, user and password",
        program: "curl",
        command: |p, w| {
            format!(
                "curl -sS -x socks5h://alice:secret@{} http://{}/page",
                p.tcp, w.onion
            )
        },
        expected: Some(PAGE),
    },
    Client {
        name: "curl, unix socket",
        program: "curl",
        command: |p, w| {
            let socket = p.unix.display();
            format!(
                "curl -sS -x socks5h://localhost{socket} http://{}/page",
                w.onion
            )
        },
        expected: Some(PAGE),
    },
    Client {
        name: "curl, no such service",
        program: "curl",
        command: |p, w| {
            format!(
                "curl -sS --socks5-hostname {} http://{}/",
                p.tcp, w.unpublished
            )
        },
        expected: None,
    },
    Client {
        name: "curl, no such port",
        program: "curl",
        command: |p, w| {
            format!(
                "curl -sS --socks5-hostname {} http://{}:81/",
                p.tcp, w.onion
            )
        },
        expected: None,
    },
    Client {
        name: "torsocks curl",
        program: "torsocks",
        command: |p, w| format!("{} curl -sS http://{}/page", torsocks(p), w.onion),
        expected: Some(PAGE),
    },
    Client {
        name: "torsocks, a look-up",
        program: "torsocks",
        command: |p, _| {
            let look_up = "import socket; print(socket.gethostbyname('public.test'))";
            format!("{} /usr/bin/python3 -c \"{look_up}\"", torsocks(p))
        },
        expected: Some("203.0.113.7\n"),
    },
    Client {
        name: "proxychains curl",
        program: "proxychains4",
        command: |p, w| {
            let file = w.folder.join(format!("proxychains.{}", p.tcp.port()));
            let lines = format!(
                "strict_chain\nproxy_dns\n[ProxyList]\nsocks5 127.0.0.1 {}\n",
                p.tcp.port()
            );
            fs::write(&file, lines).expect("written");
            format!(
                "proxychains4 -q -f {} curl -sS http://{}/page",
                file.display(),
                w.onion
            )
        },
        expected: Some(PAGE),
    },
    Client {
        name: "ssh through nc",
        program: "nc",
        command: |p, w| {
            let folder = w.folder.display();
            format!(
                "ssh -F none -i {folder}/client -o IdentitiesOnly=yes -o BatchMode=yes \
                 -o StrictHostKeyChecking=no -o UserKnownHostsFile={folder}/known -o LogLevel=ERROR \
                 -o 'ProxyCommand=nc -X 5 -x {} %h %p' $(id -un)@{} echo hello from sshd",
                p.tcp, w.onion
            )
        },
        expected: Some("hello from sshd\n"),
    },
    Client {
        name: "git",
        program: "git",
        command: |p, w| {
            format!(
                "git -c http.proxy=socks5h://{} ls-remote http://{}/repository.git",
                p.tcp, w.onion
            )
        },
        expected: Some("refs/heads/main\n"),
    },
    Client {
        name: "Python requests",
        program: "/usr/bin/python3",
        command: |p, w| {
            let script = format!(
                "import requests; p = 'socks5h://{}'; \
                 print(requests.get('http://{}/page', proxies={{'http': p}}).text, end='')",
                p.tcp, w.onion
            );
            format!("/usr/bin/python3 -c \"{script}\"")
        },
        expected: Some(PAGE),
    },
    Client {
        name: "Chromium",
        program: "chromium",
        command: |p, w| {
            let profile = w.folder.join(format!("chromium.{}", p.tcp.port()));
            format!(
                "HOME={profile} chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
                 --disable-background-networking --disable-component-update --disable-sync \
                 --user-data-dir={profile} --proxy-server=socks5://{} --dump-dom http://{}/page.html 2>/dev/null",
                p.tcp,
                w.onion,
                profile = profile.display()
            )
        },
        expected: Some("hello from the onion"),
    },
];

/// The start of a torsocks command line, for a program's TCP port.
fn torsocks(ports: &Ports) -> String {
    format!("torsocks -a 127.0.0.1 -P {}", ports.tcp.port())
}

#[test]
fn real_clients_do_the_same_as_through_c_tor() -> Result<()> {
    let network = Network::builder()
        .relays(8)
        .circuit_timeout_ms(Some(2500))
        .start()?;
    let folder = tempfile::tempdir_in(network.dir())?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))?;
    let (_servers, web, ssh) = servers(folder.path())?;
    let service = network.service(ServiceOptions {
        ports: vec![(80, web), (22, ssh)],
        ..ServiceOptions::default()
    })?;
    let world = World {
        onion: service.address().to_owned(),
        unpublished: network.unpublished_address(),
        folder: folder.path().to_owned(),
    };
    let unix = folder.path().join("ours");
    let line = format!("unix:{}", unix.display());
    let onionport = Onionport::with_ports(program(), &network, "", &["auto", &line])?;
    let ours = Ports {
        tcp: onionport.port(0),
        unix,
    };
    let unix = folder.path().join("theirs");
    let judge = network.c_tor_client(ClientOptions {
        extra_torrc_lines: vec![format!("SocksPort unix:{}", unix.display())],
        ..ClientOptions::default()
    })?;
    let theirs = Ports {
        tcp: judge.plain_port(),
        unix,
    };

    let mut wrong = Vec::new();
    for client in CLIENTS {
        if !installed(client.program) {
            ensure!(
                std::env::var_os("CI").is_none(),
                "{} is not installed",
                client.program
            );
            println!("{:28} not installed: {}", client.name, client.program);
            continue;
        }
        let (ours, theirs) = (client.run(&ours, &world)?, client.run(&theirs, &world)?);
        let same = if ours == theirs { "same" } else { "DIFFERENT" };
        println!(
            "{:28} {same}: {}",
            client.name,
            ours.trim_end().replace('\n', " / ")
        );
        let right = match client.expected {
            Some(text) => ours.starts_with("status 0\n") && ours.contains(text),
            None => !ours.starts_with("status 0\n"),
        };
        if !right || ours != theirs {
            wrong.push(format!(
                "{}: onionport: {ours:?}, C tor: {theirs:?}",
                client.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    network.mark_done();
    Ok(())
}

impl Client {
    /// The exit status and everything said. The names of services and places are the same for both
    /// programs but for the port, which is taken out.
    fn run(&self, ports: &Ports, world: &World) -> Result<String> {
        let command = (self.command)(ports, world);
        let output = Command::new("timeout")
            .args([&LIMIT.to_string(), "sh", "-c", &command])
            .stdin(Stdio::null())
            .env("TORSOCKS_LOG_LEVEL", "1")
            .output()
            .with_context(|| format!("cannot run {}", self.name))?;
        let status = output.status.code().unwrap_or(-1);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).replace(&ports.tcp.port().to_string(), "PORT");
        // curl counts the milliseconds.
        let said = said.split(" after ").next().unwrap_or_default().to_owned();
        Ok(format!("status {status}\n{said}"))
    }
}

/// Whether a program is there.
fn installed(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

/// Child processes that are killed when dropped.
struct Servers(Vec<Child>);

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A web server with a page and a git repository, and an ssh server.
fn servers(folder: &Path) -> Result<(Servers, SocketAddr, SocketAddr)> {
    let script = "
        set -e
        mkdir web run
        printf '%s' \"$PAGE\" | tee web/page > web/page.html
        git init -q -b main work
        cd work
        git -c user.name=a -c user.email=a@b.invalid commit -q --allow-empty -m first
        git clone -q --bare . ../web/repository.git
        cd ../web/repository.git
        git update-server-info
        cd ../..
        for key in host client; do ssh-keygen -q -t ed25519 -N '' -f $key; done
        cp client.pub authorized";
    let prepared = Command::new("sh")
        .args(["-c", script])
        .current_dir(folder)
        .env("PAGE", PAGE)
        .status()?;
    ensure!(prepared.success(), "cannot prepare the servers");
    let with_us = ["--pdeathsig", "KILL", "--"];
    // It says which port it got.
    let mut web_server = Command::new("setpriv")
        .args(with_us)
        .args(["python3", "-u", "-m", "http.server", "0"])
        .args(["--bind", "127.0.0.1"])
        .current_dir(folder.join("web"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let said = web_server.stdout.take().context("no output")?;
    let servers = Servers(vec![web_server]);
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line)?;
    let port = line
        .split_once(" port ")
        .and_then(|(_, rest)| rest.split(' ').next()?.trim().parse().ok())
        .with_context(|| format!("the web server said {line:?}"))?;
    let web = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let config = format!(
        "HostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nStrictModes no\nPidFile none\nUsePAM no\n",
        folder.display()
    );
    fs::write(folder.join("sshd_config"), config)?;
    // sshd wants a folder for its children when it runs as root.
    let _ = fs::create_dir_all("/run/sshd");
    let ssh = serve_ssh(folder.to_owned())?;
    Ok((servers, web, ssh))
}

/// Gives each connection an sshd of its own, as inetd does, which ends with the connection.
fn serve_ssh(folder: PathBuf) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let log = fs::File::create(folder.join("sshd.log"))?;
    std::thread::spawn(move || -> std::io::Result<()> {
        for stream in listener.incoming() {
            let stream = OwnedFd::from(stream?);
            let mut sshd = Command::new("/usr/sbin/sshd")
                .args(["-i", "-e", "-f"])
                .arg(folder.join("sshd_config"))
                .stdin(stream.try_clone()?)
                .stdout(stream)
                .stderr(log.try_clone()?)
                .spawn()?;
            std::thread::spawn(move || sshd.wait());
        }
        Ok(())
    });
    Ok(address)
}
