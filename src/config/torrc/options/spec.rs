//! What is known of one option.

/// One option of C tor.
#[derive(Debug)]
pub(crate) struct OptionSpec {
    /// Its name as C tor writes it.
    pub(crate) name: &'static str,
    /// The kind of its value.
    pub(crate) kind: OptionKind,
    /// Its default in base units, as `tor --dump-config full` prints it; empty if there is none.
    pub(crate) default: &'static str,
    /// How onionport treats it.
    pub(crate) role: OptionRole,
}

/// The kinds of values (conftypes.h: `config_type_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionKind {
    /// `0` or `1`.
    Bool,
    /// `0`, `1` or `auto`.
    AutoBool,
    /// A whole number from 0 to 2147483647.
    Uint,
    /// A whole number of 32 bits.
    Int,
    /// Any number.
    Float,
    /// A duration, in seconds.
    Interval,
    /// A duration, in milliseconds.
    Msec,
    /// An amount of data, in bytes.
    Size,
    /// Words separated by commas.
    Csv,
    /// Relays, countries or addresses separated by commas.
    Nodes,
    /// Any text, such as a name or a path.
    Text,
    /// A line with a syntax of its own; the option may have several.
    Lines,
    /// The option is obsolete and ignored.
    Obsolete,
    /// A torrc cannot set the option.
    ReadOnly,
}

/// How onionport treats an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionRole {
    /// It becomes a setting, or part of one.
    Translated,
    /// It is ignored without a warning: it asks for what onionport does anyway, or its kind makes
    /// `assign` treat it separately.
    Redundant,
    /// It has no effect; any value but the default causes this warning.
    Ignored(&'static str),
    /// It is refused, unless its value is the default or means "off".
    Refused(RefusalReason),
}

/// Why an option must not be ignored. Messages list the reasons in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RefusalReason {
    /// It is for relays or bridges.
    Relay,
    /// It is for directory authorities.
    Authority,
    /// It is for onion services.
    OnionService,
    /// It chooses relays.
    RelayChoice,
    /// It describes another Tor network, or other entries to the public one.
    OtherNetwork,
    /// It chooses the local address of connections.
    SourceAddress,
    /// It keeps tor offline.
    Offline,
    /// It opens a port for natd.
    Natd,
    /// It names a proxy of HAProxy's kind.
    TcpProxy,
}

/// Options with the same role: name, kind and default of each.
pub(super) struct OptionGroup {
    pub(super) role: OptionRole,
    pub(super) options: &'static [(&'static str, OptionKind, &'static str)],
}

impl OptionSpec {
    /// Returns the name of the list that this option adds to: `__SocksPort` adds to the list of
    /// `SocksPort`, and the options of all onion services share one list.
    pub(crate) fn list(&self) -> &'static str {
        if self.kind == OptionKind::Lines {
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

    /// Whether a later line replaces an earlier one.
    pub(crate) fn is_single(&self) -> bool {
        self.kind != OptionKind::Lines
    }
}

impl RefusalReason {
    /// Returns the problem and the remedy, to follow the names of the options in a message.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            RefusalReason::Relay => {
                "onionport is only a client; remove these options of relays and bridges"
            }
            RefusalReason::Authority => {
                "onionport is only a client; remove these options of directory authorities"
            }
            RefusalReason::OnionService => {
                "onionport is only a client; leave these options of onion services to C tor or arti"
            }
            RefusalReason::RelayChoice => {
                "arti cannot choose or avoid individual relays; remove these options if any relay will \
                 do, or stay with C tor"
            }
            RefusalReason::OtherNetwork => {
                "a torrc does not describe another network in enough detail for arti; remove these \
                 options and set tor_network in a TOML file (-c)"
            }
            RefusalReason::SourceAddress => {
                "arti cannot choose the local address of its connections; remove these options and use \
                 the routes of the system"
            }
            RefusalReason::Offline => {
                "onionport cannot run offline; remove this option and start onionport when it may connect"
            }
            RefusalReason::Natd => "onionport has no port for natd; use TransPort",
            RefusalReason::TcpProxy => {
                "arti does not support this kind of proxy; use HTTPSProxy or Socks5Proxy"
            }
        }
    }
}
