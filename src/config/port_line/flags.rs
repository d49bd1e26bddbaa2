//! The flags of a port line: tor(1) `SocksPort`, "isolation flags" and "other recognized flags".

use super::bind_addr::{BindAddr, is_space};
use super::error::PortError;

/// What a port allows its clients, and how it isolates their streams.
///
/// The defaults are C tor's (`port_cfg_new`): IPv6 is on, although tor(1) documents it as off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flags {
    /// Which streams of this port must not share a circuit.
    pub isolation: IsolationFlags,
    /// `SessionGroup=N`: ports with the same number may share circuits. `None`: this port shares no
    /// circuit with another.
    pub session_group: Option<u32>,
    /// Keep a circuit for new streams as long as streams with SOCKS authentication use it.
    pub keep_alive_isolate_socks_auth: bool,
    /// Exits may connect to IPv4 addresses (on by default).
    pub ipv4_traffic: bool,
    /// Exits may connect to IPv6 addresses (on by default).
    pub ipv6_traffic: bool,
    /// Exits prefer the IPv6 addresses of a name.
    pub prefer_ipv6: bool,
    /// Exits may resolve names (on by default).
    pub dns_request: bool,
    /// Onion services may be reached (on by default).
    pub onion_traffic: bool,
    /// If a client offers the SOCKS5 methods "none" and "user and password", choose "none".
    /// Always set if SOCKS authentication does not isolate.
    pub prefer_socks_no_auth: bool,
    /// Send the onion-service codes F0 to F7 in SOCKS5 replies.
    pub extended_errors: bool,
    /// The group of the Unix socket may use it.
    pub group_writable: bool,
    /// Everyone may use the Unix socket.
    pub world_writable: bool,
    /// The folder of the Unix socket need not be private.
    pub relax_dir_mode_check: bool,
    /// Automapped names get IPv6 addresses where either family would do (on by default).
    pub prefer_ipv6_automap: bool,
    /// Flags of C tor's client DNS cache; without effect.
    pub dns_cache: DnsCacheFlags,
}

/// What must be the same for two streams to share a circuit (tor(1), "isolation flags").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IsolationFlags {
    /// The client's IP address (on by default; always off on Unix sockets, which have none).
    pub client_addr: bool,
    /// The SOCKS user and password (on by default).
    pub socks_auth: bool,
    /// The protocol: SOCKS4, SOCKS5 or HTTP.
    pub client_protocol: bool,
    /// The destination port.
    pub dest_port: bool,
    /// The destination address, as the client wrote it.
    pub dest_addr: bool,
}

/// tor(1)'s flags of the client DNS cache. They have no effect, because there is no such cache, and
/// are kept only so that a line can be written back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DnsCacheFlags {
    /// `CacheIPv4DNS`.
    pub cache_ipv4: bool,
    /// `CacheIPv6DNS`.
    pub cache_ipv6: bool,
    /// `UseIPv4Cache`.
    pub use_ipv4: bool,
    /// `UseIPv6Cache`.
    pub use_ipv6: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Flags {
            isolation: IsolationFlags::default(),
            session_group: None,
            keep_alive_isolate_socks_auth: false,
            ipv4_traffic: true,
            ipv6_traffic: true,
            prefer_ipv6: false,
            dns_request: true,
            onion_traffic: true,
            prefer_socks_no_auth: false,
            extended_errors: false,
            group_writable: false,
            world_writable: false,
            relax_dir_mode_check: false,
            prefer_ipv6_automap: true,
            dns_cache: DnsCacheFlags::default(),
        }
    }
}

impl Default for IsolationFlags {
    fn default() -> Self {
        IsolationFlags {
            client_addr: true,
            socks_auth: true,
            client_protocol: false,
            dest_port: false,
            dest_addr: false,
        }
    }
}

/// A word that switches one field on, or off with `No` before it.
struct OnOffFlag {
    /// The word as tor(1) writes it.
    name: &'static str,
    /// The field it switches.
    field: fn(&mut Flags) -> &mut bool,
    /// How it may be used.
    kind: FlagKind,
}

/// How a flag may be used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FlagKind {
    /// On any port.
    Plain,
    /// An isolation flag: the word may end in an `s`.
    Isolation,
    /// Only on Unix sockets.
    Unix,
    /// A flag of the client DNS cache: accepted, without effect.
    Cache,
}

