//! Programs that people use with a SOCKS port: each must behave the same with onionport as with C tor.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use testnet::{ClientOptions, ServiceOptions};

use crate::daemon::Start;
use crate::setup::{make_private, network_builder};

/// How many seconds a client may take.
const LIMIT: u32 = 60;
/// The page of the web server behind the onion service.
const PAGE: &str = "hello from the onion\n";

/// The SOCKS ports of one program.
struct Ports {
    tcp: SocketAddr,
    unix: PathBuf,
}

/// The destinations of the clients.
struct Targets {
    /// A service with a page and a git repository at port 80, sshd at port 22, and nothing at port 81.
    onion: String,
    /// The address of a service that was never published.
    unpublished: String,
    /// The folder for the clients' files.
    folder: PathBuf,
}

/// One client program and one task.
struct Client {
    name: &'static str,
    /// The program that must be installed.
    program: &'static str,
    /// Returns the shell command.
    command: fn(&Ports, &Targets) -> String,
    /// What its output must contain, or `None` if it must fail.
    expected: Option<&'static str>,
}

const CLIENTS: &[Client] = &[
    Client {
        name: "curl, SOCKS5",
        program: "curl",
        command: |p, t| {
            format!(
                "curl -sS --socks5-hostname {} http://{}/page",
                p.tcp, t.onion
            )
        },
        expected: Some(PAGE),
    },
    Client {
        name: "curl, SOCKS4a",
        program: "curl",
        command: |p, t| format!("curl -sS --socks4a {} http://{}/page", p.tcp, t.onion),
        expected: Some(PAGE),
    },
    Client {
        name: "curl, user and password",
        program: "curl",
        command: |p, t| {
            format!(
                "curl -sS -x socks5h://alice:secret@{} http://{}/page",
                p.tcp, t.onion
            )
        },
        expected: Some(PAGE),
    },
    Client {
        name: "curl, Unix socket",
        program: "curl",
        command: |p, t| {
            let socket = p.unix.display();
            format!(
                "curl -sS -x socks5h://localhost{socket} http://{}/page",
                t.onion
            )
        },
        expected: Some(PAGE),
    },
    Client {
        name: "curl, no such service",
        program: "curl",
        command: |p, t| {
            format!(
                "curl -sS --socks5-hostname {} http://{}/",
                p.tcp, t.unpublished
            )
        },
        expected: None,
    },
    Client {
        name: "curl, no such port",
        program: "curl",
        command: |p, t| {
            format!(
                "curl -sS --socks5-hostname {} http://{}:81/",
                p.tcp, t.onion
            )
        },
        expected: None,
    },
    Client {
        name: "torsocks curl",
        program: "torsocks",
        command: |p, t| format!("{} curl -sS http://{}/page", torsocks(p), t.onion),
        expected: Some(PAGE),
    },
    Client {
        name: "torsocks, a lookup",
        program: "torsocks",
        command: |p, _| {
            let script = "import socket; print(socket.gethostbyname('public.test'))";
            format!("{} /usr/bin/python3 -c \"{script}\"", torsocks(p))
        },
        expected: Some("203.0.113.7\n"),
    },
    Client {
        name: "proxychains curl",
        program: "proxychains4",
        command: |p, t| {
            let file = t.folder.join(format!("proxychains.{}", p.tcp.port()));
            let lines = format!(
                "strict_chain\nproxy_dns\n[ProxyList]\nsocks5 127.0.0.1 {}\n",
                p.tcp.port()
            );
            fs::write(&file, lines).expect("written");
            format!(
                "proxychains4 -q -f {} curl -sS http://{}/page",
                file.display(),
                t.onion
            )
        },
        expected: Some(PAGE),
    },
    Client {
        name: "ssh through nc",
        program: "nc",
        command: |p, t| {
            let folder = t.folder.display();
            format!(
                "ssh -F none -i {folder}/client -o IdentitiesOnly=yes -o BatchMode=yes \
                 -o StrictHostKeyChecking=no -o UserKnownHostsFile={folder}/known -o LogLevel=ERROR \
                 -o 'ProxyCommand=nc -X 5 -x {} %h %p' $(id -un)@{} echo hello from sshd",
                p.tcp, t.onion
            )
        },
        expected: Some("hello from sshd\n"),
    },
    Client {
        name: "git",
        program: "git",
        command: |p, t| {
            format!(
                "git -c http.proxy=socks5h://{} ls-remote http://{}/repository.git",
                p.tcp, t.onion
            )
        },
        expected: Some("refs/heads/main\n"),
    },
    Client {
        name: "Python requests",
        program: "/usr/bin/python3",
        command: |p, t| {
            let script = format!(
                "import requests; p = 'socks5h://{}'; \
                 print(requests.get('http://{}/page', proxies={{'http': p}}).text, end='')",
                p.tcp, t.onion
            );
            format!("/usr/bin/python3 -c \"{script}\"")
        },
        expected: Some(PAGE),
    },
    Client {
        name: "Chromium",
        program: "chromium",
        command: |p, t| {
            let profile = t.folder.join(format!("chromium.{}", p.tcp.port()));
            format!(
                "HOME={profile} chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
                 --disable-background-networking --disable-component-update --disable-sync \
                 --user-data-dir={profile} --proxy-server=socks5://{} --dump-dom http://{}/page.html 2>/dev/null",
                p.tcp,
                t.onion,
                profile = profile.display()
            )
        },
        expected: Some("hello from the onion"),
    },
];

