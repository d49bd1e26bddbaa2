//! Every option of C tor 0.4.9: its name, the kind of its value, its default and what becomes of it.

use std::sync::LazyLock;

mod client;
mod fulfilled;
mod names;
mod refused;

/// One option.
#[derive(Debug)]
pub(super) struct Opt {
    /// Its name as C tor writes it.
    pub(super) name: &'static str,
    /// What its value may be.
    pub(super) kind: Kind,
    /// Its default in base units, as `tor --dump-config full` prints it; empty is none.
    pub(super) default: &'static str,
    /// What becomes of it.
    pub(super) role: Role,
}

/// The kinds of values (conftypes.h: `config_type_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `0` or `1`.
    Bool,
    /// `0`, `1` or `auto`.
    AutoBool,
    /// A whole number from 0 to 2147483647.
    Uint,
    /// A whole number.
    Int,
    /// Any number.
    Float,
    /// A length of time, in seconds.
    Interval,
    /// A length of time, in milliseconds.
    Msec,
    /// An amount of data, in bytes.
    Size,
    /// Words with commas between them.
    Csv,
    /// Relays, countries or addresses with commas between them.
    Nodes,
    /// Any text: a name, a path.
    Text,
    /// A line of its own kind, of which there may be several.
    Lines,
    /// Nothing: the option is skipped.
    Obsolete,
    /// Nothing: a torrc cannot set it.
    ReadOnly,
}

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It becomes a setting, or part of one.
    Served,
    /// It asks for what is so anyway.
    Nothing,
    /// It has no effect here, for this reason; its default needs no word.
    Warned(&'static str),
    /// It must not be passed over; its default, and what means "off", is harmless.
    Refused(Reason),
}

/// Why an option cannot be passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// It is a relay's or a bridge's.
    Relay,
    /// It is a directory authority's.
    Authority,
    /// It is an onion service's.
    Service,
    /// It says which relays to take.
    Path,
    /// It describes another Tor network, or other ways into this one.
    Network,
    /// It chooses the address to connect from.
    Source,
    /// It keeps tor from the network.
    Offline,
    /// It opens a port for natd.
    Natd,
    /// It names a proxy of HAProxy's kind.
    TcpProxy,
}

/// Options of one role: name, kind and default of each.
struct Group {
    role: Role,
    options: &'static [(&'static str, Kind, &'static str)],
}

/// All options in the order in which C tor looks for one: without regard to case, `_` before letters.
static ALL: LazyLock<Vec<Opt>> = LazyLock::new(|| {
    let known = refused::GROUPS
        .iter()
        .chain(client::GROUPS)
        .flat_map(|group| {
            group.options.iter().map(|&(name, kind, default)| Opt {
                name,
                kind,
                default,
                role: group.role,
            })
        });
    let dead = |kind| {
        move |&name: &&'static str| Opt {
            name,
            kind,
            default: "",
            role: Role::Nothing,
        }
    };
    let mut all: Vec<Opt> = known
        .chain(names::OBSOLETE.iter().map(dead(Kind::Obsolete)))
        .chain(names::READ_ONLY.iter().map(dead(Kind::ReadOnly)))
        .collect();
    all.sort_by_key(|option| option.name.to_ascii_lowercase());
    all
});

/// An option that was found by the word a torrc has for it.
#[derive(Debug)]
pub(super) struct Found {
    /// The option.
    pub(super) option: &'static Opt,
    /// Whether C tor warns that the word should be the option's full name.
    pub(super) warn: bool,
}

/// Finds the option that a word stands for, as C tor does: another spelling of it, its name, or the
/// beginning of its name (confmgt.c: `config_expand_abbrev`, `config_mgr_find_var`).
pub(super) fn find(word: &str) -> Option<Found> {
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
        return Some(Found { option, warn });
    }
    let begins = |option: &&Opt| {
        let start = option.name.as_bytes().get(..name.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
    };
    ALL.iter()
        .find(begins)
        .map(|option| Found { option, warn: true })
}

