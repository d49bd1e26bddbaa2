//! The example file is correct and complete, and typos in its keys are found.

use std::collections::BTreeMap;

use super::super::known_keys::{EXAMPLE, ExampleLine, parse_example_line};
use super::*;

#[test]
fn the_unchanged_example_is_the_defaults() {
    assert_eq!(settings(good(EXAMPLE)), defaults());
}

#[test]
fn every_default_in_the_example_is_the_real_default() {
    // `#key` is a default, `# key` prose and `#   key` an example.
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| !c.is_whitespace()) => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(uncommented.contains("\nsocks_timeout = "), "{uncommented}");
    let mut written = settings(good(&uncommented));
    for port in &mut written.ports {
        port.explicit = false;
    }
    assert!(written == defaults(), "{}", describe(&written));
}

/// Returns the tables of the example, each with its heading and all its settings. The value of an
/// example takes precedence over a default.
fn example_tables() -> BTreeMap<String, (String, BTreeMap<String, String>)> {
    let mut tables: BTreeMap<String, (String, BTreeMap<String, String>)> = BTreeMap::new();
    let mut table = String::new();
    for line in EXAMPLE.lines() {
        let example = line.starts_with("#  ");
        match parse_example_line(line) {
            Some(ExampleLine::Table(name)) => {
                table = name.to_owned();
                let heading = line.trim_start_matches('#').trim().to_owned();
                tables
                    .entry(table.clone())
                    .or_insert((heading, BTreeMap::new()));
            }
            Some(ExampleLine::Setting(key, value)) => {
                let settings = &mut tables.get_mut(&table).expect(line).1;
                if example || !settings.contains_key(key) {
                    settings.insert(key.to_owned(), value.to_owned());
                }
            }
            None => {}
        }
    }
    tables
}

/// Returns a file with this table filled in as in the example, and with the tables that it needs.
fn filled(table: &str) -> String {
    let tables = example_tables();
    let mut text = String::new();
    // Other authorities need other fallbacks.
    if table == "tor_network.authorities" {
        text.push_str(&filled("tor_network.fallback_caches"));
    }
    let (heading, settings) = &tables[table];
    text.push_str(&format!("{heading}\n"));
    for (key, value) in settings {
        // A file may set only one of two equivalent keys.
        let is_equivalent = ["socks_listen", "dns_listen", "proxy_addr"].contains(&key.as_str());
        if !is_equivalent {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    text
}

#[test]
fn every_table_of_the_example_is_valid() {
    for table in example_tables().keys() {
        good(&filled(table));
    }
    good("[proxy]\nsocks_listen = [9150, \"[::1]:9150\"]\ndns_listen = 5353");
}

#[test]
fn a_typo_in_any_table_is_refused_with_the_nearest_key() {
    for (table, (_, settings)) in example_tables() {
        // Its keys are names of network parameters, and can be anything.
        if table == "override_net_params" {
            continue;
        }
        for key in settings.keys() {
            let wrong = format!("{key}x");
            let text = format!("{}{wrong} = 1\n", filled(&table));
            let line = text.lines().count();
            let error = refusal(&text);
            assert!(
                error.starts_with(&format!("test.toml:{line}: unknown key ")),
                "{error}"
            );
            assert!(error.contains(&wrong), "{error}");
            assert!(
                error.contains(&format!("did you mean {table}.{key}?")),
                "{error}"
            );
        }
    }
}

#[test]
fn the_example_has_every_key_of_arti_client() {
    type Table = BTreeMap<String, serde::de::IgnoredAny>;
    let mut want = tor_config::load::ConfigResolveOptions::default();
    want.want_output_tree = true;
    let nothing = tor_config::ConfigurationSources::new_empty()
        .load()
        .unwrap();
    let resolved = tor_config::resolve_return_results::<TorClientConfig>(&nothing, &want).unwrap();
    let all = resolved.output_tree.unwrap();
    let tables = example_tables();

    let mut paths = vec![
        "address_filter",
        "bridges",
        "channel",
        "circuit_timing",
        "directory_tolerance",
        "download_schedule",
        "override_net_params",
        "path_rules",
        "preemptive_circuits",
        "storage",
        "stream_timeouts",
        "system",
        "tor_network",
        "vanguards",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect::<Vec<_>>();
    let top: Table = all.get_serde_value("").unwrap().unwrap();
    assert_eq!(top.into_keys().collect::<Vec<_>>(), paths);
    while let Some(path) = paths.pop() {
        // A value that is not a table cannot be read as one.
        match all.get_serde_value::<Table>(&path) {
            Ok(Some(table)) if !table.is_empty() => {
                paths.extend(table.keys().map(|key| format!("{path}.{key}")));
            }
            _ => {
                let (table, key) = path.rsplit_once('.').unwrap_or(("", &path));
                let has = |table: &str| tables.get(table).is_some_and(|t| t.1.contains_key(key));
                let below = |name: &String| *name == path || name.starts_with(&format!("{path}."));
                assert!(
                    has(table) || tables.keys().any(below),
                    "arti.toml.example lacks {path}"
                );
            }
        }
    }
}
