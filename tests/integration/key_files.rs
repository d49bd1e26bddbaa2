//! Key files in every form that people give them: which ones count here, and which count for C tor.

use std::fs;
use std::path::Path;
use std::process::Command;

use fs_mistrust::Mistrust;
use onionport::tor::client_auth::check_folder;

use crate::support::c_tor;
use crate::support::program::{private_folder, set_mode};

const LABEL: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid";
const KEY: &str = "YDPBBAYQMPIOEWCWQJRNRFD4RIXU3B52ASVTM3M54MSRE6FPTR6Q";

/// Where C tor and onionport differ.
const UTF8_MARK: &str = "a UTF-8 byte order mark";

/// Forms of a file, each with a name, and whether it counts. `{A}` stands for the address, `{K}` for the
/// key.
const FORMS: &[(&str, &str, bool)] = &[
    ("as C tor writes it", "{A}:descriptor:x25519:{K}\n", true),
    ("no end of line", "{A}:descriptor:x25519:{K}", true),
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
        "something else behind the address",
        "{A}/index.html:descriptor:x25519:{K}\n",
        true,
    ),
    (
        "a name below the service's",
        "www.{A}.onion:descriptor:x25519:{K}\n",
        false,
    ),
    ("a URL", "http://{A}.onion:descriptor:x25519:{K}\n", false),
    (
        "blanks round the colons",
        "{A} : descriptor : x25519 : {K}\n",
        true,
    ),
    (
        "tabs round the colons",
        "{A}\t:\tdescriptor\t:\tx25519\t:\t{K}\n",
        true,
    ),
    (
        "vertical tabs and form feeds",
        "{A}\x0b:descriptor\x0c:x25519:\x0b{K}\x0b\n",
        true,
    ),
    ("leading blanks", "  {A}:descriptor:x25519:{K}\n", true),
    ("a leading tab", "\t{A}:descriptor:x25519:{K}\n", true),
    ("an empty first line", "\n{A}:descriptor:x25519:{K}\n", true),
    (
        "empty lines and blanks first",
        "\r\n  \n {A}:descriptor:x25519:{K}\n",
        true,
    ),
    (
        "empty lines at the end",
        "{A}:descriptor:x25519:{K}\n\n \n",
        true,
    ),
    ("blanks at the end", "{A}:descriptor:x25519:{K} \t \n", true),
    (
        "the key on the next line",
        "{A}:descriptor:x25519:\n{K}\n",
        true,
    ),
    (
        "each word on a line",
        "{A}\n:\ndescriptor\n:\nx25519\n:\n{K}\n",
        true,
    ),
    (
        "lines as Windows ends them",
        "{A}:descriptor:x25519:{K}\r\n",
        true,
    ),
    (
        "lines as old Macs end them",
        "{A}:descriptor:x25519:{K}\r",
        true,
    ),
    ("a zero byte behind", "{A}:descriptor:x25519:{K}\n\0", true),
    (
        "anything behind a zero byte",
        "{A}:descriptor:x25519:{K}\n\0:more:",
        true,
    ),
    (
        "a zero byte in front",
        "\0{A}:descriptor:x25519:{K}\n",
        false,
    ),
    (UTF8_MARK, "\u{feff}{A}:descriptor:x25519:{K}\n", true),
    (
        "the name of the kind in capitals",
        "{A}:DESCRIPTOR:X25519:{K}\n",
        false,
    ),
    ("one capital", "{A}:Descriptor:x25519:{K}\n", false),
    ("another algorithm", "{A}:descriptor:ed25519:{K}\n", false),
    ("padding", "{A}:descriptor:x25519:{K}====\n", false),
    (
        "a comment on the line",
        "{A}:descriptor:x25519:{K} # of Bob\n",
        false,
    ),
    (
        "a comment behind the line",
        "{A}:descriptor:x25519:{K}\n# of Bob\n",
        false,
    ),
    (
        "a comment with a colon behind",
        "{A}:descriptor:x25519:{K}\n# key: of Bob\n",
        false,
    ),
    (
        "two lines",
        "{A}:descriptor:x25519:{K}\n{A}:descriptor:x25519:{K}\n",
        false,
    ),
    (
        "a colon too many at the end",
        "{A}:descriptor:x25519:{K}:\n",
        false,
    ),
    (
        "a colon too many in front",
        ":{A}:descriptor:x25519:{K}\n",
        false,
    ),
    (
        "a colon too many between",
        "{A}::descriptor:x25519:{K}\n",
        false,
    ),
    (
        "blanks in place of colons",
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
        "a blank in the key",
        "{A}:descriptor:x25519:YDPBBAYQMPIOEWCWQJRN RFD4RIXU3B52ASVTM3M54MSRE6FPTR6Q\n",
        false,
    ),
    (
        "a line break in the key",
        "{A}:descriptor:x25519:YDPBBAYQMPIOEWCWQJRN\nRFD4RIXU3B52ASVTM3M54MSRE6FPTR6Q\n",
        false,
    ),
    (
        "a key with other last bits",
        "{A}:descriptor:x25519:YDPBBAYQMPIOEWCWQJRNRFD4RIXU3B52ASVTM3M54MSRE6FPTR6R\n",
        true,
    ),
    (
        "a key one character short",
        "{A}:descriptor:x25519:YDPBBAYQMPIOEWCWQJRNRFD4RIXU3B52ASVTM3M54MSRE6FPTR6\n",
        false,
    ),
    (
        "a key one character long",
        "{A}:descriptor:x25519:{K}A\n",
        false,
    ),
    (
        "a key of zeros",
        "{A}:descriptor:x25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n",
        false,
    ),
    (
        "a digit that is none of base32",
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
    ("nothing", "", false),
    ("blanks alone", " \n\n", false),
];