/// How long a name is at most that looks like an option's, in bytes. All of theirs are shorter than 64.
const MAX_NAME: usize = 80;

/// The option whose name looks most like a word that is none, if one looks like it at all: two of
/// three letters are right.
pub(super) fn nearest(word: &str) -> Option<&'static str> {
    // The comparison takes as long as both are long, and this one came out of a file.
    if word.len() > MAX_NAME {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let distance =
        |option: &&Opt| strsim::damerau_levenshtein(&word, &option.name.to_ascii_lowercase());
    ALL.iter()
        .filter(|option| !matches!(option.kind, Kind::Obsolete | Kind::ReadOnly))
        .min_by_key(distance)
        .filter(|option| 3 * distance(option) <= word.chars().count())
        .map(|option| option.name)
}

/// What to do instead of an obsolete option, if there is anything.
pub(super) fn successor(option: &Opt) -> Option<&'static str> {
    let known = names::SUCCESSORS.iter();
    known
        .filter(|(name, _)| *name == option.name)
        .map(|(_, text)| *text)
        .next()
}

impl Opt {
    /// The list that this option adds to. `__SocksPort` adds to that of `SocksPort`, and the options
    /// of all onion services make one list.
    pub(super) fn list(&self) -> &'static str {
        if self.kind == Kind::Lines {
            if self.name.starts_with("HiddenService") {
                return "HiddenServiceOptions";
            }
            if let Some(port) = self.name.strip_prefix("__")
                && port.ends_with("Port")
            {
                return port;
            }
        }
        self.name
    }

    /// Whether a later line takes the place of an earlier one.
    pub(super) fn is_single(&self) -> bool {
        self.kind != Kind::Lines
    }
}

/// Whether a value of an option asks for what is so anyway, though the option has no effect.
pub(super) fn is_fulfilled(name: &str, value: &str) -> bool {
    fulfilled::VALUES.contains(&(name, value))
}

impl Reason {
    /// What is so, and what to do, after the list of options: `…: {text}`.
    pub(super) fn text(self) -> &'static str {
        match self {
            Reason::Relay => {
                "these are options of relays and bridges, and onionport is a client: remove them"
            }
            Reason::Authority => {
                "these are options of directory authorities, and onionport is a client: remove them"
            }
            Reason::Service => {
                "these are options of onion services, and onionport is a client: leave them to C tor or arti"
            }
            Reason::Path => {
                "arti cannot choose or avoid single relays: remove them if any relay will do, or stay \
                 with C tor"
            }
            Reason::Network => {
                "a torrc says too little about another network for arti: remove them and describe it in \
                 tor_network, in a file for -c"
            }
            Reason::Source => {
                "arti cannot choose the address to connect from: remove them and use the system's routes"
            }
            Reason::Offline => {
                "onionport is never without the network: remove it, and start onionport when it may \
                 connect"
            }
            Reason::Natd => "there is no port for natd: use TransPort",
            Reason::TcpProxy => "arti knows no such proxy: use HTTPSProxy or Socks5Proxy",
        }
    }
}

/// The values that ask for what is so anyway.
#[cfg(test)]
pub(super) fn fulfilled() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    fulfilled::VALUES.iter()
}

/// Every name that a torrc may use, full or not, whether the option is still alive.
#[cfg(test)]
pub(super) fn spellings() -> impl Iterator<Item = (&'static str, bool)> {
    let other = names::OTHER_SPELLINGS.iter().map(|(name, _, _)| *name);
    let dead = |name| find(name).is_none_or(|found| found.option.kind == Kind::Obsolete);
    let all = other.chain(ALL.iter().map(|option| option.name));
    all.map(move |name| (name, !dead(name)))
}

/// The names that a torrc may use today, for the comparison with `tor --list-torrc-options`.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter()
        .filter(|option| !matches!(option.kind, Kind::Obsolete | Kind::ReadOnly))
        .map(|option| option.name)
}
