use super::super::lines::{BadLine, Mode, Raw, parse};
use super::*;

/// Key, value, mode and line of each option.
fn lines(text: &str) -> Vec<(String, String, Mode, usize)> {
    let raw = parse(text).unwrap_or_else(|bad| panic!("{text:?}: {bad:?}"));
    raw.into_iter()
        .map(
            |Raw {
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
        ("SocksPort", "1  Flag", Mode::Set, 3),
        ("Log", "a", Mode::Append, 7),
        ("Log", "", Mode::Clear, 8),
        ("Last", "x", Mode::Set, 9),
    ];
    let expected = expected.map(|(k, v, mode, line)| (k.to_owned(), v.to_owned(), mode, line));
    assert_eq!(lines(text), expected);
}

#[test]
fn a_bad_line_is_named_with_its_number() {
    for (text, line) in [
        ("a b\nSocksPort \"1\n", 2),
        ("a b\n\nSocksPort \"1\" 2\n", 3),
        ("\\\nSocksPort 1", 1),
        ("+ SocksPort 1", 1),
        ("a \u{0}b", 1),
        ("a \"\\x00\"", 1),
    ] {
        let bad = parse(text).expect_err(text);
        assert_eq!(bad.line, line, "{text:?}: {bad:?}");
    }
}

#[test]
fn any_text_is_read_or_refused_without_a_panic() {
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
            Err(BadLine { line, .. }) => {
                prop_assert!(line <= 1 + text.matches('\n').count());
            }
        }
    });
}

#[test]
fn a_syntax_error_names_file_line_and_remedy() {
    assert_eq!(
        refusal("SafeSocks 1\nSocksPort \"9050\" IsolateDestPort\n"),
        "torrc:2: something follows the quoted value: put all of it into the quotes, or remove them"
    );
    assert_eq!(
        refusal("SafeSocks yes"),
        "torrc:1: SafeSocks: \"yes\" is neither 1 for yes nor 0 for no: write one of them"
    );
    assert_eq!(
        refusal("SocksTimeout 5 m"),
        "torrc:1: SocksTimeout: \"5 m\" is not a length of time: write a number with second, minute, \
         hour, day, week or month, such as 2 minutes"
    );
    assert_eq!(
        refusal("SocksPortLines 9050"),
        "torrc:1: SocksPortLines: this name is only for reading: write SocksPort instead"
    );
}

#[test]
fn a_missing_file_is_named_and_a_missing_include_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("torrc");
    let error = read(std::slice::from_ref(&path)).unwrap_err();
    assert_eq!(
        message(&error, folder.path()),
        "torrc: there is no such file: correct --torrc or create it"
    );
    let gone = folder.path().join("gone");
    fs::write(&path, format!("\n%include {}\n", gone.display())).unwrap();
    let error = read(&[path]).unwrap_err();
    assert_eq!(
        message(&error, folder.path()),
        "torrc:2: %include \"gone\": gone is not there: correct the path, which counts from the folder \
         where onionport is started unless it begins with /"
    );
}

#[test]
fn included_lines_keep_their_own_place_and_all_files_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, inner) = (folder.path().join("torrc"), folder.path().join("inner"));
    fs::write(
        &path,
        format!("SocksPort 1\n%include {}\nSocksPort 3\n", inner.display()),
    )
    .unwrap();
    fs::write(&inner, "# first\nSocksPort 2\n").unwrap();
    let torrc = read(std::slice::from_ref(&path)).unwrap();
    let place = |path: &Path, line| Place {
        path: path.to_owned(),
        line,
    };
    assert_eq!(
        torrc.origins["proxy.socks_port"],
        [place(&path, 1), place(&inner, 2), place(&path, 3)]
    );
    assert_eq!(torrc.origin("proxy.socks_port[1]"), Some(&place(&inner, 2)));
    assert_eq!(torrc.files, [path, inner]);
}

#[test]
fn files_that_include_each_other_widely_end_at_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..4 {
        let text = format!("%include {}/f*\n", folder.path().display());
        fs::write(folder.path().join(format!("f{number}")), text).unwrap();
    }
    let error = read(&[folder.path().join("f0")]).unwrap_err();
    assert!(matches!(error, TorrcError::Include { .. }), "{error}");
}

