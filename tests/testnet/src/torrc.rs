//! The configuration files of all nodes, and the few things they must agree on.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::network::{RelayId, Role};

/// Seconds for collecting votes, and again for collecting signatures.
pub(crate) const VOTE_DELAY: u64 = 2;

/// A voting interval that tor accepts (it divides half an hour) makes an onion service time period of 24 times its length.
const VOTING_INTERVALS: [u64; 5] = [300, 360, 450, 600, 900];

/// How far away the next turn of the period should be.
const WANTED_CALM: u64 = 45 * 60;

/// When the authorities vote, and with that how long an onion service time period is.
///
/// C tor in testing mode takes the period from the voting interval and does not look at the consensus parameter `hsdir_interval`;
/// arti goes by the parameter. So both must say the same, or the two look for descriptors under different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Seconds between two votes.
    pub(crate) voting_interval: u64,
}

impl Schedule {
    /// Chooses the interval so that no time period turns soon: a service that was killed before the turn would be
    /// "not found" after it, which is another failure than the one wanted.
    pub(crate) fn for_now() -> Self {
        Self::at(unix_now())
    }

    fn at(now: u64) -> Self {
        let calm = |interval: &u64| {
            Self {
                voting_interval: *interval,
            }
            .seconds_to_turn(now)
        };
        let voting_interval = VOTING_INTERVALS
            .into_iter()
            .find(|interval| calm(interval) >= WANTED_CALM)
            .or_else(|| VOTING_INTERVALS.into_iter().max_by_key(calm))
            .unwrap_or(VOTING_INTERVALS[0]);
        Self { voting_interval }
    }

    /// The length of a time period in seconds: 24 rounds.
    pub(crate) fn period(self) -> u64 {
        24 * self.voting_interval
    }

    /// The length of a time period in minutes, the unit of the protocol.
    pub(crate) fn period_minutes(self) -> u64 {
        self.period() / 60
    }

    /// The number of the time period at a point of Unix time. Periods are shifted by half their length.
    pub(crate) fn period_number(self, now: u64) -> u64 {
        (now - self.period() / 2) / self.period()
    }

    fn seconds_to_turn(self, now: u64) -> u64 {
        self.period() - (now - self.period() / 2) % self.period()
    }

    /// The `TestingV3AuthVotingStartOffset` that makes the time `valid_after` the start of an interval.
    pub(crate) fn offset_for(self, valid_after: u64) -> u64 {
        valid_after % self.voting_interval
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// What every node of a network is told.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    /// The `DirAuthority` lines.
    pub(crate) authority_lines: String,
    /// The level of the nodes' logs, `notice` or `info` or `debug`.
    pub(crate) log_level: String,
    /// Whether relays and services send in runs; else each cell at once.
    pub(crate) kist: bool,
}

impl Common {
    /// The part of a torrc that all nodes share.
    fn head(&self, folder: &Path) -> String {
        let folder = folder.display();
        let level = &self.log_level;
        let authorities = &self.authority_lines;
        let us = std::process::id();
        // Reading the lists of countries costs every node a second of the processor.
        // Tor forbids others of the same user to look into its memory unless told; corrupting descriptors needs it.
        format!(
            "TestingTorNetwork 1\n\
             DataDirectory {folder}/data\n\
             ControlSocket {folder}/control\n\
             CookieAuthentication 0\n\
             Log {level} file {folder}/log\n\
             SafeLogging 0\n\
             ShutdownWaitLength 1\n\
             DisableDebuggerAttachment 0\n\
             GeoIPFile /dev/null\n\
             GeoIPv6File /dev/null\n\
             __OwningControllerProcess {us}\n\
             {authorities}"
        )
    }

    /// The line for those who carry what others measure.
    fn scheduler(&self) -> &'static str {
        if self.kist {
            ""
        } else {
            "Schedulers Vanilla\n"
        }
    }

