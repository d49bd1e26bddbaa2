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

/// A client's key pair for an onion service with client authorization.
#[derive(Clone)]
pub struct ClientKey {
    secret: StaticSecret,
}

impl ClientKey {
    /// Generates a random key pair.
    pub fn generate() -> Self {
        Self {
            secret: StaticSecret::random_from_rng(OsRng),
        }
    }

    /// Returns the public half, which the service gets.
    pub fn public(&self) -> ClientPublicKey {
        ClientPublicKey(PublicKey::from(&self.secret).to_bytes())
    }

    /// Returns the content of the service's `authorized_clients/NAME.auth`: one line, `descriptor:x25519:` and 52 base32
    /// characters.
    pub fn authorized_client_line(&self) -> String {
        self.public().to_string()
    }

    /// Returns the content of the client's `NAME.auth_private` for `onion_address` (with or without `.onion`): one line,
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

    /// Writes `NAME.auth_private` for `onion_address` into `folder`, with mode 0600, and returns the path of the file.
    /// Creates the folder with mode 0700 if it is missing.
    ///
    /// # Errors
    /// When the file cannot be written.
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

/// The public half of a [`ClientKey`]. `Display` writes the line of `authorized_clients/NAME.auth`.
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
    fn the_private_line_holds_the_secret_of_the_public_line() {
        let key = ClientKey::generate();
        let line = key.private_file(&format!("{}.onion", "a".repeat(56)));
        let (address, secret) = line.split_once(":descriptor:x25519:").expect("a separator");
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
    fn two_generated_keys_differ() {
        assert_ne!(
            ClientKey::generate().public(),
            ClientKey::generate().public()
        );
    }

    #[test]
    fn the_key_file_is_private_and_its_name_ends_with_auth_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let key = ClientKey::generate();
        let path = key
            .write_to(&folder.path().join("auth"), "bob", &"b".repeat(56))
            .expect("the key is written");
        assert_eq!(
            path.file_name().and_then(|n| n.to_str()),
            Some("bob.auth_private")
        );
        let mode = |p: &Path| fs::metadata(p).expect("the metadata").permissions().mode() & 0o777;
        assert_eq!(
            (mode(&path), mode(path.parent().expect("a folder"))),
            (0o600, 0o700)
        );
        assert_eq!(
            fs::read_to_string(path).expect("the key file").trim_end(),
            key.private_file(&"b".repeat(56))
        );
    }
}
