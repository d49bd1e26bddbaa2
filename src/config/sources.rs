//! Reading the files and `-o` options, and finding again where a key came from.

use std::fs;
use std::path::{Path, PathBuf};

use arti_client::TorClientConfig;
use arti_client::config::{ConfigurationSource, ConfigurationSources, default_config_files};
use fs_mistrust::Mistrust;
use toml::de::{DeTable, DeValue};
use tor_config::ConfigurationTree;
use tor_config::load::{ConfigResolveError, ConfigResolveOptions, ResolutionResults};
use tor_config::mistrust::BuilderExt as _;
use tor_config::sources::MustRead;
use zeroize::Zeroizing;

use super::error::{ConfigError, Origin};
use super::file::Sections;
use super::key::{Key, Step};
use super::redact;
use super::setting::Setting;
use crate::config::torrc::{self, Torrc};

/// Everything that sets keys, in the order in which it applies.
#[derive(Debug, Default)]
pub(super) struct Sources(Vec<Source>);

/// One file, one `-o` option, or all torrc files together.
#[derive(Debug)]
struct Source {
    kind: SourceKind,
    /// The settings as TOML: the text of the file, or what the option or the torrc files stand for.
    /// There may be passwords in it.
    text: Zeroizing<String>,
}

#[derive(Debug)]
enum SourceKind {
    File(PathBuf),
    /// The option, as far as messages show it.
    Option(String),
    Torrc(Box<Torrc>),
}

impl Sources {
    /// Reads C tor's files, then ours, and then `options`. If no file is named at all, ours are the
    /// default ones.
    pub(super) fn read(
        torrc: &[PathBuf],
        files: &[PathBuf],
        options: &[String],
    ) -> Result<Self, ConfigError> {
        let mut sources = Vec::new();
        if !torrc.is_empty() {
            let torrc = torrc::read(torrc)?;
            sources.push(Source {
                text: Zeroizing::new(torrc.table.to_string()),
                kind: SourceKind::Torrc(Box::new(torrc)),
            });
        }
        if torrc.is_empty() || !files.is_empty() {
            for (path, must_read) in find(files)? {
                sources.extend(read_file(path, must_read)?);
            }
        }
        let mut settings: Vec<Source> = Vec::new();
        for option in options {
            let (key, source) = read_option(option)?;
            // One line of TOML after the other would be a duplicate; here the later one wins.
            settings.retain(|earlier| key_of(&earlier.text) != key);
            settings.push(source);
        }
        sources.extend(settings);
        Ok(Sources(sources))
    }

