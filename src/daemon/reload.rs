//! SIGHUP: loads the configuration again and applies what can change without a restart, or changes
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::{self, Config, ProxyArgs};
use crate::daemon::announce::{announce_ports, rewrite_port_info};
use crate::daemon::build::{build_key_folder, build_safe_socks, rebuild_address_map};
use crate::daemon::logging::{self, ALWAYS};
use crate::daemon::open_ports::{ChangeError, OpenPorts, PortChanges};
use crate::daemon::port_info::PortInfo;
use crate::inbound::http::ClientAuthForm;
use crate::request::dispatch::SharedState;
use crate::tor::{ClientSettings, ReplaceError, Tor, client_auth};

/// How long loading the configuration may take.
const LOAD_LIMIT: Duration = Duration::from_secs(30);

/// Loads the configuration again and applies what can change without a restart. Returns the new
/// configuration. `port_info` becomes the file that lists the ports that are open afterwards.
///
/// # Errors
/// [`ReplaceError::Refused`] if the old configuration stays in force; the message lists ports that were
/// lost, and reports if the new Tor settings are in use all the same. [`ReplaceError::Lost`] if the Tor
/// client could neither be replaced nor restored.
pub(super) async fn reload(
    old: &Config,
    arguments: &ProxyArgs,
    tor: &Tor,
    shared: &SharedState,
    client_auth_form: &ClientAuthForm,
    ports: &mut OpenPorts<Tor>,
    port_info: &mut Option<PortInfo>,
) -> Result<Config, ReplaceError> {
    let arguments = arguments.clone();
    // On a blocking thread: a disk may hang, and a pipe may have no writer.
    let loading = tokio::task::spawn_blocking(move || load_config(&arguments));
    let config = timeout(LOAD_LIMIT, loading)
        .await
        .map_err(|_| format!("reading it took longer than {} s", LOAD_LIMIT.as_secs()))?
        .map_err(|error| format!("cannot read it: {error}"))??;
    // With unchanged settings the address map stays, with its virtual addresses.
    let new_address_map = match config.address_map == old.address_map {
        true => None,
        false => Some(rebuild_address_map(&shared.address_map.load(), &config)?),
    };
    if let Some(problem) = config.folder_problem {
        return Err(problem.into());
    }
    let settings = ClientSettings::new(&config);
    tor.check(&settings)?;
    // Before any port opens: its first client must already meet the new rules.
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
        Err(ChangeError { problem, lost }) => {
            restore_rules();
            if !lost.is_empty() {
                rewrite_port_info(old, ports, port_info);
                let changes = PortChanges {
                    closed: lost,
                    ..PortChanges::default()
                };
                announce_ports(&changes, ports, &shared.status);
            }
            if is_replaced && let Err(error) = tor.change_to(old_settings).await {
                return Err(join_problems(&problem, error));
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
    rewrite_port_info(&config, ports, port_info);
    announce_ports(&changes, ports, &shared.status);
    info!("configuration reloaded");
    Ok(config)
}

/// Joins the problem of a port with `error`, which kept the old Tor settings from being restored.
///
/// If the error is [`ReplaceError::Refused`], the client with the new settings serves on.
fn join_problems(port_problem: &str, error: ReplaceError) -> ReplaceError {
    match error {
        ReplaceError::Refused(problem) => ReplaceError::Refused(format!(
            "{port_problem}; the new Tor settings stay in use until a reload succeeds, because the old \
             ones cannot be restored: {problem}"
        )),
        ReplaceError::Lost(problem) => ReplaceError::Lost(format!("{port_problem}; {problem}")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_problems_are_reported_if_the_old_tor_settings_cannot_be_restored() {
        let refused = join_problems("port 1 is in use", "no file descriptor".to_owned().into());
        let ReplaceError::Refused(message) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            message,
            "port 1 is in use; the new Tor settings stay in use until a reload succeeds, because the \
             old ones cannot be restored: no file descriptor"
        );
        let lost = ReplaceError::Lost("no client; restart onionport".to_owned());
        let lost = join_problems("port 1 is in use", lost);
        let ReplaceError::Lost(message) = lost else {
            panic!("{lost:?}");
        };
        assert_eq!(message, "port 1 is in use; no client; restart onionport");
    }
}