/// The text of a form.
fn written(form: &str) -> String {
    form.replace("{A}", LABEL).replace("{K}", KEY)
}

/// Whether C tor reads a key in this text. It says so of the second file for one service.
fn c_tor_reads(tor: &Path, text: &str) -> bool {
    let folder = private_folder();
    let keys = folder.path().join("keys");
    fs::create_dir(&keys).expect("made");
    set_mode(&keys, 0o700);
    fs::write(
        keys.join("a.auth_private"),
        written("{A}:descriptor:x25519:{K}\n"),
    )
    .expect("written");
    fs::write(keys.join("b.auth_private"), text).expect("written");
    let torrc = folder.path().join("torrc");
    let lines = format!(
        "SocksPort 0\nDataDirectory {}\nClientOnionAuthDir {}\nLog notice stdout\n",
        folder.path().join("data").display(),
        keys.display()
    );
    fs::write(&torrc, lines).expect("written");
    // Some of these files make it abort: C tor says what it made of them before that.
    let output = Command::new(tor)
        .args(["--verify-config", "--defaults-torrc", "/dev/null", "-f"])
        .arg(&torrc)
        .output()
        .expect("tor runs");
    let log = String::from_utf8_lossy(&output.stdout);
    assert!(log.contains(" [notice] "), "no word of C tor: {log}");
    log.contains("Duplicate authorization")
}

/// Whether onionport reads a key in this text, and if it does not, what it says.
fn ours_reads(text: &str) -> Result<(), String> {
    let folder = private_folder();
    fs::write(folder.path().join("b.auth_private"), text).expect("written");
    let mut told = Vec::new();
    let mistrust = Mistrust::new_dangerously_trust_everyone();
    let found = check_folder(folder.path(), &mistrust, |file| told.push(file.to_string()));
    match (found, &told[..]) {
        (Ok(1), []) => Ok(()),
        (Ok(0), [told]) => Err(told.clone()),
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn a_key_file_counts_in_every_form_in_which_it_counts_for_c_tor() {
    let tor = c_tor::find();
    assert!(
        tor.is_some() || std::env::var_os("CI").is_none(),
        "no C tor"
    );
    for &(name, form, counts) in FORMS {
        let text = written(form);
        if let Some(tor) = &tor {
            let theirs = c_tor_reads(tor, &text);
            assert_eq!(theirs, counts && name != UTF8_MARK, "{name}: C tor");
        }
        let ours = ours_reads(&text);
        assert_eq!(ours.is_ok(), counts, "{name}: {ours:?}");
        let Err(told) = ours else { continue };
        assert!(told.contains("b.auth_private"), "{name}: {told}");
        for secret in [KEY, &KEY[1..], LABEL] {
            assert!(!told.contains(&secret[..20]), "{name}: {told}");
        }
    }
}
