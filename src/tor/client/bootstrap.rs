//! Bootstrapping a client, with progress reports.

use std::sync::PoisonError;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep};
use tor_error::{ErrorKind, ErrorReport as _, HasKind as _};
use tor_guardmgr::GuardMgrConfig as _;
use tor_linkspec::HasAddrs as _;
use tracing::{info, warn};

use super::create::{ArtiClient, needs_file_repair};

/// The pause between two bootstrap attempts.
const BOOTSTRAP_PAUSE: Duration = Duration::from_secs(5);

/// How long bootstrapping through bridges may take before the first warning, and the pause between further
/// warnings.
const BRIDGES_PATIENCE: Duration = Duration::from_secs(15);
const BRIDGES_REPORT: Duration = Duration::from_secs(60);

/// How far the connection to the Tor network has progressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootstrapProgress<'a> {
    /// The network is not usable: at the start, or while the client is replaced.
    Connecting,
    /// A step, as text for the user.
    Step(&'a str),
    /// The network is usable.
    Connected,
}

/// The error of a client that can never become usable.
pub(in crate::tor) struct ClientError {
    pub(super) kind: ErrorKind,
    pub(super) report: String,
}

impl ArtiClient {
    /// Connects to the Tor network and returns once the client is usable. `report` receives each step.
    ///
    /// Retries for as long as it takes: a computer may be offline for hours.
    pub(in crate::tor) async fn bootstrap(
        &self,
        report: &(impl Fn(BootstrapProgress<'_>) + Sync),
    ) -> Result<(), ClientError> {
        let mut events = self.arti.bootstrap_events();
        let progress = async {
            let mut last = String::new();
            while let Some(event) = events.next().await {
                let text = event.to_string();
                if text != last {
                    info!("connecting to Tor: {text}");
                    report(BootstrapProgress::Step(&text));
                    last = text;
                }
            }
            std::future::pending().await
        };
        let connect = async {
            let first = self
                .first_bootstrap
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let mut bootstrap = first.unwrap_or_else(|| self.arti.bootstrap().boxed());
            while let Err(error) = bootstrap.await {
                let (kind, report) = (error.kind(), error.report().to_string());
                // Without a circuit manager, arti failed to assemble the client.
                if needs_file_repair(kind) || self.arti.circmgr().is_err() {
                    return Err(ClientError { kind, report });
                }
                warn!(
                    "cannot connect to the Tor network: {report}; retrying in {} s",
                    BOOTSTRAP_PAUSE.as_secs()
                );
                sleep(BOOTSTRAP_PAUSE).await;
                bootstrap = self.arti.bootstrap().boxed();
            }
            Ok(())
        };
        tokio::select! {
            ended = progress => ended,
            ended = connect => ended,
            ended = self.warn_while_bootstrapping_through_bridges(report) => ended,
        }
    }

    /// Warns periodically while bootstrapping through bridges is not complete. Never returns.
    async fn warn_while_bootstrapping_through_bridges(
        &self,
        report: &(impl Fn(BootstrapProgress<'_>) + Sync),
    ) -> Result<(), ClientError> {
        let config = &self.settings.config;
        if !config.bridges_enabled() {
            return std::future::pending().await;
        }
        let addresses: Vec<String> = config
            .bridges()
            .iter()
            .flat_map(|bridge| bridge.addrs().map(|address| address.to_string()))
            .collect();
        let addresses = addresses.join(", ");
        let started = Instant::now();
        sleep(BRIDGES_PATIENCE).await;
        loop {
            let elapsed = started.elapsed().as_secs();
            warn!(
                "not connected to the Tor network after {elapsed} s (bridges: {addresses}): if this goes on, \
                 check this computer's network, the bridge lines and their transports, or use other bridges"
            );
            report(BootstrapProgress::Step(&format!(
                "not connected yet (bridges: {addresses}): if this goes on, check the bridge lines"
            )));
            sleep(BRIDGES_REPORT).await;
        }
    }
}
