//! Puts a key that the user has given into the folder with client authorization keys, as C tor
//! would keep it (tor(1), "ClientOnionAuthDir").
//!
//! The file that was there before stays beside it as `<name>.old`, which nobody reads as a key; one
//! from an earlier time makes way for it. Only files are written in place of: whatever else has a
//! name that ends in `.auth_private`, a link too, is neither opened nor replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_mistrust::Mistrust;
use nix::fcntl::OFlag;
use thiserror::Error;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::SUFFIX;
use super::auth_private::{self, BadKeyFile, Secret, label};
use super::folder::{folder_of, key_files, names_a_service, shown};
use crate::tor::onion_address::OnionAddress;

/// The folder with client authorization keys, for writing.
#[derive(Clone, Debug)]
pub struct KeyFolder {
    path: PathBuf,
    mistrust: Mistrust,
}

/// How old a draft is that a crash has left behind.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

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
        // As long as it can become, since a buffer that grows leaves copies behind.
        let mut bare = Zeroizing::new(String::with_capacity(text.len()));
        bare.extend(text.split_whitespace());
        let text = bare;
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
        let secret = auth_private::decode_key(key.as_bytes()).map_err(|_| FORM.to_owned())?;
        Ok(NewKey { service, secret })
    }
}

/// What a key looks like, for the user.
const FORM: &str =
    "This is no key: a key has 52 characters, the letters A to Z and the digits 2 to 7.";

/// Why a key was not kept.
///
/// [`Display`](std::fmt::Display) may name a file; it is for the user. [`log`](Self::log) is for the
/// log.
#[derive(Debug, Error)]
#[error("client_onion_auth_dir {}: {problem}", shown(folder))]
pub struct SaveError {
    folder: PathBuf,
    problem: Problem,
}

#[derive(Debug, Error)]
enum Problem {
    #[error("{0}")]
    NotPrivate(#[from] fs_mistrust::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("there is no free name for a file")]
    NoName,
    #[error(
        "{} is a link to a key for this onion service, and would go on to count; remove it, or change \
         the file it points to",
        shown(.0)
    )]
    Link(PathBuf),
}

impl SaveError {
    /// Logs a warning, which names no file whose name holds an onion address.
    pub fn log(&self) {
        match &self.problem {
            Problem::Link(link) if names_a_service(link) => {
                warn!(
                    "cannot save a client authorization key: a symbolic link in {} provides a key for the \
                     same onion service and takes precedence; remove it (the log names it at level debug)",
                    shown(folder_of(link))
                );
                debug!("cannot keep a client authorization key: {self}");
            }
            _ => warn!("cannot keep a client authorization key: {self}"),
        }
    }
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
    pub fn save(&self, key: &NewKey) -> Result<(), SaveError> {
        self.try_save(key).map_err(|problem| SaveError {
            folder: self.path.clone(),
            problem,
        })
    }

    fn try_save(&self, key: &NewKey) -> Result<(), Problem> {
        let verifier = self.mistrust.verifier();
        verifier.require_directory().check(&self.path)?;
        let file = file_for(&self.path, &key.service)?;
        write(&self.path, &file, key)?;
        Ok(())
    }
}

/// The file to write: the first that holds a key for `service`, since that one counts; or a free
/// name, which must not cost another service its key.
fn file_for(folder: &Path, service: &OnionAddress) -> Result<PathBuf, Problem> {
    let paths = key_files(folder)?;
    let of_service = |path: &&PathBuf| matches!(look(path), There::Key(owner) if owner == *service);
    let counts = paths.iter().find(of_service);
    // Not ours to write, but read like any other.
    let behind_link = |path: &&PathBuf| {
        matches!(look(path), There::Other)
            && auth_private::read_file(path).is_ok_and(|(owner, _)| owner == *service)
    };
    let link = paths.iter().find(behind_link);
    let file = match counts {
        Some(path) => path.clone(),
        None => free_file(folder, service)?,
    };
    match link {
        Some(link) if *link < file => Err(Problem::Link(link.clone())),
        _ => Ok(file),
    }
}

