//! `[logging]`, `[application]`, `[system]` and `[storage]`: options about this computer.

use std::path::PathBuf;

use super::super::assign::Values;
use super::super::assigned::Assigned;
use super::super::document::Document;
use super::super::error::TorrcError;
use crate::config::limits::DEFAULT_MAX_FILES;

/// C tor's severities, the most severe first, each with the level that logs as much and nothing more
/// private: C tor scrubs addresses at every severity, onionport only at info and above.
const SEVERITIES: &[(&str, &str)] = &[
    ("err", "error"),
    ("warn", "warn"),
    ("notice", "info"),
    ("info", "info"),
    ("debug", "debug"),
];
/// C tor's log domains (log.c: `domain_list`).
const DOMAINS: &[&str] = &[
    "general",
    "crypto",
    "net",
    "config",
    "fs",
    "protocol",
    "mm",
    "http",
    "app",
    "control",
    "circ",
    "rend",
    "bug",
    "dir",
    "dirserv",
    "or",
    "edge",
    "acct",
    "hist",
    "handshake",
    "heartbeat",
    "channel",
    "sched",
    "guard",
    "consdiff",
    "dos",
    "process",
    "pt",
    "btrack",
    "mesg",
];
/// The subfolder of C tor's folders for the files of onionport, which have other formats.
const OWN_FOLDER: &str = "onionport";

/// Fills `[logging]`, `[application]`, `[system]` and `[storage]`.
pub(super) fn translate(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    set_log_level(values, document)?;
    set_time_granularity(values, document)?;
    if let Some(assigned) = values.get("DisableDebuggerAttachment") {
        document.set(
            "application.permit_debugging",
            assigned.value != "1",
            assigned.origin(),
        );
    }
    if let Some(assigned) = values.get("ConnLimit") {
        let files = assigned.parse_number()?;
        if files == 0 {
            return Err(assigned.error("0 is too small; write at least 1"));
        }
        // C tor requests as many as it can get, and at least this number.
        let default = i64::try_from(DEFAULT_MAX_FILES).unwrap_or(i64::MAX);
        if files > default {
            document.set("system.max_files", files, assigned.origin());
        }
    }
    let memory = values.get("MaxMemInQueues");
    if let Some(assigned) = memory.filter(|assigned| assigned.value != "0") {
        document.set(
            "system.memory.max",
            assigned.parse_number()?,
            assigned.origin(),
        );
    }
    set_folders(values, document)
}

/// The most verbose `Log` line so far, with the index of its severity in [`SEVERITIES`].
type MostVerbose = Option<(usize, Assigned)>;

/// Translates `Log`. onionport logs to standard error only, at the most verbose severity of the lines
/// for a terminal, or of all lines if none is for a terminal.
fn set_log_level(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    let lines = values.list("Log").to_vec();
    let mut elsewhere = Vec::new();
    let (mut terminal, mut stored): (MostVerbose, MostVerbose) = (None, None);
    for assigned in lines {
        let (severity, target) = parse_log_line(&assigned)?;
        let most_verbose = match target {
            LogTarget::Terminal => &mut terminal,
            LogTarget::Stored => {
                elsewhere.push(assigned.position.to_string());
                &mut stored
            }
        };
        if most_verbose
            .as_ref()
            .is_none_or(|(known, _)| severity > *known)
        {
            *most_verbose = Some((severity, assigned));
        }
    }
    if !elsewhere.is_empty() {
        values.warnings.push(format!(
            "{} Log: onionport logs to standard error only; let the service manager, or 2>FILE, store \
             the log",
            elsewhere.join(", ")
        ));
    }
    if let Some((severity, assigned)) = terminal.or(stored)
        && let Some((_, level)) = SEVERITIES.get(severity)
    {
        if *level == "debug" {
            values.warn(
                &assigned.position,
                "Log",
                "a log at level debug may contain addresses, which C tor scrubs; keep it private",
            );
        }
        document.set("logging.console", *level, assigned.origin());
    }
    Ok(())
}

/// Translates `LogTimeGranularity`. C tor rounds up to a divisor or a multiple of one second.
fn set_time_granularity(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    let Some(assigned) = values.get("LogTimeGranularity").cloned() else {
        return Ok(());
    };
    let written = assigned.parse_number()?;
    let rounded = match written {
        0 => return Err(assigned.error("0 is too short; write at least 1 msec")),
        1..1000 => (written..=1000).find(|n| 1000 % n == 0).unwrap_or(1000),
        _ => (written + 999) / 1000 * 1000,
    };
    if rounded != written {
        let text = format!(
            "rounded up from {written} to {rounded} msec, a divisor or multiple of one second"
        );
        values.warn(&assigned.position, "LogTimeGranularity", &text);
    }
    document.set(
        "logging.time_granularity",
        format!("{rounded} ms"),
        assigned.origin(),
    );
    Ok(())
}