    /// The files that were read.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let files = self.0.iter().flat_map(|source| match &source.kind {
            SourceKind::File(path) => vec![path.clone()],
            SourceKind::Option(_) => Vec::new(),
            SourceKind::Torrc(torrc) => torrc.files.clone(),
        });
        files.collect()
    }

    /// What the torrc files came to, if there are any.
    pub(super) fn torrc(&self) -> Option<&Torrc> {
        self.0.iter().find_map(|source| match &source.kind {
            SourceKind::Torrc(torrc) => Some(&**torrc),
            SourceKind::File(_) | SourceKind::Option(_) => None,
        })
    }

    /// Turns the keys into arti's configuration and ours, as written.
    pub(super) fn resolve(
        &self,
    ) -> Result<ResolutionResults<(TorClientConfig, Sections)>, ConfigError> {
        let tree = self.tree()?;
        tor_config::resolve_return_results(&tree, &ConfigResolveOptions::default())
            .map_err(|error| self.explain(error))
    }

    /// Merges all sources with arti's own rules.
    fn tree(&self) -> Result<ConfigurationTree, ConfigError> {
        let mut merged = ConfigurationSources::new_empty();
        for source in &self.0 {
            if !matches!(source.kind, SourceKind::Option(_)) {
                // Written anew, so that arti's reader sees nothing which ours read differently.
                let text = toml::from_str::<toml::Table>(&source.text)
                    .map_err(|error| source.syntax(&error))?
                    .to_string();
                let verbatim = ConfigurationSource::from_verbatim(text);
                merged.push_source(verbatim, MustRead::MustRead);
            } else {
                merged.push_option(source.text.as_str());
            }
        }
        merged.load().map_err(|error| ConfigError::Settings {
            origin: Origin::Unknown,
            problem: self.without_secrets(&chain(&error)),
        })
    }

    /// A message of another crate without the secrets of these sources.
    fn without_secrets(&self, problem: &str) -> String {
        let secrets = self.secrets();
        redact::without_values(problem, secrets.iter().map(|secret| secret.as_str()))
    }

    /// All values that may hold secrets.
    pub(super) fn secrets(&self) -> Vec<Zeroizing<String>> {
        let mut secrets = Vec::new();
        for source in &self.0 {
            source.with_table(|table| {
                for (name, value) in table {
                    let key = Key::default().child(name.get_ref());
                    collect_secrets(value.get_ref(), &key, &mut secrets);
                }
            });
        }
        secrets
    }

    /// Says where `key` gets its value: the last source that sets it.
    pub(super) fn origin(&self, key: &Key) -> Origin {
        self.0
            .iter()
            .rev()
            .find_map(|source| source.origin(key))
            .unwrap_or(Origin::Unknown)
    }

    /// Whether C tor's files alone give `key` its value.
    pub(super) fn is_from_torrc(&self, key: &str) -> bool {
        let key = Key::parse(key);
        let setting = self
            .0
            .iter()
            .rev()
            .find(|source| source.origin(&key).is_some());
        setting.is_some_and(|source| matches!(source.kind, SourceKind::Torrc(_)))
    }

    /// Whether `key` has its value because C tor's files do not set it: then it is C tor's default,
    /// and stands on no line.
    pub(super) fn is_torrc_default(&self, key: &str) -> bool {
        let origin = self.origin(&Key::parse(key));
        self.is_from_torrc(key) && matches!(origin, Origin::Unknown)
    }

    /// A key of ours with its place.
    pub(super) fn setting(&self, key: &'static str) -> Setting {
        Setting {
            key,
            origin: self.origin(&Key::parse(key)),
        }
    }

    /// One element of a key of ours that is a list, with its place.
    pub(super) fn element(&self, key: &'static str, index: usize) -> Setting {
        Setting {
            key,
            origin: self.origin(&Key::parse(key).element(index)),
        }
    }

    /// The first setting at or below `key`, which is not served, whose value asks for something; and what to
    /// do about it.
    pub(super) fn first_asking(&self, key: &Key) -> Option<(Key, &'static str)> {
        let mut known = Vec::new();
        for source in self.0.iter().rev() {
            let leaves = source.with_table(|table| {
                let mut leaves = Vec::new();
                if let Some((_, value)) = find_key(table, key) {
                    collect_leaves(value, key.clone(), &mut leaves);
                }
                leaves
            });
            for (leaf, value) in leaves.unwrap_or_default() {
                // What a later source says counts.
                if known.contains(&leaf) {
                    continue;
                }
                let remedy = leaf.not_served().and_then(|entry| entry.remedy_for(&value));
                if let Some(remedy) = remedy {
                    return Some((leaf, remedy));
                }
                known.push(leaf);
            }
        }
        None
    }

    /// Names the place of an error that arti's configuration code found.
    fn explain(&self, error: ConfigResolveError) -> ConfigError {
        use tor_config::ConfigBuildError as Build;
        let (key, problem) = match &error {
            ConfigResolveError::Build(
                Build::Invalid { field, problem } | Build::NoCompileTimeSupport { field, problem },
            ) => (field.clone(), problem.clone()),
            ConfigResolveError::Build(Build::MissingField { field }) => {
                (field.clone(), "has to be set".to_owned())
            }
            ConfigResolveError::Build(Build::Inconsistent { fields, problem }) => {
                (fields.first().cloned().unwrap_or_default(), problem.clone())
            }
            ConfigResolveError::Build(Build::MissingOneOf { fields, .. }) => (
                fields.first().cloned().unwrap_or_default(),
                format!("one of these has to be set: {}", fields.join(", ")),
            ),
            ConfigResolveError::Deserialize(tor_config::ConfigError::Load(cause)) => {
                split_key(&chain(cause))
            }
            _ => split_key(&chain(&error)),
        };
        let parsed = Key::parse(&key);
        let problem = match redact::is_secret(&parsed) {
            true => redact::foreign_problem(&parsed, &problem),
            false => self.without_secrets(&problem),
        };
        let origin = match self.origin(&parsed) {
            // The key may be missing; its table is the next best place.
            Origin::Unknown => self.origin(&parsed.parent()),
            origin => origin,
        };
        if key.is_empty() {
            ConfigError::Settings { origin, problem }
        } else {
            ConfigError::Value {
                origin,
                key,
                problem,
            }
        }
    }
}

impl Source {
    /// The place of `key` in this source, if it is set here.
    fn origin(&self, key: &Key) -> Option<Origin> {
        let at = self.with_table(|table| find_key(table, key).map(|(at, _)| at))??;
        Some(match &self.kind {
            SourceKind::File(path) => Origin::File {
                path: path.clone(),
                line: Some(line_at(&self.text, at)),
            },
            SourceKind::Option(option) => Origin::Option(option.clone()),
            SourceKind::Torrc(torrc) => match torrc.origin(&key.to_string()) {
                Some(place) => Origin::File {
                    path: place.path.clone(),
                    line: Some(place.line),
                },
                None => Origin::Unknown,
            },
        })
    }

