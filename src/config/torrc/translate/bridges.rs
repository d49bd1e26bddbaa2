//! `[bridges]`: `UseBridges`, `Bridge` and `ClientTransportPlugin`.

use std::net::SocketAddr;

use arti_client::config::{BridgeConfigBuilder, BridgeParseError};
use toml::{Table, Value};

use super::super::assign::Values;
use super::super::assigned::Assigned;
use super::super::document::Document;
use super::super::error::TorrcError;
use super::super::value;
use crate::config::redact::without_quoted;

/// Fills `[bridges]`.
pub(super) fn translate(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    let lines = values.list("Bridge").to_vec();
    let switch = values.get("UseBridges").cloned();
    let enabled = switch
        .as_ref()
        .is_some_and(|assigned| assigned.value == "1");
    if let Some(assigned) = &switch {
        if enabled && lines.is_empty() {
            return Err(assigned.error("no Bridge line; add one or write UseBridges 0"));
        }
        document.set("bridges.enabled", enabled, assigned.origin());
    } else if let Some(assigned) = lines.first() {
        // arti uses bridges as soon as one is listed; C tor requires the switch as well.
        document.set("bridges.enabled", false, assigned.origin());
        values.warn(
            &assigned.position,
            "Bridge",
            "no effect without UseBridges 1",
        );
    }
    let mut bridges = Vec::new();
    let mut origins = Vec::new();
    for assigned in &lines {
        let line = join_fingerprint(&assigned.value);
        match check(&line) {
            Ok(()) => {
                bridges.push(Value::from(line));
                origins.push(assigned.position.clone());
            }
            Err(problem) if enabled => return Err(assigned.error(problem)),
            Err(problem) => values.warn(
                &assigned.position,
                "Bridge",
                &format!("ignored line: {problem}"),
            ),
        }
    }
    if !bridges.is_empty() {
        document.set("bridges.bridges", bridges, origins);
    }
    set_transports(values, enabled, document)
}

/// Removes the spaces in the fingerprint. On a line without a transport C tor joins all words after
/// the address.
fn join_fingerprint(line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    let address = words.next().unwrap_or_default();
    let digits: String = words.clone().collect();
    let hex = digits.chars().all(|c| c.is_ascii_hexdigit());
    match address.parse::<SocketAddr>() {
        Ok(_) if hex && words.next().is_some() => format!("{address} {digits}"),
        _ => line.to_owned(),
    }
}

/// Checks that arti accepts a bridge line. The error does not repeat the line, which is as secret as a
/// password.
fn check(line: &str) -> Result<(), String> {
    let problem = match line.parse::<BridgeConfigBuilder>() {
        Err(BridgeParseError::NoRsaIdentity) => {
            return Err(
                "no fingerprint, which arti requires; write its 40 hexadecimal digits after the address"
                    .to_owned(),
            );
        }
        Err(error) => error.to_string(),
        Ok(builder) => match builder.build() {
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        },
    };
    let problem = without_quoted(&problem);
    Err(format!(
        "arti cannot read the bridge line: {problem}; correct it"
    ))
}

/// Translates `ClientTransportPlugin`.
fn set_transports(
    values: &Values,
    enabled: bool,
    document: &mut Document,
) -> Result<(), TorrcError> {
    let lines = values.list("ClientTransportPlugin");
    let no_exec = values.is_on("NoExec", false) && enabled;
    let mut transports = Vec::new();
    for assigned in lines {
        transports.push(Value::Table(parse_transport(assigned, no_exec)?));
    }
    if !transports.is_empty() {
        let origins = lines.iter().map(|line| line.position.clone()).collect();
        document.set("bridges.transports", transports, origins);
    }
    Ok(())
}

/// Parses `NAMES exec PATH [ARGUMENT …]` or `NAMES socks5 ADDRESS:PORT`.
fn parse_transport(assigned: &Assigned, no_exec: bool) -> Result<Table, TorrcError> {
    let words: Vec<&str> = assigned.value.split_ascii_whitespace().collect();
    let [names, kind, target, arguments @ ..] = words.as_slice() else {
        return Err(
            assigned.error("incomplete line; write NAMES exec PATH or NAMES socks5 ADDRESS:PORT")
        );
    };
    let mut protocols = Vec::new();
    for name in value::words(names) {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !name.starts_with(letter) || !name.chars().all(|c| letter(c) || c.is_ascii_digit()) {
            return Err(assigned
                .error("invalid transport name; write letters, digits and _, and no digit first"));
        }
        protocols.push(Value::from(name));
    }
    let mut table = Table::new();
    table.insert("protocols".to_owned(), protocols.into());
    match *kind {
        "exec" if no_exec => {
            return Err(assigned
                .error("NoExec 1 forbids running this program; remove one of the two lines"));
        }
        "exec" => {
            table.insert("path".to_owned(), assigned.absolute_path(target)?.into());
            if !arguments.is_empty() {
                let arguments: Vec<Value> = arguments.iter().map(|a| Value::from(*a)).collect();
                table.insert("arguments".to_owned(), arguments.into());
            }
        }
        "socks5" => {
            let address: SocketAddr = target
                .parse()
                .map_err(|_| assigned.error("invalid address after socks5; write IP:PORT"))?;
            table.insert("proxy_addr".to_owned(), address.to_string().into());
        }
        _ => {
            return Err(assigned.error(
                "arti does not support this kind of transport; write exec or socks5 after the names",
            ));
        }
    }
    Ok(table)
}
