//! `[proxy]`: the ports and what their clients may ask for.

use toml::Value;

use super::super::assign::{Said, Values};
use super::super::document::Document;
use super::super::error::TorrcError;
use super::super::value;
use super::{MAX_TIMEOUT, bad, from, number, path, port_numbers};
use crate::config::access::Rule;

/// The line that stands for no line (tor(1), `SocksPort`); the TOML file's default is another.
const DEFAULT_SOCKS_PORT: &str = "9050";

/// Fills `[proxy]`.
pub(super) fn serve(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    socks_port(values, document);
    lines(values, document, "HTTPTunnelPort", "proxy.http_port");
    lines(values, document, "TransPort", "proxy.trans_port");
    trans_proxy_type(values, document)?;
    lines(values, document, "DNSPort", "proxy.dns_port");
    policy(values, document)?;
    for (option, key) in [
        ("SafeSocks", "proxy.safe_socks"),
        ("TestSocks", "proxy.test_socks"),
    ] {
        if let Some(said) = values.one(option) {
            document.set(key, said.value == "1", from(said));
        }
    }
    for (option, key) in [
        ("WarnPlaintextPorts", "proxy.warn_plaintext_ports"),
        ("RejectPlaintextPorts", "proxy.reject_plaintext_ports"),
    ] {
        if let Some(said) = values.one(option) {
            let ports = port_numbers(said)?;
            let origins = vec![said.place.clone(); ports.len().max(1)];
            document.set(key, ports, origins);
        }
    }
    map(values, document)?;
    timeout(values, document)?;
    let folder = values.one("ClientOnionAuthDir");
    if let Some(said) = folder.filter(|said| !said.value.is_empty()) {
        let folder = path(said, &said.value)?;
        document.set("proxy.client_onion_auth_dir", folder, from(said));
    }
    Ok(())
}

/// `SocksPort`, with the default of C tor and with `UnixSocksGroupWritable`.
fn socks_port(values: &Values, document: &mut Document) {
    let said = values.list("SocksPort");
    if said.is_empty() {
        document.set("proxy.socks_port", vec![DEFAULT_SOCKS_PORT], Vec::new());
        return;
    }
    let group = values.is_on("UnixSocksGroupWritable", false);
    let line = |said: &Said| match group && wants_group(&said.value) {
        true => format!("{} GroupWritable", said.value),
        false => said.value.clone(),
    };
    let lines: Vec<Value> = said.iter().map(|said| Value::from(line(said))).collect();
    let origins = said.iter().map(|said| said.place.clone()).collect();
    document.set("proxy.socks_port", lines, origins);
}

/// Whether a port line is a unix socket's that says nothing of its group.
fn wants_group(line: &str) -> bool {
    let says = |word: &str| {
        let word = word.to_ascii_lowercase();
        word == "groupwritable" || word == "nogroupwritable"
    };
    line.starts_with("unix:") && !line.split_ascii_whitespace().any(says)
}

/// An option whose lines are taken as they are.
fn lines(values: &Values, document: &mut Document, option: &str, key: &str) {
    let said = values.list(option);
    if !said.is_empty() {
        let lines: Vec<Value> = said.iter().map(|s| Value::from(s.value.as_str())).collect();
        let origins = said.iter().map(|said| said.place.clone()).collect();
        document.set(key, lines, origins);
    }
}

/// `TransProxyType`: the two ways of Linux.
fn trans_proxy_type(values: &Values, document: &mut Document) -> Result<(), TorrcError> {
    let Some(said) = values.one("TransProxyType").filter(|s| !s.value.is_empty()) else {
        return Ok(());
    };
    let word = match said.value.to_ascii_lowercase().as_str() {
        "default" => "default",
        "tproxy" => "TPROXY",
        _ => {
            return Err(bad(
                said,
                format!("{:?} is not served: write default or TPROXY", said.value),
            ));
        }
    };
    let open = values
        .list("TransPort")
        .iter()
        .any(|port| port.value != "0");
    if word != "default" && !open {
        return Err(bad(
            said,
            "there is no TransPort: add one, or remove this line",
        ));
    }
    document.set("proxy.trans_proxy_type", word, from(said));
    Ok(())
}

/// `SocksTimeout`.
fn timeout(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    let Some(said) = values.one("SocksTimeout").cloned() else {
        return Ok(());
    };
    let mut seconds = number(&said)?;
    if seconds == 0 {
        return Err(bad(
            &said,
            "no request succeeds in no time: write at least 1 second",
        ));
    }
    if seconds > MAX_TIMEOUT {
        seconds = MAX_TIMEOUT;
        let text = format!("SocksTimeout is cut to {MAX_TIMEOUT} seconds, the longest there is");
        values.warn(&said.place, &text);
    }
    document.set("proxy.socks_timeout", format!("{seconds} s"), from(&said));
    Ok(())
}

/// `SocksPolicy`: its rules one by one.
fn policy(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    let mut rules = Vec::new();
    let mut origins = Vec::new();
    for said in values.list("SocksPolicy").to_vec() {
        for text in value::words(&said.value) {
            let rule =
                Rule::read(text).map_err(|problem| bad(&said, format!("{text:?}: {problem}")))?;
            if rule.networks.is_empty() {
                values.warn_of_rule(&said, &rule);
                continue;
            }
            rules.push(Value::from(text));
            origins.push(said.place.clone());
        }
    }
    if !rules.is_empty() {
        document.set("proxy.socks_policy", rules, origins);
    }
    Ok(())
}

/// `MapAddress` and the automatic addresses.
fn map(values: &Values, document: &mut Document) -> Result<(), TorrcError> {
    let mut rules = Vec::new();
    let mut origins = Vec::new();
    for said in values.list("MapAddress") {
        let words: Vec<&str> = said.value.split_ascii_whitespace().collect();
        let [from, to] = words.as_slice() else {
            let problem = format!("{:?} are not two addresses: write FROM TO", said.value);
            return Err(bad(said, problem));
        };
        rules.push(Value::from(format!("{from} {to}")));
        origins.push(said.place.clone());
    }
    if !rules.is_empty() {
        document.set("proxy.map_address", rules, origins);
    }
    if let Some(said) = values.one("AutomapHostsOnResolve") {
        document.set(
            "proxy.automap_hosts_on_resolve",
            said.value == "1",
            from(said),
        );
    }
    if let Some(said) = values.one("AutomapHostsSuffixes") {
        let words: Vec<Value> = value::words(&said.value).map(Value::from).collect();
        let origins = vec![said.place.clone(); words.len().max(1)];
        document.set("proxy.automap_hosts_suffixes", words, origins);
    }
    for (option, key) in [
        ("VirtualAddrNetworkIPv4", "proxy.virtual_addr_network_ipv4"),
        ("VirtualAddrNetworkIPv6", "proxy.virtual_addr_network_ipv6"),
    ] {
        if let Some(said) = values.one(option) {
            if said.value.is_empty() {
                return Err(bad(
                    said,
                    "there is no network: write one, or remove this line",
                ));
            }
            document.set(key, said.value.as_str(), from(said));
        }
    }
    Ok(())
}
