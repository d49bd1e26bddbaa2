//! Common steps of the tests that run the real program offline.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use super::LIMIT;
use super::client::{Client, End, ListenAddr};
use super::hex::bytes;
use super::process::Ended;
use super::program::{Daemon, Program, set_mode};
use super::socks::greet;

/// A SOCKS5 request to connect to `bad.onion`, port 80.
///
/// The address is invalid, so the reply needs no network: F6 on a port with `ExtendedErrors`, 01 on
/// every other port.
pub const BAD_ONION_REQUEST: &str = "05 01 00 03 09 6261642e6f6e696f6e 0050";

/// A valid client authorization key in base32.
pub const CLIENT_AUTH_KEY: &str = "YDPBBAYQMPIOEWCWQJRNRFD4RIXU3B52ASVTM3M54MSRE6FPTR6Q";

/// Connects and negotiates SOCKS5 without authentication.
pub async fn connect_socks5(place: &ListenAddr) -> Client {
    let mut client = Client::connect(place).await;
    greet(&mut client).await;
    client
}

/// Sends [`BAD_ONION_REQUEST`] to an IPv4 port and returns the reply code.
pub async fn request_bad_onion(place: &ListenAddr) -> u8 {
    let mut client = connect_socks5(place).await;
    client.send(BAD_ONION_REQUEST).await;
    let (reply, end) = client.read_to_end().await;
    let [5, code, 0, 1, 0, 0, 0, 0, 0, 0] = reply[..] else {
        panic!("{place}: not a SOCKS5 failure reply: {reply:02x?}");
    };
    assert_eq!(end, End::Closed, "{place}");
    code
}

/// Asserts that the DNS port at `port` answers a client that has the address `local`.
#[track_caller]
pub fn assert_dns_port_answers(port: SocketAddr, local: IpAddr) {
    let client = UdpSocket::bind((local, 0)).expect("local address exists");
    client.set_read_timeout(Some(LIMIT)).expect("time-out set");
    // The A record of the name "192.0.2.1" needs no network.
    let query = bytes("0001 0100 0001 00*6 03 313932 01 30 01 32 01 31 00 0001 0001");
    client.send_to(&query, port).expect("query sent");
    let mut answer = [0; 512];
    let length = client.recv(&mut answer).expect("an answer");
    assert_eq!(answer[length - 4..length], [192, 0, 2, 1]);
}

/// Returns the port line for a Unix socket at `path`.
pub fn unix_port(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// Creates a folder with these permissions.
pub fn create_folder(path: &Path, mode: u32) {
    fs::create_dir(path).expect("folder created");
    set_mode(path, mode);
}

/// Writes a file that only its owner can read.
pub fn write_private_file(path: &Path, text: &str) {
    fs::write(path, text).expect("file written");
    set_mode(path, 0o600);
}

impl Program {
    /// Writes `text` to `torrc` in the program's folder and passes the file with `--torrc`.
    pub fn torrc(self, text: &str) -> Self {
        let file = self.folder().join("torrc");
        fs::write(&file, text).expect("torrc written");
        self.arguments(&["--torrc", file.to_str().expect("path in UTF-8")])
    }
}

impl Daemon {
    /// Returns the path of the configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("onionport.toml")
    }

    /// Replaces `from` by `to` in the configuration file, which has to contain it.
    #[track_caller]
    pub fn edit_config(&self, from: &str, to: &str) {
        let file = self.config_file();
        let text = fs::read_to_string(&file).expect("configuration readable");
        assert!(text.contains(from), "{from:?} is missing in {text}");
        fs::write(file, text.replace(from, to)).expect("configuration written");
    }

    /// Stops the program with SIGTERM and removes its folder.
    pub fn stop(self) -> Ended {
        self.process.signal("TERM");
        self.process.wait()
    }
}

/// Returns the only line on standard error, after checking the exit status and that standard output
/// is empty.
#[track_caller]
pub fn error_line(ended: &Ended, status: i32) -> &str {
    assert_eq!(ended.status.code(), Some(status), "{:?}", ended.err);
    assert!(ended.out.is_empty(), "{:?}", ended.out);
    let [line] = &ended.err[..] else {
        panic!("expected one line: {:#?}", ended.err);
    };
    line
}

/// Returns the error with which the program exits with status 1: its last line, after any log lines.
#[track_caller]
pub fn final_error(ended: &Ended) -> &str {
    assert_eq!(ended.status.code(), Some(1), "{:?}", ended.err);
    let errors: Vec<_> = ended
        .err
        .iter()
        .filter(|line| line.starts_with("onionport: "))
        .collect();
    let [line] = errors[..] else {
        panic!("expected one error: {:#?}", ended.err);
    };
    assert_eq!(Some(line), ended.err.last());
    line
}

/// Asserts that `text` contains all of `parts`.
#[track_caller]
pub fn assert_contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}
