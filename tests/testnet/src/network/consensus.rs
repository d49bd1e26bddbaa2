//! The wait from the start of the processes to a consensus that every relay has.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::{Relay, Role, Shared};
use crate::control::Control;
use crate::process::wait_for;
use crate::torrc::{VOTE_DELAY, unix_now};

/// How often the authorities vote at most until the consensus lists every relay with all its flags.
const MAX_VOTES: usize = 4;

/// How long the relays may take to upload their descriptors to the authorities.
const UPLOAD_LIMIT: Duration = Duration::from_secs(40);

impl Shared {
    /// Waits until the control sockets of all relays answer and every relay has a complete consensus.
    pub(super) fn reach_consensus(&self) -> Result<()> {
        let mut authorities = Vec::new();
        for relay in &self.relays {
            let control = relay.wait_for_control()?;
            if relay.role == Role::Authority {
                authorities.push(control);
            }
        }
        for control in &mut authorities {
            let what = "the relays' descriptors at the authorities";
            wait_for(what, UPLOAD_LIMIT, || {
                self.check_relays()?;
                let descriptors = control.info("desc/all-recent").unwrap_or_default();
                let count = descriptors
                    .lines()
                    .filter(|line| line.starts_with("router "))
                    .count();
                Ok((count >= self.relays.len()).then_some(()))
            })?;
        }
        let mut missing = String::new();
        for _ in 0..MAX_VOTES {
            self.vote(&mut authorities)?;
            missing = self.missing_flags(&mut authorities)?;
            if missing.is_empty() {
                return self.wait_for_directories();
            }
        }
        bail!("after {MAX_VOTES} votes the consensus lacks: {missing}")
    }

    fn check_relays(&self) -> Result<()> {
        self.relays.iter().try_for_each(Relay::check_alive)
    }

    /// Makes all authorities vote and waits for a new consensus.
    ///
    /// The authorities vote at multiples of the interval plus an offset. This sets the offset so that the next vote is due.
    fn vote(&self, authorities: &mut [Control]) -> Result<()> {
        let valid_after = unix_now() + 2 * VOTE_DELAY + 1;
        let offset = self.schedule.offset_for(valid_after);
        let before: Vec<_> = authorities.iter_mut().map(consensus).collect();
        for control in authorities.iter_mut() {
            control.command(&format!("SETCONF TestingV3AuthVotingStartOffset={offset}"))?;
        }
        // A time-out is not an error: an authority that missed the votes of the others has no consensus until the next vote.
        let limit = Duration::from_secs(2 * VOTE_DELAY + 6);
        let _ = wait_for("the vote", limit, || {
            self.check_relays()?;
            let now: Vec<_> = authorities.iter_mut().map(consensus).collect();
            Ok(now
                .iter()
                .zip(&before)
                .all(|(now, before)| now.is_some() && now != before)
                .then_some(()))
        });
        self.check_relays()
    }

    /// Describes the flags that the authorities' consensuses lack; empty if they are complete.
    fn missing_flags(&self, authorities: &mut [Control]) -> Result<String> {
        let mut missing = String::new();
        for (number, control) in authorities.iter_mut().enumerate() {
            let Some(text) = consensus(control) else {
                write!(missing, "everything at authority {number}; ")?;
                continue;
            };
            let flags = flags_by_nickname(&text);
            for relay in &self.relays {
                let wanted: &[&str] = match relay.role {
                    Role::Spare => &["Running", "Stable", "Fast", "Valid"],
                    Role::SparePath => &["Guard", "Running", "Stable", "Fast", "Valid"],
                    Role::Authority | Role::Relay => &[
                        "Exit", "Guard", "HSDir", "Running", "Stable", "Fast", "Valid",
                    ],
                };
                let has = flags
                    .get(relay.nickname.as_str())
                    .map_or(&[][..], Vec::as_slice);
                for flag in wanted.iter().filter(|flag| !has.contains(flag)) {
                    write!(missing, "{flag} of {}; ", relay.nickname)?;
                }
            }
        }
        Ok(missing)
    }

    /// Waits until every relay has the consensus and the descriptors of the other relays.
    fn wait_for_directories(&self) -> Result<()> {
        // The relays retry the download of the consensus at growing intervals; a reload makes them retry at once. The
        // authorities have the consensus, and a reload would reset the voting offset that was set with SETCONF.
        self.relays
            .iter()
            .filter(|r| r.role != Role::Authority)
            .try_for_each(|relay| relay.signal(Signal::SIGHUP))?;
        self.relays.iter().try_for_each(Relay::wait_for_directory)
    }
}

/// Returns an authority's consensus, if it has one.
fn consensus(control: &mut Control) -> Option<String> {
    control
        .info("dir/status-vote/current/consensus")
        .filter(|text| !text.is_empty())
}

/// Maps each relay's nickname (from the `r` lines of a consensus) to its flags (from the `s` lines).
fn flags_by_nickname(consensus: &str) -> HashMap<&str, Vec<&str>> {
    let mut flags = HashMap::new();
    let mut nickname = "";
    for line in consensus.lines() {
        let mut words = line.split(' ');
        match words.next() {
            Some("r") => nickname = words.next().unwrap_or_default(),
            Some("s") => {
                flags.insert(nickname, words.collect());
            }
            _ => {}
        }
    }
    flags
}
