//! Client authorization keys (x25519), in the file formats of C tor.

use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use data_encoding::BASE32_NOPAD;
use rand::rngs::OsRng;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::workdir::private_folder;

/// A client's key pair for an onion service that asks for authorization.
#[derive(Clone)]
pub struct ClientKey {
    secret: StaticSecret,
}

impl ClientKey {
    /// Makes a fresh random key pair.
    pub fn generate() -> Self {
        Self {
            secret: StaticSecret::random_from_rng(OsRng),
        }
    }

    /// The public half, which the service is told.
    pub fn public(&self) -> ClientPublicKey {
        ClientPublicKey(PublicKey::from(&self.secret).to_bytes())
    }

    /// The line of the service's `authorized_clients/NAME.auth`: `descriptor:x25519:` and 52 base32 characters.
    pub fn authorized_client_line(&self) -> String {
        self.public().to_string()
    }

    /// The line of the client's `NAME.auth_private` for `onion_address` (with or without `.onion`):
    /// `ADDRESS:descriptor:x25519:` and 52 base32 characters.
    pub fn private_file(&self, onion_address: &str) -> String {
        let address = onion_address
            .strip_suffix(".onion")
            .unwrap_or(onion_address);
        format!(
            "{address}:descriptor:x25519:{}",
            BASE32_NOPAD.encode(self.secret.as_bytes())
        )
    }

    /// Writes `NAME.auth_private` for `onion_address` into `folder` (made, mode 0700, if missing), readable only by us.
    /// Gives the path of the file; fails if it cannot be written.
    pub fn write_to(&self, folder: &Path, name: &str, onion_address: &str) -> Result<PathBuf> {
        private_folder(folder)?;
        let path = folder.join(format!("{name}.auth_private"));
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{}", self.private_file(onion_address)))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey({})", self.public())
    }
}

/// The public half of a [`ClientKey`]. It prints as the line of `authorized_clients/NAME.auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPublicKey([u8; 32]);

impl fmt::Display for ClientPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "descriptor:x25519:{}", BASE32_NOPAD.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_private_line_belongs_to_the_public_line() {
        let key = ClientKey::generate();
        let line = key.private_file(&format!("{}.onion", "a".repeat(56)));
        let (address, secret) = line.split_once(":descriptor:x25519:").expect("separator");
        assert_eq!(address, "a".repeat(56));
        assert_eq!(secret.len(), 52);
        let secret: [u8; 32] = BASE32_NOPAD
            .decode(secret.as_bytes())
            .expect("base32")
            .try_into()
            .expect("32 bytes");
        let public = PublicKey::from(&StaticSecret::from(secret)).to_bytes();
        assert_eq!(
            key.authorized_client_line(),
            format!("descriptor:x25519:{}", BASE32_NOPAD.encode(&public))
        );
    }

    #[test]
    fn two_keys_differ() {
        assert_ne!(
            ClientKey::generate().public(),
            ClientKey::generate().public()
        );
    }

    #[test]
    fn the_file_is_private_and_ends_with_auth_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("folder");
        let key = ClientKey::generate();
        let path = key
            .write_to(&folder.path().join("auth"), "bob", &"b".repeat(56))
            .expect("written");
        assert_eq!(
            path.file_name().and_then(|n| n.to_str()),
            Some("bob.auth_private")
        );
        let mode = |p: &Path| fs::metadata(p).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(
            (mode(&path), mode(path.parent().expect("parent"))),
            (0o600, 0o700)
        );
        assert_eq!(
            fs::read_to_string(path).expect("text").trim_end(),
            key.private_file(&"b".repeat(56))
        );
    }
}