    /// Hands the parsed text to `f`; `None` if it is no TOML.
    fn with_table<T>(&self, f: impl FnOnce(&DeTable<'_>) -> T) -> Option<T> {
        DeTable::parse(&self.text)
            .ok()
            .map(|table| f(table.get_ref()))
    }

    /// The error for a file that is no TOML.
    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        ConfigError::Syntax {
            origin: Origin::File {
                path: match &self.kind {
                    SourceKind::File(path) => path.clone(),
                    SourceKind::Option(_) | SourceKind::Torrc(_) => PathBuf::new(),
                },
                line: error.span().map(|span| line_at(&self.text, span.start)),
            },
            problem: one_line(error.message()),
        }
    }
}

/// Lists the files to read, in order, and whether each has to be there.
fn find(files: &[PathBuf]) -> Result<Vec<(PathBuf, MustRead)>, ConfigError> {
    let mut sources = ConfigurationSources::new_empty();
    if files.is_empty() {
        // Where there is no home, as in many containers, there are no default files either.
        for source in default_config_files().unwrap_or_default() {
            sources.push_source(source, MustRead::TolerateAbsence);
        }
    }
    for file in files {
        // arti wants a folder to be written with a slash; there is no other way to mean it.
        let source = match file.is_dir() {
            true => ConfigurationSource::Dir(file.clone()),
            false => ConfigurationSource::from_path(file),
        };
        sources.push_source(source, MustRead::MustRead);
    }
    let must_read = match files.is_empty() {
        true => MustRead::TolerateAbsence,
        false => MustRead::MustRead,
    };
    let found = sources.scan().map_err(|error| match error {
        tor_config::ConfigError::Io { path, err, .. } => unreadable(path, &err),
        other => ConfigError::Settings {
            origin: Origin::Unknown,
            problem: chain(&other),
        },
    })?;
    let paths = found.iter().filter_map(|source| match source {
        ConfigurationSource::File(path) => Some((path.clone(), must_read)),
        ConfigurationSource::Dir(_) | ConfigurationSource::Verbatim(_) => None,
    });
    Ok(paths.collect())
}

/// Reads one file; `None` if it is not there and need not be.
fn read_file(path: PathBuf, must_read: MustRead) -> Result<Option<Source>, ConfigError> {
    let optional = must_read == MustRead::TolerateAbsence;
    match check_permissions(&path) {
        Ok(()) => {}
        Err(fs_mistrust::Error::NotFound(_)) if optional => return Ok(None),
        Err(fs_mistrust::Error::NotFound(_)) => return Err(ConfigError::NoFile { path }),
        Err(error) => {
            return Err(ConfigError::Untrusted {
                path,
                problem: chain(&error),
            });
        }
    }
    let bytes = fs::read(&path).map_err(|error| unreadable(path.clone(), &error))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        ConfigError::Syntax {
            origin: Origin::File {
                path: path.clone(),
                line: Some(
                    1 + error.as_bytes()[..good]
                        .iter()
                        .filter(|b| **b == b'\n')
                        .count(),
                ),
            },
            problem: "not UTF-8".to_owned(),
        }
    })?;
    let source = Source {
        kind: SourceKind::File(path),
        text: Zeroizing::new(text),
    };
    match DeTable::parse(&source.text) {
        Ok(_) => Ok(Some(source)),
        Err(error) => Err(source.syntax(&error)),
    }
}

/// Refuses a file which another user could have written, as arti does for its own.
fn check_permissions(path: &Path) -> Result<(), fs_mistrust::Error> {
    let mistrust = Mistrust::builder()
        .build_for_arti()
        .unwrap_or_else(|_| Mistrust::new());
    mistrust.verifier().permit_readable().check(path)
}

/// The error for a file or folder that cannot be read.
fn unreadable(path: PathBuf, error: &std::io::Error) -> ConfigError {
    if error.kind() == std::io::ErrorKind::NotFound {
        return ConfigError::NoFile { path };
    }
    ConfigError::Unreadable {
        path,
        problem: error.to_string(),
    }
}

