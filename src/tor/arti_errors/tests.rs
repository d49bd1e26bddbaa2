//! Every arm of the matches in [`super`], with errors constructed as the Tor crates do.
//!
//! Two types cannot be constructed outside their crates. `tor_hsclient::DescriptorError` is the element of
//! [`ConnError::DescriptorDownload`]: these tests cover [`classify_descriptor_fetch`], which classifies its
//! content, and the network test `codes` covers the rest. The content of [`ProtoError::ChannelClosed`] has no
//! public path; it shares an arm with [`ProtoError::CircuitClosed`].

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
    tor_error::internal!("constructed by a test")
}

/// The error of a circuit that cannot be built because of `error`.
fn circuit(error: ProtoError) -> CircuitError {
    CircuitError::Protocol {
        action: "extending",
        peer: None,
        error,
        unique_id: None,
    }
}

/// Any protocol error.
fn broken() -> ProtoError {
    ProtoError::BadCellAuth
}

/// The error of a relay whose clock differs from ours.
fn clock() -> ProtoError {
    ProtoError::HandshakeCertsExpired {
        expired_by: Duration::from_secs(60),
    }
}

/// The error of tor-netdoc's parser for a descriptor's inner layer.
fn inner(text: &str) -> tor_netdoc::Error {
    HsDescInner::parse(text).err().expect("a parse error")
}

/// Returns what `body` logs at level warn and above.
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

/// Bugs and unknown errors become the same failure; only the log distinguishes them.
fn assert_logged_as_bug(body: impl FnOnce()) {
    let log = logged(body);
    assert!(log.contains("internal error of the Tor client"), "{log:?}");
    assert!(!log.contains("unknown error"), "{log:?}");
}

fn assert_not_logged(body: impl FnOnce()) {
    assert_eq!(logged(body), "");
}

#[test]
fn an_event_is_classified_by_the_type_of_its_error() {
    let directory = Detail::Timeout;
    let Some(CallEvent::Descriptor(error)) = classify_event(&directory) else {
        panic!("not a descriptor event")
    };
    assert_eq!(error, D::TimedOut);
    let point = Attempt::IntroductionTimeout {
        intro_index: 0.into(),
    };
    let Some(CallEvent::Rendezvous(error)) = classify_event(&point) else {
        panic!("not a rendezvous event")
    };
    assert_eq!(error, R::IntroductionTimedOut);
    // A summary of errors that had their own events.
    assert!(classify_event(&ConnError::NoHsDirs).is_none());
}

#[test]
fn the_error_of_an_attempt_has_its_failure() {
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
        assert_not_logged(|| assert_eq!(classify_onion_attempt(&error), failure, "{error:?}"));
    }
    let spawn = ConnError::Spawn {
        spawning: "task",
        cause: Arc::new(SpawnError::shutdown()),
    };
    for error in [spawn, ConnError::Bug(bug())] {
        assert_logged_as_bug(|| assert_eq!(classify_onion_attempt(&error), Failure::Internal));
    }
}

