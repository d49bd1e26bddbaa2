//! Parts of the request path that are built from a configuration, at the start and at each reload.

use crate::config::Config;
use crate::request::address_map::AddressMap;
use crate::request::safe_socks::SafeSocks;
use crate::tor::client_auth::KeyFolder;

/// Builds the folder in which an HTTP port's form saves client authorization keys, if one is
/// configured.
pub(super) fn build_key_folder(config: &Config) -> Option<KeyFolder> {
    let folder = config.client_onion_auth_dir.clone()?;
    Some(KeyFolder::new(folder, config.tor.fs_mistrust().clone()))
}

/// Builds the address map. The error names the key of the configuration.
pub(super) fn build_address_map(config: &Config) -> Result<AddressMap, String> {
    AddressMap::new(&config.address_map).map_err(|(key, problem)| format!("{key}: {problem}"))
}

/// Builds the address map of a new configuration, which keeps the virtual addresses of `old` that it
/// still allows.
pub(super) fn rebuild_address_map(old: &AddressMap, config: &Config) -> Result<AddressMap, String> {
    let new = old.rebuild(&config.address_map);
    new.map_err(|(key, problem)| format!("{key}: {problem}"))
}

/// Builds the checks for requests that may give their user away.
pub(super) fn build_safe_socks(config: &Config) -> SafeSocks {
    SafeSocks::new(
        config.safe_socks,
        config.test_socks,
        config.plaintext_ports.clone(),
    )
}