/// Returns the start of a torsocks command line.
fn torsocks(ports: &Ports) -> String {
    format!("torsocks -a 127.0.0.1 -P {}", ports.tcp.port())
}

#[test]
fn client_programs_behave_the_same_as_with_c_tor() -> Result<()> {
    let network = network_builder().start()?;
    let folder = tempfile::tempdir_in(network.dir())?;
    make_private(folder.path())?;
    let (_servers, web, ssh) = start_servers(folder.path())?;
    let service = network.service(ServiceOptions {
        ports: vec![(80, web), (22, ssh)],
        ..ServiceOptions::default()
    })?;
    let targets = Targets {
        onion: service.address().to_owned(),
        unpublished: network.unpublished_address(),
        folder: folder.path().to_owned(),
    };
    let unix = folder.path().join("ours");
    let line = format!("unix:{}", unix.display());
    let onionport = Start::new(&network).socks_ports(&["auto", &line]).start()?;
    let ours = Ports {
        tcp: onionport.port(0),
        unix,
    };
    let unix = folder.path().join("theirs");
    let c_tor = network.c_tor_client(ClientOptions {
        extra_torrc_lines: vec![format!("SocksPort unix:{}", unix.display())],
        ..ClientOptions::default()
    })?;
    let theirs = Ports {
        tcp: c_tor.plain_port(),
        unix,
    };

    let mut wrong = Vec::new();
    for client in CLIENTS {
        if !is_installed(client.program) {
            ensure!(
                std::env::var_os("CI").is_none(),
                "{} is not installed",
                client.program
            );
            println!("{:28} not installed: {}", client.name, client.program);
            continue;
        }
        let (ours, theirs) = (client.run(&ours, &targets)?, client.run(&theirs, &targets)?);
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
    /// Runs the client and returns its exit status and output, without the port, which is different for the two
    /// programs.
    fn run(&self, ports: &Ports, targets: &Targets) -> Result<String> {
        let command = (self.command)(ports, targets);
        let output = Command::new("timeout")
            .args([&LIMIT.to_string(), "sh", "-c", &command])
            .stdin(Stdio::null())
            .env("TORSOCKS_LOG_LEVEL", "1")
            .output()
            .with_context(|| format!("cannot run {}", self.name))?;
        let status = output.status.code().unwrap_or(-1);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).replace(&ports.tcp.port().to_string(), "PORT");
        // curl reports after how many milliseconds it has failed.
        let text = text.split(" after ").next().unwrap_or_default();
        Ok(format!("status {status}\n{text}"))
    }
}

/// Whether a program is installed.
fn is_installed(program: &str) -> bool {
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

/// Starts a web server with a page and a git repository, and an ssh server. Returns their addresses.
fn start_servers(folder: &Path) -> Result<(Servers, SocketAddr, SocketAddr)> {
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
    // The server prints the port that it was given.
    let mut web_server = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .args(["python3", "-u", "-m", "http.server", "0"])
        .args(["--bind", "127.0.0.1"])
        .current_dir(folder.join("web"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = web_server.stdout.take().context("no output")?;
    let servers = Servers(vec![web_server]);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let port = line
        .split_once(" port ")
        .and_then(|(_, rest)| rest.split(' ').next()?.trim().parse().ok())
        .with_context(|| format!("the web server printed {line:?}"))?;
    let web = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let config = format!(
        "HostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nStrictModes no\nPidFile none\nUsePAM no\n",
        folder.display()
    );
    fs::write(folder.join("sshd_config"), config)?;
    // sshd needs this folder for its child processes when it runs as root.
    let _ = fs::create_dir_all("/run/sshd");
    let ssh = serve_ssh(folder.to_owned())?;
    Ok((servers, web, ssh))
}

/// Starts an sshd for each connection, as inetd does. Each ends with its connection.
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
