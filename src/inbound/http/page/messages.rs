//! What a person is told about each failure.

use super::{Place, Step, Trouble};
use crate::failure::Failure;

/// What is told.
pub(super) struct Told {
    /// The heading.
    pub(super) title: &'static str,
    pub(super) side: Side,
    pub(super) advice: &'static [&'static str],
}

/// Whose side a failure is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Address,
    Key,
    Service,
    Site,
    Network,
    Connection,
    Settings,
    Program,
}

impl Side {
    /// For the reader.
    pub(super) fn words(self) -> &'static str {
        match self {
            Side::Address => "The fault is in the address: nothing else was tried.",
            Side::Key => "It is about your key. The way to the service is fine.",
            Side::Service => {
                "The fault is with the onion service. Your side and the network are fine."
            }
            Side::Site => "The fault is with the site. Your side and the network are fine.",
            Side::Network => {
                "The fault is on the way through the network, most likely for a moment only."
            }
            Side::Connection => "The fault is with this computer or its connection.",
            Side::Settings => "The settings of this port do not allow it.",
            Side::Program => "The fault is with this program.",
        }
    }

    /// The three on the way, and how far things went well.
    pub(super) fn places(self, onion: bool) -> [Place; 3] {
        let fault = match self {
            Side::Network => 1,
            Side::Service | Side::Site => 2,
            _ => 0,
        };
        let site = if onion { "Onion service" } else { "Site" };
        let class = |number: usize| match number.cmp(&fault) {
            std::cmp::Ordering::Less => "good",
            std::cmp::Ordering::Equal => "bad",
            std::cmp::Ordering::Greater => "open",
        };
        let first = match self {
            Side::Address => "Your address",
            Side::Key => "Your key",
            Side::Connection => "Your connection",
            Side::Settings => "Your settings",
            Side::Program => "onionport",
            _ => "You",
        };
        let names = [first, "Tor network", site];
        [0, 1, 2].map(|number| Place {
            name: names[number],
            class: match (self, number) {
                // The way was gone; it is the key that does not fit.
                (Side::Key, 1) => "good",
                _ => class(number),
            },
        })
    }
}

const LATER: &str = "Try again in a few minutes.";
const OPERATOR: &str = "If you know who runs it, tell them the code above.";
const CHECK: &str = "Compare the address with the one you were given, or look for a newer one.";

/// What to tell of a failure; `onion` if it is of an onion service.
pub(super) fn told(trouble: Trouble, onion: bool) -> Told {
    use Failure as F;
    let site = if onion { Side::Service } else { Side::Site };
    let (title, side, advice): (_, _, &'static [&'static str]) = match trouble {
        Trouble::Lost | Trouble::Silent => ("The site did not answer", site, &[LATER, OPERATOR]),
        Trouble::Nonsense => (
            "The site's answer makes no sense",
            site,
            &[
                "It may be no website at all, or only answer to https.",
                OPERATOR,
            ],
        ),
        Trouble::Failure(failure) => match failure {
            F::DescriptorNotFound => (
                "This onion service cannot be found",
                Side::Service,
                &["It is offline or gone: try again later.", CHECK],
            ),
            F::DescriptorInvalid => (
                "This onion service's entry is damaged",
                Side::Service,
                &[
                    "It renews its entry every hour or two: try again later.",
                    OPERATOR,
                ],
            ),
            F::IntroductionFailed => (
                "This onion service went offline",
                Side::Service,
                &[
                    "It was there a short time ago, and may come back: try again in a few minutes.",
                    OPERATOR,
                ],
            ),
            F::RendezvousFailed => (
                "This onion service does not respond",
                Side::Service,
                &[
                    "It is overloaded or hangs: try again in a few minutes.",
                    OPERATOR,
                ],
            ),
            F::ClientAuthMissing => (
                "This onion service asks for a key",
                Side::Key,
                &["Ask whoever runs the service for your private key, and enter it here."],
            ),
            F::ClientAuthWrong => (
                "Your key is not accepted",
                Side::Key,
                &[
                    "The key may be mistyped, or the service has given you a new one: enter it again.",
                    "Or the service has withdrawn it: ask whoever runs it.",
                ],
            ),
            F::AddressInvalid => (
                "This is not an onion address",
                Side::Address,
                &[
                    "An onion address has 56 letters and digits before .onion; one of them may be wrong or missing.",
                    "Addresses of 16 letters are no longer in use: look for the new one of the site.",
                ],
            ),
            F::IntroductionTimedOut => (
                "This onion service cannot be reached now",
                Side::Service,
                &[
                    "The relays where it waits for visitors are silent: try again in a few minutes.",
                    OPERATOR,
                ],
            ),
            F::DirectoriesUnreachable | F::DirectoriesTimedOut => (
                "The directories of onion services cannot be reached",
                Side::Network,
                &[
                    LATER,
                    "If other sites fail as well, look at this computer's connection.",
                ],
            ),
            F::ClientAuthUnreadable => (
                "Your keys cannot be read",
                Side::Settings,
                &["Look into onionport's log: it names the folder, and at level debug the file."],
            ),
            F::NameNotResolved => (
                "There is no such site",
                Side::Address,
                &["Check the name for typing errors.", LATER],
            ),
            F::ConnectionRefused => (
                "The site refused the connection",
                site,
                &["It may be switched off, or listen on another port.", LATER],
            ),
            F::StreamClosed => (
                "The onion service offers nothing here",
                Side::Service,
                &[
                    "The service itself is there: check the port behind the address, or try https.",
                    OPERATOR,
                ],
            ),
            F::ExitPolicyRefused => (
                "No relay carries connections to this place",
                Side::Network,
                &["Relays choose which ports they serve: another port, or https, may work."],
            ),
            F::ConnectionTimedOut => (
                "The site did not answer in time",
                site,
                &["It may be overloaded or switched off.", LATER],
            ),
            F::NoRoute => ("There is no way to the site", site, &[LATER]),
            F::ConnectionReset => ("The site broke off the connection", site, &[LATER]),
            F::StreamFailed => ("The site could not be reached", site, &[LATER]),
            F::CircuitDestroyed
            | F::RelayHibernating
            | F::RelayInternal
            | F::RelayBusy
            | F::ProtocolViolation
            | F::NotDirectory => (
                "A relay could not carry the connection",
                Side::Network,
                &["Try again: another path will be taken."],
            ),
            F::DestinationInvalid => (
                "This address leads nowhere",
                Side::Address,
                &["Check the address for typing errors."],
            ),
            F::TrafficForbidden => (
                "This port does not carry that",
                Side::Settings,
                &[
                    "Its flags in onionport's configuration say what it carries: use another port or change them.",
                ],
            ),
            F::PrivateAddress => (
                "This address is on your own network",
                Side::Address,
                &[
                    "Such addresses mean another computer to every relay: open it without the proxy.",
                ],
            ),
            F::NoSuchFamily => (
                "The site has no address of this kind",
                Side::Site,
                &["It can be reached over IPv4 or IPv6 alone, and only the other was asked for."],
            ),
            F::OnionNotResolvable => (
                "An onion service has no IP address",
                Side::Address,
                &["Use its name."],
            ),
            F::NotBootstrapped => (
                "Not connected to the Tor network yet",
                Side::Connection,
                &[
                    "Check that this computer is online.",
                    "If Tor is blocked where you are, set up a bridge.",
                ],
            ),
            F::NoCircuit => (
                "No path through the Tor network",
                Side::Connection,
                &["Check that this computer is online.", LATER],
            ),
            F::DeadlinePassed => ("This took too long", Side::Network, &[LATER]),
            F::ClockSkewed => (
                "This computer's clock is wrong",
                Side::Connection,
                &["Set date, time and time zone, and try again."],
            ),
            F::Internal => (
                "Something went wrong in onionport",
                Side::Program,
                &["Its log says more.", LATER],
            ),
        },
    };
    Told {
        title,
        side,
        advice,
    }
}

