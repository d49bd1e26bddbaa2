//! The open ports and the settings each serves with. A reload can change both.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::config::Config;
use crate::config::port_line::{BindAddr, Flags, Port, PortKind};
use crate::daemon::bound_ports::{BoundPort, BoundPorts};
use crate::inbound::http::ClientAuthForm;
use crate::inbound::listener::{InheritedSockets, ListenAddr, PlannedPort};
use crate::request::dispatch::{Dispatcher, SharedState};
use crate::request::policy::PortRules;
use crate::tor::connector::Connector;
use crate::tor::isolation::SessionGroup;

/// The ports that accept clients. Closing a port leaves its clients connected.
pub(super) struct OpenPorts<T: Connector> {
    tor: Arc<T>,
    shared: Arc<SharedState>,
    client_auth_form: Arc<ClientAuthForm>,
    permits: Arc<Semaphore>,
    inherited: InheritedSockets,
    ports: Vec<OpenPort<T>>,
    /// The number of the last port that became a session group of its own.
    last_group: usize,
}

/// One open port.
struct OpenPort<T> {
    wanted: PlannedPort,
    address: ListenAddr,
    group: SessionGroup,
    dispatcher: watch::Sender<Arc<Dispatcher<T>>>,
    /// Accepts clients until it is aborted.
    task: JoinHandle<()>,
}

/// What another configuration does to the open ports, which are identified by their index.
struct PortPlan {
    keep: Vec<(usize, PlannedPort)>,
    close: Vec<usize>,
    open: Vec<PlannedPort>,
}

/// Addresses of the ports that were opened and closed.
#[derive(Debug, Default)]
pub(super) struct PortChanges {
    /// Ports that are open and were not.
    pub(super) opened: Vec<(PortKind, ListenAddr)>,
    /// Ports that were open and are not.
    pub(super) closed: Vec<(PortKind, ListenAddr)>,
}

impl<T: Connector> OpenPorts<T> {
    /// Creates the set without any port. `permits` limits the clients served at once, over all
    /// ports; `inherited` are sockets that ports may listen on.
    pub(super) fn new(
        tor: Arc<T>,
        shared: Arc<SharedState>,
        client_auth_form: Arc<ClientAuthForm>,
        permits: Arc<Semaphore>,
        inherited: InheritedSockets,
    ) -> OpenPorts<T> {
        OpenPorts {
            tor,
            shared,
            client_auth_form,
            permits,
            inherited,
            ports: Vec::new(),
            last_group: 0,
        }
    }

    /// Starts to accept clients on these ports too.
    pub(super) fn serve(&mut self, config: &Config, bound: BoundPorts) -> PortChanges {
        let mut changes = PortChanges::default();
        for BoundPort { wanted, listener } in bound.0 {
            let address = listener.addr().clone();
            changes.opened.push((wanted.port.kind, address.clone()));
            let group = self.choose_group(&wanted.port);
            let (dispatcher, current) =
                watch::channel(self.build_dispatcher(config, &wanted.port, group));
            let permits = Arc::clone(&self.permits);
            let task =
                tokio::spawn(listener.run(current, permits, Arc::clone(&self.client_auth_form)));
            self.ports.push(OpenPort {
                wanted,
                address,
                group,
                dispatcher,
                task,
            });
        }
        changes
    }

    /// Replaces the ports of `old`, which are open, by those of `config`: opens and closes ports, and
    /// gives those that stay their new flags.
    ///
    /// # Errors
    /// One line, if a port cannot be opened. The ports of `old` are then open as before; the error
    /// lists those that were closed for a moment and could not be opened again.
    pub(super) async fn change(
        &mut self,
        old: &Config,
        config: &Config,
    ) -> Result<PortChanges, String> {
        let plan = self.plan(config);
        let without_line = self.list_sockets_without_line(&plan);
        let PortPlan { keep, close, open } = plan;
        let (bound, closed) = match self.bind(&open, config) {
            Ok(bound) => (bound, self.close_some(&close).await),
            Err(problem) => {
                self.bind_after_closing(&open, &close, problem, old, config)
                    .await?
            }
        };
        for (index, wanted) in keep {
            // The closed ports before it are gone from the list.
            let index = index - count_below(&close, index);
            self.update(config, index, wanted);
        }
        for address in without_line {
            warn!(
                "{address} is a socket of LISTEN_FDS and stays open, now without flags: to close it, \
                 change the socket unit"
            );
        }
        let mut changes = self.serve(config, bound);
        changes.closed = closed;
        Ok(changes)
    }

