//! Valid and invalid key files and key folders. `tests/integration/key_files.rs` compares with C tor.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::auth_private::{format, parse, read_file};
use super::folder::{may_name_a_service, read_folder};
use super::*;

const LABEL: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid";
const KEY: &str = "YDPBBAYQMPIOEWCWQJRNRFD4RIXU3B52ASVTM3M54MSRE6FPTR6Q";

#[test]
fn c_tors_file_format_is_parsed_and_written() {
    let line = format!("{LABEL}:descriptor:x25519:{KEY}\n");
    let (service, secret) = parse(line.as_bytes()).expect("valid");
    assert_eq!(service.to_string(), format!("{LABEL}.onion"));
    assert_eq!(**format(&service, &secret), *line.as_bytes());
}

#[test]
fn a_pipe_is_refused_without_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.auth_private");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let problem = read_file(&path).expect_err("a pipe was read").to_string();
    assert!(problem.contains("not a regular file"), "{problem}");
}

#[test]
fn the_error_for_a_bad_file_names_the_problem_and_repeats_no_content() {
    let zeros = "A".repeat(52);
    let line = format!("{LABEL}:descriptor:x25519:{KEY}\n");
    let wide = line.encode_utf16().flat_map(u16::to_le_bytes);
    let wide: Vec<u8> = [0xff, 0xfe].into_iter().chain(wide).collect();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "it is empty"),
        (b" \n\t\r\n".to_vec(), "it is empty"),
        (wide, "UTF-16"),
        (format!("{line}{line}").into(), "more than one key"),
        (KEY.into(), "not of the form"),
        (format!("{KEY}:{line}").into(), "not of the form"),
        (format!("{line}# key: of Bob\n").into(), "not of the form"),
        (
            format!("{LABEL}:descriptor:ed25519:{KEY}").into(),
            "second and third fields",
        ),
        (
            format!("{LABEL}:x25519:{KEY}:descriptor").into(),
            "second and third fields",
        ),
        (
            format!("{LABEL}:{KEY}:descriptor:x25519").into(),
            "second and third fields",
        ),
        (
            format!("{KEY}:descriptor:x25519:{LABEL}").into(),
            "onion address",
        ),
        (
            format!("{LABEL}:descriptor:x25519:{}", &KEY[1..]).into(),
            "52 characters",
        ),
        (
            format!("{LABEL}:descriptor:x25519:{KEY}====").into(),
            "52 characters",
        ),
        (
            format!("{LABEL}:descriptor:x25519:{zeros}").into(),
            "all zeros",
        ),
    ];
    for (text, problem) in cases {
        let shown = String::from_utf8_lossy(&text).into_owned();
        let error = parse(&text).expect_err(&shown).to_string();
        assert!(error.contains(problem), "{shown}: {error}");
        for word in [&LABEL[..8], &KEY[..8], "Bob"] {
            assert!(!error.contains(word), "{shown}: {error}");
        }
    }
}

#[test]
fn a_bad_file_affects_no_other_and_the_first_of_two_counts() {
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
    write("c.auth_private", "invalid");
    write("notes.txt", "invalid");
    let mut bad = Vec::new();
    let keys = read_folder(folder.path(), |file| bad.push(file.to_string())).expect("readable");
    let line = format!("{LABEL}:descriptor:x25519:{KEY}");
    let (service, first) = parse(line.as_bytes()).expect("valid");
    assert_eq!(keys.get(&service), Some(&first));
    assert_eq!(bad.len(), 2, "{bad:?}");
    assert!(bad[0].contains("b.auth_private") && bad[1].contains("c.auth_private"));
}

#[test]
fn every_unusable_entry_is_reported_once_and_affects_no_other() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| folder.path().join(name);
    let line = format!("{LABEL}:descriptor:x25519:{KEY}\n");
    fs::create_dir(at("a.auth_private")).expect("a folder");
    symlink("/nonexistent/key", at("b.auth_private")).expect("a dangling link");
    symlink("c.auth_private", at("c.auth_private")).expect("a link to itself");
    nix::unistd::mkfifo(&at("d.auth_private"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    fs::write(at("e.auth_private"), &line).expect("written");
    fs::set_permissions(at("e.auth_private"), fs::Permissions::from_mode(0o000)).expect("mode");
    // Root can read it despite the mode.
    let unreadable = fs::read(at("e.auth_private")).is_err();
    // A sparse file of 1 TiB must not be read to its end.
    let huge = fs::File::create(at("f.auth_private")).expect("a file");
    huge.set_len(1 << 40).expect("a sparse file");
    fs::write(at("g.auth_private"), b"\xff\xc0\x80:\xfe:\x81:\x00").expect("written");
    std::os::unix::net::UnixListener::bind(at("h.auth_private")).expect("a socket");
    symlink("/dev/zero", at("i.auth_private")).expect("a link to a device");
    fs::write(at("j\n.auth_private"), "invalid").expect("written");
    fs::write(at("z.auth_private"), &line).expect("written");

    let mut bad = Vec::new();
    let keys = read_folder(folder.path(), |file| bad.push(file.to_string())).expect("readable");
    assert_eq!(keys.len(), 1);
    let causes = [
        ("a.auth_private", "not a regular file"),
        ("b.auth_private", "a dangling symbolic link"),
        ("c.auth_private", "too many levels of symbolic links"),
        ("d.auth_private", "not a regular file"),
        match unreadable {
            true => ("e.auth_private", "permission denied"),
            // It is used, being the first.
            false => ("z.auth_private", "another file"),
        },
        ("f.auth_private", "longer than"),
        ("g.auth_private", "onion address"),
        ("h.auth_private", "not a regular file"),
        ("i.auth_private", "not a regular file"),
        ("j\\n.auth_private", "not of the form"),
    ];
    for (name, cause) in causes {
        let of_file: Vec<_> = bad.iter().filter(|report| report.contains(name)).collect();
        let [report] = of_file[..] else {
            panic!("{name}: {of_file:?}");
        };
        assert!(report.to_lowercase().contains(cause), "{report}");
        assert!(!report.contains('\n'), "{report:?}");
    }
    assert_eq!(bad.len(), causes.len(), "{bad:#?}");
}

#[test]
fn a_file_name_may_contain_an_onion_address() {
    for (name, expected) in [
        (format!("{LABEL}.auth_private"), true),
        (
            format!("key-of-{}-2.auth_private", LABEL.to_uppercase()),
            true,
        ),
        // An address of version 2, or a truncated one.
        (format!("{}.auth_private", &LABEL[..16]), true),
        ("bob.auth_private".to_owned(), false),
        (
            "the-key-that-alice-gave-me-in-2019.auth_private".to_owned(),
            false,
        ),
    ] {
        assert_eq!(may_name_a_service(Path::new(&name)), expected, "{name}");
    }
}
