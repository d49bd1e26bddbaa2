//! Client authorization key files in many forms: onionport accepts those that C tor accepts.

use std::fs;
use std::path::Path;
use std::process::Command;

use fs_mistrust::Mistrust;
use onionport::tor::client_auth::check_folder;

use crate::support::c_tor;
use crate::support::offline::{CLIENT_AUTH_KEY, create_folder};
use crate::support::program::private_folder;

/// An onion address without `.onion`.
const LABEL: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid";

/// The only form that onionport accepts and C tor does not.
const UTF8_MARK: &str = "a UTF-8 byte order mark";

/// The name and the text of each form, and whether onionport accepts it. `{A}` is replaced by
/// [`LABEL`], `{K}` by [`CLIENT_AUTH_KEY`].
const FORMS: &[(&str, &str, bool)] = &[
    ("as C tor writes it", "{A}:descriptor:x25519:{K}\n", true),
    ("no line end", "{A}:descriptor:x25519:{K}", true),
    (
        "a whole host name",
        "{A}.onion:descriptor:x25519:{K}\n",
        true,
    ),
    (
        "a whole host name in capitals",
        "{A}.ONION:descriptor:x25519:{K}\n",
        true,
    ),
    (
        "a path after the address",
        "{A}/index.html:descriptor:x25519:{K}\n",
        true,
    ),
    (
        "a subdomain of the service",
        "www.{A}.onion:descriptor:x25519:{K}\n",
        false,
    ),
    ("a URL", "http://{A}.onion:descriptor:x25519:{K}\n", false),
    (
        "spaces around the colons",
        "{A} : descriptor : x25519 : {K}\n",
        true,
    ),
    (
        "tabs around the colons",
        "{A}\t:\tdescriptor\t:\tx25519\t:\t{K}\n",
        true,
    ),
    (
        "vertical tabs and form feeds",
        "{A}\x0b:descriptor\x0c:x25519:\x0b{K}\x0b\n",
        true,
    ),
    ("leading spaces", "  {A}:descriptor:x25519:{K}\n", true),
    ("a leading tab", "\t{A}:descriptor:x25519:{K}\n", true),
    ("an empty first line", "\n{A}:descriptor:x25519:{K}\n", true),
    (
        "leading empty lines and spaces",
        "\r\n  \n {A}:descriptor:x25519:{K}\n",
        true,
    ),
    (
        "trailing empty lines",
        "{A}:descriptor:x25519:{K}\n\n \n",
        true,
    ),
    (
        "trailing spaces and a tab",
        "{A}:descriptor:x25519:{K} \t \n",
        true,
    ),
    (
        "the key on the next line",
        "{A}:descriptor:x25519:\n{K}\n",
        true,
    ),
    (
        "each word and colon on its own line",
        "{A}\n:\ndescriptor\n:\nx25519\n:\n{K}\n",
        true,
    ),
    ("a Windows line end", "{A}:descriptor:x25519:{K}\r\n", true),
    ("an old Mac line end", "{A}:descriptor:x25519:{K}\r", true),
    (
        "a zero byte at the end",
        "{A}:descriptor:x25519:{K}\n\0",
        true,
    ),
    (
        "text after a zero byte",
        "{A}:descriptor:x25519:{K}\n\0:more:",
        true,
    ),
    (
        "a zero byte at the beginning",
        "\0{A}:descriptor:x25519:{K}\n",
        false,
    ),
    (UTF8_MARK, "\u{feff}{A}:descriptor:x25519:{K}\n", true),
    (
        "key type and algorithm in capitals",
        "{A}:DESCRIPTOR:X25519:{K}\n",
        false,
    ),
    ("one capital letter", "{A}:Descriptor:x25519:{K}\n", false),
    ("another algorithm", "{A}:descriptor:ed25519:{K}\n", false),
    ("padding", "{A}:descriptor:x25519:{K}====\n", false),
    (
        "a comment on the line",
        "{A}:descriptor:x25519:{K} # my key\n",
        false,
    ),
    (
        "a comment after the line",
        "{A}:descriptor:x25519:{K}\n# my key\n",
        false,
    ),
    (
        "a comment with a colon after the line",
        "{A}:descriptor:x25519:{K}\n# key: mine\n",
        false,
    ),
    (
        "two lines",
        "{A}:descriptor:x25519:{K}\n{A}:descriptor:x25519:{K}\n",
        false,
    ),
    (
        "an extra colon at the end",
        "{A}:descriptor:x25519:{K}:\n",
        false,
    ),
    (
        "an extra colon at the beginning",
        ":{A}:descriptor:x25519:{K}\n",
        false,
    ),
    (
        "an extra colon in the middle",
        "{A}::descriptor:x25519:{K}\n",
        false,
    ),
    (
        "spaces instead of colons",
        "{A} descriptor x25519 {K}\n",
        false,
    ),
    (
        "the fields in another order",
        "{A}:x25519:{K}:descriptor\n",
        false,
    ),
    (
        "the key in the second field",
        "{A}:{K}:descriptor:x25519\n",
        false,
    ),
    (
        "a space in the key",
        "{A}:descriptor:x25519:YDPBBAYQMPIOEWCWQJRN RFD4RIXU3B52ASVTM3M54MSRE6FPTR6Q\n",
        false,
    ),
    (
        "a line break in the key",
        "{A}:descriptor:x25519:YDPBBAYQMPIOEWCWQJRN\nRFD4RIXU3B52ASVTM3M54MSRE6FPTR6Q\n",
        false,
    ),
    (
        "a key whose unused last bits differ",
        "{A}:descriptor:x25519:YDPBBAYQMPIOEWCWQJRNRFD4RIXU3B52ASVTM3M54MSRE6FPTR6R\n",
        true,
    ),
    (
        "a key that is one character too short",
        "{A}:descriptor:x25519:YDPBBAYQMPIOEWCWQJRNRFD4RIXU3B52ASVTM3M54MSRE6FPTR6\n",
        false,
    ),
    (
        "a key that is one character too long",
        "{A}:descriptor:x25519:{K}A\n",
        false,
    ),
    (
        "a key of zeros",
        "{A}:descriptor:x25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n",
        false,
    ),
    (
        "a digit that base32 does not have",
        "{A}:descriptor:x25519:1DPBBAYQMPIOEWCWQJRNRFD4RIXU3B52ASVTM3M54MSRE6FPTR6Q\n",
        false,
    ),
    ("quotes", "\"{A}:descriptor:x25519:{K}\"\n", false),
    (
        "a wrong checksum",
        "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclaaa3wid:descriptor:x25519:{K}\n",
        false,
    ),
    ("no address", ":descriptor:x25519:{K}\n", false),
    ("an empty file", "", false),
    ("only white space", " \n\n", false),
];