/// Where C tor writes the messages of a `Log` line.
enum LogTarget {
    /// Standard output or standard error.
    Terminal,
    /// A file or syslog.
    Stored,
}

/// Parses `[DOMAINS]MIN[-MAX] … [stderr|stdout|syslog|file NAME]` (log.c:
/// `parse_log_severity_config`).
///
/// Returns the index in [`SEVERITIES`] of the least severe messages to log, and their target. Severities
/// for some domains count only if there is none for all domains.
fn parse_log_line(assigned: &Assigned) -> Result<(usize, LogTarget), TorrcError> {
    let error = |word: &str| {
        assigned.error(format!(
            "invalid {word:?}; write a severity (err, warn, notice, info or debug) and stderr, stdout, \
             syslog or file NAME"
        ))
    };
    let line = assigned.value.to_ascii_lowercase();
    let mut rest = line.trim_start();
    let mut target = LogTarget::Terminal;
    let mut for_all = None;
    let mut for_some = None;
    while !rest.is_empty() {
        let (word, after) = split_word(rest);
        match (word, after.is_empty()) {
            ("stdout" | "stderr", true) => break,
            ("syslog", true) | ("file", false) => {
                target = LogTarget::Stored;
                break;
            }
            _ => {}
        }
        let (all, levels) = match rest.strip_prefix('[').map(|rest| rest.split_once(']')) {
            None => (true, rest),
            Some(Some((domains, levels))) => {
                let all = covers_all_domains(domains).ok_or_else(|| error(domains))?;
                (all, levels)
            }
            Some(None) => return Err(error(rest)),
        };
        let (levels, after) = split_word(levels.trim_start());
        let mut severity = None;
        for level in levels.splitn(2, '-') {
            let known = SEVERITIES.iter().position(|(known, _)| *known == level);
            severity = severity.max(Some(known.ok_or_else(|| error(level))?));
        }
        let least_severe = if all { &mut for_all } else { &mut for_some };
        *least_severe = severity.max(*least_severe);
        rest = after;
    }
    let severity = for_all.or(for_some).ok_or_else(|| error(&assigned.value))?;
    Ok((severity, target))
}

/// Splits a text at its first white space.
fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text
        .split_once(|c: char| c.is_ascii_whitespace())
        .unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// Whether a list of domains means all of them, possibly with exceptions; `None` if a domain is unknown.
fn covers_all_domains(list: &str) -> Option<bool> {
    let mut all = false;
    for name in list.split(',').map(str::trim) {
        let plain = name.strip_prefix('~').unwrap_or(name);
        if name != "*" && !DOMAINS.contains(&plain) {
            return None;
        }
        all |= name == "*" || name.starts_with('~');
    }
    Some(all)
}

/// Translates `DataDirectory` and `CacheDirectory` into a subfolder of each.
fn set_folders(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    let get = |name| {
        let assigned = values.get(name);
        let assigned = assigned.filter(|assigned: &&Assigned| !assigned.value.is_empty());
        assigned.cloned()
    };
    let data = get("DataDirectory");
    let cache = get("CacheDirectory");
    // The cache comes first, as in arti.toml.example. C tor's default for it is the data directory.
    for (key, assigned, name) in [
        (
            "storage.cache_dir",
            cache.as_ref().or(data.as_ref()),
            "cache",
        ),
        ("storage.state_dir", data.as_ref(), "state"),
    ] {
        if let Some(assigned) = assigned {
            let folder = expand_home(assigned)?.join(OWN_FOLDER).join(name);
            let folder = assigned.absolute_path(&folder.to_string_lossy())?;
            document.set(key, folder, assigned.origin());
        }
    }
    if let Some(assigned) = data.or(cache) {
        let text = format!(
            "onionport keeps its files in the subfolder {OWN_FOLDER}, and does not use C tor's guards \
             and cache"
        );
        values.warn(&assigned.position, assigned.name, &text);
    }
    Ok(())
}

/// Expands a leading `~/` (path.c: `expand_filename`).
fn expand_home(assigned: &Assigned) -> Result<PathBuf, TorrcError> {
    let Some(rest) = assigned.value.strip_prefix('~') else {
        return Ok(PathBuf::from(&assigned.value));
    };
    let rest = match rest {
        "" => "",
        _ => rest.strip_prefix('/').ok_or_else(|| {
            assigned.error("~USER is not supported; write the full path of the folder")
        })?,
    };
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let home = home.ok_or_else(|| {
        assigned.error("this user has no home folder to replace ~; write the full path")
    })?;
    Ok(home.join(rest))
}
