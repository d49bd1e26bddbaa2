//! Headings, advice and progress shown for each failure.

use crate::failure::Failure;
use crate::inbound::http::site_error::SiteError;

/// What a failure page shows besides the failure's name and sentence.
pub(super) struct FailureMessage {
    /// The heading.
    pub(super) title: &'static str,
    pub(super) fault: FaultLocation,
    pub(super) advice: &'static [&'static str],
}

/// Where the cause of a failure lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultLocation {
    Address,
    Key,
    Service,
    Site,
    Network,
    Connection,
    Settings,
    Program,
}

/// One of the three hops from the user to the site.
pub(super) struct PathHop {
    pub(super) name: &'static str,
    pub(super) class: &'static str,
}

/// One step of a request.
pub(super) struct ProgressStep {
    pub(super) text: &'static str,
    pub(super) class: &'static str,
}

impl FaultLocation {
    /// Describes it to the user.
    pub(super) fn description(self) -> &'static str {
        match self {
            FaultLocation::Address => "The fault is in the address.",
            FaultLocation::Key => {
                "The service requires a valid key. The Tor network has delivered the service's descriptor."
            }
            FaultLocation::Service => {
                "The fault is most likely with the onion service. Your connection to Tor works."
            }
            FaultLocation::Site => {
                "The fault is most likely with the site. Your connection to Tor works."
            }
            FaultLocation::Network => "The fault is most likely in the Tor network.",
            FaultLocation::Connection => {
                "The fault is with the computer that runs onionport, or with its connection."
            }
            FaultLocation::Settings => "The cause is in onionport's configuration or files.",
            FaultLocation::Program => "The fault is in onionport itself.",
        }
    }

    /// Returns the three hops, with the CSS class of each: `good`, `bad` or `open` (not reached).
    pub(super) fn hops(self, onion: bool) -> [PathHop; 3] {
        let fault = match self {
            FaultLocation::Network => 1,
            FaultLocation::Service | FaultLocation::Site => 2,
            _ => 0,
        };
        let site = if onion { "Onion service" } else { "Site" };
        let class = |number: usize| match number.cmp(&fault) {
            std::cmp::Ordering::Less => "good",
            std::cmp::Ordering::Equal => "bad",
            std::cmp::Ordering::Greater => "open",
        };
        let first = match self {
            FaultLocation::Address => "Your address",
            FaultLocation::Key => "Your key",
            FaultLocation::Connection => "Your connection",
            FaultLocation::Settings => "Your settings",
            FaultLocation::Program => "onionport",
            _ => "You",
        };
        let names = [first, "Tor network", site];
        [0, 1, 2].map(|number| PathHop {
            name: names[number],
            class: match (self, number) {
                // The network delivered the descriptor; the key is missing or wrong.
                (FaultLocation::Key, 1) => "good",
                _ => class(number),
            },
        })
    }
}

const ONLINE: &str = "Check that the computer that runs onionport is online.";
const LATER: &str = "Try again in a few minutes.";
const OPERATOR: &str = "If you know who runs it, send them the code above.";
const CHECK: &str = "Compare the address with the one you were given, or look for a newer one.";

