//! Every arm of the tables in [`super`], with errors that are made here as the Tor crates make them.
//!
//! Two types cannot be made outside of their crates. `tor_hsclient::DescriptorError` is the element of
//! [`ConnError::DescriptorDownload`]: what it holds goes through [`descriptor_clue`], which is tested here, and
//! that its elements get there, the network test `codes` shows. What [`ProtoError::ChannelClosed`] holds has no public
//! path; it shares an arm with [`ProtoError::CircuitClosed`].

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::task::SpawnError;
use hyper::http;
use retry_error::RetryError;
use tor_checkable::TimeValidityError;
use tor_circmgr::Error as CircuitError;
use tor_guardmgr::vanguards::VanguardMgrError;
use tor_hsclient::FailedAttemptError as Attempt;
use tor_hsclient::{DescriptorErrorDetail as Detail, InvalidTarget};
use tor_linkspec::RelayIds;
use tor_netdoc::doc::hsdesc::HsDescInner;
use tor_proto::ResolveError;

use super::FetchError as D;
use super::RendezvousError as R;
use super::*;

fn bug() -> tor_error::Bug {
    tor_error::internal!("made by a test")
}

/// A circuit that cannot be built because of `error`.
fn circuit(error: ProtoError) -> CircuitError {
    CircuitError::Protocol {
        action: "extending",
        peer: None,
        error,
        unique_id: None,
    }
}

/// An error of the protocol, of which there are many.
fn broken() -> ProtoError {
    ProtoError::BadCellAuth
}

fn clock() -> ProtoError {
    ProtoError::HandshakeCertsExpired {
        expired_by: Duration::from_secs(60),
    }
}

/// What tor-netdoc says of a descriptor's inner layer.
fn inner(text: &str) -> tor_netdoc::Error {
    HsDescInner::parse(text).err().expect("not a descriptor")
}

/// What `body` writes to the log at `warn` and above.
fn logged(body: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, body);
    let lines = lines.0.lock().expect("no panic");
    String::from_utf8(lines.clone()).expect("text")
}

/// Bugs and errors that are not known have one value; the log tells them apart.
fn is_logged_as_bug(body: impl FnOnce()) {
    let log = logged(body);
    assert!(log.contains("internal error of the Tor client"), "{log:?}");
    assert!(!log.contains("unknown error"), "{log:?}");
}

fn is_not_logged(body: impl FnOnce()) {
    assert_eq!(logged(body), "");
}

#[test]
fn the_events_of_an_attempt_are_told_apart_by_the_type_of_their_error() {
    let directory = Detail::Timeout;
    let Some(Clue::Descriptor(clue)) = clue_in_event(&directory) else {
        panic!("a directory's")
    };
    assert_eq!(clue, D::TimedOut);
    let point = Attempt::IntroductionTimeout {
        intro_index: 0.into(),
    };
    let Some(Clue::Rendezvous(clue)) = clue_in_event(&point) else {
        panic!("an introduction point's")
    };
    assert_eq!(clue, R::IntroductionTimedOut);
    // It sums up others, which have had their own events.
    assert!(clue_in_event(&ConnError::NoHsDirs).is_none());
}

#[test]
fn the_end_of_an_attempt_is_read_off_its_error() {
    let refused = |point| Attempt::IntroductionFailed {
        status: IntroduceAckStatus::NOT_RECOGNIZED,
        intro_index: point,
    };
    let mut tries = RetryError::in_attempt_to("connect");
    tries.push(refused(0.into()));
    tries.push(refused(1.into()));
    let mut further = tries.clone();
    further.push(Attempt::RendezvousCompletionTimeout {
        intro_index: 2.into(),
        rend_pt: RelayIds::empty().into(),
    });
    let expected = [
        (ConnError::InvalidHsId, Failure::AddressInvalid),
        (ConnError::Failed(tries), Failure::IntroductionFailed),
        (ConnError::Failed(further), Failure::RendezvousFailed),
        (
            ConnError::DescriptorDownload(RetryError::in_attempt_to("fetch")),
            Failure::DirectoriesUnreachable,
        ),
        (ConnError::NoHsDirs, Failure::DescriptorNotFound),
        (ConnError::NoUsableHsDirs, Failure::DescriptorNotFound),
        (ConnError::NoUsableIntroPoints, Failure::IntroductionFailed),
    ];
    for (error, failure) in expected {
        is_not_logged(|| assert_eq!(of_onion_attempt(&error), failure, "{error:?}"));
    }
    let spawn = ConnError::Spawn {
        spawning: "task",
        cause: Arc::new(SpawnError::shutdown()),
    };
    for error in [spawn, ConnError::Bug(bug())] {
        is_logged_as_bug(|| assert_eq!(of_onion_attempt(&error), Failure::Internal));
    }
}