    /// Binds the ports `open`, which failed with `problem` while those to `close` were open, after
    /// closing the ones that conflict. If it fails again, opens those of `old` again.
    ///
    /// Only conflicting ports are closed before it is known whether the new ones can be bound: another
    /// may have a number that the system chose, which it could not get back.
    async fn bind_after_closing(
        &mut self,
        open: &[PlannedPort],
        close: &[usize],
        problem: String,
        old: &Config,
        config: &Config,
    ) -> Result<(BoundPorts, Vec<(PortKind, ListenAddr)>), String> {
        let has_conflict = |index: &usize| {
            let port = &self.ports[*index];
            open.iter().any(|wanted| port.conflicts_with(&wanted.port))
        };
        let (first, then): (Vec<usize>, Vec<usize>) = close.iter().copied().partition(has_conflict);
        if first.is_empty() {
            return Err(problem);
        }
        let closing = first.iter().map(|index| &self.ports[*index]);
        let pinned: Vec<PlannedPort> = closing.clone().map(OpenPort::pin_address).collect();
        let wanted: Vec<PlannedPort> = closing.map(|port| port.wanted.clone()).collect();
        let mut closed = self.close_some(&first).await;
        match self.bind(open, config) {
            Ok(bound) => {
                let then: Vec<usize> = then.iter().map(|n| n - count_below(&first, *n)).collect();
                closed.extend(self.close_some(&then).await);
                Ok((bound, closed))
            }
            Err(problem) => {
                let lost = self.reopen(old, pinned, wanted);
                Err(match lost.is_empty() {
                    true => problem,
                    false => format!(
                        "{problem}; ports that were open are lost: {}",
                        lost.join("; ")
                    ),
                })
            }
        }
    }

    fn bind(&self, wanted: &[PlannedPort], config: &Config) -> Result<BoundPorts, String> {
        BoundPorts::bind_these(wanted, &self.inherited, config.trans_proxy_type)
    }

    /// Opens ports that were closed a moment ago, each at the address it had (`pinned`) and with the
    /// line it came from (`wanted`). Returns the problems of those whose address is in use by now.
    fn reopen(
        &mut self,
        old: &Config,
        pinned: Vec<PlannedPort>,
        wanted: Vec<PlannedPort>,
    ) -> Vec<String> {
        let mut lost = Vec::new();
        for (pinned, wanted) in pinned.iter().zip(wanted) {
            match self.bind(std::slice::from_ref(pinned), old) {
                Ok(bound) => {
                    self.serve(old, bound);
                    if let Some(port) = self.ports.last_mut() {
                        port.wanted = wanted;
                    }
                }
                Err(problem) => lost.push(problem),
            }
        }
        lost
    }

    /// Plans which ports to keep, close and open. Ports with the same whole line are matched first:
    /// two lines with `auto` are different ports.
    fn plan(&self, config: &Config) -> PortPlan {
        let mut open = self.inherited.plan_ports(&config.ports);
        let mut keep = Vec::new();
        let mut close: Vec<usize> = (0..self.ports.len()).collect();
        let has_same_line = |port: &Port, wanted: &Port| port.line == wanted.line;
        let has_same_bind = |port: &Port, wanted: &Port| port.line.bind == wanted.line.bind;
        let comparisons: [fn(&Port, &Port) -> bool; 2] = [has_same_line, has_same_bind];
        for matches in comparisons {
            close.retain(|&index| {
                let port = &self.ports[index].wanted;
                let is_same = |wanted: &PlannedPort| {
                    wanted.port.kind == port.port.kind
                        && wanted.inherited == port.inherited
                        && matches(&port.port, &wanted.port)
                };
                match open.iter().position(is_same) {
                    Some(found) => {
                        keep.push((index, open.remove(found)));
                        false
                    }
                    None => true,
                }
            });
        }
        PortPlan { keep, close, open }
    }

