//! Options of clients: those that become settings, and those that are ignored.

use super::spec::{OptionGroup, OptionKind::*, OptionRole::*};

/// The options; ignored ones are grouped by their warning.
pub(super) const GROUPS: &[OptionGroup] = &[
    OptionGroup {
        role: Translated,
        options: &[
            ("__DNSPort", Lines, ""),
            ("__HTTPTunnelPort", Lines, ""),
            ("__SocksPort", Lines, ""),
            ("__TransPort", Lines, ""),
            ("AutomapHostsOnResolve", Bool, "0"),
            ("AutomapHostsSuffixes", Csv, ".onion,.exit"),
            ("Bridge", Lines, ""),
            ("CacheDirectory", Text, ""),
            ("CircuitStreamTimeout", Interval, "0"),
            ("ClientDNSRejectInternalAddresses", Bool, "1"),
            ("ClientOnionAuthDir", Text, ""),
            ("ClientRejectInternalAddresses", Bool, "1"),
            ("ClientTransportPlugin", Lines, ""),
            ("ClientUseIPv4", Bool, "1"),
            ("ClientUseIPv6", Bool, "1"),
            ("ConnectionPadding", AutoBool, "auto"),
            ("ConnLimit", Uint, "1000"),
            ("DataDirectory", Text, ""),
            ("DisableDebuggerAttachment", Bool, "1"),
            ("DNSPort", Lines, ""),
            ("EnforceDistinctSubnets", Bool, "1"),
            ("FascistFirewall", Bool, "0"),
            ("FirewallPorts", Csv, ""),
            ("HTTPSProxy", Text, ""),
            ("HTTPSProxyAuthenticator", Text, ""),
            ("HTTPTunnelPort", Lines, ""),
            ("Log", Lines, ""),
            ("LogTimeGranularity", Msec, "1000"),
            (
                "LongLivedPorts",
                Csv,
                "21,22,706,1863,5050,5190,5222,5223,6523,6667,6697,8300",
            ),
            ("MapAddress", Lines, ""),
            ("MaxCircuitDirtiness", Interval, "600"),
            ("MaxMemInQueues", Size, "0"),
            ("NoExec", Bool, "0"),
            ("ReachableAddresses", Lines, ""),
            ("ReachableORAddresses", Lines, ""),
            ("ReducedConnectionPadding", Bool, "0"),
            ("RejectPlaintextPorts", Csv, ""),
            ("SafeSocks", Bool, "0"),
            ("Socks4Proxy", Text, ""),
            ("Socks5Proxy", Text, ""),
            ("Socks5ProxyPassword", Text, ""),
            ("Socks5ProxyUsername", Text, ""),
            ("SocksPolicy", Lines, ""),
            ("SocksPort", Lines, ""),
            ("SocksTimeout", Interval, "120"),
            ("TestSocks", Bool, "0"),
            ("TransPort", Lines, ""),
            ("TransProxyType", Text, "default"),
            ("UnixSocksGroupWritable", Bool, "0"),
            ("UseBridges", Bool, "0"),
            ("UseDefaultFallbackDirs", Bool, "1"),
            ("VanguardsLiteEnabled", AutoBool, "auto"),
            ("VirtualAddrNetworkIPv4", Text, "127.192.0.0/10"),
            ("VirtualAddrNetworkIPv6", Text, "[FE80::]/10"),
            ("WarnPlaintextPorts", Csv, "23,109,110,143"),
        ],
    },
    OptionGroup {
        role: Redundant,
        options: &[("ClientOnly", Bool, "0")],
    },
    OptionGroup {
        role: Ignored(
            "onionport has no control port, so programs such as nyx and Tor Browser's launcher cannot control it; edit its files and send SIGHUP, or send SIGUSR1 for new circuits",
        ),
        options: &[
            ("__ControlPort", Lines, ""),
            ("__HashedControlSessionPassword", Lines, ""),
            ("__LeaveStreamsUnattached", Bool, ""),
            ("ControlPort", Lines, ""),
            ("ControlPortFileGroupReadable", Bool, "0"),
            ("ControlPortWriteToFile", Text, ""),
            ("ControlSocket", Lines, ""),
            ("ControlSocketsGroupWritable", Bool, "0"),
            ("CookieAuthentication", Bool, "0"),
            ("CookieAuthFile", Text, ""),
            ("CookieAuthFileGroupReadable", Bool, "0"),
            ("HashedControlPassword", Lines, ""),
            ("TestingEnableCellStatsEvent", Bool, "0"),
            ("TestingEnableConnBwEvent", Bool, "0"),
        ],
    },
    OptionGroup {
        role: Ignored(
            "onionport does not watch another process; let a service manager start and stop it",
        ),
        options: &[
            ("__DisableSignalHandlers", Bool, ""),
            ("__OwningControllerFD", Text, ""),
            ("__OwningControllerProcess", Text, ""),
        ],
    },
    OptionGroup {
        role: Ignored(
            "onionport stays in the foreground and writes no PID file; let a service manager such as systemd start it",
        ),
        options: &[("PidFile", Text, ""), ("RunAsDaemon", Bool, "0")],
    },
    OptionGroup {
        role: Ignored(
            "onionport does not change its user; start it as the right user (systemd: User=)",
        ),
        options: &[
            ("KeepBindCapabilities", AutoBool, "auto"),
            ("User", Text, ""),
        ],
    },
    OptionGroup {
        role: Ignored(
            "onionport does not sandbox itself or lock its memory; let the service manager restrict it (systemd: SystemCallFilter=, ProtectSystem=)",
        ),
        options: &[("DisableAllSwap", Bool, "0"), ("Sandbox", Bool, "0")],
    },
    OptionGroup {
        role: Ignored(
            "onionport logs to standard error in a fixed form; let the service manager store and label the log",
        ),
        options: &[
            ("LogMessageDomains", Bool, "0"),
            ("MaxUnparseableDescSizeToLog", Size, "10485760"),
            ("ProtocolWarnings", Bool, "0"),
            ("SyslogIdentityTag", Text, ""),
            ("TruncateLogFile", Bool, "0"),
        ],
    },
    OptionGroup {
        role: Ignored(
            "onionport never logs addresses of destinations or clients at level info or above",
        ),
        options: &[("SafeLogging", Text, "1")],
    },
    OptionGroup {
        role: Ignored("onionport logs events only, no periodic reports"),
        options: &[
            ("HeartbeatPeriod", Interval, "21600"),
            ("MainloopStats", Bool, "0"),
        ],
    },
    OptionGroup {
        role: Ignored("onionport has no metrics"),
        options: &[
            ("__MetricsPort", Lines, ""),
            ("MetricsPort", Lines, ""),
            ("MetricsPortPolicy", Lines, ""),
        ],
    },
    OptionGroup {
        role: Ignored("onionport always keeps its cache on disk, in storage.cache_dir"),
        options: &[("AvoidDiskWrites", Bool, "0")],
    },
    OptionGroup {
        role: Ignored("onionport sets the permissions of its folders itself"),
        options: &[
            ("CacheDirectoryGroupReadable", AutoBool, "auto"),
            ("DataDirectoryGroupReadable", Bool, "0"),
        ],
    },
    OptionGroup {
        role: Ignored("arti does not choose relays by country, so onionport reads no GeoIP file"),
        options: &[
            ("GeoIPExcludeUnknown", AutoBool, "auto"),
            ("GeoIPFile", Text, "/usr/share/tor/geoip"),
            ("GeoIPv6File", Text, "/usr/share/tor/geoip6"),
        ],
    },
    OptionGroup {
        role: Ignored("it only affects lists of nodes, which onionport refuses"),
        options: &[("StrictNodes", Bool, "0")],
    },
    OptionGroup {
        role: Ignored("onionport does not limit bandwidth; use the traffic control of the system"),
        options: &[
            ("BandwidthBurst", Size, "1073741824"),
            ("BandwidthRate", Size, "1073741824"),
            ("TokenBucketRefillInterval", Msec, "100"),
        ],
    },
    OptionGroup {
        role: Ignored("the system chooses the sizes of socket buffers"),
        options: &[
            ("CircuitPriorityHalflife", Float, "-1"),
            ("ConstrainedSockets", Bool, "0"),
            ("ConstrainedSockSize", Size, "8192"),
            ("KISTSchedRunInterval", Msec, "0"),
            ("KISTSockBufSizeFactor", Float, "1"),
            ("Schedulers", Csv, "KIST,KISTLite,Vanilla"),
        ],
    },
    OptionGroup {
        role: Ignored("onionport uses the processors and instructions that it detects"),
        options: &[
            ("AccelDir", Text, ""),
            ("AccelName", Text, ""),
            ("HardwareAccel", Bool, "0"),
            ("NumCPUs", Uint, "0"),
        ],
    },
    OptionGroup {
        role: Ignored("arti chooses guards by the network's parameters, and always uses them"),
        options: &[
            ("GuardLifetime", Interval, "0"),
            ("NumDirectoryGuards", Uint, "0"),
            ("NumEntryGuards", Uint, "0"),
            ("NumPrimaryGuards", Uint, "0"),
            ("UseEntryGuards", Bool, "1"),
            ("UseGuardFraction", AutoBool, "auto"),
        ],
    },
    OptionGroup {
        role: Ignored("arti monitors its guards by its own rules"),
        options: &[
            ("PathBiasCircThreshold", Int, "-1"),
            ("PathBiasDropGuards", AutoBool, "0"),
            ("PathBiasExtremeRate", Float, "-1"),
            ("PathBiasExtremeUseRate", Float, "-1"),
            ("PathBiasNoticeRate", Float, "-1"),
            ("PathBiasNoticeUseRate", Float, "-1"),
            ("PathBiasScaleThreshold", Int, "-1"),
            ("PathBiasScaleUseThreshold", Int, "-1"),
            ("PathBiasUseThreshold", Int, "-1"),
            ("PathBiasWarnRate", Float, "-1"),
        ],
    },
    OptionGroup {
        role: Ignored("arti times its circuits itself; see circuit_timing in arti.toml.example"),
        options: &[
            ("CircuitBuildTimeout", Interval, "0"),
            ("CircuitsAvailableTimeout", Interval, "0"),
            ("KeepalivePeriod", Interval, "300"),
            ("LearnCircuitBuildTimeout", Bool, "1"),
            ("MaxClientCircuitsPending", Uint, "32"),
            ("NewCircuitPeriod", Interval, "30"),
        ],
    },
    OptionGroup {
        role: Ignored(
            "arti builds circuits in advance; see preemptive_circuits in arti.toml.example",
        ),
        options: &[("__DisablePredictedCircuits", Bool, "")],
    },
    OptionGroup {
        role: Ignored(
            "onionport does not keep a destination on the same exit; give a program its own SOCKS user to keep its circuits together",
        ),
        options: &[
            ("TrackHostExits", Csv, ""),
            ("TrackHostExitsExpire", Interval, "1800"),
        ],
    },
    OptionGroup {
        role: Ignored("onionport checks names as C tor does without this option"),
        options: &[("AllowNonRFC953Hostnames", Bool, "0")],
    },
    OptionGroup {
        role: Ignored("arti does not have the circuit padding that this option controls"),
        options: &[
            ("CircuitPadding", Bool, "1"),
            ("ReducedCircuitPadding", Bool, "0"),
        ],
    },
    OptionGroup {
        role: Ignored("arti does not have this feature, or follows the network's parameters"),
        options: &[
            ("__AlwaysCongestionControl", Bool, ""),
            ("CompiledProofOfWorkHash", AutoBool, "auto"),
            ("ConfluxClientUX", Text, "throughput"),
            ("ConfluxEnabled", AutoBool, "auto"),
            ("DisableOOSCheck", Bool, "1"),
            ("ExtendByEd25519ID", AutoBool, "auto"),
        ],
    },
    OptionGroup {
        role: Ignored("arti tries IPv4 and IPv6 addresses in its own order"),
        options: &[
            ("ClientPreferIPv6DirPort", AutoBool, "auto"),
            ("ClientPreferIPv6ORPort", AutoBool, "auto"),
        ],
    },
    OptionGroup {
        role: Ignored(
            "C tor ignores it for clients as well; use HTTPSProxy or Socks5Proxy for a proxy, ReachableAddresses for a firewall",
        ),
        options: &[
            ("HTTPProxy", Text, ""),
            ("HTTPProxyAuthenticator", Text, ""),
            ("ReachableDirAddresses", Lines, ""),
        ],
    },
    OptionGroup {
        role: Ignored(
            "arti downloads the directory by its own rules; see download_schedule in arti.toml.example",
        ),
        options: &[
            ("__AllDirActionsPrivate", Bool, ""),
            (
                "ClientBootstrapConsensusAuthorityDownloadInitialDelay",
                Interval,
                "6",
            ),
            (
                "ClientBootstrapConsensusAuthorityOnlyDownloadInitialDelay",
                Interval,
                "0",
            ),
            (
                "ClientBootstrapConsensusFallbackDownloadInitialDelay",
                Interval,
                "0",
            ),
            ("ClientBootstrapConsensusMaxInProgressTries", Uint, "3"),
            ("DirAllowPrivateAddresses", Bool, "0"),
            ("DirAuthorityFallbackRate", Float, "0.1"),
            ("DownloadExtraInfo", Bool, "0"),
            ("FetchDirInfoEarly", Bool, "0"),
            ("FetchDirInfoExtraEarly", Bool, "0"),
            ("FetchHidServDescriptors", Bool, "1"),
            ("FetchServerDescriptors", Bool, "1"),
            ("FetchUselessDescriptors", Bool, "0"),
            ("PathsNeededToBuildCircuits", Float, "-1"),
            ("ReconfigDropsBridgeDescs", Bool, "0"),
            ("UpdateBridgesFromAuthority", Bool, "0"),
            ("UseMicrodescriptors", AutoBool, "auto"),
        ],
    },
    OptionGroup {
        role: Ignored("onionport has no dormant mode"),
        options: &[
            ("DormantCanceledByStartup", Bool, "0"),
            ("DormantClientTimeout", Interval, "86400"),
            ("DormantOnFirstStartup", Bool, "0"),
            ("DormantTimeoutDisabledByIdleStreams", Bool, "1"),
            ("DormantTimeoutEnabled", Bool, "1"),
        ],
    },
    OptionGroup {
        role: Ignored("onionport stops at once and closes its connections, as a C tor client does"),
        options: &[("ShutdownWaitLength", Interval, "30")],
    },
    OptionGroup {
        role: Ignored("onionport always reloads on SIGHUP"),
        options: &[("__ReloadTorrcOnSIGHUP", Bool, "")],
    },
    OptionGroup {
        role: Ignored("this option is only for test networks"),
        options: &[
            ("TestingBridgeBootstrapDownloadInitialDelay", Interval, "0"),
            ("TestingBridgeDownloadInitialDelay", Interval, "10800"),
            ("TestingClientConsensusDownloadInitialDelay", Interval, "0"),
            ("TestingClientDownloadInitialDelay", Interval, "0"),
            ("TestingClientMaxIntervalWithoutRequest", Interval, "600"),
            ("TestingDirConnectionMaxStall", Interval, "300"),
            ("TestingServerConsensusDownloadInitialDelay", Interval, "0"),
            ("TestingServerDownloadInitialDelay", Interval, "0"),
        ],
    },
];
