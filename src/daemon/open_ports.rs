//! The ports that are open, each with what it serves its clients by; both can change while the
//! program runs.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::config::port_line::{BindAddr, Flags, Port, PortKind};
use crate::config::{Config, TransProxyType};
use crate::inbound::http::ClientAuthForm;
use crate::inbound::listener::{InheritedSockets, ListenAddr, Listener, PlannedPort};
use crate::request::dispatch::{Dispatcher, Shared};
use crate::request::policy::Rules;
use crate::tor::connector::Connector;
use crate::tor::isolation::SessionGroup;

/// Ports that are bound and do not serve yet.
pub struct Bound(Vec<BoundPort>);

struct BoundPort {
    wanted: PlannedPort,
    listener: Listener,
}

impl Bound {
    /// Opens every port of the configuration, and one for each handed-over socket that is left: all
    /// or none.
    ///
    /// The error is one sentence that names the place and the remedy.
    pub fn open(config: &Config, handed: &InheritedSockets) -> Result<Bound, String> {
        Bound::open_these(
            &handed.plan_ports(&config.ports),
            handed,
            config.trans_proxy_type,
        )
    }

    fn open_these(
        wanted: &[PlannedPort],
        handed: &InheritedSockets,
        trans_proxy_type: TransProxyType,
    ) -> Result<Bound, String> {
        let mut bound = Vec::new();
        for wanted in wanted {
            let line = &wanted.port.line;
            if !wanted.configured {
                for warning in &line.warnings {
                    warn!("socket {} of LISTEN_FDS: {warning}", line.bind);
                }
                if let Some(problem) = line.unserved(wanted.port.kind) {
                    return Err(format!("socket {} of LISTEN_FDS: {problem}", line.bind));
                }
            }
            if let Some(listener) = Listener::bind(wanted, handed, trans_proxy_type)? {
                bound.push(BoundPort {
                    wanted: wanted.clone(),
                    listener,
                });
            }
        }
        Ok(Bound(bound))
    }
}

/// The ports that serve. Clients are served to the end, whatever becomes of their port.
pub struct OpenPorts<T: Connector> {
    tor: Arc<T>,
    shared: Arc<Shared>,
    client_auth_form: Arc<ClientAuthForm>,
    permits: Arc<Semaphore>,
    handed: InheritedSockets,
    ports: Vec<Open<T>>,
    /// Numbers the ports that are groups of their own.
    next: usize,
}

/// One of them.
struct Open<T> {
    wanted: PlannedPort,
    place: ListenAddr,
    group: SessionGroup,
    dispatcher: watch::Sender<Arc<Dispatcher<T>>>,
    task: JoinHandle<()>,
}

impl<T> Open<T> {
    /// The port, with the place that it has got.
    fn pinned(&self) -> PlannedPort {
        let mut wanted = self.wanted.clone();
        if let ListenAddr::Tcp(address) = self.place {
            wanted.port.line.bind = BindAddr::Tcp(address);
        }
        wanted
    }

    /// Whether a port cannot be opened as long as this one is: that is so for another address with the
    /// same number, too, if one of them is that of all interfaces. A handed-over socket stays open
    /// whether its port does or not.
    fn is_in_the_way_of(&self, port: &Port) -> bool {
        let is_udp = |kind| kind == PortKind::Dns;
        match (&self.place, &port.line.bind) {
            _ if self.wanted.inherited.is_some() => false,
            _ if is_udp(self.wanted.port.kind) != is_udp(port.kind) => false,
            (ListenAddr::Tcp(open), BindAddr::Tcp(wanted)) => open.port() == wanted.port(),
            (ListenAddr::Unix(open), BindAddr::Unix(wanted)) => open == wanted,
            _ => false,
        }
    }
}

/// How many of some numbers are lower than one.
fn below(numbers: &[usize], one: usize) -> usize {
    numbers.iter().filter(|number| **number < one).count()
}

/// What becomes of the ports under another configuration. Those that are open are meant by number.
struct Plan {
    staying: Vec<(usize, PlannedPort)>,
    leaving: Vec<usize>,
    coming: Vec<PlannedPort>,
}

/// What has become of the ports.
#[derive(Debug, Default)]
pub struct Changes {
    /// Places that are open now, and were not.
    pub opened: Vec<(PortKind, ListenAddr)>,
    /// Places that were open.
    pub closed: Vec<(PortKind, ListenAddr)>,
}

