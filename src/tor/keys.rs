//! Client authorization keys: which one, if any, belongs to an onion service.
//!
//! Two places are looked at, in this order: the folder `client_onion_auth_dir`, in C tor's format
//! (`<56 characters>:descriptor:x25519:<52 characters of base32>`, one line in a file that ends in
//! `.auth_private`; tor(1), "ClientOnionAuthDir"), and arti's own key store. Both are read anew for
//! each request, so that a new key works at once.
//!
//! tor-hsclient shares circuits only between requests that hold the same key *object*. A key is
//! therefore kept for as long as its bytes stay the same.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arti_client::TorClient;
use fs_mistrust::Mistrust;
use tor_hsclient::{
    HsClientDescEncKeypairSpecifier, HsClientSecretKeys, HsClientSecretKeysBuilder,
};
use tor_hscrypto::pk::{HsClientDescEncKeypair, HsId};
use tor_llcrypto::pk::curve25519;
use tracing::{debug, warn};

use super::runtime::TorRuntime;
use crate::failure::Failure;
use crate::target::OnionAddress;

mod save;

pub use save::{KeyFolder, NewKey};

/// How the names of key files end.
const SUFFIX: &str = "auth_private";
/// No key file is longer: 56 + 1 + 10 + 1 + 6 + 1 + 52 characters and an end of line.
const MAX_FILE_LEN: u64 = 256;

/// The secret key of an authorized client, as bytes.
type Secret = [u8; 32];

/// Finds the keys for onion services.
pub(crate) struct KeyRing {
    folder: Option<PathBuf>,
    client: Arc<TorClient<TorRuntime>>,
    /// For each service the key that was last found, and the object made of it.
    known: Mutex<HashMap<OnionAddress, (Secret, HsClientSecretKeys)>>,
}

impl KeyRing {
    /// Looks for keys in `folder`, if there is one, and in the key store of `client`.
    pub(crate) fn new(folder: Option<PathBuf>, client: Arc<TorClient<TorRuntime>>) -> Arc<KeyRing> {
        Arc::new(KeyRing {
            folder,
            client,
            known: Mutex::default(),
        })
    }

    /// The key for `service`, or the empty set of keys if there is none.
    ///
    /// [`Failure::ClientAuthUnreadable`] if a place where keys are kept cannot be read; the log
    /// says which, at level debug if it names the service.
    pub(crate) async fn for_service(
        self: &Arc<Self>,
        service: &OnionAddress,
    ) -> Result<HsClientSecretKeys, Failure> {
        let (ring, service) = (Arc::clone(self), *service);
        // Files are read: nobody else shall wait for a slow disk.
        let looked_up = tokio::task::spawn_blocking(move || ring.look_up(&service));
        looked_up.await.unwrap_or(Err(Failure::Internal))
    }

    fn look_up(&self, service: &OnionAddress) -> Result<HsClientSecretKeys, Failure> {
        let from_folder = match &self.folder {
            Some(folder) => read_folder(folder).map_err(|error| {
                warn!(
                    "cannot read client_onion_auth_dir {}: {error}",
                    folder.display()
                );
                Failure::ClientAuthUnreadable
            })?,
            None => HashMap::new(),
        };
        let secret = match from_folder.get(service) {
            Some(secret) => Some(*secret),
            None => self.in_key_store(service)?,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(secret) = secret else {
            known.remove(service);
            return Ok(HsClientSecretKeys::none());
        };
        if let Some((kept, keys)) = known.get(service)
            && *kept == secret
        {
            return Ok(keys.clone());
        }
        let keys = assemble(secret)?;
        known.insert(*service, (secret, keys.clone()));
        Ok(keys)
    }

    /// The key that arti's own key store holds for `service`.
    fn in_key_store(&self, service: &OnionAddress) -> Result<Option<Secret>, Failure> {
        let Ok(store) = self.client.keymgr() else {
            return Ok(None);
        };
        let which = HsClientDescEncKeypairSpecifier::new(HsId::from(service.key()));
        match store.get::<HsClientDescEncKeypair>(&which) {
            Ok(keypair) => Ok(keypair.map(|k| {
                let pair: curve25519::StaticKeypair = k.into();
                pair.secret.to_bytes()
            })),
            Err(error) => {
                // The name of a key file holds that of the service.
                warn!(
                    "cannot read a client authorization key of the key store; level debug says which"
                );
                debug!("cannot read the key store: {error}");
                Err(Failure::ClientAuthUnreadable)
            }
        }
    }
}

/// Makes the object that tor-hsclient wants of a secret key.
fn assemble(secret: Secret) -> Result<HsClientSecretKeys, Failure> {
    let secret = curve25519::StaticSecret::from(secret);
    let public = curve25519::PublicKey::from(&secret);
    let mut builder = HsClientSecretKeysBuilder::default();
    builder.ks_hsc_desc_enc(HsClientDescEncKeypair::new(public.into(), secret.into()));
    builder.build().map_err(|error| {
        warn!("cannot use a client authorization key: {error}");
        Failure::Internal
    })
}

/// Counts the keys in `folder`; for the start of the program. `report` gets a sentence for every file that
/// looks like a key and is none.
///
/// Fails if the folder cannot be read or is not private: the keys in
/// it are secrets (tor(1) refuses to start with such a folder).
pub fn check_folder(folder: &Path, mistrust: &Mistrust, report: fn(&str)) -> Result<usize, String> {
    mistrust
        .verifier()
        .require_directory()
        .check(folder)
        .map_err(|error| {
            format!(
                "client_onion_auth_dir {}: {error}; make it a folder of your own with mode 0700",
                folder.display()
            )
        })?;
    let keys = read_folder_reporting(folder, |path, problem| {
        report(&format!(
            "client authorization key {} is not used: {problem}",
            path.display()
        ));
    })
    .map_err(|error| format!("client_onion_auth_dir {}: {error}", folder.display()))?;
    Ok(keys.len())
}

fn read_folder(folder: &Path) -> io::Result<HashMap<OnionAddress, Secret>> {
    read_folder_reporting(folder, |_, _| {})
}

/// Reads all keys of a folder. A bad file costs only itself; `report` gets its name and what is
/// wrong with it.
fn read_folder_reporting(
    folder: &Path,
    mut report: impl FnMut(&Path, &str),
) -> io::Result<HashMap<OnionAddress, Secret>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    // Which of two files for one service counts must not change from one request to the next.
    paths.sort();
    let mut keys = HashMap::new();
    for path in paths {
        if path.extension().is_none_or(|extension| extension != SUFFIX) {
            continue;
        }
        match read_file(&path) {
            Ok((service, secret)) => {
                if let Entry::Vacant(free) = keys.entry(service) {
                    free.insert(secret);
                } else {
                    report(&path, "another file holds a key for the same onion service");
                }
            }
            Err(problem) => report(&path, &problem),
        }
    }
    Ok(keys)
}