/// Returns the message for an error; `onion` if an onion service was requested.
pub(super) fn message(error: SiteError, onion: bool) -> FailureMessage {
    use Failure as F;
    let site = if onion {
        FaultLocation::Service
    } else {
        FaultLocation::Site
    };
    let (title, fault, advice): (_, _, &'static [&'static str]) = match error {
        SiteError::Closed | SiteError::TimedOut => {
            ("The site did not answer", site, &[LATER, OPERATOR])
        }
        SiteError::InvalidResponse => (
            "The site's answer is invalid or cannot be forwarded",
            site,
            &[
                "It may not be a website, or it may accept only https.",
                OPERATOR,
            ],
        ),
        SiteError::Failure(failure) => match failure {
            F::DescriptorNotFound => (
                "This onion service cannot be found",
                FaultLocation::Service,
                &["It is offline or gone: try again later.", CHECK],
            ),
            F::DescriptorInvalid => (
                "This onion service's directory entry is damaged",
                FaultLocation::Service,
                &[
                    "It renews the entry every hour or two: try again later.",
                    OPERATOR,
                ],
            ),
            F::IntroductionFailed => (
                "This onion service seems to be offline",
                FaultLocation::Service,
                &[
                    "It was probably online a short time ago and may come back: try again in a few minutes.",
                    OPERATOR,
                ],
            ),
            F::RendezvousFailed => (
                "This onion service does not respond",
                FaultLocation::Service,
                &[
                    "It may be overloaded or hang: try again in a few minutes.",
                    OPERATOR,
                ],
            ),
            F::ClientAuthMissing => (
                "This onion service requires a key",
                FaultLocation::Key,
                &["Request your private key from the operator of the service, and enter it here."],
            ),
            F::ClientAuthWrong => (
                "Your key is not accepted",
                FaultLocation::Key,
                &[
                    "The key may be mistyped, or the service has given you a new one: enter it again.",
                    "The service may also have withdrawn it: contact its operator.",
                ],
            ),
            F::AddressInvalid => (
                "This is not an onion address",
                FaultLocation::Address,
                &[
                    "An onion address has 56 letters and digits before .onion; one of them may be wrong or missing.",
                    "Addresses of 16 letters are obsolete: look for the site's new one.",
                ],
            ),
            F::IntroductionTimedOut => (
                "This onion service cannot be reached now",
                FaultLocation::Service,
                &[
                    "The relays that introduce visitors to it do not respond: try again in a few minutes.",
                    OPERATOR,
                ],
            ),
            F::DirectoriesUnreachable | F::DirectoriesTimedOut => (
                "The directories of onion services cannot be reached",
                FaultLocation::Network,
                &[
                    LATER,
                    "If other sites fail as well, check the connection of the computer that runs onionport.",
                ],
            ),
            F::ClientAuthUnreadable => (
                "The stored keys cannot be read",
                FaultLocation::Settings,
                &["onionport's log has the reason; it names key files only at level debug."],
            ),
            F::NameNotResolved => (
                "There is no such site",
                FaultLocation::Address,
                &["Check the name for typing errors.", LATER],
            ),
            F::ConnectionRefused => (
                "The site refused the connection",
                site,
                &["It may be switched off, or listen on another port.", LATER],
            ),
            F::StreamClosed => (
                "The onion service offers nothing on this port",
                FaultLocation::Service,
                &[
                    "The service itself is online: check the port in the address, or try https.",
                    OPERATOR,
                ],
            ),
            F::ExitPolicyRefused => (
                "No exit relay allows connections to this destination",
                FaultLocation::Network,
                &["Exit relays choose which ports they allow: another port, or https, may work."],
            ),
            F::ConnectionTimedOut => (
                "The site did not answer in time",
                site,
                &["It may be overloaded or switched off.", LATER],
            ),
            F::NoRoute => ("There is no route to the site", site, &[LATER]),
            F::ConnectionReset => ("The site reset the connection", site, &[LATER]),
            F::StreamFailed => ("The site could not be reached", site, &[LATER]),
            F::CircuitDestroyed
            | F::RelayHibernating
            | F::RelayInternal
            | F::RelayBusy
            | F::ProtocolViolation
            | F::NotDirectory => (
                "A relay could not carry the connection",
                FaultLocation::Network,
                &["Try again: onionport will take another path."],
            ),
            F::DestinationInvalid => (
                "This address is not valid",
                FaultLocation::Address,
                &["Check the address for typing errors."],
            ),
            F::TrafficForbidden => (
                "onionport does not allow this kind of traffic",
                FaultLocation::Settings,
                &[
                    "onionport's configuration forbids it, by a flag of its port or by reject_plaintext_ports: use another port or change the setting.",
                ],
            ),
            F::PrivateAddress => (
                "This address is private or local",
                FaultLocation::Address,
                &["The Tor network cannot reach it: open it without the proxy."],
            ),
            F::NoSuchFamily => (
                "The site has no address of the requested kind",
                FaultLocation::Site,
                &[
                    "It has only IPv4 or only IPv6 addresses, and only the other kind was requested.",
                ],
            ),
            F::OnionNotResolvable => (
                "An onion service has no IP address",
                FaultLocation::Address,
                &["Use its name."],
            ),
            F::NotBootstrapped => (
                "Not connected to the Tor network yet",
                FaultLocation::Connection,
                &[ONLINE, "If Tor is blocked where you are, set up a bridge."],
            ),
            F::NoCircuit => (
                "No path through the Tor network",
                FaultLocation::Connection,
                &[ONLINE, LATER],
            ),
            F::DeadlinePassed => ("This took too long", FaultLocation::Network, &[LATER]),
            F::ClockSkewed => (
                "The clock of the computer that runs onionport is wrong",
                FaultLocation::Connection,
                &["Set its date, time and time zone, and try again."],
            ),
            F::Internal => (
                "Something went wrong in onionport",
                FaultLocation::Program,
                &["Its log has the details.", LATER],
            ),
        },
    };
    FailureMessage {
        title,
        fault,
        advice,
    }
}

