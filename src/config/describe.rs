//! The configuration in words, for `--check-config`.

use std::fmt::{self, Write as _};

use super::{Config, ExitTimeouts, TransProxyType};
use crate::config::PORT_INFO;
use crate::config::port_line::{Bind, Flags, Port, PortKind};

/// Says what a run with this configuration would do, in lines for a person.
#[must_use]
pub fn describe(config: &Config) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_config(&mut text, config);
    text
}

/// Writes everything but arti-client's own settings.
fn write_config(out: &mut String, config: &Config) -> fmt::Result {
    let Config {
        tor: _,
        ports,
        socks_timeout,
        access,
        safe_socks,
        test_socks,
        plaintext,
        names,
        trans_proxy_type,
        exit_timeouts,
        client_onion_auth_dir,
        allow_local_addrs,
        allow_onion_addrs,
        allow_resolving_local_addrs,
        state_dir,
        cache_dir,
        permit_debugging,
        root_problem: _,
        folder_problem: _,
        outbound_proxy,
        port_info_file,
        max_files,
        log_filter,
        log_granularity,
        warnings,
        secrets: _,
        files,
        torrc: _,
    } = config;
    if files.is_empty() {
        writeln!(
            out,
            "configuration: no file, only defaults and the command line"
        )?;
    }
    for file in files {
        writeln!(out, "configuration: {}", file.display())?;
    }
    for port in ports {
        write_port(out, port, *trans_proxy_type)?;
    }
    writeln!(out, "deadline of a request: {socks_timeout:?}")?;
    writeln!(out, "clients that may connect: {access}")?;
    writeln!(out, "{plaintext}")?;
    write!(out, "{names}")?;
    if *safe_socks {
        writeln!(out, "requests that give an IP address: refused")?;
    }
    if *test_socks {
        writeln!(out, "requests are logged as safe or unsafe")?;
    }
    match client_onion_auth_dir {
        Some(folder) => writeln!(out, "client authorization keys: {}", folder.display())?,
        None => writeln!(out, "client authorization keys: none")?,
    }
    let ExitTimeouts {
        connect,
        resolve,
        resolve_ptr,
    } = exit_timeouts;
    writeln!(
        out,
        "patience with an exit: {connect:?} to connect, {resolve:?} to look up a name, \
         {resolve_ptr:?} to look up an address"
    )?;
    if !allow_onion_addrs {
        writeln!(out, "onion services: not allowed")?;
    }
    if *allow_resolving_local_addrs {
        writeln!(out, "private and local addresses as answers: allowed")?;
    }
    if *allow_local_addrs {
        writeln!(out, "private and local addresses: allowed")?;
    }
    writeln!(out, "state: {}", state_dir.display())?;
    writeln!(out, "cache: {}", cache_dir.display())?;
    if outbound_proxy.is_some() {
        writeln!(out, "relays are reached through a proxy")?;
    }
    match port_info_file {
        Some(path) => writeln!(out, "ports are named in: {}", path.display())?,
        None if ports.iter().any(|port| port.line.bind.is_auto()) => {
            writeln!(out, "ports are named in: {PORT_INFO} of the state folder")?;
        }
        None => {}
    }
    writeln!(out, "open files: {max_files}")?;
    match permit_debugging {
        true => writeln!(out, "debuggers and core dumps: allowed")?,
        false => writeln!(out, "debuggers and core dumps: kept out")?,
    }
    writeln!(out, "log: {log_filter}, times exact to {log_granularity:?}")?;
    for warning in warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

/// Writes one port: its line, and below it what the line means.
fn write_port(out: &mut String, port: &Port, how: TransProxyType) -> fmt::Result {
    let Port { kind, line, .. } = port;
    writeln!(out, "{} port: {line}", kind.word())?;
    if *kind == PortKind::Transparent {
        let how = match how {
            TransProxyType::Default => "redirected to it (REDIRECT)",
            TransProxyType::Tproxy => "diverted to it (TPROXY)",
        };
        writeln!(out, "    takes connections that are {how}")?;
    }
    for meaning in meanings(*kind, &line.bind, &line.flags) {
        writeln!(out, "    {meaning}")?;
    }
    Ok(())
}

/// What a port does, one statement an entry.
fn meanings(kind: PortKind, bind: &Bind, flags: &Flags) -> Vec<String> {
    let Flags {
        isolation,
        session_group,
        keep_alive_isolate_socks_auth,
        ipv4_traffic,
        ipv6_traffic,
        prefer_ipv6,
        dns_request,
        onion_traffic,
        prefer_socks_no_auth,
        extended_errors,
        group_writable,
        world_writable,
        relax_dir_mode_check,
        // The line itself shows it.
        prefer_ipv6_automap: _,
        // Without effect; the line's warnings show them.
        dns_cache: _,
    } = *flags;
    let mut out = Vec::new();
    match (kind, extended_errors) {
        // They have no codes.
        (PortKind::Transparent | PortKind::Dns, _) => {}
        (PortKind::Http, _) => {
            out.push("says why an onion service failed, in a header and on a page".to_owned());
        }
        (_, true) => out.push("says why an onion service failed (codes F0 to F7)".to_owned()),
        (_, false) => {
            out.push("says only the codes of RFC 1928 (add ExtendedErrors for F0 to F7)".to_owned())
        }
    }
    out.push(format!(
        "carries {}{}",
        list(&[
            (onion_traffic, "onion services"),
            (ipv4_traffic, "IPv4"),
            (ipv6_traffic, "IPv6"),
            (dns_request, "name lookups"),
        ]),
        if prefer_ipv6 { "; prefers IPv6" } else { "" },
    ));
    out.push(format!(
        "keeps circuits apart by {}",
        list(&[
            (isolation.client_addr, "client address"),
            (isolation.socks_auth, "SOCKS user and password"),
            (isolation.client_protocol, "protocol"),
            (isolation.dest_port, "destination port"),
            (isolation.dest_addr, "destination address"),
        ]),
    ));
    out.push(match session_group {
        Some(group) => format!("may share circuits with the ports of session group {group}"),
        None => "shares no circuit with another port".to_owned(),
    });
    if keep_alive_isolate_socks_auth {
        out.push("keeps circuits of a SOCKS user while they are in use".to_owned());
    }
    if prefer_socks_no_auth {
        out.push("chooses no authentication if the client offers it".to_owned());
    }
    if matches!(bind, Bind::Unix(_)) {
        let who = match (group_writable, world_writable) {
            (_, true) => "everyone",
            (true, false) => "its group",
            (false, false) => "its owner",
        };
        out.push(format!("may be used by {who}"));
        if relax_dir_mode_check {
            out.push("may stand in a folder that is open to others".to_owned());
        }
    }
    out
}

/// The names of what is on, with commas; "nothing" if nothing is.
fn list(items: &[(bool, &str)]) -> String {
    let on: Vec<&str> = items
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| *name)
        .collect();
    if on.is_empty() {
        return "nothing".to_owned();
    }
    on.join(", ")
}
