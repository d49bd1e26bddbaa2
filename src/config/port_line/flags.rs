//! The flags of a port line: tor(1) `SocksPort`, "isolation flags" and "other recognized flags".

use super::{Bind, PortError, is_space};

/// What a port lets its clients do, and how it keeps their streams apart.
///
/// The defaults are C tor's (`port_cfg_new`), in which IPv6 is on although tor(1) reads otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flags {
    /// Which streams of this port must not share a circuit.
    pub isolation: IsolationFlags,
    /// `SessionGroup=N`: ports with the same number may share circuits. Without it (`None`) each
    /// port is a group of its own.
    pub session_group: Option<u32>,
    /// Keep a circuit in use for as long as streams with SOCKS authentication use it.
    pub keep_alive_isolate_socks_auth: bool,
    /// Exits may be asked for IPv4 addresses (on by default).
    pub ipv4_traffic: bool,
    /// Exits may be asked for IPv6 addresses (on by default).
    pub ipv6_traffic: bool,
    /// Of a name's addresses an exit shall prefer IPv6 ones.
    pub prefer_ipv6: bool,
    /// Exits may be asked to resolve names (on by default).
    pub dns_request: bool,
    /// Onion services may be reached (on by default).
    pub onion_traffic: bool,
    /// Of the SOCKS5 methods "none" and "user and password", choose "none" if both are offered.
    /// Always set if SOCKS authentication does not isolate.
    pub prefer_socks_no_auth: bool,
    /// Send proposal 304's SOCKS5 codes F0 to F7.
    pub extended_errors: bool,
    /// The unix socket may be used by its group.
    pub group_writable: bool,
    /// The unix socket may be used by everyone.
    pub world_writable: bool,
    /// The folder of the unix socket need not be private.
    pub relax_dir_mode_check: bool,
    /// Automapped names get IPv6 addresses where either family would do (on by default).
    pub prefer_ipv6_automap: bool,
    /// Flags of C tor's client DNS cache, which this program does not have.
    pub dns_cache: DnsCacheFlags,
}

/// What must be the same for two streams to share a circuit (tor(1), "isolation flags").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IsolationFlags {
    /// The client's IP address (on by default; always off on unix sockets, which have none).
    pub client_addr: bool,
    /// The SOCKS user and password (on by default).
    pub socks_auth: bool,
    /// The protocol: SOCKS4, SOCKS5 or HTTP.
    pub client_protocol: bool,
    /// The port asked for.
    pub dest_port: bool,
    /// The address asked for, as the client wrote it.
    pub dest_addr: bool,
}

/// tor(1)'s client DNS cache flags. They are kept so that a line can be written back; none of them
/// has an effect, because there is no client DNS cache.
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

/// One word that switches one field on, and off with `No` before it.
struct Switch {
    /// The word as tor(1) writes it.
    name: &'static str,
    /// The field it switches.
    field: fn(&mut Flags) -> &mut bool,
    /// What to check about its use.
    kind: Kind,
}

/// What is special about a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Plain,
    /// An isolation flag: the word may end in an `s`.
    Isolation,
    /// Only for unix sockets.
    Unix,
    /// Of the client DNS cache: accepted, without effect.
    Cache,
}

/// Every on/off flag, in the order in which lines are written.
const SWITCHES: &[Switch] = {
    use Kind::{Cache, Isolation, Plain, Unix};
    const fn switch(name: &'static str, field: fn(&mut Flags) -> &mut bool, kind: Kind) -> Switch {
        Switch { name, field, kind }
    }
    &[
        switch("ExtendedErrors", |f| &mut f.extended_errors, Plain),
        switch("IPv4Traffic", |f| &mut f.ipv4_traffic, Plain),
        switch("IPv6Traffic", |f| &mut f.ipv6_traffic, Plain),
        switch("PreferIPv6", |f| &mut f.prefer_ipv6, Plain),
        switch("DNSRequest", |f| &mut f.dns_request, Plain),
        switch("OnionTraffic", |f| &mut f.onion_traffic, Plain),
        switch(
            "IsolateClientAddr",
            |f| &mut f.isolation.client_addr,
            Isolation,
        ),
        switch(
            "IsolateSOCKSAuth",
            |f| &mut f.isolation.socks_auth,
            Isolation,
        ),
        switch(
            "IsolateClientProtocol",
            |f| &mut f.isolation.client_protocol,
            Isolation,
        ),
        switch("IsolateDestPort", |f| &mut f.isolation.dest_port, Isolation),
        switch("IsolateDestAddr", |f| &mut f.isolation.dest_addr, Isolation),
        switch(
            "KeepAliveIsolateSOCKSAuth",
            |f| &mut f.keep_alive_isolate_socks_auth,
            Plain,
        ),
        switch("PreferSOCKSNoAuth", |f| &mut f.prefer_socks_no_auth, Plain),
        switch("GroupWritable", |f| &mut f.group_writable, Unix),
        switch("WorldWritable", |f| &mut f.world_writable, Unix),
        switch("RelaxDirModeCheck", |f| &mut f.relax_dir_mode_check, Unix),
        switch("PreferIPv6Automap", |f| &mut f.prefer_ipv6_automap, Plain),
        switch("CacheIPv4DNS", |f| &mut f.dns_cache.cache_ipv4, Cache),
        switch("CacheIPv6DNS", |f| &mut f.dns_cache.cache_ipv6, Cache),
        switch("UseIPv4Cache", |f| &mut f.dns_cache.use_ipv4, Cache),
        switch("UseIPv6Cache", |f| &mut f.dns_cache.use_ipv6, Cache),
    ]
};

