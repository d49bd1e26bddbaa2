//! The status code and tokens of every failure, written by hand from Tor's HTTP CONNECT specification and
//! from C tor's responses, so that a mistake in the program's table is noticed.

use onionport::failure::Failure;

use super::SITE;
use crate::support::http::{read_response, send_text};
use crate::support::scripted::Plan;
use crate::support::serve::Port;

/// Returns the expected status code and `Tor-Request-Failed` header.
pub fn expected_status(failure: Failure) -> (u16, &'static str) {
    use Failure as F;
    match failure {
        // The specification defines no tokens for onion services: onionport's own, then C tor's END
        // reason.
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
        // END reasons, from the specification's table.
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
        // Failures of onionport alone.
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

/// `tunnel` tests the same for CONNECT.
#[tokio::test]
async fn a_failed_plain_request_gets_the_status_of_its_failure_as_a_page_and_as_text() {
    for &failure in Failure::ALL {
        for accept in ["", "Accept: text/html\n"] {
            let port = Port::new("", [(SITE, Plan::Fail(failure))]);
            let (mut client, _served) = port.http_client();
            let request =
                format!("GET http://good.example/ HTTP/1.1\nHost: good.example\n{accept}\n");
            send_text(&mut client, &request).await;
            let response = read_response(&mut client).await;
            let received = (response.status, response.header("tor-request-failed"));
            let (status, tokens) = expected_status(failure);
            assert_eq!(received, (status, Some(tokens)), "{failure:?} {accept}");
        }
    }
}
