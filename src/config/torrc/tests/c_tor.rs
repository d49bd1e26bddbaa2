//! The same files before C tor, offline: which it takes, and what it reads in them.
//!
//! Without a `tor` in the path these tests say so and are skipped, but not in CI.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod odd;

use odd::{ODD, PAIRS};

use super::super::assign::Values;
use super::super::files::Reader;
use super::super::options::{self, Kind};
use super::super::{TorrcError, read};

/// Where C tor is: in the path, or where it is installed without being in a user's path.
fn tor() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/sbin"].map(PathBuf::from))
        .map(|folder| folder.join("tor"))
        .find(|file| file.is_file())
        .unwrap_or("tor".into())
}

/// Asks `tor` for something it does without a network, if there is a `tor`.
fn ask(args: &[&str], files: &[&Path], home: &Path) -> Option<(bool, String)> {
    let mut command = Command::new(tor());
    command.args(args).env("HOME", home).stdin(Stdio::null());
    match files {
        [only] => command
            .arg("-f")
            .arg(only)
            .args(["--defaults-torrc", "/dev/null"]),
        [defaults, file] => command
            .arg("-f")
            .arg(file)
            .arg("--defaults-torrc")
            .arg(defaults),
        _ => &mut command,
    };
    match command.output() {
        Ok(output) => Some((
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )),
        Err(error) => {
            // A judge that nobody misses would soon be gone for good.
            assert!(
                std::env::var_os("CI").is_none(),
                "no C tor: apt-get install tor"
            );
            eprintln!("skipped, tor does not start: {error}");
            None
        }
    }
}

/// What C tor reads in files: the options that differ from its defaults, or that it takes none.
/// (Of two files, a short dump would leave out what the first one says.)
fn their_reading(files: &[&Path], home: &Path) -> Option<Option<Vec<(String, String)>>> {
    let (good, dump) = ask(&["--dump-config", "full"], files, home)?;
    let lines = dump.lines().filter(|line| {
        let log =
            line.contains(" [notice] ") || line.contains(" [warn] ") || line.contains(" [err] ");
        !log && !line.is_empty()
    });
    let options = lines.filter_map(|line| {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let option = options::find(key)?.option;
        let value = match option.kind {
            Kind::Float => value.parse::<f64>().ok()?.to_string(),
            _ => value.to_owned(),
        };
        // Where the files of countries are is the packager's choice.
        let changed = value != option.default && !key.starts_with("GeoIP");
        changed.then(|| (key.to_owned(), value))
    });
    Some(good.then(|| options.collect()))
}

/// What we read in them, in the same form.
fn our_reading(files: &[&Path]) -> Result<Vec<(String, String)>, String> {
    let mut reader = Reader::default();
    let mut values = Values::default();
    for file in files {
        let lines = reader.read(file).map_err(|error| error.to_string())?;
        values.assign(lines).map_err(|error| error.to_string())?;
    }
    values.all_known().map_err(|error| error.to_string())?;
    let mut said = values.all();
    said.sort_by_key(|said| said.name.to_ascii_lowercase());
    Ok(said
        .iter()
        .filter(|said| {
            let option = options::find(said.name).unwrap().option;
            said.value != option.default && !said.name.starts_with("GeoIP")
        })
        .map(|said| (said.name.to_owned(), said.value.clone()))
        .collect())
}

/// Compares the readings of some files.
fn compare(files: &[&Path], text: &str, home: &Path) -> bool {
    let Some(theirs) = their_reading(files, home) else {
        return false;
    };
    let ours = our_reading(files);
    match (&theirs, &ours) {
        (None, Err(_)) => {}
        // The dump quotes what could not stand bare in a file.
        (Some(theirs), Ok(ours)) => {
            let bare = |(key, value): &(String, String)| {
                let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
                let value = inner.map_or(value.clone(), |inner| {
                    inner
                        .replace("\\013", "\x0b")
                        .replace("\\\"", "\"")
                        .replace("\\\\", "\\")
                });
                (key.clone(), value)
            };
            let mut theirs: Vec<_> = theirs.iter().map(bare).collect();
            theirs.sort_by_key(|(name, _)| name.to_ascii_lowercase());
            assert_eq!(*ours, theirs, "{text:?}");
        }
        _ => panic!("{text:?}: C tor reads {theirs:?}, we read {ours:?}"),
    }
    true
}