/// Reads `KEY=VALUE`: a line of TOML, or a value that needs no quotes because it could be nothing
/// but a string.
fn read_option(option: &str) -> Result<(String, Source), ConfigError> {
    let error = |problem: String| ConfigError::Option {
        origin: Origin::Option(shown(option)),
        problem,
    };
    let Some((key, value)) = option.split_once('=') else {
        return Err(error("there is no = in it".to_owned()));
    };
    let text = match toml::from_str::<toml::Table>(option) {
        Ok(_) => option.to_owned(),
        Err(problem) if value.trim_start().starts_with(['"', '\'', '[', '{']) => {
            return Err(error(one_line(problem.message())));
        }
        Err(_) => {
            let quoted = toml::Value::String(value.trim().to_owned());
            let text = format!("{} = {quoted}", key.trim());
            toml::from_str::<toml::Table>(&text).map_err(|e| error(one_line(e.message())))?;
            text
        }
    };
    let source = Source {
        kind: SourceKind::Option(shown(option)),
        text: Zeroizing::new(text),
    };
    Ok((key.trim().to_owned(), source))
}

/// What messages show of a `-o` option: its key. The value may be a password, and so may be
/// anything if there is no key.
fn shown(option: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let end = option.find(|c| !bare(c)).unwrap_or(option.len());
    let (key, rest) = option.split_at(end);
    let is_key = match rest {
        "" => Key::parse(key).is_in_known_table(),
        rest => rest.trim_start().starts_with('=') && !key.is_empty(),
    };
    match is_key {
        true => key.to_owned(),
        false => "…".to_owned(),
    }
}

/// The key of a line of TOML.
fn key_of(line: &str) -> &str {
    line.split_once('=').map_or(line, |(key, _)| key).trim()
}

/// Walks to `key`: the offset at which its last name stands, and its value.
fn find_key<'a, 'i>(table: &'a DeTable<'i>, key: &Key) -> Option<(usize, &'a DeValue<'i>)> {
    let mut found = None;
    let mut value: Option<&DeValue<'i>> = None;
    for step in &key.0 {
        match step {
            // arti's configuration code writes `list.0` for the first element.
            Step::Name(name) if value.is_some_and(|value| value.is_array()) => {
                let index: usize = name.parse().ok()?;
                value = Some(value?.as_array()?.get(index)?.get_ref());
            }
            Step::Name(name) => {
                let inside = match value {
                    None => table,
                    Some(value) => value.as_table()?,
                };
                let (key, next) = inside.iter().find(|(k, _)| *k.get_ref() == *name)?;
                found = Some(key.span().start);
                value = Some(next.get_ref());
            }
            Step::Index(index) => {
                value = Some(value?.as_array()?.get(*index)?.get_ref());
            }
        }
    }
    Some((found?, value?))
}

/// The keys at or below `key` whose values are no tables, each with its value as text; lists are only told
/// from empty ones.
fn collect_leaves(value: &DeValue<'_>, key: Key, leaves: &mut Vec<(Key, String)>) {
    let text = match value {
        DeValue::Table(table) => {
            for (name, value) in table {
                collect_leaves(value.get_ref(), key.child(name.get_ref()), leaves);
            }
            return;
        }
        DeValue::Array(array) if array.is_empty() => String::new(),
        DeValue::Array(_) => "[…]".to_owned(),
        DeValue::String(text) => text.clone().into_owned(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(switch) => switch.to_string(),
        DeValue::Datetime(time) => time.to_string(),
    };
    leaves.push((key, text));
}

/// Adds the texts at or below `key` that may be secrets.
fn collect_secrets(value: &DeValue<'_>, key: &Key, secrets: &mut Vec<Zeroizing<String>>) {
    match value {
        DeValue::Table(table) => {
            for (name, value) in table {
                collect_secrets(value.get_ref(), &key.child(name.get_ref()), secrets);
            }
        }
        DeValue::Array(array) => {
            for value in array {
                collect_secrets(value.get_ref(), key, secrets);
            }
        }
        DeValue::String(text) if redact::is_secret(key) || redact::hide(text) != **text => {
            secrets.push(Zeroizing::new(text.clone().into_owned()));
        }
        _ => {}
    }
}

/// The number of the line, counted from 1, in which the byte at `offset` stands.
fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}

/// Splits `… for key "default.a.b" in …`, the form of arti's reader, into key and problem.
fn split_key(text: &str) -> (String, String) {
    let split = text
        .split_once(" for key \"")
        .and_then(|(problem, rest)| Some((rest.split_once('"')?.0, problem)));
    match split {
        Some((key, problem)) => {
            let key = key.strip_prefix("default.").unwrap_or(key);
            (key.to_owned(), problem.to_owned())
        }
        None => (String::new(), text.to_owned()),
    }
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    one_line(&text)
}

/// Text with its line breaks taken out.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
