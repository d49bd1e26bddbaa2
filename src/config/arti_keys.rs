//! Keys of the arti program that onionport does not support.

use super::key::Key;

/// A key of the arti program that is not supported here, including all keys below it.
#[derive(Debug)]
pub(super) struct UnsupportedKey {
    key: &'static str,
    /// Values that request nothing, or what onionport does anyway. Most are arti's defaults, which
    /// users leave in their files. An empty list counts as the empty text.
    harmless: &'static [&'static str],
    /// What to do about any other value.
    remedy: &'static str,
}

impl UnsupportedKey {
    /// Returns what to do about a value, unless it is harmless.
    pub(super) fn remedy_for(&self, value: &str) -> Option<&'static str> {
        (!self.harmless.contains(&value)).then_some(self.remedy)
    }
}

/// Returns the entry for a key, if it is one of the unsupported ones.
pub(super) fn find(key: &Key) -> Option<&'static UnsupportedKey> {
    UNSUPPORTED
        .iter()
        .find(|entry| key.is_below(&Key::parse(entry.key)))
}

/// The first entry that fits a key counts.
const UNSUPPORTED: &[UnsupportedKey] = &[
    UnsupportedKey {
        key: "application.defer_bootstrap",
        harmless: &["false"],
        remedy: "remove it, and start onionport when it may connect",
    },
    UnsupportedKey {
        key: "proxy.enable_http_connect",
        harmless: &["false"],
        remedy: "remove it; SOCKS ports never accept HTTP, use proxy.http_port",
    },
    UnsupportedKey {
        key: "proxy.socket_send_buf_size",
        harmless: BUFFER,
        remedy: "remove it; the system chooses the buffer size",
    },
    UnsupportedKey {
        key: "proxy.socket_recv_buf_size",
        harmless: BUFFER,
        remedy: "remove it; the system chooses the buffer size",
    },
    UnsupportedKey {
        key: "logging.syslog",
        harmless: &[""],
        remedy: LOGGING,
    },
    UnsupportedKey {
        key: "logging.journald",
        harmless: &[""],
        remedy: LOGGING,
    },
    UnsupportedKey {
        key: "logging.files",
        harmless: &[""],
        remedy: LOGGING,
    },
    UnsupportedKey {
        key: "logging.opentelemetry",
        harmless: &[],
        remedy: LOGGING,
    },
    UnsupportedKey {
        key: "logging.tokio_console.enabled",
        harmless: &["false"],
        remedy: LOGGING,
    },
    UnsupportedKey {
        key: "logging.tokio_console",
        harmless: &[],
        remedy: LOGGING,
    },
    UnsupportedKey {
        key: "logging.protocol_warnings",
        harmless: &["false"],
        remedy: LOGGING,
    },
    UnsupportedKey {
        key: "logging.log_sensitive_information",
        harmless: &["false"],
        remedy: "remove it; onionport logs the addresses of clients and destinations only at levels debug \
                 and trace",
    },
    UnsupportedKey {
        key: "metrics.prometheus.listen",
        harmless: &["", "0", "false"],
        remedy: METRICS,
    },
    UnsupportedKey {
        key: "metrics",
        harmless: &[],
        remedy: METRICS,
    },
    UnsupportedKey {
        key: "rpc.enable",
        harmless: &["false"],
        remedy: RPC,
    },
    UnsupportedKey {
        key: "rpc",
        harmless: &[],
        remedy: RPC,
    },
    UnsupportedKey {
        key: "onion_services",
        harmless: &[],
        remedy: "remove it; onionport is a client, run onion services with arti",
    },
];

/// arti's default size of a socket's buffers.
const BUFFER: &[&str] = &["128 KB", "128000"];
const LOGGING: &str = "remove it and use logging.console: the log goes to standard error";
const METRICS: &str = "remove it; onionport has no metrics";
const RPC: &str = "remove it; onionport has no RPC interface, use arti for that";
