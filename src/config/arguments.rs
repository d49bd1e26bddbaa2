//! What the command line says of the configuration.

use std::path::PathBuf;

use clap::Args;

/// The options of `onionport proxy`, as written and unchecked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ProxyArgs {
    /// Read this TOML file, or the *.toml of this folder; later ones win
    /// [default: arti.toml and arti.d in arti's configuration folder]
    #[arg(short, long, value_name = "FILE")]
    pub config: Vec<PathBuf>,

    /// Read this configuration file of C tor; the first is its defaults, later ones win. Then the default
    /// port is C tor's, 9050, and a TOML file is read only if -c names it
    #[arg(long, value_name = "FILE")]
    pub torrc: Vec<PathBuf>,

    /// Open this SOCKS port, and none of the files' [default: 127.0.0.1:9150]
    #[arg(long, value_name = "LINE")]
    pub socks_port: Vec<String>,

    /// Open this HTTP proxy port, for browsers, and none of the files' [default: none]
    #[arg(long, value_name = "LINE")]
    pub http_port: Vec<String>,

    /// Open this DNS port, and none of the files'
    #[arg(long, value_name = "LINE")]
    pub dns_port: Vec<String>,

    /// Open this transparent port, and none of the files'
    #[arg(long, value_name = "LINE")]
    pub trans_port: Vec<String>,

    /// Set one key of the configuration, whatever the files say
    #[arg(short, value_name = "KEY=VALUE")]
    pub option: Vec<String>,

    /// Log what this filter lets through, such as "debug" or "info,tor_proto=warn"
    #[arg(short, long, value_name = "FILTER")]
    pub log: Option<String>,

    /// Say what the configuration would do, and stop; of --torrc files: print them as TOML, and nothing of
    /// the other options
    #[arg(long)]
    pub check_config: bool,
}

impl ProxyArgs {
    /// The options in use that change the configuration and are no `--torrc`.
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

    /// The options before the word `proxy`, joined by those after it.
    pub(crate) fn followed_by(mut self, after: ProxyArgs) -> Self {
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
