//! The closed list of reasons why a request fails, and the table of reply codes for each protocol.
//!
//! The codes F0 to F5 are from Tor proposal 304, F6 and F7 are later additions of C tor. The plain
//! column contains C tor's replies on a port without `ExtendedErrors`: never a code above 08.

/// Why a request was refused or failed.
///
/// This describes the outcome of a whole request, never of a single attempt. It contains no type of
/// the Tor crates: [`crate::tor::arti_errors`] converts their errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    // --- The onion service and the path to it ---
    /// No directory has a descriptor: the service is offline, was never published, or its address
    /// is outdated.
    DescriptorNotFound,
    /// The descriptor is damaged, wrongly signed, or cannot be decoded.
    DescriptorInvalid,
    /// The service has left all introduction points of its descriptor.
    IntroductionFailed,
    /// The introduction was acknowledged, but the service never joined the rendezvous point; or,
    /// although circuits can be built, no relay agreed to be the rendezvous point.
    RendezvousFailed,
    /// The service requires client authorization, and we have no key for it.
    ClientAuthMissing,
    /// The service requires client authorization, and our key is wrong or was revoked.
    ClientAuthWrong,
    /// The name ends in `.onion` and is not the address of an onion service.
    AddressInvalid,
    /// No introduction point answered in time.
    IntroductionTimedOut,
    /// The directories that hold the descriptor could not be reached.
    DirectoriesUnreachable,
    /// The directories that hold the descriptor did not answer in time.
    DirectoriesTimedOut,
    /// A file with a client authorization key could not be read.
    ClientAuthUnreadable,

    // --- The stream: the reply of the exit or the service (tor-spec, "Closing streams") ---
    /// END MISC, or an unknown reason.
    StreamFailed,
    /// END RESOLVEFAILED: the exit found no address for the name.
    NameNotResolved,
    /// The exit found addresses for the name, but none of the requested family.
    NoSuchFamily,
    /// END CONNECTREFUSED: the destination refused the connection.
    ConnectionRefused,
    /// END EXITPOLICY, or no exit allows the port.
    ExitPolicyRefused,
    /// END DESTROY, or the circuit broke while the stream was being opened.
    CircuitDestroyed,
    /// END DONE in reply to BEGIN: the onion service does not have this port.
    StreamClosed,
    /// END TIMEOUT, or no reply to BEGIN in time.
    ConnectionTimedOut,
    /// END NOROUTE: the exit has no route to the destination.
    NoRoute,
    /// END HIBERNATING: the relay has used up its traffic allowance.
    RelayHibernating,
    /// END INTERNAL: the relay had an internal error.
    RelayInternal,
    /// END RESOURCELIMIT: the relay is too busy.
    RelayBusy,
    /// END CONNRESET: the destination reset the connection.
    ConnectionReset,
    /// END TORPROTOCOL: the relay objected to what we sent.
    ProtocolViolation,
    /// END NOTDIRECTORY: the relay does not serve directory information.
    NotDirectory,

    // --- The port and its rules ---
    /// The destination is invalid: port 0, or a `.exit` name.
    DestinationInvalid,
    /// A flag of the port, or another setting, forbids this kind of traffic.
    TrafficForbidden,
    /// The destination is a private address, or a name for one, which exits do not connect to.
    PrivateAddress,
    /// An onion address cannot be resolved to an IP address.
    OnionNotResolvable,

    // --- This program and its machine ---
    /// The Tor client was not ready before the deadline.
    NotBootstrapped,
    /// No circuit could be built: probably this machine is offline.
    NoCircuit,
    /// The deadline passed before the cause was known.
    DeadlinePassed,
    /// This machine's clock is wrong, so validity periods cannot be checked.
    ClockSkewed,
    /// A bug in this program or in the Tor crates.
    Internal,
}

/// The replies of all protocols for one [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// SOCKS5 reply code on a port with `ExtendedErrors` (RFC 1928 section 6; proposal 304).
    pub extended: u8,
    /// SOCKS5 reply code on every other port: never above 08.
    pub plain: u8,
    /// SOCKS4 reply code: always 5B, "rejected or failed".
    pub socks4: u8,
    /// HTTP status for a CONNECT request (Tor's HTTP CONNECT specification).
    pub http: u16,
    /// Token for the `Tor-Request-Failed` header.
    pub token: &'static str,
    /// A short name, for logs and people.
    pub name: &'static str,
    /// One sentence about what happened, for people.
    pub sentence: &'static str,
}