#[test]
fn each_failed_descriptor_fetch_has_its_error() {
    let no_vanguards = VanguardMgrError::BootstrapRequired { action: "select" };
    let cases = [
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
    for (error, expected) in cases {
        assert_not_logged(|| assert_eq!(classify_descriptor_fetch(&error), expected, "{error:?}"));
    }
    assert_logged_as_bug(|| assert_eq!(classify_descriptor_fetch(&Detail::Bug(bug())), D::Bug));
}

#[test]
fn each_failed_directory_request_has_its_error() {
    use RequestError as E;
    let status = |code| E::HttpStatus(code, "a phrase".to_owned());
    let not_utf8 = String::from_utf8(vec![0xFF]).expect_err("not UTF-8");
    let cases = [
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
    for (error, expected) in cases {
        assert_not_logged(|| {
            assert_eq!(classify_directory_response(&error), expected, "{error:?}")
        });
    }
    let no_request = http::Request::get("not a URI").body(());
    let no_request = Arc::new(no_request.expect_err("not a URI"));
    for error in [E::HttpError(no_request), E::EmptyRequest] {
        assert_logged_as_bug(|| {
            assert_eq!(classify_directory_response(&error), D::Bug, "{error:?}")
        });
    }
}

#[test]
fn each_fault_of_a_descriptor_has_its_error() {
    use HsDescError as E;
    let fault = || inner("create2-formats 3\n");
    let cases = [
        (E::MissingDecryptionKey, D::AuthMissing),
        (E::WrongDecryptionKey, D::AuthWrong),
        (E::OuterParsing(fault()), D::Invalid),
        (E::OuterValidation(fault()), D::Invalid),
        (E::DecryptionFailed, D::Invalid),
        (E::InnerParsing(fault()), D::Invalid),
        (E::InnerValidation(fault()), D::Invalid),
    ];
    for (error, expected) in cases {
        assert_not_logged(|| assert_eq!(classify_document(&error), expected, "{error:?}"));
    }
    assert_logged_as_bug(|| assert_eq!(classify_document(&E::Bug(bug())), D::Bug));
}

/// tor-netdoc has no variant for it: [`classify_document`] relies on the text of the real parser's error.
#[test]
fn a_sound_descriptor_without_introduction_points_is_recognised() {
    let error = HsDescError::InnerParsing(inner("create2-formats 2\n"));
    assert_eq!(classify_document(&error), D::NoIntroductionPoints);
    // Only errors of the inner layer count.
    let error = HsDescError::OuterParsing(inner("create2-formats 2\n"));
    assert_eq!(classify_document(&error), D::Invalid);
}

#[test]
fn each_failed_rendezvous_has_its_error() {
    use Attempt as F;
    let rend_pt = || RelayIds::empty().into();
    let intro_index = 3.into();
    let answer = |status| F::IntroductionFailed {
        status,
        intro_index,
    };
    let cases = [
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
    for (error, expected) in cases {
        assert_not_logged(|| assert_eq!(classify_rendezvous(&error), expected, "{error:?}"));
    }
    assert_logged_as_bug(|| assert_eq!(classify_rendezvous(&F::Bug(bug())), R::Bug));
}

#[test]
fn each_end_reason_has_its_failure() {
    use EndReason as E;
    // The numbers of tor-spec, "Closing streams".
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
        // Not defined by the specification.
        (0, Failure::StreamFailed),
        (15, Failure::StreamFailed),
        (255, Failure::StreamFailed),
    ];
    for (number, failure) in expected {
        assert_eq!(classify_end(E::from(number)), failure, "END {number}");
    }
}

#[test]
fn each_stream_error_is_an_end_a_closed_circuit_or_neither() {
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
        assert_eq!(classify_stream_protocol(&error), expected, "{error:?}");
        // The same error, as the circuit manager and the reading half of a stream wrap it.
        assert_eq!(
            classify_stream(&circuit(error.clone())),
            expected,
            "{error:?}"
        );
        assert_eq!(classify_stream_io(&io::Error::from(error)), expected);
    }
    assert_eq!(
        classify_stream(&CircuitError::RequestTimeout),
        S::Failed(Failure::NoCircuit)
    );
    let other = io::Error::from(io::ErrorKind::BrokenPipe);
    assert_eq!(classify_stream_io(&other), S::Failed(Failure::StreamFailed));
}

#[test]
fn each_stream_error_has_its_failure() {
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
fn each_exit_circuit_error_has_its_failure() {
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
        assert_not_logged(|| assert_eq!(classify_exit_circuit(&error), failure, "{error:?}"));
    }
    assert_logged_as_bug(|| {
        assert_eq!(
            classify_exit_circuit(&CircuitError::Bug(bug())),
            Failure::Internal
        );
    });
}

#[test]
fn an_end_with_reason_misc_is_ordinary() {
    let ordinary = |error: ProtoError| is_ordinary_end(&error.into());
    // Sent by relays and services built on tor-proto; tor-proto itself handles DONE.
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