/// Every on/off flag, in the order in which lines are written.
const ON_OFF_FLAGS: &[OnOffFlag] = {
    use FlagKind::{Cache, Isolation, Plain, Unix};
    const fn flag(
        name: &'static str,
        field: fn(&mut Flags) -> &mut bool,
        kind: FlagKind,
    ) -> OnOffFlag {
        OnOffFlag { name, field, kind }
    }
    &[
        flag("ExtendedErrors", |f| &mut f.extended_errors, Plain),
        flag("IPv4Traffic", |f| &mut f.ipv4_traffic, Plain),
        flag("IPv6Traffic", |f| &mut f.ipv6_traffic, Plain),
        flag("PreferIPv6", |f| &mut f.prefer_ipv6, Plain),
        flag("DNSRequest", |f| &mut f.dns_request, Plain),
        flag("OnionTraffic", |f| &mut f.onion_traffic, Plain),
        flag(
            "IsolateClientAddr",
            |f| &mut f.isolation.client_addr,
            Isolation,
        ),
        flag(
            "IsolateSOCKSAuth",
            |f| &mut f.isolation.socks_auth,
            Isolation,
        ),
        flag(
            "IsolateClientProtocol",
            |f| &mut f.isolation.client_protocol,
            Isolation,
        ),
        flag("IsolateDestPort", |f| &mut f.isolation.dest_port, Isolation),
        flag("IsolateDestAddr", |f| &mut f.isolation.dest_addr, Isolation),
        flag(
            "KeepAliveIsolateSOCKSAuth",
            |f| &mut f.keep_alive_isolate_socks_auth,
            Plain,
        ),
        flag("PreferSOCKSNoAuth", |f| &mut f.prefer_socks_no_auth, Plain),
        flag("GroupWritable", |f| &mut f.group_writable, Unix),
        flag("WorldWritable", |f| &mut f.world_writable, Unix),
        flag("RelaxDirModeCheck", |f| &mut f.relax_dir_mode_check, Unix),
        flag("PreferIPv6Automap", |f| &mut f.prefer_ipv6_automap, Plain),
        flag("CacheIPv4DNS", |f| &mut f.dns_cache.cache_ipv4, Cache),
        flag("CacheIPv6DNS", |f| &mut f.dns_cache.cache_ipv6, Cache),
        flag("UseIPv4Cache", |f| &mut f.dns_cache.use_ipv4, Cache),
        flag("UseIPv6Cache", |f| &mut f.dns_cache.use_ipv6, Cache),
    ]
};

/// Words that switch several flags at once.
const GROUPS: &[(&str, [&str; 2])] = &[
    ("CacheDNS", ["CacheIPv4DNS", "CacheIPv6DNS"]),
    ("UseDNSCache", ["UseIPv4Cache", "UseIPv6Cache"]),
];

/// tor(1): "only onion addresses"; it has no `No` form.
const ONION_ONLY: &str = "OnionTrafficOnly";
/// The one flag with a value.
const SESSION_GROUP: &str = "SessionGroup=";

impl Flags {
    /// Returns the flags of a line without any.
    pub(super) fn for_bind(bind: &BindAddr) -> Self {
        let mut flags = Flags::default();
        if matches!(bind, BindAddr::Unix(_)) {
            flags.isolation.client_addr = false;
        }
        flags
    }

    /// Returns the fewest words that set these flags on a port at this address.
    pub(super) fn to_words(mut self, bind: &BindAddr) -> Vec<String> {
        let mut default = Flags::for_bind(bind);
        if !self.isolation.socks_auth {
            // NoIsolateSOCKSAuth implies it.
            default.prefer_socks_no_auth = true;
        }
        let mut words = Vec::new();
        for OnOffFlag { name, field, .. } in ON_OFF_FLAGS {
            let on = *field(&mut self);
            if on != *field(&mut default) {
                words.push(format!("{}{name}", if on { "" } else { "No" }));
            }
        }
        words.extend(self.session_group.map(|n| format!("{SESSION_GROUP}{n}")));
        words
    }

    /// Sets what other flags imply, after all words have been read.
    fn apply_implied(&mut self, bind: &BindAddr) {
        if !self.isolation.socks_auth {
            self.prefer_socks_no_auth = true;
        }
        if matches!(bind, BindAddr::Unix(_)) {
            self.isolation.client_addr = false;
        }
    }

