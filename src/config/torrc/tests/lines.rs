use super::super::lines::{AssignMode, RawLine, SyntaxError, parse};
use super::*;

/// Returns key, value, mode and line of each option.
fn parse_good(text: &str) -> Vec<(String, String, AssignMode, usize)> {
    let raw = parse(text).unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
    raw.into_iter()
        .map(
            |RawLine {
                 key,
                 value,
                 mode,
                 line,
             }| (key, value, mode, line),
        )
        .collect()
}

#[test]
fn a_line_keeps_the_number_on_which_it_begins() {
    let text = "# one\n\nSocksPort 1 \\\n# two\n Flag\n\n+Log a\n/Log b\r\nLast \"x\"";
    let expected = [
        ("SocksPort", "1  Flag", AssignMode::Set, 3),
        ("Log", "a", AssignMode::Append, 7),
        ("Log", "", AssignMode::Clear, 8),
        ("Last", "x", AssignMode::Set, 9),
    ];
    let expected = expected.map(|(k, v, mode, line)| (k.to_owned(), v.to_owned(), mode, line));
    assert_eq!(parse_good(text), expected);
}

#[test]
fn a_syntax_error_has_the_number_of_its_line() {
    for (text, line) in [
        ("a b\nSocksPort \"1\n", 2),
        ("a b\n\nSocksPort \"1\" 2\n", 3),
        ("\\\nSocksPort 1", 1),
        ("+ SocksPort 1", 1),
        ("a \u{0}b", 1),
        ("a \"\\x00\"", 1),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.line, line, "{text:?}: {error:?}");
    }
}

#[test]
fn any_text_is_parsed_or_refused_without_a_panic() {
    use proptest::prelude::*;
    let alphabet = prop::sample::select(vec![
        "a", "B", " ", "\t", "\n", "\r", "\\", "\"", "#", "+", "/", "%", "x4", "é", "\u{0}", "\x0b",
    ]);
    proptest!(|(parts in prop::collection::vec(alphabet, 0..40))| {
        let text = parts.concat();
        match parse(&text) {
            Ok(lines) => {
                for line in lines {
                    prop_assert!(line.line <= 1 + text.matches('\n').count());
                    prop_assert!(!line.key.is_empty());
                }
            }
            Err(SyntaxError { line, .. }) => {
                prop_assert!(line <= 1 + text.matches('\n').count());
            }
        }
    });
}

#[test]
fn a_syntax_error_names_file_line_and_remedy() {
    assert_eq!(
        read_error("SafeSocks 1\nSocksPort \"9050\" IsolateDestPort\n"),
        "torrc:2: text follows the quoted value; put the whole value into the quotes or remove them"
    );
    assert_eq!(
        read_error("SafeSocks yes"),
        "torrc:1: SafeSocks: \"yes\" is neither 0 nor 1; write 1 for on or 0 for off"
    );
    assert_eq!(
        read_error("SocksTimeout 5 m"),
        "torrc:1: SocksTimeout: \"5 m\" is not a duration; write a number and second, minute, hour, day, \
         week or month, such as 2 minutes"
    );
    assert_eq!(
        read_error("SocksPortLines 9050"),
        "torrc:1: SocksPortLines: a torrc cannot set this name; write SocksPort instead"
    );
    assert_eq!(
        read_error("HiddenServiceOptions x"),
        "torrc:1: HiddenServiceOptions: a torrc cannot set this name; remove the line"
    );
}

#[test]
fn errors_name_a_missing_file_and_the_line_of_a_missing_include() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("torrc");
    let error = read(std::slice::from_ref(&path)).unwrap_err();
    assert_eq!(
        error_text(&error, folder.path()),
        "cannot read torrc: no such file; correct --torrc or create the file"
    );
    let gone = folder.path().join("gone");
    fs::write(&path, format!("\n%include {}\n", gone.display())).unwrap();
    let error = read(&[path]).unwrap_err();
    assert_eq!(
        error_text(&error, folder.path()),
        "torrc:2: %include \"gone\": no such file or folder: gone; correct the path (a relative path \
         starts at the working directory of onionport)"
    );
}

#[test]
fn included_lines_keep_their_own_position_and_all_files_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, inner) = (folder.path().join("torrc"), folder.path().join("inner"));
    fs::write(
        &path,
        format!("SocksPort 1\n%include {}\nSocksPort 3\n", inner.display()),
    )
    .unwrap();
    fs::write(&inner, "# first\nSocksPort 2\n").unwrap();
    let torrc = read(std::slice::from_ref(&path)).unwrap();
    let position = |path: &Path, line| FilePosition {
        path: path.to_owned(),
        line,
    };
    assert_eq!(
        torrc.origins["proxy.socks_port"],
        [position(&path, 1), position(&inner, 2), position(&path, 3)]
    );
    assert_eq!(
        torrc.origin("proxy.socks_port[1]"),
        Some(&position(&inner, 2))
    );
    assert_eq!(torrc.files, [path, inner]);
}

