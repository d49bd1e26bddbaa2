//! Logging and folders.

use super::*;

#[test]
fn a_log_line_for_elsewhere_or_at_debug_causes_a_warning() {
    for (text, level) in [
        ("Log notice stdout", Some("info")),
        ("Log info stderr", Some("info")),
        ("Log debug", Some("debug")),
        ("Log warn-err syslog", Some("warn")),
        ("Log NOTICE file /tmp/a b", Some("info")),
        ("Log debug file /tmp/a\nLog err stderr", Some("error")),
        ("Log [net]debug [*,~net]warn stdout", Some("warn")),
        ("Log err stdout\nLog notice stdout", Some("info")),
        ("", None),
    ] {
        let torrc = read_good(text);
        let console = torrc
            .table
            .get("logging")
            .map(|l| l["console"].as_str().unwrap());
        assert_eq!(console, level, "{text}");
        let elsewhere = text.contains("file") || text.contains("syslog");
        assert_eq!(
            !torrc.warnings.is_empty(),
            elsewhere || level == Some("debug"),
            "{text}: {:?}",
            torrc.warnings
        );
    }
}

#[test]
fn the_time_granularity_is_rounded_as_in_c_tor() {
    for (line, taken, warned) in [
        ("LogTimeGranularity 1", "1 ms", false),
        ("LogTimeGranularity 300 msec", "500 ms", true),
        ("LogTimeGranularity 600 msec", "1000 ms", true),
        ("LogTimeGranularity 1500 msec", "2000 ms", true),
        ("LogTimeGranularity 1 minute", "60000 ms", false),
    ] {
        assert_gives(line, &format!("[logging]\ntime_granularity = \"{taken}\""));
        assert_eq!(!read_warnings(line).is_empty(), warned, "{line}");
    }
    assert!(read_error("LogTimeGranularity 0").starts_with("torrc:1: LogTimeGranularity: "));
}

#[test]
fn a_data_directory_gets_a_subfolder_for_onionport() {
    assert_gives(
        "DataDirectory /var/lib/tor",
        "[storage]\ncache_dir = '/var/lib/tor/onionport/cache'\n\
         state_dir = '/var/lib/tor/onionport/state'",
    );
    assert_gives(
        "CacheDirectory /var/cache/tor",
        "[storage]\ncache_dir = '/var/cache/tor/onionport/cache'",
    );
}
