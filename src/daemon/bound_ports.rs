//! Ports that are bound and do not accept clients yet.

use tracing::warn;

use crate::config::{Config, TransProxyType};
use crate::inbound::listener::{InheritedSockets, Listener, PlannedPort};

/// Ports that are bound and do not accept clients yet.
pub(super) struct BoundPorts(pub(super) Vec<BoundPort>);

/// One bound port.
pub(super) struct BoundPort {
    pub(super) planned: PlannedPort,
    pub(super) listener: Listener,
}

impl BoundPorts {
    /// Binds every port of the configuration, and one for each inherited socket that no port line
    /// uses: all or none.
    ///
    /// # Errors
    /// One line that names the address and the remedy.
    pub(super) fn bind(config: &Config, inherited: &InheritedSockets) -> Result<Self, String> {
        Self::bind_these(
            &inherited.plan_ports(&config.ports),
            inherited,
            config.trans_proxy_type,
        )
    }

    /// Binds these ports: all or none. The error is that of [`BoundPorts::bind`].
    pub(super) fn bind_these(
        planned: &[PlannedPort],
        inherited: &InheritedSockets,
        trans_proxy_type: TransProxyType,
    ) -> Result<Self, String> {
        let mut bound = Vec::new();
        for planned in planned {
            let line = &planned.port.line;
            if !planned.configured {
                for warning in &line.warnings {
                    warn!("socket {} of LISTEN_FDS: {warning}", line.bind);
                }
                if let Some(problem) = line.unsupported_reason(planned.port.kind) {
                    return Err(format!("socket {} of LISTEN_FDS: {problem}", line.bind));
                }
            }
            if let Some(listener) = Listener::bind(planned, inherited, trans_proxy_type)? {
                bound.push(BoundPort {
                    planned: planned.clone(),
                    listener,
                });
            }
        }
        Ok(Self(bound))
    }
}
