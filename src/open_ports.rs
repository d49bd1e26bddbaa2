//! The ports that are open, each with what it serves its clients by; both can change while the
//! program runs.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::config::Config;
use crate::dial::Dial;
use crate::gateway::{Gateway, Shared};
use crate::isolation::SessionGroup;
use crate::listener::{Handed, Listener, Place};
use crate::policy::Rules;
use crate::port::{Bind, Flags, Port, PortKind};

/// Ports that are bound and do not serve yet.
pub struct Bound {
    ports: Vec<BoundPort>,
    /// Whether the default ports give way to sockets that were handed over.
    without_defaults: bool,
}

struct BoundPort {
    port: Port,
    listener: Listener,
    /// Whether a line of the configuration asks for it; if not, it was handed over.
    configured: bool,
}

impl Bound {
    /// Opens every port of the configuration, and one for each handed-over socket that is left: all
    /// or none.
    ///
    /// The error is one sentence that names the place and the remedy.
    pub fn open(config: &Config, handed: &mut Handed) -> Result<Bound, String> {
        let without_defaults = !handed.is_empty();
        let wanted = config.ports.iter();
        let wanted = wanted.filter(|port| port.chosen || !without_defaults);
        let mut bound = Bound {
            ports: Vec::new(),
            without_defaults,
        };
        for port in wanted {
            bound.add(port, handed, config, true)?;
        }
        for port in handed.ports() {
            for warning in &port.line.warnings {
                warn!("socket {} of LISTEN_FDS: {warning}", port.line.bind);
            }
            if let Some(problem) = port.line.unserved(port.kind) {
                let place = &port.line.bind;
                return Err(format!("socket {place} of LISTEN_FDS: {problem}"));
            }
            bound.add(&port, handed, config, false)?;
        }
        Ok(bound)
    }

    fn add(
        &mut self,
        port: &Port,
        handed: &mut Handed,
        config: &Config,
        configured: bool,
    ) -> Result<(), String> {
        if let Some(listener) = Listener::bind(port, handed, config.trans_proxy_type)? {
            self.ports.push(BoundPort {
                port: port.clone(),
                listener,
                configured,
            });
        }
        Ok(())
    }
}

/// The ports that serve. Clients are served to the end, whatever becomes of their port.
pub struct OpenPorts<T: Dial> {
    tor: Arc<T>,
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    ports: Vec<Open<T>>,
    /// Numbers the ports that are groups of their own.
    next: usize,
    without_defaults: bool,
}

/// One of them.
struct Open<T> {
    port: Port,
    place: Place,
    configured: bool,
    group: SessionGroup,
    gateway: watch::Sender<Arc<Gateway<T>>>,
    task: JoinHandle<()>,
}

impl<T> Open<T> {
    /// The port, with the place that it has got.
    fn pinned(&self) -> Port {
        let mut port = self.port.clone();
        if let Place::Tcp(address) = self.place {
            port.line.bind = Bind::Tcp(address);
        }
        port
    }