#[test]
fn each_way_a_directory_fails_has_its_clue() {
    let no_vanguards = VanguardMgrError::BootstrapRequired { action: "select" };
    let expected = [
        (Detail::Timeout, D::TimedOut),
        (
            Detail::Circuit(CircuitError::VanguardMgrInit(no_vanguards)),
            D::NotReady,
        ),
        (Detail::Circuit(circuit(broken())), D::Unreachable),
        (Detail::Stream(broken()), D::Unreachable),
        (
            Detail::Directory(RequestError::HttpStatus(404, String::new())),
            D::NotFound,
        ),
        (
            Detail::ParameterMismatch("flow control".to_owned()),
            D::Invalid,
        ),
        (
            Detail::OutsideValidityPeriod(TimeValidityError::Unspecified),
            D::Invalid,
        ),
        (
            Detail::Descriptor(HsDescError::MissingDecryptionKey),
            D::AuthMissing,
        ),
    ];
    for (error, clue) in expected {
        is_not_logged(|| assert_eq!(descriptor_clue(&error), clue, "{error:?}"));
    }
    is_logged_as_bug(|| assert_eq!(descriptor_clue(&Detail::Bug(bug())), D::Bug));
}

#[test]
fn each_answer_of_a_directory_has_its_clue() {
    use RequestError as E;
    let status = |code| E::HttpStatus(code, "a phrase".to_owned());
    let not_utf8 = String::from_utf8(vec![0xFF]).expect_err("not UTF-8");
    let expected = [
        (status(404), D::NotFound),
        (status(403), D::Refused),
        (status(500), D::Refused),
        (status(503), D::Refused),
        (E::DirTimeout, D::TimedOut),
        (E::ResponseTooLong(50_001), D::Invalid),
        (E::HeadersTooLong(50_001), D::Invalid),
        (E::Utf8Encoding(not_utf8), D::Invalid),
        (E::TooMuchClockSkew, D::ClockSkewed),
        (E::TruncatedHeaders, D::Unreachable),
        (
            E::HttparseError(httparse::Error::HeaderName),
            D::Unreachable,
        ),
        (E::ContentEncoding("zip".to_owned()), D::Unreachable),
        (E::EmptyResponse, D::Unreachable),
        (
            E::IoError(Arc::new(io::ErrorKind::BrokenPipe.into())),
            D::Unreachable,
        ),
        (E::Proto(broken()), D::Unreachable),
        (E::Tunnel(circuit(broken())), D::Unreachable),
    ];
    for (error, clue) in expected {
        is_not_logged(|| assert_eq!(directory_clue(&error), clue, "{error:?}"));
    }
    let no_request = http::Request::get("not a URI").body(());
    let no_request = Arc::new(no_request.expect_err("not a URI"));
    for error in [E::HttpError(no_request), E::EmptyRequest] {
        is_logged_as_bug(|| assert_eq!(directory_clue(&error), D::Bug, "{error:?}"));
    }
}

#[test]
fn each_fault_of_a_descriptor_has_its_clue() {
    use HsDescError as E;
    let fault = || inner("create2-formats 3\n");
    let expected = [
        (E::MissingDecryptionKey, D::AuthMissing),
        (E::WrongDecryptionKey, D::AuthWrong),
        (E::OuterParsing(fault()), D::Invalid),
        (E::OuterValidation(fault()), D::Invalid),
        (E::DecryptionFailed, D::Invalid),
        (E::InnerParsing(fault()), D::Invalid),
        (E::InnerValidation(fault()), D::Invalid),
    ];
    for (error, clue) in expected {
        is_not_logged(|| assert_eq!(document_clue(&error), clue, "{error:?}"));
    }
    is_logged_as_bug(|| assert_eq!(document_clue(&E::Bug(bug())), D::Bug));
}