    /// Refuses flags that contradict each other.
    fn check(&self) -> Result<(), PortError> {
        let exits = self.ipv4_traffic || self.ipv6_traffic;
        if !exits && !self.onion_traffic {
            return Err(PortError::NothingToCarry);
        }
        if !exits && self.dns_request {
            return Err(PortError::DnsWithoutTraffic);
        }
        if self.keep_alive_isolate_socks_auth && !self.isolation.socks_auth {
            return Err(PortError::KeepAliveWithoutAuth);
        }
        Ok(())
    }
}

/// Parses the words after the address; returns the flags, and warnings about unknown words and
/// flags without effect.
pub(super) fn parse(bind: &BindAddr, words: &str) -> Result<(Flags, Vec<String>), PortError> {
    let mut flags = Flags::for_bind(bind);
    let mut warnings = Vec::new();
    let mut cache_words = Vec::new();
    for word in words.split(is_space).filter(|word| !word.is_empty()) {
        if let Some(value) = strip_prefix_nocase(word, SESSION_GROUP) {
            apply_session_group(&mut flags, word, value)?;
            continue;
        }
        let (name, on) = match strip_prefix_nocase(word, "No") {
            Some(name) => (name, false),
            None => (word, true),
        };
        if name.eq_ignore_ascii_case(ONION_ONLY) {
            if on {
                flags.ipv4_traffic = false;
                flags.ipv6_traffic = false;
                flags.dns_request = false;
            } else {
                warnings.push(format!(
                    "unknown flag {word:?} ignored: set DNSRequest, IPv4Traffic and IPv6Traffic one by \
                     one"
                ));
            }
            continue;
        }
        let switched = find_flags(name);
        for flag in &switched {
            if flag.kind == FlagKind::Unix && !matches!(bind, BindAddr::Unix(_)) {
                return Err(PortError::UnixFlagOnTcp { flag: flag.name });
            }
            *(flag.field)(&mut flags) = on;
        }
        match switched.first() {
            None => warnings.push(unknown_flag_warning(word, name, on)),
            Some(flag) if flag.kind == FlagKind::Cache => cache_words.push(word),
            Some(_) => {}
        }
    }
    if !cache_words.is_empty() {
        warnings.push(format!(
            "{} has no effect: there is no client DNS cache, exits resolve every name",
            cache_words.join(" ")
        ));
    }
    flags.apply_implied(bind);
    flags.check()?;
    Ok((flags, warnings))
}

/// Returns the flags that a word, without its `No`, switches; none if the word is unknown.
fn find_flags(word: &str) -> Vec<&'static OnOffFlag> {
    let group = GROUPS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(word));
    let singular = word.strip_suffix(['s', 'S']).unwrap_or(word);
    ON_OFF_FLAGS
        .iter()
        .filter(|flag| match group {
            Some((_, members)) => members.contains(&flag.name),
            None => {
                flag.name.eq_ignore_ascii_case(word)
                    || (flag.kind == FlagKind::Isolation
                        && flag.name.eq_ignore_ascii_case(singular))
            }
        })
        .collect()
}

/// Parses `SessionGroup=N` and sets it.
fn apply_session_group(flags: &mut Flags, word: &str, value: &str) -> Result<(), PortError> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let second = value
        .parse::<u32>()
        .ok()
        // C tor stores it in an int.
        .filter(|n| digits && i32::try_from(*n).is_ok())
        .ok_or_else(|| PortError::BadSessionGroup {
            word: word.to_owned(),
        })?;
    match flags.session_group {
        Some(first) if first != second => Err(PortError::TwoSessionGroups { first, second }),
        _ => {
            flags.session_group = Some(second);
            Ok(())
        }
    }
}

/// Builds the warning for an unknown flag; it names the most similar flag.
fn unknown_flag_warning(word: &str, name: &str, on: bool) -> String {
    let known = ON_OFF_FLAGS
        .iter()
        .map(|flag| flag.name)
        .chain(GROUPS.iter().map(|(name, _)| *name))
        .chain([ONION_ONLY, SESSION_GROUP]);
    let name = name.to_ascii_lowercase();
    let nearest = known
        .min_by_key(|flag| strsim::damerau_levenshtein(&name, &flag.to_ascii_lowercase()))
        .unwrap_or(ONION_ONLY);
    let no = if on || [ONION_ONLY, SESSION_GROUP].contains(&nearest) {
        ""
    } else {
        "No"
    };
    format!("unknown flag {word:?} ignored: did you mean {no}{nearest}?")
}

/// `str::strip_prefix`, ignoring case.
fn strip_prefix_nocase<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(tail)
}
