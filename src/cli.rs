//! The command line.
//!
//! `onionport` and `onionport proxy` are the same command; options may be before or after the word
//! `proxy`. [`crate::config::load`] applies them to the configuration.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::ProxyArgs;

/// Exit status for an invalid configuration, and for a failure while running.
pub const EXIT_FAILURE: u8 = 1;
/// Exit status for an invalid command line.
pub const EXIT_USAGE: u8 = 2;

/// The end of the `--help` text.
const EXAMPLES: &str = "\
A LINE is a port line as in tor(1), SocksPort: [ADDRESS:]PORT|unix:PATH|auto|0 [flag ...]

Examples:
  onionport
      listen on 127.0.0.1:9150
  onionport --socks-port '9150 ExtendedErrors'
      report to SOCKS5 clients why an onion service cannot be reached
  onionport --http-port 9080
      also open an HTTP proxy: set a browser's proxy to 127.0.0.1:9080, or its proxy
      configuration URL to http://127.0.0.1:9080/proxy.pac
  onionport --socks-port 'unix:/run/onionport/socks GroupWritable' --socks-port auto
      listen on a Unix socket, and on a free port that is printed to standard output
  onionport -c onionport.toml -o proxy.socks_timeout=60 --check-config
      describe this configuration, then exit
  onionport --torrc /etc/tor/torrc --check-config > arti.toml
      convert C tor's configuration to TOML
  onionport --torrc /usr/share/tor/tor-service-defaults-torrc --torrc /etc/tor/torrc
      run with the files that Debian's tor service reads: its defaults and the torrc

Exit status: 0 success, 1 failure or invalid configuration, 2 invalid command line.";

/// The whole command line, as clap reads it.
#[derive(Debug, Parser)]
#[command(
    name = "onionport",
    version,
    about = "A Tor SOCKS port that reports why an onion service cannot be reached",
    after_help = EXAMPLES,
    disable_help_subcommand = true
)]
struct CommandLine {
    /// The options before the command.
    #[command(flatten)]
    options: ProxyArgs,
    /// The command.
    #[command(subcommand)]
    command: Option<CliCommand>,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run the proxy (the default)
    Proxy(ProxyArgs),
}

/// What the command line requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Run the proxy, or check its configuration.
    Proxy(ProxyArgs),
    /// Print this text (help or version) to standard output and exit with status 0.
    Print(String),
}

/// An invalid command line: one line with problem and remedy, for standard error.
///
/// The exit status is [`EXIT_USAGE`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

/// Parses a command line.
///
/// `args` are the program's arguments, its name first, as `std::env::args_os` returns them.
///
/// # Errors
/// [`UsageError`] for an unknown option or command, or an option without its value.
pub fn parse<I, T>(args: I) -> Result<Invocation, UsageError>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let command_line = CommandLine::command()
        .try_get_matches_from(args)
        .and_then(|matches| CommandLine::from_arg_matches(&matches));
    match command_line {
        Ok(CommandLine { options, command }) => Ok(Invocation::Proxy(match command {
            Some(CliCommand::Proxy(after)) => options.merge(after),
            None => options,
        })),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Ok(Invocation::Print(error.render().to_string()))
            }
            _ => Err(UsageError(to_one_line(&error))),
        },
    }
}

/// Formats clap's message on one line, without its usage block. Words that may be part of a password
/// are hidden, in case the shell has split one.
fn to_one_line(error: &clap::Error) -> String {
    let mut text = error.render().to_string();
    for kind in [
        ContextKind::InvalidArg,
        ContextKind::InvalidSubcommand,
        ContextKind::InvalidValue,
    ] {
        if let Some(ContextValue::String(word)) = error.get(kind)
            && !is_plain(word)
        {
            text = text.replace(word, "…");
        }
    }
    let parts: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .map(|line| line.strip_prefix("error: ").unwrap_or(line))
        .map(|line| line.strip_prefix("tip: ").unwrap_or(line))
        .collect();
    format!("{}; see onionport --help", parts.join("; "))
}

