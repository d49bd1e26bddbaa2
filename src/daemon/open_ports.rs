//! The open ports, and the settings that each serves with. A reload can change both.

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
    planned: PlannedPort,
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

/// Why the ports were not changed.
#[derive(Debug)]
pub(super) struct ChangeError {
    /// One line.
    pub(super) problem: String,
    /// Ports that were closed for a moment and could not be opened again.
    pub(super) lost: Vec<(PortKind, ListenAddr)>,
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
        for BoundPort { planned, listener } in bound.0 {
            let address = listener.addr().clone();
            changes.opened.push((planned.port.kind, address.clone()));
            let group = self.choose_group(&planned.port);
            let (dispatcher, current) =
                watch::channel(self.build_dispatcher(config, &planned.port, group));
            let permits = Arc::clone(&self.permits);
            let task =
                tokio::spawn(listener.run(current, permits, Arc::clone(&self.client_auth_form)));
            self.ports.push(OpenPort {
                planned,
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
    /// If a port cannot be opened. The ports of `old` are then open as before, except for those that
    /// [`ChangeError`] lists.
    pub(super) async fn change(
        &mut self,
        old: &Config,
        config: &Config,
    ) -> Result<PortChanges, ChangeError> {
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
        for (index, planned) in keep {
            // The closed ports before it are gone from the list.
            let index = index - count_below(&close, index);
            self.update(config, index, planned);
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
    ) -> Result<(BoundPorts, Vec<(PortKind, ListenAddr)>), ChangeError> {
        let has_conflict = |index: &usize| {
            let port = &self.ports[*index];
            open.iter()
                .any(|planned| port.conflicts_with(&planned.port))
        };
        let (first, then): (Vec<usize>, Vec<usize>) = close.iter().copied().partition(has_conflict);
        if first.is_empty() {
            let lost = Vec::new();
            return Err(ChangeError { problem, lost });
        }
        let closing = first.iter().map(|index| &self.ports[*index]);
        let pinned: Vec<PlannedPort> = closing.clone().map(OpenPort::pin_address).collect();
        let planned: Vec<PlannedPort> = closing.map(|port| port.planned.clone()).collect();
        let mut closed = self.close_some(&first).await;
        match self.bind(open, config) {
            Ok(bound) => {
                let then: Vec<usize> = then.iter().map(|n| n - count_below(&first, *n)).collect();
                closed.extend(self.close_some(&then).await);
                Ok((bound, closed))
            }
            Err(mut problem) => {
                let (lost, problems) = self.reopen(old, pinned, planned, closed);
                if !lost.is_empty() {
                    let problems = problems.join("; ");
                    problem = format!(
                        "{problem}; ports that were open are lost: {problems}; correct this and \
                         reload again"
                    );
                }
                Err(ChangeError { problem, lost })
            }
        }
    }

    fn bind(&self, planned: &[PlannedPort], config: &Config) -> Result<BoundPorts, String> {
        BoundPorts::bind_these(planned, &self.inherited, config.trans_proxy_type)
    }

    /// Opens the ports `closed`, which were closed a moment ago, each at the address it had (`pinned`)
    /// and with the line it came from (`planned`). Returns those that cannot be opened, and the problem
    /// of each.
    fn reopen(
        &mut self,
        old: &Config,
        pinned: Vec<PlannedPort>,
        planned: Vec<PlannedPort>,
        closed: Vec<(PortKind, ListenAddr)>,
    ) -> (Vec<(PortKind, ListenAddr)>, Vec<String>) {
        let (mut lost, mut problems) = (Vec::new(), Vec::new());
        for ((pinned, planned), closed) in pinned.iter().zip(planned).zip(closed) {
            match self.bind(std::slice::from_ref(pinned), old) {
                Ok(bound) => {
                    self.serve(old, bound);
                    if let Some(port) = self.ports.last_mut() {
                        port.planned = planned;
                    }
                }
                Err(problem) => {
                    lost.push(closed);
                    problems.push(problem);
                }
            }
        }
        (lost, problems)
    }

    /// Plans which ports to keep, close and open. Ports with the same whole line are matched first:
    /// two lines with `auto` are different ports.
    fn plan(&self, config: &Config) -> PortPlan {
        let mut open = self.inherited.plan_ports(&config.ports);
        let mut keep = Vec::new();
        let mut close: Vec<usize> = (0..self.ports.len()).collect();
        let has_same_line = |port: &Port, planned: &Port| port.line == planned.line;
        let has_same_bind = |port: &Port, planned: &Port| port.line.bind == planned.line.bind;
        let comparisons: [fn(&Port, &Port) -> bool; 2] = [has_same_line, has_same_bind];
        for matches in comparisons {
            close.retain(|&index| {
                let port = &self.ports[index].planned;
                let is_same = |planned: &PlannedPort| {
                    planned.port.kind == port.port.kind
                        && planned.inherited == port.inherited
                        && matches(&port.port, &planned.port)
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
            ports.find(|port| port.planned.configured && port.planned.inherited == Some(number))
        };
        let kept = plan.keep.iter().map(|(_, planned)| planned);
        let without_line = kept.chain(&plan.open).filter(|planned| !planned.configured);
        let ports = without_line.filter_map(|planned| find_configured(planned.inherited?));
        ports.map(|port| port.address.clone()).collect()
    }

    /// Gives a port that stays open its new flags.
    fn update(&mut self, config: &Config, index: usize, planned: PlannedPort) {
        let port = &self.ports[index];
        let (before, after) = (port.planned.port.line.flags, planned.port.line.flags);
        if planned.inherited.is_none()
            && (before.group_writable, before.world_writable)
                != (after.group_writable, after.world_writable)
        {
            let address = &port.address;
            warn!("{address}: permissions of the socket changed: restart onionport to apply them");
        }
        let group = match before.session_group == after.session_group {
            true => port.group,
            false => self.choose_group(&planned.port),
        };
        let dispatcher = self.build_dispatcher(config, &planned.port, group);
        let port = &mut self.ports[index];
        port.dispatcher.send_replace(dispatcher);
        port.planned = planned;
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
            closed.push((port.planned.port.kind, port.address));
        }
        closed.reverse();
        closed
    }

    /// Iterates over the open ports and their addresses, in the order in which they were opened.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Port, &ListenAddr)> {
        self.ports
            .iter()
            .map(|port| (&port.planned.port, &port.address))
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
        let mut planned = self.planned.clone();
        if let ListenAddr::Ip(address) = self.address {
            planned.port.line.bind = BindAddr::Tcp(address);
        }
        planned
    }

    /// Whether `port` cannot be bound as long as this one is open. That includes another address with
    /// the same number, because either may be the address of all interfaces. Closing a port on an
    /// inherited socket frees no address.
    fn conflicts_with(&self, port: &Port) -> bool {
        let is_udp = |kind| kind == PortKind::Dns;
        match (&self.address, &port.line.bind) {
            _ if self.planned.inherited.is_some() => false,
            _ if is_udp(self.planned.port.kind) != is_udp(port.kind) => false,
            (ListenAddr::Ip(open), BindAddr::Tcp(planned)) => open.port() == planned.port(),
            (ListenAddr::Unix(open), BindAddr::Unix(planned)) => open == planned,
            _ => false,
        }
    }
}

/// Counts the indices below `limit`.
fn count_below(indices: &[usize], limit: usize) -> usize {
    indices.iter().filter(|index| **index < limit).count()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::net::IpAddr;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use tokio::io::DuplexStream;
    use tokio::time::Instant;

    use super::*;
    use crate::config::{self, ProxyArgs};
    use crate::failure::Failure;
    use crate::tor::connector::Stream;
    use crate::tor::destination::PermittedRequest;
    use crate::tor::isolation::Isolation;
    use crate::tor::optimistic_data::OptimisticData;

    /// A Tor network that serves nothing.
    struct NoNetwork;

    impl Connector for NoNetwork {
        type Reader = DuplexStream;
        type Writer = DuplexStream;

        async fn connect(
            &self,
            _: &PermittedRequest,
            _: &Isolation,
            _: &OptimisticData,
            _: Instant,
        ) -> Result<Stream<DuplexStream, DuplexStream>, Failure> {
            Err(Failure::NotBootstrapped)
        }

        async fn resolve(
            &self,
            _: &str,
            _: &Isolation,
            _: Instant,
        ) -> Result<Vec<IpAddr>, Failure> {
            Err(Failure::NotBootstrapped)
        }

        async fn resolve_ptr(
            &self,
            _: IpAddr,
            _: &Isolation,
            _: Instant,
        ) -> Result<Vec<String>, Failure> {
            Err(Failure::NotBootstrapped)
        }
    }

    /// Loads the configuration of these arguments, without reading arti's files.
    fn load(folder: &Path, arguments: ProxyArgs) -> Config {
        let file = folder.join("empty.toml");
        fs::write(&file, "").expect("written");
        let arguments = ProxyArgs {
            config: vec![file],
            ..arguments
        };
        config::load(&arguments).expect("a configuration")
    }

    #[tokio::test]
    async fn ports_that_cannot_be_reopened_are_reported_and_not_listed() {
        let folder = tempfile::tempdir().expect("a folder");
        let private = folder.path().join("private");
        fs::create_dir(&private).expect("created");
        let set_mode = |mode| fs::set_permissions(&private, Permissions::from_mode(mode));
        set_mode(0o700).expect("private");
        let path = private.join("port");
        let line = format!("unix:{}", path.display());
        let old = ProxyArgs {
            socks_port: vec!["127.0.0.1:auto".to_owned(), line.clone()],
            ..ProxyArgs::default()
        };
        let old = load(folder.path(), old);
        let mut ports = OpenPorts::new(
            Arc::new(NoNetwork),
            Arc::default(),
            Arc::default(),
            Arc::new(Semaphore::new(1)),
            InheritedSockets::default(),
        );
        let bound = BoundPorts::bind(&old, &ports.inherited).expect("bound");
        ports.serve(&old, bound);
        // Nothing can be opened in a folder that others may write to.
        set_mode(0o777).expect("public");
        let new = ProxyArgs {
            socks_port: vec!["127.0.0.1:auto".to_owned()],
            http_port: vec![line],
            ..ProxyArgs::default()
        };
        let new = load(folder.path(), new);
        let error = ports.change(&old, &new).await.expect_err("refused");
        let lost = ListenAddr::Unix(path);
        assert_eq!(error.lost, [(PortKind::Socks, lost.clone())]);
        assert!(
            error.problem.contains("ports that were open are lost"),
            "{}",
            error.problem
        );
        let left: Vec<&ListenAddr> = ports.iter().map(|(_, address)| address).collect();
        assert!(left.len() == 1 && *left[0] != lost, "{left:?}");
        ports.close().await;
    }
}