/// tor-netdoc has no variant for it: [`document_clue`] leans on the text. This is the real parser.
#[test]
fn a_sound_descriptor_without_introduction_points_is_recognised() {
    let error = HsDescError::InnerParsing(inner("create2-formats 2\n"));
    assert_eq!(document_clue(&error), D::NoIntroductionPoints);
    // Only where the text itself was read.
    let error = HsDescError::OuterParsing(inner("create2-formats 2\n"));
    assert_eq!(document_clue(&error), D::Invalid);
}

#[test]
fn each_way_a_try_fails_has_its_clue() {
    use Attempt as F;
    let rend_pt = || RelayIds::empty().into();
    let intro_index = 3.into();
    let answer = |status| F::IntroductionFailed {
        status,
        intro_index,
    };
    let expected = [
        (
            F::UnusableIntro {
                error: InvalidTarget::Bug(bug()),
                intro_index,
            },
            R::IntroductionPointUnusable,
        ),
        (
            F::RendezvousCircuitObtain {
                error: circuit(broken()),
            },
            R::NoRendezvousCircuit,
        ),
        (
            F::RendezvousEstablishTimeout { rend_pt: rend_pt() },
            R::NotEstablished,
        ),
        (
            F::RendezvousEstablish {
                error: broken(),
                rend_pt: rend_pt(),
            },
            R::NotEstablished,
        ),
        (
            F::IntroductionCircuitObtain {
                error: CircuitError::RequestTimeout,
                intro_index,
            },
            R::IntroductionTimedOut,
        ),
        (
            F::IntroductionCircuitObtain {
                error: circuit(broken()),
                intro_index,
            },
            R::IntroductionBroken,
        ),
        (
            F::IntroductionExchange {
                error: broken(),
                intro_index,
            },
            R::IntroductionBroken,
        ),
        (
            answer(IntroduceAckStatus::NOT_RECOGNIZED),
            R::IntroductionRefused { point: 3 },
        ),
        (
            answer(IntroduceAckStatus::BAD_MESSAGE_FORMAT),
            R::IntroductionBroken,
        ),
        (
            answer(IntroduceAckStatus::CANT_RELAY),
            R::IntroductionBroken,
        ),
        (answer(77.into()), R::IntroductionBroken),
        (
            F::IntroductionTimeout { intro_index },
            R::IntroductionTimedOut,
        ),
        (
            F::RendezvousCompletionTimeout {
                intro_index,
                rend_pt: rend_pt(),
            },
            R::NotCompleted,
        ),
        (
            F::RendezvousCompletionCircuitError {
                error: broken(),
                intro_index,
                rend_pt: rend_pt(),
            },
            R::NotCompleted,
        ),
        (
            F::RendezvousCompletionHandshake {
                error: broken(),
                intro_index,
                rend_pt: rend_pt(),
            },
            R::NotCompleted,
        ),
    ];
    for (error, clue) in expected {
        is_not_logged(|| assert_eq!(rendezvous_clue(&error), clue, "{error:?}"));
    }
    is_logged_as_bug(|| assert_eq!(rendezvous_clue(&F::Bug(bug())), R::Bug));
}

#[test]
fn each_end_reason_has_its_failure() {
    use EndReason as E;
    // By the numbers of tor-spec, "Closing streams".
    let expected = [
        (1, Failure::StreamFailed),
        (2, Failure::NameNotResolved),
        (3, Failure::ConnectionRefused),
        (4, Failure::ExitPolicyRefused),
        (5, Failure::CircuitDestroyed),
        (6, Failure::StreamClosed),
        (7, Failure::ConnectionTimedOut),
        (8, Failure::NoRoute),
        (9, Failure::RelayHibernating),
        (10, Failure::RelayInternal),
        (11, Failure::RelayBusy),
        (12, Failure::ConnectionReset),
        (13, Failure::ProtocolViolation),
        (14, Failure::NotDirectory),
        // None of the protocol's, yet.
        (0, Failure::StreamFailed),
        (15, Failure::StreamFailed),
        (255, Failure::StreamFailed),
    ];
    for (number, failure) in expected {
        assert_eq!(of_end(E::from(number)), failure, "END {number}");
    }
}

