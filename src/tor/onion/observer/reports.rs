//! Emits the spans, messages and errors that tor-hsclient emits during a call, for tests.
//!
//! The tests in [`crate::tor::upstream_tests`] compare them with tor-hsclient's source.

use std::sync::Arc;

use tor_cell::relaycell::hs::IntroduceAckStatus;
use tor_dirclient::RequestError;
use tor_hsclient::{DescriptorErrorDetail, FailedAttemptError};
use tracing::{debug, trace_span};
use tracing_subscriber::prelude::*;

use super::{CALL, CallObserver, TaskRole, layer};

/// One span or event of tor-hsclient.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "only tests create them, and only a few"
)]
pub(crate) enum HsReport {
    LooksForDescriptor,
    FetchesDescriptor,
    NotFound,
    Directory(Box<DescriptorErrorDetail>),
    EstablishesRendezvous,
    /// Counted from zero, as everywhere in the program; the messages count from one.
    SelectsPoint(usize),
    SolvesPuzzle,
    Introduces(usize),
    Acknowledged(usize),
    Refused(usize),
    TimedOut(usize),
}

/// Emits reports as the task that does the work of a call.
pub(crate) fn report(observer: &Arc<CallObserver>, reports: impl IntoIterator<Item = HsReport>) {
    let subscriber = tracing_subscriber::registry().with(layer());
    let worker = TaskRole::Worker(Arc::clone(observer));
    tracing::subscriber::with_default(subscriber, || {
        CALL.sync_scope(worker, || reports.into_iter().for_each(emit));
    });
}

/// Returns the observer of a call with these reports.
pub(crate) fn observer(reports: impl IntoIterator<Item = HsReport>) -> Arc<CallObserver> {
    let observer = CallObserver::new(None);
    report(&observer, reports);
    observer
}

/// Emits a report as the running task.
pub(super) fn emit(report: HsReport) {
    macro_rules! span {
        ($name:literal) => {
            drop(trace_span!(target: "tor_hsclient::connect", $name))
        };
    }
    macro_rules! event {
        ($($arg:tt)*) => {
            debug!(target: "tor_hsclient::connect", $($arg)*)
        };
    }
    macro_rules! failed {
        ($error:expr) => {
            event!(error = &$error as &dyn std::error::Error, "attempt failed")
        };
    }
    // The `Display` format of `IntroPtIndex`, a type that its crate does not export.
    let index = |point: usize| format!("#{}", point + 1);
    match report {
        HsReport::LooksForDescriptor => span!("descriptor_ensure"),
        HsReport::FetchesDescriptor => span!("descriptor_fetch_attempt"),
        HsReport::NotFound => {
            let error = RequestError::HttpStatus(404, "Not found".to_owned());
            failed!(DescriptorErrorDetail::Directory(error));
        }
        HsReport::Directory(error) => failed!(*error),
        HsReport::EstablishesRendezvous => span!("establish_rendezvous"),
        HsReport::SelectsPoint(point) => {
            let point = index(point);
            event!("hs conn to {}: IPT {}: obtaining intro circuit", "…", point);
        }
        HsReport::SolvesPuzzle => {
            debug!(target: "tor_hsclient::pow::v1", "beginning solve, {:?}", 3);
        }
        HsReport::Introduces(point) => {
            span!("exchange_introduce");
            let point = index(point);
            event!(
                "hs conn to {}: RPT {} IPT {}: making introduction",
                "…",
                "…",
                point
            );
        }
        HsReport::Acknowledged(point) => {
            let point = index(point);
            event!(
                "hs conn to {}: RPT {} IPT {}: awaiting rendezvous completion",
                "…",
                "…",
                point
            );
        }
        HsReport::Refused(point) => failed!(FailedAttemptError::IntroductionFailed {
            status: IntroduceAckStatus::NOT_RECOGNIZED,
            intro_index: point.into(),
        }),
        HsReport::TimedOut(point) => failed!(FailedAttemptError::IntroductionTimeout {
            intro_index: point.into(),
        }),
    }
}
