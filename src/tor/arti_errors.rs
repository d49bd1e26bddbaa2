//! Errors of the Tor crates come in, facts of our own go out.
//!
//! All knowledge of upstream error types stands here, and nothing of it gets past. Most of their
//! enums are `non_exhaustive`; the one wildcard arm of each match logs what it did not know.

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

use super::verdict::{self, DescriptorClue, RendezvousClue};
use crate::failure::Failure;
use crate::log_limit::{LogLimiter, Occurrences};

/// How often an error is logged that the program should not meet: each request may meet it again.
static BUGS: LogLimiter = LogLimiter::burst(Duration::from_secs(60), BURST);
static UNKNOWN: LogLimiter = LogLimiter::burst(Duration::from_secs(60), BURST);
/// Tests look at each of many.
const BURST: u32 = if cfg!(test) { 1000 } else { 5 };

/// What one reported error of tor-hsclient says about the attempt it belongs to.
pub(crate) enum Clue {
    /// A directory gave no usable descriptor.
    Descriptor(DescriptorClue),
    /// A pair of introduction and rendezvous point failed.
    Rendezvous(RendezvousClue),
}

/// Reads the `error` field of an event; `None` for errors that sum up others.
pub(crate) fn clue_in_event(error: &(dyn Error + 'static)) -> Option<Clue> {
    if let Some(detail) = error.downcast_ref::<DescriptorErrorDetail>() {
        return Some(Clue::Descriptor(descriptor_clue(detail)));
    }
    if let Some(failed) = error.downcast_ref::<FailedAttemptError>() {
        return Some(Clue::Rendezvous(rendezvous_clue(failed)));
    }
    None
}

/// The outcome of an attempt that tor-hsclient gave up.
pub(crate) fn of_onion_attempt(error: &ConnError) -> Failure {
    match error {
        ConnError::InvalidHsId => Failure::AddressInvalid,
        ConnError::DescriptorDownload(tries) => {
            let clues: Vec<_> = tries
                .sources()
                .map(|t| descriptor_clue(&t.0.error))
                .collect();
            verdict::of_descriptor(&clues)
        }
        ConnError::Failed(tries) => {
            let clues: Vec<_> = tries.sources().map(rendezvous_clue).collect();
            verdict::of_rendezvous(&clues)
        }
        // No directory is there to have the descriptor.
        ConnError::NoHsDirs | ConnError::NoUsableHsDirs => Failure::DescriptorNotFound,
        ConnError::NoUsableIntroPoints => Failure::IntroductionFailed,
        ConnError::Spawn { .. } | ConnError::Bug(_) => bug(error),
        _ => unknown(error),
    }
}

/// What one failed descriptor fetch means.
fn descriptor_clue(detail: &DescriptorErrorDetail) -> DescriptorClue {
    use DescriptorClue as C;
    use DescriptorErrorDetail as D;
    match detail {
        D::Timeout => C::TimedOut,
        D::Circuit(error) if error.kind() == ErrorKind::BootstrapRequired => C::NotReady,
        D::Circuit(_) | D::Stream(_) => C::Unreachable,
        D::Directory(error) => directory_clue(error),
        // The descriptor asks for other flow control than the network has, or its time is over.
        D::ParameterMismatch(_) | D::OutsideValidityPeriod(_) => C::Invalid,
        D::Descriptor(error) => document_clue(error),
        D::Bug(_) => {
            bug(detail);
            C::Bug
        }
        _ => {
            unknown(detail);
            C::Bug
        }
    }
}

/// What a failed request to a directory means.
fn directory_clue(error: &RequestError) -> DescriptorClue {
    use DescriptorClue as C;
    use RequestError as R;
    match error {
        R::HttpStatus(404, _) => C::NotFound,
        R::HttpStatus(..) => C::Refused,
        R::DirTimeout => C::TimedOut,
        // Nobody's descriptor is that long or of that form.
        R::ResponseTooLong(_) | R::HeadersTooLong(_) | R::Utf8Encoding(_) => C::Invalid,
        R::TooMuchClockSkew => C::ClockSkewed,
        R::TruncatedHeaders
        | R::HttparseError(_)
        | R::ContentEncoding(_)
        | R::EmptyResponse
        | R::IoError(_)
        | R::Proto(_)
        | R::Tunnel(_) => C::Unreachable,
        R::HttpError(_) | R::EmptyRequest => {
            bug(error);
            C::Bug
        }
        _ => {
            unknown(error);
            C::Bug
        }
    }
}

/// What is wrong with a descriptor that arrived.
fn document_clue(error: &HsDescError) -> DescriptorClue {
    use DescriptorClue as C;
    use HsDescError as H;
    match error {
        H::MissingDecryptionKey => C::AuthMissing,
        H::WrongDecryptionKey => C::AuthWrong,
        // tor-netdoc has no error of its own for a descriptor without introduction points.
        H::InnerParsing(cause)
            if cause.netdoc_error_kind() == NetdocErrorKind::MissingEntry
                && cause.to_string().contains("no introduction points") =>
        {
            C::NoIntroductionPoints
        }
        H::OuterParsing(_)
        | H::OuterValidation(_)
        | H::DecryptionFailed
        | H::InnerParsing(_)
        | H::InnerValidation(_) => C::Invalid,
        H::Bug(_) => {
            bug(error);
            C::Bug
        }
        _ => {
            unknown(error);
            C::Bug
        }
    }
}

/// What one failed pair of introduction and rendezvous point means.
fn rendezvous_clue(failed: &FailedAttemptError) -> RendezvousClue {
    use FailedAttemptError as F;
    use RendezvousClue as C;
    match failed {
        F::UnusableIntro { .. } => C::IntroductionPointUnusable,
        F::RendezvousCircuitObtain { .. } => C::NoRendezvousCircuit,
        F::RendezvousEstablishTimeout { .. } | F::RendezvousEstablish { .. } => C::NotEstablished,
        F::IntroductionCircuitObtain { error, .. }
            if error.kind() == ErrorKind::TorNetworkTimeout =>
        {
            C::IntroductionTimedOut
        }
        F::IntroductionCircuitObtain { .. } | F::IntroductionExchange { .. } => {
            C::IntroductionBroken
        }
        F::IntroductionFailed {
            intro_index,
            status: IntroduceAckStatus::NOT_RECOGNIZED,
        } => C::IntroductionRefused {
            point: intro_index.0,
        },
        // It could not pass the introduction on: that says nothing of the service.
        F::IntroductionFailed { .. } => C::IntroductionBroken,
        F::IntroductionTimeout { .. } => C::IntroductionTimedOut,
        F::RendezvousCompletionTimeout { .. }
        | F::RendezvousCompletionCircuitError { .. }
        | F::RendezvousCompletionHandshake { .. } => C::NotCompleted,
        F::Bug(_) => {
            bug(failed);
            C::Bug
        }
        _ => {
            unknown(failed);
            C::Bug
        }
    }
}

/// Why a stream could not be opened on a circuit that was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamError {
    /// The far end answered with END.
    Ended(Failure),
    /// The circuit was gone, or went while we waited.
    CircuitGone,
    /// Anything else.
    Failed(Failure),
}

