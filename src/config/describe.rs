//! Describes the configuration for `--check-config`.

use std::fmt::{self, Write as _};

use super::checked::{Config, ExitTimeouts, PORT_INFO, TransProxyType};
use super::port_line::{BindAddr, Flags, Port, PortKind};

/// Describes what a run with this configuration does, in lines for a person.
#[must_use]
pub fn describe(config: &Config) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_config(&mut text, config);
    text
}

/// Writes all settings except arti-client's own.
fn write_config(out: &mut String, config: &Config) -> fmt::Result {
    let Config {
        tor: _,
        ports,
        socks_timeout,
        access,
        safe_socks,
        test_socks,
        plaintext_ports,
        address_map,
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
    writeln!(out, "request deadline: {socks_timeout:?}")?;
    writeln!(out, "clients: {access}")?;
    writeln!(out, "{plaintext_ports}")?;
    write!(out, "{address_map}")?;
    if *safe_socks {
        writeln!(out, "requests that give an IP address: refused")?;
    }
    if *test_socks {
        writeln!(out, "requests: each logged as safe or unsafe")?;
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
        "exit time-outs: {connect:?} to connect, {resolve:?} to look up a name, {resolve_ptr:?} to \
         look up an address"
    )?;
    if !allow_onion_addrs {
        writeln!(out, "onion services: not allowed")?;
    }
    if *allow_resolving_local_addrs {
        writeln!(
            out,
            "private and local addresses as lookup results: allowed"
        )?;
    }
    if *allow_local_addrs {
        writeln!(out, "private and local addresses as destinations: allowed")?;
    }
    writeln!(out, "state folder: {}", state_dir.display())?;
    writeln!(out, "cache folder: {}", cache_dir.display())?;
    if outbound_proxy.is_some() {
        writeln!(out, "relays: reached through a proxy")?;
    }
    match port_info_file {
        Some(path) => writeln!(out, "list of open ports: {}", path.display())?,
        None if ports.iter().any(|port| port.line.bind.is_auto()) => {
            writeln!(out, "list of open ports: {PORT_INFO} in the state folder")?;
        }
        None => {}
    }
    writeln!(out, "limit of open files: {max_files}")?;
    match permit_debugging {
        true => writeln!(out, "debuggers and core dumps: allowed")?,
        false => writeln!(out, "debuggers and core dumps: not allowed")?,
    }
    writeln!(
        out,
        "log: {log_filter}, with timestamps in steps of {log_granularity:?}"
    )?;
    for warning in warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

/// Writes a port: its line, and below it what the line means.
fn write_port(out: &mut String, port: &Port, trans_proxy_type: TransProxyType) -> fmt::Result {
    let Port { kind, line, .. } = port;
    writeln!(out, "{} port: {line}", kind.name())?;
    if *kind == PortKind::Transparent {
        let how = match trans_proxy_type {
            TransProxyType::Default => "redirected to it (REDIRECT)",
            TransProxyType::Tproxy => "diverted to it (TPROXY)",
        };
        writeln!(out, "    accepts connections that are {how}")?;
    }
    for statement in describe_line(*kind, &line.bind, &line.flags) {
        writeln!(out, "    {statement}")?;
    }
    Ok(())
}

/// Returns what a port does, one statement each.
fn describe_line(kind: PortKind, bind: &BindAddr, flags: &Flags) -> Vec<String> {
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
        // No effect; the line's warnings mention them.
        dns_cache: _,
    } = *flags;
    let mut out = Vec::new();
    match (kind, extended_errors) {
        // They have no reply codes.
        (PortKind::Transparent | PortKind::Dns, _) => {}
        (PortKind::Http, _) => {
            out.push("reports why an onion service failed, in a header and on a page".to_owned());
        }
        (_, true) => out.push("reports why an onion service failed (codes F0 to F7)".to_owned()),
        (_, false) => {
            out.push("uses only the codes of RFC 1928 (add ExtendedErrors for F0 to F7)".to_owned())
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
        "isolates circuits by {}",
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
        out.push("keeps the circuits of a SOCKS user while they are in use".to_owned());
    }
    if prefer_socks_no_auth {
        out.push("chooses no authentication if the client offers it".to_owned());
    }
    if matches!(bind, BindAddr::Unix(_)) {
        let who = match (group_writable, world_writable) {
            (_, true) => "everyone",
            (true, false) => "its group",
            (false, false) => "its owner",
        };
        out.push(format!("accepts connections from {who}"));
        if relax_dir_mode_check {
            out.push("may be in a folder that is open to others".to_owned());
        }
    }
    out
}

/// Joins the names of the items that are on, with commas; "nothing" if none is.
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
