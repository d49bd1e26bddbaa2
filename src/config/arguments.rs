//! The command-line options that concern the configuration.

use std::path::PathBuf;

use clap::Args;

/// The options of `onionport proxy`, as written and unchecked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ProxyArgs {
    /// Read this TOML file, or the *.toml files of this folder; later ones override earlier ones
    /// [default: arti.toml and arti.d in arti's configuration folder]
    #[arg(short, long, value_name = "FILE")]
    pub config: Vec<PathBuf>,

    /// Read this torrc of C tor. Given several times, later files override earlier ones, so name
    /// the defaults first. The default SOCKS port is then C tor's, 9050, and no TOML file is read
    /// unless -c names it
    #[arg(long, value_name = "FILE")]
    pub torrc: Vec<PathBuf>,

    /// Open this SOCKS port instead of those in the files [default: 127.0.0.1:9150]
    #[arg(long, value_name = "LINE")]
    pub socks_port: Vec<String>,

    /// Open this HTTP proxy port, for browsers, instead of those in the files [default: none]
    #[arg(long, value_name = "LINE")]
    pub http_port: Vec<String>,

    /// Open this DNS port instead of those in the files [default: none]
    #[arg(long, value_name = "LINE")]
    pub dns_port: Vec<String>,

    /// Open this transparent port instead of those in the files [default: none]
    #[arg(long, value_name = "LINE")]
    pub trans_port: Vec<String>,

    /// Set one configuration key, overriding the files
    #[arg(short, value_name = "KEY=VALUE")]
    pub option: Vec<String>,

    /// Log what this filter selects, such as "debug" or "info,tor_proto=warn", instead of what the
    /// files configure [default: info]
    #[arg(short, long, value_name = "FILTER")]
    pub log: Option<String>,

    /// Check and describe the configuration, then exit. With --torrc, print the torrc files as TOML
    /// instead, ignoring the other options
    #[arg(long)]
    pub check_config: bool,
}

impl ProxyArgs {
    /// Returns the options in use that change the configuration, other than `--torrc`.
    #[must_use]
    pub fn beside_torrc(&self) -> Vec<&'static str> {
        let ProxyArgs {
            config,
            torrc: _,
            socks_port,
            http_port,
            dns_port,
            trans_port,
            option,
            log,
            check_config: _,
        } = self;
        [
            ("-c", !config.is_empty()),
            ("-o", !option.is_empty()),
            ("-l", log.is_some()),
            ("--socks-port", !socks_port.is_empty()),
            ("--http-port", !http_port.is_empty()),
            ("--dns-port", !dns_port.is_empty()),
            ("--trans-port", !trans_port.is_empty()),
        ]
        .into_iter()
        .filter_map(|(option, given)| given.then_some(option))
        .collect()
    }

    /// Merges the options before the command `proxy` with those after it.
    pub(crate) fn merge(mut self, after: ProxyArgs) -> Self {
        let ProxyArgs {
            config,
            torrc,
            socks_port,
            http_port,
            dns_port,
            trans_port,
            option,
            log,
            check_config,
        } = after;
        self.config.extend(config);
        self.torrc.extend(torrc);
        self.socks_port.extend(socks_port);
        self.http_port.extend(http_port);
        self.dns_port.extend(dns_port);
        self.trans_port.extend(trans_port);
        self.option.extend(option);
        self.log = log.or(self.log);
        self.check_config |= check_config;
        self
    }
}