/// Whether a word can be shown: it looks like a command or an option.
fn is_plain(word: &str) -> bool {
    const LONGEST: usize = 20;
    // clap writes an option of ours with its value: `--config <FILE>`.
    let (name, _) = word.split_once(" <").unwrap_or((word, ""));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    name.len() <= LONGEST && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(words: &[&str]) -> ProxyArgs {
        match parse(["onionport"].iter().chain(words)).unwrap() {
            Invocation::Proxy(args) => args,
            Invocation::Print(text) => panic!("printed {text}"),
        }
    }

    fn refusal(words: &[&str]) -> String {
        let error = parse(["onionport"].iter().chain(words)).unwrap_err();
        let text = error.to_string();
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }

    #[test]
    fn the_definitions_are_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn no_arguments_and_the_word_proxy_are_the_same() {
        assert_eq!(proxy(&[]), ProxyArgs::default());
        assert_eq!(proxy(&["proxy"]), ProxyArgs::default());
    }

    #[test]
    fn options_before_and_after_proxy_are_merged_in_order() {
        let args = proxy(&[
            "-c",
            "a.toml",
            "--torrc",
            "a",
            "--socks-port",
            "9150",
            "-o",
            "a=1",
            "-l",
            "info",
            "proxy",
            "-c",
            "b.toml",
            "--torrc",
            "b",
            "--socks-port",
            "auto",
            "--http-port",
            "0",
            "--dns-port",
            "auto",
            "--trans-port",
            "9040",
            "-o",
            "b=2",
            "-l",
            "debug",
            "--check-config",
        ]);
        assert_eq!(
            args,
            ProxyArgs {
                config: vec!["a.toml".into(), "b.toml".into()],
                torrc: vec!["a".into(), "b".into()],
                socks_port: vec!["9150".into(), "auto".into()],
                http_port: vec!["0".into()],
                dns_port: vec!["auto".into()],
                trans_port: vec!["9040".into()],
                option: vec!["a=1".into(), "b=2".into()],
                log: Some("debug".into()),
                check_config: true,
            }
        );
        assert_eq!(proxy(&["-l", "info", "proxy"]).log.as_deref(), Some("info"));
        assert!(proxy(&["--check-config", "proxy"]).check_config);
    }

    #[test]
    fn a_port_line_is_one_argument() {
        let args = proxy(&["--socks-port", "127.0.0.1:9150 ExtendedErrors PreferIPv6"]);
        assert_eq!(
            args.socks_port,
            ["127.0.0.1:9150 ExtendedErrors PreferIPv6"]
        );
    }

    #[test]
    fn help_and_version_are_printed() {
        let text = |words: &[&str]| match parse(["onionport"].iter().chain(words)).unwrap() {
            Invocation::Print(text) => text,
            Invocation::Proxy(args) => panic!("ran {args:?}"),
        };
        assert_eq!(
            text(&["--version"]),
            concat!("onionport ", env!("CARGO_PKG_VERSION"), "\n")
        );
        for words in [&["--help"][..], &["proxy", "--help"]] {
            let help = text(words);
            for option in ["--config", "--socks-port", "-o", "--log", "--check-config"] {
                assert!(help.contains(option), "{option} is missing in {help}");
            }
        }
        assert!(text(&["--help"]).contains("Examples:"));
        // Debian's service reads two files; without the first, its socket would be missing.
        let debian = "--torrc /usr/share/tor/tor-service-defaults-torrc --torrc /etc/tor/torrc";
        for shown in [
            &text(&["--help"])[..],
            include_str!("../docs/configuration.md"),
        ] {
            assert!(shown.contains(debian), "{debian} is missing in {shown}");
        }
    }

    #[test]
    fn an_unknown_option_is_refused_with_the_nearest_one() {
        let text = refusal(&["--sock-port", "9150"]);
        assert!(text.contains("'--sock-port'"), "{text}");
        assert!(text.contains("'--socks-port'"), "{text}");
        assert!(text.contains("--help"), "{text}");
    }

    #[test]
    fn a_word_that_may_be_a_password_is_not_repeated() {
        for word in ["socks5://a:hunter2@b", "hunter2@b", "it's-hunter2"] {
            let text = refusal(&[word]);
            assert!(text.contains('…') && !text.contains("hunter2"), "{text}");
        }
        assert!(!refusal(&["--proxy=a:hunter2@b"]).contains("hunter2"));
        assert!(refusal(&["-o"]).contains("'-o <KEY=VALUE>'"));
    }

    #[test]
    fn a_missing_value_an_unknown_command_and_a_stray_word_are_refused() {
        assert!(refusal(&["--socks-port"]).contains("--socks-port"));
        assert!(refusal(&["prxy"]).contains("prxy"));
        assert!(refusal(&["proxy", "9150"]).contains("9150"));
    }
}