/// The SOCKS4 code for every failure.
const REJECTED: u8 = 0x5B;

/// Builds a row; the arguments are in the order of the columns.
const fn row(
    extended: u8,
    plain: u8,
    http: u16,
    token: &'static str,
    name: &'static str,
    sentence: &'static str,
) -> Row {
    Row {
        extended,
        plain,
        socks4: REJECTED,
        http,
        token,
        name,
        sentence,
    }
}

impl Failure {
    /// Every failure, in the order of the table.
    pub const ALL: &'static [Failure] = &[
        Failure::DescriptorNotFound,
        Failure::DescriptorInvalid,
        Failure::IntroductionFailed,
        Failure::RendezvousFailed,
        Failure::ClientAuthMissing,
        Failure::ClientAuthWrong,
        Failure::AddressInvalid,
        Failure::IntroductionTimedOut,
        Failure::DirectoriesUnreachable,
        Failure::DirectoriesTimedOut,
        Failure::ClientAuthUnreadable,
        Failure::StreamFailed,
        Failure::NameNotResolved,
        Failure::NoSuchFamily,
        Failure::ConnectionRefused,
        Failure::ExitPolicyRefused,
        Failure::CircuitDestroyed,
        Failure::StreamClosed,
        Failure::ConnectionTimedOut,
        Failure::NoRoute,
        Failure::RelayHibernating,
        Failure::RelayInternal,
        Failure::RelayBusy,
        Failure::ConnectionReset,
        Failure::ProtocolViolation,
        Failure::NotDirectory,
        Failure::DestinationInvalid,
        Failure::TrafficForbidden,
        Failure::PrivateAddress,
        Failure::OnionNotResolvable,
        Failure::NotBootstrapped,
        Failure::NoCircuit,
        Failure::DeadlinePassed,
        Failure::ClockSkewed,
        Failure::Internal,
    ];

    /// Returns this failure's row of the table.
    ///
    /// Plain codes follow C tor's `stream_end_reason_to_socks5_response`. For F1 and F3, which C tor
    /// never replies with, they follow its specification.
    pub const fn row(self) -> Row {
        use Failure as F;
        match self {
            F::DescriptorNotFound => row(
                0xF0,
                0x04,
                503,
                "onionport/HS-DESC-NOT-FOUND",
                "descriptor not found",
                "No directory knows this onion service: it is offline, or was never published.",
            ),
            F::DescriptorInvalid => row(
                0xF1,
                0x04,
                503,
                "onionport/HS-DESC-INVALID",
                "descriptor invalid",
                "The onion service's descriptor is damaged or wrongly signed.",
            ),
            F::IntroductionFailed => row(
                0xF2,
                0x04,
                503,
                "onionport/HS-INTRO-FAILED",
                "introduction failed",
                "The introduction points do not know the onion service: it probably went offline a short time ago.",
            ),
            F::RendezvousFailed => row(
                0xF3,
                0x06,
                504,
                "onionport/HS-REND-FAILED",
                "rendezvous failed",
                "The introduction was passed on, but the onion service never joined the rendezvous point; or no relay agreed to be one.",
            ),
            F::ClientAuthMissing => row(
                0xF4,
                0x01,
                503,
                "onionport/HS-CLIENT-AUTH-MISSING",
                "client authorization missing",
                "The onion service requires a client authorization key, and none is stored for it.",
            ),
            F::ClientAuthWrong => row(
                0xF5,
                0x01,
                403,
                "onionport/HS-CLIENT-AUTH-WRONG",
                "client authorization wrong",
                "The onion service does not accept the stored client authorization key.",
            ),
            F::AddressInvalid => row(
                0xF6,
                0x01,
                400,
                "onionport/HS-BAD-ADDRESS",
                "onion address invalid",
                "This is not the address of an onion service: it is mistyped, cut short or outdated.",
            ),
            F::IntroductionTimedOut => row(
                0xF7,
                0x04,
                504,
                "onionport/HS-INTRO-TIMED-OUT",
                "introduction timed out",
                "None of the onion service's introduction points answered in time.",
            ),
            F::DirectoriesUnreachable => row(
                0x04,
                0x04,
                503,
                "onionport/HS-DIRS-UNREACHABLE",
                "onion directories unreachable",
                "The directories that hold the onion service's descriptor could not be reached.",
            ),
            F::DirectoriesTimedOut => row(
                0x06,
                0x06,
                504,
                "onionport/HS-DIRS-TIMED-OUT",
                "onion directories timed out",
                "The directories that hold the onion service's descriptor did not answer in time.",
            ),
            F::ClientAuthUnreadable => row(
                0x01,
                0x01,
                500,
                "onionport/CLIENT-AUTH-UNREADABLE",
                "authorization key unreadable",
                "The stored client authorization keys could not be read; the log has the reason.",
            ),
            F::StreamFailed => row(
                0x01,
                0x01,
                500,
                "end/MISC",
                "connection failed",
                "The other end of the circuit could not open the connection and gave no reason.",
            ),
            F::NameNotResolved => row(
                0x04,
                0x04,
                503,
                "end/RESOLVEFAILED",
                "name not resolved",
                "No exit relay found an address for this host name.",
            ),
            F::NoSuchFamily => row(
                0x04,
                0x04,
                503,
                "onionport/NO-SUCH-FAMILY",
                "no address of this family",
                "The host has addresses, but none of the requested family.",
            ),
            F::ConnectionRefused => row(
                0x05,
                0x05,
                403,
                "end/CONNECTREFUSED",
                "connection refused",
                "The destination refused the connection.",
            ),
            F::ExitPolicyRefused => row(
                0x02,
                0x02,
                503,
                "end/EXITPOLICY",
                "refused by exit policy",
                "No exit relay carries connections to this address and port.",
            ),
            F::CircuitDestroyed => row(
                0x01,
                0x01,
                502,
                "end/DESTROY",
                "circuit destroyed",
                "The circuit broke while the connection was being opened.",
            ),
            F::StreamClosed => row(
                0x05,
                0x05,
                502,
                "end/DONE",
                "no such port",
                "The onion service is there, but offers nothing on this port.",
            ),
            F::ConnectionTimedOut => row(
                0x06,
                0x06,
                504,
                "end/TIMEOUT",
                "connection timed out",
                "The destination did not answer in time.",
            ),
            F::NoRoute => row(
                0x04,
                0x04,
                503,
                "end/NOROUTE",
                "no route",
                "The exit relay has no route to the destination.",
            ),
            F::RelayHibernating => row(
                0x01,
                0x01,
                502,
                "end/HIBERNATING",
                "relay hibernating",
                "The relay has used up its traffic allowance.",
            ),
            F::RelayInternal => row(
                0x01,
                0x01,
                502,
                "end/INTERNAL",
                "relay error",
                "The relay had an error of its own.",
            ),
            F::RelayBusy => row(
                0x01,
                0x01,
                502,
                "end/RESOURCELIMIT",
                "relay too busy",
                "The relay is too busy to open the connection.",
            ),
            F::ConnectionReset => row(
                0x05,
                0x05,
                503,
                "end/CONNRESET",
                "connection reset",
                "The destination reset the connection.",
            ),
            F::ProtocolViolation => row(
                0x01,
                0x01,
                502,
                "end/TORPROTOCOL",
                "Tor protocol violation",
                "A relay objected to what it was sent.",
            ),
            F::NotDirectory => row(
                0x01,
                0x01,
                500,
                "end/NOTDIRECTORY",
                "not a directory",
                "Directory information was requested from a relay that has none.",
            ),
            F::DestinationInvalid => row(
                0x01,
                0x01,
                400,
                "onionport/BAD-DESTINATION",
                "destination invalid",
                "This destination cannot be connected to through Tor.",
            ),
            F::TrafficForbidden => row(
                0x02,
                0x02,
                403,
                "onionport/FORBIDDEN",
                "forbidden on this port",
                "A flag of this port, or `reject_plaintext_ports`, forbids this kind of traffic.",
            ),
            F::PrivateAddress => row(
                0x01,
                0x01,
                403,
                "onionport/PRIVATE-ADDRESS",
                "private address",
                "Private and local addresses are not reached through Tor.",
            ),
            F::OnionNotResolvable => row(
                0x04,
                0x04,
                400,
                "onionport/ONION-NOT-RESOLVABLE",
                "onion address has no IP",
                "An onion service has no IP address: connect to its name instead.",
            ),
            F::NotBootstrapped => row(
                0x06,
                0x06,
                504,
                "onionport/NOT-BOOTSTRAPPED",
                "not connected to Tor",
                "The connection to the Tor network was not ready in time.",
            ),
            F::NoCircuit => row(
                0x01,
                0x01,
                502,
                "onionport/NO-CIRCUIT",
                "no circuit",
                "No circuit through the Tor network could be built: this computer may be offline.",
            ),
            F::DeadlinePassed => row(
                0x06,
                0x06,
                504,
                "onionport/DEADLINE",
                "timed out",
                "The request was not finished in time.",
            ),
            F::ClockSkewed => row(
                0x01,
                0x01,
                500,
                "onionport/CLOCK-SKEWED",
                "clock is wrong",
                "The clock of the computer that runs onionport is wrong, so validity periods cannot be checked.",
            ),
            F::Internal => row(
                0x01,
                0x01,
                500,
                "onionport/INTERNAL",
                "internal error",
                "The program met an internal error; the log has details.",
            ),
        }
    }

    /// Returns the SOCKS5 reply code for a port with or without `ExtendedErrors`.
    pub const fn socks5_code(self, extended_errors: bool) -> u8 {
        let row = self.row();
        if extended_errors {
            row.extended
        } else {
            row.plain
        }
    }

    /// Whether the failure has an onion-service code (F0 to F7). It is then reported even while a stream on
    /// an older circuit is still awaited.
    pub(crate) const fn has_onion_code(self) -> bool {
        self.row().extended >= 0xF0
    }

    /// Returns the short name, for logs and tables.
    pub const fn name(self) -> &'static str {
        self.row().name
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.row().sentence)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_plain_code_is_above_08_and_no_code_means_success() {
        for failure in Failure::ALL {
            let row = failure.row();
            assert!((0x01..=0x08).contains(&row.plain), "{failure:?}");
            assert!(
                row.extended <= 0x08 || (0xF0..=0xF7).contains(&row.extended),
                "{failure:?}"
            );
            assert_ne!(row.extended, 0, "{failure:?}");
            assert_eq!(row.socks4, 0x5B, "{failure:?}");
            assert!((400..600).contains(&row.http), "{failure:?}");
        }
    }

    #[test]
    fn the_two_codes_differ_only_if_the_extended_one_is_an_onion_code() {
        for failure in Failure::ALL {
            let row = failure.row();
            assert_eq!(
                row.extended >= 0xF0,
                row.extended != row.plain,
                "{failure:?}"
            );
        }
    }

    #[test]
    fn each_onion_code_belongs_to_exactly_one_failure() {
        for code in 0xF0..=0xF7 {
            let owners = Failure::ALL
                .iter()
                .filter(|f| f.row().extended == code)
                .count();
            assert_eq!(owners, 1, "{code:02X}");
        }
    }

    #[test]
    fn names_tokens_and_sentences_are_distinct() {
        for (i, a) in Failure::ALL.iter().enumerate() {
            for b in &Failure::ALL[i + 1..] {
                assert_ne!(a.row().name, b.row().name);
                assert_ne!(a.row().token, b.row().token);
                assert_ne!(a.row().sentence, b.row().sentence);
            }
        }
    }

    /// The lines of a document that `is_row` takes for rows of a table of failures.
    fn rows(document: &str, is_row: fn(&[&str]) -> bool) -> Vec<&str> {
        let lines = document.lines();
        lines
            .filter(|line| is_row(&line.split(" | ").collect::<Vec<_>>()))
            .collect()
    }

    /// The tables in the documents are written by hand; this compares them with the program.
    #[test]
    fn the_reply_codes_page_lists_every_failure() {
        let page = include_str!("../docs/reply-codes.md");
        let expected: Vec<String> = Failure::ALL
            .iter()
            .map(|failure| {
                let row = failure.row();
                format!(
                    "| {} | `{:02X}` | `{:02X}` | `{}` | {} |",
                    row.name, row.extended, row.plain, row.http, row.sentence
                )
            })
            .collect();
        let found = rows(page, |cells| cells.len() == 5 && cells[1].starts_with('`'));
        assert_eq!(found, expected, "docs/reply-codes.md");
    }

    #[test]
    fn the_readme_lists_the_failures_with_a_code_of_their_own() {
        let readme = include_str!("../README.md");
        let expected: Vec<String> = Failure::ALL
            .iter()
            .map(|failure| failure.row())
            .filter(|row| row.extended >= 0xF0)
            .map(|row| {
                format!(
                    "| `{:02X}` | `{:02X}` | {} | {} |",
                    row.extended, row.plain, row.name, row.sentence
                )
            })
            .collect();
        let found = rows(readme, |cells| cells[0].starts_with("| `F"));
        assert_eq!(found, expected, "README.md");
    }
}
