//! The configuration files of all nodes, and the voting schedule that they share.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::network::{RelayId, Role};

/// Seconds for exchanging votes, and again for exchanging signatures.
pub(crate) const VOTE_DELAY: u64 = 2;

/// Voting intervals in seconds. They divide half an hour, which tor requires.
const VOTING_INTERVALS: [u64; 5] = [300, 360, 450, 600, 900];

/// Seconds that should be left until the next time period when a network starts.
const MIN_REST_OF_PERIOD: u64 = 45 * 60;

/// The times at which the authorities vote, from which the length of an onion service's time period follows.
///
/// C tor in testing mode derives the time period from the voting interval and ignores the consensus parameter
/// `hsdir_interval`, which arti uses. Both must result in the same period, or the two look for descriptors under different
/// keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Seconds between two votes.
    pub(crate) voting_interval: u64,
}

impl Schedule {
    /// Chooses the interval so that the time period does not end soon. After its end, a service that was killed before is "not
    /// found" instead of the failure that a test expects.
    pub(crate) fn choose() -> Self {
        Self::at(unix_now())
    }

    fn at(now: u64) -> Self {
        let rest = |interval: &u64| {
            Self {
                voting_interval: *interval,
            }
            .rest_of_period(now)
        };
        let voting_interval = VOTING_INTERVALS
            .into_iter()
            .find(|interval| rest(interval) >= MIN_REST_OF_PERIOD)
            .or_else(|| VOTING_INTERVALS.into_iter().max_by_key(rest))
            .unwrap_or(VOTING_INTERVALS[0]);
        Self { voting_interval }
    }

    /// Returns the length of a time period in seconds: 24 voting intervals.
    pub(crate) fn period(self) -> u64 {
        24 * self.voting_interval
    }

    /// Returns the length of a time period in minutes, the unit of rend-spec-v3.
    pub(crate) fn period_minutes(self) -> u64 {
        self.period() / 60
    }

    /// Returns the number of the time period at a Unix time. Time periods begin half their length later than multiples of it.
    pub(crate) fn period_number(self, now: u64) -> u64 {
        (now - self.period() / 2) / self.period()
    }

    /// Returns the seconds from `now` to the end of the time period.
    fn rest_of_period(self, now: u64) -> u64 {
        self.period() - (now - self.period() / 2) % self.period()
    }

    /// Returns the `TestingV3AuthVotingStartOffset` with which an interval starts at the Unix time `valid_after`.
    pub(crate) fn offset_for(self, valid_after: u64) -> u64 {
        valid_after % self.voting_interval
    }
}

/// Returns the Unix time in seconds.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// The settings that all nodes of a network share.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    /// The `DirAuthority` lines.
    pub(crate) authority_lines: String,
    /// The log level of all nodes: `notice`, `info` or `debug`.
    pub(crate) log_level: String,
    /// Whether relays and services use the scheduler KIST; otherwise they send each cell at once.
    pub(crate) kist: bool,
}

