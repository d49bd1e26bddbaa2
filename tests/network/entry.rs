//! Connections to the Tor network through bridges, a proxy or a firewall.
//!
//! A front before each relay records every connection to it, however short: none may bypass what was configured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use testnet::{
    Arrival, Bridge, BridgeOptions, EchoServer, Network, OutboundProxy, PROXY_SIDE, RelayId, Role,
    Service, ServiceOptions, SocksRequest,
};

use crate::daemon::{Onionport, Start};
use crate::setup::{check_echo, network_builder, socks_timeout};

/// How long a client waits for a stream.
const LIMIT: Duration = Duration::from_secs(60);

/// The deadline of a program that is expected not to start.
const SHORT_LIMIT: Duration = Duration::from_secs(20);

/// Where Debian installs the transport.
pub const OBFS4PROXY: &str = "/usr/bin/obfs4proxy";

/// A watched network, and an echo server behind exits and behind an onion service.
pub struct WatchedNetwork {
    pub network: Network,
    pub echo: EchoServer,
    pub service: Service,
}

impl WatchedNetwork {
    pub fn start() -> Result<WatchedNetwork> {
        let network = network_builder().watched(true).start()?;
        let echo = EchoServer::start()?;
        let service = network.service(ServiceOptions::with_port(80, echo.address()))?;
        Ok(WatchedNetwork {
            network,
            echo,
            service,
        })
    }

    /// Returns a network that lives as long as the process, for tests that can share one.
    pub fn shared() -> Result<&'static WatchedNetwork> {
        static SHARED: LazyLock<Result<WatchedNetwork>> = LazyLock::new(WatchedNetwork::start);
        SHARED.as_ref().map_err(|error| anyhow!("{error:#}"))
    }

    /// Opens a stream through an exit and one to the onion service, and checks that both echo. Streams with another
    /// `login` do not share their circuits.
    pub fn open_both(&self, onionport: &Onionport, login: &str) -> Result<[TcpStream; 2]> {
        let streams = [self.exit_target(), self.onion_target()]
            .map(|target| open_stream(onionport.extended_port(), target, login));
        let [exit, onion] = streams;
        let mut streams = [exit.context("exit")?, onion.context("onion service")?];
        streams.iter_mut().try_for_each(check_echo)?;
        Ok(streams)
    }

    /// The echo server, reached through an exit.
    pub fn exit_target(&self) -> (&str, u16) {
        ("good.test", self.echo.address().port())
    }

    /// The echo server, reached through the onion service.
    fn onion_target(&self) -> (&str, u16) {
        (self.service.address(), 80)
    }

    /// Opens streams at the start, after a request for new circuits, and after a reload, and checks each connection
    /// to a relay meanwhile.
    fn check(
        &self,
        what: &str,
        start: Start<'_>,
        is_allowed: impl Fn(&Arrival) -> bool,
    ) -> Result<()> {
        let before = self.network.arrivals()?.len();
        let onionport = start.start().with_context(|| what.to_owned())?;
        let served = (|| {
            self.open_both(&onionport, "first")?;
            onionport.signal("USR1")?;
            self.open_both(&onionport, "second")?;
            let changed = format!(
                "{}\n[circuit_timing]\nmax_dirtiness = \"5 min\"",
                start.extra_config
            );
            let log = onionport.reload(None, Some(&changed))?;
            ensure!(!log.contains("configuration not reloaded"), "{log}");
            self.open_both(&onionport, "third")
        })();
        served.with_context(|| what.to_owned())?;
        onionport.stop()?;
        let arrivals = &self.network.arrivals()?[before..];
        ensure!(!arrivals.is_empty(), "{what}: no connection to any relay");
        let forbidden: Vec<_> = arrivals.iter().filter(|a| !is_allowed(a)).collect();
        ensure!(
            forbidden.is_empty(),
            "{what}: {forbidden:?} of {} connections",
            arrivals.len()
        );
        println!("{what}: {} connections", arrivals.len());
        Ok(())
    }
}