/// Words that stand for several switches at once, each with the flags it names.
const GROUPS: &[(&str, [&str; 2])] = &[
    ("CacheDNS", ["CacheIPv4DNS", "CacheIPv6DNS"]),
    ("UseDNSCache", ["UseIPv4Cache", "UseIPv6Cache"]),
];

/// tor(1): "only onion addresses"; it has no `No` form.
const ONION_ONLY: &str = "OnionTrafficOnly";
/// The one flag with a value.
const SESSION_GROUP: &str = "SessionGroup=";

impl Flags {
    /// The flags of a line that names none.
    pub(super) fn for_bind(bind: &Bind) -> Self {
        let mut flags = Flags::default();
        if matches!(bind, Bind::Unix(_)) {
            flags.isolation.client_addr = false;
        }
        flags
    }

    /// The fewest words that give these flags on this bind.
    pub(super) fn words(mut self, bind: &Bind) -> Vec<String> {
        let mut usual = Flags::for_bind(bind);
        if !self.isolation.socks_auth {
            // NoIsolateSOCKSAuth brings it along.
            usual.prefer_socks_no_auth = true;
        }
        let mut words = Vec::new();
        for Switch { name, field, .. } in SWITCHES {
            let on = *field(&mut self);
            if on != *field(&mut usual) {
                words.push(format!("{}{name}", if on { "" } else { "No" }));
            }
        }
        words.extend(self.session_group.map(|n| format!("{SESSION_GROUP}{n}")));
        words
    }

    /// Applies what some flags bring along, after all words have been read.
    fn settle(&mut self, bind: &Bind) {
        if !self.isolation.socks_auth {
            self.prefer_socks_no_auth = true;
        }
        if matches!(bind, Bind::Unix(_)) {
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

/// Reads the words after the place: the flags, and a warning for each word to wonder about.
pub(super) fn parse(bind: &Bind, words: &str) -> Result<(Flags, Vec<String>), PortError> {
    let mut flags = Flags::for_bind(bind);
    let mut warnings = Vec::new();
    let mut cache_words = Vec::new();
    for word in words.split(is_space).filter(|word| !word.is_empty()) {
        if let Some(value) = strip_prefix_nocase(word, SESSION_GROUP) {
            session_group(&mut flags, word, value)?;
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
                    "{word:?} is not a flag and is ignored: switch DNSRequest, IPv4Traffic and \
                     IPv6Traffic one by one"
                ));
            }
            continue;
        }
        let switches = named(name);
        for switch in &switches {
            if switch.kind == Kind::Unix && !matches!(bind, Bind::Unix(_)) {
                return Err(PortError::UnixFlagOnTcp { flag: switch.name });
            }
            *(switch.field)(&mut flags) = on;
        }
        match switches.first() {
            None => warnings.push(unknown(word, name, on)),
            Some(switch) if switch.kind == Kind::Cache => cache_words.push(word),
            Some(_) => {}
        }
    }
    if !cache_words.is_empty() {
        warnings.push(format!(
            "{} has no effect: there is no client DNS cache, every name is resolved by an exit",
            cache_words.join(" ")
        ));
    }
    flags.settle(bind);
    flags.check()?;
    Ok((flags, warnings))
}

/// The switches which a word without its `No` stands for; none if it is not known.
fn named(word: &str) -> Vec<&'static Switch> {
    let group = GROUPS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(word));
    let singular = word.strip_suffix(['s', 'S']).unwrap_or(word);
    SWITCHES
        .iter()
        .filter(|switch| match group {
            Some((_, members)) => members.contains(&switch.name),
            None => {
                switch.name.eq_ignore_ascii_case(word)
                    || (switch.kind == Kind::Isolation
                        && switch.name.eq_ignore_ascii_case(singular))
            }
        })
        .collect()
}

/// Reads `SessionGroup=N`.
fn session_group(flags: &mut Flags, word: &str, value: &str) -> Result<(), PortError> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let second = value
        .parse::<u32>()
        .ok()
        // C tor holds it in an int.
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

/// The warning for a word that is no flag: it names the flag that looks most like it.
fn unknown(word: &str, name: &str, on: bool) -> String {
    let known = SWITCHES
        .iter()
        .map(|switch| switch.name)
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
    format!("{word:?} is not a flag and is ignored: the nearest is {no}{nearest}")
}

/// `str::strip_prefix` without regard to case.
fn strip_prefix_nocase<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(tail)
}