    /// Whether a port cannot be opened as long as this one is: that is so for another address with the
    /// same number, too, if one of them is that of all interfaces.
    fn is_in_the_way_of(&self, port: &Port) -> bool {
        let is_udp = |kind| kind == PortKind::Dns;
        match (&self.place, &port.line.bind) {
            _ if is_udp(self.port.kind) != is_udp(port.kind) => false,
            (Place::Tcp(open), Bind::Tcp(wanted)) => open.port() == wanted.port(),
            (Place::Unix(open), Bind::Unix(wanted)) => open == wanted,
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
    staying: Vec<(usize, Port)>,
    leaving: Vec<usize>,
    coming: Vec<Port>,
}

/// What has become of the ports.
#[derive(Debug, Default)]
pub struct Changes {
    /// Places that are open now, and were not.
    pub opened: Vec<(PortKind, Place)>,
    /// Places that were open.
    pub closed: Vec<(PortKind, Place)>,
}

impl<T: Dial> OpenPorts<T> {
    /// No port yet. At most as many clients as `permits` has are served at once.
    pub fn new(tor: Arc<T>, shared: Arc<Shared>, permits: Arc<Semaphore>) -> OpenPorts<T> {
        OpenPorts {
            tor,
            shared,
            permits,
            ports: Vec::new(),
            next: 0,
            without_defaults: false,
        }
    }

    /// Serves on these ports too.
    pub fn serve(&mut self, config: &Config, bound: Bound) -> Changes {
        let mut changes = Changes::default();
        self.without_defaults |= bound.without_defaults;
        for BoundPort {
            port,
            listener,
            configured,
        } in bound.ports
        {
            let place = listener.place().clone();
            changes.opened.push((port.kind, place.clone()));
            let group = self.group(&port);
            let (gateway, current) = watch::channel(self.gateway(config, &port, group));
            let permits = Arc::clone(&self.permits);
            let task = tokio::spawn(listener.run(current, permits));
            self.ports.push(Open {
                port,
                place,
                configured,
                group,
                gateway,
                task,
            });
        }
        changes
    }

    /// Makes the ports, which are those of `before`, those of another configuration: opens, closes, and
    /// gives those that stay their new flags. If one cannot be opened, everything stays as it was.
    pub async fn change(&mut self, before: &Config, config: &Config) -> Result<Changes, String> {
        let Plan {
            staying,
            leaving,
            coming,
        } = self.plan(config);
        let coming = Config {
            ports: coming,
            ..config.clone()
        };
        let open = |config: &Config| Bound::open(config, &mut Handed::default());
        // A port may come in the place of one that leaves. So if it cannot be opened beside it, it is
        // tried again without. Only those that may be in the way are closed for that: another may be
        // one whose number the system chose, and would come back with a new one.
        let in_the_way = |number: &usize| {
            let open = &self.ports[*number];
            coming.ports.iter().any(|port| open.is_in_the_way_of(port))
        };
        let (bound, closed) = match open(&coming) {
            Ok(bound) => (bound, self.close_some(&leaving).await),
            Err(problem) => {
                let (first, then): (Vec<usize>, Vec<usize>) =
                    leaving.iter().copied().partition(in_the_way);
                if first.is_empty() {
                    return Err(problem);
                }
                let closing = first.iter().map(|number| &self.ports[*number]);
                let before = Config {
                    ports: closing.clone().map(Open::pinned).collect(),
                    ..before.clone()
                };
                let lines: Vec<Port> = closing.map(|open| open.port.clone()).collect();
                let mut closed = self.close_some(&first).await;
                match open(&coming) {
                    Ok(bound) => {
                        let then: Vec<usize> = then.iter().map(|n| n - below(&first, *n)).collect();
                        closed.extend(self.close_some(&then).await);
                        (bound, closed)
                    }
                    Err(problem) => {
                        let again = open(&before)
                            .map_err(|lost| format!("{problem}; and a port is lost: {lost}"))?;
                        let count = self.ports.len();
                        self.serve(&before, again);
                        for (open, port) in self.ports[count..].iter_mut().zip(lines) {
                            open.port = port;
                        }
                        return Err(problem);
                    }
                }
            }
        };
        for (place, port) in staying {
            // Those that left stood in between.
            let place = place - below(&leaving, place);
            self.stay(config, place, port);
        }
        let mut changes = self.serve(config, bound);
        changes.closed = closed;
        Ok(changes)
    }

    /// Which ports stay, leave and come. Ports whose whole line stays are found first: two lines with
    /// `auto` are not the same port.
    fn plan(&self, config: &Config) -> Plan {
        let mut coming = config.ports.clone();
        coming.retain(|port| port.chosen || !self.without_defaults);
        let mut staying = Vec::new();
        let mut leaving: Vec<usize> = (0..self.ports.len()).collect();
        let same_line = |open: &Port, port: &Port| open.line == port.line;
        let same_place = |open: &Port, port: &Port| open.line.bind == port.line.bind;
        let alike: [fn(&Port, &Port) -> bool; 2] = [same_line, same_place];
        for alike in alike {
            leaving.retain(|&index| {
                let open = &self.ports[index];
                if !open.configured {
                    staying.push((index, open.port.clone()));
                    return false;
                }
                let same = |port: &Port| port.kind == open.port.kind && alike(&open.port, port);
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

    /// Gives a port that stays its new flags.
    fn stay(&mut self, config: &Config, index: usize, port: Port) {
        let (before, after) = (self.ports[index].port.line.flags, port.line.flags);
        if (before.group_writable, before.world_writable)
            != (after.group_writable, after.world_writable)
        {
            let place = &self.ports[index].place;
            warn!("{place}: who may use the socket counts only from a new start");
        }
        let group = match before.session_group == after.session_group {
            true => self.ports[index].group,
            false => self.group(&port),
        };
        let gateway = self.gateway(config, &port, group);
        let open = &mut self.ports[index];
        open.gateway.send_replace(gateway);
        open.port = port;
        open.group = group;
    }

    /// Closes the ports with these numbers, which are in ascending order. When this returns, others
    /// may be opened in their places.
    async fn close_some(&mut self, numbers: &[usize]) -> Vec<(PortKind, Place)> {
        let mut closed = Vec::new();
        for number in numbers.iter().rev() {
            let open = self.ports.remove(*number);
            open.task.abort();
            // It ends as it was told to.
            let _ = open.task.await;
            closed.push((open.port.kind, open.place));
        }
        closed.reverse();
        closed
    }

    /// What is open, in the order in which it was opened.
    pub fn places(&self) -> impl Iterator<Item = (&Port, &Place)> {
        self.ports.iter().map(|open| (&open.port, &open.place))
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

    fn gateway(&self, config: &Config, port: &Port, group: SessionGroup) -> Arc<Gateway<T>> {
        let flags = port.line.flags;
        Arc::new(Gateway {
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
