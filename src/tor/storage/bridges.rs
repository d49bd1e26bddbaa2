//! Stored bridges whose configured lines have changed.
//!
//! arti stores a bridge as a guard, with its address and transport. If its line changes (another address,
//! transport, or `cert=`), arti considers the stored guard unlisted, and does not sample the bridge again
//! because its identity is already known: no guard is usable for twenty days (tor-guardmgr 0.47,
//! `BridgeSet::bridge_by_guard` and `BridgeSet::sample`).

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use arti_client::config::TorClientConfig;
use serde::Deserialize;
use serde_json::Value;
use tor_guardmgr::GuardMgrConfig as _;
use tor_guardmgr::bridge::BridgeConfig;
use tor_linkspec::{ChannelMethod, HasChanMethod as _, HasRelayIds as _, PtTarget, RelayIds};
use tracing::{info, warn};

const FILE: &str = "guards.json";

/// A bridge in `guards.json`: the fields that identify its line.
#[derive(Deserialize)]
struct StoredBridge {
    id: RelayIds,
    #[serde(default)]
    orports: Vec<SocketAddr>,
    #[serde(default)]
    pt_targets: Vec<PtTarget>,
}

impl StoredBridge {
    /// How arti would connect to it.
    fn method(&self) -> ChannelMethod {
        match self.pt_targets.first() {
            Some(target) => ChannelMethod::Pluggable(target.clone()),
            None => ChannelMethod::Direct(self.orports.clone()),
        }
    }

    /// Returns whether arti matches this stored bridge to the configured line.
    fn has_line(&self, line: &BridgeConfig) -> bool {
        self.id.has_all_relay_ids_from(line) && line.chan_method().contained_by(&self.method())
    }
}

/// Drops the stored bridges whose lines have changed, so that arti samples them again.
pub(super) fn drop_changed(folder: &Path, config: &TorClientConfig) {
    if !config.bridges_enabled() {
        return;
    }
    let path = folder.join(FILE);
    // arti creates the file when it first needs it.
    let Ok(bytes) = fs::read(&path) else { return };
    let Some((text, dropped)) = without_changed(&bytes, config.bridges()) else {
        return;
    };
    let written = config
        .fs_mistrust()
        .verifier()
        .secure_dir(folder)
        .and_then(|folder| folder.write_and_replace(FILE, text));
    match written {
        Ok(()) => info!("the lines of {dropped} bridges changed: using the new lines"),
        Err(error) => warn!(
            "the lines of {dropped} bridges changed, but {} cannot be written: {error}; remove the file \
             if these bridges do not work",
            path.display()
        ),
    }
}

/// Returns the state without the bridges whose lines have changed, and their number. Returns `None` if
/// there are none, or if the file has an unknown format.
fn without_changed(bytes: &[u8], lines: &[BridgeConfig]) -> Option<(String, usize)> {
    let mut state: Value = serde_json::from_slice(bytes).ok()?;
    let stored = state.pointer_mut("/bridges/guards")?.as_array_mut()?;
    let before = stored.len();
    stored.retain(|entry| {
        let Ok(bridge) = StoredBridge::deserialize(entry) else {
            return true;
        };
        let is_configured = lines
            .iter()
            .any(|line| bridge.id.has_any_relay_id_from(line));
        !is_configured || lines.iter().any(|line| bridge.has_line(line))
    });
    let dropped = before - stored.len();
    (dropped > 0).then(|| (state.to_string(), dropped))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: &str = "38e6a5d3a3e3e1d5d1d1e8ae2e4c3b8cd7c32d9e";
    const OTHER: &str = "0000000000000000000000000000000000000001";

    fn line(text: &str) -> BridgeConfig {
        text.parse().expect("a bridge line")
    }

    fn plain(port: u16) -> BridgeConfig {
        line(&format!("192.0.2.1:{port} {RSA}"))
    }

    fn obfs4(cert: &str) -> BridgeConfig {
        line(&format!("obfs4 192.0.2.1:99 {RSA} cert={cert}"))
    }

    /// The content of `guards.json` with these bridges, as arti stores them.
    fn state(bridges: &[&BridgeConfig]) -> String {
        let stored: Vec<Value> = bridges
            .iter()
            .map(|bridge| {
                let method = bridge.chan_method();
                let target: Vec<&PtTarget> = match &method {
                    ChannelMethod::Pluggable(target) => vec![target],
                    _ => Vec::new(),
                };
                serde_json::json!({
                    "id": RelayIds::from_relay_ids(*bridge),
                    "orports": tor_linkspec::HasAddrs::addrs(*bridge).collect::<Vec<_>>(),
                    "pt_targets": target,
                    "added_at": "2026-01-01T00:00:00Z",
                })
            })
            .collect();
        serde_json::json!({
            "default": {"guards": [{"id": {"rsa": OTHER}}]},
            "bridges": {"guards": stored, "confirmed": []},
            "of a later version": 1,
        })
        .to_string()
    }

    #[test]
    fn a_bridge_whose_line_changes_is_dropped() {
        let changes = [
            (plain(9), obfs4("x")),
            (obfs4("x"), plain(99)),
            (plain(9), plain(10)),
            (obfs4("x"), obfs4("y")),
        ];
        for (before, after) in changes {
            let (text, dropped) =
                without_changed(state(&[&before]).as_bytes(), &[after]).expect("changed");
            assert_eq!(dropped, 1, "{before}");
            let state: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(state["bridges"]["guards"], Value::Array(Vec::new()));
            // Everything else stays.
            assert_eq!(state["default"]["guards"][0]["id"]["rsa"], OTHER);
            assert_eq!(state["of a later version"], 1);
        }
    }

    #[test]
    fn a_bridge_whose_line_is_unchanged_or_removed_is_kept() {
        let kept = [
            (plain(9), vec![plain(9)]),
            (obfs4("x"), vec![obfs4("x")]),
            // One of its two lines is unchanged.
            (obfs4("x"), vec![plain(9), obfs4("x")]),
            // Its line may come back; arti drops an unlisted guard in time.
            (plain(9), vec![line(&format!("192.0.2.1:9 {OTHER}"))]),
        ];
        for (before, after) in kept {
            assert!(without_changed(state(&[&before]).as_bytes(), &after).is_none());
        }
    }

    #[test]
    fn a_state_in_another_format_is_left_alone() {
        for text in [
            "",
            "[]",
            r#"{"bridges":{"guards":{}}}"#,
            r#"{"bridges":{"guards":[7]}}"#,
        ] {
            assert!(
                without_changed(text.as_bytes(), &[plain(9)]).is_none(),
                "{text}"
            );
        }
    }
}
