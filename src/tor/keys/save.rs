//! Puts a key that the user has given into the folder with client authorization keys, as C tor
//! would keep it (tor(1), "ClientOnionAuthDir").

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use fs_mistrust::Mistrust;

use super::{SUFFIX, Secret, parse, read_file};
use crate::target::OnionAddress;

/// The folder with client authorization keys, for writing.
#[derive(Clone, Debug)]
pub struct KeyFolder {
    path: PathBuf,
    mistrust: Mistrust,
}

/// A client authorization key for one onion service.
pub struct NewKey {
    service: OnionAddress,
    secret: Secret,
}

impl NewKey {
    /// Reads what the user was given: 52 characters of base32, or a whole line of a key file.
    ///
    /// The error is a sentence for the user; it repeats nothing of the text.
    pub fn read(text: &str, service: OnionAddress) -> Result<NewKey, String> {
        let text: String = text.split_whitespace().collect();
        if text.is_empty() {
            return Err("Nothing was entered.".to_owned());
        }
        let label = label(&service);
        let fields: Vec<&str> = text.trim_end_matches('=').split(':').collect();
        let key = match fields[..] {
            [key] | ["descriptor", "x25519", key] => key,
            [address, "descriptor", "x25519", key] => {
                let address = address.strip_suffix(".onion").unwrap_or(address);
                if !address.eq_ignore_ascii_case(&label) {
                    return Err("This key is for another onion service.".to_owned());
                }
                key
            }
            _ => return Err(FORM.to_owned()),
        };
        let (service, secret) =
            parse(&format!("{label}:descriptor:x25519:{key}")).map_err(|_| FORM.to_owned())?;
        Ok(NewKey { service, secret })
    }
}

/// What a key looks like, for the user.
const FORM: &str =
    "This is no key: a key has 52 characters, the letters A to Z and the digits 2 to 7.";

/// An onion address without `.onion`.
fn label(service: &OnionAddress) -> String {
    let mut label = service.to_string();
    label.truncate(label.len() - ".onion".len());
    label
}

impl KeyFolder {
    /// The folder at `path`, whose permissions `mistrust` judges. Nothing is looked at yet.
    pub fn new(path: PathBuf, mistrust: Mistrust) -> KeyFolder {
        KeyFolder { path, mistrust }
    }

    /// Keeps `key`, in place of the one that counts for its service, if there is one.
    ///
    /// The file is there as a whole or not at all, and only its owner can read it. Blocks. The error
    /// says what is wrong with the folder.
    pub fn save(&self, key: &NewKey) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| {
            format!("client_onion_auth_dir {}: {error}", self.path.display())
        };
        self.mistrust
            .verifier()
            .require_directory()
            .check(&self.path)
            .map_err(|error| told(&error))?;
        let file = file_for(&self.path, &key.service).map_err(|error| told(&error))?;
        write(&self.path, &file, key).map_err(|error| told(&error))
    }
}

/// The file to write: the first that holds a key for `service`, since that one counts; or a free
/// name as C tor chooses it, which must not cost another service its key.
fn file_for(folder: &Path, service: &OnionAddress) -> io::Result<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == SUFFIX))
        .collect();
    paths.sort();
    let of_service = |path: &&PathBuf| read_file(path).is_ok_and(|(owner, _)| owner == *service);
    if let Some(path) = paths.iter().find(of_service) {
        return Ok(path.clone());
    }
    let label = label(service);
    let names = std::iter::once(format!("{label}.{SUFFIX}"))
        .chain((2..).map(|number| format!("{label}-{number}.{SUFFIX}")));
    let mut paths = names.map(|name| folder.join(name));
    // A file of that name that holds no key at all is of no use to anybody.
    let free = paths.find(|path| read_file(path).is_err());
    free.ok_or_else(|| io::Error::other("no free name"))
}

