//! Bridges with more than one line.
//!
//! C tor treats each line as a separate bridge. arti keeps one guard for each bridge, identified by its
//! fingerprint. It picks one of several lines at random and keeps it, even if it fails (tor-guardmgr
//! 0.47, `BridgeSet::sample`). So arti gets one line of each bridge at a time, and the Tor client
//! rotates through them, in turns.

use arti_client::TorClientConfig;
use tor_guardmgr::GuardMgrConfig as _;
use tor_guardmgr::bridge::BridgeConfig;
use tor_linkspec::HasRelayIds as _;

use super::error::ConfigError;
use super::sources::Sources;

/// One configuration for each turn, with one line of each bridge. There are as many turns as the bridge
/// with the most lines has. Empty if no bridge has more than one, or bridges are off.
pub(super) fn turns(
    config: &TorClientConfig,
    sources: &Sources,
) -> Result<Vec<TorClientConfig>, ConfigError> {
    if !config.bridges_enabled() {
        return Ok(Vec::new());
    }
    turns_of(config.bridges())
        .iter()
        .map(|lines| sources.resolve_with_bridges(lines))
        .collect()
}

/// The lines of each turn.
fn turns_of(lines: &[BridgeConfig]) -> Vec<Vec<String>> {
    let mut bridges: Vec<Vec<&BridgeConfig>> = Vec::new();
    for line in lines {
        let known = bridges
            .iter_mut()
            .find(|bridge| bridge.iter().any(|l| l.has_any_relay_id_from(line)));
        match known {
            Some(bridge) => bridge.push(line),
            None => bridges.push(vec![line]),
        }
    }
    let most = bridges.iter().map(Vec::len).max().unwrap_or(0);
    if most < 2 {
        return Vec::new();
    }
    (0..most)
        .map(|turn| {
            let line = |bridge: &Vec<&BridgeConfig>| bridge[turn % bridge.len()].to_string();
            bridges.iter().map(line).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: &str = "38e6a5d3a3e3e1d5d1d1e8ae2e4c3b8cd7c32d9e";
    const OTHER: &str = "0000000000000000000000000000000000000001";

    fn turns_of_lines(lines: &[String]) -> Vec<Vec<String>> {
        let lines: Vec<BridgeConfig> = lines
            .iter()
            .map(|line| line.parse().expect("a bridge line"))
            .collect();
        turns_of(&lines)
    }

    fn plain(port: u16, id: &str) -> String {
        format!("192.0.2.1:{port} ${id}")
    }

    #[test]
    fn each_turn_has_one_line_of_each_bridge() {
        let obfs4 = format!("obfs4 192.0.2.1:9 ${RSA} cert=x");
        let lines = [
            plain(1, RSA),
            plain(2, OTHER),
            obfs4.clone(),
            plain(3, RSA),
            plain(4, OTHER),
        ];
        let expected = [
            [plain(1, RSA), plain(2, OTHER)],
            [obfs4, plain(4, OTHER)],
            [plain(3, RSA), plain(2, OTHER)],
        ];
        assert_eq!(turns_of_lines(&lines), expected);
    }

    #[test]
    fn bridges_with_one_line_each_take_no_turns() {
        assert!(turns_of_lines(&[]).is_empty());
        assert!(turns_of_lines(&[plain(1, RSA), plain(2, OTHER)]).is_empty());
    }
}
