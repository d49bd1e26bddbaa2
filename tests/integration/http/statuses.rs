//! The status and the tokens of every failure. Written down a second time, from Tor's HTTP CONNECT
//! specification and what C tor says, so that a slip in the program's table does not go unseen.

use onionport::failure::Failure;

use super::SITE;
use crate::support::http::{answer, say};
use crate::support::scripted::Plan;
use crate::support::serve::Port;

/// The status of an answer, and its `Tor-Request-Failed`.
pub fn of(failure: Failure) -> (u16, &'static str) {
    use Failure as F;
    match failure {
        // The specification leaves the tokens of onion services open: ours, and C tor's END reason.
        F::DescriptorNotFound => (503, "onionport/HS-DESC-NOT-FOUND end/RESOLVEFAILED"),
        F::DescriptorInvalid => (503, "onionport/HS-DESC-INVALID end/RESOLVEFAILED"),
        F::IntroductionFailed => (503, "onionport/HS-INTRO-FAILED end/RESOLVEFAILED"),
        F::IntroductionTimedOut => (504, "onionport/HS-INTRO-TIMED-OUT end/RESOLVEFAILED"),
        F::RendezvousFailed => (504, "onionport/HS-REND-FAILED end/TIMEOUT"),
        F::ClientAuthMissing => (503, "onionport/HS-CLIENT-AUTH-MISSING end/MISC"),
        F::ClientAuthWrong => (403, "onionport/HS-CLIENT-AUTH-WRONG end/MISC"),
        F::AddressInvalid => (400, "onionport/HS-BAD-ADDRESS end/TORPROTOCOL"),
        F::DirectoriesUnreachable => (503, "onionport/HS-DIRS-UNREACHABLE end/RESOLVEFAILED"),
        F::DirectoriesTimedOut => (504, "onionport/HS-DIRS-TIMED-OUT end/TIMEOUT"),
        F::ClientAuthUnreadable => (500, "onionport/CLIENT-AUTH-UNREADABLE"),
        // The specification's table of END reasons.
        F::ConnectionRefused => (403, "end/CONNECTREFUSED"),
        F::StreamFailed => (500, "end/MISC"),
        F::NotDirectory => (500, "end/NOTDIRECTORY"),
        F::CircuitDestroyed => (502, "end/DESTROY"),
        F::StreamClosed => (502, "end/DONE"),
        F::RelayHibernating => (502, "end/HIBERNATING"),
        F::RelayInternal => (502, "end/INTERNAL"),
        F::RelayBusy => (502, "end/RESOURCELIMIT"),
        F::ProtocolViolation => (502, "end/TORPROTOCOL"),
        F::NameNotResolved => (503, "end/RESOLVEFAILED"),
        F::NoRoute => (503, "end/NOROUTE"),
        F::ExitPolicyRefused => (503, "end/EXITPOLICY"),
        F::ConnectionReset => (503, "end/CONNRESET"),
        F::ConnectionTimedOut => (504, "end/TIMEOUT"),
        // Ours alone.
        F::NoSuchFamily => (503, "onionport/NO-SUCH-FAMILY end/RESOLVEFAILED"),
        F::DestinationInvalid => (400, "onionport/BAD-DESTINATION end/TORPROTOCOL"),
        F::TrafficForbidden => (403, "onionport/FORBIDDEN"),
        F::PrivateAddress => (403, "onionport/PRIVATE-ADDRESS"),
        F::OnionNotResolvable => (400, "onionport/ONION-NOT-RESOLVABLE"),
        F::NotBootstrapped => (504, "onionport/NOT-BOOTSTRAPPED end/TIMEOUT"),
        F::DeadlinePassed => (504, "onionport/DEADLINE end/TIMEOUT"),
        F::NoCircuit => (502, "onionport/NO-CIRCUIT"),
        F::ClockSkewed => (500, "onionport/CLOCK-SKEWED"),
        F::Internal => (500, "onionport/INTERNAL"),
    }
}

/// CONNECT is asked in `tunnel`.
#[tokio::test]
async fn a_plain_request_that_fails_has_the_status_of_its_failure_as_page_and_as_line() {
    for &failure in Failure::ALL {
        for accept in ["", "Accept: text/html\n"] {
            let port = Port::new("", [(SITE, Plan::Fail(failure))]);
            let (mut client, _served) = port.http_client();
            let ask = format!("GET http://good.example/ HTTP/1.1\nHost: good.example\n{accept}\n");
            say(&mut client, &ask).await;
            let told = answer(&mut client).await;
            let seen = (told.status, told.header("tor-request-failed"));
            let (status, tokens) = of(failure);
            assert_eq!(seen, (status, Some(tokens)), "{failure:?} {accept}");
        }
    }
}
