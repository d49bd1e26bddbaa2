//! The keys of relays and authorities, made by tor's own programs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, anyhow};

use super::builder::Plan;
use super::{Relay, RelayId};
use crate::process::{find_program, run};
use crate::workdir::private_folder;

/// Makes the keys of all nodes, side by side.
pub(super) fn make_keys(plans: &[Plan]) -> Result<Vec<Relay>> {
    thread::scope(|scope| {
        let workers: Vec<_> = plans
            .iter()
            .map(|plan| scope.spawn(|| make_relay_keys(plan)))
            .collect();
        workers
            .into_iter()
            .map(|w| w.join().map_err(|_| anyhow!("making keys failed"))?)
            .collect()
    })
}

/// Lets tor make the keys of one node and reads who it is.
fn make_relay_keys(plan: &Plan) -> Result<Relay> {
    let data = plan.folder.join("data");
    private_folder(&data.join("keys"))?;
    let v3ident = plan
        .dir_port
        .map(|port| make_authority_keys(&data.join("keys"), port))
        .transpose()?;
    let empty = plan.folder.join("empty");
    fs::write(&empty, "")?;
    let mut command = Command::new(find_program("tor")?);
    command
        .args([
            "--defaults-torrc",
            "/dev/null",
            "--hush",
            "--list-fingerprint",
            "-f",
        ])
        .arg(&empty);
    command.arg("--DataDirectory").arg(&data);
    command.args([
        "--Nickname",
        &plan.nickname,
        "--Address",
        "127.0.0.1",
        "--ORPort",
        &format!("127.0.0.1:{}", plan.or_port),
    ]);
    run(command, "")?;
    let read = |file: &str| -> Result<String> {
        let text =
            fs::read_to_string(data.join(file)).with_context(|| format!("tor made no {file}"))?;
        Ok(text
            .split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned())
    };
    let fingerprint = read("fingerprint")?;
    Ok(Relay {
        id: RelayId::from_fingerprint(&fingerprint)
            .with_context(|| format!("no fingerprint: {fingerprint:?}"))?,
        role: plan.role,
        nickname: plan.nickname.clone(),
        ed_identity: read("fingerprint-ed25519")?,
        or_port: plan.or_port,
        behind: None,
        v3ident,
        folder: plan.folder.clone(),
        tor: Mutex::new(None),
    })
}

/// Makes an authority's identity, signing key and certificate; gives its `v3ident`.
fn make_authority_keys(keys: &Path, dir_port: u16) -> Result<String> {
    let mut command = Command::new(find_program("tor-gencert")?);
    command.args([
        "--create-identity-key",
        "--passphrase-fd",
        "0",
        "-m",
        "12",
        "-a",
        &format!("127.0.0.1:{dir_port}"),
    ]);
    let certificate = keys.join("authority_certificate");
    command.arg("-i").arg(keys.join("authority_identity_key"));
    command.arg("-s").arg(keys.join("authority_signing_key"));
    command.arg("-c").arg(&certificate);
    run(command, "any\n")?;
    let text = fs::read_to_string(certificate).context("tor-gencert made no certificate")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("fingerprint "));
    Ok(line
        .context("the authority certificate has no fingerprint")?
        .to_owned())
}