#[test]
fn files_that_include_each_other_hit_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..4 {
        let text = format!("%include {}/f*\n", folder.path().display());
        fs::write(folder.path().join(format!("f{number}")), text).unwrap();
    }
    let error = read(&[folder.path().join("f0")]).unwrap_err();
    assert!(matches!(error, TorrcError::Include { .. }), "{error}");
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("torrc");
    fs::write(&path, vec![b'#'; (4 << 20) + 1]).unwrap();
    let error = read(&[path]).unwrap_err();
    assert_eq!(
        error_text(&error, folder.path()),
        "cannot read torrc: it is larger than 4194304 bytes; name a readable torrc"
    );
}

#[test]
fn other_spellings_obsolete_options_and_repeated_lines_cause_warnings() {
    assert_eq!(
        read_warnings("SocksPor 9055\nMaxConn 20000\nHidServAuth x\nNickname\n"),
        [
            "torrc:1: SocksPor: short for SocksPort; write the full name",
            "torrc:2: MaxConn: short for ConnLimit; write the full name",
            "torrc:3: HidServAuth: ignored obsolete option; put a key file into the folder of \
             ClientOnionAuthDir",
        ]
    );
    assert_eq!(
        read_warnings("SafeSocks 0\nSafeSocks 1\nSocksPort\n"),
        [
            "torrc:2: SafeSocks: set more than once; the last line counts",
            "torrc:3: SocksPort: ignored line without a value; write one",
        ]
    );
}

#[test]
fn all_unknown_names_are_refused_in_one_message() {
    assert_eq!(
        read_error("ExlcudeNodes {de}\nSocksPort 9050\nSocksPolcy reject *\nWombat 1\nFöö 1\n"),
        "torrc:1 ExlcudeNodes (did you mean ExcludeNodes?), \
         torrc:3 SocksPolcy (did you mean SocksPolicy?), torrc:4, torrc:5: \
         unknown option; correct the name or remove the line"
    );
    // Unknown names of all files are reported before refused options.
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = ["1", "2", "3"].map(|name| folder.path().join(name));
    fs::write(&first, "DataDirectry /d\nORPort 9001\n").unwrap();
    fs::write(&second, format!("%include {}\n", third.display())).unwrap();
    fs::write(&third, "\n/SafSocks\n").unwrap();
    assert_eq!(
        error_text(&read(&[first, second]).unwrap_err(), folder.path()),
        "1:1 DataDirectry (did you mean DataDirectory?), 3:2 SafSocks (did you mean SafeSocks?): \
         unknown option; correct the name or remove the line"
    );
}

#[test]
fn a_word_that_may_be_a_password_is_not_quoted() {
    for (text, listed) in [
        (
            "Socks5ProxyPassword=hunter2\n",
            "torrc:1 (write Socks5ProxyPassword VALUE, without an equals sign)",
        ),
        ("Bridge obfs4 192.0.2.1:1\ncert=hunter2\n", "torrc:2"),
        ("hunter2 Socks5ProxyPassword\n", "torrc:1"),
    ] {
        let end = ": unknown option; correct the name or remove the line";
        assert_eq!(read_error(text), format!("{listed}{end}"));
    }
}

#[test]
fn a_byte_order_mark_is_reported_as_such() {
    for text in [
        "\u{feff}SocksPort 9050\n",
        "\u{feff}# mine\nSocksPort 9050\n",
    ] {
        assert_eq!(
            read_error(text),
            "torrc:1 (starts with a UTF-8 byte order mark; save the file without it): \
             unknown option; correct the name or remove the line"
        );
    }
}

#[test]
fn a_pattern_matches_file_names_that_are_not_utf8() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("d");
    fs::create_dir(&inner).unwrap();
    fs::write(
        inner.join(std::ffi::OsStr::from_bytes(b"caf\xe9.conf")),
        "SocksPort 1\n",
    )
    .unwrap();
    let path = folder.path().join("torrc");
    fs::write(&path, format!("%include {}/*.conf\n", inner.display())).unwrap();
    let torrc = read(&[path]).unwrap();
    assert_eq!(torrc.table["proxy"]["socks_port"][0].as_str(), Some("1"));
}

#[test]
fn long_and_many_unknown_names_do_not_make_a_long_message() {
    let long = format!("{} 1", "SocksPort".repeat(100_000));
    let error = read_error(&long);
    assert!(error.len() < 300, "{error}");
    let many: String = (0..1000).map(|n| format!("Nonsense{n} 1\n")).collect();
    let error = read_error(&many);
    assert!(
        error.contains("torrc:20, and 980 more: unknown option"),
        "{error}"
    );
}

#[test]
fn too_many_rejected_addresses_are_refused() {
    let ports: String = (1..300).map(|n| format!("reject *:{},", 2 * n)).collect();
    let networks: String = (1..100)
        .map(|n| format!("reject {n}.{n}.0.0/24,"))
        .collect();
    let line = format!("ReachableAddresses {ports}{networks}accept *:*");
    let error = read_error(&line);
    assert!(
        error.contains("accept only what is reachable instead"),
        "{error}"
    );
}