impl StreamError {
    /// What to tell the client if nothing more is tried.
    pub(crate) fn failure(self) -> Failure {
        match self {
            StreamError::Ended(failure) | StreamError::Failed(failure) => failure,
            StreamError::CircuitGone => Failure::CircuitDestroyed,
        }
    }
}

/// Reads the error of opening a stream through the circuit manager's types.
pub(crate) fn of_stream(error: &tor_circmgr::Error) -> StreamError {
    match error {
        tor_circmgr::Error::Protocol { error, .. } => of_stream_protocol(error),
        other => StreamError::Failed(of_exit_circuit(other)),
    }
}

/// Reads the error that a stream's reading half gave instead of opening.
pub(crate) fn of_stream_io(error: &std::io::Error) -> StreamError {
    let cause = error.get_ref().and_then(|e| e.downcast_ref::<ProtoError>());
    match cause {
        Some(cause) => of_stream_protocol(cause),
        None => {
            tracing::debug!("stream failed: {error}");
            StreamError::Failed(Failure::StreamFailed)
        }
    }
}

/// Whether the error of an open stream's reading half is an ordinary end. tor-proto takes DONE for one
/// itself, but ends streams of its own with MISC, as do the exits and services that are built on it.
pub(crate) fn is_ordinary_end(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|e| e.downcast_ref::<ProtoError>());
    matches!(cause, Some(ProtoError::EndReceived(EndReason::MISC)))
}

/// Reads the error of a stream.
pub(crate) fn of_stream_protocol(error: &ProtoError) -> StreamError {
    match error {
        ProtoError::EndReceived(reason) => StreamError::Ended(of_end(*reason)),
        ProtoError::CircuitClosed | ProtoError::ChannelClosed(_) | ProtoError::NotConnected => {
            StreamError::CircuitGone
        }
        // The exit's answer to RESOLVE. Like C tor, nobody else is asked.
        ProtoError::ResolveError(_) => StreamError::Failed(match error.kind() {
            ErrorKind::RemoteHostNotFound => Failure::NameNotResolved,
            // The exit could not find out: it says nothing about the name.
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

/// Reads an END reason (tor-spec, "Closing streams").
fn of_end(reason: EndReason) -> Failure {
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
        // MISC, and reasons of later versions of the protocol.
        _ => Failure::StreamFailed,
    }
}

/// Why no circuit to an exit could be had.
pub(crate) fn of_exit_circuit(error: &tor_circmgr::Error) -> Failure {
    match error.kind() {
        // No relay fits: with guards and middle relays at hand, it is the exit that is missing.
        ErrorKind::NoExit | ErrorKind::NoPath => Failure::ExitPolicyRefused,
        ErrorKind::ClockSkew => Failure::ClockSkewed,
        ErrorKind::Internal => bug(error),
        _ => {
            tracing::debug!("no exit circuit: {}", error.report());
            Failure::NoCircuit
        }
    }
}

/// Reports an error that means a bug.
fn bug<E: Error + 'static>(error: &E) -> Failure {
    if let Some(times) = BUGS.due() {
        let (error, times) = (error.report(), Occurrences(times));
        tracing::warn!("internal error of the Tor client: {error}{times}");
    }
    Failure::Internal
}

/// Reports an error that this version of the program does not know.
fn unknown<E: Error + 'static>(error: &E) -> Failure {
    if let Some(times) = UNKNOWN.due() {
        let (error, times) = (error.report(), Occurrences(times));
        tracing::warn!("unknown error of the Tor client: {error}{times}");
    }
    Failure::Internal
}

#[cfg(test)]
mod tests;
