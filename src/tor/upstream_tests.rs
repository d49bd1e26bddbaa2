//! Checks, against the source of the Tor crates, that what this folder reads beyond their API still exists:
//! log messages, spans and Debug output.
//!
//! When a test fails after an update, adapt the code that reads the text, and run the network tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tor_hsclient::FailedAttemptError;

use super::onion::observer::{AWAITING_RENDEZVOUS, POINT, SOLVING, SOURCE};
use super::open_stream::RECEIVED_CONNECTED;

/// Runs cargo and returns its output.
fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// Returns the folder with the source of a dependency.
fn source_folder(name: &str) -> PathBuf {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.expect("cargo prints its host platform");
    let metadata = cargo(&[
        "metadata",
        "--format-version=1",
        "--offline",
        "--locked",
        "--filter-platform",
        host,
    ]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let mut found = packages.iter().filter(|package| package["name"] == name);
    let package = found.next().expect("a dependency");
    assert!(found.next().is_none(), "more than one {name}");
    let manifest = package["manifest_path"].as_str().expect("a path");
    Path::new(manifest).parent().expect("a folder").to_owned()
}

/// Returns the source of a module without its comment lines.
fn source(folder: &Path, module: &str) -> String {
    let text = fs::read_to_string(folder.join(module)).expect("a source file");
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// Returns the text between two marks.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text
        .split_once(start)
        .unwrap_or_else(|| panic!("no {start:?}"));
    rest.split_once(end)
        .unwrap_or_else(|| panic!("no {end:?}"))
        .0
}

#[test]
fn tor_hsclient_logs_the_messages_that_are_read() {
    let folder = source_folder(SOURCE.replace('_', "-").as_str());
    let connect = source(&folder, "src/connect.rs");
    let named: Vec<_> = connect
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("\"hs conn to {}: ") && line.contains("IPT {}: "))
        .collect();
    for message in [
        // The first of these reveals the introduction point.
        "\"hs conn to {}: IPT {}: obtaining intro circuit\",",
        "\"hs conn to {}: RPT {} IPT {}: making introduction\",",
    ] {
        assert!(named.contains(&message), "{message} of {named:#?}");
    }
    let end = format!("{AWAITING_RENDEZVOUS}\",");
    let waits = named.iter().filter(|line| line.ends_with(&end));
    assert_eq!(waits.count(), 1, "{named:#?}");
    // An introduction point is displayed as the sign at the end of `POINT` and its number, counted from 1.
    let error = FailedAttemptError::IntroductionTimeout {
        intro_index: 11.into(),
    };
    assert!(POINT.ends_with('#'), "{POINT:?}");
    assert!(error.to_string().contains(" #12 "), "{error}");

    let solver = source(&folder, "src/pow/v1.rs");
    assert!(
        solver.contains(&format!("debug!(\"{SOLVING}")),
        "no {SOLVING:?}"
    );
}

#[test]
fn tor_hsclient_has_the_spans_that_are_read() {
    let connect = source(&source_folder("tor-hsclient"), "src/connect.rs");
    for step in [
        "descriptor_ensure",
        "descriptor_fetch_attempt",
        "establish_rendezvous",
        "exchange_introduce",
    ] {
        let (before, _) = connect
            .split_once(&format!("async fn {step}"))
            .unwrap_or_else(|| panic!("no {step}"));
        let attribute = before.trim_end().lines().next_back().expect("a line");
        let attribute = attribute.trim();
        // A span with the function's name, at a level that the layer enables.
        assert_eq!(
            attribute, "#[instrument(level = \"trace\", skip_all)]",
            "{step}"
        );
    }
}

#[test]
fn tor_protos_debug_output_shows_whether_a_stream_was_connected() {
    let data = source(&source_folder("tor-proto"), "src/client/stream/data.rs");
    let derives = |name: &str| {
        let (before, _) = data
            .split_once(&format!("struct {name} {{"))
            .unwrap_or_else(|| panic!("no {name}"));
        let attribute = before
            .lines()
            .rev()
            .find(|line| line.starts_with("#[derive"));
        attribute.is_some_and(|attribute| attribute.contains("Debug"))
    };
    assert!(derives("DataStreamStatus"));
    assert!(derives("ClientDataStreamCtrl"));
    assert!(
        !data.contains("Debug for "),
        "a manual implementation of Debug"
    );
    let control = between(&data, "pub struct ClientDataStreamCtrl {", "\n}");
    assert!(
        control.contains("status: Arc<Mutex<DataStreamStatus>>"),
        "{control}"
    );
    let status = between(&data, "struct DataStreamStatus {", "\n}");
    let (field, value) = RECEIVED_CONNECTED.split_once(": ").expect("a field");
    assert_eq!(value, "true");
    assert!(status.contains(&format!("{field}: bool")), "{status}");
    // The field is never reset.
    let set: Vec<_> = data
        .lines()
        .filter(|line| line.contains(&format!("{field} = ")))
        .map(str::trim)
        .collect();
    assert_eq!(set, [format!("self.{field} = true;")]);
}