/// Opens a stream with a user name, which isolates it from streams with other names.
fn open_stream(proxy: SocketAddr, (host, port): (&str, u16), login: &str) -> Result<TcpStream> {
    let request = SocksRequest::new(proxy, host, port).login(login, "");
    let reply = request.timeout(LIMIT).send()?;
    ensure!(
        reply.code == 0x00,
        "{:02X} after {:.1?}",
        reply.code,
        reply.elapsed
    );
    let stream = reply.stream.context("code 00 comes with a stream")?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Returns configuration with these bridges, which may use obfs4.
pub fn bridges_config(lines: &[&str]) -> String {
    format!(
        "[bridges]\nenabled = true\nbridges = {lines:?}\n\
         [[bridges.transports]]\nprotocols = [\"obfs4\"]\npath = {OBFS4PROXY:?}\n"
    )
}

/// Returns a torrc with an obfs4 bridge and the program for its transport.
pub fn obfs4_torrc(bridge_line: &str, transport_program: &str) -> String {
    format!(
        "UseBridges 1\nBridge {bridge_line}\nClientTransportPlugin obfs4 exec {transport_program}\n"
    )
}

/// Returns configuration with a proxy for all connections to relays.
fn proxy_config(proxy: &OutboundProxy) -> String {
    format!("[channel]\noutbound_proxy = {:?}\n", proxy.url())
}

/// Whether a connection comes from a client on this machine that uses no proxy.
fn is_direct(arrival: &Arrival) -> bool {
    arrival.from == IpAddr::from(Ipv4Addr::LOCALHOST)
}

/// Whether a connection comes from an [`OutboundProxy`].
fn is_proxied(arrival: &Arrival) -> bool {
    arrival.from == IpAddr::from(PROXY_SIDE)
}

#[test]
fn no_connection_bypasses_a_bridge_a_proxy_or_a_firewall() -> Result<()> {
    let watched = WatchedNetwork::start()?;
    let bridge = watched.network.bridge(BridgeOptions { obfs4: true })?;
    only_a_bridge_is_connected_to(&watched, &bridge)?;
    all_connections_go_through_a_proxy(&watched, &bridge)?;
    only_reachable_relays_are_connected_to(&watched)
}

/// arti 0.47 sends "[scrubbed]:[scrubbed]" as the login of an HTTP proxy, because it formats a `Sensitive<String>`. As
/// long as it does, the program has to refuse such a configuration.
#[test]
fn an_http_proxy_with_a_login_is_refused() -> Result<()> {
    let watched = WatchedNetwork::shared()?;
    let proxy = OutboundProxy::http(Some(("name", "word")))?;
    let started = Start::new(&watched.network)
        .proxy_settings(&socks_timeout(SHORT_LIMIT))
        .extra_config(&proxy_config(&proxy))
        .start_until_ports_are_open(2);
    ensure!(started.is_err(), "the program started");
    Ok(())
}

fn only_a_bridge_is_connected_to(watched: &WatchedNetwork, bridge: &Bridge) -> Result<()> {
    let start = Start::new(&watched.network);
    let plain = bridge.line();
    let obfs4 = bridge.obfs4_line().context("the bridge has no obfs4")?;
    let obfs4_port = bridge.obfs4_port().context("the bridge has no obfs4")?;
    let at = |port: u16| {
        let id = bridge.id().clone();
        move |a: &Arrival| is_direct(a) && a.relay == id && a.port == port
    };
    let config = bridges_config(&[&plain]);
    watched.check(
        "a plain bridge",
        start.extra_config(&config),
        at(bridge.port()),
    )?;

    let torrc = obfs4_torrc(&obfs4, OBFS4PROXY);
    watched.check(
        "an obfs4 bridge in a torrc",
        start.torrc(&torrc),
        at(obfs4_port),
    )?;

    let config = bridges_config(&[&plain, &obfs4]);
    let either = |a: &Arrival| is_direct(a) && a.relay == *bridge.id();
    watched.check(
        "both lines of one bridge",
        start.extra_config(&config),
        either,
    )
}

fn all_connections_go_through_a_proxy(watched: &WatchedNetwork, bridge: &Bridge) -> Result<()> {
    let start = Start::new(&watched.network);
    let login = Some(("name", "word"));
    let proxies = [
        ("SOCKS5", OutboundProxy::socks5(None)?),
        ("SOCKS5 with a login", OutboundProxy::socks5(login)?),
        ("HTTP CONNECT", OutboundProxy::http(None)?),
    ];
    for (what, proxy) in &proxies {
        let config = proxy_config(proxy);
        watched.check(what, start.extra_config(&config), is_proxied)?;
        ensure!(!proxy.requested().is_empty(), "{what}");
    }
    let (_, proxy) = &proxies[1];
    let obfs4 = bridge.obfs4_line().context("the bridge has no obfs4")?;
    for line in [&bridge.line(), &obfs4] {
        let config = bridges_config(&[line]) + &proxy_config(proxy);
        let at_bridge = |a: &Arrival| is_proxied(a) && a.relay == *bridge.id();
        watched.check(
            "a bridge behind a proxy",
            start.extra_config(&config),
            at_bridge,
        )?;
    }
    Ok(())
}

fn only_reachable_relays_are_connected_to(watched: &WatchedNetwork) -> Result<()> {
    let network = &watched.network;
    let start = Start::new(network);
    // Some relays that may be guards, and one that has the directory.
    let mut relays: Vec<RelayId> = network.relays(Role::Relay);
    relays.truncate(3);
    relays.extend(network.relays(Role::Authority).into_iter().take(1));
    let ports = relays
        .iter()
        .map(|relay| Ok(network.or_address(relay)?.port()));
    let ports = ports.collect::<Result<Vec<u16>>>()?;
    let is_allowed = |a: &Arrival| is_direct(a) && ports.contains(&a.port);
    let list = |form: &dyn Fn(&u16) -> String| {
        let written: Vec<String> = ports.iter().map(form).collect();
        written.join(", ")
    };
    let firewall = format!(
        "FascistFirewall 1\nFirewallPorts {}\n",
        list(&u16::to_string)
    );
    let addresses = format!(
        "ReachableAddresses {}, reject *:*\n",
        list(&|port| format!("127.0.0.0/8:{port}"))
    );
    for (what, torrc) in [
        ("FascistFirewall", firewall),
        ("ReachableAddresses", addresses),
    ] {
        watched.check(what, start.torrc(&torrc), is_allowed)?;
    }
    let config = format!(
        "[path_rules]\nreachable_addrs = [{}]\n",
        list(&|port| format!("\"127.0.0.1:{port}\""))
    );
    watched.check("reachable_addrs", start.extra_config(&config), is_allowed)
}