/// A name as C tor chooses it that costs nobody a key.
fn free_file(folder: &Path, service: &OnionAddress) -> Result<PathBuf, Problem> {
    let label = label(service);
    let names = std::iter::once(format!("{label}.{SUFFIX}"))
        .chain((2..).map(|number| format!("{label}-{number}.{SUFFIX}")));
    let mut paths = names.map(|name| folder.join(name));
    let free = paths.find(|path| matches!(look(path), There::Nothing | There::Nonsense));
    free.ok_or(Problem::NoName)
}

/// What is under a name.
enum There {
    Nothing,
    /// A file with a key for this service.
    Key(OnionAddress),
    /// A file that can be read and holds no key: it is of no use to anybody.
    Nonsense,
    /// A folder, a link, a file that cannot be read: somebody's business, and not ours.
    Other,
}

fn look(path: &Path) -> There {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_file() => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return There::Nothing,
        _ => return There::Other,
    }
    // Should it be something else by now, it is neither followed nor waited for.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    match opened.map_err(Into::into).and_then(auth_private::read_text) {
        Err(BadKeyFile::Io(_)) => There::Other,
        Err(_) => There::Nonsense,
        Ok(text) => match auth_private::parse(&text) {
            Ok((owner, _)) => There::Key(owner),
            Err(_) => There::Nonsense,
        },
    }
}

/// Writes beside the file, and then puts the new one in its place.
fn write(folder: &Path, file: &Path, key: &NewKey) -> io::Result<()> {
    clear(folder);
    let encoded = auth_private::format(&key.service, &key.secret);
    let draft = draft(folder);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut out| {
            out.write_all(&encoded)?;
            out.sync_all()
        })
        .and_then(|()| keep_old(folder, file))
        .and_then(|()| fs::rename(&draft, file));
    if written.is_err() {
        // It may not even be there.
        let _ = fs::remove_file(&draft);
    }
    written?;
    // The key is saved; a failed fsync only risks losing it in a power cut, so warn and go on.
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        warn!("cannot sync {}: {error}", folder.display());
    }
    Ok(())
}

/// A name for something unfinished: no key file by its name, so that nobody reads half of it.
fn draft(folder: &Path) -> PathBuf {
    folder.join(format!(".{:032x}.new", rand::random::<u128>()))
}

fn is_draft(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.strip_prefix('.')?.strip_suffix(".new"));
    number.is_some_and(|n| n.len() == 32 && n.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Takes away what a crash has left unfinished; others may be at work on what is younger.
fn clear(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let stale = |there: fs::Metadata| {
            let age = there.modified().ok()?.elapsed().ok()?;
            (there.is_file() && age > STALE).then_some(())
        };
        if is_draft(&path) && fs::symlink_metadata(&path).ok().and_then(stale).is_some() {
            // The next time, then.
            let _ = fs::remove_file(&path);
        }
    }
}

