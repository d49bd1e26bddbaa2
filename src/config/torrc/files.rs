//! From files to lines: what is read, and in which order (conffile.c; tor(1), `%include`).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use glob::Pattern;

use super::error::{Place, TorrcError};
use super::lines::{self, Mode, Raw};

/// The longest file, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// How many files may be read in all: an `%include` of itself by a pattern would go on and on.
const MAX_FILES: usize = 1000;
/// How many files deep an `%include` may stand (C tor: `MAX_INCLUDE_RECURSION_LEVEL`).
const MAX_DEPTH: usize = 31;

/// One option with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The option as written, without `+` and `/`.
    pub(super) key: String,
    /// Its value; empty if there is none.
    pub(super) value: String,
    /// How it joins what earlier files said.
    pub(super) mode: Mode,
    /// Where it stands.
    pub(super) place: Place,
}

/// Reads files and keeps a list of them.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Every file that was read, in order.
    pub(super) files: Vec<PathBuf>,
}

impl Reader {
    /// Reads a file from the command line and all that it includes.
    pub(super) fn read(&mut self, path: &Path) -> Result<Vec<Line>, TorrcError> {
        let text = self.text(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => TorrcError::NoFile {
                path: path.to_owned(),
            },
            _ => TorrcError::Unreadable {
                path: path.to_owned(),
                problem: error.to_string(),
            },
        })?;
        let mut all = Vec::new();
        self.parse(path, &text, 1, &mut all)?;
        Ok(all)
    }

    /// Reads the lines of a file's text.
    fn parse(
        &mut self,
        path: &Path,
        text: &str,
        depth: usize,
        all: &mut Vec<Line>,
    ) -> Result<(), TorrcError> {
        let place = |line| Place {
            path: path.to_owned(),
            line,
        };
        let raw = lines::parse(text).map_err(|bad| TorrcError::Syntax {
            place: place(bad.line),
            problem: bad.problem.to_owned(),
        })?;
        for Raw {
            key,
            value,
            mode,
            line,
        } in raw
        {
            let place = place(line);
            if key == "%include" {
                self.include(&place, &value, depth, all)?;
            } else {
                all.push(Line {
                    key,
                    value,
                    mode,
                    place,
                });
            }
        }
        Ok(())
    }

    /// Reads what an `%include` names, in the place of its line.
    fn include(
        &mut self,
        place: &Place,
        pattern: &str,
        depth: usize,
        all: &mut Vec<Line>,
    ) -> Result<(), TorrcError> {
        let bad = |problem: String| TorrcError::Include {
            place: place.clone(),
            pattern: pattern.to_owned(),
            problem,
        };
        if pattern.is_empty() {
            return Err(bad("there is no path: write one".to_owned()));
        }
        for path in expand(pattern).map_err(bad)? {
            for file in list(&path).map_err(bad)? {
                if depth >= MAX_DEPTH {
                    return Err(bad(format!(
                        "this is the {MAX_DEPTH}th file within another, which is the limit: does it \
                         include itself?"
                    )));
                }
                if self.files.len() >= MAX_FILES {
                    return Err(bad(format!(
                        "{MAX_FILES} files are the limit: does one include itself?"
                    )));
                }
                let text = self
                    .text(&file)
                    .map_err(|error| bad(format!("{} cannot be read: {error}", file.display())))?;
                self.parse(&file, &text, depth + 1, all)?;
            }
        }
        Ok(())
    }

    /// Reads a file. Bytes that are no UTF-8 are marked; values with such marks are refused later.
    fn text(&mut self, path: &Path) -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(MAX_FILE + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(io::Error::other(format!(
                "it has more than {MAX_FILE} bytes, which no torrc has"
            )));
        }
        self.files.push(path.to_owned());
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The paths that a pattern stands for, in their order: one of glob(3), but only if there is a `*`
/// or `?` in it. Anything else is one path, there or not (path.c: `tor_glob`).
fn expand(pattern: &str) -> Result<Vec<PathBuf>, String> {
    if !is_wild(pattern) {
        return Ok(vec![PathBuf::from(pattern)]);
    }
    let root = if pattern.starts_with('/') { "/" } else { "" };
    let mut paths = vec![PathBuf::from(root)];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut longer = Vec::new();
        for path in paths {
            if !part.contains(['*', '?', '[', '\\']) {
                let path = path.join(part);
                longer.extend(path.symlink_metadata().is_ok().then_some(path));
                continue;
            }
            matching(&path, part, &mut longer)?;
        }
        paths = longer;
    }
    paths.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    Ok(paths)
}

/// Adds what is in a folder and matches one part of a pattern.
fn matching(folder: &Path, part: &str, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let wanted = Pattern::new(&translate(part))
        .map_err(|error| format!("{part:?} is no pattern: {error}: correct it"))?;
    let here = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    if !here.is_dir() {
        return Ok(());
    }
    let unreadable = |error: io::Error| format!("{} cannot be read: {error}", here.display());
    for entry in fs::read_dir(here).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let text = name.to_string_lossy();
        // Only a dot stands for the dot of a hidden file.
        if wanted.matches(&text) && (part.starts_with('.') || !text.starts_with('.')) {
            found.push(folder.join(name));
        }
    }
    Ok(())
}

/// Whether there is a `*` or `?` in a path without a backslash before it.
fn is_wild(pattern: &str) -> bool {
    let mut escaped = false;
    pattern.chars().any(|c| {
        let wild = !escaped && matches!(c, '*' | '?');
        escaped = !escaped && c == '\\';
        wild
    })
}

/// Puts a part of a pattern of glob(3) in the words of [`glob`].
fn translate(part: &str) -> String {
    let mut out = String::new();
    let mut chars = part.chars();
    while let Some(c) = chars.next() {
        match c {
            // Two stars are no more than one, but mean something else to the crate.
            '*' if out.ends_with('*') => {}
            '*' | '?' => out.push(c),
            '\\' => match chars.next() {
                Some(next) => out.push_str(&Pattern::escape(next.encode_utf8(&mut [0; 4]))),
                None => out.push('\\'),
            },
            '[' => match chars.as_str().split_once(']') {
                Some((class, rest)) if !class.is_empty() => {
                    let negated = class.strip_prefix('^').map(|class| format!("!{class}"));
                    out.push_str(&format!("[{}]", negated.unwrap_or(class.to_owned())));
                    chars = rest.chars();
                }
                _ => out.push_str("[[]"),
            },
            _ => out.push_str(&Pattern::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out
}

/// The files to read at a path: itself, or those of a folder in lexical order, without the hidden
/// ones, and without what is no file (conffile.c: `config_get_file_list`).
fn list(path: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{} is not there: correct the path, which counts from the folder where onionport is \
             started unless it begins with /",
            path.display()
        ),
        _ => format!("{} cannot be read: {error}", path.display()),
    };
    let kind = fs::metadata(path).map_err(unreadable)?.file_type();
    if kind.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if !kind.is_dir() {
        return Err(format!("{} is neither a file nor a folder", path.display()));
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let file = entry.path();
        if !hidden && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
