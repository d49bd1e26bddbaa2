//! Classifies errors of the Tor crates: each becomes a [`Failure`], a [`StreamError`] or a [`CallEvent`].
//!
//! No other module of [`crate::tor`] matches the error types of the Tor crates; `client` and `storage` match
//! only [`ErrorKind`]. Most of their enums are `non_exhaustive`; the wildcard arms log the unknown error
//! (END reasons and replies to RESOLVE excepted).

use std::error::Error;
use std::time::Duration;

use tor_cell::relaycell::hs::IntroduceAckStatus;
use tor_cell::relaycell::msg::EndReason;
use tor_dirclient::RequestError;
use tor_error::{ErrorKind, ErrorReport as _, HasKind as _};
use tor_hsclient::{ConnError, DescriptorErrorDetail, FailedAttemptError};
use tor_netdoc::NetdocErrorKind;
use tor_netdoc::doc::hsdesc::HsDescError;
use tor_proto::Error as ProtoError;

use super::onion::classify::{self, FetchError, RendezvousError};
use crate::failure::Failure;
use crate::log_limit::{LogLimiter, Occurrences};

/// Errors that mean a bug. Every request may repeat one, so each kind of message is limited.
static BUGS: LogLimiter = LogLimiter::with_burst(Duration::from_secs(60), BURST);
static UNKNOWN: LogLimiter = LogLimiter::with_burst(Duration::from_secs(60), BURST);
/// Messages a minute. Tests check the message of each of many errors.
const BURST: u32 = if cfg!(test) { 1000 } else { 5 };

/// A failed step of a call to tor-hsclient.
pub(crate) enum CallEvent {
    /// A directory gave no usable descriptor.
    Descriptor(FetchError),
    /// A pair of introduction and rendezvous points failed.
    Rendezvous(RendezvousError),
}