/// Makes the folder with the files to include.
fn include_folder(folder: &Path) {
    for (name, text) in [
        ("inc/a.conf", "SocksPort 9061\n"),
        ("inc/b.conf", "SocksPort 9060\n"),
        ("inc/A Z", "SocksPort 9064\n"),
        ("inc/[ab].conf", "SocksPort 9065\n"),
        ("inc/a*.lit", "SocksPort 9066"),
        ("inc/.hid", "SocksPort 9062\n"),
        ("inc/empty", ""),
        ("inc/sub/x", "SocksPort 9063\n"),
        ("self", "%include FOLDER/self\n"),
    ] {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.replace("FOLDER", &folder.display().to_string())).unwrap();
    }
    // From the second on they are as many as may stand one within another.
    let chain = folder.join("chain");
    fs::create_dir(&chain).unwrap();
    for number in 1..31 {
        let text = format!("%include {}/{}\n", chain.display(), number + 1);
        fs::write(chain.join(number.to_string()), text).unwrap();
    }
    fs::write(chain.join("31"), "SocksPort 9031\n").unwrap();
}

#[test]
fn odd_files_are_read_as_c_tor_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    include_folder(folder.path());
    let file = folder.path().join("torrc");
    let mut compared = 0;
    for odd in ODD {
        let text = odd.replace("FOLDER", &folder.path().display().to_string());
        fs::write(&file, &text).unwrap();
        if !compare(&[&file], odd, folder.path()) {
            return;
        }
        compared += 1;
    }
    assert_eq!(compared, ODD.len());
}

#[test]
fn later_files_win_over_earlier_ones_as_over_c_tors_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("1"), folder.path().join("2"));
    for (defaults, text) in PAIRS {
        fs::write(&first, defaults).unwrap();
        fs::write(&second, text).unwrap();
        if !compare(
            &[&first, &second],
            &format!("{defaults:?}, {text:?}"),
            folder.path(),
        ) {
            return;
        }
    }
}

#[test]
fn the_files_people_have_are_read_as_c_tor_reads_them() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torrc");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("torrc");
    for name in [
        "debian_defaults",
        "debian_instance",
        "tails",
        "whonix/65_gateway.conf",
        "whonix/workstation_defaults",
        "tor_browser/torrc-defaults",
        "tor_browser/torrc",
        "bitcoin_core",
        "docker",
    ] {
        let text = fs::read_to_string(data.join(name)).unwrap();
        // C tor looks at the users and folders of this machine.
        let local = ["User ", "DataDirectory ", "ClientOnionAuthDir "];
        let kept: Vec<&str> = text
            .lines()
            .filter(|line| !local.iter().any(|option| line.starts_with(option)))
            .collect();
        // It never tells what was set by such a name.
        fs::write(&file, kept.join("\n").replace("__SocksPort", "SocksPort")).unwrap();
        if !compare(&[&file], name, folder.path()) {
            return;
        }
    }
}

#[test]
fn no_option_of_c_tor_is_unknown_and_none_is_invented() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_, list)) = ask(&["--list-torrc-options", "--quiet"], &[], folder.path()) else {
        return;
    };
    let theirs: BTreeSet<&str> = list.lines().filter(|line| !line.contains(' ')).collect();
    assert!(theirs.len() > 300, "{list}");
    let ours: BTreeSet<&str> = options::names().collect();
    let unknown: Vec<_> = theirs.difference(&ours).collect();
    let invented: Vec<_> = ours.difference(&theirs).collect();
    assert!(
        unknown.is_empty() && invented.is_empty(),
        "{unknown:?} {invented:?}"
    );
    // Those that C tor wants to be rid of, some of them skipped already, are no unknown names either.
    let args = ["--list-deprecated-options", "--quiet"];
    let Some((_, list)) = ask(&args, &[], folder.path()) else {
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
fn names_that_no_option_has_are_refused_as_by_c_tor() {
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
        let Some((good, said)) = ask(&["--verify-config"], &[&file], folder.path()) else {
            return;
        };
        assert!(!good && said.contains("Unknown option"), "{text}: {said}");
        let error = read(std::slice::from_ref(&file)).expect_err(text);
        assert!(matches!(error, TorrcError::Unknown(_)), "{text}: {error}");
    }
}

#[test]
fn other_spellings_and_obsolete_names_are_known_to_c_tor() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("torrc");
    // One file for all: C tor stops at the first name that it does not know. An option of today
    // without a value is only reset, an obsolete one is skipped with whatever value.
    let mut text = String::new();
    let mut obsolete = BTreeSet::new();
    for (name, alive) in options::spellings() {
        text += name;
        if !alive {
            text += " x";
            obsolete.insert(options::find(name).unwrap().option.name);
        }
        text += "\n";
    }
    // Without this one C tor would end in a failed assertion.
    text += "MinimalAcceptedServerVersion 0.4.8.0\n";
    fs::write(&file, &text).unwrap();
    let Some((_, said)) = ask(&["--verify-config"], &[&file], folder.path()) else {
        return;
    };
    assert!(!said.contains("Unknown option"), "{said}");
    for name in obsolete {
        let skipped = format!("Skipping obsolete configuration option \"{name}\"");
        assert!(said.contains(&skipped), "{name}: {said}");
    }
}

