//! The sources of the configuration: files and `-o` options, merged, and where each key is set.
//!
//! `read` finds and reads them, `source` is a single one, `toml_tree` walks its parsed text.

use std::path::PathBuf;

use arti_client::TorClientConfig;
use arti_client::config::{ConfigurationSource, ConfigurationSources};
use tor_config::ConfigurationTree;
use tor_config::load::{ConfigResolveError, ConfigResolveOptions, ResolutionResults};
use tor_config::sources::MustRead;
use zeroize::Zeroizing;

use super::arti_keys;
use super::error::{ConfigError, SourceLocation};
use super::error_text::chain;
use super::file::Sections;
use super::key::Key;
use super::redact;
use super::setting::Setting;
use super::torrc::Torrc;

mod read;
mod source;
mod toml_tree;

use source::{Source, SourceKind};
use toml_tree::{collect_leaves, collect_secrets, find_key};

/// All sources, in the order in which they apply.
#[derive(Debug, Default)]
pub(super) struct Sources(Vec<Source>);

impl Sources {
    /// Reads C tor's files, then ours, then `options`. If no file is named at all, ours are the
    /// default ones.
    ///
    /// # Errors
    /// [`ConfigError`] for the first file or option that cannot be read.
    pub(super) fn read(
        torrc: &[PathBuf],
        files: &[PathBuf],
        options: &[String],
    ) -> Result<Self, ConfigError> {
        let mut sources = Vec::new();
        if !torrc.is_empty() {
            sources.push(read::read_torrc(torrc)?);
        }
        if torrc.is_empty() || !files.is_empty() {
            sources.extend(read::read_files(files)?);
        }
        sources.extend(read::read_options(options)?);
        Ok(Sources(sources))
    }

    /// Returns the files that were read.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let files = self.0.iter().flat_map(|source| match &source.kind {
            SourceKind::File(path) => vec![path.clone()],
            SourceKind::Option(_) => Vec::new(),
            SourceKind::Torrc(torrc) => torrc.files.clone(),
        });
        files.collect()
    }

    /// Returns the settings of C tor's files, if any were read.
    pub(super) fn torrc(&self) -> Option<&Torrc> {
        self.0.iter().find_map(|source| match &source.kind {
            SourceKind::Torrc(torrc) => Some(&**torrc),
            SourceKind::File(_) | SourceKind::Option(_) => None,
        })
    }

    /// Returns all values that may contain secrets.
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

    /// Returns where `key` gets its value: the location in the last source that sets it.
    pub(super) fn locate(&self, key: &Key) -> SourceLocation {
        self.0
            .iter()
            .rev()
            .find_map(|source| source.locate(key))
            .unwrap_or(SourceLocation::Unknown)
    }

    /// Returns a key of ours with its location.
    pub(super) fn setting(&self, key: &'static str) -> Setting {
        Setting {
            key,
            location: self.locate(&Key::parse(key)),
        }
    }

    /// Returns a key of ours that is a list, with the location of one of its elements.
    pub(super) fn element(&self, key: &'static str, index: usize) -> Setting {
        Setting {
            key,
            location: self.locate(&Key::parse(key).element(index)),
        }
    }

    /// Whether `key` gets its value from C tor's files, or from C tor's default.
    pub(super) fn is_from_torrc(&self, key: &str) -> bool {
        let key = Key::parse(key);
        let setting = self
            .0
            .iter()
            .rev()
            .find(|source| source.locate(&key).is_some());
        setting.is_some_and(|source| matches!(source.kind, SourceKind::Torrc(_)))
    }

    /// Whether `key` gets its value from C tor's default, which has no line.
    pub(super) fn is_torrc_default(&self, key: &str) -> bool {
        let location = self.locate(&Key::parse(key));
        self.is_from_torrc(key) && matches!(location, SourceLocation::Unknown)
    }

    /// Returns the first key at or below `key` whose value is not harmless, with its remedy. `key` must
    /// be unsupported; later sources are searched first.
    pub(super) fn find_unsupported(&self, key: &Key) -> Option<(Key, &'static str)> {
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
                // A later source has overridden it.
                if known.contains(&leaf) {
                    continue;
                }
                let remedy = arti_keys::find(&leaf).and_then(|entry| entry.remedy_for(&value));
                if let Some(remedy) = remedy {
                    return Some((leaf, remedy));
                }
                known.push(leaf);
            }
        }
        None
    }

    /// Merges the sources, and converts them to arti-client's configuration and our sections.
    ///
    /// # Errors
    /// [`ConfigError`] for the first value that arti's code or serde refuses.
    pub(super) fn resolve(
        &self,
    ) -> Result<ResolutionResults<(TorClientConfig, Sections)>, ConfigError> {
        let tree = self.merge()?;
        tor_config::resolve_return_results(&tree, &ConfigResolveOptions::default())
            .map_err(|error| self.explain(error))
    }

    /// Merges the sources by arti's own rules.
    fn merge(&self) -> Result<ConfigurationTree, ConfigError> {
        let mut merged = ConfigurationSources::new_empty();
        for source in &self.0 {
            if !matches!(source.kind, SourceKind::Option(_)) {
                // Serialized again, so that arti's parser cannot read the text differently from ours.
                let text = toml::from_str::<toml::Table>(&source.text)
                    .map_err(|error| source.syntax_error(&error))?
                    .to_string();
                let verbatim = ConfigurationSource::from_verbatim(text);
                merged.push_source(verbatim, MustRead::MustRead);
            } else {
                merged.push_option(source.text.as_str());
            }
        }
        merged.load().map_err(|error| ConfigError::Settings {
            location: SourceLocation::Unknown,
            problem: self.without_secrets(&chain(&error)),
        })
    }

    /// Converts an error of arti's configuration code, and adds its location.
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
            true => redact::redact_problem(&parsed, &problem),
            false => self.without_secrets(&problem),
        };
        let location = match self.locate(&parsed) {
            // The key may be missing: use the location of its table.
            SourceLocation::Unknown => self.locate(&parsed.parent()),
            location => location,
        };
        if key.is_empty() {
            ConfigError::Settings { location, problem }
        } else {
            ConfigError::Value {
                location,
                key,
                problem,
            }
        }
    }

    /// Removes the secrets of these sources from another crate's message.
    fn without_secrets(&self, problem: &str) -> String {
        let secrets = self.secrets();
        redact::without_values(problem, secrets.iter().map(|secret| secret.as_str()))
    }
}

/// Splits `… for key "default.a.b" in …`, the form of the crate that arti reads files with, into key
/// and problem.
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
