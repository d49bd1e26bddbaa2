//! `[bridges]`: `UseBridges`, `Bridge` and `ClientTransportPlugin`.

use std::net::SocketAddr;

use arti_client::config::{BridgeConfigBuilder, BridgeParseError};
use toml::{Table, Value};

use super::super::assign::{Said, Values};
use super::super::document::Document;
use super::super::error::TorrcError;
use super::super::value;
use super::{bad, from, path};
use crate::config::redact::without_quoted;

/// Fills `[bridges]`.
pub(super) fn serve(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    let lines = values.list("Bridge").to_vec();
    let switch = values.one("UseBridges").cloned();
    let enabled = switch.as_ref().is_some_and(|said| said.value == "1");
    if let Some(said) = &switch {
        if enabled && lines.is_empty() {
            return Err(bad(
                said,
                "there is no Bridge line: add one, or write UseBridges 0",
            ));
        }
        document.set("bridges.enabled", enabled, from(said));
    } else if let Some(said) = lines.first() {
        // arti would use bridges as soon as they are listed; C tor asks for the switch too.
        document.set("bridges.enabled", false, from(said));
        values.warn(&said.place, "Bridge has no effect without UseBridges 1");
    }
    let mut bridges = Vec::new();
    let mut origins = Vec::new();
    for said in &lines {
        let line = joined(&said.value);
        match check(&line) {
            Ok(()) => {
                bridges.push(Value::from(line));
                origins.push(said.place.clone());
            }
            Err(problem) if enabled => return Err(bad(said, problem)),
            Err(problem) => values.warn(&said.place, &format!("Bridge is left out: {problem}")),
        }
    }
    if !bridges.is_empty() {
        document.set("bridges.bridges", bridges, origins);
    }
    transports(values, enabled, document)
}

/// A line whose fingerprint has no gaps: without a transport C tor joins all words behind the address.
fn joined(line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    let address = words.next().unwrap_or_default();
    let digits: String = words.clone().collect();
    let hex = digits.chars().all(|c| c.is_ascii_hexdigit());
    match address.parse::<SocketAddr>() {
        Ok(_) if hex && words.next().is_some() => format!("{address} {digits}"),
        _ => line.to_owned(),
    }
}

/// Says what arti dislikes about a bridge line, which is not repeated: it is as good as a password.
fn check(line: &str) -> Result<(), String> {
    let problem = match line.parse::<BridgeConfigBuilder>() {
        Err(BridgeParseError::NoRsaIdentity) => {
            return Err(
                "the line has no fingerprint, which arti needs: write its 40 hexadecimal digits behind \
                 the address"
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
    Err(format!("not a bridge line for arti: {problem}: correct it"))
}

/// `ClientTransportPlugin NAMES exec PATH [ARGUMENT …]` or `NAMES socks5 ADDRESS:PORT`.
fn transports(values: &Values, enabled: bool, document: &mut Document) -> Result<(), TorrcError> {
    let lines = values.list("ClientTransportPlugin");
    let no_exec = values.is_on("NoExec", false) && enabled;
    let mut transports = Vec::new();
    for said in lines {
        transports.push(Value::Table(transport(said, no_exec)?));
    }
    if !transports.is_empty() {
        let origins = lines.iter().map(|said| said.place.clone()).collect();
        document.set("bridges.transports", transports, origins);
    }
    Ok(())
}

/// One line of a transport.
fn transport(said: &Said, no_exec: bool) -> Result<Table, TorrcError> {
    let words: Vec<&str> = said.value.split_ascii_whitespace().collect();
    let [names, kind, target, arguments @ ..] = words.as_slice() else {
        let problem = "the line is too short: write NAMES exec PATH, or NAMES socks5 ADDRESS:PORT";
        return Err(bad(said, problem));
    };
    let mut protocols = Vec::new();
    for name in value::words(names) {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !name.starts_with(letter) || !name.chars().all(|c| letter(c) || c.is_ascii_digit()) {
            let problem =
                "the first word is not the name of a transport: write it in letters and digits";
            return Err(bad(said, problem));
        }
        protocols.push(Value::from(name));
    }
    let mut table = Table::new();
    table.insert("protocols".to_owned(), protocols.into());
    match *kind {
        "exec" if no_exec => {
            return Err(bad(
                said,
                "NoExec 1 forbids to run it: remove one of the two",
            ));
        }
        "exec" => {
            table.insert("path".to_owned(), path(said, target)?.into());
            if !arguments.is_empty() {
                let arguments: Vec<Value> = arguments.iter().map(|a| Value::from(*a)).collect();
                table.insert("arguments".to_owned(), arguments.into());
            }
        }
        "socks5" => {
            let address: SocketAddr = target.parse().map_err(|_| {
                bad(
                    said,
                    "behind socks5 is not an address of a transport: write IP:PORT",
                )
            })?;
            table.insert("proxy_addr".to_owned(), address.to_string().into());
        }
        _ => {
            let problem =
                "the second word is not a way to a transport for arti: write exec or socks5";
            return Err(bad(said, problem));
        }
    }
    Ok(table)
}
