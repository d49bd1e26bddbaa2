//! The port lines of the files and of the command line, each with its place.

use super::error::ConfigError;
use super::file::Lines;
use super::setting::Setting;
use super::sources::Sources;
use crate::cli::ProxyArgs;
use crate::port::{Bind, PortKind, PortLine, check_ports};

/// The port lines of one kind, and where they stand.
pub(super) struct Ports {
    /// The setting that gives the lines.
    setting: Setting,
    /// The lines as written and as read.
    lines: Vec<(String, PortLine)>,
}

impl Ports {
    /// Reads lines and checks them together.
    fn read(setting: Setting, texts: Vec<String>) -> Result<Self, ConfigError> {
        let mut lines = Vec::new();
        for text in texts {
            match text.parse::<PortLine>() {
                Ok(line) => lines.push((text, line)),
                Err(source) => return Err(setting.bad_line(text, source)),
            }
        }
        let read: Vec<PortLine> = lines.iter().map(|(_, line)| line.clone()).collect();
        match check_ports(&read) {
            Ok(()) => Ok(Ports { setting, lines }),
            Err(source) => Err(setting.bad_lines(source)),
        }
    }

    /// Reads the lines of a file's key.
    fn in_files(setting: Setting, lines: &Lines) -> Result<Self, ConfigError> {
        match lines.texts() {
            Ok(texts) => Self::read(setting, texts),
            Err(problem) => Err(setting.wrong(problem)),
        }
    }

    /// Refuses lines that are understood and cannot be served.
    fn must_be_served(&self, kind: PortKind) -> Result<(), ConfigError> {
        for (text, line) in &self.lines {
            if let Some(problem) = line.unserved(kind) {
                return Err(self.setting.wrong(format!("{text:?}: {problem}")));
            }
        }
        Ok(())
    }

    /// Refuses what arti would not take in `socks_listen`: flags and unix sockets.
    fn must_be_plain(&self) -> Result<(), ConfigError> {
        for (text, line) in &self.lines {
            let unix = matches!(line.bind, Bind::Unix(_));
            if unix || text.trim().contains(char::is_whitespace) {
                return Err(self.setting.wrong(format!(
                    "{text:?} has more than an address and a port: move it to proxy.socks_port"
                )));
            }
        }
        Ok(())
    }

    /// The warnings of all lines, each with its place.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        self.lines
            .iter()
            .flat_map(|(_, line)| &line.warnings)
            .map(|warning| format!("{}: {warning}", self.setting))
    }

    /// The ports to open.
    pub(super) fn open(self) -> Vec<PortLine> {
        self.lines
            .into_iter()
            .map(|(_, line)| line)
            .filter(|line| line.bind != Bind::Disabled)
            .collect()
    }
}

/// The SOCKS ports: those of the command line, or those of the files, or the default one.
pub(super) fn socks(
    args: &ProxyArgs,
    socks_port: Option<&Lines>,
    socks_listen: Option<&Lines>,
    sources: &Sources,
) -> Result<Ports, ConfigError> {
    let port = || sources.setting("proxy.socks_port");
    let listen = || sources.setting("proxy.socks_listen");
    let ports = match (socks_port, socks_listen) {
        _ if !args.socks_port.is_empty() => {
            Ports::read(Setting::option("--socks-port"), args.socks_port.clone())?
        }
        (None, None) => Ports {
            setting: port(),
            lines: vec![("9150".to_owned(), PortLine::default())],
        },
        (Some(lines), None) => Ports::in_files(port(), lines)?,
        (None, Some(lines)) => {
            let ports = Ports::in_files(listen(), lines)?;
            ports.must_be_plain()?;
            ports
        }
        (Some(_), Some(_)) => {
            return Err(listen().wrong(format!(
                "{} is for the same purpose: remove one of the two",
                port()
            )));
        }
    };
    ports.must_be_served(PortKind::Socks)?;
    Ok(ports)
}

/// Checks the lines of HTTP CONNECT ports, of which only `0` is served.
pub(super) fn http(
    args: &ProxyArgs,
    http_port: Option<&Lines>,
    sources: &Sources,
) -> Result<Ports, ConfigError> {
    let ports = match http_port {
        _ if !args.http_port.is_empty() => {
            Ports::read(Setting::option("--http-port"), args.http_port.clone())?
        }
        Some(lines) => Ports::in_files(sources.setting("proxy.http_port"), lines)?,
        None => Ports::read(sources.setting("proxy.http_port"), Vec::new())?,
    };
    ports.must_be_served(PortKind::Http)?;
    Ok(ports)
}

/// Refuses every DNS port but none.
pub(super) fn dns(dns_listen: Option<&Lines>, sources: &Sources) -> Result<(), ConfigError> {
    let none = |lines: &Lines| {
        lines
            .texts()
            .is_ok_and(|t| t.iter().all(|text| text == "0"))
    };
    match dns_listen {
        Some(lines) if !none(lines) => Err(sources
            .setting("proxy.dns_listen")
            .not_served("remove it or set it to 0; there is no DNS port")),
        _ => Ok(()),
    }
}