#[test]
fn the_beginning_of_a_name_means_what_it_means_to_c_tor() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("torrc");
    let beginnings: BTreeSet<&str> = options::names()
        .flat_map(|name| {
            [1, 3, 6, 9, 14, 20]
                .iter()
                .filter_map(|end| name.get(..*end))
        })
        .collect();
    // A bare `_` leads C tor to a name that it never lists.
    let beginnings: BTreeSet<&str> = beginnings.into_iter().filter(|b| *b != "_").collect();
    let mut text: Vec<&str> = beginnings.iter().copied().collect();
    // Without this one C tor would end in a failed assertion.
    text.push("MinimalAcceptedServerVersion 0.4.8.0");
    fs::write(&file, text.join("\n")).unwrap();
    let Some((_, said)) = ask(&["--verify-config"], &[&file], folder.path()) else {
        return;
    };
    assert!(!said.contains("Unknown option"), "{said}");
    let mut compared = 0;
    for word in beginnings {
        let found = options::find(word).unwrap_or_else(|| panic!("{word} is unknown"));
        let name = found.option.name;
        let told = format!("The abbreviation '{word}' is deprecated. Please use '{name}' instead");
        let exact = name.eq_ignore_ascii_case(word);
        assert_eq!(
            said.contains(&told),
            !exact && found.warn,
            "{word} {name}: {said}"
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
    let Some((true, dump)) = ask(&["--dump-config", "full"], &[&file], folder.path()) else {
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
        // Where the files of countries are is the packager's choice.
        let same = value == found.option.default
            || number(value).is_some() && number(value) == number(found.option.default)
            || name.starts_with("GeoIP");
        assert!(same, "{name}: {value:?}, not {:?}", found.option.default);
        compared += 1;
    }
    assert!(compared > 200, "{compared}: {dump}");
}

#[test]
fn what_c_tor_takes_from_a_client_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("torrc");
    for text in [
        "Log notice",
        "Log err-notice stderr",
        "Log NOTICE STDOUT",
        "Log [~net,~mm]info-notice [ net , mm ]debug stdout",
        "Log notice [net] info stdout",
        "Log notice file /tmp/a b",
        "Log [general,crypto,net,config,fs,protocol,mm,http,app,control,circ,rend,bug,dir,dirserv,or,\
         edge,acct,hist,handshake,heartbeat,channel,sched,guard,consdiff,dos,process,pt,btrack,mesg]\
         warn syslog",
        "Socks5Proxy 192.0.2.1",
        "HTTPSProxy [2001:db8::1]",
        "Socks5ProxyUsername a\nSocks5ProxyPassword b",
        "Socks5Proxy localhost:9050",
        "UseBridges 1\nBridge 192.0.2.1:443 4352 E584 20E6 8F5E 40BF 7C74 FADD CCD9 D134 9413",
        "ReachableAddresses 99.0.0.0/8, reject 18.0.0.0/8:80, accept *:80",
        "ClientTransportPlugin snow socks5 127.0.0.1:99 x",
        "CircuitStreamTimeout 5\nMaxCircuitDirtiness 40 days",
        "CircuitStreamTimeout 2 hours\nSocksTimeout 3 hours",
        "ClientUseIPv4 0\nClientUseIPv6 0",
        "FascistFirewall 1\nFirewallPorts 80,444",
        "ReachableAddresses 192.0.2.0/24:80, accept *:443, reject *:*",
        "TransPort 9040\nTransProxyType tproxy",
        "MaxMemInQueues 512 MB\nConnLimit 20",
        "ORPort 0\nExitPolicy reject *:*\nExitRelay 0\nPublishServerDescriptor 0",
    ] {
        fs::write(&file, text).unwrap();
        let Some((good, said)) = ask(&["--verify-config"], &[&file], folder.path()) else {
            return;
        };
        assert!(good, "C tor refuses {text:?}: {said}");
        read(std::slice::from_ref(&file)).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn what_c_tor_refuses_for_a_client_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("torrc");
    for text in [
        "UseBridges 1",
        "HTTPSProxy 192.0.2.1:0",
        "Socks5Proxy 192.0.2.1:1\nHTTPSProxy 192.0.2.1:2",
        "Socks5Proxy 192.0.2.1:1\nSocks5ProxyUsername a",
        "ClientTransportPlugin obfs4",
        "ClientTransportPlugin obfs4 exec",
        "ClientTransportPlugin a-b exec /x",
        "ClientTransportPlugin snow socks5 127.0.0.1",
        "ClientTransportPlugin a,b frob x",
        "LongLivedPorts x",
        "WarnPlaintextPorts 70000",
        "RejectPlaintextPorts 0",
        "ConnLimit 0",
        "TransProxyType TPROXY",
        "TransPort 9040\nTransProxyType frob",
        "ReachableAddresses foo",
        "VirtualAddrNetworkIPv4",
        "Log info,notice stdout",
        "Log stdout",
        "Log notice file",
        "Log frob stdout",
        "Log notice frob",
        "Log [frob]notice stdout",
        "Log [net,]notice stdout",
        "Log [net] stdout",
        "Log [net notice stdout",
    ] {
        fs::write(&file, text).unwrap();
        let Some((good, _)) = ask(&["--verify-config"], &[&file], folder.path()) else {
            return;
        };
        assert!(!good, "C tor takes {text:?}");
        let error = read(std::slice::from_ref(&file))
            .expect_err(text)
            .to_string();
        assert!(error.contains("torrc:"), "{text}: {error}");
    }
}

/// Rules of `SocksPolicy` and `ReachableAddresses` in many spellings.
const RULES: &[&str] = &[
    "*",
    "*:80",
    "*4",
    "*6:80",
    "*4/8",
    "*/0",
    "*6/64",
    "[*]",
    "[*4]:80",
    "**",
    "*:",
    "*:0",
    "1.2.3.4",
    "1.2.3.4:",
    "1.2.3.4:80",
    "1.2.3.4:80-90",
    "1.2.3.4:90-80",
    "1.2.3.4:80-",
    "1.2.3.4:80x",
    "1.2.3.4:0",
    "1.2.3.4:65536",
    "1.2.3.4:*",
    "1.2.3.4:80:90",
    "1.2.3.4: 80",
    "1.2.3.4/8",
    "1.2.3.4/",
    "1.2.3.4/:80",
    "1.2.3.4/08",
    "1.2.3.4/33",
    "1.2.3.4/255.0.0.0:80",
    "1.2.3.4/255.0.255.0",
    "1.2.3.4/8/8",
    "1.2.3.4:80/8",
    "1.2.3",
    "01.2.3.4",
    "10/8",
    "[1.2.3.4]",
    "[1.2.3.4]/8:80",
    "::1",
    "::1/128",
    "::1/129",
    "::1:80",
    "::/0",
    "::/0:80",
    "FC00::/7",
    "2001:db8::/32:443",
    "2001:db8::/32:443-444",
    "2001:DB8::/32:*",
    "2001:db8:::/32",
    "[::1]",
    "[::1]:80",
    "[::1]/64:80",
    "[2001:db8::]/32",
    "[::1",
    "::1]",
    "[::1%lo]",
    "fe80::1%lo/64",
    "[::]/255.0.0.0",
    "[::ffff:1.2.3.4]/120",
    "[::ffff:1.2.3.4]/40",
    "[::ffff:1.2.3.4]",
    "private:*",
    "private:80",
    "private:",
    "[private]",
    "private/8",
    "PRIVATE:*",
    "public",
    "localhost",
    "1.2.3.4, reject *:*",
    "1.2.3.4,, *",
    ",",
    "1.2.3.4;1.2.3.5",
    "1.2.3.4 5",
    "",
];

#[test]
fn rules_about_addresses_are_taken_and_refused_as_c_tor_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("torrc");
    let verbs = ["", "accept ", "reject6 ", "accept6 ", "Accept ", "permit "];
    for option in ["SocksPolicy", "ReachableAddresses"] {
        for (verb, rule) in verbs
            .iter()
            .flat_map(|verb| RULES.iter().map(move |rule| (verb, rule)))
        {
            // The first rule leaves something to be reached.
            let text = format!("{option} accept *:443\n{option} {verb}{rule}\n");
            fs::write(&file, &text).unwrap();
            let Some((good, said)) = ask(&["--verify-config"], &[&file], folder.path()) else {
                return;
            };
            let args = crate::config::ProxyArgs {
                torrc: vec![file.clone()],
                ..Default::default()
            };
            let ours = crate::config::load(&args);
            assert_eq!(good, ours.is_ok(), "{text}: {said} {:?}", ours.err());
            // A rule that has no effect there has none here.
            if let Ok(config) = ours {
                let left_out = config.warnings.iter().any(|w| w.contains("is left out"));
                let ignored = said.contains("Ignoring, but continuing to parse rules");
                assert_eq!(ignored, left_out, "{text}: {said} {:?}", config.warnings);
            }
        }
    }
}