/// Gives the file that is about to be replaced a second name, so that it has one at any time.
fn keep_old(folder: &Path, file: &Path) -> io::Result<()> {
    let mut old = file.as_os_str().to_owned();
    old.push(".old");
    let aside = draft(folder);
    match fs::hard_link(file, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Not every file system knows second names.
        Err(_) => return fs::rename(file, old),
    }
    let kept = fs::rename(&aside, old);
    // It is there still if that failed, or if both were names of one file already.
    let _ = fs::remove_file(&aside);
    kept
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
            let encoded = data_encoding::BASE32_NOPAD.encode(&key.secret[..]);
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
        let named = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let expected = [
            named("a.auth_private", "nonsense"),
            named("bob.auth_private", &line(ONE, KEY)),
            named("bob.auth_private.old", &line(ONE, OTHER)),
            named("carol.auth_private", &line(ONE, OTHER)),
        ];
        assert_eq!(files(folder.path()), expected);
    }

    #[test]
    fn what_was_replaced_stays_beside_it_and_is_no_key() {
        let (folder, keys) = folder();
        let name = format!("{ONE}.auth_private");
        let old = format!("{name}.old");
        save(&keys, ONE, OTHER);
        for (key, before) in [(KEY, OTHER), (OTHER, KEY)] {
            save(&keys, ONE, key);
            let expected = [
                (name.clone(), line(ONE, key)),
                (old.clone(), line(ONE, before)),
            ];
            assert_eq!(files(folder.path()), expected);
        }
        // A crash may have left two names of one file.
        fs::remove_file(folder.path().join(&old)).expect("removed");
        fs::hard_link(folder.path().join(&name), folder.path().join(&old)).expect("linked");
        save(&keys, ONE, KEY);
        let expected = [(name, line(ONE, KEY)), (old, line(ONE, OTHER))];
        assert_eq!(files(folder.path()), expected);
        let read = super::super::folder::read_folder(folder.path(), drop).expect("readable");
        assert_eq!(read.len(), 1);
    }

    #[test]
    fn only_files_are_replaced_and_nothing_else_is_opened() {
        let (folder, keys) = folder();
        let at = |name: &str| folder.path().join(name);
        let elsewhere = tempfile::NamedTempFile::new().expect("a file");
        fs::write(elsewhere.path(), line(TWO, OTHER)).expect("put");
        // Names that stand before and at the one that is wanted.
        nix::unistd::mkfifo(&at("a.auth_private"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        fs::create_dir(at(&format!("{ONE}.auth_private"))).expect("a folder");
        let link = at(&format!("{ONE}-2.auth_private"));
        std::os::unix::fs::symlink(elsewhere.path(), &link).expect("a link");
        let nowhere = at(&format!("{ONE}-3.auth_private"));
        std::os::unix::fs::symlink("/nonexistent/key", &nowhere).expect("a link");
        nix::unistd::mkfifo(
            &at(&format!("{ONE}-4.auth_private")),
            nix::sys::stat::Mode::S_IRWXU,
        )
        .expect("a FIFO");
        save(&keys, ONE, KEY);
        let kept = fs::read_to_string(at(&format!("{ONE}-5.auth_private"))).expect("kept");
        assert_eq!(kept, line(ONE, KEY));
        for link in [link, nowhere] {
            assert!(fs::symlink_metadata(link).expect("there").is_symlink());
        }
        let text = fs::read_to_string(elsewhere.path()).expect("there");
        assert_eq!(text, line(TWO, OTHER));
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 6);
    }

    #[test]
    fn a_key_that_would_not_count_beside_a_link_is_not_kept() {
        let (folder, keys) = folder();
        let elsewhere = tempfile::NamedTempFile::new().expect("a file");
        fs::write(elsewhere.path(), line(ONE, OTHER)).expect("put");
        let link = |name: &str| {
            let link = folder.path().join(name);
            std::os::unix::fs::symlink(elsewhere.path(), &link).expect("a link");
            link
        };
        // Behind the new one, which counts then.
        link("zz.auth_private");
        save(&keys, ONE, KEY);
        let first = link("0.auth_private");
        let key = NewKey::read(OTHER, service(ONE)).unwrap_or_else(|p| panic!("{p}"));
        let problem = keys.save(&key).expect_err("refused").to_string();
        assert!(problem.contains(&*first.to_string_lossy()), "{problem}");
        let kept = fs::read_to_string(folder.path().join(format!("{ONE}.auth_private")));
        assert_eq!(kept.expect("still there"), line(ONE, KEY));
    }

    #[test]
    fn what_a_crash_has_left_goes_in_time() {
        let (folder, keys) = folder();
        let put = |name: &str, age: Duration| {
            let file = File::create(folder.path().join(name)).expect("made");
            let then = std::time::SystemTime::now() - age;
            file.set_modified(then).expect("set");
        };
        let old = STALE + Duration::from_secs(60);
        let (stale, young) = (format!(".{:032x}.new", 1), format!(".{:032x}.new", 2));
        put(&stale, old);
        put(&young, STALE / 2);
        put(".notes.new", old);
        put("notes.txt", old);
        save(&keys, ONE, KEY);
        let names: Vec<String> = files(folder.path()).into_iter().map(|f| f.0).collect();
        let kept = format!("{ONE}.auth_private");
        assert_eq!(names, [&young, ".notes.new", &kept, "notes.txt"]);
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
        let told = missing.save(&key).expect_err("missing").to_string();
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
