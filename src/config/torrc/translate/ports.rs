//! `[proxy]`: ports, and the rules for their clients.

use toml::Value;

use super::super::assign::Values;
use super::super::assigned::Assigned;
use super::super::document::Document;
use super::super::error::TorrcError;
use super::super::value;
use super::timeouts;
use crate::config::access::Rule;

/// The port without a `SocksPort` line (tor(1), `SocksPort`); TOML files have another default.
const DEFAULT_SOCKS_PORT: &str = "9050";

/// Fills `[proxy]`.
pub(super) fn translate(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    set_socks_port(values, document);
    set_port_lines(values, document, "HTTPTunnelPort", "proxy.http_port");
    set_port_lines(values, document, "TransPort", "proxy.trans_port");
    set_trans_proxy_type(values, document)?;
    set_port_lines(values, document, "DNSPort", "proxy.dns_port");
    set_socks_policy(values, document)?;
    for (option, key) in [
        ("SafeSocks", "proxy.safe_socks"),
        ("TestSocks", "proxy.test_socks"),
    ] {
        if let Some(assigned) = values.get(option) {
            document.set(key, assigned.value == "1", assigned.origin());
        }
    }
    for (option, key) in [
        ("WarnPlaintextPorts", "proxy.warn_plaintext_ports"),
        ("RejectPlaintextPorts", "proxy.reject_plaintext_ports"),
    ] {
        if let Some(assigned) = values.get(option) {
            let ports = assigned.parse_ports()?;
            let origins = vec![assigned.position.clone(); ports.len().max(1)];
            document.set(key, ports, origins);
        }
    }
    set_address_map(values, document)?;
    timeouts::set_socks_timeout(values, document)?;
    let folder = values.get("ClientOnionAuthDir");
    if let Some(assigned) = folder.filter(|assigned| !assigned.value.is_empty()) {
        let folder = assigned.absolute_path(&assigned.value)?;
        document.set("proxy.client_onion_auth_dir", folder, assigned.origin());
    }
    Ok(())
}

/// Translates `SocksPort` and `UnixSocksGroupWritable`, or sets C tor's default.
fn set_socks_port(values: &Values, document: &mut Document) {
    let lines = values.list("SocksPort");
    if lines.is_empty() {
        document.set("proxy.socks_port", vec![DEFAULT_SOCKS_PORT], Vec::new());
        return;
    }
    let group_writable = values.is_on("UnixSocksGroupWritable", false);
    let port_line = |line: &Assigned| match group_writable && is_unix_without_group(&line.value) {
        true => format!("{} GroupWritable", line.value),
        false => line.value.clone(),
    };
    let port_lines: Vec<Value> = lines.iter().map(|l| Value::from(port_line(l))).collect();
    let origins = lines.iter().map(|line| line.position.clone()).collect();
    document.set("proxy.socks_port", port_lines, origins);
}

/// Whether a port line is for a Unix socket and has no flag for its group.
fn is_unix_without_group(line: &str) -> bool {
    let group_flag = |word: &str| {
        let word = word.to_ascii_lowercase();
        word == "groupwritable" || word == "nogroupwritable"
    };
    line.starts_with("unix:") && !line.split_ascii_whitespace().any(group_flag)
}

/// Copies port lines unchanged.
fn set_port_lines(values: &Values, document: &mut Document, option: &str, key: &str) {
    let lines = values.list(option);
    if !lines.is_empty() {
        let port_lines = lines.iter().map(|line| Value::from(line.value.as_str()));
        let port_lines: Vec<Value> = port_lines.collect();
        let origins = lines.iter().map(|line| line.position.clone()).collect();
        document.set(key, port_lines, origins);
    }
}

/// Translates `TransProxyType`, of which Linux has two.
fn set_trans_proxy_type(values: &Values, document: &mut Document) -> Result<(), TorrcError> {
    let assigned = values.get("TransProxyType");
    let Some(assigned) = assigned.filter(|assigned| !assigned.value.is_empty()) else {
        return Ok(());
    };
    let kind = match assigned.value.to_ascii_lowercase().as_str() {
        "default" => "default",
        "tproxy" => "TPROXY",
        _ => {
            return Err(assigned.error(format!(
                "{:?} is not supported; write default or TPROXY",
                assigned.value
            )));
        }
    };
    let open = values
        .list("TransPort")
        .iter()
        .any(|port| port.value != "0");
    if kind != "default" && !open {
        return Err(assigned.error("no TransPort is open; add one or remove this line"));
    }
    document.set("proxy.trans_proxy_type", kind, assigned.origin());
    Ok(())
}

/// Translates `SocksPolicy`, rule by rule.
fn set_socks_policy(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    let mut rules = Vec::new();
    let mut origins = Vec::new();
    for assigned in values.list("SocksPolicy").to_vec() {
        for text in value::words(&assigned.value) {
            let rule = Rule::parse(text)
                .map_err(|problem| assigned.error(format!("{text:?}: {problem}")))?;
            if rule.networks.is_empty() {
                values.warn_ineffective(&assigned, &rule);
                continue;
            }
            rules.push(Value::from(text));
            origins.push(assigned.position.clone());
        }
    }
    if !rules.is_empty() {
        document.set("proxy.socks_policy", rules, origins);
    }
    Ok(())
}

/// Translates `MapAddress` and the options for automapped addresses.
fn set_address_map(values: &Values, document: &mut Document) -> Result<(), TorrcError> {
    let mut rules = Vec::new();
    let mut origins = Vec::new();
    for assigned in values.list("MapAddress") {
        let words: Vec<&str> = assigned.value.split_ascii_whitespace().collect();
        let [from, to] = words.as_slice() else {
            return Err(assigned.error(format!(
                "{:?} is not a pair of addresses; write FROM TO",
                assigned.value
            )));
        };
        rules.push(Value::from(format!("{from} {to}")));
        origins.push(assigned.position.clone());
    }
    if !rules.is_empty() {
        document.set("proxy.map_address", rules, origins);
    }
    if let Some(assigned) = values.get("AutomapHostsOnResolve") {
        document.set(
            "proxy.automap_hosts_on_resolve",
            assigned.value == "1",
            assigned.origin(),
        );
    }
    if let Some(assigned) = values.get("AutomapHostsSuffixes") {
        let suffixes: Vec<Value> = value::words(&assigned.value).map(Value::from).collect();
        let origins = vec![assigned.position.clone(); suffixes.len().max(1)];
        document.set("proxy.automap_hosts_suffixes", suffixes, origins);
    }
    for (option, key) in [
        ("VirtualAddrNetworkIPv4", "proxy.virtual_addr_network_ipv4"),
        ("VirtualAddrNetworkIPv6", "proxy.virtual_addr_network_ipv6"),
    ] {
        if let Some(assigned) = values.get(option) {
            if assigned.value.is_empty() {
                return Err(assigned.error("no network; write one or remove this line"));
            }
            document.set(key, assigned.value.as_str(), assigned.origin());
        }
    }
    Ok(())
}
