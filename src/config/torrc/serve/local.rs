//! `[logging]`, `[application]`, `[system]` and `[storage]`: what concerns this machine.

use std::path::PathBuf;

use super::super::assign::{Said, Values};
use super::super::document::Document;
use super::super::error::TorrcError;
use super::{bad, from, number, path};

/// Severities of C tor from the gravest on, and the level that shows as much and nothing more
/// private: C tor hides addresses at every level, onionport only down to info.
const SEVERITIES: &[(&str, &str)] = &[
    ("err", "error"),
    ("warn", "warn"),
    ("notice", "info"),
    ("info", "info"),
    ("debug", "debug"),
];
/// The parts of C tor that log (log.c: `domain_list`).
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
/// The folder in C tor's own for what onionport keeps: their files have nothing in common.
const OWN_FOLDER: &str = "onionport";

/// Fills `[logging]`, `[application]`, `[system]` and `[storage]`.
pub(super) fn serve(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    log(values, document)?;
    log_times(values, document)?;
    if let Some(said) = values.one("DisableDebuggerAttachment") {
        document.set(
            "application.permit_debugging",
            said.value != "1",
            from(said),
        );
    }
    if let Some(said) = values.one("ConnLimit") {
        let files = number(said)?;
        if files == 0 {
            return Err(bad(said, "0 connections are of no use: write at least 1"));
        }
        // C tor asks for all it can get and wants so many at least.
        let usual = i64::try_from(crate::config::DEFAULT_MAX_FILES).unwrap_or(i64::MAX);
        if files > usual {
            document.set("system.max_files", files, from(said));
        }
    }
    if let Some(said) = values.one("MaxMemInQueues").filter(|s| s.value != "0") {
        document.set("system.memory.max", number(said)?, from(said));
    }
    storage(values, document)
}

/// The line that shows the most so far: the rank of its severity, and the line.
type Best = Option<(usize, Said)>;

/// `Log`: onionport's log goes to standard error, as much as the lines for a terminal ask for, or
/// the lines for other places if there are no such.
fn log(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    let lines = values.list("Log").to_vec();
    let mut elsewhere = Vec::new();
    let (mut shown, mut stored): (Best, Best) = (None, None);
    for said in lines {
        let (rank, target) = log_line(&said)?;
        let best = match target {
            Target::Terminal => &mut shown,
            Target::Other => {
                elsewhere.push(said.place.to_string());
                &mut stored
            }
        };
        if best.as_ref().is_none_or(|(known, _)| rank > *known) {
            *best = Some((rank, said));
        }
    }
    if !elsewhere.is_empty() {
        values.warnings.push(format!(
            "{} Log: the log goes to standard error only: let the service manager, or 2>FILE, \
             store it",
            elsewhere.join(", ")
        ));
    }
    if let Some((rank, said)) = shown.or(stored)
        && let Some((_, level)) = SEVERITIES.get(rank)
    {
        if *level == "debug" {
            values.warnings.push(format!(
                "{}: Log: at level debug the log may hold addresses, which C tor scrubs: keep it to \
                 yourself",
                said.place
            ));
        }
        document.set("logging.console", *level, from(&said));
    }
    Ok(())
}

/// `LogTimeGranularity`: a divisor or a multiple of one second; C tor takes the next one.
fn log_times(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    let Some(said) = values.one("LogTimeGranularity").cloned() else {
        return Ok(());
    };
    let asked = number(&said)?;
    let taken = match asked {
        0 => return Err(bad(&said, "0 is no length of time: write at least 1 msec")),
        1..1000 => (asked..=1000).find(|n| 1000 % n == 0).unwrap_or(1000),
        _ => (asked + 999) / 1000 * 1000,
    };
    if taken != asked {
        let text = format!(
            "LogTimeGranularity: {asked} msec is neither a divisor nor a multiple of a second: it is \
             {taken} msec now"
        );
        values.warn(&said.place, &text);
    }
    document.set(
        "logging.time_granularity",
        format!("{taken} ms"),
        from(&said),
    );
    Ok(())
}