impl<T: Connector> OpenPorts<T> {
    /// No port yet. At most as many clients as `permits` has are served at once; ports may listen
    /// on the sockets of `handed`.
    pub fn new(
        tor: Arc<T>,
        shared: Arc<Shared>,
        client_auth_form: Arc<ClientAuthForm>,
        permits: Arc<Semaphore>,
        handed: InheritedSockets,
    ) -> OpenPorts<T> {
        OpenPorts {
            tor,
            shared,
            client_auth_form,
            permits,
            handed,
            ports: Vec::new(),
            next: 0,
        }
    }

    /// Serves on these ports too.
    pub fn serve(&mut self, config: &Config, bound: Bound) -> Changes {
        let mut changes = Changes::default();
        for BoundPort { wanted, listener } in bound.0 {
            let place = listener.addr().clone();
            changes.opened.push((wanted.port.kind, place.clone()));
            let group = self.group(&wanted.port);
            let (dispatcher, current) =
                watch::channel(self.dispatcher(config, &wanted.port, group));
            let permits = Arc::clone(&self.permits);
            let task =
                tokio::spawn(listener.run(current, permits, Arc::clone(&self.client_auth_form)));
            self.ports.push(Open {
                wanted,
                place,
                group,
                dispatcher,
                task,
            });
        }
        changes
    }

    /// Makes the ports, which are those of `before`, those of another configuration: opens, closes, and
    /// gives those that stay their new flags. If one cannot be opened, everything stays as it was.
    pub async fn change(&mut self, before: &Config, config: &Config) -> Result<Changes, String> {
        let plan = self.plan(config);
        let unasked_for = self.no_longer_asked_for(&plan);
        let Plan {
            staying,
            leaving,
            coming,
        } = plan;
        // A port may come in the place of one that leaves. So if it cannot be opened beside it, it is
        // tried again without. Only those that may be in the way are closed for that: another may be
        // one whose number the system chose, and would come back with a new one.
        let in_the_way = |number: &usize| {
            let open = &self.ports[*number];
            coming
                .iter()
                .any(|wanted| open.is_in_the_way_of(&wanted.port))
        };
        let (bound, closed) = match self.open(&coming, config) {
            Ok(bound) => (bound, self.close_some(&leaving).await),
            Err(problem) => {
                let (first, then): (Vec<usize>, Vec<usize>) =
                    leaving.iter().copied().partition(in_the_way);
                if first.is_empty() {
                    return Err(problem);
                }
                let closing = first.iter().map(|number| &self.ports[*number]);
                let again: Vec<PlannedPort> = closing.clone().map(Open::pinned).collect();
                let lines: Vec<PlannedPort> = closing.map(|open| open.wanted.clone()).collect();
                let mut closed = self.close_some(&first).await;
                match self.open(&coming, config) {
                    Ok(bound) => {
                        let then: Vec<usize> = then.iter().map(|n| n - below(&first, *n)).collect();
                        closed.extend(self.close_some(&then).await);
                        (bound, closed)
                    }
                    Err(problem) => {
                        let lost = self.open_again(before, again, lines);
                        return Err(match lost.is_empty() {
                            true => problem,
                            false => {
                                format!("{problem}; and a port is lost: {}", lost.join("; "))
                            }
                        });
                    }
                }
            }
        };
        for (place, wanted) in staying {
            // Those that left stood in between.
            let place = place - below(&leaving, place);
            self.stay(config, place, wanted);
        }
        for place in unasked_for {
            warn!(
                "{place} is a socket of LISTEN_FDS and stays open, now without flags: to close it, \
                 change the socket unit"
            );
        }
        let mut changes = self.serve(config, bound);
        changes.closed = closed;
        Ok(changes)
    }

    fn open(&self, wanted: &[PlannedPort], config: &Config) -> Result<Bound, String> {
        Bound::open_these(wanted, &self.handed, config.trans_proxy_type)
    }

    /// Serves on ports that were closed a moment ago: each is opened at the place it had, and keeps
    /// the line it came from. Gives the problems of those that somebody else has taken meanwhile.
    fn open_again(
        &mut self,
        before: &Config,
        places: Vec<PlannedPort>,
        lines: Vec<PlannedPort>,
    ) -> Vec<String> {
        let mut lost = Vec::new();
        for (place, line) in places.iter().zip(lines) {
            match self.open(std::slice::from_ref(place), before) {
                Ok(bound) => {
                    self.serve(before, bound);
                    if let Some(open) = self.ports.last_mut() {
                        open.wanted = line;
                    }
                }
                Err(problem) => lost.push(problem),
            }
        }
        lost
    }