/// Classifies an error that tor-hsclient reports during a call. Returns `None` for errors that summarise
/// others.
pub(crate) fn classify_event(error: &(dyn Error + 'static)) -> Option<CallEvent> {
    if let Some(detail) = error.downcast_ref::<DescriptorErrorDetail>() {
        return Some(CallEvent::Descriptor(classify_descriptor_fetch(detail)));
    }
    if let Some(failed) = error.downcast_ref::<FailedAttemptError>() {
        return Some(CallEvent::Rendezvous(classify_rendezvous(failed)));
    }
    None
}

/// Classifies the error with which tor-hsclient gives up an attempt.
pub(crate) fn classify_onion_attempt(error: &ConnError) -> Failure {
    match error {
        ConnError::InvalidHsId => Failure::AddressInvalid,
        ConnError::DescriptorDownload(tries) => {
            let errors: Vec<_> = tries
                .sources()
                .map(|t| classify_descriptor_fetch(&t.0.error))
                .collect();
            classify::classify_fetch_errors(&errors)
        }
        ConnError::Failed(tries) => {
            let errors: Vec<_> = tries.sources().map(classify_rendezvous).collect();
            classify::classify_rendezvous_errors(&errors)
        }
        // No directory could store the descriptor.
        ConnError::NoHsDirs | ConnError::NoUsableHsDirs => Failure::DescriptorNotFound,
        ConnError::NoUsableIntroPoints => Failure::IntroductionFailed,
        ConnError::Spawn { .. } | ConnError::Bug(_) => log_bug(error),
        _ => log_unknown(error),
    }
}

/// Classifies a failed descriptor fetch.
fn classify_descriptor_fetch(detail: &DescriptorErrorDetail) -> FetchError {
    use DescriptorErrorDetail as D;
    use FetchError as E;
    match detail {
        D::Timeout => E::TimedOut,
        D::Circuit(error) if error.kind() == ErrorKind::BootstrapRequired => E::NotReady,
        D::Circuit(_) | D::Stream(_) => E::Unreachable,
        D::Directory(error) => classify_directory_response(error),
        // The descriptor requires flow control that the network does not use, or is expired or not yet
        // valid.
        D::ParameterMismatch(_) | D::OutsideValidityPeriod(_) => E::Invalid,
        D::Descriptor(error) => classify_document(error),
        D::Bug(_) => {
            log_bug(detail);
            E::Bug
        }
        _ => {
            log_unknown(detail);
            E::Bug
        }
    }
}

/// Classifies a failed request to a directory.
fn classify_directory_response(error: &RequestError) -> FetchError {
    use FetchError as E;
    use RequestError as R;
    match error {
        R::HttpStatus(404, _) => E::NotFound,
        R::HttpStatus(..) => E::Refused,
        R::DirTimeout => E::TimedOut,
        // No valid descriptor is that long or has that form.
        R::ResponseTooLong(_) | R::HeadersTooLong(_) | R::Utf8Encoding(_) => E::Invalid,
        R::TooMuchClockSkew => E::ClockSkewed,
        R::TruncatedHeaders
        | R::HttparseError(_)
        | R::ContentEncoding(_)
        | R::EmptyResponse
        | R::IoError(_)
        | R::Proto(_)
        | R::Tunnel(_) => E::Unreachable,
        R::HttpError(_) | R::EmptyRequest => {
            log_bug(error);
            E::Bug
        }
        _ => {
            log_unknown(error);
            E::Bug
        }
    }
}

/// Classifies the fault of a downloaded descriptor.
fn classify_document(error: &HsDescError) -> FetchError {
    use FetchError as E;
    use HsDescError as H;
    match error {
        H::MissingDecryptionKey => E::AuthMissing,
        H::WrongDecryptionKey => E::AuthWrong,
        // tor-netdoc has no variant for a descriptor without introduction points; the text identifies it.
        H::InnerParsing(cause)
            if cause.netdoc_error_kind() == NetdocErrorKind::MissingEntry
                && cause.to_string().contains("no introduction points") =>
        {
            E::NoIntroductionPoints
        }
        H::OuterParsing(_)
        | H::OuterValidation(_)
        | H::DecryptionFailed
        | H::InnerParsing(_)
        | H::InnerValidation(_) => E::Invalid,
        H::Bug(_) => {
            log_bug(error);
            E::Bug
        }
        _ => {
            log_unknown(error);
            E::Bug
        }
    }
}

/// Classifies the failure of a pair of introduction and rendezvous points.
fn classify_rendezvous(failed: &FailedAttemptError) -> RendezvousError {
    use FailedAttemptError as F;
    use RendezvousError as E;
    match failed {
        F::UnusableIntro { .. } => E::IntroductionPointUnusable,
        F::RendezvousCircuitObtain { .. } => E::NoRendezvousCircuit,
        F::RendezvousEstablishTimeout { .. } | F::RendezvousEstablish { .. } => E::NotEstablished,
        F::IntroductionCircuitObtain { error, .. }
            if error.kind() == ErrorKind::TorNetworkTimeout =>
        {
            E::IntroductionTimedOut
        }
        F::IntroductionCircuitObtain { .. } | F::IntroductionExchange { .. } => {
            E::IntroductionBroken
        }
        F::IntroductionFailed {
            intro_index,
            status: IntroduceAckStatus::NOT_RECOGNIZED,
        } => E::IntroductionRefused {
            point: intro_index.0,
        },
        // The introduction point failed to relay the message; the service may be up.
        F::IntroductionFailed { .. } => E::IntroductionBroken,
        F::IntroductionTimeout { .. } => E::IntroductionTimedOut,
        F::RendezvousCompletionTimeout { .. }
        | F::RendezvousCompletionCircuitError { .. }
        | F::RendezvousCompletionHandshake { .. } => E::NotCompleted,
        F::Bug(_) => {
            log_bug(failed);
            E::Bug
        }
        _ => {
            log_unknown(failed);
            E::Bug
        }
    }
}

/// Why a stream could not be opened on an existing circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamError {
    /// The remote end replied with END.
    Ended(Failure),
    /// The circuit was closed, before or while the stream was opened.
    CircuitGone,
    /// Any other failure.
    Failed(Failure),
}

impl StreamError {
    /// The failure to report to the client if nothing more is tried.
    pub(crate) fn failure(self) -> Failure {
        match self {
            StreamError::Ended(failure) | StreamError::Failed(failure) => failure,
            StreamError::CircuitGone => Failure::CircuitDestroyed,
        }
    }
}

/// Classifies the error of opening a stream on one of the circuit manager's tunnels.
pub(crate) fn classify_stream(error: &tor_circmgr::Error) -> StreamError {
    match error {
        tor_circmgr::Error::Protocol { error, .. } => classify_stream_protocol(error),
        other => StreamError::Failed(classify_exit_circuit(other)),
    }
}