    /// A relay's torrc.
    pub(crate) fn relay(&self, folder: &Path, relay: &RelayPart<'_>) -> String {
        let head = self.head(folder) + self.scheduler();
        let RelayPart {
            nickname,
            or_port,
            behind,
            exit,
            resolv_conf,
        } = relay;
        let or_port = match behind {
            None => format!("OrPort 127.0.0.1:{or_port}"),
            Some(own) => {
                format!("OrPort 127.0.0.1:{or_port} NoListen\nOrPort 127.0.0.1:{own} NoAdvertise")
            }
        };
        if !exit {
            return format!(
                "{head}Nickname {nickname}\nAddress 127.0.0.1\n{or_port}\nSocksPort 0\nAssumeReachable 1\nExitRelay 0\n"
            );
        }
        // An exit policy for 127.0.0.0/8 alone is dropped from the microdescriptor's summary of ports, so all must be
        // accepted. Binding exit connections to loopback keeps every packet on this machine nevertheless.
        let mut text = head;
        let _ = write!(
            text,
            "Nickname {nickname}\n\
             Address 127.0.0.1\n\
             {or_port}\n\
             SocksPort 0\n\
             AssumeReachable 1\n\
             ExitRelay 1\n\
             IPv6Exit 1\n\
             ExitPolicyRejectPrivate 0\n\
             ExitPolicy reject *:9\n\
             ExitPolicy reject *6:19\n\
             ExitPolicy reject *4:29\n\
             ExitPolicy reject 127.0.0.9:*\n\
             ExitPolicy accept *:*\n\
             OutboundBindAddressExit 127.0.0.1\n\
             OutboundBindAddressExit [::1]\n\
             ServerDNSResolvConfFile {}\n\
             ServerDNSDetectHijacking 0\n\
             ServerDNSTestAddresses\n\
             ServerDNSAllowBrokenConfig 1\n\
             ServerDNSSearchDomains 0\n",
            resolv_conf.display()
        );
        text
    }

    /// The lines that make a relay a bridge.
    pub(crate) fn bridge(&self, obfs4: Option<&Obfs4Part<'_>>) -> String {
        let mut text =
            "BridgeRelay 1\nPublishServerDescriptor 0\nBridgeDistribution none\n".to_owned();
        if let Some(Obfs4Part { program, port }) = obfs4 {
            let _ = write!(
                text,
                "ExtORPort auto\n\
                 ServerTransportPlugin obfs4 exec {}\n\
                 ServerTransportListenAddr obfs4 127.0.0.1:{port}\n",
                program.display()
            );
        }
        text
    }

    /// The lines that make a relay an authority.
    pub(crate) fn authority(&self, authority: &AuthorityPart<'_>) -> String {
        let AuthorityPart {
            dir_port,
            schedule,
            first_vote,
            circuit_timeout_ms,
            votes,
            bandwidths,
        } = authority;
        let interval = schedule.voting_interval;
        let offset = schedule.offset_for(*first_vote);
        // Tor makes two introduction points more than it was told, as a reserve; here it is to have those it was told.
        // On loopback circuits are built in milliseconds, and timeouts learned from that would be too short for
        // the first busy moment of the machine.
        let mut parameters = format!(
            "hsdir_interval={} hs_intro_num_extra=0 cbtmintimeout=1000",
            schedule.period_minutes()
        );
        if let Some(timeout) = circuit_timeout_ms {
            let _ = write!(parameters, " cbtinitialtimeout={timeout}");
        }
        // Without shared randomness both sides use the fallback value for the hash ring, always. With it, arti would misread
        // C tor's values, which say no time, in a network whose periods are not days.
        let mut text = format!(
            "AuthoritativeDirectory 1\n\
             V3AuthoritativeDirectory 1\n\
             ContactInfo testnet@localhost\n\
             DirPort 127.0.0.1:{dir_port}\n\
             V3AuthVotingInterval {interval}\n\
             V3AuthVoteDelay {VOTE_DELAY}\n\
             V3AuthDistDelay {VOTE_DELAY}\n\
             V3AuthNIntervalsValid 12\n\
             TestingV3AuthInitialVotingInterval {interval}\n\
             TestingV3AuthInitialVoteDelay {VOTE_DELAY}\n\
             TestingV3AuthInitialDistDelay {VOTE_DELAY}\n\
             TestingV3AuthVotingStartOffset {offset}\n\
             AuthDirSharedRandomness 0\n\
             AuthDirTestReachability 0\n\
             AuthDirFastGuarantee 1 KB\n\
             MinUptimeHidServDirectoryV2 0\n\
             TestingMinExitFlagThreshold 0\n\
             V3BandwidthsFile {}\n\
             ConsensusParams {parameters}\n",
            bandwidths.display()
        );
        let list = |ids: &[RelayId]| {
            ids.iter()
                .map(RelayId::fingerprint)
                .collect::<Vec<_>>()
                .join(",")
        };
        for (flag, ids) in [
            ("Guard", &votes.guards),
            ("HSDir", &votes.hs_dirs),
            ("Exit", &votes.exits),
        ] {
            let _ = match ids {
                None => writeln!(text, "TestingDirAuthVote{flag} *"),
                Some(ids) => writeln!(
                    text,
                    "TestingDirAuthVote{flag} {}\nTestingDirAuthVote{flag}IsStrict 1",
                    list(ids)
                ),
            };
        }
        text
    }

