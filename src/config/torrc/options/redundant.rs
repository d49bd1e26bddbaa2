//! Values of ignored options that ask for what onionport does anyway and need no warning. Defaults are
//! in `client`.

/// The options, each with such a value.
pub(super) const VALUES: &[(&str, &str)] = &[
    ("__AllDirActionsPrivate", "0"),
    ("__AlwaysCongestionControl", "0"),
    ("__DisablePredictedCircuits", "0"),
    ("__DisableSignalHandlers", "0"),
    ("__LeaveStreamsUnattached", "0"),
    // SIGHUP always reloads.
    ("__ReloadTorrcOnSIGHUP", "1"),
    ("CacheDirectoryGroupReadable", "0"),
    ("CircuitPadding", "0"),
    ("ConfluxEnabled", "0"),
    // There is no dormant mode.
    ("DormantCanceledByStartup", "1"),
    ("DormantTimeoutEnabled", "0"),
    // arti always extends by Ed25519 identity.
    ("ExtendByEd25519ID", "1"),
    ("GeoIPExcludeUnknown", "0"),
    ("HeartbeatPeriod", "0"),
    ("KeepBindCapabilities", "0"),
    ("MaxUnparseableDescSizeToLog", "0"),
    ("ShutdownWaitLength", "0"),
    ("UseGuardFraction", "0"),
    ("UseMicrodescriptors", "1"),
];