impl Common {
    /// Returns the part of a torrc that all nodes share.
    fn head(&self, folder: &Path) -> String {
        let folder = folder.display();
        let level = &self.log_level;
        let authorities = &self.authority_lines;
        let this_process = std::process::id();
        // - GeoIPFile: loading the default files takes every node a second of processor time.
        // - DisableDebuggerAttachment: by default tor denies other processes access to its memory, which
        //   `Network::corrupt_descriptor` needs.
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
             __OwningControllerProcess {this_process}\n\
             {authorities}"
        )
    }

    /// Returns the scheduler line for relays and services.
    fn scheduler(&self) -> &'static str {
        if self.kist {
            ""
        } else {
            "Schedulers Vanilla\n"
        }
    }

    /// Returns a relay's torrc.
    pub(crate) fn relay(&self, folder: &Path, relay: &RelayPart<'_>) -> String {
        let head = self.head(folder) + self.scheduler();
        let RelayPart {
            nickname,
            or_port,
            listen_port,
            exit,
            resolv_conf,
        } = relay;
        let or_port = match listen_port {
            None => format!("OrPort 127.0.0.1:{or_port}"),
            Some(listen_port) => format!(
                "OrPort 127.0.0.1:{or_port} NoListen\nOrPort 127.0.0.1:{listen_port} NoAdvertise"
            ),
        };
        if !exit {
            return format!(
                "{head}Nickname {nickname}\nAddress 127.0.0.1\n{or_port}\nSocksPort 0\nAssumeReachable 1\nExitRelay 0\n"
            );
        }
        // The policy accepts all addresses, because a microdescriptor's port summary ignores a policy for 127.0.0.0/8 alone.
        // Exit connections are bound to loopback, so that no packet leaves this machine.
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

    /// Returns the lines that turn a relay into a bridge.
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

    /// Returns the lines that turn a relay into an authority.
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
        // - hs_intro_num_extra: by default a service has two introduction points more than configured, as a reserve.
        // - cbtmintimeout: circuits on loopback are built in milliseconds; a time-out learned from that would be too short
        //   as soon as the machine is busy.
        let mut parameters = format!(
            "hsdir_interval={} hs_intro_num_extra=0 cbtmintimeout=1000",
            schedule.period_minutes()
        );
        if let Some(timeout) = circuit_timeout_ms {
            let _ = write!(parameters, " cbtinitialtimeout={timeout}");
        }
        // Without shared randomness C tor and arti use the fallback value for the HSDir ring. With it, arti would misread C
        // tor's values, which carry no time, because the time periods here are not days.
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

    /// Returns the torrc of an onion service.
    pub(crate) fn service(&self, folder: &Path, lines: &[String]) -> String {
        self.client(folder, lines) + self.scheduler()
    }

    /// Returns the torrc of a client.
    pub(crate) fn client(&self, folder: &Path, lines: &[String]) -> String {
        let mut text = self.head(folder);
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// The settings of one relay.
pub(crate) struct RelayPart<'a> {
    pub(crate) nickname: &'a str,
    /// The port that the network knows.
    pub(crate) or_port: u16,
    /// The port that it listens on, if `or_port` is that of a forwarder.
    pub(crate) listen_port: Option<u16>,
    pub(crate) exit: bool,
    pub(crate) resolv_conf: &'a Path,
}

/// The further settings of a bridge with obfs4.
pub(crate) struct Obfs4Part<'a> {
    pub(crate) program: &'a Path,
    /// The port that the transport listens on.
    pub(crate) port: u16,
}

/// The further settings of an authority.
pub(crate) struct AuthorityPart<'a> {
    pub(crate) dir_port: u16,
    pub(crate) schedule: Schedule,
    /// Unix time of the first consensus.
    pub(crate) first_vote: u64,
    pub(crate) circuit_timeout_ms: Option<u32>,
    pub(crate) votes: &'a FlagVotes,
    /// The file with the text that [`bandwidths_file`] returns.
    pub(crate) bandwidths: &'a Path,
}

/// The relays that get each flag; `None` for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlagVotes {
    pub(crate) guards: Option<Vec<RelayId>>,
    pub(crate) hs_dirs: Option<Vec<RelayId>>,
    pub(crate) exits: Option<Vec<RelayId>>,
}

/// Returns a `DirAuthority` line.
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

/// Returns the file with the "measured" bandwidths for which the authorities vote.
///
/// Without it the first consensus contains the bandwidths that the relays measured themselves in the first seconds: only one
/// or two have done that. Every client would choose those as guard, rendezvous point and exit at the same time, and circuits
/// would fail. Spare relays get so little that clients choose others.
pub(crate) fn bandwidths_file<'a>(relays: impl Iterator<Item = (&'a RelayId, Role)>) -> String {
    let mut text = format!("{}\n", unix_now());
    for (id, role) in relays {
        let bandwidth = match role {
            // Kilobytes per second, close to the maximum: tor computes in bytes, with 31 bits. Authorities get 0 in the
            // consensus in any case.
            Role::Authority | Role::Relay => 2_000_000,
            Role::Spare => 100,
            // So little that a service almost never chooses one as its introduction point.
            Role::SparePath => 2,
        };
        let _ = writeln!(text, "node_id=${id} bw={bandwidth}");
    }
    text
}

/// Returns the resolver configuration of the exits.
pub(crate) fn resolv_conf(server: SocketAddr) -> String {
    format!("nameserver {server}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_period_ends_soon_after_the_start_of_a_network() {
        // Two days contain every phase of all lengths.
        for now in (1_700_000_000..1_700_000_000 + 2 * 86_400).step_by(60) {
            let schedule = Schedule::at(now);
            assert!(
                schedule.rest_of_period(now) >= MIN_REST_OF_PERIOD,
                "at {now}: {schedule:?}"
            );
        }
    }

    #[test]
    fn time_periods_are_numbered_as_in_the_specification() {
        // The example of rend-spec-v3: the number is 16903 at 2016-04-13 11:00 UTC, and 16904 from 12:00 on.
        let daily = Schedule {
            voting_interval: 3600,
        };
        assert_eq!(daily.period_minutes(), 1440);
        assert_eq!(daily.period_number(1_460_545_200), 16_903);
        assert_eq!(daily.period_number(1_460_548_800), 16_904);
    }
}