#[test]
fn a_file_that_is_too_long_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("torrc");
    fs::write(&path, vec![b'#'; (4 << 20) + 1]).unwrap();
    let error = read(&[path]).unwrap_err();
    assert_eq!(
        message(&error, folder.path()),
        "torrc: cannot be read: it has more than 4194304 bytes, which no torrc has; \
         name a torrc which this user may read"
    );
}

#[test]
fn other_spellings_and_old_options_are_told() {
    assert_eq!(
        warnings("SocksPor 9055\nMaxConn 20000\nHidServAuth x\nNickname\n"),
        [
            "torrc:1: SocksPor is short for SocksPort: write that",
            "torrc:2: MaxConn is short for ConnLimit: write that",
            "torrc:3: HidServAuth is obsolete and skipped: put a key file into the folder of \
             ClientOnionAuthDir",
        ]
    );
    assert_eq!(
        warnings("SafeSocks 0\nSafeSocks 1\nSocksPort\n"),
        [
            "torrc:2: SafeSocks stands here again, and the last line counts",
            "torrc:3: SocksPort has no value and is skipped: write one",
        ]
    );
}

#[test]
fn names_that_no_option_has_are_refused_together() {
    assert_eq!(
        refusal("ExlcudeNodes {de}\nSocksPort 9050\nSocksPolcy reject *\nWombat 1\nFöö 1\n"),
        "torrc:1 ExlcudeNodes (the nearest is ExcludeNodes), \
         torrc:3 SocksPolcy (the nearest is SocksPolicy), torrc:4, torrc:5: \
         C tor has no such option: correct the name, or remove the line"
    );
    // Those of all files, before what is refused of the known ones.
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = ["1", "2", "3"].map(|name| folder.path().join(name));
    fs::write(&first, "DataDirectry /d\nORPort 9001\n").unwrap();
    fs::write(&second, format!("%include {}\n", third.display())).unwrap();
    fs::write(&third, "\n/SafSocks\n").unwrap();
    assert_eq!(
        message(&read(&[first, second]).unwrap_err(), folder.path()),
        "1:1 DataDirectry (the nearest is DataDirectory), 3:2 SafSocks (the nearest is SafeSocks): \
         C tor has no such option: correct the name, or remove the line"
    );
}

#[test]
fn a_word_that_may_be_a_password_is_not_repeated() {
    for (text, told) in [
        (
            "Socks5ProxyPassword=hunter2\n",
            "torrc:1 (the name ends in =: write Socks5ProxyPassword, a blank and the value)",
        ),
        ("Bridge obfs4 192.0.2.1:1\ncert=hunter2\n", "torrc:2"),
        ("hunter2 Socks5ProxyPassword\n", "torrc:1"),
    ] {
        let end = ": C tor has no such option: correct the name, or remove the line";
        assert_eq!(refusal(text), format!("{told}{end}"));
    }
}

#[test]
fn a_byte_order_mark_is_named() {
    for text in [
        "\u{feff}SocksPort 9050\n",
        "\u{feff}# mine\nSocksPort 9050\n",
    ] {
        assert_eq!(
            refusal(text),
            "torrc:1 (begins with a UTF-8 byte order mark: save the file without this BOM): \
             C tor has no such option: correct the name, or remove the line"
        );
    }
}

#[test]
fn names_that_are_no_utf8_do_not_stop_a_pattern() {
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
fn names_without_end_make_no_message_without_end() {
    let long = format!("{} 1", "SocksPort".repeat(100_000));
    let error = refusal(&long);
    assert!(error.len() < 300, "{error}");
    let many: String = (0..1000).map(|n| format!("Nonsense{n} 1\n")).collect();
    let error = refusal(&many);
    assert!(
        error.contains("torrc:20, and 980 more: C tor has no such option"),
        "{error}"
    );
}

#[test]
fn exceptions_beyond_number_are_refused() {
    let ports: String = (1..300).map(|n| format!("reject *:{},", 2 * n)).collect();
    let networks: String = (1..100)
        .map(|n| format!("reject {n}.{n}.0.0/24,"))
        .collect();
    let line = format!("ReachableAddresses {ports}{networks}accept *:*");
    let error = refusal(&line);
    assert!(
        error.contains("write with accept what can be reached"),
        "{error}"
    );
}
