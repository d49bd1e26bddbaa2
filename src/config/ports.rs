//! The port lines of the files and of the command line, each with its place.

use super::error::ConfigError;
use super::file::Lines;
use super::setting::Setting;
use super::sources::Sources;
use crate::config::ProxyArgs;
use crate::config::port_line::{Bind, Port, PortKind, PortLine, check_ports};

/// The port lines of one kind, and where they stand.
pub(super) struct Ports {
    /// The setting that gives the lines.
    setting: Setting,
    lines: Vec<Line>,
    /// Whether somebody wrote them.
    chosen: bool,
}

/// One line.
struct Line {
    text: String,
    line: PortLine,
    setting: Setting,
}

impl Ports {
    /// Reads lines, each of which stands at `place(number)`, and checks them together.
    fn read(
        setting: Setting,
        texts: Vec<String>,
        place: impl Fn(usize) -> Setting,
    ) -> Result<Self, ConfigError> {
        let mut lines = Vec::new();
        for (number, text) in texts.into_iter().enumerate() {
            let setting = place(number);
            match text.parse::<PortLine>() {
                Ok(line) => lines.push(Line {
                    text,
                    line,
                    setting,
                }),
                Err(source) => return Err(setting.bad_line(text, source)),
            }
        }
        let read: Vec<PortLine> = lines.iter().map(|line| line.line.clone()).collect();
        match check_ports(&read) {
            Ok(()) => Ok(Ports {
                setting,
                lines,
                chosen: true,
            }),
            Err(source) => Err(setting.bad_lines(source)),
        }
    }

    /// Reads the lines of an option of the command line.
    fn on_command_line(option: &'static str, lines: &[String]) -> Result<Self, ConfigError> {
        let setting = || Setting::option(option);
        Self::read(setting(), lines.to_vec(), |_| setting())
    }

    /// Reads the lines of a file's key.
    fn in_files(key: &'static str, lines: &Lines, sources: &Sources) -> Result<Self, ConfigError> {
        let setting = sources.setting(key);
        match lines.texts() {
            Ok(texts) => {
                let list = texts.len() > 1;
                Self::read(setting, texts, |number| match list {
                    true => sources.element(key, number),
                    false => sources.setting(key),
                })
            }
            Err(problem) => Err(setting.wrong(problem)),
        }
    }

    /// Refuses lines that are understood and cannot be served.
    fn must_be_served(&self, kind: PortKind) -> Result<(), ConfigError> {
        for Line {
            text,
            line,
            setting,
        } in &self.lines
        {
            if let Some(problem) = line.unserved(kind) {
                return Err(setting.wrong(format!("{text:?}: {problem}")));
            }
        }
        Ok(())
    }

    /// Refuses what arti would not take in its own keys: flags and unix sockets. Those belong in `ours`.
    fn must_be_plain(&self, ours: &str) -> Result<(), ConfigError> {
        for Line { text, line, .. } in &self.lines {
            let unix = matches!(line.bind, Bind::Unix(_));
            if unix || text.trim().contains(char::is_whitespace) {
                return Err(self.setting.wrong(format!(
                    "{text:?} has more than an address and a port: move it to {ours}"
                )));
            }
        }
        Ok(())
    }

    /// The warnings of all lines, each with its place.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        self.lines.iter().flat_map(|Line { line, setting, .. }| {
            let warnings = line.warnings.iter();
            warnings.map(move |warning| format!("{setting}: {warning}"))
        })
    }

    /// The ports to open, and where each stands.
    pub(super) fn open(self, kind: PortKind) -> impl Iterator<Item = (Port, Setting)> {
        let chosen = self.chosen;
        let opened = |line: &Line| line.line.bind != Bind::Disabled;
        let lines = self.lines.into_iter().filter(opened);
        lines.map(move |Line { line, setting, .. }| (Port { kind, line, chosen }, setting))
    }
}

/// What the files say of the ports.
pub(super) struct Written {
    pub(super) socks_port: Option<Lines>,
    pub(super) socks_listen: Option<Lines>,
    pub(super) http_port: Option<Lines>,
    pub(super) trans_port: Option<Lines>,
    pub(super) dns_port: Option<Lines>,
    pub(super) dns_listen: Option<Lines>,
}

impl Written {
    /// The ports of one kind: those of the command line, or those of the files, or the default one.
    pub(super) fn ports(
        &self,
        kind: PortKind,
        args: &ProxyArgs,
        sources: &Sources,
    ) -> Result<Ports, ConfigError> {
        let (option, lines, key, written, arti) = match kind {
            PortKind::Socks => (
                "--socks-port",
                &*args.socks_port,
                "proxy.socks_port",
                &self.socks_port,
                Some(("proxy.socks_listen", &self.socks_listen)),
            ),
            PortKind::Http => (
                "--http-port",
                &*args.http_port,
                "proxy.http_port",
                &self.http_port,
                None,
            ),
            PortKind::Transparent => (
                "--trans-port",
                &*args.trans_port,
                "proxy.trans_port",
                &self.trans_port,
                None,
            ),
            PortKind::Dns => (
                "--dns-port",
                &*args.dns_port,
                "proxy.dns_port",
                &self.dns_port,
                Some(("proxy.dns_listen", &self.dns_listen)),
            ),
        };
        let arti = arti.and_then(|(key, lines)| Some((key, lines.as_ref()?)));
        let ports = match (written, arti) {
            _ if !lines.is_empty() => Ports::on_command_line(option, lines)?,
            (Some(_), Some((arti, _))) if !sources.is_from_torrc(key) => {
                return Err(sources.setting(arti).wrong(format!(
                    "{} is for the same purpose: remove one of the two",
                    sources.setting(key)
                )));
            }
            (Some(lines), None) => Ports {
                chosen: !sources.is_torrc_default(key),
                ..Ports::in_files(key, lines, sources)?
            },
            // Ours over C tor's.
            (_, Some((arti, lines))) => {
                let ports = Ports::in_files(arti, lines, sources)?;
                ports.must_be_plain(key)?;
                ports
            }
            (None, None) => Ports {
                setting: sources.setting(key),
                lines: match kind {
                    PortKind::Socks => vec![Line {
                        text: "9150".to_owned(),
                        line: PortLine::default(),
                        setting: sources.setting(key),
                    }],
                    PortKind::Http | PortKind::Transparent | PortKind::Dns => Vec::new(),
                },
                chosen: false,
            },
        };
        ports.must_be_served(kind)?;
        Ok(ports)
    }
}