/// Writes beside the file, and then puts the new one in its place.
fn write(folder: &Path, file: &Path, key: &NewKey) -> io::Result<()> {
    let mut encoded = data_encoding::BASE32_NOPAD.encode(&key.secret);
    encoded.insert_str(0, &format!("{}:descriptor:x25519:", label(&key.service)));
    encoded.push('\n');
    // No key file by its name, so that nobody reads half of it.
    let draft = folder.join(format!(".{:032x}.new", rand::random::<u128>()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut out| {
            out.write_all(encoded.as_bytes())?;
            out.sync_all()
        })
        .and_then(|()| fs::rename(&draft, file));
    if written.is_err() {
        // It may not even be there.
        let _ = fs::remove_file(&draft);
    }
    written?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ONE: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid";
    const TWO: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd";
    const KEY: &str = "YDPBBAYQMPIOEWCWQJRNRFD4RIXU3B52ASVTM3M54MSRE6FPTR6Q";
    const OTHER: &str = "4CLV2GMKSNUDHXQ4W7TEBHDN4AG5SUOX24YHIJWHH5KMTN3SNNXA";

    fn service(label: &str) -> OnionAddress {
        OnionAddress::parse(&format!("{label}.onion")).expect("good")
    }

    fn folder() -> (tempfile::TempDir, KeyFolder) {
        let folder = tempfile::tempdir().expect("folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("mode");
        let mistrust = Mistrust::new_dangerously_trust_everyone();
        let keys = KeyFolder::new(folder.path().to_owned(), mistrust);
        (folder, keys)
    }

    fn save(keys: &KeyFolder, label: &str, key: &str) {
        let key = NewKey::read(key, service(label)).unwrap_or_else(|p| panic!("{p}"));
        keys.save(&key).expect("saved");
    }

    /// Names and contents of all files.
    fn files(folder: &Path) -> Vec<(String, String)> {
        let mut all: Vec<_> = fs::read_dir(folder)
            .expect("folder")
            .map(|entry| {
                let path = entry.expect("entry").path();
                let name = path.file_name().expect("name").display().to_string();
                (name, fs::read_to_string(path).expect("text"))
            })
            .collect();
        all.sort();
        all
    }

    fn line(label: &str, key: &str) -> String {
        format!("{label}:descriptor:x25519:{key}\n")
    }

    #[test]
    fn every_form_in_which_keys_are_given_out_is_read() {
        let spaced = format!(" {} {}\n", &KEY[..20], &KEY[20..].to_ascii_lowercase());
        for text in [
            KEY.to_owned(),
            format!("{KEY}===="),
            spaced,
            format!("descriptor:x25519:{KEY}"),
            line(ONE, KEY),
            format!("{}.onion:descriptor:x25519:{KEY}", ONE.to_ascii_uppercase()),
        ] {
            let key = NewKey::read(&text, service(ONE)).unwrap_or_else(|p| panic!("{text}: {p}"));
            let encoded = data_encoding::BASE32_NOPAD.encode(&key.secret);
            assert_eq!(encoded, KEY, "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_told_without_repeating_it() {
        for (text, problem) in [
            (" \n".to_owned(), "Nothing"),
            (KEY[1..].to_owned(), "no key"),
            (format!("{KEY}A"), "no key"),
            (KEY.replace('Y', "1"), "no key"),
            ("A".repeat(52), "no key"),
            (format!("{ONE}:descriptor:ed25519:{KEY}"), "no key"),
            (line(TWO, KEY), "another onion service"),
            (format!("a:b:c:d:{KEY}"), "no key"),
        ] {
            let Err(told) = NewKey::read(&text, service(ONE)) else {
                panic!("{text} was read");
            };
            assert!(told.contains(problem), "{text}: {told}");
            assert!(text.trim().is_empty() || !told.contains(text.trim()));
        }
    }

    #[test]
    fn a_key_is_kept_as_c_tor_keeps_it() {
        let (folder, keys) = folder();
        save(&keys, ONE, KEY);
        let name = format!("{ONE}.auth_private");
        assert_eq!(files(folder.path()), [(name.clone(), line(ONE, KEY))]);
        let mode = fs::metadata(folder.path().join(name))
            .expect("file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_file_that_counts_is_replaced_whatever_its_name() {
        let (folder, keys) = folder();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("put");
        put("bob.auth_private", &line(ONE, OTHER));
        put("carol.auth_private", &line(ONE, OTHER));
        put("a.auth_private", "nonsense");
        save(&keys, ONE, KEY);
        let all = files(folder.path());
        assert_eq!(all.len(), 3, "{all:?}");
        assert_eq!(all[1], ("bob.auth_private".to_owned(), line(ONE, KEY)));
        assert_eq!(all[2], ("carol.auth_private".to_owned(), line(ONE, OTHER)));
    }

    #[test]
    fn no_other_service_loses_its_key_to_a_name() {
        let (folder, keys) = folder();
        let name = format!("{ONE}.auth_private");
        fs::write(folder.path().join(&name), line(TWO, OTHER)).expect("put");
        save(&keys, ONE, KEY);
        let other = format!("{ONE}-2.auth_private");
        let expected = [(other, line(ONE, KEY)), (name, line(TWO, OTHER))];
        assert_eq!(files(folder.path()), expected);
    }

    #[test]
    fn a_folder_that_is_not_there_or_open_to_others_gets_no_key() {
        let key = NewKey::read(KEY, service(ONE)).unwrap_or_else(|p| panic!("{p}"));
        let missing = KeyFolder::new("/nonexistent/keys".into(), Mistrust::default());
        let told = missing.save(&key).expect_err("missing");
        assert!(told.contains("/nonexistent/keys"), "{told}");
        let folder = tempfile::tempdir().expect("folder");
        let open = folder.path().join("open");
        fs::create_dir(&open).expect("made");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("mode");
        let strict = Mistrust::builder()
            .ignore_prefix(folder.path().canonicalize().expect("a path"))
            .build()
            .expect("strict");
        assert!(KeyFolder::new(open.clone(), strict).save(&key).is_err());
        assert!(files(&open).is_empty());
    }
}
