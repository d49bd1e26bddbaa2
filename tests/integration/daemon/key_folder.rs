//! The folder of client authorization keys, `client_onion_auth_dir`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::assert_serves;
use crate::support::ONION;
use crate::support::offline::{
    CLIENT_AUTH_KEY, assert_contains_all, create_folder, final_error, write_private_file,
};
use crate::support::program::Program;

/// [`ONION`] without `.onion`, as key files name a service.
fn onion_label() -> &'static str {
    ONION.strip_suffix(".onion").expect("an onion address")
}

/// Writes a valid key file for the service of [`ONION`].
fn write_key(path: &Path) {
    let label = onion_label();
    write_private_file(
        path,
        &format!("{label}:descriptor:x25519:{CLIENT_AUTH_KEY}\n"),
    );
}

/// Returns a program whose key folder is `keys` in its own folder, but does not create the folder.
fn without_key_folder() -> Program {
    let program = Program::offline().check_permissions().port("auto");
    let keys = program.folder().join("keys");
    program.config_lines(format!("client_onion_auth_dir = {keys:?}"))
}

/// Returns a program whose key folder, `keys` in its own folder, has these permissions.
fn with_key_folder(mode: u32) -> Program {
    let program = without_key_folder();
    create_folder(&program.folder().join("keys"), mode);
    program
}

#[tokio::test]
async fn a_bad_key_file_is_named_in_a_warning_and_the_others_are_used() {
    let program = with_key_folder(0o700);
    let keys = program.folder().join("keys");
    write_key(&keys.join("good.auth_private"));
    fs::write(keys.join("bad.auth_private"), "nonsense\n").expect("file written");
    fs::write(keys.join("notes.txt"), "nonsense\n").expect("file written");
    let mut daemon = program.start();
    let warning = daemon.process.wait_err("bad.auth_private");
    assert_contains_all(
        &warning,
        &["WARN", "is not used", &keys.display().to_string()],
    );
    daemon.process.wait_err("1 client authorization keys");
    assert_serves(&daemon.addresses[0]).await;
    // A reload checks the folder again.
    write_key(&keys.join("new.auth_private"));
    fs::write(keys.join("worse.auth_private"), "nonsense\n").expect("file written");
    daemon.process.signal("HUP");
    daemon.process.wait_err("worse.auth_private");
    assert_serves(&daemon.addresses[0]).await;
    assert!(daemon.process.is_alive());
    let log = daemon.process.err.all().join("\n");
    assert!(
        !log.contains("good.auth_private") && !log.contains("notes.txt"),
        "{log}"
    );
    assert!(!log.contains("nonsense") && !log.contains("YDPB"), "{log}");
}

/// Key files are usually named after the address of their service, which is sensitive.
#[tokio::test]
async fn a_bad_key_file_named_after_a_service_is_named_only_at_debug_level() {
    let label = onion_label();
    for level in ["info", "debug"] {
        let program = with_key_folder(0o700).arguments(&["-l", level]);
        let keys = program.folder().join("keys");
        let nonsense = keys.join(format!("{label}.auth_private"));
        fs::write(nonsense, "nonsense\n").expect("file written");
        let dead_link = keys.join(format!("{label}-2.auth_private"));
        symlink("/nonexistent", dead_link).expect("link created");
        let daemon = program.start();
        daemon.process.wait_err("0 client authorization keys");
        let log = daemon.process.err.all();
        let warnings: Vec<_> = log.iter().filter(|l| l.contains("is not used")).collect();
        let (named, unnamed): (Vec<&&String>, Vec<&&String>) =
            warnings.iter().partition(|l| l.contains(label));
        assert_eq!(
            named.len(),
            if level == "debug" { 2 } else { 0 },
            "{log:#?}"
        );
        assert!(
            named.iter().all(|line| line.contains("DEBUG")),
            "{named:#?}"
        );
        assert_eq!(unnamed.len(), 2, "{log:#?}");
        for line in unnamed {
            let folder = keys.display().to_string();
            assert_contains_all(line, &["WARN", &folder, "--check-config", "level debug"]);
        }
        if level == "info" {
            assert!(!log.join("\n").contains(label), "{log:#?}");
        }
    }
    // --check-config names the file.
    let program = with_key_folder(0o700).arguments(&["--check-config"]);
    let name = format!("{label}.auth_private");
    fs::write(program.folder().join("keys").join(&name), "nonsense\n").expect("file written");
    assert!(program.run().err[0].contains(&name));
}

#[test]
fn a_key_folder_that_others_can_enter_is_refused_at_start() {
    for mode in [0o755, 0o750, 0o701] {
        let program = with_key_folder(mode);
        let ended = program.run();
        let keys = program.folder().join("keys").display().to_string();
        assert_contains_all(
            final_error(&ended),
            &["client_onion_auth_dir", &keys, "0700"],
        );
        assert!(ended.out.is_empty(), "{mode:o}: {:?}", ended.out);
    }
}

#[test]
fn a_missing_key_folder_is_refused_at_start() {
    let program = without_key_folder();
    let keys = program.folder().join("keys");
    let ended = program.run();
    let path = keys.display().to_string();
    assert_contains_all(
        final_error(&ended),
        &["client_onion_auth_dir", &path, "0700"],
    );
    assert!(ended.out.is_empty(), "{:?}", ended.out);
    assert!(!keys.exists());
}