    /// Which ports stay, leave and come. Ports whose whole line stays are found first: two lines with
    /// `auto` are not the same port.
    fn plan(&self, config: &Config) -> Plan {
        let mut coming = self.handed.plan_ports(&config.ports);
        let mut staying = Vec::new();
        let mut leaving: Vec<usize> = (0..self.ports.len()).collect();
        let same_line = |open: &Port, port: &Port| open.line == port.line;
        let same_place = |open: &Port, port: &Port| open.line.bind == port.line.bind;
        let alike: [fn(&Port, &Port) -> bool; 2] = [same_line, same_place];
        for alike in alike {
            leaving.retain(|&index| {
                let open = &self.ports[index].wanted;
                let same = |wanted: &PlannedPort| {
                    wanted.port.kind == open.port.kind
                        && wanted.inherited == open.inherited
                        && alike(&open.port, &wanted.port)
                };
                match coming.iter().position(same) {
                    Some(found) => {
                        staying.push((index, coming.remove(found)));
                        false
                    }
                    None => true,
                }
            });
        }
        Plan {
            staying,
            leaving,
            coming,
        }
    }

    /// The places of handed-over sockets that a line has asked for until now, and none does any more.
    fn no_longer_asked_for(&self, plan: &Plan) -> Vec<ListenAddr> {
        let configured = |number| {
            let mut open = self.ports.iter();
            open.find(|open| open.wanted.configured && open.wanted.inherited == Some(number))
        };
        let staying = plan.staying.iter().map(|(_, wanted)| wanted);
        let unasked_for = staying
            .chain(&plan.coming)
            .filter(|wanted| !wanted.configured);
        let places = unasked_for.filter_map(|wanted| configured(wanted.inherited?));
        places.map(|open| open.place.clone()).collect()
    }

    /// Gives a port that stays its new flags.
    fn stay(&mut self, config: &Config, index: usize, wanted: PlannedPort) {
        let open = &self.ports[index];
        let (before, after) = (open.wanted.port.line.flags, wanted.port.line.flags);
        if wanted.inherited.is_none()
            && (before.group_writable, before.world_writable)
                != (after.group_writable, after.world_writable)
        {
            let place = &open.place;
            warn!("{place}: who may use the socket counts only from a new start");
        }
        let group = match before.session_group == after.session_group {
            true => open.group,
            false => self.group(&wanted.port),
        };
        let dispatcher = self.dispatcher(config, &wanted.port, group);
        let open = &mut self.ports[index];
        open.dispatcher.send_replace(dispatcher);
        open.wanted = wanted;
        open.group = group;
    }

    /// Closes the ports with these numbers, which are in ascending order. When this returns, others
    /// may be opened in their places.
    async fn close_some(&mut self, numbers: &[usize]) -> Vec<(PortKind, ListenAddr)> {
        let mut closed = Vec::new();
        for number in numbers.iter().rev() {
            let open = self.ports.remove(*number);
            open.task.abort();
            // It ends as it was told to.
            let _ = open.task.await;
            closed.push((open.wanted.port.kind, open.place));
        }
        closed.reverse();
        closed
    }

    /// What is open, in the order in which it was opened.
    pub fn places(&self) -> impl Iterator<Item = (&Port, &ListenAddr)> {
        self.ports
            .iter()
            .map(|open| (&open.wanted.port, &open.place))
    }

    /// Closes all ports, and removes the files of those in the file system.
    pub async fn close(mut self) {
        let all: Vec<usize> = (0..self.ports.len()).collect();
        self.close_some(&all).await;
    }

    /// The group of a port; without a name, one of its own.
    fn group(&mut self, port: &Port) -> SessionGroup {
        port.line.flags.session_group.map_or_else(
            || {
                self.next += 1;
                SessionGroup::Port(self.next)
            },
            SessionGroup::Named,
        )
    }

    fn dispatcher(&self, config: &Config, port: &Port, group: SessionGroup) -> Arc<Dispatcher<T>> {
        let flags = port.line.flags;
        Arc::new(Dispatcher {
            tor: Arc::clone(&self.tor),
            rules: Rules {
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