/// The steps to an onion service.
const ONION: [&str; 7] = [
    "The address is well-formed",
    "A directory has the service's descriptor",
    "The descriptor is sound",
    "The descriptor can be read with the keys at hand",
    "An introduction point passes the request on",
    "The service comes to the rendezvous",
    "The service opens the connection and answers",
];
/// The steps through an exit.
const EXIT: [&str; 3] = [
    "A circuit to an exit relay stands",
    "The exit relay finds the address of the name",
    "The site takes the connection and answers",
];

/// How far the request got; nothing if it never set out.
pub(super) fn steps(trouble: Trouble, onion: bool) -> Vec<Step> {
    use Failure as F;
    let way: &[&str] = if onion { &ONION } else { &EXIT };
    let at_the_end = way.len() - 1;
    let Trouble::Failure(failure) = trouble else {
        return mark(way, at_the_end);
    };
    match failure {
        F::AddressInvalid => mark(&ONION, 0),
        F::DescriptorNotFound | F::DirectoriesUnreachable | F::DirectoriesTimedOut => {
            mark(&ONION, 1)
        }
        F::DescriptorInvalid => mark(&ONION, 2),
        F::ClientAuthMissing | F::ClientAuthWrong => mark(&ONION, 3),
        F::IntroductionFailed | F::IntroductionTimedOut => mark(&ONION, 4),
        F::RendezvousFailed => mark(&ONION, 5),
        F::ExitPolicyRefused => mark(&EXIT, 0),
        F::NameNotResolved | F::NoSuchFamily => mark(&EXIT, 1),
        F::StreamFailed
        | F::ConnectionRefused
        | F::StreamClosed
        | F::ConnectionTimedOut
        | F::NoRoute
        | F::ConnectionReset => mark(way, at_the_end),
        _ => Vec::new(),
    }
}

fn mark(steps: &[&'static str], failed: usize) -> Vec<Step> {
    let class = |number: usize| match number.cmp(&failed) {
        std::cmp::Ordering::Less => "done",
        std::cmp::Ordering::Equal => "bad",
        std::cmp::Ordering::Greater => "",
    };
    steps
        .iter()
        .enumerate()
        .map(|(number, text)| Step {
            text,
            class: class(number),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_a_heading_advice_and_one_fault() {
        for failure in Failure::ALL {
            for onion in [false, true] {
                let trouble = Trouble::Failure(*failure);
                let told = told(trouble, onion);
                assert!(!told.title.is_empty() && !told.advice.is_empty());
                let places = told.side.places(onion);
                let bad = places.iter().filter(|place| place.class == "bad").count();
                assert_eq!(bad, 1, "{failure:?}");
                let steps = steps(trouble, onion);
                let bad = steps.iter().filter(|step| step.class == "bad").count();
                assert_eq!(bad, usize::from(!steps.is_empty()), "{failure:?}");
            }
        }
    }

    #[test]
    fn what_blames_the_service_is_never_told_as_the_users_fault() {
        for failure in Failure::ALL.iter().filter(|f| f.blames_the_service()) {
            let side = told(Trouble::Failure(*failure), true).side;
            let expected = match failure {
                Failure::AddressInvalid => Side::Address,
                Failure::ClientAuthMissing | Failure::ClientAuthWrong => Side::Key,
                _ => Side::Service,
            };
            assert_eq!(side, expected, "{failure:?}");
        }
    }
}
