//! SIGHUP: loads the configuration again and applies what can change without a restart, or changes
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::{self, Config, ProxyArgs};
use crate::daemon::announce::{announce_ports, write_port_info};
use crate::daemon::build::{build_key_folder, build_safe_socks, rebuild_address_map};
use crate::daemon::logging::{self, ALWAYS};
use crate::daemon::open_ports::OpenPorts;
use crate::daemon::port_info::PortInfo;
use crate::inbound::http::ClientAuthForm;
use crate::request::dispatch::SharedState;
use crate::tor::{ClientSettings, ReplaceError, Tor, client_auth};

/// How long loading the configuration may take.
const LOAD_LIMIT: Duration = Duration::from_secs(30);

/// Loads the configuration again and applies what can change without a restart. Returns the new
/// configuration, and the file that lists its ports.
///
/// # Errors
/// [`ReplaceError::Refused`] if everything is as it was; [`ReplaceError::Lost`] if the Tor client could
/// neither be replaced nor restored.
pub(super) async fn reload(
    old: &Config,
    arguments: &ProxyArgs,
    tor: &Tor,
    shared: &SharedState,
    client_auth_form: &ClientAuthForm,
    ports: &mut OpenPorts<Tor>,
) -> Result<(Config, Option<PortInfo>), ReplaceError> {
    let arguments = arguments.clone();
    // On a blocking thread: a disk may hang, and a pipe may have no writer.
    let loading = tokio::task::spawn_blocking(move || load_config(&arguments));
    let config = timeout(LOAD_LIMIT, loading)
        .await
        .map_err(|_| format!("reading it took longer than {} s", LOAD_LIMIT.as_secs()))?
        .map_err(|error| format!("cannot read it: {error}"))??;
    // If its settings are the same, the map stays, with its virtual addresses.
    let new_address_map = match config.address_map == old.address_map {
        true => None,
        false => Some(rebuild_address_map(&shared.address_map.load(), &config)?),
    };
    if let Some(problem) = config.folder_problem {
        return Err(problem.into());
    }
    let settings = ClientSettings::new(&config);
    tor.check(&settings)?;
    // Before a port is opened, whose first client must meet the new rules.
    let old_address_map = shared.address_map.load_full();
    shared.access.store(Arc::new(config.access.clone()));
    shared.safe_socks.store(Arc::new(build_safe_socks(&config)));
    if let Some(address_map) = new_address_map {
        shared.address_map.store(Arc::new(address_map));
    }
    let restore_rules = || {
        shared.access.store(Arc::new(old.access.clone()));
        shared.safe_socks.store(Arc::new(build_safe_socks(old)));
        shared.address_map.store(Arc::clone(&old_address_map));
    };
    let old_settings = tor.settings();
    let is_replaced = match tor.change_to(settings).await {
        Ok(is_replaced) => is_replaced,
        Err(error) => {
            restore_rules();
            return Err(error);
        }
    };
    let changes = match ports.change(old, &config).await {
        Ok(changes) => changes,
        Err(problem) => {
            restore_rules();
            if is_replaced {
                tor.change_to(old_settings).await?;
            }
            return Err(problem.into());
        }
    };
    client_auth_form.set_folder(build_key_folder(&config));
    // As in C tor, new streams get new circuits after each reload, even if nothing has changed.
    shared.epoch.advance();
    for warning in &config.warnings {
        warn!(target: ALWAYS, "{warning}");
    }
    for setting in list_settings_that_need_a_restart(old, &config) {
        warn!(target: ALWAYS, "{setting} changed: restart onionport to apply it");
    }
    let port_info = write_port_info(&config, ports).unwrap_or_else(|problem| {
        warn!(target: ALWAYS, "{problem}");
        None
    });
    announce_ports(&changes, ports, &shared.status);
    info!("configuration reloaded");
    Ok((config, port_info))
}

/// Loads the configuration and checks its key folder.
fn load_config(arguments: &ProxyArgs) -> Result<Config, String> {
    let mut config = config::load(arguments).map_err(|error| error.message())?;
    logging::hide_secrets(&config.secrets);
    if let Some(problem) = config.root_problem.take() {
        return Err(problem);
    }
    if let Some(folder) = &config.client_onion_auth_dir {
        let found = client_auth::check_folder(folder, config.tor.fs_mistrust(), |file| file.log())?;
        info!("{found} client authorization keys in {}", folder.display());
    }
    Ok(config)
}

/// Lists the settings that differ and take effect only after a restart.
fn list_settings_that_need_a_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    [
        (
            "proxy.trans_proxy_type",
            old.trans_proxy_type != new.trans_proxy_type,
        ),
        (
            "application.permit_debugging",
            old.permit_debugging != new.permit_debugging,
        ),
        ("system.max_files", old.max_files != new.max_files),
        ("logging.console", old.log_filter != new.log_filter),
        (
            "logging.time_granularity",
            old.log_granularity != new.log_granularity,
        ),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(setting, _)| setting)
    .collect()
}