    /// Lists the addresses of inherited sockets that a port line used until now, and none does under
    /// the plan.
    fn list_sockets_without_line(&self, plan: &PortPlan) -> Vec<ListenAddr> {
        let find_configured = |number| {
            let mut ports = self.ports.iter();
            ports.find(|port| port.wanted.configured && port.wanted.inherited == Some(number))
        };
        let kept = plan.keep.iter().map(|(_, wanted)| wanted);
        let without_line = kept.chain(&plan.open).filter(|wanted| !wanted.configured);
        let ports = without_line.filter_map(|wanted| find_configured(wanted.inherited?));
        ports.map(|port| port.address.clone()).collect()
    }

    /// Gives a port that stays open its new flags.
    fn update(&mut self, config: &Config, index: usize, wanted: PlannedPort) {
        let port = &self.ports[index];
        let (before, after) = (port.wanted.port.line.flags, wanted.port.line.flags);
        if wanted.inherited.is_none()
            && (before.group_writable, before.world_writable)
                != (after.group_writable, after.world_writable)
        {
            let address = &port.address;
            warn!("{address}: permissions of the socket changed: restart onionport to apply them");
        }
        let group = match before.session_group == after.session_group {
            true => port.group,
            false => self.choose_group(&wanted.port),
        };
        let dispatcher = self.build_dispatcher(config, &wanted.port, group);
        let port = &mut self.ports[index];
        port.dispatcher.send_replace(dispatcher);
        port.wanted = wanted;
        port.group = group;
    }

    /// Closes the ports with these indices, which are in ascending order. When this returns, their
    /// addresses are free.
    async fn close_some(&mut self, indices: &[usize]) -> Vec<(PortKind, ListenAddr)> {
        let mut closed = Vec::new();
        for index in indices.iter().rev() {
            let port = self.ports.remove(*index);
            port.task.abort();
            // Always an error: the task was aborted.
            let _ = port.task.await;
            closed.push((port.wanted.port.kind, port.address));
        }
        closed.reverse();
        closed
    }

    /// Iterates over the open ports and their addresses, in the order in which they were opened.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Port, &ListenAddr)> {
        self.ports
            .iter()
            .map(|port| (&port.wanted.port, &port.address))
    }

    /// Closes all ports, and removes the socket files that this process has made.
    pub(super) async fn close(mut self) {
        let all: Vec<usize> = (0..self.ports.len()).collect();
        self.close_some(&all).await;
    }

    /// Returns the session group that the port's line names, or else one of the port's own.
    fn choose_group(&mut self, port: &Port) -> SessionGroup {
        port.line.flags.session_group.map_or_else(
            || {
                self.last_group += 1;
                SessionGroup::Port(self.last_group)
            },
            SessionGroup::Named,
        )
    }

    fn build_dispatcher(
        &self,
        config: &Config,
        port: &Port,
        group: SessionGroup,
    ) -> Arc<Dispatcher<T>> {
        let flags = port.line.flags;
        Arc::new(Dispatcher {
            tor: Arc::clone(&self.tor),
            rules: PortRules {
                flags: Flags {
                    onion_traffic: flags.onion_traffic && config.allow_onion_addrs,
                    ..flags
                },
                allow_local: config.allow_local_addrs,
                allow_local_answers: config.allow_resolving_local_addrs,
            },
            group,
            timeout: config.socks_timeout,
            shared: Arc::clone(&self.shared),
        })
    }
}

impl<T> OpenPort<T> {
    /// Returns what it takes to open the port again at its present address, even if the system chose
    /// that.
    fn pin_address(&self) -> PlannedPort {
        let mut wanted = self.wanted.clone();
        if let ListenAddr::Ip(address) = self.address {
            wanted.port.line.bind = BindAddr::Tcp(address);
        }
        wanted
    }

    /// Whether `port` cannot be bound as long as this one is open. That includes another address with
    /// the same number, because either may be the address of all interfaces. Closing a port on an
    /// inherited socket frees no address.
    fn conflicts_with(&self, port: &Port) -> bool {
        let is_udp = |kind| kind == PortKind::Dns;
        match (&self.address, &port.line.bind) {
            _ if self.wanted.inherited.is_some() => false,
            _ if is_udp(self.wanted.port.kind) != is_udp(port.kind) => false,
            (ListenAddr::Ip(open), BindAddr::Tcp(wanted)) => open.port() == wanted.port(),
            (ListenAddr::Unix(open), BindAddr::Unix(wanted)) => open == wanted,
            _ => false,
        }
    }
}

/// Counts the indices below `limit`.
fn count_below(indices: &[usize], limit: usize) -> usize {
    indices.iter().filter(|index| **index < limit).count()
}
