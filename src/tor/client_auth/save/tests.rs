//! Saving keys: which file is written, and what happens to the others.

use std::os::unix::fs::PermissionsExt as _;

use super::super::folder::read_folder;
use super::*;

const ONE: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid";
const TWO: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd";
const KEY: &str = "YDPBBAYQMPIOEWCWQJRNRFD4RIXU3B52ASVTM3M54MSRE6FPTR6Q";
const OTHER: &str = "4CLV2GMKSNUDHXQ4W7TEBHDN4AG5SUOX24YHIJWHH5KMTN3SNNXA";

fn service(label: &str) -> OnionAddress {
    OnionAddress::parse(&format!("{label}.onion")).expect("a valid address")
}

fn folder() -> (tempfile::TempDir, KeyFolder) {
    let folder = tempfile::tempdir().expect("folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("mode");
    let mistrust = Mistrust::new_dangerously_trust_everyone();
    let keys = KeyFolder::new(folder.path().to_owned(), mistrust);
    (folder, keys)
}

fn save(keys: &KeyFolder, label: &str, key: &str) {
    let key = ClientAuthKey::parse(key, service(label)).unwrap_or_else(|p| panic!("{p}"));
    keys.save(&key).expect("saved");
}

/// The names and contents of all files, sorted.
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
fn every_common_form_of_a_key_is_parsed() {
    let spaced = format!(" {} {}\n", &KEY[..20], &KEY[20..].to_ascii_lowercase());
    for text in [
        KEY.to_owned(),
        format!("{KEY}===="),
        spaced,
        format!("descriptor:x25519:{KEY}"),
        line(ONE, KEY),
        format!("{}.onion:descriptor:x25519:{KEY}", ONE.to_ascii_uppercase()),
    ] {
        let key =
            ClientAuthKey::parse(&text, service(ONE)).unwrap_or_else(|p| panic!("{text}: {p}"));
        let encoded = data_encoding::BASE32_NOPAD.encode(&key.secret[..]);
        assert_eq!(encoded, KEY, "{text}");
    }
}

#[test]
fn the_error_for_an_invalid_key_does_not_repeat_it() {
    for (text, problem) in [
        (" \n".to_owned(), "Nothing"),
        (KEY[1..].to_owned(), "not a key"),
        (format!("{KEY}A"), "not a key"),
        (KEY.replace('Y', "1"), "not a key"),
        ("A".repeat(52), "not a key"),
        (format!("{ONE}:descriptor:ed25519:{KEY}"), "not a key"),
        (line(TWO, KEY), "another onion service"),
        (format!("a:b:c:d:{KEY}"), "not a key"),
    ] {
        let Err(error) = ClientAuthKey::parse(&text, service(ONE)) else {
            panic!("{text} was accepted");
        };
        assert!(error.contains(problem), "{text}: {error}");
        assert!(text.trim().is_empty() || !error.contains(text.trim()));
    }
}

#[test]
fn a_key_is_saved_as_c_tor_saves_it() {
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
fn the_file_in_effect_is_replaced_whatever_its_name() {
    let (folder, keys) = folder();
    let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    put("bob.auth_private", &line(ONE, OTHER));
    put("carol.auth_private", &line(ONE, OTHER));
    put("a.auth_private", "invalid");
    save(&keys, ONE, KEY);
    let named = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let expected = [
        named("a.auth_private", "invalid"),
        named("bob.auth_private", &line(ONE, KEY)),
        named("bob.auth_private.old", &line(ONE, OTHER)),
        named("carol.auth_private", &line(ONE, OTHER)),
    ];
    assert_eq!(files(folder.path()), expected);
}

#[test]
fn the_replaced_file_stays_beside_the_new_one_and_is_not_read() {
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
    // A crash may have left two links to one file.
    fs::remove_file(folder.path().join(&old)).expect("removed");
    fs::hard_link(folder.path().join(&name), folder.path().join(&old)).expect("linked");
    save(&keys, ONE, KEY);
    let expected = [(name, line(ONE, KEY)), (old, line(ONE, OTHER))];
    assert_eq!(files(folder.path()), expected);
    let read = read_folder(folder.path(), drop).expect("readable");
    assert_eq!(read.len(), 1);
}

#[test]
fn only_regular_files_are_opened_and_replaced() {
    let (folder, keys) = folder();
    let at = |name: &str| folder.path().join(name);
    let elsewhere = tempfile::NamedTempFile::new().expect("a file");
    fs::write(elsewhere.path(), line(TWO, OTHER)).expect("written");
    // Names that sort before the new file, and names that it would get.
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
        assert!(fs::symlink_metadata(link).expect("readable").is_symlink());
    }
    let text = fs::read_to_string(elsewhere.path()).expect("readable");
    assert_eq!(text, line(TWO, OTHER));
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 6);
}

#[test]
fn a_key_is_not_saved_if_a_link_takes_precedence() {
    let (folder, keys) = folder();
    let elsewhere = tempfile::NamedTempFile::new().expect("a file");
    fs::write(elsewhere.path(), line(ONE, OTHER)).expect("written");
    let link = |name: &str| {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(elsewhere.path(), &link).expect("a link");
        link
    };
    // A link that sorts after the new file does not take precedence.
    link("zz.auth_private");
    save(&keys, ONE, KEY);
    let first = link("0.auth_private");
    let key = ClientAuthKey::parse(OTHER, service(ONE)).unwrap_or_else(|p| panic!("{p}"));
    let problem = keys.save(&key).expect_err("refused").to_string();
    assert!(problem.contains(&*first.to_string_lossy()), "{problem}");
    let kept = fs::read_to_string(folder.path().join(format!("{ONE}.auth_private")));
    assert_eq!(kept.expect("still there"), line(ONE, KEY));
}

#[test]
fn stale_temporary_files_are_removed() {
    let (folder, keys) = folder();
    let put = |name: &str, age: Duration| {
        let file = File::create(folder.path().join(name)).expect("created");
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
fn the_key_of_another_service_is_not_overwritten() {
    let (folder, keys) = folder();
    let name = format!("{ONE}.auth_private");
    fs::write(folder.path().join(&name), line(TWO, OTHER)).expect("written");
    save(&keys, ONE, KEY);
    let other = format!("{ONE}-2.auth_private");
    let expected = [(other, line(ONE, KEY)), (name, line(TWO, OTHER))];
    assert_eq!(files(folder.path()), expected);
}

#[test]
fn no_key_is_saved_in_a_missing_or_public_folder() {
    let key = ClientAuthKey::parse(KEY, service(ONE)).unwrap_or_else(|p| panic!("{p}"));
    let missing = KeyFolder::new("/nonexistent/keys".into(), Mistrust::default());
    let error = missing.save(&key).expect_err("missing").to_string();
    assert!(error.contains("/nonexistent/keys"), "{error}");
    let folder = tempfile::tempdir().expect("folder");
    let open = folder.path().join("open");
    fs::create_dir(&open).expect("created");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("mode");
    let strict = Mistrust::builder()
        .ignore_prefix(folder.path().canonicalize().expect("a path"))
        .build()
        .expect("strict");
    assert!(KeyFolder::new(open.clone(), strict).save(&key).is_err());
    assert!(files(&open).is_empty());
}
