//! The ports that are open, each with what it serves its clients by; both can change while the
//! program runs.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::dial::Dial;
use crate::gateway::{Gateway, Shared};
use crate::isolation::SessionGroup;
use crate::listener::{Handed, Listener, Place};
use crate::policy::Rules;
use crate::port::{Flags, Port, PortKind};

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

/// The ports that serve. They are closed when this is dropped; clients are served to the end.
pub struct OpenPorts<T: Dial> {
    tor: Arc<T>,
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    ports: Vec<Open<T>>,
    tasks: JoinSet<()>,
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
    task: tokio::task::AbortHandle,
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
            tasks: JoinSet::new(),
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
            let task = self.tasks.spawn(listener.run(current, permits));
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

    /// Makes the ports those of another configuration: opens, closes, and gives those that stay
    /// their new flags. If one cannot be opened, everything stays as it was.
    pub fn change(&mut self, config: &Config) -> Result<Changes, String> {
        let mut wanted = config.ports.clone();
        wanted.retain(|port| port.chosen || !self.without_defaults);
        let mut staying = Vec::new();
        let mut leaving = Vec::new();
        for (index, open) in self.ports.iter().enumerate() {
            let (kind, bind) = (open.port.kind, &open.port.line.bind);
            let same = |port: &Port| port.kind == kind && port.line.bind == *bind;
            match wanted.iter().position(same) {
                Some(found) => staying.push((index, wanted.remove(found))),
                None if open.configured => leaving.push(index),
                None => staying.push((index, open.port.clone())),
            }
        }
        let only_new = Config {
            ports: wanted,
            ..config.clone()
        };
        let bound = Bound::open(&only_new, &mut Handed::default())?;

        for (index, port) in staying {
            let before = self.ports[index].port.line.flags.session_group;
            let group = match port.line.flags.session_group == before {
                true => self.ports[index].group,
                false => self.group(&port),
            };
            let gateway = self.gateway(config, &port, group);
            let open = &mut self.ports[index];
            open.gateway.send_replace(gateway);
            open.port = port;
            open.group = group;
        }
        let mut closed = Vec::new();
        for index in leaving.into_iter().rev() {
            let open = self.ports.remove(index);
            open.task.abort();
            closed.push((open.port.kind, open.place));
        }
        let mut changes = self.serve(config, bound);
        changes.closed = closed;
        Ok(changes)
    }

    /// What is open, in the order in which it was opened.
    pub fn places(&self) -> impl Iterator<Item = (&Port, &Place)> {
        self.ports.iter().map(|open| (&open.port, &open.place))
    }

    /// Closes all ports, and removes the files of those in the file system.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
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