fn read_file(path: &Path) -> Result<(OnionAddress, Secret), String> {
    // Opening a pipe would wait for somebody to write to it.
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is no file; remove it".to_owned());
    }
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(MAX_FILE_LEN)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    parse(text.trim_end())
}

/// Reads the one line of a key file.
fn parse(line: &str) -> Result<(OnionAddress, Secret), String> {
    const FORM: &str = "<56 characters without .onion>:descriptor:x25519:<52 characters of base32>";
    let fields: Vec<&str> = line.split(':').collect();
    let [address, kind, algorithm, key] = fields[..] else {
        return Err(format!("expected one line {FORM}"));
    };
    let service = OnionAddress::parse(&format!("{address}.onion"))
        .map_err(|_| "the onion address before the first colon is wrong".to_owned())?;
    if kind != "descriptor" || algorithm != "x25519" {
        return Err(format!(
            "only descriptor:x25519 keys are known, not {kind}:{algorithm}"
        ));
    }
    let secret = data_encoding::BASE32_NOPAD
        .decode(key.to_ascii_uppercase().as_bytes())
        .ok()
        .and_then(|bytes| Secret::try_from(bytes).ok())
        .ok_or_else(|| "the key behind the last colon is not 52 characters of base32".to_owned())?;
    if secret == [0; 32] {
        return Err("the key is all zeros".to_owned());
    }
    Ok((service, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid";
    const KEY: &str = "YDPBBAYQMPIOEWCWQJRNRFD4RIXU3B52ASVTM3M54MSRE6FPTR6Q";

    #[test]
    fn a_file_as_c_tor_writes_it_is_read() {
        let (service, _) = parse(&format!("{LABEL}:descriptor:x25519:{KEY}")).expect("good");
        assert_eq!(service.to_string(), format!("{LABEL}.onion"));
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.auth_private");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let Err(problem) = read_file(&path) else {
            panic!("a pipe was read");
        };
        assert!(problem.contains("no file"), "{problem}");
    }

    #[test]
    fn a_bad_file_says_what_is_wrong_with_it() {
        let zeros = "A".repeat(52);
        let cases = [
            (String::new(), "expected one line"),
            (
                format!("{LABEL}.onion:descriptor:x25519:{KEY}"),
                "onion address",
            ),
            (
                format!("{LABEL}:descriptor:ed25519:{KEY}"),
                "only descriptor:x25519",
            ),
            (
                format!("{LABEL}:descriptor:x25519:{}", &KEY[1..]),
                "52 characters",
            ),
            (format!("{LABEL}:descriptor:x25519:{zeros}"), "all zeros"),
        ];
        for (line, problem) in cases {
            let error = parse(&line).expect_err(&line);
            assert!(error.contains(problem), "{line}: {error}");
        }
    }

    #[test]
    fn one_bad_file_costs_no_other_and_the_first_of_two_counts() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("written");
        };
        write(
            "a.auth_private",
            &format!("{LABEL}:descriptor:x25519:{KEY}\n"),
        );
        write(
            "b.auth_private",
            &format!("{LABEL}:descriptor:x25519:{}\n", KEY.replace('Y', "Z")),
        );
        write("c.auth_private", "nonsense");
        write("notes.txt", "nonsense");
        let mut bad = Vec::new();
        let keys = read_folder_reporting(folder.path(), |path, problem| {
            bad.push(format!(
                "{}: {problem}",
                path.file_name().expect("name").display()
            ));
        })
        .expect("readable");
        let (service, first) = parse(&format!("{LABEL}:descriptor:x25519:{KEY}")).expect("good");
        assert_eq!(keys.get(&service), Some(&first));
        assert_eq!(bad.len(), 2, "{bad:?}");
        assert!(bad[0].starts_with("b.auth_private") && bad[1].starts_with("c.auth_private"));
    }
}