/// Inserts the address and the key into a form.
fn fill_in(form: &str) -> String {
    form.replace("{A}", LABEL).replace("{K}", CLIENT_AUTH_KEY)
}

/// Whether C tor reads a key from this text. It logs a duplicate if a second file has a key for the
/// same service.
fn c_tor_accepts(tor: &Path, text: &str) -> bool {
    let folder = private_folder();
    let keys = folder.path().join("keys");
    create_folder(&keys, 0o700);
    fs::write(
        keys.join("a.auth_private"),
        fill_in("{A}:descriptor:x25519:{K}\n"),
    )
    .expect("key file written");
    fs::write(keys.join("b.auth_private"), text).expect("key file written");
    let torrc = folder.path().join("torrc");
    let lines = format!(
        "SocksPort 0\nDataDirectory {}\nClientOnionAuthDir {}\nLog notice stdout\n",
        folder.path().join("data").display(),
        keys.display()
    );
    fs::write(&torrc, lines).expect("torrc written");
    // Ignore the exit status: C tor aborts on some of these files, after it has logged the result.
    let output = Command::new(tor)
        .args(["--verify-config", "--defaults-torrc", "/dev/null", "-f"])
        .arg(&torrc)
        .output()
        .expect("C tor runs");
    let log = String::from_utf8_lossy(&output.stdout);
    assert!(log.contains(" [notice] "), "C tor logged nothing: {log}");
    log.contains("Duplicate authorization")
}

/// Returns `Ok` if onionport reads a key from this text, and its warning otherwise.
fn check_with_onionport(text: &str) -> Result<(), String> {
    let folder = private_folder();
    fs::write(folder.path().join("b.auth_private"), text).expect("key file written");
    let mut warnings = Vec::new();
    let mistrust = Mistrust::new_dangerously_trust_everyone();
    let found = check_folder(folder.path(), &mistrust, |file| {
        warnings.push(file.to_string());
    });
    match (found, &warnings[..]) {
        (Ok(1), []) => Ok(()),
        (Ok(0), [warning]) => Err(warning.clone()),
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn onionport_and_c_tor_accept_the_same_key_files_except_for_a_byte_order_mark() {
    let tor = c_tor::find();
    for &(name, form, accepted) in FORMS {
        let text = fill_in(form);
        if let Some(tor) = &tor {
            let c_tor = c_tor_accepts(tor, &text);
            assert_eq!(c_tor, accepted && name != UTF8_MARK, "{name}: C tor");
        }
        let checked = check_with_onionport(&text);
        assert_eq!(checked.is_ok(), accepted, "{name}: {checked:?}");
        let Err(warning) = checked else { continue };
        assert!(warning.contains("b.auth_private"), "{name}: {warning}");
        for secret in [CLIENT_AUTH_KEY, &CLIENT_AUTH_KEY[1..], LABEL] {
            assert!(!warning.contains(&secret[..20]), "{name}: {warning}");
        }
    }
}
