//! The direction of imports between the parts of the library. No part imports one above it, so that each
//! can be understood without those.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each part of `src`, and the parts that it may import. They come later in this table.
const MAY_IMPORT: [(&str, &[&str]); 8] = [
    (
        "daemon",
        &[
            "inbound",
            "request",
            "tor",
            "config",
            "failure",
            "log_limit",
        ],
    ),
    (
        "inbound",
        &["request", "tor", "config", "failure", "log_limit"],
    ),
    ("request", &["tor", "config", "failure", "log_limit"]),
    ("tor", &["config", "failure", "log_limit"]),
    ("cli", &["config"]),
    ("config", &[]),
    ("failure", &[]),
    ("log_limit", &[]),
];

/// Collects all Rust files below a folder.
fn find_rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            find_rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether a file contains only tests, which may import everything.
fn is_test(path: &Path) -> bool {
    let mut parts = path.iter().filter_map(|part| part.to_str());
    parts.any(|part| matches!(part, "tests" | "tests.rs" | "upstream_tests.rs"))
}

/// Returns the imports of a file that are not allowed, or that cannot be checked. `part` is the part of
/// the library that it belongs to, `depth` the number of folders that it is in.
fn wrong_imports(text: &str, part: &str, may_import: &[&str], depth: usize) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next();
    let lines = code.unwrap_or(text).lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
    let mut wrong = BTreeSet::new();
    for line in lines {
        for path in line.split("crate::").skip(1) {
            let end = path.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let name = &path[..end.unwrap_or(path.len())];
            if name.is_empty() {
                wrong.insert("does not name a part: write `use crate::PART`".to_owned());
            } else if name != part && !may_import.contains(&name) {
                wrong.insert(format!("imports {name}"));
            }
        }
        if line.contains("use crate as")
            || line.contains("extern crate self")
            || line.contains(&"super::".repeat(depth + 1))
        {
            wrong.insert(format!(
                "leaves its part in a way that cannot be checked: {}",
                line.trim()
            ));
        }
    }
    wrong
}

#[test]
fn imports_go_one_way() {
    for (row, (part, may_import)) in MAY_IMPORT.iter().enumerate() {
        let below: Vec<&str> = MAY_IMPORT[row + 1..].iter().map(|(p, _)| *p).collect();
        let all_below = may_import.iter().all(|import| below.contains(import));
        assert!(all_below, "{part} imports a part that is not below it");
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let library = fs::read_to_string(source.join("lib.rs")).expect("text");
    assert!(
        !library.contains("\nuse ") && !library.contains("pub use"),
        "lib.rs imports something"
    );
    let mut all = Vec::new();
    find_rust_files(&source, &mut all);
    let mut wrong = Vec::new();
    for path in all {
        let path = path.strip_prefix(&source).expect("below it");
        let name = path.display().to_string();
        let part = name.split(['/', '.']).next().unwrap_or_default();
        // The program and the root of the library may use everything.
        if matches!(part, "main" | "lib") || is_test(path) {
            continue;
        }
        let known = MAY_IMPORT.iter().find(|(known, _)| *known == part);
        let Some((_, may_import)) = known else {
            wrong.push(format!("{name}: {part} is new: add it to MAY_IMPORT"));
            continue;
        };
        let text = fs::read_to_string(source.join(path)).expect("text");
        let depth = path.components().count() - 1;
        let found = wrong_imports(&text, part, may_import, depth);
        wrong.extend(found.into_iter().map(|what| format!("{name}: {what}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_import_of_a_part_above_is_found() {
    let finds = |text: &str| !wrong_imports(text, "request", &["tor"], 1).is_empty();
    for fine in [
        "//! See [`crate::daemon`].\nuse crate::tor::keys;\nuse crate::request::target;\n",
        "use super::Request;\n",
        "use crate::tor;\n#[cfg(test)]\nmod tests { use crate::inbound; }\n",
    ] {
        assert!(!finds(fine), "{fine}");
    }
    for wrong in [
        "use crate::inbound::http;\n",
        "fn f() { crate::daemon::run() }\n",
        "#[cfg(test)]\nmod tests;\n\nuse crate::inbound::http;\n",
        "use crate::{inbound, tor};\n",
        "use crate as onionport;\n",
        "use super::super::inbound;\n",
    ] {
        assert!(finds(wrong), "{wrong}");
    }
}
