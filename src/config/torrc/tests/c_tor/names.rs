//! The names and defaults of options.

use std::collections::BTreeSet;
use std::fs;

use super::run_tor;
use crate::config::torrc::{TorrcError, options, read};

#[test]
fn the_table_has_exactly_the_options_of_c_tor() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_, list)) = run_tor(&["--list-torrc-options", "--quiet"], &[], folder.path()) else {
        return;
    };
    let theirs: BTreeSet<&str> = list.lines().filter(|line| !line.contains(' ')).collect();
    assert!(theirs.len() > 300, "{list}");
    let ours: BTreeSet<&str> = options::current_names().collect();
    let unknown: Vec<_> = theirs.difference(&ours).collect();
    let invented: Vec<_> = ours.difference(&theirs).collect();
    assert!(
        unknown.is_empty() && invented.is_empty(),
        "{unknown:?} {invented:?}"
    );
    // Deprecated options, some of them obsolete already, must be known as well.
    let args = ["--list-deprecated-options", "--quiet"];
    let Some((_, list)) = run_tor(&args, &[], folder.path()) else {
        return;
    };
    let deprecated: Vec<&str> = list.lines().filter(|line| !line.contains(' ')).collect();
    assert!(!deprecated.is_empty(), "{list}");
    for name in deprecated {
        let found = options::find(name).map(|found| found.option.name);
        assert_eq!(found, Some(name));
    }
}

#[test]
fn unknown_names_are_refused_as_by_c_tor() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("torrc");
    for text in [
        "ExlcudeNodes {de}",
        "SocksPort 9050\nSocksPolcy reject *",
        "/Wombat",
        "+Wombat x",
        "Wombat",
        "\u{feff}SocksPort 9050",
        "\u{feff}# comment\nSocksPort 9050",
        "\u{feff}",
    ] {
        fs::write(&file, text).unwrap();
        let Some((good, output)) = run_tor(&["--verify-config"], &[&file], folder.path()) else {
            return;
        };
        assert!(
            !good && output.contains("Unknown option"),
            "{text}: {output}"
        );
        let error = read(std::slice::from_ref(&file)).expect_err(text);
        assert!(matches!(error, TorrcError::Unknown(_)), "{text}: {error}");
    }
}

#[test]
fn other_spellings_and_obsolete_names_are_known_to_c_tor() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("torrc");
    // One file has all names: C tor stops at the first unknown one. A current option without a value
    // is only reset, and an obsolete one is ignored with any value.
    let mut text = String::new();
    let mut obsolete = BTreeSet::new();
    for (name, current) in options::spellings() {
        text += name;
        if !current {
            text += " x";
            obsolete.insert(options::find(name).unwrap().option.name);
        }
        text += "\n";
    }
    // Without this option an assertion in C tor fails.
    text += "MinimalAcceptedServerVersion 0.4.8.0\n";
    fs::write(&file, &text).unwrap();
    let Some((_, output)) = run_tor(&["--verify-config"], &[&file], folder.path()) else {
        return;
    };
    assert!(!output.contains("Unknown option"), "{output}");
    for name in obsolete {
        let skipped = format!("Skipping obsolete configuration option \"{name}\"");
        assert!(output.contains(&skipped), "{name}: {output}");
    }
}

#[test]
fn a_shortened_name_stands_for_the_same_option_as_in_c_tor() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("torrc");
    let beginnings: BTreeSet<&str> = options::current_names()
        .flat_map(|name| {
            [1, 3, 6, 9, 14, 20]
                .iter()
                .filter_map(|end| name.get(..*end))
        })
        .collect();
    // `_` alone matches a name that C tor does not list.
    let beginnings: BTreeSet<&str> = beginnings.into_iter().filter(|b| *b != "_").collect();
    let mut text: Vec<&str> = beginnings.iter().copied().collect();
    // Without this option an assertion in C tor fails.
    text.push("MinimalAcceptedServerVersion 0.4.8.0");
    fs::write(&file, text.join("\n")).unwrap();
    let Some((_, output)) = run_tor(&["--verify-config"], &[&file], folder.path()) else {
        return;
    };
    assert!(!output.contains("Unknown option"), "{output}");
    let mut compared = 0;
    for word in beginnings {
        let found = options::find(word).unwrap_or_else(|| panic!("{word} is unknown"));
        let name = found.option.name;
        let warning =
            format!("The abbreviation '{word}' is deprecated. Please use '{name}' instead");
        let exact = name.eq_ignore_ascii_case(word);
        assert_eq!(
            output.contains(&warning),
            !exact && found.warn,
            "{word} {name}: {output}"
        );
        compared += 1;
    }
    assert!(compared > 300, "{compared}");
}

#[test]
fn defaults_are_those_of_c_tor() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("torrc");
    fs::write(&file, "").unwrap();
    let Some((true, dump)) = run_tor(&["--dump-config", "full"], &[&file], folder.path()) else {
        return;
    };
    let mut compared = 0;
    for line in dump
        .lines()
        .filter(|line| !line.contains('[') || line.contains("FE80"))
    {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        let Some(found) = options::find(name).filter(|f| f.option.name == name) else {
            continue;
        };
        let number = |text: &str| text.parse::<f64>().ok();
        // Packagers choose the paths of the GeoIP files.
        let same = value == found.option.default
            || number(value).is_some() && number(value) == number(found.option.default)
            || name.starts_with("GeoIP");
        assert!(same, "{name}: {value:?}, not {:?}", found.option.default);
        compared += 1;
    }
    assert!(compared > 200, "{compared}: {dump}");
}