#[test]
fn each_error_of_a_stream_is_an_answer_a_lost_circuit_or_neither() {
    use ProtoError as E;
    use StreamError as S;
    let resolve = E::ResolveError;
    let encode = E::CellEncodeErr {
        object: "BEGIN",
        err: tor_cell::Error::BadStreamAddress,
    };
    let expected = [
        (
            E::EndReceived(EndReason::DONE),
            S::Ended(Failure::StreamClosed),
        ),
        (E::CircuitClosed, S::CircuitGone),
        (E::NotConnected, S::CircuitGone),
        (
            resolve(ResolveError::Nontransient),
            S::Failed(Failure::NameNotResolved),
        ),
        (
            resolve(ResolveError::Transient),
            S::Failed(Failure::StreamFailed),
        ),
        (
            resolve(ResolveError::Unrecognized),
            S::Failed(Failure::StreamFailed),
        ),
        (E::BadStreamAddress, S::Failed(Failure::DestinationInvalid)),
        (encode, S::Failed(Failure::DestinationInvalid)),
        (
            E::StreamProto("nonsense".to_owned()),
            S::Failed(Failure::ProtocolViolation),
        ),
        (
            E::CircProto("nonsense".to_owned()),
            S::Failed(Failure::ProtocolViolation),
        ),
        (broken(), S::Failed(Failure::StreamFailed)),
    ];
    for (error, expected) in expected {
        assert_eq!(of_stream_protocol(&error), expected, "{error:?}");
        // The same error as the circuit manager and a stream's reading half hand it on.
        assert_eq!(of_stream(&circuit(error.clone())), expected, "{error:?}");
        assert_eq!(of_stream_io(&io::Error::from(error)), expected);
    }
    assert_eq!(
        of_stream(&CircuitError::RequestTimeout),
        S::Failed(Failure::NoCircuit)
    );
    let other = io::Error::from(io::ErrorKind::BrokenPipe);
    assert_eq!(of_stream_io(&other), S::Failed(Failure::StreamFailed));
}

#[test]
fn a_stream_that_failed_tells_what_its_error_says() {
    let expected = [
        (
            StreamError::Ended(Failure::StreamClosed),
            Failure::StreamClosed,
        ),
        (StreamError::Failed(Failure::NoCircuit), Failure::NoCircuit),
        (StreamError::CircuitGone, Failure::CircuitDestroyed),
    ];
    for (error, failure) in expected {
        assert_eq!(error.failure(), failure);
    }
}

#[test]
fn each_reason_for_having_no_exit_circuit_has_its_failure() {
    let no_relay = CircuitError::NoRelay {
        path_kind: "exit circuit",
        role: "exit relay",
        problem: "none allows the port".to_owned(),
    };
    let mut tries = RetryError::in_attempt_to("build a circuit");
    tries.push(Box::new(circuit(broken())));
    let mut skewed = RetryError::in_attempt_to("build a circuit");
    skewed.push(Box::new(circuit(clock())));
    let expected = [
        (no_relay, Failure::ExitPolicyRefused),
        (circuit(clock()), Failure::ClockSkewed),
        (CircuitError::RequestFailed(skewed), Failure::ClockSkewed),
        (CircuitError::RequestFailed(tries), Failure::NoCircuit),
        (CircuitError::RequestTimeout, Failure::NoCircuit),
        (CircuitError::PendingCanceled, Failure::NoCircuit),
    ];
    for (error, failure) in expected {
        is_not_logged(|| assert_eq!(of_exit_circuit(&error), failure, "{error:?}"));
    }
    is_logged_as_bug(|| {
        assert_eq!(
            of_exit_circuit(&CircuitError::Bug(bug())),
            Failure::Internal
        );
    });
}

#[test]
fn a_stream_that_ends_with_misc_has_not_broken() {
    let ordinary = |error: ProtoError| is_ordinary_end(&error.into());
    // What relays and services say that are built on tor-proto; DONE never gets here.
    assert!(ordinary(ProtoError::EndReceived(EndReason::MISC)));
    for reason in [
        EndReason::CONNRESET,
        EndReason::DESTROY,
        EndReason::TIMEOUT,
        EndReason::INTERNAL,
        EndReason::RESOURCELIMIT,
        EndReason::HIBERNATING,
        EndReason::TORPROTOCOL,
    ] {
        assert!(!ordinary(ProtoError::EndReceived(reason)), "{reason}");
    }
    assert!(!ordinary(ProtoError::CircuitClosed));
    assert!(!ordinary(ProtoError::NotConnected));
    assert!(!is_ordinary_end(&std::io::ErrorKind::BrokenPipe.into()));
}