/// Classifies the error that the reading half of a stream returns before the stream is open.
pub(crate) fn classify_stream_io(error: &std::io::Error) -> StreamError {
    let cause = error.get_ref().and_then(|e| e.downcast_ref::<ProtoError>());
    match cause {
        Some(cause) => classify_stream_protocol(cause),
        None => {
            tracing::debug!("stream failed: {error}");
            StreamError::Failed(Failure::StreamFailed)
        }
    }
}

/// Returns whether the error of an open stream's reading half is an ordinary end.
///
/// tor-proto treats DONE as end of file, but itself ends streams with MISC, and so do exits and services
/// built on it.
pub(crate) fn is_ordinary_end(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|e| e.downcast_ref::<ProtoError>());
    matches!(cause, Some(ProtoError::EndReceived(EndReason::MISC)))
}

/// Classifies the error of a stream.
pub(crate) fn classify_stream_protocol(error: &ProtoError) -> StreamError {
    match error {
        ProtoError::EndReceived(reason) => StreamError::Ended(classify_end(*reason)),
        ProtoError::CircuitClosed | ProtoError::ChannelClosed(_) | ProtoError::NotConnected => {
            StreamError::CircuitGone
        }
        // The exit's reply to RESOLVE. As in C tor, no other exit is tried.
        ProtoError::ResolveError(_) => StreamError::Failed(match error.kind() {
            ErrorKind::RemoteHostNotFound => Failure::NameNotResolved,
            // The exit failed to look the name up, which proves nothing about the name.
            _ => Failure::StreamFailed,
        }),
        ProtoError::BadStreamAddress | ProtoError::CellEncodeErr { .. } => {
            StreamError::Failed(Failure::DestinationInvalid)
        }
        ProtoError::StreamProto(_) | ProtoError::CircProto(_) => {
            StreamError::Failed(Failure::ProtocolViolation)
        }
        other => {
            tracing::debug!("stream failed: {}", other.report());
            StreamError::Failed(Failure::StreamFailed)
        }
    }
}

/// Classifies an END reason (tor-spec, "Closing streams").
fn classify_end(reason: EndReason) -> Failure {
    match reason {
        EndReason::RESOLVEFAILED => Failure::NameNotResolved,
        EndReason::CONNECTREFUSED => Failure::ConnectionRefused,
        EndReason::EXITPOLICY => Failure::ExitPolicyRefused,
        EndReason::DESTROY => Failure::CircuitDestroyed,
        EndReason::DONE => Failure::StreamClosed,
        EndReason::TIMEOUT => Failure::ConnectionTimedOut,
        EndReason::NOROUTE => Failure::NoRoute,
        EndReason::HIBERNATING => Failure::RelayHibernating,
        EndReason::INTERNAL => Failure::RelayInternal,
        EndReason::RESOURCELIMIT => Failure::RelayBusy,
        EndReason::CONNRESET => Failure::ConnectionReset,
        EndReason::TORPROTOCOL => Failure::ProtocolViolation,
        EndReason::NOTDIRECTORY => Failure::NotDirectory,
        // MISC, and reasons that the specification does not define.
        _ => Failure::StreamFailed,
    }
}

/// Classifies the error of building a circuit to an exit.
pub(crate) fn classify_exit_circuit(error: &tor_circmgr::Error) -> Failure {
    match error.kind() {
        // No relay fits the path. Guards and middle relays are always available, so the exit is missing.
        ErrorKind::NoExit | ErrorKind::NoPath => Failure::ExitPolicyRefused,
        ErrorKind::ClockSkew => Failure::ClockSkewed,
        ErrorKind::Internal => log_bug(error),
        _ => {
            tracing::debug!("no exit circuit: {}", error.report());
            Failure::NoCircuit
        }
    }
}

/// Logs an error that means a bug.
fn log_bug<E: Error + 'static>(error: &E) -> Failure {
    if let Some(times) = BUGS.due() {
        let (error, times) = (error.report(), Occurrences(times));
        tracing::warn!("internal error of the Tor client: {error}{times}");
    }
    Failure::Internal
}

/// Logs an error that no arm knows.
fn log_unknown<E: Error + 'static>(error: &E) -> Failure {
    if let Some(times) = UNKNOWN.due() {
        let (error, times) = (error.report(), Occurrences(times));
        tracing::warn!("unknown error of the Tor client: {error}{times}");
    }
    Failure::Internal
}

#[cfg(test)]
mod tests;
