//! The port lines of the files and of the command line, each with its location.

use super::arguments::ProxyArgs;
use super::error::ConfigError;
use super::file::PortValues;
use super::port_line::{BindAddr, Port, PortKind, PortLine, check_ports};
use super::setting::Setting;
use super::sources::Sources;

/// The keys for ports, as the files set them.
pub(super) struct PortKeys {
    pub(super) socks_port: Option<PortValues>,
    pub(super) socks_listen: Option<PortValues>,
    pub(super) http_port: Option<PortValues>,
    pub(super) trans_port: Option<PortValues>,
    pub(super) dns_port: Option<PortValues>,
    pub(super) dns_listen: Option<PortValues>,
}

impl PortKeys {
    /// Returns the ports to open, of all kinds, and adds the warnings about them to `warnings`.
    pub(super) fn ports_to_open(
        &self,
        args: &ProxyArgs,
        sources: &Sources,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Port>, ConfigError> {
        let mut ports = Vec::new();
        for kind in PortKind::ALL {
            let lines = self.read(kind, args, sources)?;
            warnings.extend(lines.warnings());
            ports.extend(lines.into_ports(kind));
        }
        if let Some((bind, one, other)) = find_shared_address(&ports) {
            return Err(other.value_error(format!(
                "{bind} is also the address of {one}: give each port its own"
            )));
        }
        let ports: Vec<Port> = ports.into_iter().map(|(port, _)| port).collect();
        if ports.is_empty() {
            warnings.push("no port is open: no client can use this proxy".to_owned());
        }
        Ok(ports)
    }

    /// Reads the port lines of one kind: from the command line, else from the files, else the
    /// default.
    fn read(
        &self,
        kind: PortKind,
        args: &ProxyArgs,
        sources: &Sources,
    ) -> Result<PortLines, ConfigError> {
        let (option, lines, key, value, arti) = match kind {
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
        let arti = arti.and_then(|(key, value)| Some((key, value.as_ref()?)));
        let ports = match (value, arti) {
            _ if !lines.is_empty() => PortLines::from_option(option, lines)?,
            (Some(_), Some((arti, _))) if !sources.is_from_torrc(key) => {
                return Err(sources.setting(arti).value_error(format!(
                    "{} sets the same ports: remove one of the two",
                    sources.setting(key)
                )));
            }
            (Some(value), None) => PortLines {
                explicit: !sources.is_torrc_default(key),
                ..PortLines::from_files(key, value, sources)?
            },
            // A TOML file overrides C tor's files.
            (_, Some((arti, value))) => {
                let ports = PortLines::from_files(arti, value, sources)?;
                ports.check_plain(key)?;
                ports
            }
            (None, None) => PortLines {
                setting: sources.setting(key),
                lines: match kind {
                    PortKind::Socks => vec![LocatedLine {
                        text: "9150".to_owned(),
                        line: PortLine::default(),
                        setting: sources.setting(key),
                    }],
                    PortKind::Http | PortKind::Transparent | PortKind::Dns => Vec::new(),
                },
                explicit: false,
            },
        };
        ports.check_supported(kind)?;
        Ok(ports)
    }
}

/// The port lines of one kind.
struct PortLines {
    /// The setting that contains the lines.
    setting: Setting,
    lines: Vec<LocatedLine>,
    /// Whether the user wrote them; see [`Port::explicit`].
    explicit: bool,
}

/// A port line with its location.
struct LocatedLine {
    text: String,
    line: PortLine,
    setting: Setting,
}

impl PortLines {
    /// Parses lines and checks them together. `locate` returns the setting of the line with this
    /// index.
    fn parse(
        setting: Setting,
        texts: Vec<String>,
        locate: impl Fn(usize) -> Setting,
    ) -> Result<Self, ConfigError> {
        let mut lines = Vec::new();
        for (index, text) in texts.into_iter().enumerate() {
            let setting = locate(index);
            match text.parse::<PortLine>() {
                Ok(line) => lines.push(LocatedLine {
                    text,
                    line,
                    setting,
                }),
                Err(source) => return Err(setting.port_error(text, source)),
            }
        }
        let parsed: Vec<PortLine> = lines.iter().map(|line| line.line.clone()).collect();
        match check_ports(&parsed) {
            Ok(()) => Ok(PortLines {
                setting,
                lines,
                explicit: true,
            }),
            Err(source) => Err(setting.ports_error(source)),
        }
    }

    /// Parses the lines of a command-line option.
    fn from_option(option: &'static str, lines: &[String]) -> Result<Self, ConfigError> {
        let setting = || Setting::for_option(option);
        Self::parse(setting(), lines.to_vec(), |_| setting())
    }

    /// Parses the lines of a key.
    fn from_files(
        key: &'static str,
        value: &PortValues,
        sources: &Sources,
    ) -> Result<Self, ConfigError> {
        let setting = sources.setting(key);
        match value.to_lines() {
            Ok(texts) => {
                let is_list = texts.len() > 1;
                Self::parse(setting, texts, |index| match is_list {
                    true => sources.element(key, index),
                    false => sources.setting(key),
                })
            }
            Err(problem) => Err(setting.value_error(problem)),
        }
    }

    /// Refuses lines that are valid, but that a port of this kind cannot serve.
    fn check_supported(&self, kind: PortKind) -> Result<(), ConfigError> {
        for LocatedLine {
            text,
            line,
            setting,
        } in &self.lines
        {
            if let Some(problem) = line.unsupported_reason(kind) {
                return Err(setting.value_error(format!("{text:?}: {problem}")));
            }
        }
        Ok(())
    }

    /// Refuses flags and Unix sockets: arti does not accept them in its own keys. They belong in
    /// the key `ours`.
    fn check_plain(&self, ours: &str) -> Result<(), ConfigError> {
        for LocatedLine { text, line, .. } in &self.lines {
            let unix = matches!(line.bind, BindAddr::Unix(_));
            if unix || text.trim().contains(char::is_whitespace) {
                return Err(self.setting.value_error(format!(
                    "{text:?} is more than an address and a port: move it to {ours}"
                )));
            }
        }
        Ok(())
    }

    /// Returns the warnings about all lines, each with its location.
    fn warnings(&self) -> impl Iterator<Item = String> {
        self.lines
            .iter()
            .flat_map(|LocatedLine { line, setting, .. }| {
                let warnings = line.warnings.iter();
                warnings.map(move |warning| format!("{setting}: {warning}"))
            })
    }

    /// Returns the ports to open, each with its setting.
    fn into_ports(self, kind: PortKind) -> impl Iterator<Item = (Port, Setting)> {
        let explicit = self.explicit;
        let is_open = |line: &LocatedLine| line.line.bind != BindAddr::Disabled;
        let lines = self.lines.into_iter().filter(is_open);
        lines.map(move |LocatedLine { line, setting, .. }| {
            (
                Port {
                    kind,
                    line,
                    explicit,
                },
                setting,
            )
        })
    }
}

/// Finds an address that two ports of different kinds share, and returns it with both settings.
///
/// DNS ports do not count: they are UDP.
fn find_shared_address(ports: &[(Port, Setting)]) -> Option<(&BindAddr, &Setting, &Setting)> {
    let streams = || ports.iter().filter(|(port, _)| port.kind != PortKind::Dns);
    streams().find_map(|(a, one)| {
        let (_, other) = streams().rfind(|(b, _)| {
            a.kind != b.kind && a.line.bind == b.line.bind && !a.line.bind.is_auto()
        })?;
        Some((&a.line.bind, one, other))
    })
}