    /// The torrc of an onion service.
    pub(crate) fn service(&self, folder: &Path, lines: &[String]) -> String {
        self.client(folder, lines) + self.scheduler()
    }

    /// The torrc of a client, which relays nothing.
    pub(crate) fn client(&self, folder: &Path, lines: &[String]) -> String {
        let mut text = self.head(folder);
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// What one relay's torrc needs.
pub(crate) struct RelayPart<'a> {
    pub(crate) nickname: &'a str,
    /// The port that the network knows.
    pub(crate) or_port: u16,
    /// The port that it listens on, if that is another one.
    pub(crate) behind: Option<u16>,
    pub(crate) exit: bool,
    pub(crate) resolv_conf: &'a Path,
}

/// What the torrc of a bridge with obfs4 needs beside a relay's.
pub(crate) struct Obfs4Part<'a> {
    pub(crate) program: &'a Path,
    /// The port that the transport listens on.
    pub(crate) port: u16,
}

/// What an authority's torrc needs beside a relay's.
pub(crate) struct AuthorityPart<'a> {
    pub(crate) dir_port: u16,
    pub(crate) schedule: Schedule,
    /// Unix time of the first consensus.
    pub(crate) first_vote: u64,
    pub(crate) circuit_timeout_ms: Option<u32>,
    pub(crate) votes: &'a Votes,
    /// What [`bandwidths_file`] wrote.
    pub(crate) bandwidths: &'a Path,
}

/// Which relays get a flag; `None` for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Votes {
    pub(crate) guards: Option<Vec<RelayId>>,
    pub(crate) hs_dirs: Option<Vec<RelayId>>,
    pub(crate) exits: Option<Vec<RelayId>>,
}

/// A `DirAuthority` line.
pub(crate) fn authority_line(
    nickname: &str,
    or_port: u16,
    v3ident: &str,
    dir_port: u16,
    fingerprint: &str,
) -> String {
    format!(
        "DirAuthority {nickname} orport={or_port} no-v2 v3ident={v3ident} 127.0.0.1:{dir_port} {fingerprint}\n"
    )
}

/// The "measured" bandwidths that the authorities vote for.
///
/// Without them the first consensus has what relays say of themselves after some seconds: nothing, but for the one or two that have
/// tested themselves already. Those would then be everybody's guard, rendezvous point and exit, all at once, and circuits fail.
/// Spare relays get so little that nobody chooses them who can choose others.
pub(crate) fn bandwidths_file<'a>(relays: impl Iterator<Item = (&'a RelayId, Role)>) -> String {
    let mut text = format!("{}\n", unix_now());
    for (id, role) in relays {
        let bandwidth = match role {
            // As much as tor can reckon with (it counts bytes in 31 bits). The consensus says 0 for authorities all the same.
            Role::Authority | Role::Relay => 2_000_000,
            Role::Spare => 100,
            // So little that hardly ever a service chooses one as its introduction point.
            Role::SparePath => 2,
        };
        let _ = writeln!(text, "node_id=${id} bw={bandwidth}");
    }
    text
}

/// The resolver configuration of the exits.
pub(crate) fn resolv_conf(server: SocketAddr) -> String {
    format!("nameserver {server}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_period_turns_soon_whenever_the_network_starts() {
        // Two days hold every phase of all lengths.
        for now in (1_700_000_000..1_700_000_000 + 2 * 86_400).step_by(60) {
            let schedule = Schedule::at(now);
            assert!(
                schedule.seconds_to_turn(now) >= WANTED_CALM,
                "at {now}: {schedule:?}"
            );
        }
    }

    #[test]
    fn periods_are_counted_as_the_specification_says() {
        // rend-spec-v3: at 2016-04-13 11:00 UTC the daily period is 16903, since 12:00 it is 16904.
        let daily = Schedule {
            voting_interval: 3600,
        };
        assert_eq!(daily.period_minutes(), 1440);
        assert_eq!(daily.period_number(1_460_545_200), 16_903);
        assert_eq!(daily.period_number(1_460_548_800), 16_904);
    }
}
