//! Every option of C tor 0.4.9: its name, the kind of its value, its default and how onionport treats it.
//!
//! `spec` has the types; read it first. `client` and `refused` are the table, `names` lists other names
//! for options, and `redundant` the values that need no warning. They do not import this module.

use std::sync::LazyLock;

mod client;
mod names;
mod redundant;
mod refused;
mod spec;

pub(super) use spec::{OptionKind, OptionRole, OptionSpec, RefusalReason};

/// All options in the order in which C tor searches them: case-insensitive, `_` before letters.
static ALL: LazyLock<Vec<OptionSpec>> = LazyLock::new(|| {
    let current = refused::GROUPS
        .iter()
        .chain(client::GROUPS)
        .flat_map(|group| {
            let options = group.options.iter();
            options.map(|&(name, kind, default)| OptionSpec {
                name,
                kind,
                default,
                role: group.role,
            })
        });
    let without_role = |kind| {
        move |&name: &&'static str| OptionSpec {
            name,
            kind,
            default: "",
            role: OptionRole::Redundant,
        }
    };
    let obsolete = names::OBSOLETE.iter();
    let read_only = names::READ_ONLY.iter();
    let mut all: Vec<OptionSpec> = current
        .chain(obsolete.map(without_role(OptionKind::Obsolete)))
        .chain(read_only.map(without_role(OptionKind::ReadOnly)))
        .collect();
    all.sort_by_key(|option| option.name.to_ascii_lowercase());
    all
});

/// The option found for a word in a torrc.
#[derive(Debug)]
pub(super) struct FoundOption {
    /// The option.
    pub(super) option: &'static OptionSpec,
    /// Whether C tor warns that the word is not the option's full name.
    pub(super) warn: bool,
}

/// Finds an option by another spelling, its name, or the beginning of its name, as C tor does
/// (confmgt.c: `config_expand_abbrev`, `config_mgr_find_var`).
pub(super) fn find(word: &str) -> Option<FoundOption> {
    let mut name = word;
    let mut warn = false;
    for (other, full, warns) in names::OTHER_SPELLINGS {
        if name.eq_ignore_ascii_case(other) {
            name = full;
            warn |= warns;
        }
    }
    if name.is_empty() {
        return None;
    }
    if let Some(option) = ALL.iter().find(|o| o.name.eq_ignore_ascii_case(name)) {
        return Some(FoundOption { option, warn });
    }
    let begins = |option: &&OptionSpec| {
        let start = option.name.as_bytes().get(..name.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
    };
    ALL.iter()
        .find(begins)
        .map(|option| FoundOption { option, warn: true })
}

/// The longest name that is compared with those of options, in bytes; theirs are shorter than 64.
const MAX_NAME_LEN: usize = 80;

/// Returns the option with the most similar name, if at most a third of the letters differ.
pub(super) fn nearest(word: &str) -> Option<&'static str> {
    // The comparison takes time in proportion to the length, and the word comes from a file.
    if word.len() > MAX_NAME_LEN {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let distance = |option: &&OptionSpec| {
        strsim::damerau_levenshtein(&word, &option.name.to_ascii_lowercase())
    };
    ALL.iter()
        .filter(|option| !matches!(option.kind, OptionKind::Obsolete | OptionKind::ReadOnly))
        .min_by_key(distance)
        .filter(|option| 3 * distance(option) <= word.chars().count())
        .map(|option| option.name)
}

/// Returns what replaces an obsolete option, if a user would miss it.
pub(super) fn successor(option: &OptionSpec) -> Option<&'static str> {
    let known = names::SUCCESSORS.iter();
    known
        .filter(|(name, _)| *name == option.name)
        .map(|(_, text)| *text)
        .next()
}

/// Whether a value of an ignored option asks for what onionport does anyway.
pub(super) fn is_redundant(name: &str, value: &str) -> bool {
    redundant::VALUES.contains(&(name, value))
}

/// Returns the options and values for which [`is_redundant`] is true.
#[cfg(test)]
pub(super) fn redundant_values() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    redundant::VALUES.iter()
}

/// Returns every name that a torrc may use, with whether the option is current, not obsolete.
#[cfg(test)]
pub(super) fn spellings() -> impl Iterator<Item = (&'static str, bool)> {
    let other = names::OTHER_SPELLINGS.iter().map(|(name, _, _)| *name);
    let obsolete = |name| find(name).is_none_or(|f| f.option.kind == OptionKind::Obsolete);
    let all = other.chain(ALL.iter().map(|option| option.name));
    all.map(move |name| (name, !obsolete(name)))
}

/// Returns the names of current options, to compare with `tor --list-torrc-options`.
#[cfg(test)]
pub(super) fn current_names() -> impl Iterator<Item = &'static str> {
    ALL.iter()
        .filter(|option| !matches!(option.kind, OptionKind::Obsolete | OptionKind::ReadOnly))
        .map(|option| option.name)
}
