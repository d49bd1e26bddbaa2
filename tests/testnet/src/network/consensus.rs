//! From processes just started to a consensus that every relay knows.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::{POLL, Relay, Role, Shared};
use crate::control::Control;
use crate::process::wait_for;
use crate::torrc::{VOTE_DELAY, unix_now};

/// How often the authorities are asked to vote until every relay is listed in full.
const VOTES: usize = 4;

/// How long a `tor` may take until its control socket answers.
const SOCKET_LIMIT: Duration = Duration::from_secs(30);

/// How long the relays may take to tell the authorities about themselves.
const UPLOAD_LIMIT: Duration = Duration::from_secs(40);

/// How long relays may take to learn the consensus.
const SPREAD_LIMIT: Duration = Duration::from_secs(60);

impl Shared {
    /// From freshly started processes to a full consensus that every relay knows.
    pub(super) fn reach_consensus(&self) -> Result<()> {
        let mut authorities = Vec::new();
        for relay in &self.relays {
            let control = wait_for(
                &format!("the control socket of {}", relay.nickname),
                SOCKET_LIMIT,
                POLL,
                || {
                    relay.check_alive()?;
                    Ok(relay.control().ok())
                },
            )?;
            if relay.role == Role::Authority {
                authorities.push(control);
            }
        }
        for control in &mut authorities {
            wait_for(
                "the relays' descriptors at the authorities",
                UPLOAD_LIMIT,
                POLL,
                || {
                    self.check_relays()?;
                    let known = control.info("desc/all-recent").unwrap_or_default();
                    let known = known
                        .lines()
                        .filter(|line| line.starts_with("router "))
                        .count();
                    Ok((known >= self.relays.len()).then_some(()))
                },
            )?;
        }
        let mut missing = String::new();
        for _ in 0..VOTES {
            self.vote(&mut authorities)?;
            missing = self.missing_flags(&mut authorities)?;
            if missing.is_empty() {
                return self.spread();
            }
        }
        bail!("the consensus still lacks, after {VOTES} votes: {missing}")
    }

    fn check_relays(&self) -> Result<()> {
        self.relays.iter().try_for_each(Relay::check_alive)
    }

    /// Lets all authorities vote now, and waits for a consensus newer than the one before.
    ///
    /// They vote by the clock, at multiples of the interval plus an offset: so the offset is what we change.
    fn vote(&self, authorities: &mut [Control]) -> Result<()> {
        let valid_after = unix_now() + 2 * VOTE_DELAY + 1;
        let offset = self.schedule.offset_for(valid_after);
        let before: Vec<_> = authorities.iter_mut().map(consensus).collect();
        for control in authorities.iter_mut() {
            control.command(&format!("SETCONF TestingV3AuthVotingStartOffset={offset}"))?;
        }
        // An authority that lost the votes of the others has none to show; the next vote mends it.
        let limit = Duration::from_secs(2 * VOTE_DELAY + 6);
        let _ = wait_for("the vote", limit, POLL, || {
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

    /// What the consensus of an authority lacks, in words; empty if nothing.
    fn missing_flags(&self, authorities: &mut [Control]) -> Result<String> {
        let mut missing = String::new();
        for (number, control) in authorities.iter_mut().enumerate() {
            let Some(text) = consensus(control) else {
                write!(missing, "all of authority {number}; ")?;
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

    /// Waits until every relay knows the consensus and the other relays.
    fn spread(&self) -> Result<()> {
        // The relays have asked for a consensus in vain for a while, at growing distances; a reload makes them ask again now.
        // Not the authorities: they have it, and would forget when they were told to vote.
        self.relays
            .iter()
            .filter(|r| r.role != Role::Authority)
            .try_for_each(|relay| relay.signal(Signal::SIGHUP))?;
        self.relays
            .iter()
            .try_for_each(|relay| self.wait_until_informed(relay))
    }

    pub(super) fn wait_until_informed(&self, relay: &Relay) -> Result<()> {
        let mut control = wait_for(
            &format!("the control socket of {}", relay.nickname),
            SOCKET_LIMIT,
            POLL,
            || {
                relay.check_alive()?;
                Ok(relay.control().ok())
            },
        )?;
        wait_for(
            &format!("{} to learn the consensus", relay.nickname),
            SPREAD_LIMIT,
            POLL,
            || {
                relay.check_alive()?;
                Ok((control.info("status/enough-dir-info").as_deref() == Some("1")).then_some(()))
            },
        )
    }
}

fn consensus(control: &mut Control) -> Option<String> {
    control
        .info("dir/status-vote/current/consensus")
        .filter(|text| !text.is_empty())
}

/// The `s` lines of a consensus, under the nicknames of the `r` lines before them.
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