/// The steps to a response of an onion service.
const ONION: [&str; 7] = [
    "The address is well-formed",
    "A directory has the service's descriptor",
    "The descriptor is valid",
    "The descriptor can be decrypted with the available keys",
    "An introduction point forwards the request",
    "The service connects to the rendezvous point",
    "The service accepts the connection and answers",
];
/// The steps to a response through an exit.
const EXIT: [&str; 3] = [
    "A circuit to an exit relay is open",
    "The exit relay resolves the name",
    "The site accepts the connection and answers",
];

/// Returns how far the request got; empty if no step was tried.
pub(super) fn progress_steps(error: SiteError, onion: bool) -> Vec<ProgressStep> {
    use Failure as F;
    let steps: &[&str] = if onion { &ONION } else { &EXIT };
    let last = steps.len() - 1;
    let SiteError::Failure(failure) = error else {
        return mark_failed(steps, last);
    };
    match failure {
        F::AddressInvalid => mark_failed(&ONION, 0),
        F::DescriptorNotFound | F::DirectoriesUnreachable | F::DirectoriesTimedOut => {
            mark_failed(&ONION, 1)
        }
        F::DescriptorInvalid => mark_failed(&ONION, 2),
        F::ClientAuthMissing | F::ClientAuthWrong => mark_failed(&ONION, 3),
        F::IntroductionFailed | F::IntroductionTimedOut => mark_failed(&ONION, 4),
        F::RendezvousFailed => mark_failed(&ONION, 5),
        F::ExitPolicyRefused => mark_failed(&EXIT, 0),
        F::NameNotResolved | F::NoSuchFamily => mark_failed(&EXIT, 1),
        F::StreamFailed
        | F::ConnectionRefused
        | F::StreamClosed
        | F::ConnectionTimedOut
        | F::NoRoute
        | F::ConnectionReset => mark_failed(steps, last),
        _ => Vec::new(),
    }
}

fn mark_failed(steps: &[&'static str], failed: usize) -> Vec<ProgressStep> {
    let class = |number: usize| match number.cmp(&failed) {
        std::cmp::Ordering::Less => "done",
        std::cmp::Ordering::Equal => "bad",
        std::cmp::Ordering::Greater => "",
    };
    steps
        .iter()
        .enumerate()
        .map(|(number, text)| ProgressStep {
            text,
            class: class(number),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_a_heading_advice_and_one_faulty_hop() {
        for failure in Failure::ALL {
            for onion in [false, true] {
                let error = SiteError::Failure(*failure);
                let message = message(error, onion);
                assert!(!message.title.is_empty() && !message.advice.is_empty());
                let hops = message.fault.hops(onion);
                let bad = hops.iter().filter(|hop| hop.class == "bad").count();
                assert_eq!(bad, 1, "{failure:?}");
                let steps = progress_steps(error, onion);
                let bad = steps.iter().filter(|step| step.class == "bad").count();
                assert_eq!(bad, usize::from(!steps.is_empty()), "{failure:?}");
            }
        }
    }

    #[test]
    fn a_failure_with_an_onion_code_is_never_shown_as_a_fault_of_the_connection() {
        for failure in Failure::ALL.iter().filter(|f| f.has_onion_code()) {
            let fault = message(SiteError::Failure(*failure), true).fault;
            let expected = match failure {
                Failure::AddressInvalid => FaultLocation::Address,
                Failure::ClientAuthMissing | Failure::ClientAuthWrong => FaultLocation::Key,
                _ => FaultLocation::Service,
            };
            assert_eq!(fault, expected, "{failure:?}");
        }
    }
}
