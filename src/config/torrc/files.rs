//! Finds and reads files, and follows `%include` (conffile.c; tor(1), `%include`).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use glob::Pattern;

use super::error::{FilePosition, TorrcError};
use super::lines::{self, AssignMode, RawLine};

/// The largest file, in bytes.
const MAX_FILE_LEN: u64 = 4 << 20;
/// The largest number of files in all: a pattern that includes its own file grows without end.
const MAX_FILES: usize = 1000;
/// The deepest nesting of `%include` (C tor: `MAX_INCLUDE_RECURSION_LEVEL`).
const MAX_DEPTH: usize = 31;

/// One option with its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TorrcLine {
    /// The option as written, without `+` and `/`.
    pub(super) key: String,
    /// Its value; empty if there is none.
    pub(super) value: String,
    /// How it combines with the values of earlier files.
    pub(super) mode: AssignMode,
    /// Where it begins.
    pub(super) position: FilePosition,
}

/// Reads files and lists them.
#[derive(Debug, Default)]
pub(super) struct FileReader {
    /// Every file that was read, in order.
    pub(super) files: Vec<PathBuf>,
}

impl FileReader {
    /// Reads a file named on the command line, and all files that it includes.
    ///
    /// # Errors
    /// [`TorrcError`] for the first file that cannot be read or line that cannot be parsed.
    pub(super) fn read(&mut self, path: &Path) -> Result<Vec<TorrcLine>, TorrcError> {
        let text = self.read_text(path).map_err(|error| match error.kind() {
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

    /// Adds the lines of a file's text to `all`, and those of its includes.
    fn parse(
        &mut self,
        path: &Path,
        text: &str,
        depth: usize,
        all: &mut Vec<TorrcLine>,
    ) -> Result<(), TorrcError> {
        let position = |line| FilePosition {
            path: path.to_owned(),
            line,
        };
        let raw = lines::parse(text).map_err(|error| TorrcError::Syntax {
            position: position(error.line),
            problem: error.problem.to_owned(),
        })?;
        for RawLine {
            key,
            value,
            mode,
            line,
        } in raw
        {
            let position = position(line);
            if key == "%include" {
                self.include(&position, &value, depth, all)?;
            } else {
                all.push(TorrcLine {
                    key,
                    value,
                    mode,
                    position,
                });
            }
        }
        Ok(())
    }

    /// Adds the lines of the files that an `%include` names.
    fn include(
        &mut self,
        position: &FilePosition,
        pattern: &str,
        depth: usize,
        all: &mut Vec<TorrcLine>,
    ) -> Result<(), TorrcError> {
        let error = |problem: String| TorrcError::Include {
            position: position.clone(),
            pattern: pattern.to_owned(),
            problem,
        };
        if pattern.is_empty() {
            return Err(error("no path; write one".to_owned()));
        }
        for path in expand_pattern(pattern).map_err(error)? {
            for file in list_files(&path).map_err(error)? {
                if depth >= MAX_DEPTH {
                    return Err(error(format!(
                        "files are nested more than {MAX_DEPTH} deep; check for a file that \
                         includes itself"
                    )));
                }
                if self.files.len() >= MAX_FILES {
                    return Err(error(format!(
                        "more than {MAX_FILES} files; check for a file that includes itself"
                    )));
                }
                let text = self.read_text(&file).map_err(|problem| {
                    error(format!("cannot read {}: {problem}", file.display()))
                })?;
                self.parse(&file, &text, depth + 1, all)?;
            }
        }
        Ok(())
    }

    /// Reads a file. Bytes that are not UTF-8 become U+FFFD; `assign` refuses values with that
    /// character where they matter.
    fn read_text(&mut self, path: &Path) -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(MAX_FILE_LEN + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_LEN {
            return Err(io::Error::other(format!(
                "it is larger than {MAX_FILE_LEN} bytes"
            )));
        }
        self.files.push(path.to_owned());
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Returns the paths that match a pattern of glob(3), sorted. A path without `*` and `?` is returned as
/// it is, whether it exists or not (path.c: `tor_glob`).
fn expand_pattern(pattern: &str) -> Result<Vec<PathBuf>, String> {
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
            add_matching(&path, part, &mut longer)?;
        }
        paths = longer;
    }
    paths.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    Ok(paths)
}

/// Adds to `found` the entries of a folder that match one component of a pattern.
fn add_matching(folder: &Path, component: &str, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let pattern = Pattern::new(&to_glob_pattern(component))
        .map_err(|error| format!("invalid pattern {component:?}: {error}; correct it"))?;
    let here = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    if !here.is_dir() {
        return Ok(());
    }
    let unreadable = |error: io::Error| format!("cannot read {}: {error}", here.display());
    for entry in fs::read_dir(here).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let text = name.to_string_lossy();
        // Only a literal dot matches the dot of a hidden file.
        if pattern.matches(&text) && (component.starts_with('.') || !text.starts_with('.')) {
            found.push(folder.join(name));
        }
    }
    Ok(())
}

/// Whether a path contains a `*` or `?` without a backslash before it.
fn is_wild(pattern: &str) -> bool {
    let mut escaped = false;
    pattern.chars().any(|c| {
        let wild = !escaped && matches!(c, '*' | '?');
        escaped = !escaped && c == '\\';
        wild
    })
}

/// Converts one component of a glob(3) pattern to the syntax of the crate [`glob`].
fn to_glob_pattern(component: &str) -> String {
    let mut out = String::new();
    let mut chars = component.chars();
    while let Some(c) = chars.next() {
        match c {
            // `**` means the same as `*` to glob(3), but not to the crate.
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

/// Returns the files to read at a path: the file itself, or the regular files of a folder in lexical
/// order, without hidden ones (conffile.c: `config_get_file_list`).
fn list_files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "no such file or folder: {}; correct the path (a relative path starts at the working \
             directory of onionport)",
            path.display()
        ),
        _ => format!("cannot read {}: {error}", path.display()),
    };
    let kind = fs::metadata(path).map_err(unreadable)?.file_type();
    if kind.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if !kind.is_dir() {
        return Err(format!(
            "{} is neither a file nor a folder; name one of them",
            path.display()
        ));
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