/// Where a `Log` line writes to.
enum Target {
    /// Standard output or standard error.
    Terminal,
    /// A file or the system's log.
    Other,
}

/// Reads `[DOMAINS]MIN[-MAX] … [stderr|stdout|syslog|file NAME]` (log.c:
/// `parse_log_severity_config`): the rank of the least grave severity, of those for all domains if
/// there are such, and the place.
fn log_line(said: &Said) -> Result<(usize, Target), TorrcError> {
    let problem = |word: &str| {
        let problem = format!(
            "{word:?} is no part of a log line: write a severity (err, warn, notice, info, debug) and \
             stderr, stdout, syslog or file NAME"
        );
        bad(said, problem)
    };
    let line = said.value.to_ascii_lowercase();
    let mut rest = line.trim_start();
    let mut target = Target::Terminal;
    let mut general = None;
    let mut narrow = None;
    while !rest.is_empty() {
        let (word, after) = split_word(rest);
        match (word, after.is_empty()) {
            ("stdout" | "stderr", true) => break,
            ("syslog", true) | ("file", false) => {
                target = Target::Other;
                break;
            }
            _ => {}
        }
        let (all, levels) = match rest.strip_prefix('[').map(|rest| rest.split_once(']')) {
            None => (true, rest),
            Some(Some((list, levels))) => (domains(list).ok_or_else(|| problem(list))?, levels),
            Some(None) => return Err(problem(rest)),
        };
        let (levels, after) = split_word(levels.trim_start());
        let mut rank = None;
        for level in levels.splitn(2, '-') {
            let known = SEVERITIES.iter().position(|(known, _)| *known == level);
            rank = rank.max(Some(known.ok_or_else(|| problem(level))?));
        }
        let best = if all { &mut general } else { &mut narrow };
        *best = rank.max(*best);
        rest = after;
    }
    let rank = general.or(narrow).ok_or_else(|| problem(&said.value))?;
    Ok((rank, target))
}

/// A word and what follows it behind white space.
fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text
        .split_once(|c: char| c.is_ascii_whitespace())
        .unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// Whether a list of domains means all of them, perhaps with exceptions; nothing if one is unknown.
fn domains(list: &str) -> Option<bool> {
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

/// `DataDirectory` and `CacheDirectory`: a folder of our own in each.
fn storage(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    let data = values
        .one("DataDirectory")
        .filter(|s| !s.value.is_empty())
        .cloned();
    let cache = values
        .one("CacheDirectory")
        .filter(|s| !s.value.is_empty())
        .cloned();
    // The order of arti.toml.example: the cache first. Without a folder for it, C tor uses the other.
    for (key, said, name) in [
        (
            "storage.cache_dir",
            cache.as_ref().or(data.as_ref()),
            "cache",
        ),
        ("storage.state_dir", data.as_ref(), "state"),
    ] {
        if let Some(said) = said {
            let folder = home(said)?.join(OWN_FOLDER).join(name);
            document.set(key, path(said, &folder.to_string_lossy())?, from(said));
        }
    }
    if let Some(said) = data.or(cache) {
        let text = format!(
            "{}: onionport keeps its files in the folder {OWN_FOLDER} there; C tor's guards and \
             cache are not taken over",
            said.name
        );
        values.warn(&said.place, &text);
    }
    Ok(())
}

/// A path that may begin with `~/` (path.c: `expand_filename`).
fn home(said: &Said) -> Result<PathBuf, TorrcError> {
    let Some(rest) = said.value.strip_prefix('~') else {
        return Ok(PathBuf::from(&said.value));
    };
    let rest = match rest {
        "" => "",
        _ => rest.strip_prefix('/').ok_or_else(|| {
            bad(
                said,
                "the home folder of another user is not looked up: write the path in full",
            )
        })?,
    };
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let home = home.ok_or_else(|| {
        bad(
            said,
            "there is no home folder for ~: write the path in full",
        )
    })?;
    Ok(home.join(rest))
}
